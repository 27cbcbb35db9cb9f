//! Converts messages to text or bytes.

use std::io::{self, Write};

use data_encoding::{BASE64, Encoding, HEXLOWER};
use humantime::format_rfc3339_millis;
use serde_core::Serializer;
use serde_json::ser::Formatter;

use super::names::OutputFormat;
use crate::message::Message;
use crate::wire::count::Count;
use crate::wire::escape::Escaped;
use crate::wire::frame::append_frame;
use crate::wire::layout::{Layout, MAX_PAYLOAD};

/// How much of a payload is encoded at once, in bytes, so that a long one needs no second buffer of its
/// size. A multiple of three, for Base64.
const PIECE: usize = 48 * 1024;

/// How many bytes a line of a hexdump has; a divisor of `PIECE`.
const HEXDUMP_LINE: usize = 16;

impl OutputFormat {
    /// Appends `message` to `out`. With `escaped`, control characters are escaped, for a terminal.
    ///
    /// A long message that has to be encoded is appended in pieces; before each further piece, `make_room`
    /// may write out what `out` holds.
    ///
    /// # Errors
    ///
    /// Any error of `make_room`.
    pub(crate) fn append<E>(
        self,
        message: &Message<'_>,
        escaped: bool,
        out: &mut Vec<u8>,
        make_room: &mut impl FnMut(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let payload = message.payload;
        match (self, escaped) {
            (OutputFormat::None, _) => {}
            (OutputFormat::Hex, _) => {
                append_encoded(out, &HEXLOWER, payload, make_room)?;
                out.push(b'\n');
            }
            (OutputFormat::Base64, _) => {
                append_encoded(out, &BASE64, payload, make_room)?;
                out.push(b'\n');
            }
            (OutputFormat::Json, _) => append_json(message, escaped, out, make_room)?,
            (OutputFormat::Hexdump, _) => append_hexdump(message, out, make_room)?,
            (OutputFormat::Text | OutputFormat::Raw, true) => {
                // These formats consist of line feeds, so each line is escaped by itself.
                for (index, line) in payload.split(|&byte| byte == b'\n').enumerate() {
                    append_display(out, if index > 0 { "\n" } else { "" });
                    append_escaped(out, line, make_room)?;
                }
                append_display(out, if self == OutputFormat::Text { "\n\n" } else { "" });
            }
            (OutputFormat::Lines | OutputFormat::Nul | OutputFormat::Frames, true) => {
                append_escaped(out, payload, make_room)?;
                out.push(b'\n');
            }
            (OutputFormat::Text, false) => {
                out.extend_from_slice(payload);
                // No lines and an empty line: so an empty message is read back as one.
                out.extend_from_slice(if payload.is_empty() { b"\n" } else { b"\n\n" });
            }
            (OutputFormat::Lines, false) => {
                out.extend_from_slice(payload);
                out.push(b'\n');
            }
            (OutputFormat::Nul, false) => {
                out.extend_from_slice(payload);
                out.push(0);
            }
            (OutputFormat::Raw, false) => out.extend_from_slice(payload),
            (OutputFormat::Frames, false) => {
                // Cannot fail: no message is longer than MAX_PAYLOAD.
                let _ = append_frame(out, Layout::U32BE, MAX_PAYLOAD, payload);
            }
        }
        Ok(())
    }

    /// Returns what precedes and follows a payload if the format leaves the payload unchanged. Not for
    /// empty payloads.
    pub(crate) fn around(self, payload: &[u8]) -> Option<(Vec<u8>, &'static [u8])> {
        let after: &[u8] = match self {
            OutputFormat::Text => b"\n\n",
            OutputFormat::Lines => b"\n",
            OutputFormat::Nul => b"\0",
            OutputFormat::Frames => return Some((Layout::U32BE.encode(payload.len()).ok()?, b"")),
            OutputFormat::Raw => b"",
            OutputFormat::Hex
            | OutputFormat::Base64
            | OutputFormat::Json
            | OutputFormat::Hexdump
            | OutputFormat::None => return None,
        };
        Some((Vec::new(), after))
    }
}

fn append_display(out: &mut Vec<u8>, text: impl std::fmt::Display) {
    // Cannot fail: a Vec takes everything.
    let _ = write!(out, "{text}");
}

/// Appends a line that names the message, and its bytes as `hexdump -C` shows them.
fn append_hexdump<E>(
    message: &Message<'_>,
    out: &mut Vec<u8>,
    make_room: &mut impl FnMut(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    append_display(out, format_args!("message {}", message.number));
    if let Some(connection) = message.connection {
        append_display(out, format_args!(" of connection {connection}"));
    }
    if let Some(offset) = message.offset() {
        append_display(out, format_args!(" at byte {offset}"));
    }
    append_display(out, format_args!(": {}\n", Count(message.payload.len() as u64, "byte")));
    for (index, line) in message.payload.chunks(HEXDUMP_LINE).enumerate() {
        let at = index * HEXDUMP_LINE;
        if at > 0 && at.is_multiple_of(PIECE) {
            make_room(out)?;
        }
        append_display(out, format_args!("{at:08x} "));
        for column in 0..HEXDUMP_LINE {
            // A wider gap in the middle.
            let gap = if column == HEXDUMP_LINE / 2 { "  " } else { " " };
            match line.get(column) {
                Some(byte) => append_display(out, format_args!("{gap}{byte:02x}")),
                None => append_display(out, format_args!("{gap}  ")),
            }
        }
        out.extend_from_slice(b"  |");
        let shown = |byte: &u8| if *byte == b' ' || byte.is_ascii_graphic() { *byte } else { b'.' };
        out.extend(line.iter().map(shown));
        out.extend_from_slice(b"|\n");
    }
    Ok(())
}

fn append_json<E>(
    message: &Message<'_>,
    escaped: bool,
    out: &mut Vec<u8>,
    make_room: &mut impl FnMut(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    out.push(b'{');
    if let Some(received) = message.received {
        append_display(out, format_args!("\"time\":\"{}\",", format_rfc3339_millis(received)));
    }
    if let Some(peer) = message.peer {
        append_display(out, format_args!("\"peer\":\"{peer}\","));
    }
    if let Some(connection) = message.connection {
        append_display(out, format_args!("\"connection\":{connection},"));
    }
    if let Some(sender) = message.sender {
        append_display(out, format_args!("\"sender\":\"{sender}\","));
    }
    let (number, length) = (message.number, message.payload.len());
    append_display(out, format_args!("\"number\":{number},"));
    if let Some(offset) = message.offset() {
        append_display(out, format_args!("\"offset\":{offset},"));
    }
    append_display(out, format_args!("\"length\":{length},"));
    match std::str::from_utf8(message.payload) {
        Ok(text) => {
            out.extend_from_slice(b"\"payload\":\"");
            in_pieces(text, out, make_room, |piece, out| append_json_text(piece, escaped, out))?;
        }
        Err(_) => {
            out.extend_from_slice(b"\"payload_base64\":\"");
            append_encoded(out, &BASE64, message.payload, make_room)?;
        }
    }
    out.extend_from_slice(b"\"}\n");
    Ok(())
}

/// Appends `text` as it appears between the quotes of a JSON string.
fn append_json_text(text: &str, escaped: bool, out: &mut Vec<u8>) {
    /// Writes a string without its quotes.
    struct Unquoted;

    impl Formatter for Unquoted {
        fn begin_string<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
            Ok(())
        }

        fn end_string<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
            Ok(())
        }
    }

    let from = out.len();
    // Cannot fail: a Vec takes everything.
    let _ = serde_json::Serializer::with_formatter(&mut *out, Unquoted).serialize_str(text);
    if escaped {
        // JSON escapes only the control characters of ASCII; terminals react to more.
        let object = String::from_utf8_lossy(&out[from..]).into_owned();
        out.truncate(from);
        for c in object.chars() {
            if c.is_ascii() || c.escape_debug().len() == 1 {
                append_display(out, c);
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    append_display(out, format_args!("\\u{unit:04x}"));
                }
            }
        }
    }
}

