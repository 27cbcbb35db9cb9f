//! `framelet bench`: what it counts, what it measures, and how it ends.

mod common;

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::program::{
    FRAMELET, Running, Server, check, docs_show_help_of, frame, framelet, odd_server, read_frame,
    run, said, terminal, wait_until,
};
use framelet::Layout;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn bench(address: &str, arguments: &[&str]) -> Output {
    framelet(&[&["bench", address], arguments].concat(), b"")
}

/// Runs it with `--json`, and returns the figures if it ends well.
#[track_caller]
fn figures(address: &str, arguments: &[&str]) -> Value {
    let output = bench(address, &[arguments, &["--json"]].concat());
    check(&output, 0, &[]);
    json(&output)
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn start(arguments: &[&str]) -> (Server, String) {
    let server = Server::start(&[arguments, &["--output", "none"]].concat());
    let address = server.address.to_string();
    (server, address)
}

/// Serves any number of connections, each in a thread of its own.
fn servers(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serve: &'static _ = Box::leak(Box::new(serve));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// An address where nobody listens.
fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

// ---- floods

#[test]
fn a_flood_counts_what_the_server_received() {
    for (arguments, connections) in [
        (&["--count", "100003"][..], 4),
        (&["--count", "2", "--connections", "5"], 5),
        (&["--duration", "200ms", "--connections", "3", "--threads", "2"], 3),
        (&["--duration", "200ms", "--size", "0..100k"], 4),
        (&["--count", "20", "--size", "1MiB"], 4),
    ] {
        let (server, address) = start(&[]);
        let json = figures(&address, &[arguments, &["--warm-up", "0s"]].concat());
        let messages = json["messages"].as_u64().unwrap();
        let received = format!("framelet: {messages} messages over {connections} connections\n");
        let log = server.stop().log;
        assert!(log.ends_with(&received), "{arguments:?}: {received:?} is missing in {log:?}");
        if let Some(count) = arguments[1].parse::<u64>().ok().filter(|_| arguments[0] == "--count")
        {
            assert_eq!(messages, count);
        }
    }
}

#[test]
fn what_a_warm_up_sends_does_not_count() {
    let (server, address) = start(&[]);
    let json = figures(&address, &["--count", "1000", "--warm-up", "200ms"]);
    assert_eq!((&json["messages"], &json["bytes"]), (&1000.into(), &64000.into()));
    let log = server.stop().log;
    let received = log.lines().last().unwrap().split(' ').nth(1).unwrap();
    assert!(received.parse::<u64>().unwrap() > 1000, "{log}");
}

#[test]
fn a_flood_says_what_its_figure_means() {
    let (_server, address) = start(&[]);
    let output = bench(&address, &["--count", "1000", "--warm-up", "0s"]);
    check(&output, 0, &[]);
    let text = text(&output);
    assert!(text.contains("messages    1,000 in "), "{text}");
    assert!(text.contains("that is no promise that they are committed\n"), "{text}");
}

#[test]
fn messages_of_a_connection_that_was_reset_do_not_count() {
    let address = servers(|mut stream| {
        // All of it was read; still, what ends by a reset may not be there.
        io::copy(&mut stream, &mut io::sink()).unwrap();
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    let arguments = ["--count", "1000", "--warm-up", "0s", "--connections", "2", "--json"];
    let output = bench(&address, &arguments);
    check(
        &output,
        1,
        &["2 of 2 connections failed; connection ", "lost: connection reset by peer"],
    );
    assert_eq!((&json(&output)["messages"], &json(&output)["errors"]), (&0.into(), &2.into()));
}

#[test]
fn a_server_that_closes_during_a_flood_is_an_error() {
    let address = odd_server(|mut stream| {
        stream.read_exact(&mut [0; 68]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let _ = io::copy(&mut stream, &mut io::sink());
    });
    let output = bench(&address, &["--connections", "1"]);
    check(&output, 1, &["the server closed the connection while messages were being sent"]);
}

#[test]
fn a_server_that_takes_nothing_or_does_not_close_is_a_timeout() {
    let address = servers(|_stream| thread::sleep(common::program::PATIENCE));
    let output = bench(&address, &["--count", "100M", "--timeout", "300ms", "--warm-up", "0s"]);
    check(&output, 2, &["not a number"]);
    let count = ["--count", "100000000", "--timeout", "300ms", "--warm-up", "0s"];
    check(&bench(&address, &count), 4, &["the server took nothing for 300ms (--timeout)"]);
    let output = bench(&address, &["--count", "10", "--timeout", "300ms", "--warm-up", "0s"]);
    check(&output, 4, &["not closed by the server within 300ms of the end (--timeout)"]);
}

#[test]
fn replies_to_a_flood_are_dropped_with_a_hint() {
    let (_server, address) = start(&["--echo"]);
    let output = bench(&address, &["--count", "100000", "--warm-up", "0s"]);
    check(&output, 0, &[]);
    assert!(text(&output).contains("the server sent 6,800,000 bytes, which were dropped"));
}

// ---- round trips

#[test]
fn round_trips_are_counted_and_timed() {
    let (server, address) = start(&["--echo"]);
    for arguments in [
        &["--connections", "1"][..],
        &["--connections", "64", "--threads", "2"],
        &["--size", "1..300k", "--connections", "3"],
        &["--size", "0"],
    ] {
        let counted = [&["--echo", "--count", "1001", "--warm-up", "0s"], arguments].concat();
        let json = figures(&address, &counted);
        assert_eq!(json["messages"], 1001);
        let latency = &json["latency_us"];
        let times = ["p50", "p90", "p99", "p99.9", "max"].map(|at| latency[at].as_f64().unwrap());
        assert!(times[0] > 0.0 && times.is_sorted(), "{latency}");
        assert!(json["latency_from_send_us"].is_null());
    }
    assert!(server.stop().log.contains("framelet: 4004 messages over 72 connections"));
}

#[test]
fn a_duration_and_a_warm_up_measure_that_long() {
    let (_server, address) = start(&["--echo"]);
    let json = figures(&address, &["--echo", "--duration", "300ms", "--warm-up", "100ms"]);
    assert!(json["seconds"].as_f64().unwrap() >= 0.25, "{json}");
    assert_eq!(json["warm_up_s"], 0.1);
    assert!(json["messages"].as_u64().unwrap() > 0);
}

#[test]
fn every_layout_is_echoed() {
    for layout in Layout::binary().map(|layout| layout.to_string()) {
        let (_server, address) = start(&["--echo", "--layout", &layout]);
        let arguments =
            ["--layout", &layout, "--count", "300", "--warm-up", "0s", "--size", "0..200"];
        let json = figures(&address, &[&["--echo"], &arguments[..]].concat());
        assert_eq!((&json["messages"], json["layout"].as_str()), (&300.into(), Some(&*layout)));
        figures(&address, &["--layout", &layout, "--count", "1", "--warm-up", "0s"]);
    }
}

#[test]
fn unix_sockets_are_measured_too() {
    let directory = tempfile::tempdir().unwrap();
    let address = format!("unix:{}/socket", directory.path().display());
    let mut command = Command::new(FRAMELET);
    command.args(["serve", &address, "--echo", "--output", "none"]);
    let server = Server::spawn(command);
    let json = figures(&address, &["--echo", "--count", "1000", "--warm-up", "0s"]);
    assert_eq!((&json["messages"], json["address"].as_str()), (&1000.into(), Some(&*address)));
    let large = ["--echo", "--count", "50", "--warm-up", "0s", "--size", "1MiB"];
    assert_eq!(figures(&address, &large)["bytes"], 50 << 20);
    assert_eq!(figures(&address, &["--count", "100000", "--warm-up", "0s"])["messages"], 100_000);
    server.stop();
    let output = bench(&address, &[]);
    check(&output, 1, &["cannot connect to unix:", "no such file", "is the server running?"]);
}

#[test]
fn a_server_that_cuts_a_unix_connection_does_not_pass_for_one_that_closes_it() {
    let directory = tempfile::tempdir().unwrap();
    let address = format!("unix:{}/socket", directory.path().display());
    let mut command = Command::new(FRAMELET);
    command.args(["serve", &address, "--output", "none", "--max-message", "10"]);
    let _server = Server::spawn(command);
    let output = bench(&address, &["--count", "1", "--connections", "1", "--warm-up", "0s"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
}

#[test]
fn a_wrong_reply_is_an_error_that_says_where() {
    let address = odd_server(|mut stream| {
        for round in 0..3 {
            let mut reply = read_frame(&mut stream).unwrap();
            reply[10] ^= u8::from(round == 2);
            stream.write_all(&frame(&reply)).unwrap();
        }
    });
    let output = bench(&address, &["--echo", "--connections", "1", "--warm-up", "0s", "--json"]);
    let words = "1 of 1 connection failed; connection 1: wrong reply: reply 3 differs from what was \
                 sent at byte 14 of its frame: ";
    check(&output, 1, &[words]);
    assert_eq!((&json(&output)["messages"], &json(&output)["errors"]), (&2.into(), &1.into()));
}

#[test]
fn more_than_was_sent_is_a_wrong_reply() {
    let address = odd_server(|mut stream| {
        let reply = frame(&read_frame(&mut stream).unwrap());
        stream.write_all(&[&reply[..], b"x"].concat()).unwrap();
    });
    let output = bench(&address, &["--echo", "--connections", "1"]);
    check(&output, 1, &["wrong reply: the server sent more than it was sent"]);
}

/// Returns the address of a server that sends `before` with each reply of a few bytes, in pieces of `piece` bytes.
fn heartbeats(before: &'static [u8], piece: usize) -> String {
    servers(move |mut stream| {
        stream.set_nodelay(true).unwrap();
        while let Some(message) = read_frame(&mut stream) {
            let reply = [before, &frame(&message)].concat();
            if reply.chunks(piece).any(|piece| stream.write_all(piece).is_err()) {
                return;
            }
        }
    })
}

const BRIEF: [&str; 6] = ["--echo", "--count", "200", "--warm-up", "0s", "--size"];

#[test]
fn empty_frames_between_replies_are_skipped_if_asked_for() {
    for piece in [1, 3, 1000] {
        let address = heartbeats(b"\0\0\0\0\0\0\0\0", piece);
        // The lengths begin as that of a heartbeat does, for three, two or one byte.
        for size in ["1..3", "256..300", if piece > 3 { "65536" } else { "5" }] {
            let arguments = [&BRIEF[..], &[size, "--empty", "skip"]].concat();
            assert_eq!(figures(&address, &arguments)["messages"], 200, "{piece} {size}");
        }
        let output = bench(&address, &[&BRIEF[..], &["5"]].concat());
        check(
            &output,
            1,
            &["reply 1 differs from what was sent at byte 3 of its frame: 00 instead"],
        );
    }
    // Half of a heartbeat is none, nor is a frame that ends as one does.
    for (before, size, words) in [
        (&b"\0\0\0\0\0\0\x09"[..], "256", "at byte 2 of its frame: 09 instead of 01"),
        (b"\0\0\x01\0", "257", "at byte 3 of its frame: 00 instead of 01"),
    ] {
        let address = heartbeats(before, 100);
        let output = bench(&address, &[&BRIEF[..], &[size, "--empty", "skip"]].concat());
        check(&output, 1, &["reply 1 differs from what was sent", words]);
    }
}

/// Returns the address of a server that reads nothing, or everything, and sends these bytes over and over, with pauses.
fn chatter(bytes: &'static [u8], reads: bool) -> String {
    servers(move |mut stream| {
        stream.set_nodelay(true).unwrap();
        if reads {
            let mut stream = stream.try_clone().unwrap();
            thread::spawn(move || io::copy(&mut stream, &mut io::sink()));
        }
        // Ends by itself, whatever the program does.
        for _ in 0..500 {
            if stream.write_all(bytes).is_err() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    })
}

#[test]
fn what_was_not_asked_for_does_not_put_off_the_timeout() {
    let brief =
        ["--connections", "1", "--timeout", "300ms", "--warm-up", "0s", "--count", "100000000"];
    let check = |address: &str, how: &[&str], words: &str| {
        let started = Instant::now();
        check(&bench(address, &[&brief[..], how].concat()), 4, &[words]);
        assert!(started.elapsed() < Duration::from_secs(9), "until the server gave up");
    };
    let skip = ["--echo", "--empty", "skip"];
    check(&chatter(b"\0\0\0\0", true), &skip, "no reply came within 300ms");
    check(&chatter(b"\0", true), &skip, "no reply came within 300ms");
    check(&chatter(b"x", false), &[], "the server took nothing for 300ms");
    let few = ["--connections", "1", "--timeout", "300ms", "--warm-up", "0s", "--count", "10"];
    let output = bench(&chatter(b"x", true), &few);
    self::check(&output, 4, &["not closed by the server within 300ms"]);
    // Messages that are sent meanwhile do not either.
    let address = odd_server(|mut stream| drop(io::copy(&mut stream, &mut io::sink())));
    check(&address, &["--echo", "--rate", "100"], "no reply came within 300ms");
}

#[test]
fn a_server_that_closes_in_front_of_a_reply_is_an_error() {
    let address = odd_server(|mut stream| drop(read_frame(&mut stream)));
    let output = bench(&address, &["--echo", "--connections", "1"]);
    check(&output, 1, &["connection 1: the server closed the connection before a reply"]);
    let text = text(&output);
    assert!(text.contains("errors      1\n            connection 1: the server closed"), "{text}");
}

#[test]
fn a_server_that_does_not_echo_is_a_timeout() {
    let (_server, address) = start(&[]);
    let output = bench(&address, &["--echo", "--timeout", "300ms"]);
    check(&output, 4, &["4 of 4 connections failed", "no reply came within 300ms", "serve --echo"]);
}

// ---- at a rate

#[test]
fn at_a_rate_both_latencies_are_shown() {
    let (_server, address) = start(&["--echo"]);
    for arguments in [&["--connections", "3"][..], &["--threads", "3", "--size", "1..5000"]] {
        let counted = ["--echo", "--rate", "2000", "--count", "1001", "--warm-up", "100ms"];
        let json = figures(&address, &[&counted, arguments].concat());
        assert_eq!((&json["messages"], &json["target_rate"]), (&1001.into(), &2000.into()));
        // It cannot be faster than the schedule, which says when 1001 messages are over.
        let achieved = json["achieved_rate"].as_f64().unwrap();
        assert!(achieved > 100.0 && achieved < 2000.1, "{json}");
        for at in ["p50", "p90", "p99", "p99.9", "max"] {
            let [corrected, from_send] =
                ["latency_us", "latency_from_send_us"].map(|latency| json[latency][at].as_f64());
            assert!(corrected.unwrap() >= from_send.unwrap(), "{at}: {json}");
        }
        assert!(json["generator"]["fell_behind"].is_boolean());
    }
    let timed = ["--echo", "--rate", "1000", "--duration", "300ms", "--warm-up", "10ms"];
    assert_eq!(figures(&address, &timed)["messages"], 300);
    let output = bench(&address, &timed);
    check(&output, 0, &[]);
    let text = text(&output);
    for words in ["% of the 1,000 messages/s asked for", "from when due", "from when sent"] {
        assert!(text.contains(words), "{text}");
    }
}

/// What is due while the server stalls cannot all be sent, as its socket is full: that it was sent late
/// must not make it look fast.
#[test]
fn a_stall_of_the_server_is_not_left_out() {
    let address = odd_server(|mut stream| {
        for round in 0..150 {
            if round == 10 {
                thread::sleep(Duration::from_millis(500));
            }
            let reply = frame(&read_frame(&mut stream).unwrap());
            stream.write_all(&reply).unwrap();
        }
        let _ = io::copy(&mut stream, &mut io::sink());
    });
    // 512 KiB each 5 ms: what the sockets can hold is full soon after the stall has begun.
    let json = figures(
        &address,
        &[
            "--echo",
            "--rate",
            "200",
            "--count",
            "150",
            "--warm-up",
            "0s",
            "--connections",
            "1",
            "--size",
            "512KiB",
        ],
    );
    assert_eq!(json["messages"], 150);
    let [corrected, from_send] =
        ["latency_us", "latency_from_send_us"].map(|latency| json[latency]["p50"].as_f64());
    let (corrected, from_send) = (corrected.unwrap(), from_send.unwrap());
    assert!(corrected > from_send, "{json}");
    // Half of the messages were due during the stall, or behind those that were.
    assert!(json["latency_us"]["max"].as_f64().unwrap() >= 400_000.0, "{json}");
    assert!(json["latency_us"]["p90"].as_f64().unwrap() >= 100_000.0, "{json}");
}

#[test]
fn the_load_moves_on_when_a_connection_fails() {
    let first = std::sync::atomic::AtomicBool::new(true);
    let address = servers(move |mut stream| {
        let fails = first.swap(false, std::sync::atomic::Ordering::SeqCst);
        while let Some(message) = read_frame(&mut stream).filter(|_| !fails) {
            stream.write_all(&frame(&message)).unwrap();
        }
    });
    let rate = ["--echo", "--rate", "1000", "--count", "200", "--warm-up", "0s"];
    let output = bench(&address, &[&rate[..], &["--connections", "2", "--json"]].concat());
    check(&output, 1, &["1 of 2 connections failed"]);
    assert!(json(&output)["messages"].as_u64().unwrap() > 100);
}

// ---- preambles

const PREAMBLE: [&str; 8] =
    ["--preamble", "48454c4f", "--skip", "4", "--count", "1000", "--warm-up", "0s"];

#[test]
fn both_sides_may_begin_with_a_preamble() {
    let (_server, address) = start(&["--echo", "--preamble", "4f4c4548", "--skip", "4"]);
    for how in [&["--echo"][..], &["--echo", "--rate", "10000"]] {
        let json = figures(&address, &[&PREAMBLE[..], how].concat());
        assert_eq!(json["messages"], 1000, "{how:?}");
    }
    let (server, address) = start(&["--preamble", "4f4c4548", "--skip", "4"]);
    let output = bench(&address, &PREAMBLE);
    check(&output, 0, &[]);
    assert!(!text(&output).contains("were dropped"), "it was expected: {}", text(&output));
    assert!(server.stop().log.contains("1000 messages over 4 connections"));
}

#[test]
fn a_preamble_that_is_longer_than_a_read_is_skipped() {
    let address = servers(|mut stream| {
        stream.write_all(&[0xff; 200_000]).unwrap();
        let mut back = stream.try_clone().unwrap();
        let _ = io::copy(&mut stream, &mut back);
    });
    let arguments = ["--echo", "--skip", "200000", "--count", "1000", "--warm-up", "0s"];
    assert_eq!(figures(&address, &arguments)["messages"], 1000);
    let too_much = ["--echo", "--skip", "18446744073709551615", "--timeout", "200ms"];
    let said = " bytes to be skipped (--skip) did not come within 200ms (--timeout)";
    check(&bench(&address, &too_much), 4, &[said]);
}

// ---- reports

#[test]
fn the_figures_have_the_documented_fields() {
    let (_server, address) = start(&["--echo"]);
    for arguments in [&[][..], &["--echo"], &["--echo", "--rate", "1000"]] {
        let json = figures(
            &address,
            &[arguments, &["--count", "100", "--warm-up", "0s", "--size", "1..2"]].concat(),
        );
        let names = |value: &Value| -> Vec<String> {
            let mut names: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
            names.sort();
            names
        };
        let mut expected = [
            "mode",
            "address",
            "layout",
            "connections",
            "threads",
            "size",
            "warm_up_s",
            "seconds",
            "messages",
            "bytes",
            "messages_per_s",
            "bytes_per_s",
            "errors",
            "target_rate",
            "achieved_rate",
            "latency_us",
            "latency_from_send_us",
            "generator",
        ];
        expected.sort();
        assert_eq!(names(&json), expected);
        assert_eq!(names(&json["generator"]), ["busy", "cpu_ns_per_message", "fell_behind"]);
        assert_eq!(json["size"], serde_json::json!({"min": 1, "max": 2}));
        let mode = ["flood", "echo", "rate"][arguments.len().min(2)];
        assert_eq!(
            (json["mode"].as_str(), json["address"].as_str()),
            (Some(mode), Some(&*address))
        );
        assert_eq!((&json["connections"], &json["threads"]), (&4.into(), &1.into()));
        assert_eq!(json["latency_us"].is_null(), mode == "flood");
        assert_eq!(json["latency_from_send_us"].is_null(), mode != "rate");
        assert_eq!(json["target_rate"].is_null(), mode != "rate");
        for name in ["seconds", "messages_per_s", "bytes_per_s", "achieved_rate", "warm_up_s"] {
            assert!(json[name].is_f64(), "{name}: {json}");
        }
        let rate = json["messages_per_s"].as_f64().unwrap();
        let messages = rate * json["seconds"].as_f64().unwrap();
        assert!((messages - 100.0).abs() < 0.001, "{json}");
    }
}

#[test]
fn progress_is_shown_on_a_terminal_only() {
    let (_server, address) = start(&["--echo"]);
    // Longer than it takes until the line is shown first.
    let arguments = ["bench", &address, "--echo", "--duration", "1100ms", "--warm-up", "0s"];
    let output = framelet(&arguments, b"");
    check(&output, 0, &[]);
    let (person, side) = terminal();
    let mut command = Command::new(FRAMELET);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(side);
    command.env("TERM", "xterm");
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    assert!(text(&output).starts_with("round trips "));
    // The other side has to be closed, for what was shown to have an end.
    drop(command);
    let shown = read_to_hangup(person);
    let first = shown.trim_start_matches(ERASE).split('\r').next().unwrap().trim_end();
    assert!(first.contains(" s: ") && first.ends_with(" messages/s"), "{shown:?}");
    assert!(shown.ends_with(ERASE), "{shown:?}");
}

/// Goes back to the beginning of the line and erases it.
const ERASE: &str = "\r\x1b[2K";

fn read_to_hangup(mut person: File) -> String {
    let mut shown = Vec::new();
    // The end of a terminal is an error.
    let _ = person.read_to_end(&mut shown);
    String::from_utf8(shown).unwrap()
}

#[test]
fn an_interrupt_ends_it_early_with_what_was_measured() {
    for mode in [&["--echo"][..], &[], &["--echo", "--rate", "1000"]] {
        let received = std::sync::Arc::new(std::sync::Barrier::new(2));
        let there = std::sync::Arc::clone(&received);
        let address = odd_server(move |mut stream| {
            for round in 0.. {
                let Some(message) = read_frame(&mut stream) else { return };
                if round == 100 {
                    there.wait();
                }
                // A flood drops it.
                stream.write_all(&frame(&message)).unwrap();
            }
        });
        let child = Command::new(FRAMELET)
            .args(["bench", &address, "--duration", "50s", "--warm-up", "0s", "--json"])
            .args(["--connections", "1"])
            .args(mode)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        received.wait();
        let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
        let output = child.wait_with_output().unwrap();
        check(&output, 0, &[]);
        let json = json(&output);
        assert!(json["messages"].as_u64().unwrap() >= 100, "{json}");
        assert!(json["seconds"].as_f64().unwrap() < 40.0, "it was not ended by the signal: {json}");
    }
}

#[test]
fn a_report_that_cannot_be_written_is_named() {
    let (_server, address) = start(&["--echo"]);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let child = Command::new(FRAMELET)
        .args(["bench", &address, "--echo", "--count", "1", "--warm-up", "0s"])
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    check(&output, 2, &["cannot write to standard output: no space left on device"]);
}

// ---- usage

#[test]
fn a_bench_can_be_started_before_its_server() {
    let address = nobody();
    let output = bench(&address, &["--count", "1"]);
    check(&output, 1, &["is the server running? (--retry 10s keeps trying)"]);
    let output = bench(&address, &["--count", "1", "--retry", "1ms"]);
    check(&output, 1, &["is the server running?"]);
    let client = {
        let address = address.clone();
        thread::spawn(move || {
            bench(&address, &["--count", "1", "--warm-up", "0s", "--retry", "30s"])
        })
    };
    let mut command = Command::new(FRAMELET);
    command.args(["serve", &address, "--output", "none"]);
    let server = Server::spawn(command);
    check(&client.join().unwrap(), 0, &[]);
    server.stop();
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let address = nobody();
    let words = format!("cannot connect to {address}: connection refused; is the server running?");
    for arguments in [&[][..], &["--json"], &["--echo", "--timeout", "off"]] {
        let output = bench(&address, arguments);
        check(&output, 1, &[&words]);
        assert_eq!(output.stdout, b"");
    }
    let output = bench("no-such-host.invalid:4747", &["--timeout", "50s"]);
    check(&output, 1, &["cannot connect to no-such-host.invalid:4747"]);
}

#[test]
fn what_makes_no_sense_is_refused_and_says_why() {
    for (arguments, words) in [
        (&["--rate", "5"][..], "--rate: goes with --echo only"),
        (&["--echo", "--rate", "0"], "--rate: must be from 1 to 1000000000"),
        (&["--count", "1", "--duration", "1s"], "--count: replaces --duration"),
        (&["--count", "0"], "--count: cannot be zero"),
        (&["--duration", "0s"], "--duration: cannot be zero"),
        (&["--duration", "5"], "not a duration"),
        (&["--connections", "0"], "--connections: cannot be zero"),
        (&["--threads", "0"], "--threads: cannot be zero"),
        (&["--threads", "5"], "--threads: cannot be more than --connections"),
        (&["--size", "10..5"], "the range is empty; write 5..10"),
        (&["--size", "x"], "not a size"),
        (&["--size", "0.."], "a range has two ends, as in 1..4KiB"),
        (&["--size", "256", "--layout", "u8"], "--size: "),
        (&["--timeout", "0s"], "write off to wait for ever"),
        (&["--layout", "u32"], "which byte order? write u32be"),
        (&["--empty", "skip"], "--empty: goes with --echo only"),
        (&["--echo", "--empty", "echo"], "--empty: cannot be echo"),
        (
            &["--echo", "--empty", "skip", "--size", "0..9"],
            "--size: cannot be zero if empty frames",
        ),
        (&["--echo", "--empty", "skip", "--layout", "grpc"], "is empty: each has a header"),
        (&["more"], "unrecognized argument: more (see framelet bench --help)"),
    ] {
        check(&bench(&nobody(), arguments), 2, &[words]);
    }
    check(&bench("nonsense", &[]), 2, &["a port is missing"]);
    let mut command = Command::new(FRAMELET);
    command.args(["bench", &nobody()]).env("SMOL_THREADS", "0");
    check(&run(command, b""), 2, &["SMOL_THREADS=0"]);
}

#[test]
fn the_docs_show_the_help_as_it_is() {
    docs_show_help_of(&["bench"]);
}

/// There is always more due than was sent, so a turn must not last until nothing is.
#[test]
fn a_rate_that_is_out_of_reach_can_be_stopped() {
    let server = Server::start(&["--echo", "--output", "none"]);
    let mut command = Command::new(FRAMELET);
    command.args(["bench", &server.address.to_string(), "--echo", "--rate", "1000000000"]);
    command.args(["--count", "18446744073709551615", "--warm-up", "0s", "--connections", "2"]);
    let running = Running::start(command, b"");
    wait_until("some load", || server.cpu() >= Duration::from_millis(100));
    running.signal(Signal::TERM);
    let output = running.wait();
    assert!(output.status.success(), "{}", said(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("the generator fell behind"));
}
