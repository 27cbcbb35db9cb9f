use super::*;
use crate::wire::frame::append_frame_with_header;

/// A source that gives its bytes in pieces of random length.
struct Pieces<'a>(&'a [u8], fastrand::Rng);

impl Read for Pieces<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.1.usize(1..=9).min(self.0.len()).min(buf.len());
        buf[..len].copy_from_slice(&self.0[..len]);
        self.0 = &self.0[len..];
        Ok(len)
    }
}

fn compose(input: &[u8], format: &str, limit: usize) -> (Vec<Vec<u8>>, Option<String>) {
    let (format, mut found) = (format.parse().unwrap(), Vec::new());
    for seed in 0..20 {
        let source = Pieces(input, fastrand::Rng::with_seed(seed));
        let mut composer = Composer::new(source, format, limit);
        let mut messages = Vec::new();
        let error = loop {
            match composer.read(|message| messages.push(message.to_vec())) {
                Ok(true) => {}
                Ok(false) => break None,
                Err(error) => break Some(error.to_string()),
            }
        };
        found.push((messages, error));
    }
    assert!(found.iter().all(|each| *each == found[0]), "pieces matter: {found:?}");
    found.swap_remove(0)
}

#[track_caller]
fn check(input: &[u8], format: &str, messages: &[&[u8]]) {
    let (found, error) = compose(input, format, 1000);
    assert_eq!((found, error), (messages.iter().map(|message| message.to_vec()).collect(), None));
}

#[test]
fn text_is_lines_up_to_an_empty_line() {
    check(b"a\nb\n\nc", "text", &[b"a\nb", b"c"]);
    check(b"a\nb\n\nc\n", "text", &[b"a\nb", b"c"]);
    check(b"a\r\nb\r\n\r\nc\r\n", "text", &[b"a\nb", b"c"]);
    check(b"\na\n\n\nb\n\n", "text", &[b"", b"a", b"", b"b"]);
    check(b"", "text", &[]);
}

#[test]
fn lines_and_nul_keep_every_other_byte() {
    check(b"a\r\n\nb\0c", "lines", &[b"a\r", b"", b"b\0c"]);
    check(b"a\n\0\0b", "nul", &[b"a\n", b"", b"b"]);
}

#[test]
fn encoded_lines_are_decoded() {
    check(b"00ff\n\n4A 4b\r\n", "hex", &[b"\0\xff", b"", b"JK"]);
    check(b"AP8=\n\n", "base64", &[b"\0\xff", b""]);
    check(b"{\"payload\":\"a\\n\"}\n\n{\"payload_base64\":\"/w==\"}", "json", &[b"a\n", b"\xff"]);
    check(b"\0\0\0\x01a\0\0\0\0", "frames", &[b"a", b""]);
    check(b"a\n\nb", "whole", &[b"a\n\nb"]);
    check(b"", "whole", &[b""]);
}

#[test]
fn what_cannot_be_decoded_is_said_with_its_place_in_the_line() {
    for (line, format, words) in [
        (" 0 0\t0x", "hex", "not hexadecimal: byte 7 is 'x'"),
        ("00 0", "hex", "not hexadecimal: the number of digits is odd"),
        ("\x1b0", "hex", r"byte 1 is '\u{1b}'"),
        (" YQ-=", "base64", "not Base64: byte 4 is '-'"),
        ("YQ= YQ==", "base64", "byte 3 is '='"),
        (
            "YQ==\nYQ",
            "base64",
            "2 of the input: not Base64: the number of digits is no multiple of 4 (is = ",
        ),
        ("YR==", "base64", "byte 2 is 'R', whose last bits are not zero"),
        ("Y===", "base64", "the padding (=) is wrong at byte 2"),
        ("\n{\"payload\":}", "json", "record 2 of the input: not JSON: expected value at byte 12"),
        ("{\"payload_base64\":\"Y!==\"}", "json", "payload_base64 is not Base64: byte 2 is '!'"),
    ] {
        let error = compose(line.as_bytes(), format, 1000).1.unwrap();
        assert!(error.contains(words), "{line}: {error}");
    }
}

#[test]
fn bad_records_are_named_and_those_before_are_not_lost() {
    for (input, format, word) in [
        (&b"00\nxy\n00\n"[..], "hex", "record 2 of the input: not hexadecimal"),
        (b"AP8=\n!\n", "base64", "record 2 of the input: not Base64"),
        (b"{\"payload\":\"\"}\n{}\n", "json", "record 2 of the input: neither payload"),
        (b"\0\0\0\x01a\0\0\0\x05hel", "frames", "got 3 of 5"),
        (b"ok\n12345678901\n", "lines", "record 2 of the input: message is over the limit of 10"),
        (b"ok\n\n12345\n67890\n", "text", "message is over the limit of 10"),
    ] {
        let (messages, error) = compose(input, format, 10);
        assert_eq!(messages.len(), 1, "{format}");
        let error = error.unwrap();
        assert!(error.contains(word), "{format}: {error}");
    }
}

