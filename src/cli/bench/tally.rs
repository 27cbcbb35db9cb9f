//! The results of one thread.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::connection::{Fault, Kind};

/// Times are recorded in nanoseconds with three significant digits, up to an hour.
const LONGEST: u64 = 3_600_000_000_000;
const DIGITS: u8 = 3;

/// Counts and times; those of several threads can be merged.
#[derive(Debug)]
pub(super) struct Tally {
    /// When the first and the last measured event happened.
    pub(super) began: Instant,
    pub(super) ended: Instant,
    /// When the last event happened, measured or not.
    pub(super) moved: Instant,
    /// Messages including warm-up and failed connections; only for the progress line.
    pub(super) seen: u64,
    pub(super) messages: u64,
    /// Bytes of payload.
    pub(super) bytes: u64,
    /// From the time a message was due to its reply.
    pub(super) latency: Histogram<u64>,
    /// From the time a message was sent to its reply.
    pub(super) from_send: Histogram<u64>,
    /// From the time a message was due to the time the generator handled it.
    pub(super) lateness: Histogram<u64>,
    /// When the last message was sent.
    pub(super) last_send: Instant,
    pub(super) errors: u64,
    /// The first error of each kind.
    pub(super) faults: Vec<Fault>,
    /// How many bytes a server sent that should not send any.
    pub(super) unasked: u64,
    /// The processor time and the elapsed time of the measurement.
    pub(super) cpu: Duration,
    pub(super) wall: Duration,
    /// The share of time for which the busiest thread was busy.
    pub(super) busiest: f64,
}

impl Tally {
    pub(super) fn new(now: Instant) -> Tally {
        let times = || Histogram::new_with_bounds(1, LONGEST, DIGITS).expect("valid bounds");
        Tally {
            began: now,
            ended: now,
            moved: now,
            seen: 0,
            messages: 0,
            bytes: 0,
            latency: times(),
            from_send: times(),
            lateness: times(),
            last_send: now,
            errors: 0,
            faults: Vec::new(),
            unasked: 0,
            cpu: Duration::ZERO,
            wall: Duration::ZERO,
            busiest: 0.0,
        }
    }

    pub(super) fn fail(&mut self, fault: Fault) {
        self.errors += 1;
        self.keep(fault);
    }

    fn keep(&mut self, fault: Fault) {
        // The first error of a kind is enough.
        if self.faults.iter().all(|kept| kept.kind != fault.kind) {
            self.faults.push(fault);
        }
    }

    /// Merges the results of another thread.
    pub(super) fn add(&mut self, other: Tally) {
        self.began = self.began.min(other.began);
        self.ended = self.ended.max(other.ended);
        self.moved = self.moved.max(other.moved);
        self.seen += other.seen;
        self.messages += other.messages;
        self.bytes += other.bytes;
        for (times, others) in [
            (&mut self.latency, other.latency),
            (&mut self.from_send, other.from_send),
            (&mut self.lateness, other.lateness),
        ] {
            times.add(others).expect("the same bounds");
        }
        self.last_send = self.last_send.max(other.last_send);
        self.errors += other.errors;
        other.faults.into_iter().for_each(|fault| self.keep(fault));
        self.unasked += other.unasked;
        self.cpu += other.cpu;
        self.wall += other.wall;
        self.busiest = self.busiest.max(other.busiest);
    }

    /// Returns the duration of the measurement.
    pub(super) fn time(&self) -> Duration {
        self.ended.saturating_duration_since(self.began)
    }

    /// Returns whether it failed only because of timeouts.
    pub(super) fn only_timed_out(&self) -> bool {
        self.faults.iter().all(|fault| fault.kind == Kind::TimedOut)
    }
}

/// Records a time.
pub(super) fn record(times: &mut Histogram<u64>, time: Duration) {
    times.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(LONGEST));
}
