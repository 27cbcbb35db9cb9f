//! Input as other programs write it: byte order marks, UTF-16, and hexadecimal digits with prefixes and
//! separators.

mod common;

use std::io::Write;
use std::process::Command;

use common::program::{FRAMELET, Running, check, frame, framelet, unframe};

fn encode(format: &str, input: &[u8]) -> Vec<Vec<u8>> {
    let output = framelet(&["encode", "--input", format], input);
    check(&output, 0, &[]);
    unframe(&output.stdout)
}

fn utf16(text: &str, to_bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(to_bytes).collect()
}

#[test]
fn a_utf8_byte_order_mark_is_not_part_of_the_first_message() {
    for (format, input, messages) in [
        ("text", &b"\xef\xbb\xbfa\nb\n\nc"[..], &[&b"a\nb"[..], b"c"][..]),
        ("lines", b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", &[b"a", b"\xef\xbb\xbfb"]),
        ("lines", b"\xef\xbb\xbf", &[]),
        ("lines", b"\xef\xbb\xbf\n", &[b""]),
        ("lines", b"\xef\xbb\n", &[b"\xef\xbb"]),
        ("lines", b"\xef\xbb", &[b"\xef\xbb"]),
        ("hex", b"\xef\xbb\xbf00ff\n", &[b"\0\xff"]),
        ("base64", b"\xef\xbb\xbfAP8=\n", &[b"\0\xff"]),
        ("json", b"\xef\xbb\xbf{\"payload\":\"a\"}\n", &[b"a"]),
        // Here, it may be meant.
        ("nul", b"\xef\xbb\xbfa\0", &[b"\xef\xbb\xbfa"]),
        ("whole", b"\xef\xbb\xbfa", &[b"\xef\xbb\xbfa"]),
        ("whole", b"\xff\xfea\0", &[b"\xff\xfea\0"]),
    ] {
        assert_eq!(encode(format, input), messages, "{format}: {input:?}");
    }
}

#[test]
fn a_byte_order_mark_may_arrive_in_pieces_and_delays_no_line_without_one() {
    let mut command = Command::new(FRAMELET);
    command.args(["encode", "--input", "lines"]);
    let (running, mut input) = Running::start_with_input(command);
    for byte in b"\xef\xbb\xbfab\n" {
        let before = running.characters_read();
        input.write_all(&[*byte]).unwrap();
        common::program::wait_until("the read", || running.characters_read() > before);
    }
    drop(input);
    let output = running.wait();
    check(&output, 0, &[]);
    assert_eq!(output.stdout, frame(b"ab"));
    let mut command = Command::new(FRAMELET);
    command.args(["encode", "--input", "lines"]);
    let (running, mut input) = Running::start_with_input(command);
    input.write_all(b"\n").unwrap();
    running.wait_for_output(4);
}

#[test]
fn utf16_is_named_with_what_to_do() {
    let words = "record 1 of the input: the input is UTF-16; convert it to UTF-8 with iconv, or";
    for to_bytes in [u16::to_le_bytes, u16::to_be_bytes] {
        for format in ["text", "lines", "hex", "base64", "json"] {
            let input = utf16("\u{feff}0000\r\n", to_bytes);
            check(&framelet(&["encode", "--input", format], &input), 2, &[words]);
        }
        // Evident without a mark, where it cannot be right in any case.
        for (format, text) in
            [("hex", "00ff\n"), ("base64", "AP8=\n"), ("json", "{\"payload\":\"a\"}\n")]
        {
            let input = utf16(text, to_bytes);
            check(&framelet(&["encode", "--input", format], &input), 2, &[words]);
        }
    }
    // Bytes with zeros in between are no reason to refuse lines.
    assert_eq!(encode("lines", b"a\0b\0\n"), [b"a\0b\0"]);
}

#[test]
fn hexadecimal_input_takes_prefixes_and_separators() {
    for line in [
        "00ff1A",
        "00 ff 1a",
        "00:ff:1a",
        "0x00ff1a",
        "0x00 0xff 0X1a",
        "0x00:0xff:0x1a",
        " 00\tff1a \r",
        "00: ff: 1a",
        "0 0 f f 1 a",
    ] {
        assert_eq!(encode("hex", format!("{line}\n").as_bytes()), [b"\x00\xff\x1a"], "{line}");
    }
    // As long as the limit allows, however it is written.
    let long = "0xff ".repeat(300_000);
    let output =
        framelet(&["encode", "--input", "hex", "--max-message", "300000"], long.as_bytes());
    check(&output, 0, &[]);
    assert!(output.stdout == frame(&[0xff; 300_000]));
}

#[test]
fn what_is_not_hexadecimal_is_named_with_its_position() {
    for (line, words) in [
        ("0x", "byte 2 is 'x'"),
        ("00 0x0g", "byte 7 is 'g'"),
        ("00,ff", "byte 3 is ','"),
        ("000x11", "byte 4 is 'x'"),
        // These are not the byte 12.
        ("0x1 0x2", "the number of digits that end at byte 3 is odd"),
        ("1:2", "the number of digits that end at byte 1 is odd"),
        ("00:1", "the number of digits is odd"),
    ] {
        let output = framelet(&["encode", "--input", "hex"], line.as_bytes());
        check(&output, 2, &["record 1 of the input: not hexadecimal: ", words]);
    }
}
