//! A sink that appends messages to a file.

use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use log::{error, info, warn};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::{Batch, OutputSink, Sink, SinkError};
use crate::error::Plain;
use crate::escape::Escaped;
use crate::format::OutputFormat;
use crate::layout::MAX_PAYLOAD;

/// The permissions of a new file, less the umask: messages are not everybody's business.
const MODE: u32 = 0o640;

/// How much is read at once in search of the end of the last record.
const CHUNK: usize = 64 * 1024;

/// How a SQLite database begins. A slip of one word must not cost it its end.
const SQLITE: [u8; 16] = *b"SQLite format 3\0";

/// How much of what is cut off is shown.
const SHOWN: usize = 60;

/// When a file's messages are made safe from a failure of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FileSync {
    /// At each commit, by `fdatasync`.
    #[default]
    Always,
    /// When the system finds the time. A commit is safe from the end of the program, not from that of
    /// the machine.
    Never,
}

/// A text that is neither `always` nor `never`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseFileSyncError;

impl FromStr for FileSync {
    type Err = ParseFileSyncError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "always" => Ok(FileSync::Always),
            "never" => Ok(FileSync::Never),
            _ => Err(ParseFileSyncError),
        }
    }
}

impl fmt::Display for ParseFileSyncError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("write always or never")
    }
}

impl std::error::Error for ParseFileSyncError {}

/// Appends messages to a file in one of the formats.
///
/// The file ends with a whole record at all times but during a commit. A commit that fails is taken
/// back. What was left of one by the end of the program or of the machine is cut off when the file is
/// opened next, and that is logged; in the formats `text` and `raw` it cannot be recognised and stays.
/// A file of `frames` is read from its beginning for that, one of another format from its end.
///
/// Only one program at a time can have a file open this way. Devices and pipes are written to like
/// standard output.
#[derive(Debug)]
pub struct FileSink {
    path: PathBuf,
    format: OutputFormat,
    sync: FileSync,
    open: Opened,
}

/// An open file, and another handle to it if it is a regular one.
#[derive(Debug)]
struct Opened {
    output: OutputSink,
    regular: Option<File>,
}

impl FileSink {
    /// Opens the file at `path`, or creates it.
    ///
    /// # Errors
    ///
    /// The system's, with the path; or that the file is in use, or is not in the format; or that the format
    /// is [`OutputFormat::None`].
    pub fn open(
        path: impl Into<PathBuf>,
        format: OutputFormat,
        sync: FileSync,
    ) -> io::Result<FileSink> {
        let path = path.into();
        if format == OutputFormat::None {
            return Err(io::Error::other(format!(
                "cannot write to {}: in the format none, nothing would be written",
                path.display()
            )));
        }
        let open = Opened::at(&path, format, sync, None)?;
        Ok(FileSink { path, format, sync, open })
    }
}

impl Sink for FileSink {
    fn commit(&mut self, batches: &[Batch]) -> Result<(), SinkError> {
        let Opened { output, regular } = &mut self.open;
        let Some(file) = regular else {
            let written = output.write_batches(batches);
            return Ok(written.map_err(|error| cannot_write(&self.path, &error, ""))?);
        };
        // Asked for each time: somebody may have emptied the file.
        let before = file.metadata().map_err(|error| cannot_write(&self.path, &error, ""))?.len();
        let written = output.write_batches(batches).and_then(|()| match self.sync {
            FileSync::Always => file.sync_data(),
            FileSync::Never => Ok(()),
        });
        Ok(written.map_err(|error| {
            let taken_back = match file.set_len(before) {
                Ok(()) => "the file was cut back to its last whole message".to_owned(),
                Err(error) => {
                    format!(
                        "it may end with a part of a message, since it cannot be cut back: {}",
                        Plain(&error)
                    )
                }
            };
            cannot_write(&self.path, &error, &taken_back)
        })?)
    }

    /// Goes on in the file that now has the path, or creates it. If that cannot be done, it stays with
    /// the old one, and says so in the log.
    fn reopen(&mut self) -> Result<(), SinkError> {
        match Opened::at(&self.path, self.format, self.sync, self.open.regular.as_ref()) {
            Ok(open) => {
                self.open = open;
                info!("opened {} again", self.path.display());
            }
            Err(error) => error!("{}; going on in the file that was open before", Plain(&error)),
        }
        Ok(())
    }
}

