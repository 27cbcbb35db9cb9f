//! The standard streams as files: without the standard library's buffers, and always blocking.

use std::fs::File;
use std::io::{self, IoSlice, IsTerminal, Read, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};

/// A file whose calls block, even if it is non-blocking: some parents make the standard streams of their
/// children non-blocking.
///
/// # Examples
///
/// ```
/// use framelet::format::BlockingFile;
/// use std::io::Write;
///
/// let mut output = BlockingFile::stdout()?;
/// if BlockingFile::stdin()?.is_terminal() {
///     output.write_all(b"type a line\n")?;
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct BlockingFile(File);

impl BlockingFile {
    /// Returns standard input, bypassing the buffer of [`std::io::stdin`].
    ///
    /// # Errors
    ///
    /// Any error of the system call, such as "too many open files".
    pub fn stdin() -> io::Result<BlockingFile> {
        BlockingFile::of(&io::stdin())
    }

    /// Returns standard output, bypassing the buffer of [`std::io::stdout`].
    ///
    /// # Errors
    ///
    /// Any error of the system call, such as "too many open files".
    pub fn stdout() -> io::Result<BlockingFile> {
        BlockingFile::of(&io::stdout())
    }

    fn of(stream: &impl AsFd) -> io::Result<BlockingFile> {
        Ok(BlockingFile(File::from(stream.as_fd().try_clone_to_owned()?)))
    }

    /// Returns whether it is a terminal.
    pub fn is_terminal(&self) -> bool {
        self.0.is_terminal()
    }

    /// Returns whether it is a regular file, not a device, pipe or socket.
    pub(crate) fn is_regular(&self) -> bool {
        self.0.metadata().is_ok_and(|metadata| metadata.is_file())
    }

    fn wait(&self, flags: PollFlags) -> io::Result<()> {
        match poll(&mut [PollFd::new(&self.0, flags)], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl From<File> for BlockingFile {
    fn from(file: File) -> Self {
        BlockingFile(file)
    }
}

impl Read for BlockingFile {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(PollFlags::IN)?
                }
                read => return read,
            }
        }
    }
}

impl Write for BlockingFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            match self.0.write_vectored(bufs) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(PollFlags::OUT)?
                }
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
