//! `framelet ping`: what a health check sees of a server, and what it leaves there.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::process::{Command, Output};

use common::program::{FRAMELET, Server, check, frame, framelet, odd_server, wait_until};

fn ping(address: &str, options: &[&str]) -> Output {
    framelet(&[&["ping", address], options].concat(), b"")
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_server_that_works_is_said_to_acknowledge_and_keeps_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages");
    let server = Server::start(&["--to", &format!("file:{}", path.display())]);
    let address = server.address.to_string();
    for _ in 0..3 {
        let output = ping(&address, &[]);
        check(&output, 0, &[]);
        let said = said(&output);
        let expected = format!("{address} accepts connections and acknowledges, ");
        assert!(said.starts_with(&expected) && said.ends_with(" ms\n"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let log = server.stop().log;
    assert!(std::fs::read(&path).unwrap().is_empty());
    // Not a line for a probe, as long as nobody asks for them.
    assert!(log.ends_with("0 messages over 3 connections\n") && log.lines().count() == 2, "{log}");
}

#[cfg(feature = "sqlite")]
#[test]
fn a_database_keeps_no_row_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages.db");
    let server = Server::start(&["--to", &format!("sqlite:{}", path.display())]);
    let address = server.address.to_string();
    check(&ping(&address, &[]), 0, &[]);
    let database = rusqlite::Connection::open(&path).unwrap();
    let rows = |table| -> i64 {
        database.query_row(&format!("SELECT count(*) FROM {table}"), (), |row| row.get(0)).unwrap()
    };
    assert_eq!((rows("messages"), rows("senders")), (0, 0));
    server.stop();
}

#[test]
fn a_server_whose_sink_waits_is_not_said_to_work() {
    let mut command = Command::new(FRAMELET);
    command.args(["serve", "127.0.0.1:0"]);
    // Nobody reads what it prints.
    let mut server = Server::spawn_stalled(command);
    let address = server.address.to_string();
    check(&ping(&address, &[]), 0, &[]);
    let mut stream = server.connect();
    stream.write_all(&frame(&vec![b'x'; 1 << 20])).unwrap();
    wait_until("a full pipe", || server.unread_output() > 0);
    let output = ping(&address, &["--timeout", "300ms"]);
    check(
        &output,
        4,
        &["accepts connections, but has not answered within 300ms", "its sink waits"],
    );
    check(&ping(&address, &["--connect"]), 0, &[]);
    server.resume();
    check(&ping(&address, &[]), 0, &[]);
    drop(stream);
    assert!(server.stop().status.success());
}

#[test]
fn a_server_that_gives_no_acknowledgements_is_alive() {
    for (options, why) in [
        (&["--echo"][..], "a server that replies gives no acknowledgements"),
        (&["--output", "none"], "it drops what it receives, so there is nothing to acknowledge"),
    ] {
        let server = Server::start(options);
        let output = ping(&server.address.to_string(), &[]);
        check(&output, 0, &[]);
        assert!(said(&output).contains(&format!("accepts connections and answers ({why})")));
        assert!(server.stop().status.success());
    }
}

#[test]
fn a_unix_socket_is_checked_in_another_layout() {
    let directory = tempfile::tempdir().unwrap();
    let address = format!("unix:{}", directory.path().join("socket").display());
    let mut command = Command::new(FRAMELET);
    command.args(["serve", &address, "--layout", "u64le"]);
    let server = Server::spawn(command);
    let output = ping(&address, &["--layout", "u64le"]);
    check(&output, 0, &[]);
    assert!(said(&output).starts_with(&format!("{address} accepts connections and acknowledges")));
    check(&ping(&address, &["--layout", "u16be"]), 2, &["(--layout)", "--connect"]);
    server.stop();
}

#[test]
fn to_connect_only_sends_nothing() {
    let address = odd_server(|mut stream| {
        let mut bytes = Vec::new();
        // Nothing arrives before the end.
        assert_eq!(stream.read_to_end(&mut bytes).unwrap(), 0, "{bytes:x?}");
    });
    let output = ping(&address, &["--connect"]);
    check(&output, 0, &[]);
    let expected = format!("{address} accepts connections, ");
    assert!(said(&output).starts_with(&expected), "{}", said(&output));
}

#[test]
fn each_failure_has_its_exit_code_and_its_reason() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for options in [&[][..], &["--connect"]] {
        check(&ping(&free, options), 1, &["cannot connect to", "is the server running?"]);
    }
    let silent = odd_server(|mut stream| drop(stream.read_to_end(&mut Vec::new())));
    let output = ping(&silent, &["--timeout", "200ms"]);
    check(&output, 4, &["accepts connections, but has not answered within 200ms"]);
    let leaves = odd_server(|mut stream| {
        stream.read_exact(&mut [0; 33]).unwrap();
        stream.shutdown(Shutdown::Both).unwrap();
    });
    check(&ping(&leaves, &[]), 1, &["accepts connections, but it closed the connection"]);
    for garbage in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"\0\0\0\x05hello"] {
        let odd = odd_server(move |mut stream| {
            stream.write_all(garbage).unwrap();
            drop(stream.read_to_end(&mut Vec::new()));
        });
        check(&ping(&odd, &[]), 3, &["accepts connections, but it gives no acknowledgements"]);
    }
    check(&ping("nonsense", &[]), 2, &["a port is missing"]);
}
