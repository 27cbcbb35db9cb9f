//! The sink `redis://…`, as its users see it, with Redis servers of the tests' own.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use common::acks::{SENDER, read_answer};
use common::held_port::HeldPort;
use common::program::{FRAMELET, PATIENCE, Running, Server, check, frame, framelet, run, said};
use common::proxy::start_proxy;
use common::redis::{Redis, payloads, text};
use common::resume::refuses_another_input;
use framelet::Layout;
use framelet::wire::{Hello, Refusal, RefusalCode, SenderId};
use redis::cmd;

fn send(server: &Server, arguments: &[&str], input: &[u8]) -> Output {
    let address = server.address.to_string();
    framelet(&[&["send", &address, "--input", "lines"], arguments].concat(), input)
}

/// Sends lines with acknowledgements.
#[track_caller]
fn send_acked(server: &Server, arguments: &[&str], input: &[u8]) {
    let sent = send(server, &[&["--ack"], arguments].concat(), input);
    assert!(sent.status.success() && said(&sent).contains("committed"), "{}", said(&sent));
}

/// Starts a client that sends `lines` lines while the test goes on.
fn sending(server: &Server, arguments: &[&str], lines: usize) -> Child {
    let (child, feed) = feeding(server, arguments);
    feed.send(lines).unwrap();
    child
}

