//! Servers that answer, over sockets and over streams of other kinds.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use async_net::unix::UnixStream;
use framelet::client::AckOptions;
use framelet::net::{ByteStream, Peer};
use framelet::server::{Echo, Reply, Request, Summary};
use framelet::sink::{MessageSink, SinkError};
use framelet::{AckClient, Address, Batch, Client, FrameReader, FrameWriter, Server};
use futures_lite::io::BufWriter;
use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, FutureExt, future, stream};
use smol::channel::{Receiver, Sender, bounded, unbounded};
use smol::{Task, Timer};
use tokio_util::compat::TokioAsyncReadCompatExt;

const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for something, but not for ever.
async fn soon<T>(what: &str, waiting: impl Future<Output = T>) -> T {
    let too_late = async {
        Timer::after(PATIENCE).await;
        panic!("{what} did not come");
    };
    waiting.or(too_late).await
}

/// One end of a connection, whose other end a server has.
struct End(FrameReader<ByteStream>, FrameWriter<ByteStream>);

impl End {
    fn new(stream: impl Into<ByteStream>) -> End {
        let stream = stream.into();
        End(FrameReader::new(stream.clone()), FrameWriter::new(stream))
    }

    async fn send(&mut self, messages: &[&str]) {
        for message in messages {
            self.1.feed(message.as_bytes()).await.unwrap();
        }
        self.1.flush().await.unwrap();
    }

    async fn reply(&mut self) -> Option<String> {
        let reply = soon("a reply", self.0.read()).await.unwrap();
        reply.map(|reply| String::from_utf8(reply).unwrap())
    }

    async fn replies(&mut self, count: usize) -> Vec<String> {
        let mut replies = Vec::new();
        for _ in 0..count {
            replies.push(self.reply().await.expect("a reply"));
        }
        replies
    }
}

/// Returns a server of so many connections, and their other ends.
fn pipes(count: usize) -> (Server, Vec<End>) {
    let pairs: Vec<_> = (0..count).map(|_| UnixStream::pair().unwrap()).collect();
    let (servers, clients): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let accepted = servers.into_iter().map(|stream| Ok((stream, Peer::named("test"))));
    let server = Server::accept_from(stream::iter(accepted.collect::<Vec<_>>()));
    (server, clients.into_iter().map(End::new).collect())
}

fn start(server: Server) -> Task<Summary> {
    smol::spawn(async { server.run(future::pending()).await.unwrap() })
}

#[test]
fn replies_leave_in_the_order_of_the_requests_whichever_is_ready_first() {
    future::block_on(async {
        let (server, mut clients) = pipes(1);
        let (go, gate) = bounded::<()>(1);
        let server = start(server.answer(move |request: Request| {
            let gate = gate.clone();
            async move {
                if request.payload() == b"slow" {
                    let _ = gate.recv().await;
                }
                Some(request.payload().to_ascii_uppercase())
            }
        }));
        let client = &mut clients[0];
        // Once replies are known to be short, several requests are answered at once.
        client.send(&["first"]).await;
        assert_eq!(client.replies(1).await, ["FIRST"]);
        client.send(&["slow", "quick", "quicker"]).await;
        assert!(future::poll_once(client.0.read()).await.is_none());
        drop(go);
        assert_eq!(client.replies(3).await, ["SLOW", "QUICK", "QUICKER"]);
        drop(clients);
        assert_eq!(soon("the end", server).await.messages, 4);
    });
}

#[test]
fn a_handler_may_reply_with_nothing_one_or_several_messages() {
    future::block_on(async {
        let (server, mut clients) = pipes(1);
        let server = start(server.answer(|request: Request| async move {
            let times = request.payload().len();
            vec![format!("{} of {}", request.number(), request.peer()); times]
        }));
        let client = &mut clients[0];
        client.send(&["", "a", "", "bb"]).await;
        let expected = ["2 of test", "4 of test", "4 of test"];
        assert_eq!(client.replies(3).await, expected);
        client.1.close().await.unwrap();
        assert_eq!(client.reply().await, None, "an orderly end");
        soon("the end", server).await;
    });
}

