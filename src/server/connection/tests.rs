//! One connection, polled step by step beside a sweep that is played by hand.

use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use futures_lite::future::{self, block_on, poll_once};
use futures_lite::{AsyncReadExt as _, AsyncWriteExt, FutureExt};
use smol::Timer;

use self::streams::{Endless, Lagging, Stub};
use super::*;
use crate::net::address::Address;
use crate::net::byte_stream::Peer;
use crate::net::listener::ResettingListener;
use crate::server::commit_queue::CommandSender;
use crate::server::connection_state::Phase;
use crate::server::handler::Answering;
use crate::server::handler::{IntoAnswering as _, Request};
use crate::server::options::Options;
use crate::server::receiver::STARVED;
use crate::server::server::Server;
use crate::server::upgrade::Upgrade;
use crate::server::writer_thread::WriterThread;
use crate::sink::message_sink::{MessageSink, SinkError};
use crate::stream::arrival::Arrival;
use crate::stream::pool::Buffer;
use crate::wire::ack::Hello;
use crate::wire::answer::Answer;
use crate::wire::frame::append_frame;
use crate::wire::layout::{DEFAULT_MAX_MESSAGE, Layout};
use crate::wire::sender_id::SenderId;

mod ends;
mod heartbeats;
mod memory;
mod streams;

const PATIENCE: Duration = Duration::from_secs(30);

/// Returns how many messages a read has brought.
fn messages(read: Result<Arrival, Outcome>) -> usize {
    match read {
        Ok(Arrival::Messages(payloads)) => payloads.len(),
        _ => 0,
    }
}

/// Returns a connection of a server that nobody sweeps, and the client's end of it.
fn connection(server: &Arc<Shared>, queue: Option<CommitQueue>) -> (Connection, TcpStream) {
    let socket = block_on(async {
        let listener = "127.0.0.1:0".parse::<Address>().unwrap().listen().await.unwrap();
        let client = TcpStream::connect(listener.address().unwrap().to_string()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        (listener.accept().await.unwrap().0, client)
    });
    let open = Arc::new(OpenConnection::new(1, Peer::Unix));
    (Connection::new(Arc::clone(server), open, socket.0, queue), socket.1)
}

fn server(options: Options) -> Arc<Shared> {
    Arc::new(Shared::new(options).unwrap())
}

/// Serves a connection until `holds` does.
async fn serve_until(
    run: &mut (impl Future<Output = Outcome> + Unpin),
    mut holds: impl FnMut() -> bool,
) {
    let started = std::time::Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "it did not come");
        assert!(poll_once(&mut *run).await.is_none(), "the connection has ended");
        Timer::after(Duration::from_millis(1)).await;
    }
}

/// Waits until the kernel has so many unread bytes.
fn wait_for_arrival(socket: &ByteStream, bytes: usize) {
    let started = Instant::now();
    while socket.unread() < Some(bytes as u64) {
        assert!(started.elapsed() < PATIENCE, "it did not come");
        thread::yield_now();
    }
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    append_frame(&mut frame, Layout::U32BE, DEFAULT_MAX_MESSAGE, payload).unwrap();
    frame
}

/// P6, P7.
#[test]
fn a_verdict_on_an_earlier_state_of_a_connection_has_no_effect() {
    let message = frame(b"message");
    let (start, rest) = message.split_at(5);
    let (whole, next) = (&message[..], [rest, start].concat());
    // What had arrived when the sweep looked, what arrives before it tells the connection, and what the connection
    // then waits for.
    for (before, meanwhile, phase) in [
        (&b""[..], whole, Phase::Idle),
        (whole, whole, Phase::Idle),
        (whole, start, Phase::InMessage),
        (start, rest, Phase::Idle),
        (start, &next, Phase::InMessage),
    ] {
        let server =
            server(Options { idle_timeout: Some(Duration::from_secs(1)), ..Options::default() });
        let (mut connection, mut client) = connection(&server, None);
        let origin = Arc::clone(&connection.receiver.connection);
        let state = &origin.state;
        block_on(async {
            let mut run = Box::pin(connection.run());
            client.write_all(before).unwrap();
            let waits_for = if before == start { Phase::InMessage } else { Phase::Idle };
            serve_until(&mut run, || state.phase() == waits_for).await;
            let judged = state.snapshot();
            server.set_clock(100);
            client.write_all(meanwhile).unwrap();
            serve_until(&mut run, || state.snapshot().since() == 100).await;
            state.expire(judged);
            assert!(poll_once(&mut run).await.is_none(), "{before:?} {meanwhile:?}");
            assert_eq!((state.phase(), state.snapshot().since()), (phase, 100));
            // Of what it does now, it is not.
            state.expire(state.snapshot());
            match (poll_once(&mut run).await, phase) {
                (Some(Outcome::Idle(_)), Phase::Idle) => {}
                (Some(Outcome::Read(error)), Phase::InMessage) => {
                    assert!(error.to_string().contains("not complete within 30s"), "{error}");
                }
                _ => panic!("not ended: {before:?} {meanwhile:?}"),
            }
        });
    }
}

