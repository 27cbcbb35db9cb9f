//! What a connection begins with, before its first frame.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use std::net::TcpListener;
use std::thread;

use common::program::{Server, check, closed, frame, framelet, odd_server, read_frame};
use common::{Pieces, Step, Tail};
use framelet::stream::ReadError;
use framelet::wire::{Fault, ProxyVersion};
use framelet::{FrameReader, Server as LibraryServer};
use futures_lite::future::block_on;
use futures_lite::stream;

/// Reads exactly so many bytes.
fn read(stream: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut read = vec![0; bytes];
    stream.read_exact(&mut read).unwrap();
    read
}

#[test]
fn a_preamble_is_skipped_however_it_arrives() {
    let bytes = [&[7; 10][..], &frame(b"one"), &frame(b""), &frame(b"three")].concat();
    for first in 1..bytes.len() {
        let steps = [Step::Give(first), Step::Pend];
        let mut reader = FrameReader::new(Pieces::new(&bytes, steps, Tail::End)).skip(10);
        for (message, offset) in [(&b"one"[..], 17), (b"", 21), (b"three", 30)] {
            assert_eq!(block_on(reader.read()).unwrap().as_deref(), Some(message), "{first}");
            assert_eq!(reader.at().offset, offset);
        }
        assert_eq!(block_on(reader.read()).unwrap(), None);
    }
}

#[test]
fn an_end_inside_the_preamble_is_an_error_and_one_before_it_is_not() {
    assert_eq!(block_on(FrameReader::new(&b""[..]).skip(4).read()).unwrap(), None);
    assert_eq!(block_on(FrameReader::new(&b"1234"[..]).skip(4).read()).unwrap(), None);
    let mut reader = FrameReader::new(&b"123"[..]).skip(4);
    for _ in 0..2 {
        let error = block_on(reader.read()).unwrap_err();
        let ReadError::Protocol(protocol) = &error else { panic!("{error}") };
        assert_eq!(protocol.fault, Fault::TruncatedPreamble { got: 3, want: 4 });
        assert_eq!(
            error.to_string(),
            "message 1 at byte 0: the stream ended inside the preamble, before the first message: \
             got 3 of 4 bytes"
        );
    }
}

#[test]
fn advice_about_the_first_frame_does_not_count_the_preamble() {
    let plain = b"\x05\0\0\0hello\x05\0\0\0hello";
    let after = [&b"MAGIC"[..], plain].concat();
    let suspect = |mut reader: FrameReader<&[u8]>| match block_on(reader.read()) {
        Err(ReadError::Protocol(error)) => error.suspect,
        other => panic!("{other:?}"),
    };
    let expected = suspect(FrameReader::new(plain));
    assert!(expected.is_some());
    assert_eq!(suspect(FrameReader::new(&after[..]).skip(5)), expected);
}

#[test]
fn a_server_sends_its_preamble_at_once_and_skips_that_of_the_client() {
    let arguments = ["--echo", "--preamble", "00535000", "--skip", "3"];
    let server = Server::start(&[&arguments[..], &["--output", "json"]].concat());
    let mut stream = server.connect();
    assert_eq!(read(&mut stream, 4), b"\0SP\0");
    stream.write_all(&[b"abc", &frame(b"hello")[..]].concat()).unwrap();
    assert_eq!(read_frame(&mut stream).as_deref(), Some(&b"hello"[..]));
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_frame(&mut stream), None);
    let output = String::from_utf8(server.stop().output).unwrap();
    assert!(output.contains("\"number\":1"), "{output}");
}

#[test]
fn a_preamble_that_stalls_runs_into_the_time_limit_of_messages() {
    let arguments = ["--skip", "8", "--message-timeout", "100ms"];
    let server = Server::start(&arguments);
    let mut stream = server.connect();
    stream.write_all(b"abc").unwrap();
    assert!(closed(&mut stream));
    let log = server.stop().log;
    assert!(
        log.contains("message 1 at byte 0: not complete within 100ms: got 3 of 8 bytes"),
        "{log}"
    );
}

#[test]
fn a_client_that_leaves_inside_the_preamble_is_told_apart() {
    let server = Server::start(&["--skip", "8"]);
    let mut stream = server.connect();
    stream.write_all(b"abc").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(closed(&mut stream));
    let log = server.stop().log;
    assert!(log.contains("ended inside the preamble") && log.contains("got 3 of 8 bytes"), "{log}");
}

