//! TLS as users of the program see it: what it says when something does not fit.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::process::Output;
use std::thread;

use common::program::{FRAMELET, Running, Server, check, closed, framelet, said};
use common::tls::Certificates;
use rcgen::{CertificateParams, DnType, date_time_ymd};
use rustix::process::Signal;

/// Certificates, and a client's for the common name `00c0ffee`.
fn certificates() -> Certificates {
    let files = Certificates::new();
    let name = [(DnType::OrganizationName, "Example"), (DnType::CommonName, "00c0ffee")];
    files.client("client", &name);
    files
}

/// Starts a server with the certificate of the directory.
fn serve(files: &Certificates, arguments: &[&str]) -> Server {
    let (certificate, key) = (files.text("server.pem"), files.text("server.key"));
    let tls = ["--tls-cert", &certificate, "--tls-key", &key];
    Server::start(&[&tls[..], arguments].concat())
}

/// Sends two lines to `address`; `--tls` and the authority are among the arguments if `ca` is.
fn send(address: &str, ca: Option<&Certificates>, arguments: &[&str]) -> Output {
    let path = ca.map(|files| files.text("ca.pem"));
    let mut all = vec!["send", address, "--input", "lines"];
    all.extend(path.iter().flat_map(|path| ["--tls", "--tls-ca", path]));
    framelet(&[&all[..], arguments].concat(), b"one\ntwo\n")
}

/// Returns the options of a client with its certificate.
fn as_client(files: &Certificates) -> [String; 4] {
    let (certificate, key) = (files.text("client.pem"), files.text("client.key"));
    ["--tls-cert".into(), certificate, "--tls-key".into(), key]
}

