//! Log lines that peers cause: a few of each kind a second at most, and how many more there were.
//!
//! Anybody who can connect can cause such lines, tens of thousands a second. The first ones of a kind
//! are logged at once, so that each error of a quiet server is there in full. Those that are left out
//! are counted, and the count is said with the next line of the kind, or on its own once there are no
//! more, or at the end of the server.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::{Level, log};

/// How many lines of a kind are logged in a row. With three kinds at once, as from a client that sends
/// all sorts of nonsense, that is less than 20 lines in the worst second.
const BURST: u32 = 5;

/// How long it takes until there is one more of them.
const INTERVAL: Duration = Duration::from_secs(1);

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Kind {
    AcceptFailed,
    OverLimit,
    Bug,
    Idle,
    NotTaken,
    Aborted,
    NoMessage,
    Truncated,
    Late,
    Lost,
    WriteFailed,
    Refused,
    NotAsked,
    SinkGone,
}

/// All of them, with what those that are left out are called.
const KINDS: [(Kind, Level, &str); 14] = [
    (Kind::AcceptFailed, Level::Error, "failures to accept connections"),
    (Kind::OverLimit, Level::Warn, "connections over the limit (--max-connections)"),
    (Kind::Bug, Level::Error, "connections ended by a bug in framelet"),
    (Kind::Idle, Level::Info, "idle connections (--idle-timeout)"),
    (Kind::NotTaken, Level::Warn, "peers that took nothing of their replies (--message-timeout)"),
    (Kind::Aborted, Level::Warn, "connections cut off by the end of the server"),
    (Kind::NoMessage, Level::Warn, "connections that sent something other than messages"),
    (Kind::Truncated, Level::Warn, "connections that ended inside a message"),
    (Kind::Late, Level::Warn, "messages that were not complete in time (--message-timeout)"),
    (Kind::Lost, Level::Warn, "connections that were lost"),
    (Kind::WriteFailed, Level::Warn, "connections that took no more replies"),
    (Kind::Refused, Level::Warn, "clients that were refused acknowledgements"),
    (Kind::NotAsked, Level::Warn, "clients that ask for no acknowledgements (--require-ack)"),
    (Kind::SinkGone, Level::Warn, "connections cut off since the sink failed"),
];

/// Logs the lines of each [`Kind`], as many as its limit allows.
#[derive(Debug, Default)]
pub(crate) struct RateLimitedLog {
    limits: [Mutex<Limit>; KINDS.len()],
}

/// How many lines of one kind there were.
#[derive(Debug, Default)]
struct Limit {
    /// When the line after the last one would be due if they came at even intervals.
    even: Option<Instant>,
    /// When the last one came, logged or not.
    last: Option<Instant>,
    left_out: u64,
}

impl RateLimitedLog {
    /// Logs a line, unless there were too many of its kind lately.
    pub(crate) fn say(&self, kind: Kind, line: impl fmt::Display) {
        let due = self.limit(kind).due(Instant::now());
        let (_, level, _) = KINDS[kind as usize];
        match due {
            Some(0) => log!(level, "{line}"),
            Some(left_out) => log!(level, "{line} (and {left_out} more, not logged)"),
            None => {}
        }
    }

    /// Says how many lines were left out of kinds of which there are no more. To be called now and then.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        self.say_left_out(|limit| limit.is_over(now));
    }

    /// Says how many lines were left out, once there will be no more.
    pub(crate) fn finish(&self) {
        self.say_left_out(|_| true);
    }

    fn say_left_out(&self, is_due: impl Fn(&Limit) -> bool) {
        for (kind, level, what) in KINDS {
            let mut limit = self.limit(kind);
            let left_out = if is_due(&limit) { std::mem::take(&mut limit.left_out) } else { 0 };
            drop(limit);
            if left_out > 0 {
                log!(level, "and {left_out} more, not logged: {what}");
            }
        }
    }

    fn limit(&self, kind: Kind) -> MutexGuard<'_, Limit> {
        self.limits[kind as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Limit {
    /// Counts a line. Returns whether it is due, and then how many were left out before it.
    fn due(&mut self, now: Instant) -> Option<u64> {
        self.last = Some(now);
        let even = self.even.map_or(now, |even| even.max(now));
        if even - now > INTERVAL * (BURST - 1) {
            self.left_out += 1;
            return None;
        }
        self.even = Some(even + INTERVAL);
        Some(std::mem::take(&mut self.left_out))
    }

    /// Returns whether there are no more lines for the time being.
    fn is_over(&self, now: Instant) -> bool {
        self.last.is_some_and(|last| now.saturating_duration_since(last) >= INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_place() {
        for (place, (kind, ..)) in KINDS.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
        }
    }

    #[test]
    fn a_few_lines_are_logged_at_once_and_then_one_a_second_with_a_count() {
        let (mut limit, start) = (Limit::default(), Instant::now());
        for _ in 0..BURST {
            assert_eq!(limit.due(start), Some(0));
        }
        assert_eq!((limit.due(start), limit.due(start)), (None, None));
        let second = |number| start + INTERVAL * number;
        assert_eq!(limit.due(second(1)), Some(2));
        assert_eq!(limit.due(second(1)), None);
        // For each second of silence one more, but not more than at the start.
        assert_eq!((limit.due(second(3)), limit.due(second(3))), (Some(1), Some(0)));
        assert_eq!(limit.due(second(3)), None);
        for _ in 0..BURST {
            assert!(limit.due(second(100)).is_some());
        }
        assert_eq!(limit.due(second(100)), None);
    }

    #[test]
    fn a_count_is_said_once_there_are_no_more_lines() {
        let (mut limit, start) = (Limit::default(), Instant::now());
        assert!(!limit.is_over(start));
        for _ in 0..=BURST {
            limit.due(start);
        }
        assert!(!limit.is_over(start + INTERVAL / 2));
        assert!(limit.is_over(start + INTERVAL));
        assert_eq!(limit.left_out, 1);
    }
}
