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
//!
//! Buffers that are dropped lie *idle* for the next reader, within the same limit, until they are found
//! not to be needed ([`Pool::trim`]). Those of 64 KiB and more are pages of their own, so that the system
//! has them again then.

use std::fmt;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};

use event_listener::{Event, EventListener};

pub(crate) use self::buffer::Buffer;
use self::buffer::Supply;
use self::idle::Idle;

mod buffer; // from the allocator or straight from the system
mod idle; // what nobody uses just now

/// The size of a read buffer, and of the first step in which a payload grows, in bytes.
///
/// Below 64 KiB the system calls begin to show at 64-byte messages; above, nothing is gained.
pub(crate) const BUFFER: usize = 64 * 1024;

/// The least a growing payload gets, in bytes: one page.
const FIRST_STEP: usize = 4096;

/// How many bytes may always lie idle: each thread that reads needs a buffer, and so does each batch on
/// its way to a sink.
const LEAST_IDLE: usize = 32 * BUFFER;

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
    /// How many bytes lie idle, to be read without the lock.
    idle_bytes: AtomicUsize,
    /// Where buffers of [`BUFFER`] bytes and more come from.
    supply: Supply,
}

/// A buffer on loan, and the bytes kept in it.
pub(crate) struct Lent {
    /// The buffer. What is behind `len` is left over from somebody else's messages.
    bytes: Buffer,
    len: usize,
    /// How many bytes are counted in the pool.
    counted: usize,
    overdraft: bool,
    pool: Pool,
}

impl Pool {
    /// Returns a pool that keeps at most `memory` bytes, in payloads of at most `largest`.
    pub(crate) fn new(memory: usize, largest: usize) -> Pool {
        Pool::with(memory.saturating_sub(largest), Supply::Pages)
    }

    /// Returns the pool of all readers that were given no other: it counts, but never waits.
    pub(crate) fn unbounded() -> Pool {
        static POOL: OnceLock<Pool> = OnceLock::new();
        // Its large payloads end as vectors.
        POOL.get_or_init(|| Pool::with(usize::MAX, Supply::Heap)).clone()
    }

    fn with(limit: usize, supply: Supply) -> Pool {
        Pool(Arc::new(Shared {
            idle: Mutex::default(),
            limit,
            kept: AtomicUsize::new(0),
            overdraft: AtomicBool::new(false),
            freed: Event::new(),
            idle_bytes: AtomicUsize::new(0),
            supply,
        }))
    }

    /// Returns how many bytes are kept just now.
    pub(crate) fn kept(&self) -> usize {
        self.0.kept.load(Ordering::Relaxed)
    }

    /// Takes a read buffer of [`BUFFER`] bytes; not counted until it is kept.
    pub(crate) fn take_buffer(&self) -> Buffer {
        self.with_idle(|idle| idle.take(BUFFER))
            .unwrap_or_else(|| Buffer::new(BUFFER, self.supply(BUFFER)))
    }

    /// Gives a buffer back, of whatever length. It waits for the next reader if there is a use for it.
    pub(crate) fn give_buffer(&self, buffer: Buffer) {
        let useful = match self.0.supply {
            Supply::Pages => buffer.len() >= BUFFER,
            // Longer vectors are made for those who take them away.
            Supply::Heap => buffer.len() == BUFFER,
        };
        if !useful {
            return;
        }
        let surplus = self.with_idle(|idle| {
            idle.put(buffer);
            idle.shed(self.most_idle())
        });
        // Without the lock.
        drop(surplus);
    }

    /// Gives back to the system what has not been needed since the last call but one.
    pub(crate) fn trim(&self) {
        let unneeded = self.with_idle(Idle::trim);
        drop(unneeded);
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
            // Who reads needs room for what he reads, or he would have to hold it uncounted; but where
            // the limit is that small, half of it will do.
            kept == 0 || kept <= self.0.limit.saturating_sub(BUFFER).max(self.0.limit / 2)
        })
    }

    /// Counts a read buffer that is kept.
    pub(crate) fn keep(&self, bytes: Buffer) -> Lent {
        let counted = bytes.len();
        self.0.kept.fetch_add(counted, Ordering::Relaxed);
        self.shed_idle();
        Lent { bytes, len: counted, counted, overdraft: false, pool: self.clone() }
    }

    /// Returns a buffer with no bytes, to be grown.
    pub(crate) fn empty(&self) -> Lent {
        Lent { bytes: Buffer::default(), len: 0, counted: 0, overdraft: false, pool: self.clone() }
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

    /// Returns where to get `len` bytes from: for few, pages of their own cost more than they are.
    fn supply(&self, len: usize) -> Supply {
        if len < BUFFER { Supply::Heap } else { self.0.supply }
    }

    /// Returns how many bytes to have for `len`: for more than half of a read buffer, one of those.
    fn size(&self, len: usize) -> usize {
        match self.0.supply {
            Supply::Pages if len > BUFFER / 2 => len.max(BUFFER),
            Supply::Pages | Supply::Heap => len,
        }
    }

    /// Returns how many bytes may lie idle: what is kept and what is idle share the limit.
    fn most_idle(&self) -> usize {
        let most = match self.0.supply {
            Supply::Pages => self.0.limit.saturating_sub(self.kept()),
            // Nobody trims a pool of vectors, so it holds on to little.
            Supply::Heap => 0,
        };
        most.max(LEAST_IDLE)
    }

    /// Parts with idle buffers for what is kept now.
    fn shed_idle(&self) {
        if self.0.idle_bytes.load(Ordering::Relaxed) > self.most_idle() {
            let surplus = self.with_idle(|idle| idle.shed(self.most_idle()));
            drop(surplus);
        }
    }

    fn with_idle<T>(&self, act: impl FnOnce(&mut Idle) -> T) -> T {
        let mut idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let result = act(&mut idle);
        self.0.idle_bytes.store(idle.bytes(), Ordering::Relaxed);
        result
    }
}

