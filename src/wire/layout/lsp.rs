//! Header lines with `Content-Length`, an empty line, and the payload: the base protocol of LSP, which DAP
//! and BSP share.

use super::decoded::{Decoded, LineFault, Malformed};
use super::field::Prefix;

/// The longest header, in bytes.
pub(super) const LONGEST: usize = 4096;

const LENGTH: &[u8] = b"Content-Length";

/// Returns the lines of `head`, without their ends, up to the empty one.
fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = head.split(|&byte| byte == b'\n');
    lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line)).take_while(|line| !line.is_empty())
}

/// Returns the name and the value of a line.
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), LineFault> {
    let colon = memchr::memchr(b':', line).ok_or(LineFault::NoName)?;
    if colon == 0 || !line[..colon].iter().all(u8::is_ascii_graphic) {
        return Err(LineFault::NoName);
    }
    // Some readers take it for the end of the line, and what follows for a line of its own.
    if line.contains(&b'\r') {
        return Err(LineFault::CarriageReturn);
    }
    Ok((&line[..colon], line[colon + 1..].trim_ascii()))
}

fn is_length(line: &[u8]) -> bool {
    field(line).is_ok_and(|(name, _)| name.eq_ignore_ascii_case(LENGTH))
}

pub(super) fn decode(frame: &[u8]) -> Result<Decoded, Malformed> {
    let head = &frame[..frame.len().min(LONGEST)];
    let (mut start, mut length) = (0, None);
    for end in memchr::memchr_iter(b'\n', head) {
        let line = &head[start..end];
        start = end + 1;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            let payload = length.ok_or(Malformed::Lines(LineFault::NoLength))?;
            return Ok(Decoded::Prefix { prefix: start, payload });
        }
        let (name, value) = field(line).map_err(Malformed::Lines)?;
        if name.eq_ignore_ascii_case(LENGTH) {
            let number = number(value).ok_or(Malformed::Lines(LineFault::NotANumber))?;
            if length.replace(number).is_some() {
                return Err(Malformed::Lines(LineFault::TwoLengths));
            }
        }
    }
    // The beginning of a line, which may already be wrong.
    let begun = head[start..].strip_suffix(b"\r").unwrap_or(&head[start..]);
    let name = memchr::memchr(b':', begun).map_or(begun, |colon| &begun[..colon]);
    if !name.iter().all(u8::is_ascii_graphic) || begun.first() == Some(&b':') {
        return Err(Malformed::Lines(LineFault::NoName));
    }
    if begun.contains(&b'\r') {
        return Err(Malformed::Lines(LineFault::CarriageReturn));
    }
    match head.len() < LONGEST {
        true => Ok(Decoded::Incomplete { need: head.len() + 1 }),
        false => Err(Malformed::Lines(LineFault::TooLong)),
    }
}

/// Returns how many of the `next` bytes belong to header lines that have `begun`: up to an empty line, or all.
pub(super) fn rest_of_prefix(begun: &[u8], next: &[u8]) -> usize {
    let next = &next[..next.len().min(LONGEST.saturating_sub(begun.len()))];
    // Where the current line begins, and whether it is empty so far.
    let mut is_empty = matches!(begun, [.., b'\n'] | [.., b'\n', b'\r']);
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', next) {
        if is_empty && matches!(&next[start..end], [] | [b'\r']) {
            return end + 1;
        }
        (is_empty, start) = (true, end + 1);
    }
    next.len()
}

fn number(value: &[u8]) -> Option<u64> {
    let digits = (1..=10).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    let append = |number, digit: &u8| number * 10 + u64::from(digit - b'0');
    digits.then(|| value.iter().fold(0, append))
}

/// Returns whether `header` is nothing but lines that may precede or follow `Content-Length`.
pub(super) fn is_header(header: &[u8]) -> bool {
    let room = LONGEST - LENGTH.len() - b": 2147483647\r\n\r\n".len();
    let is_line = |line: &[u8]| {
        line.strip_suffix(b"\r").is_some_and(|line| field(line).is_ok() && !is_length(line))
    };
    let lines = header.strip_suffix(b"\n").map(|lines| lines.split(|&byte| byte == b'\n'));
    header.is_empty() || (header.len() <= room && lines.is_some_and(|mut lines| lines.all(is_line)))
}

/// Calls `take` with the parts of the header of `head`: all lines but `Content-Length`, each with its end.
pub(super) fn header_of<'a>(head: &'a [u8], take: &mut impl FnMut(&'a [u8])) {
    for line in lines(head).filter(|line| !is_length(line)) {
        take(line);
        take(b"\r\n");
    }
}

pub(super) fn append_prefix(header: &[u8], payload: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(LENGTH);
    out.extend_from_slice(b": ");
    Prefix::new(payload.to_string().as_bytes()).append_to(out);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(header);
    out.extend_from_slice(b"\r\n");
}
