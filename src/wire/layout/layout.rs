//! A layout: what a frame begins and ends with, and what its length counts.

use std::fmt;

use super::decoded::{Decoded, MAX_PAYLOAD, Malformed};
use super::field::{Field, LONGEST_FIELD, NAMES, Number};
use super::header::Header;
use super::items::{self, Items, LengthCounts};
use super::lsp;
use crate::wire::count::Count;

/// How many bytes to reserve for a prefix, so that most need no more memory while they are appended.
pub(crate) const PREFIX_ROOM: usize = LONGEST_FIELD;

/// The default limit on payloads that a reader or writer accepts: 8 MiB.
///
/// tokio-util's codec has the same default, so each accepts what the other sends.
pub const DEFAULT_MAX_MESSAGE: usize = 8 * 1024 * 1024;

/// How a message is framed.
///
/// A layout has one text form everywhere: its items in the order of the bytes on the wire, joined by colons.
/// Exactly one of them is the length. The payload comes last, unless `data` says where it is.
///
/// | item | bytes |
/// |---|---|
/// | `u8 u16be u16le u24be u24le u32be u32le u64be u64le` | a length of that many bits, most (`be`) or least (`le`) significant byte first |
/// | `varint` | a length as the base-128 integer of Protocol Buffers, in its shortest form, of at most 32 bits |
/// | `ber` | a length as in ASN.1: one byte, or 0x80 + n and then n bytes |
/// | `decN` `hexN` | a length of N decimal or hexadecimal digits |
/// | `bcdN` | a length of N decimal digits, two to a byte |
/// | `dec/HEX` | a length in decimal digits that ends with these bytes, such as `dec/0d0a` |
/// | `hN` | N bytes of the message's [header](Header) |
/// | `xHEX` | exactly these bytes |
/// | `data` | the payload |
///
/// A length counts the payload, or with `+self` the payload and the length field, with `+all` the whole
/// frame, with `+N` or `-N` that many more or fewer than the payload.
///
/// Instead of items, the text can be the name of a protocol in [`PRESETS`](super::PRESETS), or `lsp`: header lines with
/// `Content-Length`, an empty line, and the payload.
///
/// # Examples
///
/// ```
/// use framelet::Layout;
///
/// let layout: Layout = "u32le+self".parse()?;
/// assert_eq!(layout.to_string(), "u32le+self");
/// assert_eq!(layout.encode(5)?, [9, 0, 0, 0]);
/// assert_eq!("h1:u32be".parse::<Layout>()?.encode(5)?, [0, 0, 0, 0, 5]);
/// assert!("u32".parse::<Layout>().is_err()); // which byte order?
///
/// let layout: Layout = "h2:u16le:data:h1:xce".parse()?;
/// assert_eq!((layout.header_len(), layout.trailer_len()), (Some(3), 2));
/// assert_eq!(layout.max_payload(), 65_535);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layout(pub(super) Kind);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// `u32be`, of which there is no other form: one comparison tells the default from all others.
    U32be,
    /// Another binary length, and the payload.
    Plain {
        field: Field,
        counts_itself: bool,
    },
    Items(&'static Items),
    /// Header lines with `Content-Length`.
    Lsp,
}

/// A message that cannot be framed.
///
/// # Examples
///
/// ```
/// use framelet::Layout;
/// use framelet::wire::{EncodeError, TooLong};
///
/// let layout: Layout = "u8".parse()?;
/// let too_long = TooLong { length: 300, limit: 255, field: Some(layout) };
/// assert_eq!(layout.encode(300), Err(EncodeError::TooLong(too_long)));
/// # Ok::<(), framelet::wire::ParseLayoutError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// The payload is too long.
    TooLong(TooLong),
    /// The payload is shorter than the layout can say, which has a length of the form `-N`.
    TooShort {
        /// The payload's length in bytes.
        length: usize,
        /// The shortest payload of the layout, in bytes.
        least: usize,
        /// The layout.
        layout: Layout,
    },
    /// The header is not one that the layout has.
    Header {
        /// The header's length in bytes.
        length: usize,
        /// The layout.
        layout: Layout,
    },
}

