//! Whole messages over TCP.
//!
//! TCP delivers a stream of bytes, not messages: one `read` may return half a message or three of
//! them. framelet puts a length in front of each message, and the other side reads the length and then
//! exactly that many bytes. **Messages arrive whole and in order; with acknowledgements and a database,
//! exactly once. And when something is wrong, you are told what, where, and what to do.**
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
//! - [`server`] answers messages and collects them: [`Server`].
//! - [`sink`] is where a server puts messages: a file, SQLite, Redis, or a [`MessageSink`](sink::MessageSink) of
//!   your own.
//! - [`client`] sends: [`Client`] awaits replies, [`AckClient`] sends until everything is committed.
//! - [`mod@format`] turns messages from and into text.
//! - [`message`] has a [`Message`] with where it came from, and a [`Batch`] of them.
//! - [`stream`] is asynchronous: [`FrameReader`], [`FrameWriter`] and [`Framed`], over anything that implements
//!   [`AsyncRead`](futures_lite::AsyncRead) and [`AsyncWrite`](futures_lite::AsyncWrite).
//! - [`net`] is where to connect and to listen: [`Address`], and the sockets.
//! - [`wire`] is pure, with no input or output: a [`Layout`] writes and reads prefixes,
//!   [`ProtocolError`](wire::ProtocolError) says what is wrong with one, and [`Hello`](wire::Hello) and
//!   [`Answer`](wire::Answer) are how a client asks for acknowledgements and gets them.
//!
//! The [guide] goes through the tasks one by one. The program `framelet` is a command line on top of these
//! modules and uses nothing else.
//!
//! # Features
//!
//! `sqlite` (default) and `redis` are the sinks of these names; without them, their types exist and say so when
//! they are opened. `cli`, `bench` and `progress` (default) are the program: build the library without them.

#![warn(clippy::unwrap_used)]

pub mod client;
pub mod format;
pub mod message;
pub mod net;
pub mod server;
pub mod sink;
pub mod stream;
pub mod wire;

pub use client::{AckClient, Client};
pub use message::{Batch, Message};
pub use net::Address;
pub use server::Server;
pub use stream::{FrameReader, FrameWriter, Framed};
pub use wire::Layout;

#[doc = include_str!("../docs/library.md")]
pub mod guide {}
