//! Checks that the files of a database are still in place.
//!
//! SQLite keeps writing to files that were deleted or moved; what it writes there would be lost.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::sink::message_sink::SinkError;
use crate::wire::io_error::Plain;

/// How old the last check may be before a commit, and before its acknowledgement: so nothing is
/// acknowledged more than a second after a file is gone, at almost no cost. The second limit is longer, so
/// that it only matters after a slow commit: a failure of the first check can still be rolled back.
pub(super) const BEFORE_COMMIT: Duration = Duration::from_millis(250);
pub(super) const BEFORE_ACKNOWLEDGEMENT: Duration = Duration::from_millis(500);

/// The files of one open database.
#[derive(Debug)]
pub(super) struct Files {
    names: Vec<(PathBuf, Identity)>,
    checked: Instant,
}

/// Device and inode number.
type Identity = (u64, u64);

impl Files {
    /// Returns the files of an open database: the one at `path`, its log and the index of the log.
    pub(super) fn of(path: &Path) -> io::Result<Files> {
        // SQLite puts the others beside the file itself, not beside a symbolic link to it.
        let beside = |ending: &str| -> io::Result<PathBuf> {
            let mut name = fs::canonicalize(path)?.into_os_string();
            name.push(OsStr::new(ending));
            Ok(name.into())
        };
        let named = [path.to_owned(), beside("-wal")?, beside("-shm")?].map(|name| {
            let identity = identity(&name)?;
            Ok((name, identity))
        });
        let names = named.into_iter().collect::<io::Result<_>>()?;
        Ok(Files { names, checked: Instant::now() })
    }

    /// Checks that all files are still in place, unless the last check was less than `age` ago.
    ///
    /// # Errors
    ///
    /// Fatal: a file that was moved, deleted or replaced. Transient: a file that cannot be checked now.
    pub(super) fn check(&mut self, age: Duration) -> Result<(), SinkError> {
        if self.checked.elapsed() < age {
            return Ok(());
        }
        for (name, opened) in &self.names {
            let what = match identity(name) {
                Ok(found) if found == *opened => continue,
                Ok(_) => "was replaced by another file",
                Err(error) if is_gone(&error) => "was moved or deleted",
                Err(error) => {
                    let words = format!("cannot look at {}: {}", name.display(), Plain(&error));
                    return Err(SinkError::Transient(io::Error::other(words)));
                }
            };
            let path = self.names[0].0.display();
            return Err(SinkError::Fatal(io::Error::other(format!(
                "database {path}: {} {what} while framelet was writing to it; nothing is acknowledged \
                 from here on; start the server again to open or create the one that is to be there",
                name.display()
            ))));
        }
        self.checked = Instant::now();
        Ok(())
    }

    /// Forces the next check, however recent the last one was.
    #[cfg(test)]
    pub(super) fn look_at_once(&mut self) {
        self.checked -= BEFORE_ACKNOWLEDGEMENT;
    }
}

fn identity(path: &Path) -> io::Result<Identity> {
    fs::metadata(path).map(|file| (file.dev(), file.ino()))
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, StaleNetworkFileHandle};
    matches!(error.kind(), NotFound | NotADirectory | StaleNetworkFileHandle)
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::message::tests::{batch, origin};
    use crate::sink::message_sink::MessageSink;
    use crate::sink::sqlite::SqliteSink;
    use crate::sink::sqlite::sqlite_sink::tests::{fatal, id, open, rows, transient};

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
}
