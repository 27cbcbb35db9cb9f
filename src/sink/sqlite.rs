//! A sink that stores messages in a SQLite database.
//!
//! The count of each sender is stored in the same transaction as the messages, so it is always exact.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use humantime::format_rfc3339_millis;
use log::info;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, ffi, params,
};

use super::message_sink::{MessageSink, SinkError};
use crate::message::Batch;
use crate::wire::io_error::Plain;
use crate::wire::sender_id::SenderId;

mod files; // checks that the files still exist

use files::{BEFORE_ACKNOWLEDGEMENT, BEFORE_COMMIT, Files};

/// The application id in the header of the database: "frlt".
const APPLICATION: i64 = 0x6672_6c74;

/// The version of the schema below.
const SCHEMA_VERSION: i64 = 3;

/// The tables. Times are text, because a shell shows it and SQLite's functions understand it.
const SCHEMA: &str = "
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,    -- in the order in which they were committed; none is used twice
    received TEXT NOT NULL,    -- when the last byte had come: 2026-01-02T03:04:05.678Z
    peer TEXT,                 -- 127.0.0.1:40122, or unix
    connection INTEGER,        -- numbered from 1 each time the server starts
    number INTEGER NOT NULL,   -- on its connection, or of its sender
    sender TEXT,               -- 32 hexadecimal digits, if it asked for acknowledgements
    payload BLOB NOT NULL      -- TEXT if it is UTF-8 without NUL characters, else BLOB
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

/// The permissions of a new database, before the umask: messages may be private.
const MODE: u32 = 0o640;

/// How long another program may keep the database locked before that is logged. When opening, it is an
/// error.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many senders are remembered, those with the latest messages: about 75 MB.
const MOST_SENDERS: i64 = 1_000_000;

/// One in this many is forgotten at once if there are more. Finding the oldest reads the whole table, which
/// takes a tenth of a second, and deleting this many takes another.
const FORGOTTEN_AT_ONCE: i64 = 100;

/// Without an id, a row gets the one after the highest present, which is faster than setting one.
const INSERT: &str = "INSERT INTO messages (received, peer, connection, number, sender, payload) \
                      VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const LAST_IDS: &str = "SELECT coalesce((SELECT max(id) FROM messages), 0), \
                        coalesce((SELECT max(id) FROM last_id), 0)";
const SET_ID: &str = "UPDATE messages SET id = ?1 WHERE id = ?2";
const SET_LAST_ID: &str = "REPLACE INTO last_id (rowid, id) VALUES (1, ?1)";
const COMMITTED: &str = "SELECT committed FROM senders WHERE sender = ?1";
const LAST_CHECKSUM: &str = "SELECT checksum FROM senders WHERE sender = ?1";
const REMEMBER: &str = "INSERT INTO senders (sender, committed, seen, last_id, checksum) \
                        VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (sender) DO UPDATE \
                        SET committed = excluded.committed, seen = excluded.seen, \
                        last_id = excluded.last_id, checksum = excluded.checksum";
const FORGET: &str = "DELETE FROM senders WHERE sender IN \
                      (SELECT sender FROM senders ORDER BY last_id LIMIT ?1)";

