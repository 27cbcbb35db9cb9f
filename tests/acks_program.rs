//! `send --ack`, as its users see it, against servers that behave and others that do not.

#![cfg(target_os = "linux")]

mod common;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use common::acks::{Connection, SENDER, start, start_limited};
use common::program::{
    FRAMELET, Growing, PATIENCE, Running, Server, check, framelet, odd_server, run, said, terminal,
    wait_until,
};
use common::resume::refuses_another_input;
use framelet::wire::{Answer, RefusalCode, SenderId};
use rustix::process::Signal;

fn send(address: impl ToString, arguments: &[&str], input: &[u8]) -> Output {
    let address = address.to_string();
    framelet(&[&["send", &address, "--ack", "--input", "lines"], arguments].concat(), input)
}

#[test]
fn send_says_how_much_is_committed() {
    let (address, committed) = start(Connection::serve);
    let input: String = (0..5000).map(|n| format!("{n}\n")).collect();
    check(
        &send(&address, &["--window", "50"], input.as_bytes()),
        0,
        &["sent 5000, committed 5000"],
    );
    assert_eq!(committed.all().len(), 5000);
    assert_eq!(committed.all()[4999], b"4999");
}

#[test]
fn a_server_without_acknowledgements_is_not_sent_anything() {
    // One that sends everything back never gives any.
    let server = Server::start(&["--echo", "--output", "frames"]);
    check(&send(server.address, &[], b"a\n"), 3, &["gives no acknowledgements"]);
    assert_eq!(server.stop().output, b"");
    // Others close, read on for ever, or say something else.
    let (address, accepted) = closing_server(usize::MAX);
    // Which it may only be just now, so the client tries on for a while, and says so.
    let output = send(address, &["--retry", "3s"], b"a\n");
    let said = said(&output);
    assert_eq!(output.status.code(), Some(3), "{said}");
    let (first, last) = said.split_once('\n').unwrap();
    assert!(
        first.contains("before it answered: it may") && first.ends_with("; retrying"),
        "{said}"
    );
    assert!(last.contains("this server seems to give no acknowledgements"), "{said}");
    assert!(accepted.load(Ordering::SeqCst) > 6, "it did not try on");
    let (address, accepted) = closing_server(usize::MAX);
    let output = send(address, &["--retry", "0s"], b"a\n");
    check(&output, 3, &["this server seems to give no acknowledgements"]);
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
    let address = odd_server(|mut stream| drop(io::copy(&mut stream, &mut io::sink())));
    let output = send(address, &["--timeout", "200ms", "--retry", "0s"], b"a\n");
    check(
        &output,
        3,
        &["seems to give no acknowledgements: no answer within 200ms; nothing was sent"],
    );
    let address = odd_server(|mut stream| {
        stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").unwrap();
        let _ = io::copy(&mut stream, &mut io::sink());
    });
    check(
        &send(address, &[], b"a\n"),
        3,
        &["this server seems to give no acknowledgements", "SSH"],
    );
}

#[test]
fn a_server_that_is_not_there_is_said_while_it_is_waited_for() {
    let reserved = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    for more in [&[][..], &["--proxy-protocol", "v2"]] {
        let mut command = Command::new(FRAMELET);
        command.args(["send", &address.to_string(), "--ack", "--message", "m"]).args(more);
        let running = Running::start(command, b"");
        running.wait_until_it_says(&format!(
            "no connection to {address}: connection refused; retrying for another 2"
        ));
    }
}