/// Appends text in pieces of whole characters.
fn in_pieces<E>(
    mut text: &str,
    out: &mut Vec<u8>,
    make_room: &mut impl FnMut(&mut Vec<u8>) -> Result<(), E>,
    mut append: impl FnMut(&str, &mut Vec<u8>),
) -> Result<(), E> {
    while text.len() > PIECE {
        // A character has at most four bytes.
        let end = (PIECE - 3..=PIECE).rev().find(|&end| text.is_char_boundary(end));
        let (piece, rest) = text.split_at(end.unwrap_or(PIECE));
        append(piece, out);
        make_room(out)?;
        text = rest;
    }
    append(text, out);
    Ok(())
}

fn append_escaped<E>(
    out: &mut Vec<u8>,
    bytes: &[u8],
    make_room: &mut impl FnMut(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    for chunk in bytes.utf8_chunks() {
        in_pieces(chunk.valid(), out, make_room, |piece, out| {
            append_display(out, Escaped(piece.as_bytes()));
        })?;
        append_display(out, Escaped(chunk.invalid()));
        if out.len() >= PIECE {
            make_room(out)?;
        }
    }
    Ok(())
}

fn append_encoded<E>(
    out: &mut Vec<u8>,
    encoding: &Encoding,
    payload: &[u8],
    make_room: &mut impl FnMut(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    for (index, piece) in payload.chunks(PIECE).enumerate() {
        if index > 0 {
            make_room(out)?;
        }
        let from = out.len();
        out.resize(from + encoding.encode_len(piece.len()), 0);
        encoding.encode_mut(piece, &mut out[from..]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::super::json::payload_of_json;
    use super::*;
    use crate::stream::payloads::UNKNOWN;

    fn append(format: OutputFormat, message: &Message<'_>, escaped: bool, out: &mut Vec<u8>) {
        let Ok(()) = format.append(message, escaped, out, &mut |_| Ok::<_, Infallible>(()));
    }

    fn written(format: &str, payload: &[u8], escaped: bool) -> String {
        let message = Message {
            payload,
            number: 12,
            sender: None,
            connection: None,
            peer: None,
            received: None,
            start: UNKNOWN,
        };
        let mut out = Vec::new();
        append(format.parse().unwrap(), &message, escaped, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_stands_around_a_payload_is_what_the_format_adds() {
        let payload = vec![b'a'; 70_000];
        for (name, format) in super::super::names::OUTPUT {
            if let Some((before, after)) = format.around(&payload) {
                let whole = [&before[..], &payload, after].concat();
                assert!(whole == written(name, &payload, false).as_bytes(), "{name}");
            }
        }
    }

    #[test]
    fn a_long_message_is_appended_in_pieces_that_are_small() {
        let text = "a\u{1b}é\u{202e}\"\u{10ffff}\n".repeat(15_000);
        let bytes = [text.as_bytes(), &[0xff; 100_000]].concat();
        for (_, format) in super::super::names::OUTPUT {
            for (payload, escaped) in
                [(text.as_bytes(), false), (text.as_bytes(), true), (&bytes, false), (&bytes, true)]
            {
                let message = Message {
                    payload,
                    number: 1,
                    sender: None,
                    connection: None,
                    peer: None,
                    received: None,
                    start: UNKNOWN,
                };
                let mut whole = Vec::new();
                append(format, &message, escaped, &mut whole);
                let (mut pieces, mut out, mut longest) = (Vec::new(), Vec::new(), 0);
                let mut make_room = |out: &mut Vec<u8>| {
                    longest = longest.max(out.len());
                    pieces.append(out);
                    Ok::<_, Infallible>(())
                };
                let Ok(()) = format.append(&message, escaped, &mut out, &mut make_room);
                longest = longest.max(out.len());
                pieces.append(&mut out);
                assert!(pieces == whole, "{format}, {escaped}");
                let as_it_is = format.around(payload).is_some() && !escaped;
                assert!(
                    as_it_is || longest <= 10 * PIECE,
                    "{format}, {escaped}: {longest} bytes together"
                );
            }
        }
        let line = written("json", text.as_bytes(), true);
        assert!(payload_of_json(line.as_bytes()).unwrap() == text.as_bytes());
    }

    #[test]
    fn nothing_reaches_a_terminal_raw() {
        let hostile = "a\u{1b}[2J\r\u{202e}\u{9b}\n\u{e000}\u{feff}z".as_bytes();
        for format in
            ["text", "lines", "nul", "hex", "base64", "json", "frames", "raw", "none", "hexdump"]
        {
            let shown = written(format, hostile, true);
            let raw = shown
                .chars()
                .find(|&c| c != '\n' && c.escape_debug().len() > 1 && !"\\\"'".contains(c));
            assert_eq!(raw, None, "{format}: {shown:?}");
        }
        // What is escaped for a terminal is still the same JSON.
        let line = written("json", hostile, true);
        assert_eq!(payload_of_json(line.as_bytes()).unwrap(), hostile);
    }

    #[test]
    fn json_carries_any_bytes() {
        assert_eq!(
            written("json", b"abc", false),
            "{\"number\":12,\"length\":3,\"payload\":\"abc\"}\n"
        );
        let sender = Some(crate::wire::sender_id::SenderId::from_bytes([0xab; 16]));
        let message = Message {
            payload: b"",
            number: 7,
            sender,
            connection: None,
            peer: None,
            received: None,
            start: UNKNOWN,
        };
        let mut out = Vec::new();
        append(OutputFormat::Json, &message, false, &mut out);
        let sender = "ab".repeat(16);
        let line =
            format!("{{\"sender\":\"{sender}\",\"number\":7,\"length\":0,\"payload\":\"\"}}\n");
        assert_eq!(String::from_utf8_lossy(&out), line);
        let odd = written("json", b"\xff\0", false);
        assert_eq!(odd, "{\"number\":12,\"length\":2,\"payload_base64\":\"/wA=\"}\n");
        assert_eq!(payload_of_json(odd.as_bytes()).unwrap(), &b"\xff\0"[..]);
    }
}
