//! `send` as a script uses it to ask: how many replies it waits for, how long, and what it prints of them.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use common::program::{
    FRAMELET, Running, Server, check, closed, frame, framelet, odd_server, read_frame, said,
    terminal,
};

/// A server that answers each message with its own payload, and never closes the connection.
fn echo_without_end() -> String {
    odd_server(|mut stream| {
        while let Some(message) = read_frame(&mut stream) {
            stream.write_all(&frame(&message)).unwrap();
        }
        std::thread::park();
    })
}

/// A server that reads all messages up to the end of the stream and then gives this answer.
fn answer(
    messages: usize,
    answer: Vec<u8>,
    then: impl FnOnce(TcpStream) + Send + 'static,
) -> String {
    odd_server(move |mut stream| {
        for _ in 0..messages {
            read_frame(&mut stream).unwrap();
        }
        stream.write_all(&answer).unwrap();
        then(stream);
    })
}

fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(FRAMELET);
    command.arg("send").args(arguments);
    command
}

// ---- --expect

#[test]
fn expected_replies_end_send_whatever_the_server_does_with_the_connection() {
    for (then, what) in [
        (Box::new(|_| std::thread::park()) as Box<dyn FnOnce(TcpStream) + Send>, "stays open"),
        (Box::new(drop), "closes"),
        (Box::new(|mut stream| drop(stream.write_all(b"not a frame at all"))), "sends no frame"),
    ] {
        let address = answer(1, [frame(b"a"), frame(b"b")].concat(), then);
        let arguments = ["send", &address, "--message", "x", "--expect", "2", "--timeout", "20s"];
        let output = framelet(&arguments, b"");
        assert_eq!(output.status.code(), Some(0), "{what}: {}", said(&output));
        assert_eq!(output.stdout, b"a\nb\n", "{what}");
    }
}

#[test]
fn replies_beyond_the_expected_ones_are_not_printed() {
    let replies: Vec<u8> =
        ["a", "b", "c", "d"].iter().flat_map(|text| frame(text.as_bytes())).collect();
    for (expect, printed) in [("1", &b"a\n"[..]), ("3", b"a\nb\nc\n"), ("4", b"a\nb\nc\nd\n")] {
        let address = answer(1, replies.clone(), |_| std::thread::park());
        let output = framelet(&["send", &address, "--message", "x", "--expect", expect], b"");
        check(&output, 0, &[]);
        assert_eq!(output.stdout, printed);
    }
    let address = answer(1, replies, |_| std::thread::park());
    let arguments = ["send", &address, "--message", "x", "--expect", "2", "--output", "json"];
    let output = framelet(&arguments, b"");
    check(&output, 0, &[]);
    let lines = r#"{"direction":"in","number":1,"offset":0,"length":1,"payload":"a"}
{"direction":"in","number":2,"offset":5,"length":1,"payload":"b"}
"#;
    assert_eq!(String::from_utf8(output.stdout).unwrap(), lines);
}

#[test]
fn all_input_is_sent_even_if_the_expected_replies_come_sooner() {
    let (all, read) = channel();
    let address = odd_server(move |mut stream| {
        stream.write_all(&frame(b"welcome")).unwrap();
        let mut messages = Vec::new();
        while let Some(message) = read_frame(&mut stream) {
            messages.push(message);
        }
        all.send(messages).unwrap();
    });
    let (running, mut input) =
        Running::start_with_input(command(&[&address, "--input", "lines", "--expect", "1"]));
    running.wait_for_output("welcome\n".len());
    input.write_all(b"late\n").unwrap();
    drop(input);
    check(&running.wait(), 0, &[]);
    assert_eq!(read.recv().unwrap(), [b"late"]);
}

#[test]
fn the_timeout_is_for_each_reply_and_begins_again_with_each() {
    let address = odd_server(|mut stream| {
        read_frame(&mut stream).unwrap();
        for reply in ["a", "b", "c"] {
            // Three of these are longer than the timeout.
            std::thread::sleep(Duration::from_millis(700));
            stream.write_all(&frame(reply.as_bytes())).unwrap();
        }
        std::thread::park();
    });
    let arguments = ["send", &address, "--message", "x", "--timeout", "1500ms", "--expect"];
    let output = framelet(&[&arguments[..], &["4"]].concat(), b"");
    check(&output, 4, &["3 of 4 replies came, and no more within 1s 500ms (--expect, --timeout)"]);
    assert_eq!(output.stdout, b"a\nb\nc\n");
}

