//! Receives messages over many connections, and stores or answers them.

mod accept; // gives each connection a task of its own
mod ack_session; // for a client that asks for acknowledgements
mod ack_state; // its progress, and the channel for its acknowledgements
mod active_senders; // the current connection of each sender
mod adaptive_spin; // when the writer thread busy-waits
mod addresses; // which peers may connect, and how often
mod answers; // receives requests and answers them
#[cfg(any(test, fuzzing))]
pub mod claims; // what holds for every connection
mod commit_counts; // figures of the writer thread
mod commit_queue; // bounded queue to the writer thread
mod connection; // one connection, from its first byte to its end
mod connection_state; // what a connection waits for, and signals to it
mod deadlines; // time limits
mod echo; // passes messages on, and echoes them
pub(crate) mod error;
mod eviction; // which idle connection gives way to another one
pub(crate) mod figures; // what a server has done and does now
pub(crate) mod handler; // what answers messages
mod incoming; // where connections come from
mod known_senders; // how many messages of each sender are committed
mod open_connection; // a connection, as the rest of the server sees it
mod options;
mod outcome; // how a connection ends, and what the log says of it
mod pace; // minimum speed while others wait for memory
mod patience; // waits out transient errors
mod pipeline; // requests that are being answered
mod pruning; // removing what the sink need not keep
mod rate_limited_log; // log lines that a peer can trigger
mod receiver; // receives messages, within time limits
pub(crate) mod reopen;
pub(crate) mod run; // from the first connection to a graceful shutdown
#[allow(clippy::module_inception)]
pub(crate) mod server; // a server, and what it is told before it runs
mod shared; // what all connections share
mod sync; // types that a model checker replaces
mod turns; // what one commit contains
mod upgrade; // work before the first byte is read, such as TLS
mod writer_thread; // the thread that a sink runs on

pub use error::ServeError;
pub use figures::{CommitTimes, Figures, Incident, Monitor, SinkFigures, Stage, Trouble};
pub use handler::{Echo, Handler, HandlerError, IntoReplies, Reply, Request};
pub use reopen::Reopen;
pub use run::Summary;
pub use server::Server;
