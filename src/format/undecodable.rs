//! Describes where and why a text cannot be decoded.

use std::slice;

use data_encoding::{DecodeError, DecodeKind};

use crate::wire::escape::Escaped;

/// Describes which byte is no hexadecimal digit.
pub(crate) fn not_hex(index: usize, byte: u8) -> String {
    let (at, byte) = (index + 1, Escaped(slice::from_ref(&byte)));
    format!("not hexadecimal: byte {at} is '{byte}'")
}

/// Describes where and why Base64 cannot be decoded. It may have spaces around it.
pub(crate) fn not_base64(error: DecodeError, line: &[u8]) -> String {
    let mut digits = line.iter().enumerate().skip(line.len() - line.trim_ascii_start().len());
    let (index, byte) = digits.nth(error.position).unwrap_or((0, &0));
    let (at, byte) = (index + 1, Escaped(slice::from_ref(byte)));
    let what = match error.kind {
        DecodeKind::Length => {
            "the number of digits is no multiple of 4 (is = missing at the end?)".into()
        }
        DecodeKind::Symbol => format!("byte {at} is '{byte}'"),
        DecodeKind::Trailing => format!("byte {at} is '{byte}', whose last bits are not zero"),
        DecodeKind::Padding => format!("the padding (=) is wrong at byte {at}"),
    };
    format!("not Base64: {what}")
}
