//! From bytes to messages.
//!
//! The reader does what every tutorial on length prefixes says: `read_exact` the prefix, then `read_exact`
//! the payload. It adds three things:
//!
//! - *Progress* is kept in the reader, not in a future. [`CountedReader`] counts the bytes, so after a
//!   dropped read the next one resumes at `offset − start of the frame`, and every error can say where it
//!   happened.
//! - The limit is checked before anything is allocated, and memory grows with the bytes that arrive.
//! - Frames that lie whole in the read buffer are taken from it together, not copied one by one
//!   ([`Payloads`]).

mod partial_frame; // a frame that is read in steps
mod preamble; // what precedes the first frame

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_lite::{AsyncRead, Stream};

use self::partial_frame::{FrameSource, PartialFrame, Stop, bytes_between};
use self::preamble::Preamble;
use crate::stream::arrival::{self, Arrival};
use crate::stream::counted_reader::CountedReader;
use crate::stream::error::ReadError;
use crate::stream::inquiry::{Inquiry, Sample};
use crate::stream::payloads::{Head, Payloads};
use crate::stream::pool::{Place, Pool};
use crate::wire::ack::{FirstBytes, Hello};
use crate::wire::diagnosis::diagnose;
use crate::wire::error::{Fault, Position, ProtocolError};
use crate::wire::evidence::{Evidence, SAMPLE};
use crate::wire::frame::{
    Run, frames_before_heartbeat, heartbeats, is_heartbeat, whole_frame, whole_frames,
};
use crate::wire::layout::{Header, Layout, LimitError};
use crate::wire::suspect::Suspect;

/// Reads whole messages from a stream of bytes.
///
/// A read has three answers: a message, a clean end (the stream ended between two frames), or an error,
/// which every later read returns again. The reader holds no buffer while it waits between messages.
///
/// Before it returns the error of a wrong prefix or trailer, it looks at what else arrives, up to about 4 KiB and for at
/// most 250 ms: that shows what the stream [most likely is](crate::wire::Suspect).
///
/// It is also a [`Stream`] of messages.
///
/// # Examples
///
/// ```
/// use framelet::{FrameReader, Layout};
///
/// # futures_lite::future::block_on(async {
/// let bytes: &[u8] = b"\0\0\0\x05hello\0\0\0\0";
/// let mut reader = FrameReader::new(bytes);
/// assert_eq!(reader.read().await?, Some(b"hello".to_vec()));
/// assert_eq!(reader.read().await?, Some(vec![])); // an empty message is a message
/// assert_eq!(reader.read().await?, None);
/// # Ok::<(), framelet::stream::ReadError>(()) }).unwrap();
/// ```
pub struct FrameReader<R> {
    source: CountedReader<R>,
    layout: Layout,
    limit: usize,
    /// How many messages were read completely.
    complete: u64,
    /// The offset at which the current frame starts.
    start: u64,
    /// What has been taken from the buffer of the current frame.
    partial: PartialFrame,
    /// The place in the line of readers that wait for room; `None` if it does not wait.
    place: Option<Box<Place>>,
    /// What precedes the first frame. Boxed, since most streams begin with a frame.
    preamble: Option<Box<Preamble>>,
    /// Whether empty frames are heartbeats and not messages.
    skips_empty: bool,
    /// Whether the stream ended cleanly, between two messages.
    ended: bool,
    /// Boxed, since it is rare.
    failed: Option<Box<Failed>>,
}

/// What is known of a stream that has failed.
enum Failed {
    /// A frame is wrong, and it is not yet known why.
    Inquiry(Inquiry),
    Finally(ReadError),
}

impl<R> FrameReader<R> {
    /// Returns a reader of `u32be` frames with payloads of at most [`DEFAULT_MAX_MESSAGE`](crate::wire::DEFAULT_MAX_MESSAGE) bytes.
    pub fn new(inner: R) -> FrameReader<R> {
        FrameReader::with_layout(inner, Layout::U32BE)
    }