/// A payload longer than the layout can say, or than the limit.
///
/// # Examples
///
/// ```
/// use framelet::wire::{EncodeError, TooLong, append_frame};
/// use framelet::Layout;
///
/// let error = append_frame(&mut Vec::new(), Layout::U32BE, 4, b"hello").unwrap_err();
/// assert_eq!(error, EncodeError::TooLong(TooLong { length: 5, limit: 4, field: None }));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// The payload's length in bytes.
    pub length: usize,
    /// The longest payload allowed, in bytes.
    pub limit: usize,
    /// The layout, if the limit is that of its length field.
    pub field: Option<Layout>,
}

/// A limit that no frame of the layout can reach. It is an error since longer messages could not be sent.
///
/// # Examples
///
/// ```
/// use framelet::wire::LimitError;
/// use framelet::Layout;
///
/// let layout: Layout = "u8".parse()?;
/// assert_eq!(layout.limit(Some(300)), Err(LimitError { limit: 300, layout }));
/// assert_eq!(layout.limit(None), Ok(255));
/// # Ok::<(), framelet::wire::ParseLayoutError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitError {
    /// The limit asked for, in bytes.
    pub limit: usize,
    /// The layout it was asked for.
    pub layout: Layout,
}

/// The length field of the default layout.
pub(super) const U32BE: Field = Field::Fixed { width: 4, little: false };

impl Layout {
    /// Four bytes, most significant first: the format of Erlang's `{packet, 4}`, Twisted's
    /// `Int32StringReceiver` and many others, and framelet's default.
    pub const U32BE: Layout = Layout(Kind::U32be);

    /// Returns the layout of a binary length and the payload.
    pub(super) fn plain(field: Field, counts_itself: bool) -> Layout {
        match (field, counts_itself) {
            (U32BE, false) => Layout(Kind::U32be),
            _ => Layout(Kind::Plain { field, counts_itself }),
        }
    }

    /// Returns whether it is the default layout, with one comparison.
    #[inline]
    pub(crate) fn is_u32be(self) -> bool {
        matches!(self.0, Kind::U32be)
    }

    /// Returns the field of a layout that is a binary length and the payload, and whether it counts itself.
    fn as_plain(self) -> Option<(Field, bool)> {
        match self.0 {
            Kind::U32be => Some((U32BE, false)),
            Kind::Plain { field, counts_itself } => Some((field, counts_itself)),
            Kind::Items(_) | Kind::Lsp => None,
        }
    }

    /// Returns every layout that is a binary length and the payload; those without `+self` first.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::Layout;
    ///
    /// let one_byte = |layout: &Layout| layout.encode(0).is_ok_and(|prefix| prefix.len() == 1);
    /// let short: Vec<_> = Layout::binary().filter(one_byte).map(|layout| layout.to_string()).collect();
    /// assert_eq!(short, ["u8", "varint", "u8+self"]);
    /// ```
    pub fn binary() -> impl Iterator<Item = Layout> {
        [false, true].into_iter().flat_map(|counts_itself| {
            NAMES
                .into_iter()
                .filter(move |(_, field)| !(counts_itself && *field == Field::Varint))
                .map(move |(_, field)| Layout::plain(field, counts_itself))
        })
    }

    /// Encodes what precedes a payload of `payload` bytes; a header is zeros.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] if the layout cannot say that length. A length is never truncated to fit.
    pub fn encode(self, payload: usize) -> Result<Vec<u8>, EncodeError> {
        self.check(usize::MAX, &[], payload)?;
        let mut prefix = Vec::new();
        self.append_prefix(&[], payload, &mut prefix);
        Ok(prefix)
    }

    /// Checks that a message can be framed.
    #[inline]
    pub(crate) fn check(
        self,
        limit: usize,
        header: &[u8],
        payload: usize,
    ) -> Result<(), EncodeError> {
        if payload > self.max_payload() {
            let limit = self.max_payload();
            return Err(EncodeError::TooLong(TooLong {
                length: payload,
                limit,
                field: Some(self),
            }));
        }
        if payload > limit {
            return Err(EncodeError::TooLong(TooLong { length: payload, limit, field: None }));
        }
        match (self.0, header) {
            (Kind::U32be | Kind::Plain { .. }, []) => Ok(()),
            _ => self.check_header(header, payload),
        }
    }

