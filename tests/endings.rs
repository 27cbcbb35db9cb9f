//! The end of a connection is the only word a plain client ever gets: an orderly one has to mean that
//! everything it sent is committed, and in all other cases it has to be told.

mod common;

use std::cell::Cell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::program::{FRAMELET, Server, closed, frame, framelet, logged, read_frame, unframe};
use framelet::Address;
use framelet::server::Echo;
use rustix::process::Signal;

/// Starts `framelet serve` whose output nobody reads, so that its sink soon takes no more.
fn stalled(address: &str, arguments: &[&str]) -> Server {
    let mut command = Command::new(FRAMELET);
    command.args(["serve", address, "--output", "lines"]).args(arguments);
    Server::spawn_stalled(command)
}

/// More than a pipe holds, and less than a server takes in while its sink is stalled.
fn more_than_a_pipe() -> Vec<u8> {
    b"a line of thirty bytes or so, yes\n".repeat(20_000)
}

fn send_lines(address: &str, input: Vec<u8>) -> thread::JoinHandle<std::process::Output> {
    let address = address.to_owned();
    thread::spawn(move || {
        framelet(&["send", &address, "--input", "lines", "--timeout", "50s"], &input)
    })
}

#[test]
fn what_was_sent_before_the_signal_arrives_even_if_its_sender_is_gone() {
    for round in 0..5 {
        let server = Server::start(&["--output", "frames"]);
        for number in 0..200_u32 {
            let mut stream = server.connect();
            stream.write_all(&frame(&number.to_be_bytes())).unwrap();
        }
        let left = server.stop();
        assert!(left.status.success());
        assert_eq!(unframe(&left.output).len(), 200, "round {round}: {}", left.log);
    }
}

#[test]
fn an_idle_connection_is_reset_by_the_end_of_the_server() {
    // What may be on its way from the peer just now will not be read.
    let server = Server::start(&[]);
    let mut stream = server.connect();
    stream.write_all(&frame(b"hello")).unwrap();
    server.wait_for_output(6);
    assert!(server.stop().status.success());
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_connection_that_has_ended_before_is_not_reset_by_the_end_of_the_server() {
    let server = stalled("127.0.0.1:0", &["--grace", "30s"]);
    let client = send_lines(&server.address.to_string(), more_than_a_pipe());
    wait_for_the_end_of_the_client(&server);
    let mut server = server;
    server.signal(Signal::TERM);
    server.wait_for_log("ending 1 connection", 1);
    server.resume();
    let left = server.wait();
    assert!(left.status.success(), "{}", left.log);
    let sent = client.join().unwrap();
    assert_eq!(sent.status.code(), Some(0), "{}", String::from_utf8_lossy(&sent.stderr));
    assert_eq!(left.output, more_than_a_pipe());
}

/// P13.
#[test]
fn a_sink_that_stays_stalled_until_the_end_fails_the_client_and_the_server() {
    let server = stalled("127.0.0.1:0", &["--grace", "500ms"]);
    let client = send_lines(&server.address.to_string(), more_than_a_pipe());
    wait_for_a_full_pipe(&server);
    let left = server.stop();
    assert_eq!(left.status.code(), Some(4), "{}", left.log);
    assert!(left.log.contains("messages received were not written by the end of the grace period"));
    let sent = client.join().unwrap();
    assert_eq!(sent.status.code(), Some(1), "{}", String::from_utf8_lossy(&sent.stderr));
}

/// P13.
#[test]
fn a_killed_server_and_a_second_signal_fail_the_client() {
    for kill in [true, false] {
        let server = stalled("127.0.0.1:0", &["--grace", "1h"]);
        let client = send_lines(&server.address.to_string(), more_than_a_pipe());
        wait_for_a_full_pipe(&server);
        if kill {
            server.signal(Signal::KILL);
        } else {
            server.signal(Signal::TERM);
            server.wait_for_log("ending 1 connection", 1);
            server.signal(Signal::TERM);
        }
        server.wait();
        let sent = client.join().unwrap();
        assert_eq!(sent.status.code(), Some(1), "{}", String::from_utf8_lossy(&sent.stderr));
    }
}

/// P13.
#[test]
fn a_unix_socket_tells_a_cut_from_an_end_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let address = format!("unix:{}", directory.path().join("socket").display());
    let server = stalled(&address, &["--grace", "500ms"]);
    let client = send_lines(&address, more_than_a_pipe());
    wait_for_a_full_pipe(&server);
    let left = server.stop();
    assert_eq!(left.status.code(), Some(4), "{}", left.log);
    let sent = client.join().unwrap();
    let said = String::from_utf8_lossy(&sent.stderr);
    assert_eq!(sent.status.code(), Some(1), "{said}");
    assert!(said.contains("the server cut the connection"), "{said}");
}

#[test]
fn the_mark_of_a_cut_is_no_reply_in_any_layout() {
    let directory = tempfile::tempdir().unwrap();
    let layouts =
        ["u32be", "u8", "varint", "x0300:u16be+all", "dec4", "dec/3a:data:x2c", "x30:ber", "lsp"];
    for (number, layout) in layouts.iter().enumerate() {
        let address = format!("unix:{}/{number}", directory.path().display());
        let mut command = Command::new(FRAMELET);
        command.args(["serve", &address, "--layout", layout, "--max-message", "10"]);
        let server = Server::spawn(command);
        let long = "a".repeat(30);
        let sent = framelet(&["send", &address, "--layout", layout, "--message", &long], b"");
        let said = String::from_utf8_lossy(&sent.stderr);
        assert_eq!(sent.status.code(), Some(1), "{layout}: {said}");
        assert!(said.contains("the server cut the connection"), "{layout}: {said}");
        drop(server);
    }
}