impl Opened {
    /// `open` is the file that is open already, which the path may still lead to.
    fn at(
        path: &Path,
        format: OutputFormat,
        sync: FileSync,
        open: Option<&File>,
    ) -> io::Result<Opened> {
        let what = |error: io::Error| {
            io::Error::other(format!("cannot open {}: {}", path.display(), Plain(&error)))
        };
        let special = path.metadata().is_ok_and(|metadata| !is_regular(&metadata));
        let mut options = OpenOptions::new();
        // A pipe that is opened for reading, too, would never tell that its reader is gone.
        options.append(true).create(true).read(!special).mode(MODE);
        let file = options.open(path).map_err(what)?;
        let metadata = file.metadata().map_err(what)?;
        if !is_regular(&metadata) {
            return Ok(Opened { output: OutputSink::new(file, format), regular: None });
        }
        if let Some(open) = open
            && is_same(&open.metadata().map_err(what)?, &metadata)
        {
            // The lock is that of the file that is open already, so that is gone on in.
            let (one, other) = (open.try_clone().map_err(what)?, open.try_clone().map_err(what)?);
            return Ok(Opened { output: OutputSink::new(one, format), regular: Some(other) });
        }
        // Some file systems have no locks; that is no error.
        if let Err(Errno::WOULDBLOCK) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            let error = "another framelet writes to it; give each one a file of its own";
            return Err(what(io::Error::other(error)));
        }
        cut_torn(&file, format, path).map_err(what)?;
        if sync == FileSync::Always
            && let Err(error) = sync_directory(path)
        {
            warn!("cannot make the name of {} safe: {}", path.display(), Plain(&error));
        }
        let regular = file.try_clone().map_err(what)?;
        Ok(Opened { output: OutputSink::new(file, format), regular: Some(regular) })
    }
}

fn is_regular(metadata: &Metadata) -> bool {
    // A directory fails by itself, and in words.
    metadata.is_file()
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// A new file is only safe once its name is.
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match File::open(directory)?.sync_all() {
        // Not every file system can.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    }
}

/// The failure of a commit. Its kind is none that says something about standard output.
fn cannot_write(path: &Path, error: &io::Error, more: &str) -> io::Error {
    let hint = match error.kind() {
        io::ErrorKind::StorageFull => "; make room there, and start again",
        io::ErrorKind::QuotaExceeded => "; make room or raise the quota, and start again",
        io::ErrorKind::FileTooLarge => "; move the file away, and start again",
        _ => "",
    };
    let more = if more.is_empty() { String::new() } else { format!("; {more}") };
    io::Error::other(format!("cannot write to {}: {}{more}{hint}", path.display(), Plain(error)))
}

/// Cuts off what is behind the last whole record.
fn cut_torn(file: &File, format: OutputFormat, path: &Path) -> io::Result<()> {
    let len = file.metadata()?.len();
    let mut magic = [0; SQLITE.len()];
    if file.read_at(&mut magic, 0)? == magic.len() && magic == SQLITE {
        return Err(io::Error::other(
            "it is a SQLite database; write sqlite: in front of the path, or give another file",
        ));
    }
    let end = match format {
        OutputFormat::Lines | OutputFormat::Hex | OutputFormat::Base64 | OutputFormat::Json => {
            end_of_last(b'\n', file, len)?
        }
        OutputFormat::Nul => end_of_last(0, file, len)?,
        OutputFormat::Frames => end_of_frames(file, len)?,
        OutputFormat::Text | OutputFormat::Raw | OutputFormat::None => return Ok(()),
    };
    if end == len {
        return Ok(());
    }
    let mut torn = [0; SHOWN];
    let shown = file.read_at(&mut torn, end)?;
    let torn = &torn[..shown];
    if !could_be(format, torn) {
        return Err(io::Error::other(format!(
            "it is not a file of {format}: its last {} bytes begin with \"{}\"; give another file, or \
             the --output that it has",
            len - end,
            Escaped(torn)
        )));
    }
    file.set_len(end)?;
    warn!(
        "cut {} bytes off the end of {}: part of a message that was not committed, beginning with \"{}\"",
        len - end,
        path.display(),
        Escaped(torn)
    );
    Ok(())
}

/// Returns whether a record in the format can begin with these bytes.
fn could_be(format: OutputFormat, torn: &[u8]) -> bool {
    match format {
        OutputFormat::Hex => torn.iter().all(u8::is_ascii_hexdigit),
        OutputFormat::Base64 => {
            torn.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(byte))
        }
        OutputFormat::Json => torn.starts_with(b"{"),
        // Four letters would be the length of a message of half a gigabyte or more.
        OutputFormat::Frames => !torn.first_chunk::<4>().is_some_and(|prefix| {
            prefix.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace())
        }),
        _ => true,
    }
}

