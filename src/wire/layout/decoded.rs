//! What the first bytes of a frame mean, and what can be wrong with them.

use std::fmt;

use crate::wire::count::Count;

/// The longest payload of any layout, in bytes: 2³¹ − 1.
///
/// Many peers hold a length in a signed 32-bit integer, and a 32-bit machine
/// can address no more.
pub const MAX_PAYLOAD: usize = 0x7fff_ffff;

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
        /// The length of the prefix in bytes: of all that precedes the payload.
        prefix: usize,
        /// The payload length that it announces, in bytes; not yet checked against a limit.
        payload: u64,
    },
    /// More bytes are needed.
    Incomplete {
        /// How many bytes are needed at least, counted from the start of the frame.
        need: usize,
    },
}

/// A frame that is not valid in its layout.
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
    /// The length includes the length field but is smaller than the field.
    SmallerThanItself {
        /// The number in the field.
        length: u64,
        /// The width of the field in bytes.
        prefix: usize,
    },
    /// The length is smaller than what it counts beside the payload.
    SmallerThanCounted {
        /// The number in the field.
        length: u64,
        /// The smallest number that makes sense.
        least: u64,
    },
    /// A byte that is fixed by the layout has another value.
    WrongByte {
        /// The offset of the byte in the frame.
        at: usize,
        /// The value that the layout has there.
        expected: u8,
        /// The value that is there.
        found: u8,
    },
    /// A varint that does not end within five bytes, or does not fit 32 bits.
    VarintTooLong,
    /// A varint with a needless trailing zero byte.
    VarintNotShortest,
    /// A BER length of the indefinite form, which says nothing.
    BerIndefinite,
    /// A BER length of more than eight bytes.
    BerTooWide {
        /// How many bytes it would have.
        bytes: usize,
    },
    /// A byte of a length in text that is no digit.
    NotADigit {
        /// The byte.
        found: u8,
    },
    /// A byte of a length in BCD whose halves are not two decimal digits.
    NotBcd {
        /// The byte.
        found: u8,
    },
    /// Digits are followed by something else than their terminator.
    NotTheTerminator {
        /// The byte of the terminator that should be there.
        expected: u8,
        /// The byte that is there.
        found: u8,
    },
    /// A decimal length of variable width begins with a needless zero.
    LeadingZero,
    /// A decimal length of variable width has too many digits.
    TooManyDigits {
        /// The most digits allowed.
        most: usize,
    },
    /// Header lines that are not valid.
    Lines(LineFault),
}

/// What is wrong with header lines.
///
/// # Examples
///
/// ```
/// use framelet::wire::{LineFault, Malformed};
/// use framelet::Layout;
///
/// let lsp: Layout = "lsp".parse()?;
/// let error = lsp.decode(b"Content-Type: text\r\n\r\n").unwrap_err();
/// assert_eq!(error, Malformed::Lines(LineFault::NoLength));
/// # Ok::<(), framelet::wire::ParseLayoutError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LineFault {
    /// There is no `Content-Length`.
    NoLength,
    /// There is more than one `Content-Length`.
    TwoLengths,
    /// The value of `Content-Length` is not a decimal number of at most ten digits.
    NotANumber,
    /// A line has no name before a colon.
    NoName,
    /// A line has a carriage return that is not part of its end.
    CarriageReturn,
    /// The lines have more than 4096 bytes, with CR LF at the end of each.
    TooLong,
}

/// Shows a byte as it would be read in a dump, and as a character if it is one.
struct Byte(u8);

impl fmt::Display for Byte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:02x}", self.0)?;
        match self.0.is_ascii_graphic() {
            true => write!(f, " ({:?})", char::from(self.0)),
            false => Ok(()),
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Malformed::SmallerThanItself { length, prefix } => {
                let prefix = Count(prefix as u64, "byte");
                write!(f, "length {length} is smaller than the {prefix} of the prefix it counts")
            }
            Malformed::SmallerThanCounted { length, least } => {
                let least = Count(least, "byte");
                write!(
                    f,
                    "length {length} is smaller than the {least} it counts beside the payload"
                )
            }
            Malformed::WrongByte { at, expected, found } => {
                let (expected, found) = (Byte(expected), Byte(found));
                write!(f, "byte {at} of the frame is {found}, but the layout has {expected} there")
            }
            Malformed::VarintTooLong => {
                f.write_str("varint does not end within 5 bytes and 32 bits")
            }
            Malformed::VarintNotShortest => {
                f.write_str("varint is not in its shortest form (its last byte is zero)")
            }
            Malformed::BerIndefinite => f.write_str("the BER length is indefinite (0x80)"),
            Malformed::BerTooWide { bytes } => {
                write!(f, "the BER length would have {bytes} bytes, more than 8")
            }
            Malformed::NotADigit { found } => {
                write!(f, "the length should be digits, but has {}", Byte(found))
            }
            Malformed::NotBcd { found } => {
                write!(f, "the length should be two decimal digits a byte, but has {}", Byte(found))
            }
            Malformed::NotTheTerminator { expected, found } => {
                let (expected, found) = (Byte(expected), Byte(found));
                write!(f, "the length should end with {expected}, but has {found}")
            }
            Malformed::LeadingZero => f.write_str("the length begins with a needless zero"),
            Malformed::TooManyDigits { most } => write!(f, "the length has over {most} digits"),
            Malformed::Lines(fault) => fault.fmt(f),
        }
    }
}

impl std::error::Error for Malformed {}

impl fmt::Display for LineFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LineFault::NoLength => "the header lines have no Content-Length",
            LineFault::TwoLengths => "the header lines have more than one Content-Length",
            LineFault::NotANumber => "Content-Length is not a number of at most 10 digits",
            LineFault::NoName => "a header line does not begin with a name and a colon",
            LineFault::CarriageReturn => "a header line has a carriage return before its end",
            LineFault::TooLong => "the header lines have more than 4096 bytes",
        })
    }
}

impl std::error::Error for LineFault {}
