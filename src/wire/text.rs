//! What text looks like, in several encodings.

/// Returns whether a mark says that text in UTF-8 follows, and it does.
pub(crate) fn has_byte_order_mark(start: &[u8]) -> bool {
    start.strip_prefix(b"\xef\xbb\xbf").is_some_and(is_plain_text)
}

/// Returns whether these bytes are text in UTF-16: with a mark, or of letters that are only found in text.
pub(crate) fn is_utf16(start: &[u8]) -> bool {
    let marked = |text: &[u8], decode: fn([u8; 2]) -> u16| {
        text.len() >= 4 && utf16(text, decode).is_some_and(|text| text.iter().all(is_in_words))
    };
    let unmarked = |decode: fn([u8; 2]) -> u16| {
        start.len() >= 8 && utf16(start, decode).is_some_and(|text| is_of_one_alphabet(&text))
    };
    match start {
        [0xff, 0xfe, text @ ..] => marked(text, u16::from_le_bytes),
        [0xfe, 0xff, text @ ..] => marked(text, u16::from_be_bytes),
        _ => unmarked(u16::from_le_bytes) || unmarked(u16::from_be_bytes),
    }
}

/// Decodes the first characters, if they are valid and can be in a text. The last one may be incomplete.
fn utf16(bytes: &[u8], decode: fn([u8; 2]) -> u16) -> Option<Vec<char>> {
    let units = bytes.as_chunks::<2>().0.iter().take(64).map(|&pair| decode(pair));
    let all: Result<Vec<char>, _> = char::decode_utf16(units).collect();
    let is_shown = |c: &char| !c.is_control() || matches!(c, '\r' | '\n' | '\t');
    all.ok().filter(|text| text.iter().all(is_shown))
}

/// Letters, digits, and what is between words: in ASCII, in all languages, and in those of East Asia; and emoji.
fn is_in_words(c: &char) -> bool {
    let is_between = |c: &char| c.is_whitespace() || c.is_ascii_punctuation();
    c.is_alphanumeric()
        || is_between(c)
        || matches!(c, '\u{a1}'..='\u{bf}' | '\u{2010}'..='\u{2060}' | '\u{3000}'..='\u{303f}')
        || matches!(c, '\u{1f000}'..='\u{1faff}')
}

/// Returns whether these are printable ASCII characters, or words in one of the alphabets that follow, up to Thai.
/// Numbers of 16 bits may be such letters, too, but not with spaces between.
fn is_of_one_alphabet(text: &[char]) -> bool {
    let is_ascii = |c: &char| c.is_ascii_graphic() || c.is_ascii_whitespace();
    let block = |c: &char| u32::from(*c) >> 8;
    let mut letters = text.iter().filter(|c| !c.is_ascii()).peekable();
    let Some(first) = letters.peek().map(|first| block(first)) else {
        return text.iter().all(is_ascii);
    };
    (0x03..=0x0e).contains(&first)
        && letters.clone().count() >= 4
        && letters.clone().all(|c| block(c) == first)
        // Marks above and below letters are none.
        && letters.filter(|c| !c.is_alphabetic()).count() * 4 <= text.len()
        && text.iter().all(|c| !c.is_ascii() || is_ascii(c))
        && text.iter().any(char::is_ascii_whitespace)
}

pub(crate) fn is_printable(byte: u8) -> bool {
    matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n')
}

/// Returns whether these bytes are text, as far as they go: at least four characters in UTF-8, or in an encoding
/// that has letters from 0xc0 on, of which more is asked.
pub(crate) fn is_text(bytes: &[u8]) -> bool {
    let sample = &bytes[..bytes.len().min(64)];
    is_plain_text(sample) || is_8_bit_text(sample)
}

pub(crate) fn is_plain_text(sample: &[u8]) -> bool {
    let (mut shown, mut letters) = (0, 0);
    for chunk in sample.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() && !matches!(c, '\r' | '\n' | '\t') {
                return false;
            }
            shown += 1;
            letters += usize::from(c.is_alphanumeric());
        }
        // The sample may end inside a character, but nothing may follow bytes that are not text.
        if !chunk.invalid().is_empty() && !sample.ends_with(chunk.invalid()) {
            return false;
        }
    }
    let has_tail = std::str::from_utf8(sample).is_err_and(|error| error.error_len().is_some());
    !has_tail
        && (shown >= 4 || (shown == 3 && sample.ends_with(b"\n")))
        && (letters > 0 || sample.contains(&b'\n'))
}

fn is_8_bit_text(sample: &[u8]) -> bool {
    let (plain, high): (Vec<u8>, Vec<u8>) = sample.iter().partition(|&&byte| is_printable(byte));
    let separated = plain.iter().filter(|byte| byte.is_ascii_whitespace()).count() >= 2;
    sample.len() >= 8 && separated && high.iter().all(|&byte| byte >= 0xc0)
}
