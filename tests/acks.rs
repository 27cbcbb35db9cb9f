//! Acknowledgements: a client that sends until everything is committed, against a server that
//! remembers what it has acknowledged and otherwise does the worst.

mod common;

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::{Duration, Instant};

use common::acks::{Connection, SENDER, read_hello, start, start_limited};
use common::program::{PATIENCE, Server, frame, read_frame};
use framelet::client::{AckError, AckOptions, AnswerError};
use framelet::wire::{Answer, Refusal, RefusalCode, SenderId};
use framelet::{AckClient, Address};
use futures_lite::future::{block_on, poll_once};
use futures_lite::{AsyncRead, AsyncWrite};

/// Options for a client that gives up at the first failure.
fn no_retry() -> AckOptions {
    AckOptions::new().retry(Duration::ZERO)
}

async fn connect(address: &Address, options: AckOptions) -> AckClient {
    AckClient::connect(address, options).await.unwrap()
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
                    let options = AckOptions::new().window(random.usize(8..200));
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
        let mut client = connect(&address, AckOptions::new()).await;
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
        let mut client = connect(&address, AckOptions::new()).await;
        client.send(b"a").await.unwrap();
        client.send(b"b").await.unwrap();
        client.finish().await.unwrap();
    });
    assert_eq!(committed.all(), [b"a", b"b"]);
}

#[test]
fn a_closure_can_make_the_connections() {
    let (address, committed) = start(|mut connection| match connection.number {
        1 => {
            connection.acknowledge();
            connection.take().unwrap();
            connection.acknowledge();
        }
        _ => connection.serve(),
    });
    let address = address.to_string();
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    let connector = move || {
        let (address, attempt) = (address.clone(), counted.fetch_add(1, Ordering::SeqCst));
        async move {
            match attempt {
                0 => Err(io::Error::other("no luck")),
                _ => Ok(Buffered {
                    stream: smol::net::TcpStream::connect(address).await?,
                    out: vec![],
                }),
            }
        }
    };
    block_on(async {
        // What it writes and does not flush would never arrive, and be waited for in vain.
        let options = AckOptions::new().server_timeout(PATIENCE / 4);
        let mut client = AckClient::connect_with(connector, options).await.unwrap();
        client.send(b"a").await.unwrap();
        client.wait_committed(1).await.unwrap();
        client.send(b"b").await.unwrap();
        client.send(b"c").await.unwrap();
        client.finish().await.unwrap();
    });
    assert_eq!(committed.all(), [b"a", b"b", b"c"]);
    assert_eq!(attempts.load(Ordering::SeqCst), 3);
}

/// A stream that sends nothing before it is flushed, as TLS may.
struct Buffered {
    stream: smol::net::TcpStream,
    out: Vec<u8>,
}

impl AsyncRead for Buffered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Buffered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.out.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let Buffered { stream, out } = &mut *self;
            let written = ready!(Pin::new(stream).poll_write(cx, out))?;
            out.drain(..written);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.stream).poll_close(cx)
    }
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
        let mut client = connect(&address, no_retry().window(2)).await;
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
        assert!(matches!(client.send(b"4").await, Err(AckError::Finished)));
        // No such message will ever be.
        assert!(matches!(client.wait_committed(4).await, Err(AckError::Finished)));
    });
    assert_eq!(committed.all(), [b"1", b"2", b"3"]);
}

#[test]
fn a_message_larger_than_the_window_is_sent_alone() {
    let (address, committed) = start(Connection::serve);
    block_on(async {
        let options = no_retry().window_bytes(100).max_message(300_000);
        let mut client = connect(&address, options).await;
        for len in [10, 300_000, 10, 95, 97] {
            client.send(&vec![7; len]).await.unwrap();
        }
        let error = client.send(&vec![7; 300_001]).await.unwrap_err();
        assert!(matches!(error, AckError::Encode(_)), "{error}");
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
        let mut client = connect(&address, no_retry().server_timeout(silence)).await;
        // Nothing is waiting: nothing needs to be said.
        smol::Timer::after(Duration::from_millis(500)).await;
        client.send(b"a").await.unwrap();
        let started = Instant::now();
        let error = client.wait_committed(1).await.unwrap_err();
        assert!(started.elapsed() >= Duration::from_millis(150), "{:?}", started.elapsed());
        assert!(matches!(&error, AckError::Lost { sent: 1, committed: 0, .. }), "{error:?}");
        let said = error.to_string();
        assert!(said.contains("nothing came from the server within 200ms"), "{said}");
        assert!(said.contains(&client.sender_id().short()), "{said}");
        assert!(!said.contains(&client.sender_id().to_string()), "{said}");
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
        let mut client = connect(&address, no_retry().server_timeout(silence)).await;
        client.send(b"a").await.unwrap();
        client.finish().await.unwrap();
    });
}

