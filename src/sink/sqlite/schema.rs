//! The tables of a database, and how those of older versions are upgraded.

use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};

use super::failure::{Failed, unusable};
use super::senders::count_senders;

/// The application id in the header of the database: "frlt".
const APPLICATION: i64 = 0x6672_6c74;

/// The version of the schema below.
const SCHEMA_VERSION: i64 = 4;

/// The tables. Times are text, because a shell shows it and SQLite's functions understand it.
const SCHEMA: &str = "
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,    -- in the order in which they were committed; none is used twice
    received TEXT NOT NULL,    -- when the last byte had come: 2026-01-02T03:04:05.678Z
    peer TEXT,                 -- 127.0.0.1:40122, or uid:1000/pid:4242 at a Unix socket
    connection INTEGER,        -- numbered from 1 each time the server starts
    number INTEGER NOT NULL,   -- on its connection, or of its sender
    sender TEXT,               -- 32 hexadecimal digits, if it asked for acknowledgements
    payload BLOB NOT NULL,     -- TEXT if it is UTF-8 without NUL characters, else BLOB
    header BLOB                -- what the layout keeps beside the payload; NULL if there is nothing
);
CREATE TABLE senders (
    sender TEXT PRIMARY KEY,
    committed INTEGER NOT NULL, -- the number of its last message
    seen TEXT NOT NULL,         -- when that was committed
    last_id INTEGER NOT NULL,   -- its id, by which those that were silent for longest are known
    checksum INTEGER            -- that of its payload
) WITHOUT ROWID;
CREATE TABLE last_id (id INTEGER NOT NULL); -- the highest id that was ever used, in one row
";

/// Upgrades version 1 to version 2. Not with `AUTOINCREMENT`, which is just such a table: that would copy
/// all messages.
///
/// Before version 2, `seen` was a wall-clock time, which may have jumped: from here on it only gives the
/// order of the senders.
const UPGRADE_1: &str = "
CREATE TABLE last_id (id INTEGER NOT NULL); -- the highest id that was ever used, in one row
INSERT INTO last_id SELECT coalesce(max(id), 0) FROM messages;
ALTER TABLE senders ADD COLUMN last_id INTEGER NOT NULL DEFAULT 0;
UPDATE senders SET last_id = ranked.rank FROM (
    SELECT sender, row_number() OVER (ORDER BY seen) - (SELECT count(*) FROM senders) AS rank
    FROM senders
) AS ranked WHERE ranked.sender = senders.sender;
";

/// Upgrades version 2 to version 3.
const UPGRADE_2: &str = "ALTER TABLE senders ADD COLUMN checksum INTEGER";

/// Upgrades version 3 to version 4, without a change to any row.
const UPGRADE_3: &str = "ALTER TABLE messages ADD COLUMN header BLOB";

/// How long another program may keep the database locked before that is logged. When opening, it is an
/// error.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Sets up a new database, or checks that an existing one is framelet's. Returns the number of senders in
/// it.
pub(super) fn prepare(connection: &mut Connection) -> Result<i64, Failed> {
    connection.busy_timeout(PATIENCE)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let number = |query| transaction.query_row(query, [], |row| row.get::<_, i64>(0));
    let application = number("SELECT application_id FROM pragma_application_id")?;
    let version = number("SELECT user_version FROM pragma_user_version")?;
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    match (application, version, tables) {
        (0, 0, 0) => transaction.execute_batch(SCHEMA)?,
        (APPLICATION, version @ 1..=SCHEMA_VERSION, _) => {
            let upgrades = [(1, UPGRADE_1), (2, UPGRADE_2), (3, UPGRADE_3)];
            for (_, upgrade) in upgrades.into_iter().filter(|(from, _)| *from >= version) {
                transaction.execute_batch(upgrade)?;
            }
        }
        (APPLICATION, version, _) if version > SCHEMA_VERSION => {
            return unusable(format!(
                "a newer framelet has made it (schema {version}, and this one knows {SCHEMA_VERSION}); use \
                 that one, or another file"
            ));
        }
        _ => {
            return unusable("it is the database of another program; give another file".into());
        }
    }
    // Done even if nothing changes: a server that was killed may have left a commit that is not synced.
    // This commit syncs the whole log before any count is reported.
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()?;
    // Not possible in a transaction. The pragma can report success and fail afterwards.
    let mut set_mode = connection.prepare("PRAGMA journal_mode = WAL")?;
    let mut answers = set_mode.query([])?;
    let mut mode = String::new();
    while let Some(answer) = answers.next()? {
        mode = answer.get(0)?;
    }
    if mode != "wal" {
        return unusable(format!(
            "its file system does not support SQLite's WAL mode (journal mode {mode}); use a file on a \
             local one"
        ));
    }
    Ok(count_senders(connection)?)
}

