//! The figures of a server are true.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use framelet::server::{Figures, Monitor, Stage, Summary};
use framelet::sink::{MessageSink, SinkError};
use framelet::{Address, Batch, Layout, Server};
use smol::channel::{Sender, bounded};

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A sink whose commits wait until they are told their result.
struct Told(mpsc::Receiver<Result<(), SinkError>>);

impl MessageSink for Told {
    fn commit(&mut self, _: &[Batch]) -> Result<(), SinkError> {
        self.0.recv_timeout(PATIENCE).expect("the test says what becomes of each commit")
    }
}

/// A running server, and what watches it.
struct Watched {
    address: String,
    monitor: Monitor,
    stop: Sender<()>,
    task: smol::Task<Summary>,
}

impl Watched {
    fn start(set: impl FnOnce(Server) -> Server) -> Watched {
        smol::block_on(async {
            let listener = "127.0.0.1:0".parse::<Address>().unwrap().listen().await.unwrap();
            let address = listener.address().unwrap().to_string();
            let monitor = Monitor::default();
            assert_eq!(monitor.figures(), Figures::default());
            let server = set(Server::new(listener)).monitor(monitor.clone());
            let (stop, stopped) = bounded(1);
            let run = server.run(async move {
                let _ = stopped.recv().await;
            });
            let task = smol::spawn(async { run.await.unwrap() });
            Watched { address, monitor, stop, task }
        })
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).unwrap()
    }

    fn send(&self, messages: &[&str]) -> TcpStream {
        let mut frames = Vec::new();
        for message in messages {
            frames.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
            frames.extend(message.as_bytes());
        }
        // At once, so that they are one batch.
        let mut stream = self.connect();
        stream.write_all(&frames).unwrap();
        stream
    }

    #[track_caller]
    fn wait_for(&self, what: &str, so: impl Fn(&Figures) -> bool) -> Figures {
        let started = Instant::now();
        loop {
            let figures = self.monitor.figures();
            if so(&figures) {
                return figures;
            }
            assert!(started.elapsed() < PATIENCE, "{what} did not come: {figures:#?}");
            std::thread::sleep(Duration::from_micros(500));
        }
    }

    fn end(self) -> Figures {
        drop(self.stop);
        smol::block_on(self.task);
        self.monitor.figures()
    }
}

fn incidents(figures: &Figures, reason: &str) -> u64 {
    let incident = figures.incidents.iter().find(|incident| incident.reason == reason);
    incident.expect("each reason is always there").count
}

#[test]
fn what_was_received_is_counted_while_the_connection_is_open() {
    let server = Watched::start(|server| server.max_connections(7));
    let first = server.send(&["one", "two", "six"]);
    let figures = server.wait_for("three messages", |figures| figures.messages == 3);
    assert_eq!((figures.stage, figures.max_connections), (Stage::Serving, 7));
    assert_eq!((figures.payload_bytes, figures.connections, figures.open_connections), (9, 1, 1));
    assert_eq!(figures.sink, None);
    assert!(figures.memory_limit >= 64 << 20 && figures.memory <= figures.memory_limit);
    let second = server.send(&["seven"]);
    let figures = server.wait_for("another message", |figures| figures.messages == 4);
    assert_eq!((figures.payload_bytes, figures.connections, figures.open_connections), (14, 2, 2));
    for stream in [&first, &second] {
        stream.shutdown(Shutdown::Write).unwrap();
    }
    let figures = server.wait_for("the ends", |figures| figures.open_connections == 0);
    assert_eq!((figures.messages, figures.connections), (4, 2));
    let last = server.end();
    assert_eq!((last.stage, last.messages, last.payload_bytes), (Stage::Ended, 4, 14));
}

#[test]
fn payloads_are_counted_without_their_prefixes_in_a_layout_of_varying_width() {
    let server = Watched::start(|server| server.layout("varint".parse::<Layout>().unwrap()));
    let long = [&[0xc8, 0x01][..], &[b'x'; 200]].concat();
    server.connect().write_all(&[&long[..], b"\x02hi"].concat()).unwrap();
    let figures = server.wait_for("two messages", |figures| figures.messages == 2);
    assert_eq!(figures.payload_bytes, 202);
    server.end();
}