/// Starts a client that sends as many more lines as it is told, until the sender is dropped.
fn feeding(server: &Server, arguments: &[&str]) -> (Child, mpsc::Sender<usize>) {
    let mut child = Command::new(FRAMELET)
        .args(["send", &server.address.to_string(), "--input", "lines", "--timeout", "60s"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let (feed, fed) = mpsc::channel();
    thread::spawn(move || {
        let mut line = 0;
        for more in fed {
            for _ in 0..more {
                line += 1;
                // It may have ended; then its exit code says why.
                let _ = writeln!(input, "line {line}");
            }
        }
    });
    (child, feed)
}

fn lines(count: usize) -> Vec<String> {
    (1..=count).map(|line| format!("line {line}")).collect()
}

#[track_caller]
fn succeeded(child: Child) {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[track_caller]
fn equal(found: &[String], expected: &[String]) {
    let different = found.iter().zip(expected).position(|(found, expected)| found != expected);
    assert_eq!((found.len(), different), (expected.len(), None));
}

/// A client with acknowledgements, by hand.
struct Acked(TcpStream);

impl Acked {
    /// Returns the connection, and how many messages the server says are committed.
    fn connect(server: &Server, sender: SenderId) -> (Acked, u64) {
        let mut stream = server.connect();
        stream.write_all(&Hello { sender, first: 1 }.encode(Layout::U32BE).unwrap()).unwrap();
        let mut acked = Acked(stream);
        let welcome = acked.answer().unwrap();
        (acked, welcome)
    }

    fn answer(&mut self) -> Result<u64, Refusal> {
        read_answer(&mut self.0).expect("an answer")
    }

    fn send(&mut self, payloads: &[&str]) {
        let frames: Vec<u8> = payloads.iter().flat_map(|text| frame(text.as_bytes())).collect();
        self.0.write_all(&frames).unwrap();
    }

    fn wait_for(&mut self, committed: u64) {
        loop {
            let count = self.answer().unwrap();
            assert!(count <= committed);
            if count == committed {
                return;
            }
        }
    }

    /// Waits for a refusal; no more than `committed` may be acknowledged before.
    fn wait_for_refusal(&mut self, committed: u64) -> RefusalCode {
        loop {
            match self.answer() {
                Ok(count) => assert_eq!(count, committed),
                Err(refusal) => return refusal.code,
            }
        }
    }
}

#[test]
fn messages_are_entries_with_what_is_known_of_them() {
    let redis = Redis::start(&[]);
    let server = Server::start(&["--to", &redis.stream("log")]);
    let before = SystemTime::now();
    check(&send(&server, &[], b"text \xc3\xa9\n\nlast"), 0, &[]);
    let address = server.address.to_string();
    check(&framelet(&["send", &address, "--input", "hex"], b"ff000d0a\n"), 0, &[]);
    let id = "000102030405060708090a0b0c0d0e0f";
    send_acked(&server, &["--sender", id], b"acked 1\nacked 2");
    let found = redis.entries("log");
    let expected: [(&str, &str, Option<&str>, &[u8]); 6] = [
        ("1", "1", None, "text é".as_bytes()),
        ("1", "2", None, b""),
        ("1", "3", None, b"last"),
        ("2", "1", None, b"\xff\0\r\n"),
        ("3", "1", Some(id), b"acked 1"),
        ("3", "2", Some(id), b"acked 2"),
    ];
    assert_eq!(found.len(), expected.len());
    for (entry, (connection, number, sender, payload)) in found.iter().zip(expected) {
        assert_eq!((&*text(entry, "connection"), &*text(entry, "number")), (connection, number));
        assert_eq!(entry.get("sender").map(|id| str::from_utf8(id).unwrap()), sender);
        assert_eq!(entry["payload"], payload);
        assert!(text(entry, "peer").starts_with("127.0.0.1:"));
        let time = humantime::parse_rfc3339(&text(entry, "time")).unwrap();
        assert!(before - Duration::from_millis(1) < time && time < SystemTime::now());
        assert_eq!(entry.len(), 5 + usize::from(sender.is_some()));
    }
    let count: String =
        cmd("HGET").arg("{log}:senders").arg(id).query(&mut redis.connect()).unwrap();
    let (count, checksum) = count.split_once(' ').unwrap();
    assert_eq!((count, checksum.len()), ("2", 16));
    let left = server.stop();
    assert!(left.status.success() && !left.log.contains("127.0.0.1:0"), "{}", left.log);
}

#[test]
fn messages_of_all_lengths_and_their_numbers_come_as_they_are() {
    let redis = Redis::start(&[]);
    let server = Server::start(&["--to", &redis.stream("log")]);
    // More than one run of the script takes, in messages and in bytes.
    let mut sent: Vec<String> = (0..2100).map(|length| "x".repeat(length % 300)).collect();
    sent.extend([65_535, 65_536, 2 << 20, 3].map(|length| "y".repeat(length)));
    send_acked(&server, &[], sent.join("\n").as_bytes());
    check(&send(&server, &[], sent.join("\n").as_bytes()), 0, &[]);
    let found = redis.entries("log");
    assert_eq!(found.len(), 2 * sent.len());
    for (index, entry) in found.iter().enumerate() {
        let of_sender = index % sent.len();
        assert_eq!(text(entry, "number"), (of_sender + 1).to_string());
        assert!(text(entry, "payload") == sent[of_sender], "entry {index}");
        assert_eq!(entry.contains_key("sender"), index < sent.len());
    }
}

#[test]
fn a_header_is_a_field_of_its_own_and_messages_without_one_have_no_such_field() {
    let redis = Redis::start(&[]);
    let header = |index: usize| [b'A' + u8::try_from(index % 26).unwrap(), 0xff];
    // More than a call of the script takes.
    let frames: Vec<u8> =
        (0..1500).flat_map(|index| [&header(index)[..], b"\0\0\x02ok"].concat()).collect();
    let send = |server: &Server, layout: &str, frames: &[u8]| {
        let address = server.address.to_string();
        let arguments = ["send", &address, "--layout", layout, "--input", "frames"];
        check(&framelet(&arguments, frames), 0, &[]);
    };
    for maxlen in ["", "&maxlen=100000"] {
        let url = format!("{}{maxlen}", redis.stream("headers"));
        let server = Server::start(&["--to", &url, "--layout", "h2:u24be"]);
        send(&server, "h2:u24be", &frames);
        server.stop();
        let entries = redis.entries("headers");
        assert_eq!(entries.len(), 1500);
        for (index, entry) in entries.iter().enumerate() {
            assert_eq!(entry["header"], header(index));
            assert_eq!(text(entry, "payload"), "ok");
            assert_eq!(text(entry, "number"), (index + 1).to_string());
        }
        redis.run(&["DEL", "headers"]);
    }
    // In git's layout, only markers have one.
    let server = Server::start(&["--to", &redis.stream("git"), "--layout", "hex4+self"]);
    send(&server, "hex4+self", b"0006ok00000006ok");
    server.stop();
    let headers: Vec<_> =
        redis.entries("git").iter().map(|entry| entry.get("header").cloned()).collect();
    assert_eq!(headers, [None, Some(b"0000".to_vec()), None]);
}

#[test]
fn counts_survive_a_restart_of_the_server() {
    let redis = Redis::start(&[]);
    let id = "ffffffffffffffffffffffffffffffff";
    for count in [3, 5] {
        let server = Server::start(&["--to", &redis.stream("log")]);
        let input = lines(count).join("\n");
        send_acked(&server, &["--sender", id, "--resume"], input.as_bytes());
        assert!(server.stop().status.success());
        equal(&redis.payloads("log"), &lines(count));
    }
}

#[test]
fn another_input_is_not_taken_for_the_one_of_which_the_beginning_is_committed() {
    let redis = Redis::start(&[]);
    // Whatever has become of the messages.
    let start = || {
        let server = Server::start(&["--to", &redis.stream("log")]);
        redis.run(&["XTRIM", "log", "MAXLEN", "0"]);
        server
    };
    let server = refuses_another_input(start, true);
    assert_eq!(redis.payloads("log"), ["5"]);
    assert!(server.stop().status.success());
    // A count without a checksum, as servers of before wrote it.
    redis.run(&["HSET", "{log}:senders", SENDER, "5"]);
    let server = Server::start(&["--to", &redis.stream("log")]);
    send_acked(&server, &["--sender", SENDER, "--resume"], b"a\nb\nc\nd\ne\nf\n");
    assert_eq!(redis.payloads("log"), ["5", "f"]);
}

#[test]
fn a_redis_that_is_killed_loses_and_doubles_nothing() {
    for acks in [&["--ack"][..], &[]] {
        let mut redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
        let server = Server::start(&["--to", &redis.stream("log")]);
        let (client, feed) = feeding(&server, acks);
        for round in 1..=3 {
            feed.send(10_000).unwrap();
            redis.wait_for_entries("log", (round - 1) * 10_000 + 1000);
            redis.kill();
            // Whatever it was just doing, there is more to do.
            feed.send(round).unwrap();
            server.wait_for_log("waiting until messages can be written again", round);
            redis.restart();
            server.wait_for_log("messages are written again", round);
        }
        drop(feed);
        succeeded(client);
        equal(&redis.payloads("log"), &lines(30_006));
        let left = server.stop();
        assert!(left.status.success(), "{}", left.log);
        assert_eq!(left.log.matches("waiting until").count(), 3, "said once: {}", left.log);
    }
}

/// P16.
#[test]
fn each_message_is_there_once_however_often_connections_are_reset() {
    let redis = Redis::start(&[]);
    let server = Server::start(&["--to", &redis.stream("log"), "--verbose"]);
    // About 500 of the messages, with their prefixes.
    let proxy = start_proxy(3, server.address, 500 * 14);
    let mut command = Command::new(FRAMELET);
    command.args(["send", &proxy.to_string(), "--ack", "--input", "lines"]);
    let all = lines(20_000);
    let output = Running::start(command, all.join("\n").as_bytes()).wait();
    check(&output, 0, &["sent 20000, committed 20000"]);
    equal(&redis.payloads("log"), &all);
    let left = server.stop();
    assert!(left.status.success(), "{}", left.log);
    let connections = left.log.matches(": open").count();
    assert!(connections >= 25, "only {connections} connections for 20,000 messages");
}

#[test]
fn a_sender_that_moves_to_another_server_leaves_nothing_behind_that_comes_later() {
    let redis = Redis::start(&[]);
    let to = redis.stream("log");
    let (one, two) = (Server::start(&["--to", &to]), Server::start(&["--to", &to]));
    let sender = SenderId::from_bytes([7; 16]);
    let (mut old, welcome) = Acked::connect(&one, sender);
    assert_eq!(welcome, 0);
    old.send(&["1", "2", "3"]);
    old.wait_for(3);
    let (mut new, welcome) = Acked::connect(&two, sender);
    assert_eq!(welcome, 3);
    // Both have not been acknowledged, so the sender sends them again over the new connection.
    old.send(&["4", "stale 5", "stale 6"]);
    assert_eq!(old.wait_for_refusal(3), RefusalCode::Fenced);
    new.send(&["4"]);
    new.wait_for(4);
    // The first server must not think that it has them.
    let (mut back, welcome) = Acked::connect(&one, sender);
    assert_eq!(welcome, 4);
    back.send(&["5", "6"]);
    back.wait_for(6);
    new.send(&["stale 5"]);
    assert_eq!(new.wait_for_refusal(4), RefusalCode::Fenced);
    assert_eq!(redis.payloads("log"), ["1", "2", "3", "4", "5", "6"]);
    one.wait_for_log("a newer connection of this sender has taken over", 1);
    drop(back);
    for server in [one, two] {
        let left = server.stop();
        assert!(left.status.success(), "what was refused is not missing: {}", left.log);
    }
}

#[test]
fn a_sender_that_is_torn_to_and_fro_between_two_servers_is_there_once() {
    let redis = Redis::start(&[]);
    let to = redis.stream("log");
    let servers = [Server::start(&["--to", &to]), Server::start(&["--to", &to])];
    let sender = SenderId::from_bytes([9; 16]);
    let all = lines(20_000);
    let mut left_behind = Vec::new();
    let mut committed = 0;
    for round in 0.. {
        let (mut client, welcome) = Acked::connect(&servers[round % 2], sender);
        assert!(welcome >= committed, "{welcome} after {committed}");
        let from = usize::try_from(welcome).unwrap();
        if from == all.len() {
            break;
        }
        let until = all.len().min(from + 3000);
        let texts: Vec<&str> = all[from..until].iter().map(String::as_str).collect();
        client.send(&texts);
        // Most of it is still under way.
        committed = client.answer().unwrap();
        left_behind.push(client);
    }
    equal(&redis.payloads("log"), &all);
}

/// As after a failover to a replica that had not everything yet.
#[test]
fn a_claim_that_redis_has_lost_counts_all_the_same() {
    let redis = Redis::start(&[]);
    let to = redis.stream("log");
    let (one, two) = (Server::start(&["--to", &to]), Server::start(&["--to", &to]));
    let sender = SenderId::from_bytes([8; 16]);
    let (mut old, _) = Acked::connect(&one, sender);
    old.send(&["1"]);
    old.wait_for(1);
    let mut connection = redis.connect();
    let id = sender.to_string();
    let older: String = cmd("HGET").arg("{log}:claims").arg(&id).query(&mut connection).unwrap();
    let (mut new, _) = Acked::connect(&two, sender);
    redis.run(&["HSET", "{log}:claims", &id, &older]);
    new.send(&["2"]);
    new.wait_for(2);
    old.send(&["stale 2", "stale 3"]);
    assert_eq!(old.wait_for_refusal(1), RefusalCode::Fenced);
    assert_eq!(redis.payloads("log"), ["1", "2"]);
}

/// Until then, nothing is known of it that could be claimed.
#[test]
fn the_first_message_of_a_sender_decides_which_server_has_it() {
    let redis = Redis::start(&[]);
    let to = redis.stream("log");
    let (one, two) = (Server::start(&["--to", &to]), Server::start(&["--to", &to]));
    for (sender, newer_is_first) in [(1, true), (2, false)] {
        let sender = SenderId::from_bytes([sender; 16]);
        let (mut old, welcome) = Acked::connect(&one, sender);
        assert_eq!(welcome, 0);
        let (mut new, welcome) = Acked::connect(&two, sender);
        assert_eq!(welcome, 0);
        let (first, second) = match newer_is_first {
            true => (&mut new, &mut old),
            false => (&mut old, &mut new),
        };
        first.send(&["1", "2"]);
        first.wait_for(2);
        // Not taken for the first one's, though the numbers are the same.
        second.send(&["other 1", "other 2", "other 3"]);
        assert_eq!(second.wait_for_refusal(0), RefusalCode::Fenced);
        // Who is refused connects again, and hears what there is.
        let (mut again, welcome) = Acked::connect(&two, sender);
        assert_eq!(welcome, 2);
        again.send(&["3"]);
        again.wait_for(3);
        if !newer_is_first {
            first.send(&["stale 3"]);
            assert_eq!(first.wait_for_refusal(2), RefusalCode::Fenced);
        }
    }
    assert_eq!(redis.payloads("log"), ["1", "2", "3", "1", "2", "3"]);
}

/// P30, with fewer of them.
#[test]
fn a_hello_alone_leaves_nothing() {
    let redis = Redis::start(&[]);
    let server = Server::start(&["--to", &redis.stream("log")]);
    let keys = || cmd("DBSIZE").query::<usize>(&mut redis.connect()).unwrap();
    assert_eq!(keys(), 0, "a server alone leaves nothing, either");
    let known = SenderId::from_bytes([0xff; 16]);
    let (mut honest, _) = Acked::connect(&server, known);
    thread::scope(|scope| {
        for of_thread in 0..8_u8 {
            let server = &server;
            scope.spawn(move || {
                for n in 0..250_u8 {
                    let mut id = [n; 16];
                    id[0] = of_thread;
                    assert_eq!(Acked::connect(server, SenderId::from_bytes(id)).1, 0);
                }
            });
        }
        for number in 1..=200 {
            honest.send(&["honest"]);
            honest.wait_for(number);
        }
    });
    assert_eq!(redis.length("log"), 200);
    assert_eq!(keys(), 4);
    let mut connection = redis.connect();
    for (command, key) in
        [("HLEN", "{log}:senders"), ("HLEN", "{log}:claims"), ("ZCARD", "{log}:seen")]
    {
        let length: usize = cmd(command).arg(key).query(&mut connection).unwrap();
        assert_eq!(length, 1, "{key} has more than the one that has sent something");
    }
}

/// A server that answers each command with the same words, whatever it is, until it is told others.
fn start_answering(words: &str) -> (u16, mpsc::Sender<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = mpsc::channel::<String>();
    let mut words = words.to_owned();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut command = [0; 65_536];
            while stream.read(&mut command).is_ok_and(|read| read > 0) {
                words = told.try_iter().last().unwrap_or(words);
                if stream.write_all(format!("{words}\r\n").as_bytes()).is_err() {
                    break;
                }
            }
        }
    });
    (port, tell)
}

