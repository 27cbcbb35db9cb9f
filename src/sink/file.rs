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
mod note; // what framelet notes about the file
mod sync; // what makes a file safe
mod torn; // where its whole records end

/// The permissions of a new file, less the umask: messages are not everybody's business.
const MODE: u32 = 0o640;

/// How long a file that has come in place of a deleted one is to stay as it is before it is written to: it may
/// be a copy under way.
const SETTLED: Duration = Duration::from_secs(1);

/// Appends messages to a file in one of the formats.
///
/// The file ends with a whole record at all times but during a commit. A commit that fails is taken
/// back. What was left of one by the end of the program or of the machine is moved to `PATH.torn-N` when the
/// file is opened next, and that is logged; in the format `raw` it cannot be recognised and stays.
///
/// A note beside the file, `PATH.framelet`, is the sign that framelet wrote it, in which format, and how much
/// of it is committed. A file that is not empty and has no such note is taken if its bytes say that it is in
/// the format; those of `nul` and `raw` say nothing. After a clean end the note also says how far each
/// sender has come, for the latest 100,000 of them.
///
/// Where there is no room or the disk fails, that is a [`SinkError::Transient`], and so is a file that was
/// deleted: once there is one at its path again, or it is reopened, that is written to. A file that was
/// only renamed is written to until then.
///
/// Only one program at a time can have a file open this way. Devices and pipes are written to like
/// standard output.
#[derive(Debug)]
pub struct FileSink {
    path: PathBuf,
    format: OutputFormat,
    sync: FileSync,
    syncs: Syncs,
    open: Opened,
    senders: SenderCounts,
}

/// An open file; a regular one with what goes with it.
#[derive(Debug)]
struct Opened {
    output: OutputSink,
    regular: Option<Regular>,
}

#[derive(Debug)]
struct Regular {
    /// Another handle to the file.
    file: File,
    note: Option<OpenNote>,
    /// Whether it ends with a whole record.
    whole: bool,
    /// What has come in its place since it was deleted.
    found: Option<Found>,
}

#[derive(Debug)]
struct Found {
    metadata: Metadata,
    /// Since when it is as it is; `None` if it cannot be opened so.
    since: Option<Instant>,
}

impl FileSink {
    /// Opens the file at `path`, or creates it.
    ///
    /// # Errors
    ///
    /// The system's, with the path; or that the file is in use, or is not in the format; or that the format
    /// is [`OutputFormat::None`]. Then the file is as it was before.
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
        if format == OutputFormat::None {
            return Err(io::Error::other(format!(
                "cannot write to {}: in the format none, nothing would be written",
                path.display()
            )));
        }
        let (open, senders) = Opened::at(&path, format, sync, syncs)?;
        Ok(FileSink { path, format, sync, syncs, open, senders })
    }

    fn open_again(&mut self) -> io::Result<()> {
        let is_same = match &self.open.regular {
            Some(regular) => is_at(&self.path, &regular.file.metadata()?),
            None => false,
        };
        // The lock is that of the file that is open already, so that is gone on in.
        if !is_same {
            (self.open, _) = Opened::at(&self.path, self.format, self.sync, self.syncs)?;
        }
        Ok(())
    }

    /// Returns how long the file is; `None` if it has no name any more, since what is written to it is lost
    /// then.
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
            "cannot write to {}: it was deleted; create it, or have it opened again (SIGHUP)",
            self.path.display()
        )))
    }

    /// Opens the file that has come in place of the deleted one, once it is no longer written to by
    /// others. Returns how long it is.
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
        // Once, unless it changes.
        found.since = None;
        if let Err(error) = self.open_again() {
            error!("{}; waiting for another one", Plain(&error));
            return Err(deleted);
        }
        info!("opened the file that is {} now", self.path.display());
        self.named_len()?.ok_or(deleted)
    }

    /// Writes the batches behind the first `before` bytes, or nothing.
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
        // After a sync that failed, nobody knows what of it is on the disk: all of it is written and synced
        // again.
        let left = match cut_back(&regular.file, before) {
            Ok(true) => {
                regular.whole = true;
                "the file was cut back to its last whole message".to_owned()
            }
            Ok(false) => "it may end with a part of a message, since others write to it".to_owned(),
            Err(error) => {
                format!(
                    "it may end with a part of a message, since it cannot be cut back: {}",
                    Plain(&error)
                )
            }
        };
        Err(self.failed(&error, &left))
    }

    /// The failure of a commit, which may pass if nothing of it is left. Its kind is none that says something
    /// about standard output.
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

    /// Notes that so much of the file is committed, once in a while: what the next start finds behind that is as
    /// good as long as it is whole. Only zeros are not, which look like what a power failure leaves.
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
            // Asked for each time: somebody may have emptied the file, or deleted it.
            let before = match self.named_len() {
                Ok(Some(len)) => len,
                Ok(None) => self.open_successor()?,
                Err(error) => return Err(self.failed(&error, "")),
            };
            self.append(batches, before)?;
            match self.named_len() {
                Ok(Some(len)) => self.note_committed(len, batches),
                // They come again, and into another one.
                Ok(None) => return Err(self.deleted()),
                // It only lacks the note.
                Err(_) => {}
            }
        }
        self.senders.commit(batches);
        Ok(())
    }

    /// Returns what the note said, after a clean end; and what has come since.
    fn committed(&mut self, sender: SenderId) -> Result<Option<u64>, SinkError> {
        Ok(self.senders.committed(sender))
    }

    fn last_checksums(&mut self, senders: &[SenderId]) -> Result<Vec<Option<u64>>, SinkError> {
        Ok(senders.iter().map(|sender| self.senders.checksum(*sender)).collect())
    }

    /// Goes on in the file that now has the path, or creates it. If that cannot be done, it stays with
    /// the old one, and says so in the log.
    fn reopen(&mut self) -> Result<(), SinkError> {
        match self.open_again() {
            Ok(()) => info!("opened {} again", self.path.display()),
            Err(error) => error!("{}; going on in the file that was open before", Plain(&error)),
        }
        Ok(())
    }
}