#[test]
fn a_server_with_another_layout_is_told_from_one_without_acknowledgements() {
    let server = Server::start(&["--layout", "u32le"]);
    let output = send(server.address, &["--retry", "0s"], b"a\n");
    check(&output, 3, &["if it does give them, its --layout may be different"]);
    let words = "a client that asks for acknowledgements, in u32be: try --layout u32be";
    server.wait_for_log(words, 1);
    assert_eq!(server.stop().log.matches("raise the limit").count(), 0);
    // The other way round: its answer is none, and no limit would make it one.
    let address = odd_server(|mut stream| {
        stream.write_all(b"\x93\x07\xf1\xb2\x00\x01").unwrap();
        let _ = io::copy(&mut stream, &mut io::sink());
    });
    let output = send(address, &["--retry", "0s"], b"a\n");
    check(&output, 3, &[r#"it sent 93 07 f1 b2 "\x93\u{7}\xf1\xb2"; nothing was sent"#]);
    assert!(!said(&output).contains("raise the limit"), "{}", said(&output));
}

#[test]
fn what_a_server_of_another_kind_sends_is_named_and_no_limit_on_acknowledgements() {
    for (sent, words) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
            "it sent 48 54 54 50 \"HTTP\"; this looks like an HTTP response",
        ),
        (b"220 mail.example ESMTP\r\n", "\"220 \"; this looks like the greeting of an SMTP server"),
        (b"\0\0\0\x05hello", "it sent a message of 5 bytes, \"hello\";"),
        // These would be a count, a refusal and a checksum.
        (b"\0\0\0\x08welcome!", "it sent a message of 8 bytes, \"welcome!\";"),
        (b"\0\0\0\x0chello there!", "it sent a message of 12 bytes, \"hello there!\";"),
        (
            b"\0\0\0\x11{\"hello\"\0checksum",
            "it sent a message of 17 bytes, \"{\"hello\"\\0checksum\";",
        ),
        (b"\0\0\x08\0", "it sent 00 00 08 00 \"\\0\\0\\u{8}\\0\" (as a length, 2048);"),
        // It waits for more.
        (b"\0\x02h", "no whole answer within 300ms"),
        (b"OK\n", "it sent 4f 4b 0a \"OK\\n\"; this looks like text without a length prefix"),
    ] {
        let address = odd_server(move |mut stream| {
            stream.write_all(sent).unwrap();
            let _ = io::copy(&mut stream, &mut io::sink());
        });
        let output = send(address, &["--timeout", "300ms", "--retry", "0s"], b"a\n");
        check(&output, 3, &["this server seems to give no acknowledgements: ", words]);
        let said = said(&output);
        assert!(!said.contains("limit") && !said.contains("1033"), "{said}");
        // Where the error names another protocol, the layout is not in doubt.
        assert_eq!(said.contains("--layout"), !said.contains("this looks like"), "{said}");
    }
    // One that closes after it.
    let address = odd_server(|mut stream| {
        let _ = stream.read(&mut [0; 64]);
        stream.write_all(b"no\n").unwrap();
    });
    check(
        &send(address, &[], b"a\n"),
        3,
        &["this looks like text without a length prefix (\"no\\n\")"],
    );
}

#[test]
fn a_server_that_sends_everything_back_is_named() {
    for layout in ["u32be", "u64le+self"] {
        let address = odd_server(|mut stream| {
            let mut back = stream.try_clone().unwrap();
            let _ = io::copy(&mut stream, &mut back);
        });
        let output = send(address, &["--layout", layout], b"a\n");
        check(
            &output,
            3,
            &["no acknowledgements: it sends back what it receives; nothing was sent"],
        );
    }
}

