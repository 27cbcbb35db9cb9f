//! How a prefix is written: its width, its byte order, and what it counts.
//!
//! ```text
//!   u32be                          u32be+self
//!  ┌──────┬────────────┐          ┌──────┬────────────┐
//!  │ n    │ n bytes    │          │ n+4  │ n bytes    │
//!  └──────┴────────────┘          └──────┴────────────┘
//!   prefix  payload                prefix  payload
//! ```
//!
//! `"hello"` as `u32be` is `00 00 00 05  68 65 6c 6c 6f`, as `u32le` it is
//! `05 00 00 00  68 65 6c 6c 6f`, as `u16be+self` it is `00 07  68 65 6c 6c 6f`.
//!
//! This module is pure: no I/O, no allocation.

use std::fmt;
use std::str::FromStr;

use crate::wire::count::Count;

/// The longest prefix of any layout, in bytes.
pub(crate) const LONGEST_PREFIX: usize = 8;

/// The longest payload of any layout, in bytes: 2³¹ − 1.
///
/// Many peers hold a length in a signed 32-bit integer, and a 32-bit machine
/// can address no more.
pub const MAX_PAYLOAD: usize = 0x7fff_ffff;

/// The default limit on payloads that a reader or writer accepts: 8 MiB.
///
/// tokio-util's codec has the same default, so each accepts what the other sends.
pub const DEFAULT_MAX_MESSAGE: usize = 8 * 1024 * 1024;

/// A varint prefix holds 32 bits, seven to a byte: five bytes at most.
const LONGEST_VARINT: usize = 5;

/// How a prefix is written.
///
/// Layouts have the same text form everywhere: `u8 u16be u16le u24be u24le u32be u32le u64be u64le varint`,
/// with `+self` appended if the length includes the prefix itself.
///
/// `varint` is the base-128 integer of Protocol Buffers (LEB128): seven bits per byte, least significant
/// first, the top bit set on all bytes but the last. It holds 32 bits in at most five bytes, and only the
/// shortest form is accepted.
///
/// # Examples
///
/// ```
/// use framelet::Layout;
///
/// let layout: Layout = "u32le+self".parse()?;
/// assert_eq!(layout.to_string(), "u32le+self");
/// assert_eq!(&*layout.encode(5)?, [9, 0, 0, 0]);
/// assert!("u32".parse::<Layout>().is_err()); // which byte order?
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Layout {
    field: Field,
    counts_itself: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Field {
    Fixed { width: u8, little: bool },
    Varint,
}

/// The name of every layout without `+self`, in the order of the help texts.
const NAMES: [(&str, Field); 10] = [
    ("u8", Field::Fixed { width: 1, little: false }),
    ("u16be", Field::Fixed { width: 2, little: false }),
    ("u16le", Field::Fixed { width: 2, little: true }),
    ("u24be", Field::Fixed { width: 3, little: false }),
    ("u24le", Field::Fixed { width: 3, little: true }),
    ("u32be", Field::Fixed { width: 4, little: false }),
    ("u32le", Field::Fixed { width: 4, little: true }),
    ("u64be", Field::Fixed { width: 8, little: false }),
    ("u64le", Field::Fixed { width: 8, little: true }),
    ("varint", Field::Varint),
];

/// What the first bytes of a frame mean.
///
/// # Examples
///
/// ```
/// use framelet::wire::Decoded;
/// use framelet::Layout;
///
/// let layout = Layout::U32BE;
/// assert_eq!(layout.decode(b"\0\0")?, Decoded::Incomplete { need: 4 });
/// assert_eq!(layout.decode(b"\0\0\0\x02hi")?, Decoded::Prefix { prefix: 4, payload: 2 });
/// # Ok::<(), framelet::wire::Malformed>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A whole prefix.
    Prefix {
        /// The length of the prefix in bytes.
        prefix: usize,
        /// The payload length that it announces, in bytes; not yet checked against a limit.
        payload: u64,
    },
    /// More bytes are needed.
    Incomplete {
        /// How many bytes are needed, counted from the start of the frame.
        need: usize,
    },
}

