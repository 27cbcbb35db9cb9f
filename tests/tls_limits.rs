//! What a TLS peer that stops in the middle can take: memory, and time.

#![cfg(target_os = "linux")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use common::program::{Server, frame};
use common::tls::Certificates;
use futures_rustls::rustls::ClientConnection;
use futures_rustls::rustls::version::TLS13;

/// The longest record, in bytes.
const RECORD: usize = 18 * 1024;

/// What an idle connection may take: about a kilobyte without TLS, and the state of rustls.
const IDLE: usize = 7 * 1024;

fn serve(files: &Certificates, arguments: &[&str]) -> Server {
    let (certificate, key) = (files.text("server.pem"), files.text("server.key"));
    let tls = ["--tls-cert", &certificate, "--tls-key", &key, "--output", "none"];
    Server::start(&[&tls[..], arguments].concat())
}

/// A client after its handshake.
struct Client {
    tls: ClientConnection,
    tcp: TcpStream,
}

impl Client {
    fn connect(server: &Server, files: &Certificates) -> Client {
        let name = "localhost".try_into().unwrap();
        let mut tls = ClientConnection::new(files.other_config(&[&TLS13], None), name).unwrap();
        tls.set_buffer_limit(None);
        let mut tcp = server.connect();
        while tls.is_handshaking() || tls.wants_write() {
            tls.complete_io(&mut tcp).unwrap();
        }
        Client { tls, tcp }
    }

    /// Encrypts bytes and sends what results, but for the last `left_out` bytes of it, which it returns.
    fn send_all_but(&mut self, left_out: usize, bytes: &[u8]) -> Vec<u8> {
        let mut records = Vec::new();
        self.tls.writer().write_all(bytes).unwrap();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut records).unwrap();
        }
        let rest = records.split_off(records.len() - left_out);
        self.tcp.write_all(&records).unwrap();
        rest
    }
}

/// Waits until the server has read what it is going to read: that shows by nothing else.
fn settle(server: &Server) {
    let mut before = None;
    while before.replace(server.cpu()) != Some(server.cpu()) {
        thread::sleep(Duration::from_millis(300));
    }
}

/// P24, with TLS: beside `--memory`, a connection takes at most the part of a record that has arrived.
#[test]
fn p24_a_part_of_a_record_is_all_that_a_connection_takes_beside_the_memory() {
    const MEMORY: usize = 8 << 20;
    let files = Certificates::new();
    // Nearly a whole record; and much more than there is memory for, of messages of which nothing is handed on.
    let part = frame(&[b'm'; 16_000]);
    let much = [&u32::try_from(4 << 20).unwrap().to_be_bytes()[..], &[b'm'; 100_000]].concat();
    for (name, connections, left_out, bytes, memory) in
        [("part", 500, 1, &part, 0), ("much", 500, 100, &much, MEMORY)]
    {
        let server = serve(&files, &["--memory", "8MiB", "--max-message", "4MiB"]);
        let before = server.memory();
        let mut clients = Vec::new();
        for _ in 0..connections {
            let mut client = Client::connect(&server, &files);
            client.send_all_but(left_out, bytes);
            clients.push(client);
        }
        settle(&server);
        let growth = server.peak_memory().saturating_sub(before);
        let allowed = memory + connections * (IDLE + RECORD) + (4 << 20);
        println!("{name}: {growth} of {allowed}");
        assert!(growth <= allowed, "{name}: {growth} bytes of {allowed}");
    }
}

/// Otherwise such a connection would hold its memory for ever: no message has begun.
#[test]
fn a_part_of_a_record_has_the_time_limit_of_a_message() {
    let files = Certificates::new();
    let server = serve(&files, &["--message-timeout", "300ms"]);
    let mut idle = Client::connect(&server, &files);
    let rest = idle.send_all_but(10, &frame(b"whole"));
    idle.tcp.write_all(&rest).unwrap();
    for left_out in [1, 60] {
        let mut stalled = Client::connect(&server, &files);
        stalled.send_all_but(0, &frame(b"whole"));
        stalled.send_all_but(left_out, &frame(&[b'm'; 50]));
        // It gets half a frame, as the mark of an unclean end, and then the reset.
        let _ = stalled.tcp.read_to_end(&mut Vec::new());
    }
    // One that is between two records stays.
    idle.send_all_but(0, &frame(b"whole"));
    idle.tls.send_close_notify();
    idle.send_all_but(0, b"");
    idle.tcp.read_to_end(&mut Vec::new()).unwrap();
    let log = server.stop().log;
    let words = "not complete within 300ms: got 0 bytes of the prefix (--message-timeout)";
    assert_eq!(log.matches(words).count(), 2, "{log}");
    assert!(log.contains("4 messages"), "{log}");
}
