//! Attacks on the program that are about TLS, names, links in the file system, and hellos. `SECURITY.md` lists them, and
//! those of other files.

#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::program::{
    PATIENCE, Running, Server, check, closed, frame, framelet, logged, measured, read_frame, said,
};
use common::tls::Certificates;
use futures_rustls::rustls::pki_types::pem::PemObject;
use futures_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use futures_rustls::rustls::version::{TLS12, TLS13};
use futures_rustls::rustls::{ClientConnection, StreamOwned, SupportedProtocolVersion};
use rcgen::{CertificateParams, DnType, SanType};
use rustix::process::Signal;

const MIB: usize = 1 << 20;

/// Another implementation's TLS connection.
type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// The certificates of a client, and their key.
type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Starts a server that speaks TLS and echoes.
fn echo(files: &Certificates, arguments: &[&str]) -> Server {
    let (certificate, key) = (files.text("server.pem"), files.text("server.key"));
    let tls = ["--echo", "--output", "none", "--tls-cert", &certificate, "--tls-key", &key];
    Server::start(&[&tls[..], arguments].concat())
}

fn connect(
    files: &Certificates,
    server: &Server,
    version: &'static SupportedProtocolVersion,
    identity: Option<Identity>,
) -> TlsStream {
    let config = files.other_config(&[version], identity);
    let connection = ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
    StreamOwned::new(connection, server.connect())
}

/// Checks that an honest client is served, with a handshake of its own; returns how long it took.
#[track_caller]
fn is_served(files: &Certificates, server: &Server) -> Duration {
    let started = Instant::now();
    let mut stream = connect(files, server, &TLS13, None);
    stream.write_all(&frame(b"honest")).unwrap();
    assert_eq!(read_frame(&mut stream).as_deref(), Some(&b"honest"[..]));
    started.elapsed()
}

/// Returns the first bytes of a handshake: a record, and in it a ClientHello of `len` bytes.
fn announced(len: u32) -> Vec<u8> {
    let len = len.to_be_bytes();
    [&[0x16, 3, 1, 0x40, 0, 1, len[1], len[2], len[3], 3, 3][..], &[7; 32]].concat()
}

/// Checks that nothing in a text drives a terminal.
#[track_caller]
fn is_harmless(text: &str) {
    let raw = text.chars().find(|&c| c != '\n' && (c.is_control() || c == '\u{202e}'));
    assert_eq!(raw, None, "{text:?}");
}

/// Half of them send nothing after their first bytes, the others a byte each tenth of a second.
#[test]
fn handshakes_that_stall_are_ended_and_hold_up_nobody() {
    const STALLING: usize = 200;
    let files = Certificates::new();
    let server = echo(&files, &["--message-timeout", "2s"]);
    is_served(&files, &server);
    let before = server.memory();
    let mut streams: Vec<TcpStream> = (0..STALLING)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(&announced(10_000)).unwrap();
            stream.set_nonblocking(true).unwrap();
            stream
        })
        .collect();
    let begun = Instant::now();
    let ended = AtomicUsize::new(0);
    let (served, longest, growth) = thread::scope(|scope| {
        scope.spawn(|| {
            while !streams.is_empty() && begun.elapsed() < PATIENCE {
                let mut index = 0;
                streams.retain_mut(|stream| {
                    index += 1;
                    if index % 2 == 0 {
                        let _ = stream.write(b"x");
                    }
                    matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
                });
                ended.store(STALLING - streams.len(), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(100));
            }
        });
        let (mut served, mut longest, mut growth) = (0, Duration::ZERO, 0);
        while ended.load(Ordering::Relaxed) < STALLING {
            assert!(begun.elapsed() < PATIENCE, "only {ended:?} were ended");
            longest = longest.max(is_served(&files, &server));
            growth = server.memory().saturating_sub(before).max(growth);
            served += usize::from(ended.load(Ordering::Relaxed) == 0);
        }
        (served, longest, growth)
    });
    assert!(served > 0, "nobody was served while they stalled");
    let each = growth / STALLING;
    assert!(each < 32 * 1024, "{each} bytes for each handshake");
    let log = server.stop().log;
    let told = logged(&log, "its TLS handshake took longer than 2s", "connections that were not");
    assert_eq!(told, STALLING as u64, "{log}");
    measured(format_args!(
        "all ended; {} KiB each; the slowest honest client took {} ms",
        each / 1024,
        longest.as_millis()
    ));
}

