//! The time and waiting: those of the system, unless a claim about connections lets time pass itself.

use std::time::{Duration, Instant};

#[cfg(not(any(test, fuzzing)))]
pub(crate) use system::{Sleep, now, sleep};

#[cfg(any(test, fuzzing))]
pub(crate) use claimed::{Sleep, now, sleep};

/// Returns how long ago a moment was.
pub(crate) fn since(moment: Instant) -> Duration {
    now().saturating_duration_since(moment)
}

#[cfg(not(any(test, fuzzing)))]
mod system {
    use std::time::{Duration, Instant};

    use smol::Timer;

    pub(crate) type Sleep = Timer;

    pub(crate) fn now() -> Instant {
        Instant::now()
    }

    pub(crate) fn sleep(time: Duration) -> Sleep {
        Timer::after(time)
    }
}

#[cfg(any(test, fuzzing))]
mod claimed {
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use std::time::{Duration, Instant};

    use smol::Timer;

    use crate::runtime::steps::{Nap, Steps};

    pub(crate) enum Sleep {
        System(Timer),
        Claimed(Nap),
    }

    impl Future for Sleep {
        type Output = ();

        fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            match self.get_mut() {
                Sleep::System(timer) => Pin::new(timer).poll(cx).map(drop),
                Sleep::Claimed(nap) => Pin::new(nap).poll(cx),
            }
        }
    }

    pub(crate) fn now() -> Instant {
        Steps::current().map_or_else(Instant::now, |steps| steps.now())
    }

    pub(crate) fn sleep(time: Duration) -> Sleep {
        match Steps::current() {
            Some(steps) => Sleep::Claimed(steps.nap(time)),
            None => Sleep::System(Timer::after(time)),
        }
    }
}
