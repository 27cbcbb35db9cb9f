//! A sink that appends messages to a file.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use log::{error, info, warn};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use self::file_sync::FileSync;
use self::note::{Note, OpenNote};
use self::sync::Syncs;
use super::message_sink::{MessageSink, SinkError};
use super::output::OutputSink;
use super::output::{may_pass, what_to_do};
use super::sender_counts::SenderCounts;
use crate::format::names::OutputFormat;
use crate::message::Batch;
use crate::wire::io_error::Plain;
use crate::wire::sender_id::SenderId;

pub(super) mod file_sync; // when a file is synced
mod note; // the note beside the file
mod sync; // fsync
mod torn; // recovery after a crash

/// The permissions of a new file, before the umask: messages may be private.
const MODE: u32 = 0o640;

/// How long a file that replaces a deleted one must stay unchanged before it is written to: it may still be
/// being copied.
const SETTLED: Duration = Duration::from_secs(1);

/// Appends messages to a file in one of the formats.
///
/// Except during a commit, the file always ends with a whole record. A commit that fails is undone. If a
/// crash left part of one, the next opening moves it to `PATH.torn-N` and logs that; in the format `raw` it
/// cannot be recognized and stays.
///
/// A note beside the file, `PATH.framelet`, records that framelet wrote it, in which format, and how much
/// of it is committed. A non-empty file without a note is only accepted if its bytes show that it is in the
/// format; in `nul` and `raw` they cannot. After a clean end, the note also has the counts of the latest
/// 100,000 senders.
///
/// A full or failing disk is a [`SinkError::Transient`]. So is a deleted file: writing resumes once there
/// is a file at its path again, or the sink is reopened. A file that was renamed is written to until the
/// sink is reopened.
///
/// The file is locked: one program at a time may write to it. Devices and pipes are written to like
/// standard output.
///
/// # Examples
///
/// ```
/// use framelet::format::OutputFormat;
/// use framelet::sink::{FileSink, FileSync, MessageSink};
/// use framelet::Batch;
///
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path().join("messages");
/// let mut sink = FileSink::open(&path, OutputFormat::Lines, FileSync::Always)?;
/// sink.commit(&[Batch::from_iter(["21.5", "21.7"])])?;
/// assert_eq!(std::fs::read(&path)?, b"21.5\n21.7\n");
///
/// std::fs::rename(&path, path.with_extension("1"))?;
/// sink.reopen()?; // a new file
/// sink.commit(&[Batch::from_iter(["21.9"])])?;
/// assert_eq!(std::fs::read(&path)?, b"21.9\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FileSink {
    path: PathBuf,
    format: OutputFormat,
    sync: FileSync,
    syncs: Syncs,
    open: Opened,
    senders: SenderCounts,
}

/// An open file, and for regular files what belongs to it.
#[derive(Debug)]
struct Opened {
    output: OutputSink,
    regular: Option<Regular>,
}

#[derive(Debug)]
struct Regular {
    /// Another handle to the same file.
    file: File,
    note: Option<OpenNote>,
    /// Whether it ends with a whole record.
    whole: bool,
    /// The file that has replaced it since it was deleted.
    found: Option<Found>,
}

#[derive(Debug)]
struct Found {
    metadata: Metadata,
    /// Since when it has been unchanged; `None` if it cannot be opened as it is.
    since: Option<Instant>,
}

impl FileSink {
    /// Opens the file at `path`, or creates it.
    ///
    /// # Errors
    ///
    /// Any error of the system call, with the path. The file is in use, or is not in the format; or the
    /// format is [`OutputFormat::None`] or [`OutputFormat::Hexdump`]. The file is then left unchanged.
    pub fn open(
        path: impl Into<PathBuf>,
        format: OutputFormat,
        sync: FileSync,
    ) -> io::Result<FileSink> {
        FileSink::open_with(path.into(), format, sync, Syncs::SYSTEM)
    }