fn with<'a>(options: &'a [String; 4], more: &[&'a str]) -> Vec<&'a str> {
    options.iter().map(String::as_str).chain(more.iter().copied()).collect()
}

#[test]
fn messages_are_sent_over_tls_and_their_peer_is_whom_the_certificate_names() {
    let files = certificates();
    let server =
        serve(&files, &["--tls-client-ca", &files.text("ca.pem"), "--output", "json", "-v"]);
    let address = server.address.to_string();
    let client = as_client(&files);
    check(&send(&address, Some(&files), &with(&client, &[])), 0, &[]);
    let acked = send(&address, Some(&files), &with(&client, &["--ack"]));
    check(&acked, 0, &["sent 2, committed 2"]);
    let left = server.stop();
    let output = String::from_utf8(left.output).unwrap();
    assert_eq!(output.matches("\"peer\":\"CN=00c0ffee,O=Example\"").count(), 4, "{output}");
    let log = left.log;
    assert!(log.contains("connection 1 from CN=00c0ffee,O=Example: at 127.0.0.1:"), "{log}");
    assert!(
        log.contains("connection 2 from CN=00c0ffee,O=Example: closed after 2 messages"),
        "{log}"
    );
}

#[test]
fn a_server_is_pinged_over_tls() {
    let files = certificates();
    let server = serve(&files, &["--tls-client-ca", &files.text("ca.pem"), "-v"]);
    let (address, ca, client) =
        (server.address.to_string(), files.text("ca.pem"), as_client(&files));
    let ping = ["ping", &address, "--tls", "--tls-ca", &ca];
    for more in [&[][..], &["--connect"]] {
        let options = with(&client, more);
        check(&framelet(&[&ping[..], &options].concat(), b""), 0, &[]);
    }
    check(&framelet(&ping, b""), 1, &["the server requires a certificate of the client"]);
    server.stop();
}

#[test]
fn replies_arrive_over_tls_and_each_end_is_in_order() {
    let files = certificates();
    let server = serve(&files, &["--echo", "--output", "none", "-v"]);
    let address = server.address.to_string();
    for (number, options) in
        [&[][..], &["--expect", "2"], &["--each"], &["--each", "--hang-up"]].iter().enumerate()
    {
        let sent = send(&address, Some(&files), options);
        check(&sent, 0, &[]);
        assert_eq!(sent.stdout, b"one\ntwo\n", "{options:?}");
        server.wait_for_log(&format!("connection {} from", number + 1), 2);
    }
    let log = server.stop().log;
    assert_eq!(log.matches("closed after 2 messages").count(), 4, "{log}");
}

#[test]
fn a_sender_must_be_one_of_its_certificate_if_senders_are_bound() {
    let files = certificates();
    let bound = ["--tls-client-ca", &files.text("ca.pem"), "--tls-bind-sender"];
    let server = serve(&files, &bound);
    let (address, client) = (server.address.to_string(), as_client(&files));
    let foreign = "10c0ffee000000000000000000000001";
    let refused = send(&address, Some(&files), &with(&client, &["--ack", "--sender", foreign]));
    let words =
        "sender ids must begin with the common name of the client's certificate, which is 00c0ffee";
    check(&refused, 1, &["the server refuses: ", words, "(--sender, --sender-file)"]);
    let own = "00c0ffee000000000000000000000001";
    let accepted = send(&address, Some(&files), &with(&client, &["--ack", "--sender", own]));
    check(&accepted, 0, &["committed 2"]);
    // Messages without a sender are not concerned.
    check(&send(&address, Some(&files), &with(&client, &[])), 0, &[]);
    let left = server.stop();
    assert!(left.log.contains(&format!("refused, since {words}")), "{}", left.log);
    assert_eq!(left.output, b"one\ntwo\none\ntwo\n");
}

#[test]
fn who_is_not_trusted_is_told_why_and_what_to_do() {
    let (files, others) = (certificates(), Certificates::by("another authority"));
    others.client("client", &[(DnType::CommonName, "00c0ffee")]);
    let server = serve(&files, &["--tls-client-ca", &files.text("ca.pem")]);
    let address = server.address.to_string();
    let (own, foreign) = (as_client(&files), as_client(&others));
    let required = "the server requires a certificate of the client (--tls-cert, --tls-key)";
    check(&send(&address, Some(&files), &[]), 1, &[required]);
    // At once, since no attempt will ever succeed.
    check(&send(&address, Some(&files), &["--ack", "--retry", "1h"]), 1, &[required]);
    let untrusted = "signed by an authority that is not trusted here (--tls-ca)";
    check(&send(&address, Some(&others), &["--retry", "1h"]), 1, &[untrusted]);
    let of_others = with(&foreign, &["--ack", "--retry", "1h"]);
    let words = "does not trust the authority that signed the certificate of this client";
    check(&send(&address, Some(&files), &of_others), 1, &[words]);
    #[cfg(feature = "bench")]
    {
        let ca = others.text("ca.pem");
        let bench = ["bench", &address, "--tls", "--tls-ca", &ca, "--retry", "1h"];
        check(&framelet(&bench, b""), 1, &[untrusted]);
    }
    let words = "does not trust the authority that signed the certificate of this client";
    check(&send(&address, Some(&files), &with(&foreign, &[])), 1, &[words]);
    let words = "signed by an authority that is not trusted here (--tls-ca)";
    check(&send(&address, Some(&others), &with(&own, &[])), 1, &[words]);
    let words = "not signed with the key of the trusted authority of that name (--tls-ca)";
    check(&send(&address, Some(&certificates()), &with(&own, &[])), 1, &[words]);
    let words = "is not for collector.example but for localhost, 127.0.0.1 (--tls-name)";
    check(
        &send(&address, Some(&files), &with(&own, &["--tls-name", "collector.example"])),
        1,
        &[words],
    );
    check(&send(&address, Some(&files), &with(&own, &["--tls-name", "localhost"])), 0, &[]);
    let log = server.stop().log;
    for words in [
        "its TLS handshake failed: the client presented no certificate, and this server requires one",
        "the certificate of the client is signed by an authority that is not trusted here",
        "the client does not trust the authority that signed the certificate of this server",
    ] {
        assert!(log.contains(words), "{words}: {log}");
    }
}

#[test]
fn a_certificate_outside_its_time_is_shown_with_both_dates() {
    let files = certificates();
    for (from, to, words) in [
        (2001, 2002, "the certificate of the server expired on 2002-01-01T00:00:00Z, and it is 20"),
        (
            3001,
            3002,
            "the certificate of the server is valid from 3001-01-01T00:00:00Z, and it is 20",
        ),
    ] {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        files.make("server", params);
        let server = serve(&files, &[]);
        check(&send(&server.address.to_string(), Some(&files), &[]), 1, &[words]);
        let log = server.stop().log;
        assert!(log.contains("expired or not valid yet"), "{log}");
        let own = format!("server.pem: {}", words.replace(" of the server", ""));
        assert!(log.contains(&own) && log.contains(" now: clients will refuse it"), "{log}");
    }
}

#[test]
fn a_plain_client_at_a_tls_port_and_the_reverse_are_both_told_so() {
    let files = certificates();
    let server = serve(&files, &[]);
    let address = server.address.to_string();
    let words = "the server speaks TLS, and this client does not; nothing was sent (--tls)";
    check(&send(&address, None, &["--ack"]), 3, &[words]);
    let words = "looks like a TLS alert: the peer speaks TLS and rejected what it was sent; turn TLS on here";
    check(&send(&address, None, &[]), 3, &[words, "(--tls)"]);
    check(
        &framelet(&["ping", &address], b""),
        3,
        &["accepts connections, but it speaks TLS (--tls)"],
    );
    let mut web = server.connect();
    web.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut alert = Vec::new();
    web.read_to_end(&mut alert).unwrap();
    assert!(alert.starts_with(b"\x15\x03"), "{alert:?}");
    let log = server.stop().log;
    let words = "its TLS handshake failed: the client does not speak TLS, which this side expects: \
                 its first bytes are 00 00 00 03 6f 6e 65 00 \"\\0\\0\\0\\u{3}one\\0\"";
    assert!(log.contains(words), "{log}");
    assert!(log.contains("\"GET / HT\"; this looks like an HTTP request"), "{log}");

    let server = Server::start(&[]);
    let sent = send(&server.address.to_string(), Some(&files), &[]);
    check(&sent, 1, &["ended the connection during the TLS handshake; does it speak TLS?"]);
    let log = server.stop().log;
    let words = "looks like a TLS handshake: the peer expects TLS here: give this side a certificate, or turn TLS off there";
    assert!(log.contains(words), "{log}");

    // A server that speaks first.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let greeting = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        stream.write_all(b"220 mail.example ESMTP\r\n").unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let sent = send(&address, Some(&files), &[]);
    let words =
        "the server does not speak TLS, which this side expects: its first bytes are 32 32 30";
    check(&sent, 1, &[words, "looks like the greeting of an SMTP server (try without --tls)"]);
    greeting.join().unwrap();
}

#[test]
fn a_handshake_that_takes_too_long_is_named_on_both_sides() {
    let files = certificates();
    let server = serve(&files, &["--message-timeout", "100ms"]);
    let mut silent = server.connect();
    assert!(closed(&mut silent));
    let mut begun = server.connect();
    begun.write_all(b"\x16\x03\x01").unwrap();
    assert!(closed(&mut begun));
    let log = server.stop().log;
    let words = "reset, since its TLS handshake took longer than 100ms";
    assert!(log.contains(&format!("{words}; the peer sent nothing (--message-timeout)")), "{log}");
    assert!(log.contains(&format!("{words} (--message-timeout)")), "{log}");

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let words = "the TLS handshake was not complete after 100ms";
    for more in [&[][..], &["--ack", "--retry", "0s"]] {
        let sent = send(&address, Some(&files), &[&["--timeout", "100ms"], more].concat());
        check(&sent, 4, &[words]);
    }
}

/// Returns a proxy to `address` that ends both sides after the client has sent `bytes` bytes.
fn cutting_proxy(address: String, bytes: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let here = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let (mut client, mut server) =
            (listener.accept().unwrap().0, TcpStream::connect(address).unwrap());
        let (mut to_client, mut from_server) =
            (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || drop(std::io::copy(&mut from_server, &mut to_client)));
        let mut passed = 0;
        while passed < bytes {
            let mut chunk = [0; 1000];
            let room = chunk.len().min(bytes - passed);
            let read = client.read(&mut chunk[..room]).unwrap();
            assert!(read > 0, "the client ended after {passed} bytes");
            server.write_all(&chunk[..read]).unwrap();
            passed += read;
        }
        // In order as far as TCP is concerned.
        server.shutdown(std::net::Shutdown::Write).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = client.read_to_end(&mut Vec::new());
    });
    here
}

