//! MessagePack and CBOR: maps whose keys are words.
//!
//! Nearly any bytes are values in these formats. So there have to be words, and everything else has to be valid as far
//! as it goes; a word in the one format is a map or a number in the other.

/// How deep values may lie in others. No message comes near it, and a stream must not decide how deep this recurses.
const DEPTH: usize = 32;

/// So many bytes of words, with those that say how long they are, are enough.
const ENOUGH: usize = 3;

/// Words that begin with a letter if that says how long they are, as in CBOR, are at least this long.
const SHORTEST: usize = 2;

/// How far a value could be read.
enum End {
    /// It ends before the bytes do.
    Cut,
    /// It is not valid, or nothing that a program would write.
    Invalid,
}

/// Reads values.
struct Reader<'a> {
    rest: &'a [u8],
    /// How many bytes of words were read.
    words: usize,
}

/// Returns whether these bytes are maps or lists of MessagePack, with words in the first.
pub(super) fn is_message_pack(start: &[u8]) -> bool {
    matches!(start, [0x81..=0x8f | 0x92..=0x9f, ..])
        && are_values(start, |reader| match reader.rest.first() {
            Some(0x80..=0x9f | 0xdc..=0xdf) => reader.message_pack(DEPTH, false),
            _ => Err(End::Invalid),
        })
}

/// Returns whether these bytes are maps of CBOR, or lists of them, with words in the first.
pub(super) fn is_cbor(start: &[u8]) -> bool {
    let content = start.strip_prefix(b"\xd9\xd9\xf7").unwrap_or(start);
    matches!(content, [0xa1..=0xb7 | 0xbf, ..] | [0x81..=0x97 | 0x9f, 0xa1..=0xb7 | 0xbf, ..])
        && are_values(content, |reader| match reader.rest.first() {
            Some(0x80..=0xbf) => reader.cbor(DEPTH, false),
            _ => Err(End::Invalid),
        })
}

