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
//! - The *stream* is asynchronous: [`FrameReader`] and [`FrameWriter`], over anything that implements
//!   the traits [`AsyncRead`](futures_lite::AsyncRead) and [`AsyncWrite`](futures_lite::AsyncWrite).
//! - The *program* runs on smol: [`serve`] puts the messages of many connections into a [`Sink`],
//!   [`Client`] sends them, [`AckClient`] until they are committed, [`Address`] says where.
//!   [`Composer`] and [`OutputSink`] turn messages from and into text.
//!
//! The binary `framelet` is a command line on top of these and uses nothing else.

#![warn(clippy::unwrap_used)]

// Wire.
mod acks; // the hello and its answers
mod count; // numbers with what they count
mod diagnosis; // what an impossible prefix most likely is
mod error;
mod escape; // text that is safe to show
mod layout; // how a prefix is written
mod sender; // who sends, across reconnections
mod window; // what is sent and not acknowledged

// Stream.
mod payloads; // messages that were read together
mod pool; // all memory that holds received bytes
mod reader; // from bytes to messages
mod source; // what the reader reads from
mod writer; // from messages to bytes

// Program.
mod ack_client; // sends until everything is committed
mod acknowledger; // the server's side of that
mod address;
mod backoff; // how long to wait between two attempts
mod client;
mod connection; // one connection of the server
mod file; // the standard streams
mod format; // messages as text or bytes outside the wire
mod net; // addresses and sockets
mod options; // of the server
mod pace; // of messages whose memory others wait for
mod rate_limited_log; // lines that peers cause
mod senders; // over which connection each sender sends
mod server; // accepts, and ends in good order
mod sink; // where messages go
mod sweep; // time limits
mod sync; // what a model checker replaces
mod watch; // what a connection waits for

pub use ack_client::{AckClient, AckError, AckOptions, AckProgress};
pub use acks::{Answer, Hello, NoAnswer, Opening, Refusal, RefusalCode, UnfitLayout};
pub use address::{Address, ParseAddressError};
pub use backoff::Backoff;
pub use client::{Client, FinishError};
pub use count::Count;
pub use diagnosis::Suspect;
pub use error::{Fault, Plain, Position, ProtocolError, ReadError};
pub use escape::{Escaped, WithoutPassword};
pub use file::PatientFile;
pub use format::{Composer, InputError, InputFault, InputFormat, OutputFormat, ParseFormatError};
pub use layout::{
    DEFAULT_MAX_MESSAGE, Decoded, Layout, LimitError, MAX_PAYLOAD, Malformed, ParseLayoutError,
    Prefix, TooLong,
};
pub use net::{Listener, Peer, Socket};
pub use options::{Reopen, ServeError, ServeOptions};
pub use payloads::Payloads;
pub use reader::FrameReader;
pub use sender::{ParseSenderIdError, SenderId};
pub use server::{Summary, serve};
pub use sink::{
    Batch, FileSink, FileSync, Message, OutputSink, ParseFileSyncError, ParsePlaceError, Place,
    RedisSink, Sink, SinkError, SqliteSink,
};
pub use window::CountFault;
pub use writer::{FrameWriter, WriteError, append_frame};

/// The examples of the README, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