#[test]
fn a_cut_is_told_to_both_sides_although_the_sockets_end_in_order() {
    let files = certificates();
    let server = serve(&files, &[]);
    let address = cutting_proxy(server.address.to_string(), 40_000);
    let (ca, lines) = (files.text("ca.pem"), vec![b'x'; 100_000]);
    let arguments = ["send", &address, "--input", "whole", "--tls", "--tls-ca", &ca];
    let sent = framelet(&arguments, &lines);
    assert_eq!(sent.status.code(), Some(1), "{}", said(&sent));
    server.wait_for_log("without the close_notify of TLS", 1);
    server.stop();
}

#[test]
fn a_signal_renews_certificates_without_dropping_connections_and_a_bad_one_keeps_the_old() {
    let files = certificates();
    let server = serve(&files, &["-v"]);
    let (address, ca) = (server.address.to_string(), files.text("ca.pem"));
    let mut command = std::process::Command::new(FRAMELET);
    command.args(["send", &address, "--input", "lines", "--tls", "--tls-ca", &ca]);
    let (old, mut input) = Running::start_with_input(command);
    input.write_all(b"first\n").unwrap();
    server.wait_for_output(6);
    files.server("server", &["new.example"]);
    server.signal(Signal::HUP);
    server.wait_for_log("read the certificates again", 1);
    let name = ["--tls-name", "new.example"];
    check(&send(&address, Some(&files), &name), 0, &[]);
    files.write("server.key", "-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----\n");
    server.signal(Signal::HUP);
    let words =
        "server.key: line 3: the section that ends here is not base64; keeping the old ones";
    server.wait_for_log(words, 1);
    check(&send(&address, Some(&files), &name), 0, &[]);
    let mut expired = CertificateParams::new(["new.example".to_owned()]).unwrap();
    expired.not_after = date_time_ymd(2002, 1, 1);
    files.make("server", expired);
    server.signal(Signal::HUP);
    server
        .wait_for_log("server.pem: the certificate expired on 2002-01-01T00:00:00Z, and it is", 1);
    files.client("server", &[(DnType::CommonName, "a client's")]);
    server.signal(Signal::HUP);
    server.wait_for_log("the certificate is not for use by a server", 1);
    server.wait_for_log("; keeping the old ones", 3);
    check(&send(&address, Some(&files), &name), 0, &[]);
    input.write_all(b"still\nhere\n").unwrap();
    drop(input);
    check(&old.wait(), 0, &[]);
    let log = server.stop().log;
    assert!(
        log.contains("connection 1 from 127.0.0.1") && log.contains("closed after 3 messages"),
        "{log}"
    );
}

