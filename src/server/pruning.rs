//! Prunes a sink between commits, and logs what was pruned.

use std::io;
use std::time::{Duration, Instant};

use log::{debug, info};

use super::commit_counts::CommitCounts;
use crate::sink::message_sink::{MessageSink, SinkError};
use crate::wire::count::Count;
use crate::wire::io_error::Plain;

/// How often to log what was pruned.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// How soon to try again after a transient error.
const RETRY: Duration = Duration::from_secs(1);

/// What is to be pruned when, and what has been.
#[derive(Debug, Default)]
pub(super) struct Pruning {
    /// When the sink wants to prune again even if nothing is committed until then.
    pub(super) due: Option<Instant>,
    messages: u64,
    bytes: u64,
    logged: Option<Instant>,
}

impl Pruning {
    /// Does one step.
    ///
    /// # Errors
    ///
    /// A [`SinkError::Fatal`].
    pub(super) fn step(
        &mut self,
        sink: &mut dyn MessageSink,
        counts: &CommitCounts,
    ) -> io::Result<()> {
        counts.call_begins();
        let pruned = sink.prune();
        counts.call_ends();
        let next = match pruned {
            Ok(pruned) => {
                counts.record_pruned(pruned.messages, pruned.bytes);
                self.messages += pruned.messages;
                self.bytes += pruned.bytes;
                pruned.next
            }
            Err(SinkError::Fatal(error)) => return Err(error),
            Err(SinkError::Transient(error)) => {
                debug!("nothing is pruned now: {}", Plain(&error));
                Some(RETRY)
            }
        };
        // Not reached if it is too far away.
        self.due = next.and_then(|wait| Instant::now().checked_add(wait));
        if self.logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
            self.log();
        }
        Ok(())
    }

    /// Logs what was pruned since the last line, if anything was.
    fn log(&mut self) {
        if self.messages > 0 {
            let (messages, bytes) = (Count(self.messages, "message"), Count(self.bytes, "byte"));
            info!("pruned the oldest {messages}, {bytes}");
            (self.messages, self.bytes, self.logged) = (0, 0, Some(Instant::now()));
        }
    }
}

impl Drop for Pruning {
    fn drop(&mut self) {
        self.log();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Batch;
    use crate::sink::keep::Pruned;

    struct Prunes(Vec<Result<Pruned, SinkError>>);

    impl MessageSink for Prunes {
        fn commit(&mut self, _: &[Batch]) -> Result<(), SinkError> {
            Ok(())
        }

        fn prune(&mut self) -> Result<Pruned, SinkError> {
            self.0.remove(0)
        }
    }

    #[test]
    fn a_step_says_when_the_next_one_is_due_and_only_a_fatal_error_ends_it() {
        let wait = Some(Duration::from_secs(5));
        let away = |what| io::Error::other(what);
        let mut sink = Prunes(vec![
            Ok(Pruned { messages: 2, bytes: 10, next: wait }),
            Ok(Pruned { messages: 3, bytes: 10, next: None }),
            Err(SinkError::Transient(away("it is locked"))),
            Ok(Pruned { messages: 0, bytes: 0, next: Some(Duration::MAX) }),
            Err(SinkError::Fatal(away("it is damaged"))),
        ]);
        let (mut pruning, counts) = (Pruning::default(), CommitCounts::default());
        let before = Instant::now();
        pruning.step(&mut sink, &counts).unwrap();
        assert!(pruning.due.unwrap() >= before + Duration::from_secs(5));
        // The first line is logged at once, the next only later.
        assert_eq!((pruning.messages, pruning.logged.is_some()), (0, true));
        pruning.step(&mut sink, &counts).unwrap();
        assert_eq!((pruning.messages, pruning.bytes, pruning.due), (3, 10, None));
        pruning.step(&mut sink, &counts).unwrap();
        assert!(pruning.due.unwrap() >= before + RETRY);
        pruning.step(&mut sink, &counts).unwrap();
        assert_eq!(pruning.due, None);
        assert_eq!(pruning.step(&mut sink, &counts).unwrap_err().to_string(), "it is damaged");
        let figures = counts.figures();
        assert_eq!((figures.pruned, figures.pruned_bytes, figures.working_for), (5, 20, None));
    }
}
