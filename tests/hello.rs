//! How a server answers clients that ask for acknowledgements, and those that have to and do not.

#![cfg(target_os = "linux")]

mod common;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use common::acks::read_answer;
use common::program::{Server, check, closed, frame, framelet, read_frame, wait_until};
use framelet::wire::{Answer, Hello, RefusalCode, SenderId, append_frame};
use framelet::{FrameReader, Layout};
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
    for layout in Layout::binary().filter(|&layout| Hello::fits(layout)) {
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
    assert_eq!(refused(&["--echo", "--output", "none"], &good), RefusalCode::Replies);
    assert_eq!(refused(&["--output", "none"], &good), RefusalCode::NoSink);
    let mut newer = good;
    newer[8] = 3;
    assert_eq!(refused(&[], &newer), RefusalCode::Version);
}

/// Everything else is as it is without that question.
#[test]
fn the_checksum_of_the_last_message_is_told_to_a_client_that_asks_for_it() {
    let server = Server::start(&[]);
    let plain = Hello { sender: SENDER, first: 1 };
    let asking = plain.encode_resuming(Layout::U32BE).unwrap();
    let count = |count: u64| count.to_be_bytes().to_vec();
    let with =
        |committed: u64, checksum: u64| [&count(committed)[..], &[0], &count(checksum)].concat();
    let mut stream = server.connect();
    stream.write_all(&asking).unwrap();
    // Of nothing there is no checksum.
    assert_eq!(read_frame(&mut stream).unwrap(), count(0));
    stream.write_all(&frame(b"21.5")).unwrap();
    assert_eq!(read_frame(&mut stream).unwrap(), count(1));
    for (committed, checksum, payload) in [
        (1, 0x2b74_19f9_3545_2f45, &b""[..]),
        (2, 0xa8c7_f832_281a_39c5, b"message 1"),
        (3, 0xbfa0_7b77_0655_2bc0, b"the end"),
    ] {
        let mut stream = server.connect();
        stream.write_all(&[&asking[..], &frame(payload)].concat()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_frame(&mut stream), Some(with(committed, checksum)));
        assert_eq!(read_frame(&mut stream), Some(count(committed + 1)));
        assert_eq!(read_frame(&mut stream), None);
        let mut stream = server.connect();
        stream.write_all(&hello(Layout::U32BE, 1)).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_frame(&mut stream), Some(count(committed + 1)));
        assert_eq!(read_frame(&mut stream), None);
    }
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
    let [Answer::Refusal(refusal)] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!((refusal.code, refusal.committed), (RefusalCode::Gap, 1));
    let words = "the server has 1 message of this sender, and the client's oldest is 3: was the database \
                 replaced?";
    assert_eq!(refusal.text, words);
    server.wait_for_log(&format!("refused, since {words}"), 1);
}

