//! All memory that holds received bytes: lent to readers while there are bytes to hold, counted,
//! and bounded.
//!
//! A connection that waits for its peer owns no buffer: it borrows one for the time of a read and
//! gives it back at once where there was nothing to read. So ten thousand idle connections share a
//! few buffers.
//!
//! The count goes up when received bytes are *kept*, as an incomplete payload or as messages on
//! their way to a sink, and down when they are dropped. Where it reaches the limit, readers wait.
//! Payloads that are incomplete can wait for each other, so one reader at a time may go over the
//! limit (the *overdraft*); the space it may need is set aside from the start.

use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};

use event_listener::{Event, EventListener};

/// The size of a read buffer, and of the first step in which a payload grows, in bytes.
///
/// Below 64 KiB the system calls begin to show at 64-byte messages; above, nothing is gained.
pub(crate) const BUFFER: usize = 64 * 1024;

/// The least a growing payload gets, in bytes: one page.
const FIRST_STEP: usize = 4096;

/// How many read buffers are kept for the next read. Each thread that reads needs one, and each
/// batch on its way to a sink holds one.
const IDLE_BUFFERS: usize = 32;

/// How many bytes of large payload buffers are kept for the next large payload at most; less where the
/// memory is small.
const IDLE_LARGE: usize = 16 * 1024 * 1024;

/// Lends buffers and counts what is kept in them.
#[derive(Clone, Debug)]
pub(crate) struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    idle: Mutex<Idle>,
    /// Bytes that may be kept before readers wait.
    limit: usize,
    kept: AtomicUsize,
    /// Whether somebody is over the limit.
    overdraft: AtomicBool,
    freed: Event,
    /// How many bytes of large buffers to hold on to.
    idle_large: usize,
}

/// Buffers nobody uses. All of them are filled with old bytes up to their length, so that they need
/// no clearing before the next read.
#[derive(Debug, Default)]
struct Idle {
    buffers: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
    /// The fewest there were since the last `trim`: those were not needed.
    unneeded_buffers: usize,
    unneeded_large: usize,
}

/// A buffer on loan, and the bytes kept in it.
#[derive(Debug)]
pub(crate) struct Lent {
    /// The buffer. What is behind `len` is left over from somebody else's messages.
    bytes: Vec<u8>,
    len: usize,
    /// How many bytes are counted in the pool.
    counted: usize,
    overdraft: bool,
    pool: Pool,
}

impl Pool {
    /// Returns a pool that keeps at most `memory` bytes, in payloads of at most `largest`.
    pub(crate) fn new(memory: usize, largest: usize) -> Pool {
        Pool::with(memory.saturating_sub(largest), IDLE_LARGE.min(memory / 4))
    }

    /// Returns the pool of all readers that were given no other: it counts, but never waits.
    pub(crate) fn unbounded() -> Pool {
        static POOL: OnceLock<Pool> = OnceLock::new();
        // Nobody trims this pool, so it holds on to nothing large.
        POOL.get_or_init(|| Pool::with(usize::MAX, 0)).clone()
    }

    fn with(limit: usize, idle_large: usize) -> Pool {
        Pool(Arc::new(Shared {
            idle: Mutex::default(),
            limit,
            kept: AtomicUsize::new(0),
            overdraft: AtomicBool::new(false),
            freed: Event::new(),
            idle_large,
        }))
    }

    /// Returns how many bytes are kept just now.
    pub(crate) fn kept(&self) -> usize {
        self.0.kept.load(Ordering::Relaxed)
    }

    /// Takes a read buffer of [`BUFFER`] bytes; not counted until it is kept.
    pub(crate) fn take_buffer(&self) -> Vec<u8> {
        let mut idle = self.idle();
        let buffer = idle.buffers.pop();
        idle.unneeded_buffers = idle.unneeded_buffers.min(idle.buffers.len());
        drop(idle);
        buffer.unwrap_or_else(|| vec![0; BUFFER])
    }

    /// Gives a read buffer back.
    pub(crate) fn give_buffer(&self, buffer: Vec<u8>) {
        debug_assert_eq!(buffer.len(), BUFFER);
        let mut idle = self.idle();
        if idle.buffers.len() < IDLE_BUFFERS {
            idle.buffers.push(buffer);
        }
    }

