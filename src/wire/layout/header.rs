//! The header of a message: bytes that a layout keeps beside the payload.

use std::borrow::Cow;
use std::fmt;

use super::items::{self, Items};
use super::lsp;
use crate::wire::escape::SpacedHex;

/// The bytes of a message beside its payload: those of all `hN` items of the layout, in wire order.
///
/// It is empty if the layout has no such items. In the layout `lsp` it has all header lines but
/// `Content-Length`, and for one of git's markers (`0000`, `0001`, `0002`) it is that marker.
///
/// # Examples
///
/// ```
/// use framelet::FrameReader;
/// use framelet::wire::Header;
///
/// # futures_lite::future::block_on(async {
/// let mut reader = FrameReader::with_layout(&b"\x01\0\0\0\x02hi"[..], "h1:u32be".parse()?);
/// let batch = reader.read_batch().await?.unwrap();
/// let (header, payload): (Header<'_>, &[u8]) = batch.messages().next().unwrap();
/// assert_eq!((header.to_vec(), payload), (vec![1], &b"hi"[..]));
/// assert!(header.len() == 1 && !header.is_empty());
///
/// let mut both = Vec::new();
/// header.append_to(&mut both);
/// both.extend_from_slice(payload);
/// assert_eq!(both, b"\x01hi");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Copy)]
pub struct Header<'a>(Parts<'a>);

#[derive(Clone, Copy)]
enum Parts<'a> {
    Bytes(&'a [u8]),
    /// The header bytes among the first `prefix` bytes of a frame, and among its last ones, the trailer.
    Around {
        items: &'static Items,
        // One slice, and not two, since a header is moved with each message, even if it is empty.
        frame: &'a [u8],
        prefix: u16,
    },
    /// The lines before a payload.
    Lines(&'a [u8]),
}

impl<'a> Header<'a> {
    /// A header without bytes.
    pub(crate) const EMPTY: Header<'static> = Header(Parts::Bytes(&[]));

    /// Returns a header of these bytes.
    pub(crate) const fn new(bytes: &'a [u8]) -> Header<'a> {
        Header(Parts::Bytes(bytes))
    }

    pub(super) fn around(items: &'static Items, frame: &'a [u8], prefix: usize) -> Header<'a> {
        let marker = &frame[..prefix];
        match items.has_markers() {
            true if items::is_marker(marker) => Header::new(marker),
            true => Header::EMPTY,
            // Cannot fail: the items of a layout have at most 255 bytes, and its field a few.
            false => match u16::try_from(prefix) {
                Ok(prefix) => Header(Parts::Around { items, frame, prefix }),
                Err(_) => Header::EMPTY,
            },
        }
    }

    pub(super) const fn lines(prefix: &'a [u8]) -> Header<'a> {
        Header(Parts::Lines(prefix))
    }

    fn for_each(&self, mut take: impl FnMut(&'a [u8])) {
        match self.0 {
            Parts::Bytes(bytes) => take(bytes),
            Parts::Around { items, frame, prefix } => {
                let (prefix, trailer) = split(items, frame, prefix);
                items.before.header_of(prefix, &mut take);
                let between = prefix.len().saturating_sub(items.between.len);
                items.between.header_of(&prefix[between..], &mut take);
                items.trailer.header_of(trailer, &mut take);
            }
            Parts::Lines(prefix) => lsp::header_of(prefix, &mut take),
        }
    }

    /// Returns the number of bytes.
    pub fn len(&self) -> usize {
        match self.0 {
            Parts::Bytes(bytes) => bytes.len(),
            Parts::Around { items, .. } => items.header_len(),
            Parts::Lines(_) => {
                let mut len = 0;
                self.for_each(|part| len += part.len());
                len
            }
        }
    }

    /// Returns whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends the bytes to `out`.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        self.for_each(|part| out.extend_from_slice(part));
    }

    /// Returns the bytes, copied only if they are in several places.
    pub(crate) fn to_bytes(self) -> Cow<'a, [u8]> {
        match self.0 {
            Parts::Bytes(bytes) => Cow::Borrowed(bytes),
            _ => Cow::Owned(self.to_vec()),
        }
    }

    /// Returns what was received before and after the payload, if it was in this layout.
    pub(super) fn received_around(&self, layout: &Items) -> Option<(&'a [u8], &'a [u8])> {
        match self.0 {
            Parts::Around { items, frame, prefix } if items == layout => {
                Some(split(items, frame, prefix))
            }
            _ => None,
        }
    }

    /// Returns the lines that were received before the payload, `Content-Length` included.
    pub(super) fn received_lines(&self) -> Option<&'a [u8]> {
        match self.0 {
            Parts::Lines(prefix) => Some(prefix),
            _ => None,
        }
    }

    /// Returns the bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.append_to(&mut bytes);
        bytes
    }
}

/// Returns the prefix and the trailer of a frame.
fn split<'a>(items: &Items, frame: &'a [u8], prefix: u16) -> (&'a [u8], &'a [u8]) {
    (&frame[..usize::from(prefix)], &frame[frame.len() - items.trailer.len..])
}

impl Default for Header<'_> {
    fn default() -> Self {
        Header::EMPTY
    }
}

impl fmt::Debug for Header<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Header({})", SpacedHex(&self.to_vec()))
    }
}

impl PartialEq for Header<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.to_vec() == other.to_vec()
    }
}

impl Eq for Header<'_> {}
