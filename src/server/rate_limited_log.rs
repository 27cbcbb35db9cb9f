//! Log lines that peers can trigger, limited per kind and in total.
//!
//! Anybody who can connect can trigger such lines, tens of thousands a second. The first ones of a kind are
//! logged at once, so a quiet server logs every error. Suppressed lines are counted. The count is logged
//! with the next line of the kind, or on its own once no more follow or the server ends.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use log::kv::Value;
use log::{Level, Record};

use super::figures::Incident;
use super::open_connection::OpenConnection;
use crate::net::byte_stream::Peer;

/// How many lines may be logged in a row, and the interval after which one more may be.
type Rate = (u32, Duration);

/// The rate for each kind.
const OF_A_KIND: Rate = (5, Duration::from_secs(1));

/// The rate for all kinds together: at most 20 lines in the worst second, even from clients that fail in
/// every possible way.
const OF_ALL: Rate = (10, Duration::from_millis(100));

/// The subject of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Kind {
    AcceptFailed,
    OverLimit,
    NotAllowed,
    NotBalancer,
    AddressFull,
    Evicted,
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
    SetupLate,
    HandlerFailed,
    Refused,
    NotAsked,
    SinkGone,
}

/// Every kind with its name in figures, its level, the target of its lines, and the name of its suppressed lines.
///
/// A target names the option that the line is about, such as `framelet::idle_timeout`, so that a program
/// can tell its users how to change it.
const KINDS: [(Kind, &str, Level, &str, &str); 22] = [
    (
        Kind::AcceptFailed,
        "accept_failed",
        Level::Error,
        "framelet",
        "failures to accept connections",
    ),
    (
        Kind::OverLimit,
        "over_limit",
        Level::Warn,
        "framelet::max_connections",
        "connections over the limit",
    ),
    (
        Kind::NotAllowed,
        "not_allowed",
        Level::Warn,
        "framelet::allow",
        "connections from addresses that are not allowed",
    ),
    (
        Kind::NotBalancer,
        "not_load_balancer",
        Level::Warn,
        "framelet::proxy_from",
        "connections that are not from a load balancer",
    ),
    (
        Kind::AddressFull,
        "address_full",
        Level::Warn,
        "framelet::max_per_address",
        "connections over the limit of their address",
    ),
    (
        Kind::Evicted,
        "evicted",
        Level::Warn,
        "framelet::max_connections",
        "idle connections that gave way to others",
    ),
    (Kind::Bug, "bug", Level::Error, "framelet", "connections ended by a bug in framelet"),
    (Kind::Idle, "idle", Level::Info, "framelet::idle_timeout", "idle connections"),
    (
        Kind::NotTaken,
        "not_taken",
        Level::Warn,
        "framelet::message_timeout",
        "peers that took nothing of their replies",
    ),
    (Kind::Aborted, "aborted", Level::Warn, "framelet", "connections cut off at shutdown"),
    (
        Kind::NoMessage,
        "no_message",
        Level::Warn,
        "framelet",
        "connections that sent something other than messages",
    ),
    (
        Kind::Truncated,
        "truncated",
        Level::Warn,
        "framelet",
        "connections that ended inside a message",
    ),
    (
        Kind::Late,
        "late",
        Level::Warn,
        "framelet::message_timeout",
        "messages that were not complete in time",
    ),
    (
        Kind::Slow,
        "slow",
        Level::Warn,
        "framelet::memory",
        "connections that were too slow while others waited for memory",
    ),
    (Kind::Lost, "lost", Level::Warn, "framelet", "connections that were lost"),
    (
        Kind::WriteFailed,
        "write_failed",
        Level::Warn,
        "framelet",
        "connections that took no more replies",
    ),
    (Kind::Setup, "setup", Level::Warn, "framelet", "connections whose setup failed"),
    (
        Kind::SetupLate,
        "setup_late",
        Level::Warn,
        "framelet::message_timeout",
        "connections that were not set up in time",
    ),
    (
        Kind::HandlerFailed,
        "handler_failed",
        Level::Error,
        "framelet",
        "connections whose handler failed",
    ),
    (Kind::Refused, "refused", Level::Warn, "framelet", "clients that were refused"),
    (
        Kind::NotAsked,
        "no_acks_asked",
        Level::Warn,
        "framelet::require_ack",
        "clients that ask for no acknowledgements",
    ),
    (
        Kind::SinkGone,
        "sink_failed",
        Level::Warn,
        "framelet",
        "connections cut off because the sink failed",
    ),
];

/// Logs lines of each [`Kind`] up to its limit.
#[derive(Debug, Default)]
pub(crate) struct RateLimitedLog {
    limits: [Mutex<Limit>; KINDS.len()],
    all: Mutex<Limit>,
}

