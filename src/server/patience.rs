//! Waits out transient errors of a sink.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use log::{debug, info, warn};

use super::commit_counts::CommitCounts;
use crate::net::backoff::Backoff;
use crate::sink::message_sink::SinkError;
use crate::wire::io_error::Plain;

/// The shortest and longest wait before the sink is tried again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Repeats what a sink could not do because of a transient error, until it succeeds. Logs the first failure
/// and the recovery, one line each.
pub(super) struct Patience<F> {
    /// Where it is noted what the sink is doing.
    counts: Arc<CommitCounts>,
    /// Whether nobody needs the sink any longer.
    abandoned: F,
    backoff: Backoff,
    since: Option<Instant>,
}

impl<F: Fn() -> bool> Patience<F> {
    pub(super) fn new(counts: Arc<CommitCounts>, abandoned: F) -> Patience<F> {
        let backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        Patience { counts, abandoned, backoff, since: None }
    }

    /// Calls `attempt` until it succeeds.
    ///
    /// # Errors
    ///
    /// A [`SinkError::Fatal`]; or the last transient error, once nobody needs the sink any longer.
    pub(super) fn until_done<T>(
        &mut self,
        mut attempt: impl FnMut() -> Result<T, SinkError>,
    ) -> io::Result<T> {
        loop {
            self.counts.call_begins();
            let result = attempt();
            self.counts.call_ends();
            match result {
                Ok(done) => {
                    self.recovered();
                    return Ok(done);
                }
                Err(SinkError::Fatal(error)) => return Err(error),
                Err(SinkError::Transient(error)) if (self.abandoned)() => return Err(error),
                Err(SinkError::Transient(error)) => self.wait(&error),
            }
        }
    }

    fn wait(&mut self, error: &io::Error) {
        let why = Plain(error).to_string();
        match self.since {
            None => warn!(event = "trouble"; "{why}; waiting until messages can be written again"),
            Some(_) => debug!(event = "trouble"; "{why}; still waiting"),
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        self.counts.set_trouble(Some((why, since)));
        thread::sleep(self.backoff.next_wait());
    }

    fn recovered(&mut self) {
        if let Some(since) = self.since.take() {
            let waited = since.elapsed().as_secs_f64();
            info!(event = "recovered"; "messages are written again, after {waited:.1} s");
            self.counts.set_trouble(None);
            self.backoff.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn away() -> SinkError {
        SinkError::Transient(io::Error::other("it is away"))
    }

    #[test]
    fn a_passing_failure_is_waited_out_and_said_meanwhile() {
        let counts = Arc::<CommitCounts>::default();
        let mut patience = Patience::new(Arc::clone(&counts), || false);
        let attempts = Cell::new(0);
        let done = patience.until_done(|| {
            attempts.set(attempts.get() + 1);
            match attempts.get() {
                1 => Err(away()),
                2 => {
                    assert_eq!(counts.trouble().as_deref(), Some("it is away"));
                    Err(away())
                }
                n => Ok(n),
            }
        });
        assert_eq!((done.unwrap(), counts.trouble()), (3, None));
    }

    #[test]
    fn a_lasting_failure_ends_it_at_once() {
        let mut patience = Patience::new(Arc::default(), || false);
        let mut attempts = 0;
        let ended = patience.until_done(|| {
            attempts += 1;
            Err::<(), _>(io::Error::other("it is broken").into())
        });
        assert_eq!((ended.unwrap_err().to_string().as_str(), attempts), ("it is broken", 1));
    }

    #[test]
    fn nobody_waits_for_a_sink_that_nobody_needs() {
        let mut patience = Patience::new(Arc::default(), || true);
        let ended = patience.until_done(|| Err::<(), _>(away()));
        assert_eq!(ended.unwrap_err().to_string(), "it is away");
    }
}
