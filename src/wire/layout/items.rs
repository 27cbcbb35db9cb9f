//! Layouts with more than a length in front of the payload: header bytes, fixed bytes, a trailer.

use std::fmt;

use data_encoding::HEXLOWER_PERMISSIVE;

use super::decoded::{Decoded, MAX_PAYLOAD, Malformed};
use super::field::{Field, Number};

/// The most bytes of all items but the payload.
pub(super) const MOST_AROUND: usize = 255;

/// The items of a layout in wire order, checked and measured.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Items {
    /// What precedes the length.
    pub(super) before: Region,
    pub(super) field: Field,
    pub(super) counts: LengthCounts,
    /// What stands between the length and the payload.
    pub(super) between: Region,
    /// What follows the payload.
    pub(super) trailer: Region,
}

/// What the number in a length field counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LengthCounts {
    /// The payload.
    Payload,
    /// The payload and the field.
    Itself,
    /// The whole frame.
    All,
    /// This many bytes more than the payload.
    More(u32),
    /// This many bytes fewer than the payload.
    Less(u32),
}

/// Neighbouring items other than the length and the payload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Region {
    pub(super) items: Vec<Item>,
    /// The length of all of them in bytes.
    pub(super) len: usize,
    /// How many of these bytes belong to the message's header.
    pub(super) header: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Item {
    /// This many bytes of the message's header.
    Header(usize),
    /// Exactly these bytes.
    Fixed(Vec<u8>),
}

/// Returns whether a header is one of git's markers, which are frames without a payload.
pub(super) fn is_marker(header: &[u8]) -> bool {
    matches!(header, b"0000" | b"0001" | b"0002")
}

impl Region {
    pub(super) fn push(&mut self, item: Item) {
        match &item {
            Item::Header(len) => {
                self.len += len;
                self.header += len;
            }
            Item::Fixed(bytes) => self.len += bytes.len(),
        }
        self.items.push(item);
    }

    /// Checks the fixed bytes among those of `bytes`, which may be incomplete; the first one is byte `at`
    /// of the frame.
    pub(super) fn check(&self, bytes: &[u8], at: usize) -> Result<(), Malformed> {
        let mut from = 0;
        for item in &self.items {
            match item {
                Item::Header(len) => from += len,
                Item::Fixed(fixed) => {
                    let here = bytes.get(from..).unwrap_or_default();
                    let wrong = here.iter().zip(fixed).position(|(found, fixed)| found != fixed);
                    if let Some(index) = wrong {
                        let (expected, found) = (fixed[index], here[index]);
                        let at = at + from + index;
                        return Err(Malformed::WrongByte { at, expected, found });
                    }
                    from += fixed.len();
                }
            }
        }
        Ok(())
    }

    /// Appends the items to `out`. The header's bytes are taken from `header`; if it ends, zeros follow.
    pub(super) fn append(&self, header: &mut &[u8], out: &mut Vec<u8>) {
        for item in &self.items {
            match item {
                Item::Fixed(bytes) => out.extend_from_slice(bytes),
                Item::Header(len) => {
                    let (now, rest) = header.split_at((*len).min(header.len()));
                    out.extend_from_slice(now);
                    out.resize(out.len() + len - now.len(), 0);
                    *header = rest;
                }
            }
        }
    }

    /// Calls `take` with each part of `bytes` that belongs to the header.
    pub(super) fn header_of<'a>(&self, mut bytes: &'a [u8], take: &mut impl FnMut(&'a [u8])) {
        for item in &self.items {
            let len = match item {
                Item::Header(len) => *len,
                Item::Fixed(fixed) => fixed.len(),
            };
            let (here, rest) = bytes.split_at(len.min(bytes.len()));
            if let Item::Header(_) = item {
                take(here);
            }
            bytes = rest;
        }
    }
}

impl Items {
    /// Returns how much larger than the payload's length the number is. A field that counts itself or the
    /// frame has a fixed width.
    pub(super) fn surplus(&self) -> i64 {
        let field = self.field.width().unwrap_or(0);
        let around = self.before.len + self.between.len + self.trailer.len;
        match self.counts {
            LengthCounts::Payload => 0,
            // Cannot fail: these are at most 255 bytes and a field.
            LengthCounts::Itself => i64::try_from(field).unwrap_or(0),
            LengthCounts::All => i64::try_from(field + around).unwrap_or(0),
            LengthCounts::More(more) => i64::from(more),
            LengthCounts::Less(less) => -i64::from(less),
        }
    }