    #[inline(never)]
    fn check_header(self, header: &[u8], payload: usize) -> Result<(), EncodeError> {
        let fits = match self.0 {
            Kind::U32be | Kind::Plain { .. } => header.is_empty(),
            Kind::Lsp => lsp::is_header(header, payload),
            Kind::Items(items) if items.has_markers() => {
                header.is_empty() || (payload == 0 && items::is_marker(header))
            }
            Kind::Items(items) => header.is_empty() || header.len() == items.header_len(),
        };
        match self.0 {
            _ if !fits => Err(EncodeError::Header { length: header.len(), layout: self }),
            Kind::Items(items) if payload < items.min_payload() => {
                let (length, least) = (payload, items.min_payload());
                Err(EncodeError::TooShort { length, least, layout: self })
            }
            _ => Ok(()),
        }
    }

    /// Appends what precedes a payload, and returns the part of `header` that belongs behind it. Both must
    /// have been [checked](Layout::check).
    #[inline]
    pub(crate) fn append_prefix<'h>(
        self,
        header: &'h [u8],
        payload: usize,
        out: &mut Vec<u8>,
    ) -> &'h [u8] {
        if self.is_u32be() {
            let [.., a, b, c, d] = (payload as u64).to_be_bytes();
            out.extend_from_slice(&[a, b, c, d]);
            return &[];
        }
        self.append_prefix_in(header, payload, out)
    }

    #[inline(never)]
    fn append_prefix_in<'h>(self, header: &'h [u8], payload: usize, out: &mut Vec<u8>) -> &'h [u8] {
        match self.0 {
            Kind::U32be => self.append_prefix(header, payload, out),
            Kind::Plain { field, counts_itself } => {
                let itself = if counts_itself { field.width().unwrap_or(0) } else { 0 };
                field.encode((payload + itself) as u64).append_to(out);
                &[]
            }
            Kind::Items(items) => items.append_prefix(header, payload, out),
            Kind::Lsp => {
                lsp::append_prefix(header, payload, out);
                &[]
            }
        }
    }

    /// Appends what follows a payload, with what [`append_prefix`](Layout::append_prefix) left of the header.
    #[inline]
    pub(crate) fn append_trailer(self, mut header: &[u8], out: &mut Vec<u8>) {
        if let Kind::Items(items) = self.0 {
            items.trailer.append(&mut header, out);
        }
    }

    /// Decodes the prefix at the start of `frame`, which may be shorter or longer than it.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if no valid frame starts with these bytes.
    pub fn decode(self, frame: &[u8]) -> Result<Decoded, Malformed> {
        let (field, counts_itself) = match self.0 {
            Kind::U32be => (U32BE, false),
            Kind::Plain { field, counts_itself } => (field, counts_itself),
            Kind::Items(items) => return items.decode(frame),
            Kind::Lsp => return lsp::decode(frame),
        };
        match field.decode(frame)? {
            Number::Incomplete { need } => Ok(Decoded::Incomplete { need }),
            Number::Whole { width, number } if !counts_itself => {
                Ok(Decoded::Prefix { prefix: width, payload: number })
            }
            Number::Whole { width, number } => match number.checked_sub(width as u64) {
                Some(payload) => Ok(Decoded::Prefix { prefix: width, payload }),
                None => Err(Malformed::SmallerThanItself { length: number, prefix: width }),
            },
        }
    }

    /// Returns how many of the `next` bytes, after the incomplete prefix `begun`, can be given to
    /// [`decode`](Layout::decode) together, if its prefixes have no length that is known early. So header lines
    /// are not decoded anew for each byte.
    #[inline]
    pub(crate) fn rest_of_prefix(self, begun: &[u8], next: &[u8]) -> usize {
        match self.0 {
            Kind::Lsp => lsp::rest_of_prefix(begun, next),
            _ => 0,
        }
    }

    /// Checks what follows the payload of a frame: `bytes`, which may be incomplete, at byte `at` of the frame.
    #[inline]
    pub(crate) fn check_trailer(self, bytes: &[u8], at: usize) -> Result<(), Malformed> {
        match self.0 {
            Kind::Items(items) => items.trailer.check(bytes, at),
            _ => Ok(()),
        }
    }

    /// Returns how many bits of a frame's prefix and trailer are decided by the layout: all but the header's. A
    /// byte that is zero counts half, since zeros are in everything.
    pub(crate) fn proof(self, prefix: &[u8], trailer: &[u8]) -> u32 {
        let weight =
            |bytes: &[u8]| -> u32 { bytes.iter().map(|&byte| if byte == 0 { 4 } else { 8 }).sum() };
        let mut proof = weight(prefix) + weight(trailer);
        if let Kind::Items(items) = self.0 {
            let between = prefix.len() - items.between.len;
            let mut free = |header: &[u8]| proof -= weight(header);
            items.before.header_of(&prefix[..items.before.len], &mut free);
            items.between.header_of(&prefix[between..], &mut free);
            items.trailer.header_of(trailer, &mut free);
        }
        proof
    }

    /// Returns the number of bytes that follow each payload.
    #[inline]
    pub fn trailer_len(self) -> usize {
        match self.0 {
            Kind::Items(items) => items.trailer.len,
            _ => 0,
        }
    }

    /// Returns whether the length is written as text.
    pub(crate) fn has_text_length(self) -> bool {
        match self.0 {
            Kind::U32be | Kind::Plain { .. } => false,
            Kind::Items(items) => {
                matches!(items.field, Field::Decimal(_) | Field::Hex(_) | Field::Until(_))
            }
            Kind::Lsp => true,
        }
    }

    /// Returns whether text ends the length, as in `dec/20`.
    pub(crate) fn ends_length_with_text(self) -> bool {
        matches!(self.0, Kind::Items(Items { field: Field::Until(_), .. }))
    }

    /// Returns whether the number in the length is not zero for an empty payload.
    pub(crate) fn counts_more(self) -> bool {
        match self.0 {
            Kind::Items(items) => items.surplus() > 0,
            _ => self.counts_itself(),
        }
    }

    /// Returns how many bytes a prefix can have, if prefixes are header lines.
    pub(crate) fn longest_lines(self) -> Option<usize> {
        matches!(self.0, Kind::Lsp).then_some(lsp::LONGEST)
    }

    /// Returns whether messages may have a [header](Header).
    pub(crate) fn has_header(self) -> bool {
        self.header_len() != Some(0)
    }

    /// Returns the number of bytes in the [header](Header) of each message, 0 if there is none; `None` if that differs
    /// from message to message.
    pub fn header_len(self) -> Option<usize> {
        match self.0 {
            Kind::U32be | Kind::Plain { .. } => Some(0),
            Kind::Items(items) => (!items.has_markers()).then(|| items.header_len()),
            Kind::Lsp => None,
        }
    }

    /// Returns the header of a frame with a prefix of `prefix` bytes. The payload between that and the trailer
    /// may be missing.
    #[inline]
    pub(crate) fn header(self, frame: &[u8], prefix: usize) -> Header<'_> {
        match self.0 {
            Kind::U32be | Kind::Plain { .. } => Header::EMPTY,
            Kind::Items(items) => Header::around(items, frame, prefix),
            Kind::Lsp => Header::lines(&frame[..prefix]),
        }
    }

    /// Returns all that was received before and after the payload of the message with this header, if it was
    /// received in this layout.
    pub(crate) fn around<'a>(self, header: Header<'a>) -> Option<(&'a [u8], &'a [u8])> {
        match self.0 {
            Kind::U32be | Kind::Plain { .. } => None,
            Kind::Items(items) => header.received_around(items),
            Kind::Lsp => header.received_lines().map(|lines| (lines, &[][..])),
        }
    }

    /// Returns the longest payload this layout can announce, in bytes; never above [`MAX_PAYLOAD`].
    #[inline]
    pub fn max_payload(self) -> usize {
        match self.0 {
            Kind::Plain { field: Field::Fixed { width, .. }, counts_itself } if width < 4 => {
                (1 << (8 * width)) - 1 - if counts_itself { usize::from(width) } else { 0 }
            }
            // A layout without one was refused when it was parsed.
            Kind::Items(items) => items.max_payload().unwrap_or(0),
            _ => MAX_PAYLOAD,
        }
    }

    /// Returns the longest payload to allow, in bytes: `asked`, or else [`DEFAULT_MAX_MESSAGE`] or the
    /// layout's maximum, whichever is smaller.
    ///
    /// # Errors
    ///
    /// [`LimitError`] if no frame of the layout could reach that limit.
    pub fn limit(self, asked: Option<usize>) -> Result<usize, LimitError> {
        match asked {
            Some(limit) if limit > self.max_payload() => Err(LimitError { limit, layout: self }),
            Some(limit) => Ok(limit),
            None => Ok(self.default_limit()),
        }
    }

    pub(crate) fn default_limit(self) -> usize {
        DEFAULT_MAX_MESSAGE.min(self.max_payload())
    }

    /// Returns the layout with the other byte order, if it has one.
    pub(crate) fn other_order(self) -> Option<Layout> {
        match self.as_plain() {
            Some((Field::Fixed { width, little }, counts_itself)) if width > 1 => {
                Some(Layout::plain(Field::Fixed { width, little: !little }, counts_itself))
            }
            _ => None,
        }
    }

    /// Returns the layout that is most like this one among those that are a length of 4 or 8 bytes and the payload.
    pub(crate) fn nearest_wide(self) -> Layout {
        let (field, counts_itself) = match self.0 {
            Kind::Items(items) => {
                let itself = matches!(items.counts, LengthCounts::Itself | LengthCounts::All);
                (items.field, itself)
            }
            _ => self.as_plain().unwrap_or((U32BE, false)),
        };
        let field = match field {
            Field::Fixed { width: 4 | 8, .. } => field,
            Field::Fixed { little, .. } => Field::Fixed { width: 4, little },
            _ => U32BE,
        };
        Layout::plain(field, counts_itself)
    }

    /// Returns the layout that differs only in whether the length includes the prefix.
    pub(crate) fn other_count(self) -> Option<Layout> {
        match self.as_plain() {
            Some((Field::Varint, _)) | None => None,
            Some((field, counts_itself)) => Some(Layout::plain(field, !counts_itself)),
        }
    }

    /// Returns whether the length includes the prefix.
    pub(crate) fn counts_itself(self) -> bool {
        matches!(self.0, Kind::Plain { counts_itself: true, .. })
    }

    /// Returns whether it is a varint and nothing else.
    pub(crate) fn is_varint(self) -> bool {
        matches!(self.as_plain(), Some((Field::Varint, _)))
    }

    /// Returns the length of the prefix in bytes, if it is a binary integer of fixed width and nothing else.
    pub(crate) fn width(self) -> Option<usize> {
        self.as_plain()?.0.width()
    }
}

