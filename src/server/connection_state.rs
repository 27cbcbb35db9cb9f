//! What a connection is doing, seen from outside, and how it is told to stop.
//!
//! A timer for each read would cost a system call for each read. Instead a connection notes what it
//! waits for and since when, and a sweep looks at all of them now and then. The notes are two atomics.
//!
//! The sweep judges what it has read, and by then the connection may do something else. So it writes its
//! judgement into the very word that it judged, and only if that still stands there; whatever the
//! connection does next takes the judgement away with the word. All accesses are sequentially
//! consistent, so the interleavings that `tests/model` goes through are all there are.

use std::task::Waker;

use super::sync::{AtomicU8, AtomicU64, AtomicWaker, Ordering};

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// For nothing of its peer's: it works, or waits for memory or for the sink.
    Busy,
    /// For the first byte of a message.
    Idle,
    /// For the rest of a message.
    InMessage,
    /// For the peer to take replies.
    Writing,
    /// For the sink to commit what has come, before it closes.
    Closing,
    /// For its stream to be set up.
    Setup,
    /// For memory that is held for other peers.
    Starving,
}

/// What a connection is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Signal {
    /// Nothing.
    None,
    /// Its messages are not taken any more: a newer connection of the same sender has taken its place, the
    /// sink refuses them, or the client cannot be told that they are committed.
    Refused,
    /// The sink has failed, so there is nothing more to receive for.
    SinkFailed,
    /// The server cuts it off, whatever it is doing.
    Abort,
}

/// One connection's notes.
#[derive(Debug, Default)]
pub(crate) struct ConnectionState {
    /// A [`Snapshot`].
    state: AtomicU64,
    signal: AtomicU8,
    waker: AtomicWaker,
}

/// A phase, since which tick it lasts, and whether that is too long.
///
/// It need not tell two phases of a kind apart that began in the same tick: what is true of one of them
/// is true of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot(u64);

impl Snapshot {
    const PHASE: u64 = 0b0111;
    const EXPIRED: u64 = 0b1000;
    const TICK: u32 = 4;

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

    /// Returns whether the phase has lasted too long, so that the connection shall end.
    pub(crate) fn is_expired(self) -> bool {
        self.0 & Snapshot::EXPIRED != 0
    }
}

impl ConnectionState {
    /// Notes that `phase` began at `tick`. Only the connection itself does so.
    pub(crate) fn enter(&self, phase: Phase, tick: u64) {
        self.state.store(tick << Snapshot::TICK | phase as u64, Ordering::SeqCst);
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot(self.state.load(Ordering::SeqCst))
    }

    pub(crate) fn phase(&self) -> Phase {
        self.snapshot().phase()
    }

    /// Says that `judged` has lasted too long. That is void if the connection has done anything since.
    pub(crate) fn expire(&self, judged: Snapshot) {
        let expired = judged.0 | Snapshot::EXPIRED;
        let (ok, failed) = (Ordering::SeqCst, Ordering::SeqCst);
        if self.state.compare_exchange(judged.0, expired, ok, failed).is_ok() {
            self.waker.wake();
        }
    }

    pub(crate) fn signal(&self) -> Signal {
        match self.signal.load(Ordering::SeqCst) {
            0 => Signal::None,
            1 => Signal::Refused,
            2 => Signal::SinkFailed,
            _ => Signal::Abort,
        }
    }

    /// Tells the connection something, and wakes it. A weightier signal replaces a lighter one.
    pub(crate) fn send(&self, signal: Signal) {
        self.signal.fetch_max(signal as u8, Ordering::SeqCst);
        self.waker.wake();
    }

    /// Makes the connection look at its state and at the server's.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    /// Says that more of the connection's messages are committed. It is only woken if it waits for
    /// just that: while it waits for its peer, a wake-up would cost a system call for nothing.
    pub(crate) fn notify_committed(&self) {
        if self.phase() == Phase::Closing {
            self.waker.wake();
        }
    }

    /// Notes whom to wake. To be called before looking at the state and the signal.
    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }
}
