//! The length field: how a number is written.

use std::fmt;

use data_encoding::HEXLOWER_PERMISSIVE;

use super::decoded::Malformed;

/// The longest length field, in bytes.
pub(super) const LONGEST_FIELD: usize = 16;

/// A varint holds 32 bits, seven to a byte: five bytes at most.
const LONGEST_VARINT: usize = 5;

/// The most digits of a decimal number that ends with a terminator. Ten can say every length below 2³¹.
const MOST_LENGTH_DIGITS: usize = 10;

/// How the number in a length field is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Field {
    /// A binary integer of this many bytes.
    Fixed { width: u8, little: bool },
    /// The base-128 integer of Protocol Buffers.
    Varint,
    /// The length of ASN.1's basic encoding rules: one byte, or 0x80 + n and then n bytes.
    Ber,
    /// This many decimal digits of text.
    Decimal(u8),
    /// This many hexadecimal digits of text.
    Hex(u8),
    /// This many decimal digits, two to a byte.
    Bcd(u8),
    /// Decimal digits of text up to a terminator.
    Until(Terminator),
}

/// The name of every binary length field, in the order of the help texts.
pub(super) const NAMES: [(&str, Field); 10] = [
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

/// The bytes that end a decimal number: one to four, the first of which is no digit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Terminator {
    bytes: [u8; Terminator::LONGEST],
    len: u8,
}

impl Terminator {
    pub(super) const LONGEST: usize = 4;

    /// Returns the terminator with these bytes, if it can be told from digits.
    pub(super) fn new(text: &[u8]) -> Option<Terminator> {
        let can_end = text.first().is_some_and(|first| !first.is_ascii_digit());
        let len = u8::try_from(text.len()).ok().filter(|_| text.len() <= Self::LONGEST)?;
        let mut bytes = [0; Self::LONGEST];
        bytes[..text.len()].copy_from_slice(text);
        can_end.then_some(Terminator { bytes, len })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// An encoded length field; dereferences to its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    bytes: [u8; LONGEST_FIELD],
    len: usize,
}

impl Prefix {
    /// Returns a prefix with these bytes, at most [`LONGEST_FIELD`] of them.
    pub(super) fn new(field: &[u8]) -> Prefix {
        let mut bytes = [0; LONGEST_FIELD];
        bytes[..field.len()].copy_from_slice(field);
        Prefix { bytes, len: field.len() }
    }

    /// Returns a prefix with the first `len` bytes of an array.
    #[inline]
    fn from_array(array: [u8; 8], len: usize) -> Prefix {
        let mut bytes = [0; LONGEST_FIELD];
        bytes[..8].copy_from_slice(&array);
        Prefix { bytes, len }
    }

    /// Appends the prefix to `out`: first the whole fixed array, then the surplus is truncated. That takes
    /// two instructions; copying a variable length would be a call.
    #[inline]
    pub(super) fn append_to(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.bytes);
        out.truncate(out.len() - (LONGEST_FIELD - self.len));
    }
}

impl std::ops::Deref for Prefix {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// What the first bytes of a field say.
pub(super) enum Number {
    /// A whole field: its width in bytes, and the number in it.
    Whole { width: usize, number: u64 },
    /// More bytes are needed: this many, counted from the start of the field.
    Incomplete { need: usize },
}

impl Field {
    /// Returns the width in bytes, if all numbers have the same one.
    #[inline]
    pub(super) fn width(self) -> Option<usize> {
        match self {
            Field::Fixed { width, .. } => Some(usize::from(width)),
            Field::Decimal(digits) | Field::Hex(digits) => Some(usize::from(digits)),
            Field::Bcd(digits) => Some(usize::from(digits / 2)),
            Field::Varint | Field::Ber | Field::Until(_) => None,
        }
    }

