//! Prunes the oldest messages, a bounded number at a time.
//!
//! Ids are in the order of commits, so the rows to remove are always those with the lowest ids. The rows of
//! senders stay: without them, messages could be stored twice.

use std::time::{Duration, Instant, SystemTime};

use humantime::{format_duration, format_rfc3339_millis};
use log::info;
use rusqlite::{Connection, params};

use super::senders::integer;
use crate::sink::keep::{Keep, Pruned};

/// After how long the next step is due. Each is a transaction that is synced, so more of them would slow down
/// clients that wait for each acknowledgement.
const EVERY: Duration = Duration::from_secs(1);

/// After how long the next step is due if the last one left messages for it.
const EVERY_LEFT: Duration = Duration::from_millis(20);

/// How often to look for messages that have become too old while nothing is committed.
const EVERY_IDLE: Duration = Duration::from_secs(60);

/// A step is due at once when this much has been committed since the last one.
const MANY: Amount = Amount { rows: 10_000, bytes: 16 << 20 };

/// The most that a step removes, unless more than half of that has been committed since the last one: then it
/// removes up to twice what has been committed, so that pruning keeps up.
const STEP: Amount = Amount { rows: 2_000, bytes: 64 << 20 };

/// About how many bytes a row takes beside its payload.
const ROW: u64 = 100;

/// About how many bytes a sender takes. They are not counted, as they stay.
const SENDER: u64 = 100;

/// For how long the clock must have been steady before it decides that a message is too old: a router may
/// start with any time, until it is set from the network.
const STEADY: Duration = Duration::from_secs(3600);

/// By how much a steady clock may differ from the time that has passed, at most. It may differ by a tenth of the age
/// after which a message is too old, so that no message is removed much too early.
const JITTER: Duration = Duration::from_secs(60);

/// A time before this is wrong, since there was no framelet. How old such a message is cannot be known: it is
/// kept until the next one with a plausible time is too old.
const PLAUSIBLE: &str = "2025";

const LAST: &str = "SELECT coalesce(max(id), 0) FROM messages";
const USED: &str = "SELECT ((SELECT page_count FROM pragma_page_count) - (SELECT freelist_count FROM \
                    pragma_freelist_count)) * (SELECT page_size FROM pragma_page_size)";
const BY_AGE: &str =
    "SELECT id, received < ?1 FROM messages WHERE received >= ?2 ORDER BY id LIMIT ?3";
const FIRST: &str =
    "SELECT id, octet_length(payload) FROM messages WHERE id < ?1 ORDER BY id LIMIT ?2";
const DELETE: &str = "DELETE FROM messages WHERE id <= ?1";

/// A number of rows, and of bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Amount {
    rows: u64,
    bytes: u64,
}

/// The time by both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) passed: Instant,
    pub(super) clock: SystemTime,
}

impl Now {
    pub(super) fn get() -> Now {
        Now { passed: Instant::now(), clock: SystemTime::now() }
    }
}

/// Decides what is pruned, and when.
#[derive(Debug, Default)]
pub(super) struct Pruner {
    messages: Option<u64>,
    bytes: Option<u64>,
    age: Option<Duration>,
    /// Since when the clock has been steady.
    steady: Option<Now>,
    last: Option<LastStep>,
}

/// The last step, and what it left.
#[derive(Clone, Copy, Debug)]
struct LastStep {
    at: Instant,
    /// The highest id, and the bytes of all pages in use.
    then: Amount,
    /// Whether it left messages that are to be removed.
    left: bool,
}

impl Pruner {
    /// Adds a limit. Of two limits of one kind, the lower one counts.
    pub(super) fn keep(&mut self, keep: Keep) {
        fn lower<T: Ord>(limit: &mut Option<T>, to: T) {
            *limit = Some(match limit.take() {
                Some(before) => before.min(to),
                None => to,
            });
        }
        match keep {
            Keep::For(age) => lower(&mut self.age, age),
            Keep::Bytes(bytes) => lower(&mut self.bytes, bytes),
            Keep::Messages(messages) => lower(&mut self.messages, messages),
        }
    }

    pub(super) fn keeps_all(&self) -> bool {
        self.messages.is_none() && self.bytes.is_none() && self.age.is_none()
    }