/// A prefix that is not a valid length.
///
/// # Examples
///
/// ```
/// use framelet::wire::Malformed;
/// use framelet::Layout;
///
/// let layout: Layout = "u16be+self".parse()?;
/// let smaller = Malformed::SmallerThanItself { length: 1, prefix: 2 };
/// assert_eq!(layout.decode(b"\0\x01"), Err(smaller));
/// # Ok::<(), framelet::wire::ParseLayoutError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Malformed {
    /// The length includes the prefix but is smaller than the prefix.
    SmallerThanItself {
        /// The number in the field.
        length: u64,
        /// The width of the field in bytes.
        prefix: usize,
    },
    /// A varint that does not end within five bytes, or does not fit 32 bits.
    VarintTooLong,
    /// A varint with a needless trailing zero byte.
    VarintNotShortest,
}

/// A payload longer than the prefix can express, or than the limit.
///
/// # Examples
///
/// ```
/// use framelet::wire::TooLong;
/// use framelet::Layout;
///
/// let layout: Layout = "u8".parse()?;
/// let too_long = TooLong { length: 300, limit: 255, field: Some(layout) };
/// assert_eq!(layout.encode(300), Err(too_long));
/// # Ok::<(), framelet::wire::ParseLayoutError>(())
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

/// An encoded prefix; dereferences to its bytes.
///
/// # Examples
///
/// ```
/// use framelet::Layout;
///
/// let prefix = Layout::U32BE.encode(5)?;
/// assert_eq!([&prefix[..], b"hello"].concat(), b"\0\0\0\x05hello");
/// # Ok::<(), framelet::wire::TooLong>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    bytes: [u8; LONGEST_PREFIX],
    len: usize,
}

impl Layout {
    /// Four bytes, most significant first: the format of Erlang's `{packet, 4}`, Twisted's
    /// `Int32StringReceiver` and many others, and framelet's default.
    pub const U32BE: Layout =
        Layout { field: Field::Fixed { width: 4, little: false }, counts_itself: false };

    /// Returns every layout, plain ones first.
    pub fn all() -> impl Iterator<Item = Layout> {
        [false, true].into_iter().flat_map(|counts_itself| {
            NAMES
                .into_iter()
                .map(move |(_, field)| Layout { field, counts_itself })
                .filter(|layout| !(layout.counts_itself && layout.field == Field::Varint))
        })
    }

    /// Encodes the prefix of a payload of `payload` bytes.
    ///
    /// # Errors
    ///
    /// [`TooLong`] if the field cannot express that length. A length is never truncated to fit.
    #[inline]
    pub fn encode(self, payload: usize) -> Result<Prefix, TooLong> {
        if payload > self.max_payload() {
            return Err(TooLong { length: payload, limit: self.max_payload(), field: Some(self) });
        }
        let mut bytes = [0; LONGEST_PREFIX];
        let len = match self.field {
            Field::Fixed { width, little } => {
                let width = usize::from(width);
                let number = payload as u64 + if self.counts_itself { width as u64 } else { 0 };
                bytes = match little {
                    true => number.to_le_bytes(),
                    // Its last `width` bytes come first.
                    false => (number << (64 - 8 * width)).to_be_bytes(),
                };
                width
            }
            Field::Varint => {
                let (mut rest, mut len) = (payload, 0);
                loop {
                    bytes[len] = rest.to_le_bytes()[0] & 0x7f;
                    rest >>= 7;
                    if rest == 0 {
                        break len + 1;
                    }
                    bytes[len] |= 0x80;
                    len += 1;
                }
            }
        };
        Ok(Prefix { bytes, len })
    }

    /// Decodes the prefix at the start of `frame`, which may be shorter or longer than it.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if no valid frame starts with these bytes.
    #[inline]
    pub fn decode(self, frame: &[u8]) -> Result<Decoded, Malformed> {
        // The default layout has a fast path: one load instead of a loop, small enough to be inlined.
        if let (Layout::U32BE, &[a, b, c, d, ..]) = (self, frame) {
            let number = u32::from_be_bytes([a, b, c, d]);
            return Ok(Decoded::Prefix { prefix: 4, payload: u64::from(number) });
        }
        self.decode_any(frame)
    }

