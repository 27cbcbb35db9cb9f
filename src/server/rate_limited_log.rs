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

/// How many lines are logged in a row, and how long it takes until there is one more.
type Rate = (u32, Duration);

/// For lines of one kind.
const OF_A_KIND: Rate = (5, Duration::from_secs(1));

/// For all of them together: 20 in the worst second, from clients that send all sorts of nonsense.
const OF_ALL: Rate = (10, Duration::from_millis(100));

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
    Slow,
    Lost,
    WriteFailed,
    Setup,
    HandlerFailed,
    Refused,
    NotAsked,
    SinkGone,
}

/// All of them, with the target of their lines, and what those that are left out are called.
///
/// A target names the option that the line is about, as in `framelet::idle_timeout`, so that a program
/// can say how its users set it.
const KINDS: [(Kind, Level, &str, &str); 17] = [
    (Kind::AcceptFailed, Level::Error, "framelet", "failures to accept connections"),
    (Kind::OverLimit, Level::Warn, "framelet::max_connections", "connections over the limit"),
    (Kind::Bug, Level::Error, "framelet", "connections ended by a bug in framelet"),
    (Kind::Idle, Level::Info, "framelet::idle_timeout", "idle connections"),
    (
        Kind::NotTaken,
        Level::Warn,
        "framelet::message_timeout",
        "peers that took nothing of their replies",
    ),
    (Kind::Aborted, Level::Warn, "framelet", "connections cut off by the end of the server"),
    (
        Kind::NoMessage,
        Level::Warn,
        "framelet",
        "connections that sent something other than messages",
    ),
    (Kind::Truncated, Level::Warn, "framelet", "connections that ended inside a message"),
    (
        Kind::Late,
        Level::Warn,
        "framelet::message_timeout",
        "messages that were not complete in time",
    ),
    (
        Kind::Slow,
        Level::Warn,
        "framelet::memory",
        "connections that were too slow while others waited for memory",
    ),
    (Kind::Lost, Level::Warn, "framelet", "connections that were lost"),
    (Kind::WriteFailed, Level::Warn, "framelet", "connections that took no more replies"),
    (Kind::Setup, Level::Warn, "framelet", "connections whose setup failed"),
    (Kind::HandlerFailed, Level::Error, "framelet", "connections whose handler failed"),
    (Kind::Refused, Level::Warn, "framelet", "clients that were refused"),
    (
        Kind::NotAsked,
        Level::Warn,
        "framelet::require_ack",
        "clients that ask for no acknowledgements",
    ),
    (Kind::SinkGone, Level::Warn, "framelet", "connections cut off since the sink failed"),
];

/// Logs the lines of each [`Kind`], as many as its limit allows.
#[derive(Debug, Default)]
pub(crate) struct RateLimitedLog {
    limits: [Mutex<Limit>; KINDS.len()],
    all: Mutex<Limit>,
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
        let (_, _, target, _) = KINDS[kind as usize];
        self.say_about(target, kind, line);
    }

    /// The same, with a target of its own.
    pub(crate) fn say_about(&self, target: &str, kind: Kind, line: impl fmt::Display) {
        let due = self.due(kind);
        let (_, level, ..) = KINDS[kind as usize];
        match due {
            Some(0) => log!(target: target, level, "{line}"),
            // In front, since what the target adds goes with the line.
            Some(left_out) => {
                log!(target: target, level, "after {left_out} more, not logged: {line}");
            }
            None => {}
        }
    }

    /// Counts a line. Returns whether it is due, and then how many of its kind were left out before it.
    fn due(&self, kind: Kind) -> Option<u64> {
        let now = Instant::now();
        let mut limit = self.limit(kind);
        let left_out = limit.due(now, OF_A_KIND)?;
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.due(now, OF_ALL).is_none() {
            limit.left_out = left_out + 1;
            return None;
        }
        Some(left_out)
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
        for (kind, level, target, what) in KINDS {
            let mut limit = self.limit(kind);
            let left_out = if is_due(&limit) { std::mem::take(&mut limit.left_out) } else { 0 };
            drop(limit);
            if left_out > 0 {
                log!(target: target, level, "and {left_out} more, not logged: {what}");
            }
        }
    }

    fn limit(&self, kind: Kind) -> MutexGuard<'_, Limit> {
        self.limits[kind as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Limit {
    /// Counts a line. Returns whether it is due, and then how many were left out before it.
    fn due(&mut self, now: Instant, (burst, interval): Rate) -> Option<u64> {
        self.last = Some(now);
        let even = self.even.map_or(now, |even| even.max(now));
        if even - now > interval * (burst - 1) {
            self.left_out += 1;
            return None;
        }
        self.even = Some(even + interval);
        Some(std::mem::take(&mut self.left_out))
    }

    /// Returns whether there are no more lines for the time being.
    fn is_over(&self, now: Instant) -> bool {
        self.last.is_some_and(|last| now.saturating_duration_since(last) >= OF_A_KIND.1)
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
        for _ in 0..OF_A_KIND.0 {
            assert_eq!(limit.due(start, OF_A_KIND), Some(0));
        }
        assert_eq!((limit.due(start, OF_A_KIND), limit.due(start, OF_A_KIND)), (None, None));
        let second = |number| start + OF_A_KIND.1 * number;
        assert_eq!(limit.due(second(1), OF_A_KIND), Some(2));
        assert_eq!(limit.due(second(1), OF_A_KIND), None);
        // For each second of silence one more, but not more than at the start.
        assert_eq!(
            (limit.due(second(3), OF_A_KIND), limit.due(second(3), OF_A_KIND)),
            (Some(1), Some(0))
        );
        assert_eq!(limit.due(second(3), OF_A_KIND), None);
        for _ in 0..OF_A_KIND.0 {
            assert!(limit.due(second(100), OF_A_KIND).is_some());
        }
        assert_eq!(limit.due(second(100), OF_A_KIND), None);
    }

    #[test]
    fn many_kinds_together_are_limited_too() {
        let log = RateLimitedLog::default();
        let due = |_| KINDS.iter().filter(|(kind, ..)| log.due(*kind).is_some()).count();
        let (first, second): (usize, usize) = (due(()), due(()));
        // A slow machine may have time for one or two more.
        assert!((10..=12).contains(&(first + second)), "{first} and {second} lines");
        let left_out: u64 = KINDS.iter().map(|(kind, ..)| log.limit(*kind).left_out).sum();
        assert_eq!(first as u64 + second as u64 + left_out, 2 * KINDS.len() as u64);
    }

    #[test]
    fn a_count_is_said_once_there_are_no_more_lines() {
        let (mut limit, start) = (Limit::default(), Instant::now());
        assert!(!limit.is_over(start));
        for _ in 0..=OF_A_KIND.0 {
            limit.due(start, OF_A_KIND);
        }
        assert!(!limit.is_over(start + OF_A_KIND.1 / 2));
        assert!(limit.is_over(start + OF_A_KIND.1));
        assert_eq!(limit.left_out, 1);
    }
}
