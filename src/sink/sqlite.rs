//! A sink that puts messages into a SQLite database.
//!
//! How far each sender has come is stored in the same transaction as the messages, so it is known
//! exactly which of them are there, whatever happens.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use humantime::format_rfc3339_millis;
use log::info;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior, params};

use super::{Batch, Sink, SinkError};
use crate::error::Plain;
use crate::sender::SenderId;

/// What the file says it is, where the header of a database has room for that: "frlt".
const APPLICATION: i64 = 0x6672_6c74;

/// The version of the tables below.
const SCHEMA_VERSION: i64 = 1;

/// The tables. Times are text, since that can be read in a shell and SQLite's functions understand it.
const SCHEMA: &str = "
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,    -- in the order in which they were committed
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
    seen TEXT NOT NULL          -- when that was committed
) WITHOUT ROWID;
";

/// The permissions of a new database, less the umask: messages are not everybody's business.
const MODE: u32 = 0o640;

/// How long another program may keep the database locked.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a sender is remembered after its last message.
const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How often those are looked for who are to be forgotten. It goes through all senders.
const FORGET: Duration = Duration::from_secs(24 * 60 * 60);

const INSERT: &str = "INSERT INTO messages (received, peer, connection, number, sender, payload) \
                      VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const COMMITTED: &str = "SELECT committed FROM senders WHERE sender = ?1";
const REMEMBER: &str = "INSERT INTO senders (sender, committed, seen) VALUES (?1, ?2, ?3) \
                        ON CONFLICT (sender) DO UPDATE \
                        SET committed = excluded.committed, seen = excluded.seen";

/// Puts messages into a SQLite database, one transaction a commit.
///
/// A commit is safe from a failure of the machine: the database has a write-ahead log that is synced at
/// each commit. Other programs can read at any time, and write in between.
///
/// The table `messages` has a row for each message. Its `payload` is text where it is UTF-8 without NUL
/// characters, so that a shell shows it and SQLite's functions for text and JSON take it, and a blob
/// otherwise; `CAST(payload AS BLOB)` is the exact bytes of both. The table `senders` has how far each
/// sender has come, which is forgotten 30 days after its last message: at a start, or once a day when a
/// sender connects.
#[derive(Debug)]
pub struct SqliteSink {
    path: PathBuf,
    connection: Connection,
    /// When senders are to be forgotten next.
    forget_at: Instant,
}

impl SqliteSink {
    /// Opens the database at `path`, or creates it.
    ///
    /// # Errors
    ///
    /// The system's or SQLite's, with the path and what to do; or that the database is another
    /// program's, or a newer framelet's.
    pub fn open(path: impl AsRef<Path>) -> io::Result<SqliteSink> {
        let path = path.as_ref();
        let what = |error: io::Error| {
            io::Error::other(format!("cannot open {}: {}", path.display(), Plain(&error)))
        };
        // For the system's own words, and so that not everybody may read it.
        match OpenOptions::new().write(true).create_new(true).mode(MODE).open(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(what(error)),
            _ => {}
        }
        // To SQLite, some names are more than names.
        let name = Path::new(".").join(path);
        let mut connection = Connection::open_with_flags(
            name,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )
        .map_err(|error| explain(path, &error))?;
        prepare(&mut connection).map_err(|error| match error {
            Unusable::Sqlite(error) => explain(path, &error),
            Unusable::Words(words) => what(io::Error::other(words)),
        })?;
        Ok(SqliteSink { path: path.into(), connection, forget_at: Instant::now() + FORGET })
    }
}

impl Sink for SqliteSink {
    fn commit(&mut self, batches: &[Batch]) -> Result<(), SinkError> {
        Ok(insert(&self.connection, batches).map_err(|error| explain(&self.path, &error))?)
    }