#[test]
fn a_server_that_takes_a_long_message_in_is_alive() {
    let (address, _) = start(|mut connection| {
        assert_eq!(connection.number, 1, "it was given up");
        connection.acknowledge();
        // Longer than the client waits without a sign of life, but each part of it is one.
        let mut part = vec![0; 1 << 20];
        for _ in 0..16 {
            thread::sleep(Duration::from_millis(150));
            connection.stream.read_exact(&mut part).unwrap();
        }
        connection.say(Answer::Acknowledgement(1));
        let _ = connection.stream.read(&mut part);
        let _ = connection.stream.read(&mut part);
    });
    block_on(async {
        let silence = Duration::from_millis(1500);
        let options = no_retry().server_timeout(silence).max_message(64 << 20);
        let mut client = connect(&address, options).await;
        client.send(&vec![b'x'; 16 << 20]).await.unwrap();
        client.finish().await.unwrap();
    });
}

#[test]
fn a_welcome_may_take_its_time_as_long_as_there_are_signs_of_life() {
    let (address, _) = start(|mut connection| {
        for _ in 0..12 {
            thread::sleep(Duration::from_millis(100));
            connection.say(Answer::Heartbeat);
        }
        if connection.number == 1 {
            // Not without acknowledgements: it is only in trouble.
            return;
        }
        connection.serve();
    });
    block_on(async {
        let silence = Some(Duration::from_millis(800));
        let error =
            AckClient::connect(&address, no_retry().server_timeout(silence)).await.unwrap_err();
        assert!(matches!(error, AckError::Lost { .. }), "{error:?}");
        let mut client = connect(&address, no_retry().server_timeout(silence)).await;
        client.send(b"a").await.unwrap();
        client.finish().await.unwrap();
    });
}

#[test]
fn a_server_that_only_takes_small_messages_in_is_given_up() {
    let (address, _) = start(|mut connection| {
        connection.acknowledge();
        // The systems in between have room for all of it.
        while connection.take().is_some() {}
    });
    block_on(async {
        let silence = Some(Duration::from_millis(500));
        let mut client = connect(&address, no_retry().server_timeout(silence)).await;
        let started = Instant::now();
        let error = loop {
            match client.send(b"a").await {
                Ok(_) => smol::Timer::after(Duration::from_millis(50)).await,
                Err(error) => break error,
            };
            assert!(started.elapsed() < PATIENCE, "it sends on and on");
        };
        assert!(error.to_string().contains("nothing came from the server within 500ms"), "{error}");
    });
}

#[test]
fn a_silent_server_is_left_for_another_whatever_the_time_to_retry() {
    let (address, committed) = start(|mut connection| match connection.number {
        1 => {
            connection.acknowledge();
            let _ = connection.stream.read(&mut [0; 100]);
            let _ = connection.stream.read(&mut [0; 100]);
        }
        _ => connection.serve(),
    });
    block_on(async {
        let retry = Duration::from_millis(500);
        let options = AckOptions::new().retry(retry).server_timeout(retry);
        let mut client = connect(&address, options).await;
        client.send(b"a").await.unwrap();
        client.finish().await.unwrap();
    });
    assert_eq!(committed.all(), [b"a"]);
}

#[test]
fn a_message_that_comes_too_late_is_given_up_the_second_time() {
    let (address, _) = start(|mut connection| {
        connection.acknowledge();
        if connection.number == 2 {
            // It was only a slow line, so the next one counts anew.
            connection.take().unwrap();
            connection.acknowledge();
        }
        connection.refuse(RefusalCode::Late, "");
    });
    block_on(async {
        let mut client = connect(&address, AckOptions::new()).await;
        client.send(b"a").await.unwrap();
        client.send(b"b").await.unwrap();
        let error = client.finish().await.unwrap_err();
        assert!(matches!(error, AckError::Refused { .. }), "{error:?}");
        assert_eq!(client.committed(), 1);
    });
}

