//! How much memory there is for what.

/// The size of a read buffer, in bytes.
///
/// Below 64 KiB the system calls begin to show at 64-byte messages; above, nothing is gained.
pub(crate) const BUFFER: usize = 64 * 1024;

/// What a message takes at least while it waits for the sink, in bytes: its row or line, and the work
/// with it. Counting only its bytes would let sixteen thousand empty messages pass for nothing.
pub(crate) const MESSAGE: usize = 64;

/// What messages that were read together take besides their bytes, in bytes.
pub(super) const BATCH: usize = 256;

/// Messages of up to how many bytes may grow until so many sixteenths of the memory are held for peers.
pub(super) const SHARES: [(usize, usize); 6] = [
    (4 << 10, 14),
    (16 << 10, 13),
    (64 << 10, 12),
    (256 << 10, 11),
    (1 << 20, 10),
    (usize::MAX, 8),
];

/// The least that may be held before readers wait, in bytes: enough for a read buffer in each share.
pub(super) const LEAST_LIMIT: usize = 16 * BUFFER;

/// How many bytes may always lie idle: each thread that reads needs a buffer, and so does each batch on
/// its way to a sink.
pub(super) const LEAST_IDLE: usize = 32 * BUFFER;

/// Returns the index of the share that a message of `len` bytes belongs to.
pub(super) fn share_of(len: usize) -> usize {
    SHARES.partition_point(|(longest, _)| *longest < len)
}
