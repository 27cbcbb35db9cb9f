use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};

use event_listener::EventListener;
use futures_lite::future::{block_on, poll_once};

use super::buffer::Supply;
use super::limits::*;
use super::pool::*;
use super::*;

/// Grows `lent` until it has `want` bytes; returns whether it got there without waiting.
fn grow(lent: &mut PooledBytes, want: usize) -> bool {
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

/// Returns read buffers that are held for the sink.
fn whole(pool: &Pool, bytes: usize) -> Vec<PooledBytes> {
    (0..bytes / BUFFER)
        .map(|_| {
            let mut lent = pool.try_read_buffer().unwrap();
            lent.hold_for_sink(1);
            lent
        })
        .collect()
}

/// Returns starts of messages of `len` bytes, as many as there are until the next one has to wait.
fn starts(pool: &Pool, len: usize) -> Vec<PooledBytes> {
    let mut starts = Vec::new();
    // Somebody else is over the limit.
    pool.0.overdraft.store(FOR_PEER, Ordering::Relaxed);
    loop {
        let mut start = pool.empty();
        if !grow(&mut start, len) {
            return starts;
        }
        starts.push(start);
    }
}

#[test]
fn an_announcement_costs_next_to_nothing() {
    let pool = Pool::new(64 << 20, 8 << 20);
    let mut listener = None;
    let mut lent: Vec<PooledBytes> = (0..1000).map(|_| pool.empty()).collect();
    for lent in &mut lent {
        block_on(poll_fn(|cx| lent.poll_grow(cx, &mut listener, 0, 1, 8 << 20)));
    }
    assert_eq!((pool.held(), pool.held_for_peers()), (256_000, 256_000));
}

#[test]
fn small_messages_get_through_beside_any_number_of_larger_ones_that_stall() {
    let pool = Pool::new(64 << 20, 8 << 20);
    let limit = 56 << 20;
    let mut stalled = Vec::new();
    for (len, sixteenths) in [(8 << 20, 8), (1 << 20, 10), (BUFFER, 12), (4096, 14)] {
        assert!(pool.try_read_buffer().is_some());
        stalled.extend(starts(&pool, len));
        let held = pool.held_for_peers();
        // The last one found no room for its next step, with which it has two buffers for a moment.
        assert!(limit / 16 * sixteenths - held < 2 * len, "{held} bytes in messages of {len}");
    }
    assert!(pool.try_read_buffer().is_none(), "too much could be left over in it");
    assert!(pool.has_room(), "but messages are still read one by one");
    // All of that waits for peers; what waits for the sink finds the rest.
    let held = pool.held();
    let mut lent = pool.lend(Buffer::new(BUFFER, Supply::Heap));
    lent.hold_for_sink(1);
    assert_eq!((pool.held(), pool.held_for_peers()), (held + BUFFER, held));
    drop((stalled, lent));
    assert_eq!((pool.held(), pool.held_for_peers()), (0, 0));
}

#[test]
fn a_message_is_held_for_a_peer_until_it_is_whole() {
    let pool = Pool::new(64 << 20, 8 << 20);
    let mut lent = pool.empty();
    assert!(grow(&mut lent, 1000));
    assert_eq!((pool.held(), pool.held_for_peers()), (1000, 1000));
    lent.hold_for_sink(1);
    assert_eq!((pool.held(), pool.held_for_peers()), (1000, 0));
    // Replies that are not taken wait for a peer again.
    let waits = pool.hold_for_peer(lent.counted());
    assert_eq!((pool.held(), pool.held_for_peers()), (1000, 1000));
    drop((waits, lent));
    assert_eq!((pool.held(), pool.held_for_peers()), (0, 0));
}

#[test]
fn messages_count_for_what_they_cost_even_if_they_are_empty() {
    let pool = Pool::new(64 << 20, 8 << 20);
    let mut lent = pool.try_read_buffer().unwrap();
    lent.hold_for_sink(BUFFER / 4);
    assert_eq!(pool.held(), BUFFER / 4 * MESSAGE + BATCH);
    drop(lent);
    let mut lent = pool.lend(Buffer::new(4, Supply::Heap));
    lent.hold_for_sink(1);
    assert_eq!(pool.held(), MESSAGE + BATCH);
    drop(lent);
    assert_eq!(pool.held(), 0);
}

/// As the table of the module has it.
#[test]
fn the_longer_a_message_is_the_less_may_be_held_where_it_grows() {
    const KIB: usize = 1024;
    let pool = Pool::new(64 << 20, 0);
    for (longest, sixteenths, longer) in [
        (4 * KIB, 14, 13),
        (16 * KIB, 13, 12),
        (64 * KIB, 12, 11),
        (256 * KIB, 11, 10),
        (1024 * KIB, 10, 8),
        (usize::MAX - 1, 8, 8),
    ] {
        let shares = [pool.share(longest), pool.share(longest + 1)];
        assert_eq!(shares, [sixteenths, longer].map(|n| n * (4 << 20)), "{longest}");
    }
}

#[test]
fn a_few_read_buffers_lie_idle_whatever_is_held() {
    for pool in [Pool::with(LEAST_LIMIT, Supply::Pages), Pool::with(usize::MAX, Supply::Heap)] {
        let _held = pool.lend(Buffer::new(LEAST_LIMIT, Supply::Heap));
        for _ in 0..40 {
            pool.give_back(Buffer::new(BUFFER, Supply::Heap));
        }
        assert_eq!(pool.with_idle(|idle| idle.bytes()), 32 * 64 * 1024);
    }
}

#[test]
fn two_large_payloads_cannot_lock_each_other_out() {
    let pool = Pool::new(4 << 20, 1 << 20);
    let mut lent = [pool.empty(), pool.empty()];
    // Together they would need more than there is for messages under way.
    assert!(grow(&mut lent[0], 900 * 1024));
    assert!(grow(&mut lent[1], 1 << 20), "one may go over");
    let mut third = pool.empty();
    assert!(!grow(&mut third, 1 << 20), "but only one");
    assert!(pool.held() <= 4 << 20);
    drop(lent);
    assert!(grow(&mut third, 1 << 20));
    drop(third);
    assert_eq!((pool.held(), pool.held_for_peers()), (0, 0));
}

/// How often a task was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn as_many_waiting_readers_are_woken_as_there_is_room_for() {
    let pool = Pool::new(2 << 20, 0);
    let mut kept = whole(&pool, (2 << 20) - BUFFER);
    let woken = Arc::<Woken>::default();
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    let mut readers: Vec<_> = (0..10).map(|_| (None, None::<PooledBytes>)).collect();
    let mut waiting = |readers: &mut Vec<(Option<Box<Place>>, Option<PooledBytes>)>| {
        for (place, buffer) in &mut *readers {
            if buffer.is_none() && pool.poll_room(&mut cx, place).is_ready() {
                *buffer = pool.try_read_buffer();
            }
        }
        readers.iter().filter(|(_, buffer)| buffer.is_none()).count()
    };
    assert_eq!((waiting(&mut readers), woken.0.load(Ordering::SeqCst)), (10, 0));
    // A read needs room for two buffers, since something may be left over in it.
    kept.pop();
    assert_eq!(woken.0.load(Ordering::SeqCst), 1);
    assert_eq!(waiting(&mut readers), 9);
    // The one that got a buffer has passed the word on, to one that found nothing.
    let before = woken.0.swap(0, Ordering::SeqCst);
    assert!(before <= 2, "{before} were woken");
    kept.truncate(kept.len() - 3);
    while woken.0.swap(0, Ordering::SeqCst) > 0 {
        waiting(&mut readers);
    }
    assert_eq!(waiting(&mut readers), 6);
    drop(kept);
    while woken.0.swap(0, Ordering::SeqCst) > 0 {
        waiting(&mut readers);
    }
    assert_eq!(waiting(&mut readers), 0);
}

