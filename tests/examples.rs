//! Each example does what it says, and all of them speak with each other.

mod common;
// With their own tests.
#[path = "../examples/in_memory.rs"]
#[allow(dead_code)]
mod in_memory;
#[path = "../examples/own_sink.rs"]
#[allow(dead_code)]
mod own_sink;

use std::process::Command;

use common::program::{Server, example, framelet, run};

fn server(name: &str) -> Server {
    let mut command = Command::new(example(name));
    command.arg("127.0.0.1:0");
    Server::spawn(command)
}

fn client(name: &str, server: &Server, input: &[u8]) {
    let mut command = Command::new(example(name));
    command.arg(server.address.to_string());
    let output = run(command, input);
    assert!(output.status.success(), "{name}: {output:?}");
}

#[test]
fn the_tutorial_server_takes_messages_of_every_client() {
    let server = server("tutorial_server");
    client("tutorial_client", &server, "zwei\nZeilen: ß\n\nnot sent".as_bytes());
    client("client", &server, b"a\nb\n\nc");
    let sent = framelet(&["send", &server.address.to_string(), "--message", ""], b"");
    assert!(sent.status.success(), "{sent:?}");
    server.wait_for_output("zwei\nZeilen: ß\na\nb\nc\n\n".len());
    server.signal(rustix::process::Signal::KILL);
    let output = String::from_utf8(server.wait().output).unwrap();
    assert_eq!(output, "zwei\nZeilen: ß\na\nb\nc\n\n");
}

#[test]
fn the_library_server_takes_messages_of_every_client_and_ends_in_good_order() {
    let server = server("server");
    client("tutorial_client", &server, "zwei\nZeilen: ß\n".as_bytes());
    client("client", &server, b"a\nb\n\nc");
    let left = server.stop();
    assert!(left.status.success(), "{left:?}");
    let output = String::from_utf8(left.output).unwrap();
    assert_eq!(output, "1.1: zwei\nZeilen: ß\n2.1: a\nb\n2.2: c\n");
    assert!(left.log.ends_with("3 messages\n"), "{}", left.log);
}

#[test]
fn the_client_of_requests_prints_the_replies_in_order() {
    let server = Server::start(&["--echo", "--output", "none"]);
    let mut command = Command::new(example("request"));
    command.arg(server.address.to_string()).args(["ping", "", "pong"]);
    let output = run(command, b"");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"ping\n\npong\n");
}

#[test]
fn the_clients_send_to_the_program() {
    let server = Server::start(&["--output", "nul"]);
    client("tutorial_client", &server, b"one\ntwo\n\n");
    client("client", &server, b"three\n\n\nfour\n");
    client("ack_client", &server, b"five\nsix\n");
    assert_eq!(server.stop().output, b"one\ntwo\0three\0\0four\0five\0six\0");
}

#[test]
fn requests_are_answered() {
    let server = server("answer");
    let address = server.address.to_string();
    let asked = framelet(&["send", &address, "--message", "hello", "--expect", "1"], b"");
    assert!(asked.status.success(), "{asked:?}");
    assert_eq!(asked.stdout, b"HELLO\n");
}

#[test]
fn what_needs_no_other_program_says_what_it_did() {
    for (name, said) in
        [("tls", "hello over TLS\n"), ("in_memory", "42\n"), ("own_sink", "1 blue\n2 red\n")]
    {
        let output = run(Command::new(example(name)), b"");
        assert!(output.status.success(), "{name}: {output:?}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), said, "{name}");
    }
}
