//! Acknowledgements: a client that sends until everything is committed, against a server that
//! remembers what it has acknowledged and otherwise does the worst.

mod common;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::program::{
    FRAMELET, PATIENCE, Server, check, frame, framelet, odd_server, read_frame, said,
};
use framelet::{
    AckClient, AckError, AckOptions, Address, Answer, Client, Hello, Layout, Opening, Refusal,
    RefusalCode, SenderId,
};
use futures_lite::future::{block_on, poll_once};
use socket2::SockRef;

const SENDER: &str = "000102030405060708090a0b0c0d0e0f";

/// What is committed for the one sender there is.
#[derive(Default)]
struct Committed {
    messages: Mutex<Vec<Vec<u8>>>,
    grown: Condvar,
}

impl Committed {
    fn commit(&self, message: Vec<u8>) {
        self.messages.lock().unwrap().push(message);
        self.grown.notify_all();
    }

    fn count(&self) -> u64 {
        self.messages.lock().unwrap().len() as u64
    }

    fn all(&self) -> Vec<Vec<u8>> {
        self.messages.lock().unwrap().clone()
    }

    /// Waits until there are so many.
    fn wait(&self, count: usize) {
        let messages = self.messages.lock().unwrap();
        let fewer = |messages: &mut Vec<Vec<u8>>| messages.len() < count;
        let waited = self.grown.wait_timeout_while(messages, PATIENCE, fewer).unwrap().1;
        assert!(!waited.timed_out(), "{count} messages did not come");
    }
}

/// One connection, whose hello has been read.
struct Connection {
    stream: Limited,
    /// Its number; the first one is 1.
    number: usize,
    hello: Hello,
    committed: Arc<Committed>,
}

/// A stream of which only so many bytes are read.
struct Limited {
    stream: TcpStream,
    left: usize,
}

impl Read for Limited {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let most = buf.len().min(self.left);
        let read = self.stream.read(&mut buf[..most])?;
        self.left -= read;
        Ok(read)
    }
}

impl Connection {
    fn say(&mut self, answer: Answer) {
        // The client may be gone.
        let _ = self.stream.stream.write_all(&frame(&answer.encode()));
    }

    fn acknowledge(&mut self) {
        self.say(Answer::Acknowledgement(self.committed.count()));
    }

    fn refuse(mut self, code: RefusalCode, text: &str) {
        let committed = self.committed.count();
        self.say(Answer::Refusal(Refusal { committed, code, text: text.into() }));
        // Reading to the end, or else the refusal would be lost to a reset.
        let _ = self.stream.stream.shutdown(std::net::Shutdown::Write);
        self.stream.left = usize::MAX;
        let _ = io::copy(&mut self.stream, &mut io::sink());
    }

    /// Commits the next message; `None` at the end.
    fn take(&mut self) -> Option<()> {
        let message = read_frame(&mut self.stream)?;
        self.committed.commit(message);
        Some(())
    }

    /// Welcomes the client, and commits and acknowledges each of its messages.
    fn serve(mut self) {
        self.acknowledge();
        while self.take().is_some() {
            self.acknowledge();
        }
    }
}

/// Reads a hello in `u32be`; `None` if the stream ends before.
fn read_hello(stream: &mut impl Read) -> Option<Hello> {
    let mut bytes = Vec::new();
    loop {
        match Hello::decode(Layout::U32BE, &bytes) {
            Opening::Hello { hello, .. } => return Some(hello),
            Opening::Incomplete { need } => {
                let from = bytes.len();
                bytes.resize(need, 0);
                stream.read_exact(&mut bytes[from..]).ok()?;
            }
            other => panic!("not a hello: {other:?} {bytes:02x?}"),
        }
    }
}