    /// Returns a reader of frames in `layout`, with payloads of at most
    /// [`DEFAULT_MAX_MESSAGE`](crate::wire::DEFAULT_MAX_MESSAGE) bytes, or the layout's maximum if that is
    /// less.
    pub fn with_layout(inner: R, layout: Layout) -> FrameReader<R> {
        let limit = layout.default_limit();
        FrameReader::in_pool(inner, layout, limit, Pool::unbounded())
    }

    /// Sets the longest payload to accept, in bytes.
    ///
    /// # Errors
    ///
    /// [`LimitError`] if no frame of the layout could reach that limit.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::FrameReader;
    ///
    /// # futures_lite::future::block_on(async {
    /// let mut reader = FrameReader::new(&b"\0\0\0\x05hello"[..]).max_message(4)?;
    /// let error = reader.read().await.unwrap_err().to_string();
    /// assert!(error.contains("length 5 is over the limit of 4"));
    /// # Ok::<(), framelet::wire::LimitError>(()) }).unwrap();
    /// ```
    pub fn max_message(mut self, limit: usize) -> Result<FrameReader<R>, LimitError> {
        self.limit = self.layout.limit(Some(limit))?;
        Ok(self)
    }

    /// Skips the first `bytes` bytes of the stream, such as the preamble of a protocol. Call it before the first
    /// read. Positions count from the start of the stream.
    ///
    /// An end of the stream inside them is an error; an end before them is a clean one.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::FrameReader;
    ///
    /// # futures_lite::future::block_on(async {
    /// let mut reader = FrameReader::new(&b"HELO\0\0\0\x02hi"[..]).skip(4);
    /// assert_eq!(reader.read().await?, Some(b"hi".to_vec()));
    /// assert_eq!(reader.at().offset, 10);
    /// # Ok::<(), framelet::stream::ReadError>(()) }).unwrap();
    /// ```
    #[must_use]
    pub fn skip(mut self, bytes: u64) -> FrameReader<R> {
        self.preamble = (bytes > 0).then(|| Box::new(Preamble::new(bytes)));
        self
    }

    /// Sets whether empty frames, which have neither payload nor header, are skipped: in some protocols they only
    /// show that the peer is there. Skipped frames have no number; positions count their bytes. Default: no, an
    /// empty frame is a message.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::FrameReader;
    ///
    /// # futures_lite::future::block_on(async {
    /// let mut reader = FrameReader::new(&b"\0\0\0\0\0\0\0\x02hi"[..]).skip_empty(true);
    /// assert_eq!(reader.read().await?, Some(b"hi".to_vec()));
    /// assert_eq!((reader.at().message, reader.at().offset), (2, 10));
    /// # Ok::<(), framelet::stream::ReadError>(()) }).unwrap();
    /// ```
    #[must_use]
    pub fn skip_empty(mut self, skip: bool) -> FrameReader<R> {
        self.set_skip_empty(skip);
        self
    }

    pub(crate) fn set_skip_empty(&mut self, skip: bool) {
        self.skips_empty = skip;
    }

    /// Returns a reader that borrows its memory from `pool`, which counts it.
    pub(crate) fn in_pool(inner: R, layout: Layout, limit: usize, pool: Pool) -> FrameReader<R> {
        FrameReader {
            source: CountedReader::new(inner, pool),
            layout,
            limit,
            complete: 0,
            start: 0,
            partial: PartialFrame::default(),
            place: None,
            preamble: None,
            skips_empty: false,
            ended: false,
            failed: None,
        }
    }

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// Returns the position of the current or next message.
    pub fn at(&self) -> Position {
        Position { message: self.complete + 1, offset: self.start }
    }

    /// Returns whether a message has arrived in part, or the bytes to skip before the first one.
    pub fn in_message(&self) -> bool {
        let in_preamble = || self.unfinished_preamble().is_some_and(|preamble| preamble.got > 0);
        !self.ended && self.error().is_none() && (self.received() > self.start || in_preamble())
    }

    /// Returns the preamble if some of it is still to be skipped.
    fn unfinished_preamble(&self) -> Option<&Preamble> {
        self.preamble.as_deref().filter(|preamble| !preamble.is_complete())
    }