/// Notes the clean end, and how far the senders have come.
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
    /// Opens the file; returns what its note knows of senders, too.
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
        // A directory fails by itself, and in words.
        let special = path.metadata().is_ok_and(|metadata| !metadata.is_file());
        let mut options = OpenOptions::new();
        // A pipe that is opened for reading, too, would never tell that its reader is gone.
        options.append(true).create(true).read(!special).mode(MODE);
        let file = options.open(path).map_err(what)?;
        if !file.metadata().map_err(what)?.is_file() {
            let output = OutputSink::new(file, format);
            return Ok((Opened { output, regular: None }, SenderCounts::default()));
        }
        // Some file systems have no locks; that is no error.
        if let Err(Errno::WOULDBLOCK) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            let error = "another framelet writes to it; give each one a file of its own";
            return Err(what(io::Error::other(error)));
        }
        let (regular, senders) = take_over(&file, path, format, sync, syncs).map_err(what)?;
        Ok((Opened { output: OutputSink::new(file, format), regular: Some(regular) }, senders))
    }
}

/// Makes sure that the file is in the format and ends with a whole record, or leaves it alone.
fn take_over(
    file: &File,
    path: &Path,
    format: OutputFormat,
    sync: FileSync,
    syncs: Syncs,
) -> io::Result<(Regular, SenderCounts)> {
    let metadata = file.metadata()?;
    let len = metadata.len();
    // An empty file is taken, whatever was in it before.
    let note = if len > 0 { Note::read(path, &metadata) } else { None };
    if let Some(note) = note.as_ref().filter(|note| note.format != format) {
        let held = note.format;
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it holds {held}; start with {held}, or give another file"),
        ));
    }
    // A file that was cut since is no longer what was noted.
    let floor = note.as_ref().map(Note::floor).filter(|&floor| floor <= len);
    let end = if len > 0 { torn::end_of_whole(file, format, floor, len, path)? } else { 0 };
    if end < len {
        let moved = torn::move_aside(file, path, (end, len), metadata.mode(), syncs)?;
        warn!("{moved}");
    }
    if sync == FileSync::Always && len > 0 {
        // A server that was killed may not have got to that.
        (syncs.data)(file)?;
    }
    let senders =
        note.filter(|note| note.committed == len && end == len).and_then(|note| note.senders);
    let note = Note::new(end, format, sync, &metadata);
    let note = OpenNote::write(path, note, metadata.mode(), syncs);
    let note = note.inspect_err(|error| warn_of_note(path, error)).ok();
    // A new file is only safe once its name is.
    if sync == FileSync::Always
        && let Err(error) = syncs.name_of(path)
    {
        warn!("cannot make the name of {} safe: {}", path.display(), Plain(&error));
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

/// Returns whether the file has just that length now. What others have emptied is not filled with zeros.
fn cut_back(file: &File, len: u64) -> io::Result<bool> {
    if file.metadata()?.len() < len {
        return Ok(false);
    }
    file.set_len(len)?;
    Ok(file.metadata()?.len() == len)
}

/// Returns whether the file has any name left. One that was only renamed has.
fn has_name(path: &Path, metadata: &Metadata) -> bool {
    // Some file systems count no links.
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

/// Returns whether the last record, or what can be told of it, is nothing but zeros.
fn ends_with_zeros(format: OutputFormat, batches: &[Batch]) -> bool {
    let last = || batches.last().and_then(|batch| batch.messages().last());
    match format {
        OutputFormat::Frames | OutputFormat::Nul => last().is_some_and(|m| m.payload.is_empty()),
        OutputFormat::Raw => last().is_some_and(|m| m.payload.last().is_none_or(|&byte| byte == 0)),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
