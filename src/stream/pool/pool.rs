//! The pool: how much is held, for whom, and who waits for memory.

use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};

use event_listener::{Event, EventListener, IntoNotification};

use super::buffer::{Buffer, Supply};
use super::idle::Idle;
use super::limits::{BUFFER, LEAST_IDLE, LEAST_LIMIT, SHARES, share_of};
use super::line::{Line, Place};

/// Whose payload has the overdraft, and what that payload waits for.
pub(super) const NOBODY: u8 = 0;
pub(super) const FOR_PEER: u8 = 1;
pub(super) const FOR_SINK: u8 = 2;

/// Lends buffers and counts what is held in them.
#[derive(Clone, Debug)]
pub(crate) struct Pool(pub(super) Arc<PoolState>);

#[derive(Debug)]
pub(super) struct PoolState {
    pub(super) idle: Mutex<Idle>,
    /// How many bytes may be held before readers wait.
    pub(super) limit: usize,
    pub(super) held: AtomicUsize,
    /// The part of `held` that waits for a peer.
    pub(super) held_for_peers: AtomicUsize,
    /// Who is over the limit: [`NOBODY`], a payload [`FOR_PEER`] or one [`FOR_SINK`].
    pub(super) overdraft: AtomicU8,
    /// Readers that wait for a read buffer. Freed room wakes the first; each reader that gets a buffer
    /// wakes the next.
    pub(super) line: Arc<Line>,
    /// Payloads that wait to grow, one event for each share. Freed memory wakes one of each; a payload that
    /// gets its memory wakes the next, one that does not goes to the end of the queue.
    pub(super) growth: [Event; SHARES.len()],
    /// The size of all idle buffers, to be read without the lock.
    pub(super) idle_bytes: AtomicUsize,
    /// The source of buffers of [`BUFFER`] bytes and more.
    pub(super) supply: Supply,
}

/// Bytes outside the pool, counted in `held` while this lives, and in `held_for_peers` while they wait for a peer.
#[derive(Debug)]
pub(crate) struct Charge {
    pool: Pool,
    bytes: usize,
    for_peer: bool,
}

/// Bytes that count as waiting for a peer while this lives; `held` already includes them.
#[derive(Debug)]
pub(crate) struct HeldForPeer {
    pool: Pool,
    bytes: usize,
}

impl Pool {
    /// Returns a pool that holds at most `memory` bytes, including the overdraft for one payload of at most
    /// `largest` bytes. Without the overdraft, the limit is at least [`LEAST_LIMIT`].
    pub(crate) fn new(memory: usize, largest: usize) -> Pool {
        Pool::with(memory.saturating_sub(largest).max(LEAST_LIMIT), Supply::Pages)
    }

    /// Returns the pool of all readers that have no pool of their own: it counts, but never makes anyone
    /// wait.
    pub(crate) fn unbounded() -> Pool {
        static POOL: OnceLock<Pool> = OnceLock::new();
        // On the heap, because these payloads are handed out as vectors.
        POOL.get_or_init(|| Pool::with(usize::MAX, Supply::Heap)).clone()
    }

    pub(super) fn with(limit: usize, supply: Supply) -> Pool {
        Pool(Arc::new(PoolState {
            idle: Mutex::default(),
            limit,
            held: AtomicUsize::new(0),
            held_for_peers: AtomicUsize::new(0),
            overdraft: AtomicU8::new(NOBODY),
            line: Arc::default(),
            growth: Default::default(),
            idle_bytes: AtomicUsize::new(0),
            supply,
        }))
    }

