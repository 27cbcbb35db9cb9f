//! Advice works when it is followed. A layout that is offered for a stream reads it to its end.

mod common;

use common::program::{framelet, said};

const LAYOUTS: [&str; 10] =
    ["u8", "u16be", "u16le", "u24be", "u24le", "u32be", "u32le", "u64be", "u64le", "varint"];

/// Decodes a stream. Returns how it ends, and which layout is offered instead.
fn decode(layout: &str, stream: &[u8]) -> (bool, Option<String>) {
    let output = framelet(&["decode", "--output", "none", "--layout", layout], stream);
    let said = said(&output);
    let offered = said.split_once("try --layout ").map(|(_, rest)| rest.trim().to_owned());
    (output.status.success(), offered)
}

/// Returns how many layouts are offered for a stream that is read in each of the layouts.
#[track_caller]
fn check(name: &str, stream: &[u8]) -> usize {
    let mut offers = 0;
    for layout in LAYOUTS {
        if let (false, Some(offered)) = decode(layout, stream) {
            let (works, _) = decode(&offered, stream);
            assert!(works, "{name}, read as {layout}: {offered} is offered and does not read it");
            offers += 1;
        }
    }
    offers
}

/// Returns frames of these messages, with `extra` after each.
fn frames(layout: &str, messages: &[&[u8]], extra: &[u8]) -> Vec<u8> {
    let layout = layout.parse().unwrap();
    let mut out = Vec::new();
    for message in messages {
        framelet::wire::append_frame(&mut out, layout, 1 << 20, message).unwrap();
        out.extend_from_slice(extra);
    }
    out
}

/// P31.
#[test]
fn a_layout_that_is_offered_reads_the_stream() {
    let messages: [&[u8]; 3] = [b"21.5", b"a longer reading: 21.7", b"the last one"];
    let mut offers = 0;
    for layout in LAYOUTS {
        for count in 1..=3 {
            let stream = frames(layout, &messages[..count], b"");
            offers += check(&format!("{count} in {layout}"), &stream);
            // And one that is not all there.
            let cut = &stream[..stream.len() - 3];
            check(&format!("{count} in {layout}, cut"), cut);
        }
    }
    assert!(offers > 20, "only {offers} layouts were offered");
}

/// P31.
#[test]
fn nothing_is_offered_that_would_not_read_what_is_no_such_layout() {
    let json: &[u8] = b"{\"temperature\":21.5}";
    for (name, stream) in [
        ("a type and a length that counts itself", &b"Q\0\0\0\x0eselect 2;\0"[..]),
        (
            "a start of a document",
            b"\x34\0\0\0\x11\0\0\0\0\0\0\0\xdd\x07\0\0\0\0\0\0\0\x1f\0\0\0\x10hell",
        ),
        ("a flag and a length", b"\0\0\0\0\x0d\n\x0bhello world"),
        ("an alert of an old TLS", b"\x15\x03\0\0\x02\x02\x28"),
        ("data of TLS", b"\x17\x03\x03\0\x18\x9a\x01\x02\x03\x04\x05\x06\x07\x08\x09"),
        (
            "a length that counts a header before it",
            b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\x01\0\x08\0\0\0\0\0",
        ),
        ("a text of another language", b"\0\x05hello\0\x05world"),
        (
            "a transaction, a protocol, a length",
            b"\0\x01\0\0\0\x06\x11\x03\0\x6b\0\x03\0\x02\0\0\0\x06\x11\x03\0\x6b\0\x03",
        ),
        ("a version, flags, a stream, a length", b"\x04\0\0\0\x05\0\0\0\0"),
        ("a structure with a type", b"\x01\0\0\0\x05\0\0\0hello"),
        ("a type and a length", b"\x01\0\0\0\x05hello\x01\0\0\0\x05world"),
        ("a magic number", b"\xca\xfe\0\0\0\x05hello"),
        ("a line feed after each", &frames("u32be", &[json, json, json], b"\n")),
        ("a line end after each", &frames("u32be", &[json, json, json], b"\r\n")),
        ("a checksum after each", &frames("u32be", &[json, json], &[0x36, 0x10, 0xa6, 0x86])),
        ("a length in characters", b"\0\0\0\x05gr\xc3\xbcn!\0\0\0\x02ja"),
        ("a length of eight bytes", &frames("u64le", &[json, b"x"], b"")),
        ("zeros", &[0; 37]),
    ] {
        check(name, stream);
    }
}