#[test]
fn a_server_that_does_not_read_is_waited_for_and_the_user_is_told() {
    let (go_on, told) = channel();
    let address = odd_server(move |mut stream| {
        told.recv().unwrap();
        assert_eq!(read_frame(&mut stream).unwrap().len(), 8 << 20);
        stream.write_all(&frame(b"read")).unwrap();
    });
    let mut command = Command::new(FRAMELET);
    command.args(["send", &address, "--input", "whole", "--timeout", "100ms", "--hang-up"]);
    command.args(["--expect", "1"]);
    let running = Running::start(command, &vec![b'm'; 8 << 20]);
    let words = "the server has read nothing for 100ms; waiting until it does";
    running.wait_until_it_says(words);
    go_on.send(()).unwrap();
    let output = running.wait();
    check(&output, 0, &[words]);
    assert_eq!(output.stdout, b"read\n");
}

#[test]
fn hang_up_ends_the_sending_direction_after_the_replies_and_waits_for_the_end() {
    for each in [&["--expect", "1"][..], &["--each"]] {
        // What comes after the end of the messages is printed, too.
        let address = answer(1, frame(b"first"), |mut stream| {
            assert!(closed(&mut stream));
            stream.write_all(&frame(b"goodbye")).unwrap();
        });
        let arguments = ["send", &address, "--message", "x", "--hang-up"];
        let output = framelet(&[&arguments[..], each].concat(), b"");
        check(&output, 0, &[]);
        assert_eq!(output.stdout, b"first\ngoodbye\n");
        let address = answer(1, frame(b"first"), |_| std::thread::park());
        let arguments = ["send", &address, "--message", "x", "--hang-up", "--timeout", "300ms"];
        let output = framelet(&[&arguments[..], each].concat(), b"");
        check(&output, 4, &["has not closed the connection within 300ms"]);
        let address = answer(1, frame(b"first"), |mut stream| {
            assert!(closed(&mut stream));
            reset(stream);
        });
        let output =
            framelet(&[&["send", &address, "--message", "x", "--hang-up"], each].concat(), b"");
        check(&output, 1, &["the connection to the server was lost"]);
    }
}

// ---- replies that are none

/// What a server sends whose lengths have two bytes.
const SHORT: &[u8] = b"\0\x05hello";

#[test]
fn part_of_a_reply_is_judged_when_the_time_is_over() {
    for (arguments, words) in [
        (&["--each"][..], "no reply to message 1 within 300ms (--each, --timeout)"),
        (&["--expect", "1"], "0 of 1 replies came, and no more within 300ms"),
        (&[], "has not closed the connection within 300ms"),
    ] {
        for (sent, part) in [
            (SHORT, "got 7 of 354409 bytes; prefix 00 05 68 65"),
            (SHORT, "as u16be it would be 5: try --layout u16be"),
            (b"\0\0\0\x09hello", "the length may count its own prefix, as in u32be+self"),
            (
                b"\0\0\0\x09hell",
                "message 1 at byte 0: not complete within 300ms: got 8 of 13 bytes",
            ),
            (b"OK\n", "this looks like text without a length prefix (\"OK\\n\")"),
        ] {
            let address = answer(1, sent.to_vec(), |_| std::thread::park());
            let send = ["send", &address, "--message", "x", "--timeout", "300ms"];
            let output = framelet(&[&send[..], arguments].concat(), b"");
            check(&output, 4, &[words, "the server sent part of a reply: ", part]);
        }
    }
    // Between two replies there is no part of one.
    let address = answer(1, frame(b"a"), |_| std::thread::park());
    let send = ["send", &address, "--message", "x", "--timeout", "300ms", "--expect", "2"];
    let output = framelet(&send, b"");
    check(&output, 4, &["1 of 2 replies came"]);
    assert!(!said(&output).contains("part of a reply"), "{}", said(&output));
}

