//! Whom a certificate names, as text.
//!
//! The certificate has been verified. What is left is to show its subject, in the form of RFC 4514: the last part
//! first, as in `CN=router7,O=Example`.

use std::fmt::Write;

use data_encoding::HEXLOWER;
use rustls::pki_types::CertificateDer;

/// The subject of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Subject {
    /// In words; empty if the certificate names nobody.
    pub(super) text: String,
    /// Its last common name.
    pub(super) common_name: Option<String>,
}

/// The attributes that RFC 4514 abbreviates, and two more that are common.
const NAMES: [(&[u8], &str); 10] = [
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 5], "serialNumber"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], "emailAddress"),
];

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;

/// Returns whom a certificate names.
pub(super) fn of(certificate: &CertificateDer<'_>) -> Subject {
    let parsed = webpki::EndEntityCert::try_from(certificate);
    parsed.ok().and_then(|certificate| subject(certificate.subject())).unwrap_or_default()
}

/// Reads a list of sets of attributes.
fn subject(mut name: &[u8]) -> Option<Subject> {
    let mut subject = Subject::default();
    let mut parts = Vec::new();
    while !name.is_empty() {
        let mut set = value(&mut name, SET)?;
        let mut part = String::new();
        while !set.is_empty() {
            let mut attribute = value(&mut set, SEQUENCE)?;
            let kind = value(&mut attribute, OBJECT_IDENTIFIER)?;
            let whole = attribute;
            let (tag, bytes) = next(&mut attribute)?;
            let text = text(tag, bytes);
            let name = NAMES.iter().find(|(known, _)| *known == kind).map(|(_, name)| *name);
            if !part.is_empty() {
                part.push('+');
            }
            part += &name.map_or_else(|| identifier(kind), str::to_owned);
            part.push('=');
            match text {
                Some(text) => {
                    part += &escaped(&text);
                    if name == Some("CN") {
                        subject.common_name = Some(text);
                    }
                }
                None => {
                    part.push('#');
                    part += &HEXLOWER.encode(&whole[..whole.len() - attribute.len()]);
                }
            }
        }
        parts.push(part);
    }
    parts.reverse();
    subject.text = parts.join(",");
    Some(subject)
}

/// Takes the next value if it has this tag.
fn value<'a>(bytes: &mut &'a [u8], expected: u8) -> Option<&'a [u8]> {
    next(bytes).filter(|(tag, _)| *tag == expected).map(|(_, value)| value)
}

/// Takes the next tag and its value.
fn next<'a>(bytes: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&[tag, first], mut rest) = bytes.split_first_chunk()?;
    let mut length = usize::from(first);
    if first >= 0x80 {
        let (digits, after) = rest.split_at_checked(usize::from(first & 0x7f).min(4))?;
        length = digits.iter().fold(0, |length, &digit| length << 8 | usize::from(digit));
        rest = after;
    }
    let (value, after) = rest.split_at_checked(length)?;
    *bytes = after;
    Some((tag, value))
}

/// Returns a string of any of the kinds that certificates have; `None` if it is something else.
fn text(tag: u8, bytes: &[u8]) -> Option<String> {
    Some(match tag {
        // BMPString: UTF-16, big-endian.
        0x1e => {
            let units = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
        }
        0x0c | 0x12..=0x16 | 0x1a => String::from_utf8_lossy(bytes).into_owned(),
        _ => return None,
    })
}

/// Returns a value with the escapes of RFC 4514.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for (at, c) in text.char_indices() {
        let at_edge = at == 0 && (c == ' ' || c == '#') || at + 1 == text.len() && c == ' ';
        if at_edge || matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// Returns an object identifier in dotted decimals.
fn identifier(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut number = 0_u64;
    for &byte in bytes {
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            match text.is_empty() {
                true => {
                    let first = (number / 40).min(2);
                    let _ = write!(text, "{first}.{}", number - 40 * first);
                }
                false => {
                    let _ = write!(text, ".{number}");
                }
            }
            number = 0;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a value of this tag.
    fn value(tag: u8, content: &[u8]) -> Vec<u8> {
        [&[tag, u8::try_from(content.len()).unwrap()], content].concat()
    }

    fn common_name(name: &[u8]) -> Subject {
        let kind = value(OBJECT_IDENTIFIER, &[0x55, 4, 3]);
        subject(&value(SET, &value(SEQUENCE, &[&kind, name].concat()))).unwrap()
    }

    #[test]
    fn what_is_no_string_is_no_common_name_and_no_other_name() {
        let number = common_name(&value(2, &[7]));
        assert_eq!((&*number.text, number.common_name), ("CN=#020107", None));
        let string = common_name(&value(0x0c, b"#020107"));
        assert_eq!((&*string.text, &*string.common_name.unwrap()), ("CN=\\#020107", "#020107"));
    }
}