    /// Returns how many bytes are held now.
    pub(crate) fn held(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    /// Returns how many bytes may be held before readers wait. One payload may go over it.
    pub(crate) fn limit(&self) -> usize {
        self.0.limit
    }

    pub(super) fn held_for_peers(&self) -> usize {
        self.0.held_for_peers.load(Ordering::Relaxed)
    }

    /// Marks `bytes` that are already counted as waiting for a peer.
    pub(crate) fn hold_for_peer(&self, bytes: usize) -> HeldForPeer {
        self.0.held_for_peers.fetch_add(bytes, Ordering::Relaxed);
        HeldForPeer { pool: self.clone(), bytes }
    }

    /// Returns a counter for bytes outside the pool, starting at zero.
    pub(crate) fn charge_nothing(&self) -> Charge {
        Charge { pool: self.clone(), bytes: 0, for_peer: true }
    }

    /// Waits until `bytes` bytes outside the pool may be held for a peer. It gets all of them at once, so that none of
    /// those that wait keeps some from the others.
    ///
    /// `listener` keeps the place in the queue between calls; it is `None` while the task does not wait.
    pub(crate) fn poll_charge(
        &self,
        cx: &mut Context<'_>,
        listener: &mut Option<EventListener>,
        bytes: usize,
    ) -> Poll<Charge> {
        let (growth, waited) = (&self.0.growth[share_of(bytes)], listener.is_some());
        let may_hold = || self.try_hold_for_peer(bytes, bytes);
        ready!(poll_until(growth, cx, listener, may_hold));
        if waited {
            growth.notify(1);
        }
        Poll::Ready(Charge { pool: self.clone(), bytes, for_peer: true })
    }

    /// Waits until the sink has left room for another read.
    ///
    /// `place` keeps the place in the line between calls; it is `None` while the task does not wait.
    pub(crate) fn poll_room(
        &self,
        cx: &mut Context<'_>,
        place: &mut Option<Box<Place>>,
    ) -> Poll<()> {
        let line = &self.0.line;
        // Nobody overtakes tasks that already wait.
        if place.is_none() && line.is_empty() && self.has_room() {
            return Poll::Ready(());
        }
        let taken = place.get_or_insert_with(|| Box::new(line.join(cx.waker())));
        let is_first = line.wait_at(taken, cx.waker());
        // Pairs with the fence in `peers_freed`, which `freed` calls first: either this task sees the freed
        // bytes, or the task that freed them sees this place in the line and wakes it.
        fence(Ordering::SeqCst);
        if !is_first || !self.has_room() {
            return Poll::Pending;
        }
        *place = None;
        Poll::Ready(())
    }

    /// Returns whether there is room for a read buffer and for a copy of what is left over in it. If peers
    /// hold so much that no read buffers are lent at all, any room is enough.
    pub(super) fn has_room(&self) -> bool {
        let least = if self.is_crowded() { 1 } else { 2 * BUFFER };
        self.held().saturating_add(least) <= self.0.limit
    }

    /// Returns whether peers hold so much that even the leftovers of one more read buffer would be too
    /// much.
    pub(crate) fn is_crowded(&self) -> bool {
        self.held_for_peers().saturating_add(BUFFER) > self.share(BUFFER)
    }

    /// Returns how much may be held for peers while a message of `len` bytes grows.
    pub(super) fn share(&self, len: usize) -> usize {
        self.0.limit / 16 * SHARES[share_of(len)].1
    }

    /// Returns whether peers hold so much that none can be given `bytes` more for a message of as many.
    pub(crate) fn is_held_by_peers(&self, bytes: usize) -> bool {
        self.held_for_peers().saturating_add(bytes) > self.share(bytes)
    }

    /// Returns whether it is peers that keep a message of `len` bytes from getting `bytes` more: they hold
    /// its share, and the overdraft.
    pub(super) fn lacks_share(&self, bytes: usize, len: usize) -> bool {
        self.held_for_peers().saturating_add(bytes) > self.share(len)
            && self.0.overdraft.load(Ordering::Relaxed) == FOR_PEER
    }

    /// Returns whether payloads wait for memory.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.0.growth.iter().any(|growth| growth.total_listeners() > 0)
    }

    /// Counts bytes held for a peer, as part of a message of `len` bytes, if its share has room for them.
    pub(super) fn try_hold_for_peer(&self, bytes: usize, len: usize) -> bool {
        self.try_hold_up_to(bytes, self.share(len))
    }

