//! A borrowed buffer, and the bytes held in it.

use std::fmt;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use event_listener::EventListener;

use super::buffer::{Buffer, Supply};
use super::limits::{BATCH, BUFFER, MESSAGE, share_of};
use super::pool::{FOR_PEER, FOR_SINK, NOBODY, Pool, poll_until};

/// The least that a growing payload gets, in bytes. Small, because thousands of peers may announce long
/// messages and send next to nothing.
const FIRST_STEP: usize = 256;

/// A borrowed buffer, and the bytes held in it.
pub(crate) struct PooledBytes {
    /// Bytes after `len` are left over from other connections' messages and must never be exposed.
    bytes: Buffer,
    len: usize,
    /// How many bytes are counted in the pool for this buffer.
    counted: usize,
    /// Whether they are counted as held for a peer.
    for_peer: bool,
    overdraft: bool,
    /// Whether the rest of the message has already arrived in the kernel, so that no peer is waited for.
    admitted: bool,
    /// Whether it waits for memory that is held for other peers.
    starves: bool,
    pool: Pool,
}

impl Pool {
    /// Takes a read buffer of [`BUFFER`] bytes, or returns `None` if there is no room: then the reader must
    /// only read into memory that it already has.
    pub(crate) fn try_read_buffer(&self) -> Option<PooledBytes> {
        (!self.is_crowded() && self.has_room()).then(|| {
            let idle = self.with_idle(|idle| idle.take(BUFFER));
            self.lend(idle.unwrap_or_else(|| Buffer::new(BUFFER, self.supply(BUFFER))))
        })
    }

    /// Lends a buffer and counts it, even over the limit.
    pub(crate) fn lend(&self, bytes: Buffer) -> PooledBytes {
        let lent = PooledBytes::new(self.clone(), bytes);
        self.shed_idle();
        lent
    }

    /// Returns an empty buffer, to be grown for a message that arrives in parts.
    pub(crate) fn empty(&self) -> PooledBytes {
        PooledBytes::new(self.clone(), Buffer::default())
    }
}

impl PooledBytes {
    fn new(pool: Pool, bytes: Buffer) -> PooledBytes {
        let len = bytes.len();
        pool.0.held.fetch_add(len, Ordering::Relaxed);
        PooledBytes {
            bytes,
            len,
            counted: len,
            for_peer: false,
            overdraft: false,
            admitted: false,
            starves: false,
            pool,
        }
    }

    /// Notes that the rest of the message has arrived, so it need not stay within its share of the memory.
    /// Returns whether that is new.
    pub(crate) fn admit(&mut self) -> bool {
        !mem::replace(&mut self.admitted, true)
    }

    /// Returns whether it waits for memory that is held for other peers, not for the sink.
    pub(crate) fn starves(&self) -> bool {
        self.starves
    }

    /// Marks the bytes as the start of a message whose rest has not arrived.
    pub(crate) fn hold_for_peer(&mut self) {
        if !mem::replace(&mut self.for_peer, true) {
            self.pool.0.held_for_peers.fetch_add(self.counted, Ordering::Relaxed);
        }
    }

    /// Marks the bytes as `messages` whole messages that wait for the sink.
    pub(crate) fn hold_for_sink(&mut self, messages: usize) {
        if mem::take(&mut self.for_peer) {
            self.pool.0.held_for_peers.fetch_sub(self.counted, Ordering::Relaxed);
            self.pool.peers_freed();
        }
        if self.overdraft {
            self.pool.0.overdraft.store(FOR_SINK, Ordering::Relaxed);
        }
        let cost = (messages * MESSAGE + BATCH).max(self.bytes.len());
        let more = cost.saturating_sub(self.counted);
        self.pool.0.held.fetch_add(more, Ordering::Relaxed);
        self.counted += more;
    }

    /// Returns how many bytes are counted for it.
    pub(crate) fn counted(&self) -> usize {
        self.counted
    }