impl Lent {
    /// Grows towards `want` bytes, of which `got` are in use and `coming` more are known to be there: to
    /// twice what has come, or to all of them if those are no more than twice as many again. So an
    /// announcement alone costs next to nothing. Only while there is plenty it gets a used buffer for all
    /// of them sooner.
    pub(crate) fn poll_grow(
        &mut self,
        cx: &mut Context<'_>,
        listener: &mut Option<EventListener>,
        got: usize,
        coming: usize,
        want: usize,
    ) -> Poll<()> {
        let mut len = want.min((got + coming).max(2 * got).max(FIRST_STEP));
        if len > BUFFER / 2 && want <= 2 * len {
            len = want;
        }
        let pool = self.pool.clone();
        let size = pool.size(len);
        let plenty = pool.kept().saturating_add(want) <= pool.0.limit / 2;
        let useful = if size > BUFFER && plenty { want } else { size };
        if size >= BUFFER
            && let Some(used) = pool.with_idle(|idle| idle.take(useful))
        {
            // A used buffer costs no page faults. It is given back if there is no room for it.
            let more = used.len() - self.counted;
            if pool.try_count(more) {
                self.counted += more;
                self.move_to(used, got, want);
                *listener = None;
                return Poll::Ready(());
            }
            pool.give_buffer(used);
        }
        ready!(pool.poll_until(cx, listener, || self.try_count(size - self.counted)));
        match (&mut self.bytes, pool.supply(size)) {
            (Buffer::Heap(bytes), Supply::Heap) => {
                bytes.reserve_exact(size - bytes.len());
                bytes.resize(size, 0);
                self.len = want.min(size);
            }
            (_, supply) => self.move_to(Buffer::new(size, supply), got, want),
        }
        Poll::Ready(())
    }

    /// Goes on in another buffer with the first `got` of `want` bytes.
    fn move_to(&mut self, mut buffer: Buffer, got: usize, want: usize) {
        buffer[..got].copy_from_slice(&self.bytes[..got]);
        self.len = want.min(buffer.len());
        let before = mem::replace(&mut self.bytes, buffer);
        self.pool.give_buffer(before);
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
        self.pool.shed_idle();
        true
    }

    /// Takes the bytes out, and stops counting them.
    pub(crate) fn into_vec(mut self) -> Vec<u8> {
        mem::take(&mut self.bytes).into_vec(self.len)
    }
}

impl fmt::Debug for Lent {
    /// Without the bytes, since some of them may be of somebody else's messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").field("len", &self.len).finish_non_exhaustive()
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
        self.pool.0.kept.fetch_sub(self.counted, Ordering::Relaxed);
        if self.overdraft {
            self.pool.0.overdraft.store(false, Ordering::Relaxed);
        }
        self.pool.give_buffer(mem::take(&mut self.bytes));
        if self.counted > 0 {
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
        assert_eq!(pool.with_idle(|idle| idle.bytes()), 0);
    }

    #[test]
    fn idle_and_kept_memory_share_one_limit() {
        let pool = Pool::new(9 << 20, 1 << 20);
        let idle = || pool.with_idle(|idle| idle.bytes());
        let read_buffers = |bytes: usize| -> Vec<Lent> {
            (0..bytes / BUFFER).map(|_| pool.keep(pool.take_buffer())).collect()
        };
        drop(read_buffers(8 << 20));
        assert_eq!(idle(), 8 << 20);
        let mut large = pool.empty();
        assert!(grow(&mut large, 1 << 20));
        assert_eq!(idle() + pool.kept(), 8 << 20);
        let kept = read_buffers(7 << 20);
        assert_eq!((idle(), pool.kept()), (0, 8 << 20));
        // Where the limit is reached, a few buffers for the next reads stay nevertheless.
        let few: Vec<_> = (0..2 * LEAST_IDLE / BUFFER).map(|_| pool.take_buffer()).collect();
        few.into_iter().for_each(|buffer| pool.give_buffer(buffer));
        assert_eq!(idle(), LEAST_IDLE);
        drop((large, kept));
        assert_eq!((idle(), pool.kept()), (8 << 20, 0));
    }

