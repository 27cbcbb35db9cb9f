//! Messages that were read together.

use super::framing::Framing;
use crate::stream::pool::{Buffer, Pool, PooledBytes};
use crate::wire::frame::{Extent, append_frame_with_header, split_payload, whole_frame};
use crate::wire::layout::{EncodeError, Header, Layout, MAX_PAYLOAD};

/// Messages that were read together, in the order in which they were sent.
///
/// They lie in one buffer, as they were received; messages are not allocated one by one.
///
/// # Examples
///
/// ```
/// use framelet::FrameReader;
///
/// # futures_lite::future::block_on(async {
/// let mut reader = FrameReader::new(&b"\0\0\0\x04ping\0\0\0\x04pong"[..]);
/// while let Some(payloads) = reader.read_batch().await? {
///     assert_eq!((payloads.first_number(), payloads.len(), payloads.payload_bytes()), (1, 2, 8));
///     assert!(payloads.iter().eq([b"ping", b"pong"]));
/// }
/// # Ok::<(), framelet::stream::ReadError>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct Payloads {
    pub(crate) layout: Layout,
    /// The message that was incomplete before this read.
    pub(crate) head: Option<Head>,
    /// Whole frames, one after the other, from `from` to `to`.
    pub(crate) run: PooledBytes,
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) count: usize,
    pub(crate) first: u64,
    /// The offset in the stream after the last frame; `UNKNOWN` if they come from no stream.
    pub(crate) end: u64,
}

/// The offset of a message that was not read from a stream.
pub(crate) const UNKNOWN: u64 = u64::MAX;

impl Payloads {
    /// Returns the number of messages; at least one.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns the number of the first message on its stream; the very first message is 1.
    pub fn first_number(&self) -> u64 {
        self.first
    }

    /// Drops all messages after the first `len`, which must be at least one. Does nothing if there are not more.
    ///
    /// # Panics
    ///
    /// If `len` is zero.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::stream::Payloads;
    ///
    /// let mut payloads: Payloads = ["21.5", "21.7", "21.9"].into_iter().collect();
    /// payloads.truncate(2);
    /// assert!(payloads.iter().eq([b"21.5", b"21.7"]));
    /// ```
    pub fn truncate(&mut self, len: usize) {
        assert!(len > 0, "at least one message is left");
        if len >= self.count {
            return;
        }
        let mut locations = self.locations();
        for _ in 0..len {
            locations.next(self);
        }
        if self.end != UNKNOWN {
            self.end -= (self.to - locations.next) as u64;
        }
        (self.to, self.count) = (locations.next, len);
    }

    /// Returns how many bytes of memory are charged to the pool for them.
    pub(crate) fn held(&self) -> usize {
        self.run.counted() + self.head.as_ref().map_or(0, |head| head.payload.counted())
    }

    /// Returns the total length of all payloads, in bytes.
    pub fn payload_bytes(&self) -> usize {
        match self.layout.width() {
            Some(width) => {
                let frames: usize = self.frames().iter().map(|part| part.len()).sum();
                frames - self.count * width
            }
            None => self.iter().map(<[u8]>::len).sum(),
        }
    }

    /// Returns the payloads in the order in which they were sent.
    pub fn iter(&self) -> PayloadIter<'_> {
        PayloadIter(self.messages())
    }

    /// Returns the headers and the payloads in the order in which they were sent.
    pub fn messages(&self) -> Messages<'_> {
        Messages {
            layout: self.layout,
            head: self.head.as_ref(),
            run: &self.run[self.from..self.to],
        }
    }

    /// Returns the frames as they were received, in consecutive parts; parts may be empty.
    ///
    /// # Examples
    ///
    /// A proxy that counts messages and passes their frames on:
    ///
    /// ```
    /// use framelet::FrameReader;
    ///
    /// # futures_lite::future::block_on(async {
    /// let mut reader = FrameReader::new(&b"\0\0\0\x04ping\0\0\0\x04pong"[..]);
    /// let (mut count, mut out) = (0, Vec::new());
    /// while let Some(payloads) = reader.read_batch().await? {
    ///     count += payloads.len();
    ///     payloads.frames().into_iter().for_each(|part| out.extend_from_slice(part));
    /// }
    /// assert_eq!((count, &out[..]), (2, &b"\0\0\0\x04ping\0\0\0\x04pong"[..]));
    /// # Ok::<(), framelet::stream::ReadError>(()) }).unwrap();
    /// ```
    pub fn frames(&self) -> [&[u8]; 4] {
        let [prefix, payload, trailer] = match &self.head {
            Some(head) => [head.prefix(), &head.payload, head.trailer()],
            None => [&[][..]; 3],
        };
        [prefix, payload, trailer, &self.run[self.from..self.to]]
    }
}

/// The message that was incomplete before a read.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) framing: Framing,
    /// The length of its prefix.
    pub(crate) prefix: usize,
    /// The length of its trailer.
    pub(crate) trailer: usize,
    pub(crate) payload: PooledBytes,
}

impl Head {
    fn prefix(&self) -> &[u8] {
        self.framing.first(self.prefix)
    }

    fn trailer(&self) -> &[u8] {
        &self.framing.first(self.prefix + self.trailer)[self.prefix..]
    }

    fn frame_len(&self) -> usize {
        self.prefix + self.payload.len() + self.trailer
    }

    /// Returns whether it has neither payload nor header.
    pub(crate) fn is_empty(&self, layout: Layout) -> bool {
        self.payload.is_empty() && self.header(layout).is_empty()
    }

