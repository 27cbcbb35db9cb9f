//! What a connection is doing, seen from outside, and how it is told to stop.
//!
//! A timer for each read would cost a system call for each read. Instead a connection notes what it
//! waits for and since when, and a sweep looks at all of them twice a second. The notes are two atomics.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::Waker;

use atomic_waker::AtomicWaker;

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
}

/// What a connection has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Order {
    /// Nothing.
    None,
    /// It has waited for too long and shall end.
    Expired,
    /// Its messages are not taken any more: a newer connection of the same sender has taken its place, or the
    /// sink refuses them.
    Refused,
    /// The sink has failed, so there is nothing more to receive for.
    SinkFailed,
    /// It shall end at once, whatever it does.
    Abort,
}

/// One connection's notes.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// The phase in the low bits, and above them the tick at which it began.
    phase: AtomicU64,
    order: AtomicU8,
    waker: AtomicWaker,
}

const PHASE_BITS: u32 = 3;

impl Watch {
    /// Notes that `phase` began at `tick`.
    pub(crate) fn enter(&self, phase: Phase, tick: u64) {
        self.phase.store(tick << PHASE_BITS | phase as u64, Ordering::SeqCst);
    }

    /// Returns the phase and the tick at which it began.
    pub(crate) fn phase(&self) -> (Phase, u64) {
        let noted = self.phase.load(Ordering::SeqCst);
        let phase = match noted & ((1 << PHASE_BITS) - 1) {
            1 => Phase::Idle,
            2 => Phase::InMessage,
            3 => Phase::Writing,
            4 => Phase::Closing,
            _ => Phase::Busy,
        };
        (phase, noted >> PHASE_BITS)
    }

    pub(crate) fn order(&self) -> Order {
        match self.order.load(Ordering::SeqCst) {
            0 => Order::None,
            1 => Order::Expired,
            2 => Order::Refused,
            3 => Order::SinkFailed,
            _ => Order::Abort,
        }
    }

    /// Tells the connection something and sees to it that it looks.
    pub(crate) fn tell(&self, order: Order) {
        self.order.fetch_max(order as u8, Ordering::SeqCst);
        self.waker.wake();
    }

    /// Takes back that the connection has expired.
    pub(crate) fn forgive(&self) {
        let (expired, none) = (Order::Expired as u8, Order::None as u8);
        // Any other order stands.
        let _ = self.order.compare_exchange(expired, none, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Sees to it that the connection looks around.
    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    /// Says that more of the connection's messages are committed. It is only woken if it waits for
    /// just that: while it waits for its peer, a wake-up would cost a system call for nothing.
    pub(crate) fn committed(&self) {
        if self.phase().0 == Phase::Closing {
            self.waker.wake();
        }
    }

    /// Notes whom to wake. To be called before looking at the order.
    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }
}