#[test]
fn a_reader_that_is_woken_after_others_took_the_room_keeps_its_place() {
    let pool = Pool::new(2 << 20, 0);
    let mut kept = whole(&pool, (2 << 20) - BUFFER);
    let woken: [Arc<Woken>; 3] = Default::default();
    let wakers = woken.clone().map(Waker::from);
    let mut places = [None, None, None];
    let mut gets_room = |reader: usize| {
        let mut cx = Context::from_waker(&wakers[reader]);
        pool.poll_room(&mut cx, &mut places[reader]).is_ready()
    };
    assert_eq!([0, 1, 2].map(&mut gets_room), [false; 3]);
    for _ in 0..3 {
        kept.pop();
        // It is gone again by the time that the first one looks.
        let mut taken = pool.try_read_buffer().unwrap();
        taken.hold_for_sink(1);
        kept.push(taken);
        assert_eq!([0, 1, 2].map(&mut gets_room), [false; 3]);
    }
    kept.pop();
    assert!(!gets_room(1) && !gets_room(2), "it is not their turn");
    assert!(gets_room(0));
    // One that goes passes the word on.
    woken[2].0.store(0, Ordering::SeqCst);
    places[1] = None;
    assert!(woken[2].0.load(Ordering::SeqCst) > 0, "nobody was told");
}

