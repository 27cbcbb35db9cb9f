//! Messages in both directions of one stream.

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll};

use futures_lite::{AsyncRead, AsyncWrite};

use super::error::{ReadError, WriteError};
use super::frame_queue::FrameQueue;
use super::payloads::Payloads;
use super::reader::FrameReader;
use super::writer::FrameWriter;
use crate::wire::layout::{Layout, LimitError};

/// Reads and writes whole messages on one stream of bytes.
///
/// It is a [`FrameReader`] and a [`FrameWriter`] that share a stream without a lock and without a copy of it.
///
/// # Cancel safety
///
/// If a read is dropped, nothing is lost: the next one resumes where it stopped. If a `feed` or `send` is
/// dropped, its message is queued whole or not at all, and what is queued stays so. So reads and writes can
/// be raced against each other and against timers.
///
/// # Examples
///
/// ```
/// use framelet::{Framed, Layout};
/// use smol::net::{TcpListener, TcpStream};
///
/// # smol::block_on(async {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let layout: Layout = "u32le".parse()?;
/// let mut near = Framed::new(TcpStream::connect(listener.local_addr()?).await?, layout);
/// let mut far = Framed::new(listener.accept().await?.0, layout);
///
/// near.send(b"ping").await?;
/// assert_eq!(far.read().await?, Some(b"ping".to_vec()));
/// far.send(b"pong").await?;
/// assert_eq!(near.read().await?, Some(b"pong".to_vec()));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct Framed<S> {
    /// It owns the stream; the queue is given it to write to.
    reader: FrameReader<S>,
    queue: FrameQueue,
}

impl<S> Framed<S> {
    /// Returns a reader and writer of frames in `layout`, with payloads of at most
    /// [`DEFAULT_MAX_MESSAGE`](crate::wire::DEFAULT_MAX_MESSAGE) bytes or as many as the layout can say.
    pub fn new(stream: S, layout: Layout) -> Framed<S> {
        let reader = FrameReader::with_layout(stream, layout);
        Framed { reader, queue: FrameQueue::new(layout) }
    }

    /// Sets the longest payload to read and to write, in bytes.
    ///
    /// # Errors
    ///
    /// [`LimitError`] if no frame of the layout could ever reach that limit.
    pub fn max_message(mut self, limit: usize) -> Result<Framed<S>, LimitError> {
        self.queue.set_max_message(limit)?;
        Ok(Framed { reader: self.reader.max_message(limit)?, queue: self.queue })
    }

    /// Sets the layout, and the limit to its default.
    pub(crate) fn set_layout(&mut self, layout: Layout) {
        self.reader.set_layout(layout);
        self.queue.set_layout(layout);
    }

    /// Returns how many bytes are queued and not yet written.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Returns a reference to the stream below.
    pub fn get_ref(&self) -> &S {
        self.reader.get_ref()
    }

    /// Returns a mutable reference to the stream below. Reading from it puts this end out of step, and
    /// writing to it the peer.
    pub fn get_mut(&mut self) -> &mut S {
        self.reader.get_mut()
    }

    /// Returns the stream below. What is still queued is lost, and so are bytes that were read and not
    /// returned as a message: see [`into_parts`](Framed::into_parts).
    pub fn into_inner(self) -> S {
        self.reader.into_inner()
    }

    /// Returns the stream below, and the bytes that were read from it after the last message that was
    /// returned; see [`FrameReader::into_parts`]. What is still queued is lost.
    pub fn into_parts(self) -> (S, Vec<u8>) {
        self.reader.into_parts()
    }

    /// Returns the two directions, to be used by two tasks. What was read ahead and what is queued stays
    /// with them.
    ///
    /// A clone of the stream must be the same connection, as it is with sockets. For other streams, take
    /// [`futures_lite::io::split`] first and give its halves to a [`FrameReader`] and a [`FrameWriter`].
    pub fn split(self) -> (FrameReader<S>, FrameWriter<S>)
    where
        S: Clone,
    {
        let stream = self.get_ref().clone();
        (self.reader, FrameWriter::with_queue(stream, self.queue))
    }
}

impl<S: AsyncRead + Unpin> Framed<S> {
    /// Reads the next message; `None` is the clean end of the stream.
    ///
    /// # Errors
    ///
    /// [`ReadError`], and the same one again on every later call. Writing may still work.
    ///
    /// # Cancel safety
    ///
    /// A read that is dropped loses nothing.
    pub async fn read(&mut self) -> Result<Option<Vec<u8>>, ReadError> {
        self.reader.read().await
    }

    /// Reads all messages that have arrived, and at least one: see [`FrameReader::read_batch`].
    ///
    /// # Errors
    ///
    /// As [`read`](Framed::read).
    ///
    /// # Cancel safety
    ///
    /// A read that is dropped loses nothing.
    pub async fn read_batch(&mut self) -> Result<Option<Payloads>, ReadError> {
        self.reader.read_batch().await
    }

    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Vec<u8>>, ReadError>> {
        self.reader.poll_message(cx)
    }
}

impl<S: AsyncWrite + Unpin> Framed<S> {
    /// Queues a message, after waiting until less than 64 KiB are queued before it; see
    /// [`FrameWriter::feed`].
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
    /// As [`feed`](Framed::feed).
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
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Writes all that is queued and closes the stream for writing, so that the peer sees its end. Messages
    /// of the peer can still be read.
    ///
    /// # Errors
    ///
    /// [`WriteError::Io`] if the stream failed.
    ///
    /// # Cancel safety
    ///
    /// A dropped `close` can be called again.
    pub async fn close(&mut self) -> Result<(), WriteError> {
        poll_fn(|cx| self.queue.poll_close(self.reader.get_mut(), cx)).await
    }

    pub(crate) fn poll_feed(
        &mut self,
        cx: &mut Context<'_>,
        payload: &[u8],
    ) -> Poll<Result<(), WriteError>> {
        self.queue.poll_feed(self.reader.get_mut(), cx, payload)
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WriteError>> {
        self.queue.poll_flush(self.reader.get_mut(), cx)
    }
}

impl<S> fmt::Debug for Framed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Framed")
            .field("layout", &self.queue.layout())
            .field("max_message", &self.queue.max_message())
            .field("position", &self.reader.at())
            .field("queued", &self.queued())
            .finish_non_exhaustive()
    }
}