    /// Returns whether the numbers 0 to 2 are markers without a payload, as in git's pkt-line.
    pub(super) fn has_markers(&self) -> bool {
        let alone = self.before.len + self.between.len + self.trailer.len == 0;
        alone && self.field == Field::Hex(4) && self.counts == LengthCounts::Itself
    }

    /// Returns the number of bytes in the header of each message.
    pub(super) fn header_len(&self) -> usize {
        self.before.header + self.between.header + self.trailer.header
    }

    /// Returns the shortest payload whose length can be written.
    pub(super) fn min_payload(&self) -> usize {
        usize::try_from(-self.surplus()).unwrap_or(0)
    }

    /// Returns the longest payload whose length can be written, if there is any.
    pub(super) fn max_payload(&self) -> Option<usize> {
        let max = i128::from(self.field.max()) - i128::from(self.surplus());
        usize::try_from(max.min(MAX_PAYLOAD as i128)).ok().filter(|&max| max >= self.min_payload())
    }

    /// Appends what precedes a payload of `payload` bytes, and returns the part of `header` that belongs
    /// to the trailer.
    pub(super) fn append_prefix<'h>(
        &self,
        mut header: &'h [u8],
        payload: usize,
        out: &mut Vec<u8>,
    ) -> &'h [u8] {
        if self.has_markers() && !header.is_empty() {
            out.extend_from_slice(header);
            return &[];
        }
        let number = (payload as u64).wrapping_add_signed(self.surplus());
        self.before.append(&mut header, out);
        self.field.encode(number).append_to(out);
        self.between.append(&mut header, out);
        header
    }

    pub(super) fn decode(&self, frame: &[u8]) -> Result<Decoded, Malformed> {
        let (before, between) = (self.before.len, self.between.len);
        self.before.check(frame, 0)?;
        let number = self.field.decode(frame.get(before..).unwrap_or_default())?;
        let (width, number) = match number {
            Number::Whole { width, number } => (width, number),
            Number::Incomplete { need } => return Ok(Decoded::Incomplete { need: before + need }),
        };
        let prefix = before + width + between;
        let behind = frame.get(before + width..).unwrap_or_default();
        self.between.check(behind, before + width)?;
        let payload = self.payload(number)?;
        Ok(match frame.len() < prefix {
            true => Decoded::Incomplete { need: prefix },
            false => Decoded::Prefix { prefix, payload },
        })
    }

    /// Returns the length of the payload that `number` announces.
    fn payload(&self, number: u64) -> Result<u64, Malformed> {
        let surplus = self.surplus();
        match number.checked_add_signed(-surplus) {
            Some(payload) => Ok(payload),
            None if surplus < 0 => Ok(u64::MAX),
            None if self.has_markers() && number <= 2 => Ok(0),
            None if self.counts == LengthCounts::Itself => {
                let prefix = self.field.width().unwrap_or(0);
                Err(Malformed::SmallerThanItself { length: number, prefix })
            }
            None => {
                let least = surplus.unsigned_abs();
                Err(Malformed::SmallerThanCounted { length: number, least })
            }
        }
    }
}

impl fmt::Display for Items {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for item in &self.before.items {
            write!(f, "{item}:")?;
        }
        self.field.fmt(f)?;
        match self.counts {
            LengthCounts::Payload => {}
            LengthCounts::Itself => f.write_str("+self")?,
            LengthCounts::All => f.write_str("+all")?,
            LengthCounts::More(more) => write!(f, "+{more}")?,
            LengthCounts::Less(less) => write!(f, "-{less}")?,
        }
        for item in &self.between.items {
            write!(f, ":{item}")?;
        }
        if self.trailer.len > 0 {
            f.write_str(":data")?;
        }
        for item in &self.trailer.items {
            write!(f, ":{item}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Item::Header(len) => write!(f, "h{len}"),
            Item::Fixed(bytes) => write!(f, "x{}", HEXLOWER_PERMISSIVE.encode(bytes)),
        }
    }
}
