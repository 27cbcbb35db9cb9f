//! A sink that writes messages to a file, a pipe or a terminal in one of the formats.

use std::fs::File;
use std::io::{self, IsTerminal, Write};

use rustix::event::{PollFd, PollFlags, poll};

use super::{Batch, Sink};
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
/// written as an escape.
#[derive(Debug)]
pub struct OutputSink {
    file: File,
    format: OutputFormat,
    escaped: bool,
    buffer: Vec<u8>,
}

impl OutputSink {
    /// Returns a sink that writes to `file`.
    pub fn new(file: File, format: OutputFormat) -> OutputSink {
        let escaped = file.is_terminal();
        OutputSink { file, format, escaped, buffer: Vec::new() }
    }

    /// Returns a sink that writes to standard output, past the buffer of [`std::io::stdout`].
    ///
    /// # Errors
    ///
    /// The system's, if standard output is closed.
    pub fn stdout(format: OutputFormat) -> io::Result<OutputSink> {
        use std::os::fd::AsFd;
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(OutputSink::new(file, format))
    }

    fn write_buffer(&mut self) -> io::Result<()> {
        let written = write_all(&mut self.file, &self.buffer);
        self.buffer.clear();
        self.buffer.shrink_to(KEPT);
        written
    }
}

impl Sink for OutputSink {
    fn commit(&mut self, batches: &[Batch]) -> io::Result<()> {
        let terminator = if self.escaped { None } else { self.format.terminator() };
        for message in batches.iter().flat_map(Batch::messages) {
            match terminator {
                Some(terminator) if message.payload.len() >= LARGE => {
                    self.write_buffer()?;
                    write_all(&mut self.file, message.payload)?;
                    self.buffer.extend_from_slice(terminator);
                }
                _ => self.format.append(&message, self.escaped, &mut self.buffer),
            }
            if self.buffer.len() >= WRITE {
                self.write_buffer()?;
            }
        }
        self.write_buffer()
    }
}

/// As `Write::write_all`, but a file that was set to be non-blocking, as some parents do with the
/// standard output of their children, is waited for.
fn write_all(file: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                match poll(&mut [PollFd::new(file, PollFlags::OUT)], None) {
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
