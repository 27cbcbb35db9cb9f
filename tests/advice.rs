//! Advice works when it is followed. A layout that is offered for a stream reads it to its end.

mod common;

use common::program::{framelet, said};
use common::unseen::MISTAKES;

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

/// Returns what is said of a stream that is read in a layout.
fn decode_says(layout: &str, stream: &[u8]) -> String {
    said(&framelet(&["decode", "--output", "none", "--layout", layout], stream))
}

/// Layouts wide enough for a few stray bytes to be found in.
const WIDE: [&str; 5] = ["u32be", "u32le", "u64be", "u24be", "h1:u32be+self"];

#[test]
fn what_follows_each_message_and_is_not_counted_is_named() {
    let messages: [&[u8]; 3] = [b"{\"id\":1,\"t\":21.5}", b"{\"id\":2,\"t\":21.75}", b"{\"id\":3}"];
    for layout in WIDE.into_iter().chain(["u16be"]) {
        for (extra, words) in [
            (&b"\n"[..], "1 byte longer than its length says: a line feed follows it"),
            (b"\r\n", "2 bytes longer than its length says: CR LF follows it"),
            (b"\0", "1 byte longer than its length says: a NUL byte follows it"),
        ] {
            let stream = frames(layout, &messages, extra);
            let said = decode_says(layout, &stream);
            // A zero byte after a message may be the first of the next length.
            let or = format!("{layout}:data:x{}", data_encoding::HEXLOWER.encode(extra));
            assert!(said.contains(words) || said.contains(&or), "{layout}: {said}");
        }
    }
}

#[test]
fn one_to_eight_bytes_too_many_are_found() {
    let messages: [&[u8]; 3] = [b"21.5 degrees", b"21.75 degrees", b"no change"];
    // As a checksum, or the type of the next message.
    let checksum = b"\x91\x3e\x07\xd4\x8a\x6f\xc2\x55";
    for layout in WIDE {
        for extra in 1..=checksum.len() {
            let stream = frames(layout, &messages, &checksum[..extra]);
            let said = decode_says(layout, &stream);
            let bytes = framelet::wire::Count(extra as u64, "byte");
            let words = format!("message 1 seems to be {bytes} longer than its length says");
            let (_, offered) = decode(layout, &stream);
            assert!(
                said.contains(&words) || offered.is_some_and(|offered| decode(&offered, &stream).0),
                "{layout}, {extra}: {said}"
            );
        }
    }
}

#[test]
fn one_to_eight_bytes_too_few_are_found() {
    let messages: [&[u8]; 3] = [b"21.5 degrees here", b"21.75 degrees there", b"no change at all"];
    for layout in ["u32be", "u32le", "u64be", "u24be"] {
        for less in 1..=8 {
            // Each length counts as many bytes that are not sent.
            let whole = frames(layout, &messages, b"");
            let width = (whole.len() - messages.concat().len()) / 3;
            let cut = messages.map(|message| &message[..message.len() - less]);
            let prefixes =
                messages.map(|message| frames(layout, &[message], b"")[..width].to_vec());
            let stream: Vec<u8> =
                prefixes.iter().zip(cut).flat_map(|(prefix, cut)| [prefix, cut].concat()).collect();
            let said = decode_says(layout, &stream);
            let bytes = framelet::wire::Count(less as u64, "byte");
            let words = match less == width {
                true => format!("the length may count its own prefix, as in {layout}+self"),
                false => format!("message 1 seems to be {bytes} shorter than its length says"),
            };
            let (_, offered) = decode(layout, &stream);
            assert!(
                said.contains(&words) || offered.is_some_and(|offered| decode(&offered, &stream).0),
                "{layout}, {less}: {said}"
            );
        }
    }
}

#[test]
fn lengths_that_count_something_other_than_bytes_are_named() {
    let characters = ["{\"name\":\"Øyvind Åsen\"}", "{\"name\":\"Ann\"}", "{\"price\":\"3 €\"}"];
    for layout in ["u32be", "u32le", "u64be"] {
        let counted = |text: &str, length: usize| {
            let frame = frames(layout, &[&vec![b'x'; length]], b"");
            [&frame[..frame.len() - length], text.as_bytes()].concat()
        };
        let stream: Vec<u8> =
            characters.iter().flat_map(|text| counted(text, text.chars().count())).collect();
        let said = decode_says(layout, &stream);
        assert!(said.contains("does the length count characters, not bytes?"), "{layout}: {said}");
        let lines = ["one\r\ntwo\r\nthree", "next", "one\r\ntwo"];
        let stream: Vec<u8> =
            lines.iter().flat_map(|text| counted(text, text.replace("\r\n", "\n").len())).collect();
        let said = decode_says(layout, &stream);
        assert!(said.contains("did line feeds become CR LF"), "{layout}: {said}");
    }
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

#[test]
fn mistakes_that_were_not_seen_before_are_named_or_nothing_is_said() {
    for &(what, layout, stream, words) in MISTAKES {
        let said = decode_says(layout, stream);
        assert!(said.contains(words), "{what}: {said}");
        let is_named = ["this looks like", "seems to be", "it would be"]
            .iter()
            .any(|name| said.contains(name));
        assert_eq!(is_named, !words.is_empty(), "{what}: {said}");
    }
}
