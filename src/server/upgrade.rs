//! Work on a new connection before its first byte is read, such as a TLS handshake.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use crate::net::byte_stream::{ByteStream, Part};
use crate::tls::{Accepted, TlsAcceptor};

type Upgrading = Pin<Box<dyn Future<Output = io::Result<Accepted>> + Send>>;

/// Turns the accepted stream into the one that carries messages.
#[derive(Clone)]
pub(crate) struct Upgrade {
    /// What it is, for the log.
    pub(crate) name: &'static str,
    begin: Arc<dyn Fn(ByteStream) -> Upgrading + Send + Sync>,
}

impl Upgrade {
    pub(crate) fn new<F, Fut, S>(upgrade: F) -> Upgrade
    where
        F: Fn(ByteStream) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<S>> + Send + 'static,
        S: futures_lite::AsyncRead + futures_lite::AsyncWrite + Send + 'static,
    {
        let begin = move |stream: ByteStream| -> Upgrading {
            let below = stream.clone();
            let upgrading = upgrade(stream);
            Box::pin(async move {
                let stream = ByteStream::over(upgrading.await?, Some(below), Part::default());
                Ok(Accepted { stream, peer: None, senders: None })
            })
        };
        Upgrade { name: "setup", begin: Arc::new(begin) }
    }

    pub(crate) fn tls(acceptor: TlsAcceptor) -> Upgrade {
        let begin = move |stream: ByteStream| -> Upgrading {
            let acceptor = acceptor.clone();
            Box::pin(async move { acceptor.accept_client(stream).await })
        };
        Upgrade { name: "TLS handshake", begin: Arc::new(begin) }
    }

    pub(crate) fn begin(&self, stream: ByteStream) -> Upgrading {
        (self.begin)(stream)
    }
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Upgrade")
    }
}
