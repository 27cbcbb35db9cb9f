//! What is said where layouts are judged.

use super::*;

fn say(frame: &[u8], layout: &str) -> String {
    diagnose(&evidence(frame, layout)).map_or("nothing".into(), |suspect| suspect.to_string())
}

#[test]
fn foreign_protocols_are_named() {
    for (bytes, word) in [
        (&b"GET / HTTP/1.1\r\n"[..], "HTTP request"),
        (b"GET ", "text without a length prefix (\"GET \")"),
        (b"GET key\r\n", "text"),
        (b"HTTP/1.1 400 Bad Request", "HTTP response"),
        (b"HTTP", "HTTP response"),
        (b"PRI * HTTP/2.0\r\n", "HTTP/2"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH"),
        (b"\x16\x03\x01\x02\x00\x01", "TLS handshake"),
        (b"\x15\x03\x03\x00\x02\x02", "TLS alert"),
        (b"{\"id\":1}\n", "JSON"),
        (b"PROXY TCP4 10.0.0.1", "PROXY protocol"),
        (b"hello there\r\n", "text without a length prefix (\"hello there\\r\\n\")"),
        ("grüße an alle und noch mehr".as_bytes(), "text"),
    ] {
        assert!(say(bytes, "u32be").contains(word), "{:?}: {}", bytes, say(bytes, "u32be"));
    }
}

#[test]
fn the_other_byte_order_is_seen_from_one_prefix_and_offered_for_a_whole_message() {
    for (stream, layout, other) in
        [(b"\x05\0\0\0hello", "u32be", "u32le"), (b"\0\0\0\x05hello", "u32le", "u32be")]
    {
        let seen = format!("as {other} it would be 5, if that makes sense");
        assert_eq!(say(&stream[..4], layout), seen);
        // With a part of the message, it may be anything.
        assert_eq!(say(&stream[..6], layout), "nothing");
        let offered = format!("as {other} it would be 5");
        assert_eq!(say(stream, layout), offered);
    }
    // More has come than a message of 5 bytes.
    assert_eq!(say(b"\x05\0\0\0hello \xff\xfe\xff\x93\x07\xf1\xb2", "u32be"), "nothing");
}

#[test]
fn a_layout_that_has_worked_is_only_in_doubt_if_one_like_it_reads_all() {
    let stray = Evidence { has_worked: true, ..evidence(b"\n\0\0\0\x01", "u32be") };
    assert_eq!(diagnose(&stray), None);
    let counting = b"\0\0\0\x09hello\0\0\0\x09world";
    let all = Evidence { has_worked: true, message: 2, ..evidence(counting, "u32be") };
    assert!(diagnose(&all).unwrap().to_string().contains("u32be+self"));
}

#[test]
fn another_width_is_seen_from_whole_messages() {
    assert_eq!(say(b"\0\x05hello\0\x05world", "u32be"), "as u16be it would be 5");
}

#[test]
fn a_length_that_counts_its_prefix_is_seen_both_ways() {
    let counting = b"\0\0\0\x09hello\0\0\0\x09world";
    assert!(say(counting, "u32be").contains("may count its own prefix, as in u32be+self"));
    let plain = b"\0\0\0\x05hello\0\0\0\x05world";
    assert!(say(plain, "u32be+self").contains("may not count its own prefix, as in u32be"));
    let one = Evidence { missing: Some(4), ..evidence(b"\0\0\0\x09hello", "u32be") };
    assert!(diagnose(&one).unwrap().to_string().contains("u32be+self"));
}

#[test]
fn a_hello_in_another_layout_is_seen_whatever_the_layout() {
    let hello = Hello { sender: crate::wire::sender_id::SenderId::from_bytes([7; 16]), first: 1 };
    for layout in Layout::binary().filter(|layout| Hello::fits(*layout)) {
        let bytes = hello.encode(layout).unwrap();
        for other in Layout::binary().filter(|other| *other != layout) {
            let evidence = Evidence { layout: other, ..evidence(&bytes, "u32be") };
            assert_eq!(diagnose(&evidence), Some(Suspect::Hello { layout }), "as {other}");
        }
    }
}

#[test]
fn noise_is_not_given_a_name() {
    assert_eq!(say(b"\xff\xff\xff\xff", "u32be"), "nothing");
    assert_eq!(say(b"\x93\x07\xf1\xb2\x00\x01", "u32be"), "nothing");
}

#[test]
fn a_message_cannot_smuggle_control_bytes_into_the_diagnosis() {
    let text = say("ok\u{202e}\tfine".as_bytes(), "u32be");
    assert!(text.contains(r"ok\u{202e}\tfine"), "{text}");
}

#[test]
fn a_message_that_is_only_too_long_puts_no_layout_in_doubt() {
    let long = "longer than ten";
    let at_limit = |payload: &str| {
        let frame = [&[0, 0, 0, u8::try_from(payload.len()).unwrap()], payload.as_bytes()].concat();
        let evidence = Evidence { limit: 10, ..evidence(&frame, "u32be") };
        diagnose(&evidence)
    };
    assert_eq!(at_limit(long), None);
    assert_eq!(at_limit(&long.repeat(10)), None);
}