    /// Counts bytes held for a peer, if `held_for_peers` stays within `share` and `held` within the limit.
    pub(super) fn try_hold_up_to(&self, bytes: usize, share: usize) -> bool {
        let add = |count: &AtomicUsize, limit: usize| {
            let sum = |sum: usize| sum.checked_add(bytes).filter(|&sum| sum <= limit);
            count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).is_ok()
        };
        if !add(&self.0.held_for_peers, share) {
            return false;
        }
        let held = add(&self.0.held, self.0.limit);
        if !held {
            // Undo the first count, since both limits must hold.
            self.0.held_for_peers.fetch_sub(bytes, Ordering::Relaxed);
        }
        held
    }

    /// Wakes the tasks for which there may be memory now.
    pub(super) fn freed(&self) {
        self.peers_freed();
        if self.has_room() {
            self.0.line.wake_first();
        }
    }

    /// Wakes payloads that may be able to grow now.
    pub(super) fn peers_freed(&self) {
        // One fence for all events: waiting tasks listen first, then look at the counts.
        fence(Ordering::SeqCst);
        for growth in &self.0.growth {
            growth.notify(1.relaxed());
        }
    }

    /// Takes back a buffer of any length, and keeps it for the next reader if it is of use.
    pub(super) fn give_back(&self, buffer: Buffer) {
        let useful = match self.0.supply {
            Supply::Pages => buffer.len() >= BUFFER,
            // Longer vectors are handed out, so there would be no use for them.
            Supply::Heap => buffer.len() == BUFFER,
        };
        if !useful {
            return;
        }
        let surplus = self.with_idle(|idle| {
            idle.put(buffer);
            idle.shed(self.most_idle())
        });
        // Dropped outside the lock: unmapping memory is slow.
        drop(surplus);
    }

    /// Returns memory to the system that has not been needed since the call before the last one.
    pub(crate) fn trim(&self) {
        let unneeded = self.with_idle(Idle::trim);
        drop(unneeded);
    }

    /// Returns the source for `len` bytes: for a small buffer, a mapping would cost more than its memory.
    pub(super) fn supply(&self, len: usize) -> Supply {
        if len < BUFFER { Supply::Heap } else { self.0.supply }
    }

    /// Returns the size of the buffer to use for `len` bytes: a whole read buffer if half of one is not
    /// enough, so that it can be reused.
    pub(super) fn size(&self, len: usize) -> usize {
        match self.0.supply {
            Supply::Pages if len > BUFFER / 2 => len.max(BUFFER),
            Supply::Pages | Supply::Heap => len,
        }
    }

    /// Returns how many bytes may be idle: held and idle bytes share the limit.
    pub(super) fn most_idle(&self) -> usize {
        let most = match self.0.supply {
            Supply::Pages => self.0.limit.saturating_sub(self.held()),
            // Nobody trims such a pool, so it keeps little.
            Supply::Heap => 0,
        };
        most.max(LEAST_IDLE)
    }

    /// Frees idle buffers that no longer fit beside the held bytes.
    pub(super) fn shed_idle(&self) {
        if self.0.idle_bytes.load(Ordering::Relaxed) > self.most_idle() {
            let surplus = self.with_idle(|idle| idle.shed(self.most_idle()));
            drop(surplus);
        }
    }

    pub(super) fn with_idle<T>(&self, act: impl FnOnce(&mut Idle) -> T) -> T {
        let mut idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let result = act(&mut idle);
        self.0.idle_bytes.store(idle.bytes(), Ordering::Relaxed);
        result
    }
}

/// Waits for `freed` until `ready` returns true.
pub(super) fn poll_until(
    freed: &Event,
    cx: &mut Context<'_>,
    listener: &mut Option<EventListener>,
    mut ready: impl FnMut() -> bool,
) -> Poll<()> {
    loop {
        if ready() {
            *listener = None;
            return Poll::Ready(());
        }
        // Listen first, check again, then wait: so nothing that is freed in between is missed.
        match listener {
            None => *listener = Some(freed.listen()),
            Some(waiting) => {
                ready!(Pin::new(waiting).poll(cx));
                *listener = None;
            }
        }
    }
}

impl Charge {
    /// Sets how many bytes are counted.
    pub(crate) fn set(&mut self, bytes: usize) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        let counts = [&self.pool.0.held, &self.pool.0.held_for_peers];
        let counts = if self.for_peer { &counts[..] } else { &counts[..1] };
        if bytes >= before {
            for count in counts {
                count.fetch_add(bytes - before, Ordering::Relaxed);
            }
        } else {
            for count in counts {
                count.fetch_sub(before - bytes, Ordering::Relaxed);
            }
            self.pool.freed();
        }
    }

    /// Counts them as bytes of a whole message, which no longer waits for a peer.
    pub(crate) fn hold_for_sink(&mut self) {
        if std::mem::take(&mut self.for_peer) {
            self.pool.0.held_for_peers.fetch_sub(self.bytes, Ordering::Relaxed);
            self.pool.peers_freed();
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.set(0);
        }
    }
}

impl Drop for HeldForPeer {
    fn drop(&mut self) {
        self.pool.0.held_for_peers.fetch_sub(self.bytes, Ordering::Relaxed);
        self.pool.freed();
    }
}