/// A byte in time is no message in time, and how long a hello takes counts, too.
#[test]
fn the_clock_of_a_message_starts_with_its_first_byte() {
    let server = server(Options { layout: "u32le".parse().unwrap(), ..Options::default() });
    let (mut connection, mut client) = connection(&server, None);
    let origin = Arc::clone(&connection.receiver.connection);
    let (state, socket) = (&origin.state, connection.receiver.reader.get_ref().clone());
    block_on(async {
        let mut run = Box::pin(connection.run());
        // It may become a hello, or a message of 255 bytes.
        for (tick, byte) in [0xff, 0, 0, 0, b'm', b'm'].into_iter().enumerate() {
            server.set_clock(10 + tick as u64);
            client.write_all(&[byte]).unwrap();
            let is_read = || state.phase() == Phase::InMessage && socket.unread() == Some(0);
            serve_until(&mut run, is_read).await;
            assert_eq!(state.snapshot().since(), 10, "byte {tick}");
        }
    });
}

/// Many times, since the reactor may be quick.
#[test]
fn what_the_kernel_has_received_keeps_a_connection_even_if_the_reactor_has_not_reported_it() {
    let server = server(Options::default());
    for round in 0..100 {
        let (mut connection, mut client) = connection(&server, None);
        let socket = connection.receiver.reader.get_ref().clone();
        let origin = Arc::clone(&connection.receiver.connection);
        let state = &origin.state;
        block_on(async {
            let mut run = Box::pin(connection.run());
            serve_until(&mut run, || state.phase() == Phase::Idle).await;
            client.write_all(&frame(b"message")[..5]).unwrap();
            wait_for_arrival(&socket, 5);
            assert!(state.evict(state.snapshot()));
            assert!(poll_once(&mut run).await.is_none(), "round {round}");
            assert_eq!((state.phase(), state.snapshot().is_evicted()), (Phase::InMessage, false));
        });
    }
}

#[test]
fn a_connection_gives_way_only_if_nothing_of_its_peer_is_left_to_do() {
    let server = server(Options::default());
    let (commands, _taken) = smol::channel::bounded(2);
    let commands = CommandSender::new(commands, Arc::default(), thread::current());
    let queue = CommitQueue::new(&Arc::new(commands));
    let (mut connection, mut client) = connection(&server, Some(queue));
    let origin = Arc::clone(&connection.receiver.connection);
    let state = &origin.state;
    block_on(async {
        let mut run = Box::pin(connection.run());
        // The message is received, but not committed.
        server.set_clock(7);
        client.write_all(&frame(b"message")).unwrap();
        serve_until(&mut run, || state.phase() == Phase::Idle && state.snapshot().since() == 7)
            .await;
        server.set_clock(100);
        assert!(state.evict(state.snapshot()));
        assert!(poll_once(&mut run).await.is_none());
        let now = state.snapshot();
        assert_eq!((now.phase(), now.since(), now.is_evicted()), (Phase::Idle, 7, false));
        origin.commit(1, true);
        assert!(state.evict(state.snapshot()));
        assert!(matches!(poll_once(&mut run).await, Some(Outcome::Evicted)));
    });
}

/// A sink that takes everything.
struct Anything;

