//! A sink that writes messages to a file, a pipe or a terminal in one of the formats.

use std::io::{self, IoSlice, Write};

use rustix::io::Errno;

use super::message_sink::{MessageSink, SinkError};
use crate::format::names::OutputFormat;
use crate::format::standard_streams::BlockingFile;
use crate::message::Batch;
use crate::wire::io_error::Plain;

/// How many bytes are copied together before a write.
const WRITE: usize = 128 * 1024;

/// Payloads of this length and more are written directly instead of being copied first.
const LARGE: usize = 32 * 1024;

/// How many bytes of such payloads are written together. A file that is written in larger pieces is synced
/// faster.
const WRITE_LARGE: usize = 1024 * 1024;

/// How much of the buffer is kept between commits.
const KEPT: usize = 2 * WRITE;

/// Writes messages to a file, one after the other, never interleaved.
///
/// The messages of a commit are combined into few writes, and nothing is held back after it: the reader of
/// a pipe sees each message at once unless more are waiting. On a terminal, control characters are escaped.
/// In [`OutputFormat::None`], messages are dropped and count as committed.
///
/// A full disk is a [`SinkError::Transient`] for a regular file. The next commit resumes where this one
/// stopped, so it must be called with the same batches, as a server does.
///
/// # Examples
///
/// ```
/// use framelet::format::OutputFormat;
/// use framelet::sink::{MessageSink, OutputSink};
/// use framelet::Batch;
///
/// let mut sink = OutputSink::stdout(OutputFormat::Hex)?;
/// sink.commit(&[Batch::from_iter(["hi"])])?; // writes the line 6869
///
/// let (mut reader, writer) = std::io::pipe()?;
/// let pipe = std::fs::File::from(std::os::fd::OwnedFd::from(writer));
/// OutputSink::new(pipe, OutputFormat::Hex).commit(&[Batch::from_iter(["hi"])])?;
/// assert_eq!(std::io::read_to_string(&mut reader)?, "6869\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct OutputSink {
    file: BlockingFile,
    format: OutputFormat,
    escaped: bool,
    buffer: Vec<u8>,
    /// The progress of a failed commit that is to be repeated.
    progress: Progress,
}

/// How much of a commit is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    /// This many whole messages.
    messages: usize,
    /// This many bytes after them.
    bytes: usize,
}

impl OutputSink {
    /// Returns a sink that writes to `file`.
    pub fn new(file: impl Into<BlockingFile>, format: OutputFormat) -> OutputSink {
        let file = file.into();
        let escaped = file.is_terminal();
        OutputSink { file, format, escaped, buffer: Vec::new(), progress: Progress::default() }
    }

    /// Returns a sink that writes to standard output, bypassing the buffer of [`std::io::stdout`].
    ///
    /// # Errors
    ///
    /// Any error of the system call, such as "too many open files".
    pub fn stdout(format: OutputFormat) -> io::Result<OutputSink> {
        Ok(OutputSink::new(BlockingFile::stdout()?, format))
    }
}

/// What is written next: a buffer, and payloads, each with the index in the buffer at which it goes.
struct Unwritten<'a, 'm> {
    payloads: Vec<(usize, &'m [u8])>,
    /// How many bytes after the finished messages were part of earlier writes.
    passed: usize,
    progress: &'a mut Progress,
}

impl Unwritten<'_, '_> {
    /// Writes everything except the bytes that are already written, and empties the buffer.
    fn write(&mut self, file: &mut impl Write, buffer: &mut Vec<u8>) -> io::Result<()> {
        let mut slices = Vec::with_capacity(2 * self.payloads.len() + 1);
        let mut from = 0;
        for (until, payload) in self.payloads.drain(..) {
            slices.extend([&buffer[from..until], payload].map(IoSlice::new));
            from = until;
        }
        slices.push(IoSlice::new(&buffer[from..]));
        let all: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut written = self.progress.bytes - self.passed;
        let result = write_rest(file, &mut slices, &mut written);
        self.progress.bytes = self.passed + written;
        self.passed += all;
        buffer.clear();
        buffer.shrink_to(KEPT);
        result
    }

