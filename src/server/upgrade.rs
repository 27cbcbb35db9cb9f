//! Work on a new connection before its first byte is read, such as a TLS handshake.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use crate::net::byte_stream::ByteStream;

type Upgrading = Pin<Box<dyn Future<Output = io::Result<ByteStream>> + Send>>;

/// Turns the accepted stream into the one that carries messages.
#[derive(Clone)]
pub(crate) struct Upgrade(Arc<dyn Fn(ByteStream) -> Upgrading + Send + Sync>);

impl Upgrade {
    pub(crate) fn new<F, Fut, S>(upgrade: F) -> Upgrade
    where
        F: Fn(ByteStream) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<S>> + Send + 'static,
        S: futures_lite::AsyncRead + futures_lite::AsyncWrite + Send + 'static,
    {
        Upgrade(Arc::new(move |stream| {
            let below = stream.clone();
            let upgrading = upgrade(stream);
            Box::pin(async move { Ok(ByteStream::over(upgrading.await?, Some(below))) })
        }))
    }

    pub(crate) fn begin(&self, stream: ByteStream) -> Upgrading {
        (self.0)(stream)
    }
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Upgrade")
    }
}