/// Starts a server that handles one connection after the other. `limit` says how many bytes of each
/// one are read; one that was not read to its end is reset.
fn start_limited(
    mut limit: impl FnMut(usize) -> usize + Send + 'static,
    mut handle: impl FnMut(Connection) + Send + 'static,
) -> (Address, Arc<Committed>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string().parse().unwrap();
    let committed = Arc::<Committed>::default();
    let shared = Arc::clone(&committed);
    thread::spawn(move || {
        for number in 1.. {
            let (stream, _) = listener.accept().unwrap();
            // Or else a reset drops acknowledgements that wait for a segment to fill.
            stream.set_nodelay(true).unwrap();
            let left = limit(number);
            if left < usize::MAX {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
            let mut stream = Limited { stream, left };
            let Some(hello) = read_hello(&mut stream) else { continue };
            assert!(hello.first <= shared.count() + 1, "{hello:?}");
            handle(Connection { stream, number, hello, committed: Arc::clone(&shared) });
        }
    });
    (address, committed)
}

fn start(handle: impl FnMut(Connection) + Send + 'static) -> (Address, Arc<Committed>) {
    start_limited(|_| usize::MAX, handle)
}

/// Options for a client that gives up at the first failure.
fn no_retry() -> AckOptions {
    AckOptions { retry: Duration::ZERO, ..AckOptions::default() }
}

async fn connect(address: &Address, options: AckOptions) -> AckClient {
    Client::connect_with_acks(address, options).await.unwrap()
}

// ---- whatever happens to connections

#[test]
fn every_message_is_there_once_and_in_order_however_connections_end() {
    thread::scope(|scope| {
        for seed in 0..12 {
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut limits = fastrand::Rng::with_seed(seed + 1000);
                let mut server_random = fastrand::Rng::with_seed(seed + 2000);
                // The very first connection is read far enough to welcome the client.
                let limit = move |number| match number {
                    1 => limits.usize(34..1000),
                    _ => limits.usize(0..6000),
                };
                let (address, committed) = start_limited(limit, move |mut connection| {
                    connection.acknowledge();
                    while connection.take().is_some() {
                        // Not each one is acknowledged: a reset may come in between.
                        if server_random.u8(0..3) == 0 {
                            connection.acknowledge();
                        }
                    }
                    connection.acknowledge();
                });
                let messages: Vec<Vec<u8>> = (0..600)
                    .map(|n| format!("{n} {}", "x".repeat(random.usize(0..100))).into_bytes())
                    .collect();
                block_on(async {
                    let options =
                        AckOptions { window: random.usize(8..200), ..AckOptions::default() };
                    let mut client = connect(&address, options).await;
                    for (index, message) in messages.iter().enumerate() {
                        let ticket = client.send(message).await.unwrap();
                        assert_eq!(ticket, index as u64 + 1);
                    }
                    client.finish().await.unwrap();
                    assert_eq!(client.committed(), 600);
                });
                assert!(committed.all() == messages, "seed {seed}");
            });
        }
    });
}

#[test]
fn a_client_that_reconnects_says_what_it_has_still() {
    let (told, firsts) = channel();
    let (address, _) = start(move |mut connection| {
        told.send((connection.hello.first, connection.number)).unwrap();
        connection.acknowledge();
        if connection.number == 1 {
            connection.take().unwrap();
            connection.acknowledge();
            // It closes here: the end of the stream before everything is committed.
        } else {
            while connection.take().is_some() {}
            connection.acknowledge();
        }
    });
    block_on(async {
        let mut client = connect(&address, AckOptions::default()).await;
        client.send(b"a").await.unwrap();
        client.wait_committed(1).await.unwrap();
        client.send(b"b").await.unwrap();
        client.finish().await.unwrap();
    });
    assert_eq!(firsts.iter().take(2).collect::<Vec<_>>(), [(1, 1), (2, 2)]);
}

#[test]
fn a_server_that_shuts_down_is_come_back_to() {
    let (address, committed) = start(|mut connection| {
        if connection.number > 2 {
            return connection.serve();
        }
        if connection.number == 2 {
            connection.acknowledge();
            connection.take().unwrap();
        }
        connection.refuse(RefusalCode::Shutdown, "");
    });
    block_on(async {
        let mut client = connect(&address, AckOptions::default()).await;
        client.send(b"a").await.unwrap();
        client.send(b"b").await.unwrap();
        client.finish().await.unwrap();
    });
    assert_eq!(committed.all(), [b"a", b"b"]);
}

// ---- waiting

#[test]
fn a_full_window_waits_for_an_acknowledgement() {
    let (go, wait): (Sender<()>, Receiver<()>) = channel();
    let (address, committed) = start(move |mut connection| {
        connection.acknowledge();
        while connection.take().is_some() {
            wait.recv().unwrap();
            connection.acknowledge();
        }
    });
    block_on(async {
        let mut client = connect(&address, AckOptions { window: 2, ..no_retry() }).await;
        client.send(b"1").await.unwrap();
        client.send(b"2").await.unwrap();
        committed.wait(1);
        assert!(poll_once(client.send(b"3")).await.is_none());
        assert_eq!((client.sent(), client.committed()), (2, 0));
        go.send(()).unwrap();
        assert_eq!(client.send(b"3").await.unwrap(), 3);
        assert!(poll_once(client.wait_committed(2)).await.is_none());
        go.send(()).unwrap();
        client.wait_committed(2).await.unwrap();
        go.send(()).unwrap();
        client.finish().await.unwrap();
        assert_eq!((client.sent(), client.committed()), (3, 3));
        assert!(matches!(client.send(b"4").await, Err(AckError::Finishing)));
    });
    assert_eq!(committed.all(), [b"1", b"2", b"3"]);
}

