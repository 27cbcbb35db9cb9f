//! Converts messages to text or bytes.

use std::borrow::Cow;
use std::io::{self, Write};

use data_encoding::{BASE64, Encoding, HEXLOWER};
use humantime::format_rfc3339_millis;
use serde_core::Serializer;
use serde_json::ser::Formatter;

use super::names::OutputFormat;
use crate::message::{Direction, Message};
use crate::wire::count::Count;
use crate::wire::escape::Escaped;
use crate::wire::frame::append_frame;
use crate::wire::layout::{EncodeError, Layout, MAX_PAYLOAD};

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
            (OutputFormat::Lines | OutputFormat::Nul | OutputFormat::Frames(_), true) => {
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
            (OutputFormat::Frames(Layout::U32BE), false) => {
                // Cannot fail: no message is longer than MAX_PAYLOAD.
                let _ = append_frame(out, Layout::U32BE, MAX_PAYLOAD, payload);
            }
            (OutputFormat::Frames(layout), false) => {
                let (before, after) = around(layout, message);
                out.extend_from_slice(&before);
                out.extend_from_slice(payload);
                out.extend_from_slice(&after);
            }
        }
        Ok(())
    }

    /// Checks that a message can be written in the format.
    #[inline]
    pub(crate) fn check(self, message: &Message<'_>) -> Result<(), EncodeError> {
        match self {
            // No message is longer than MAX_PAYLOAD.
            OutputFormat::Frames(Layout::U32BE) => Ok(()),
            OutputFormat::Frames(layout) => check(layout, message),
            _ => Ok(()),
        }
    }

    /// Returns what precedes and follows the payload of a [checked](OutputFormat::check) message if the format
    /// leaves the payload unchanged. Not for empty payloads.
    pub(crate) fn around(self, message: &Message<'_>) -> Option<(Vec<u8>, Vec<u8>)> {
        let after: &[u8] = match self {
            OutputFormat::Text => b"\n\n",
            OutputFormat::Lines => b"\n",
            OutputFormat::Nul => b"\0",
            OutputFormat::Frames(layout) => return Some(around(layout, message)),
            OutputFormat::Raw => b"",
            OutputFormat::Hex
            | OutputFormat::Base64
            | OutputFormat::Json
            | OutputFormat::Hexdump
            | OutputFormat::None => return None,
        };
        Some((Vec::new(), after.to_vec()))
    }
}

/// Checks that a message has a frame in the layout.
#[inline(never)]
fn check(layout: Layout, message: &Message<'_>) -> Result<(), EncodeError> {
    match layout.around(message.header) {
        Some(_) => Ok(()),
        None => layout.check(MAX_PAYLOAD, &header_in(layout, message), message.payload.len()),
    }
}

/// Returns what precedes and follows the payload of a checked message in its frame: if it was received in the
/// same layout, exactly what was received.
fn around(layout: Layout, message: &Message<'_>) -> (Vec<u8>, Vec<u8>) {
    if let Some((before, after)) = layout.around(message.header) {
        return (before.to_vec(), after.to_vec());
    }
    let header = header_in(layout, message);
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let rest = layout.append_prefix(&header, message.payload.len(), &mut before);
    layout.append_trailer(rest, &mut after);
    (before, after)
}

