//! The promises of the server, each with its number: what it withstands, and at what cost.

#![cfg(target_os = "linux")]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::program::{
    FRAMELET, Server, closed, connect_from, frame, logged, measured, read_frame, terminal, unframe,
};

const MIB: usize = 1 << 20;

/// The most bytes of process memory that an idle connection takes, in the build that is tested.
const IDLE_CONNECTION: usize = 1126;

/// Half of the connections are in this process, half in the server: more than many shells allow by
/// default.
fn raise_the_limit_of_files() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
}

/// Waits until the server has gone through all that was sent to it so far: it serves connections in
/// turn, and this one comes last.
fn catch_up(server: &Server) {
    let mut stream = server.connect();
    stream.write_all(&frame(b"catch up")).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
}

/// P1.
#[test]
fn an_over_long_message_is_refused_at_once_and_allocates_nothing() {
    let server = Server::start(&["--output", "none", "--max-message", "1000"]);
    catch_up(&server);
    let before = server.memory();
    for round in 0..5 {
        let mut streams: Vec<TcpStream> = (0..200).map(|_| server.connect()).collect();
        for (index, stream) in streams.iter_mut().enumerate() {
            let length: u32 = [1001, 0x7fff_ffff, 0xffff_fffe][index % 3];
            stream.write_all(&length.to_be_bytes()).unwrap();
        }
        assert!(streams.iter_mut().all(closed), "round {round}");
    }
    let growth = server.memory().saturating_sub(before);
    assert!(growth < 4 * MIB, "grew by {growth} bytes");
    let log = server.stop().log;
    for length in [1001, 0x7fff_ffff, 0xffff_fffe_u32] {
        let told = format!("length {length} is over the limit of 1000");
        assert!(log.contains(&told), "{told}: {log}");
    }
    let told = logged(&log, "is over the limit of 1000", "connections that sent something other");
    assert_eq!(told, 1000, "{log}");
    measured(format_args!("{told} refused; grew by {} KiB", growth / 1024));
}

/// Returns by how many bytes the server grows for each connection over which `bytes` were sent, and no
/// more.
fn growth_for_each_connection(server: &Server, connections: usize, bytes: &[u8]) -> usize {
    raise_the_limit_of_files();
    // Whatever it needs once, it has by then.
    catch_up(server);
    let before = server.memory();
    let streams: Vec<TcpStream> = (0..connections)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(bytes).unwrap();
            stream
        })
        .collect();
    catch_up(server);
    let growth = server.memory().saturating_sub(before);
    drop(streams);
    growth / connections
}

/// P2. A page of what was announced, and the connection itself.
#[test]
fn what_is_only_announced_takes_no_memory() {
    let server = Server::start(&["--output", "none", "--echo"]);
    let announced = [&u32::try_from(8 * MIB).unwrap().to_be_bytes()[..], b"x"].concat();
    let growth = growth_for_each_connection(&server, 1000, &announced);
    // The buffer has an owner, too.
    let most = 4096 + IDLE_CONNECTION + 256;
    assert!(growth <= most, "{growth} bytes for each connection");
    measured(format_args!("{growth} bytes for each of 1000 connections"));
}

/// P24. What ten thousand devices that are silent cost a small machine.
#[test]
fn an_idle_connection_takes_hardly_more_than_a_kilobyte() {
    // Before its first byte, and between two messages.
    for bytes in [&b""[..], &frame(b"message")] {
        let server = Server::start(&["--output", "none"]);
        let growth = growth_for_each_connection(&server, 2000, bytes);
        assert!(growth <= IDLE_CONNECTION, "{growth} bytes for each connection");
        measured(format_args!("{growth} bytes for each of 2000 connections"));
    }
}

