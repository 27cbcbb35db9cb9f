//! Headers on the command line: what the program takes, shows and keeps of them.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::process::{Command, Output, Stdio};

use common::program::{FRAMELET, Server, check, framelet, odd_server, said, terminal};
use rustix::process::Signal;

/// The layout of PostgreSQL: a type byte before the length.
const POSTGRES: &str = "h1:u32be+self";

/// A query, its answer, and an empty message.
const FRAMES: &[u8] = b"Q\0\0\0\x0cSELECT 1D\0\0\0\x05\xffI\0\0\0\x04";

/// The same messages as JSON.
const OBJECTS: &str = concat!(
    r#"{"number":1,"offset":0,"length":8,"header":"51","payload":"SELECT 1"}"#,
    "\n",
    r#"{"number":2,"offset":13,"length":1,"header":"44","payload_base64":"/w=="}"#,
    "\n",
    r#"{"number":3,"offset":19,"length":0,"header":"49","payload":""}"#,
    "\n",
);

fn encode(arguments: &[&str], input: &[u8]) -> Output {
    framelet(&[&["encode", "--layout", POSTGRES], arguments].concat(), input)
}

#[track_caller]
fn written(output: &Output) -> &[u8] {
    check(output, 0, &[]);
    &output.stdout
}

#[test]
fn json_and_frames_carry_headers_in_both_directions() {
    let decode = |format| framelet(&["decode", "--layout", POSTGRES, "--output", format], FRAMES);
    assert_eq!(String::from_utf8_lossy(written(&decode("json"))), OBJECTS);
    assert_eq!(written(&encode(&["--input", "json"], OBJECTS.as_bytes())), FRAMES);
    assert_eq!(written(&decode("frames")), FRAMES);
    assert_eq!(written(&encode(&["--input", "frames"], FRAMES)), FRAMES);
    // The other formats show the payload, as if there were no header.
    assert_eq!(written(&decode("hex")), b"53454c4543542031\nff\n\n");
    assert_eq!(written(&decode("raw")), b"SELECT 1\xff");
}

#[test]
fn frames_in_files_are_u32be_for_layouts_without_a_header() {
    for layout in ["u16le", "u32be+self", "x0300:u16be+all", "dec/3a:data:x2c"] {
        let lines = framelet(&["encode", "--layout", layout, "--input", "lines"], b"one\n\ntwo\n");
        let arguments = ["decode", "--layout", layout, "--output"];
        let decode = |format| framelet(&[&arguments[..], &[format]].concat(), &lines.stdout);
        let frames = decode("frames");
        assert_eq!(written(&frames), b"\0\0\0\x03one\0\0\0\0\0\0\0\x03two", "{layout}");
        let arguments = ["encode", "--layout", layout, "--input", "frames"];
        assert_eq!(written(&framelet(&arguments, &frames.stdout)), lines.stdout, "{layout}");
        assert!(!String::from_utf8_lossy(&decode("json").stdout).contains("header"), "{layout}");
    }
}

#[test]
fn a_message_that_brings_no_header_gets_that_of_the_option_or_zeros() {
    let lines = encode(&["--input", "lines", "--header", "51"], b"one\n\n");
    assert_eq!(written(&lines), b"Q\0\0\0\x07oneQ\0\0\0\x04");
    assert_eq!(written(&encode(&["--input", "lines"], b"one\n")), b"\0\0\0\0\x07one");
    let objects = b"{\"payload\":\"a\"}\n{\"header\":\"\",\"payload\":\"b\"}\n{\"header\":\"52\",\"payload\":\"c\"}";
    let output = encode(&["--input", "json", "--header", "51"], objects);
    assert_eq!(written(&output), b"Q\0\0\0\x05aQ\0\0\0\x05bR\0\0\0\x05c");
    // Frames bring one.
    assert_eq!(written(&encode(&["--input", "frames", "--header", "52"], FRAMES)), FRAMES);
    let lsp = ["encode", "--layout", "lsp", "--input", "lines", "--header", "413a20620d0a"];
    let output = framelet(&lsp, b"one\n");
    assert_eq!(written(&output), b"Content-Length: 3\r\nA: b\r\n\r\none");
}