    fn committed(&mut self, sender: SenderId) -> Result<Option<u64>, SinkError> {
        // New senders are what the table grows by.
        if Instant::now() >= self.forget_at {
            forget(&self.connection).map_err(|error| explain(&self.path, &error))?;
            self.forget_at = Instant::now() + FORGET;
        }
        let committed = committed(&self.connection, &sender.to_string());
        Ok(committed.map(Some).map_err(|error| explain(&self.path, &error))?)
    }
}

enum Unusable {
    Sqlite(rusqlite::Error),
    Words(String),
}

impl From<rusqlite::Error> for Unusable {
    fn from(error: rusqlite::Error) -> Self {
        Unusable::Sqlite(error)
    }
}

/// Makes a new database framelet's, and sees to it that another one is.
fn prepare(connection: &mut Connection) -> Result<(), Unusable> {
    connection.busy_timeout(PATIENCE)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let number = |query| transaction.query_row(query, [], |row| row.get::<_, i64>(0));
    let application = number("SELECT application_id FROM pragma_application_id")?;
    let version = number("SELECT user_version FROM pragma_user_version")?;
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    match (application, version, tables) {
        (0, 0, 0) => {
            transaction.execute_batch(SCHEMA)?;
            transaction.pragma_update(None, "application_id", APPLICATION)?;
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        }
        (APPLICATION, SCHEMA_VERSION, _) => {}
        (APPLICATION, version, _) if version > SCHEMA_VERSION => {
            return Err(Unusable::Words(format!(
                "a newer framelet has made it (schema {version}, and this one knows {SCHEMA_VERSION}); use \
                 that one, or another file"
            )));
        }
        _ => {
            return Err(Unusable::Words(
                "it is the database of another program; give another file".into(),
            ));
        }
    }
    forget(&transaction)?;
    transaction.commit()?;
    // Not possible within a transaction.
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(Unusable::Words(format!(
            "its file system has no room for a write-ahead log (journal mode {mode}); give a file on a \
             local one"
        )));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(())
}

/// Forgets the senders that have not been seen for long.
fn forget(connection: &Connection) -> rusqlite::Result<()> {
    // Where no time could be so long ago, nobody is forgotten.
    if let Some(since) = SystemTime::now().checked_sub(REMEMBERED)
        && since > SystemTime::UNIX_EPOCH
    {
        let since = format_rfc3339_millis(since).to_string();
        let forgotten = connection.execute("DELETE FROM senders WHERE seen < ?1", [since])?;
        if forgotten > 0 {
            info!("forgot {forgotten} senders, not seen for 30 days");
        }
    }
    Ok(())
}

/// Does `work` in a transaction: all of it or nothing.
///
/// That of rusqlite has both statements compiled anew each time, which a single message feels.
fn in_transaction(
    connection: &Connection,
    work: impl FnOnce() -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
    let done = work().and_then(|()| connection.prepare_cached("COMMIT")?.execute([]));
    // Some errors have ended it already.
    if done.is_err() && !connection.is_autocommit() {
        // What went wrong first is what there is to say.
        let _ = connection.execute_batch("ROLLBACK");
    }
    done.map(drop)
}

fn insert(connection: &Connection, batches: &[Batch]) -> rusqlite::Result<()> {
    in_transaction(connection, || {
        let mut insert = connection.prepare_cached(INSERT)?;
        for batch in batches {
            let sender = batch.sender().map(|sender| sender.to_string());
            let fresh = match &sender {
                Some(sender) => batch.after(committed(connection, sender)?),
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
                insert.execute(params![
                    received,
                    peer,
                    message.connection.map(integer),
                    integer(message.number),
                    sender,
                    value(message.payload),
                ])?;
            }
            if let Some(sender) = &sender {
                let seen = format_rfc3339_millis(SystemTime::now()).to_string();
                let mut remember = connection.prepare_cached(REMEMBER)?;
                remember.execute(params![sender, integer(batch.last_number()), seen])?;
            }
        }
        Ok(())
    })
}