    fn open_with(
        path: PathBuf,
        format: OutputFormat,
        sync: FileSync,
        syncs: Syncs,
    ) -> io::Result<FileSink> {
        let why = match format {
            OutputFormat::None => "in the format none, nothing would be written",
            // The end of its last whole message could not be found after a crash.
            OutputFormat::Hexdump => {
                "a hexdump is for people and cannot be read back; use another format, and decode it"
            }
            _ => "",
        };
        if !why.is_empty() {
            let path = path.display();
            return Err(io::Error::other(format!("cannot write to {path}: {why}")));
        }
        let (open, senders) = Opened::at(&path, format, sync, syncs)?;
        Ok(FileSink { path, format, sync, syncs, open, senders })
    }

    fn open_again(&mut self) -> io::Result<()> {
        let is_same = match &self.open.regular {
            Some(regular) => is_at(&self.path, &regular.file.metadata()?),
            None => false,
        };
        // The open file is the one that is locked, so it is kept.
        if !is_same {
            (self.open, _) = Opened::at(&self.path, self.format, self.sync, self.syncs)?;
        }
        Ok(())
    }

    /// Returns the length of the file; `None` if it was deleted, because what is written then is lost.
    fn named_len(&self) -> io::Result<Option<u64>> {
        let Some(regular) = &self.open.regular else { return Ok(None) };
        match regular.file.metadata() {
            Ok(metadata) => Ok(has_name(&self.path, &metadata).then_some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::StaleNetworkFileHandle => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn deleted(&self) -> SinkError {
        SinkError::Transient(io::Error::other(format!(
            "cannot write to {}: it was deleted; create it, or have it reopened (SIGHUP)",
            self.path.display()
        )))
    }

    /// Opens the file that replaces the deleted one, once nobody else writes to it. Returns its length.
    fn open_successor(&mut self) -> Result<u64, SinkError> {
        let (now, deleted) = (self.path.metadata(), self.deleted());
        let Some(regular) = &mut self.open.regular else { return Err(deleted) };
        let found = match (&mut regular.found, now) {
            (Some(found), Ok(now)) if is_unchanged(&found.metadata, &now) => found,
            (found, now) => {
                let metadata = now.ok().filter(Metadata::is_file);
                *found = metadata.map(|metadata| Found { metadata, since: Some(Instant::now()) });
                return Err(deleted);
            }
        };
        if found.since.is_none_or(|since| since.elapsed() < SETTLED) {
            return Err(deleted);
        }
        // Logged once, unless the file changes.
        found.since = None;
        if let Err(error) = self.open_again() {
            error!("{}; waiting for another one", Plain(&error));
            return Err(deleted);
        }
        info!(event = "reopened"; "opened the new file {}", self.path.display());
        self.named_len()?.ok_or(deleted)
    }

    /// Writes all batches after the first `before` bytes, or none of them.
    fn append(&mut self, batches: &[Batch], before: u64) -> Result<(), SinkError> {
        let Opened { output, regular: Some(regular) } = &mut self.open else { return Ok(()) };
        regular.whole = false;
        let written = output.write_batches(batches).and_then(|()| match self.sync {
            FileSync::Always => (self.syncs.data)(&regular.file),
            FileSync::Never => Ok(()),
        });
        let Err(error) = written else {
            regular.whole = true;
            return Ok(());
        };
        // After a failed sync, nobody knows how much of the commit is on the disk: all of it is undone, to
        // be written and synced again.
        let left = match cut_back(&regular.file, before) {
            Ok(true) => {
                regular.whole = true;
                "the file was cut back to its last whole message".to_owned()
            }
            Ok(false) => {
                "it may end with part of a message, since other programs write to it".to_owned()
            }
            Err(error) => {
                format!(
                    "it may end with part of a message, since it cannot be cut back: {}",
                    Plain(&error)
                )
            }
        };
        Err(self.failed(&error, &left))
    }

    /// Returns the error of a commit, which is transient if nothing of the commit is left. Its kind is none
    /// of those that describe standard output.
    fn failed(&self, error: &io::Error, left: &str) -> SinkError {
        let regular = self.open.regular.as_ref();
        let (separator, hint) = (if left.is_empty() { "" } else { "; " }, what_to_do(error));
        let words = format!(
            "cannot write to {}: {}{separator}{left}{hint}",
            self.path.display(),
            Plain(error)
        );
        match regular.is_some_and(|regular| regular.whole) && may_pass(error) {
            true => SinkError::Transient(io::Error::other(words)),
            false => SinkError::Fatal(io::Error::other(words)),
        }
    }

    /// Records how much is committed, from time to time: recovery accepts whole records after that point
    /// anyway. Only zeros are different, since a power failure leaves zeros.
    fn note_committed(&mut self, len: u64, batches: &[Batch]) {
        let Some(Regular { note: slot, .. }) = &mut self.open.regular else { return };
        let Some(note) = slot else { return };
        let noted = match ends_with_zeros(self.format, batches) {
            true => note.set_committed(len).and_then(|()| match self.sync {
                FileSync::Always => note.sync(self.syncs),
                FileSync::Never => Ok(()),
            }),
            false => note.set_committed_seldom(len),
        };
        if let Err(error) = noted {
            *slot = None;
            warn_of_note(&self.path, &error);
        }
    }
}

impl MessageSink for FileSink {
    fn commit(&mut self, batches: &[Batch]) -> Result<(), SinkError> {
        let batches = &*self.senders.only_new(batches);
        if self.open.regular.is_none() {
            let written = self.open.output.write_batches(batches);
            written.map_err(|error| self.failed(&error, ""))?;
        } else if !batches.is_empty() {
            // Checked each time: another program may have emptied or deleted the file.
            let before = match self.named_len() {
                Ok(Some(len)) => len,
                Ok(None) => self.open_successor()?,
                Err(error) => return Err(self.failed(&error, "")),
            };
            self.append(batches, before)?;
            match self.named_len() {
                Ok(Some(len)) => self.note_committed(len, batches),
                // The batches come again, and go to another file.
                Ok(None) => return Err(self.deleted()),
                // Only the note is missing.
                Err(_) => {}
            }
        }
        self.senders.commit(batches);
        Ok(())
    }

    /// Returns the counts from the note, after a clean end, updated since.
    fn committed(&mut self, sender: SenderId) -> Result<Option<u64>, SinkError> {
        Ok(self.senders.committed(sender))
    }

    fn last_checksums(&mut self, senders: &[SenderId]) -> Result<Vec<Option<u64>>, SinkError> {
        Ok(senders.iter().map(|sender| self.senders.checksum(*sender)).collect())
    }

    /// Reopens the path, or creates the file. If that fails, the sink keeps writing to the old file and
    /// logs that.
    fn reopen(&mut self) -> Result<(), SinkError> {
        match self.open_again() {
            Ok(()) => info!(event = "reopened"; "reopened {}", self.path.display()),
            Err(error) => error!("{}; still writing to the old file", Plain(&error)),
        }
        Ok(())
    }
}

/// Records the clean end and the counts of the senders.
impl Drop for FileSink {
    fn drop(&mut self) {
        let Some(Regular { file, note, whole: true, .. }) = &mut self.open.regular else { return };
        let is_there = file.metadata().is_ok_and(|metadata| has_name(&self.path, &metadata));
        if let Some(note) = note.take().filter(|_| is_there)
            && let Err(error) = note.end(&self.senders, self.syncs)
        {
            warn_of_note(&self.path, &error);
        }
    }
}

impl Opened {
    /// Opens the file. Also returns the counts in its note.
    fn at(
        path: &Path,
        format: OutputFormat,
        sync: FileSync,
        syncs: Syncs,
    ) -> io::Result<(Opened, SenderCounts)> {
        let what = |error: io::Error| {
            let text = format!("cannot open {}: {}", path.display(), Plain(&error));
            io::Error::new(error.kind(), text)
        };
        // Opening a directory fails anyway, with a clear message.
        let special = path.metadata().is_ok_and(|metadata| !metadata.is_file());
        let mut options = OpenOptions::new();
        // Write-only: a pipe that is also open for reading would never report that its reader is gone.
        options.append(true).create(true).read(!special).mode(MODE);
        let file = options.open(path).map_err(what)?;
        if !file.metadata().map_err(what)?.is_file() {
            let output = OutputSink::new(file, format);
            return Ok((Opened { output, regular: None }, SenderCounts::default()));
        }
        // Some file systems have no locks; that is accepted.
        if let Err(Errno::WOULDBLOCK) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            let error = "another framelet writes to it; give each one a file of its own";
            return Err(what(io::Error::other(error)));
        }
        let (regular, senders) = take_over(&file, path, format, sync, syncs).map_err(what)?;
        Ok((Opened { output: OutputSink::new(file, format), regular: Some(regular) }, senders))
    }
}

/// Checks that the file is in the format and ends with a whole record, after recovery; otherwise refuses
/// it.
fn take_over(
    file: &File,
    path: &Path,
    format: OutputFormat,
    sync: FileSync,
    syncs: Syncs,
) -> io::Result<(Regular, SenderCounts)> {
    let metadata = file.metadata()?;
    let len = metadata.len();
    // An empty file is accepted in any format.
    let note = if len > 0 { Note::read(path, &metadata) } else { None };
    if let Some(note) = note.as_ref().filter(|note| note.format != format) {
        let (kind, what) = match (note.format, format) {
            (OutputFormat::Frames(held), OutputFormat::Frames(layout)) => (
                io::ErrorKind::InvalidInput,
                format!(
                    "it holds frames in {held}, not in {layout}; start with that layout, or give another \
                     file"
                ),
            ),
            (held, _) => (
                io::ErrorKind::InvalidData,
                format!("it holds {held}; start with {held}, or give another file"),
            ),
        };
        return Err(io::Error::new(kind, what));
    }
    // If the file was cut since, the note no longer describes it.
    let floor = note.as_ref().map(Note::floor).filter(|&floor| floor <= len);
    let end = if len > 0 { torn::end_of_whole(file, format, floor, len, path)? } else { 0 };
    if end < len {
        let moved = torn::move_aside(file, path, (end, len), metadata.mode(), syncs)?;
        warn!("{moved}");
    }
    if sync == FileSync::Always && len > 0 {
        // A server that was killed may not have synced.
        (syncs.data)(file)?;
    }
    let senders =
        note.filter(|note| note.committed == len && end == len).and_then(|note| note.senders);
    let note = Note::new(end, format, sync, &metadata);
    let note = OpenNote::write(path, note, metadata.mode(), syncs);
    let note = note.inspect_err(|error| warn_of_note(path, error)).ok();
    // A new file is only safe once its directory entry is.
    if sync == FileSync::Always
        && let Err(error) = syncs.name_of(path)
    {
        warn!("cannot sync the directory of {}: {}", path.display(), Plain(&error));
    }
    let regular = Regular { file: file.try_clone()?, note, whole: true, found: None };
    Ok((regular, senders.unwrap_or_default()))
}

fn warn_of_note(path: &Path, error: &io::Error) {
    warn!(
        "cannot write {}: {}; without it framelet may not recognise its own file after a crash",
        note::beside(path, ".framelet").display(),
        Plain(error)
    );
}

/// Returns whether the file still has this length. If somebody has emptied it, it must not be filled with
/// zeros.
fn cut_back(file: &File, len: u64) -> io::Result<bool> {
    if file.metadata()?.len() < len {
        return Ok(false);
    }
    file.set_len(len)?;
    Ok(file.metadata()?.len() == len)
}

/// Returns whether the file still has a name. A renamed file does.
fn has_name(path: &Path, metadata: &Metadata) -> bool {
    // Some file systems do not count links.
    metadata.nlink() > 0 || is_at(path, metadata)
}

/// Returns whether the path leads to this file.
fn is_at(path: &Path, metadata: &Metadata) -> bool {
    path.metadata().is_ok_and(|at| (at.dev(), at.ino()) == (metadata.dev(), metadata.ino()))
}

fn is_unchanged(before: &Metadata, now: &Metadata) -> bool {
    let key = |m: &Metadata| (m.dev(), m.ino(), m.len(), m.mtime(), m.mtime_nsec());
    key(before) == key(now)
}

/// Returns whether the last record, as far as it can be seen, consists of zeros.
fn ends_with_zeros(format: OutputFormat, batches: &[Batch]) -> bool {
    let last = || batches.last().and_then(|batch| batch.messages().last());
    match format {
        OutputFormat::Frames(layout) => last().is_some_and(|m| {
            let prefix = layout.encode(m.payload.len());
            prefix.is_ok_and(|prefix| prefix.iter().all(|&byte| byte == 0))
        }),
        OutputFormat::Nul => last().is_some_and(|m| m.payload.is_empty()),
        OutputFormat::Raw => last().is_some_and(|m| m.payload.last().is_none_or(|&byte| byte == 0)),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
