//! A sink that writes messages to a file, a pipe or a terminal in one of the formats.

use std::io::{self, Write};

use super::{Batch, Sink};
use crate::file::PatientFile;
use crate::format::OutputFormat;

/// How many bytes are gathered before they are written.
const WRITE: usize = 128 * 1024;

/// From this length on, a payload is written from where it lies instead of being gathered first.
const LARGE: usize = 32 * 1024;

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

    fn write_buffer(&mut self) -> io::Result<()> {
        let written = self.file.write_all(&self.buffer);
        self.buffer.clear();
        self.buffer.shrink_to(KEPT);
        written
    }
}

impl Sink for OutputSink {
    fn commit(&mut self, batches: &[Batch]) -> io::Result<()> {
        for message in batches.iter().flat_map(Batch::messages) {
            let large = !self.escaped && message.payload.len() >= LARGE;
            match large.then(|| self.format.around(message.payload)).flatten() {
                Some((before, behind)) => {
                    before.append_to(&mut self.buffer);
                    self.write_buffer()?;
                    self.file.write_all(message.payload)?;
                    self.buffer.extend_from_slice(behind);
                }
                None => self.format.append(&message, self.escaped, &mut self.buffer),
            }
            if self.buffer.len() >= WRITE {
                self.write_buffer()?;
            }
        }
        self.write_buffer()
    }
}
