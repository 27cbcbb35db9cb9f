use super::*;
use crate::wire::frame::{append_frame, append_frame_with_header, whole_frame};

fn layout(text: &str) -> Layout {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Layouts of every kind of item.
const KINDS: [&str; 30] = [
    "h1:u32be",
    "h1:u32be+self",
    "x0300:u16be+all",
    "u24le:h1",
    "h3:u32be:data:xce",
    "dec/3a:data:x2c",
    "x24:dec/0d0a:data:x0d0a",
    "dec/20",
    "hex4+self",
    "hex4",
    "hex16",
    "h1:ber",
    "ber+3",
    "bcd4",
    "bcd16",
    "dec4",
    "dec1",
    "dec4+self",
    "h16:u16be+all",
    "h2:u16le:h20",
    "x5a425844:h1:u32le:h4",
    "h1:varint",
    "varint+2",
    "u16be+4",
    "u16be-4",
    "u64le-1",
    "h1:x00:u8:h2:x0102:h1:data:h1:xff:h2",
    "u8+all:data:h3",
    "u16be+all",
    "lsp",
];

fn kinds() -> impl Iterator<Item = Layout> {
    KINDS.into_iter().map(layout)
}

/// Returns a header that the layout has.
fn some_header(layout: Layout, random: &mut fastrand::Rng) -> Vec<u8> {
    match (layout.to_string().as_str(), layout.header_len()) {
        ("lsp", _) => b"Content-Type: text\r\nx: y\r\n".to_vec(),
        (_, None) => Vec::new(),
        (_, Some(len)) => (0..len).map(|_| random.u8(..)).collect(),
    }
}

fn lengths(layout: Layout, random: &mut fastrand::Rng) -> Vec<usize> {
    let max = layout.max_payload();
    let edges = [0, 1, 4, 9, 10, 127, 128, 255, 256, 16_383, 16_384, 1 << 21, 3 << 21, 1 << 28];
    let lengths = edges.into_iter().chain([max - 1, max]);
    lengths.chain((0..100).map(|_| random.usize(..=max))).filter(|&length| length <= max).collect()
}

#[test]
fn every_layout_has_one_text_form_for_both_directions() {
    assert_eq!(Layout::binary().count(), 19);
    for each in Layout::binary().chain(kinds()) {
        assert_eq!(layout(&each.to_string()), each);
    }
    for text in KINDS {
        assert_eq!(layout(text).to_string(), text);
    }
    // What says the same is written the same.
    for (text, same) in [("u16be:data", "u16be"), ("x0A:u8", "x0a:u8"), ("dec04", "dec4")] {
        assert_eq!(layout(text).to_string(), same);
    }
}

#[test]
fn what_is_encoded_decodes_to_the_same_length() {
    let mut random = fastrand::Rng::with_seed(1);
    for layout in Layout::binary().chain(kinds()) {
        for length in lengths(layout, &mut random) {
            let Ok(prefix) = layout.encode(length) else {
                assert!(length < 4 && layout.to_string().contains('-'), "{layout} {length}");
                continue;
            };
            let whole = Decoded::Prefix { prefix: prefix.len(), payload: length as u64 };
            assert_eq!(layout.decode(&prefix), Ok(whole), "{layout} {length}");
            for cut in 0..prefix.len() {
                let part = layout.decode(&prefix[..cut]).unwrap();
                assert!(
                    matches!(part, Decoded::Incomplete { need } if need > cut && need <= prefix.len()),
                    "{layout} {length}: {part:?} after {cut} bytes"
                );
            }
        }
        assert!(layout.encode(layout.max_payload() + 1).is_err(), "{layout}");
    }
}

#[test]
fn a_frame_gives_back_its_header_and_its_payload() {
    let mut random = fastrand::Rng::with_seed(2);
    for layout in Layout::binary().chain(kinds()) {
        let longest = layout.max_payload().min(300);
        for length in 0..=longest {
            let payload: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
            let header = some_header(layout, &mut random);
            let mut frame = b"before".to_vec();
            let written =
                append_frame_with_header(&mut frame, layout, MAX_PAYLOAD, &header, &payload);
            if let Err(EncodeError::TooShort { least, .. }) = written {
                assert!(length < least && frame == b"before");
                continue;
            }
            let frame = &frame[6..];
            let extent = whole_frame(layout, longest, frame).unwrap();
            assert_eq!(
                (extent.len, extent.payload(frame)),
                (frame.len(), &payload[..]),
                "{layout}"
            );
            assert_eq!(extent.header(layout, frame).to_vec(), header, "{layout}");
            assert_eq!(extent.header(layout, frame).len(), header.len(), "{layout}");
            for cut in 0..frame.len() {
                assert!(whole_frame(layout, longest, &frame[..cut]).is_none(), "{layout}, {cut}");
            }
        }
    }
}

#[test]
fn a_header_that_is_not_given_is_zeros_and_one_that_does_not_fit_is_refused() {
    let mut out = Vec::new();
    append_frame(&mut out, layout("h2:u8:h1:data:h1"), 10, b"ab").unwrap();
    assert_eq!(out, b"\0\0\x02\0ab\0");
    for (text, header) in [
        ("h2:u8", &b"a"[..]),
        ("u8", b"a"),
        ("h1:u8", b"ab"),
        ("lsp", b"a"),
        ("lsp", b"a: b\rc\r\n"),
        ("lsp", b"a: b\r\r\n"),
        ("hex4+self", b"0003"),
    ] {
        let error = append_frame_with_header(&mut out, layout(text), 10, header, b"");
        assert!(matches!(error, Err(EncodeError::Header { .. })), "{text}");
    }
    assert_eq!(out.len(), 7);
}

#[test]
fn bytes_of_known_protocols_are_read_and_written() {
    for (text, frame, header, payload) in [
        ("h1:u32be", &b"\x01\0\0\0\x02hi"[..], &b"\x01"[..], &b"hi"[..]),
        ("h1:u32be+self", b"Q\0\0\0\x06hi", b"Q", b"hi"),
        ("x0300:u16be+all", b"\x03\0\0\x06hi", b"", b"hi"),
        ("u24le:h1", b"\x02\0\0\x07hi", b"\x07", b"hi"),
        ("h3:u32be:data:xce", b"\x01\0\x02\0\0\0\x02hi\xce", b"\x01\0\x02", b"hi"),
        ("dec/3a:data:x2c", b"5:hello,", b"", b"hello"),
        ("dec/3a:data:x2c", b"0:,", b"", b""),
        ("x24:dec/0d0a:data:x0d0a", b"$2\r\nhi\r\n", b"", b"hi"),
        ("dec/20", b"12 <34>1 message", b"", b"<34>1 messag"),
        ("hex4+self", b"0006a\n", b"", b"a\n"),
        ("hex4+self", b"0000", b"0000", b""),
        ("hex4+self", b"0004", b"", b""),
        ("h1:ber", b"0\x02hi", b"0", b"hi"),
        ("bcd4", b"\x00\x12abcdefghijkl", b"", b"abcdefghijkl"),
        ("u16be+4", b"\0\x06hi", b"", b"hi"),
        ("u8-1", b"\x01hi", b"", b"hi"),
        ("lsp", b"Content-Length: 2\r\na: b\r\n\r\nhi", b"a: b\r\n", b"hi"),
    ] {
        let layout = layout(text);
        let extent = whole_frame(layout, 100, frame).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(extent.payload(frame), payload, "{text}");
        assert_eq!(extent.header(layout, frame).to_vec(), header, "{text}");
        let mut written = Vec::new();
        append_frame_with_header(&mut written, layout, 100, header, payload).unwrap();
        assert_eq!(written, frame[..extent.len], "{text}");
    }
    // BER need not be in its shortest form, and header lines may be in any case and end with a line feed.
    for (text, frame, header, payload) in [
        ("ber", &b"\x84\0\0\0\x02hi"[..], &b""[..], &b"hi"[..]),
        ("hex4+self", b"000Ahello\n", b"", b"hello\n"),
        ("lsp", b"a:  b\nCONTENT-length:2\n\nhi", b"a:  b\r\n", b"hi"),
    ] {
        let extent = whole_frame(layout(text), 100, frame).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(extent.payload(frame), payload, "{text}");
        assert_eq!(extent.header(layout(text), frame).to_vec(), header, "{text}");
    }
}

#[test]
fn what_is_wrong_is_said_as_soon_as_it_is_there() {
    for (text, bytes, says) in [
        (
            "x0300:u16be+all",
            &b"G"[..],
            "byte 0 of the frame is 0x47 ('G'), but the layout has 0x03 there",
        ),
        (
            "x0300:u16be+all",
            b"\x03\0\0\x03",
            "length 3 is smaller than the 4 bytes it counts beside",
        ),
        (
            "u16be:x0102",
            b"\0\0\x01\x03",
            "byte 3 of the frame is 0x03, but the layout has 0x02 there",
        ),
        ("u16be+4", b"\0\x03", "length 3 is smaller than the 4 bytes"),
        ("hex4+self", b"0003", "length 3 is smaller than the 4 bytes of the prefix"),
        ("hex4", b"00g", "should be digits, but has 0x67 ('g')"),
        ("dec4", b"1a", "should be digits, but has 0x61 ('a')"),
        ("dec/20", b" ", "should be digits, but has 0x20"),
        ("dec/20", b"1\n", "should end with 0x20, but has 0x0a"),
        ("dec/0d0a", b"1\r1", "should end with 0x0a, but has 0x31 ('1')"),
        ("dec/20", b"01", "a needless zero"),
        ("dec/20", b"12345678901", "over 10 digits"),
        ("bcd4", b"\x0a", "two decimal digits a byte, but has 0x0a"),
        ("ber", b"\x80", "indefinite"),
        ("ber", b"\x89", "9 bytes, more than 8"),
        ("lsp", b"GET ", "name and a colon"),
        ("lsp", b"a: b\rc", "a carriage return before its end"),
        ("lsp", b"a: b\r\r", "a carriage return before its end"),
        ("lsp", b"a: b\r\n\r\n", "no Content-Length"),
        ("lsp", b"content-length: 1\r\nContent-Length: 1\r\n", "more than one Content-Length"),
        ("lsp", b"Content-Length: -1\r\n", "not a number"),
        ("lsp", &[b'a'; 4096], "more than 4096 bytes"),
    ] {
        let error = layout(text).decode(bytes).unwrap_err().to_string();
        assert!(error.contains(says), "{text}: {error}");
        assert!(layout(text).decode(&bytes[..bytes.len() - 1]).is_ok(), "{text} {bytes:?}");
    }
    let error = layout("u8:data:x0d0a").check_trailer(b"\r\r", 3).unwrap_err().to_string();
    assert!(error.starts_with("byte 4 of the frame is 0x0d"), "{error}");
    assert!(whole_frame(layout("u8:data:x0a"), 10, b"\x01a\r").is_none());
}

#[test]
fn a_length_is_refused_rather_than_shortened() {
    let error = layout("u8").encode(300).unwrap_err();
    assert_eq!(error.to_string(), "message of 300 bytes is more than a u8 prefix can say (255)");
    for (text, longest) in [
        ("u8+self", 254),
        ("u16be", 65_535),
        ("x0300:u16be+all", 65_531),
        ("dec4", 9_999),
        ("bcd4", 9_999),
        ("hex4+self", 65_531),
        ("u8+5", 250),
        ("u8-5", 260),
        ("dec/20", MAX_PAYLOAD),
        ("ber", MAX_PAYLOAD),
    ] {
        assert_eq!(layout(text).max_payload(), longest, "{text}");
        assert!(layout(text).encode(longest).is_ok() && layout(text).encode(longest + 1).is_err());
    }
    let error = layout("u8-5").encode(4).unwrap_err();
    assert_eq!(error.to_string(), "message of 4 bytes is less than a u8-5 prefix can say (5)");
}

#[test]
fn wide_numbers_do_not_wrap() {
    for (bytes, number) in [
        ([0, 0, 0, 1, 0, 0, 0, 3], (1 << 32) + 3),
        ([0x80, 0, 0, 0, 0, 0, 0, 0], 1 << 63),
        ([0xff; 8], u64::MAX),
    ] {
        let decoded = layout("u64be").decode(&bytes);
        assert_eq!(decoded, Ok(Decoded::Prefix { prefix: 8, payload: number }));
        let more = layout("u64be-9").decode(&bytes);
        let payload = number.saturating_add(9);
        assert_eq!(more, Ok(Decoded::Prefix { prefix: 8, payload }));
        let ber = layout("ber").decode(&[&b"\x88"[..], &bytes].concat());
        assert_eq!(ber, Ok(Decoded::Prefix { prefix: 9, payload: number }));
    }
    let digits = layout("hex16").decode(b"ffffffffffffffff");
    assert_eq!(digits, Ok(Decoded::Prefix { prefix: 16, payload: u64::MAX }));
}

#[test]
fn texts_that_name_no_layout_say_what_to_write() {
    for (text, says) in [
        ("u32", "which byte order? write u32be"),
        ("h1:u32", "\"u32\": which byte order? write u32be"),
        ("varint+self", "cannot count itself"),
        ("h1:dec/20+all", "\"dec/20+all\": dec/20 cannot count itself"),
        ("ber+self", "ber cannot count itself"),
        ("u31be", "no such layout; did you mean u32be?"),
        ("", "no such layout, such as u32be, h1:u32be or postgres"),
        ("postgress", "no such layout; did you mean postgres?"),
        ("POSTGRES", "no such layout; did you mean postgres?"),
        ("iso8583-asci", "no such layout; did you mean iso8583-ascii?"),
        ("lspp", "no such layout; did you mean lsp?"),
        ("xyzzy", "no such layout, such as"),
        ("u32eb+self", "no such layout; did you mean u32be+self?"),
        ("h1:u32eb+all", "\"u32eb+all\": no such item; did you mean u32be+all?"),
        ("u8:dta", "\"dta\": no such item; did you mean data?"),
        ("h1:lsp", "\"lsp\": no such item, such as u32be, h1 or data"),
        ("h1:postgress", "\"postgress\": no such item, such as"),
        ("h1", "it has no length"),
        ("h1:data", "it has no length"),
        ("u8:u8", "it has two lengths"),
        ("data:u8", "its length follows the payload"),
        ("u8:data:data", "two payloads"),
        ("h0:u8", "1 to 64 bytes"),
        ("h65:u8", "1 to 64 bytes"),
        ("h64:h64:h64:h64:u8", "256 bytes beside the length and the payload, more than 255"),
        ("x:u8", "pairs of hexadecimal digits"),
        ("x0:u8", "pairs of hexadecimal digits"),
        ("bcd3", "bcd3 would end within a byte"),
        ("bcd0", "bcd has 1 to 16 digits"),
        ("dec17", "dec has 1 to 16 digits"),
        ("dec/31", "do not begin with a digit"),
        ("u8+300", "would have to be at least 300, but the field ends at 255"),
        ("u8+\n\u{1b}", "+\\n\\u{1b} is not what a length counts"),
        (
            "u64be-2147483648",
            "its payloads would have at least 2147483648 bytes, more than 2147483647",
        ),
        ("u8+0", "+0 is not what a length counts"),
        ("u8+-1", "+-1 is not what a length counts"),
        ("u8+Self", "write +self"),
        ("dec1+all:h9", "would have to be at least 10, but the field ends at 9"),
    ] {
        let error = text.parse::<Layout>().expect_err(text).to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
fn an_unknown_name_is_told_apart_from_a_contradiction() {
    for (text, unknown) in
        [("postgress", true), ("h1:u32eb", true), ("u32", false), ("u8:u8", false)]
    {
        assert_eq!(text.parse::<Layout>().unwrap_err().is_unknown_name(), unknown, "{text}");
    }
}

#[test]
fn presets_are_in_order_and_each_is_a_layout_in_its_text_form() {
    assert!(PRESETS.is_sorted_by(|one, other| one.name < other.name));
    for preset in PRESETS {
        assert_eq!(layout(preset.name), layout(preset.notation));
        assert_eq!(layout(preset.name).to_string(), preset.notation, "{}", preset.name);
        // A name would hide a layout that is written the same.
        let binary = Layout::binary().any(|plain| plain.to_string() == preset.name);
        assert!(!binary && preset.name != "ber" && !preset.name.contains([':', '+']));
        assert!(!preset.about.is_empty() && !preset.source.is_empty());
    }
}

#[test]
fn the_parts_of_a_layout_are_its_items() {
    for text in KINDS.into_iter().chain(PRESETS.iter().map(|preset| preset.notation)) {
        let layout = layout(text);
        let items = text.split(':').count();
        let says_data = text.split(':').any(|item| item == "data");
        assert_eq!(layout.parts().len(), items + usize::from(!says_data), "{text}");
        let header = |part: &Part| if let Part::Header { len } = part { *len } else { 0 };
        let sum: usize = layout.parts().iter().map(header).sum();
        assert!(layout.header_len().is_none_or(|len| len == sum), "{text}");
    }
    let parts = layout("h1:u8+3:x0a:data:x0d0a").parts();
    let length = Part::Length { counts: LengthCounts::More(3) };
    let (feed, end) = (Part::Fixed { bytes: b"\n" }, Part::Fixed { bytes: b"\r\n" });
    assert_eq!(parts, [Part::Header { len: 1 }, length, feed, Part::Payload, end]);
    for (text, counts) in [("u8", LengthCounts::Payload), ("u8+self", LengthCounts::Itself)] {
        assert_eq!(layout(text).parts(), [Part::Length { counts }, Part::Payload]);
    }
}

#[test]
fn what_is_parsed_is_printed_as_a_text_that_says_the_same() {
    const ITEMS: [&str; 28] = [
        "h1", "h2", "h64", "h65", "h", "x", "x00", "x0D0a", "xf", "u8", "u16be", "u24le", "u32be",
        "u64le", "u32", "varint", "ber", "dec4", "hex16", "bcd4", "bcd3", "dec/20", "dec/31",
        "data", "data", "lsp", "postgres", "",
    ];
    const COUNTS: [&str; 8] =
        ["+self", "+all", "+4", "-4", "+0", "+", "+4294967295", "-99999999999"];
    let mut random = fastrand::Rng::with_seed(3);
    let mut parsed = 0;
    for _ in 0..10_000 {
        let mut item = || match random.u8(..4) {
            0 => ITEMS[random.usize(..28)].to_owned() + COUNTS[random.usize(..8)],
            _ => ITEMS[random.usize(..28)].to_owned(),
        };
        let items: Vec<String> = (0..5).map(|_| item()).collect();
        let mut text = items[..random.usize(1..=5)].join(":");
        if random.u8(..8) == 0 {
            text.insert(random.usize(..=text.len()), ['é', ':', '0', '+'][random.usize(..4)]);
        }
        let Ok(layout) = text.parse::<Layout>() else { continue };
        parsed += 1;
        let printed = layout.to_string();
        assert_eq!(printed.parse(), Ok(layout), "{text}, printed as {printed}");
        assert_eq!(printed.parse::<Layout>().map(|again| again.to_string()), Ok(printed), "{text}");
    }
    assert!(parsed > 300, "only {parsed} of the texts were layouts");
    for _ in 0..2_000 {
        let bytes: Vec<u8> = (0..random.usize(0..20)).map(|_| random.u8(..)).collect();
        let _ = String::from_utf8_lossy(&bytes).parse::<Layout>();
    }
}

#[test]
fn header_lines_are_decoded_once_however_they_are_cut() {
    for prefix in
        ["Content-Length: 2\r\n\r\n", "a: b\r\ncontent-length:2\r\n\r\n", "Content-Length: 2\n\n"]
    {
        let frame = [prefix.as_bytes(), b"\n\n"].concat();
        for cut in 0..prefix.len() {
            let (begun, next) = frame.split_at(cut);
            assert_eq!(layout("lsp").rest_of_prefix(begun, next), prefix.len() - cut, "{cut}");
        }
        let part = &prefix.as_bytes()[..prefix.len() - 1];
        assert_eq!(layout("lsp").rest_of_prefix(b"", part), part.len());
    }
    // A longer one is an error, which needs no more bytes.
    assert_eq!(layout("lsp").rest_of_prefix(&[b'a'; 4000], &[b'a'; 1000]), 96);
    assert_eq!(layout("h1:ber").rest_of_prefix(b"0", &[1; 100]), 0);
}

#[test]
fn header_lines_that_were_read_can_be_written_up_to_the_longest() {
    let lsp = layout("lsp");
    // Each of these is written with one byte more for each line feed, and two for the space and the CR.
    for (before, line_end) in [("Content-Length: ", "\r\n"), ("content-length:", "\n")] {
        for payload in [&b"hello"[..], &[b'x'; 1000]] {
            let (mut longest, mut too_long) = (0, 0);
            for len in 1..4100 {
                // Short lines, and one of any length.
                let lines = ["a:", line_end].concat().repeat(len.min(300));
                let header = lines + "b:" + &"c".repeat(len.saturating_sub(300)) + line_end;
                let head =
                    [before, &payload.len().to_string(), line_end, &header, line_end].concat();
                let frame = [head.as_bytes(), payload].concat();
                let Some(extent) = whole_frame(lsp, 1000, &frame) else {
                    assert!(lsp.decode(&frame).is_err(), "{len}");
                    too_long += 1;
                    continue;
                };
                assert_eq!(too_long, 0, "{len}");
                let header = extent.header(lsp, &frame).to_vec();
                let mut written = Vec::new();
                append_frame_with_header(&mut written, lsp, 1000, &header, payload).unwrap();
                let again = whole_frame(lsp, 1000, &written).unwrap();
                assert_eq!(again.header(lsp, &written).to_vec(), header);
                longest = written.len() - payload.len();
            }
            assert_eq!(longest, 4096, "{before:?}");
            assert!(too_long > 0, "{before:?}");
        }
    }
    let line = [b"a: ", &[b'b'; 5000][..], b"\r\n"].concat();
    let error = append_frame_with_header(&mut Vec::new(), lsp, 10, &line, b"").unwrap_err();
    assert!(error.to_string().contains("at most 4096 bytes"), "{error}");
    assert!(error.to_string().ends_with("this one has 5005 bytes"), "{error}");
}
