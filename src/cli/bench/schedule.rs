//! The schedule of an open loop.

use std::time::Duration;

/// A rate, from the start of the run: message 0 is due at once, and each later one a constant time after
/// the previous one, whatever became of earlier messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    /// Messages per second, from 1 to [`FASTEST`].
    rate: u64,
}

/// The highest rate: one message each nanosecond.
pub(super) const FASTEST: u64 = 1_000_000_000;

const NANOS: u64 = 1_000_000_000;

impl Schedule {
    pub(super) fn new(rate: u64) -> Schedule {
        Schedule { rate: rate.clamp(1, FASTEST) }
    }

    /// Returns when a message is due.
    pub(super) fn due(self, message: u64) -> Duration {
        let (seconds, rest) = (message / self.rate, message % self.rate);
        // Below one second, and the product fits: both factors are at most 10⁹.
        Duration::from_secs(seconds) + Duration::from_nanos(rest * NANOS / self.rate)
    }

    /// Returns the first message that is due at or after this time.
    pub(super) fn first(self, from: Duration) -> u64 {
        let rest = u64::from(from.subsec_nanos()) * self.rate;
        from.as_secs().saturating_mul(self.rate).saturating_add(rest.div_ceil(NANOS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_due_at_a_constant_rate() {
        let schedule = Schedule::new(4);
        assert_eq!(schedule.due(0), Duration::ZERO);
        assert_eq!(schedule.due(1), Duration::from_millis(250));
        assert_eq!(schedule.due(4_000_000_000), Duration::from_secs(1_000_000_000));
    }

    #[test]
    fn the_first_message_from_a_time_on_is_due_then_and_the_one_before_it_is_not() {
        let mut random = fastrand::Rng::with_seed(2);
        for _ in 0..100_000 {
            let (fastest, longest) = (FASTEST >> random.u32(..30), 1 << random.u32(1..50));
            let schedule = Schedule::new(random.u64(1..=fastest));
            let from = Duration::from_nanos(random.u64(..longest));
            let first = schedule.first(from);
            assert!(schedule.due(first) >= from, "{schedule:?} {from:?}");
            if let Some(before) = first.checked_sub(1) {
                assert!(schedule.due(before) < from, "{schedule:?} {from:?}");
            }
        }
    }
}