#[test]
fn payloads_that_wait_get_what_others_leave_one_after_the_other() {
    let pool = Pool::new(8 << 20, 1 << 20);
    let mut stalled = starts(&pool, 1 << 20);
    let woken = Arc::<Woken>::default();
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    let mut waiting: Vec<_> = (0..3).map(|_| (pool.empty(), None)).collect();
    let mut poll = |waiting: &mut Vec<(PooledBytes, Option<EventListener>)>| {
        for (lent, listener) in &mut *waiting {
            let more = lent.len() < 1 << 20;
            while more && lent.poll_grow(&mut cx, listener, lent.len(), 0, 1 << 20).is_ready() {
                if lent.len() == 1 << 20 {
                    break;
                }
            }
        }
        waiting.iter().filter(|(lent, _)| lent.len() < 1 << 20).count()
    };
    assert_eq!(poll(&mut waiting), 3);
    woken.0.store(0, Ordering::SeqCst);
    while stalled.pop().is_some() && poll(&mut waiting) > 0 {
        assert!(woken.0.swap(0, Ordering::SeqCst) > 0, "somebody is told");
    }
    assert_eq!(poll(&mut waiting), 0);
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
    assert_eq!(pool.held(), 200_000, "the whole buffer is in use");
    second.fill(b'2');
    assert_eq!(second.into_vec(), vec![b'2'; 150_000]);
    assert_eq!(pool.held(), 0);
}

#[test]
fn what_is_not_needed_goes_back_to_the_system() {
    let pool = Pool::new(64 << 20, 8 << 20);
    let mut large = pool.empty();
    grow(&mut large, 1 << 20);
    drop(large);
    drop(pool.try_read_buffer());
    pool.trim();
    pool.trim();
    assert_eq!(pool.with_idle(|idle| idle.bytes()), 0);
}

#[test]
fn idle_and_kept_memory_share_one_limit() {
    let pool = Pool::new(9 << 20, 1 << 20);
    let idle = || pool.with_idle(|idle| idle.bytes());
    // The last one needs room for another.
    let most = (8 << 20) - BUFFER;
    drop(whole(&pool, most));
    assert_eq!(idle(), most);
    let mut large = pool.empty();
    assert!(grow(&mut large, 1 << 20));
    assert!(idle() + pool.held() <= 8 << 20);
    let held = whole(&pool, (7 << 20) - BUFFER);
    assert_eq!(pool.held(), most);
    // Where the limit is reached, a few buffers for the next reads stay nevertheless.
    assert!(idle() <= LEAST_IDLE);
    drop((large, held));
    assert_eq!(pool.held(), 0);
    assert!(idle() > most - BUFFER && idle() <= 8 << 20, "{} bytes are idle", idle());
}

#[test]
fn idle_memory_makes_room_for_what_is_lent() {
    let pool = Pool::new(8 << 20, 0);
    drop(whole(&pool, (8 << 20) - BUFFER));
    let lent = pool.lend(Buffer::new(3 << 20, Supply::Heap));
    assert_eq!(pool.with_idle(|idle| idle.bytes()), 5 << 20);
    // And for what grows.
    let mut grown = pool.empty();
    assert!(grow(&mut grown, 1000));
    assert_eq!(pool.with_idle(|idle| idle.bytes()), (5 << 20) - BUFFER);
    drop((lent, grown));
}