impl MessageSink for Anything {
    fn commit(&mut self, _: &[crate::Batch]) -> Result<(), SinkError> {
        Ok(())
    }
}

/// Sends a hello, and waits for the welcome.
async fn greet(run: &mut (impl Future<Output = Outcome> + Unpin), client: &mut TcpStream) {
    let hello = Hello { sender: SenderId::from_bytes([1; 16]), first: 1 };
    client.write_all(&hello.encode(Layout::U32BE).unwrap()).unwrap();
    let mut welcome = [0; 12];
    client.set_nonblocking(true).unwrap();
    serve_until(run, || client.read(&mut welcome).is_ok_and(|read| read == welcome.len())).await;
    client.set_nonblocking(false).unwrap();
}

#[test]
fn a_client_that_cannot_be_told_what_is_committed_does_not_keep_its_connection() {
    let server = server(Options::default());
    let writer = WriterThread::start(Box::new(Anything)).unwrap();
    let (mut connection, mut client) = connection(&server, Some(writer.queue()));
    let mut socket = connection.receiver.reader.get_ref().clone();
    block_on(async {
        let mut run = Box::pin(connection.run());
        greet(&mut run, &mut client).await;
        // From here on each answer fails, while messages still come.
        socket.close().await.unwrap();
        client.write_all(&frame(b"message")).unwrap();
        let too_late = async {
            Timer::after(PATIENCE).await;
            panic!("the connection is open and mute");
        };
        match run.or(too_late).await {
            Outcome::Write(error) => assert_eq!(error.kind(), io::ErrorKind::BrokenPipe),
            _ => panic!("ended otherwise"),
        }
    });
}

/// Polls a few times, since a stub wakes nobody.
fn poll_some(run: &mut (impl Future<Output = Outcome> + Unpin)) -> Option<Outcome> {
    (0..4).find_map(|_| block_on(poll_once(&mut *run)))
}

/// Returns a connection over a stub.
fn stub_connection(server: &Arc<Shared>, queue: Option<CommitQueue>) -> (Connection, Stub) {
    let stub = Stub::default();
    let open = Arc::new(OpenConnection::new(1, Peer::Unix));
    let stream = ByteStream::new(stub.clone());
    (Connection::new(Arc::clone(server), open, stream, queue), stub)
}

#[test]
fn taking_replies_does_not_restart_the_clock_of_a_half_sent_message() {
    let answering = (|request: Request| async { request }).into_answering();
    let server = server(Options { answering, ..Options::default() });
    let (mut connection, stub) = stub_connection(&server, None);
    let origin = Arc::clone(&connection.receiver.connection);
    let now = || (origin.state.phase(), origin.state.snapshot().since());
    let message = frame(b"message");
    let (start, rest) = message.split_at(5);
    let mut run = Box::pin(connection.run());
    let step = |run: &mut _, tick, fed: &[u8], taken| {
        server.set_clock(tick);
        stub.feed(fed);
        stub.allow(taken);
        poll_some(run)
    };
    assert!(step(&mut run, 10, &message, 0).is_none());
    assert_eq!(now(), (Phase::Writing, 10));
    // Alone, a peer that takes replies is given more time.
    assert!(step(&mut run, 11, &[], 1).is_none());
    assert_eq!(now(), (Phase::Writing, 11));
    assert!(step(&mut run, 12, start, 0).is_none());
    assert_eq!(now(), (Phase::Writing, 11));
    // Now its message is what it owes for longest.
    for tick in 13..16 {
        assert!(step(&mut run, tick, &[], 1).is_none());
        assert_eq!(now(), (Phase::InMessage, 12));
    }
    // The end of the message ends only that wait.
    assert!(step(&mut run, 16, rest, 0).is_none());
    assert_eq!(now(), (Phase::Writing, 15));
    assert!(step(&mut run, 17, start, 1).is_none());
    assert!(step(&mut run, 18, &[], 1).is_none());
    assert_eq!(now(), (Phase::InMessage, 17));
    origin.state.expire(origin.state.snapshot());
    match step(&mut run, 19, &[], 1) {
        Some(Outcome::Read(error)) => {
            assert!(error.to_string().contains("not complete within 30s"), "{error}");
        }
        _ => panic!("not ended"),
    }
}

