//! The sink: each commit is a transaction.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::failure::{Failed, explain};
use super::files::{BEFORE_ACKNOWLEDGEMENT, BEFORE_COMMIT, Files};
use super::messages::insert;
use super::prune::{Now, Pruner};
use super::schema::{PATIENCE, prepare};
use super::senders::{MOST_SENDERS, Senders, committed, last_checksum};
use crate::message::Batch;
use crate::sink::keep::{Keep, Pruned};
use crate::sink::message_sink::{MessageSink, SinkError};
use crate::wire::io_error::Plain;
use crate::wire::sender_id::SenderId;

/// The permissions of a new database, before the umask: messages may be private.
const MODE: u32 = 0o640;

/// Stores messages in a SQLite database, one transaction per commit.
///
/// A commit survives a crash of the machine: the database has a write-ahead log that is synced at each
/// commit. Other programs can read at any time, and write between commits.
///
/// The table `messages` has a row for each message. Its `payload` is text if it is UTF-8 without NUL
/// characters, so that shells show it and SQLite's functions for text and JSON accept it; otherwise it is a
/// blob. `CAST(payload AS BLOB)` gives the exact bytes of both. Its `header` is a blob, or null if the
/// message has none. An `id` is never reused, even after deletions. The table `senders` has the counts of
/// the 1,000,000 senders with the latest messages; which ones are forgotten does not depend on a clock.
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
    pub(super) path: PathBuf,
    pub(super) connection: Connection,
    pub(super) files: Files,
    pub(super) senders: Senders,
    pub(super) pruner: Pruner,
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
            pruner: Pruner::default(),
        })
    }

    /// Keeps only so much; call it for several limits. The oldest messages are removed in small transactions
    /// between commits, soon after there is too much. Their senders' counts stay.
    ///
    /// Bytes are those of the database's pages in use. The file itself does not shrink: the room is used again.
    /// Messages are counted by their ids, so those that another program removed count as well.
    ///
    /// Times are those of the wall clock, so they are compared only once it has been steady for an hour, or for
    /// the age to keep if that is less. The last message always stays.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::sink::{Keep, MessageSink, SqliteSink};
    /// use framelet::{Batch, message::Origin, net::Peer};
    ///
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("messages.db");
    /// let mut sink = SqliteSink::open(&path)?.keep(Keep::Messages(2));
    /// sink.commit(&[Batch::new(Origin::new(1, Peer::Unix), ["21.5", "21.7", "21.9"])])?;
    /// assert_eq!(sink.prune()?.messages, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn keep(mut self, keep: Keep) -> SqliteSink {
        self.pruner.keep(keep);
        self
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
        self.senders = match committed.map_err(|failed| failed.at(&self.path)) {
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
        Ok(Some(committed.map_err(|error| Failed::from(error).at(&self.path))?.unwrap_or(0)))
    }

    fn last_checksums(&mut self, senders: &[SenderId]) -> Result<Vec<Option<u64>>, SinkError> {
        let checksums = senders.iter().map(|s| last_checksum(&self.connection, &s.to_string()));
        checksums.collect::<Result<_, _>>().map_err(|error| Failed::from(error).at(&self.path))
    }

    fn prune(&mut self) -> Result<Pruned, SinkError> {
        let SqliteSink { connection, senders, pruner, .. } = self;
        if pruner.keeps_all() {
            return Ok(Pruned::default());
        }
        // Another program that has the database locked delays pruning, not the next commit.
        let senders = u64::try_from(senders.now).unwrap_or(0);
        let pruned = connection
            .busy_timeout(Duration::ZERO)
            .and_then(|()| pruner.step(connection, senders, Now::get()));
        let restored = connection.busy_timeout(PATIENCE);
        pruned
            .and_then(|pruned| restored.map(|()| pruned))
            .map_err(|error| Failed::from(error).at(&self.path))
    }
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::message::tests::{batch, origin};

    pub(in crate::sink::sqlite) fn open(directory: &tempfile::TempDir) -> io::Result<SqliteSink> {
        SqliteSink::open(directory.path().join("messages.db"))
    }

    pub(in crate::sink::sqlite) fn rows(sink: &SqliteSink) -> Vec<(i64, Option<String>, Vec<u8>)> {
        let query = "SELECT number, sender, CAST(payload AS BLOB) FROM messages ORDER BY id";
        let mut query = sink.connection.prepare(query).unwrap();
        let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        rows.map(Result::unwrap).collect()
    }

    pub(in crate::sink::sqlite) fn id(number: u128) -> SenderId {
        SenderId::from_bytes(number.to_be_bytes())
    }

    pub(in crate::sink::sqlite) fn number(sink: &SqliteSink, query: &str) -> i64 {
        sink.connection.query_row(query, [], |row| row.get(0)).unwrap()
    }

    /// Returns the error of a commit that can be repeated.
    #[track_caller]
    pub(in crate::sink::sqlite) fn transient<T: std::fmt::Debug>(
        result: Result<T, SinkError>,
    ) -> String {
        match result {
            Err(SinkError::Transient(error)) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    pub(in crate::sink::sqlite) fn fatal<T: std::fmt::Debug>(
        result: Result<T, SinkError>,
    ) -> String {
        match result {
            Err(SinkError::Fatal(error)) => error.to_string(),
            other => panic!("{other:?}"),
        }
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
