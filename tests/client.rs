//! Requests and replies, over a stream that is no socket.

mod common;

use std::time::Duration;

use common::pipe::{Pipe, pipe};
use common::program::PATIENCE;
use framelet::client::RequestError;
use framelet::stream::WriteError;
use framelet::wire::EncodeError;
use framelet::{Client, Framed, Layout};
use futures_lite::FutureExt;
use futures_lite::future::{block_on, poll_once, yield_now, zip};

/// Returns a client, and the other end of its stream.
fn connected(capacity: usize) -> (Client<Pipe>, Framed<Pipe>) {
    let (near, far) = pipe(capacity);
    (Client::new(near), Framed::new(far, Layout::U32BE))
}

/// Replies to each message once it has read it, and reads no other before the reply is taken.
async fn serve(mut server: Framed<Pipe>) {
    while let Some(request) = server.read().await.unwrap() {
        if server.send(&reply_to(&request)).await.is_err() {
            return;
        }
    }
    server.close().await.unwrap();
}

fn reply_to(request: &[u8]) -> Vec<u8> {
    [b"re: ", request].concat()
}

/// Waits for as long as no test should take.
async fn in_time<T>(future: impl Future<Output = T>) -> T {
    let late = async {
        smol::Timer::after(PATIENCE).await;
        panic!("it waits forever");
    };
    future.or(late).await
}

#[test]
fn a_request_gets_its_reply_in_every_layout() {
    for layout in Layout::binary() {
        let (near, far) = pipe(100);
        let mut client = Client::new(near).layout(layout).unwrap().max_message(100).unwrap();
        let asking = async {
            assert_eq!(client.request(b"one").await.unwrap(), b"re: one");
            assert_eq!(client.request(b"").await.unwrap(), b"re: ");
            client.finish().await.unwrap();
        };
        block_on(in_time(zip(asking, serve(Framed::new(far, layout)))));
    }
}

#[test]
fn a_layout_and_a_limit_can_be_set_in_either_order() {
    let client = || Client::new(pipe(1000).0);
    let layout = |name: &str| name.parse::<Layout>().unwrap();
    for (name, limit, fits) in
        [("u8", 255, true), ("u8", 256, false), ("u16le", 70_000, false), ("u32le", 70_000, true)]
    {
        let layout_first =
            client().layout(layout(name)).and_then(|client| client.max_message(limit));
        let limit_first =
            client().max_message(limit).and_then(|client| client.layout(layout(name)));
        for set in [layout_first, limit_first] {
            assert_eq!(set.is_ok(), fits, "{name} {limit}: {:?}", set.as_ref().err());
            if let Ok(mut client) = set {
                let sent = block_on(in_time(client.request(&vec![0; limit + 1])));
                match sent {
                    Err(RequestError::Write(WriteError::Encode(EncodeError::TooLong(error)))) => {
                        assert_eq!(error.limit, limit);
                    }
                    other => panic!("{name} {limit}: {other:?}"),
                }
            }
        }
    }
}

#[test]
fn any_number_of_requests_can_be_sent_before_the_first_reply() {
    // Neither side has room for more than a few bytes, so both have to read while they write.
    for (capacity, len) in [(1, 10), (7, 3), (64, 100), (4096, 100_000)] {
        let (mut client, server) = connected(capacity);
        let requests: Vec<Vec<u8>> =
            (0..100_u8).map(|n| vec![n; len * usize::from(n % 3)]).collect();
        let asking = async {
            let replies = client.request_all(&requests).await.unwrap();
            assert!(replies.into_iter().eq(requests.iter().map(|request| reply_to(request))));
            assert!(client.request_all::<&str>([]).await.unwrap().is_empty());
            client.finish().await.unwrap();
        };
        block_on(in_time(zip(asking, serve(server))));
    }
}

