//! The note that framelet keeps about a file, in another file beside it.
//!
//! ```text
//! framelet's note on the file beside it, version 1
//! committed 00000000000000012345
//! format lines
//! synced yes
//! boot 0f6e3b1c-8a44-4b1e-9d35-2a1f6c5d7e80
//! file 1835021 1767323045.678000000
//! state ended
//! sender 000102030405060708090a0b0c0d0e0f 1000 9ae16a3b2f90404f
//! end
//! ```
//!
//! It proves that framelet wrote the file. In many formats, neither that nor what a crash left at the end
//! can be told from the bytes alone.
//!
//! For frames, `format` also has the layout, unless that is `u32be`: `format frames h1:u32be`.
//!
//! The note is replaced as a whole when the file is opened and closed. In between, only the number after
//! `committed` is overwritten, about once a second, and always after the messages themselves are synced: so
//! it is never ahead of them. The senders, each with its count and the checksum of its last message, are
//! present only after a clean end, and valid only while the file has exactly that length.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::file_sync::FileSync;
use super::sync::Syncs;
use crate::format::names::OutputFormat;
use crate::sink::sender_counts::{MOST, SenderCounts};
use crate::wire::layout::Layout;
use crate::wire::sender_id::SenderId;

/// The first line of every note.
pub(super) const MAGIC: &str = "framelet's note on the file beside it, version 1\n";

/// Precedes the number that is overwritten.
const COMMITTED: &str = "committed ";

/// How often the number is overwritten, unless it matters.
const SELDOM: Duration = Duration::from_secs(1);

/// The longest possible note: a line for each sender, and a few others.
const LONGEST: u64 = 80 * (MOST as u64 + 20);

/// The contents of a note.
#[derive(Debug)]
pub(super) struct Note {
    /// How many bytes of the file are whole messages.
    pub(super) committed: u64,
    pub(super) format: OutputFormat,
    /// Whether they survive a crash of the machine.
    synced: bool,
    /// The id of the machine's current boot.
    boot: Option<String>,
    /// The identity of the file.
    identity: String,
    /// The counts of the senders, after a clean end.
    pub(super) senders: Option<SenderCounts>,
}

impl Note {
    /// Returns the note for an open file with this many bytes of whole messages.
    pub(super) fn new(
        committed: u64,
        format: OutputFormat,
        sync: FileSync,
        metadata: &Metadata,
    ) -> Note {
        let synced = sync == FileSync::Always;
        Note {
            committed,
            format,
            synced,
            boot: boot(),
            identity: identity(metadata),
            senders: None,
        }
    }

    /// Reads the note on the file at `path`, if it is complete and describes the file as it is.
    pub(super) fn read(path: &Path, metadata: &Metadata) -> Option<Note> {
        let mut text = String::new();
        File::open(beside(path, ".framelet")).ok()?.take(LONGEST).read_to_string(&mut text).ok()?;
        let note = Note::parse(&text)?;
        let has_len = note.committed == metadata.len();
        let is_about_it = match note.senders {
            // After a clean end a copy of the file is fine, but one that has grown was written by another
            // program.
            Some(_) if has_len || note.synced => has_len,
            _ => note.identity == identity(metadata),
        };
        is_about_it.then_some(note)
    }

    fn parse(text: &str) -> Option<Note> {
        let mut lines = text.strip_prefix(MAGIC)?.strip_suffix("end\n")?.lines();
        let mut field = |name| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let committed = field("committed")?.parse().ok()?;
        let format = parse_format(field("format")?)?;
        let synced = field("synced")? == "yes";
        let boot = Some(field("boot")?.to_owned()).filter(|boot| !boot.is_empty());
        let identity = field("file")?.to_owned();
        let senders = match field("state")? {
            "ended" => Some(lines.map(parse_sender).collect::<Option<Vec<_>>>()?),
            _ => None,
        };
        let senders = senders.map(|senders| senders.into_iter().collect());
        Some(Note { committed, format, synced, boot, identity, senders })
    }

