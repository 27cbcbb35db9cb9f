//! The commands as a user runs them: what they print, what they say, and how they end.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use common::program::{
    FRAMELET, PATIENCE, Server, check, closed, docs_show_help_of, frame, framelet, odd_server,
    read_frame, said, terminal, unframe, wait_until,
};
use data_encoding::HEXLOWER;
use framelet::Layout;
use framelet::wire::{Hello, JUDGED, PRESETS, SenderId};
use rustix::process::Signal;

fn send(server: &Server, arguments: &[&str], input: &[u8]) -> Output {
    let address = server.address.to_string();
    framelet(&[&["send", &address], arguments].concat(), input)
}

/// Reads until the client has ended its direction.
fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    all
}

// ---- send and serve

#[test]
fn lines_up_to_an_empty_line_are_a_message() {
    let server = Server::start(&["--output", "json"]);
    let output = send(&server, &[], b"a\nb\n\nc");
    check(&output, 0, &[]);
    let output = String::from_utf8(server.stop().output).unwrap();
    let lines: Vec<serde_json::Value> =
        output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["payload"], "a\nb");
    assert_eq!(lines[1]["payload"], "c");
    assert_eq!((&lines[1]["connection"], &lines[1]["number"]), (&1.into(), &2.into()));
    assert!(lines[1]["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(humantime::parse_rfc3339(lines[1]["time"].as_str().unwrap()).is_ok());
}

#[test]
fn a_message_is_printed_at_once_while_its_connection_stays_open() {
    let server = Server::start(&[]);
    let mut stream = server.connect();
    stream.write_all(&frame(b"now")).unwrap();
    server.wait_for_output(4);
    stream.write_all(&frame(b"and now")).unwrap();
    server.wait_for_output(12);
    assert_eq!(server.stop().output, b"now\nand now\n");
}

#[test]
fn what_send_has_succeeded_with_is_written() {
    let server = Server::start(&["--output", "frames"]);
    for round in 1..20_u8 {
        let message = vec![round; 100_000];
        check(&send(&server, &["--input", "whole"], &message), 0, &[]);
        // No waiting: the server closes only once it has written everything.
        server.wait_for_output(usize::from(round) * 100_004);
    }
}

#[test]
fn messages_of_many_clients_are_never_mixed() {
    let server = Server::start(&["--output", "lines"]);
    thread::scope(|scope| {
        for client in 0..8 {
            let server = &server;
            scope.spawn(move || {
                let line = client.to_string().repeat(300 * (client + 1));
                let input = format!("{line}\n").repeat(500);
                check(&send(server, &["--input", "lines"], input.as_bytes()), 0, &[]);
            });
        }
    });
    let output = String::from_utf8(server.stop().output).unwrap();
    assert_eq!(output.lines().count(), 8 * 500);
    for line in output.lines() {
        let client: usize = line[..1].parse().unwrap();
        assert_eq!(line, client.to_string().repeat(300 * (client + 1)));
    }
}

#[test]
fn replies_are_printed_and_waited_for() {
    let server = Server::start(&["--echo", "--output", "none"]);
    let output = send(&server, &["--expect", "3", "--input", "lines"], b"a\nb\nc\n");
    check(&output, 0, &[]);
    assert_eq!(output.stdout, b"a\nb\nc\n");
    let output = send(&server, &["--message", "x", "--message", "y", "--output", "hex"], b"");
    assert_eq!(output.stdout, b"78\n79\n");
    let output = send(&server, &["--message", "x", "--expect", "2", "--timeout", "200ms"], b"");
    check(&output, 4, &["1 of 2 replies came, and no more within 200ms"]);
}

#[test]
fn a_server_that_drops_the_replies_to_a_client_that_has_ended_can_be_talked_to() {
    // As many do: the end of the input is taken for the end of the conversation.
    let address = odd_server(|mut stream| {
        let message = read_frame(&mut stream).unwrap();
        thread::sleep(Duration::from_millis(100));
        stream.set_nonblocking(true).unwrap();
        if stream.read(&mut [0]).is_err() {
            stream.set_nonblocking(false).unwrap();
            stream.write_all(&frame(&message)).unwrap();
        }
    });
    let output = framelet(&["send", &address, "--message", "ask", "--expect", "1"], b"");
    check(&output, 0, &[]);
    assert_eq!(output.stdout, b"ask\n");
}

#[test]
fn once_ends_after_the_first_message() {
    let server = Server::start(&[]);
    check(&send(&server, &["--once"], b"first\nmessage\n\nsecond\n"), 0, &[]);
    check(&send(&server, &["--once", "--message", "a", "--message", "b"], b""), 0, &[]);
    assert_eq!(server.stop().output, b"first\nmessage\na\n");
}

#[test]
fn unix_sockets_work_like_ports() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("framelet.sock");
    let address = format!("unix:{}", path.display());
    let mut child = Command::new(FRAMELET)
        .args(["serve", &address, "--output", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // It is there once it listens: the client tries until then.
    check(&framelet(&["send", &address, "--message", "hi", "--retry", "20s"], b""), 0, &[]);
    assert!(UnixStream::connect(&path).is_ok());
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::INT).unwrap();
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert!(child.wait().unwrap().success());
    let (peer, rest) = output.split_once(r#","connection":1,"#).unwrap();
    assert!(peer.contains(r#""peer":"uid:"#), "{output}");
    assert!(rest.starts_with(r#""number":1,"offset":0,"length":2,"payload":"hi""#), "{output}");
    assert!(!path.exists());
}

#[test]
fn a_client_can_be_started_before_its_server() {
    let reserved = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = reserved.local_addr().unwrap().to_string();
    drop(reserved);
    let client = {
        let address = address.clone();
        thread::spawn(move || {
            framelet(&["send", &address, "--message", "hi", "--retry", "30s", "-v"], b"")
        })
    };
    let mut command = Command::new(FRAMELET);
    command.args(["serve", &address]);
    let server = Server::spawn(command);
    assert!(client.join().unwrap().status.success());
    assert_eq!(server.stop().output, b"hi\n");
}

// ---- what the log says

#[test]
fn a_health_probe_is_not_worth_a_line() {
    for (verbose, lines) in [(false, 0), (true, 2)] {
        let server = Server::start(if verbose { &["-v"] } else { &[] });
        let mut stream = server.connect();
        stream.shutdown(Shutdown::Write).unwrap();
        assert!(closed(&mut stream));
        let log = server.stop().log;
        assert_eq!(log.matches("connection 1 ").count(), lines, "{log}");
    }
}

#[test]
fn quiet_says_where_it_listens_and_nothing_else() {
    let server = Server::start(&["-q"]);
    let mut stream = server.connect();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(closed(&mut stream));
    let log = server.stop().log;
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(log.starts_with("framelet: listening on 127.0.0.1:"), "{log}");
}

#[test]
fn serve_and_decode_say_the_same_of_the_same_bytes() {
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"{\"event\":\"start\"}\n",
        b"\x05\0\0\0hello",
        b"\0\0\0\x09hello\0\0\0\x09world",
        b"\0\0\0\x05hel",
        b"\0\0",
    ] {
        let decoded = said(&framelet(&["decode", "--output", "none"], bytes));
        let decoded = decoded.strip_prefix("framelet: ").unwrap();
        let server = Server::start(&["--output", "none"]);
        let mut stream = server.connect();
        stream.write_all(bytes).unwrap();
        let _ = stream.shutdown(Shutdown::Write);
        assert!(closed(&mut stream));
        let log = server.stop().log;
        let logged = log.lines().find(|line| line.contains("connection 1 ")).unwrap();
        assert!(logged.ends_with(decoded.trim_end()), "{logged}\n{decoded}");
    }
}

#[test]
fn an_error_ends_its_own_connection_only() {
    let server = Server::start(&["--output", "lines"]);
    let mut good = server.connect();
    good.write_all(&frame(b"before")).unwrap();
    server.wait_for_output(7);
    let mut bad = server.connect();
    bad.write_all(&[frame(b"kept"), b"\xff\xff\xff\xff".to_vec()].concat()).unwrap();
    assert!(closed(&mut bad));
    good.write_all(&frame(b"after")).unwrap();
    server.wait_for_output(18);
    assert_eq!(server.stop().output, b"before\nkept\nafter\n");
}

#[test]
fn a_late_message_is_named_with_what_came_of_it() {
    let server = Server::start(&["--message-timeout", "100ms", "--layout", "u16be"]);
    let mut stream = server.connect();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(closed(&mut stream));
    let log = server.stop().log;
    assert!(log.contains("not complete within 100ms: got 18 of 18247 bytes"), "{log}");
    assert!(log.contains("HTTP request"), "{log}");
}

/// Whoever uses the library in a program of their own has no such flags.
#[test]
fn the_library_names_no_flags() {
    let src = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    let (mut folders, mut seen) = (vec![PathBuf::from(src)], 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let of_program = ["cli", "cli.rs", "main.rs"].iter().any(|name| path.ends_with(name));
            if path.is_dir() && !of_program {
                folders.push(path);
            } else if path.is_file() && !of_program {
                let text = std::fs::read_to_string(&path).unwrap();
                let flag = text.lines().find(|line| {
                    let mut rests = line.split("--").skip(1);
                    rests.any(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
                });
                assert_eq!(flag, None, "{}", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 40, "{seen} files");
}

// ---- how serve ends

#[test]
fn a_message_under_way_has_until_the_end_of_the_grace_period() {
    let server = Server::start(&["--grace", "20s"]);
    let mut stream = server.connect();
    stream.write_all(b"\0\0\0\x05hel").unwrap();
    let mut idle = server.connect();
    idle.write_all(&frame(b"idle")).unwrap();
    server.wait_for_output(5);
    server.signal(Signal::TERM);
    assert!(closed(&mut idle), "an idle connection is closed at once");
    stream.write_all(b"lo").unwrap();
    assert!(closed(&mut stream));
    let left = server.wait();
    assert!(left.status.success());
    assert_eq!(left.output, b"idle\nhello\n");
}

#[test]
fn what_is_not_complete_by_then_is_reset() {
    let server = Server::start(&["--grace", "200ms"]);
    let mut stream = server.connect();
    stream.write_all(b"\0\0\0\x05hel").unwrap();
    // A later connection is served, so the first one has been read.
    let mut later = server.connect();
    later.write_all(&frame(b"x")).unwrap();
    server.wait_for_output(2);
    let left = server.stop();
    assert!(left.status.success());
    assert!(left.log.contains("cutting off 1 connection that did not end in time (--grace)"));
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (second, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let server = Server::start(&["--grace", "1h"]);
        let mut stream = server.connect();
        stream.write_all(&[frame(b"x"), b"\0\0\0\x05hel".to_vec()].concat()).unwrap();
        server.wait_for_output(2);
        server.signal(Signal::TERM);
        server.wait_for_log("ending 1 connection", 1);
        server.signal(second);
        let left = server.wait();
        assert_eq!(left.status.code(), Some(code));
        assert!(left.log.contains("ended at once by a second signal"));
    }
}

#[test]
fn a_full_disk_ends_the_server_in_words_and_misleads_no_client() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut child = Command::new(FRAMELET)
        .args(["serve", ":0"])
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut log, &mut line).unwrap();
    let address = line.trim_end().rsplit(' ').next().unwrap().to_owned();
    let output = framelet(&["send", &address, "--message", "lost"], b"");
    check(&output, 1, &["connection to the server was lost: connection reset by peer"]);
    assert_eq!(child.wait().unwrap().code(), Some(2));
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("no space left on device; 1 message received was not written"), "{rest}");
}

#[test]
fn a_closed_pipe_ends_the_server_with_a_line() {
    let mut child = Command::new(FRAMELET)
        .args(["serve", ":0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut log = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut log, &mut line).unwrap();
    let address = line.trim_end().rsplit(' ').next().unwrap().to_owned();
    framelet(&["send", &address, "--message", "lost"], b"");
    assert_eq!(child.wait().unwrap().code(), Some(141));
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("broken pipe; 1 message received was not written"), "{rest}");
}

// ---- how send ends

#[test]
fn a_server_that_is_not_there_is_named_with_what_to_do() {
    let reserved = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = reserved.local_addr().unwrap().to_string();
    drop(reserved);
    let output = framelet(&["send", &address, "--message", "x"], b"");
    check(&output, 1, &[&format!("cannot connect to {address}: connection refused"), "--retry"]);
    let output = framelet(&["send", &address, "--message", "x", "--retry", "100ms"], b"");
    check(&output, 1, &["within 100ms: connection refused"]);
    let output = framelet(&["send", "unix:/nonexistent/socket", "--message", "x"], b"");
    check(&output, 1, &["no such file or directory"]);
}

#[test]
fn every_way_to_send_asks_whether_the_server_is_running() {
    let reserved = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = reserved.local_addr().unwrap().to_string();
    drop(reserved);
    for arguments in [
        &["send", "--message", "x"][..],
        &["send", "--message", "x", "--retry", "100ms"],
        &["send", "--message", "x", "--ack", "--retry", "100ms"],
        #[cfg(feature = "bench")]
        &["bench"],
    ] {
        let output = framelet(&[arguments, &[&address]].concat(), b"");
        check(&output, 1, &["connection refused; is the server running?"]);
    }
}

#[test]
fn a_file_in_place_of_a_unix_socket_is_said_not_to_be_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, "").unwrap();
    let address = format!("unix:{}", path.display());
    for arguments in [
        &["send", "--message", "x"][..],
        &["send", "--message", "x", "--ack", "--retry", "1ms"],
        &["serve"],
        #[cfg(feature = "bench")]
        &["bench"],
    ] {
        let output = framelet(&[arguments, &[&address]].concat(), b"");
        check(&output, 1, &["there is a file of that name that is not a socket"]);
        assert!(!said(&output).contains("is the server running"), "{arguments:?}");
    }
    // One that is a socket, and on which nobody listens.
    std::fs::remove_file(&path).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let output = framelet(&["send", &address, "--message", "x"], b"");
    check(&output, 1, &["is the server running?"]);
}

#[test]
fn a_directory_that_is_missing_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing").display().to_string();
    let path = |before: &str| format!("{before}{missing}/file");
    let mut tried = vec![
        (vec!["serve".into(), ":0".into(), "--to".into(), path("file:")], 2),
        (vec!["serve".into(), path("unix:")], 1),
        (["send", "--ack", "--message", "x", "--sender-file"].map(String::from).to_vec(), 2),
    ];
    tried[2].0.push(path(""));
    if cfg!(feature = "sqlite") {
        tried.push((vec!["serve".into(), ":0".into(), "--to".into(), path("sqlite:")], 2));
    }
    for (arguments, code) in tried {
        let words = format!("the directory {missing} does not exist (mkdir -p {missing})");
        check(&framelet(&arguments, b""), code, &["no such file or directory", &words]);
    }
    // Another reason is not mistaken for that one.
    let output = framelet(&["serve", ":0", "--to", "file:/"], b"");
    assert!(!said(&output).contains("does not exist"));
}

#[test]
fn a_name_that_does_not_resolve_is_named() {
    let arguments = ["send", "no-such-host.invalid:4747", "--message", "x", "--timeout", "50s"];
    check(&framelet(&arguments, b""), 1, &["cannot connect to no-such-host.invalid:4747"]);
    check(&framelet(&["serve", "no-such-host.invalid:4747"], b""), 1, &["cannot listen on"]);
}

#[test]
fn a_server_that_goes_away_ends_the_client_while_it_waits_for_input() {
    for reset in [false, true] {
        let address = odd_server(move |mut stream| {
            read_frame(&mut stream).unwrap();
            if reset {
                let linger = Some(Duration::ZERO);
                socket2::SockRef::from(&stream).set_linger(linger).unwrap();
            }
        });
        let mut child = Command::new(FRAMELET)
            .args(["send", &address])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut keyboard = child.stdin.take().unwrap();
        keyboard.write_all(b"first\n\n").unwrap();
        // Nothing more is typed, and the input does not end.
        let output = child.wait_with_output().unwrap();
        let words = if reset {
            "was lost: connection reset"
        } else {
            "closed the connection before the end"
        };
        check(&output, 1, &[words]);
        drop(keyboard);
    }
}

#[test]
fn a_server_that_does_not_close_is_said_in_words() {
    let address = odd_server(|mut stream| {
        read_all(&mut stream);
        thread::sleep(PATIENCE);
    });
    let started = Instant::now();
    let output = framelet(&["send", &address, "--message", "x", "--timeout", "300ms"], b"");
    check(
        &output,
        4,
        &["has not closed the connection within 300ms", "may not have read everything"],
    );
    assert!(started.elapsed() >= Duration::from_millis(300));
}

#[test]
fn a_reset_at_the_end_is_a_failure() {
    let address = odd_server(|mut stream| {
        read_all(&mut stream);
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    let output = framelet(&["send", &address, "--message", "x"], b"");
    check(&output, 1, &["was lost: connection reset by peer", "its log says why"]);
}

#[test]
fn fewer_replies_than_expected_are_a_failure() {
    let address = odd_server(|mut stream| {
        read_frame(&mut stream).unwrap();
        stream.write_all(&frame(b"only one")).unwrap();
    });
    let output = framelet(&["send", &address, "--message", "x", "--expect", "2"], b"");
    check(&output, 4, &["closed the connection after 1 of 2 replies (--expect)"]);
    assert_eq!(output.stdout, b"only one\n");
}

#[test]
fn a_reply_that_is_no_frame_is_diagnosed() {
    let address = odd_server(|mut stream| {
        read_frame(&mut stream).unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    let output = framelet(&["send", &address, "--message", "x", "--expect", "1"], b"");
    check(
        &output,
        3,
        &["reply from the server: message 1 at byte 0", "looks like an HTTP response"],
    );
}

#[test]
fn bad_input_ends_send_but_what_came_before_it_is_sent() {
    let server = Server::start(&["--output", "hex"]);
    check(
        &send(&server, &["--input", "hex"], b"00\nxy\n11\n"),
        2,
        &["record 2 of the input: not hex"],
    );
    check(&send(&server, &["--input", "json"], b"{\"payload\":\"a\"}\n[]"), 2, &["record 2"]);
    let long = [&b"ok\n"[..], &[b'x'; 101]].concat();
    let output = send(&server, &["--input", "lines", "--max-message", "100"], &long);
    check(&output, 3, &["record 2 of the input", "over the limit of 100 bytes (--max-message)"]);
    let output = send(&server, &["--input", "frames"], &[frame(b"z"), b"\0\0".to_vec()].concat());
    check(&output, 3, &["not u32be frames: message 2 at byte 5", "got 2 of 4 bytes"]);
    let output = send(&server, &["--layout", "u8", "--input", "lines"], &[b'x'; 256]);
    check(&output, 3, &["over the 255 bytes that u8 can say"]);
    assert_eq!(server.stop().output, b"00\n61\n6f6b\n7a\n");
}

#[test]
fn a_message_on_the_command_line_that_is_too_long_is_named_with_its_length() {
    let server = Server::start(&[]);
    let messages = ["--message", "ok", "--message", "too long"];
    let output = send(&server, &[&messages[..], &["--max-message", "5"]].concat(), b"");
    check(&output, 3, &["--message 2: message of 8 bytes is over the limit of 5 (--max-message)"]);
    let long = "x".repeat(256);
    let output = send(&server, &["--message", &long, "--layout", "u8"], b"");
    check(
        &output,
        3,
        &["--message 1: message of 256 bytes is more than a u8 prefix can say (255)"],
    );
    assert_eq!(server.stop().output, b"");
}

#[test]
fn a_file_in_place_of_the_address_is_said_to_be_one() {
    let output = framelet(&["send", "Cargo.toml"], b"");
    check(&output, 2, &["Cargo.toml is a file, not an address", "framelet send ADDR < Cargo.toml"]);
}

/// A server that never closes: it reads to the end of the stream, and gives what came.
fn patient_server() -> (String, Receiver<Vec<u8>>) {
    let (read, came) = channel();
    let address = odd_server(move |mut stream| {
        read.send(read_all(&mut stream)).unwrap();
        thread::sleep(PATIENCE);
    });
    (address, came)
}

#[test]
fn bad_input_ends_send_at_once_whatever_it_waits_for() {
    for arguments in [&["--expect", "2"][..], &[], &["--expect", "2", "--timeout", "off"]] {
        for (input, before) in [(&b"zz\n"[..], &b""[..]), (b"00\nzz\n", b"\0\0\0\x01\0")] {
            let (address, came) = patient_server();
            let started = Instant::now();
            let arguments = [&["send", &address, "--input", "hex"], arguments].concat();
            let record = if before.is_empty() { 1 } else { 2 };
            let words = format!("record {record} of the input: not hexadecimal");
            check(&framelet(&arguments, input), 2, &[&words]);
            // Neither for replies, nor for the end of the connection.
            assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
            assert_eq!(came.recv().unwrap(), before);
        }
    }
}

#[test]
fn replies_to_what_came_before_bad_input_are_printed() {
    let server = Server::start(&["--echo", "--output", "none"]);
    let output = send(&server, &["--input", "hex", "--expect", "9"], b"61\n62\nzz\n");
    check(&output, 2, &["record 3 of the input"]);
    assert_eq!(output.stdout, b"a\nb\n");
}

#[test]
fn bad_input_is_not_kept_quiet_by_a_server_that_cannot_be_reached() {
    let reserved = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = reserved.local_addr().unwrap().to_string();
    drop(reserved);
    for arguments in [&[][..], &["--ack"], &["--expect", "1"]] {
        let all = ["send", &address, "--input", "json", "--retry", "1h"];
        check(&framelet(&[&all, arguments].concat(), b"{}\n"), 2, &["record 1 of the input"]);
    }
}

#[test]
fn bad_input_and_a_lost_connection_are_both_said() {
    let address = odd_server(|mut stream| {
        read_frame(&mut stream).unwrap();
        // The end of the input has been seen, too.
        assert!(read_frame(&mut stream).is_none());
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    let output = framelet(&["send", &address, "--input", "hex"], b"00\nzz\n");
    check(&output, 2, &["record 2 of the input", "; and the connection to the server was lost"]);
}

#[test]
fn what_follows_the_only_message_may_be_anything() {
    let server = Server::start(&["--output", "hex"]);
    check(&send(&server, &["--once", "--input", "hex"], b"00\nzz\n"), 0, &[]);
    check(&send(&server, &["--once", "--input", "hex", "--ack"], b"01\nzz\n"), 0, &["sent 1"]);
    check(&send(&server, &["--once", "--input", "hex"], b"zz\n00\n"), 2, &["record 1"]);
    assert_eq!(server.stop().output, b"00\n01\n");
}

#[test]
fn a_reader_of_replies_that_has_seen_enough_ends_send() {
    let server = Server::start(&["--echo", "--output", "none"]);
    let mut child = Command::new(FRAMELET)
        .args(["send", &server.address.to_string(), "--input", "lines", "--expect", "9"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut keyboard = child.stdin.take().unwrap();
    keyboard.write_all(b"a\n").unwrap();
    // The input has no end yet.
    check(&child.wait_with_output().unwrap(), 141, &[]);
    drop(keyboard);
}

// ---- filters

#[test]
fn json_is_exact_for_any_bytes_in_both_directions() {
    let mut random = fastrand::Rng::with_seed(3);
    let mut messages: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    messages.push((0..=255).collect());
    messages.push(Vec::new());
    messages.push("\u{2028}\u{1f600}\"\\/\u{0}".into());
    messages.extend((0..500).map(|_| (0..random.usize(..200)).map(|_| random.u8(..)).collect()));
    let frames: Vec<u8> = messages.iter().flat_map(|message| frame(message)).collect();
    for format in ["json", "hex", "base64", "frames"] {
        let decoded = framelet(&["decode", "--output", format], &frames);
        check(&decoded, 0, &[]);
        let encoded = framelet(&["encode", "--input", format], &decoded.stdout);
        check(&encoded, 0, &[]);
        assert!(encoded.stdout == frames, "{format}");
    }
}

#[test]
fn formats_are_exact_for_what_they_can_express() {
    for (format, messages) in [
        ("text", &[&b"a\nb"[..], b"", b"c"][..]),
        ("lines", &[b"a\r", b"", b"\xff\0"]),
        ("nul", &[b"a\n\n", b"", b"\xff\r"]),
    ] {
        let frames: Vec<u8> = messages.iter().flat_map(|message| frame(message)).collect();
        let decoded = framelet(&["decode", "--output", format], &frames);
        let encoded = framelet(&["encode", "--input", format], &decoded.stdout);
        assert_eq!(unframe(&encoded.stdout), messages, "{format}");
    }
    let raw = framelet(&["decode", "--output", "raw"], &[frame(b"a"), frame(b"b")].concat());
    assert_eq!(raw.stdout, b"ab");
    let none = framelet(&["decode", "--output", "none"], &frame(b"a"));
    assert_eq!(none.stdout, b"");
}

#[test]
fn a_reader_that_has_seen_enough_is_left_in_peace() {
    for arguments in [&["decode"][..], &["encode", "--input", "lines"]] {
        let mut child = Command::new(FRAMELET)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        // Frames to one of them, and lines to the other.
        let _ = child.stdin.take().unwrap().write_all(&frame(b"x\n"));
        check(&child.wait_with_output().unwrap(), 141, &[]);
    }
}

#[test]
fn files_that_cannot_be_read_or_written_are_named() {
    check(
        &framelet(&["decode", "/nonexistent"], b""),
        2,
        &["cannot read /nonexistent: no such file"],
    );
    check(&framelet(&["decode", "/"], b""), 2, &["cannot read /: is a directory"]);
    check(&framelet(&["encode", "/"], b""), 2, &["is a directory"]);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut child = Command::new(FRAMELET)
        .arg("decode")
        .stdin(Stdio::piped())
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&frame(b"x")).unwrap();
    let output = child.wait_with_output().unwrap();
    check(&output, 2, &["cannot write to standard output: no space left on device"]);
}

#[test]
fn a_file_can_be_named_instead_of_standard_input() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("frames");
    std::fs::write(&path, frame(b"from a file")).unwrap();
    let output = framelet(&["decode", path.to_str().unwrap()], b"");
    assert_eq!(output.stdout, b"from a file\n");
}

#[test]
fn frames_are_not_written_to_a_terminal() {
    let (_person, terminal) = terminal();
    let mut child = Command::new(FRAMELET)
        .arg("encode")
        .stdin(Stdio::piped())
        .stdout(Stdio::from(terminal))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end without having read it.
    let _ = child.stdin.take().unwrap().write_all(b"x\n");
    let output = child.wait_with_output().unwrap();
    check(&output, 2, &["frames are not for a terminal", "framelet encode > frames.bin"]);
}

// ---- usage

#[test]
fn what_makes_no_sense_is_refused_and_says_why() {
    for (arguments, words) in [
        (&["serve", "nonsense"][..], "a port is missing"),
        (&["serve", ":0", "--layout", "u32"], "which byte order? write u32be"),
        (
            &["serve", ":0", "--layout", "postgress"],
            "did you mean postgres? (framelet layouts lists",
        ),
        (&["send", ":1", "--layout", "Kafka"], "did you mean kafka?"),
        (&["decode", "--layout", "h1:u23be"], "\"u23be\": no such item; did you mean u24be?"),
        (&["layouts", "nestring"], "no such layout; did you mean netstring?"),
        (&["layouts", "h1:h2"], "it has no length"),
        (
            &["serve", ":0", "--layout", "u8", "--max-message", "300"],
            "more than a u8 message can have (255)",
        ),
        (&["serve", ":0", "--memory", "1k"], "do not hold two messages"),
        (
            &["serve", ":0", "--memory", "3k", "--max-message", "2k"],
            "at least 4000 are needed (--memory, --max-message)",
        ),
        (&["serve", ":0", "--max-connections", "0"], "cannot be zero"),
        (&["serve", ":0", "--idle-timeout", "0s"], "write off to wait for ever"),
        (&["serve", ":0", "--message-timeout", "5"], "not a duration"),
        (&["serve", ":0", "--max-message", "8 potatoes"], "not a size"),
        (&["serve", ":0", "--output", "xml"], "the formats are text lines nul"),
        (&["serve", ":0", "-v", "-q"], "contradict each other"),
        (&["serve", ":0", "extra"], "unrecognized argument: extra (see framelet serve --help)"),
        (&["send", ":1", "--input", "raw"], "the formats are text lines nul"),
        (&["send", ":1", "--input", "lines", "--message", "x"], "--input has no use with it"),
        (&["send", "::1:4747"], "brackets"),
        (&["decode", "--max-message"], "no value provided for option '--max-message'"),
        (
            &["bake"],
            "no such command `bake`; the commands are serve, send, ping, encode, decode, detect, layouts, bench and generate",
        ),
        (&["snd"], "no such command `snd`; did you mean `send`? (see framelet --help)"),
        (&["Send", ":1"], "did you mean `send`?"),
        (&["listen", ":1", "--output", "hex"], "did you mean `serve`?"),
        (&["serve", ":0", "--max-mesage", "1"], "--max-mesage; did you mean --max-message? (see"),
        (&["send", ":1", "lines.txt"], "framelet send ADDR < lines.txt (see framelet send --help)"),
        (&["send", ":1", "hi"], "hi; to send it as a text, write --message \"hi\"; to send a file"),
        (&["serve", "4747"], "a port is missing; write HOST:PORT"),
        (&["serve", "4747"], "did you mean :4747?"),
        (&["send", "4747"], "did you mean :4747?"),
        (&["send", "/run/app.sock"], "did you mean unix:/run/app.sock?"),
        (&["send", "tcp://[::1]:4747"], "has no scheme; write HOST:PORT"),
        (&["send", "tcp://[::1]:4747"], "did you mean [::1]:4747?"),
        (&["serve", "sqlite:messages.db"], "to put messages there, write it after --to"),
        (&["serve", "unix+redis:///a?pass=hidden"], "?pass=***\": "),
        (&["serve", ":0", "--to", "unix+redis:///a?pass=hidden"], "?pass=***'"),
        (&["serve", ":0", "--threads", "0"], "--threads: must be from 1 to 1024"),
        (&[], "which command?"),
    ] {
        check(&framelet(arguments, b""), 2, &[words]);
    }
}

#[test]
fn no_thread_to_serve_on_is_refused_rather_than_waited_for() {
    let mut command = Command::new(FRAMELET);
    command.args(["serve", ":0"]).env("SMOL_THREADS", "0");
    check(&common::program::run(command, b""), 2, &["SMOL_THREADS=0"]);
    let mut command = Command::new(FRAMELET);
    command.args(["serve", ":0"]).env("SMOL_THREADS", "+00");
    check(&common::program::run(command, b""), 2, &["SMOL_THREADS=0"]);
}

/// Returns how many threads of a server run connections.
fn threads_that_serve(server: &Server) -> usize {
    let threads = std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let name = |thread: std::io::Result<std::fs::DirEntry>| {
        // It may end just now.
        std::fs::read_to_string(thread.unwrap().path().join("comm")).unwrap_or_default()
    };
    threads.map(name).filter(|name| name.starts_with("smol-")).count()
}

#[test]
fn connections_are_run_by_as_many_threads_as_asked_for_in_the_same_process() {
    for (arguments, environment, expected) in [
        (&[][..], None, 1),
        (&["--threads", "1"], None, 1),
        (&["--threads", "3"], None, 3),
        (&["--threads", "2"], Some("3"), 2),
        (&["--threads", "1"], Some("3"), 1),
        (&["--threads", "1"], Some("0"), 1),
        (&[], Some("2"), 2),
    ] {
        // The shell has a file open that the server inherits, and becomes the server.
        let mut command = Command::new("bash");
        command.args(["-c", r#"exec 7</dev/zero; exec "$0" serve 127.0.0.1:0 -v "$@""#, FRAMELET]);
        command.args(arguments).env_remove("SMOL_THREADS");
        command.envs(environment.map(|threads| ("SMOL_THREADS", threads)));
        let server = Server::spawn(command);
        let shown = format!("{arguments:?} {environment:?}");
        // They get their names once they run.
        wait_until("threads that serve", || threads_that_serve(&server) >= expected);
        let file = |name| format!("/proc/{}/{name}", server.pid());
        assert_eq!(std::fs::read_link(file("fd/7")).unwrap().to_str(), Some("/dev/zero"));
        assert_eq!(std::fs::read_to_string(file("comm")).unwrap(), "framelet\n");
        let typed = std::fs::read_to_string(file("cmdline")).unwrap();
        assert!(typed.starts_with(&format!("{FRAMELET}\0serve\0127.0.0.1:0\0-v\0")), "{typed}");
        check(&send(&server, &["--message", "m"], b""), 0, &[]);
        assert_eq!(threads_that_serve(&server), expected, "{shown}");
        assert_eq!(server.stop().output, b"m\n", "{shown}");
    }
}

#[test]
fn an_address_in_use_is_named() {
    let server = Server::start(&[]);
    let output = framelet(&["serve", &server.address.to_string()], b"");
    check(&output, 1, &["cannot listen on 127.0.0.1:", "address already in use"]);
}

#[test]
fn help_begins_with_an_example_and_names_the_exit_codes() {
    for arguments in [
        &["--help"][..],
        &["serve", "--help"],
        &["send", "-h"],
        &["encode", "-h"],
        &["decode", "-h"],
        &["layouts", "--help"],
    ] {
        let output = framelet(arguments, b"");
        check(&output, 0, &[]);
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(help.starts_with("Example: "), "{help}");
        for code in ["0  ", "1  ", "2  ", "3  ", "4  ", "141"] {
            assert!(help.contains(&format!("\n  {code}  ")), "{help}");
        }
    }
    let version = framelet(&["--version"], b"").stdout;
    let version = String::from_utf8(version).unwrap();
    let (first, features) = version.split_once('\n').unwrap();
    assert_eq!(first, format!("framelet {}", env!("CARGO_PKG_VERSION")));
    assert!(features.starts_with("features: "), "{features}");
    let named: Vec<_> = features.trim_start_matches("features: ").trim_end().split(", ").collect();
    let manifest = include_str!("../Cargo.toml");
    let (_, declared) = manifest.split_once("\n[features]\n").unwrap();
    let declared = declared.lines().take_while(|line| !line.starts_with('['));
    let declared = declared.filter_map(|line| Some(line.split_once(" = ")?.0));
    // The program itself, and what is on by default, need no mention.
    let declared = declared.filter(|feature| !["cli", "default"].contains(feature));
    let built = [
        ("bench", cfg!(feature = "bench")),
        ("detect", cfg!(feature = "detect")),
        ("generate", cfg!(feature = "generate")),
        ("metrics", cfg!(feature = "metrics")),
        ("progress", cfg!(feature = "progress")),
        ("sqlite", cfg!(feature = "sqlite")),
        ("redis", cfg!(feature = "redis")),
        ("tls", cfg!(feature = "tls")),
    ];
    for feature in declared {
        let (_, built) = built.iter().find(|(name, _)| *name == feature).expect(feature);
        assert_eq!(named.contains(&feature), *built, "{feature}: {features}");
    }
}

#[test]
fn help_can_be_asked_for_before_and_after_a_command() {
    for command in ["serve", "send", "encode", "decode"] {
        let help = framelet(&[command, "--help"], b"").stdout;
        assert!(String::from_utf8_lossy(&help).contains(&format!("Usage: framelet {command} ")));
        for arguments in [["help", command], ["--help", command], [command, "help"]] {
            let output = framelet(&arguments, b"");
            check(&output, 0, &[]);
            assert!(output.stdout == help, "{arguments:?}");
        }
    }
    assert!(framelet(&["help"], b"").stdout == framelet(&["--help"], b"").stdout);
}

#[test]
fn help_explains_the_values_of_a_command_in_a_line_or_two_for_each_option() {
    for command in ["serve", "send", "ping", "encode", "decode", "layouts", "bench"] {
        let help = String::from_utf8(framelet(&[command, "--help"], b"").stdout).unwrap();
        let list = |title: &str| {
            let (_, rest) = help.split_once(&format!("\n{title}:\n"))?;
            Some(rest.split("\n\n").next().unwrap().lines().collect::<Vec<_>>())
        };
        let (options, values) = (list("Options").unwrap(), list("Values").unwrap());
        let mut lines = 0;
        for line in &options {
            lines = if line.starts_with("  -") { 1 } else { lines + 1 };
            assert!(lines <= 2 && line.len() <= 80, "{command}: {line}");
        }
        let arguments = list("Arguments").unwrap();
        let taken = options.iter().chain(&arguments).flat_map(|line| line.split_whitespace());
        for value in ["ADDR", "SINK", "FORMAT", "LAYOUT", "SIZE", "DURATION"] {
            let explained = values.iter().any(|line| line.starts_with(&format!("  {value} ")));
            assert_eq!(explained, taken.clone().any(|word| word == value), "{command}: {value}");
        }
    }
}

#[test]
fn the_docs_show_the_help_as_it_is() {
    for command in
        [&[][..], &["serve"], &["send"], &["ping"], &["encode"], &["decode"], &["layouts"]]
    {
        docs_show_help_of(command);
    }
}

// ---- layouts

#[test]
fn layouts_lists_each_preset_with_what_it_stands_for_on_eighty_columns() {
    let output = framelet(&["layouts"], b"");
    check(&output, 0, &[]);
    let list = String::from_utf8(output.stdout).unwrap();
    assert!(list.lines().all(|line| line.chars().count() <= 80), "{list}");
    let output = framelet(&["layouts", "--json"], b"");
    let json: Vec<serde_json::Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(json.len(), PRESETS.len());
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for (preset, json) in PRESETS.iter().zip(json) {
        let row = format!("{} {} {}", preset.name, preset.notation, preset.about);
        assert!(words(&list).contains(&row), "{row}");
        assert_eq!(
            (&json["name"], &json["layout"]),
            (&preset.name.into(), &preset.notation.into())
        );
        assert_eq!(
            (&json["about"], &json["source"]),
            (&preset.about.into(), &preset.source.into())
        );
    }
}

#[test]
fn layouts_shows_what_each_byte_of_a_frame_is() {
    let shown = |layout: &str| {
        let output = framelet(&["layouts", layout], b"");
        check(&output, 0, &[]);
        String::from_utf8(output.stdout).unwrap()
    };
    let postgres = "\
postgres: PostgreSQL; header: type, which the client's first message lacks
layout   h1:u32be+self
source   PostgreSQL, message formats

  0  00              h1         header (zeros unless given)
  1  00 00 00 09     u32be+self  length of itself and the payload: 9
  5  68 65 6c 6c 6f  data       payload, \"hello\"
";
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(words(&shown("postgres")), words(postgres));
    for (layout, says) in [
        ("netstring", "0 35 3a dec/3a length of the payload: 5, \"5:\""),
        ("netstring", "7 2c x2c fixed, \",\""),
        ("h1:u16be+all", "1 00 08 u16be+all length of the whole frame: 8"),
        ("u16be", "same as dns, erlang2"),
        ("u8+3", "0 08 u8+3 length of the payload, plus 3: 8"),
        ("u8-9", "0 00 u8-9 length of the payload, minus 9: 0"),
        ("u32le-2000000000", "data payload, 2000000000 bytes"),
        ("h9:u8", "0 00 00 00 00 00 00 00 00 h9 header (zeros unless given) 00 9 05 u8"),
        ("lsp", "header lines, \"Content-Length: 5\\r\\n\\r\\n\""),
        ("drda", "source Apache Derby, DDMReader.java (DRDA, volume 3)"),
    ] {
        assert!(words(&shown(layout)).contains(says), "{layout}: {}", shown(layout));
    }
}

#[test]
fn layouts_as_json_has_all_that_its_text_has() {
    let shown = |layout: &str| -> serde_json::Value {
        let output = framelet(&["layouts", layout, "--json"], b"");
        check(&output, 0, &[]);
        serde_json::from_slice(&output.stdout).unwrap()
    };
    for preset in PRESETS {
        let json = shown(preset.name);
        let said = [&json["name"], &json["layout"], &json["about"], &json["source"]];
        assert_eq!(said, [preset.name, preset.notation, preset.about, preset.source]);
    }
    assert_eq!(shown("tpkt")["same_as"], serde_json::json!(["rdp", "s7"]));
    let nameless = shown("h9:u8");
    assert_eq!(nameless["same_as"], serde_json::json!([]));
    assert_eq!(nameless["layout"], "h9:u8");
    assert!(nameless.get("name").is_none() && nameless.get("source").is_none(), "{nameless}");
}

#[test]
fn the_frame_that_layouts_shows_is_the_one_that_encode_writes() {
    for layout in PRESETS.iter().map(|preset| preset.name).chain(["u8:h3:data:x00:h2", "dec1"]) {
        let shown = framelet(&["layouts", layout, "--json"], b"").stdout;
        let shown: serde_json::Value = serde_json::from_slice(&shown).unwrap();
        let (mut bytes, mut at) = (Vec::new(), 0);
        for part in shown["parts"].as_array().unwrap() {
            assert_eq!(part["at"], at, "{layout}");
            at += part["length"].as_u64().unwrap();
            bytes.extend(HEXLOWER.decode(part["hex"].as_str().unwrap().as_bytes()).unwrap());
        }
        let encoded = framelet(&["encode", "--layout", layout, "--input", "whole"], b"hello");
        assert_eq!(bytes, encoded.stdout, "{layout}");
    }
}

// ---- a person at a terminal

#[cfg(target_os = "linux")]
#[test]
fn at_a_terminal_send_says_how_and_sends_after_an_empty_line() {
    let server = Server::start(&[]);
    let (mut keyboard, side) = terminal();
    let child = Command::new(FRAMELET)
        .args(["send", &server.address.to_string()])
        .stdin(side)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    keyboard.write_all(b"typed\nby hand\n\n").unwrap();
    server.wait_for_output("typed\nby hand\n".len());
    // Ctrl-D.
    keyboard.write_all(b"\x04").unwrap();
    let output = child.wait_with_output().unwrap();
    check(&output, 0, &["connected to 127.0.0.1:", "an empty line sends them; Ctrl-D ends"]);
}

/// The end-to-end scripts, so that `cargo test` alone covers them.
#[test]
fn the_end_to_end_script_passes() {
    let mut command = Command::new("bash");
    command.arg("scripts/e2e.sh").env("FRAMELET", FRAMELET);
    let output = common::program::run(command, b"");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}\n{}", said(&output));
    assert!(shown.trim_end().ends_with(" passed, 0 failed"), "{shown}");
}

#[test]
fn a_password_in_an_argument_is_not_repeated() {
    for arguments in [
        &["serve", "--to", "kafka://me:secret@h/"][..],
        &["serve", "--to", "rediss://me:secret@h/?stream=a"],
        &["serve", "--to", "valkeys://me:secret@h/?stream=a"],
        &["serve", "--to", "redis://me:secret@h:x/?stream=a"],
        &["serve", "--to=redis://me:secret@h/?stream=a"],
        &["serve", "--layout", "redis://me:secret@h/?stream=a"],
        &["serve", "redis://me:secret@h/?stream=a"],
        &["send", "redis://:secret@h:1"],
        &["redis://:secret@h:1"],
    ] {
        let output = framelet(arguments, b"");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.is_empty() && !said.contains("secret"), "{arguments:?}: {said}");
    }
    use std::os::unix::ffi::OsStrExt;
    let not_text = std::ffi::OsStr::from_bytes(b"redis://:secret@h\xff");
    let output = framelet(&[std::ffi::OsStr::new("serve"), not_text], b"");
    check(&output, 2, &["not UTF-8"]);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("secret"));
}

#[test]
fn detect_shows_the_layouts_that_read_a_stream_and_the_command_that_does() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("frames.bin");
    std::fs::write(&path, b"\x05\0\0\0hello\x05\0\0\0world").unwrap();
    let path = path.to_str().unwrap();
    let output = framelet(&["detect", path], b"");
    check(&output, 0, &[]);
    let lines = String::from_utf8(output.stdout).unwrap();
    assert!(lines.starts_with("u32le "), "{lines}");
    assert!(lines.contains("certain   2 messages in all 18 bytes\n"), "{lines}");
    assert!(lines.ends_with(&format!("\nframelet decode --layout u32le {path}\n")), "{lines}");
    // The command can be run as it is printed.
    std::fs::rename(path, directory.path().join("-frames")).unwrap();
    let mut command = Command::new(FRAMELET);
    let output =
        command.args(["detect", "--", "-frames"]).current_dir(&directory).output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    assert!(lines.ends_with("\nframelet decode --layout u32le './-frames'\n"), "{lines}");
    let output = framelet(&["detect", "--output", "json"], b"\0\x05hello\0\x05world");
    check(&output, 0, &[]);
    let first = output.stdout.split(|&byte| byte == b'\n').next().unwrap();
    let best: serde_json::Value = serde_json::from_slice(first).unwrap();
    assert_eq!(best["command"], "framelet decode --layout u16be");
    assert_eq!((&best["messages"], &best["bytes"]), (&2.into(), &14.into()));
}

/// Returns frames in `u32be` whose payloads are the numbers up to `most`.
fn numbers(most: u32) -> Vec<u8> {
    (0..most).flat_map(|number| frame(number.to_string().as_bytes())).collect()
}

/// Runs detect, and returns the first line and the command that it prints.
#[track_caller]
fn detected(stream: &[u8], words: &[&str]) -> (String, String) {
    let output = framelet(&["detect"], stream);
    check(&output, 0, words);
    let lines = String::from_utf8(output.stdout).unwrap();
    let first = lines.lines().next().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    (first, lines.lines().last().unwrap().into())
}

#[test]
fn detect_reads_a_capture_that_ends_inside_a_message() {
    let stream = numbers(1000);
    let (first, command) = detected(&stream[..502], &["the last message is cut off"]);
    assert_eq!(first, "u32be certain 85 messages in 500 of 502 bytes");
    assert_eq!(command, "framelet decode --layout u32be");
    // Of a longer one, only the start is judged.
    for len in [40_000, 400_000] {
        let stream = frame(&vec![0xa5; len]).repeat(4_000_000 / len);
        let (_, command) = detected(&stream, &[]);
        assert_eq!(command, "framelet decode --layout u32be", "{len}");
    }
}

#[test]
fn detect_takes_no_more_requests_for_encryption_than_there_are_kinds() {
    let request = b"\0\0\0\x08\x04\xd2\x16\x2f";
    for stream in [request.repeat(100_000), b"\0\0\0\0\x04\xd2\x16\x2f".repeat(2)] {
        let output = framelet(&["detect"], &stream);
        assert!(matches!(output.status.code(), Some(0 | 3)), "{}", said(&output));
    }
}

#[test]
fn detect_finds_the_first_message_of_a_capture_that_is_cut_or_long() {
    let (short, long) = (numbers(100), frame(&[0xa5; 1000]).repeat(1500));
    assert!(long.len() > JUDGED);
    for preamble in [&b"HELLO\r\n"[..], b"\x89MAG\r\n\x1a\n"] {
        for (messages, is_cut) in [(&short[..short.len() - 1], true), (&long, false)] {
            let skip = preamble.len();
            let output = framelet(&["detect"], &[preamble, messages].concat());
            let said = said(&output);
            assert_eq!(output.status.code(), Some(0), "{said}");
            let lines = String::from_utf8(output.stdout).unwrap();
            let command = format!("framelet decode --layout u32be --skip {skip}");
            assert_eq!(lines.lines().last(), Some(&*command));
            assert!(said.contains(&format!("{skip} bytes precede the first message")), "{said}");
            assert_eq!(said.contains("the last message is cut off"), is_cut, "{said}");
        }
    }
}

#[test]
fn detect_reads_a_stream_that_begins_with_an_empty_message() {
    for width in [2, 4] {
        let stream: Vec<u8> = [String::new()]
            .into_iter()
            .chain((0..40).map(|number| format!("msg {number}")))
            .flat_map(|text| frame(text.as_bytes()).split_off(4 - width))
            .collect();
        let (first, _) = detected(&stream, &[]);
        assert!(
            first.starts_with(&format!("u{}be certain 41 messages in all", 8 * width)),
            "{first}"
        );
    }
}

#[test]
fn detect_finds_the_first_message_after_what_precedes_it() {
    let startup = b"\0\0\0\x11\0\x03\0\0user\0me\0\0".to_vec();
    let query = b"Q\0\0\0\x0dselect 1\0X\0\0\0\x04".to_vec();
    let bittorrent = [b"\x13BitTorrent protocol".to_vec(), vec![0xa5; 48]].concat();
    let two_queries = query.clone();
    let hello = Hello { sender: SenderId::from_bytes([7; 16]), first: 1 };
    let hello = hello.encode(Layout::U32BE).unwrap();
    for (preamble, messages, layout) in [
        (b"HELLO\r\n".to_vec(), numbers(100), "u32be"),
        (startup, query, "postgres"),
        (bittorrent, numbers(100), "u32be"),
        // After a request for encryption, the first message of PostgreSQL comes again.
        (
            b"\0\0\0\x08\x04\xd2\x16\x2f\0\0\0\x11\0\x03\0\0user\0me\0\0".to_vec(),
            two_queries,
            "postgres",
        ),
        // What asks for acknowledgements.
        (hello, numbers(100), "u32be"),
        // Of no known kind.
        (b"\x89MAG\r\n\x1a\n".to_vec(), numbers(100), "u32be"),
    ] {
        let skip = preamble.len();
        let stream = [preamble, messages].concat();
        let output = framelet(&["detect"], &stream);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(
            said.contains(&format!("{skip} bytes precede the first message (--skip)")),
            "{said}"
        );
        let command = format!("framelet decode --layout {layout} --skip {skip}");
        let lines = String::from_utf8(output.stdout).unwrap();
        assert_eq!(lines.lines().last(), Some(&*command));
        let arguments: Vec<&str> = command.split(' ').skip(1).collect();
        check(&framelet(&arguments, &stream), 0, &[]);
    }
}

#[test]
fn detect_shows_the_layout_of_a_protocol_that_its_first_bytes_name() {
    let connect = b"\x10\x10\0\x04MQTT\x04\x02\0\x3c\0\x04test";
    let (first, _) = detected(connect, &["looks like MQTT"]);
    assert_eq!(first, "mqtt likely 1 message in all 18 bytes");
}

#[test]
fn detect_says_what_a_stream_is_that_no_layout_reads() {
    check(&framelet(&["detect"], b"GET / HTTP/1.1\r\n\r\n"), 3, &["looks like an HTTP request"]);
    check(&framelet(&["detect"], &[0; 40]), 3, &["no layout is known that reads these 40 bytes"]);
    let text = b"+OK ready\r\n";
    check(&framelet(&["detect"], text), 3, &["no layout", "text without a length prefix"]);
    let frame =
        |text: &str, bytes: usize| [&[0, u8::try_from(bytes).unwrap()], text.as_bytes()].concat();
    let by_characters: Vec<u8> = ["Grüße aus Köln", "Straße", "and more"]
        .iter()
        .flat_map(|text| frame(text, text.chars().count()))
        .collect();
    let said = ["no layout", "as u16be, message 1", "count characters"];
    check(&framelet(&["detect"], &by_characters), 3, &said);
    let output = framelet(&["detect"], b"\x04\0\0\0\x05\0\0\0\0");
    assert_eq!(output.stderr, b"framelet: no layout is known that reads these 9 bytes\n");
    check(&framelet(&["detect"], b""), 3, &["the input is empty"]);
    // Elements of BER in elements, deeper than any stack.
    let mut nested = Vec::new();
    while nested.len() < 600_000 {
        let length = u32::try_from(nested.len()).unwrap();
        nested.extend(length.to_be_bytes().iter().rev().chain(&[0x84, 0x30]));
    }
    nested.reverse();
    check(&framelet(&["detect"], &nested), 0, &[]);
    // Blocks with lengths, but no stream.
    let pcapng = b"\x0a\x0d\x0d\x0a\x1c\0\0\0\x4d\x3c\x2b\x1a\x01\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\x1c\0\0\0";
    check(&framelet(&["detect"], &pcapng.repeat(4)), 3, &["looks like a packet capture"]);
    check(&framelet(&["detect", "--output", "hex"], b""), 2, &["write lines or json"]);
}