#[test]
fn a_thousand_handshakes_of_garbage_cost_little_and_are_counted() {
    const ROUNDS: usize = 1000;
    let files = Certificates::new();
    let server = echo(&files, &[]);
    is_served(&files, &server);
    let (before, cpu, started) = (server.memory(), server.cpu(), Instant::now());
    let mut random = fastrand::Rng::with_seed(11);
    for round in 0..ROUNDS {
        let mut bytes = match round % 6 {
            0 => b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            1 => announced(0xff_ffff),
            2 => b"\x16\x03\x01\x00\x05hello".to_vec(),
            3 => b"\x17\x03\x03\x40\x00".to_vec(),
            4 => b"\x80\x2e\x01\x00\x02".to_vec(),
            _ => vec![0x16],
        };
        bytes.extend((0..random.usize(1..20_000)).map(|_| random.u8(..)));
        let mut stream = server.connect();
        // The server may have closed it already.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        // It may get an alert first.
        let end = stream.read_to_end(&mut Vec::new());
        assert!(end.is_ok() || end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
    }
    let (cpu, took) = (server.cpu() - cpu, started.elapsed());
    is_served(&files, &server);
    let growth = server.memory().saturating_sub(before);
    assert!(growth < 4 * MIB, "grew by {growth} bytes");
    let log = server.stop().log;
    let told = logged(&log, "its TLS handshake failed", "connections whose setup failed");
    assert_eq!(told, ROUNDS as u64, "{log}");
    let lines = log.lines().count();
    let seconds = usize::try_from(took.as_secs()).unwrap() + 1;
    assert!(lines <= 20 * seconds + 10, "{lines} lines in {seconds} s");
    is_harmless(&log);
    measured(format_args!(
        "{} µs of CPU each in a debug build; grew by {} KiB; {lines} lines of log",
        cpu.as_micros() / ROUNDS as u128,
        growth / 1024
    ));
}

#[test]
fn an_idle_tls_connection_takes_little() {
    const CONNECTIONS: usize = 400;
    let files = Certificates::new();
    let server = echo(&files, &[]);
    is_served(&files, &server);
    let before = server.memory();
    let idle: Vec<TlsStream> = (0..CONNECTIONS)
        .map(|_| {
            let mut stream = connect(&files, &server, &TLS13, None);
            stream.write_all(&frame(b"then nothing")).unwrap();
            assert_eq!(read_frame(&mut stream).as_deref(), Some(&b"then nothing"[..]));
            stream
        })
        .collect();
    let each = server.memory().saturating_sub(before) / CONNECTIONS;
    drop(idle);
    assert!(each < 8 * 1024, "{each} bytes for each connection");
    measured(format_args!("{each} bytes for each of {CONNECTIONS} connections"));
}

/// A chain of certificates that is longer than a handshake may be.
#[test]
fn a_chain_of_certificates_without_end_is_refused() {
    const CONNECTIONS: usize = 50;
    let files = Certificates::new();
    files.client("client", &[(DnType::CommonName, "00c0ffee")]);
    let certificate = CertificateDer::from_pem_file(files.path("client.pem")).unwrap();
    let key = || PrivateKeyDer::from_pem_file(files.path("client.key")).unwrap();
    let server = echo(&files, &["--tls-client-ca", &files.text("ca.pem")]);
    let serve_one = || {
        let mut stream = connect(&files, &server, &TLS13, Some((vec![certificate.clone()], key())));
        stream.write_all(&frame(b"honest")).unwrap();
        assert_eq!(read_frame(&mut stream).as_deref(), Some(&b"honest"[..]));
    };
    serve_one();
    let before = server.memory();
    let chain = vec![certificate.clone(); 200_000 / certificate.len()];
    for index in 0..CONNECTIONS {
        let version = if index % 2 == 0 { &TLS12 } else { &TLS13 };
        let mut stream = connect(&files, &server, version, Some((chain.clone(), key())));
        let answer = stream.write_all(&frame(b"me?")).and_then(|()| stream.read(&mut [0; 10]));
        assert!(!answer.is_ok_and(|read| read > 0), "it was served");
    }
    serve_one();
    let growth = server.peak_memory().saturating_sub(before);
    assert!(growth < 4 * MIB, "grew by {growth} bytes");
    let log = server.stop().log;
    let told = logged(&log, "its TLS handshake failed", "connections whose setup failed");
    assert_eq!(told, CONNECTIONS as u64, "{log}");
    measured(format_args!(
        "{CONNECTIONS} chains of {} KiB refused; grew by {} KiB",
        chain.len() * certificate.len() / 1024,
        growth / 1024
    ));
}

/// Each change of keys asks the server to change its own, and the client never reads what it says.
#[test]
fn changes_of_keys_without_end_take_no_memory_and_end_the_connection() {
    const CHANGES: usize = 10_000;
    let files = Certificates::new();
    let server = echo(&files, &[]);
    is_served(&files, &server);
    let before = server.memory();
    let mut stream = connect(&files, &server, &TLS13, None);
    stream.write_all(&frame(b"first")).unwrap();
    assert_eq!(read_frame(&mut stream).as_deref(), Some(&b"first"[..]));
    // With a byte of a message after each, it is allowed.
    stream.write_all(&u32::try_from(CHANGES).unwrap().to_be_bytes()).unwrap();
    for _ in 0..CHANGES {
        stream.conn.refresh_traffic_keys().unwrap();
        stream.write_all(b"x").unwrap();
    }
    assert_eq!(read_frame(&mut stream).map(|reply| reply.len()), Some(CHANGES));
    let growth = server.peak_memory().saturating_sub(before);
    assert!(growth < 4 * MIB, "grew by {growth} bytes");
    // Without one, it is not.
    let changes = (1..=CHANGES).find(|_| {
        stream.conn.refresh_traffic_keys().unwrap();
        let sent = stream.flush();
        sent.is_err()
    });
    // The server has ended it long before, but this side may have been able to send all of them.
    assert!(closed_by_server(&mut stream), "after {changes:?}");
    is_served(&files, &server);
    let log = server.stop().log;
    assert!(log.contains("the client broke the TLS protocol: TooManyKeyUpdateRequests"), "{log}");
    measured(format_args!("{CHANGES} changes grew by {} KiB", growth / 1024));
}

fn closed_by_server(stream: &mut TlsStream) -> bool {
    !stream.read(&mut [0; 10]).is_ok_and(|read| read > 0)
}

/// OpenSSL's client can ask for a new handshake on a connection of TLS 1.2.
#[test]
fn a_client_cannot_renegotiate() {
    let openssl = Command::new("openssl").arg("version").output();
    if openssl.is_err() {
        eprintln!("NOT RUN: openssl is not installed");
        return;
    }
    const CLIENTS: usize = 10;
    let files = Certificates::new();
    // To it, one that asks is idle.
    let server = echo(&files, &["--idle-timeout", "1s"]);
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = Command::new("openssl");
        client.args(["s_client", "-tls1_2", "-msg", "-CAfile", &files.text("ca.pem")]);
        client.args(["-connect", &server.address.to_string()]);
        let (client, mut input) = Running::start_with_input(client);
        // A line with this letter alone is a command.
        input.write_all(b"R\n").unwrap();
        clients.push((client, input));
    }
    for (client, input) in clients {
        let output = client.wait();
        drop(input);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let lines = |end: &str| said.lines().filter(|line| line.ends_with(end)).count();
        assert_eq!((lines(", ClientHello"), lines(", ServerHello")), (2, 1), "{said}");
    }
    is_served(&files, &server);
    let log = server.stop().log;
    let told = logged(&log, "idle for 1s", "idle connections");
    assert_eq!(told, CLIENTS as u64, "{log}");
    measured(format_args!("{CLIENTS} attempts, no second handshake"));
}

