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
//! Three layers, each of which knows only those above it in this list:
//!
//! - The *wire* is pure: [`Layout`] writes and reads prefixes, [`ProtocolError`] says what is wrong
//!   with one, and [`Suspect`] what it most likely is instead. [`Hello`] and [`Answer`] are how a client
//!   asks for acknowledgements and gets them.
//! - The *stream* is asynchronous: [`FrameReader`], [`FrameWriter`] and [`Framed`], over anything that
//!   implements the traits [`AsyncRead`](futures_lite::AsyncRead) and [`AsyncWrite`](futures_lite::AsyncWrite).
//! - The *program* runs on smol: [`serve`] puts the messages of many connections into a [`Sink`],
//!   [`Client`] sends them and awaits replies, [`AckClient`] sends until they are committed, [`Address`] says where.
//!   [`Composer`] and [`OutputSink`] turn messages from and into text.
//!
//! The binary `framelet` is a command line on top of these and uses nothing else.

#![warn(clippy::unwrap_used)]

mod client;
mod format;
mod message;
mod net;
mod server;
mod sink;
mod stream;
mod wire;

pub use client::ack_client::{AckClient, AckProgress};
pub use client::ack_error::{AckError, AnswerError};
pub use client::ack_options::AckOptions;
pub use client::client::{Client, FinishError, RequestError};
pub use client::window::CountFault;
pub use format::input::{Composer, InputError, InputFault};
pub use format::names::{InputFormat, OutputFormat, ParseFormatError};
pub use format::standard_streams::PatientFile;
pub use message::{Batch, Message, Origin};
pub use net::address::{Address, ParseAddressError};
pub use net::backoff::Backoff;
pub use net::byte_stream::{ByteStream, Peer};
pub use net::listener::Listener;
pub use server::error::ServeError;
pub use server::handler::{Echo, Handler, HandlerError, IntoReplies, Reply, Request};
pub use server::reopen::Reopen;
pub use server::server::{Server, Summary};
pub use sink::message_sink::{Sink, SinkError};
pub use sink::target::{ParsePlaceError, Place};
pub use sink::{FileSink, FileSync, OutputSink, ParseFileSyncError, RedisSink, SqliteSink};
pub use stream::error::{ReadError, WriteError};
pub use stream::framed::Framed;
pub use stream::payloads::Payloads;
pub use stream::reader::FrameReader;
pub use stream::writer::FrameWriter;
pub use wire::ack::{Answer, Hello, NoAnswer, Opening, Refusal, RefusalCode, UnfitLayout};
pub use wire::count::Count;
pub use wire::diagnosis::Suspect;
pub use wire::error::{Fault, Position, ProtocolError};
pub use wire::escape::{Escaped, WithoutPassword};
pub use wire::frame::append_frame;
pub use wire::io_error::Plain;
pub use wire::layout::{
    DEFAULT_MAX_MESSAGE, Decoded, Layout, LimitError, MAX_PAYLOAD, Malformed, ParseLayoutError,
    Prefix, TooLong,
};
pub use wire::sender_id::{ParseSenderIdError, SenderId};

/// The examples of the README, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