/// What it says decides, and not how that is written.
#[test]
fn a_redis_that_is_there_but_not_ready_is_waited_for_and_another_server_is_not() {
    let serve = |port: u16| format!("redis://127.0.0.1:{port}/?stream=log");
    for words in ["-LOADING Redis is loading the dataset in memory", "-LOADING redis is loading"] {
        let (port, tell) = start_answering(words);
        let server = Server::start(&["--to", &serve(port)]);
        assert!(server.log().contains("LOADING"), "{}", server.log());
        let client = sending(&server, &[], 1);
        server.wait_for_log("waiting until messages can be written again", 1);
        // It does not let this server in, after all.
        tell.send("-NOAUTH Authentication required.".into()).unwrap();
        let left = server.wait();
        assert_eq!(left.status.code(), Some(2), "{}", left.log);
        assert!(left.log.contains("NOAUTH"), "{}", left.log);
        drop(client.wait_with_output());
    }
    for words in ["HTTP/1.1 400 Bad Request", "What do you want?"] {
        let (port, _tell) = start_answering(words);
        let refused = framelet(&["serve", "127.0.0.1:0", "--to", &serve(port)], b"");
        check(&refused, 2, &["redis at 127.0.0.1"]);
    }
}

/// Somebody who waits for the welcome hears that it is not in vain, and goes on when Redis is back. A
/// question that was given up meanwhile does not take the sender away from another server.
#[test]
fn a_client_that_comes_while_redis_is_away_waits_for_it() {
    let mut redis = Redis::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let server = Server::start(&["--to", &redis.stream("log")]);
    redis.kill();
    let mut command = Command::new(FRAMELET);
    command.args(["send", &server.address.to_string(), "--ack", "--input", "lines"]);
    command.args(["--timeout", "4s", "--retry", "1s"]);
    let client = Running::start(command, lines(100).join("\n").as_bytes());
    server.wait_for_log("waiting until messages can be written again", 1);
    // Longer than the client waits without any sign of life, and tries.
    thread::sleep(Duration::from_secs(6));
    redis.restart();
    let output = client.wait();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("is busy with earlier messages; waiting for its answer"), "{said}");
    assert!(said.ends_with("sent 100, committed 100\n"), "{said}");
    equal(&redis.payloads("log"), &lines(100));
}

