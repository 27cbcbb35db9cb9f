//! Receives messages over many connections.

pub(crate) mod accept; // accepts, and ends in good order
pub(crate) mod acknowledger; // tells them
mod commit_queue; // to the writer thread
mod connection; // one connection
pub(crate) mod connection_state; // what a connection waits for
mod deadlines; // time limits
mod linger; // when the writer thread stays awake
pub(crate) mod options;
mod patience; // what passes is waited for
mod rate_limited_log; // lines that peers cause
mod seen; // how far each sender has come
mod senders; // over which connection each sender sends
mod sync; // what a model checker replaces
mod turns; // what is committed together
mod writer_thread; // the thread that a sink runs on