#[test]
fn send_and_serve_agree_on_preambles() {
    let server = Server::start(&["--echo", "--preamble", "4f4c4548", "--skip", "4"]);
    let address = server.address.to_string();
    let arguments = ["send", &address, "--preamble", "48454c4f", "--skip", "4", "--expect", "1"];
    let output = framelet(&arguments, b"hello");
    check(&output, 0, &[]);
    assert_eq!(output.stdout, b"hello\n");
    assert_eq!(server.stop().output, b"hello\n");
}

#[test]
fn send_sends_its_preamble_before_there_is_a_message() {
    let address = odd_server(|mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"HELO");
        stream.write_all(&frame(b"seen")).unwrap();
    });
    let output = framelet(&["send", &address, "--preamble", "48454C4F"], b"");
    check(&output, 0, &[]);
    assert_eq!(output.stdout, b"seen\n");
}

#[test]
fn encode_writes_and_decode_skips_a_preamble() {
    let encoded = framelet(&["encode", "--preamble", "4d41474943"], b"hello").stdout;
    assert_eq!(encoded, [&b"MAGIC"[..], &frame(b"hello")].concat());
    let decoded = framelet(&["decode", "--skip", "5"], &encoded);
    check(&decoded, 0, &[]);
    assert_eq!(decoded.stdout, b"hello\n");
    let cut = framelet(&["decode", "--skip", "5"], b"MAG");
    check(&cut, 3, &["ended inside the preamble", "got 3 of 5 bytes"]);
}

#[test]
fn a_preamble_excludes_acknowledgements_and_says_so() {
    for arguments in [["--skip", "1"], ["--preamble", "00"]] {
        let serve =
            framelet(&[&["serve", "127.0.0.1:0", "--require-ack"], &arguments[..]].concat(), b"");
        check(
            &serve,
            2,
            &["a connection with a preamble has no acknowledgements", "--require-ack"],
        );
        let send = framelet(&[&["send", "127.0.0.1:1", "--ack"], &arguments[..]].concat(), b"");
        check(&send, 2, &["a connection with a preamble has no acknowledgements", "--ack"]);
        let nobody = stream::empty::<std::io::Result<(futures_lite::io::Cursor<Vec<u8>>, _)>>();
        let server = LibraryServer::accept_from(nobody).require_acks(true).skip(1);
        assert!(server.check().is_err());
    }
    for odd in ["0", "xy", ""] {
        let output = framelet(&["encode", "--preamble", odd], b"");
        check(&output, 2, &["not bytes in hexadecimal"]);
    }
}

// ---- PROXY protocol

const CLIENT: &str = "203.0.113.7:40000";

fn proxy_header(version: ProxyVersion) -> Vec<u8> {
    version.header(Some((CLIENT.parse().unwrap(), "192.0.2.1:4747".parse().unwrap())))
}

/// Sends these bytes to a server that expects a PROXY header, and returns its output and its log.
fn through_a_balancer(arguments: &[&str], bytes: &[u8]) -> (String, String) {
    let server =
        Server::start(&[&["--proxy-protocol", "-v", "--output", "json"], arguments].concat());
    let mut stream = server.connect();
    stream.write_all(bytes).unwrap();
    let _ = stream.shutdown(Shutdown::Write);
    // The end, or a reset.
    let _ = stream.read_to_end(&mut Vec::new());
    let left = server.stop();
    (String::from_utf8(left.output).unwrap(), left.log)
}

#[test]
fn the_peer_is_the_one_that_the_load_balancer_names() {
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let bytes = [proxy_header(version), frame(b"hello")].concat();
        let (output, log) = through_a_balancer(&[], &bytes);
        assert!(output.contains(&format!("\"peer\":\"{CLIENT}\"")), "{output}");
        assert!(output.contains("hello"), "{output}");
        assert!(log.contains(&format!("connection 1 from {CLIENT}: through 127.0.0.1:")), "{log}");
        assert!(
            log.contains(&format!("connection 1 from {CLIENT}: closed after 1 message")),
            "{log}"
        );
    }
}

#[test]
fn a_load_balancer_that_names_nobody_is_the_peer_itself() {
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let bytes = [version.header(None), frame(b"hello")].concat();
        let (output, log) = through_a_balancer(&[], &bytes);
        assert!(output.contains("\"peer\":\"127.0.0.1:"), "{output}");
        assert!(!log.contains(": through"), "{log}");
    }
}

#[test]
fn a_proxy_header_comes_before_the_preamble() {
    let bytes = [&proxy_header(ProxyVersion::V2), &b"HELO"[..], &frame(b"hello")].concat();
    let (output, log) = through_a_balancer(&["--skip", "4"], &bytes);
    assert!(output.contains("hello") && output.contains(CLIENT), "{output} {log}");
}

