//! The promises about memory: what `--memory` bounds, and who gets some of it.

#![cfg(target_os = "linux")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::program::{FRAMELET, Server, frame, measured, read_frame};

const MIB: usize = 1 << 20;

/// The start of a message of 8 MiB, with `sent` bytes of it.
fn start_of_large(sent: usize) -> Vec<u8> {
    let mut bytes = u32::try_from(8 * MIB).unwrap().to_be_bytes().to_vec();
    bytes.resize(4 + sent, b'x');
    bytes
}

/// A kind of traffic: how many connections, and what each of them sends over and over, or once.
struct Shape {
    name: &'static str,
    connections: usize,
    bytes: Vec<u8>,
    again: bool,
}

fn shapes() -> Vec<Shape> {
    let shape = |name, connections, bytes, again| Shape { name, connections, bytes, again };
    let repeat = |len: usize, bytes: usize| frame(&vec![b'm'; len]).repeat(bytes / (len + 4));
    vec![
        shape("empty", 20, repeat(0, 64 * 1024), true),
        shape("empty, split", 100, [&repeat(0, 64 * 1024)[..], &[0, 0]].concat(), true),
        shape("one byte", 20, repeat(1, 64 * 1024), true),
        shape("60 bytes", 20, repeat(60, 64 * 1024), true),
        shape("announced", 1000, start_of_large(1), false),
        shape("left over", 400, [frame(b"t"), start_of_large(64 * 1024)].concat(), false),
        shape("half of a large one", 30, start_of_large(4 * MIB), false),
        shape("large", 10, repeat(MIB, 4 * MIB), true),
        shape(
            "mixed",
            50,
            [repeat(0, 1000), repeat(60, 5000), repeat(MIB, 2 * MIB), repeat(3000, 30_000)]
                .concat(),
            true,
        ),
    ]
}