#[test]
fn what_is_wrong_for_good_is_said_before_anything_is_received() {
    let redis = Redis::start(&["--requirepass", "right"]);
    let serve = |to: &str| framelet(&["serve", "127.0.0.1:0", "--to", to], b"");
    let at = format!("127.0.0.1:{}", redis.port);
    let refused = serve(&format!("redis://:wrong@{at}/?stream=log"));
    check(&refused, 2, &["WRONGPASS", "check the user in the URL", &at]);
    assert!(!String::from_utf8_lossy(&refused.stderr).contains(":wrong"));
    check(
        &serve(&format!("redis://{at}/?stream=log")),
        2,
        &["NOAUTH", "give a password", "(FRAMELET_REDIS_PASSWORD)"],
    );
    let to = |rest: &str| format!("redis://:right@{at}{rest}");
    check(&serve(&to("/99?stream=log")), 2, &["DB index", "the database number after the port"]);
    check(&serve(&to("/0")), 2, &["the name of the stream is missing"]);
    let mut connection = redis.client(":right@").get_connection().unwrap();
    cmd("SET").arg("text").arg("a").exec(&mut connection).unwrap();
    check(&serve(&to("/?stream=text")), 2, &["the key text is a string"]);
    let unused = HeldPort::new();
    let nobody = format!("redis://127.0.0.1:{unused}/?stream=log");
    check(&serve(&nobody), 2, &["connection refused"]);
    let arguments = ["serve", "--to", &nobody, "--output", "json"];
    check(&framelet(&arguments, b""), 2, &["--output is for stdout and files only"]);
    check(&framelet(&["serve", "--to", &nobody, "--sync", "never"], b""), 2, &["appendfsync"]);
    check(&framelet(&["serve", "--to", &nobody, "--max-message", "1GiB"], b""), 2, &["512 MiB"]);
}

