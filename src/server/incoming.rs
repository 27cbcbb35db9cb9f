//! The source of a server's connections.

use std::fmt;
use std::io;
use std::pin::Pin;

use futures_lite::stream::Fuse;
use futures_lite::{Stream, StreamExt};

use crate::net::byte_stream::{ByteStream, Peer};
use crate::net::listener::{Listener, ResettingListener};

type Accepted = io::Result<(ByteStream, Peer)>;

/// The source of a server's connections, before it runs.
pub(crate) enum Incoming {
    Listener(Listener),
    Streams(Pin<Box<dyn Stream<Item = Accepted> + Send>>),
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Incoming::Listener(listener) => listener.fmt(f),
            Incoming::Streams(_) => f.write_str("Streams"),
        }
    }
}

/// The source of connections of a running server.
pub(crate) enum Accepting {
    Listener(ResettingListener),
    Streams(Fuse<Pin<Box<dyn Stream<Item = Accepted> + Send>>>),
}

impl Incoming {
    pub(crate) fn accept(self) -> io::Result<Accepting> {
        Ok(match self {
            Incoming::Listener(listener) => Accepting::Listener(ResettingListener::new(listener)?),
            // Once it has ended, it must not be asked again.
            Incoming::Streams(streams) => Accepting::Streams(streams.fuse()),
        })
    }
}

impl Accepting {
    /// Accepts the next connection; `None` if no more follow.
    pub(crate) async fn next(&mut self) -> Option<Accepted> {
        match self {
            Accepting::Listener(listener) => Some(listener.accept().await),
            Accepting::Streams(streams) => streams.next().await,
        }
    }
}
