//! From messages to bytes.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_lite::AsyncWrite;
use futures_sink::Sink;

use super::error::WriteError;
use crate::wire::frame::{append_frame, checked_prefix};
use crate::wire::io_error::same_again;
use crate::wire::layout::{Layout, LimitError};

/// How many bytes may be queued before [`FrameWriter::feed`] writes them out first.
const HIGH_WATER: usize = 64 * 1024;

/// From this length on, a payload is written from where it lies instead of being queued first.
const LARGE: usize = 32 * 1024;

/// How much of an empty queue is kept for the next message; more is given back.
const KEPT: usize = 1024;

/// Writes whole messages to a stream of bytes.
///
/// [`feed`](FrameWriter::feed) queues a message, [`flush`](FrameWriter::flush) writes all that is
/// queued with as few calls as the stream allows, [`send`](FrameWriter::send) does both. Prefix and
/// payload leave in one write: in two, Nagle's algorithm and delayed acknowledgements would cost
/// 40 ms a message.
///
/// It is also a [`Sink`] of anything that can be seen as bytes.
///
/// # Cancel safety
///
/// No call leaves half a frame behind. A message is either queued whole or not at all, and what is
/// queued stays so: if `feed` or `send` is dropped, the stream stays in step. A dropped `send` may or
/// may not have queued its message.
///
/// # Examples
///
/// ```
/// use framelet::FrameWriter;
///
/// # futures_lite::future::block_on(async {
/// let mut writer = FrameWriter::new(Vec::new());
/// writer.feed(b"hello").await?;
/// writer.feed(b"").await?;
/// writer.flush().await?;
/// assert_eq!(writer.into_inner(), b"\0\0\0\x05hello\0\0\0\0");
/// # Ok::<(), framelet::WriteError>(()) }).unwrap();
/// ```
pub struct FrameWriter<W> {
    inner: W,
    layout: Layout,
    limit: usize,
    /// Whole frames, of which the first `written` bytes have left.
    queue: Vec<u8>,
    written: usize,
    /// Why nothing more can be written.
    failed: Option<io::Error>,
}

impl<W> FrameWriter<W> {
    /// Returns a writer of `u32be` frames with payloads of at most
    /// [`DEFAULT_MAX_MESSAGE`](crate::DEFAULT_MAX_MESSAGE) bytes.
    pub fn new(inner: W) -> FrameWriter<W> {
        FrameWriter::with_layout(inner, Layout::U32BE)
    }

    /// Returns a writer of frames in `layout`, with payloads of at most
    /// [`DEFAULT_MAX_MESSAGE`](crate::DEFAULT_MAX_MESSAGE) bytes or as many as the layout can say.
    pub fn with_layout(inner: W, layout: Layout) -> FrameWriter<W> {
        let limit = layout.default_limit();
        FrameWriter { inner, layout, limit, queue: Vec::new(), written: 0, failed: None }
    }

    /// Sets the longest payload to write, in bytes.
    ///
    /// # Errors
    ///
    /// [`LimitError`] if no frame of the layout could ever reach that limit.
    pub fn max_message(mut self, limit: usize) -> Result<FrameWriter<W>, LimitError> {
        self.limit = self.layout.limit(Some(limit))?;
        Ok(self)
    }

    /// Returns how many bytes are queued and not yet written.
    pub fn queued(&self) -> usize {
        self.queue.len() - self.written
    }

    /// Returns a reference to the stream below.
    pub fn get_ref(&self) -> &W {
        &self.inner
    }

