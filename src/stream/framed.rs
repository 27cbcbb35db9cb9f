//! Messages in both directions of one stream.

use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll};

use futures_lite::{AsyncRead, AsyncWrite};

use super::arrival::Arrival;
use super::error::{ReadError, WriteError};
use super::frame_queue::FrameQueue;
use super::payloads::Payloads;
use super::reader::FrameReader;
use super::writer::FrameWriter;
use crate::wire::layout::{Header, Layout, LimitError};

/// Reads and writes whole messages on one stream of bytes.
///
/// It combines a [`FrameReader`] and a [`FrameWriter`] on one stream, without a lock and without cloning
/// the stream.
///
/// # Cancel safety
///
/// A dropped read loses nothing: the next one resumes where it stopped. A dropped `feed` or `send` has
/// queued its message whole or not at all, and queued messages stay queued. So reads and writes can be
/// raced against each other and against timers.
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
/// near.into_inner().shutdown(std::net::Shutdown::Both)?;
/// assert_eq!(far.read().await?, None);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
///
/// Several messages with headers in one write, after the preamble of their protocol:
///
/// ```
/// use framelet::{Framed, Layout};
/// use smol::net::unix::UnixStream;
///
/// # smol::block_on(async {
/// let (near, far) = UnixStream::pair()?;
/// let layout: Layout = "h1:u32be+self".parse()?;
/// let mut near = Framed::new(near, layout).max_message(1024)?.preamble(b"HELO");
/// let mut far = Framed::new(far, layout).max_message(1024)?.skip(4);
///
/// near.feed_with_header(b"Q", b"SELECT 1\0").await?;
/// near.feed_with_header(b"X", b"").await?;
/// near.feed(b"hi").await?; // its header is a zero
/// assert_eq!(near.queued(), 4 + 14 + 5 + 7);
/// near.flush().await?;
///
/// assert_eq!(far.read_with_header().await?, Some((b"Q".to_vec(), b"SELECT 1\0".to_vec())));
/// let rest = far.read_batch().await?.expect("two more");
/// let headers: Vec<_> = rest.messages().map(|(header, _)| header.to_vec()).collect();
/// assert_eq!(headers, [b"X", b"\0"]);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct Framed<S> {
    /// Owns the stream; the queue borrows it to write.
    reader: FrameReader<S>,
    queue: FrameQueue,
}

impl<S> Framed<S> {
    /// Returns a reader and writer of frames in `layout`, with payloads of at most
    /// [`DEFAULT_MAX_MESSAGE`](crate::wire::DEFAULT_MAX_MESSAGE) bytes, or the layout's maximum if that is
    /// less.
    pub fn new(stream: S, layout: Layout) -> Framed<S> {
        let reader = FrameReader::with_layout(stream, layout);
        Framed { reader, queue: FrameQueue::new(layout) }
    }

    /// Sets the longest payload to read and to write, in bytes.
    ///
    /// # Errors
    ///
    /// [`LimitError`] if no frame of the layout could reach that limit.
    pub fn max_message(mut self, limit: usize) -> Result<Framed<S>, LimitError> {
        self.queue.set_max_message(limit)?;
        Ok(Framed { reader: self.reader.max_message(limit)?, queue: self.queue })
    }

    /// Skips the first `bytes` bytes that the peer sends; see [`FrameReader::skip`].
    #[must_use]
    pub fn skip(self, bytes: u64) -> Framed<S> {
        Framed { reader: self.reader.skip(bytes), queue: self.queue }
    }

    /// Sets whether empty frames that arrive are skipped; see [`FrameReader::skip_empty`].
    #[must_use]
    pub fn skip_empty(self, skip: bool) -> Framed<S> {
        Framed { reader: self.reader.skip_empty(skip), queue: self.queue }
    }

    /// Queues bytes that are not a message; see [`FrameWriter::preamble`].
    #[must_use]
    pub fn preamble(mut self, bytes: &[u8]) -> Framed<S> {
        self.queue.append_raw(bytes);
        self
    }

    /// Sets the layout, and resets the limit to its default.
    pub(crate) fn set_layout(&mut self, layout: Layout, limit: usize) {
        self.reader.set_layout(layout, limit);
        self.queue.set_layout(layout, limit);
    }

    /// Returns how many queued bytes are not yet written.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Returns a reference to the underlying stream.
    pub fn get_ref(&self) -> &S {
        self.reader.get_ref()
    }

    /// Returns a mutable reference to the underlying stream. Reading from it or writing to it directly
    /// breaks the framing.
    pub fn get_mut(&mut self) -> &mut S {
        self.reader.get_mut()
    }

    /// Returns the underlying stream. Queued bytes are lost, and so are bytes that were read ahead; see
    /// [`into_parts`](Framed::into_parts).
    pub fn into_inner(self) -> S {
        self.reader.into_inner()
    }