    /// Returns the largest number that the field can say.
    pub(super) fn max(self) -> u64 {
        match self {
            Field::Fixed { width, .. } => u64::MAX >> (64 - 8 * u32::from(width)),
            Field::Varint => u64::from(u32::MAX),
            Field::Ber => u64::MAX,
            Field::Decimal(digits) | Field::Bcd(digits) => 10_u64.pow(u32::from(digits)) - 1,
            Field::Hex(digits) => u64::MAX >> (64 - 4 * u32::from(digits)),
            Field::Until(_) => 9_999_999_999,
        }
    }

    /// Encodes `number`, which must be at most [`max`](Field::max).
    #[inline]
    pub(super) fn encode(self, number: u64) -> Prefix {
        match self {
            Field::Fixed { width, little } => {
                let bytes = match little {
                    true => number.to_le_bytes(),
                    // Its last `width` bytes come first.
                    false => (number << (64 - 8 * u32::from(width))).to_be_bytes(),
                };
                Prefix::from_array(bytes, usize::from(width))
            }
            _ => self.encode_any(number),
        }
    }

    #[inline(never)]
    fn encode_any(self, mut number: u64) -> Prefix {
        match self {
            Field::Fixed { .. } => self.encode(number),
            Field::Varint => {
                let (mut bytes, mut len) = ([0; 8], 0);
                loop {
                    bytes[len] = number.to_le_bytes()[0] & 0x7f;
                    number >>= 7;
                    len += 1;
                    if number == 0 {
                        break Prefix::from_array(bytes, len);
                    }
                    bytes[len - 1] |= 0x80;
                }
            }
            Field::Ber if number < 0x80 => Prefix::new(&number.to_le_bytes()[..1]),
            Field::Ber => {
                let bytes = number.to_be_bytes();
                let significant = &bytes[number.leading_zeros() as usize / 8..];
                Prefix::new(&[&[0x80 | significant.len().to_le_bytes()[0]], significant].concat())
            }
            Field::Decimal(digits) => last_digits::<10>(number, usize::from(digits)),
            Field::Hex(digits) => last_digits::<16>(number, usize::from(digits)),
            Field::Bcd(digits) => {
                let text = last_digits::<10>(number, usize::from(digits));
                let pair = |pair: &[u8]| (pair[0] - b'0') << 4 | (pair[1] - b'0');
                Prefix::new(&text.chunks(2).map(pair).collect::<Vec<u8>>())
            }
            Field::Until(terminator) => {
                let digits = number.checked_ilog10().unwrap_or(0) as usize + 1;
                Prefix::new(&[&*last_digits::<10>(number, digits), terminator.bytes()].concat())
            }
        }
    }