    #[inline(never)]
    fn decode_any(self, frame: &[u8]) -> Result<Decoded, Malformed> {
        let (width, little) = match self.field {
            Field::Fixed { width, little } => (usize::from(width), little),
            Field::Varint => return decode_varint(frame),
        };
        let Some(field) = frame.get(..width) else {
            return Ok(Decoded::Incomplete { need: width });
        };
        let append = |number: u64, &byte: &u8| number << 8 | u64::from(byte);
        let number = match little {
            false => field.iter().fold(0, append),
            true => field.iter().rfold(0, append),
        };
        if !self.counts_itself {
            return Ok(Decoded::Prefix { prefix: width, payload: number });
        }
        match number.checked_sub(width as u64) {
            Some(payload) => Ok(Decoded::Prefix { prefix: width, payload }),
            None => Err(Malformed::SmallerThanItself { length: number, prefix: width }),
        }
    }

    /// Returns the longest payload this layout can announce, in bytes; never above [`MAX_PAYLOAD`].
    #[inline]
    pub fn max_payload(self) -> usize {
        match self.field {
            Field::Fixed { width, .. } if width < 4 => {
                (1 << (8 * width)) - 1 - if self.counts_itself { usize::from(width) } else { 0 }
            }
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
        match self.field {
            Field::Fixed { width, little } if width > 1 => {
                Some(Layout { field: Field::Fixed { width, little: !little }, ..self })
            }
            _ => None,
        }
    }

    /// Returns the layout that differs only in whether the length includes the prefix.
    pub(crate) fn other_count(self) -> Option<Layout> {
        (self.field != Field::Varint)
            .then_some(Layout { counts_itself: !self.counts_itself, ..self })
    }

    /// Returns whether the length includes the prefix.
    pub(crate) fn counts_itself(self) -> bool {
        self.counts_itself
    }

    /// Returns the width of the field in bytes, if it is fixed.
    pub(crate) fn width(self) -> Option<usize> {
        match self.field {
            Field::Fixed { width, .. } => Some(usize::from(width)),
            Field::Varint => None,
        }
    }
}

fn decode_varint(frame: &[u8]) -> Result<Decoded, Malformed> {
    let mut payload = 0;
    for (index, &byte) in frame.iter().take(LONGEST_VARINT).enumerate() {
        // The fifth byte has room for the top four of 32 bits.
        if index == LONGEST_VARINT - 1 && byte > 0x0f {
            return Err(Malformed::VarintTooLong);
        }
        payload |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            if byte == 0 && index > 0 {
                return Err(Malformed::VarintNotShortest);
            }
            return Ok(Decoded::Prefix { prefix: index + 1, payload });
        }
    }
    Ok(Decoded::Incomplete { need: frame.len() + 1 })
}

impl Default for Layout {
    fn default() -> Self {
        Layout::U32BE
    }
}

impl Prefix {
    /// Returns a prefix with these bytes, at most [`LONGEST_PREFIX`] of them.
    pub(crate) fn new(field: &[u8]) -> Prefix {
        let mut bytes = [0; LONGEST_PREFIX];
        bytes[..field.len()].copy_from_slice(field);
        Prefix { bytes, len: field.len() }
    }

    /// Appends the prefix to `out`: first the whole fixed array, then the surplus is truncated. That takes
    /// two instructions; copying a variable length would be a call.
    #[inline]
    pub(crate) fn append_to(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes);
        out.truncate(out.len() - (LONGEST_PREFIX - self.len));
    }
}

impl std::ops::Deref for Prefix {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name =
            NAMES.iter().find(|(_, field)| *field == self.field).map_or("", |(name, _)| name);
        f.write_str(name)?;
        f.write_str(if self.counts_itself { "+self" } else { "" })
    }
}

impl fmt::Debug for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Layout({self})")
    }
}

/// Not the name of a layout.
///
/// # Examples
///
/// ```
/// use framelet::Layout;
///
/// match "u32".parse::<Layout>() {
///     Ok(layout) => panic!("{layout}"),
///     Err(error) => assert!(error.to_string().starts_with("which byte order? write u32be")),
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseLayoutError(String);