    fn to_text(&self, senders: Option<&SenderCounts>) -> String {
        use std::fmt::Write;

        let Note { committed, format, identity, .. } = self;
        let synced = if self.synced { "yes" } else { "no" };
        let boot = self.boot.as_deref().unwrap_or_default();
        let layout = match format {
            OutputFormat::Frames(layout) if *layout != Layout::U32BE => format!(" {layout}"),
            _ => String::new(),
        };
        let state = if senders.is_some() { "ended" } else { "open" };
        let mut text = format!(
            "{MAGIC}{COMMITTED}{committed:020}\nformat {format}{layout}\nsynced {synced}\nboot {boot}\n\
             file {identity}\nstate {state}\n"
        );
        for (sender, committed, checksum) in senders.map(SenderCounts::by_age).unwrap_or_default() {
            let checksum = checksum.map(|checksum| format!(" {checksum:016x}")).unwrap_or_default();
            // Cannot fail: a String takes everything.
            let _ = writeln!(text, "sender {sender} {committed}{checksum}");
        }
        text + "end\n"
    }

    /// Returns the offset before which nothing can be torn, whatever has happened since.
    pub(super) fn floor(&self) -> u64 {
        // Data that was not synced survives a crash of the program only.
        let is_safe = self.synced || self.boot.is_some() && self.boot == boot();
        if is_safe { self.committed } else { 0 }
    }
}

/// The note of an open file.
#[derive(Debug)]
pub(super) struct OpenNote {
    path: PathBuf,
    file: File,
    note: Note,
    /// When the number was last overwritten.
    written: Option<Instant>,
}

impl OpenNote {
    /// Writes the note on the file at `path`, replacing any other.
    pub(super) fn write(path: &Path, note: Note, mode: u32, syncs: Syncs) -> io::Result<OpenNote> {
        let file = write(path, note.to_text(None).as_bytes(), mode, note.synced.then_some(syncs))?;
        Ok(OpenNote { path: path.into(), file, note, written: None })
    }

    /// Records that this many bytes of the file are whole messages.
    pub(super) fn set_committed(&mut self, committed: u64) -> io::Result<()> {
        self.note.committed = committed;
        self.written = Some(Instant::now());
        let offset = (MAGIC.len() + COMMITTED.len()) as u64;
        self.file.write_all_at(format!("{committed:020}").as_bytes(), offset)
    }

    /// Does the same, but rarely: writing a second file makes the next sync of the messages two to three
    /// times as slow.
    pub(super) fn set_committed_seldom(&mut self, committed: u64) -> io::Result<()> {
        // If somebody has emptied the file, the note is ahead of it.
        let is_ahead = committed < std::mem::replace(&mut self.note.committed, committed);
        match !is_ahead && self.written.is_some_and(|written| written.elapsed() < SELDOM) {
            true => Ok(()),
            false => self.set_committed(committed),
        }
    }

    pub(super) fn sync(&self, syncs: Syncs) -> io::Result<()> {
        (syncs.data)(&self.file)
    }

    /// Records a clean end, and the counts of the senders.
    pub(super) fn end(self, senders: &SenderCounts, syncs: Syncs) -> io::Result<()> {
        let (text, mode) = (self.note.to_text(Some(senders)), self.file.metadata()?.mode());
        let syncs = self.note.synced.then_some(syncs);
        write(&self.path, text.as_bytes(), mode, syncs)?;
        syncs.map_or(Ok(()), |syncs| syncs.name_of(&self.path))
    }
}

/// Writes a note atomically: either the old one exists or the new one. Its directory entry is not synced
/// yet.
fn write(path: &Path, text: &[u8], mode: u32, syncs: Option<Syncs>) -> io::Result<File> {
    let (note, new) = (beside(path, ".framelet"), beside(path, ".framelet.new"));
    // Left by a crash.
    let _ = fs::remove_file(&new);
    let written = || {
        // Must be newly created: another program that knows the name could have put a link there.
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(mode & 0o666).open(&new)?;
        file.write_all(text)?;
        syncs.map_or(Ok(()), |syncs| (syncs.data)(&file))?;
        fs::rename(&new, note)?;
        Ok(file)
    };
    written().inspect_err(|_| drop(fs::remove_file(&new)))
}