const HOSTILE: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\r\nfake\u{202e}line";

/// P22, for names: those in certificates of clients and servers, and in the headers of load balancers.
#[test]
fn names_of_peers_cannot_drive_a_terminal() {
    let files = Certificates::new();
    files.client("client", &[(DnType::CommonName, HOSTILE)]);
    let (certificate, key, ca) =
        (files.text("server.pem"), files.text("server.key"), files.text("ca.pem"));
    let tls = ["--tls-cert", &certificate, "--tls-key", &key, "--tls-client-ca", &ca];
    let server =
        Server::start(&[&tls[..], &["--output", "json", "-v", "--tls-bind-sender"]].concat());
    let address = server.address.to_string();
    let (own, own_key) = (files.text("client.pem"), files.text("client.key"));
    let client = ["--tls", "--tls-ca", &ca, "--tls-cert", &own, "--tls-key", &own_key];
    let send = [&["send", &address, "--message", "hello"], &client[..]].concat();
    check(&framelet(&send, b""), 0, &[]);
    // Its name is in the refusal, too.
    let refused = framelet(&[&send[..], &["--ack"]].concat(), b"");
    check(&refused, 1, &["the server refuses: "]);
    is_harmless(&said(&refused));
    let left = server.stop();
    let output = String::from_utf8(left.output).unwrap();
    assert!(output.contains("fake") && left.log.contains("fake"), "{output} {}", left.log);
    is_harmless(&output);
    is_harmless(&left.log);

    // Letters that a name in a certificate can have are those of ASCII.
    let mut params = CertificateParams::new([]).unwrap();
    let name = HOSTILE.replace('\u{202e}', "") + ".example";
    params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
    files.make("server", params);
    let server = echo(&files, &[]);
    let address = server.address.to_string();
    let sent = framelet(&["send", &address, "--message", "hello", "--tls", "--tls-ca", &ca], b"");
    assert_eq!(sent.status.code(), Some(1), "{}", said(&sent));
    is_harmless(&said(&sent));
    is_harmless(&server.stop().log);

    let server = Server::start(&["--proxy-protocol", "--output", "json", "-v"]);
    for header in [format!("PROXY TCP4 {HOSTILE} 1.2.3.4 1 2\r\n"), format!("PROXY {HOSTILE}\r\n")]
    {
        let mut stream = server.connect();
        stream.write_all(header.as_bytes()).unwrap();
        let _ = stream.shutdown(Shutdown::Write);
        assert!(closed(&mut stream));
    }
    let log = server.stop().log;
    assert_eq!(log.matches("its PROXY header failed").count(), 2, "{log}");
    is_harmless(&log);
    measured("no control character in the log, in JSON or in an error");
}

