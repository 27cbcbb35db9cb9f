use super::*;

#[cfg(feature = "detect")]
mod judged;

pub(super) fn evidence<'a>(frame: &'a [u8], layout: &str) -> Evidence<'a> {
    let layout: Layout = layout.parse().unwrap();
    let limit = layout.max_payload().min(1 << 20);
    Evidence {
        layout,
        limit,
        message: 1,
        bytes: frame,
        is_from_start: true,
        frame_at: 0,
        missing: None,
        has_worked: false,
        is_cut: false,
    }
}

#[test]
fn a_build_that_judges_no_layouts_names_what_a_stream_begins_with() {
    for (bytes, layout, said) in [
        (&b"GET / HTTP/1.1\r\n"[..], "u32be", "HTTP request"),
        (b"hello there\r\n", "u32be", "text without a length prefix"),
        (b"\x05\0\0\0", "u32be", "as u32le it would be 5, if that makes sense"),
        (b"\x05\0\0\0hello", "u32be", "as u32le it would be 5, if that makes sense"),
        // Netstrings, and messages of adb: framed, as text.
        (b"5:hello,5:world,", "u32be", "nothing"),
        (b"000Chost:version", "u32be", "nothing"),
        (b"\xff\xfe\xff\x93\x07\xf1\xb2", "u32be", "nothing"),
        (b"", "u32be", "nothing"),
    ] {
        let suspect = at_a_glance(&evidence(bytes, layout));
        let shown = suspect.map_or("nothing".into(), |suspect| suspect.to_string());
        assert!(shown.contains(said), "{bytes:?}: {shown}");
    }
    let later = Evidence { message: 2, has_worked: true, ..evidence(b"hello there", "u32be") };
    assert_eq!(at_a_glance(&later), None);
}