#[test]
fn requests_are_answered_while_later_ones_wait_for_the_sink() {
    let (go, gate) = smol::channel::bounded::<()>(1);
    let handler = move |request: Request| {
        let gate = gate.clone();
        async move {
            if request.payload() == b"slow" {
                let _ = gate.recv().await;
            }
            request
        }
    };
    let server =
        server(Options { answering: handler.into_answering(), pipeline: 8, ..Options::default() });
    let (commands, taken) = smol::channel::bounded(2);
    let commands = CommandSender::new(commands, Arc::default(), thread::current());
    let queue = CommitQueue::new(&Arc::new(commands));
    let (mut connection, stub) = stub_connection(&server, Some(queue));
    stub.allow(usize::MAX);
    let [first, slow, last] = [&b"first"[..], b"slow", b"last"].map(frame);
    block_on(async {
        let mut run = Box::pin(connection.run());
        // The first two fill the queue.
        for message in [&first, &slow, &last] {
            stub.feed(message);
            assert!(poll_some(&mut run).is_none());
        }
        assert_eq!((stub.output(), taken.len()), (first.clone(), 2));
        drop(go);
        assert!(poll_once(&mut run).await.is_none());
        assert_eq!(stub.output(), [&first[..], &slow].concat());
        taken.recv().await.unwrap();
        assert!(poll_some(&mut run).is_none());
        assert_eq!(stub.output(), [first, slow, last].concat());
    });
}

#[test]
fn replies_before_a_failure_reach_the_peer_and_half_a_frame_follows() {
    const LEN: usize = 400_000;
    // A handler's failure, and a frame that is no message.
    for bad in [frame(b"fail"), vec![0xff; 4]] {
        let handler = |request: Request| async move {
            match request.payload() {
                b"fail" => Err("it does not work"),
                _ => Ok(vec![b'x'; LEN]),
            }
        };
        let server = server(Options { answering: handler.into_answering(), ..Options::default() });
        let (stream, mut client) = block_on(async {
            let listener = "127.0.0.1:0".parse::<Address>().unwrap().listen().await.unwrap();
            let client = TcpStream::connect(listener.address().unwrap().to_string()).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut listener = ResettingListener::new(listener).unwrap();
            (listener.accept().await.unwrap().0, client)
        });
        let open = Arc::new(OpenConnection::new(1, Peer::Unix));
        let mut connection = Connection::new(Arc::clone(&server), open, stream, None);
        let requests = [frame(b"x"), bad].concat();
        client.write_all(&requests).unwrap();
        wait_for_arrival(connection.receiver.reader.get_ref(), requests.len());
        let outcome = smol::block_on(async {
            let mut run = Box::pin(connection.run());
            for _ in 0..10 {
                assert!(poll_once(&mut run).await.is_none(), "it has ended before its replies");
            }
            let reads = smol::unblock(move || {
                let mut bytes = Vec::new();
                client.read_to_end(&mut bytes).map(|_| bytes)
            });
            let (outcome, bytes) = future::zip(run, reads).await;
            let bytes = bytes.expect("all replies");
            assert_eq!((bytes.len(), bytes.last()), (4 + LEN + 1, Some(&0xff)));
            outcome
        });
        assert!(matches!(outcome, Outcome::HandlerFailed(_) | Outcome::Read(_)));
    }
}

/// Sends a hello of an upgrade and a message to a server that then shuts down, and returns how many messages
/// it received. The upgrade and the upgraded stream are told so many times that there is nothing.
fn received_at_shutdown(upgrade_lags: u32, stream_lags: u32) -> u64 {
    let upgrade = Upgrade::new(move |mut stream: ByteStream| async move {
        for _ in 0..upgrade_lags {
            future::yield_now().await;
        }
        stream.read_exact(&mut [0; 2]).await?;
        Ok(Lagging(stream, stream_lags))
    });
    let server = server(Options { upgrade: Some(upgrade), ..Options::default() });
    let (mut connection, mut client) = connection(&server, None);
    let socket = connection.receiver.reader.get_ref().clone();
    let bytes = [b"ok", &frame(b"message")[..]].concat();
    client.write_all(&bytes).unwrap();
    wait_for_arrival(&socket, bytes.len());
    server.drain();
    assert!(matches!(block_on(connection.run()), Outcome::Drained));
    connection.received()
}