#[test]
fn a_connection_without_a_valid_proxy_header_is_refused_in_words() {
    for (bytes, words) in [
        (&frame(b"hello")[..], "not with a PROXY header"),
        (b"GET / HTTP/1.1\r\n\r\n", "looks like HTTP, not with a PROXY header"),
        (b"PROXY TCP4 me you 1 2\r\n", "not a line of version 1"),
        (b"PROXY TCP4 1.2.3.4", "ended inside the PROXY header, after 18 bytes"),
    ] {
        let (output, log) = through_a_balancer(&[], bytes);
        assert!(log.contains("its PROXY header failed") && log.contains(words), "{log}");
        assert_eq!(output, "");
    }
    // What only checks whether somebody listens is no failure.
    let (_, log) = through_a_balancer(&[], b"");
    assert!(log.contains("closed without a message") && !log.contains("failed"), "{log}");
}

#[test]
fn a_server_that_does_not_expect_a_proxy_header_says_how_to_take_it() {
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let server = Server::start(&[]);
        let mut stream = server.connect();
        stream.write_all(&[&proxy_header(version), &frame(b"hello")[..]].concat()).unwrap();
        assert!(closed(&mut stream));
        let log = server.stop().log;
        let words = "a PROXY protocol header: turn it off in the load balancer, or take it here (--proxy-protocol)";
        assert!(log.contains(words), "{log}");
    }
}

#[test]
fn a_proxy_header_that_stalls_runs_into_the_time_limit_of_messages() {
    let server = Server::start(&["--proxy-protocol", "--message-timeout", "100ms"]);
    let mut stream = server.connect();
    stream.write_all(b"PROXY ").unwrap();
    assert!(closed(&mut stream));
    let log = server.stop().log;
    assert!(log.contains("its PROXY header took longer than 100ms"), "{log}");
}

#[test]
fn send_writes_the_proxy_header_that_serve_expects() {
    for version in ["v1", "v2"] {
        let server = Server::start(&["--proxy-protocol", "-v", "--echo"]);
        let address = server.address.to_string();
        let arguments = ["send", &address, "--proxy-protocol", version, "--expect", "1"];
        let output = framelet(&arguments, b"hello");
        check(&output, 0, &[]);
        assert_eq!(output.stdout, b"hello\n");
        let log = server.stop().log;
        // It names the socket that it is sent over.
        let named = log.lines().find_map(|line| line.split_once(": through ")).unwrap();
        assert!(named.0.ends_with(&format!("from {}", named.1)), "{log}");
    }
    let output = framelet(&["send", "--proxy-protocol", "v3"], b"");
    check(&output, 2, &["write v1 or v2"]);
}

#[test]
fn every_client_can_be_the_first_behind_a_server_that_expects_a_proxy_header() {
    let server = Server::start(&["--proxy-protocol", "--output", "json"]);
    let address = server.address.to_string();
    let echoing = Server::start(&["--proxy-protocol", "--echo"]);
    let echo = echoing.address.to_string();
    let bench = ["bench", &echo, "--echo", "--count", "9", "--warm-up", "0s"];
    let send = ["send", &address, "--ack", "--message", "hello"];
    let once: [&str; 2] = ["--retry", "0s"];
    for (arguments, words) in [
        (&["ping", &address, "--timeout", "10s"][..], &[][..]),
        (&[&send[..], &once].concat(), &["sent 1, committed 1"]),
        (&bench, &[]),
    ] {
        for version in ["v1", "v2"] {
            let output = framelet(&[arguments, &["--proxy-protocol", version]].concat(), b"");
            check(&output, 0, words);
        }
        let output = framelet(arguments, b"");
        assert_ne!(output.status.code(), Some(0), "{arguments:?} without a header");
    }
    let output = String::from_utf8(server.stop().output).unwrap();
    assert_eq!(output.matches("hello").count(), 2, "{output}");
    echoing.stop();
}