/// A listener that closes the first `times` connections, and welcomes nobody.
fn closing_server(times: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, accepted) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let count = Arc::clone(&accepted);
    thread::spawn(move || {
        for _ in 0..times {
            drop(listener.accept().unwrap());
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    (address, accepted)
}

/// As behind a load balancer whose servers are just being started.
#[test]
fn a_server_that_closes_at_first_may_be_just_starting() {
    let (address, accepted) = closing_server(3);
    let sending = thread::spawn(move || send(address, &[], b"a\n"));
    let started = Instant::now();
    let server = loop {
        assert!(started.elapsed() < PATIENCE, "the client has not tried again");
        if accepted.load(Ordering::SeqCst) == 3 {
            // Its listener is gone, or about to be.
            let mut command = Command::new(FRAMELET);
            command.args(["serve", &address.to_string()]);
            if TcpListener::bind(address).is_ok() {
                break Server::spawn(command);
            }
        }
        thread::sleep(Duration::from_millis(1));
    };
    check(&sending.join().unwrap(), 0, &["sent 1, committed 1"]);
    assert_eq!(server.stop().output, b"a\n");
}

#[test]
fn a_refusal_is_shown_and_cannot_drive_the_terminal() {
    for (code, exit, text, words) in [
        (RefusalCode::Replies, 3, "", "a server that replies gives no acknowledgements"),
        (RefusalCode::Version, 3, "", "does not know this version"),
        (RefusalCode::Fenced, 1, "", "a newer connection of this sender has taken over"),
        (RefusalCode::Gap, 1, "message 7 was expected", "refuses: message 7 was expected"),
        (RefusalCode::TooLong, 3, "", "a message is longer than it takes"),
        (RefusalCode::from_byte(99).unwrap(), 1, "", "code 99"),
        (RefusalCode::from_byte(99).unwrap(), 1, "\x1b[2J", "refuses: \\u{1b}[2J"),
    ] {
        let (address, _) = start(move |connection| connection.refuse(code, text));
        check(&send(address, &[], b"a\n"), exit, &[words]);
    }
}

#[test]
fn a_message_that_is_too_long_is_found_before_anything_is_sent() {
    let (address, committed) = start(Connection::serve);
    let limited = ["send", &address.to_string(), "--ack", "--max-message", "4"];
    for (messages, words) in [
        (
            &["--message", "four", "--message", "five!"][..],
            "message of 5 bytes is over the limit of 4",
        ),
        (&["--message", "four", "--message", "", "--message", "1234"], "sent 3, committed 3"),
    ] {
        let exit = if words.contains("over") { 3 } else { 0 };
        check(&framelet(&[&limited, messages].concat(), b""), exit, &[words]);
    }
    assert_eq!(committed.all(), [&b"four"[..], b"", b"1234"]);
}

#[test]
fn send_notices_the_end_while_it_waits_for_input() {
    let (address, _) = start(|mut connection| {
        connection.acknowledge();
        connection.take().unwrap();
        connection.acknowledge();
        connection.refuse(RefusalCode::Gap, "");
    });
    let mut child = Command::new(FRAMELET)
        .args(["send", &address.to_string(), "--ack", "--input", "lines"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"a\n").unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(said.contains("sent 1, committed 1"), "{said}");
    assert!(said.contains("an earlier message of this sender was expected"), "{said}");
}

#[test]
fn a_lost_connection_is_said_with_how_to_go_on() {
    let (address, _) = start_limited(|_| 100, Connection::serve);
    let input = "message\n".repeat(50);
    let output = send(&address, &["--retry", "0s"], input.as_bytes());
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    // How many of them it had taken by then is up to chance.
    assert!(said.starts_with("framelet: sent ") && said.contains(", committed 6\n"), "{said}");
    assert!(said.contains("--resume` on the same input sends the rest"), "{said}");
    let output = send("127.0.0.1:1", &["--retry", "0s"], b"");
    check(&output, 1, &["cannot connect to 127.0.0.1:1: connection refused; is the server"]);
}

#[test]
fn what_a_killed_client_has_not_sent_can_be_sent_by_another() {
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..5 {
        let (address, committed) = start(Connection::serve);
        let input: String = (0..3000).map(|n| format!("{n}\n")).collect();
        let address = address.to_string();
        let arguments = ["--sender", SENDER, "--resume"];
        let mut child = Command::new(FRAMELET)
            .args(["send", &address, "--ack", "--input", "lines"])
            .args(arguments)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // All but the end, so that it cannot be through before it is killed.
        stdin.write_all(&input.as_bytes()[..input.len() - 1]).unwrap();
        committed.wait(random.usize(1..2500));
        child.kill().unwrap();
        child.wait().unwrap();
        let output = send(&address, &arguments, input.as_bytes());
        check(&output, 0, &["skipped ", " that were committed, sent ", ", committed 3000"]);
        let lines: Vec<Vec<u8>> = input.lines().map(|line| line.as_bytes().to_vec()).collect();
        assert!(committed.all() == lines);
        // Again, there is nothing left to do; and another input is found out.
        let words = "skipped 3000 that were committed, sent 0, committed 3000";
        check(&send(&address, &arguments, input.as_bytes()), 0, &[words]);
        let output = send(&address, &arguments, b"1\n2\n");
        assert_eq!(output.status.code(), Some(2));
        assert!(said(&output).contains("has only 2 messages, but 3000"), "{}", said(&output));
        check(&send(&address, &["--sender", SENDER], b"new\n"), 2, &["--resume skips as many"]);
    }
}

#[test]
fn options_that_make_no_sense_together_are_refused() {
    for (arguments, words) in [
        (&["--ack", "--expect", "1"][..], "--ack and --expect contradict each other"),
        (&["--window", "5"], "--window has no use without --ack"),
        (&["--sender", SENDER], "--sender has no use without --ack"),
        (&["--resume"], "--resume has no use without --ack"),
        (&["--sender-file", "/nonexistent"], "--sender-file has no use without --ack"),
        (&["--renumber"], "--renumber has no use without --ack"),
        (&["--ack", "--resume"], "--resume needs --sender-file, FRAMELET_SENDER or --sender"),
        (&["--ack", "--sender", SENDER, "--sender-file", "/nonexistent"], "contradict each other"),
        (&["--ack", "--sender-file", "/"], "--sender-file /: not a regular file"),
        (&["--ack", "--sender-file", "/nonexistent/file"], "no such file or directory"),
        (&["--ack", "--sender-file", "/etc/passwd"], "no sender id in it: its first line has 32"),
        (&["--ack", "--window", "0"], "must be at least 1"),
        (&["--ack", "--sender", "abc"], "32 lower-case hexadecimal digits"),
        (&["--ack", "--layout", "u16be"], "4 or 8 bytes: use u32be instead of u16be (--layout)"),
        (
            &["--ack", "--layout", "grpc"],
            "acknowledgements need a layout without headers and with a length of 4 or 8 bytes: use u32be \
             instead of h1:u32be (--layout)",
        ),
    ] {
        let output = framelet(&[&["send", "127.0.0.1:1"], arguments].concat(), b"");
        check(&output, 2, &[words]);
    }
}

#[test]
fn bad_input_is_said_after_what_came_before_it_is_committed() {
    let (address, committed) = start(Connection::serve);
    let input = ["--input", "hex"];
    let output =
        framelet(&[&["send", &address.to_string(), "--ack"][..], &input].concat(), b"00\n01\nzz\n");
    let shown = said(&output);
    assert_eq!(output.status.code(), Some(2), "{shown}");
    let (first, last) = shown.split_once('\n').unwrap();
    assert_eq!(first, "framelet: sent 2, committed 2");
    assert!(last.contains("record 3 of the input: not hexadecimal"), "{shown}");
    assert_eq!(committed.all(), [[0], [1]]);
    // Also where the connection is lost after that.
    let (address, _) = start(|mut connection| {
        connection.acknowledge();
        connection.take().unwrap();
        connection.take().unwrap();
    });
    let arguments = ["send", &address.to_string(), "--ack", "--retry", "0s"];
    let output = framelet(&[&arguments[..], &input].concat(), b"00\n01\nzz\n");
    let shown = said(&output);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    let last = shown.lines().last().unwrap();
    assert!(last.contains("was lost: the server closed the connection"), "{shown}");
    assert!(last.contains("; and record 3 of the input: not hexadecimal"), "{shown}");
}

// ---- who sends

#[test]
fn a_client_that_is_stopped_says_how_to_go_on() {
    for signal in [Signal::INT, Signal::TERM] {
        let (address, committed) = start(|mut connection| {
            connection.acknowledge();
            // The rest stays where it is.
            for _ in 0..100 {
                connection.take().unwrap();
            }
            connection.acknowledge();
            let _ = io::copy(&mut connection.stream, &mut io::sink());
        });
        let mut command = Command::new(FRAMELET);
        let address = address.to_string();
        command.args(["send", &address, "--ack", "--input", "lines", "--window", "200"]);
        let running = Running::start(command, "message\n".repeat(500).as_bytes());
        committed.wait(100);
        running.signal(signal);
        let output = running.wait();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let sender = said.split("--sender ").nth(1).expect("the sender").split(' ').next().unwrap();
        let rest = format!("stopped by a signal; `--ack --sender {sender} --resume` on the same");
        assert!(said.contains(&rest) && said.contains("framelet: sent "), "{said}");
    }
}

#[test]
fn a_client_that_is_stopped_before_it_is_welcomed_has_sent_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = Command::new(FRAMELET);
    let address = listener.local_addr().unwrap().to_string();
    command.args(["send", &address, "--ack", "--message", "a"]);
    let running = Running::start(command, b"");
    // The hello is there, so it waits for the welcome.
    let mut stream = listener.accept().unwrap().0;
    stream.read_exact(&mut [0; 33]).unwrap();
    running.signal(Signal::TERM);
    check(&running.wait(), 1, &["stopped by a signal; nothing was sent"]);
}

#[test]
fn threads_are_needed() {
    let mut command = Command::new(FRAMELET);
    command.args(["send", "127.0.0.1:1", "--ack", "--message", "a"]).env("SMOL_THREADS", "0");
    check(&run(command, b""), 2, &["SMOL_THREADS=0 leaves no thread to run on"]);
}

/// Waits until what a terminal shows has these words in a line.
fn wait_for(shown: &Growing, words: &[&str]) {
    shown.wait(&format!("{words:?}"), |shown| {
        let shown = String::from_utf8_lossy(shown);
        shown.split('\r').any(|line| words.iter().all(|words| line.contains(words))).then_some(())
    });
}

#[test]
fn a_long_input_shows_on_a_terminal_how_much_is_committed() {
    let input = "message\n".repeat(100_000);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("input");
    std::fs::write(&path, &input).unwrap();
    for is_file in [true, false] {
        let (go_on, wait) = channel::<()>();
        let (address, _) = start(move |mut connection| {
            connection.acknowledge();
            while connection.take().is_some() {
                let count = connection.committed.count();
                if count.is_multiple_of(500) {
                    connection.acknowledge();
                }
                if count == 50_000 {
                    // Until the other end is dropped.
                    let _ = wait.recv();
                }
            }
            connection.acknowledge();
        });
        let (person, program) = terminal();
        let shown = Growing::follow(person);
        let mut command = Command::new(FRAMELET);
        command.args(["send", &address.to_string(), "--ack", "--input", "lines"]);
        // As many as are sent and not committed below.
        command.args(["--window", "1000"]);
        command.stdout(Stdio::null()).stderr(program).env("TERM", "xterm");
        let stdin = if is_file { File::open(&path).unwrap().into() } else { Stdio::piped() };
        let mut child = command.stdin(stdin).spawn().unwrap();
        // It has the terminal, too.
        drop(command);
        let writing = child.stdin.take().map(|mut stdin| {
            let input = input.clone();
            thread::spawn(move || stdin.write_all(input.as_bytes()).unwrap())
        });
        match is_file {
            // What is read at once counts when all of it is committed.
            true => wait_for(&shown, &["committed 50,000 messages [====", "KiB of 781.25 KiB,"]),
            false => wait_for(&shown, &["committed 50,000 of 51,000 messages, "]),
        }
        drop(go_on);
        assert!(child.wait().unwrap().success());
        if let Some(writing) = writing {
            writing.join().unwrap();
        }
        let shown = String::from_utf8(shown.all()).unwrap();
        // The line is erased at the end.
        assert!(
            shown.ends_with("\u{1b}[2Kframelet: sent 100000, committed 100000\r\n"),
            "{shown:?}"
        );
    }
}

#[test]
fn a_short_input_shows_nothing_on_the_way() {
    let (address, _) = start(Connection::serve);
    let (person, program) = terminal();
    let shown = Growing::follow(person);
    let mut command = Command::new(FRAMELET);
    command.args(["send", &address.to_string(), "--ack", "--message", "short"]);
    let mut child = command.stderr(program).env("TERM", "xterm").spawn().unwrap();
    drop(command);
    assert!(child.wait().unwrap().success());
    let shown = String::from_utf8(shown.all()).unwrap();
    assert_eq!(shown, "framelet: sent 1, committed 1\r\n");
}

#[test]
fn a_unix_socket_has_acknowledgements_too() {
    let directory = tempfile::tempdir().unwrap();
    let address = format!("unix:{}", directory.path().join("socket").display());
    let mut command = Command::new(FRAMELET);
    command.args(["serve", &address]);
    let server = Server::spawn(command);
    check(&send(&address, &[], b"one\ntwo\n"), 0, &["sent 2, committed 2"]);
    assert_eq!(server.stop().output, b"one\ntwo\n");
}

/// Returns the lines of a sender's file.
fn lines_of(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn a_file_keeps_the_sender_and_what_is_committed_of_its_input() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sender");
    let (address, committed) = start(Connection::serve);
    let file = ["--sender-file", path.to_str().unwrap()];
    let resume = [&file[..], &["--resume"]].concat();
    check(&send(&address, &file, b"1\n2\n3\n4\n5\n6\n"), 0, &["framelet: sent 6, committed 6"]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let lines = lines_of(&path);
    assert!(lines[0].parse::<SenderId>().is_ok(), "{lines:?}");
    assert!(lines[1].starts_with("committed 6 input 6 checksum "), "{lines:?}");
    // A log that was rotated, with as many lines or more, also if the last one is the same.
    for input in ["7\n8\n9\n10\n11\n12\n", "2\n3\n4\n5\n6\n6\n7\n", "12\n3\n4\n5\n6\n7\n8\n"] {
        let words = [
            "the input is different: its first 6 messages are not those that were committed",
            "; nothing was sent; use another --sender-file for another input",
        ];
        check(&send(&address, &resume, input.as_bytes()), 2, &words);
    }
    let words = "the input has only 2 messages, but 6 of this sender are committed";
    let output = send(&address, &resume, b"1\n2\n");
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains(words), "{}", said(&output));
    check(&send(&address, &file, b"1\n"), 2, &["6 messages of sender ", "another input needs"]);
    assert_eq!(lines_of(&path), lines);
    // And the one that has grown.
    let words = "framelet: skipped 6 that were committed, sent 1, committed 7\n";
    let output = send(&address, &resume, b"1\n2\n3\n4\n5\n6\n7\n");
    assert_eq!((output.status.code(), &*said(&output)), (Some(0), words));
    assert_eq!(committed.all().concat(), b"1234567");
    assert_eq!(lines_of(&path)[0], lines[0]);
    assert!(lines_of(&path)[1].starts_with("committed 7 input 7 "));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "something is left over");
}

#[test]
fn the_file_of_a_sender_is_written_while_it_sends_and_when_it_is_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("my sender");
    let (address, committed) = start(Connection::serve);
    let mut command = Command::new(FRAMELET);
    command.args(["send", &address.to_string(), "--ack", "--input", "lines", "--sender-file"]);
    let (running, mut input) = Running::start_with_input({
        command.arg(&path);
        command
    });
    input.write_all(b"1\n2\n").unwrap();
    let noted = |start: &str| lines_of(&path).get(1).is_some_and(|line| line.starts_with(start));
    wait_until("the first note", || noted("committed 2 input 2 "));
    input.write_all(b"3\n").unwrap();
    committed.wait(3);
    running.signal(Signal::TERM);
    let output = running.wait();
    let shown = said(&output);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    let hint = format!("`--ack --sender-file '{}' --resume` on the same input", path.display());
    assert!(shown.contains(&hint), "{shown}");
    // The client may have been stopped before it knew of the last one.
    assert!(noted("committed 3 ") || shown.contains("committed 2"), "{shown}");
    assert!(!shown.contains(&lines_of(&path)[0]), "the secret is shown: {shown}");
    let output =
        send(&address, &["--sender-file", path.to_str().unwrap(), "--resume"], b"1\n2\n3\n4\n");
    check(&output, 0, &["skipped 3 that were committed, sent 1, committed 4"]);
    assert_eq!(committed.all().concat(), b"1234");
}