/// Stores messages in a SQLite database, one transaction per commit.
///
/// A commit survives a crash of the machine: the database has a write-ahead log that is synced at each
/// commit. Other programs can read at any time, and write between commits.
///
/// The table `messages` has a row for each message. Its `payload` is text if it is UTF-8 without NUL
/// characters, so that shells show it and SQLite's functions for text and JSON accept it; otherwise it is a
/// blob. `CAST(payload AS BLOB)` gives the exact bytes of both. An `id` is never reused, even after
/// deletions. The table `senders` has the counts of the 1,000,000 senders with the latest messages; which
/// ones are forgotten does not depend on a clock.
///
/// While another program locks the database, the disk is full or fails, a commit returns
/// [`SinkError::Transient`] and stores nothing. Once one of the database's files is deleted, moved or
/// replaced, anything written would be lost: then a commit returns [`SinkError::Fatal`].
///
/// # Examples
///
/// ```
/// use framelet::message::Origin;
/// use framelet::net::Peer;
/// use framelet::sink::{MessageSink, SqliteSink};
/// use framelet::wire::SenderId;
/// use framelet::Batch;
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("messages.db");
/// let mut sink = SqliteSink::open(&path)?;
/// let sender = SenderId::random()?;
/// let origin = Origin::new(1, Peer::Unix).with_sender(sender, 0);
/// sink.commit(&[Batch::new(origin, ["21.5", "21.7"])])?;
/// assert_eq!(sink.committed(sender)?, Some(2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SqliteSink {
    path: PathBuf,
    connection: Connection,
    files: Files,
    senders: Senders,
}

/// The number of senders in the database.
#[derive(Clone, Copy, Debug)]
struct Senders {
    now: i64,
    most: i64,
}

impl SqliteSink {
    /// Opens the database at `path`, or creates it.
    ///
    /// # Errors
    ///
    /// Any error of the system or of SQLite, with the path and advice. The database belongs to another
    /// program, or to a newer framelet.
    pub fn open(path: impl AsRef<Path>) -> io::Result<SqliteSink> {
        let path = path.as_ref();
        let what = |error: io::Error| {
            io::Error::other(format!("cannot open {}: {}", path.display(), Plain(&error)))
        };
        // Created here and not by SQLite, for the system's own error and restricted permissions.
        match OpenOptions::new().write(true).create_new(true).mode(MODE).open(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(what(error)),
            _ => {}
        }
        // SQLite interprets some names, such as `:memory:`; a path with a directory is always a file.
        let name = Path::new(".").join(path);
        let mut connection = Connection::open_with_flags(
            name,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )
        .map_err(|error| explain(path, &error))?;
        let senders = prepare(&mut connection).map_err(|error| match error {
            Failed::Sqlite(error) => explain(path, &error),
            Failed::Sink(error) => what(error.into()),
        })?;
        let files = Files::of(path).map_err(what)?;
        Ok(SqliteSink {
            path: path.into(),
            connection,
            files,
            senders: Senders { now: senders, most: MOST_SENDERS },
        })
    }

    fn failed(&self, failed: Failed) -> SinkError {
        match failed {
            Failed::Sqlite(error) if is_passing(&error) => {
                SinkError::Transient(explain(&self.path, &error))
            }
            Failed::Sqlite(error) => SinkError::Fatal(explain(&self.path, &error)),
            Failed::Sink(error) => error,
        }
    }
}

impl MessageSink for SqliteSink {
    fn commit(&mut self, batches: &[Batch]) -> Result<(), SinkError> {
        let SqliteSink { connection, files, senders, .. } = self;
        let committed = in_transaction(connection, || {
            let senders = insert(connection, batches, *senders)?;
            // Checked inside the transaction, so that nothing stays in a file that was moved away.
            files.check(BEFORE_COMMIT)?;
            Ok(senders)
        });
        self.senders = match committed.map_err(|failed| self.failed(failed)) {
            Ok(senders) => senders,
            Err(SinkError::Transient(error)) => {
                // In a file that is gone, the error is not transient.
                self.files.check(BEFORE_COMMIT)?;
                return Err(SinkError::Transient(error));
            }
            Err(fatal) => return Err(fatal),
        };
        // Fatal, because the transaction is committed: a repeated call would store messages without a
        // sender twice.
        self.files.check(BEFORE_ACKNOWLEDGEMENT).map_err(|error| SinkError::Fatal(error.into()))
    }

    fn committed(&mut self, sender: SenderId) -> Result<Option<u64>, SinkError> {
        // The answer acknowledges messages, too.
        self.files.check(BEFORE_ACKNOWLEDGEMENT)?;
        let committed = committed(&self.connection, &sender.to_string());
        Ok(Some(committed.map_err(|error| self.failed(error.into()))?.unwrap_or(0)))
    }