#[test]
fn a_password_can_be_in_the_environment() {
    let redis = Redis::start(&["--requirepass", "right"]);
    let to = redis.stream("log");
    let serve = |to: &str, password: &str| {
        let mut command = Command::new(FRAMELET);
        command.env("FRAMELET_REDIS_PASSWORD", password).args(["serve", "127.0.0.1:0", "--to", to]);
        command
    };
    let server = Server::spawn(serve(&to, "right"));
    check(&send(&server, &[], b"a"), 0, &[]);
    let command_line = std::fs::read(format!("/proc/{}/cmdline", server.pid())).unwrap();
    assert!(!String::from_utf8_lossy(&command_line).contains("right"));
    assert!(server.stop().status.success());
    check(&run(serve(&to, "wrong"), b""), 2, &["WRONGPASS"]);
    check(&run(serve(&to, ""), b""), 2, &["NOAUTH"]);
    // The same server by its other name, and with what is in the URL.
    let to = to.replace("redis://", "Valkey://:right@");
    assert!(Server::spawn(serve(&to, "")).stop().status.success());
}

#[test]
fn a_password_that_is_changed_ends_the_server_in_words() {
    let redis = Redis::start(&[]);
    let server = Server::start(&["--to", &redis.stream("log")]);
    check(&send(&server, &[], b"before"), 0, &[]);
    let mut connection = redis.connect();
    cmd("CONFIG").arg(&["SET", "requirepass", "new"]).exec(&mut connection).unwrap();
    cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]).exec(&mut connection).unwrap();
    assert_eq!(send(&server, &[], b"after").status.code(), Some(1));
    let left = server.wait();
    assert_eq!(left.status.code(), Some(2), "{}", left.log);
    assert!(left.log.contains("NOAUTH") && left.log.contains("not written"), "{}", left.log);
}