    /// Returns how many bytes were skipped.
    fn skipped(&self) -> u64 {
        self.preamble.as_ref().map_or(0, |preamble| preamble.got)
    }

    /// Returns a reference to the underlying stream.
    pub fn get_ref(&self) -> &R {
        self.source.get_ref()
    }

    /// Returns a mutable reference to the underlying stream. Reading from it directly breaks the framing.
    ///
    /// # Examples
    ///
    /// A stream from which at most 6 bytes are read, and later 6 more:
    ///
    /// ```
    /// use framelet::FrameReader;
    /// use futures_lite::AsyncReadExt;
    ///
    /// # futures_lite::future::block_on(async {
    /// let mut reader = FrameReader::new(b"\0\0\0\x02hi\0\0\0\x02yo".take(6));
    /// assert_eq!(reader.read().await?, Some(b"hi".to_vec()));
    /// assert_eq!(reader.get_ref().limit(), 0);
    /// reader.get_mut().set_limit(6);
    /// assert_eq!(reader.read().await?, Some(b"yo".to_vec()));
    /// assert_eq!(reader.into_inner().into_inner(), b"");
    /// # Ok::<(), framelet::stream::ReadError>(()) }).unwrap();
    /// ```
    pub fn get_mut(&mut self) -> &mut R {
        self.source.get_mut()
    }

    /// Returns the underlying stream. Bytes that were read ahead are lost; see
    /// [`into_parts`](FrameReader::into_parts).
    pub fn into_inner(self) -> R {
        self.into_parts().0
    }

    /// Returns the underlying stream and the bytes that were read from it after the last returned message:
    /// the reader reads up to 64 KiB ahead. After an error there are none.
    ///
    /// # Examples
    ///
    /// A protocol that switches to another one after a message:
    ///
    /// ```
    /// use framelet::FrameReader;
    ///
    /// # futures_lite::future::block_on(async {
    /// let mut reader = FrameReader::new(&b"\0\0\0\x07upgradeHTTP/1.1"[..]);
    /// assert_eq!(reader.read().await?, Some(b"upgrade".to_vec()));
    /// let (stream, read_ahead) = reader.into_parts();
    /// assert_eq!([&read_ahead, stream].concat(), b"HTTP/1.1");
    /// # Ok::<(), framelet::stream::ReadError>(()) }).unwrap();
    /// ```
    pub fn into_parts(self) -> (R, Vec<u8>) {
        let mut read_ahead = Vec::new();
        if self.failed.is_none() {
            read_ahead = self.partial.parts(self.got()).concat();
            read_ahead.extend_from_slice(self.source.buffered());
        }
        (self.source.into_inner(), read_ahead)
    }

    /// Sets the layout, and a limit that it can express.
    pub(crate) fn set_layout(&mut self, layout: Layout, limit: usize) {
        (self.layout, self.limit) = (layout, limit);
    }

    /// Returns the total number of bytes received, whether or not they have been taken from the buffer.
    pub(crate) fn received(&self) -> u64 {
        self.source.offset() + self.source.buffered().len() as u64
    }

    /// Returns how many bytes are missing from a message that waits for memory, if known.
    pub(crate) fn missing(&self) -> Option<u64> {
        let len = self.partial.len().filter(|_| self.waits_for_memory())?;
        Some(len.saturating_sub(self.received() - self.start))
    }

    /// Notes that the rest of the message has arrived in the kernel, so it need not wait for its share of
    /// the memory. Returns whether that is new.
    pub(crate) fn admit(&mut self) -> bool {
        self.partial.admit()
    }

    /// Returns whether a message has arrived in part and its next bytes are not in the buffer.
    pub(crate) fn waits_for_bytes(&self) -> bool {
        let here = self.received() - self.start;
        self.in_message() && self.partial.len().is_none_or(|len| here < len)
    }

    /// Returns whether the last read waits for memory and not for its peer.
    pub(crate) fn waits_for_memory(&self) -> bool {
        self.place.is_some() || self.partial.waits_for_memory()
    }