#[cfg(test)]
pub(super) mod tests {
    use rusqlite::params;

    use super::*;
    use crate::message::Batch;
    use crate::message::tests::{batch, origin};
    use crate::sink::message_sink::MessageSink;
    use crate::sink::sqlite::SqliteSink;
    use crate::sink::sqlite::sqlite_sink::tests::{id, number, open};
    use crate::wire::ack::checksum;
    use crate::wire::sender_id::SenderId;

    #[test]
    fn a_database_that_cannot_be_used_is_refused_in_words() {
        let directory = tempfile::tempdir().unwrap();
        let error = SqliteSink::open(directory.path().join("nowhere/messages.db")).unwrap_err();
        assert!(error.to_string().contains("messages.db: no such file or directory"), "{error}");
        for (version, words) in [
            (5, "a newer framelet has made it (schema 5, and this one knows 4)"),
            (0, "it is the database of another program"),
        ] {
            let sink = open(&directory).unwrap();
            sink.connection.pragma_update(None, "user_version", version).unwrap();
            drop(sink);
            let error = open(&directory).unwrap_err().to_string();
            assert!(error.contains(words), "{version}: {error}");
            let connection = Connection::open(directory.path().join("messages.db")).unwrap();
            connection.pragma_update(None, "user_version", SCHEMA_VERSION).unwrap();
        }
    }

