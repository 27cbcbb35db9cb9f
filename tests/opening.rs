//! What a connection begins with, before its first frame.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use common::program::{Server, check, closed, frame, framelet, odd_server, read_frame};
use common::{Pieces, Step, Tail};
use framelet::stream::ReadError;
use framelet::wire::Fault;
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