#[test]
fn a_file_with_a_proxy_header_is_written_read_and_recognised() {
    for version in ["v1", "v2"] {
        let arguments = ["encode", "--input", "lines", "--proxy-protocol", version];
        let nobody = framelet(&arguments, b"hello\n");
        check(&nobody, 0, &[]);
        let output = framelet(&["decode", "--proxy-protocol"], &nobody.stdout);
        check(&output, 0, &["the PROXY header names nobody"]);
        assert_eq!(output.stdout, b"hello\n");
        // It comes first, as on a connection.
        let arguments = [&arguments[..], &["--preamble", "4142"]].concat();
        let header = nobody.stdout.strip_suffix(&frame(b"hello")[..]).unwrap();
        let both = framelet(&arguments, b"hello\n").stdout;
        assert_eq!(both, [header, b"AB", &frame(b"hello")].concat());
    }
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let header = proxy_header(version);
        let bytes = [&header[..], b"HELO", &frame(b"one"), &frame(b"two")].concat();
        let arguments = ["decode", "--proxy-protocol", "--skip", "4", "--output", "json"];
        let output = framelet(&arguments, &bytes);
        check(&output, 0, &[&format!("the PROXY header names {CLIENT}")]);
        let (first, second) = (header.len() + 4, header.len() + 11);
        let said = String::from_utf8(output.stdout).unwrap();
        for (line, offset) in said.lines().zip([first, second]) {
            assert!(line.contains(&format!("\"offset\":{offset},")), "{said}");
        }
        // Without the option, it is said which one is missing.
        check(&framelet(&["decode"], &bytes), 3, &["take it here (--proxy-protocol)"]);
        let bytes = [&header[..], &frame(b"one"), &frame(b"two")].concat();
        let output = framelet(&["detect"], &bytes);
        check(&output, 0, &[&format!("the PROXY header names {CLIENT}")]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.ends_with("framelet decode --layout u32be --proxy-protocol\n"), "{said}");
        // As in decode, what is skipped comes after it.
        let bytes = [&header[..], b"\xff\xfe\xfd", &frame(b"one"), &frame(b"two")].concat();
        let output = framelet(&["detect", "--skip", "3"], &bytes);
        let said = String::from_utf8(output.stdout).unwrap();
        let command = "framelet decode --layout u32be --proxy-protocol --skip 3\n";
        assert!(said.ends_with(command), "{said}");
        let output = framelet(&["decode", "--proxy-protocol", "--skip", "3"], &bytes);
        assert_eq!(output.stdout, b"one\ntwo\n");
        let words = ["the PROXY header names", "nothing follows what is skipped"];
        let output = framelet(&["detect"], &header);
        assert_eq!(output.status.code(), Some(3));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
    for (bytes, words) in [
        (&b"PROXY TCP4 1.2"[..], "ended inside the PROXY header, after 14 bytes"),
        (&frame(b"hello"), "not with a PROXY header"),
        (b"", "ended inside the PROXY header, after 0 bytes"),
    ] {
        check(&framelet(&["decode", "--proxy-protocol"], bytes), 3, &[words]);
    }
    check(&framelet(&["decode", "--proxy-protocol", "/"], b""), 2, &["is a directory"]);
}

#[test]
fn detect_judges_what_follows_the_bytes_to_skip() {
    let bytes = [&b"\xff\xfe\xfd"[..], &frame(b"hello"), &frame(b"world")].concat();
    check(&framelet(&["detect"], &bytes), 3, &["no layout is known"]);
    let output = framelet(&["detect", "--skip", "3"], &bytes);
    check(&output, 0, &[]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.ends_with("framelet decode --layout u32be --skip 3\n"), "{said}");
    let output = framelet(&["detect", "--skip", "3", "--output", "json"], &bytes);
    assert!(String::from_utf8(output.stdout).unwrap().contains("\"skip\":3"));
    check(
        &framelet(&["detect", "--skip", "22"], &bytes),
        3,
        &["there are only 21 bytes to skip (--skip)"],
    );
    check(&framelet(&["detect", "--skip", "21"], &bytes), 3, &["nothing to judge"]);
}

#[test]
fn a_client_behind_a_load_balancer_gets_acknowledgements() {
    let server = Server::start(&["--proxy-protocol", "--require-ack", "--output", "json"]);
    let balancer = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = balancer.local_addr().unwrap().to_string();
    let mut to_server = server.connect();
    let passing = thread::spawn(move || {
        let mut client = balancer.accept().unwrap().0;
        to_server.write_all(&proxy_header(ProxyVersion::V2)).unwrap();
        let (mut from_server, mut to_client) =
            (to_server.try_clone().unwrap(), client.try_clone().unwrap());
        let back = thread::spawn(move || {
            let _ = std::io::copy(&mut from_server, &mut to_client);
            let _ = to_client.shutdown(Shutdown::Write);
        });
        let _ = std::io::copy(&mut client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
        back.join().unwrap();
    });
    let output = framelet(&["send", &address, "--ack"], b"hello");
    check(&output, 0, &["committed 1"]);
    passing.join().unwrap();
    let output = String::from_utf8(server.stop().output).unwrap();
    assert!(output.contains("hello") && output.contains(CLIENT), "{output}");
}