/// Counts the lines of one kind.
#[derive(Debug, Default)]
struct Limit {
    /// When the next line would be due if the lines so far had come at even intervals.
    even: Option<Instant>,
    /// When the last line came, logged or not.
    last: Option<Instant>,
    left_out: u64,
    /// How many there were in all.
    total: u64,
}

/// Logs lines about a connection or a peer, with fields that name it.
#[derive(Clone, Copy)]
pub(crate) struct About<'a> {
    log: &'a RateLimitedLog,
    connection: Option<u64>,
    peer: Option<&'a Peer>,
}

impl About<'_> {
    /// Logs a line, unless too many of its kind came lately.
    pub(crate) fn say(self, kind: Kind, line: impl fmt::Display) {
        let (_, _, _, target, _) = KINDS[kind as usize];
        self.say_about(target, kind, line);
    }

    /// Does the same with another target.
    pub(crate) fn say_about(self, target: &str, kind: Kind, line: impl fmt::Display) {
        let due = self.log.due(kind);
        let (_, event, level, ..) = KINDS[kind as usize];
        match due {
            Some(0) => self.write(target, level, event, format_args!("{line}")),
            // First in the line, because the logger may append advice for the target.
            Some(left_out) => {
                let line = format_args!("after {left_out} more, not logged: {line}");
                self.write(target, level, event, line);
            }
            None => {}
        }
    }

    /// Logs the start or the clean end of a connection, or who is at its other end, at the level of debugging.
    pub(crate) fn debug(self, event: &'static str, line: fmt::Arguments<'_>) {
        self.write("framelet", Level::Debug, event, line);
    }

    fn write(self, target: &str, level: Level, event: &str, line: fmt::Arguments<'_>) {
        if level > log::max_level() {
            return;
        }
        let mut fields = vec![("event", Value::from(event))];
        fields.extend(self.connection.map(|number| ("connection", Value::from(number))));
        fields.extend(self.peer.map(|peer| ("peer", Value::from_dyn_display(peer))));
        let mut record = Record::builder();
        record.level(level).target(target).args(line).key_values(&fields);
        log::logger().log(&record.build());
    }
}

impl RateLimitedLog {
    /// Returns the log of lines about a connection.
    pub(crate) fn about<'a>(&'a self, connection: &'a OpenConnection) -> About<'a> {
        About { log: self, connection: Some(connection.number), peer: Some(connection.peer()) }
    }

    /// Returns the log of lines about a peer that has no connection.
    pub(crate) fn about_peer<'a>(&'a self, peer: &'a Peer) -> About<'a> {
        About { log: self, connection: None, peer: Some(peer) }
    }

    fn about_nobody(&self) -> About<'_> {
        About { log: self, connection: None, peer: None }
    }

    /// Logs a line, unless too many of its kind came lately.
    pub(crate) fn say(&self, kind: Kind, line: impl fmt::Display) {
        self.about_nobody().say(kind, line);
    }

    /// Counts a line. If it may be logged, returns how many of its kind were suppressed before it.
    fn due(&self, kind: Kind) -> Option<u64> {
        let now = Instant::now();
        let mut limit = self.limit(kind);
        limit.total += 1;
        let left_out = limit.due(now, OF_A_KIND)?;
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if all.due(now, OF_ALL).is_none() {
            limit.left_out = left_out + 1;
            return None;
        }
        Some(left_out)
    }

    /// Returns how often each kind was said or suppressed.
    pub(crate) fn incidents(&self) -> Vec<Incident> {
        let count = |kind| self.limit(kind).total;
        KINDS.map(|(kind, reason, ..)| Incident { reason, count: count(kind) }).into()
    }

    /// Logs how many lines were suppressed, for kinds that have become quiet. To be called from time to
    /// time.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        self.say_left_out(|limit| limit.is_over(now));
    }

    /// Logs how many lines were suppressed, at the end of the server.
    pub(crate) fn finish(&self) {
        self.say_left_out(|_| true);
    }

    fn say_left_out(&self, is_due: impl Fn(&Limit) -> bool) {
        for (kind, event, level, target, what) in KINDS {
            let mut limit = self.limit(kind);
            let left_out = if is_due(&limit) { std::mem::take(&mut limit.left_out) } else { 0 };
            drop(limit);
            if left_out > 0 {
                let line = format_args!("and {left_out} more, not logged: {what}");
                self.about_nobody().write(target, level, event, line);
            }
        }
    }

    fn limit(&self, kind: Kind) -> MutexGuard<'_, Limit> {
        self.limits[kind as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Limit {
    /// Counts a line. If it may be logged, returns how many were suppressed before it.
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

    /// Returns whether this kind has become quiet.
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
