//! From messages to bytes.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_lite::AsyncWrite;
use futures_sink::Sink;

use super::error::WriteError;
use super::frame_queue::FrameQueue;
use crate::wire::layout::{Layout, LimitError};

/// Writes whole messages to a stream of bytes.
///
/// [`feed`](FrameWriter::feed) queues a message, [`flush`](FrameWriter::flush) writes everything that is
/// queued with as few calls as the stream allows, and [`send`](FrameWriter::send) does both. Prefix and
/// payload leave in one write: with two, Nagle's algorithm and delayed acknowledgements would cost 40 ms
/// per message.
///
/// It is also a [`Sink`] of anything that can be viewed as bytes.
///
/// # Cancel safety
///
/// No call leaves half a frame behind: if `feed` or `send` is dropped, its message is queued whole or not
/// at all, and queued messages stay queued. So the framing stays intact, but a dropped `send` does not tell
/// whether its message was queued.
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
/// # Ok::<(), framelet::stream::WriteError>(()) }).unwrap();
/// ```
pub struct FrameWriter<W> {
    inner: W,
    queue: FrameQueue,
}

impl<W> FrameWriter<W> {
    /// Returns a writer of `u32be` frames with payloads of at most
    /// [`DEFAULT_MAX_MESSAGE`](crate::wire::DEFAULT_MAX_MESSAGE) bytes.
    pub fn new(inner: W) -> FrameWriter<W> {
        FrameWriter::with_layout(inner, Layout::U32BE)
    }

    /// Returns a writer of frames in `layout`, with payloads of at most
    /// [`DEFAULT_MAX_MESSAGE`](crate::wire::DEFAULT_MAX_MESSAGE) bytes, or the layout's maximum if that is
    /// less.
    pub fn with_layout(inner: W, layout: Layout) -> FrameWriter<W> {
        FrameWriter { inner, queue: FrameQueue::new(layout) }
    }

    pub(super) fn with_queue(inner: W, queue: FrameQueue) -> FrameWriter<W> {
        FrameWriter { inner, queue }
    }

    /// Sets the longest payload to write, in bytes.
    ///
    /// # Errors
    ///
    /// [`LimitError`] if no frame of the layout could reach that limit.
    pub fn max_message(mut self, limit: usize) -> Result<FrameWriter<W>, LimitError> {
        self.queue.set_max_message(limit)?;
        Ok(self)
    }

    /// Queues bytes that are not a message, such as the preamble of a protocol: they are written before the next
    /// message, or by [`flush`](FrameWriter::flush).
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::FrameWriter;
    ///
    /// # futures_lite::future::block_on(async {
    /// let mut writer = FrameWriter::new(Vec::new()).preamble(b"HELO");
    /// writer.send(b"hi").await?;
    /// assert_eq!(writer.into_inner(), b"HELO\0\0\0\x02hi");
    /// # Ok::<(), framelet::stream::WriteError>(()) }).unwrap();
    /// ```
    #[must_use]
    pub fn preamble(mut self, bytes: &[u8]) -> FrameWriter<W> {
        self.queue.append_raw(bytes);
        self
    }

    /// Returns how many queued bytes are not yet written.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Returns a reference to the underlying stream.
    pub fn get_ref(&self) -> &W {
        &self.inner
    }

    /// Returns a mutable reference to the underlying stream. Writing to it directly breaks the framing.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.inner
    }

    /// Returns the underlying stream. Queued bytes are lost.
    pub fn into_inner(self) -> W {
        self.inner
    }
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// Queues a message once less than 64 KiB are queued.
    ///
    /// A large message is not copied: as much as the stream accepts is written directly, the rest is
    /// queued.
    ///
    /// # Errors
    ///
    /// [`WriteError::Encode`] if the message cannot be framed, for example because it is over the limit: nothing
    /// else is affected. [`WriteError::Io`] if the stream failed.
    ///
    /// # Cancel safety
    ///
    /// A dropped `feed` has not queued its message.
    pub async fn feed(&mut self, payload: &[u8]) -> Result<(), WriteError> {
        poll_fn(|cx| self.queue.poll_feed(&mut self.inner, cx, &[], payload)).await
    }

    /// Queues a message with a header, as [`feed`](FrameWriter::feed) does. An empty one stands for zeros.
    ///
    /// # Errors
    ///
    /// As for `feed`, and [`WriteError::Encode`] if the layout has no such header.
    ///
    /// # Cancel safety
    ///
    /// A dropped `feed_with_header` has not queued its message.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::FrameWriter;
    ///
    /// # futures_lite::future::block_on(async {
    /// let mut writer = FrameWriter::with_layout(Vec::new(), "h1:u32be+self".parse()?);
    /// writer.feed_with_header(b"Q", b"SELECT 1\0").await?;
    /// assert_eq!((writer.queued(), writer.get_ref().len()), (14, 0));
    /// writer.flush().await?;
    /// let written = std::mem::take(writer.get_mut());
    /// assert_eq!(written, b"Q\0\0\0\x0dSELECT 1\0");
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub async fn feed_with_header(
        &mut self,
        header: &[u8],
        payload: &[u8],
    ) -> Result<(), WriteError> {
        poll_fn(|cx| self.queue.poll_feed(&mut self.inner, cx, header, payload)).await
    }

    /// Queues a message and writes everything that is queued.
    ///
    /// # Errors
    ///
    /// The same as those of [`feed`](FrameWriter::feed).
    ///
    /// # Cancel safety
    ///
    /// A dropped `send` has queued its message whole or not at all; the framing stays intact.
    pub async fn send(&mut self, payload: &[u8]) -> Result<(), WriteError> {
        self.feed(payload).await?;
        self.flush().await
    }

    /// Writes everything that is queued and flushes the underlying stream.
    ///
    /// # Errors
    ///
    /// [`WriteError::Io`] if the stream failed.
    ///
    /// # Cancel safety
    ///
    /// What a dropped `flush` has not written stays queued.
    pub async fn flush(&mut self) -> Result<(), WriteError> {
        poll_fn(|cx| self.queue.poll_flush(&mut self.inner, cx)).await
    }

    /// Writes everything that is queued and closes the stream for writing, so that the peer sees the end.
    ///
    /// # Errors
    ///
    /// [`WriteError::Io`] if the stream failed.
    ///
    /// # Cancel safety
    ///
    /// A dropped `close` can be called again.
    pub async fn close(&mut self) -> Result<(), WriteError> {
        poll_fn(|cx| self.queue.poll_close(&mut self.inner, cx)).await
    }
}

impl<W: AsyncWrite + Unpin, T: AsRef<[u8]>> Sink<T> for FrameWriter<W> {
    type Error = WriteError;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let FrameWriter { inner, queue } = self.get_mut();
        queue.poll_below_high_water(inner, cx)
    }

    fn start_send(mut self: Pin<&mut Self>, message: T) -> Result<(), Self::Error> {
        self.queue.append(&[], message.as_ref())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let FrameWriter { inner, queue } = self.get_mut();
        queue.poll_flush(inner, cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let FrameWriter { inner, queue } = self.get_mut();
        queue.poll_close(inner, cx)
    }
}

impl<W> fmt::Debug for FrameWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameWriter")
            .field("layout", &self.queue.layout())
            .field("max_message", &self.queue.max_message())
            .field("queued", &self.queued())
            .finish_non_exhaustive()
    }
}
