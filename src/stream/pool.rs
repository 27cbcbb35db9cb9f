//! All memory that holds received bytes: lent to readers while they have bytes to hold, counted, and
//! bounded.
//!
//! A connection that waits for its peer owns no buffer: it borrows one for a read and returns it at once if
//! there was nothing to read. So ten thousand idle connections share a few buffers.
//!
//! Every byte that is held while a task waits is counted, by what it waits for:
//!
//! ```text
//!   0                  8/16      10    11    12    13    14    16/16 of the limit
//!   ├───────────────────┼─────────┼─────┼─────┼─────┼─────┼─────┤
//!   │ held for peers ───┤ messages of more than 1 MiB stop growing here
//!   │                   └─────────┤ … more than 256 KiB
//!   │                             └─────┤ … more than 64 KiB
//!   │                                   └─────┤ … more than 16 KiB
//!   │                                         └─────┤ … more than 4 KiB
//!   │                                               └─────┤ all others
//!   │ held for the sink ────────────────────────────────────────┤ nothing more is read
//! ```
//!
//! - *For a peer*: part of a message whose rest has not arrived, or replies that the peer has not taken.
//!   Only the peer can end that wait, and it may never do so. The longer a message is, the smaller is the
//!   share of memory in which it may grow: so shorter messages get through beside any number of stalled
//!   longer ones.
//! - *For the sink*: whole messages. The sink commits them as fast as it can.
//!
//! A message of up to 64 KiB whose rest is already in the kernel needs no share: it will be whole at once.
//! So even if every share is full of stalled messages, those that arrive whole get through.
//!
//! Incomplete payloads could wait for each other forever, so one at a time may exceed the limit (the
//! *overdraft*). The memory it may need is set aside from the start.
//!
//! Dropped buffers stay *idle* for the next reader, within the same limit, until they are no longer needed
//! ([`Pool::trim`]). Buffers of 64 KiB and more are separate memory mappings, so that trimming returns them
//! to the system.

mod buffer; // memory from the allocator or from the system
mod idle; // unused buffers, kept for reuse
mod limits; // the limits, and how they are divided
mod line; // readers waiting for room
#[allow(clippy::module_inception)]
mod pool; // the counts, and who waits for memory
mod pooled_bytes; // a borrowed buffer

pub(crate) use buffer::Buffer;
pub(crate) use limits::BUFFER;
pub(crate) use line::Place;
pub(crate) use pool::{Charge, HeldForPeer, Pool};
pub(crate) use pooled_bytes::PooledBytes;

#[cfg(test)]
mod tests;
