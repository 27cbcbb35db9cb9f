//! What people and scripts see of messages: hexdumps, and the offsets of frames in JSON.

mod common;

use std::io::Write;
use std::process::{Command, Stdio};

use common::program::{FRAMELET, Server, check, frame, framelet, said};
use serde_json::Value;

fn objects(output: &[u8]) -> Vec<Value> {
    str::from_utf8(output)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_hexdump_names_each_message_and_shows_offsets_digits_and_ascii() {
    let frames =
        [frame(b"GET /index.html\r\nHost: a\x1b[2J\xff"), frame(b""), frame(b"x")].concat();
    let output = framelet(&["decode", "--output", "hexdump"], &frames);
    check(&output, 0, &[]);
    let shown = "\
message 1 at byte 0: 29 bytes
00000000  47 45 54 20 2f 69 6e 64  65 78 2e 68 74 6d 6c 0d  |GET /index.html.|
00000010  0a 48 6f 73 74 3a 20 61  1b 5b 32 4a ff           |.Host: a.[2J.|
message 2 at byte 33: 0 bytes
message 3 at byte 37: 1 byte
00000000  78                                                |x|
";
    assert_eq!(String::from_utf8(output.stdout).unwrap(), shown);
}

#[test]
fn a_hexdump_of_a_long_message_continues_its_offsets() {
    let output = framelet(&["decode", "--output", "hexdump"], &frame(&[b'z'; 300_001]));
    check(&output, 0, &[]);
    let lines: Vec<&str> = str::from_utf8(&output.stdout).unwrap().lines().collect();
    assert_eq!(lines.len(), 1 + 300_001_usize.div_ceil(16));
    for (number, line) in lines[1..].iter().enumerate() {
        assert!(line.starts_with(&format!("{:08x}  7a", 16 * number)), "{line}");
    }
}

#[test]
fn servers_and_clients_print_hexdumps_too() {
    let server = Server::start(&["--echo", "--output", "hexdump"]);
    let address = server.address.to_string();
    let arguments = ["send", &address, "--message", "a", "--message", "b", "--expect", "2"];
    let output = framelet(&[&arguments[..], &["--output", "hexdump"]].concat(), b"");
    check(&output, 0, &[]);
    let line = |number, of: &str, at, byte, letter| {
        format!("message {number}{of} at byte {at}: 1 byte\n00000000  {byte}{:48}|{letter}|\n", "")
    };
    let both = |of| line(1, of, 0, "61", 'a') + &line(2, of, 5, "62", 'b');
    assert_eq!(String::from_utf8(output.stdout).unwrap(), both(""));
    assert_eq!(String::from_utf8(server.stop().output).unwrap(), both(" of connection 1"));
}

#[test]
fn a_hexdump_is_neither_an_input_nor_a_file_format() {
    let output = framelet(&["encode", "--input", "hexdump"], b"");
    check(&output, 2, &["the formats are text"]);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages");
    let sink = format!("file:{}", path.display());
    let output = framelet(&["serve", "127.0.0.1:0", "--to", &sink, "--output", "hexdump"], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said(&output).contains("a hexdump is for people and cannot be read back"),
        "{}",
        said(&output)
    );
    assert!(!path.exists());
}

#[test]
fn json_has_the_offset_of_each_frame_however_the_bytes_arrive() {
    let mut random = fastrand::Rng::with_seed(9);
    for layout in ["u32be", "varint", "u16le+self"] {
        let (mut stream, mut offsets) = (Vec::new(), Vec::new());
        for _ in 0..300 {
            let len = [0, 1, 100, 200, 40_000][random.usize(..5)];
            offsets.push(stream.len() as u64);
            let layout = layout.parse().unwrap();
            framelet::wire::append_frame(&mut stream, layout, 60_000, &vec![b'x'; len]).unwrap();
        }
        let mut child = Command::new(FRAMELET)
            .args(["decode", "--output", "json", "--layout", layout])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let mut random = random.fork();
        let pieces = std::thread::spawn(move || {
            let mut rest = &stream[..];
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(random.usize(1..=50_000).min(rest.len()));
                input.write_all(piece).unwrap();
                rest = after;
            }
        });
        let output = child.wait_with_output().unwrap();
        pieces.join().unwrap();
        let found: Vec<u64> = objects(&output.stdout)
            .iter()
            .map(|object| object["offset"].as_u64().unwrap())
            .collect();
        assert!(found == offsets, "{layout}");
    }
}

#[test]
fn offsets_of_received_messages_are_those_of_their_connection() {
    let server = Server::start(&["--output", "json"]);
    let address = server.address.to_string();
    for _ in 0..2 {
        check(&framelet(&["send", &address, "--message", "abc", "--message", "d"], b""), 0, &[]);
    }
    let offsets: Vec<u64> = objects(&server.stop().output)
        .iter()
        .map(|object| object["offset"].as_u64().unwrap())
        .collect();
    assert_eq!(offsets, [0, 7, 0, 7]);
}
