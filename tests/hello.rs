//! How a server answers clients that ask for acknowledgements, and those that have to and do not.

#![cfg(target_os = "linux")]

mod common;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use common::program::{Server, check, frame, framelet, read_frame};
use framelet::{Answer, FrameReader, Hello, Layout, RefusalCode, SenderId, append_frame};
use futures_lite::future::block_on;
use futures_lite::io::AssertAsync;

const SENDER: SenderId = SenderId::from_bytes([7; 16]);

fn hello(layout: Layout, first: u64) -> Vec<u8> {
    Hello { sender: SENDER, first }.encode(layout).unwrap()
}

/// Reads all answers up to the end of the stream.
fn answers(layout: Layout, stream: impl Read + Unpin) -> Vec<Answer> {
    let mut reader = FrameReader::with_layout(AssertAsync::new(stream), layout);
    let mut answers = Vec::new();
    while let Some(payload) = block_on(reader.read()).unwrap() {
        answers.push(Answer::decode(&payload).unwrap());
    }
    answers
}

#[test]
fn a_hello_may_come_in_any_two_pieces() {
    let server = Server::start(&[]);
    let bytes = [hello(Layout::U32BE, 1), frame(b"one")].concat();
    for (sent, cut) in (1..bytes.len()).enumerate() {
        let mut stream = server.connect();
        stream.set_nodelay(true).unwrap();
        stream.write_all(&bytes[..cut]).unwrap();
        if cut >= bytes.len() - frame(b"one").len() {
            // The welcome shows that the first piece was read on its own.
            let welcome = read_frame(&mut stream).unwrap();
            assert_eq!(Answer::decode(&welcome), Ok(Answer::Acknowledgement(sent as u64)));
        }
        stream.write_all(&bytes[cut..]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let last = answers(Layout::U32BE, stream).pop();
        assert_eq!(last, Some(Answer::Acknowledgement(sent as u64 + 1)), "cut at {cut}");
    }
    let left = server.stop();
    assert_eq!(left.output, b"one\n".repeat(bytes.len() - 1));
}

#[test]
fn every_layout_of_four_or_eight_bytes_has_acknowledgements() {
    for layout in Layout::all().filter(|&layout| Hello::fits(layout)) {
        let server = Server::start(&["--layout", &layout.to_string()]);
        let mut bytes = hello(layout, 1);
        for payload in [&b"a"[..], b"", b"b"] {
            append_frame(&mut bytes, layout, 10, payload).unwrap();
        }
        let mut stream = server.connect();
        stream.write_all(&bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let answers = answers(layout, stream);
        assert_eq!(answers.first(), Some(&Answer::Acknowledgement(0)), "{layout}");
        assert_eq!(answers.last(), Some(&Answer::Acknowledgement(3)), "{layout}");
        assert_eq!(server.stop().output, b"a\n\nb\n", "{layout}");
    }
}

/// Says hello to a server and returns what it is refused for.
#[track_caller]
fn refused(arguments: &[&str], bytes: &[u8]) -> RefusalCode {
    let server = Server::start(arguments);
    let mut stream = server.connect();
    stream.write_all(bytes).unwrap();
    match &answers(Layout::U32BE, stream)[..] {
        [Answer::Refusal(refusal)] => refusal.code,
        answers => panic!("{answers:?}"),
    }
}

#[test]
fn a_refusal_says_why() {
    let good = hello(Layout::U32BE, 1);
    assert_eq!(refused(&["--echo", "--output", "none"], &good), RefusalCode::Echo);
    assert_eq!(refused(&["--output", "none"], &good), RefusalCode::NoSink);
    let mut newer = good;
    newer[8] = 2;
    assert_eq!(refused(&[], &newer), RefusalCode::Version);
}

#[test]
fn messages_that_nobody_has_any_more_are_missed() {
    let server = Server::start(&[]);
    let mut stream = server.connect();
    stream.write_all(&[hello(Layout::U32BE, 1), frame(b"one")].concat()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(answers(Layout::U32BE, stream).last(), Some(&Answer::Acknowledgement(1)));
    let mut stream = server.connect();
    stream.write_all(&hello(Layout::U32BE, 3)).unwrap();
    let answers = answers(Layout::U32BE, stream);
    assert!(
        matches!(&answers[..], [Answer::Refusal(refusal)] if refusal.code == RefusalCode::Gap && refusal.committed == 1),
        "{answers:?}"
    );
}

#[test]
fn acknowledgements_can_be_required() {
    let server = Server::start(&["--require-ack"]);
    let address = server.address.to_string();
    let plain = framelet(&["send", &address, "--input", "lines"], b"plain\n");
    check(&plain, 1, &["the connection to the server was lost"]);
    server.wait_for_log("asks for no acknowledgements (--require-ack)", 1);
    let asking = framelet(&["send", &address, "--ack", "--input", "lines"], b"asked\n");
    check(&asking, 0, &["sent 1, committed 1"]);
    assert_eq!(server.stop().output, b"asked\n");
    for (arguments, words) in [
        (&["--require-ack", "--echo"][..], "gives no acknowledgements"),
        (&["--require-ack", "--layout", "u16be"], "use a layout of 4 or 8 bytes"),
    ] {
        let output = framelet(&[&["serve", "127.0.0.1:0"], arguments].concat(), b"");
        check(&output, 2, &[words]);
    }
}

#[test]
fn a_client_that_waits_for_a_busy_sink_is_told_that_it_is_at_work() {
    let mut command = std::process::Command::new(common::program::FRAMELET);
    command.args(["serve", "127.0.0.1:0"]);
    let mut server = Server::spawn_stalled(command);
    let mut stream = server.connect();
    let message = vec![b'x'; 1 << 20];
    stream.write_all(&hello(Layout::U32BE, 1)).unwrap();
    stream.write_all(&frame(&message)).unwrap();
    let mut answer = || Answer::decode(&read_frame(&mut stream).unwrap());
    let started = Instant::now();
    assert_eq!(answer(), Ok(Answer::Acknowledgement(0)));
    assert_eq!(answer(), Ok(Answer::Acknowledgement(0)), "the same again, since it waits");
    assert!(started.elapsed() >= Duration::from_secs(2), "not all the time");
    server.resume();
    assert_eq!(answer(), Ok(Answer::Acknowledgement(1)));
}