#[test]
fn a_header_that_the_layout_does_not_have_is_refused_before_anything_else_happens() {
    // Nothing listens there, and nothing connects.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    for command in [
        &["send", &address][..],
        &["send", &address, "--message", "a"],
        &["send", &address, "--ack"],
        &["encode"],
        &["bench", &address, "--count", "1"],
        &["bench", &address, "--echo", "--count", "1"],
    ] {
        for (layout, header, words) in [
            ("u32be", "51", "--header: a header of 1 byte, but u32be has none (--layout)"),
            ("u32be-4", "51", "--header: a header of 1 byte, but u32be-4 has none (--layout)"),
            (POSTGRES, "5151", "a header of 2 bytes, but h1:u32be+self has 1 (--layout)"),
            ("h2:u8-4", "51", "a header of 1 byte, but h2:u8-4 has 2 (--layout)"),
            ("lsp", "51", "the header of an lsp message is lines"),
            ("hex4+self", "51", "one of the markers 0000, 0001 and 0002"),
            (POSTGRES, "5", "not hexadecimal; write two digits for each byte"),
            (POSTGRES, "Q", "not hexadecimal; write two digits for each byte"),
        ] {
            let options = ["--layout", layout, "--header", header];
            let output = framelet(&[command, &options].concat(), b"message");
            assert_eq!(output.status.code(), Some(2), "{command:?}: {}", said(&output));
            let said = said(&output);
            assert!(said.contains(words) && output.stdout.is_empty(), "{command:?}: {said}");
        }
    }
    silent.set_nonblocking(true).unwrap();
    assert!(silent.accept().is_err(), "somebody connected");
}