    /// Returns a mutable reference to the stream below. Writing to it puts the peer out of step.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.inner
    }

    /// Returns the stream below; what is still queued is lost.
    pub fn into_inner(self) -> W {
        self.inner
    }

    fn usable(&self) -> Result<(), WriteError> {
        match &self.failed {
            Some(error) => Err(WriteError::Io(same_again(error))),
            None => Ok(()),
        }
    }

    fn fail<T>(&mut self, error: io::Error) -> Poll<Result<T, WriteError>> {
        self.failed = Some(same_again(&error));
        Poll::Ready(Err(WriteError::Io(error)))
    }

    /// Notes that the first `bytes` queued bytes have left.
    fn advance(&mut self, bytes: usize) {
        self.written += bytes;
        if self.written == self.queue.len() {
            self.written = 0;
            self.queue.clear();
            self.queue.shrink_to(KEPT);
        }
    }
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Queues a message, after waiting until less than 64 KiB are queued in front of it.
    ///
    /// A large message is not copied: as much of it as the stream takes at once is written directly.
    ///
    /// # Errors
    ///
    /// [`WriteError::TooLong`] if the message is over the limit; nothing else is affected.
    /// [`WriteError::Io`] if the stream failed.
    ///
    /// # Cancel safety
    ///
    /// A dropped `feed` has not queued its message.
    pub async fn feed(&mut self, payload: &[u8]) -> Result<(), WriteError> {
        poll_fn(|cx| self.poll_feed(cx, payload)).await
    }

    /// Queues a message and writes all that is queued.
    ///
    /// # Errors
    ///
    /// As [`feed`](FrameWriter::feed).
    ///
    /// # Cancel safety
    ///
    /// A dropped `send` has queued its message whole or not at all; the stream stays in step.
    pub async fn send(&mut self, payload: &[u8]) -> Result<(), WriteError> {
        self.feed(payload).await?;
        self.flush().await
    }

    /// Writes all that is queued and flushes the stream below.
    ///
    /// # Errors
    ///
    /// [`WriteError::Io`] if the stream failed.
    ///
    /// # Cancel safety
    ///
    /// What a dropped `flush` has not written stays queued.
    pub async fn flush(&mut self) -> Result<(), WriteError> {
        poll_fn(|cx| self.poll_flush_queue(cx)).await
    }

    /// Writes all that is queued and closes the stream for writing, so that the peer sees its end.
    ///
    /// # Errors
    ///
    /// [`WriteError::Io`] if the stream failed.
    ///
    /// # Cancel safety
    ///
    /// A dropped `close` can be called again.
    pub async fn close(&mut self) -> Result<(), WriteError> {
        poll_fn(|cx| self.poll_close_stream(cx)).await
    }

    fn poll_feed(&mut self, cx: &mut Context<'_>, payload: &[u8]) -> Poll<Result<(), WriteError>> {
        let prefix = match checked_prefix(self.layout, self.limit, payload.len()) {
            Ok(prefix) => prefix,
            Err(too_long) => return Poll::Ready(Err(WriteError::TooLong(too_long))),
        };
        ready!(self.poll_below_high_water(cx))?;
        prefix.append_to(&mut self.queue);
        if payload.len() < LARGE {
            self.queue.extend_from_slice(payload);
            return Poll::Ready(Ok(()));
        }
        // From here on there is no waiting, so that no drop can leave half a frame behind: what the
        // stream does not take now is queued.
        let mut rest = payload;
        while !rest.is_empty() {
            let parts = [IoSlice::new(&self.queue[self.written..]), IoSlice::new(rest)];
            let parts = if self.queued() == 0 { &parts[1..] } else { &parts[..] };
            match Pin::new(&mut self.inner).poll_write_vectored(cx, parts) {
                Poll::Ready(Ok(0)) => return self.fail(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(bytes)) => {
                    let from_queue = bytes.min(self.queued());
                    self.advance(from_queue);
                    rest = &rest[bytes - from_queue..];
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Poll::Ready(Err(error)) => return self.fail(error),
                Poll::Pending => break,
            }
        }
        self.queue.extend_from_slice(rest);
        Poll::Ready(Ok(()))
    }

    fn poll_below_high_water(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        self.usable()?;
        match self.queued() < HIGH_WATER {
            true => Poll::Ready(Ok(())),
            false => self.poll_write_queue(cx),
        }
    }

    fn poll_write_queue(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        self.usable()?;
        while self.queued() > 0 {
            match ready!(Pin::new(&mut self.inner).poll_write(cx, &self.queue[self.written..])) {
                Ok(0) => return self.fail(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => self.advance(bytes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.fail(error),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush_queue(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        ready!(self.poll_write_queue(cx))?;
        match ready!(Pin::new(&mut self.inner).poll_flush(cx)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(error) => self.fail(error),
        }
    }

    fn poll_close_stream(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        ready!(self.poll_write_queue(cx))?;
        match ready!(Pin::new(&mut self.inner).poll_close(cx)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(error) => self.fail(error),
        }
    }
}

impl<W: AsyncWrite + Unpin, T: AsRef<[u8]>> Sink<T> for FrameWriter<W> {
    type Error = WriteError;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.poll_below_high_water(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, message: T) -> Result<(), Self::Error> {
        self.usable()?;
        let (layout, limit) = (self.layout, self.limit);
        Ok(append_frame(&mut self.queue, layout, limit, message.as_ref())?)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.poll_flush_queue(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.poll_close_stream(cx)
    }
}

impl<W> fmt::Debug for FrameWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameWriter")
            .field("layout", &self.layout)
            .field("max_message", &self.limit)
            .field("queued", &self.queued())
            .finish_non_exhaustive()
    }
}