    /// Returns the underlying stream and the bytes that were read ahead; see [`FrameReader::into_parts`].
    /// Queued bytes are lost.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::{Framed, Layout};
    /// use futures_lite::AsyncWriteExt;
    /// use smol::net::{TcpListener, TcpStream};
    ///
    /// # smol::block_on(async {
    /// # let listener = TcpListener::bind("127.0.0.1:0").await?;
    /// # let mut peer = TcpStream::connect(listener.local_addr()?).await?;
    /// # let stream = listener.accept().await?.0;
    /// let mut framed = Framed::new(stream, Layout::U32BE).skip_empty(true);
    /// framed.get_ref().set_nodelay(true)?;
    /// peer.write_all(b"\0\0\0\0\0\0\0\x07upgradeHTTP/1.1").await?;
    /// assert_eq!(framed.read().await?, Some(b"upgrade".to_vec()));
    /// framed.get_mut().flush().await?;
    /// let (stream, read_ahead) = framed.into_parts();
    /// assert_eq!(read_ahead, b"HTTP/1.1");
    /// # Ok::<(), std::io::Error>(()) }).unwrap();
    /// ```
    pub fn into_parts(self) -> (S, Vec<u8>) {
        self.reader.into_parts()
    }

    /// Splits it into a reader and a writer for two tasks. Bytes read ahead stay with the reader, queued
    /// messages with the writer.
    ///
    /// A clone of the stream must be the same connection, as with sockets. For other streams, use
    /// [`futures_lite::io::split`] first and wrap its halves in a [`FrameReader`] and a [`FrameWriter`].
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::{Framed, Layout};
    /// use smol::net::unix::UnixStream;
    ///
    /// # smol::block_on(async {
    /// let (near, far) = UnixStream::pair()?;
    /// let (mut reader, mut writer) = Framed::new(near, Layout::U32BE).split();
    /// let echo = smol::spawn(async move { smol::io::copy(far.clone(), &mut far.clone()).await });
    ///
    /// let writing = smol::spawn(async move { writer.send(b"hello").await });
    /// assert_eq!(reader.read().await?, Some(b"hello".to_vec()));
    /// writing.await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
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
    /// [`ReadError`]; every later call returns the same one. Writing may still work.
    ///
    /// # Cancel safety
    ///
    /// A dropped read loses nothing.
    pub async fn read(&mut self) -> Result<Option<Vec<u8>>, ReadError> {
        self.reader.read().await
    }

    /// Reads the next message with its header; see [`FrameReader::read_with_header`].
    ///
    /// # Errors
    ///
    /// The same as those of [`read`](Framed::read).
    ///
    /// # Cancel safety
    ///
    /// A dropped read loses nothing.
    pub async fn read_with_header(&mut self) -> Result<Option<(Vec<u8>, Vec<u8>)>, ReadError> {
        self.reader.read_with_header().await
    }

    /// Reads all messages that have arrived, waiting for at least one; see [`FrameReader::read_batch`].
    ///
    /// # Errors
    ///
    /// The same as those of [`read`](Framed::read).
    ///
    /// # Cancel safety
    ///
    /// A dropped read loses nothing.
    pub async fn read_batch(&mut self) -> Result<Option<Payloads>, ReadError> {
        self.reader.read_batch().await
    }

    pub(crate) fn poll_arrival_with<M>(
        &mut self,
        cx: &mut Context<'_>,
        make: impl FnOnce(Header<'_>, Vec<u8>) -> M,
    ) -> Poll<Result<Option<Arrival<M>>, ReadError>> {
        self.reader.poll_arrival_with(cx, make)
    }
}

impl<S: AsyncWrite + Unpin> Framed<S> {
    /// Queues a message once less than 64 KiB are queued; see [`FrameWriter::feed`].
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
        poll_fn(|cx| self.poll_feed(cx, &[], payload)).await
    }

    /// Queues a message with a header, as [`feed`](Framed::feed) does. An empty one stands for zeros.
    ///
    /// # Errors
    ///
    /// As for `feed`, and [`WriteError::Encode`] if the layout has no such header.
    ///
    /// # Cancel safety
    ///
    /// A dropped `feed_with_header` has not queued its message.
    pub async fn feed_with_header(
        &mut self,
        header: &[u8],
        payload: &[u8],
    ) -> Result<(), WriteError> {
        poll_fn(|cx| self.poll_feed(cx, header, payload)).await
    }

    /// Queues a message and writes everything that is queued.
    ///
    /// # Errors
    ///
    /// The same as those of [`feed`](Framed::feed).
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
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Writes everything that is queued and closes the stream for writing, so that the peer sees the end.
    /// Reading still works.
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
        header: &[u8],
        payload: &[u8],
    ) -> Poll<Result<(), WriteError>> {
        self.queue.poll_feed(self.reader.get_mut(), cx, header, payload)
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