#[test]
fn a_handshake_without_end_is_cut_off_before_it_takes_much_memory() {
    let server = serve(&certificates(), &[]);
    let mut client = server.connect();
    // A hello that announces 64 KB, in small records.
    let mut hello = vec![1, 0, 0xff, 0];
    hello.resize(60_000, 0);
    for part in hello.chunks(1000) {
        let record = [&[0x16, 3, 1, 3, 0xe8][..], part].concat();
        if client.write_all(&record).is_err() {
            break;
        }
    }
    server.wait_for_log("the TLS handshake of the client has a message of over 18437 bytes", 1);
    server.stop();
}

#[test]
fn secrets_are_written_for_wireshark_if_the_environment_asks_for_them() {
    let files = certificates();
    let (server_keys, client_keys) = (files.text("server-keys"), files.text("client-keys"));
    let mut command = std::process::Command::new(FRAMELET);
    command.args(["serve", "127.0.0.1:0", "--tls-cert", &files.text("server.pem"), "--tls-key"]);
    command.arg(files.text("server.key")).env("SSLKEYLOGFILE", &server_keys);
    let server = Server::spawn(command);
    let mut command = std::process::Command::new(FRAMELET);
    command.args(["send", &server.address.to_string(), "--message", "hello", "--tls", "--tls-ca"]);
    command.arg(files.text("ca.pem")).env("SSLKEYLOGFILE", &client_keys);
    check(&Running::start(command, b"").wait(), 0, &[]);
    server.stop();
    let secrets = |path: &str| {
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find(|line| line.starts_with("CLIENT_TRAFFIC_SECRET_0 "));
        line.unwrap_or_else(|| panic!("{text}")).to_owned()
    };
    assert_eq!(secrets(&server_keys), secrets(&client_keys));
}

