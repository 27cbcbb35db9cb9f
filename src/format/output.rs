//! Messages to text or bytes.

use std::io::Write;

use data_encoding::{BASE64, Encoding, HEXLOWER};
use humantime::format_rfc3339_millis;
use serde_json::{Map, Value};

use super::OutputFormat;
use crate::escape::Escaped;
use crate::layout::{Layout, MAX_PAYLOAD, Prefix};
use crate::sink::Message;
use crate::writer::append_frame;

impl OutputFormat {
    /// Appends `message` to `out`. With `escaped`, what could drive a terminal is written as an escape.
    pub(crate) fn append(self, message: &Message<'_>, escaped: bool, out: &mut Vec<u8>) {
        let payload = message.payload;
        match (self, escaped) {
            (OutputFormat::None, _) => {}
            (OutputFormat::Hex, _) => {
                append_encoded(out, &HEXLOWER, payload);
                out.push(b'\n');
            }
            (OutputFormat::Base64, _) => {
                append_encoded(out, &BASE64, payload);
                out.push(b'\n');
            }
            (OutputFormat::Json, _) => append_json(message, escaped, out),
            (OutputFormat::Text | OutputFormat::Raw, true) => {
                // Line feeds are what these formats are made of; the rest is escaped line by line.
                for (index, line) in payload.split(|&byte| byte == b'\n').enumerate() {
                    append_display(out, if index > 0 { "\n" } else { "" });
                    append_display(out, Escaped(line));
                }
                append_display(out, if self == OutputFormat::Text { "\n\n" } else { "" });
            }
            (OutputFormat::Lines | OutputFormat::Nul | OutputFormat::Frames, true) => {
                append_display(out, Escaped(payload));
                out.push(b'\n');
            }
            (OutputFormat::Text, false) => {
                out.extend_from_slice(payload);
                // No lines at all and then an empty line: so an empty message is read back as one.
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
    }

    /// Returns what stands in front of a payload and behind it, if the format leaves the payload as it is;
    /// for any but an empty one.
    pub(crate) fn around(self, payload: &[u8]) -> Option<(Prefix, &'static [u8])> {
        let behind: &[u8] = match self {
            OutputFormat::Text => b"\n\n",
            OutputFormat::Lines => b"\n",
            OutputFormat::Nul => b"\0",
            OutputFormat::Frames => return Some((Layout::U32BE.encode(payload.len()).ok()?, b"")),
            OutputFormat::Raw => b"",
            OutputFormat::Hex | OutputFormat::Base64 | OutputFormat::Json | OutputFormat::None => {
                return None;
            }
        };
        Some((Prefix::new(b""), behind))
    }
}

fn append_display(out: &mut Vec<u8>, text: impl std::fmt::Display) {
    // Cannot fail: a Vec takes everything.
    let _ = write!(out, "{text}");
}

fn append_json(message: &Message<'_>, escaped: bool, out: &mut Vec<u8>) {
    let from = out.len();
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
    append_display(out, format_args!("\"number\":{number},\"length\":{length},"));
    match std::str::from_utf8(message.payload) {
        Ok(text) => {
            out.extend_from_slice(b"\"payload\":");
            // Cannot fail: a Vec takes everything.
            let _ = serde_json::to_writer(&mut *out, text);
        }
        Err(_) => {
            out.extend_from_slice(b"\"payload_base64\":\"");
            append_encoded(out, &BASE64, message.payload);
            out.push(b'"');
        }
    }
    out.extend_from_slice(b"}\n");
    if escaped {
        // JSON itself escapes the control characters of ASCII; a terminal minds more than those.
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

fn append_encoded(out: &mut Vec<u8>, encoding: &Encoding, payload: &[u8]) {
    let from = out.len();
    out.resize(from + encoding.encode_len(payload.len()), 0);
    encoding.encode_mut(payload, &mut out[from..]);
}

/// The payload that a JSON object of the format `json` carries.
pub(crate) fn payload_of_json(line: &[u8]) -> Result<Vec<u8>, String> {
    let value = serde_json::from_slice(line).map_err(|error| format!("not JSON: {error}"))?;
    let Value::Object(object) = value else {
        return Err("not a JSON object".into());
    };
    let text = |name: &str| -> Result<Option<&String>, String> {
        match Map::get(&object, name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("{name} is not a string")),
        }
    };
    match (text("payload")?, text("payload_base64")?) {
        (Some(text), None) => Ok(text.clone().into_bytes()),
        (None, Some(base64)) => BASE64
            .decode(base64.as_bytes())
            .map_err(|error| format!("payload_base64 is not Base64: {error}")),
        (None, None) => Err("neither payload nor payload_base64 in the object".into()),
        (Some(_), Some(_)) => Err("both payload and payload_base64 in the object".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: &str, payload: &[u8], escaped: bool) -> String {
        let message = Message {
            payload,
            number: 12,
            sender: None,
            connection: None,
            peer: None,
            received: None,
        };
        let mut out = Vec::new();
        format.parse::<OutputFormat>().unwrap().append(&message, escaped, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_stands_around_a_payload_is_what_the_format_adds() {
        let payload = vec![b'a'; 70_000];
        for (name, format) in super::super::OUTPUT {
            if let Some((before, behind)) = format.around(&payload) {
                let whole = [&before[..], &payload, behind].concat();
                assert!(whole == written(name, &payload, false).as_bytes(), "{name}");
            }
        }
    }

    #[test]
    fn nothing_reaches_a_terminal_raw() {
        let hostile = "a\u{1b}[2J\r\u{202e}\u{9b}\n\u{e000}\u{feff}z".as_bytes();
        for format in ["text", "lines", "nul", "hex", "base64", "json", "frames", "raw", "none"] {
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
        let sender = Some(crate::sender::SenderId::from_bytes([0xab; 16]));
        let message = Message {
            payload: b"",
            number: 7,
            sender,
            connection: None,
            peer: None,
            received: None,
        };
        let mut out = Vec::new();
        OutputFormat::Json.append(&message, false, &mut out);
        let sender = "ab".repeat(16);
        let line =
            format!("{{\"sender\":\"{sender}\",\"number\":7,\"length\":0,\"payload\":\"\"}}\n");
        assert_eq!(String::from_utf8_lossy(&out), line);
        let odd = written("json", b"\xff\0", false);
        assert_eq!(odd, "{\"number\":12,\"length\":2,\"payload_base64\":\"/wA=\"}\n");
        assert_eq!(payload_of_json(odd.as_bytes()).unwrap(), b"\xff\0");
    }

    #[test]
    fn objects_without_a_payload_say_what_is_missing() {
        for (line, word) in [
            ("nonsense", "not JSON"),
            ("[1]", "not a JSON object"),
            ("{}", "neither payload nor payload_base64"),
            (r#"{"payload":1}"#, "payload is not a string"),
            (r#"{"payload":"a","payload_base64":"YQ=="}"#, "both"),
            (r#"{"payload_base64":"!"}"#, "not Base64"),
        ] {
            let error = payload_of_json(line.as_bytes()).unwrap_err();
            assert!(error.contains(word), "{line}: {error}");
        }
    }
}