#[test]
fn a_sender_in_a_file_may_be_written_by_hand_and_reached_through_a_link() {
    let directory = tempfile::tempdir().unwrap();
    let (path, link) = (directory.path().join("sender"), directory.path().join("link"));
    fs::write(&path, format!("{SENDER}\n")).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let (told, senders) = channel();
    let (address, _) = start(move |connection| {
        told.send(connection.hello.sender.to_string()).unwrap();
        connection.serve();
    });
    check(&send(&address, &["--sender-file", link.to_str().unwrap()], b"a\n"), 0, &["sent 1"]);
    assert_eq!(senders.recv().unwrap(), SENDER);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(lines_of(&path)[1].starts_with("committed 1 input 1 "));
    // An empty one is a new one.
    fs::write(&path, "").unwrap();
    let (address, _) = start(Connection::serve);
    check(&send(&address, &["--sender-file", link.to_str().unwrap()], b"a\n"), 0, &["sent 1"]);
    assert_ne!(lines_of(&path)[0], SENDER);
}

#[test]
fn a_sender_can_come_from_the_environment_and_is_shown_nowhere() {
    let (told, senders) = channel();
    let (address, committed) = start(move |connection| {
        told.send(connection.hello.sender.to_string()).unwrap();
        connection.serve();
    });
    let run = |arguments: &[&str], sender: &str, input: &[u8]| {
        let mut command = Command::new(FRAMELET);
        command.args(["send", &address.to_string(), "--input", "lines"]).args(arguments);
        command.env("FRAMELET_SENDER", sender);
        common::program::run(command, input)
    };
    let output = run(&["--ack", "-v"], SENDER, b"a\n");
    let shown = said(&output);
    assert!(output.status.success() && !shown.contains(SENDER), "{shown}");
    assert!(shown.contains("as sender 00010203…"), "{shown}");
    assert_eq!(senders.recv().unwrap(), SENDER);
    let words = "skipped 1 that was committed, sent 1, committed 2";
    check(&run(&["--ack", "--resume"], SENDER, b"a\nb\n"), 0, &[words]);
    assert_eq!(committed.all(), [b"a", b"b"]);
    let output = run(&["--ack"], SENDER, b"a\n");
    check(&output, 2, &["the server has 2 messages of sender 00010203… already"]);
    check(&run(&["--ack"], "abc", b"a\n"), 2, &["FRAMELET_SENDER: not a sender id; write 32"]);
    check(&run(&["--ack", "--resume"], "", b"a\n"), 2, &["--resume needs"]);
    // What is on the command line comes first.
    let other = "f".repeat(32);
    let output = run(&["--ack", "--sender", &other, "--resume"], SENDER, b"a\nb\n");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(senders.iter().nth(2).unwrap(), other);
}