/// Returns the header of the message, if the layout has any.
fn header_in<'a>(layout: Layout, message: &Message<'a>) -> Cow<'a, [u8]> {
    if layout.has_header() { message.header.to_bytes() } else { Cow::Borrowed(&[]) }
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
    if let Some(direction) = message.direction {
        let direction = match direction {
            Direction::In => "in",
            Direction::Out => "out",
        };
        append_display(out, format_args!("\"direction\":\"{direction}\","));
    }
    let (number, length) = (message.number, message.payload.len());
    append_display(out, format_args!("\"number\":{number},"));
    if let Some(offset) = message.offset() {
        append_display(out, format_args!("\"offset\":{offset},"));
    }
    append_display(out, format_args!("\"length\":{length},"));
    if !message.header.is_empty() {
        let header = HEXLOWER.encode(&message.header.to_bytes());
        append_display(out, format_args!("\"header\":\"{header}\","));
    }
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

    use super::super::json::message_of_json;
    use futures_lite::future::block_on;

    use super::*;
    use crate::message::Batch;
    use crate::stream::reader::FrameReader;

    fn append(format: OutputFormat, message: &Message<'_>, escaped: bool, out: &mut Vec<u8>) {
        let Ok(()) = format.append(message, escaped, out, &mut |_| Ok::<_, Infallible>(()));
    }

    fn written(format: &str, payload: &[u8], escaped: bool) -> String {
        let message = Message { number: 12, ..Message::new(payload) };
        let mut out = Vec::new();
        append(format.parse().unwrap(), &message, escaped, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_stands_around_a_payload_is_what_the_format_adds() {
        let payload = vec![b'a'; 70_000];
        for (name, format) in super::super::names::OUTPUT {
            if let Some((before, after)) = format.around(&Message::new(&payload)) {
                let whole = [&before[..], &payload, &after].concat();
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
                let message = Message::new(payload);
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
                let as_it_is = format.around(&message).is_some() && !escaped;
                assert!(
                    as_it_is || longest <= 10 * PIECE,
                    "{format}, {escaped}: {longest} bytes together"
                );
            }
        }
        let line = written("json", text.as_bytes(), true);
        assert!(message_of_json(line.as_bytes()).unwrap().1 == text.as_bytes());
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
        assert_eq!(message_of_json(line.as_bytes()).unwrap().1, hostile);
    }

    #[test]
    fn json_carries_any_bytes() {
        assert_eq!(
            written("json", b"abc", false),
            "{\"number\":12,\"length\":3,\"payload\":\"abc\"}\n"
        );
        let sender = Some(crate::wire::sender_id::SenderId::from_bytes([0xab; 16]));
        let message = Message { number: 7, sender, ..Message::new(b"") };
        let mut out = Vec::new();
        append(OutputFormat::Json, &message, false, &mut out);
        let sender = "ab".repeat(16);
        let line =
            format!("{{\"sender\":\"{sender}\",\"number\":7,\"length\":0,\"payload\":\"\"}}\n");
        assert_eq!(String::from_utf8_lossy(&out), line);
        let odd = written("json", b"\xff\0", false);
        assert_eq!(odd, "{\"number\":12,\"length\":2,\"payload_base64\":\"/wA=\"}\n");
        assert_eq!(message_of_json(odd.as_bytes()).unwrap().1, &b"\xff\0"[..]);
    }

    #[test]
    fn json_says_which_way_a_message_went_if_that_is_known() {
        for (direction, shown) in [(Direction::In, "in"), (Direction::Out, "out")] {
            let batch: Batch = ["a"].into_iter().collect();
            let batch = batch.with_direction(direction);
            let mut out = Vec::new();
            append(OutputFormat::Json, &batch.messages().next().unwrap(), false, &mut out);
            let line = format!(
                "{{\"direction\":\"{shown}\",\"number\":1,\"length\":1,\"payload\":\"a\"}}\n"
            );
            assert_eq!(String::from_utf8_lossy(&out), line);
            assert_eq!(&*message_of_json(&out).unwrap().1, b"a");
        }
    }

    #[test]
    fn json_has_the_header_of_messages_that_have_one() {
        let message = Message::new(b"SELECT 1").with_header(b"Q\xff");
        let mut out = Vec::new();
        append(OutputFormat::Json, &message, false, &mut out);
        let line = "{\"number\":1,\"length\":8,\"header\":\"51ff\",\"payload\":\"SELECT 1\"}\n";
        assert_eq!(String::from_utf8(out.clone()).unwrap(), line);
        let (header, payload) = message_of_json(&out).unwrap();
        assert_eq!((&*header, &*payload), (&b"Q\xff"[..], &b"SELECT 1"[..]));
    }

    #[test]
    fn formats_other_than_json_and_frames_leave_the_header_out() {
        for format in ["text", "lines", "nul", "hex", "base64", "frames", "raw", "none"] {
            let format: OutputFormat = format.parse().unwrap();
            let (message, mut with, mut without) = (Message::new(b"one"), Vec::new(), Vec::new());
            append(format, &message.with_header(b"Q"), false, &mut with);
            append(format, &message, false, &mut without);
            assert_eq!(with, without, "{format}");
        }
    }

    #[test]
    fn frames_are_what_was_received_byte_for_byte() {
        for (layout, frames) in [
            ("h1:u32be+self", &b"Q\0\0\0\x07one?\0\0\0\x04"[..]),
            ("h3:u32be:data:xce", b"\x01\0\x05\0\0\0\x03one\xce"),
            // A length in more bytes than it needs.
            ("h1:ber", b"0\x03one0\x82\0\x03two"),
            ("hex4+self", b"0007one0000000100020004"),
            ("lsp", b"content-length:3\nA: b\n\noneContent-Length: 0\r\n\r\n"),
        ] {
            let layout: Layout = layout.parse().unwrap();
            for large in [false, true] {
                let mut reader = FrameReader::with_layout(frames, layout);
                let batch = block_on(reader.read_batch()).unwrap().unwrap();
                let (mut out, batch) = (Vec::new(), Batch::from(batch));
                let format = OutputFormat::Frames(layout);
                for message in batch.messages() {
                    format.check(&message).unwrap();
                    if large {
                        let (before, after) = format.around(&message).unwrap();
                        out.extend([&before, message.payload, &after].concat());
                    } else {
                        append(format, &message, false, &mut out);
                    }
                }
                assert_eq!(out, frames, "{layout}");
            }
        }
    }

    #[test]
    fn a_message_without_a_header_is_framed_with_zeros() {
        let layout: Layout = "h1:u32be".parse().unwrap();
        let (message, mut out) = (Message::new(b"one"), Vec::new());
        OutputFormat::Frames(layout).check(&message).unwrap();
        append(OutputFormat::Frames(layout), &message, false, &mut out);
        assert_eq!(out, b"\0\0\0\0\x03one");
        let two = message.with_header(b"ab");
        let error = OutputFormat::Frames(layout).check(&two).unwrap_err();
        assert_eq!(error, EncodeError::Header { length: 2, layout });
    }
}