    fn last_checksums(&mut self, senders: &[SenderId]) -> Result<Vec<Option<u64>>, SinkError> {
        let checksums = senders.iter().map(|s| last_checksum(&self.connection, &s.to_string()));
        checksums.collect::<Result<_, _>>().map_err(|error| self.failed(error.into()))
    }
}

/// The error of a transaction.
#[derive(Debug)]
enum Failed {
    Sqlite(rusqlite::Error),
    /// The error in words.
    Sink(SinkError),
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        Failed::Sqlite(error)
    }
}

impl From<SinkError> for Failed {
    fn from(error: SinkError) -> Self {
        Failed::Sink(error)
    }
}

fn unusable<T>(words: String) -> Result<T, Failed> {
    Err(SinkError::Fatal(io::Error::other(words)).into())
}

/// Sets up a new database, or checks that an existing one is framelet's. Returns the number of senders in
/// it.
fn prepare(connection: &mut Connection) -> Result<i64, Failed> {
    connection.busy_timeout(PATIENCE)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let number = |query| transaction.query_row(query, [], |row| row.get::<_, i64>(0));
    let application = number("SELECT application_id FROM pragma_application_id")?;
    let version = number("SELECT user_version FROM pragma_user_version")?;
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    match (application, version, tables) {
        (0, 0, 0) => transaction.execute_batch(SCHEMA)?,
        (APPLICATION, 1, _) => {
            transaction.execute_batch(UPGRADE_1)?;
            transaction.execute_batch(UPGRADE_2)?;
        }
        (APPLICATION, 2, _) => transaction.execute_batch(UPGRADE_2)?,
        (APPLICATION, SCHEMA_VERSION, _) => {}
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

fn count_senders(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT count(*) FROM senders", [], |row| row.get(0))
}

/// Does `work` in a transaction: all of it or nothing.
///
/// Not with rusqlite's transactions: they compile both statements each time, which is noticeable with
/// single messages.
fn in_transaction<T>(
    connection: &Connection,
    work: impl FnOnce() -> Result<T, Failed>,
) -> Result<T, Failed> {
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let done = work().and_then(|done| {
        connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(done)
    });
    // Some errors have already ended the transaction. The rollback is complete even if writing or syncing
    // the log failed: the next commit overwrites that part of the log, and syncs all of it.
    if done.is_err() && !connection.is_autocommit() {
        // The first error is the one to report.
        let _ = connection.execute_batch("ROLLBACK");
    }
    done
}

/// Inserts the new messages of these batches. Returns the number of senders afterwards.
fn insert(
    connection: &Connection,
    batches: &[Batch],
    mut senders: Senders,
) -> Result<Senders, Failed> {
    let mut insert = connection.prepare_cached(INSERT)?;
    let (mut highest, used): (i64, i64) =
        connection.prepare_cached(LAST_IDS)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    // Other programs may have added messages as well.
    let before = highest.max(used);
    let (mut id, mut new_senders) = (before, 0);
    for batch in batches {
        let sender = batch.sender().map(|sender| sender.to_string());
        let known = match &sender {
            Some(sender) => committed(connection, sender)?,
            None => None,
        };
        let fresh = match sender {
            Some(_) => batch.after(known.unwrap_or(0)),
            None => Some(batch.clone()),
        };
        let Some(batch) = fresh else { continue };
        let mut origin = None;
        for message in batch.messages() {
            // The same for all messages of a batch.
            let (received, peer) = &*origin.get_or_insert_with(|| {
                let received = message.received.unwrap_or_else(SystemTime::now);
                let received = format_rfc3339_millis(received).to_string();
                (received, message.peer.map(ToString::to_string))
            });
            let Some(next) = id.checked_add(1) else {
                return unusable("it has a message with the highest possible id".into());
            };
            id = next;
            insert.execute(params![
                received,
                peer,
                message.connection.map(integer),
                integer(message.number),
                sender,
                value(message.payload),
            ])?;
            if highest + 1 != id {
                // The rows with the highest ids were deleted.
                connection.prepare_cached(SET_ID)?.execute([id, highest + 1])?;
            }
            highest = id;
        }
        if let Some(sender) = &sender {
            let seen = format_rfc3339_millis(SystemTime::now()).to_string();
            let mut remember = connection.prepare_cached(REMEMBER)?;
            let checksum = batch.last_checksum().cast_signed();
            remember.execute(params![sender, integer(batch.last_number()), seen, id, checksum])?;
            new_senders += i64::from(known.is_none());
        }
    }
    if id > before {
        connection.prepare_cached(SET_LAST_ID)?.execute([id])?;
    }
    senders.now += new_senders;
    if new_senders > 0 && senders.now > senders.most {
        forget(connection, &mut senders)?;
    }
    Ok(senders)
}

/// Forgets the senders with the oldest messages.
fn forget(connection: &Connection, senders: &mut Senders) -> rusqlite::Result<()> {
    // Other programs may have deleted some.
    senders.now = count_senders(connection)?;
    if senders.now > senders.most {
        let forgotten = connection.execute(FORGET, [1 + senders.most / FORGOTTEN_AT_ONCE])?;
        info!("forgot {forgotten} of {} senders, those silent for longest", senders.now);
        senders.now = count_senders(connection)?;
    }
    Ok(())
}

/// Returns how many messages of a sender are committed, if the sender is known.
fn committed(connection: &Connection, sender: &str) -> rusqlite::Result<Option<u64>> {
    let mut query = connection.prepare_cached(COMMITTED)?;
    let committed = query.query_row([sender], |row| row.get::<_, i64>(0)).optional()?;
    Ok(committed.map(|committed| u64::try_from(committed).unwrap_or(0)))
}

/// Returns the checksum of the sender's last message, if known.
fn last_checksum(connection: &Connection, sender: &str) -> rusqlite::Result<Option<u64>> {
    let mut query = connection.prepare_cached(LAST_CHECKSUM)?;
    let checksum = query.query_row([sender], |row| row.get::<_, Option<i64>>(0)).optional()?;
    Ok(checksum.flatten().map(i64::cast_unsigned))
}

/// SQLite's integers are signed; no count gets that high.
fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn value(payload: &[u8]) -> ToSqlOutput<'_> {
    // SQLite's functions end a text at a NUL character.
    let text = memchr::memchr(0, payload).is_none() && str::from_utf8(payload).is_ok();
    ToSqlOutput::Borrowed(if text { ValueRef::Text(payload) } else { ValueRef::Blob(payload) })
}

/// Returns whether the same call may succeed later.
fn is_passing(error: &rusqlite::Error) -> bool {
    let Some(failure) = error.sqlite_error() else { return false };
    match failure.code {
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::FileLockingProtocolFailed
        | ErrorCode::DiskFull
        | ErrorCode::CannotOpen
        | ErrorCode::OutOfMemory => true,
        ErrorCode::SystemIoFailure => {
            !matches!(failure.extended_code, ffi::SQLITE_IOERR_CORRUPTFS | ffi::SQLITE_IOERR_DATA)
        }
        _ => false,
    }
}

/// Describes an error in one line: what is wrong, with which file, and what to do.
fn explain(path: &Path, error: &rusqlite::Error) -> io::Error {
    let hint = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program has kept it locked for 2 s; close the transaction in that program"
        }
        Some(ErrorCode::NotADatabase) => "it is not a SQLite database; use another file",
        Some(ErrorCode::DatabaseCorrupt) => {
            "it is damaged; save what can be read with the .recover of the program sqlite3, and give \
             another file"
        }
        Some(ErrorCode::ReadOnly) => {
            "it cannot be written; check the permissions of the file and its directory"
        }
        Some(ErrorCode::DiskFull) => "make room there",
        Some(ErrorCode::CannotOpen) => {
            "check that it is a file, and the permissions of its directory, where SQLite keeps its log"
        }
        Some(ErrorCode::SystemIoFailure) => {
            "the disk or its file system failed; see the system's log"
        }
        Some(ErrorCode::TooBig) => {
            "no row can be longer than 1,000,000,000 bytes; accept no messages that long"
        }
        _ => "",
    };
    let separator = if hint.is_empty() { "" } else { ": " };
    let error = error.to_string().replace('\n', " ");
    io::Error::other(format!("database {}: {error}{separator}{hint}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::tests::{batch, origin};
    use crate::wire::ack::checksum;

    fn open(directory: &tempfile::TempDir) -> io::Result<SqliteSink> {
        SqliteSink::open(directory.path().join("messages.db"))
    }

    fn rows(sink: &SqliteSink) -> Vec<(i64, Option<String>, Vec<u8>)> {
        let query = "SELECT number, sender, CAST(payload AS BLOB) FROM messages ORDER BY id";
        let mut query = sink.connection.prepare(query).unwrap();
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        rows.map(Result::unwrap).collect()
    }

    #[test]
    fn what_a_sender_sends_again_is_not_there_twice_even_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (SenderId::from_bytes([1; 16]), SenderId::from_bytes([2; 16]));
        let mut sink = open(&directory).unwrap();
        assert_eq!(sink.committed(one).unwrap(), Some(0));
        let first = batch(&origin(Some((one, 0))), &[b"a", b"b"]);
        // Both in one transaction: the second is compared with the first.
        sink.commit(&[first, batch(&origin(Some((one, 1))), &[b"b", b"c"])]).unwrap();
        drop(sink);

        let mut sink = open(&directory).unwrap();
        assert_eq!(sink.committed(one).unwrap(), Some(3));
        assert_eq!(sink.committed(two).unwrap(), Some(0));
        let again = batch(&origin(Some((one, 0))), &[b"a", b"b", b"c"]);
        let other = batch(&origin(Some((two, 0))), &[b"a"]);
        sink.commit(&[again, other, batch(&origin(None), &[b"a"])]).unwrap();
        let expected = [(1, Some(one), "a"), (2, Some(one), "b"), (3, Some(one), "c")];
        let expected = expected.into_iter().chain([(1, Some(two), "a"), (1, None, "a")]);
        let expected: Vec<_> = expected
            .map(|(number, sender, payload)| {
                (number, sender.map(|sender| sender.to_string()), payload.into())
            })
            .collect();
        assert_eq!(rows(&sink), expected);
        assert_eq!(sink.committed(one).unwrap(), Some(3));
    }

    fn id(number: u128) -> SenderId {
        SenderId::from_bytes(number.to_be_bytes())
    }

    fn number(sink: &SqliteSink, query: &str) -> i64 {
        sink.connection.query_row(query, [], |row| row.get(0)).unwrap()
    }

    /// Returns the error of a commit that can be repeated.
    #[track_caller]
    fn transient<T: std::fmt::Debug>(result: Result<T, SinkError>) -> String {
        match result {
            Err(SinkError::Transient(error)) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn fatal<T: std::fmt::Debug>(result: Result<T, SinkError>) -> String {
        match result {
            Err(SinkError::Fatal(error)) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_commit_that_fails_leaves_nothing_of_its_messages_or_its_senders() {
        let directory = tempfile::tempdir().unwrap();
        let sender = SenderId::from_bytes([1; 16]);
        let mut sink = open(&directory).unwrap();
        let at_most = |sink: &SqliteSink, pages: u32| {
            let pragma = format!("PRAGMA max_page_count = {pages}");
            sink.connection.query_row(&pragma, [], |_| Ok(())).unwrap();
        };
        at_most(&sink, 7);
        let small = batch(&origin(Some((sender, 0))), &[b"a"]);
        sink.commit(&[small]).unwrap();
        let large = batch(&origin(Some((sender, 1))), &[b"b", &[b'c'; 20_000]]);
        let plain = batch(&origin(None), &[b"d"]);
        for _ in 0..2 {
            let error = transient(sink.commit(&[plain.clone(), large.clone()]));
            assert!(error.contains("messages.db: database or disk is full: make room"), "{error}");
            assert_eq!(rows(&sink).len(), 1);
            assert_eq!(sink.committed(sender).unwrap(), Some(1));
        }
        // With room again, the same commit is there once.
        at_most(&sink, 100);
        sink.commit(&[plain, large]).unwrap();
        assert_eq!(rows(&sink).iter().map(|row| row.0).collect::<Vec<_>>(), [1, 1, 2, 3]);
        assert_eq!(number(&sink, "SELECT max(id) FROM messages"), 4);
    }

    /// P27.
    #[test]
    fn a_lock_passes_and_damage_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let mut sink = open(&directory).unwrap();
        sink.connection.busy_timeout(Duration::ZERO).unwrap();
        let other = Connection::open(&sink.path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let one = batch(&origin(None), &[b"a"]);
        let error = transient(sink.commit(std::slice::from_ref(&one)));
        assert!(
            error.contains("database is locked") && error.contains("close the transaction"),
            "{error}"
        );
        assert_eq!(sink.committed(id(1)).unwrap(), Some(0), "a question can be answered");
        other.execute_batch("ROLLBACK").unwrap();
        sink.commit(std::slice::from_ref(&one)).unwrap();
        assert_eq!(rows(&sink).len(), 1);

        let failure = |code| rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        for (code, passing) in [
            (ffi::SQLITE_BUSY, true),
            (ffi::SQLITE_BUSY_RECOVERY, true),
            (ffi::SQLITE_LOCKED, true),
            (ffi::SQLITE_FULL, true),
            (ffi::SQLITE_IOERR_FSYNC, true),
            (ffi::SQLITE_IOERR_WRITE, true),
            (ffi::SQLITE_IOERR_READ, true),
            (ffi::SQLITE_IOERR_SHMSIZE, true),
            (ffi::SQLITE_NOMEM, true),
            (ffi::SQLITE_IOERR_CORRUPTFS, false),
            (ffi::SQLITE_CORRUPT, false),
            (ffi::SQLITE_NOTADB, false),
            (ffi::SQLITE_READONLY, false),
            (ffi::SQLITE_PERM, false),
            (ffi::SQLITE_AUTH, false),
            (ffi::SQLITE_TOOBIG, false),
            (ffi::SQLITE_ERROR, false),
        ] {
            assert_eq!(is_passing(&failure(code)), passing, "{code}");
            let failed = sink.failed(failure(code).into());
            assert_eq!(matches!(failed, SinkError::Transient(_)), passing, "{code}");
        }
    }

    #[test]
    fn a_database_that_cannot_be_used_is_refused_in_words() {
        let directory = tempfile::tempdir().unwrap();
        let error = SqliteSink::open(directory.path().join("nowhere/messages.db")).unwrap_err();
        assert!(error.to_string().contains("messages.db: no such file or directory"), "{error}");
        for (version, words) in [
            (4, "a newer framelet has made it (schema 4, and this one knows 3)"),
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
    fn what_fails_is_said_with_what_to_do() {
        for (code, words) in [
            (ffi::SQLITE_BUSY, "close the transaction in that program"),
            (ffi::SQLITE_LOCKED, "close the transaction in that program"),
            (ffi::SQLITE_NOTADB, "it is not a SQLite database"),
            (ffi::SQLITE_CORRUPT, "it is damaged"),
            (ffi::SQLITE_READONLY, "it cannot be written"),
            (ffi::SQLITE_FULL, "make room there"),
            (ffi::SQLITE_CANTOPEN, "check that it is a file"),
            (ffi::SQLITE_IOERR, "see the system's log"),
            (ffi::SQLITE_TOOBIG, "accept no messages that long"),
        ] {
            let failure = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            let error = explain(Path::new("messages.db"), &failure).to_string();
            assert!(error.starts_with("database messages.db: "), "{code}: {error}");
            assert!(error.contains(": ") && error.contains(words), "{code}: {error}");
        }
    }

    #[test]
    fn a_payload_is_text_where_it_can_be() {
        let directory = tempfile::tempdir().unwrap();
        let mut sink = open(&directory).unwrap();
        let payloads = ["a".as_bytes(), "\u{e9}".as_bytes(), b"", b"a\0b", b"\xff", b"\xff\0"];
        sink.commit(&[batch(&origin(None), &payloads)]).unwrap();
        let mut query = sink.connection.prepare("SELECT typeof(payload) FROM messages").unwrap();
        let types: Vec<String> =
            query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        assert_eq!(types, ["text", "text", "text", "blob", "blob", "blob"]);
    }

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

    /// P26.
    #[test]
    fn nothing_is_committed_to_a_database_that_is_not_where_it_was() {
        type Harm = fn(&Path);
        let harms: [(Harm, &str); 6] = [
            (|path| std::fs::remove_file(path).unwrap(), "messages.db was moved or deleted"),
            (
                |path| std::fs::rename(path, path.with_extension("old")).unwrap(),
                "was moved or deleted",
            ),
            (
                |path| std::fs::remove_dir_all(path.parent().unwrap()).unwrap(),
                "was moved or deleted",
            ),
            (
                |path| {
                    std::fs::rename(path, path.with_extension("old")).unwrap();
                    std::fs::copy(path.with_extension("old"), path).unwrap();
                },
                "messages.db was replaced by another file",
            ),
            (
                |path| std::fs::remove_file(path.with_extension("db-wal")).unwrap(),
                "messages.db-wal was moved or deleted",
            ),
            (
                |path| std::fs::remove_file(path.with_extension("db-shm")).unwrap(),
                "messages.db-shm was moved or deleted",
            ),
        ];
        for (harm, words) in harms {
            let directory = tempfile::tempdir().unwrap();
            let mut sink = open(&directory).unwrap();
            let (path, sender) = (sink.path.clone(), id(1));
            sink.commit(&[batch(&origin(Some((sender, 0))), &[b"a"])]).unwrap();
            harm(&path);
            sink.files.look_at_once();
            let error = fatal(sink.commit(&[batch(&origin(Some((sender, 1))), &[b"b"])]));
            assert!(error.contains(words), "{words}: {error}");
            assert!(error.contains("nothing is acknowledged from here on"), "{error}");
            // Not in what was moved away, either: the sender sends it again to the new one.
            assert_eq!(rows(&sink).len(), 1, "{words}");
            assert!(fatal(sink.committed(sender)).contains(words));
        }
        // Also while it waits for something else, which may never end in a file that nobody sees.
        let directory = tempfile::tempdir().unwrap();
        let mut sink = open(&directory).unwrap();
        let other = Connection::open(&sink.path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        sink.connection.busy_timeout(Duration::ZERO).unwrap();
        let commit = |sink: &mut SqliteSink| sink.commit(&[batch(&origin(None), &[b"a"])]);
        assert!(matches!(commit(&mut sink), Err(SinkError::Transient(_))));
        std::fs::remove_file(&sink.path).unwrap();
        sink.files.look_at_once();
        let error = fatal(commit(&mut sink));
        assert!(error.contains("messages.db was moved or deleted"), "{error}");
        // It is there under the name that it was given.
        let directory = tempfile::tempdir().unwrap();
        let (target, link) = (directory.path().join("target"), directory.path().join("link"));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        drop(SqliteSink::open(&target).unwrap());
        let mut sink = SqliteSink::open(&link).unwrap();
        sink.files.look_at_once();
        sink.commit(&[batch(&origin(None), &[b"a"])]).unwrap();
        std::fs::remove_file(&link).unwrap();
        sink.files.look_at_once();
        let error = fatal(sink.commit(&[batch(&origin(None), &[b"b"])]));
        assert!(error.contains("link was moved or deleted"), "{error}");
    }

    #[test]
    fn whether_a_database_is_still_there_is_looked_at_now_and_then_and_again_if_it_cannot_be_told()
    {
        let directory = tempfile::tempdir().unwrap();
        let mut sink = open(&directory).unwrap();
        let elsewhere = sink.path.with_extension("elsewhere");
        std::fs::rename(&sink.path, &elsewhere).unwrap();
        // As was known a short time ago.
        sink.files.check(Duration::from_secs(3600)).unwrap();
        assert!(fatal(sink.files.check(Duration::ZERO)).contains("was moved or deleted"));
        // A name that leads nowhere, but is there.
        std::os::unix::fs::symlink(&sink.path, &sink.path).unwrap();
        let error = transient(sink.files.check(Duration::ZERO));
        assert!(error.contains("cannot look at"), "{error}");
        std::fs::rename(&elsewhere, &sink.path).unwrap();
        sink.files.check(Duration::ZERO).unwrap();
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

    #[test]
    fn no_id_is_used_again_whatever_is_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let mut sink = open(&directory).unwrap();
        let mut last = 0;
        let deletions = [
            "DELETE FROM messages",
            "DELETE FROM messages WHERE id >= (SELECT max(id) - 1 FROM messages)",
        ];
        for round in 0..6 {
            sink.commit(&[batch(&origin(None), &[b"a", b"b", b"c"])]).unwrap();
            let newest = number(&sink, "SELECT max(id) FROM messages");
            assert_eq!(newest, last + 3);
            last = newest;
            sink.connection.execute(deletions[round / 3], []).unwrap();
            if round % 2 == 0 {
                drop(sink);
                sink = open(&directory).unwrap();
            }
        }
        // Another program's ids are no reason to stop, but the highest one that there can be is.
        let other = "INSERT INTO messages (id, received, number, payload) VALUES (?1, '', 1, '')";
        sink.connection.execute(other, [1000]).unwrap();
        sink.commit(&[batch(&origin(None), &[b"a"])]).unwrap();
        assert_eq!(number(&sink, "SELECT max(id) FROM messages"), 1001);
        sink.connection.execute(other, [i64::MAX]).unwrap();
        let error = fatal(sink.commit(&[batch(&origin(None), &[b"a"])]));
        assert!(error.contains("highest possible id"), "{error}");
    }

    /// The tables of version 1, with a message and these senders.
    fn version_1(directory: &tempfile::TempDir, senders: &[(SenderId, &str)]) {
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

    #[test]
    fn a_database_of_version_2_is_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let mut sink = open(&directory).unwrap();
        sink.commit(&[batch(&origin(Some((id(1), 0))), &[b"a"])]).unwrap();
        let back = "ALTER TABLE senders DROP COLUMN checksum; PRAGMA user_version = 2;";
        sink.connection.execute_batch(back).unwrap();
        drop(sink);
        let mut sink = open(&directory).unwrap();
        assert_eq!(sink.committed(id(1)).unwrap(), Some(1));
        assert_eq!(sink.last_checksums(&[id(1)]).unwrap(), [None]);
        sink.commit(&[batch(&origin(Some((id(1), 1))), &[b"b"])]).unwrap();
        assert_eq!(sink.last_checksums(&[id(1)]).unwrap(), [Some(checksum(b"b"))]);
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

    #[test]
    fn names_that_sqlite_would_take_for_more_are_files() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["file:x?mode=memory", ":memory:"] {
            let path = directory.path().join(name);
            SqliteSink::open(&path).unwrap();
            assert!(path.metadata().unwrap().len() > 0, "{name}");
        }
    }
}