#[test]
fn few_bytes_get_no_pages_of_their_own() {
    let (pages, heap) =
        (Pool::with(usize::MAX, Supply::Pages), Pool::with(usize::MAX, Supply::Heap));
    for (len, supply, size) in [
        (100, Supply::Heap, 100),
        (BUFFER / 2, Supply::Heap, BUFFER / 2),
        (BUFFER / 2 + 1, Supply::Heap, BUFFER),
        (BUFFER - 1, Supply::Heap, BUFFER),
        (BUFFER, Supply::Pages, BUFFER),
        (BUFFER + 1, Supply::Pages, BUFFER + 1),
    ] {
        assert_eq!((pages.supply(len), pages.size(len)), (supply, size), "{len}");
        assert_eq!((heap.supply(len), heap.size(len)), (Supply::Heap, len), "{len}");
    }
}

#[test]
fn a_payload_goes_on_in_what_others_have_left() {
    let pool = Pool::new(64 << 20, 8 << 20);
    let mut payload = pool.empty();
    let mut listener = None;
    for (got, coming, want, len, size) in [
        (0, 100, 1 << 20, 256, 256),
        // Little less than a read buffer is one.
        (256, 34_000, 1 << 20, BUFFER, BUFFER),
        (BUFFER, 0, 1 << 20, 2 * BUFFER, 2 * BUFFER),
        // One step is enough where two would not be much more.
        (2 * BUFFER, 0, 300_000, 300_000, 300_000),
    ] {
        payload[..got].fill(b'1');
        let grown = poll_fn(|cx| payload.poll_grow(cx, &mut listener, got, coming, want));
        assert!(block_on(poll_once(grown)).is_some());
        assert_eq!((payload.len(), payload.counted(), pool.held()), (len, size, size));
        assert!(payload[..got].iter().all(|&byte| byte == b'1'));
    }
    // What it has left behind on its way waits for the next.
    assert_eq!(pool.with_idle(|idle| idle.bytes()), 3 * BUFFER);
}

/// Returns how long a payload of `want` bytes is once the first ones come, and how many are counted for it.
fn begun(pool: &Pool, coming: usize, want: usize) -> (usize, usize) {
    let (mut payload, mut listener) = (pool.empty(), None);
    let grown = poll_fn(|cx| payload.poll_grow(cx, &mut listener, 0, coming, want));
    assert!(block_on(poll_once(grown)).is_some());
    (payload.len(), payload.counted())
}

#[test]
fn a_payload_gets_all_its_memory_once_half_of_it_is_much() {
    let pool = Pool::new(64 << 20, 8 << 20);
    for (coming, want, len, counted) in [
        (1000, 1900, 1000, 1000),
        (BUFFER / 2, 60_000, BUFFER / 2, BUFFER / 2),
        (BUFFER / 2 + 1, 60_000, 60_000, BUFFER),
        (BUFFER / 2 + 1, BUFFER + 2, BUFFER + 2, BUFFER + 2),
        (BUFFER / 2 + 1, BUFFER + 3, BUFFER, BUFFER),
    ] {
        assert_eq!(begun(&pool, coming, want), (len, counted), "{coming} of {want}");
    }
}

#[test]
fn a_used_buffer_for_all_of_a_payload_is_taken_only_while_there_is_plenty() {
    let pool = Pool::new(64 << 20, 0);
    let (want, half_of_share) = (1 << 20, (20 << 20) - (1 << 20));
    for (held, is_plenty) in [(0, true), (half_of_share, true), (half_of_share + 1, false)] {
        let mut used = pool.empty();
        assert!(grow(&mut used, want));
        drop(used);
        let held = pool.hold_for_peer(held);
        assert_eq!(begun(&pool, 70_000, want).0 == want, is_plenty);
        drop(held);
    }
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
    let mut others = starts(&pool, 1 << 20);
    let mut listener = None;
    let mut waits = |payload: &mut PooledBytes| {
        let got = payload.len();
        let grown = poll_fn(|cx| payload.poll_grow(cx, &mut listener, got, 0, 1 << 20));
        (block_on(poll_once(grown)).is_none(), listener.is_some())
    };
    while payload.len() < 1 << 20 && waits(&mut payload) == (false, false) {}
    assert_eq!(waits(&mut payload), (true, true));
    // It goes on in what the others leave.
    others.clear();
    pool.0.overdraft.store(NOBODY, Ordering::Relaxed);
    while payload.len() < 1 << 20 {
        assert_eq!(waits(&mut payload), (false, false));
    }
}