    /// Grows towards `want` bytes, of which `got` are in use here and `coming` more will be moved here from
    /// elsewhere. It grows to twice `got`, or to `want` if that is at most twice as much again. So
    /// announcing a long message costs the server next to nothing. Only while memory is plentiful may it
    /// get a used buffer for the whole message at once.
    ///
    /// `listener` keeps the place in the queue between calls; it is `None` while the task does not wait.
    pub(crate) fn poll_grow(
        &mut self,
        cx: &mut Context<'_>,
        listener: &mut Option<EventListener>,
        got: usize,
        coming: usize,
        want: usize,
    ) -> Poll<()> {
        self.hold_for_peer();
        let pool = self.pool.clone();
        let plenty = pool.held_for_peers().saturating_add(want) <= pool.share(want) / 2;
        // If nothing has arrived yet, a read buffer is the best guess; its pages are only allocated as they
        // are filled.
        let first = if plenty && got + coming == 0 { BUFFER } else { FIRST_STEP };
        let mut len = want.min((got + coming).max(2 * got).max(first));
        if len > BUFFER / 2 && want <= 2 * len {
            len = want;
        }
        let size = pool.size(len);
        let useful = if plenty { want.max(size) } else { size };
        if size >= BUFFER
            && let Some(used) = pool.with_idle(|idle| idle.take(useful))
        {
            // A used buffer costs no page faults. It goes back if its size is not within the share.
            if pool.try_hold_for_peer(used.len(), want) {
                *listener = None;
                self.move_to(used, got, want);
                return Poll::Ready(());
            }
            pool.give_back(used);
        }
        let (mut size, waited) = (size, listener.is_some());
        let growth = &pool.0.growth[share_of(want)];
        let grown = poll_until(growth, cx, listener, || {
            // The old buffer stays counted as well, since both exist while the bytes are copied.
            if pool.try_hold_for_peer(size, want) {
                return true;
            }
            if self.admitted && pool.try_hold_up_to(pool.size(want), pool.0.limit) {
                size = pool.size(want);
                return true;
            }
            let (from, to, order) = (NOBODY, FOR_PEER, Ordering::Relaxed);
            if pool.0.overdraft.compare_exchange(from, to, order, order).is_ok() {
                // The overdraft covers the whole message. Its memory is set aside outside the limit, so it
                // is not counted while the message grows.
                (self.overdraft, size) = (true, pool.size(want));
            }
            self.overdraft
        });
        self.starves = grown.is_pending() && pool.lacks_share(size, want);
        ready!(grown);
        if waited {
            growth.notify(1);
        }
        self.replace(size, got, want);
        Poll::Ready(())
    }

    /// Continues in a new buffer of `size` bytes, which are already counted.
    fn replace(&mut self, size: usize, got: usize, want: usize) {
        let supply = self.pool.supply(size);
        match (&mut self.bytes, supply) {
            (Buffer::Heap(bytes), Supply::Heap) => {
                bytes.reserve_exact(size - bytes.len());
                bytes.resize(size, 0);
                self.moved(size, want);
            }
            (_, supply) => self.move_to(Buffer::new(size, supply), got, want),
        }
    }

    /// Continues in another buffer, which is already counted, with the first `got` of `want` bytes.
    fn move_to(&mut self, mut buffer: Buffer, got: usize, want: usize) {
        buffer[..got].copy_from_slice(&self.bytes[..got]);
        let before = mem::replace(&mut self.bytes, buffer);
        self.pool.give_back(before);
        self.moved(self.bytes.len(), want);
    }

    /// Stops counting the old buffer; only the new one of `size` bytes stays counted.
    fn moved(&mut self, size: usize, want: usize) {
        self.len = want.min(size);
        let counted = if self.overdraft { 0 } else { size };
        let before = mem::replace(&mut self.counted, counted);
        self.pool.0.held.fetch_sub(before, Ordering::Relaxed);
        self.pool.0.held_for_peers.fetch_sub(before, Ordering::Relaxed);
        if self.overdraft {
            self.pool.freed();
        }
        self.pool.shed_idle();
    }

    /// Returns the bytes, which are then no longer counted.
    pub(crate) fn into_vec(mut self) -> Vec<u8> {
        mem::take(&mut self.bytes).into_vec(self.len)
    }
}

impl fmt::Debug for PooledBytes {
    /// Omits the bytes, since some may belong to other connections' messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledBytes").field("len", &self.len).finish_non_exhaustive()
    }
}

impl Deref for PooledBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl DerefMut for PooledBytes {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl Drop for PooledBytes {
    fn drop(&mut self) {
        self.pool.0.held.fetch_sub(self.counted, Ordering::Relaxed);
        if self.for_peer {
            self.pool.0.held_for_peers.fetch_sub(self.counted, Ordering::Relaxed);
        }
        if self.overdraft {
            self.pool.0.overdraft.store(NOBODY, Ordering::Relaxed);
        }
        self.pool.give_back(mem::take(&mut self.bytes));
        if self.counted > 0 || self.overdraft {
            self.pool.freed();
        }
    }
}