    #[test]
    fn a_payload_goes_on_in_what_others_have_left() {
        let pool = Pool::new(64 << 20, 8 << 20);
        let mut payload = pool.empty();
        let mut listener = None;
        for (got, coming, want, len, size) in [
            (0, 0, 1 << 20, FIRST_STEP, FIRST_STEP),
            // Little less than a read buffer is one.
            (FIRST_STEP, 30_000, 1 << 20, BUFFER, BUFFER),
            (BUFFER, 0, 1 << 20, 2 * BUFFER, 2 * BUFFER),
            // One step is enough where two would not be much more.
            (2 * BUFFER, 0, 300_000, 300_000, 300_000),
        ] {
            payload.bytes[..got].fill(b'1');
            let grown = poll_fn(|cx| payload.poll_grow(cx, &mut listener, got, coming, want));
            assert!(block_on(poll_once(grown)).is_some());
            assert_eq!((payload.len(), payload.bytes.len(), pool.kept()), (len, size, size));
            assert!(payload[..got].iter().all(|&byte| byte == b'1'));
        }
        // What it has left behind on its way waits for the next.
        assert_eq!(pool.with_idle(|idle| idle.bytes()), 3 * BUFFER);
        assert!(matches!(payload.bytes, Buffer::Pages(_)));
    }

    #[test]
    fn payloads_that_become_vectors_are_never_copied_into_one() {
        let pool = Pool::unbounded();
        let mut payload = pool.empty();
        grow(&mut payload, 300_000);
        let place = payload.as_ptr();
        let vector = payload.into_vec();
        assert_eq!((vector.as_ptr(), vector.len(), vector.capacity()), (place, 300_000, 300_000));
    }

    #[test]
    fn a_payload_that_has_waited_for_memory_does_not_wait_any_more() {
        let pool = Pool::new(5 << 20, 1 << 20);
        let mut payload = pool.empty();
        assert!(grow(&mut payload, BUFFER));
        let mut others: Vec<Lent> = (0..4).map(|_| pool.empty()).collect();
        others.iter_mut().for_each(|other| assert!(grow(other, 1 << 20)));
        let mut listener = None;
        let mut waits = |payload: &mut Lent| {
            let got = payload.len();
            let grown = poll_fn(|cx| payload.poll_grow(cx, &mut listener, got, 0, 1 << 20));
            (block_on(poll_once(grown)).is_none(), listener.is_some())
        };
        assert_eq!(waits(&mut payload), (true, true));
        // It goes on in what the others leave.
        others.clear();
        while payload.len() < 1 << 20 {
            assert_eq!(waits(&mut payload), (false, false));
        }
    }

    #[test]
    fn a_few_bytes_do_not_hold_what_many_could_use() {
        let pool = Pool::new(64 << 20, 8 << 20);
        let mut used: Vec<Lent> = (0..6).map(|_| pool.empty()).collect();
        used.iter_mut().for_each(|lent| assert!(grow(lent, 8 << 20)));
        drop(used);
        let mut few: Vec<Lent> = (0..50).map(|_| pool.empty()).collect();
        let mut listener = None;
        for lent in &mut few {
            let grown = poll_fn(|cx| lent.poll_grow(cx, &mut listener, 0, 66_000, 8 << 20));
            assert!(block_on(poll_once(grown)).is_some());
        }
        assert!(pool.kept() < 32 << 20, "{} bytes are kept", pool.kept());
    }

    #[test]
    fn nobody_reads_what_there_is_no_room_to_count() {
        for (limit, room) in [(1 << 20, (1 << 20) - BUFFER), (50_000, 25_000), (0, 0)] {
            let pool = Pool::new(limit + 1000, 1000);
            for (kept, ready) in [(0, true), (room, true), (room + 1, false)] {
                let _kept = pool.keep(Buffer::new(kept, Supply::Heap));
                let mut listener = None;
                let waiting = poll_fn(|cx| pool.poll_room(cx, &mut listener));
                let polled = block_on(poll_once(waiting));
                assert_eq!(polled.is_some(), ready, "{kept} of {limit}");
            }
        }
    }

    #[test]
    fn what_is_shown_of_a_buffer_is_nobodys_bytes() {
        let mut buffer = Buffer::new(4, Supply::Heap);
        buffer.fill(b'7');
        assert_eq!(format!("{:?}", Pool::unbounded().keep(buffer)), "Lent { len: 4, .. }");
    }
}
