//! Receives messages over many connections, puts them into a sink, and answers them.

mod accept; // gives each connection a task of its own
mod ack_session; // for a client that asks for acknowledgements
mod ack_state; // how far such a client has come, and the way to tell it
mod active_senders; // over which connection each sender sends
mod adaptive_spin; // when the writer thread busy-waits
mod commit_queue; // to the writer thread
mod connection; // one connection, from its first byte to its end
mod connection_state; // what a connection waits for, and what it is told
mod deadlines; // time limits
pub(crate) mod error;
pub(crate) mod handler; // what answers messages
mod incoming; // where connections come from
mod known_senders; // how far each sender has come
mod open_connection; // a connection, as the rest of the server sees it
mod options;
mod outcome; // how a connection ends, and what the log says of it
mod pace; // of messages whose memory others wait for
mod patience; // what passes is waited for
mod pipeline; // requests that are being answered
mod rate_limited_log; // lines that peers cause
pub(crate) mod reopen;
#[allow(clippy::module_inception)]
pub(crate) mod server; // from the first connection to an orderly end
mod shared; // what all connections share
mod sync; // what a model checker replaces
mod turns; // what is committed together
mod upgrade; // what is done before the first byte is read
mod writer_thread; // the thread that a sink runs on

pub use error::ServeError;
pub use handler::{Echo, Handler, HandlerError, IntoReplies, Reply, Request};
pub use reopen::Reopen;
pub use server::{Server, Summary};