#[test]
fn a_sender_is_fenced_for_good_the_second_time() {
    for times in [1, 2] {
        let (address, committed) = start(move |mut connection| {
            connection.acknowledge();
            connection.take().unwrap();
            if connection.number > times {
                return connection.serve();
            }
            connection.refuse(RefusalCode::Fenced, "");
        });
        block_on(async {
            let mut client = connect(&address, AckOptions::new()).await;
            for message in [b"a", b"b", b"c"] {
                client.send(message).await.unwrap();
            }
            match (times, client.finish().await) {
                // It may have been a connection of its own.
                (1, Ok(())) => assert_eq!(committed.all(), [b"a", b"b", b"c"]),
                (2, Err(AckError::Refused { refusal, .. })) => {
                    assert_eq!(refusal.code, RefusalCode::Fenced);
                }
                (_, ended) => panic!("{times}: {ended:?}"),
            }
        });
    }
}

#[test]
fn a_client_that_gets_on_by_little_does_not_give_up() {
    // Only the next welcome shows what is committed.
    let (address, committed) = start(|mut connection| {
        connection.acknowledge();
        let _ = connection.take();
    });
    block_on(async {
        let retry = Duration::from_millis(500);
        let mut client = connect(&address, AckOptions::new().retry(retry)).await;
        let started = Instant::now();
        for _ in 0..40 {
            client.send(b"a").await.unwrap();
        }
        client.finish().await.unwrap();
        assert!(started.elapsed() > retry, "it proves nothing");
    });
    assert_eq!(committed.count(), 40);
}

#[test]
fn only_the_time_without_a_connection_counts() {
    let (address, _) = start(|mut connection| match connection.number {
        1 | 3 => connection.acknowledge(),
        4 => {
            // The welcome takes its time, but that is no time without a connection.
            for _ in 0..15 {
                thread::sleep(Duration::from_millis(100));
                connection.say(Answer::Heartbeat);
            }
        }
        2 => {
            connection.acknowledge();
            read_frame(&mut connection.stream).unwrap();
            for _ in 0..15 {
                thread::sleep(Duration::from_millis(100));
                connection.acknowledge();
            }
        }
        _ => connection.serve(),
    });
    block_on(async {
        let retry = Duration::from_secs(1);
        let mut client = connect(&address, AckOptions::new().retry(retry)).await;
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
        ([0, 3], "it has committed 3 messages of this sender, which has sent 2"),
        ([2, 1], "it has committed 1 message, but it has acknowledged 2"),
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
            let mut client = connect(&address, AckOptions::new()).await;
            client.send(b"a").await.unwrap();
            client.send(b"b").await.unwrap();
            let error = client.wait_committed(4).await.unwrap_err();
            assert!(matches!(error, AckError::Protocol { .. }), "{error:?}");
            assert!(error.to_string().contains(words), "{error}");
        });
    }
}