#[test]
fn another_input_is_not_taken_for_the_one_of_which_the_beginning_is_committed() {
    let server = refuses_another_input(|| Server::start(&[]), false);
    // Wherever the id comes from: a client that was killed at once has noted nothing but that.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sender");
    fs::write(&path, format!("{SENDER}\n")).unwrap();
    let input = b"6\n7\n8\n9\n10\n";
    let of_file = ["--sender-file", path.to_str().unwrap(), "--resume"];
    let words = ["its message 5 is not the one that was committed", "another --sender-file for"];
    check(&send(server.address, &of_file, input), 2, &words);
    let mut command = Command::new(FRAMELET);
    command.args(["send", &server.address.to_string(), "--ack", "--input", "lines", "--resume"]);
    command.env("FRAMELET_SENDER", SENDER);
    let words = ["its message 5 is not the one that was committed", "another FRAMELET_SENDER for"];
    check(&run(command, input), 2, &words);
    assert_eq!(server.stop().output, b"1\n2\n3\n\n5\n");
}

/// Its last message is not the one that is found at its count in the input.
#[test]
fn where_the_server_has_lost_messages_another_sender_is_the_way_to_go_on() {
    let (address, _) = start(|mut connection| match connection.number {
        1 => {
            connection.acknowledge();
            connection.take().unwrap();
            connection.take().unwrap();
            connection.acknowledge();
        }
        _ => {
            connection.say(Answer::Acknowledgement(0));
            connection.refuse(RefusalCode::from_byte(99).unwrap(), "");
        }
    });
    let output = send(&address, &["--renumber"], b"1\n2\n3\n");
    let shown = said(&output);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    let words =
        "; the server has lost 2 messages: a run as another sender sends everything again\n";
    assert!(shown.ends_with(words), "{shown}");
}

