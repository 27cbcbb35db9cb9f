//! The progress line on a terminal.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::super::progress::Line;
use super::report::whole;

/// How often the line is updated.
const EVERY: Duration = Duration::from_millis(500);

pub(super) struct Progress {
    warm_up: Duration,
    start: Instant,
    last: (Instant, u64),
}

impl Progress {
    pub(super) fn new(warm_up: Duration, start: Instant) -> Progress {
        Progress { warm_up, start, last: (start, 0) }
    }

    /// Shows the line until all senders of `running` are gone. `seen` returns the number of messages so
    /// far.
    pub(super) fn show_until_done(&mut self, running: &Receiver<()>, seen: impl Fn() -> u64) {
        let line = Line::new(None, Duration::ZERO);
        while let Err(RecvTimeoutError::Timeout) = running.recv_timeout(EVERY) {
            line.show(self.line(Instant::now(), seen()), 0);
        }
    }

    fn line(&mut self, now: Instant, seen: u64) -> String {
        let (before, seen_before) = self.last;
        self.last = (now, seen);
        let time = now.saturating_duration_since(before).as_secs_f64().max(f64::EPSILON);
        let rate = seen.saturating_sub(seen_before) as f64 / time;
        let elapsed = now.saturating_duration_since(self.start);
        let phase = if elapsed < self.warm_up { ", warming up" } else { "" };
        format!("{:.1} s: {} messages/s{phase}", elapsed.as_secs_f64(), whole(rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_shows_the_rate_since_the_last_one() {
        let start = Instant::now();
        let mut progress = Progress::new(Duration::from_secs(1), start);
        let half = Duration::from_millis(500);
        assert_eq!(progress.line(start + half, 1000), "0.5 s: 2,000 messages/s, warming up");
        assert_eq!(progress.line(start + 3 * half, 4_001_000), "1.5 s: 4,000,000 messages/s");
    }
}