#[test]
fn a_number_that_no_message_has_is_refused_and_harms_nobody() {
    const MOST: u64 = u64::MAX / 4;
    let directory = tempfile::tempdir().unwrap();
    let file = format!("file:{}", directory.path().join("messages").display());
    for sink in ["stdout", &file] {
        let server = Server::start(&["--to", sink, "--output", "json"]);
        for first in [u64::MAX, u64::MAX - 1, MOST + 1] {
            let mut stream = server.connect();
            stream.write_all(&[hello(Layout::U32BE, first), frame(b"x")].concat()).unwrap();
            let answers = answers(Layout::U32BE, stream);
            assert!(
                matches!(&answers[..], [Answer::Refusal(refusal)] if refusal.code == RefusalCode::Gap),
                "{first}: {answers:?}"
            );
        }
        let mut stream = server.connect();
        let messages = [hello(Layout::U32BE, MOST), frame(b"a"), frame(b"b")].concat();
        stream.write_all(&messages).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let last = answers(Layout::U32BE, stream).pop();
        assert_eq!(last, Some(Answer::Acknowledgement(MOST + 1)));
        let left = server.stop();
        assert!(left.status.success() && !left.log.contains("panicked"), "{}", left.log);
    }
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
        (
            &["--require-ack", "--layout", "u16be"],
            "without headers and with a length of 4 or 8 bytes: use u32be instead of u16be",
        ),
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

/// What the client waits for does not depend on its own messages here: the sink stands still, or there is
/// no memory to read anything in.
#[test]
fn a_client_hears_that_the_server_is_at_work_before_it_is_welcomed_and_before_it_is_read() {
    let mut command = std::process::Command::new(common::program::FRAMELET);
    command.args(["serve", "127.0.0.1:0", "--memory", "2MiB", "--max-message", "1MiB"]);
    let mut server = Server::spawn_stalled(command);
    let mut early = server.connect();
    early.write_all(&hello(Layout::U32BE, 1)).unwrap();
    assert_eq!(read_frame(&mut early).unwrap(), 0_u64.to_be_bytes());
    // More than what the server reads in advance; a part of it first.
    let message = frame(&[b'y'; 200_000]);
    let (first, rest) = message.split_at(1000);
    early.write_all(first).unwrap();
    assert_eq!(read_frame(&mut early).unwrap(), 0_u64.to_be_bytes(), "the same again");
    let mut plain = server.connect();
    let mut late = server.connect();
    let large = frame(&[b'x'; 1 << 20]);
    // It ends with the server, if not before.
    std::thread::spawn(move || (0..8).try_for_each(|_| plain.write_all(&large)));
    wait_until("a full memory and a full pipe", || {
        server.memory() >= 2 << 20 && server.unread_output() >= 60_000
    });
    early.write_all(rest).unwrap();
    let other = Hello { sender: SenderId::from_bytes([8; 16]), first: 1 };
    late.write_all(&other.encode(Layout::U32BE).unwrap()).unwrap();
    assert_eq!(read_frame(&mut early).unwrap(), 0_u64.to_be_bytes(), "the same again");
    assert_eq!(Answer::decode(&read_frame(&mut late).unwrap()), Ok(Answer::Heartbeat));
    server.resume();
    let mut last = read_frame(&mut early).unwrap();
    while last == 0_u64.to_be_bytes() {
        last = read_frame(&mut early).unwrap();
    }
    assert_eq!(last, 1_u64.to_be_bytes());
    assert_eq!(read_answer(&mut late), Some(Ok(0)));
}

#[test]
fn a_message_that_is_too_long_is_refused_in_words() {
    let server = Server::start(&["--max-message", "1000"]);
    let mut stream = server.connect();
    let bytes = [hello(Layout::U32BE, 1), frame(b"good"), frame(&[b'x'; 1001]), frame(b"more")];
    stream.write_all(&bytes.concat()).unwrap();
    let mut answers = answers(Layout::U32BE, stream);
    let Some(Answer::Refusal(refusal)) = answers.pop() else { panic!("{answers:?}") };
    assert_eq!((refusal.code, refusal.committed), (RefusalCode::TooLong, 1));
    assert_eq!(refusal.text, "message 2 has 1001 bytes, and the server takes 1000");
    // A plain client is not written to.
    let mut stream = server.connect();
    stream.write_all(&frame(&[b'x'; 1001])).unwrap();
    assert!(closed(&mut stream));
    assert_eq!(server.stop().output, b"good\n");
}

#[test]
fn a_message_that_takes_too_long_is_refused_in_words() {
    let server = Server::start(&["--message-timeout", "300ms"]);
    let mut stream = server.connect();
    let message = frame(&[b'x'; 100]);
    stream.write_all(&[hello(Layout::U32BE, 1), message[..10].to_vec()].concat()).unwrap();
    assert_eq!(read_answer(&mut stream), Some(Ok(0)));
    let refusal = read_answer(&mut stream).unwrap().unwrap_err();
    assert_eq!((refusal.code, refusal.committed), (RefusalCode::Late, 0));
    assert_eq!(refusal.text, "message 1 not complete within 300ms: got 10 of 104 bytes");
}

#[test]
fn everybody_who_asked_is_told_when_the_sink_fails() {
    let mut command = std::process::Command::new(common::program::FRAMELET);
    command.args(["serve", "127.0.0.1:0"]);
    let mut server = Server::spawn_stalled(command);
    let mut welcomed = server.connect();
    welcomed.write_all(&hello(Layout::U32BE, 1)).unwrap();
    assert_eq!(read_answer(&mut welcomed), Some(Ok(0)));
    welcomed.write_all(&frame(&[b'x'; 1 << 20])).unwrap();
    // The sink is at work, so that this one waits for its welcome.
    wait_until("a full pipe", || server.unread_output() >= 60_000);
    let mut waiting = server.connect();
    let other = Hello { sender: SenderId::from_bytes([8; 16]), first: 1 };
    waiting.write_all(&other.encode(Layout::U32BE).unwrap()).unwrap();
    assert_eq!(Answer::decode(&read_frame(&mut waiting).unwrap()), Ok(Answer::Heartbeat));
    server.close_output();
    for stream in [&mut welcomed, &mut waiting] {
        // The one that waits for a commit may have been told that it is at work.
        let refusal = std::iter::from_fn(|| read_answer(stream)).find_map(Result::err);
        assert_eq!(refusal.expect("a word on why").code, RefusalCode::Sink);
    }
}