#[test]
fn a_welcome_that_nobody_can_have_reached_is_none() {
    for count in [1 << 62, u64::MAX] {
        let (address, _) = start(move |mut connection| {
            connection.say(Answer::Acknowledgement(count));
            while connection.take().is_some() {}
        });
        block_on(async {
            let error = AckClient::connect(&address, AckOptions::new()).await.unwrap_err();
            let AckError::NoAcknowledgements(AnswerError::Payload(error)) = error else {
                panic!("{error:?}");
            };
            assert_eq!(error.start, count.to_be_bytes());
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
        let mut client = connect(&address, AckOptions::new()).await;
        client.send(b"a").await.unwrap();
        client.send(b"b").await.unwrap();
        committed.wait(2);
        let error = client.wait_committed(3).await.unwrap_err();
        assert!(
            matches!(error, AckError::Behind { server: 1, committed: 2, sent: 2, .. }),
            "{error:?}"
        );
        let words = "the server has 1 message of this sender, the client continues with 3: was the";
        assert!(error.to_string().contains(words), "{error}");
    });
}

/// A server that acknowledges four messages, and then has lost all but `left` of them: it says so with a
/// refusal, or with its welcome. Returns the numbers in the hellos, and all that was received.
fn start_forgetful(
    left: u64,
    refuses: bool,
) -> (Address, Receiver<u64>, Receiver<Vec<u8>>, Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: Address = listener.local_addr().unwrap().into();
    let ((told, firsts), (received, messages)) = (channel(), channel());
    let (forget, told_to) = channel::<()>();
    let say = |stream: &mut TcpStream, answer: Answer| {
        stream.write_all(&frame(&answer.encode())).unwrap();
    };
    thread::spawn(move || {
        let next = || {
            let mut stream = listener.accept().unwrap().0;
            told.send(read_hello(&mut stream).unwrap().first).unwrap();
            stream
        };
        let mut stream = next();
        say(&mut stream, Answer::Acknowledgement(0));
        for _ in 0..4 {
            received.send(read_frame(&mut stream).unwrap()).unwrap();
        }
        say(&mut stream, Answer::Acknowledgement(4));
        told_to.recv().unwrap();
        drop(stream);
        if refuses {
            let mut stream = next();
            let text = "the server has fewer".into();
            let refusal = Refusal { committed: left, code: RefusalCode::Gap, text };
            say(&mut stream, Answer::Refusal(refusal));
            let _ = stream.read(&mut [0]);
        }
        let mut stream = next();
        say(&mut stream, Answer::Acknowledgement(left));
        let mut count = left;
        while let Some(message) = read_frame(&mut stream) {
            received.send(message).unwrap();
            count += 1;
            say(&mut stream, Answer::Acknowledgement(count));
        }
    });
    (address, firsts, messages, forget)
}

#[test]
fn a_server_that_has_lost_messages_ends_the_client_with_both_ranges() {
    for (left, offered, words) in [
        (0, 4, "the server has 0 messages of this sender, the client offers 5 to 8: was the"),
        (1, 1, "the server has 1 message of this sender, the client offers 5: was the database"),
    ] {
        let (address, firsts, _messages, forget) = start_forgetful(left, true);
        block_on(async {
            let mut client = connect(&address, AckOptions::new()).await;
            for message in [b"1", b"2", b"3", b"4"] {
                client.send(message).await.unwrap();
            }
            client.wait_committed(4).await.unwrap();
            for _ in 0..offered {
                client.send(b"later").await.unwrap();
            }
            forget.send(()).unwrap();
            let error = client.wait_committed(5).await.unwrap_err();
            let AckError::Behind { server, committed, sent, sender } = &error else {
                panic!("{error:?}")
            };
            assert_eq!((*server, *committed, *sent), (left, 4, 4 + offered));
            assert_eq!(*sender, client.sender_id());
            assert!(error.to_string().contains(words), "{error}");
        });
        assert_eq!(firsts.iter().take(2).collect::<Vec<_>>(), [1, 5]);
    }
}

#[test]
fn what_is_not_committed_can_follow_what_a_server_has_left() {
    for (refuses, left) in [(true, 0), (false, 0), (true, 2), (false, 2)] {
        let (address, firsts, messages, forget) = start_forgetful(left, refuses);
        block_on(async {
            // The first connection that fails is not the end, and a refusal is no failure.
            let options = AckOptions::new().renumber(true);
            let mut client = connect(&address, options).await;
            for message in [b"1", b"2", b"3", b"4"] {
                client.send(message).await.unwrap();
            }
            client.wait_committed(4).await.unwrap();
            for message in [b"5", b"6"] {
                client.send(message).await.unwrap();
            }
            assert_eq!(client.lost(), 0);
            forget.send(()).unwrap();
            client.wait_committed(6).await.unwrap();
            // The client's own numbers go on.
            assert_eq!(client.send(b"7").await.unwrap(), 7);
            client.finish().await.unwrap();
            assert_eq!((client.sent(), client.committed()), (7, 7));
            assert_eq!(client.lost(), 4 - left);
        });
        let received: Vec<Vec<u8>> = messages.iter().take(7).collect();
        assert_eq!(received.concat(), b"1234567");
        let expected = if refuses { vec![1, 5, left + 1] } else { vec![1, 5] };
        assert_eq!(firsts.iter().take(expected.len()).collect::<Vec<_>>(), expected);
    }
}

/// One that is never content with where the client goes on.
#[test]
fn a_server_that_always_misses_something_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: Address = listener.local_addr().unwrap().into();
    thread::spawn(move || {
        for count in [50, 40, 30] {
            let mut stream = listener.accept().unwrap().0;
            read_hello(&mut stream).unwrap();
            let code = RefusalCode::Gap;
            let refusal = Refusal { committed: count, code, text: String::new() };
            stream.write_all(&frame(&Answer::Refusal(refusal).encode())).unwrap();
            let _ = stream.read(&mut [0]);
        }
    });
    let options = AckOptions::new().committed(60).renumber(true);
    let error = block_on(AckClient::connect(&address, options)).unwrap_err();
    assert!(matches!(error, AckError::Behind { server: 40, .. }), "{error:?}");
}