#[test]
fn a_message_larger_than_the_window_is_sent_alone() {
    let (address, committed) = start(Connection::serve);
    block_on(async {
        let options = AckOptions { window_bytes: 100, max_message: Some(300_000), ..no_retry() };
        let mut client = connect(&address, options).await;
        for len in [10, 300_000, 10, 95, 97] {
            client.send(&vec![7; len]).await.unwrap();
        }
        let error = client.send(&vec![7; 300_001]).await.unwrap_err();
        assert!(matches!(error, AckError::TooLong(_)), "{error}");
        client.finish().await.unwrap();
    });
    assert_eq!(committed.all().iter().map(Vec::len).sum::<usize>(), 300_212);
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let (address, _) = start(|mut connection| {
        connection.acknowledge();
        while connection.take().is_some() {}
    });
    block_on(async {
        let silence = Some(Duration::from_millis(200));
        let mut client = connect(&address, AckOptions { silence, ..no_retry() }).await;
        // Nothing is waiting: nothing needs to be said.
        smol::Timer::after(Duration::from_millis(500)).await;
        client.send(b"a").await.unwrap();
        let started = Instant::now();
        let error = client.wait_committed(1).await.unwrap_err();
        assert!(started.elapsed() >= Duration::from_millis(150), "{:?}", started.elapsed());
        assert!(matches!(&error, AckError::Lost { sent: 1, committed: 0, .. }), "{error:?}");
        let said = error.to_string();
        assert!(said.contains("nothing came from the server within 200ms"), "{said}");
        assert!(said.contains(&client.sender().to_string()), "{said}");
        // It is final, and said again.
        assert_eq!(client.send(b"b").await.unwrap_err().to_string(), said);
        assert_eq!(client.finish().await.unwrap_err().to_string(), said);
    });
}

#[test]
fn a_server_that_repeats_itself_is_alive() {
    let (address, _) = start(|mut connection| {
        connection.say(Answer::Acknowledgement(0));
        let message = read_frame(&mut connection.stream).unwrap();
        for _ in 0..12 {
            thread::sleep(Duration::from_millis(100));
            connection.acknowledge();
        }
        connection.committed.commit(message);
        connection.serve();
    });
    block_on(async {
        let silence = Some(Duration::from_millis(800));
        let mut client = connect(&address, AckOptions { silence, ..no_retry() }).await;
        client.send(b"a").await.unwrap();
        client.finish().await.unwrap();
    });
}

#[test]
fn a_server_that_closes_too_early_has_not_committed_the_rest() {
    let (address, _) = start(|mut connection| {
        connection.acknowledge();
        connection.take().unwrap();
        connection.acknowledge();
        // The second one is read, and nothing said about it.
        read_frame(&mut connection.stream).unwrap();
    });
    block_on(async {
        let mut client = connect(&address, no_retry()).await;
        client.send(b"a").await.unwrap();
        client.send(b"b").await.unwrap();
        let error = client.finish().await.unwrap_err();
        assert!(matches!(error, AckError::Lost { sent: 2, committed: 1, .. }), "{error:?}");
    });
}

#[test]
fn what_is_committed_stays_so_when_the_end_is_a_reset() {
    let (address, _) = start_limited(
        |_| 33 + 5,
        |mut connection| {
            connection.acknowledge();
            connection.take().unwrap();
            connection.acknowledge();
        },
    );
    block_on(async {
        let mut client = connect(&address, no_retry()).await;
        client.send(b"a").await.unwrap();
        // Only once all is over, and whatever was the reason.
        client.wait_committed(2).await.unwrap_err();
        client.wait_committed(1).await.unwrap();
        client.finish().await.unwrap();
    });
}

// ---- what cannot be