    /// Gives back to the system what has not been needed since the last call.
    pub(crate) fn trim(&self) {
        let mut idle = self.idle();
        let Idle { buffers, large, unneeded_buffers, unneeded_large } = &mut *idle;
        buffers.truncate(buffers.len() - mem::take(unneeded_buffers).min(buffers.len()));
        large.truncate(large.len() - mem::take(unneeded_large).min(large.len()));
        buffers.shrink_to_fit();
        *unneeded_buffers = buffers.len();
        *unneeded_large = large.len();
    }

    /// Waits until there is room for another read.
    ///
    /// `listener` holds the place in the queue between calls; it is `None` while nobody waits.
    pub(crate) fn poll_room(
        &self,
        cx: &mut Context<'_>,
        listener: &mut Option<EventListener>,
    ) -> Poll<()> {
        self.poll_until(cx, listener, || {
            let kept = self.kept();
            kept == 0 || kept < self.0.limit
        })
    }

    /// Counts a read buffer that is kept.
    pub(crate) fn keep(&self, bytes: Vec<u8>) -> Lent {
        let counted = bytes.len();
        self.0.kept.fetch_add(counted, Ordering::Relaxed);
        Lent { bytes, len: counted, counted, overdraft: false, pool: self.clone() }
    }

    /// Returns a buffer with no bytes, to be grown.
    pub(crate) fn empty(&self) -> Lent {
        Lent { bytes: Vec::new(), len: 0, counted: 0, overdraft: false, pool: self.clone() }
    }

    fn poll_until(
        &self,
        cx: &mut Context<'_>,
        listener: &mut Option<EventListener>,
        mut ready: impl FnMut() -> bool,
    ) -> Poll<()> {
        loop {
            if ready() {
                *listener = None;
                return Poll::Ready(());
            }
            // What is freed after this line is not missed: listen first, look again, then wait.
            match listener {
                None => *listener = Some(self.0.freed.listen()),
                Some(waiting) => {
                    ready!(Pin::new(waiting).poll(cx));
                    *listener = None;
                }
            }
        }
    }

    fn try_count(&self, bytes: usize) -> bool {
        let limit = self.0.limit;
        self.0
            .kept
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |kept| {
                kept.checked_add(bytes).filter(|&sum| sum <= limit)
            })
            .is_ok()
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lent {
    /// Grows towards `want` bytes, of which `got` are in use and `coming` more are known to be there:
    /// to twice what has come, so that an announcement alone costs next to nothing.
    pub(crate) fn poll_grow(
        &mut self,
        cx: &mut Context<'_>,
        listener: &mut Option<EventListener>,
        got: usize,
        coming: usize,
        want: usize,
    ) -> Poll<()> {
        let len = want.min((got + coming).max(2 * got).max(FIRST_STEP));
        let pool = self.pool.clone();
        if len > BUFFER
            && let Some(mut large) = pool.take_large(want)
        {
            // A used buffer costs no page faults. It is given back if there is no room for it.
            if self.try_count(large.len() - self.counted) {
                large[..got].copy_from_slice(&self.bytes[..got]);
                self.bytes = large;
                self.len = want;
                return Poll::Ready(());
            }
            pool.give_large(large);
        }
        ready!(pool.poll_until(cx, listener, || self.try_count(len - self.counted)));
        self.bytes.reserve_exact(len - self.bytes.len());
        self.bytes.resize(len, 0);
        self.len = len;
        Poll::Ready(())
    }

    /// Counts more bytes, going over the limit if nobody else does.
    fn try_count(&mut self, bytes: usize) -> bool {
        if !self.pool.try_count(bytes) {
            self.overdraft = self.overdraft || !self.pool.0.overdraft.swap(true, Ordering::Relaxed);
            if !self.overdraft {
                return false;
            }
            self.pool.0.kept.fetch_add(bytes, Ordering::Relaxed);
        }
        self.counted += bytes;
        true
    }

    /// Takes the bytes out, and stops counting them.
    pub(crate) fn into_vec(mut self) -> Vec<u8> {
        self.bytes.truncate(self.len);
        mem::take(&mut self.bytes)
    }
}

impl Pool {
    /// Takes the smallest idle buffer of at least `len` bytes, unless that is more than twice as much:
    /// all of it is counted.
    fn take_large(&self, len: usize) -> Option<Vec<u8>> {
        let mut idle = self.idle();
        let (index, _) = idle
            .large
            .iter()
            .enumerate()
            .filter(|(_, buffer)| (len..=2 * len).contains(&buffer.len()))
            .min_by_key(|(_, buffer)| buffer.len())?;
        let buffer = idle.large.swap_remove(index);
        idle.unneeded_large = idle.unneeded_large.min(idle.large.len());
        Some(buffer)
    }

