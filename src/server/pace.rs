//! Whether a message arrives fast enough to keep memory for which others wait.
//!
//! Memory held for an incomplete message is a loan: a peer that sends nothing would keep it until the
//! message timeout. That is harmless while nobody else needs the memory. But once another payload has
//! waited for its share for a while, each message has to arrive fast enough to be complete just within the
//! message timeout, or its connection is ended.

use std::time::{Duration, Instant};

/// The shortest time over which a speed is measured. Chosen by judgement: healthy senders pause for less.
const SPAN: Duration = Duration::from_millis(400);

/// By how many bytes a short message may lag: it holds little and arrives in few pieces.
const SHORTEST_SLACK: u64 = 256;

/// By what share of itself a long message may lag: it may arrive in large steps. Chosen by judgement; a peer
/// that sends nothing is found out after as large a share of the message timeout.
const SLACK_SHARE: u64 = 64;

/// How far a message or reply had got, and when.
#[derive(Debug)]
pub(crate) struct Pace {
    since: Instant,
    bytes: u64,
}

/// Too slow: this many bytes in this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooSlow {
    pub(crate) bytes: u64,
    pub(crate) time: Duration,
}

impl Pace {
    pub(crate) fn start(now: Instant, bytes: u64) -> Pace {
        Pace { since: now, bytes }
    }

    /// Returns the measured speed if something of `len` bytes is slower than `len` per `timeout`; otherwise
    /// starts a new measurement, unless it is behind. `bytes` is its progress.
    pub(crate) fn judge(
        &mut self,
        now: Instant,
        bytes: u64,
        len: u64,
        timeout: Duration,
    ) -> Option<TooSlow> {
        let time = now.saturating_duration_since(self.since);
        if time < SPAN {
            return None;
        }
        let slack = SHORTEST_SLACK.max(len / SLACK_SHARE);
        let due = u128::from(len).saturating_mul(time.as_nanos()) / timeout.as_nanos().max(1);
        if due <= u128::from(slack) {
            return None;
        }
        let come = bytes.saturating_sub(self.bytes);
        if u128::from(come) + u128::from(slack) < due {
            return Some(TooSlow { bytes: come, time });
        }
        // While it is behind, the measurement continues: what a new one forgives would add up.
        if u128::from(come) >= due {
            *self = Pace::start(now, bytes);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u64 = 1 << 20;
    const TIMEOUT: Duration = Duration::from_secs(30);

    #[test]
    fn what_comes_at_the_pace_is_never_too_slow_and_what_comes_at_half_of_it_is() {
        let start = Instant::now();
        for (percent, is_slow) in [(100, false), (120, false), (50, true), (0, true)] {
            let mut pace = Pace::start(start, 7);
            let found = (1..=60).find_map(|tick| {
                let bytes = 7 + LEN * tick * percent / 100 / 60;
                let time = TIMEOUT * u32::try_from(tick).unwrap() / 60;
                pace.judge(start + time, bytes, LEN, TIMEOUT)
            });
            // Half of the pace uses up the slack of 1/64 in 1/32 of the time.
            let ticks = if percent == 0 { 1 } else { 2 };
            let time = Duration::from_millis(500 * ticks);
            let bytes = LEN * ticks * percent / 100 / 60;
            assert_eq!(found, is_slow.then_some(TooSlow { bytes, time }), "{percent} %");
        }
    }

    /// A byte a second is a sign of life, not a pace.
    #[test]
    fn a_trickle_is_too_slow_and_what_came_before_does_not_count() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut pace = Pace::start(start, 0);
        assert_eq!(pace.judge(start + second, LEN / 2, LEN, TIMEOUT), None);
        let slow = Some(TooSlow { bytes: 1, time: second });
        assert_eq!(pace.judge(start + 2 * second, LEN / 2 + 1, LEN, TIMEOUT), slow);
    }

    #[test]
    fn nobody_is_judged_by_a_moment() {
        let start = Instant::now();
        let mut pace = Pace::start(start, 0);
        assert_eq!(pace.judge(start, 0, LEN, TIMEOUT), None);
        assert_eq!(pace.judge(start + SPAN / 2, 0, LEN, TIMEOUT), None);
        assert_eq!(pace.judge(start + SPAN, 0, LEN, TIMEOUT), None, "within the slack");
        assert!(pace.judge(start + TIMEOUT / 60, 0, LEN, TIMEOUT).is_some());
        let mut pace = Pace::start(start, 0);
        assert_eq!(pace.judge(start + SPAN / 2, 0, LEN, SPAN), None);
        assert!(pace.judge(start + SPAN, 0, LEN, SPAN).is_some());
    }

    /// Large steps: 16 KiB of 1 MiB, each just before its bytes would be missed.
    #[test]
    fn what_is_just_fast_enough_may_come_in_large_steps() {
        let start = Instant::now();
        let (step, steps) = (LEN / 64, 64);
        for (share, is_slow) in [(1, false), (2, true)] {
            let mut pace = Pace::start(start, 0);
            // Looked at every 50 ms.
            let found = (1..=600).find_map(|tick| {
                let arrived = steps * tick / 600 / share * step;
                pace.judge(
                    start + TIMEOUT * u32::try_from(tick).unwrap() / 600,
                    arrived,
                    LEN,
                    TIMEOUT,
                )
            });
            assert_eq!(found.is_some(), is_slow, "1/{share} of the pace: {found:?}");
        }
    }

    /// Of a thermometer's twenty bytes none may come for seconds.
    #[test]
    fn a_short_message_has_its_message_timeout() {
        let start = Instant::now();
        for (len, ends) in [(20, None), (256, None), (4096, Some(2))] {
            let mut pace = Pace::start(start, 0);
            let found = (1..=30).find(|&second| {
                let now = start + Duration::from_secs(second);
                pace.judge(now, 0, len, TIMEOUT).is_some()
            });
            // 4096 bytes in 30 s are 273 in two.
            assert_eq!(found, ends.map(|second| second + u64::from(second > 2)), "{len} bytes");
        }
    }

    #[test]
    fn no_timeout_is_too_long_to_count_with() {
        let start = Instant::now();
        let mut pace = Pace::start(start, 0);
        assert_eq!(pace.judge(start + SPAN, 0, u64::MAX, Duration::MAX), None);
        assert!(pace.judge(start + SPAN, 0, u64::MAX, Duration::from_nanos(1)).is_some());
    }
}
