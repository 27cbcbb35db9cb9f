//! One connection, polled step by step beside a sweep that is played by hand.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;

use futures_lite::future::{block_on, poll_once};
use smol::Timer;

use super::*;
use crate::acks::Hello;
use crate::address::Address;
use crate::net::Peer;
use crate::options::ServeOptions;
use crate::pool::Buffer;
use crate::sender::SenderId;
use crate::server::serve;
use crate::sink::{Sink, SinkError, Writer};
use crate::{DEFAULT_MAX_MESSAGE, Layout, append_frame};

const PATIENCE: Duration = Duration::from_secs(30);

/// Returns a connection of a server that nobody sweeps, and the client's end of it.
fn connection(server: &Arc<Server>, queue: Option<Queue>) -> (Connection, TcpStream) {
    let socket = block_on(async {
        let listener = "127.0.0.1:0".parse::<Address>().unwrap().listen().await.unwrap();
        let client = TcpStream::connect(listener.address().unwrap().to_string()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        (listener.accept().await.unwrap().0, client)
    });
    let origin = Arc::new(Origin::new(1, Peer::Unix));
    (Connection::new(Arc::clone(server), origin, socket.0, queue), socket.1)
}

fn server(options: &ServeOptions) -> Arc<Server> {
    Arc::new(Server::new(options).unwrap())
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

fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    append_frame(&mut frame, Layout::U32BE, DEFAULT_MAX_MESSAGE, payload).unwrap();
    frame
}

/// P6, P7.
#[test]
fn a_judgement_of_what_a_connection_did_before_is_void() {
    let options =
        ServeOptions { idle_timeout: Some(Duration::from_secs(1)), ..ServeOptions::default() };
    let message = frame(b"message");
    let (start, rest) = message.split_at(5);
    let (whole, next) = (&message[..], [rest, start].concat());
    // What had come when the sweep looked, what comes before it tells, and what the connection waits for
    // then.
    for (before, meanwhile, phase) in [
        (&b""[..], whole, Phase::Idle),
        (whole, whole, Phase::Idle),
        (whole, start, Phase::InMessage),
        (start, rest, Phase::Idle),
        (start, &next, Phase::InMessage),
    ] {
        let server = server(&options);
        let (mut connection, mut client) = connection(&server, None);
        let origin = Arc::clone(&connection.origin);
        let watch = &origin.watch;
        block_on(async {
            let mut run = Box::pin(connection.run());
            client.write_all(before).unwrap();
            let waits_for = if before == start { Phase::InMessage } else { Phase::Idle };
            serve_until(&mut run, || watch.phase() == waits_for).await;
            let judged = watch.state();
            server.clock.store(100, Ordering::SeqCst);
            client.write_all(meanwhile).unwrap();
            serve_until(&mut run, || watch.state().since() == 100).await;
            watch.expire(judged);
            assert!(poll_once(&mut run).await.is_none(), "{before:?} {meanwhile:?}");
            assert_eq!((watch.phase(), watch.state().since()), (phase, 100));
            // Of what it does now, it is not.
            watch.expire(watch.state());
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
    let server =
        server(&ServeOptions { layout: "u32le".parse().unwrap(), ..ServeOptions::default() });
    let (mut connection, mut client) = connection(&server, None);
    let origin = Arc::clone(&connection.origin);
    let (watch, socket) = (&origin.watch, connection.reader.get_ref().clone());
    block_on(async {
        let mut run = Box::pin(connection.run());
        // It may become a hello, or a message of 255 bytes.
        for (tick, byte) in [0xff, 0, 0, 0, b'm', b'm'].into_iter().enumerate() {
            server.clock.store(10 + tick as u64, Ordering::SeqCst);
            client.write_all(&[byte]).unwrap();
            let is_read = || watch.phase() == Phase::InMessage && socket.unread() == 0;
            serve_until(&mut run, is_read).await;
            assert_eq!(watch.state().since(), 10, "byte {tick}");
        }
    });
}

/// A sink that takes everything.
struct Anything;

impl Sink for Anything {
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
    let server = server(&ServeOptions::default());
    let writer = Writer::start(Box::new(Anything)).unwrap();
    let (mut connection, mut client) = connection(&server, Some(writer.queue()));
    let socket = connection.reader.get_ref().clone();
    block_on(async {
        let mut run = Box::pin(connection.run());
        greet(&mut run, &mut client).await;
        // From here on each answer fails, while messages still come.
        socket.shutdown_write().unwrap();
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

/// A sink that takes nothing as long as somebody holds the other end.
struct Blocks(mpsc::Receiver<()>);

impl Sink for Blocks {
    fn commit(&mut self, _: &[crate::Batch]) -> Result<(), SinkError> {
        let _ = self.0.recv();
        Ok(())
    }
}

/// P6. Who sends in time is not ended for what the server has no memory for.
#[test]
fn the_time_until_there_is_memory_is_not_the_senders_fault() {
    // Those that are read straight to their place, and those whose end is in a read buffer meanwhile.
    wait_for_memory(200 * 1024, 4);
    wait_for_memory(100 * 1024, 8);
}

/// Has 8 senders send so many messages of `len` bytes to a server that has memory for few of them.
fn wait_for_memory(len: usize, messages: u64) {
    const SENDERS: u64 = 8;
    let timeout = Duration::from_millis(500);
    let options = ServeOptions {
        max_message: Some(len),
        memory: Some(2 * len),
        message_timeout: Some(timeout),
        ..ServeOptions::default()
    };
    let (go_on, wait) = mpsc::channel();
    let (stop, stopped) = smol::channel::bounded::<()>(1);
    let listener = block_on("127.0.0.1:0".parse::<Address>().unwrap().listen()).unwrap();
    let address = listener.address().unwrap().to_string();
    let shutdown = async move {
        let _ = stopped.recv().await;
    };
    let server = smol::spawn(serve(listener, options, Some(Box::new(Blocks(wait))), shutdown));
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let mut client = TcpStream::connect(&address).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            thread::spawn(move || -> io::Result<usize> {
                for _ in 0..messages {
                    client.write_all(&frame(&vec![1; len]))?;
                }
                client.shutdown(Shutdown::Write)?;
                client.read(&mut [0])
            })
        })
        .collect();
    // There is memory for a megabyte of them; the others are under way all this time.
    thread::sleep(4 * timeout);
    drop(go_on);
    for sender in senders {
        assert_eq!(sender.join().unwrap().expect("an orderly end"), 0);
    }
    drop(stop);
    assert_eq!(block_on(server).unwrap().messages, SENDERS * messages);
}

/// The reactor may have to say twice that something has come. That must not cost a place in the line.
#[test]
fn whoever_gets_memory_reads_what_has_come_without_asking_whether_it_has() {
    let server = server(&ServeOptions::default());
    let (mut connection, mut client) = connection(&server, None);
    let socket = connection.reader.get_ref().clone();
    let mut arrives = |payload: &[u8]| {
        client.write_all(&frame(payload)).unwrap();
        let started = std::time::Instant::now();
        while socket.unread() < payload.len() as u64 + 4 {
            assert!(started.elapsed() < PATIENCE, "it did not come");
            thread::yield_now();
        }
    };
    block_on(async {
        arrives(b"a");
        let read = poll_once(poll_fn(|cx| connection.poll_payloads(cx))).await;
        assert_eq!(read.unwrap().ok().unwrap().len(), 1);
        assert!(connection.reader.get_ref().is_drained(), "as far as it knows");
        let taken = server.pool.lend(Buffer::from(&vec![0; 64 << 20][..]));
        arrives(b"b");
        assert!(poll_once(poll_fn(|cx| connection.poll_payloads(cx))).await.is_none());
        assert!(connection.reader.waits_for_memory());
        drop(taken);
        let read = poll_once(poll_fn(|cx| connection.poll_payloads(cx))).await;
        assert_eq!(read.expect("it has its turn").ok().unwrap().len(), 1);
    });
}