/// Waits until the server's memory is what `holds` asks for; returns the last reading.
fn memory_becomes(server: &Server, holds: impl Fn(usize) -> bool) -> usize {
    let started = Instant::now();
    loop {
        let memory = server.memory();
        if holds(memory) || started.elapsed() > Duration::from_secs(20) {
            return memory;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_many_connections_hold_together_is_bounded() {
    let server = Server::start(&["--output", "none", "--memory", "16MiB"]);
    catch_up(&server);
    let before = server.memory();
    let half_sent: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = server.connect();
            stream.set_nonblocking(true).unwrap();
            let announced = u32::try_from(8 * MIB).unwrap();
            stream.write_all(&announced.to_be_bytes()).unwrap();
            // As much as the kernels take: the server stops reading when it holds enough.
            let _ = stream.write(&vec![0; MIB]);
            stream
        })
        .collect();
    // It does take some, and it stays at that.
    let filled = memory_becomes(&server, |memory| memory > before + 4 * MIB);
    assert!(filled > before + 4 * MIB, "only {filled} bytes");
    thread::sleep(Duration::from_millis(500));
    let growth = server.memory().saturating_sub(before);
    assert!(growth < 18 * MIB, "grew by {growth} bytes");
    measured(format_args!("grew by {} KiB of 16 MiB", growth / 1024));
    drop(half_sent);
}

#[test]
fn memory_comes_back_after_a_large_message() {
    let server = Server::start(&["--output", "none", "--max-message", "64MiB"]);
    catch_up(&server);
    let before = server.memory();
    let mut stream = server.connect();
    stream.write_all(&frame(&vec![1; 64 * MIB])).unwrap();
    catch_up(&server);
    assert!(server.peak_memory() > before + 60 * MIB, "the message was never held");
    // A message of a size for which a buffer is kept for a while is forgotten as well.
    stream.write_all(&frame(&vec![1; 12 * MIB])).unwrap();
    catch_up(&server);
    // The connection stays open: it is the messages that are gone.
    let after = memory_becomes(&server, |memory| memory < before + 2 * MIB);
    assert!(after < before + 2 * MIB, "{} bytes more than before", after - before);
}

/// P14. What an allocator has in use behind free memory keeps it from giving that back.
#[test]
fn memory_comes_back_where_others_have_come_since_and_stay() {
    const PAIRS: usize = 200;
    let server = Server::start(&["--output", "none"]);
    catch_up(&server);
    let before = server.memory();
    let half_sent = frame(&[1; 100_000]);
    let (killed, others): (Vec<_>, Vec<_>) = (1..=PAIRS)
        .map(|pair| {
            let mut killed = server.connect();
            killed.write_all(&half_sent[..90_000]).unwrap();
            let taken = memory_becomes(&server, |memory| memory > before + pair * 80_000);
            assert!(taken > before + pair * 80_000, "the message was never held");
            let mut other = server.connect();
            other.write_all(&frame(b"other")).unwrap();
            (killed, other)
        })
        .unzip();
    drop(killed);
    let after = memory_becomes(&server, |memory| memory < before + 2 * MIB);
    assert!(after < before + 2 * MIB, "{} bytes more than before", after - before);
    drop(others);
}

#[test]
fn an_endless_stream_of_empty_messages_leaves_the_others_their_turn() {
    let server = Server::start(&["--output", "none"]);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut stream = server.connect();
                let started = Instant::now();
                while !done.load(Ordering::Relaxed) && started.elapsed() < Duration::from_secs(60) {
                    stream.write_all(&[0; 64 * 1024]).unwrap();
                }
            });
        }
        for _ in 0..50 {
            let started = Instant::now();
            catch_up(&server);
            let took = started.elapsed();
            assert!(took < Duration::from_secs(5), "another client had to wait for {took:?}");
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// P4.
#[test]
fn the_limit_of_connections_holds_and_frees_places_again() {
    let server = Server::start(&["--output", "none", "--echo", "--max-connections", "10", "-v"]);
    for round in 1..=2 {
        let mut streams: Vec<TcpStream> = (0..50).map(|_| server.connect()).collect();
        let served = streams
            .iter_mut()
            .map(|stream| {
                // The server may have closed it already.
                let _ = stream.write_all(&frame(b"me?"));
                read_frame(stream).is_some()
            })
            .filter(|&served| served)
            .count();
        assert_eq!(served, 10, "round {round}");
        measured(format_args!("{served} of {} served", streams.len()));
        drop(streams);
        server.wait_for_log(": closed after 1 message", 10 * round);
    }
    assert!(server.stop().log.contains("10 connections open, the limit (--max-connections)"));
}

/// P5.
#[test]
fn the_limit_of_an_address_holds_and_leaves_the_others_theirs() {
    let server = Server::start(&["--output", "none", "--echo", "--max-per-address", "4", "-v"]);
    for round in 1..=2 {
        let mut streams: Vec<(u8, TcpStream)> = (0..10)
            .flat_map(|_| 2..=5)
            .filter_map(|last| Some((last, connect_from(last, server.address).ok()?)))
            .collect();
        let mut served = [0; 6];
        for (last, stream) in &mut streams {
            // The server may have closed it already.
            let _ = stream.write_all(&frame(b"me?"));
            served[usize::from(*last)] += usize::from(read_frame(stream).is_some());
        }
        assert_eq!(served, [0, 0, 4, 4, 4, 4], "round {round}");
        measured(format_args!("{} of 10 served for each of 4 addresses", served[2]));
        drop(streams);
        server.wait_for_log(": closed after 1 message", 16 * round);
    }
    let log = server.stop().log;
    let line = ", the limit (--max-per-address)";
    assert!(log.contains("4 connections open from 127.0.0.2, the limit"), "{log}");
    assert_eq!(logged(&log, line, "connections over the limit of their address"), 2 * 24, "{log}");
}

/// P6.
#[test]
fn slow_senders_are_ended_and_the_others_keep_their_rate() {
    let server = Server::start(&["--output", "none", "--echo", "--message-timeout", "5s"]);
    let slow: Vec<TcpStream> = (0..200).map(|_| server.connect()).collect();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let good: Vec<_> = (0..10)
            .map(|_| {
                scope.spawn(|| {
                    // A hundred a second, on a schedule: what is late is still counted as it comes.
                    let (mut stream, started, mut replies) = (server.connect(), Instant::now(), 0);
                    while !done.load(Ordering::Relaxed) {
                        stream.write_all(&frame(&[b'g'; 64])).unwrap();
                        read_frame(&mut stream).expect("an echo");
                        replies += 1;
                        let next = started + Duration::from_millis(10) * replies;
                        thread::sleep(next.saturating_duration_since(Instant::now()));
                    }
                    f64::from(replies) / started.elapsed().as_secs_f64()
                })
            })
            .collect();
        let trickling: Vec<_> = slow
            .into_iter()
            .map(|mut stream| {
                scope.spawn(move || {
                    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
                    let started = Instant::now();
                    let _ = stream.write_all(&1000_u32.to_be_bytes());
                    // One byte a second; the read in between takes that second.
                    while started.elapsed() < Duration::from_secs(20) {
                        match stream.read(&mut [0]) {
                            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                                let _ = stream.write_all(b"x");
                            }
                            _ => return started.elapsed(),
                        }
                    }
                    panic!("a slow sender was not ended");
                })
            })
            .collect();
        let mut latest = Duration::ZERO;
        for slow in trickling {
            let after = slow.join().unwrap();
            assert!((5.0..7.0).contains(&after.as_secs_f64()), "ended after {after:?}");
            latest = latest.max(after);
        }
        done.store(true, Ordering::Relaxed);
        let mut slowest = f64::MAX;
        for good in good {
            let rate = good.join().unwrap();
            assert!(rate >= 90.0, "only {rate} of 100 echoes a second");
            slowest = slowest.min(rate);
        }
        measured(format_args!(
            "all 200 ended within {latest:.1?}; the others kept {slowest:.0} % of their rate"
        ));
    });
    let log = server.stop().log;
    let told = logged(&log, "not complete within 5s: got ", "messages that were not complete");
    assert_eq!(told, 200, "{log}");
}