/// Somebody else may write to the directory, and has put links where framelet creates files.
#[test]
fn links_that_others_have_put_beside_a_file_are_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let precious = path("precious");
    fs::write(&precious, "precious").unwrap();
    let to = format!("file:{}", path("messages").display());
    let server = Server::start(&["--to", &to]);
    let address = server.address.to_string();
    check(&framelet(&["send", &address, "--message", "one"], b""), 0, &[]);
    server.signal(Signal::KILL);
    server.wait();
    fs::OpenOptions::new().append(true).open(path("messages")).unwrap().write_all(b"tw").unwrap();
    let links = ["messages.torn-1", "messages.framelet.new", "sender.new"];
    for link in links {
        symlink(&precious, path(link)).unwrap();
    }
    let server = Server::start(&["--to", &to]);
    let sender = path("sender");
    let arguments = ["send", &server.address.to_string(), "--ack", "--message", "three"];
    let sender = ["--sender-file", sender.to_str().unwrap()];
    check(&framelet(&[&arguments[..], &sender].concat(), b""), 0, &["committed 1"]);
    let left = server.stop();
    assert!(left.status.success(), "{}", left.log);
    assert_eq!(fs::read_to_string(path("messages")).unwrap(), "one\nthree\n");
    assert_eq!(fs::read_to_string(path("messages.torn-2")).unwrap(), "tw");
    for created in ["messages.framelet", "sender"] {
        assert!(fs::symlink_metadata(path(created)).unwrap().is_file(), "{created}");
    }
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");

    // A format is a name, and never a path.
    let file = path("format").display().to_string();
    for format in [&file[..], "../format", "lines/../format"] {
        let refused = framelet(&["serve", ":0", "--output", format], b"");
        assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    }
    assert!(!path("format").exists());
    measured(format_args!("{} links, none followed", links.len()));
}

/// P30, for SQLite.
#[cfg(feature = "sqlite")]
#[test]
fn a_hello_alone_leaves_nothing_in_a_database() {
    use common::acks::read_answer;
    use framelet::Layout;
    use framelet::wire::{Hello, SenderId};

    const THREADS: u8 = 8;
    const HELLOS: usize = 250;
    const HONEST: u64 = 500;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages.db");
    let server = Server::start(&["--to", &format!("sqlite:{}", path.display())]);
    let say_hello = |sender| {
        let mut stream = server.connect();
        let hello = Hello { sender, first: 1 }.encode(Layout::U32BE).unwrap();
        stream.write_all(&hello).unwrap();
        assert_eq!(read_answer(&mut stream), Some(Ok(0)));
        stream
    };
    let mut honest = say_hello(SenderId::from_bytes([0xff; 16]));
    let mut waits = Vec::new();
    thread::scope(|scope| {
        for seed in 0..THREADS {
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed.into());
                for _ in 0..HELLOS {
                    let mut id = [0; 16];
                    id.fill_with(|| random.u8(..));
                    drop(say_hello(SenderId::from_bytes(id)));
                }
            });
        }
        for number in 1..=HONEST {
            let sent = Instant::now();
            honest.write_all(&frame(b"honest")).unwrap();
            // The count may be that of an earlier message still.
            while read_answer(&mut honest).unwrap().unwrap() < number {}
            waits.push(sent.elapsed());
        }
    });
    drop(honest);
    let left = server.stop();
    assert!(left.status.success(), "{}", left.log);
    let database = rusqlite::Connection::open(&path).unwrap();
    let count = |table: &str| {
        let query = format!("SELECT count(*) FROM {table}");
        database.query_row(&query, [], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert_eq!((count("messages"), count("senders")), (500, 1));
    waits.sort_unstable();
    measured(format_args!(
        "{} hellos, no row; 99 of 100 honest messages were committed within {:.1?}",
        usize::from(THREADS) * HELLOS,
        waits[waits.len() * 99 / 100]
    ));
}