/// Returns the path of a file that belongs to the one at `path`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The identity of a file on its file system. Inode numbers are reused, so the creation time is included if
/// the file system has it. The device number is not: it may change when the machine restarts.
fn identity(metadata: &Metadata) -> String {
    let created = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    match created {
        Some(created) => {
            format!("{} {}.{:09}", metadata.ino(), created.as_secs(), created.subsec_nanos())
        }
        None => metadata.ino().to_string(),
    }
}

fn boot() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

fn parse_format(text: &str) -> Option<OutputFormat> {
    match text.split_once(' ') {
        Some(("frames", layout)) => Some(OutputFormat::Frames(layout.parse().ok()?)),
        _ => text.parse().ok(),
    }
}

fn parse_sender(line: &str) -> Option<(SenderId, u64, Option<u64>)> {
    let (sender, committed) = line.strip_prefix("sender ")?.split_once(' ')?;
    // Older notes have no checksum.
    let (committed, checksum) = match committed.split_once(' ') {
        Some((committed, sum)) => (committed, Some(u64::from_str_radix(sum, 16).ok()?)),
        None => (committed, None),
    };
    Some((sender.parse().ok()?, committed.parse().ok()?, checksum))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a file, and the note on it.
    fn file_with_note(sync: FileSync) -> (tempfile::TempDir, PathBuf, Metadata, OpenNote) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("messages");
        fs::write(&path, "one\ntwo\n").unwrap();
        let metadata = fs::metadata(&path).unwrap();
        let note = Note::new(4, OutputFormat::Lines, sync, &metadata);
        let open = OpenNote::write(&path, note, 0o600, Syncs::SYSTEM).unwrap();
        (directory, path, metadata, open)
    }

    #[test]
    fn what_was_noted_is_read_again() {
        let (_directory, path, metadata, mut open) = file_with_note(FileSync::Always);
        let note = Note::read(&path, &metadata).unwrap();
        assert_eq!((note.floor(), note.format), (4, OutputFormat::Lines));
        assert!(note.senders.is_none());
        assert_eq!(fs::metadata(beside(&path, ".framelet")).unwrap().mode() & 0o777, 0o600);
        open.set_committed(8).unwrap();
        assert_eq!(Note::read(&path, &metadata).unwrap().floor(), 8);
        let sender = SenderId::from_bytes([1; 16]);
        let of_before = SenderId::from_bytes([2; 16]);
        let senders = [(sender, 7, Some(0xfe)), (of_before, 8, None)];
        open.end(&senders.into_iter().collect(), Syncs::SYSTEM).unwrap();
        let note = Note::read(&path, &metadata).unwrap();
        assert_eq!((note.floor(), note.senders.unwrap().by_age()), (8, senders.to_vec()));
        assert_eq!(fs::metadata(beside(&path, ".framelet")).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_note_is_written_over_seldom_but_is_never_ahead() {
        let (_directory, path, metadata, mut open) = file_with_note(FileSync::Always);
        let noted = || Note::read(&path, &metadata).unwrap().committed;
        let started = Instant::now();
        open.set_committed_seldom(8).unwrap();
        assert_eq!(noted(), 8);
        open.set_committed_seldom(12).unwrap();
        assert!(noted() == 8 || started.elapsed() >= SELDOM);
        open.set_committed_seldom(4).unwrap();
        assert_eq!(noted(), 4);
        open.set_committed(5).unwrap();
        assert_eq!(noted(), 5);
    }

    #[test]
    fn a_note_that_is_torn_or_not_one_counts_for_nothing() {
        let (_directory, path, metadata, open) = file_with_note(FileSync::Always);
        open.end(&SenderCounts::default(), Syncs::SYSTEM).unwrap();
        let note = beside(&path, ".framelet");
        let whole = fs::read(&note).unwrap();
        for len in 0..whole.len() {
            fs::write(&note, &whole[..len]).unwrap();
            assert!(Note::read(&path, &metadata).is_none(), "the first {len} bytes");
            // As a power failure leaves it.
            fs::write(&note, [&whole[..len], &vec![0; whole.len() - len]].concat()).unwrap();
            assert!(Note::read(&path, &metadata).is_none(), "zeros from {len} on");
        }
        fs::write(&note, "shopping list\n").unwrap();
        assert!(Note::read(&path, &metadata).is_none());
    }

    #[test]
    fn a_note_is_about_one_file() {
        let (directory, path, metadata, open) = file_with_note(FileSync::Always);
        let copy = directory.path().join("copy");
        fs::copy(&path, &copy).unwrap();
        fs::copy(beside(&path, ".framelet"), beside(&copy, ".framelet")).unwrap();
        let copied = fs::metadata(&copy).unwrap();
        assert!(Note::read(&path, &metadata).is_some());
        assert!(Note::read(&copy, &copied).is_none());
        // Unless that was closed cleanly, and has that length.
        let mut open = open;
        open.set_committed(8).unwrap();
        open.end(&SenderCounts::default(), Syncs::SYSTEM).unwrap();
        fs::copy(beside(&path, ".framelet"), beside(&copy, ".framelet")).unwrap();
        assert!(Note::read(&copy, &copied).is_some());
        fs::write(&copy, "one\ntwo\nthree\n").unwrap();
        assert!(Note::read(&copy, &fs::metadata(&copy).unwrap()).is_none());
    }

    #[test]
    fn the_longest_note_is_read() {
        let (_directory, path, metadata, mut open) = file_with_note(FileSync::Always);
        open.set_committed(8).unwrap();
        let sender = |n: usize| SenderId::from_bytes((n as u128).to_be_bytes());
        let all = (0..MOST).map(|n| (sender(n), u64::MAX, Some(u64::MAX)));
        open.end(&all.collect(), Syncs::SYSTEM).unwrap();
        let note = Note::read(&path, &metadata).unwrap();
        assert_eq!(note.senders.unwrap().by_age().len(), MOST);
    }

    /// What a failure of the machine left of it, or put there.
    #[test]
    fn a_file_that_was_not_synced_may_have_another_length_than_at_its_clean_end() {
        for (sync, is_about_it) in [(FileSync::Never, true), (FileSync::Always, false)] {
            let (_directory, path, metadata, mut open) = file_with_note(sync);
            open.set_committed(8).unwrap();
            open.end(&SenderCounts::default(), Syncs::SYSTEM).unwrap();
            assert!(Note::read(&path, &metadata).is_some());
            for len in [6, 12] {
                let file = OpenOptions::new().write(true).open(&path).unwrap();
                file.set_len(len).unwrap();
                let note = Note::read(&path, &file.metadata().unwrap());
                assert_eq!(note.is_some(), is_about_it, "{sync:?}, {len} bytes");
            }
        }
    }

    #[test]
    fn what_was_not_synced_is_safe_until_the_machine_is_started_anew() {
        let (_directory, path, metadata, _) = file_with_note(FileSync::Never);
        let note = Note::read(&path, &metadata).unwrap();
        #[cfg(target_os = "linux")]
        assert_eq!(boot().unwrap().len(), "0f6e3b1c-8a44-4b1e-9d35-2a1f6c5d7e80".len());
        // Without an id there is nothing to compare.
        assert_eq!(note.floor(), if boot().is_some() { 4 } else { 0 });
        let earlier = Note { boot: Some("another".into()), ..note };
        assert_eq!(earlier.floor(), 0);
        assert_eq!(Note { boot: None, ..earlier }.floor(), 0);
    }
}