impl Default for Layout {
    fn default() -> Self {
        Layout::U32BE
    }
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TooLong { length, limit, field } = self;
        let length = Count(*length as u64, "byte");
        match field {
            Some(layout) => {
                write!(f, "message of {length} is more than a {layout} prefix can say ({limit})")
            }
            None => write!(f, "message of {length} is over the limit of {limit}"),
        }
    }
}

impl std::error::Error for TooLong {}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            EncodeError::TooLong(too_long) => too_long.fmt(f),
            EncodeError::TooShort { length, least, layout } => {
                let length = Count(length as u64, "byte");
                write!(f, "message of {length} is less than a {layout} prefix can say ({least})")
            }
            EncodeError::Header { length, layout } => {
                let length = Count(length as u64, "byte");
                match (layout.0, layout.header_len()) {
                    (_, Some(0)) => write!(f, "a header of {length}, but {layout} has none"),
                    (_, Some(len)) => write!(f, "a header of {length}, but {layout} has {len}"),
                    (Kind::Lsp, _) => write!(
                        f,
                        "the header of an lsp message is lines, each with a name, a colon and CR LF, other \
                         than Content-Length, and at most {} bytes with that and the empty line; this one has \
                         {length}",
                        lsp::LONGEST
                    ),
                    _ => write!(
                        f,
                        "the header in {layout} is one of the markers 0000, 0001 and 0002, without a payload"
                    ),
                }
            }
        }
    }
}

impl std::error::Error for EncodeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            EncodeError::TooLong(too_long) => Some(too_long),
            _ => None,
        }
    }
}

impl From<TooLong> for EncodeError {
    fn from(too_long: TooLong) -> EncodeError {
        EncodeError::TooLong(too_long)
    }
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LimitError { limit, layout } = self;
        let max = layout.max_payload();
        let limit = Count(*limit as u64, "byte");
        write!(f, "a limit of {limit} is more than a {layout} message can have ({max})")
    }
}

impl std::error::Error for LimitError {}