#[test]
fn what_goes_wrong_is_counted_by_its_reason() {
    let server = Watched::start(|server| server.max_connections(1).max_message(100));
    let open = server.send(&["a"]);
    server.wait_for("a message", |figures| figures.messages == 1);
    for refused in 1..=20 {
        drop(server.connect());
        // Also those of which the log says nothing.
        server.wait_for("the refusal", |figures| incidents(figures, "over_limit") == refused);
    }
    drop(open);
    server.wait_for("the end", |figures| figures.open_connections == 0);
    server.connect().write_all(b"\0\0\0\x05hal").unwrap();
    server.wait_for("half a message", |figures| incidents(figures, "truncated") == 1);
    server.wait_for("the end", |figures| figures.open_connections == 0);
    server.connect().write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let figures = server.wait_for("nonsense", |figures| incidents(figures, "no_message") == 1);
    assert_eq!((figures.connections, incidents(&figures, "over_limit")), (3, 20));
    assert!(figures.incidents.iter().all(|incident| {
        incident.reason.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    }));
    server.end();
}

#[test]
fn commits_are_counted_with_their_times_and_what_they_wait_for() {
    let (tell, told) = mpsc::channel();
    let server = Watched::start(|server| server.collect(Told(told)));
    let stream = server.send(&["one", "two"]);
    let sink = |figures: &Figures| figures.sink.clone().unwrap_or_default();
    let figures = server.wait_for("the first attempt", |figures| {
        sink(figures).working_for.is_some() && sink(figures).uncommitted == 2
    });
    assert_eq!((sink(&figures).committed, sink(&figures).last_commit), (0, None));
    assert!(figures.memory > 0);
    tell.send(Err(SinkError::Transient(std::io::Error::other("the disk is full")))).unwrap();
    let figures = server.wait_for("the trouble", |figures| sink(figures).trouble.is_some());
    assert_eq!(sink(&figures).trouble.unwrap().reason, "the disk is full");
    tell.send(Ok(())).unwrap();
    let figures = server.wait_for("the commit", |figures| sink(figures).last_commit.is_some());
    let after = sink(&figures);
    // The wait before the second attempt is part of it.
    let times = &after.commit_times;
    assert!(times.total >= Duration::from_millis(25), "{times:?}");
    let quick: u64 =
        times.buckets.iter().filter(|(at, _)| at.as_millis() <= 10).map(|(_, n)| n).sum();
    assert_eq!((times.count(), quick), (1, 0), "{times:?}");
    let figures = server.wait_for("the rest", |figures| sink(figures).committed == 2);
    let after = sink(&figures);
    assert_eq!((after.uncommitted, after.trouble, after.working_for), (0, None, None));
    drop(stream);
    assert_eq!(server.end().stage, Stage::Ended);
}

#[test]
fn senders_that_ask_for_acknowledgements_are_counted_and_shutdown_is_seen() {
    use framelet::AckClient;
    use framelet::client::AckOptions;

    struct Takes;

    impl MessageSink for Takes {
        fn commit(&mut self, _: &[Batch]) -> Result<(), SinkError> {
            Ok(())
        }
    }

    let server = Watched::start(|server| server.collect(Takes));
    for sender in 1..=3 {
        smol::block_on(async {
            let mut client = AckClient::connect(&server.address, AckOptions::new()).await.unwrap();
            client.send(b"hi").await.unwrap();
            client.finish().await.unwrap();
        });
        let figures = server.monitor.figures();
        assert_eq!(figures.sink.unwrap().senders, sender);
    }
    // Half a message holds up the end.
    let mut half = server.connect();
    half.write_all(b"\0\0\0\x02h").unwrap();
    server.wait_for("the connection", |figures| figures.open_connections == 1);
    drop(server.stop);
    let started = Instant::now();
    while server.monitor.figures().stage != Stage::Stopping {
        assert!(started.elapsed() < PATIENCE, "it does not stop");
        std::thread::sleep(Duration::from_micros(500));
    }
    half.write_all(b"i").unwrap();
    assert_eq!(smol::block_on(server.task).messages, 4);
    assert_eq!(server.monitor.figures().stage, Stage::Ended);
}