#[test]
fn files_and_options_that_do_not_fit_are_named() {
    let files = certificates();
    let (certificate, key, ca) =
        (files.text("server.pem"), files.text("server.key"), files.text("ca.pem"));
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    files.write("encrypted.key", encrypted);
    files.write("empty.pem", "");
    let (locked, empty) = (files.text("encrypted.key"), files.text("empty.pem"));
    for (arguments, words) in [
        (&["serve", ":0", "--tls-cert", &certificate][..], "--tls-cert needs --tls-key"),
        (&["serve", ":0", "--tls-key", &key], "--tls-key needs --tls-cert"),
        (&["serve", ":0", "--tls-client-ca", &ca], "--tls-client-ca has no use without --tls-cert"),
        (
            &["serve", ":0", "--tls-bind-sender"],
            "--tls-bind-sender has no use without --tls-client-ca",
        ),
        (
            &["serve", ":0", "--tls-cert", &certificate, "--tls-key", &key, "--tls-bind-sender"],
            "--tls-bind-sender has no use without --tls-client-ca",
        ),
        (
            &["serve", ":0", "--tls-cert", "none.pem", "--tls-key", &key],
            "none.pem: no such file or directory",
        ),
        (
            &["serve", ":0", "--tls-cert", &key, "--tls-key", &key],
            "server.key: no certificate in it",
        ),
        (
            &["serve", ":0", "--tls-cert", &certificate, "--tls-key", &certificate],
            "server.pem: no private key in it",
        ),
        (
            &["serve", ":0", "--tls-cert", &certificate, "--tls-key", &locked],
            "encrypted.key: its key is encrypted with a passphrase",
        ),
        (&["send", ":1", "--tls-ca", &ca], "--tls-ca has no use without --tls"),
        (&["send", ":1", "--tls", "--tls-cert", &certificate], "--tls-cert needs --tls-key"),
        (&["send", ":1", "--tls", "--tls-ca", &empty], "empty.pem: no certificate in it"),
        (
            &["send", ":1", "--tls", "--tls-ca", &ca, "--tls-name", "a b"],
            "--tls-name: a b is neither a host name",
        ),
        (&["send", "unix:none", "--tls", "--tls-ca", &ca], "a Unix socket has no name"),
    ] {
        check(&framelet(arguments, b""), 2, &[words]);
    }
    #[cfg(feature = "bench")]
    check(
        &framelet(&["bench", ":1", "--tls-name", "x"], b""),
        2,
        &["--tls-name has no use without --tls"],
    );
}

#[test]
fn tls_works_over_unix_sockets_and_after_a_proxy_header() {
    let files = certificates();
    let (certificate, key) = (files.text("server.pem"), files.text("server.key"));
    let socket = format!("unix:{}", files.text("socket"));
    let mut command = std::process::Command::new(FRAMELET);
    command.args(["serve", &socket, "--tls-cert", &certificate, "--tls-key", &key]);
    let server = Server::spawn(command);
    check(&send(&socket, Some(&files), &["--tls-name", "localhost"]), 0, &[]);
    assert_eq!(server.stop().output, b"one\ntwo\n");

    let server = serve(&files, &["--proxy-protocol", "--output", "json", "-v"]);
    let address = server.address.to_string();
    check(&send(&address, Some(&files), &["--proxy-protocol", "v2"]), 0, &[]);
    let left = server.stop();
    assert!(left.log.contains(": through 127.0.0.1:"), "{}", left.log);
    assert_eq!(left.output.iter().filter(|&&byte| byte == b'\n').count(), 2);
}

#[cfg(feature = "bench")]
#[test]
fn a_benchmark_over_tls_counts_what_arrives() {
    let files = certificates();
    let server = serve(&files, &["--output", "none"]);
    let echo = serve(&files, &["--output", "none", "--echo"]);
    let ca = files.text("ca.pem");
    for (server, more) in [
        (&server, &["--size", "1..100KiB"][..]),
        (&echo, &["--echo", "--size", "1..100KiB"]),
        (&echo, &["--echo", "--rate", "1000"]),
    ] {
        let address = server.address.to_string();
        let common = [
            "bench",
            &address,
            "--tls",
            "--tls-ca",
            &ca,
            "--count",
            "200",
            "--warm-up",
            "1ms",
            "--json",
        ];
        let output = framelet(&[&common, more].concat(), b"");
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let report: serde_json::Value =
            serde_json::from_str(&text).unwrap_or_else(|_| panic!("{}", said(&output)));
        assert_eq!((&report["messages"], &report["errors"]), (&200.into(), &0.into()), "{text}");
    }
    let logs = [server.stop().log, echo.stop().log].concat();
    assert!(!logs.contains("cut"), "{logs}");
    let listener = UnixListener::bind(files.path("silent")).unwrap();
    let silent = format!("unix:{}", files.text("silent"));
    let arguments = [
        "bench",
        &silent,
        "--tls",
        "--tls-ca",
        &ca,
        "--tls-name",
        "localhost",
        "--timeout",
        "100ms",
    ];
    check(&framelet(&arguments, b""), 4, &["the TLS handshake was not complete after 100ms"]);
    drop(listener);
}

#[test]
fn frames_that_are_no_messages_are_told_over_tls_as_without() {
    let files = certificates();
    let server = serve(&files, &[]);
    let ca = files.text("ca.pem");
    let arguments =
        ["send", &server.address.to_string(), "--tls", "--tls-ca", &ca, "--preamble", "ffffffff00"];
    let sent = framelet(&[&arguments[..], &["--message", "x"]].concat(), b"");
    assert_eq!(sent.status.code(), Some(1), "{}", said(&sent));
    server.wait_for_log("message 1 at byte 0: ", 1);
    server.stop();
}
