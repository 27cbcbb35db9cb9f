//! A buffered stream that counts its bytes and borrows its buffer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_lite::AsyncRead;

use crate::stream::pool::{BUFFER, Buffer, Lent, Pool};
use crate::wire::diagnosis::SAMPLE;

/// Up to this many bytes of whole messages are copied out of the read buffer rather than holding on to
/// it, so that a trickle of small messages does not hold 64 KiB each.
const COPIED: usize = 4096;

/// How many bytes a hello may have.
const FEW: usize = 64;

/// From this length on, a payload is read straight to its place, with nothing of what comes after it.
const LARGE: usize = 2 * BUFFER;

/// What a [`FrameReader`](crate::FrameReader) reads from: the stream below, a buffer borrowed from
/// the pool while there are bytes in it, and the offset of the next byte.
pub(crate) struct Source<R> {
    inner: R,
    pool: Pool,
    /// Borrowed while `next < filled`; or the rest of such a one, in a buffer of its own.
    buffer: Option<Lent>,
    next: usize,
    filled: usize,
    /// How many bytes have been taken out of here.
    offset: u64,
    /// Whether to read only what is asked for.
    exact: bool,
    /// Whether the stream below has said that there is nothing more.
    at_end: bool,
}

impl<R> Source<R> {
    pub(crate) fn new(inner: R, pool: Pool) -> Source<R> {
        Source {
            inner,
            pool,
            buffer: None,
            next: 0,
            filled: 0,
            offset: 0,
            exact: false,
            at_end: false,
        }
    }

    pub(crate) fn get_ref(&self) -> &R {
        &self.inner
    }

    pub(crate) fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    pub(crate) fn into_inner(self) -> R {
        self.inner
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

    /// Notes that a payload of `len` bytes comes next. Such a long one is often followed by others, so the
    /// prefix after it is read alone, too: then nothing is ever copied.
    pub(crate) fn expect(&mut self, len: usize) {
        self.exact = len >= LARGE;
    }

    /// Returns whether only what is asked for is read.
    pub(crate) fn is_exact(&self) -> bool {
        self.exact
    }

    /// Takes `bytes` bytes out unseen.
    pub(crate) fn consume(&mut self, bytes: usize) {
        self.next += bytes;
        self.offset += bytes as u64;
        if self.next >= self.filled {
            self.drop_buffer();
        }
    }

    /// Takes the next `bytes` bytes out together, which are as many whole `messages`; returns a buffer
    /// and where in it they start.
    pub(crate) fn take_run(&mut self, bytes: usize, messages: usize) -> (Lent, usize) {
        let Some(buffer) = self.buffer.take() else { return (self.pool.empty(), 0) };
        let (from, to) = (self.next, self.next + bytes);
        // The very first read stays together: the start of a stream tells best what it is.
        let rest_from = match self.offset == from as u64 && self.filled <= SAMPLE {
            true => 0,
            false => to,
        };
        self.offset += bytes as u64;
        (self.next, self.filled) = (to - rest_from, self.filled - rest_from);
        match self.next < self.filled {
            true => self.buffer = Some(self.keep(&buffer[rest_from..][..self.filled])),
            false => (self.next, self.filled) = (0, 0),
        }
        if bytes == 0 {
            return (self.pool.empty(), 0);
        }
        let (mut run, from) = match bytes {
            ..=COPIED => (self.pool.lend(Buffer::from(&buffer[from..to])), 0),
            _ => (buffer, from),
        };
        run.hold_for_sink(messages);
        (run, from)
    }

    /// Copies bytes to wait for more: many connections may be between two reads with the start of a message
    /// left over, so it gets no more room than it needs.
    fn keep(&self, bytes: &[u8]) -> Lent {
        let mut kept = self.pool.lend(Buffer::from(bytes));
        kept.hold_for_peer();
        kept
    }

    /// Makes `bytes` all that is in the buffer.
    fn hold(&mut self, bytes: &[u8]) {
        self.buffer = (!bytes.is_empty()).then(|| self.keep(bytes));
        (self.next, self.filled) = (0, bytes.len());
    }

    /// Exchanges a read buffer for one that has no more room than its bytes need, to wait with it.
    pub(crate) fn shrink(&mut self) {
        if self.buffer.as_ref().is_some_and(|buffer| buffer.len() > self.filled) {
            let bytes = self.buffered().to_vec();
            self.hold(&bytes);
        }
    }

    /// Gives the buffer back with all that is in it.
    pub(crate) fn drop_buffer(&mut self) {
        self.buffer = None;
        (self.next, self.filled) = (0, 0);
    }
}

impl<R: AsyncRead + Unpin> Source<R> {
    /// Reads once from below into the empty buffer; returns how many bytes came, or `None` if only what
    /// is asked for is to be read, perhaps since there is no memory for a buffer.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<usize>>> {
        debug_assert!(self.buffer.is_none());
        if self.exact {
            return Poll::Ready(Ok(None));
        }
        let Some(mut buffer) = self.pool.try_read_buffer() else { return Poll::Ready(Ok(None)) };
        let filled = ready!(self.poll_below(cx, &mut buffer))?;
        if filled > 0 {
            self.buffer = Some(buffer);
            (self.next, self.filled) = (0, filled);
        }
        Poll::Ready(Ok(Some(filled)))
    }

    /// The same, but where there is no memory it reads a few bytes.
    pub(crate) fn poll_fill_or_few(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match ready!(self.poll_fill(cx))? {
            Some(read) => Poll::Ready(Ok(read)),
            None => self.poll_few(cx),
        }
    }

    /// Reads once from below, after what is in the buffer, but only a few bytes, which need no memory to
    /// speak of; returns how many bytes came.
    pub(crate) fn poll_few(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Before it waits.
        self.shrink();
        let mut few = [0; FEW];
        let read = ready!(self.poll_below(cx, &mut few))?;
        let bytes = [self.buffered(), &few[..read]].concat();
        self.hold(&bytes);
        Poll::Ready(Ok(read))
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
            match ready!(self.poll_fill(cx))? {
                Some(0) => return Poll::Ready(Ok(0)),
                Some(_) => {}
                // There is a place for what is asked for, so a message under way never waits for memory here.
                None => {
                    let read = ready!(self.poll_below(cx, buf))?;
                    self.offset += read as u64;
                    return Poll::Ready(Ok(read));
                }
            }
        }
        let read = buf.len().min(self.buffered().len());
        buf[..read].copy_from_slice(&self.buffered()[..read]);
        self.consume(read);
        Poll::Ready(Ok(read))
    }
}