impl FromStr for Layout {
    type Err = ParseLayoutError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, counts_itself) = match text.strip_suffix("+self") {
            Some(name) => (name, true),
            None => (text, false),
        };
        if let Some(&(_, field)) = NAMES.iter().find(|(known, _)| *known == name) {
            if counts_itself && field == Field::Varint {
                return Err(ParseLayoutError(
                    "a varint cannot count itself: its own width depends on the length".into(),
                ));
            }
            return Ok(Layout { field, counts_itself });
        }
        if NAMES.iter().any(|(known, _)| known.strip_suffix("be") == Some(name)) {
            return Err(ParseLayoutError(format!(
                "which byte order? write {name}be (most significant byte first, the usual one) or {name}le"
            )));
        }
        let names = NAMES.map(|(name, _)| name).join(" ");
        Err(ParseLayoutError(format!(
            "no such layout; the layouts are {names}, with +self appended if the length counts its own prefix"
        )))
    }
}

impl fmt::Display for ParseLayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ParseLayoutError {}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Malformed::SmallerThanItself { length, prefix } => {
                let prefix = Count(*prefix as u64, "byte");
                write!(f, "length {length} is smaller than the {prefix} of the prefix it counts")
            }
            Malformed::VarintTooLong => {
                f.write_str("varint does not end within 5 bytes and 32 bits")
            }
            Malformed::VarintNotShortest => {
                f.write_str("varint is not in its shortest form (its last byte is zero)")
            }
        }
    }
}

impl std::error::Error for Malformed {}

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

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LimitError { limit, layout } = self;
        let max = layout.max_payload();
        let limit = Count(*limit as u64, "byte");
        write!(f, "a limit of {limit} is more than a {layout} message can have ({max})")
    }
}

impl std::error::Error for LimitError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(text: &str) -> Layout {
        text.parse().unwrap()
    }

    #[test]
    fn every_layout_has_one_text_form_for_both_directions() {
        assert_eq!(Layout::all().count(), 19);
        for each in Layout::all() {
            assert_eq!(layout(&each.to_string()), each);
        }
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same_length() {
        let mut random = fastrand::Rng::with_seed(1);
        for layout in Layout::all() {
            let max = layout.max_payload();
            let edges =
                [0, 1, 127, 128, 255, 256, 16_383, 16_384, 1 << 21, 3 << 21, 1 << 28, max - 1, max];
            let lengths = edges.into_iter().chain((0..1000).map(|_| random.usize(..=max)));
            for length in lengths.filter(|&length| length <= max) {
                let prefix = layout.encode(length).unwrap();
                let whole = Decoded::Prefix { prefix: prefix.len(), payload: length as u64 };
                assert_eq!(layout.decode(&prefix), Ok(whole), "{layout} {length}");
                for cut in 0..prefix.len() {
                    let part = layout.decode(&prefix[..cut]).unwrap();
                    assert!(
                        matches!(part, Decoded::Incomplete { need } if need > cut && need <= prefix.len())
                    );
                }
            }
            assert!(layout.encode(max + 1).is_err(), "{layout}");
        }
    }

    #[test]
    fn a_length_is_refused_rather_than_shortened() {
        let error = layout("u8").encode(300).unwrap_err();
        assert_eq!(
            error.to_string(),
            "message of 300 bytes is more than a u8 prefix can say (255)"
        );
        assert!(layout("u8+self").encode(255).is_err());
        assert!(layout("u16be").encode(65_536).is_err());
    }

    #[test]
    fn wide_numbers_do_not_wrap() {
        for (bytes, number) in [
            ([0, 0, 0, 1, 0, 0, 0, 3], (1 << 32) + 3),
            ([0x80, 0, 0, 0, 0, 0, 0, 0], 1 << 63),
            ([0xff; 8], u64::MAX),
        ] {
            let decoded = layout("u64be").decode(&bytes);
            assert_eq!(decoded, Ok(Decoded::Prefix { prefix: 8, payload: number }));
        }
    }

    #[test]
    fn texts_that_name_no_layout_say_what_to_write() {
        let say = |text: &str| text.parse::<Layout>().unwrap_err().to_string();
        assert!(say("u32").contains("u32be"));
        assert!(say("varint+self").contains("cannot count itself"));
        assert!(say("u31be").contains("u8 u16be"));
    }
}
