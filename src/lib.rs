//! Whole messages over TCP.
//!
//! TCP delivers a stream of bytes, not messages: one `read` may return half a message, or three. framelet
//! sends the length of each message before it; the receiver reads the length, then exactly that many bytes.
//! **Messages arrive whole and in order; with acknowledgements and a database, exactly once. Errors say
//! what is wrong, where, and what to do.**
//!
//! ```text
//!   the bytes "hello" and an empty message, as u32be frames:
//!
//!   ┌─────────────┬────────────────┬─────────────┐
//!   │ 00 00 00 05 │ 68 65 6c 6c 6f │ 00 00 00 00 │
//!   └─────────────┴────────────────┴─────────────┘
//!    prefix        payload          prefix
//! ```
//!
//! # Examples
//!
//! ```
//! use framelet::{FrameReader, FrameWriter};
//! use smol::net::{TcpListener, TcpStream};
//!
//! # smol::block_on(async {
//! let listener = TcpListener::bind("127.0.0.1:0").await?;
//! let mut writer = FrameWriter::new(TcpStream::connect(listener.local_addr()?).await?);
//! let mut reader = FrameReader::new(listener.accept().await?.0);
//!
//! writer.send(b"hello").await?;
//! writer.close().await?;
//! assert_eq!(reader.read().await?, Some(b"hello".to_vec()));
//! assert_eq!(reader.read().await?, None);
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! # Layout
//!
//! Each module uses only those below it in this list:
//!
//! - [`server`] receives messages, and stores or answers them: [`Server`].
//! - [`sink`] stores a server's messages: in a file, SQLite, Redis, or a [`MessageSink`](sink::MessageSink) of
//!   your own.
//! - [`client`] sends messages: [`Client`] awaits replies, [`AckClient`] resends until all are committed.
//! - [`tls`] encrypts connections: [`TlsAcceptor`](tls::TlsAcceptor) and [`TlsConnector`](tls::TlsConnector).
//! - [`mod@format`] converts messages to and from text.
//! - [`message`] has the received [`Message`] with its origin, and the [`Batch`].
//! - [`stream`] is asynchronous: [`FrameReader`], [`FrameWriter`] and [`Framed`], over anything that implements
//!   [`AsyncRead`](futures_lite::AsyncRead) and [`AsyncWrite`](futures_lite::AsyncWrite).
//! - [`net`] has addresses and sockets: [`Address`].
//! - [`wire`] is pure, with no input or output: a [`Layout`] writes and reads prefixes,
//!   [`ProtocolError`](wire::ProtocolError) says what is wrong with a stream, and [`Hello`](wire::Hello) and
//!   [`Answer`](wire::Answer) are how a client asks for acknowledgements and gets them.
//!
//! The [guide] covers one task at a time. The program `framelet` is a command line built on these modules
//! alone.
//!
//! # Features
//!
//! `sqlite` (default) and `redis` add the sinks of these names; without the feature, opening the sink
//! returns an error that says so. `tls` (default) does the same for [`tls`]. `detect` (default) adds which layout a
//! stream is in to the errors of one that does not fit. `cli`, `bench`, `generate`, `metrics` and `progress`
//! (default) are for the program; turn them off to build only the library.

#![warn(clippy::unwrap_used)]

pub mod client;
pub mod format;
pub mod message;
pub mod net;
mod runtime;
pub mod server;
pub mod sink;
pub mod stream;
// The only place that checks whether this build has the feature.
#[cfg(feature = "tls")]
pub mod tls;
#[cfg(not(feature = "tls"))]
#[path = "tls/none.rs"]
pub mod tls;
pub mod wire;

/// Claims about parts that are not public, for fuzzers.
#[cfg(fuzzing)]
pub mod claims {
    pub use crate::client::claims::client;
    pub use crate::server::claims::connection;
    pub use crate::server::claims::proxy::proxy;
}

pub use client::{AckClient, Client};
pub use message::{Batch, Message};
pub use net::Address;
pub use server::Server;
pub use stream::{FrameReader, FrameWriter, Framed};
pub use wire::Layout;

#[doc = include_str!("../docs/library.md")]
pub mod guide {}