#[test]
fn a_record_whose_header_does_not_fit_is_named_and_those_before_are_sent() {
    let objects =
        b"{\"header\":\"51\",\"payload\":\"one\"}\n\n{\"header\":\"5152\",\"payload\":\"two\"}\n";
    let output = encode(&["--input", "json"], objects);
    let words = "record 3 of the input: a header of 2 bytes, but h1:u32be+self has 1 (--layout)";
    check(&output, 2, &[words]);
    assert_eq!(output.stdout, b"Q\0\0\0\x07one");
    let server = Server::start(&["--layout", POSTGRES, "--output", "json"]);
    let address = server.address.to_string();
    let send = ["send", &address, "--layout", POSTGRES, "--input", "json"];
    check(&framelet(&send, objects), 2, &[words]);
    assert!(String::from_utf8(server.stop().output).unwrap().ends_with(
        ",\"number\":1,\"offset\":0,\"length\":3,\"header\":\"51\",\"payload\":\"one\"}\n"
    ));
    for (object, code, words) in [
        (r#"{"header":"5x","payload":""}"#, 2, "record 1 of the input: header is not hexadecimal"),
        (r#"{"header":5,"payload":""}"#, 2, "record 1 of the input: header is not a string"),
    ] {
        check(&encode(&["--input", "json"], object.as_bytes()), code, &[words]);
    }
    // A layout without one does not drop it.
    let output = framelet(&["encode", "--input", "json"], objects);
    check(
        &output,
        2,
        &["record 1 of the input: a header of 1 byte, but u32be has none (--layout)"],
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn a_message_that_is_too_short_for_its_layout_is_named_and_not_dropped() {
    for (input, record) in
        [("lines", "record 2 of the input: "), ("json", "record 2 of the input: ")]
    {
        let records = match input {
            "lines" => "long\nab\nlong\n",
            _ => "{\"payload\":\"long\"}\n{\"payload\":\"ab\"}\n{\"payload\":\"long\"}\n",
        };
        let output =
            framelet(&["encode", "--layout", "u8-4", "--input", input], records.as_bytes());
        check(&output, 3, &[record, "message of 2 bytes is less than a u8-4 prefix can say (4)"]);
        assert_eq!(output.stdout, b"\0long");
    }
}

#[test]
fn what_is_sent_with_a_header_is_served_with_it_and_replied_with_it() {
    let server = Server::start(&["--layout", POSTGRES, "--echo", "--output", "json"]);
    let address = server.address.to_string();
    let send = |arguments: &[&str], input: &[u8]| {
        let all = ["send", &address, "--layout", POSTGRES, "--output", "json", "--expect", "1"];
        let output = framelet(&[&all, arguments].concat(), input);
        String::from_utf8(written(&output).into()).unwrap()
    };
    let reply = |header| {
        format!(
            "{{\"direction\":\"in\",\"number\":1,\"offset\":0,\"length\":3,\"header\":\"{header}\",\
             \"payload\":\"one\"}}\n"
        )
    };
    assert_eq!(send(&["--header", "51", "--message", "one"], b""), reply("51"));
    assert_eq!(send(&["--message", "one"], b""), reply("00"));
    assert_eq!(send(&["--header", "52"], b"one\n"), reply("52"));
    assert_eq!(send(&["--header", "52", "--input", "json"], reply("53").as_bytes()), reply("53"));
    assert_eq!(send(&["--input", "frames"], b"T\0\0\0\x07one"), reply("54"));
    let served = String::from_utf8(server.stop().output).unwrap();
    let headers: Vec<serde_json::Value> = served
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["header"].take())
        .collect();
    assert_eq!(headers, ["51", "00", "52", "53", "54"]);
}

#[test]
fn what_is_typed_is_sent_with_the_header_of_the_option() {
    let server = Server::start(&["--layout", POSTGRES, "--output", "frames"]);
    let (mut keyboard, side) = terminal();
    let child = Command::new(FRAMELET)
        .args(["send", &server.address.to_string(), "--layout", POSTGRES, "--header", "51"])
        .stdin(side)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    keyboard.write_all(b"typed\n\n").unwrap();
    let frame = b"Q\0\0\0\x09typed";
    server.wait_for_output(frame.len());
    // Ctrl-D.
    keyboard.write_all(b"\x04").unwrap();
    check(&child.wait_with_output().unwrap(), 0, &["an empty line sends them; Ctrl-D ends"]);
    assert_eq!(server.stop().output, frame);
}

#[test]
fn an_acknowledged_message_has_no_header_and_one_that_brings_one_is_refused() {
    let server = Server::start(&["--output", "json"]);
    let address = server.address.to_string();
    let objects = b"{\"payload\":\"one\"}\n{\"header\":\"51\",\"payload\":\"two\"}\n";
    let output = framelet(&["send", &address, "--ack", "--input", "json"], objects);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let words = "record 2 of the input: a header of 1 byte, but u32be has none (--layout)";
    assert!(said(&output).contains(words), "{}", said(&output));
    let served = String::from_utf8(server.stop().output).unwrap();
    assert!(
        served.ends_with(",\"number\":1,\"offset\":33,\"length\":3,\"payload\":\"one\"}\n"),
        "{served}"
    );
    // A layout with a header has no acknowledgements.
    let output = framelet(&["send", &address, "--ack", "--layout", POSTGRES], b"one\n");
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}

#[test]
fn bench_sends_the_header_of_the_option() {
    let (sender, received) = std::sync::mpsc::channel();
    let address = odd_server(move |mut stream| {
        let mut frames = Vec::new();
        stream.read_to_end(&mut frames).unwrap();
        sender.send(frames).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    });
    let output = framelet(
        &[
            &["bench", &address, "--layout", POSTGRES, "--header", "51", "--size", "3"][..],
            &["--connections", "1", "--count", "7", "--warm-up", "0s"],
        ]
        .concat(),
        b"",
    );
    assert!(output.status.success(), "{}", said(&output));
    let frames = received.recv().unwrap();
    assert_eq!(frames.len(), 7 * 8);
    assert!(frames.chunks(8).all(|frame| frame.starts_with(b"Q\0\0\0\x07")), "{frames:?}");
    // And the echo, which is the frame as it was sent.
    let server = Server::start(&["--layout", POSTGRES, "--echo", "--output", "none"]);
    let address = server.address.to_string();
    let echo =
        ["bench", &address, "--echo", "--layout", POSTGRES, "--header", "51", "--count", "9"];
    let output = framelet(&[&echo[..], &["--warm-up", "0s"]].concat(), b"");
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn a_killed_server_goes_on_in_its_file_of_frames_and_another_layout_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages");
    let to = format!("file:{}", path.display());
    let arguments = ["--to", &to, "--output", "frames", "--layout"];
    let send = |server: &Server| {
        let address = server.address.to_string();
        let send = ["send", &address, "--layout", POSTGRES, "--input", "frames"];
        check(&framelet(&send, FRAMES), 0, &[]);
    };
    let server = Server::start(&[&arguments[..], &[POSTGRES]].concat());
    send(&server);
    server.signal(Signal::KILL);
    server.wait();
    let torn = b"Q\0\0\0\x0cSELE";
    fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(torn).unwrap();
    let server = Server::start(&[&arguments[..], &[POSTGRES]].concat());
    server.wait_for_log("moved the last 9 bytes", 1);
    send(&server);
    assert!(server.stop().status.success());
    assert_eq!(fs::read(&path).unwrap(), FRAMES.repeat(2));
    assert_eq!(fs::read(directory.path().join("messages.torn-1")).unwrap(), torn);
    for (layout, held) in [("u32be", "u32be"), ("h1:u32be", "h1:u32be"), ("u16le", "u32be")] {
        let output =
            framelet(&[&["serve", "127.0.0.1:0"], &arguments[..], &[layout]].concat(), b"");
        let words = format!(
            "it holds frames in {POSTGRES}, not in {held}; start with that layout, or give another \
             file (--layout)"
        );
        check(&output, 2, &[&words]);
    }
    // What is in it can be read and sent again.
    let file = path.to_str().unwrap();
    let output = framelet(&["decode", file, "--layout", POSTGRES, "--output", "hex"], b"");
    assert_eq!(written(&output), b"53454c4543542031\nff\n\n".repeat(2));
}

#[test]
fn a_file_that_somebody_else_wrote_is_not_cut_because_short_lengths_fit_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("list");
    let list: String =
        (0..50).map(|id| format!("user{id}:x:{id}:{id}::/home/{id}:/bin/sh\n")).collect();
    std::fs::write(&path, &list).unwrap();
    let to = format!("file:{}", path.display());
    for layout in ["h1:u8", "h4:u16be", "u16be:data:h2"] {
        let arguments =
            ["serve", "127.0.0.1:0", "--to", &to, "--output", "frames", "--layout", layout];
        let output = framelet(&arguments, b"");
        assert_eq!(output.status.code(), Some(2), "{layout}: {}", said(&output));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), list, "{layout}");
    }
}