    /// Returns whether the current message waits for memory that is held for other peers.
    pub(crate) fn starves(&self) -> bool {
        self.waits_for_memory() && self.partial.starves(self.layout, self.source.pool())
    }

    /// Returns the length of the current payload, if known.
    pub(crate) fn payload_len(&self) -> Option<u64> {
        self.partial.payload_len()
    }

    /// Ends the stream because others wait for memory and only `bytes` bytes of the current message arrived
    /// in `time`.
    pub(crate) fn give_way(&mut self, bytes: u64, time: Duration) -> ReadError {
        if let Some(inquiry) = self.take_inquiry() {
            return self.conclude(inquiry);
        }
        let (got, want) = (self.got() as u64, self.partial.len().unwrap_or_default());
        self.protocol_error(Fault::Slow { got, want, bytes, time })
    }

    /// Ends the stream because the current message took too long. Returns the error, which says how much of it
    /// arrived and what these bytes most likely are; every later read returns it again.
    ///
    /// The reader has no clock: call it when a time limit of your own is over and the reader is
    /// [in a message](FrameReader::in_message). `timeout` is that limit, for the error.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::FrameReader;
    /// use futures_lite::{AsyncWriteExt, future};
    /// use smol::net::unix::UnixStream;
    /// use std::time::Duration;
    ///
    /// # smol::block_on(async {
    /// let (mut peer, ours) = UnixStream::pair()?;
    /// peer.write_all(b"\0\0\0\x05hel").await?;
    /// let mut reader = FrameReader::new(ours);
    /// assert!(future::poll_once(reader.read()).await.is_none() && reader.in_message());
    /// let error = reader.expire(Duration::from_secs(10)).to_string();
    /// assert!(error.contains("not complete within 10s: got 7 of 9 bytes"));
    /// # Ok::<(), std::io::Error>(()) }).unwrap();
    /// ```
    pub fn expire(&mut self, timeout: Duration) -> ReadError {
        if let Some(inquiry) = self.take_inquiry() {
            return self.conclude(inquiry);
        }
        if let Some(&Preamble { got, want }) = self.unfinished_preamble() {
            return self.bad_preamble(Fault::TimedOut { got, want: Some(want), timeout });
        }
        let (got, want) = (self.got() as u64, self.partial.len());
        self.protocol_error(Fault::TimedOut { got, want, timeout })
    }

    /// Returns how many bytes of the current frame have been taken from the buffer.
    fn got(&self) -> usize {
        bytes_between(self.start, self.source.offset())
    }

    /// Counts complete messages; the next one starts here.
    fn completed(&mut self, messages: usize) {
        self.complete += messages as u64;
        self.start = self.source.offset();
    }

    /// Returns whether a hello or a non-empty message was read before: then the layout is right.
    fn has_worked(&self) -> bool {
        // Where empty frames are skipped, every message is more than a length.
        let width = self.layout.width().filter(|_| !self.skips_empty);
        let empty = width.map(|width| self.complete * width as u64);
        empty.map_or(self.complete > 0, |empty| self.start - self.skipped() > empty)
    }

    /// Returns the error with which the stream ended.
    fn error(&self) -> Option<&ReadError> {
        match self.failed.as_deref() {
            Some(Failed::Finally(error)) => Some(error),
            _ => None,
        }
    }

    fn take_inquiry(&mut self) -> Option<Inquiry> {
        match *self.failed.take_if(|failed| matches!(**failed, Failed::Inquiry(_)))? {
            Failed::Inquiry(inquiry) => Some(inquiry),
            Failed::Finally(_) => None,
        }
    }

    fn end_with(&mut self, error: ReadError) -> ReadError {
        self.partial = PartialFrame::default();
        self.source.drop_buffer();
        self.failed = Some(Box::new(Failed::Finally(error.clone())));
        error
    }

    fn io_error(&mut self, error: io::Error) -> ReadError {
        let got = self.got() as u64;
        // The bytes of a preamble are in no layout.
        let is_in_frame = got > 0 && self.unfinished_preamble().is_none();
        let suspect = is_in_frame.then(|| self.suspect(&self.sample(), None)).flatten();
        // A failure cuts a message anywhere: a few bytes of one prove nothing about the length before them.
        let suspect = suspect.filter(|suspect| {
            matches!(suspect, Suspect::Known(_) | Suspect::Text { .. } | Suspect::Layout { .. })
        });
        self.end_with(ReadError::Io { error, at: self.at(), got, suspect })
    }