    fn header(&self, layout: Layout) -> Header<'_> {
        layout.header(self.framing.first(self.prefix + self.trailer), self.prefix)
    }
}

/// Where a message lies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Location {
    Head,
    Run {
        /// The offset of its frame.
        at: usize,
        extent: Extent,
    },
}

/// The locations of messages, in order, without borrowing them.
#[derive(Debug)]
pub(crate) struct Locations {
    head: bool,
    next: usize,
}

impl Locations {
    /// Returns the location of the next message.
    pub(crate) fn next(&mut self, payloads: &Payloads) -> Option<Location> {
        if std::mem::take(&mut self.head) {
            return Some(Location::Head);
        }
        let at = self.next;
        let extent = whole_frame(payloads.layout, MAX_PAYLOAD, &payloads.run[at..payloads.to])?;
        self.next += extent.len;
        Some(Location::Run { at, extent })
    }
}

impl Payloads {
    pub(crate) fn locations(&self) -> Locations {
        Locations { head: self.head.is_some(), next: self.from }
    }

    /// Returns the header and the payload of the message at `location`.
    pub(crate) fn at(&self, location: Location) -> (Header<'_>, &[u8]) {
        match (location, &self.head) {
            (Location::Head, Some(head)) => (head.header(self.layout), &head.payload),
            (Location::Head, None) => (Header::EMPTY, &[]),
            (Location::Run { at, extent }, _) => {
                let frame = &self.run[at..];
                (extent.header(self.layout, frame), extent.payload(frame))
            }
        }
    }
}

impl<'a> IntoIterator for &'a Payloads {
    type Item = &'a [u8];
    type IntoIter = PayloadIter<'a>;

    fn into_iter(self) -> PayloadIter<'a> {
        self.iter()
    }
}

/// Collects payloads as if they had been received together.
///
/// # Panics
///
/// If a payload is over [`MAX_PAYLOAD`].
impl<P: AsRef<[u8]>> FromIterator<P> for Payloads {
    fn from_iter<I: IntoIterator<Item = P>>(payloads: I) -> Payloads {
        let messages = payloads.into_iter().map(|payload| (b"", payload));
        Payloads::in_layout(Layout::U32BE, messages).expect("a payload is at most MAX_PAYLOAD")
    }
}

impl Payloads {
    /// Collects headers and payloads as if they had been received together in `layout`.
    pub(crate) fn in_layout<H: AsRef<[u8]>, P: AsRef<[u8]>>(
        layout: Layout,
        messages: impl IntoIterator<Item = (H, P)>,
    ) -> Result<Payloads, EncodeError> {
        let (mut frames, mut count) = (Vec::new(), 0);
        for (header, payload) in messages {
            let (header, payload) = (header.as_ref(), payload.as_ref());
            append_frame_with_header(&mut frames, layout, MAX_PAYLOAD, header, payload)?;
            count += 1;
        }
        let to = frames.len();
        let run = Pool::unbounded().lend(Buffer::Heap(frames));
        Ok(Payloads { layout, head: None, run, from: 0, to, count, first: 1, end: UNKNOWN })
    }
}

/// The payloads of [`Payloads`], in the order in which they were sent.
///
/// # Examples
///
/// ```
/// use framelet::stream::{PayloadIter, Payloads};
///
/// let payloads: Payloads = ["21.5", "21.7"].into_iter().collect();
/// let mut iter: PayloadIter<'_> = payloads.iter();
/// assert_eq!(iter.next(), Some(&b"21.5"[..]));
/// ```
#[derive(Clone, Debug)]
pub struct PayloadIter<'a>(Messages<'a>);

impl<'a> Iterator for PayloadIter<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        if let Some(head) = self.0.head.take() {
            return Some(&head.payload);
        }
        let (payload, rest) = split_payload(self.0.layout, MAX_PAYLOAD, self.0.run)?;
        self.0.run = rest;
        Some(payload)
    }
}

/// The headers and payloads of [`Payloads`], in the order in which they were sent.
///
/// # Examples
///
/// ```
/// use framelet::FrameReader;
/// use framelet::stream::{Messages, Payloads};
///
/// # futures_lite::future::block_on(async {
/// let bytes = &b"Q\0\0\0\x0dSELECT 1\0X\0\0\0\x04"[..];
/// let mut reader = FrameReader::with_layout(bytes, "h1:u32be+self".parse()?);
/// let payloads: Payloads = reader.read_batch().await?.expect("two messages");
/// let messages: Messages<'_> = payloads.messages();
/// let types: Vec<_> = messages.map(|(header, _)| header.to_vec()).collect();
/// assert_eq!(types, [b"Q", b"X"]);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    layout: Layout,
    head: Option<&'a Head>,
    /// Whole frames.
    run: &'a [u8],
}

impl Messages<'_> {
    /// Returns how many bytes the frames of the next messages have.
    #[inline]
    pub(crate) fn left(&self) -> usize {
        self.head.map_or(0, Head::frame_len) + self.run.len()
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = (Header<'a>, &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<(Header<'a>, &'a [u8])> {
        if let Some(head) = self.head.take() {
            return Some((head.header(self.layout), &head.payload));
        }
        if self.layout.is_u32be() {
            let (payload, rest) = split_payload(self.layout, MAX_PAYLOAD, self.run)?;
            self.run = rest;
            return Some((Header::EMPTY, payload));
        }
        let extent = whole_frame(self.layout, MAX_PAYLOAD, self.run)?;
        let (frame, rest) = self.run.split_at(extent.len);
        self.run = rest;
        Some((extent.header(self.layout, frame), extent.payload(frame)))
    }
}