#[test]
fn a_user_who_may_not_write_ends_the_server_in_words() {
    let redis = Redis::start(&[]);
    let server = Server::start(&["--to", &redis.stream_without("log", "xadd")]);
    assert_eq!(send(&server, &["--ack", "--retry", "0s"], b"a").status.code(), Some(1));
    let left = server.wait();
    assert_eq!(left.status.code(), Some(2), "{}", left.log);
    assert!(left.log.contains("the user needs +@all"), "{}", left.log);
    assert_eq!(redis.length("log"), 0);
}

#[test]
fn want_of_memory_only_takes_time() {
    let redis = Redis::start(&["--maxmemory-policy", "noeviction"]);
    let server = Server::start(&["--to", &redis.stream("log")]);
    redis.run(&["CONFIG", "SET", "maxmemory", "1"]);
    let client = sending(&server, &[], 5000);
    server.wait_for_log("OOM", 1);
    assert_eq!(redis.entries("log").len(), 0);
    redis.run(&["CONFIG", "SET", "maxmemory", "0"]);
    succeeded(client);
    // In the middle, too, and for a sender that connects meanwhile.
    let client = sending(&server, &[], 5000);
    redis.wait_for_entries("log", 5001);
    redis.run(&["CONFIG", "SET", "maxmemory", "1"]);
    let other = sending(&server, &["--ack"], 5000);
    server.wait_for_log("waiting until messages can be written again", 2);
    redis.run(&["CONFIG", "SET", "maxmemory", "0"]);
    succeeded(client);
    succeeded(other);
    let all = redis.entries("log");
    let of = |connection: &str| {
        let entries = all.iter().filter(|entry| text(entry, "connection") == connection);
        payloads(&entries.cloned().collect::<Vec<_>>())
    };
    for connection in ["1", "2", "3"] {
        equal(&of(connection), &lines(5000));
    }
}

#[test]
fn a_stream_is_trimmed_to_about_its_longest() {
    let redis = Redis::start(&[]);
    // What adds messages trims, and needs no other right for it: a script that is stopped half-way has
    // written what it has written.
    let to = redis.stream_without("log", "xtrim");
    let server = Server::start(&["--to", &format!("{to}&maxlen=200")]);
    check(&send(&server, &[], lines(5000).join("\n").as_bytes()), 0, &[]);
    let found = redis.payloads("log");
    assert!((200..500).contains(&found.len()), "{}", found.len());
    equal(&found, &lines(5000)[5000 - found.len()..]);
}

#[test]
fn a_server_whose_redis_is_away_ends_within_its_grace() {
    let mut redis = Redis::start(&[]);
    let server = Server::start(&["--to", &redis.stream("log"), "--grace", "2s"]);
    redis.kill();
    let client = sending(&server, &[], 10);
    server.wait_for_log("waiting until messages can be written again", 1);
    let left = server.stop();
    assert!(left.took < Duration::from_secs(10), "{:?}", left.took);
    assert_eq!(left.status.code(), Some(4), "{}", left.log);
    assert!(left.log.contains("10 messages"), "{}", left.log);
    assert_eq!(client.wait_with_output().unwrap().status.code(), Some(1));
}

