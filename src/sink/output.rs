//! A sink that writes messages to a file, a pipe or a terminal in one of the formats.

use std::io::{self, IoSlice, Write};

use super::{Batch, Sink, SinkError};
use crate::file::PatientFile;
use crate::format::OutputFormat;

/// How many bytes are copied together before they are written.
const WRITE: usize = 128 * 1024;

/// From this length on, a payload is written from where it lies instead of being copied first.
const LARGE: usize = 32 * 1024;

/// How many bytes of such payloads are written together. A file that is written in larger pieces is
/// synced in less time.
const WRITE_LARGE: usize = 1024 * 1024;

/// How much of the buffer is kept between commits.
const KEPT: usize = 2 * WRITE;

/// Writes messages to a file, one after the other and never interleaved.
///
/// All messages of a commit are gathered into few writes, and nothing is held back after it: a pipe's
/// reader sees each message as soon as no more are waiting. On a terminal, what could drive it is
/// written as an escape. In [`OutputFormat::None`] messages are dropped, and count as committed.
#[derive(Debug)]
pub struct OutputSink {
    file: PatientFile,
    format: OutputFormat,
    escaped: bool,
    buffer: Vec<u8>,
}

impl OutputSink {
    /// Returns a sink that writes to `file`.
    pub fn new(file: impl Into<PatientFile>, format: OutputFormat) -> OutputSink {
        let file = file.into();
        let escaped = file.is_terminal();
        OutputSink { file, format, escaped, buffer: Vec::new() }
    }

    /// Returns a sink that writes to standard output, past the buffer of [`std::io::stdout`].
    ///
    /// # Errors
    ///
    /// The system's, if there are no more file descriptors.
    pub fn stdout(format: OutputFormat) -> io::Result<OutputSink> {
        Ok(OutputSink::new(PatientFile::stdout()?, format))
    }

    /// Writes what is in the buffer, with each payload behind as many bytes of it as it comes with.
    fn write(&mut self, payloads: &mut Vec<(usize, &[u8])>) -> io::Result<()> {
        let mut slices = Vec::with_capacity(2 * payloads.len() + 1);
        let mut from = 0;
        for (until, payload) in payloads.drain(..) {
            slices.extend([&self.buffer[from..until], payload].map(IoSlice::new));
            from = until;
        }
        slices.push(IoSlice::new(&self.buffer[from..]));
        let written = write_all(&mut self.file, &mut slices);
        self.buffer.clear();
        self.buffer.shrink_to(KEPT);
        written
    }
}

/// Writes all of it, with as few system calls as it takes.
fn write_all(file: &mut impl Write, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    // So that empty ones at the start are not taken for a file that takes nothing.
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Sink for OutputSink {
    fn commit(&mut self, batches: &[Batch]) -> Result<(), SinkError> {
        Ok(self.write_batches(batches)?)
    }
}

impl OutputSink {
    /// Writes the messages of all batches, or as much of them as the file takes before it fails.
    pub(crate) fn write_batches(&mut self, batches: &[Batch]) -> io::Result<()> {
        let mut payloads = Vec::new();
        let mut bytes = 0;
        for message in batches.iter().flat_map(Batch::messages) {
            let large = !self.escaped && message.payload.len() >= LARGE;
            match large.then(|| self.format.around(message.payload)).flatten() {
                Some((before, behind)) => {
                    before.append_to(&mut self.buffer);
                    payloads.push((self.buffer.len(), message.payload));
                    bytes += message.payload.len();
                    self.buffer.extend_from_slice(behind);
                }
                None => {
                    let mut make_room = |_: &mut Vec<u8>| io::Result::Ok(());
                    self.format.append(&message, self.escaped, &mut self.buffer, &mut make_room)?;
                }
            }
            if self.buffer.len() >= WRITE || bytes >= WRITE_LARGE {
                self.write(&mut payloads)?;
                bytes = 0;
            }
        }
        self.write(&mut payloads)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::sink::tests::{batch, origin};

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
}