/// Returns whether one value after another can be read, up to the end; the last one may be incomplete.
fn are_values(bytes: &[u8], read: impl Fn(&mut Reader<'_>) -> Result<(), End>) -> bool {
    let mut reader = Reader { rest: bytes, words: 0 };
    while !reader.rest.is_empty() {
        match read(&mut reader) {
            Ok(()) => {}
            Err(End::Cut) => return reader.words > ENOUGH,
            Err(End::Invalid) => return false,
        }
    }
    reader.words >= ENOUGH
}

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, End> {
        let (&byte, rest) = self.rest.split_first().ok_or(End::Cut)?;
        self.rest = rest;
        Ok(byte)
    }

    fn number(&mut self, width: usize) -> Result<usize, End> {
        let mut number = 0usize;
        for _ in 0..width {
            number =
                number.checked_mul(256).ok_or(End::Invalid)?.saturating_add(self.byte()?.into());
        }
        Ok(number)
    }

    fn skip(&mut self, len: usize) -> Result<(), End> {
        self.rest = self.rest.get(len..).ok_or(End::Cut)?;
        Ok(())
    }

    /// Reads a text, which has to be one.
    fn text(&mut self, len: usize, shortest: usize, is_key: bool) -> Result<(), End> {
        let Some((text, rest)) = self.rest.split_at_checked(len) else {
            return Err(match self.rest.iter().any(u8::is_ascii_control) && is_key {
                true => End::Invalid,
                false => End::Cut,
            });
        };
        let text = std::str::from_utf8(text).map_err(|_| End::Invalid)?;
        if is_key && text.contains(char::is_control) {
            return Err(End::Invalid);
        }
        // A word is only one if something follows it.
        if len >= shortest && text.chars().any(char::is_alphanumeric) && !rest.is_empty() {
            self.words += 1 + len;
        }
        self.rest = rest;
        Ok(())
    }

    /// The formats of MessagePack, as its specification lists them.
    fn message_pack(&mut self, depth: usize, is_key: bool) -> Result<(), End> {
        let format = self.byte()?;
        let is_text = matches!(format, 0xa0..=0xbf | 0xd9..=0xdb);
        if depth == 0 || format == 0xc1 || (is_key && !is_text) {
            return Err(End::Invalid);
        }
        match format {
            0x80..=0x8f => self.message_pack_items(depth, (format & 0xf).into(), true),
            0x90..=0x9f => self.message_pack_items(depth, (format & 0xf).into(), false),
            0xa0..=0xbf => self.text((format & 0x1f).into(), 1, is_key),
            0xc4..=0xc6 => self.number(1 << (format - 0xc4)).and_then(|len| self.skip(len)),
            0xc7..=0xc9 => {
                let len = self.number(1 << (format - 0xc7))?;
                self.skip(1 + len)
            }
            0xca => self.skip(4),
            0xcb => self.skip(8),
            0xcc..=0xcf => self.skip(1 << (format - 0xcc)),
            0xd0..=0xd3 => self.skip(1 << (format - 0xd0)),
            0xd4..=0xd8 => self.skip(1 + (1 << (format - 0xd4))),
            0xd9..=0xdb => {
                self.number(1 << (format - 0xd9)).and_then(|len| self.text(len, 1, is_key))
            }
            0xdc | 0xdd => {
                let items = self.number(2 << (format - 0xdc))?;
                self.message_pack_items(depth, items, false)
            }
            0xde | 0xdf => {
                let items = self.number(2 << (format - 0xde))?;
                self.message_pack_items(depth, items, true)
            }
            // Small numbers, nil, and the two truths.
            _ => Ok(()),
        }
    }

    fn message_pack_items(&mut self, depth: usize, items: usize, is_map: bool) -> Result<(), End> {
        for _ in 0..items {
            if is_map {
                self.message_pack(depth - 1, true)?;
            }
            self.message_pack(depth - 1, false)?;
        }
        Ok(())
    }

    /// RFC 8949, 3: a major type in three bits, and a number. Keys may be numbers, too, as in SenML.
    fn cbor(&mut self, depth: usize, is_key: bool) -> Result<(), End> {
        let first = self.byte()?;
        let (kind, more) = (first >> 5, first & 0x1f);
        if depth == 0 || (is_key && !matches!(kind, 0 | 1 | 3)) {
            return Err(End::Invalid);
        }
        let number = match more {
            0..24 => usize::from(more),
            24..28 => self.number(1 << (more - 24))?,
            // Items up to a stop.
            31 if matches!(kind, 4 | 5) => usize::MAX,
            _ => return Err(End::Invalid),
        };
        match kind {
            2 => self.skip(number),
            3 => self.text(number, SHORTEST, is_key),
            4 | 5 => {
                for _ in 0..number {
                    if more == 31 && self.rest.first() == Some(&0xff) {
                        return self.skip(1);
                    }
                    if kind == 5 {
                        self.cbor(depth - 1, true)?;
                    }
                    self.cbor(depth - 1, false)?;
                }
                Ok(())
            }
            6 => self.cbor(depth - 1, false),
            // Numbers; a float has its bytes in place of the number.
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_is_told_from_the_other() {
        for message_pack in [
            &b"\x82\xa2id\x07\xa4name\xa4pump"[..],
            b"\x92\x82\xa1a\x01\xa1b\x02\x82\xa1a\x03\xa1b\x04",
        ] {
            assert!(is_message_pack(message_pack) && !is_cbor(message_pack));
        }
        for cbor in [
            &b"\xa2bid\x07dnamedpump"[..],
            b"\x82\xa1bid\x01\xa1bid\x02",
            b"\xbfbid\x07\xff",
            b"\xd9\xd9\xf7\xa1bid\x07",
        ] {
            assert!(is_cbor(cbor) && !is_message_pack(cbor));
        }
    }

    #[test]
    fn what_is_not_valid_to_the_end_is_neither() {
        for bytes in [
            &b"\x81\xa2id\xc1"[..],
            b"\x81\xa2id\x01ab",
            b"\xa1bid\x1f",
            b"\x81\x02\xa2id",
            b"\x81\xa1a\x01",
        ] {
            assert!(!is_message_pack(bytes) && !is_cbor(bytes), "{bytes:x?}");
        }
    }

    #[test]
    fn depth_and_counts_are_bounded() {
        assert!(!is_message_pack(&[0x91; 100_000]));
        assert!(!is_cbor(&[&[0x81][..], &[0xbf; 100_000]].concat()));
        assert!(!is_message_pack(b"\x81\xa2id\xdf\xff\xff\xff\xff"));
    }
}
