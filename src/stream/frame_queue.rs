//! Frames waiting to be written.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_lite::AsyncWrite;

use super::error::WriteError;
use crate::wire::frame::{append_frame_with_header, whole_frame};
use crate::wire::io_error::same_again;
use crate::wire::layout::{Layout, LimitError};

/// How many bytes may be queued before the next message waits.
const HIGH_WATER: usize = 64 * 1024;

/// Payloads of this length and more are written directly instead of being queued first.
const LARGE: usize = 32 * 1024;

/// How much capacity an empty queue keeps for the next message; the rest is freed.
const KEPT: usize = 1024;

/// The state of a writer without its stream. Each call is given the stream, because a
/// [`Framed`](super::framed::Framed) reads from the same one.
pub(crate) struct FrameQueue {
    layout: Layout,
    limit: usize,
    /// Whole frames, of which the first `written` bytes have been written.
    bytes: Vec<u8>,
    written: usize,
    /// The end of a frame that is not before those bytes, as far as it was looked for.
    whole: usize,
    /// Why nothing more can be written.
    failed: Option<io::Error>,
}

impl FrameQueue {
    pub(crate) fn new(layout: Layout) -> FrameQueue {
        let limit = layout.default_limit();
        FrameQueue { layout, limit, bytes: Vec::new(), written: 0, whole: 0, failed: None }
    }

    /// Returns a queue of payloads of at most `limit` bytes, which the layout can say.
    pub(crate) fn with_limit(layout: Layout, limit: usize) -> FrameQueue {
        FrameQueue { limit, ..FrameQueue::new(layout) }
    }

    /// Sets the layout, and a limit that it can express.
    pub(crate) fn set_layout(&mut self, layout: Layout, limit: usize) {
        (self.layout, self.limit) = (layout, limit);
    }

    pub(crate) fn set_max_message(&mut self, limit: usize) -> Result<(), LimitError> {
        self.limit = self.layout.limit(Some(limit))?;
        Ok(())
    }

    /// Returns how many queued bytes are not yet written.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Returns whether the stream has taken a part of a frame, and not yet the rest. Only for a queue of nothing but frames.
    pub(crate) fn is_in_frame(&mut self) -> bool {
        while self.whole < self.written
            && let Some(frame) = whole_frame(self.layout, self.limit, &self.bytes[self.whole..])
        {
            self.whole += frame.len;
        }
        self.whole > self.written
    }

    /// Returns how many bytes of memory the queue takes.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    pub(crate) fn max_message(&self) -> usize {
        self.limit
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

    /// Returns whether another message need not wait.
    fn has_room(&self) -> bool {
        self.failed.is_none() && self.len() < HIGH_WATER
    }

    /// Queues a message without waiting.
    pub(crate) fn append(&mut self, header: &[u8], payload: &[u8]) -> Result<(), WriteError> {
        self.usable()?;
        let (bytes, layout, limit) = (&mut self.bytes, self.layout, self.limit);
        Ok(append_frame_with_header(bytes, layout, limit, header, payload)?)
    }

    /// Queues bytes that are not a message.
    pub(crate) fn append_raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Notes that the stream took the first `bytes` queued bytes.
    fn advance(&mut self, bytes: usize) {
        self.written += bytes;
        if self.written == self.bytes.len() {
            (self.written, self.whole) = (0, 0);
            self.bytes.clear();
            self.bytes.shrink_to(KEPT);
        }
    }

    pub(crate) fn poll_feed<W: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut W,
        cx: &mut Context<'_>,
        header: &[u8],
        payload: &[u8],
    ) -> Poll<Result<(), WriteError>> {
        let layout = self.layout;
        layout.check(self.limit, header, payload.len())?;
        if !self.has_room() {
            ready!(self.poll_write(stream, cx))?;
        }
        let of_trailer = layout.append_prefix(header, payload.len(), &mut self.bytes);
        if payload.len() < LARGE {
            self.bytes.extend_from_slice(payload);
            layout.append_trailer(of_trailer, &mut self.bytes);
            return Poll::Ready(Ok(()));
        }
        // No await from here on, so a drop cannot leave half a frame behind: what the stream does not take
        // now is queued.
        let mut rest = payload;
        while !rest.is_empty() {
            let parts = [IoSlice::new(&self.bytes[self.written..]), IoSlice::new(rest)];
            let parts = if self.len() == 0 { &parts[1..] } else { &parts[..] };
            match Pin::new(&mut *stream).poll_write_vectored(cx, parts) {
                Poll::Ready(Ok(0)) => return self.fail(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(bytes)) => {
                    let from_queue = bytes.min(self.len());
                    self.advance(from_queue);
                    rest = &rest[bytes - from_queue..];
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Poll::Ready(Err(error)) => return self.fail(error),
                Poll::Pending => break,
            }
        }
        self.bytes.extend_from_slice(rest);
        layout.append_trailer(of_trailer, &mut self.bytes);
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_below_high_water<W: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), WriteError>> {
        match self.has_room() {
            true => Poll::Ready(Ok(())),
            false => self.poll_write(stream, cx),
        }
    }

    fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), WriteError>> {
        self.usable()?;
        while self.len() > 0 {
            match ready!(Pin::new(&mut *stream).poll_write(cx, &self.bytes[self.written..])) {
                Ok(0) => return self.fail(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => self.advance(bytes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.fail(error),
            }
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_flush<W: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), WriteError>> {
        ready!(self.poll_write(stream, cx))?;
        match ready!(Pin::new(&mut *stream).poll_flush(cx)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(error) => self.fail(error),
        }
    }

    pub(crate) fn poll_close<W: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), WriteError>> {
        ready!(self.poll_write(stream, cx))?;
        match ready!(Pin::new(&mut *stream).poll_close(cx)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(error) => self.fail(error),
        }
    }
}