#[test]
fn counts_that_cannot_be_are_errors() {
    for (counts, words) in [
        ([0, 3], "3 messages are committed, but only 2 were sent"),
        ([2, 1], "1 messages are committed, but it has acknowledged 2"),
    ] {
        let (address, _) = start(move |mut connection| {
            connection.acknowledge();
            connection.take().unwrap();
            connection.take().unwrap();
            for count in counts {
                connection.say(Answer::Acknowledgement(count));
            }
            while connection.take().is_some() {}
        });
        block_on(async {
            let mut client = connect(&address, AckOptions::default()).await;
            client.send(b"a").await.unwrap();
            client.send(b"b").await.unwrap();
            let error = client.wait_committed(4).await.unwrap_err();
            assert!(matches!(error, AckError::Protocol { .. }), "{error:?}");
            assert!(error.to_string().contains(words), "{error}");
        });
    }
}

#[test]
fn a_server_that_has_forgotten_is_found_out() {
    let (address, committed) = start(|mut connection| {
        if connection.number == 2 {
            connection.say(Answer::Acknowledgement(1));
            while connection.take().is_some() {}
            return;
        }
        connection.acknowledge();
        connection.take().unwrap();
        connection.take().unwrap();
        connection.acknowledge();
    });
    block_on(async {
        let mut client = connect(&address, AckOptions::default()).await;
        client.send(b"a").await.unwrap();
        client.send(b"b").await.unwrap();
        committed.wait(2);
        let error = client.wait_committed(3).await.unwrap_err();
        assert!(error.to_string().contains("it has lost some"), "{error}");
    });
}

// ---- the command

fn send(address: impl ToString, arguments: &[&str], input: &[u8]) -> std::process::Output {
    let address = address.to_string();
    framelet(&[&["send", &address, "--ack", "--input", "lines"], arguments].concat(), input)
}

#[test]
fn send_says_how_much_is_committed() {
    let (address, committed) = start(Connection::serve);
    let input: String = (0..5000).map(|n| format!("{n}\n")).collect();
    check(
        &send(&address, &["--window", "50"], input.as_bytes()),
        0,
        &["sent 5000, committed 5000"],
    );
    assert_eq!(committed.all().len(), 5000);
    assert_eq!(committed.all()[4999], b"4999");
}

#[test]
fn a_server_without_acknowledgements_is_not_sent_anything() {
    // One that sends everything back never gives any.
    let server = Server::start(&["--echo", "--output", "frames"]);
    check(&send(server.address, &[], b"a\n"), 3, &["gives no acknowledgements"]);
    assert_eq!(server.stop().output, b"");
    // Others close, read on for ever, or say something else.
    let (address, accepted) = closing_server(usize::MAX);
    check(&send(address, &[], b"a\n"), 3, &["this server gives no acknowledgements"]);
    assert!(accepted.load(Ordering::SeqCst) > 1, "it may have been just starting");
    let (address, accepted) = closing_server(usize::MAX);
    let output = send(address, &["--retry", "0s"], b"a\n");
    check(&output, 3, &["this server gives no acknowledgements"]);
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
    let address = odd_server(|mut stream| drop(io::copy(&mut stream, &mut io::sink())));
    let output = send(address, &["--timeout", "200ms"], b"a\n");
    check(&output, 3, &["this server gives no acknowledgements: no welcome within 200ms"]);
    let address = odd_server(|mut stream| {
        stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").unwrap();
        let _ = io::copy(&mut stream, &mut io::sink());
    });
    check(&send(address, &[], b"a\n"), 3, &["this server gives no acknowledgements", "SSH"]);
}