#[test]
fn only_so_many_requests_of_a_connection_are_answered_at_once() {
    future::block_on(async {
        let (server, mut clients) = pipes(1);
        let (working, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let seen = Arc::clone(&most);
        let (go, gate) = unbounded::<()>();
        let server = start(server.pipeline(3).answer(move |_: Request| {
            let (working, most, gate) = (Arc::clone(&working), Arc::clone(&most), gate.clone());
            async move {
                most.fetch_max(working.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                gate.recv().await.unwrap();
                working.fetch_sub(1, Ordering::SeqCst);
                "done"
            }
        }));
        let client = &mut clients[0];
        client.send(&["x"; 10]).await;
        for _ in 0..10 {
            go.send(()).await.unwrap();
            assert_eq!(client.reply().await.as_deref(), Some("done"));
        }
        assert_eq!(seen.load(Ordering::SeqCst), 3);
        drop(clients);
        soon("the end", server).await;
    });
}

#[test]
fn a_handler_that_fails_or_panics_ends_its_connection_and_no_other() {
    future::block_on(async {
        let (server, mut clients) = pipes(3);
        let server = start(server.answer(|request: Request| async move {
            match request.payload() {
                b"fail" => Err("it does not work"),
                b"panic" => panic!("as the test wants it"),
                _ => Ok(request),
            }
        }));
        for (client, bad) in [(0, "fail"), (1, "panic")] {
            let client = &mut clients[client];
            client.send(&["before", bad, "after"]).await;
            assert_eq!(client.reply().await.as_deref(), Some("before"), "{bad}");
            let ended = soon("the end", client.0.read()).await;
            assert!(ended.is_err(), "{bad}: no orderly end");
        }
        clients[2].send(&["fine"]).await;
        assert_eq!(clients[2].reply().await.as_deref(), Some("fine"));
        drop(clients);
        soon("the end", server).await;
    });
}

#[test]
fn a_reply_that_is_too_long_ends_the_connection_after_those_before_it() {
    future::block_on(async {
        let (server, mut clients) = pipes(1);
        let server = server.max_message(10);
        let server = start(server.answer(|request: Request| async move {
            if request.payload() == b"x" { "eleven bytes" } else { "short" }
        }));
        clients[0].send(&["a", "b", "x"]).await;
        assert_eq!(clients[0].replies(2).await, ["short", "short"]);
        assert!(soon("the end", clients[0].0.read()).await.is_err());
        soon("the end", server).await;
    });
}

#[test]
fn what_is_being_answered_when_the_server_ends_is_answered() {
    future::block_on(async {
        let listener = "127.0.0.1:0".parse::<Address>().unwrap().listen().await.unwrap();
        let address = listener.address().unwrap();
        let (begun, begins): (Sender<()>, Receiver<()>) = bounded(1);
        let (go, gate) = bounded::<()>(1);
        let (stop, stopped) = bounded::<()>(1);
        let server = Server::new(listener).answer(move |request: Request| {
            let (begun, gate) = (begun.clone(), gate.clone());
            async move {
                let _ = begun.send(()).await;
                let _ = gate.recv().await;
                request
            }
        });
        let server = smol::spawn(server.run(async move {
            let _ = stopped.recv().await;
        }));
        let mut client = End::new(address.connect().await.unwrap());
        client.send(&["question"]).await;
        soon("the handler", begins.recv()).await.unwrap();
        drop(stop);
        // It ends only now that the server is told to.
        Timer::after(Duration::from_millis(50)).await;
        drop(go);
        assert_eq!(client.reply().await.as_deref(), Some("question"));
        let summary = soon("the end", server).await.unwrap();
        assert_eq!((summary.messages, summary.cut), (1, 0));
    });
}

#[test]
fn a_peer_that_does_not_take_its_replies_is_ended() {
    future::block_on(async {
        let (server, mut clients) = pipes(1);
        let server = server.message_timeout(Duration::from_millis(200));
        let server = start(server.answer(|_: Request| async { vec![b'x'; 1 << 20] }));
        clients[0].send(&["x"; 100]).await;
        // Nothing is read, until the server has given up.
        assert_eq!(soon("the end", server).await.connections, 1);
        let mut rest = Vec::new();
        clients.remove(0).0.into_inner().read_to_end(&mut rest).await.unwrap();
        assert!(rest.len() < 100 << 20, "{} bytes", rest.len());
    });
}

#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<Vec<u8>>>>);

impl MessageSink for Collected {
    fn commit(&mut self, batches: &[Batch]) -> Result<(), SinkError> {
        let payloads = batches.iter().flatten().map(|message| message.payload.to_vec());
        self.0.lock().unwrap().extend(payloads);
        Ok(())
    }
}

#[test]
fn messages_can_be_collected_and_answered() {
    future::block_on(async {
        let (server, mut clients) = pipes(1);
        let sink = Collected::default();
        let server = server.collect(sink.clone());
        let server =
            start(server.answer(|request: Request| async move { request.number().to_string() }));
        clients[0].send(&["a", "b"]).await;
        assert_eq!(clients[0].replies(2).await, ["1", "2"]);
        clients[0].1.close().await.unwrap();
        assert_eq!(clients[0].reply().await, None);
        soon("the end", server).await;
        assert_eq!(*sink.0.lock().unwrap(), [b"a", b"b"]);
    });
}

#[test]
fn a_server_that_is_dropped_ends_its_connections() {
    future::block_on(async {
        let listener = "127.0.0.1:0".parse::<Address>().unwrap().listen().await.unwrap();
        let address = listener.address().unwrap();
        let server = smol::spawn(Server::new(listener).answer(Echo).run(future::pending()));
        let mut client = End::new(address.connect().await.unwrap());
        client.send(&["x"]).await;
        assert_eq!(client.reply().await.as_deref(), Some("x"));
        server.cancel().await;
        assert!(soon("the end", client.0.read()).await.is_err(), "no orderly end");
        assert!(address.connect().await.is_err());
    });
}

#[test]
fn a_stream_that_is_not_set_up_in_time_is_ended() {
    future::block_on(async {
        let (server, mut clients) = pipes(2);
        let server =
            server.message_timeout(Duration::from_millis(200)).upgrade(|mut stream| async move {
                let mut hello = [0; 2];
                stream.read_exact(&mut hello).await?;
                match &hello {
                    b"ok" => Ok(stream),
                    _ => Err(io::Error::other("not what was agreed")),
                }
            });
        let server = start(server.answer(Echo));
        clients[0].1.get_mut().write_all(b"ok").await.unwrap();
        clients[0].send(&["x"]).await;
        assert_eq!(clients[0].reply().await.as_deref(), Some("x"));
        // The other one says nothing.
        assert!(soon("the end", clients[1].0.read()).await.is_err());
        drop(clients);
        assert_eq!(soon("the end", server).await.connections, 2);
    });
}

/// A stream that keeps what is written until it is flushed, as TLS may.
struct Keeps(UnixStream, BufWriter<UnixStream>);

impl AsyncRead for Keeps {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Keeps {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.1).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.1).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.1).poll_close(cx)
    }
}

