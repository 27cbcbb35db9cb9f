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

use crate::sync::{AtomicU8, AtomicU64, AtomicWaker, Ordering};

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
    /// For memory that is held for other peers.
    Starving,
}

/// What a connection has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Order {
    /// Nothing.
    None,
    /// Its messages are not taken any more: a newer connection of the same sender has taken its place, the
    /// sink refuses them, or the client cannot be told that they are committed.
    Refused,
    /// The sink has failed, so there is nothing more to receive for.
    SinkFailed,
    /// It shall end at once, whatever it does.
    Abort,
}

/// One connection's notes.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// A [`State`].
    state: AtomicU64,
    order: AtomicU8,
    waker: AtomicWaker,
}

/// A phase, since which tick it lasts, and whether that is too long.
///
/// It need not tell two phases of a kind apart that began in the same tick: what is true of one of them
/// is true of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State(u64);

impl State {
    const PHASE: u64 = 0b0111;
    const EXPIRED: u64 = 0b1000;
    const TICK: u32 = 4;

    pub(crate) fn phase(self) -> Phase {
        match self.0 & State::PHASE {
            1 => Phase::Idle,
            2 => Phase::InMessage,
            3 => Phase::Writing,
            4 => Phase::Closing,
            5 => Phase::Starving,
            _ => Phase::Busy,
        }
    }

    /// Returns the tick at which the phase began.
    pub(crate) fn since(self) -> u64 {
        self.0 >> State::TICK
    }

    /// Returns whether the phase has lasted too long, so that the connection shall end.
    pub(crate) fn is_expired(self) -> bool {
        self.0 & State::EXPIRED != 0
    }
}

impl Watch {
    /// Notes that `phase` began at `tick`. Only the connection itself does so.
    pub(crate) fn enter(&self, phase: Phase, tick: u64) {
        self.state.store(tick << State::TICK | phase as u64, Ordering::SeqCst);
    }

    pub(crate) fn state(&self) -> State {
        State(self.state.load(Ordering::SeqCst))
    }

    pub(crate) fn phase(&self) -> Phase {
        self.state().phase()
    }

    /// Says that `judged` has lasted too long. That is void if the connection has done anything since.
    pub(crate) fn expire(&self, judged: State) {
        let expired = judged.0 | State::EXPIRED;
        let (ok, failed) = (Ordering::SeqCst, Ordering::SeqCst);
        if self.state.compare_exchange(judged.0, expired, ok, failed).is_ok() {
            self.waker.wake();
        }
    }

    pub(crate) fn order(&self) -> Order {
        match self.order.load(Ordering::SeqCst) {
            0 => Order::None,
            1 => Order::Refused,
            2 => Order::SinkFailed,
            _ => Order::Abort,
        }
    }

    /// Tells the connection something and sees to it that it looks.
    pub(crate) fn tell(&self, order: Order) {
        self.order.fetch_max(order as u8, Ordering::SeqCst);
        self.waker.wake();
    }

    /// Sees to it that the connection looks around.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    /// Says that more of the connection's messages are committed. It is only woken if it waits for
    /// just that: while it waits for its peer, a wake-up would cost a system call for nothing.
    pub(crate) fn committed(&self) {
        if self.phase() == Phase::Closing {
            self.waker.wake();
        }
    }

    /// Notes whom to wake. To be called before looking at the state and the order.
    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }
}