    /// Removes messages, if it is time for that.
    pub(super) fn step(
        &mut self,
        connection: &Connection,
        senders: u64,
        now: Now,
    ) -> rusqlite::Result<Pruned> {
        let number = |query| -> rusqlite::Result<u64> {
            let number =
                connection.prepare_cached(query)?.query_row([], |row| row.get::<_, i64>(0))?;
            Ok(u64::try_from(number).unwrap_or(0))
        };
        let present = Amount { rows: number(LAST)?, bytes: number(USED)? };
        let since = self.since(present);
        if let Some(wait) = self.wait(since, now) {
            return Ok(Pruned { next: Some(wait), ..Pruned::default() });
        }
        let most = Amount {
            rows: STEP.rows.max(since.rows.saturating_mul(2)),
            bytes: STEP.bytes.max(since.bytes.saturating_mul(2)),
        };
        let limit = self.bytes.map(|bytes| bytes.saturating_add(senders.saturating_mul(SENDER)));
        let excess = limit.map_or(0, |limit| present.bytes.saturating_sub(limit));
        let too_many = self.messages.map_or(0, |messages| present.rows.saturating_sub(messages));
        let too_old = self.too_old(connection, most.rows, now)?;

        let mut pruned = Pruned::default();
        let (mut up_to, mut seen) = (0, Amount::default());
        let mut left = false;
        let mut first = connection.prepare_cached(FIRST)?;
        // The last message stays, however long it is. One more row than may be removed shows what is left.
        let mut rows = first.query(params![integer(present.rows), integer(most.rows + 1)])?;
        while let Some(row) = rows.next()? {
            let (id, len): (i64, i64) = (row.get(0)?, row.get(1)?);
            let (id, len) = (u64::try_from(id).unwrap_or(0), u64::try_from(len).unwrap_or(0));
            if id > too_many.max(too_old) && seen.bytes >= excess {
                break;
            }
            left = seen.rows == most.rows || seen.bytes >= most.bytes;
            if left {
                break;
            }
            (up_to, pruned.bytes) = (id, pruned.bytes + len);
            seen = Amount { rows: seen.rows + 1, bytes: seen.bytes + len + ROW };
        }
        drop(rows);
        if seen.rows > 0 {
            let deleted = connection.prepare_cached(DELETE)?.execute([integer(up_to)])?;
            pruned.messages = deleted as u64;
        }
        let then = Amount { rows: present.rows, bytes: number(USED)? };
        self.last = Some(LastStep { at: now.passed, then, left });
        pruned.next = if left { Some(EVERY_LEFT) } else { self.age.map(|_| EVERY_IDLE) };
        Ok(pruned)
    }

    /// Returns what was committed since the last step.
    fn since(&self, present: Amount) -> Amount {
        let then = self.last.map_or(present, |last| last.then);
        Amount {
            rows: present.rows.saturating_sub(then.rows),
            bytes: present.bytes.saturating_sub(then.bytes),
        }
    }

    /// Returns for how long there is nothing to do.
    fn wait(&self, since: Amount, now: Now) -> Option<Duration> {
        let last = self.last?;
        if since.rows >= MANY.rows || since.bytes >= MANY.bytes {
            return None;
        }
        let every = match (last.left, since.rows) {
            (true, _) => EVERY_LEFT,
            (false, 0) if self.age.is_some() => EVERY_IDLE,
            (false, _) => EVERY,
        };
        let left = every.saturating_sub(now.passed.saturating_duration_since(last.at));
        (!left.is_zero()).then_some(left)
    }

    /// Returns the highest id of a message that is too old, among the first `most` of known age; 0 if there is
    /// none.
    fn too_old(&mut self, connection: &Connection, most: u64, now: Now) -> rusqlite::Result<u64> {
        let Some(age) = self.age else { return Ok(0) };
        let Some(oldest) = now.clock.checked_sub(age).filter(|_| self.is_steady(age, now)) else {
            return Ok(0);
        };
        let oldest = format_rfc3339_millis(oldest.max(SystemTime::UNIX_EPOCH)).to_string();
        let mut by_age = connection.prepare_cached(BY_AGE)?;
        let mut rows = by_age.query(params![oldest, PLAUSIBLE, integer(most + 1)])?;
        let mut too_old = 0;
        while let Some(row) = rows.next()?
            && row.get(1)?
        {
            too_old = row.get::<_, i64>(0)?;
        }
        Ok(u64::try_from(too_old).unwrap_or(0))
    }