#[test]
fn what_redis_loses_is_told_to_those_who_may_have_it_still() {
    let redis = Redis::start(&[]);
    let server = Server::start(&["--to", &redis.stream("log")]);
    let sender = SenderId::from_bytes([3; 16]);
    let (mut client, _) = Acked::connect(&server, sender);
    client.send(&["1", "2"]);
    client.wait_for(2);
    check(&send(&server, &[], b"plain 1\nplain 2"), 0, &[]);
    redis.run(&["FLUSHALL"]);
    client.send(&["3"]);
    assert_eq!(client.wait_for_refusal(2), RefusalCode::Sink);
    server.wait_for_log("has 0 messages of sender 03030303… and", 1);
    assert!(!server.log().contains(&sender.to_string()), "{}", server.log());
    let (mut client, welcome) = Acked::connect(&server, sender);
    assert_eq!(welcome, 0);
    client.send(&["1", "2", "3"]);
    client.wait_for(3);
    // Nobody could send these again, so they go on.
    check(&send(&server, &[], b"plain 3"), 0, &[]);
    server.wait_for_log("has 0 messages of clients without acknowledgements and not the 2", 1);
    assert_eq!(redis.payloads("log"), ["1", "2", "3", "plain 3"]);
    assert!(server.stop().status.success());
}

#[test]
fn a_million_senders_are_remembered_and_then_those_with_the_latest_messages() {
    let redis = Redis::start(&[]);
    let server = Server::start(&["--to", &redis.stream("log")]);
    let sender = |number| SenderId::from_bytes([number; 16]);
    let send = |number, text| {
        let (mut client, welcome) = Acked::connect(&server, sender(number));
        client.send(&[text]);
        client.wait_for(welcome + 1);
    };
    send(1, "a");
    send(2, "a");
    redis.run(&[
        "EVAL",
        "for i = 1, 1000000 - 2 do \
             redis.call('HSET', KEYS[1], i, 1); redis.call('HSET', KEYS[2], i, '1 x'); \
             redis.call('ZADD', KEYS[3], i + 2, i) \
         end",
        "3",
        "{log}:senders",
        "{log}:claims",
        "{log}:seen",
    ]);
    let mut connection = redis.connect();
    let mut lengths = || {
        [("HLEN", "{log}:senders"), ("HLEN", "{log}:claims"), ("ZCARD", "{log}:seen")]
            .map(|(command, key)| cmd(command).arg(key).query::<usize>(&mut connection).unwrap())
    };
    assert_eq!(lengths(), [1_000_000; 3]);
    // One that was silent for long sends something again; then there is one too many.
    send(1, "b");
    send(3, "a");
    assert_eq!(lengths(), [1_000_000; 3]);
    let known = [1, 2, 3].map(|number| Acked::connect(&server, sender(number)).1);
    assert_eq!(known, [2, 0, 1]);
    // Where there are far too many, a few are forgotten each time.
    redis.run(&[
        "EVAL",
        "for i = 1, 50 do redis.call('ZADD', KEYS[1], i, 'z' .. i) end",
        "1",
        "{log}:seen",
    ]);
    send(4, "a");
    assert_eq!(lengths()[2], 1_000_000 + 50 + 1 - 10);
}

/// P29: as servers of before left it, whose clock stood anywhere.
#[test]
fn a_clock_that_jumps_forgets_nobody() {
    let redis = Redis::start(&[]);
    let server = Server::start(&["--to", &redis.stream("log")]);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let days = 24 * 60 * 60;
    for (id, time) in [(1, 1), (2, now - 60 * days), (3, now), (4, now + 60 * days)] {
        let id = SenderId::from_bytes([id; 16]).to_string();
        redis.run(&["ZADD", "{log}:seen", &time.to_string(), &id]);
        redis.run(&["HSET", "{log}:senders", &id, "5"]);
        redis.run(&["HSET", "{log}:claims", &id, "1 somebody"]);
    }
    for id in 1..=6 {
        let known = u64::from(id <= 4) * 5;
        for count in [known, known + 1] {
            let (mut client, welcome) = Acked::connect(&server, SenderId::from_bytes([id; 16]));
            assert_eq!(welcome, count);
            client.send(&["a"]);
            client.wait_for(count + 1);
        }
    }
    assert_eq!(redis.length("log"), 12);
}

#[test]
fn scripts_that_redis_forgets_are_loaded_again() {
    let redis = Redis::start(&[]);
    let server = Server::start(&["--to", &redis.stream("log")]);
    redis.run(&["SCRIPT", "FLUSH"]);
    send_acked(&server, &[], b"a");
    redis.run(&["SCRIPT", "FLUSH"]);
    check(&send(&server, &[], b"b"), 0, &[]);
    assert_eq!(redis.payloads("log"), ["a", "b"]);
}

