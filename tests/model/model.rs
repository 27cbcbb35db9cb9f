//! A connection's notes, in all interleavings of those who read and write them.

#![cfg(test)]

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::Poll;

use shuttle::future::block_on;
use shuttle::sync::atomic::{AtomicU64, Ordering::SeqCst};
use shuttle::sync::mpsc::channel;
use shuttle::thread;

use self::connection_state::{ConnectionState, Phase, Signal};

#[path = "../../src/server/connection_state.rs"]
#[allow(dead_code, reason = "the library has other uses for it")]
mod connection_state;

/// What the file above takes from the standard library and from atomic-waker otherwise.
mod sync {
    use std::sync::Mutex;
    use std::task::Waker;

    use shuttle::sync::atomic::Ordering::SeqCst;
    pub(crate) use shuttle::sync::atomic::{AtomicU8, AtomicU64, Ordering};

    /// A waker that is registered or woken in one step, between which and the one before others may come.
    #[derive(Debug, Default)]
    pub(crate) struct AtomicWaker(AtomicU8, Mutex<Option<Waker>>);

    impl AtomicWaker {
        pub(crate) fn register(&self, waker: &Waker) {
            self.0.load(SeqCst);
            *self.1.lock().unwrap() = Some(waker.clone());
        }

        pub(crate) fn wake(&self) {
            self.0.load(SeqCst);
            let waker = self.1.lock().unwrap().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// More than there are, wherever all of them are gone through.
const MOST: usize = 5_000_000;

/// After how many ticks a connection has been idle for too long.
const TIMEOUT: u64 = 1;

/// What a server, its clients and a connection share.
#[derive(Default)]
struct Shared {
    state: ConnectionState,
    clock: AtomicU64,
    /// How many messages the kernel has.
    messages: AtomicU64,
    readable: sync::AtomicWaker,
}

impl Shared {
    fn send(&self) {
        self.messages.fetch_add(1, SeqCst);
        self.readable.wake();
    }

    /// Sweeps `ticks` after the last time.
    fn sweep(&self, ticks: u64) {
        let now = self.clock.fetch_add(ticks, SeqCst) + ticks;
        let state = self.state.snapshot();
        if state.phase() == Phase::Idle && now.saturating_sub(state.since()) > TIMEOUT {
            self.state.expire(state);
        }
    }

    /// Takes messages until it is told that it has been idle for too long, and checks that it has. Calls
    /// `idle` whenever it begins to be, with the number of messages taken.
    fn receive(&self, mut idle: impl FnMut(u64)) {
        let (mut taken, mut idle_since) = (0, 0);
        block_on(poll_fn(|cx| {
            self.state.register(cx.waker());
            self.readable.register(cx.waker());
            loop {
                let state = self.state.snapshot();
                if taken < self.messages.load(SeqCst) {
                    taken += 1;
                    self.state.enter(Phase::Busy, 0);
                } else if state.phase() != Phase::Idle {
                    idle_since = self.clock.load(SeqCst);
                    self.state.enter(Phase::Idle, idle_since);
                    idle(taken);
                    return Poll::Pending;
                } else if state.is_expired() {
                    let idle = self.clock.load(SeqCst) - idle_since;
                    assert!(idle > TIMEOUT, "ended after {idle} ticks");
                    return Poll::Ready(());
                } else {
                    return Poll::Pending;
                }
            }
        }));
    }
}

/// A client that sends so many messages to an idle connection, a sweep that looks at it after each of
/// these numbers of ticks, and in the end a client that sends nothing more.
fn sweep_beside(messages: u64, sweeps: &'static [u64]) {
    let shared = Arc::<Shared>::default();
    shared.state.enter(Phase::Idle, 0);
    let (idle, is_idle) = channel();
    let [client, sweeper, connection] = [(); 3].map(|()| Arc::clone(&shared));
    let client = thread::spawn(move || (0..messages).for_each(|_| client.send()));
    let sweeper = thread::spawn(move || sweeps.iter().for_each(|&ticks| sweeper.sweep(ticks)));
    let connection = thread::spawn(move || {
        connection.receive(|taken| {
            // If it has been ended, nobody wants to know.
            let _ = idle.send(taken);
        });
    });
    client.join().unwrap();
    sweeper.join().unwrap();
    // Unless it has been ended before, which was right.
    while is_idle.recv().is_ok_and(|taken| taken < messages) {}
    shared.sweep(TIMEOUT + 1);
    // It hears of that, or else this waits in vain.
    connection.join().unwrap();
}

/// Goes through all interleavings, and makes sure that it has.
fn check_all(test: impl Fn() + Send + Sync + 'static) {
    let gone_through = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&gone_through);
    let count_and_test = move || {
        counted.fetch_add(1, SeqCst);
        test();
    };
    shuttle::check_dfs(count_and_test, Some(MOST));
    let gone_through = gone_through.load(SeqCst);
    println!("{gone_through} interleavings");
    assert!(gone_through < MOST, "there are more");
}

/// A late sweep of a connection that was idle for long and has just got a message; and another one once
/// it is idle again, of which the connection has to hear.
#[test]
fn a_connection_is_ended_only_for_what_it_is_doing_and_then_it_is() {
    check_all(|| {
        let shared = Arc::<Shared>::default();
        shared.state.enter(Phase::Idle, 0);
        shared.messages.store(1, SeqCst);
        let (idle, is_idle) = channel();
        let sweeper = Arc::clone(&shared);
        let sweeper = thread::spawn(move || {
            sweeper.sweep(TIMEOUT + 1);
            is_idle.recv().unwrap();
            sweeper.sweep(TIMEOUT + 1);
        });
        shared.receive(|taken| idle.send(taken).unwrap());
        sweeper.join().unwrap();
    });
}

/// The same with more of everything, in random interleavings: there are too many.
#[test]
fn a_client_that_goes_on_sending_is_not_ended_for_what_was() {
    shuttle::check_random(|| sweep_beside(3, &[1, 2, 1, 2, 1]), 100_000);
    shuttle::check_pct(|| sweep_beside(3, &[1, 2, 1, 2, 1]), 100_000, 3);
}

#[test]
fn an_order_is_not_lost_among_phases_and_the_last_word_is_the_strongest() {
    check_all(|| {
        let state = Arc::<ConnectionState>::default();
        let others = [Signal::Refused, Signal::Abort].map(|order| {
            let state = Arc::clone(&state);
            thread::spawn(move || state.send(order))
        });
        let mut tick = 0;
        block_on(poll_fn(|cx| {
            state.register(cx.waker());
            tick += 1;
            state.enter(Phase::Idle, tick);
            if state.signal() == Signal::Abort { Poll::Ready(()) } else { Poll::Pending }
        }));
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(state.signal(), Signal::Abort);
    });
}

#[test]
fn whoever_waits_for_a_commit_before_it_ends_hears_of_it() {
    check_all(|| {
        let shared = Arc::new((ConnectionState::default(), AtomicU64::new(0)));
        let sink = Arc::clone(&shared);
        let sink = thread::spawn(move || {
            for _ in 0..2 {
                sink.1.fetch_add(1, SeqCst);
                sink.0.notify_committed();
            }
        });
        let (state, committed) = &*shared;
        state.enter(Phase::Closing, 0);
        block_on(poll_fn(|cx| {
            state.register(cx.waker());
            if committed.load(SeqCst) == 2 { Poll::Ready(()) } else { Poll::Pending }
        }));
        sink.join().unwrap();
    });
}