/// Returns how many messages of a sender are committed.
fn committed(connection: &Connection, sender: &str) -> rusqlite::Result<u64> {
    let mut query = connection.prepare_cached(COMMITTED)?;
    let committed = query.query_row([sender], |row| row.get::<_, i64>(0)).optional()?;
    Ok(committed.and_then(|committed| u64::try_from(committed).ok()).unwrap_or(0))
}

/// SQLite's integers are signed; no count gets there.
fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn value(payload: &[u8]) -> ToSqlOutput<'_> {
    // SQLite's functions take a NUL character for the end of a text.
    let text = memchr::memchr(0, payload).is_none() && str::from_utf8(payload).is_ok();
    ToSqlOutput::Borrowed(if text { ValueRef::Text(payload) } else { ValueRef::Blob(payload) })
}

/// Says in a line what is wrong, with which file, and what to do.
fn explain(path: &Path, error: &rusqlite::Error) -> io::Error {
    let hint = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another program has kept it locked for 5 s; end that one's transaction"
        }
        Some(ErrorCode::NotADatabase) => "it is no SQLite database; give another file",
        Some(ErrorCode::DatabaseCorrupt) => {
            "it is damaged; save what can be read with the .recover of the program sqlite3, and give \
             another file"
        }
        Some(ErrorCode::ReadOnly) => {
            "it cannot be written; see the permissions of the file and its folder"
        }
        Some(ErrorCode::DiskFull) => "make room there, and start again",
        Some(ErrorCode::CannotOpen) => {
            "see that it is a file, and the permissions of its folder, where SQLite keeps its log"
        }
        Some(ErrorCode::SystemIoFailure) => {
            "the disk or its file system fails; see the system's log"
        }
        Some(ErrorCode::TooBig) => {
            "no row can be longer than 1,000,000,000 bytes; see --max-message"
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
    use crate::sink::tests::{batch, origin};

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

    #[test]
    fn a_commit_that_fails_leaves_nothing_of_its_messages_or_its_senders() {
        let directory = tempfile::tempdir().unwrap();
        let sender = SenderId::from_bytes([1; 16]);
        let mut sink = open(&directory).unwrap();
        sink.connection.query_row("PRAGMA max_page_count = 6", [], |_| Ok(())).unwrap();
        let small = batch(&origin(Some((sender, 0))), &[b"a"]);
        sink.commit(&[small]).unwrap();
        let large = batch(&origin(Some((sender, 1))), &[b"b", &[b'c'; 20_000]]);
        let error = sink.commit(&[large]).unwrap_err().to_string();
        assert!(error.contains("messages.db: database or disk is full: make room"), "{error}");
        assert_eq!(rows(&sink).len(), 1);
        assert_eq!(sink.committed(sender).unwrap(), Some(1));
    }

    #[test]
    fn senders_are_forgotten_after_30_days() {
        let directory = tempfile::tempdir().unwrap();
        let sink = open(&directory).unwrap();
        let day = Duration::from_secs(24 * 60 * 60);
        for (sender, days) in [(1, 29), (2, 31)] {
            let sender = SenderId::from_bytes([sender; 16]).to_string();
            let seen = format_rfc3339_millis(SystemTime::now() - days * day).to_string();
            sink.connection.execute(REMEMBER, params![sender, 5, seen]).unwrap();
        }
        drop(sink);
        let mut sink = open(&directory).unwrap();
        let committed = [1, 2].map(|id| sink.committed(SenderId::from_bytes([id; 16])).unwrap());
        assert_eq!(committed, [Some(5), Some(0)]);
        // A server that is never started anew forgets, too, though not at each question.
        let seen = format_rfc3339_millis(SystemTime::now() - 31 * day).to_string();
        let old = SenderId::from_bytes([3; 16]);
        sink.connection.execute(REMEMBER, params![old.to_string(), 5, seen]).unwrap();
        assert_eq!(sink.committed(old).unwrap(), Some(5));
        sink.forget_at = Instant::now();
        assert_eq!(sink.committed(old).unwrap(), Some(0));
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