fn kept() -> (Server, ByteStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let theirs = Keeps(theirs.clone(), BufWriter::new(theirs));
    let server = Server::accept_from(stream::once(Ok((theirs, Peer::named("test")))));
    (server, ours.into())
}

#[test]
fn what_a_stream_keeps_until_it_is_flushed_is_flushed() {
    future::block_on(async {
        let (server, ours) = kept();
        let (echo, other) = kept();
        let servers =
            [start(server.answer(|request: Request| async { request })), start(echo.answer(Echo))];
        for (stream, server) in [ours, other].into_iter().zip(servers) {
            let mut client = End::new(stream);
            client.send(&["a", "b"]).await;
            assert_eq!(client.replies(2).await, ["a", "b"]);
            client.1.close().await.unwrap();
            assert_eq!(client.reply().await, None, "an orderly end");
            soon("the end", server).await;
        }
        let (server, ours) = kept();
        let server = start(server.collect(Collected::default()));
        // A closure that has one stream to give.
        let mut ours = Some(ours);
        let connect = move || {
            let stream = ours.take().ok_or_else(|| io::Error::other("there is one only"));
            future::ready(stream)
        };
        let client = AckClient::connect_with(connect, AckOptions::new());
        let mut client = soon("an answer", client).await.unwrap();
        client.send(b"sure").await.unwrap();
        soon("an acknowledgement", client.finish()).await.unwrap();
        soon("the end", server).await;
    });
}

#[test]
fn branches_of_a_handler_may_reply_with_different_types() {
    async fn answer(request: Request) -> Reply {
        match request.payload() {
            b"bytes" => Reply::from(vec![0xff]),
            b"static" => Reply::from(&b"static bytes"[..]),
            b"text" => Reply::from("text"),
            b"number" => Reply::from(request.number().to_string()),
            _ => Reply::from(request),
        }
    }
    future::block_on(async {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = Server::accept_from(stream::once(Ok((theirs, Peer::named("test")))));
        let server = start(server.answer(answer));
        let mut client = Client::new(ours);
        let requests = ["bytes", "static", "text", "number", "itself"];
        let replies = soon("replies", client.request_all(requests)).await.unwrap();
        let expected: [&[u8]; 5] = [&[0xff], b"static bytes", b"text", b"4", b"itself"];
        assert_eq!(replies, expected);
        drop(client);
        soon("the end", server).await;
    });
}

#[test]
fn a_stream_of_tokio_serves_through_its_compatibility_layer() {
    future::block_on(async {
        let (ours, theirs) = tokio::io::duplex(7);
        let server = Server::accept_from(stream::once(Ok((theirs.compat(), Peer::named("tokio")))));
        let server =
            start(server.answer(|request: Request| async move { request.peer().to_string() }));
        let mut client = Client::new(ours.compat());
        let replies = soon("replies", client.request_all([b"a", b"b"])).await.unwrap();
        assert_eq!(replies, [b"tokio", b"tokio"]);
        drop(client);
        soon("the end", server).await;
    });
}