#[test]
fn a_client_that_knows_what_is_committed_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: Address = listener.local_addr().unwrap().into();
    let serving = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let first = read_hello(&mut stream).unwrap().first;
        // As a server does that knows nothing of the sender.
        let welcome = Answer::Acknowledgement(first - 1);
        stream.write_all(&frame(&welcome.encode())).unwrap();
        first
    });
    block_on(async {
        let client = connect(&address, no_retry().committed(7)).await;
        assert_eq!((client.resume_from(), client.committed(), client.sent()), (7, 7, 7));
    });
    assert_eq!(serving.join().unwrap(), 8);
}

#[test]
fn options_and_counts_may_be_as_large_or_small_as_there_are() {
    let no_time = Duration::from_nanos(1);
    let longest = AckOptions::new().retry(Duration::MAX).server_timeout(Duration::MAX);
    for (from_start, options) in [
        (true, longest),
        (true, AckOptions::new().server_timeout(no_time).retry(no_time)),
        (true, no_retry().server_timeout(Duration::ZERO)),
        (true, AckOptions::new().window(usize::MAX).window_bytes(usize::MAX)),
        (true, AckOptions::new().window(0).window_bytes(0)),
        (false, no_retry().committed(u64::MAX)),
        (false, no_retry().committed(u64::MAX).renumber(true)),
    ] {
        // The test servers are not prepared for a client that begins elsewhere.
        if from_start {
            let (address, _) = start(Connection::serve);
            block_on(async {
                // How it ends is up to the options; that it panics is not.
                if let Ok(mut client) = AckClient::connect(&address, options.clone()).await {
                    let _ = client.send(b"a").await;
                    if let Err(error) = client.finish().await {
                        assert!(!error.to_string().contains("a bug"), "{options:?}: {error}");
                    }
                }
            });
        }
        for count in [0, 1, u64::MAX / 4, u64::MAX - 1, u64::MAX] {
            for answer in [
                Answer::Acknowledgement(count),
                Answer::Refusal(Refusal {
                    committed: count,
                    code: RefusalCode::Gap,
                    text: String::new(),
                }),
            ] {
                let options = options.clone().retry(Duration::ZERO);
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let address: Address = listener.local_addr().unwrap().into();
                thread::spawn(move || {
                    for stream in listener.incoming() {
                        let mut stream = stream.unwrap();
                        let _ = read_hello(&mut stream);
                        let _ = stream.write_all(&frame(&answer.encode()));
                        let _ = stream.write_all(&frame(&answer.encode()));
                    }
                });
                let error = block_on(async {
                    let mut client = AckClient::connect(&address, options.clone()).await?;
                    client.send(b"a").await?;
                    client.finish().await
                });
                let said = error.err().map(|error| error.to_string()).unwrap_or_default();
                assert!(!said.contains("a bug"), "{options:?}, {count}: {said}");
            }
        }
    }
}

#[test]
fn a_sender_id_can_be_chosen() {
    let (address, _) = start(Connection::serve);
    block_on(async {
        let sender = Some(SENDER.parse::<SenderId>().unwrap());
        let client = connect(&address, no_retry().sender(sender)).await;
        assert_eq!(client.sender_id().to_string(), SENDER);
    });
}

// ---- where an earlier client got to

#[test]
fn a_client_knows_whether_a_message_is_the_last_one_of_the_earlier_client() {
    let server = Server::start(&[]);
    let address = server.address.to_string().parse().unwrap();
    let options = || no_retry().sender(SENDER.parse::<SenderId>().unwrap());
    block_on(async {
        let mut client = connect(&address, options()).await;
        assert!(client.matches_last_committed(b"anything: nothing is committed"));
        client.send(b"a").await.unwrap();
        client.send(b"b").await.unwrap();
        client.finish().await.unwrap();
        let mut client = connect(&address, options()).await;
        // That is the one in front of the first one it sends, also later.
        for _ in 0..2 {
            assert!(client.matches_last_committed(b"b"));
            assert!(!client.matches_last_committed(b"a") && !client.matches_last_committed(b""));
            let number = client.send(b"c").await.unwrap();
            client.wait_committed(number).await.unwrap();
        }
    });
}

#[test]
fn a_server_that_knows_no_checksum_is_taken_at_its_count() {
    let (address, committed) = start(Connection::serve);
    committed.commit(b"a".into());
    block_on(async {
        let options = no_retry().sender(SENDER.parse::<SenderId>().unwrap());
        let client = connect(&address, options).await;
        assert_eq!(client.resume_from(), 1);
        assert!(client.matches_last_committed(b"a") && client.matches_last_committed(b"b"));
    });
}