    /// Returns whether the clock has been steady for long enough to trust it with messages of this age.
    fn is_steady(&mut self, age: Duration, now: Now) -> bool {
        let enough = age.min(STEADY);
        let Some(steady) = self.steady else {
            self.steady = Some(now);
            return false;
        };
        let passed = now.passed.saturating_duration_since(steady.passed);
        let by_clock = now.clock.duration_since(steady.clock).unwrap_or_default();
        if passed.abs_diff(by_clock) > JITTER.min(age / 10) {
            info!(
                "the clock was set; no message is pruned for its age within {}",
                format_duration(enough)
            );
            self.steady = Some(now);
            return false;
        }
        passed >= enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::tests::{batch, origin};
    use crate::sink::message_sink::MessageSink;
    use crate::sink::sqlite::SqliteSink;
    use crate::sink::sqlite::schema::PATIENCE;
    use crate::sink::sqlite::sqlite_sink::tests::{id, number, open, transient};

    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    /// A sink with a time of its own.
    struct Sink {
        sink: SqliteSink,
        now: Now,
    }

    impl Sink {
        fn open(directory: &tempfile::TempDir, keep: &[Keep]) -> Sink {
            let sink = keep.iter().fold(open(directory).unwrap(), |sink, keep| sink.keep(*keep));
            Sink { sink, now: Now::get() }
        }

        /// Stores so many messages of `len` bytes each.
        fn store(&mut self, messages: usize, len: usize) {
            let payload = vec![b'a'; len];
            let payloads = vec![&payload[..]; messages];
            self.sink.commit(&[batch(&origin(None), &payloads)]).unwrap();
        }

        /// Says when the messages from `id` on were received.
        fn received(&self, id: i64, time: SystemTime) {
            let time = format_rfc3339_millis(time).to_string();
            let update = "UPDATE messages SET received = ?1 WHERE id >= ?2";
            self.sink.connection.execute(update, params![time, id]).unwrap();
        }

        fn pass(&mut self, time: Duration) {
            self.now.passed += time;
            self.now.clock += time;
        }

        fn step(&mut self) -> Pruned {
            let senders = self.sink.senders.now.unsigned_abs();
            self.sink.pruner.step(&self.sink.connection, senders, self.now).unwrap()
        }

        /// Prunes until there is nothing left to prune. Returns how many steps it took, and the lowest id.
        fn prune(&mut self) -> (usize, i64) {
            for steps in 1..1000 {
                let pruned = self.step();
                if pruned.messages == 0 && pruned.next != Some(EVERY_LEFT) {
                    return (steps, number(&self.sink, "SELECT min(id) FROM messages"));
                }
                self.pass(EVERY);
            }
            panic!("it never ends");
        }
    }

    #[test]
    fn the_latest_messages_are_kept_in_steps_of_a_bounded_size() {
        let directory = tempfile::tempdir().unwrap();
        let mut sink = Sink::open(&directory, &[Keep::Messages(100), Keep::Messages(10)]);
        sink.store(10, 1);
        assert_eq!(sink.step(), Pruned::default());
        // Nothing is left over, so there is time.
        sink.store(1, 3);
        let early = sink.step();
        assert_eq!((early.messages, early.next), (0, Some(EVERY)));
        sink.pass(EVERY);
        assert_eq!(sink.step(), Pruned { messages: 1, bytes: 1, next: None });
        // What was there before the first step is pruned bit by bit.
        drop(sink);
        let mut sink = Sink::open(&directory, &[]);
        sink.store(5_000, 1);
        drop(sink);
        let mut sink = Sink::open(&directory, &[Keep::Messages(10)]);
        let first = sink.step();
        assert_eq!((first.messages, first.next), (STEP.rows, Some(EVERY_LEFT)));
        assert_eq!(sink.step().messages, 0, "it is not time yet");
        sink.pass(EVERY_LEFT);
        assert_eq!(sink.step().messages, STEP.rows);
        assert_eq!(sink.prune().1, 5_002);
        // Under load a step is due at once, and removes as much as was added.
        sink.store(20_000, 1);
        assert_eq!(sink.step().messages, 20_000);
        assert_eq!(number(&sink.sink, "SELECT count(*) FROM messages"), 10);
    }

    #[test]
    fn a_database_keeps_to_its_size_without_its_senders() {
        let directory = tempfile::tempdir().unwrap();
        let mut sink = Sink::open(&directory, &[Keep::Bytes(1 << 20)]);
        let used = |sink: &Sink| number(&sink.sink, USED);
        for _ in 0..20 {
            sink.store(200, 1_000);
            sink.pass(EVERY);
            sink.prune();
            assert!(used(&sink) <= 1 << 20, "{}", used(&sink));
        }
        let kept = number(&sink.sink, "SELECT count(*) FROM messages");
        assert!(kept >= 700, "{kept}");
        // The room is used again.
        let pages = number(&sink.sink, "SELECT page_count FROM pragma_page_count");
        assert!(pages < 400, "{pages}");
        // Many senders do not displace all messages.
        let senders: Vec<_> =
            (0..20_000).map(|n| batch(&origin(Some((id(n), 0))), &[b"a"])).collect();
        sink.sink.commit(&senders).unwrap();
        sink.pass(EVERY);
        sink.prune();
        let kept = number(&sink.sink, "SELECT sum(octet_length(payload) + 100) FROM messages");
        assert!(kept > 500_000, "{kept}");
        assert_eq!(number(&sink.sink, "SELECT count(*) FROM senders"), 20_000);
        // A message over the size is kept until the next one comes.
        sink.store(1, 3 << 20);
        sink.pass(EVERY);
        sink.prune();
        assert_eq!(number(&sink.sink, "SELECT max(octet_length(payload)) FROM messages"), 3 << 20);
    }

    #[test]
    fn what_is_too_old_goes_once_the_clock_has_been_steady() {
        let directory = tempfile::tempdir().unwrap();
        let mut sink = Sink::open(&directory, &[Keep::For(30 * DAY)]);
        sink.store(10, 1);
        sink.received(1, sink.now.clock - 31 * DAY);
        sink.received(4, sink.now.clock - 29 * DAY);
        assert_eq!(sink.step().messages, 0, "the clock may be wrong");
        sink.pass(HOUR - EVERY);
        assert_eq!(sink.step().messages, 0);
        sink.pass(EVERY_IDLE);
        assert_eq!(sink.step(), Pruned { messages: 3, bytes: 3, next: Some(EVERY_IDLE) });
        sink.pass(DAY);
        assert_eq!(sink.prune().1, 10, "all but the last are too old");
    }

    /// P29.
    #[test]
    fn a_clock_that_jumps_removes_nothing_before_its_time() {
        let directory = tempfile::tempdir().unwrap();
        let mut sink = Sink::open(&directory, &[Keep::For(30 * DAY)]);
        sink.store(10, 1);
        sink.step();
        sink.pass(2 * HOUR);
        assert_eq!(sink.step().messages, 0);
        // Forward, and back before the hour is over.
        sink.now.clock += 60 * DAY;
        sink.pass(EVERY_IDLE);
        assert_eq!(sink.prune().1, 1);
        sink.pass(HOUR / 2);
        sink.now.clock -= 60 * DAY;
        for _ in 0..10 {
            sink.pass(HOUR);
            assert_eq!(sink.prune().1, 1);
        }
        // Messages from before the clock was set for the first time: no one knows how old they are.
        sink.received(1, SystemTime::UNIX_EPOCH + HOUR);
        sink.received(5, sink.now.clock - DAY);
        sink.pass(HOUR);
        assert_eq!(sink.prune().1, 1);
        sink.pass(29 * DAY);
        assert_eq!(sink.prune().1, 10);
    }

    #[test]
    fn a_small_jump_is_one_for_messages_that_are_kept_shortly() {
        let directory = tempfile::tempdir().unwrap();
        let mut sink = Sink::open(&directory, &[Keep::For(Duration::from_secs(30))]);
        sink.step();
        sink.pass(HOUR);
        sink.store(10, 1);
        sink.now.clock += Duration::from_secs(55);
        sink.pass(EVERY_IDLE);
        assert_eq!(sink.prune().1, 1);
    }

    #[test]
    fn limits_that_are_never_reached_are_limits() {
        let directory = tempfile::tempdir().unwrap();
        let all = [Keep::Messages(u64::MAX), Keep::Bytes(u64::MAX), Keep::For(Duration::MAX)];
        let mut sink = Sink::open(&directory, &all);
        for _ in 0..3 {
            sink.store(3, 1);
            sink.pass(2 * HOUR);
            assert_eq!(sink.prune().1, 1);
        }
    }

    #[test]
    fn a_reader_or_a_lock_delays_pruning_at_most() {
        let directory = tempfile::tempdir().unwrap();
        let mut sink = Sink::open(&directory, &[Keep::Messages(1)]);
        sink.store(3, 1);
        let other = Connection::open(&sink.sink.path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let begun = Instant::now();
        transient(sink.sink.prune());
        assert!(begun.elapsed() < PATIENCE, "commits would have to wait");
        other.execute_batch("ROLLBACK; BEGIN").unwrap();
        let count = |_| other.query_row("SELECT count(*) FROM messages", [], |row| row.get(0));
        assert_eq!(count(()), Ok(3));
        assert_eq!(sink.sink.prune().unwrap().messages, 2);
        assert_eq!(count(()), Ok(3), "the reader goes on seeing what it saw");
        assert_eq!(sink.step().messages, 0);
    }

    #[test]
    fn a_sender_is_not_forgotten_with_its_messages_and_no_id_is_used_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut sink = Sink::open(&directory, &[Keep::Messages(1)]);
        let from = |first| batch(&origin(Some((id(1), first))), &[b"a", b"b"]);
        sink.sink.commit(&[from(0)]).unwrap();
        sink.store(1, 1);
        assert_eq!(sink.prune().1, 3);
        drop(sink);
        let mut sink = Sink::open(&directory, &[Keep::Messages(1)]);
        assert_eq!(sink.sink.committed(id(1)).unwrap(), Some(2));
        sink.sink.commit(&[from(0), from(2)]).unwrap();
        assert_eq!(number(&sink.sink, "SELECT group_concat(id) = '3,4,5' FROM messages"), 1);
    }
}
