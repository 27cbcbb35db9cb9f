//! A buffered stream that counts its bytes and borrows its buffer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_lite::AsyncRead;

use crate::pool::{BUFFER, Buffer, Lent, Pool};

/// Up to this many bytes are copied out of the read buffer rather than holding on to it, so that a
/// trickle of small messages, or the start of one, does not hold 64 KiB each.
const COPIED: usize = 4096;

/// How many bytes a hello may have.
const FEW: usize = 64;

/// What a [`FrameReader`](crate::FrameReader) reads from: the stream below, a buffer borrowed from
/// the pool while there are bytes in it, and the offset of the next byte.
pub(crate) struct Source<R> {
    inner: R,
    pool: Pool,
    /// Borrowed while `next < filled`; or the rest of such a one, in a buffer of its own.
    buffer: Option<Buffer>,
    next: usize,
    filled: usize,
    /// How many bytes have been taken out of here.
    offset: u64,
    /// Whether the stream below has said that there is nothing more.
    at_end: bool,
}

impl<R> Source<R> {
    pub(crate) fn new(inner: R, pool: Pool) -> Source<R> {
        Source { inner, pool, buffer: None, next: 0, filled: 0, offset: 0, at_end: false }
    }

    pub(crate) fn get_ref(&self) -> &R {
        &self.inner
    }

    pub(crate) fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn at_end(&self) -> bool {
        self.at_end
    }

    /// Returns the bytes that have been read from below and not been taken out.
    pub(crate) fn buffered(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |buffer| &buffer[self.next..self.filled])
    }

    /// Returns all bytes from the stream's first one to the last one buffered, if they are still here.
    pub(crate) fn since_start(&self) -> Option<&[u8]> {
        let buffer = self.buffer.as_ref()?;
        (self.offset == self.next as u64).then_some(&buffer[..self.filled])
    }

    /// Takes `bytes` bytes out unseen.
    pub(crate) fn consume(&mut self, bytes: usize) {
        self.next += bytes;
        self.offset += bytes as u64;
        if self.next >= self.filled {
            self.drop_buffer();
        }
    }

    /// Takes the next `bytes` bytes out together; returns a buffer and where in it they start.
    pub(crate) fn take_run(&mut self, bytes: usize) -> (Lent, usize) {
        let from = self.next;
        if bytes > COPIED {
            let (buffer, rest) =
                (self.buffer.take().unwrap_or_default(), from + bytes..self.filled);
            self.offset += bytes as u64;
            self.hold(&buffer[rest]);
            return (self.pool.keep(buffer), from);
        }
        let taken = match bytes {
            0 => self.pool.empty(),
            _ => self.pool.keep(Buffer::from(&self.buffered()[..bytes])),
        };
        self.consume(bytes);
        // The very first read stays together: the start of a stream tells best what it is.
        if self.buffered().len() <= COPIED
            && self.since_start().is_none()
            && let Some(buffer) = self.buffer.take()
        {
            self.hold(&buffer[self.next..self.filled]);
            self.pool.give_buffer(buffer);
        }
        (taken, 0)
    }

    /// Makes `rest` all that is in the buffer. Thousands of connections may be between two reads with
    /// the start of a message left over, so a short one gets no more room than it needs.
    fn hold(&mut self, rest: &[u8]) {
        (self.next, self.filled) = (0, rest.len());
        self.buffer = match rest.len() {
            0 => None,
            1..=COPIED => Some(Buffer::from(rest)),
            _ => {
                let mut buffer = self.pool.take_buffer();
                buffer[..rest.len()].copy_from_slice(rest);
                Some(buffer)
            }
        };
    }

    /// Gives the buffer back with all that is in it.
    pub(crate) fn drop_buffer(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.pool.give_buffer(buffer);
        }
        (self.next, self.filled) = (0, 0);
    }
}

impl<R: AsyncRead + Unpin> Source<R> {
    /// Reads once from below into the empty buffer; returns how many bytes came.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        debug_assert!(self.buffer.is_none());
        let mut buffer = self.pool.take_buffer();
        let read = self.poll_below(cx, &mut buffer);
        match read {
            Poll::Ready(Ok(filled)) if filled > 0 => {
                self.buffer = Some(buffer);
                (self.next, self.filled) = (0, filled);
            }
            _ => self.pool.give_buffer(buffer),
        }
        read
    }

    /// The same, but it reads only a few bytes, which need no memory to speak of.
    pub(crate) fn poll_few(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        debug_assert!(self.buffer.is_none());
        let mut few = [0; FEW];
        let read = self.poll_below(cx, &mut few);
        if let Poll::Ready(Ok(filled)) = read {
            self.hold(&few[..filled]);
        }
        read
    }

    /// Reads once from below, behind what is in the buffer; returns how many bytes came.
    pub(crate) fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.buffer.is_none() {
            return self.poll_fill(cx);
        }
        let have = self.buffered().len();
        let mut buffer = self.pool.take_buffer();
        let read = self.poll_below(cx, &mut buffer[have..]);
        let Poll::Ready(Ok(more @ 1..)) = read else {
            self.pool.give_buffer(buffer);
            let few = self.buffered().to_vec();
            self.drop_buffer();
            self.hold(&few);
            return read;
        };
        buffer[..have].copy_from_slice(self.buffered());
        self.drop_buffer();
        (self.buffer, self.filled) = (Some(buffer), have + more);
        read
    }

    fn poll_below(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            match ready!(Pin::new(&mut self.inner).poll_read(cx, buf)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => {
                    self.at_end = matches!(read, Ok(0));
                    return Poll::Ready(read);
                }
            }
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Source<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.buffer.is_none() {
            // A buffer in between would only cost a copy.
            if buf.len() >= BUFFER {
                let read = ready!(self.poll_below(cx, buf))?;
                self.offset += read as u64;
                return Poll::Ready(Ok(read));
            }
            if ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(Ok(0));
            }
        }
        let read = buf.len().min(self.buffered().len());
        buf[..read].copy_from_slice(&self.buffered()[..read]);
        self.consume(read);
        Poll::Ready(Ok(read))
    }
}

impl<R> Drop for Source<R> {
    fn drop(&mut self) {
        self.drop_buffer();
    }
}