#[test]
fn a_message_that_waits_for_a_reply_has_its_header_too() {
    let server = Server::start(&["--layout", POSTGRES, "--echo", "--output", "none"]);
    let address = server.address.to_string();
    let arguments = ["send", &address, "--layout", POSTGRES, "--each", "--header", "51"];
    let formats = ["--input", "lines", "--output", "frames"];
    let output = framelet(&[&arguments[..], &formats[..]].concat(), b"one\ntwo\n");
    assert_eq!(written(&output), b"Q\0\0\0\x07oneQ\0\0\0\x07two");
}

#[test]
fn the_longest_header_lines_survive_json_and_longer_ones_are_refused_with_the_limit() {
    let frame = |len: usize| {
        let lines =
            format!("a: {}\r\n", "b".repeat(len - "Content-Length: 2\r\na: \r\n\r\n".len()));
        format!("Content-Length: 2\r\n{lines}\r\nhi").into_bytes()
    };
    let json = framelet(&["decode", "--layout", "lsp", "--output", "json"], &frame(4096));
    check(&json, 0, &[]);
    let again = framelet(&["encode", "--layout", "lsp", "--input", "json"], &json.stdout);
    check(&again, 0, &[]);
    assert!(again.stdout == frame(4096));
    let output = framelet(&["decode", "--layout", "lsp"], &frame(4097));
    assert_eq!(output.status.code(), Some(3));
    assert!(
        said(&output).contains("the header lines have more than 4096 bytes"),
        "{}",
        said(&output)
    );
    let header = "613a0d0a".repeat(1100);
    let longer = format!("{{\"header\":\"{header}\",\"payload\":\"hi\"}}");
    let output = framelet(&["encode", "--layout", "lsp", "--input", "json"], longer.as_bytes());
    let words =
        ["record 1 of the input: the header of an lsp message is lines", "this one has 4400"];
    check(&output, 2, &words);
}