#[test]
fn streams_that_end_are_not_asked_again() {
    future::block_on(async {
        let (ours, theirs) = UnixStream::pair().unwrap();
        // It panics if it is polled after its end.
        let streams = stream::unfold(Some(theirs), |stream| async {
            stream.map(|stream| (Ok((stream, Peer::named("test"))), None))
        });
        let (stop, stopped) = bounded::<()>(1);
        let server = Server::accept_from(streams).answer(Echo).run(async move {
            let _ = stopped.recv().await;
        });
        let server = smol::spawn(server);
        let mut client = End::new(ours);
        client.send(&["x"]).await;
        assert_eq!(client.reply().await.as_deref(), Some("x"));
        drop(stop);
        assert_eq!(soon("the end", server).await.unwrap().connections, 1);
    });
}

/// A future that never ends, and panics when it is dropped.
struct PanicsInDrop;

impl Future for PanicsInDrop {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        panic!("as the test wants it");
    }
}

#[test]
fn handlers_that_panic_while_they_are_dropped_end_their_connection_only() {
    future::block_on(async {
        let (server, mut clients) = pipes(2);
        let server = server.grace(Duration::from_secs(1));
        let server = server.answer(|request: Request| async move {
            if request.payload() == b"never" {
                PanicsInDrop.await;
            }
            request
        });
        let server = start(server);
        let [bad, good] = &mut clients[..] else { unreachable!() };
        bad.send(&["first"]).await;
        assert_eq!(bad.reply().await.as_deref(), Some("first"));
        bad.send(&["never", "never"]).await;
        // It sends no message, and so ends the connection while both are at work.
        bad.1.get_mut().write_all(&[0xff; 4]).await.unwrap();
        good.send(&["fine"]).await;
        assert_eq!(good.reply().await.as_deref(), Some("fine"));
        server.cancel().await;
        assert!(soon("the end", bad.0.read()).await.is_err());
    });
}

#[test]
fn large_replies_reach_a_peer_that_reads_while_the_server_ends() {
    const LEN: usize = 4 << 20;
    future::block_on(async {
        let listener = "127.0.0.1:0".parse::<Address>().unwrap().listen().await.unwrap();
        let address = listener.address().unwrap();
        let (stop, stopped) = bounded::<()>(1);
        let (begun, begins) = bounded::<()>(1);
        let server = Server::new(listener).answer(move |_: Request| {
            let _ = begun.try_send(());
            async { vec![b'x'; LEN] }
        });
        let server = smol::spawn(server.run(async move {
            let _ = stopped.recv().await;
        }));
        let mut client = End::new(address.connect().await.unwrap());
        client.send(&["x"]).await;
        soon("the handler", begins.recv()).await.unwrap();
        drop(stop);
        assert_eq!(client.reply().await.map(|reply| reply.len()), Some(LEN));
        assert_eq!(soon("the end", server).await.unwrap().cut, 0);
    });
}

/// A stream whose sender never pauses.
struct Flood;

impl AsyncRead for Flood {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        // Empty messages, since a whole frame of them is at any place.
        buf.fill(0);
        Poll::Ready(Ok(buf.len()))
    }
}

impl AsyncWrite for Flood {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[derive(Clone, Default)]
struct Counted(Arc<AtomicUsize>);

impl MessageSink for Counted {
    fn commit(&mut self, batches: &[Batch]) -> Result<(), SinkError> {
        self.0.fetch_add(batches.iter().map(Batch::len).sum(), Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn a_sender_that_never_pauses_is_not_cut_off_at_shutdown_and_loses_nothing_that_was_read() {
    future::block_on(async {
        let sink = Counted::default();
        let streams = stream::once(Ok((Flood, Peer::named("flood"))));
        let server = Server::accept_from(streams).grace(Duration::from_secs(1));
        let server = server.collect(sink.clone());
        let (stop, stopped) = bounded::<()>(1);
        let server = smol::spawn(server.run(async move {
            let _ = stopped.recv().await;
        }));
        let committed = async {
            while sink.0.load(Ordering::SeqCst) == 0 {
                future::yield_now().await;
            }
        };
        soon("a commit", committed).await;
        drop(stop);
        let summary = soon("the end", server).await.unwrap();
        assert_eq!(summary.cut, 0);
        assert_eq!(summary.messages, sink.0.load(Ordering::SeqCst) as u64);
    });
}
