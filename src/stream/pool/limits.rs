//! The limits of the pool, and how they are divided.

/// The size of a read buffer, in bytes.
///
/// Measured: below 64 KiB, system calls become noticeable with 64-byte messages; more gains nothing.
pub(crate) const BUFFER: usize = 64 * 1024;

/// What a message costs at least while it waits for the sink, in bytes: its row or line, and the work on
/// it. Without this, sixteen thousand empty messages would count as nothing.
pub(crate) const MESSAGE: usize = 64;

/// The overhead of messages that were read together, in bytes.
pub(super) const BATCH: usize = 256;

/// For each size of message, in bytes: it may grow until this many sixteenths of the limit are held for
/// peers.
pub(super) const SHARES: [(usize, usize); 6] = [
    (4 << 10, 14),
    (16 << 10, 13),
    (64 << 10, 12),
    (256 << 10, 11),
    (1 << 20, 10),
    (usize::MAX, 8),
];

/// The smallest limit, in bytes: enough for a read buffer in each share.
pub(super) const LEAST_LIMIT: usize = 16 * BUFFER;

/// How many bytes may be idle at any time: each reading thread needs a buffer, and so does each batch on
/// its way to a sink.
pub(super) const LEAST_IDLE: usize = 32 * BUFFER;

/// Returns the index of the share that a message of `len` bytes belongs to.
pub(super) fn share_of(len: usize) -> usize {
    SHARES.partition_point(|(longest, _)| *longest < len)
}