    /// Ends the stream before its first frame.
    fn bad_preamble(&mut self, fault: Fault) -> ReadError {
        let at = Position { message: 1, offset: 0 };
        let error = ProtocolError { at, prefix: Vec::new(), fault, suspect: None };
        self.end_with(ReadError::Protocol(error))
    }

    /// Ends the stream with `fault`.
    fn protocol_error(&mut self, fault: Fault) -> ReadError {
        let inquiry = self.inquire(fault);
        self.conclude(inquiry)
    }

    fn inquire(&self, fault: Fault) -> Inquiry {
        Inquiry::new(fault, self.sample())
    }

    /// Ends the stream with a fault, and with what its bytes show.
    fn conclude(&mut self, Inquiry { fault, sample, .. }: Inquiry) -> ReadError {
        let missing = match fault {
            Fault::TruncatedPayload { got, want } => Some(want - got),
            _ => None,
        };
        // A slow stream may still be a valid one.
        let is_wrong = !matches!(fault, Fault::Slow { .. });
        let suspect = is_wrong.then(|| self.suspect(&sample, missing)).flatten();
        let prefix = self.partial.parts(self.got())[0].to_vec();
        let error = ProtocolError { at: self.at(), prefix, fault, suspect };
        self.end_with(ReadError::Protocol(error))
    }

    /// Returns the bytes of the stream that are in memory.
    fn sample(&self) -> Sample {
        let skipped = usize::try_from(self.skipped()).unwrap_or(usize::MAX);
        let stream = self.source.since_start().and_then(|stream| stream.get(skipped..));
        let frame_at = usize::try_from(self.start - self.skipped()).unwrap_or(usize::MAX);
        if let Some(stream) = stream.filter(|stream| frame_at <= stream.len()) {
            let bytes = stream.to_vec();
            return Sample { bytes, is_from_start: true, frame_at, is_cut: false };
        }
        // The part of the failing frame that is in memory, and the rest of the read buffer.
        let [prefix, payload, trailer] = self.partial.parts(self.got());
        let (mut bytes, mut is_cut) = (prefix.to_vec(), false);
        for part in [payload, trailer, self.source.buffered()] {
            bytes.extend_from_slice(&part[..part.len().min(SAMPLE)]);
            is_cut |= part.len() > SAMPLE;
        }
        // If the failing frame is the first one, its bytes are also those from the start of the stream.
        Sample { bytes, is_from_start: frame_at == 0, frame_at: 0, is_cut }
    }

    /// Returns what the failed stream most likely is. `missing` is how many bytes before the end of the payload the
    /// stream ended.
    fn suspect(&self, sample: &Sample, missing: Option<u64>) -> Option<Suspect> {
        diagnose(&Evidence {
            layout: self.layout,
            limit: self.limit,
            message: self.complete + 1,
            bytes: &sample.bytes,
            is_from_start: sample.is_from_start,
            frame_at: sample.frame_at,
            missing,
            has_worked: self.has_worked(),
            is_cut: sample.is_cut,
        })
    }
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads the next message; `None` is the clean end of the stream.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; every later call returns the same one.
    ///
    /// # Cancel safety
    ///
    /// A dropped read loses nothing: the next one resumes where it stopped.
    pub async fn read(&mut self) -> Result<Option<Vec<u8>>, ReadError> {
        poll_fn(|cx| self.poll_message(cx)).await
    }