    /// Records that this many messages are written.
    fn done(&mut self, messages: usize) {
        self.passed = 0;
        *self.progress = Progress { messages, bytes: 0 };
    }
}

/// Writes everything after the first `written` bytes, with as few system calls as possible, and adds to
/// `written`.
fn write_rest(
    file: &mut impl Write,
    mut slices: &mut [IoSlice<'_>],
    written: &mut usize,
) -> io::Result<()> {
    let all: usize = slices.iter().map(|slice| slice.len()).sum();
    // Skip empty parts at the start: otherwise a result of 0 would look like a file that takes nothing.
    IoSlice::advance_slices(&mut slices, all.min(*written));
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(more) => {
                *written += more;
                IoSlice::advance_slices(&mut slices, more);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl MessageSink for OutputSink {
    fn commit(&mut self, batches: &[Batch]) -> Result<(), SinkError> {
        self.write_on(batches).map_err(|error| {
            // A full device stays full, and a broken pipe stays broken.
            if may_pass(&error) && self.file.is_regular() {
                let words =
                    format!("{} where the output goes{}", Plain(&error), what_to_do(&error));
                SinkError::Transient(io::Error::new(error.kind(), words))
            } else {
                SinkError::Fatal(error)
            }
        })
    }
}

/// Returns whether writing may succeed later: a full disk can be cleared, and a remote one can come back.
pub(super) fn may_pass(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, OutOfMemory, QuotaExceeded, StorageFull, TimedOut};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge | OutOfMemory | TimedOut)
        || error.raw_os_error() == Some(Errno::IO.raw_os_error())
}

/// Returns advice to append to the error.
pub(super) fn what_to_do(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => "; make room there",
        io::ErrorKind::QuotaExceeded => "; make room or raise the quota",
        io::ErrorKind::FileTooLarge => "; raise the limit, or move the file away",
        _ => "",
    }
}

impl OutputSink {
    /// Writes the messages of all batches, or as many as the file takes before it fails.
    pub(super) fn write_batches(&mut self, batches: &[Batch]) -> io::Result<()> {
        self.progress = Progress::default();
        self.write_on(batches)
    }