#[test]
fn a_record_that_cannot_be_framed_is_named_and_ends_the_input() {
    let layout: Layout = "h1:u32be".parse().unwrap();
    let records = b"{\"header\":\"51\",\"payload\":\"a\"}\n\n{\"payload\":\"b\"}\n\
                    {\"header\":\"5152\",\"payload\":\"c\"}\n{\"payload\":\"d\"}\n";
    let framed = b"\x51\0\0\0\x01a\0\0\0\0\x01b";
    for (input, format, record) in [
        (&records[..], InputFormat::Json, Some(4)),
        (b"\0\0\0\0\x01a\0\0\0\0\x01b", InputFormat::Frames(layout), None),
    ] {
        let mut composer = Composer::new(input, format, 10);
        let mut out = Vec::new();
        let mut read = || {
            composer.read_with_headers(|header, payload| {
                append_frame_with_header(&mut out, layout, 10, &header.to_vec(), payload)
            })
        };
        match record {
            Some(record) => {
                let error = read().unwrap_err();
                assert_eq!(error.record, Some(record));
                let text = "record 4 of the input: a header of 2 bytes, but h1:u32be has 1";
                assert_eq!(error.to_string(), text);
                assert!(!read().unwrap(), "nothing follows");
                assert_eq!(out, framed);
            }
            None => {
                assert!(read().unwrap());
                assert_eq!(out, input);
            }
        }
    }
    // In each format, and wherever a message is passed on.
    let layout: Layout = "u8-3".parse().unwrap();
    for (format, input, record) in [
        ("text", &b"long\n\nab\n\n"[..], Some(4)),
        ("text", b"long\n\nab", Some(3)),
        ("text", b"long\n\n\n", Some(3)),
        ("lines", b"long\nab\nlong\n", Some(2)),
        ("lines", b"long\nab", Some(2)),
        ("nul", b"long\0ab\0", Some(2)),
        ("hex", b"6c6f6e67\n6162\n", Some(2)),
        ("base64", b"bG9uZw==\nYWI=\n", Some(2)),
        ("whole", b"ab", None),
        ("frames", b"\0\0\0\x04long\0\0\0\x02ab", Some(2)),
    ] {
        let mut composer = Composer::new(input, format.parse().unwrap(), 10);
        let mut out = Vec::new();
        let error = loop {
            let read = composer.read_with_headers(|header, payload| {
                append_frame_with_header(&mut out, layout, 10, &header.to_vec(), payload)
            });
            match read {
                Ok(more) => assert!(more, "{format}: nothing was refused"),
                Err(error) => break error,
            }
        };
        assert_eq!(error.record, record, "{format}: {error}");
        assert!(error.to_string().contains("is less than a u8-3 prefix"), "{error}");
        assert_eq!(out, if format == "whole" { &b""[..] } else { b"\x01long" }, "{format}");
    }
}

#[test]
fn frames_with_headers_are_read_in_their_layout() {
    for (layout, input, messages) in [
        ("h1:u32be+self", &b"Q\0\0\0\x05a"[..], &[(&b"Q"[..], &b"a"[..])][..]),
        ("h1:u8:data:h1", b"a\x01xbc\0d", &[(b"ab", b"x"), (b"cd", b"")]),
        ("hex4+self", b"0005a0000", &[(b"", b"a"), (b"0000", b"")]),
    ] {
        let format = InputFormat::default();
        assert_eq!(format.for_layout(layout.parse().unwrap()), format);
        let format = InputFormat::Frames(Layout::U32BE).for_layout(layout.parse().unwrap());
        let mut composer = Composer::new(input, format, 10);
        let mut found = Vec::new();
        let mut take = |header: Header<'_>, payload: &[u8]| {
            found.push((header.to_vec(), payload.to_vec()));
            Ok(())
        };
        while composer.read_with_headers(&mut take).unwrap() {}
        let messages = messages.iter().map(|(header, payload)| (header.to_vec(), payload.to_vec()));
        assert!(found.iter().cloned().eq(messages), "{layout}: {found:?}");
    }
    let layout = "h1:u32be+self".parse().unwrap();
    let mut composer = Composer::new(&b"Q\0\0\0\x01"[..], InputFormat::Frames(layout), 10);
    let error = composer.read(|_| {}).unwrap_err().to_string();
    assert!(error.starts_with("the input is not h1:u32be+self frames: message 1"), "{error}");
}