    /// Decodes the field at the start of `bytes`, which may be shorter or longer than it.
    #[inline(never)]
    pub(super) fn decode(self, bytes: &[u8]) -> Result<Number, Malformed> {
        if let Field::Varint | Field::Ber | Field::Until(_) = self {
            return match self {
                Field::Varint => varint(bytes),
                Field::Until(terminator) => decimal_until(terminator.bytes(), bytes),
                _ => ber(bytes),
            };
        }
        let width = self.width().unwrap_or(0);
        let here = &bytes[..width.min(bytes.len())];
        let number = match self {
            Field::Decimal(_) => digits::<10>(here)?,
            Field::Hex(_) => digits::<16>(here)?,
            Field::Bcd(_) => {
                here.iter().try_fold(0, |number, &byte| match (byte >> 4, byte & 15) {
                    (high @ ..=9, low @ ..=9) => Ok(number * 100 + u64::from(high * 10 + low)),
                    _ => Err(Malformed::NotBcd { found: byte }),
                })?
            }
            Field::Fixed { little: true, .. } => here.iter().rfold(0, append_byte),
            _ => here.iter().fold(0, append_byte),
        };
        Ok(match here.len() == width {
            true => Number::Whole { width, number },
            false => Number::Incomplete { need: width },
        })
    }
}

fn append_byte(number: u64, &byte: &u8) -> u64 {
    number << 8 | u64::from(byte)
}

/// Returns the last `count` digits of `number`.
fn last_digits<const BASE: u64>(mut number: u64, count: usize) -> Prefix {
    let mut text = [0; LONGEST_FIELD];
    for digit in text[..count].iter_mut().rev() {
        *digit = match (number % BASE).to_le_bytes()[0] {
            value @ ..10 => b'0' + value,
            value => b'a' + value - 10,
        };
        number /= BASE;
    }
    Prefix::new(&text[..count])
}

fn digits<const BASE: u32>(text: &[u8]) -> Result<u64, Malformed> {
    text.iter().try_fold(0, |number, &byte| match char::from(byte).to_digit(BASE) {
        Some(digit) => Ok(number * u64::from(BASE) + u64::from(digit)),
        None => Err(Malformed::NotADigit { found: byte }),
    })
}

fn decimal_until(terminator: &[u8], bytes: &[u8]) -> Result<Number, Malformed> {
    let count =
        bytes.iter().take(MOST_LENGTH_DIGITS).take_while(|byte| byte.is_ascii_digit()).count();
    let (text, rest) = bytes.split_at(count);
    let number = digits::<10>(text)?;
    if count > 1 && text[0] == b'0' {
        return Err(Malformed::LeadingZero);
    }
    if count == 0 && !rest.is_empty() {
        return Err(Malformed::NotADigit { found: rest[0] });
    }
    if rest.first().is_some_and(u8::is_ascii_digit) {
        return Err(Malformed::TooManyDigits { most: MOST_LENGTH_DIGITS });
    }
    if let Some((&found, &expected)) = rest.iter().zip(terminator).find(|(a, b)| a != b) {
        return Err(Malformed::NotTheTerminator { expected, found });
    }
    let width = count + terminator.len();
    Ok(match bytes.len() >= width && count > 0 {
        true => Number::Whole { width, number },
        false => Number::Incomplete { need: width.max(1 + terminator.len()) },
    })
}

fn ber(bytes: &[u8]) -> Result<Number, Malformed> {
    let Some((&first, rest)) = bytes.split_first() else {
        return Ok(Number::Incomplete { need: 1 });
    };
    let count = usize::from(first & 0x7f);
    match (first, count) {
        (..0x80, _) => return Ok(Number::Whole { width: 1, number: u64::from(first) }),
        (_, 0) => return Err(Malformed::BerIndefinite),
        (_, 9..) => return Err(Malformed::BerTooWide { bytes: count }),
        _ => {}
    }
    Ok(match rest.get(..count) {
        Some(field) => {
            Number::Whole { width: 1 + count, number: field.iter().fold(0, append_byte) }
        }
        None => Number::Incomplete { need: 1 + count },
    })
}

fn varint(bytes: &[u8]) -> Result<Number, Malformed> {
    let mut number = 0;
    for (index, &byte) in bytes.iter().take(LONGEST_VARINT).enumerate() {
        // The fifth byte has room for the top four of 32 bits.
        if index == LONGEST_VARINT - 1 && byte > 0x0f {
            return Err(Malformed::VarintTooLong);
        }
        number |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            if byte == 0 && index > 0 {
                return Err(Malformed::VarintNotShortest);
            }
            return Ok(Number::Whole { width: index + 1, number });
        }
    }
    Ok(Number::Incomplete { need: bytes.len() + 1 })
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Field::Ber => f.write_str("ber"),
            Field::Decimal(digits) => write!(f, "dec{digits}"),
            Field::Hex(digits) => write!(f, "hex{digits}"),
            Field::Bcd(digits) => write!(f, "bcd{digits}"),
            Field::Until(terminator) => {
                write!(f, "dec/{}", HEXLOWER_PERMISSIVE.encode(terminator.bytes()))
            }
            Field::Fixed { .. } | Field::Varint => {
                let name = NAMES.iter().find(|(_, field)| field == self);
                f.write_str(name.map_or("", |(name, _)| name))
            }
        }
    }
}