    #[test]
    fn each_commit_is_synced() {
        let directory = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let sink = open(&directory).unwrap();
            // 2 is FULL: the log is synced at each commit. With 1, only when it is copied.
            assert_eq!(number(&sink, "SELECT synchronous FROM pragma_synchronous"), 2);
            let mode: String =
                sink.connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
            assert_eq!(mode, "wal");
        }
    }

    /// What a server that was killed has written may not be synced yet; its successor tells senders of it.
    #[test]
    fn opening_a_database_commits_something_so_that_its_log_is_synced() {
        let directory = tempfile::tempdir().unwrap();
        drop(open(&directory).unwrap());
        let log = directory.path().join("messages.db-wal");
        assert!(!log.exists());
        let _sink = open(&directory).unwrap();
        assert!(log.metadata().unwrap().len() > 0);
    }

    /// The tables of version 1, with a message and these senders.
    pub(in crate::sink::sqlite) fn version_1(
        directory: &tempfile::TempDir,
        senders: &[(SenderId, &str)],
    ) {
        let connection = Connection::open(directory.path().join("messages.db")).unwrap();
        connection
            .execute_batch(
                "CREATE TABLE messages (id INTEGER PRIMARY KEY, received TEXT NOT NULL, peer TEXT,
                     connection INTEGER, number INTEGER NOT NULL, sender TEXT, payload BLOB NOT NULL);
                 CREATE TABLE senders (sender TEXT PRIMARY KEY, committed INTEGER NOT NULL,
                     seen TEXT NOT NULL) WITHOUT ROWID;
                 INSERT INTO messages VALUES (41, '2026-01-02T03:04:05.678Z', NULL, 1, 5, NULL, 'a');
                 PRAGMA application_id = 0x66726c74; PRAGMA user_version = 1;",
            )
            .unwrap();
        for (sender, seen) in senders {
            let insert = "INSERT INTO senders VALUES (?1, 5, ?2)";
            connection.execute(insert, params![sender.to_string(), seen]).unwrap();
        }
    }

    #[test]
    fn a_database_of_version_1_is_taken_over_with_its_senders_and_ids() {
        let directory = tempfile::tempdir().unwrap();
        version_1(&directory, &[(id(1), "2026-01-03T"), (id(2), "2026-01-02T")]);
        let mut sink = open(&directory).unwrap();
        assert_eq!([1, 2, 3].map(|n| sink.committed(id(n)).unwrap()), [Some(5), Some(5), Some(0)]);
        assert_eq!(sink.last_checksums(&[id(1)]).unwrap(), [None]);
        sink.connection.execute("DELETE FROM messages", []).unwrap();
        sink.commit(&[batch(&origin(Some((id(1), 5))), &[b"b"])]).unwrap();
        assert_eq!(number(&sink, "SELECT id FROM messages"), 42);
        drop(sink);
        let mut sink = open(&directory).unwrap();
        assert_eq!(sink.committed(id(1)).unwrap(), Some(6));
        // Who was silent for longer is forgotten first.
        sink.senders.most = 2;
        sink.commit(&[batch(&origin(Some((id(3), 0))), &[b"c"])]).unwrap();
        assert_eq!([1, 2, 3].map(|n| sink.committed(id(n)).unwrap()), [Some(6), Some(0), Some(1)]);
    }

    #[test]
    fn a_database_of_version_2_is_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let mut sink = open(&directory).unwrap();
        sink.commit(&[batch(&origin(Some((id(1), 0))), &[b"a"])]).unwrap();
        let back = "ALTER TABLE senders DROP COLUMN checksum; \
                    ALTER TABLE messages DROP COLUMN header; PRAGMA user_version = 2;";
        sink.connection.execute_batch(back).unwrap();
        drop(sink);
        let mut sink = open(&directory).unwrap();
        assert_eq!(sink.committed(id(1)).unwrap(), Some(1));
        assert_eq!(sink.last_checksums(&[id(1)]).unwrap(), [None]);
        sink.commit(&[batch(&origin(Some((id(1), 1))), &[b"b"])]).unwrap();
        assert_eq!(sink.last_checksums(&[id(1)]).unwrap(), [Some(checksum(b"b"))]);
    }

    #[test]
    fn a_database_of_version_3_is_taken_over_with_its_messages_as_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let mut sink = open(&directory).unwrap();
        sink.commit(&[batch(&origin(Some((id(1), 0))), &[b"a"])]).unwrap();
        let back = "ALTER TABLE messages DROP COLUMN header; PRAGMA user_version = 3;";
        sink.connection.execute_batch(back).unwrap();
        drop(sink);
        let mut sink = open(&directory).unwrap();
        assert_eq!(sink.last_checksums(&[id(1)]).unwrap(), [Some(checksum(b"a"))]);
        let layout = "h1:u32be".parse().unwrap();
        let new = Batch::with_headers(origin(None), layout, [("Q", "b")]).unwrap();
        sink.commit(&[new]).unwrap();
        let rows = "SELECT count(*) FROM messages WHERE (id, CAST(payload AS TEXT), header) IS ";
        assert_eq!(number(&sink, &format!("{rows} (1, 'a', NULL)")), 1);
        assert_eq!(number(&sink, &format!("{rows} (2, 'b', x'51')")), 1);
        drop(sink);
        // It has the tables of a new one.
        let other = tempfile::tempdir().unwrap();
        let columns = |sink: &SqliteSink| -> Vec<String> {
            let query = "SELECT name || type || \"notnull\" FROM pragma_table_info('messages')";
            let mut query = sink.connection.prepare(query).unwrap();
            query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        assert_eq!(columns(&open(&directory).unwrap()), columns(&open(&other).unwrap()));
    }
}