    /// Reads the next message with its [header](crate::wire::Header), which precedes the payload here; `None`
    /// is the clean end of the stream.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; every later call returns the same one.
    ///
    /// # Cancel safety
    ///
    /// A dropped read loses nothing: the next one resumes where it stopped.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::FrameReader;
    ///
    /// # futures_lite::future::block_on(async {
    /// let postgres = "h1:u32be+self".parse()?;
    /// let mut reader = FrameReader::with_layout(&b"Q\0\0\0\x0dSELECT 1\0"[..], postgres);
    /// let (header, payload) = reader.read_with_header().await?.unwrap();
    /// assert_eq!((header, payload), (b"Q".to_vec(), b"SELECT 1\0".to_vec()));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub async fn read_with_header(&mut self) -> Result<Option<(Vec<u8>, Vec<u8>)>, ReadError> {
        poll_fn(|cx| self.poll_message_with(cx, |header, payload| (header.to_vec(), payload))).await
    }

    /// Reads all messages that have arrived, up to one read buffer (64 KiB), waiting for at least one;
    /// `None` is the clean end of the stream.
    ///
    /// This is the fast way to read: it neither copies nor allocates per message.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; every later call returns the same one. Messages before the error are returned first.
    ///
    /// # Cancel safety
    ///
    /// A dropped read loses nothing: the next one resumes where it stopped.
    pub async fn read_batch(&mut self) -> Result<Option<Payloads>, ReadError> {
        poll_fn(|cx| {
            let arrival = ready!(self.poll_arrival(cx))?;
            arrival::poll_messages(cx, arrival)
        })
        .await
    }

    /// Reads as [`read_batch`](FrameReader::read_batch) does, but returns after skipped heartbeats as well, so that
    /// they can be sent back; see [`skip_empty`](FrameReader::skip_empty).
    ///
    /// # Errors
    ///
    /// [`ReadError`]; every later call returns the same one. Messages before the error are returned first.
    ///
    /// # Cancel safety
    ///
    /// A dropped read loses nothing: the next one resumes where it stopped.
    pub async fn read_arrival(&mut self) -> Result<Option<Arrival>, ReadError> {
        poll_fn(|cx| self.poll_arrival(cx)).await
    }

    pub(crate) fn poll_arrival(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Arrival>, ReadError>> {
        if !ready!(self.poll_bytes(cx))? {
            return Poll::Ready(Ok(None));
        }
        if self.skips_empty
            && let heartbeats @ 1.. = self.take_heartbeats()
        {
            return Poll::Ready(Ok(Some(Arrival::Heartbeats(heartbeats))));
        }
        let (mut head, mut whole) = (None, self.whole_messages());
        if whole.count == 0 {
            head = match ready!(self.poll_frame(cx))? {
                Some(Arrival::Messages(frame)) => Some(frame),
                Some(Arrival::Heartbeats(one)) => {
                    return Poll::Ready(Ok(Some(Arrival::Heartbeats(one))));
                }
                None => return Poll::Ready(Ok(None)),
            };
            whole = self.whole_messages();
        }
        let first = self.complete + 1 - head.iter().len() as u64;
        let (run, from) = match self.skips_empty && self.is_before_heartbeat(whole) {
            false => self.source.take_run(whole.bytes, whole.count),
            true => self.source.copy_run(whole.bytes, whole.count),
        };
        self.completed(whole.count);
        let count = whole.count + head.iter().len();
        let to = from + whole.bytes;
        Poll::Ready(Ok(Some(Arrival::Messages(Payloads {
            layout: self.layout,
            head,
            run,
            from,
            to,
            count,
            first,
            end: self.start,
        }))))
    }

    /// Classifies the first bytes of the stream. To be called before anything else is read. A hello is
    /// consumed and is not a message; anything else stays for the next read. Does not wait for memory.
    pub(crate) fn poll_first_bytes(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<FirstBytes>, ReadError>> {
        match self.known()? {
            Some(false) => return Poll::Ready(Ok(None)),
            Some(true) => {}
            None => match ready!(self.source.poll_fill_or_few(cx)) {
                Ok(0) => {
                    self.ended = true;
                    return Poll::Ready(Ok(None));
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(self.io_error(error))),
            },
        }
        loop {
            match Hello::decode(self.layout, self.source.buffered()) {
                FirstBytes::Incomplete { .. } => match ready!(self.source.poll_few(cx)) {
                    // The layout decides what is wrong with so few bytes.
                    Ok(0) => return Poll::Ready(Ok(Some(FirstBytes::Plain))),
                    Ok(_) => {}
                    Err(error) => return Poll::Ready(Err(self.io_error(error))),
                },
                opening => {
                    if let FirstBytes::Hello { len, .. } = opening {
                        self.source.consume(len);
                        // Nothing more is read until the client has its welcome.
                        self.source.shrink();
                        self.start = self.source.offset();
                    }
                    return Poll::Ready(Ok(Some(opening)));
                }
            }
        }
    }

    pub(crate) fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Vec<u8>>, ReadError>> {
        self.poll_message_with(cx, |_, payload| payload)
    }

    /// Reads the next message: what `make` makes of its header and its payload.
    pub(crate) fn poll_message_with<M>(
        &mut self,
        cx: &mut Context<'_>,
        make: impl FnOnce(Header<'_>, Vec<u8>) -> M,
    ) -> Poll<Result<Option<M>, ReadError>> {
        let arrival = ready!(self.poll_arrival_with(cx, make))?;
        arrival::poll_messages(cx, arrival)
    }

    /// Does the same, but is ready after skipped heartbeats as well.
    pub(crate) fn poll_arrival_with<M>(
        &mut self,
        cx: &mut Context<'_>,
        make: impl FnOnce(Header<'_>, Vec<u8>) -> M,
    ) -> Poll<Result<Option<Arrival<M>>, ReadError>> {
        if !ready!(self.poll_bytes(cx))? {
            return Poll::Ready(Ok(None));
        }
        if self.skips_empty
            && let heartbeats @ 1.. = self.take_heartbeats()
        {
            return Poll::Ready(Ok(Some(Arrival::Heartbeats(heartbeats))));
        }
        // The common case: the whole frame is in the buffer, so no payload of its own is needed.
        if !self.under_way()
            && let Some(extent) = whole_frame(self.layout, self.limit, self.source.buffered())
        {
            let frame = self.source.buffered();
            let payload = extent.payload(frame).to_vec();
            let message = make(extent.header(self.layout, frame), payload);
            self.source.consume(extent.len);
            self.completed(1);
            return Poll::Ready(Ok(Some(Arrival::Messages(message))));
        }
        Poll::Ready(Ok(match ready!(self.poll_frame(cx))? {
            Some(Arrival::Messages(Head { framing, prefix, trailer, payload })) => {
                let header = self.layout.header(framing.first(prefix + trailer), prefix);
                Some(Arrival::Messages(make(header, payload.into_vec())))
            }
            Some(Arrival::Heartbeats(one)) => Some(Arrival::Heartbeats(one)),
            None => None,
        }))
    }

    /// Consumes the heartbeats that are next in the buffer, and returns how many there were.
    fn take_heartbeats(&mut self) -> u64 {
        if self.under_way() {
            return 0;
        }
        let run = heartbeats(self.layout, self.limit, self.source.buffered());
        if run.count > 0 {
            self.source.consume(run.bytes);
            self.completed(0);
            // They may have to be sent back to a peer that does not read.
            self.source.wait_for_peer();
        }
        run.count as u64
    }

    /// Waits until there is something to process: a stored error, a started frame, or bytes in the buffer.
    /// Returns `false` at the clean end of the stream.
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, ReadError>> {
        if let Some(known) = self.known()? {
            return Poll::Ready(Ok(known));
        }
        if self.unfinished_preamble().is_some() {
            ready!(self.poll_skip(cx))?;
            return self.poll_bytes(cx);
        }
        // Between two messages the reader holds no memory, so waiting for the sink here cannot deadlock.
        ready!(self.source.pool().clone().poll_room(cx, &mut self.place));
        let filled = self.source.poll_fill(cx);
        if filled.is_pending() && self.complete > 0 {
            self.source.forget_start();
        }
        match ready!(filled) {
            Ok(Some(0)) => {
                self.ended = true;
                Poll::Ready(Ok(false))
            }
            // Without memory for a read buffer, frames are read one by one.
            Ok(Some(_) | None) => Poll::Ready(Ok(true)),
            Err(error) => Poll::Ready(Err(self.io_error(error))),
        }
    }

    /// Drops the bytes before the first frame.
    fn poll_skip(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ReadError>> {
        let Some(preamble) = &mut self.preamble else { return Poll::Ready(Ok(())) };
        let skipped = preamble.poll_skip(cx, &mut self.source);
        let Preamble { got, want } = **preamble;
        self.start = self.source.offset();
        Poll::Ready(match ready!(skipped) {
            Err(error) => Err(self.io_error(error)),
            Ok(()) if got == 0 => {
                self.ended = true;
                Ok(())
            }
            Ok(()) if got < want => Err(self.bad_preamble(Fault::TruncatedPreamble { got, want })),
            Ok(()) => Ok(()),
        })
    }

    /// Returns what is known without a read: whether there is something to process, or the end.
    fn known(&self) -> Result<Option<bool>, ReadError> {
        if self.ended {
            return Ok(Some(false));
        }
        if let Some(error) = self.error() {
            return Err(error.clone());
        }
        let something = self.under_way() || !self.source.buffered().is_empty();
        Ok(something.then_some(true))
    }

    /// Returns whether bytes of the current frame have been taken from the buffer.
    fn under_way(&self) -> bool {
        self.got() > 0
    }

    /// Reads one frame in steps.
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Arrival<Head>>, ReadError>> {
        let (start, layout, limit) = (self.start, self.layout, self.limit);
        let from = FrameSource { source: &mut self.source, start, layout, limit };
        let head = match ready!(self.partial.poll(cx, from)) {
            Ok(head) => head,
            Err(Stop::End) => {
                self.ended = true;
                return Poll::Ready(Ok(None));
            }
            Err(Stop::Truncated(fault)) => return Poll::Ready(Err(self.protocol_error(fault))),
            Err(Stop::Wrong(fault)) => return self.poll_fault(cx, fault).map(Err),
            Err(Stop::Io(error)) => return Poll::Ready(Err(self.io_error(error))),
        };
        let is_heartbeat = self.skips_empty && head.is_empty(layout);
        self.completed(usize::from(!is_heartbeat));
        Poll::Ready(Ok(Some(match is_heartbeat {
            false => Arrival::Messages(head),
            true => Arrival::Heartbeats(1),
        })))
    }

    /// Ends the stream with `fault`, after a look at what else arrives: the error stands, but its bytes may say more.
    fn poll_fault(&mut self, cx: &mut Context<'_>, fault: Fault) -> Poll<ReadError> {
        let mut inquiry = self.take_inquiry().unwrap_or_else(|| self.inquire(fault));
        if inquiry.poll_more(cx, &mut self.source).is_pending() {
            self.failed = Some(Box::new(Failed::Inquiry(inquiry)));
            self.source.shrink();
            return Poll::Pending;
        }
        Poll::Ready(self.conclude(inquiry))
    }

    /// Returns the messages that lie whole in the buffer, up to the first incomplete or invalid one, or to a heartbeat.
    #[inline]
    fn whole_messages(&self) -> Run {
        if self.under_way() {
            return Run::default();
        }
        let (layout, limit, buffered) = (self.layout, self.limit, self.source.buffered());
        match self.skips_empty {
            false => whole_frames(layout, limit, buffered),
            true => frames_before_heartbeat(layout, limit, buffered),
        }
    }

    /// Returns whether a heartbeat follows these messages, and perhaps more messages after it.
    fn is_before_heartbeat(&self, whole: Run) -> bool {
        let rest = &self.source.buffered()[whole.bytes..];
        is_heartbeat(self.layout, self.limit, rest)
    }
}

impl<R: AsyncRead + Unpin> Stream for FrameReader<R> {
    type Item = Result<Vec<u8>, ReadError>;

    /// Returns an error once and then the end, as stream adapters expect.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.error().is_some() {
            return Poll::Ready(None);
        }
        Poll::Ready(ready!(self.poll_message(cx)).transpose())
    }
}

impl<R> fmt::Debug for FrameReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameReader")
            .field("layout", &self.layout)
            .field("max_message", &self.limit)
            .field("position", &self.at())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