#[test]
fn a_reply_that_is_late_is_not_taken_for_that_to_another_request() {
    block_on(in_time(async {
        let (client, mut server) = connected(1000);
        let mut client = client.timeout(Duration::from_millis(10));
        for request in [b"1", b"2"] {
            let error = client.request(request).await.unwrap_err();
            assert!(matches!(error, RequestError::TimedOut { .. }), "{error:?}");
            assert_eq!(error.to_string(), "no reply within 10ms");
        }
        // One that was sent and dropped.
        assert!(poll_once(client.request(b"3")).await.is_none());
        let mut client = client.timeout(None);
        let late = async {
            for _ in 0..3 {
                let request = server.read().await.unwrap().unwrap();
                server.send(&reply_to(&request)).await.unwrap();
            }
            server
        };
        let (reply, server) = zip(poll_once(client.request(b"4")), late).await;
        assert!(reply.is_none());
        let asking = async {
            let replies = client.request_all([b"5", b"6"]).await.unwrap();
            assert_eq!(replies, [b"re: 5", b"re: 6"]);
            // Nor is it received.
            assert!(poll_once(client.request(b"7")).await.is_none());
            client.send(b"8").await.unwrap();
            assert_eq!(client.receive().await.unwrap().unwrap(), b"re: 8");
            client.finish().await.unwrap();
        };
        zip(asking, serve(server)).await;
    }));
}

#[test]
fn whatever_is_given_up_each_reply_is_that_to_its_request() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut client, server) = connected(random.usize(1..40));
        let asking = async {
            for number in 0..100_u32 {
                let request = number.to_string().repeat(random.usize(1..20));
                let mut asking = Box::pin(client.request(request.as_bytes()));
                // Polled a few times, and dropped where that was not enough.
                for _ in 0..random.usize(0..12) {
                    match poll_once(&mut asking).await {
                        Some(reply) => {
                            assert_eq!(reply.unwrap(), reply_to(request.as_bytes()), "seed {seed}");
                            break;
                        }
                        None => yield_now().await,
                    }
                }
            }
            assert_eq!(client.request(b"last").await.unwrap(), b"re: last", "seed {seed}");
            client.finish().await.unwrap();
        };
        block_on(in_time(zip(asking, serve(server))));
    }
}

#[test]
fn a_request_that_is_too_long_is_the_only_one_that_fails() {
    let (client, server) = connected(1000);
    let mut client = client.max_message(10).unwrap();
    let asking = async {
        for _ in 0..2 {
            let error = client.request(&[0; 11]).await.unwrap_err();
            assert!(matches!(error, RequestError::Write(WriteError::Encode(_))), "{error:?}");
        }
        // Those before it are sent, so their replies arrive.
        client.request_all([&b"a"[..], b"b", &[0; 11]]).await.unwrap_err();
        assert_eq!(client.request(b"c").await.unwrap(), b"re: c");
        client.finish().await.unwrap();
    };
    block_on(in_time(zip(asking, serve(server))));
}

#[test]
fn a_server_that_replies_and_closes_before_it_has_read_everything_has_replied() {
    let (mut client, mut server) = connected(100);
    let refusing = async {
        server.send(b"too much").await.unwrap();
        drop(server);
    };
    let request = vec![0; 1 << 20];
    let (reply, ()) = block_on(in_time(zip(client.request(&request), refusing)));
    assert_eq!(reply.unwrap(), b"too much");
    let error = block_on(in_time(client.request(b"more"))).unwrap_err();
    assert!(matches!(error, RequestError::Write(WriteError::Io(_))), "{error:?}");
}

#[test]
fn a_server_that_closes_without_a_reply_is_found_out() {
    for (sent, words) in [
        (&b""[..], "the server closed the connection before it replied"),
        (b"\0\0\0", "message 1 at byte 0: the stream ended inside the prefix: got 3 of 4 bytes"),
    ] {
        let (near, mut far) = pipe(100);
        let mut client = Client::new(near);
        let closing = async {
            futures_lite::AsyncWriteExt::write_all(&mut far, sent).await.unwrap();
            futures_lite::AsyncWriteExt::close(&mut far).await.unwrap();
        };
        let (reply, ()) = block_on(in_time(zip(client.request(b"a"), closing)));
        let said = reply.unwrap_err().to_string();
        assert!(said.starts_with(words), "{said}");
    }
}

#[test]
fn an_address_that_is_none_is_invalid_input() {
    let error = block_on(Client::connect("localhost")).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert!(error.to_string().starts_with("a port is missing"), "{error}");
}