#[test]
fn a_sender_that_the_server_does_not_know_is_said_to_be_new_to_it() {
    let (address, _) = start(Connection::serve);
    let output = send(&address, &["--sender", SENDER, "--resume"], b"a\n");
    assert_eq!(
        said(&output),
        "framelet: the server has no messages of this sender: sending all\n\
         framelet: sent 1, committed 1\n"
    );
}

/// Each message wakes the task that sends, which takes a write to an eventfd. Its acknowledgement takes
/// none: no timer is armed for it that another thread would have to be woken for.
#[test]
fn an_acknowledgement_wakes_no_thread_that_has_nothing_to_do() {
    let (address, committed) = start(Connection::serve);
    let mut command = Command::new(FRAMELET);
    command.args(["send", &address.to_string(), "--ack", "--input", "lines"]);
    let (running, mut input) = Running::start_with_input(command);
    let messages = 400;
    for count in 1..=messages {
        input.write_all(b"a\n").unwrap();
        committed.wait(count);
    }
    let io = fs::read_to_string(format!("/proc/{}/io", running.pid())).unwrap();
    let writes = io.lines().find_map(|line| line.strip_prefix("syscw: ")).unwrap();
    let writes: usize = writes.parse().unwrap();
    assert!(writes < messages * 3 / 2, "{writes} writes for {messages} messages");
    drop(input);
    check(&running.wait(), 0, &["sent 400, committed 400"]);
}
