//! Describes where and why a text cannot be decoded.

use std::slice;

use data_encoding::{DecodeError, DecodeKind};

use crate::wire::escape::Escaped;

/// Describes where and why hexadecimal digits cannot be decoded. They may have spaces in between.
pub(crate) fn not_hex(error: DecodeError, line: &[u8]) -> String {
    let digits = line.iter().enumerate().filter(|(_, byte)| !byte.is_ascii_whitespace());
    format!("not hexadecimal: {}", undecodable(error, digits, "odd"))
}

/// Describes where and why Base64 cannot be decoded. It may have spaces around it.
pub(crate) fn not_base64(error: DecodeError, line: &[u8]) -> String {
    let digits = line.iter().enumerate().skip(line.len() - line.trim_ascii_start().len());
    format!(
        "not Base64: {}",
        undecodable(error, digits, "no multiple of 4 (is = missing at the end?)")
    )
}

fn undecodable<'a>(
    error: DecodeError,
    mut digits: impl Iterator<Item = (usize, &'a u8)>,
    length: &str,
) -> String {
    let (index, byte) = digits.nth(error.position).unwrap_or((0, &0));
    let (at, byte) = (index + 1, Escaped(slice::from_ref(byte)));
    match error.kind {
        DecodeKind::Length => format!("the number of digits is {length}"),
        DecodeKind::Symbol => format!("byte {at} is '{byte}'"),
        DecodeKind::Trailing => format!("byte {at} is '{byte}', whose last bits are not zero"),
        DecodeKind::Padding => format!("the padding (=) is wrong at byte {at}"),
    }
}