#[test]
fn replies_are_no_proof_that_messages_are_written() {
    let server = stalled("127.0.0.1:0", &["--echo", "--grace", "500ms"]);
    let address = server.address.to_string();
    let client = thread::spawn(move || {
        let arguments = [
            "send",
            &address,
            "--input",
            "lines",
            "--expect",
            "20000",
            "--hang-up",
            "--timeout",
            "50s",
        ];
        framelet(&arguments, &more_than_a_pipe())
    });
    wait_for_a_full_pipe(&server);
    assert_eq!(server.stop().status.code(), Some(4));
    assert_eq!(client.join().unwrap().status.code(), Some(1));
}

/// Waits until the pipe behind the server is full, so that messages wait in the server.
fn wait_for_a_full_pipe(server: &Server) {
    // How much fits depends on how the writes fell on the pages of the pipe: it is full when it is
    // well filled and nothing more goes in.
    let last = Cell::new((0, Instant::now()));
    wait_until("the pipe is full", || {
        let unread = server.unread_output();
        if unread != last.get().0 {
            last.set((unread, Instant::now()));
        }
        unread >= 32 * 1024 && last.get().1.elapsed() > Duration::from_millis(300)
    });
}

/// Waits until a client has ended its direction, as the kernel sees it from the server's side.
fn wait_for_the_end_of_the_client(server: &Server) {
    let port = format!(":{:04X}", server.address.port());
    wait_until("the client has ended", || {
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        sockets.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // 08 is CLOSE_WAIT.
            fields[1].ends_with(&port) && fields[3] == "08"
        })
    });
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + common::program::PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_server_that_never_stops_talking_does_not_keep_the_client() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        while stream.write_all(&frame(b"tick")).is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    let started = Instant::now();
    let output = framelet(&["send", &address, "--message", "x", "--timeout", "300ms"], b"");
    assert_eq!(output.status.code(), Some(4));
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn peers_that_do_not_take_their_replies_are_reset_and_do_not_stop_the_others() {
    let server = Server::start(&[
        "--echo",
        "--output",
        "none",
        "--message-timeout",
        "1s",
        "--memory",
        "16MiB",
    ]);
    let deaf: Vec<_> = (0..6)
        .map(|_| {
            let mut stream = server.connect();
            thread::spawn(move || {
                // Bounded: it ends when it is reset.
                for _ in 0..20 {
                    if stream.write_all(&frame(&vec![0; 4 << 20])).is_err() {
                        return true;
                    }
                }
                false
            })
        })
        .collect();
    assert!(deaf.into_iter().all(|peer| peer.join().unwrap()));
    let mut stream = server.connect();
    stream.write_all(&frame(b"still there?")).unwrap();
    assert_eq!(read_frame(&mut stream).unwrap(), b"still there?");
    drop(stream);
    let log = server.stop().log;
    let told = "the peer took nothing of its replies for 1s (--message-timeout)";
    assert_eq!(logged(&log, told, "peers that took nothing of their replies"), 6, "{log}");
}

#[test]
fn a_log_that_nobody_reads_stops_neither_the_service_nor_its_end() {
    let mut child = Command::new(FRAMELET)
        .args(["serve", ":0", "--output", "none", "--echo"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    log.read_line(&mut line).unwrap();
    let address = line.trim_end().rsplit(' ').next().unwrap().to_owned();
    // Each of these is a line of some two hundred bytes, and a pipe holds 64 KiB.
    for _ in 0..2000 {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert!(closed(&mut stream));
    }
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.write_all(&frame(b"hello")).unwrap();
    assert_eq!(read_frame(&mut stream).unwrap(), b"hello");
    stream.shutdown(Shutdown::Write).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

/// Has a server with all of its times wait for what a client sends, and for the client to take replies.
#[track_caller]
fn serves(address: &str) {
    let mut stream = TcpStream::connect(address).unwrap();
    let large = frame(&vec![b'x'; 1 << 20]);
    let (first, rest) = large.split_at(1000);
    stream.write_all(first).unwrap();
    // A few of its looks at what takes too long.
    thread::sleep(Duration::from_millis(700));
    stream.write_all(rest).unwrap();
    assert_eq!(read_frame(&mut stream).unwrap().len(), 1 << 20);
}

#[test]
fn times_longer_than_any_life_are_no_problem() {
    for longest in ["100000000000y", "18446744073709551615s", "1000000000000000000s"] {
        let server = Server::start(&[
            "--echo",
            "--output",
            "none",
            "--grace",
            longest,
            "--message-timeout",
            longest,
            "--idle-timeout",
            longest,
        ]);
        serves(&server.address.to_string());
        let left = server.stop();
        assert!(left.status.success() && !left.log.contains("panicked"), "{}", left.log);
    }
}

#[test]
fn the_longest_and_the_shortest_of_all_times_are_no_problem_in_the_library() {
    for (time, served) in [(Duration::MAX, true), (Duration::from_nanos(1), false)] {
        smol::block_on(async {
            let listener = "127.0.0.1:0".parse::<Address>().unwrap().listen().await.unwrap();
            let address = listener.address().unwrap().to_string();
            let (stop, stopped) = smol::channel::bounded::<()>(1);
            let shutdown = async move { assert!(stopped.recv().await.is_err()) };
            let server = framelet::Server::new(listener)
                .answer(Echo)
                .message_timeout(time)
                .idle_timeout(time)
                .grace(time);
            let server = smol::spawn(server.run(shutdown));
            if served {
                smol::unblock(move || serves(&address)).await;
            } else {
                let mut stream = TcpStream::connect(address).unwrap();
                assert!(smol::unblock(move || closed(&mut stream)).await);
            }
            drop(stop);
            server.await.unwrap();
        });
    }
}
