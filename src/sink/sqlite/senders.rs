//! The rows of senders: how many of their messages are committed, and which senders are forgotten.

use std::time::SystemTime;

use humantime::format_rfc3339_millis;
use log::info;
use rusqlite::{Connection, OptionalExtension, params};

use crate::message::Batch;

/// How many senders are remembered, those with the latest messages: about 75 MB.
pub(super) const MOST_SENDERS: i64 = 1_000_000;

/// One in this many is forgotten at once if there are more. Finding the oldest reads the whole table, which
/// takes a tenth of a second, and deleting this many takes another.
const FORGOTTEN_AT_ONCE: i64 = 100;

const COMMITTED: &str = "SELECT committed FROM senders WHERE sender = ?1";
const LAST_CHECKSUM: &str = "SELECT checksum FROM senders WHERE sender = ?1";
const REMEMBER: &str = "INSERT INTO senders (sender, committed, seen, last_id, checksum) \
                        VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (sender) DO UPDATE \
                        SET committed = excluded.committed, seen = excluded.seen, \
                        last_id = excluded.last_id, checksum = excluded.checksum";
const FORGET: &str = "DELETE FROM senders WHERE sender IN \
                      (SELECT sender FROM senders ORDER BY last_id LIMIT ?1)";

/// The number of senders in the database.
#[derive(Clone, Copy, Debug)]
pub(super) struct Senders {
    pub(super) now: i64,
    pub(super) most: i64,
}

pub(super) fn count_senders(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT count(*) FROM senders", [], |row| row.get(0))
}

/// Returns how many messages of a sender are committed, if the sender is known.
pub(super) fn committed(connection: &Connection, sender: &str) -> rusqlite::Result<Option<u64>> {
    let mut query = connection.prepare_cached(COMMITTED)?;
    let committed = query.query_row([sender], |row| row.get::<_, i64>(0)).optional()?;
    Ok(committed.map(|committed| u64::try_from(committed).unwrap_or(0)))
}

/// Returns the checksum of the sender's last message, if known.
pub(super) fn last_checksum(
    connection: &Connection,
    sender: &str,
) -> rusqlite::Result<Option<u64>> {
    let mut query = connection.prepare_cached(LAST_CHECKSUM)?;
    let checksum = query.query_row([sender], |row| row.get::<_, Option<i64>>(0)).optional()?;
    Ok(checksum.flatten().map(i64::cast_unsigned))
}

/// Remembers the last message of `batch` as that of its sender. It has this `id`.
pub(super) fn remember(
    connection: &Connection,
    sender: &str,
    batch: &Batch,
    id: i64,
) -> rusqlite::Result<()> {
    let seen = format_rfc3339_millis(SystemTime::now()).to_string();
    let mut remember = connection.prepare_cached(REMEMBER)?;
    let checksum = batch.last_checksum().cast_signed();
    remember.execute(params![sender, integer(batch.last_number()), seen, id, checksum])?;
    Ok(())
}

/// Forgets the senders with the oldest messages.
pub(super) fn forget(connection: &Connection, senders: &mut Senders) -> rusqlite::Result<()> {
    // Other programs may have deleted some.
    senders.now = count_senders(connection)?;
    if senders.now > senders.most {
        let forgotten = connection.execute(FORGET, [1 + senders.most / FORGOTTEN_AT_ONCE])?;
        info!("forgot {forgotten} of {} senders, those silent for longest", senders.now);
        senders.now = count_senders(connection)?;
    }
    Ok(())
}

