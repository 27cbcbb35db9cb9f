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

/// By how much a steady clock may differ from the time that has passed.
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
        if passed.abs_diff(by_clock) > JITTER {
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