/// P7.
#[test]
fn a_silent_connection_is_closed() {
    let server = Server::start(&["--idle-timeout", "2s"]);
    let mut stream = server.connect();
    stream.write_all(&frame(b"then nothing")).unwrap();
    let started = Instant::now();
    assert!(closed(&mut stream));
    let after = started.elapsed().as_secs_f64();
    assert!((2.0..4.0).contains(&after), "closed after {after} s");
    measured(format_args!("closed after {after:.1} s"));
    assert!(server.stop().log.contains("the peer was idle for 2s (--idle-timeout)"));
}

/// P8.
#[test]
fn running_out_of_file_descriptors_costs_little_and_heals() {
    let mut command = Command::new("bash");
    let limited = format!("ulimit -n 64; exec '{FRAMELET}' serve :0 --echo --max-connections 1000");
    command.args(["-c", &limited]).process_group(0);
    let server = Server::spawn(command);
    let mut streams: Vec<TcpStream> = (0..200).map(|_| server.connect()).collect();
    for stream in &mut streams {
        stream.write_all(&frame(b"hello")).unwrap();
    }
    // The first ones are served, the others wait in the kernel.
    read_frame(&mut streams[0]).unwrap();
    server.wait_for_log("cannot accept connections", 1);
    let (cpu, started) = (server.cpu(), Instant::now());
    // This is about what happens while nothing happens.
    thread::sleep(Duration::from_secs(10));
    let used = (server.cpu() - cpu).as_secs_f64() / started.elapsed().as_secs_f64();
    assert!(used < 0.05, "used {used} of a core");
    let lines = server.log().matches("cannot accept").count();
    assert!(lines <= 25, "{lines} lines");

    let waiting = (1..200)
        .find(|&index| {
            streams[index].set_read_timeout(Some(Duration::from_millis(10))).unwrap();
            read_frame(&mut streams[index]).is_none()
        })
        .expect("one that is not served");
    streams[waiting].set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let freed = Instant::now();
    drop(streams.remove(0));
    read_frame(&mut streams[waiting - 1]).expect("an echo");
    let after = freed.elapsed().as_secs_f64();
    assert!(after <= 1.1, "served {after} s after a place was free");
    measured(format_args!(
        "{:.1} % of a core, {lines} lines of log in 10 s; served {after:.2} s after a place was free",
        used * 100.0
    ));
}