/// SQLite's integers are signed; no count gets that high.
pub(super) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::tests::{batch, origin};
    use crate::sink::message_sink::MessageSink;
    use crate::sink::sqlite::SqliteSink;
    use crate::sink::sqlite::schema::tests::version_1;
    use crate::sink::sqlite::sqlite_sink::tests::{id, number, open};
    use crate::wire::ack::checksum;

    #[test]
    fn a_hundredth_of_the_senders_is_forgotten_at_once_if_there_are_still_too_many() {
        let directory = tempfile::tempdir().unwrap();
        let mut sink = open(&directory).unwrap();
        sink.senders.most = 200;
        let some = |senders: std::ops::RangeInclusive<u128>| {
            senders.map(|n| batch(&origin(Some((id(n), 0))), &[b"a"])).collect::<Vec<_>>()
        };
        let count = |sink: &SqliteSink| number(sink, "SELECT count(*) FROM senders");
        sink.commit(&some(1..=200)).unwrap();
        assert_eq!(count(&sink), 200);
        // Another program has deleted one.
        let delete = "DELETE FROM senders WHERE sender = ?1";
        sink.connection.execute(delete, [id(1).to_string()]).unwrap();
        sink.commit(&some(201..=201)).unwrap();
        assert_eq!((count(&sink), sink.senders.now), (200, 200));
        sink.commit(&some(202..=202)).unwrap();
        assert_eq!((count(&sink), sink.senders.now), (198, 198));
    }

    #[test]
    fn the_checksum_of_a_senders_last_message_is_kept_whatever_becomes_of_its_row() {
        let directory = tempfile::tempdir().unwrap();
        let mut sink = open(&directory).unwrap();
        let of_both = |sink: &mut SqliteSink| sink.last_checksums(&[id(1), id(2)]).unwrap();
        assert_eq!(of_both(&mut sink), [None, None]);
        let (one, two) = (origin(Some((id(1), 0))), origin(Some((id(2), 0))));
        sink.commit(&[batch(&one, &[b"a", b"b"]), batch(&two, &[b""])]).unwrap();
        // What is there already changes nothing.
        sink.commit(&[batch(&one, &[b"a"])]).unwrap();
        sink.connection.execute("DELETE FROM messages", []).unwrap();
        drop(sink);
        let mut sink = open(&directory).unwrap();
        assert_eq!(of_both(&mut sink), [checksum(b"b"), checksum(b"")].map(Some));
        sink.commit(&[batch(&one, &[b"a", b"b", b"c"])]).unwrap();
        assert_eq!(of_both(&mut sink), [checksum(b"c"), checksum(b"")].map(Some));
    }

    /// P29.
    #[test]
    fn a_clock_that_jumps_forgets_nobody() {
        let directory = tempfile::tempdir().unwrap();
        // As seen by clocks that stood anywhere.
        let times =
            ["1970-01-01T00:00:01.000Z", "2026-01-02T03:04:05.678Z", "2999-12-31T23:59:59.999Z"];
        let mut sink = open(&directory).unwrap();
        for (n, time) in (1..).zip(times) {
            sink.commit(&[batch(&origin(Some((id(n), 0))), &[b"a"])]).unwrap();
            let set = "UPDATE senders SET seen = ?1 WHERE sender = ?2";
            sink.connection.execute(set, params![time, id(n).to_string()]).unwrap();
        }
        for _ in 0..2 {
            drop(sink);
            sink = open(&directory).unwrap();
            assert_eq!([1, 2, 3].map(|n| sink.committed(id(n)).unwrap()), [Some(1); 3]);
            sink.commit(&[batch(&origin(Some((id(9), 0))), &[b"a"])]).unwrap();
        }
        // Nor the way it came from version 1.
        let directory = tempfile::tempdir().unwrap();
        version_1(&directory, &[(id(1), times[0]), (id(2), times[1]), (id(3), times[2])]);
        let mut sink = open(&directory).unwrap();
        assert_eq!([1, 2, 3].map(|n| sink.committed(id(n)).unwrap()), [Some(5); 3]);
    }

    #[test]
    fn a_million_senders_are_remembered_and_then_those_with_the_latest_messages() {
        let directory = tempfile::tempdir().unwrap();
        let mut sink = open(&directory).unwrap();
        assert_eq!(sink.senders.most, 1_000_000);
        sink.senders.most = 10;
        for n in 1..=10 {
            sink.commit(&[batch(&origin(Some((id(n), 0))), &[b"a"])]).unwrap();
        }
        // The first one has sent something since.
        sink.commit(&[batch(&origin(Some((id(1), 1))), &[b"b"])]).unwrap();
        let count = |sink: &SqliteSink| number(sink, "SELECT count(*) FROM senders");
        assert_eq!(count(&sink), 10);
        sink.commit(&[batch(&origin(Some((id(11), 0))), &[b"a"])]).unwrap();
        assert_eq!((count(&sink), sink.senders.now), (10, 10));
        let known = [1, 2, 3, 10, 11].map(|n| sink.committed(id(n)).unwrap());
        assert_eq!(known, [Some(2), Some(0), Some(1), Some(1), Some(1)]);
        // What a commit that failed has added does not count, and a start counts anew.
        drop(sink);
        assert_eq!(open(&directory).unwrap().senders.now, 10);
        // Who asks, and sends nothing, is not remembered.
        let mut sink = open(&directory).unwrap();
        for n in 100..200 {
            assert_eq!(sink.committed(id(n)).unwrap(), Some(0));
        }
        assert_eq!(count(&sink), 10);
    }
}
