//! Large messages, of which the server is not woken for each piece.

#![cfg(target_os = "linux")]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use common::program::{PATIENCE, Server, closed, frame, wait_until};
use framelet::net::Listener;
use framelet::server::Echo;
use rustix::process::Signal;
use socket2::SockRef;

const MIB: usize = 1 << 20;

/// Returns a payload of which no two pieces are the same.
fn payload(len: usize) -> Vec<u8> {
    (0..len.div_ceil(4)).flat_map(|n| u32::try_from(n).unwrap().to_be_bytes()).take(len).collect()
}

/// Connects and sends a large message. So the server has an unused buffer for all of the next one.
fn connect(server: &Server) -> TcpStream {
    let mut stream = server.connect();
    stream.write_all(&frame(&payload(MIB))).unwrap();
    stream
}

/// Sends the start of a large message, and the rest of `bytes` after the server has most likely begun to wait.
fn send_start(stream: &mut TcpStream, bytes: &[u8]) {
    let (start, rest) = bytes.split_at(1000);
    stream.write_all(start).unwrap();
    thread::sleep(Duration::from_millis(50));
    stream.write_all(rest).unwrap();
}

#[test]
fn a_large_message_in_small_pieces_is_read_whole_and_the_next_one_at_once() {
    // At the deadline, all that has arrived would be read.
    let server = Server::start(&["--output", "frames", "--message-timeout", "1h"]);
    let mut stream = connect(&server);
    let mut expected = frame(&payload(MIB));
    // Those that end in one piece, in a large one, and in a small one.
    for len in [MIB, 640 * 1024, 513 * 1024, 128 * 1024, 3 * MIB] {
        let (large, small) = (frame(&payload(len)), frame(b"ten bytes!"));
        for piece in large.chunks(30_000) {
            stream.write_all(piece).unwrap();
            thread::sleep(Duration::from_micros(500));
        }
        expected.extend(large);
        server.wait_for_output(expected.len());
        stream.write_all(&small).unwrap();
        expected.extend(small);
        server.wait_for_output(expected.len());
    }
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    assert!(server.stop().output == expected);
}

/// Returns how the log describes the end of a message of which only `given` bytes come.
fn unfinished(arguments: &[&str], given: usize, end: impl FnOnce(&TcpStream)) -> String {
    let server = Server::start(&[&["--output", "none"], arguments].concat());
    let mut stream = connect(&server);
    send_start(&mut stream, &frame(&payload(MIB))[..given]);
    end(&stream);
    server.wait_for_log("message 2 at byte 1048580", 1);
    drop(stream);
    server.stop().log
}

#[test]
fn what_came_of_a_message_that_stalls_is_counted_at_its_deadline() {
    let log = unfinished(&["--message-timeout", "500ms"], 102_400, |_| {});
    assert!(log.contains("not complete within 500ms"), "{log}");
    assert!(log.contains("got 102400 of 1048580 bytes"), "{log}");
}

#[test]
fn what_came_of_a_message_is_counted_when_its_sender_ends() {
    for given in [102_400, 700_000] {
        let log = unfinished(&[], given, |stream| stream.shutdown(Shutdown::Write).unwrap());
        assert!(log.contains(&format!("{} of 1048576", given - 4)), "{log}");
    }
}

#[test]
fn what_was_sent_before_a_signal_is_read_though_nobody_was_woken_for_it() {
    let server = Server::start(&["--output", "frames", "-v"]);
    let mut stream = connect(&server);
    server.wait_for_output(MIB + 4);
    let message = frame(&payload(MIB));
    let (start, rest) = message.split_at(300_000);
    send_start(&mut stream, start);
    // On this machine, what was written has arrived.
    server.signal(Signal::TERM);
    wait_until("the end of the listener", || TcpStream::connect(server.address).is_err());
    stream.write_all(rest).unwrap();
    assert!(closed(&mut stream));
    assert!(server.wait().output == [&message[..], &message].concat());
}

/// The kernel reports what has filled the buffer, however much was waited for.
#[test]
fn a_receive_buffer_smaller_than_a_message_does_not_stall_it() {
    for size in [1, 10_000, 200_000] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        SockRef::from(&listener).set_recv_buffer_size(size).unwrap();
        let address = listener.local_addr().unwrap();
        let server = framelet::Server::new(Listener::try_from(listener).unwrap());
        let (stop, stopped) = smol::channel::bounded::<()>(1);
        let server = smol::spawn(server.answer(Echo).run(async move {
            let _ = stopped.recv().await;
        }));
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let message = frame(&payload(MIB));
        for _ in 0..3 {
            let mut writer = stream.try_clone().unwrap();
            let sent = message.clone();
            let writing = thread::spawn(move || writer.write_all(&sent));
            let mut echo = vec![0; message.len()];
            stream.read_exact(&mut echo).unwrap();
            assert!(echo == message, "{size}");
            writing.join().unwrap().unwrap();
        }
        drop(stop);
        smol::block_on(server).unwrap();
    }
}
