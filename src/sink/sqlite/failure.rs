//! What the errors of SQLite mean, and what to do.

use std::io;
use std::path::Path;

use rusqlite::{ErrorCode, ffi};

use crate::sink::message_sink::SinkError;

/// The error of a transaction.
#[derive(Debug)]
pub(super) enum Failed {
    Sqlite(rusqlite::Error),
    /// The error in words.
    Sink(SinkError),
}

impl Failed {
    /// Says what the error means for the database at `path`.
    pub(super) fn at(self, path: &Path) -> SinkError {
        match self {
            Failed::Sqlite(error) if is_passing(&error) => {
                SinkError::Transient(explain(path, &error))
            }
            Failed::Sqlite(error) => SinkError::Fatal(explain(path, &error)),
            Failed::Sink(error) => error,
        }
    }
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

pub(super) fn unusable<T>(words: String) -> Result<T, Failed> {
    Err(SinkError::Fatal(io::Error::other(words)).into())
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
pub(super) fn explain(path: &Path, error: &rusqlite::Error) -> io::Error {
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
    use std::time::Duration;

    use rusqlite::Connection;

    use super::*;
    use crate::message::tests::{batch, origin};
    use crate::sink::message_sink::MessageSink;
    use crate::sink::sqlite::sqlite_sink::tests::{id, open, rows, transient};

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
            let failed = Failed::from(failure(code)).at(&sink.path);
            assert_eq!(matches!(failed, SinkError::Transient(_)), passing, "{code}");
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
}