    fn give_large(&self, buffer: Vec<u8>) {
        let mut idle = self.idle();
        let sum: usize = idle.large.iter().map(Vec::len).sum();
        if sum + buffer.len() <= self.0.idle_large {
            idle.large.push(buffer);
        }
    }
}

impl std::ops::Deref for Lent {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl std::ops::DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let bytes = mem::take(&mut self.bytes);
        if bytes.len() == BUFFER {
            self.pool.give_buffer(bytes);
        } else if bytes.len() > BUFFER {
            self.pool.give_large(bytes);
        }
        if self.overdraft {
            self.pool.0.overdraft.store(false, Ordering::Relaxed);
        }
        if self.counted > 0 {
            self.pool.0.kept.fetch_sub(self.counted, Ordering::Relaxed);
            // Everybody who waits looks again: how much each of them needs is not known here.
            self.pool.0.freed.notify(usize::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};
    use std::future::poll_fn;

    /// Grows `lent` until it has `want` bytes; returns whether it got there without waiting.
    fn grow(lent: &mut Lent, want: usize) -> bool {
        let mut listener = None;
        while lent.len() < want {
            let got = lent.len();
            let grown = poll_fn(|cx| lent.poll_grow(cx, &mut listener, got, 0, want));
            if block_on(poll_once(grown)).is_none() {
                return false;
            }
        }
        true
    }

    #[test]
    fn an_announcement_costs_one_page() {
        let pool = Pool::new(64 << 20, 8 << 20);
        let mut lent = pool.empty();
        let mut listener = None;
        block_on(poll_fn(|cx| lent.poll_grow(cx, &mut listener, 0, 1, 8 << 20)));
        assert_eq!(pool.kept(), FIRST_STEP);
    }

    #[test]
    fn two_large_payloads_cannot_lock_each_other_out() {
        let pool = Pool::new(3000 * 1024, 1000 * 1024);
        let mut lent = [pool.empty(), pool.empty(), pool.empty()];
        // Together they would need a third more than there is.
        assert!(grow(&mut lent[0], 900 * 1024));
        assert!(grow(&mut lent[1], 900 * 1024));
        assert!(grow(&mut lent[2], 1000 * 1024), "one may go over");
        let mut fourth = pool.empty();
        assert!(!grow(&mut fourth, 1000 * 1024), "but only one");
        assert!(pool.kept() <= 3000 * 1024);
        drop(lent);
        assert!(grow(&mut fourth, 1000 * 1024));
        drop(fourth);
        assert_eq!(pool.kept(), 0);
    }

    #[test]
    fn waiting_readers_are_woken_when_bytes_are_dropped() {
        let pool = Pool::new(BUFFER, 1);
        let kept = pool.keep(pool.take_buffer());
        let mut listener = None;
        let mut room = poll_fn(|cx| pool.poll_room(cx, &mut listener));
        assert!(block_on(poll_once(&mut room)).is_none());
        drop(kept);
        block_on(room);
    }

    #[test]
    fn a_used_buffer_shows_nothing_of_the_message_before() {
        let pool = Pool::new(64 << 20, 8 << 20);
        let mut first = pool.empty();
        assert!(grow(&mut first, 200_000));
        first.fill(b'1');
        drop(first);
        let mut second = pool.empty();
        assert!(grow(&mut second, 150_000));
        assert_eq!(second.len(), 150_000);
        assert_eq!(pool.kept(), 200_000, "the whole buffer is in use");
        second.fill(b'2');
        assert_eq!(second.into_vec(), vec![b'2'; 150_000]);
        assert_eq!(pool.kept(), 0);
    }

    #[test]
    fn what_is_not_needed_goes_back_to_the_system() {
        let pool = Pool::new(64 << 20, 8 << 20);
        let mut large = pool.empty();
        grow(&mut large, 1 << 20);
        drop(large);
        drop(pool.keep(pool.take_buffer()));
        pool.trim();
        pool.trim();
        assert!(pool.idle().buffers.is_empty() && pool.idle().large.is_empty());
    }
}