#[test]
fn part_of_a_reply_is_judged_when_the_connection_is_lost() {
    let lost = "the connection to the server was lost: connection reset by peer";
    for (sent, words) in [
        (
            SHORT,
            "message 1 at byte 0: connection reset by peer, 7 bytes into it; as u16be it would be 5: try",
        ),
        (b"\0\0\0\x09hell", "message 1 at byte 0: connection reset by peer, 8 bytes into it"),
        (b"OK\n", "this looks like text without a length prefix (\"OK\\n\")"),
    ] {
        let address = answer(1, sent.to_vec(), reset);
        let output = framelet(&["send", &address, "--message", "x", "--expect", "1"], b"");
        check(&output, 1, &[lost, "the server sent part of a reply: ", words]);
        let address = answer(1, sent.to_vec(), drop);
        let output = framelet(&["send", &address, "--message", "x", "--expect", "1"], b"");
        check(
            &output,
            3,
            &["reply from the server: message 1 at byte 0: the stream ended inside the"],
        );
    }
    let address = answer(1, Vec::new(), reset);
    let output = framelet(&["send", &address, "--message", "x", "--expect", "1"], b"");
    check(&output, 1, &[lost]);
    assert!(!said(&output).contains("part of a reply"), "{}", said(&output));
}

#[test]
fn a_server_of_another_kind_is_named_even_if_it_resets_the_connection() {
    for each in [&[][..], &["--each"]] {
        for _ in 0..5 {
            let address = odd_server(|mut stream| {
                stream.read_exact(&mut [0]).unwrap();
                stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
                reset(stream);
            });
            let input = vec![b'x'; 4 << 20];
            let send = ["send", &address, "--input", "whole"];
            let output = framelet(&[&send[..], each].concat(), &input);
            check(&output, 3, &["reply from the server: ", "this looks like an HTTP response"]);
        }
    }
}

// ---- --each

#[test]
fn each_message_waits_for_the_reply_to_the_one_before_it() {
    let address = odd_server(|mut stream| {
        for number in 1..=3 {
            let message = read_frame(&mut stream).unwrap();
            // Nothing follows a message before its reply.
            stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            assert!(
                stream.read(&mut [0]).is_err(),
                "a message came before the reply to {message:?}"
            );
            stream.set_read_timeout(None).unwrap();
            stream.write_all(&frame(format!("{number}").as_bytes())).unwrap();
        }
        std::thread::park();
    });
    let output = framelet(&["send", &address, "--each", "--input", "lines"], b"a\nb\nc\n");
    check(&output, 0, &[]);
    assert_eq!(output.stdout, b"1\n2\n3\n");
}

#[test]
fn each_works_with_every_way_to_give_messages() {
    for (arguments, input, printed) in [
        (&["--message", "a", "--message", "b"][..], &b""[..], &b"a\nb\n"[..]),
        (&["--message", "a", "--message", "b", "--once"], b"", b"a\n"),
        (&["--input", "lines", "--once"], b"a\nb\n", b"a\n"),
        (&["--input", "whole"], b"a\nb", b"a\nb\n"),
        (&["--input", "lines"], b"", b""),
        (&["--input", "hex", "--output", "hex"], b"\n00ff\n", b"\n00ff\n"),
    ] {
        let address = echo_without_end();
        let output = framelet(&[&["send", &address, "--each"], arguments].concat(), input);
        check(&output, 0, &[]);
        assert_eq!(output.stdout, printed, "{arguments:?}");
    }
    // Far more messages than fit into any buffer on the way.
    let server = Server::start(&["--echo", "--output", "none", "--layout", "varint"]);
    let address = server.address.to_string();
    let input: String = (0..5000).map(|number| format!("{number}\n")).collect();
    let arguments = ["send", &address, "--each", "--input", "lines", "--layout", "varint"];
    let output = framelet(&arguments, input.as_bytes());
    check(&output, 0, &[]);
    assert!(output.stdout == input.as_bytes());
}

#[test]
fn a_missing_reply_ends_each_and_is_named() {
    let address = answer(2, frame(b"only one"), |_| std::thread::park());
    let arguments = ["send", &address, "--each", "--message", "a", "--timeout", "200ms"];
    // The server reads two messages before its first reply.
    check(
        &framelet(&arguments, b""),
        4,
        &["no reply to message 1 within 200ms (--each, --timeout)"],
    );
    let address = odd_server(|mut stream| {
        read_frame(&mut stream).unwrap();
        stream.write_all(&frame(b"a")).unwrap();
        read_frame(&mut stream).unwrap();
    });
    let output = framelet(&["send", &address, "--each", "--input", "lines"], b"a\nb\nc\n");
    check(&output, 4, &["closed the connection without a reply to message 2 (--each)"]);
    assert_eq!(output.stdout, b"a\n");
}