/// A listener that closes the first `times` connections, and welcomes nobody.
fn closing_server(times: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, accepted) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let count = Arc::clone(&accepted);
    thread::spawn(move || {
        for _ in 0..times {
            drop(listener.accept().unwrap());
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    (address, accepted)
}

/// As behind a load balancer whose servers are just being started.
#[test]
fn a_server_that_closes_at_first_may_be_just_starting() {
    let (address, accepted) = closing_server(3);
    let sending = thread::spawn(move || send(address, &[], b"a\n"));
    let started = Instant::now();
    let server = loop {
        assert!(started.elapsed() < PATIENCE, "the client has not tried again");
        if accepted.load(Ordering::SeqCst) == 3 {
            // Its listener is gone, or about to be.
            let mut command = Command::new(FRAMELET);
            command.args(["serve", &address.to_string()]);
            if TcpListener::bind(address).is_ok() {
                break Server::spawn(command);
            }
        }
        thread::sleep(Duration::from_millis(1));
    };
    check(&sending.join().unwrap(), 0, &["sent 1, committed 1"]);
    assert_eq!(server.stop().output, b"a\n");
}

#[test]
fn a_refusal_is_shown_and_cannot_drive_the_terminal() {
    for (code, exit, text, words) in [
        (RefusalCode::Echo, 3, "", "an --echo server gives no acknowledgements"),
        (RefusalCode::Version, 3, "", "does not know this version"),
        (RefusalCode::Fenced, 1, "", "a newer connection of this sender has taken over"),
        (RefusalCode::Gap, 1, "message 7 was expected", "refuses: message 7 was expected"),
        (RefusalCode::Other(99), 1, "", "code 99"),
        (RefusalCode::Other(99), 1, "\x1b[2J", "refuses: \\u{1b}[2J"),
    ] {
        let (address, _) = start(move |connection| connection.refuse(code, text));
        check(&send(address, &[], b"a\n"), exit, &[words]);
    }
}

#[test]
fn send_notices_the_end_while_it_waits_for_input() {
    let (address, _) = start(|mut connection| {
        connection.acknowledge();
        connection.take().unwrap();
        connection.acknowledge();
        connection.refuse(RefusalCode::Fenced, "");
    });
    let mut child = Command::new(FRAMELET)
        .args(["send", &address.to_string(), "--ack", "--input", "lines"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"a\n").unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(said.contains("sent 1, committed 1"), "{said}");
    assert!(said.contains("a newer connection"), "{said}");
}

#[test]
fn a_lost_connection_is_said_with_how_to_go_on() {
    let (address, _) = start_limited(|_| 100, Connection::serve);
    let input = "message\n".repeat(50);
    let output = send(&address, &["--retry", "0s"], input.as_bytes());
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("framelet: sent 50, committed 6\n"), "{said}");
    assert!(said.contains("--resume` on the same input sends the rest"), "{said}");
    let output = send("127.0.0.1:1", &["--retry", "0s"], b"");
    check(&output, 1, &["cannot connect to 127.0.0.1:1: connection refused; is the server"]);
}

#[test]
fn what_a_killed_client_has_not_sent_can_be_sent_by_another() {
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..5 {
        let (address, committed) = start(Connection::serve);
        let input: String = (0..3000).map(|n| format!("{n}\n")).collect();
        let address = address.to_string();
        let arguments = ["--sender", SENDER, "--resume"];
        let mut child = Command::new(FRAMELET)
            .args(["send", &address, "--ack", "--input", "lines"])
            .args(arguments)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // All but the end, so that it cannot be through before it is killed.
        stdin.write_all(&input.as_bytes()[..input.len() - 1]).unwrap();
        committed.wait(random.usize(1..2500));
        child.kill().unwrap();
        child.wait().unwrap();
        check(&send(&address, &arguments, input.as_bytes()), 0, &["sent 3000, committed 3000"]);
        let lines: Vec<Vec<u8>> = input.lines().map(|line| line.as_bytes().to_vec()).collect();
        assert!(committed.all() == lines);
        // Again, there is nothing left to do; and another input is found out.
        check(&send(&address, &arguments, input.as_bytes()), 0, &["sent 3000, committed 3000"]);
        let output = send(&address, &arguments, b"1\n2\n");
        assert_eq!(output.status.code(), Some(2));
        assert!(said(&output).contains("has only 2 messages, but 3000"), "{}", said(&output));
        check(&send(&address, &["--sender", SENDER], b"new\n"), 2, &["--resume skips as many"]);
    }
}

#[test]
fn options_that_make_no_sense_together_are_refused() {
    for (arguments, words) in [
        (&["--ack", "--expect", "1"][..], "--ack and --expect contradict each other"),
        (&["--window", "5"], "--window has no use without --ack"),
        (&["--sender", SENDER], "--sender has no use without --ack"),
        (&["--resume"], "--resume has no use without --ack"),
        (&["--ack", "--resume"], "--resume needs --sender"),
        (&["--ack", "--window", "0"], "must be at least 1"),
        (&["--ack", "--sender", "abc"], "32 lower-case hexadecimal digits"),
        (&["--ack", "--layout", "u16be"], "no acknowledgements in u16be"),
    ] {
        let output = framelet(&[&["send", "127.0.0.1:1"], arguments].concat(), b"");
        check(&output, 2, &[words]);
    }
}

#[test]
fn a_sender_id_can_be_chosen() {
    let (address, _) = start(Connection::serve);
    block_on(async {
        let sender = Some(SENDER.parse::<SenderId>().unwrap());
        let client = connect(&address, AckOptions { sender, ..no_retry() }).await;
        assert_eq!(client.sender().to_string(), SENDER);
    });
}
