//! Messages that were read together.

use crate::stream::pool::{Buffer, Pool, PooledBytes};
use crate::wire::frame::{append_frame, whole_frame};
use crate::wire::layout::{Layout, MAX_PAYLOAD, Prefix};

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
///     assert_eq!((payloads.len(), payloads.payload_bytes()), (2, 8));
///     assert!(payloads.iter().eq([b"ping", b"pong"]));
/// }
/// # Ok::<(), framelet::stream::ReadError>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct Payloads {
    pub(crate) layout: Layout,
    /// The message that was incomplete before this read: its prefix and its payload.
    pub(crate) head: Option<(Prefix, PooledBytes)>,
    /// Whole frames, one after the other, from `from` to `to`.
    pub(crate) run: PooledBytes,
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) count: usize,
    pub(crate) first: u64,
}

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

    /// Returns how many bytes of memory are charged to the pool for them.
    pub(crate) fn held(&self) -> usize {
        self.run.counted() + self.head.as_ref().map_or(0, |(_, payload)| payload.counted())
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
        PayloadIter {
            layout: self.layout,
            head: self.head.as_ref().map(|(_, payload)| &payload[..]),
            run: &self.run[self.from..self.to],
        }
    }

    /// Returns the frames as they were received, in consecutive parts; parts may be empty.
    pub fn frames(&self) -> [&[u8]; 3] {
        let (prefix, payload) = match &self.head {
            Some((prefix, payload)) => (&prefix[..], &payload[..]),
            None => (&[][..], &[][..]),
        };
        [prefix, payload, &self.run[self.from..self.to]]
    }
}

/// Where a payload lies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Location {
    Head,
    Run {
        /// The offset of its first byte.
        from: usize,
        /// The offset of the first byte after it.
        to: usize,
    },
}

/// The locations of payloads, in order, without borrowing them.
#[derive(Debug)]
pub(crate) struct Locations {
    head: bool,
    next: usize,
}

impl Locations {
    /// Returns the location of the next payload.
    pub(crate) fn next(&mut self, payloads: &Payloads) -> Option<Location> {
        if std::mem::take(&mut self.head) {
            return Some(Location::Head);
        }
        let rest = &payloads.run[self.next..payloads.to];
        let (prefix, len) = whole_frame(payloads.layout, MAX_PAYLOAD, rest)?;
        let from = self.next + prefix;
        self.next += len;
        Some(Location::Run { from, to: self.next })
    }
}

impl Payloads {
    pub(crate) fn locations(&self) -> Locations {
        Locations { head: self.head.is_some(), next: self.from }
    }

    pub(crate) fn at(&self, location: Location) -> &[u8] {
        match (location, &self.head) {
            (Location::Head, Some((_, payload))) => payload,
            (Location::Head, None) => &[],
            (Location::Run { from, to }, _) => &self.run[from..to],
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
        let (layout, mut frames, mut count) = (Layout::U32BE, Vec::new(), 0);
        for payload in payloads {
            append_frame(&mut frames, layout, MAX_PAYLOAD, payload.as_ref())
                .expect("a payload is at most MAX_PAYLOAD");
            count += 1;
        }
        let to = frames.len();
        let run = Pool::unbounded().lend(Buffer::Heap(frames));
        Payloads { layout, head: None, run, from: 0, to, count, first: 1 }
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
pub struct PayloadIter<'a> {
    layout: Layout,
    head: Option<&'a [u8]>,
    /// Whole frames.
    run: &'a [u8],
}

impl<'a> Iterator for PayloadIter<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if let Some(head) = self.head.take() {
            return Some(head);
        }
        let (prefix, len) = whole_frame(self.layout, MAX_PAYLOAD, self.run)?;
        let (frame, rest) = self.run.split_at(len);
        self.run = rest;
        Some(&frame[prefix..])
    }
}