#[test]
fn a_message_whose_rest_has_arrived_does_not_wait_for_its_share() {
    let pool = Pool::new(8 << 20, 1 << 20);
    let stalled = starts(&pool, BUFFER);
    let mut payload = pool.empty();
    assert!(!grow(&mut payload, BUFFER));
    assert!(payload.admit(), "that is new");
    assert!(!payload.admit(), "and then it is not");
    assert!(grow(&mut payload, BUFFER));
    assert_eq!(payload.counted(), BUFFER);
    drop((stalled, payload));
    // There has to be room for it, though.
    let whole = whole(&pool, (7 << 20) - BUFFER);
    pool.0.overdraft.store(FOR_PEER, Ordering::Relaxed);
    let mut payload = pool.empty();
    assert!(payload.admit() && !grow(&mut payload, 2 * BUFFER));
    drop((whole, payload));
    assert_eq!((pool.held(), pool.held_for_peers()), (0, 0));
}

#[test]
fn a_few_bytes_do_not_hold_what_many_could_use() {
    let pool = Pool::new(64 << 20, 8 << 20);
    let mut used: Vec<PooledBytes> = (0..3).map(|_| pool.empty()).collect();
    used.iter_mut().for_each(|lent| assert!(grow(lent, 8 << 20)));
    drop(used);
    let mut few: Vec<PooledBytes> = (0..50).map(|_| pool.empty()).collect();
    let mut listener = None;
    for lent in &mut few {
        let grown = poll_fn(|cx| lent.poll_grow(cx, &mut listener, 0, 66_000, 8 << 20));
        assert!(block_on(poll_once(grown)).is_some());
    }
    assert!(pool.held() < 32 << 20, "{} bytes are kept", pool.held());
}

#[test]
fn nobody_reads_what_there_is_no_room_to_count() {
    for (memory, limit) in [(4 << 20, 4 << 20), (0, LEAST_LIMIT)] {
        let pool = Pool::new(memory, 0);
        for (held, ready) in
            [(0, true), (limit - 2 * BUFFER, true), (limit - 2 * BUFFER + 1, false)]
        {
            let _held = pool.lend(Buffer::new(held, Supply::Heap));
            let mut place = None;
            let waiting = poll_fn(|cx| pool.poll_room(cx, &mut place));
            let polled = block_on(poll_once(waiting));
            assert_eq!(polled.is_some(), ready, "{held} of {limit}");
        }
    }
}

#[test]
fn what_is_shown_of_a_buffer_is_nobodys_bytes() {
    let mut buffer = Buffer::new(4, Supply::Heap);
    buffer.fill(b'7');
    assert_eq!(format!("{:?}", Pool::unbounded().lend(buffer)), "PooledBytes { len: 4, .. }");
}

#[test]
fn a_payload_starves_if_peers_hold_its_share_not_if_the_sink_holds_the_memory() {
    let pool = Pool::new(5 << 20, 1 << 20);
    let mut full = whole(&pool, (4 << 20) - BUFFER);
    let mut over = pool.empty();
    assert!(grow(&mut over, 1 << 20));
    let mut payload = pool.empty();
    assert!(!grow(&mut payload, 1 << 20));
    assert!(!payload.starves(), "the sink holds all");
    full.clear();
    let stalled = starts(&pool, 1 << 20);
    assert!(!grow(&mut payload, 1 << 20));
    assert!(payload.starves() && pool.lacks_share(1 << 20, 1 << 20));
    over.hold_for_sink(1);
    assert!(!grow(&mut payload, 1 << 20));
    assert!(!payload.starves(), "the sink holds what is next");
    drop((over, stalled));
    assert!(grow(&mut payload, 1 << 20));
    assert!(!payload.starves());
}

#[test]
fn payloads_that_wait_are_seen() {
    let pool = Pool::new(5 << 20, 1 << 20);
    let stalled = starts(&pool, 1 << 20);
    assert!(!pool.is_waited_for());
    let (mut payload, mut listener) = (pool.empty(), None);
    // The other half of it is in a read buffer.
    let half = 512 * 1024;
    let mut grown = Box::pin(poll_fn(|cx| payload.poll_grow(cx, &mut listener, 0, half, 1 << 20)));
    assert!(block_on(poll_once(&mut grown)).is_none());
    assert!(pool.is_waited_for());
    drop(stalled);
    assert!(block_on(poll_once(grown)).is_some());
    assert!(!pool.is_waited_for());
}