    fn write_on(&mut self, batches: &[Batch]) -> io::Result<()> {
        let OutputSink { file, format, escaped, buffer, progress } = self;
        write_messages(file, batches, (*format, *escaped), buffer, progress)
    }
}

/// Writes the rest of all batches, in the given format, escaped if asked.
fn write_messages(
    file: &mut impl Write,
    batches: &[Batch],
    (format, escaped): (OutputFormat, bool),
    buffer: &mut Vec<u8>,
    progress: &mut Progress,
) -> io::Result<()> {
    let done = progress.messages;
    let mut messages = done;
    let mut unwritten = Unwritten { payloads: Vec::new(), passed: 0, progress };
    let mut bytes = 0;
    // Left over from a failed commit.
    buffer.clear();
    let mut rest = batches.iter().flat_map(Batch::messages).skip(done);
    // Not a `for`, in which each of these iterators would copy the message.
    rest.try_for_each(|message| {
        messages += 1;
        let unfit = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        format.check(&message).map_err(unfit)?;
        let large = !escaped && message.payload.len() >= LARGE;
        match large.then(|| format.around(&message)).flatten() {
            Some((before, after)) => {
                buffer.extend_from_slice(&before);
                unwritten.payloads.push((buffer.len(), message.payload));
                bytes += message.payload.len();
                buffer.extend_from_slice(&after);
            }
            None => format.append(&message, escaped, buffer, &mut |buffer| {
                if buffer.len() >= WRITE { unwritten.write(file, buffer) } else { Ok(()) }
            })?,
        }
        if buffer.len() >= WRITE || bytes >= WRITE_LARGE {
            unwritten.write(file, buffer)?;
            unwritten.done(messages);
            bytes = 0;
        }
        io::Result::Ok(())
    })?;
    unwritten.write(file, buffer)?;
    unwritten.done(0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::message::tests::{batch, origin};

    #[test]
    fn long_payloads_stand_among_short_ones_as_if_they_were_copied() {
        let lengths = [3, LARGE, 0, LARGE + 1, LARGE - 1, 5, 700_000, 400_000, 90_000, WRITE, 1];
        let batches: Vec<Batch> = (b'a'..)
            .zip(lengths)
            .map(|(letter, len)| batch(&origin(None), &[&vec![letter; len]]))
            .collect();
        for format in ["text", "lines", "nul", "hex", "base64", "json", "frames", "raw", "none"] {
            let format: OutputFormat = format.parse().unwrap();
            let mut expected = Vec::new();
            for message in batches.iter().flat_map(Batch::messages) {
                let mut make_room = |_: &mut Vec<u8>| io::Result::Ok(());
                format.append(&message, false, &mut expected, &mut make_room).unwrap();
            }
            // A pipe that does not wait takes less at once than there is.
            let (mut reader, writer) = io::pipe().unwrap();
            rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).unwrap();
            let mut sink = OutputSink::new(File::from(OwnedFd::from(writer)), format);
            let reading = std::thread::spawn(move || {
                let mut read = Vec::new();
                reader.read_to_end(&mut read).map(|_| read)
            });
            sink.commit(&batches).unwrap();
            drop(sink);
            assert!(reading.join().unwrap().unwrap() == expected, "{format}");
        }
    }

    /// Takes so many bytes in all.
    struct Room(usize, Vec<u8>);

    impl Write for Room {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            let fits = buf.len().min(self.0);
            if fits == 0 && !buf.is_empty() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0 -= fits;
            self.1.extend_from_slice(&buf[..fits]);
            Ok(fits)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_did_not_fit_is_all_that_is_written_later() {
        let (mut written, mut file) = (0, Room(0, Vec::new()));
        for room in [0, 1, 2, 1, 0, 9] {
            file.0 = room;
            let mut slices = [&b"ab"[..], b"", b"cd", b"e"].map(IoSlice::new);
            let all = write_rest(&mut file, &mut slices, &mut written);
            assert_eq!(all.is_ok(), room == 9);
        }
        assert_eq!((written, &file.1[..]), (5, &b"abcde"[..]));
    }

    /// Takes everything, but is interrupted before each write.
    #[derive(Debug, Default)]
    struct Calls {
        interrupted: bool,
        writes: usize,
        slices: usize,
        longest: usize,
    }

    impl Write for Calls {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.write_vectored(&[IoSlice::new(buf)])
        }

        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            self.interrupted = !self.interrupted;
            if self.interrupted {
                return Err(io::ErrorKind::Interrupted.into());
            }
            self.writes += 1;
            self.slices += slices.len();
            let len = slices.iter().map(|slice| slice.len()).sum();
            self.longest = self.longest.max(len);
            Ok(len)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn messages_are_written_together_and_only_long_ones_from_where_they_lie() {
        for (count, len, writes, slices) in [
            (1000, 100, 1, 1),
            (3, 32 * 1024 - 1, 1, 1),
            // The line feed after each payload is in the buffer.
            (3, 32 * 1024, 1, 6),
            (16, 64 * 1024, 1, 32),
            (17, 64 * 1024, 2, 32 + 2),
        ] {
            let payload = vec![b'x'; len];
            let batches = vec![batch(&origin(None), &[&payload]); count];
            let (mut calls, mut progress) = (Calls::default(), Progress::default());
            let how = (OutputFormat::Lines, false);
            write_messages(&mut calls, &batches, how, &mut Vec::new(), &mut progress).unwrap();
            assert_eq!((calls.writes, calls.slices), (writes, slices), "{count} of {len} bytes");
        }
        // One that has to be encoded is not held as a whole.
        let batches = [batch(&origin(None), &[&vec![b'x'; 1 << 20]])];
        let (mut calls, mut progress) = (Calls::default(), Progress::default());
        let how = (OutputFormat::Hex, false);
        write_messages(&mut calls, &batches, how, &mut Vec::new(), &mut progress).unwrap();
        assert!(calls.writes <= 17 && calls.longest <= KEPT, "{calls:?}");
    }

    #[test]
    fn only_a_regular_file_can_have_room_again() {
        let full = File::options().write(true).open("/dev/full");
        let read_only = File::open(tempfile::NamedTempFile::new().unwrap().path()).unwrap();
        for file in full.into_iter().chain([read_only]) {
            let mut sink = OutputSink::new(file, OutputFormat::Lines);
            let committed = sink.commit(&[batch(&origin(None), &[b"a"])]);
            assert!(matches!(committed, Err(SinkError::Fatal(_))), "{committed:?}");
        }
        for (kind, passes, advice) in [
            (io::ErrorKind::StorageFull, true, "; make room there"),
            (io::ErrorKind::QuotaExceeded, true, "; make room or raise the quota"),
            (io::ErrorKind::FileTooLarge, true, "; raise the limit, or move the file away"),
            (io::ErrorKind::OutOfMemory, true, ""),
            (io::ErrorKind::BrokenPipe, false, ""),
        ] {
            assert_eq!((may_pass(&kind.into()), what_to_do(&kind.into())), (passes, advice));
        }
    }

    #[test]
    fn a_commit_resumes_where_the_file_was_full_also_within_a_message() {
        let some = vec![3, LARGE + 1, 0, 200_000, 90_000, 1];
        // More than is written together.
        let (many, many_long) = (vec![20_000; 20], vec![40_000; 40]);
        for (lengths, format) in [
            (&some, "lines"),
            (&some, "hex"),
            (&some, "base64"),
            (&some, "json"),
            (&some, "frames"),
            (&many, "lines"),
            (&many_long, "lines"),
        ] {
            let letters = (b'a'..=b'z').cycle();
            let batches: Vec<Batch> = letters
                .zip(lengths)
                .map(|(letter, &len)| batch(&origin(None), &[&vec![letter; len]]))
                .collect();
            let format: OutputFormat = format.parse().unwrap();
            let (mut buffer, mut progress) = (Vec::new(), Progress::default());
            let mut all = Room(usize::MAX, Vec::new());
            write_messages(&mut all, &batches, (format, false), &mut buffer, &mut progress)
                .unwrap();
            for seed in 0..5 {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut file = Room(0, Vec::new());
                while write_messages(
                    &mut file,
                    &batches,
                    (format, false),
                    &mut buffer,
                    &mut progress,
                )
                .is_err()
                {
                    file.0 = random.usize(1..300_000);
                }
                assert!(file.1 == all.1, "{format}, seed {seed}");
                assert_eq!(progress, Progress::default());
            }
        }
    }
}