/// Sends as much as the server takes while nobody reads what it writes.
fn send_all(server: &Server, shape: &Shape) -> Vec<TcpStream> {
    let mut streams: Vec<(TcpStream, usize)> = (0..shape.connections)
        .map(|_| {
            let stream = server.connect();
            stream.set_nonblocking(true).unwrap();
            (stream, 0)
        })
        .collect();
    // Until nothing has been taken for a while: that it is full shows by nothing else.
    let mut last = Instant::now();
    while last.elapsed() < Duration::from_millis(400) {
        for (stream, sent) in &mut streams {
            let from = *sent % shape.bytes.len();
            if !shape.again && *sent == shape.bytes.len() {
                continue;
            }
            match stream.write(&shape.bytes[from..]) {
                Ok(written) => {
                    *sent += written;
                    last = Instant::now();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("{}: {error}", shape.name),
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
    streams.into_iter().map(|(stream, _)| stream).collect()
}

/// P24.
#[test]
fn the_memory_limit_bounds_the_process_whatever_is_sent() {
    const MEMORY: usize = 16 * MIB;
    let (mut over, mut most) = (Vec::new(), 0);
    for format in ["lines", "json", "hex"] {
        for shape in shapes() {
            let mut command = Command::new(FRAMELET);
            command.args(["serve", "127.0.0.1:0", "--memory", "16MiB", "--output", format]);
            let server = Server::spawn_stalled(command);
            let before = server.memory();
            let streams = send_all(&server, &shape);
            let growth = server.peak_memory().saturating_sub(before);
            let allowed = MEMORY + shape.connections * 1126 + 4 * MIB;
            most = most.max(growth * 100 / allowed);
            if growth > allowed {
                over.push(format!("{format}, {}: {growth} bytes of {allowed}", shape.name));
            }
            drop(streams);
        }
    }
    assert!(over.is_empty(), "{}", over.join("\n"));
    measured(format_args!(
        "at most {most} % of what is allowed, over {} kinds of traffic",
        3 * shapes().len()
    ));
}

/// Sends a message a hundred times a second for `time` and waits for its echo; returns how many there
/// were, and the longest wait.
fn echoes(server: &Server, payload: &[u8], time: Duration) -> (u32, Duration) {
    let (mut stream, started) = (server.connect(), Instant::now());
    let (mut replies, mut longest) = (0, Duration::ZERO);
    let message = frame(payload);
    while started.elapsed() < time {
        let sent = Instant::now();
        stream.write_all(&message).unwrap();
        assert_eq!(read_frame(&mut stream).as_deref(), Some(payload));
        longest = longest.max(sent.elapsed());
        replies += 1;
        let next = started + Duration::from_millis(10) * replies;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    (replies, longest)
}

/// Checks that an honest sender keeps 90 % of its rate and never waits for a second; returns its longest wait. Other
/// programs share this machine, so it may be tried twice.
#[track_caller]
fn check_is_served(server: &Server, payload: &[u8], when: &str) -> Duration {
    let try_it = || {
        let (replies, longest) = echoes(server, payload, Duration::from_secs(2));
        match replies >= 180 && longest < Duration::from_secs(1) {
            true => Ok(longest),
            false => Err(format!("{when}: {replies} of 200 echoes, and one took {longest:?}")),
        }
    };
    try_it().or_else(|_| try_it()).unwrap()
}

/// How long connections stall at most.
const STALLED: Duration = Duration::from_secs(30);

/// Connections that send the start of a message and then nothing, or `trickle` the last bytes of it, one a second.
/// They come again when they are ended.
fn stall(server: &Server, connections: usize, start: &[u8], trickle: bool, done: &AtomicBool) {
    let connect = || {
        let stream = server.connect();
        stream.set_nonblocking(true).unwrap();
        (stream, 0)
    };
    let mut streams: Vec<(TcpStream, usize)> = (0..connections).map(|_| connect()).collect();
    let started = Instant::now();
    while !done.load(Ordering::Relaxed) && started.elapsed() < STALLED {
        let left = if trickle { STALLED.saturating_sub(started.elapsed()).as_secs() } else { 0 };
        let start = &start[..start.len() - usize::try_from(left).unwrap()];
        for (stream, sent) in &mut streams {
            let ended = match stream.write(&start[*sent..]) {
                Ok(written) => {
                    *sent += written;
                    matches!(stream.read(&mut [0]), Ok(0))
                }
                Err(error) => error.kind() != ErrorKind::WouldBlock,
            };
            if ended {
                (*stream, *sent) = connect();
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// P25.
#[test]
fn messages_that_stall_leave_the_others_their_memory() {
    let mut longest = Duration::ZERO;
    for (connections, sent) in [(7, 4 * MIB), (9, 4 * MIB), (24, 4 * MIB), (500, 70_000)] {
        let server = Server::start(&["--output", "none", "--echo", "--message-timeout", "2s"]);
        let (done, start) = (AtomicBool::new(false), start_of_large(sent));
        thread::scope(|scope| {
            scope.spawn(|| stall(&server, connections, &start, false, &done));
            for payload in [&[b'h'; 64][..], &[b'h'; 5000]] {
                let when = format!("beside {connections} with {sent} bytes");
                longest = longest.max(check_is_served(&server, payload, &when));
            }
            done.store(true, Ordering::Relaxed);
        });
    }
    measured(format_args!("the others waited {} ms at most", longest.as_millis()));
}

/// P25. Those that hold the memory of large messages and get nothing are ended, so that others get it.
#[test]
fn large_messages_that_stall_give_way_to_others_that_wait() {
    let server = Server::start(&["--output", "none", "--echo"]);
    let (done, large, medium) =
        (AtomicBool::new(false), frame(&vec![b'x'; 8 * MIB]), frame(&vec![b'x'; MIB]));
    let [large, medium] = [&large, &medium].map(|message| &message[..message.len() - 1]);
    let mut longest = Duration::MAX;
    thread::scope(|scope| {
        let (server, done) = (&server, &done);
        for trickle in [false, true] {
            scope.spawn(move || stall(server, 5, large, trickle, done));
            scope.spawn(move || stall(server, 12, medium, trickle, done));
        }
        // Other programs share this machine, so it may be tried twice.
        for _ in 0..2 {
            let (replies, wait) = echoes(server, &vec![b'h'; MIB], Duration::from_secs(5));
            measured(format_args!("{replies} replies, the longest took {} ms", wait.as_millis()));
            longest = longest.min(wait);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(longest < Duration::from_secs(2), "an honest sender had to wait for {longest:?}");
    let log = server.stop().log;
    assert!(
        log.contains("came in") && log.contains("while others waited for memory: got "),
        "{log}"
    );
}

/// P25. A message that comes slowly, but fast enough, keeps its memory.
#[test]
fn a_message_that_comes_in_time_keeps_its_memory_while_others_wait() {
    let server = Server::start(&["--output", "none", "--echo"]);
    let (done, start) = (AtomicBool::new(false), frame(&vec![b'x'; 8 * MIB]));
    thread::scope(|scope| {
        scope.spawn(|| stall(&server, 17, &start[..start.len() - 1], false, &done));
        let mut stream = server.connect();
        let message = frame(&vec![b's'; MIB]);
        // Five times as fast as it has to be: a busy machine may stop it for a while.
        for piece in message.chunks(20_000) {
            stream.write_all(piece).unwrap();
            thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(read_frame(&mut stream).unwrap().len(), MIB);
        done.store(true, Ordering::Relaxed);
    });
    let log = server.stop().log;
    assert!(log.contains("while others waited for memory"), "nobody waited: {log}");
}

/// P25. Each share of the memory is full of messages that lack a byte, but one that is whole needs none.
#[test]
fn a_message_that_comes_whole_gets_through_whatever_stalls() {
    let server = Server::start(&[
        "--output",
        "none",
        "--echo",
        "--memory",
        "1MiB",
        "--max-message",
        "64KiB",
    ]);
    let mut stalled = Vec::new();
    for (len, connections) in [(64 * 1024, 14), (16 * 1024, 10), (4096, 60)] {
        for _ in 0..connections {
            let mut stream = server.connect();
            let message = frame(&vec![b'x'; len]);
            stream.write_all(&message[..message.len() - 1]).unwrap();
            stalled.push(stream);
        }
    }
    for payload in [&[b'h'; 64][..], &[b'h'; 3000]] {
        let (replies, _) = echoes(&server, payload, Duration::from_secs(1));
        assert!(replies >= 80, "{replies} of 100 echoes");
    }
    // In two pieces it takes until somebody looks again.
    let mut stream = server.connect();
    let (started, message) = (Instant::now(), frame(b"in two pieces"));
    stream.write_all(&message[..4]).unwrap();
    thread::sleep(Duration::from_millis(100));
    stream.write_all(&message[4..]).unwrap();
    assert_eq!(read_frame(&mut stream).as_deref(), Some(&b"in two pieces"[..]));
    let took = started.elapsed();
    assert!(took < Duration::from_secs(10), "it took {took:?}");
}

/// P25, for the other direction: replies that nobody takes.
#[test]
fn replies_that_are_not_taken_leave_the_others_their_memory() {
    let server = Server::start(&["--output", "none", "--echo"]);
    let message = frame(&vec![b'd'; 8 * MIB - 100]);
    let deaf: Vec<TcpStream> = thread::scope(|scope| {
        let sending: Vec<_> = (0..12)
            .map(|_| {
                scope.spawn(|| {
                    let mut stream = server.connect();
                    stream.set_nonblocking(true).unwrap();
                    let (mut left, mut last) = (&message[..], Instant::now());
                    while !left.is_empty() && last.elapsed() < Duration::from_millis(500) {
                        match stream.write(left) {
                            Ok(written) => (left, last) = (&left[written..], Instant::now()),
                            Err(_) => thread::sleep(Duration::from_millis(5)),
                        }
                    }
                    stream
                })
            })
            .collect();
        sending.into_iter().map(|deaf| deaf.join().unwrap()).collect()
    });
    let longest = check_is_served(&server, &[b'h'; 64], "beside the deaf");
    measured(format_args!("the others waited {} ms at most", longest.as_millis()));
    drop(deaf);
}

/// An honest sender waits its turn at the sink, not until a flood of empty messages is written.
#[cfg(feature = "sqlite")]
#[test]
fn a_flood_of_empty_messages_leaves_the_others_their_turn_at_the_sink() {
    let directory = tempfile::tempdir().unwrap();
    let to = format!("sqlite:{}", directory.path().join("messages.db").display());
    let server = Server::start(&["--to", &to]);
    let done = AtomicBool::new(false);
    let flooded = thread::scope(|scope| {
        let floods: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut stream = server.connect();
                    let (started, mut sent) = (Instant::now(), 0);
                    while !done.load(Ordering::Relaxed)
                        && started.elapsed() < Duration::from_secs(60)
                    {
                        stream.write_all(&[0; 64 * 1024]).unwrap();
                        sent += 64 * 1024;
                    }
                    sent
                })
            })
            .collect();
        // Once the memory is full of them.
        thread::sleep(Duration::from_secs(2));
        for _ in 0..5 {
            let started = Instant::now();
            let mut stream = server.connect();
            stream.write_all(&frame(b"honest")).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            // Closed in good order once it is committed.
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
            let took = started.elapsed();
            assert!(took < Duration::from_secs(5), "an honest sender had to wait for {took:?}");
        }
        done.store(true, Ordering::Relaxed);
        floods.into_iter().map(|flood| flood.join().unwrap()).sum::<usize>()
    });
    assert!(flooded > 0);
    let left = server.stop();
    assert!(left.status.success(), "{}", left.log);
}
