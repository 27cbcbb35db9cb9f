//! All memory that holds received bytes: lent to readers while there are bytes to hold, counted,
//! and bounded.
//!
//! A connection that waits for its peer owns no buffer: it borrows one for the time of a read and
//! gives it back at once where there was nothing to read. So ten thousand idle connections share a
//! few buffers.
//!
//! Every byte that is held while a task waits is counted, by what it is held for:
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
//! - *For a peer*: part of a message whose rest has yet to come, or replies that are not taken. Only the
//!   peer can end that, and it may never do so. The longer a message is, the smaller is the share of the
//!   memory in which it may grow: so shorter ones get through beside any number of longer ones that stall.
//! - *For the sink*: whole messages. The sink ends that, as fast as it can.
//!
//! A message of up to 64 KiB whose rest has arrived in the kernel does not wait for a share: it will be whole
//! at once. So even if each share is full of messages that stall, those that come whole get through.
//!
//! Payloads that are incomplete can wait for each other, so one of them at a time may go over the
//! limit (the *overdraft*); the space it may need is set aside from the start.
//!
//! Buffers that are dropped lie *idle* for the next reader, within the same limit, until they are found
//! not to be needed ([`Pool::trim`]). Those of 64 KiB and more are pages of their own, so that the system
//! has them again then.

mod buffer; // from the allocator or straight from the system
mod idle; // what nobody uses just now
mod limits; // how much there is for what
mod line; // readers that wait for room
#[allow(clippy::module_inception)]
mod pool; // what is held, and who waits for it
mod pooled_bytes; // a buffer on loan

pub(crate) use buffer::Buffer;
pub(crate) use limits::BUFFER;
pub(crate) use line::Place;
pub(crate) use pool::{Charge, HeldForPeer, Pool};
pub(crate) use pooled_bytes::PooledBytes;

#[cfg(test)]
mod tests;