#[test]
fn what_has_arrived_below_another_stream_at_shutdown_is_read() {
    for (upgrade_lags, stream_lags) in [(0, 0), (2, 0), (0, 2), (2, 2)] {
        let received = received_at_shutdown(upgrade_lags, stream_lags);
        assert_eq!(received, 1, "{upgrade_lags} {stream_lags}");
    }
}

#[test]
fn a_sender_that_never_pauses_is_read_until_the_last_call() {
    for answering in [Answering::Nothing, Answering::Echo] {
        let server = server(Options { answering, ..Options::default() });
        let open = Arc::new(OpenConnection::new(1, Peer::Unix));
        let stream = ByteStream::new(Endless(frame(&[b'm'; 1000]), 0));
        let mut connection = Connection::new(Arc::clone(&server), open, stream, None);
        block_on(async {
            let mut run = Box::pin(connection.run());
            assert!(poll_once(&mut run).await.is_none());
            server.drain();
            for _ in 0..3 {
                assert!(poll_once(&mut run).await.is_none());
            }
            server.call_last();
            let outcome = (0..3).find_map(|_| block_on(poll_once(&mut run)));
            assert!(matches!(outcome, Some(Outcome::Drained)), "it reads on");
        });
        assert!(connection.received() > 1000);
    }
}

#[test]
fn a_peer_that_leaves_before_its_first_byte_is_a_probe_and_no_failed_setup() {
    let upgrade = |mut stream: ByteStream| async move {
        let mut hello = [0; 2];
        futures_lite::AsyncReadExt::read_exact(&mut stream, &mut hello).await?;
        Ok(stream)
    };
    let upgrade = Some(Upgrade::new(upgrade));
    let shared = server(Options { upgrade, ..Options::default() });
    for (sent, resets, is_probe) in
        [(&b""[..], false, true), (b"", true, true), (b"x", false, false), (b"x", true, false)]
    {
        let (mut connection, mut client) = connection(&shared, None);
        let socket = connection.receiver.reader.get_ref().clone();
        client.write_all(sent).unwrap();
        while socket.unread() < Some(sent.len() as u64) {
            thread::sleep(Duration::from_millis(1));
        }
        let mut run = Box::pin(connection.run());
        let outcome = block_on(async {
            // A reset would destroy what is not read by then.
            serve_until(&mut run, || socket.unread() == Some(0)).await;
            if resets {
                let linger = Some(Duration::ZERO);
                socket2::SockRef::from(&client).set_linger(linger).unwrap();
            }
            drop(client);
            run.await
        });
        let as_expected = match outcome {
            Outcome::LeftAtOnce => is_probe,
            Outcome::Setup(..) => !is_probe,
            _ => false,
        };
        assert!(as_expected, "{sent:?}, reset: {resets}");
    }
}

#[test]
fn the_mark_of_an_end_never_becomes_part_of_an_acknowledgement() {
    let server = server(Options::default());
    let writer = WriterThread::start(Box::new(Anything)).unwrap();
    let hello = Hello { sender: SenderId::from_bytes([1; 16]), first: 6 };
    let welcome = Answer::Acknowledgement(5).frame(Layout::U32BE);
    for taken in 1..=welcome.len() {
        let stub = Stub::default();
        stub.feed(&hello.encode(Layout::U32BE).unwrap());
        stub.allow(taken);
        let open = Arc::new(OpenConnection::new(1, Peer::Unix));
        let stream = ByteStream::new(stub.clone());
        let mut connection =
            Connection::new(Arc::clone(&server), Arc::clone(&open), stream, Some(writer.queue()));
        block_on(async {
            let mut run = Box::pin(connection.run());
            serve_until(&mut run, || stub.output().len() == taken).await;
            open.state.send(Signal::Abort);
            stub.allow(1000);
            assert!(matches!(run.await, Outcome::Aborted));
        });
        let expected = [&welcome[..], &[0xff]].concat();
        assert_eq!(stub.output(), expected, "{taken} taken before");
    }
}