#[test]
fn a_server_that_closes_before_the_input_ends_is_not_taken_for_success() {
    let closing = || answer(1, frame(b"a"), drop);
    // The rest of the input is known.
    let output = framelet(&["send", &closing(), "--each", "--input", "lines"], b"a\nb\n");
    assert!([1, 4].contains(&output.status.code().unwrap()), "{}", said(&output));
    // It is not known whether any more will come.
    let (running, mut input) =
        Running::start_with_input(command(&[&closing(), "--each", "--input", "lines"]));
    input.write_all(b"a\n").unwrap();
    check(
        &running.wait(),
        1,
        &["closed the connection after 1 reply, before the end of the input"],
    );
    drop(input);
    // The input ends a moment after the connection.
    for each in [&["--each"][..], &["--expect", "1"]] {
        let (gone, is_gone) = channel();
        let address = answer(1, frame(b"a"), move |stream| {
            drop(stream);
            gone.send(()).unwrap();
        });
        let all = [&[&address, "--input", "lines"], each].concat();
        let (running, mut input) = Running::start_with_input(command(&all));
        input.write_all(b"a\n").unwrap();
        running.wait_for_output("a\n".len());
        is_gone.recv().unwrap();
        // Long enough for the client to see it.
        std::thread::sleep(Duration::from_millis(100));
        drop(input);
        check(&running.wait(), 0, &[]);
    }
    // The input has ended.
    for how in ["--each", "--expect=1"] {
        for _ in 0..20 {
            let arguments = match how {
                "--each" => vec!["--each"],
                _ => vec!["--expect", "1"],
            };
            let address = closing();
            let all = [&["send", &address, "--input", "lines"], &arguments[..]].concat();
            check(&framelet(&all, b"a\n"), 0, &[]);
        }
    }
}

#[test]
fn bad_input_ends_each_after_the_replies_to_what_came_before_it() {
    let output =
        framelet(&["send", &echo_without_end(), "--each", "--input", "hex"], b"61\n62\nzz\n");
    check(&output, 2, &["record 3 of the input: not hexadecimal"]);
    assert_eq!(output.stdout, b"a\nb\n");
    let arguments = ["send", "127.0.0.1:1", "--each", "--message", "long", "--max-message", "3"];
    check(
        &framelet(&arguments, b""),
        3,
        &["--message 1: message of 4 bytes is over the limit of 3"],
    );
}

#[test]
fn each_converses_with_a_person_at_a_terminal() {
    let server = Server::start(&["--echo", "--output", "none"]);
    let (mut keyboard, side) = terminal();
    let mut child = command(&[&server.address.to_string(), "--each", "--input", "lines"])
        .stdin(side)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    for line in ["hello\n", "again\n"] {
        keyboard.write_all(line.as_bytes()).unwrap();
        // The reply is there before anything else is typed.
        let mut reply = vec![0; line.len()];
        child.stdout.as_mut().unwrap().read_exact(&mut reply).unwrap();
        assert_eq!(reply, line.as_bytes());
    }
    // Ctrl-D.
    keyboard.write_all(b"\x04").unwrap();
    check(&child.wait_with_output().unwrap(), 0, &["each line is sent as a message; Ctrl-D ends"]);
}

// ---- what makes no sense

#[test]
fn options_about_replies_that_make_no_sense_together_are_refused() {
    for (arguments, words) in [
        (&["--expect", "0"][..], "--expect must be at least 1; without it, send waits until the"),
        (&["--expect", "2", "--each"], "--each and --expect contradict each other"),
        (&["--hang-up"], "--hang-up has no use without --expect or --each"),
        (&["--ack", "--each"], "--ack and --each contradict each other"),
        (&["--ack", "--hang-up"], "--ack and --hang-up contradict each other"),
        (&["--ack", "--expect", "0"], "--ack and --expect contradict each other"),
    ] {
        let output = framelet(&[&["send", "127.0.0.1:1"], arguments].concat(), b"");
        check(&output, 2, &[words]);
    }
}