/// Starts three nodes that share the slots.
fn cluster() -> Vec<Redis> {
    let start = |_| {
        let bus = HeldPort::new();
        let arguments = ["--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1"];
        let node = Redis::start(&[&arguments[..], &["--cluster-port", &bus.to_string()]].concat());
        // From here on, Redis listens on it.
        drop(bus);
        node
    };
    let nodes: Vec<Redis> = (0..3).map(start).collect();
    let addresses = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port));
    let created = Command::new("redis-cli")
        .args(["--cluster", "create"])
        .args(addresses)
        .args(["--cluster-replicas", "0", "--cluster-yes"])
        .output()
        .expect("redis-cli is needed for this test (on Debian: apt-get install redis-tools)");
    assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stdout));
    let deadline = Instant::now() + PATIENCE;
    let ready = |node: &Redis| {
        let info: String = cmd("CLUSTER").arg("INFO").query(&mut node.connect()).unwrap();
        info.contains("cluster_state:ok")
    };
    while !nodes.iter().all(ready) {
        assert!(Instant::now() < deadline, "the cluster was not ready");
        thread::sleep(Duration::from_millis(20));
    }
    nodes
}

#[test]
fn any_node_of_a_cluster_leads_to_the_stream_also_when_it_moves() {
    let nodes = cluster();
    let has = |node: &&Redis| cmd("XLEN").arg("log").query::<u64>(&mut node.connect()).is_ok();
    let servers: Vec<Server> =
        nodes.iter().map(|node| Server::start(&["--to", &node.stream("log")])).collect();
    let mut expected = Vec::new();
    for (server, text) in servers.iter().zip(["a", "b", "c"]) {
        send_acked(server, &[], text.as_bytes());
        expected.push(text.to_owned());
    }
    let from = nodes.iter().find(has).unwrap();
    assert_eq!(from.payloads("log"), expected);

    // The slot moves to another node while somebody sends.
    let to = nodes.iter().find(|node| !has(node)).unwrap();
    let client = sending(&servers[0], &["--ack"], 20_000);
    from.wait_for_entries("log", 1000);
    let slot: u16 = cmd("CLUSTER").arg("KEYSLOT").arg("log").query(&mut from.connect()).unwrap();
    let slot = slot.to_string();
    let id =
        |node: &Redis| -> String { cmd("CLUSTER").arg("MYID").query(&mut node.connect()).unwrap() };
    let (from_id, to_id) = (id(from), id(to));
    to.run(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
    from.run(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
    let port = to.port.to_string();
    let migrate = ["MIGRATE", "127.0.0.1", &port, "", "0", "10000", "KEYS"];
    from.run(&[&migrate[..], &["log", "{log}:senders"]].concat());
    // Half of the keys are elsewhere: whoever wants all of them has to wait.
    servers[0].wait_for_log("waiting until messages can be written again", 1);
    from.run(&[&migrate[..], &["{log}:claims", "{log}:seen"]].concat());
    for node in [to, from] {
        node.run(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
    }
    succeeded(client);
    expected.extend(lines(20_000));
    equal(&to.payloads("log"), &expected);
    send_acked(&servers[1], &[], b"behind");
    assert_eq!(to.payloads("log").last().unwrap(), "behind");

    let refused = framelet(
        &["serve", "127.0.0.1:0", "--to", &nodes[0].stream("log").replace("/0?", "/1?")],
        b"",
    );
    check(&refused, 2, &["a cluster has database 0 only"]);
}

#[cfg(feature = "tls")]
#[test]
fn redis_over_tls_is_trusted_if_the_system_does_and_takes_what_it_takes_without() {
    let files = common::tls::Certificates::new();
    let port = HeldPort::new();
    let redis = Redis::start(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &files.text("server.pem"),
        "--tls-key-file",
        &files.text("server.key"),
        "--tls-ca-cert-file",
        &files.text("ca.pem"),
        "--tls-auth-clients",
        "no",
    ]);
    let url = redis
        .stream("log")
        .replace("redis://", "rediss://")
        .replace(&redis.port.to_string(), &port.to_string());
    let serve = |trusted: bool, url: &str| {
        let mut command = Command::new(FRAMELET);
        command.args(["serve", "127.0.0.1:0", "--to", url]);
        if trusted {
            command.env("SSL_CERT_FILE", files.path("ca.pem"));
        }
        command
    };
    let server = Server::spawn(serve(true, &url));
    send_acked(&server, &[], b"one\ntwo\n");
    assert!(server.stop().status.success());
    assert_eq!(redis.payloads("log"), ["one", "two"]);
    let untrusted = run(serve(false, &url), b"");
    check(&untrusted, 2, &["invalid peer certificate"]);
    let plain = run(serve(true, &url.replace("rediss://", "redis://")), b"");
    check(&plain, 2, &[&format!("redis at 127.0.0.1:{port}")]);
}
