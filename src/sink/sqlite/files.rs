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