/// Returns the offset behind the last `terminator`.
fn end_of_last(terminator: u8, file: &File, len: u64) -> io::Result<u64> {
    let mut chunk = vec![0; CHUNK];
    let mut to = len;
    while to > 0 {
        let from = to.saturating_sub(CHUNK as u64);
        // Cannot fail: no chunk is longer than CHUNK.
        let part = &mut chunk[..usize::try_from(to - from).unwrap_or(CHUNK)];
        file.read_exact_at(part, from)?;
        if let Some(last) = memchr::memrchr(terminator, part) {
            return Ok(from + last as u64 + 1);
        }
        to = from;
    }
    Ok(0)
}

/// Returns the offset behind the last whole frame.
fn end_of_frames(file: &File, len: u64) -> io::Result<u64> {
    let mut reader = BufReader::with_capacity(CHUNK, file);
    reader.seek(SeekFrom::Start(0))?;
    let (mut end, mut prefix) = (0, [0; 4]);
    while len - end >= 4 {
        reader.read_exact(&mut prefix)?;
        let payload = u32::from_be_bytes(prefix);
        if u64::from(payload) > MAX_PAYLOAD as u64 {
            return Err(io::Error::other(format!(
                "it is not a file of frames: at byte {end} there would be one of {payload} bytes; give \
                 another file, or the --output that it has"
            )));
        }
        let next = end + 4 + u64::from(payload);
        if next > len {
            break;
        }
        reader.seek_relative(i64::from(payload))?;
        end = next;
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::sink::tests::{batch, origin};

    fn opened(format: &str, content: &[u8]) -> Result<Vec<u8>, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("messages");
        fs::write(&path, content).unwrap();
        let opened = FileSink::open(&path, format.parse().unwrap(), FileSync::Always);
        let left = fs::read(&path).unwrap();
        opened.map(|_| left).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_torn_is_cut_off_in_each_format_that_shows_it() {
        let long = [vec![b'x'; 3 * CHUNK], b"\n".to_vec(), vec![b'y'; 2 * CHUNK]].concat();
        for (format, whole, torn) in [
            ("lines", &b"one\ntwo\n"[..], &b"thr"[..]),
            ("lines", b"", b"thr"),
            ("lines", &long[..=3 * CHUNK], &long[3 * CHUNK + 1..]),
            ("hex", b"00ff\n", b"0"),
            ("base64", b"AAAA\n", b"AA"),
            ("json", b"{}\n", b"{\"tim"),
            ("nul", b"one\0", b"two\n"),
            ("frames", b"\0\0\0\x03one\0\0\0\0", b"\0\0\0\x03tw"),
            ("frames", b"\0\0\0\x03one", b"\0\0\0"),
            ("frames", b"", b"\0\0\0\x01"),
            ("text", b"one\n\ntwo", b""),
            ("raw", b"one", b""),
        ] {
            assert_eq!(opened(format, &[whole, torn].concat()).unwrap(), whole, "{format}");
            assert_eq!(opened(format, whole).unwrap(), whole, "{format}");
        }
    }

    #[test]
    fn a_file_that_is_something_else_is_left_alone() {
        for (format, content) in [
            ("frames", "GET / HTTP/1.1"),
            ("json", "a note"),
            ("hex", "a note"),
            ("base64", "a note"),
        ] {
            let error = opened(format, content.as_bytes()).unwrap_err();
            assert!(error.contains(&format!("it is not a file of {format}")), "{error}");
        }
        for format in ["lines", "nul", "frames", "raw"] {
            let error = opened(format, b"SQLite format 3\0 and so on").unwrap_err();
            assert!(error.contains("it is a SQLite database; write sqlite: in front"), "{error}");
        }
    }

    #[test]
    fn a_file_has_one_writer_at_a_time_and_reopening_keeps_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("messages");
        let open = || FileSink::open(&path, OutputFormat::Lines, FileSync::Never);
        let mut sink = open().unwrap();
        for _ in 0..2 {
            assert!(open().unwrap_err().to_string().contains("another framelet writes to it"));
            sink.reopen().unwrap();
        }
        sink.commit(&[batch(&origin(None), &[b"a"])]).unwrap();
        drop(sink);
        open().unwrap().commit(&[batch(&origin(None), &[b"b"])]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"a\nb\n");
    }

    #[test]
    fn a_file_that_was_emptied_is_not_filled_up_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("messages");
        let mut sink = FileSink::open(&path, OutputFormat::Lines, FileSync::Never).unwrap();
        sink.commit(&[batch(&origin(None), &[b"a"])]).unwrap();
        File::create(&path).unwrap();
        sink.commit(&[batch(&origin(None), &[b"b"])]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"b\n");
    }
}
