//! What comes from outside may be as large or as small as it likes: no option makes the program panic, and no
//! input takes more memory than a small multiple of it.

#![cfg(target_os = "linux")]

mod common;

use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::mpsc::channel;
use std::thread;

use common::acks::{Connection, read_hello, start};
use common::program::{
    FRAMELET, Running, Server, frame, framelet, odd_server, read_frame, said, wait_until,
};
use framelet::wire::Answer;
use rustix::process::Signal;

const DURATIONS: [&str; 6] = [
    "18446744073709551615s",
    "18446744073709551615s 999999999ns",
    "10000000000000000000s",
    "18446744073709551616s",
    "1ns",
    "0s",
];
const COUNTS: [&str; 5] =
    ["18446744073709551615", "18446744073709551616", "9223372036854775808", "1", "0"];
const SIZES: [&str; 5] = ["18446744073709551615", "18446744073709551616", "16EiB", "1", "0"];

/// An option, and the values that are tried.
type Tried = (&'static str, &'static [&'static str]);

/// The options of each command that take a duration, a count or a size, and all others.
const OPTIONS: [(&str, &[Tried], &str); 5] = [
    (
        "serve",
        &[
            ("--max-message", &SIZES),
            ("--max-connections", &COUNTS),
            ("--max-per-address", &COUNTS),
            ("--evict-idle", &DURATIONS),
            ("--message-timeout", &DURATIONS),
            ("--idle-timeout", &DURATIONS),
            ("--memory", &SIZES),
            ("--grace", &DURATIONS),
            ("--threads", &COUNTS),
        ],
        "--to --output --sync --keep --echo --require-ack --layout --proxy-protocol --proxy-from \
         --tls-cert --tls-key --tls-client-ca --tls-bind-sender --preamble --skip --empty --allow --mode \
         --owner --metrics --log-format --status --log-time --verbose --quiet --help",
    ),
    (
        "send",
        &[
            ("--expect", &COUNTS),
            ("--timeout", &DURATIONS),
            ("--retry", &DURATIONS),
            ("--window", &COUNTS),
            ("--skip", &COUNTS),
            ("--max-message", &SIZES),
        ],
        "--input --message --once --output --each --hang-up --ack --sender-file --sender --resume \
         --renumber --layout --header --tls --tls-ca --tls-cert --tls-key --tls-name --proxy-protocol \
         --preamble --empty --verbose --help",
    ),
    (
        "ping",
        &[("--timeout", &DURATIONS)],
        "--connect --layout --tls --tls-ca --tls-cert --tls-key --tls-name \
         --proxy-protocol --help",
    ),
    (
        "encode",
        &[("--max-message", &SIZES)],
        "--input --layout --header --proxy-protocol --preamble --help",
    ),
    (
        "decode",
        &[("--skip", &COUNTS), ("--max-message", &SIZES)],
        "--output --layout --proxy-protocol --empty --help",
    ),
];

fn options(command: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let (_, options, _) = OPTIONS.iter().find(|(name, ..)| *name == command).unwrap();
    options.iter().flat_map(|(option, values)| values.iter().map(move |value| (*option, *value)))
}

/// Checks that a program has ended as it does, and not by a panic of any of its threads.
#[track_caller]
fn check(what: &str, code: Option<i32>, said: &str) {
    assert!(matches!(code, Some(0..=4)), "{what}: {code:?}: {said}");
    assert!(!said.contains("panicked"), "{what}: {said}");
}

#[track_caller]
fn check_output(what: &str, output: &Output) {
    check(what, output.status.code(), &said(output));
}

#[test]
fn each_option_is_among_those_that_are_tried_or_has_no_number() {
    for (command, numbers, others) in OPTIONS {
        let help = String::from_utf8(framelet(&[command, "--help"], b"").stdout).unwrap();
        let (_, help) = help.split_once("\nOptions:\n").unwrap();
        let (help, _) = help.split_once("\n\n").unwrap();
        for line in help.lines().filter(|line| line.starts_with("  -")) {
            let option = line.split([' ', ',']).find(|word| word.starts_with("--")).unwrap();
            let known = numbers.iter().any(|(known, _)| *known == option)
                || others.split_whitespace().any(|known| known == option);
            assert!(known, "{command} {option}");
        }
    }
}

#[test]
fn no_value_of_an_option_makes_serve_panic() {
    for (option, value) in options("serve") {
        let what = format!("serve {option} {value}");
        let mut command = Command::new(FRAMELET);
        command.args(["serve", "127.0.0.1:0", option, value]);
        let running = Running::start(command, b"");
        let Some(address) = running.wait_for_address() else {
            check_output(&what, &running.wait());
            continue;
        };
        // A message, and one that is under way when it is told to end.
        let mut stream = TcpStream::connect(&address).unwrap();
        let _ = stream.write_all(&[frame(b"whole"), b"\0\0\0\x04ha".to_vec()].concat());
        let acked = ["send", &address, "--ack", "--message", "x", "--retry", "0s"];
        check_output(&what, &framelet(&acked, b""));
        running.signal(Signal::TERM);
        let _ = stream.write_all(b"lf");
        let _ = stream.shutdown(Shutdown::Write);
        check_output(&what, &running.wait());
    }
}

#[test]
fn no_value_of_an_option_makes_ping_panic() {
    let server = Server::start(&[]);
    for (option, value) in options("ping") {
        let arguments = ["ping", &server.address.to_string(), option, value];
        check_output(&format!("{arguments:?}"), &framelet(&arguments, b""));
    }
}

#[test]
fn no_value_of_an_option_makes_send_panic() {
    let server = Server::start(&["--echo", "--output", "none"]);
    let echo = server.address.to_string();
    for (option, value) in options("send") {
        let (acks, _) = start(Connection::serve);
        let mut plain = vec!["send", &echo, "--message", "m", option, value];
        if option != "--timeout" {
            // What it waits for may never come.
            plain.extend(["--timeout", "100ms"]);
        }
        check_output(&format!("{plain:?}"), &framelet(&plain, b""));
        let acks = acks.to_string();
        let mut acked = vec!["send", &acks, "--message", "m", "--ack", option, value];
        if option != "--retry" {
            acked.extend(["--retry", "0s"]);
        }
        check_output(&format!("{acked:?}"), &framelet(&acked, b""));
    }
}

#[test]
fn no_time_to_try_makes_send_panic() {
    let reserved = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = reserved.local_addr().unwrap().to_string();
    drop(reserved);
    for ack in [&[][..], &["--ack"]] {
        for value in &DURATIONS[..3] {
            let mut command = Command::new(FRAMELET);
            command.args(["send", &address, "--message", "m", "-v", "--retry", value]).args(ack);
            let running = Running::start(command, b"");
            running.wait_until_it_says("retrying");
            running.kill();
        }
    }
}

#[test]
fn no_limit_makes_encode_or_decode_panic() {
    for command in ["encode", "decode"] {
        for (option, value) in options(command) {
            for input in [&b"\0\0\0\x05hello"[..], b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b""] {
                let output = framelet(&[command, option, value], input);
                check_output(&format!("{command} {option} {value}"), &output);
            }
        }
    }
}

#[cfg(feature = "bench")]
#[test]
fn no_value_of_an_option_makes_bench_panic() {
    let server = Server::start(&["--echo", "--output", "none"]);
    let echo = server.address.to_string();
    let numbers: [Tried; 10] = [
        ("--skip", &COUNTS),
        ("--retry", &DURATIONS),
        ("--rate", &COUNTS),
        ("--connections", &COUNTS),
        ("--threads", &COUNTS),
        ("--size", &SIZES),
        ("--duration", &DURATIONS),
        ("--count", &COUNTS),
        ("--warm-up", &DURATIONS),
        ("--timeout", &DURATIONS),
    ];
    let help = String::from_utf8(framelet(&["bench", "--help"], b"").stdout).unwrap();
    assert_eq!(
        help.matches("\n  --").count(),
        numbers.len()
            + "echo layout header tls tls-ca tls-cert tls-key tls-name \
             proxy-protocol preamble empty json"
                .split(' ')
                .count()
    );
    for (option, values) in numbers {
        for value in values {
            for mode in [&[][..], &["--echo"], &["--echo", "--rate", "1000000000"]] {
                if option == "--rate" && mode.len() != 1 {
                    continue;
                }
                // So that there are no thousands of connections.
                let mut command = Command::new("bash");
                command.args(["-c", "ulimit -n 64; exec \"$@\"", "bash", FRAMELET, "bench", &echo]);
                command.args(mode).args([option, value]);
                let defaults = [
                    // At the highest rate, these are two million messages.
                    ("--duration", "2ms"),
                    ("--warm-up", "0s"),
                    ("--connections", "2"),
                    // For replies that never come.
                    ("--timeout", "1s"),
                ];
                for (name, default) in defaults {
                    let replaced = name == option || name == "--duration" && option == "--count";
                    if option == "--threads" && name == "--connections" {
                        command.args([name, value]);
                    } else if !replaced {
                        command.args([name, default]);
                    }
                }
                let running = Running::start(command, b"");
                running.wait_until_it_can_be_stopped();
                running.signal(Signal::TERM);
                let what = format!("bench {mode:?} {option} {value}");
                // Shown if it does not end.
                eprintln!("{what}");
                check_output(&what, &running.wait());
            }
        }
    }
}

// ---- memory

/// How long a line is, and one of them.
const LONG: usize = 10 << 20;
const LONGEST: usize = 50 << 20;

/// What a program takes that does nothing, and more than that.
const BESIDE: usize = 8 << 20;

/// Long inputs in each format, and what makes them expensive.
fn long_inputs() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let json = |name: &str, text: &str| {
        let times = if name == "payload" { LONGEST } else { LONG } / text.len();
        format!("{{\"{name}\":\"{}\"}}\n", text.repeat(times)).into_bytes()
    };
    let line = |text: &str| format!("{}\n", text.repeat(LONG / text.len())).into_bytes();
    vec![
        ("json", json("payload", "plain text, "), "a text"),
        ("json", json("payload", "with \\\"escapes\\\" \\u00e9, "), "a text with escapes"),
        ("json", json("payload_base64", "QUJD"), "Base64"),
        ("json", json("payload_base64", "QUJ\\u0044"), "Base64 with escapes"),
        (
            "json",
            format!("{{\"x\":[{}0],\"payload\":\"\"}}\n", "0,".repeat(LONG / 2)).into_bytes(),
            "what is no payload",
        ),
        ("hex", line("6162"), "digits"),
        ("hex", line("61 "), "digits and spaces"),
        ("base64", line("QUJD"), "Base64"),
        ("lines", line("a"), "a line"),
        ("nul", [line("a"), b"\0".to_vec()].concat(), "a record"),
        ("text", [line("a"), b"\n".to_vec()].concat(), "a line"),
        ("text", [line("abc\n"), b"\n".to_vec()].concat(), "lines"),
        ("frames", frame(&vec![b'a'; LONG]), "a frame"),
    ]
}

/// What is read, its message, and its frame: four times the input would be too much.
#[test]
fn a_long_record_takes_less_than_four_times_its_length() {
    for (format, input, what) in long_inputs() {
        let mut command = Command::new(FRAMELET);
        command.args(["encode", "--input", format, "--max-message", "100MiB"]);
        let (running, mut stdin) = Running::start_with_input(command);
        stdin.write_all(&input).unwrap();
        // The whole frame, though the input has no end yet.
        running.wait_for_a_frame();
        let peak = running.peak_memory();
        drop(stdin);
        check_output(what, &running.wait());
        let times = peak as f64 / input.len() as f64;
        println!("{format}, {what}: {times:.2} times");
        assert!(peak < 4 * input.len() + BESIDE, "{format}, {what}: {times:.2} times");
    }
}

/// One after the other: a message that is composed waits until the one before it is on its way.
#[test]
fn long_records_do_not_pile_up() {
    let record = format!("{{\"payload\":\"{}\"}}\n", "a".repeat(LONG));
    for ack in [&[][..], &["--ack"]] {
        let (go_on, wait) = channel::<()>();
        let address = odd_server(move |mut stream| {
            if !ack.is_empty() {
                read_hello(&mut stream).unwrap();
                stream.write_all(&frame(&Answer::Acknowledgement(0).encode())).unwrap();
            }
            wait.recv().unwrap();
            let mut count = 0;
            while read_frame(&mut stream).is_some() {
                count += 1;
                if !ack.is_empty() {
                    let _ = stream.write_all(&frame(&Answer::Acknowledgement(count).encode()));
                }
            }
            assert_eq!(count, 6);
        });
        let mut command = Command::new(FRAMELET);
        command.args(["send", &address, "--input", "json", "--max-message", "100MiB"]).args(ack);
        // Nothing is taken for a while, and that is no reason to give up.
        command.args(["--timeout", "off"]);
        let (running, mut stdin) = Running::start_with_input(command);
        let peak = thread::scope(|scope| {
            let writing = scope.spawn(|| {
                for _ in 0..6 {
                    stdin.write_all(record.as_bytes()).unwrap();
                }
                running.peak_memory()
            });
            // It takes in what it can, and then no more.
            let mut taken = 0;
            wait_until("that it takes no more", || {
                let before = std::mem::replace(&mut taken, running.characters_read());
                thread::sleep(std::time::Duration::from_millis(300));
                taken > LONG && taken == before
            });
            go_on.send(()).unwrap();
            writing.join().unwrap()
        });
        drop(stdin);
        check_output("send", &running.wait());
        let times = peak as f64 / record.len() as f64;
        println!("{ack:?}: {times:.2} times");
        // The window, which has one message of this length, and what is composed meanwhile.
        assert!(peak < 4 * record.len() + BESIDE, "{ack:?}: {times:.2} times");
    }
}