/// P9.
#[test]
fn a_cut_stream_leaves_whole_messages_and_one_line_in_the_log() {
    let server = Server::start(&["--output", "frames"]);
    let messages = [&b"first"[..], b"", b"the third"];
    let script: Vec<u8> = messages.iter().flat_map(|message| frame(message)).collect();
    let mut expected = Vec::new();
    let mut truncated = 0_u64;
    for cut in 0..=script.len() {
        let mut stream = server.connect();
        stream.write_all(&script[..cut]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert!(closed(&mut stream));
        let (mut whole, mut end) = (0, 0);
        while whole < 3 && end + 4 + messages[whole].len() <= cut {
            end += 4 + messages[whole].len();
            expected.push(messages[whole].to_vec());
            whole += 1;
        }
        truncated += u64::from(cut > end);
    }
    let left = server.stop();
    assert_eq!(unframe(&left.output), expected);
    let told = logged(&left.log, "the stream ended inside the ", "connections that ended inside");
    assert_eq!(told, truncated, "{}", left.log);
    // There is nothing about the others.
    let lines = left.log.lines().filter(|line| line.contains("connection "));
    assert!(lines.into_iter().all(|line| line.contains("the stream ended")), "{}", left.log);
}

/// Ends a connection by a reset.
fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// P28.
#[test]
fn clients_that_send_nonsense_do_not_flood_the_log() {
    const TIME: Duration = Duration::from_secs(5);
    let server = Server::start(&["--output", "none", "--log-time"]);
    let sent = thread::scope(|scope| {
        let client = || {
            let (started, mut rounds) = (Instant::now(), 0);
            while started.elapsed() < TIME {
                reset(server.connect());
                let mut stream = server.connect();
                stream.write_all(&frame(b"a message")[..10]).unwrap();
                reset(stream);
                let mut stream = server.connect();
                stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
                assert!(closed(&mut stream));
                let mut stream = server.connect();
                stream.write_all(&frame(b"a message")[..10]).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                assert!(closed(&mut stream));
                rounds += 1;
            }
            rounds
        };
        let clients = [scope.spawn(client), scope.spawn(client)];
        clients.into_iter().map(|client| client.join().unwrap()).sum::<u64>()
    });
    let log = server.stop().log;
    assert!(sent > 500, "only {sent} of each");
    let mut seconds = std::collections::HashMap::<&str, u32>::new();
    for line in log.lines() {
        // 2026-01-02T03:04:05 of 2026-01-02T03:04:05.678Z
        let (time, rest) = line.split_at(19);
        assert!(rest[5..].starts_with(" framelet: "), "{line}");
        *seconds.entry(time).or_default() += 1;
    }
    assert!(seconds.values().all(|&lines| lines <= 20), "{seconds:?}\n{log}");
    let garbage = logged(&log, "looks like an HTTP request", "connections that sent something");
    let cut = logged(&log, "the stream ended inside the ", "connections that ended inside");
    // The kernel drops what it has received of these when they are reset, so that some seem empty.
    let lost = logged(&log, "connection reset by peer", "connections that were lost");
    assert_eq!((garbage, cut), (sent, sent), "{log}");
    assert!(lost <= sent, "{lost} of {sent}: {log}");
    let most = seconds.values().max().unwrap();
    measured(format_args!("at most {most} lines a second of {} connections", 4 * sent));
}

/// P28.
#[test]
fn refused_connections_do_not_flood_the_log() {
    let server = Server::start(&["--output", "none", "--echo", "--max-connections", "1"]);
    let started = Instant::now();
    let mut first = server.connect();
    first.write_all(&frame(b"first")).unwrap();
    read_frame(&mut first).expect("an echo");
    for _ in 0..300 {
        assert!(closed(&mut server.connect()));
    }
    let seconds = usize::try_from(started.elapsed().as_secs()).unwrap();
    let log = server.stop().log;
    let line = "1 connection open, the limit (--max-connections)";
    // Five at once, one in each second that has begun, and the last word on the others.
    let lines = log.matches(line).count();
    assert!((5..=5 + seconds + 1).contains(&lines), "{lines} lines in {seconds} s: {log}");
    assert_eq!(logged(&log, line, "connections over the limit (--max-connections)"), 300, "{log}");
}

#[test]
fn what_was_left_out_of_the_log_is_said_while_the_server_runs() {
    let server = Server::start(&["--output", "none"]);
    for _ in 0..20 {
        let mut stream = server.connect();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert!(closed(&mut stream));
    }
    server.wait_for_log(" more, not logged: connections that sent something other", 1);
}

#[test]
fn a_reset_before_the_first_byte_is_as_little_worth_a_line_as_a_probe() {
    for (verbose, lines) in [(&[][..], 0), (&["-v"], 3)] {
        let server = Server::start(&[&["--output", "none"], verbose].concat());
        for _ in 0..3 {
            reset(server.connect());
        }
        catch_up(&server);
        let log = server.stop().log;
        assert_eq!(log.matches("connection reset by peer").count(), lines, "{log}");
    }
}

/// P18.
#[test]
fn the_end_under_load_is_in_good_order() {
    let server = Server::start(&["--output", "frames", "--grace", "10s"]);
    let sent: [AtomicU64; 4] = Default::default();
    let address = server.address;
    let left = thread::scope(|scope| {
        for (sender, sent) in sent.iter().enumerate() {
            let mut stream = server.connect();
            scope.spawn(move || {
                // Bounded: two million messages are far more than fit into the time.
                for number in 0..2_000_000_u64 {
                    let message =
                        [&[u8::try_from(sender).unwrap()], &number.to_be_bytes()[..]].concat();
                    if stream.write_all(&frame(&message)).is_err() {
                        return;
                    }
                    sent.store(number + 1, Ordering::Relaxed);
                }
                panic!("the server took everything");
            });
        }
        server.wait_for_output(MIB);
        let left = server.stop();
        // The senders end by themselves, since the server is gone.
        left
    });
    assert!(left.status.success(), "{:?}: {}", left.status, left.log);
    assert!(left.took < Duration::from_secs(10), "took {:?}", left.took);
    assert!(TcpStream::connect(address).is_err());
    let messages = unframe(&left.output);
    let mut next = [0; 4];
    for message in &messages {
        let sender = usize::from(message[0]);
        assert_eq!(message[1..], u64::to_be_bytes(next[sender]), "in order, without a gap");
        next[sender] += 1;
    }
    for (sender, sent) in sent.iter().enumerate() {
        assert!(next[sender] > 0 && next[sender] <= sent.load(Ordering::Relaxed) + 1);
    }
    // What was read was committed, to the last message.
    assert!(
        left.log.contains(&format!("{} messages over 4 connections", messages.len())),
        "{}",
        left.log
    );
}

/// P20.
#[test]
fn a_burst_of_connections_is_served_at_once() {
    raise_the_limit_of_files();
    let server = Server::start(&["--output", "none", "--echo"]);
    // Other programs share this machine, so the best of a few bursts counts.
    let slowest = (0..5).map(|_| smol::block_on(burst(server.address, 1000))).min().unwrap();
    assert!(slowest < Duration::from_millis(500), "the slowest took {slowest:?}");
    measured(format_args!("the slowest of 1000 was served after {} ms", slowest.as_millis()));
}

/// Connects `count` times at once; returns how long the slowest had to wait for its echo.
async fn burst(address: std::net::SocketAddr, count: usize) -> Duration {
    let started = Instant::now();
    let clients: Vec<_> = (0..count)
        .map(|_| {
            smol::spawn(async move {
                let stream = smol::net::TcpStream::connect(address).await.expect("a connection");
                let mut client = framelet::Client::new(stream);
                client.send(b"hello").await.unwrap();
                assert_eq!(client.receive().await.unwrap().unwrap(), b"hello");
                (client, started.elapsed())
            })
        })
        .collect();
    let mut slowest = Duration::ZERO;
    let mut open = Vec::new();
    for client in clients {
        let (client, took) = client.await;
        slowest = slowest.max(took);
        open.push(client);
    }
    slowest
}

const HOSTILE: &[u8] = "\u{1b}[2J\u{1b}]0;owned\u{7}\r\nfake\u{202e}line\u{9b}".as_bytes();

/// P22.
#[test]
fn a_message_cannot_attack_the_reader_of_the_log() {
    let server = Server::start(&["--output", "none", "-v"]);
    for start in [&b"\x1b[2J"[..], b"\r\n\xe2\x80", HOSTILE] {
        let mut stream = server.connect();
        // Together: the server hangs up as soon as it has read the first of them.
        stream.write_all(&[start, HOSTILE].concat()).unwrap();
        let _ = stream.shutdown(Shutdown::Write);
        assert!(closed(&mut stream));
    }
    let log = server.stop().log;
    assert_eq!(log.matches("is over the limit").count(), 3, "{log}");
    let raw = log.chars().find(|&c| c != '\n' && (c.is_control() || c == '\u{202e}'));
    assert_eq!(raw, None, "{log:?}");
    assert!(log.lines().all(|line| line.starts_with("framelet: ")), "{log}");
    measured("no control character in the log");
}

/// P22.
#[test]
fn a_message_cannot_drive_the_terminal_that_shows_it() {
    for format in ["text", "lines", "nul", "json", "raw", "frames"] {
        let (mut terminal, side) = terminal();
        let mut child = Command::new(FRAMELET)
            .args(["decode", "--output", format])
            .stdin(std::process::Stdio::piped())
            .stdout(side)
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&frame(HOSTILE)).unwrap();
        drop(stdin);
        assert!(child.wait().unwrap().success());
        let mut shown = vec![0; 4096];
        let read = terminal.read(&mut shown).unwrap();
        let shown = String::from_utf8(shown[..read].to_vec()).unwrap();
        assert!(shown.contains("fake"), "{shown:?}");
        // The terminal itself puts a carriage return before each line feed.
        let raw = shown.replace("\r\n", "\n");
        let raw = raw.chars().find(|&c| c != '\n' && (c.is_control() || c == '\u{202e}'));
        assert_eq!(raw, None, "{format}: {shown:?}");
    }
    measured("no control character in any of 6 formats");
}
