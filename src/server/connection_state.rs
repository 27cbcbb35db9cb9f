//! What a connection is doing, as seen from outside, and how it is told to stop.
//!
//! A timer for each read would cost a system call for each read. Instead, a connection records what it
//! waits for and since when, and the deadline sweep checks all connections now and then. The record is two
//! atomics: the state and the signal.
//!
//! When the sweep judges a state that it has read, the connection may already be doing something else. So
//! the verdict is written into the same atomic with a compare-and-swap, which fails if the state has
//! changed; and the next state of the connection overwrites the verdict. All accesses are sequentially
//! consistent, so the interleavings that `tests/model` explores are all that exist.

use std::task::Waker;

use super::sync::{AtomicU8, AtomicU64, AtomicWaker, Ordering};

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Nothing from its peer: it is working, or waits for memory or for the sink.
    Busy,
    /// The first byte of a message.
    Idle,
    /// The rest of a message.
    InMessage,
    /// The peer to take replies.
    Writing,
    /// The sink to commit everything that was received, before the connection closes.
    Closing,
    /// The stream to be set up, such as by a TLS handshake.
    Setup,
    /// Memory that is held for other peers.
    Starving,
}

/// A signal to a connection. Later variants override earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Signal {
    /// Nothing.
    None,
    /// The connection's messages are no longer accepted: a newer connection of the same sender has replaced
    /// it, the sink refuses them, or the client cannot be sent acknowledgements.
    Refused,
    /// The sink has failed, so there is no point in receiving more.
    SinkFailed,
    /// The server cuts the connection off, whatever it is doing.
    Abort,
}

/// The state of one connection, shared with the rest of the server.
#[derive(Debug, Default)]
pub(crate) struct ConnectionState {
    /// A [`Snapshot`].
    state: AtomicU64,
    signal: AtomicU8,
    waker: AtomicWaker,
}

/// A phase, the tick at which it began, and the verdicts on it: bits 0 to 2, from bit 5 on, and bits 3 and 4.
///
/// Two phases of the same kind that began in the same tick are equal. That is harmless: they expire at the
/// same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot(u64);

impl Snapshot {
    const PHASE: u64 = 0b0111;
    const EXPIRED: u64 = 0b0_1000;
    const EVICTED: u64 = 0b1_0000;
    const TICK: u32 = 5;

    pub(crate) fn phase(self) -> Phase {
        match self.0 & Snapshot::PHASE {
            1 => Phase::Idle,
            2 => Phase::InMessage,
            3 => Phase::Writing,
            4 => Phase::Closing,
            5 => Phase::Setup,
            6 => Phase::Starving,
            _ => Phase::Busy,
        }
    }

    /// Returns the tick at which the phase began.
    pub(crate) fn since(self) -> u64 {
        self.0 >> Snapshot::TICK
    }

    /// Returns the tick at which the phase began if it is `phase`, and otherwise `now`.
    pub(crate) fn since_or(self, phase: Phase, now: u64) -> u64 {
        if self.phase() == phase { self.since() } else { now }
    }

    /// Returns whether the phase has lasted too long, so that the connection must end.
    pub(crate) fn is_expired(self) -> bool {
        self.0 & Snapshot::EXPIRED != 0
    }

    /// Returns whether the connection has to give way to another one, unless it has something to do.
    pub(crate) fn is_evicted(self) -> bool {
        self.0 & Snapshot::EVICTED != 0
    }
}

impl ConnectionState {
    /// Records that `phase` began at `tick`. Only the connection itself calls this, so a plain store is
    /// enough.
    pub(crate) fn enter(&self, phase: Phase, tick: u64) {
        self.state.store(tick << Snapshot::TICK | phase as u64, Ordering::SeqCst);
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot(self.state.load(Ordering::SeqCst))
    }

    pub(crate) fn phase(&self) -> Phase {
        self.snapshot().phase()
    }

    /// Records that `judged` has lasted too long, unless the connection has entered another phase since.
    pub(crate) fn expire(&self, judged: Snapshot) {
        self.record(judged, Snapshot::EXPIRED);
    }

    /// Records that the connection has to give way to another one, unless it has entered another phase since
    /// `judged`. Returns whether that is recorded.
    pub(crate) fn evict(&self, judged: Snapshot) -> bool {
        self.record(judged, Snapshot::EVICTED)
    }

    fn record(&self, judged: Snapshot, verdict: u64) -> bool {
        let (ok, failed) = (Ordering::SeqCst, Ordering::SeqCst);
        let with_verdict = judged.0 | verdict;
        let recorded = self.state.compare_exchange(judged.0, with_verdict, ok, failed).is_ok();
        if recorded {
            self.waker.wake();
        }
        recorded
    }

    pub(crate) fn signal(&self) -> Signal {
        match self.signal.load(Ordering::SeqCst) {
            0 => Signal::None,
            1 => Signal::Refused,
            2 => Signal::SinkFailed,
            _ => Signal::Abort,
        }
    }

    /// Sends the connection a signal and wakes it. A stronger signal replaces a weaker one.
    pub(crate) fn send(&self, signal: Signal) {
        self.signal.fetch_max(signal as u8, Ordering::SeqCst);
        self.waker.wake();
    }

    /// Makes the connection check its own state and the server's.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    /// Tells the connection that more of its messages are committed. It is only woken if it waits for that:
    /// waking it while it waits for its peer would cost a system call for nothing.
    pub(crate) fn notify_committed(&self) {
        if self.phase() == Phase::Closing {
            self.waker.wake();
        }
    }

    /// Registers the task to wake. To be called before checking the state and the signal: a change after
    /// the check then wakes the task.
    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }
}
