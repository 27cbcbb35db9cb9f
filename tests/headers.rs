//! Headers, the bytes that a layout keeps beside the payload: from one end of a connection to the other, and
//! into files and formats.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use common::layouts;
use common::program::PATIENCE;
use framelet::client::RequestError;
use framelet::format::OutputFormat;
use framelet::server::{Echo, Handler, Reply, Request};
use framelet::sink::{FileSink, FileSync, MessageSink, SinkError};
use framelet::stream::WriteError;
use framelet::wire::{EncodeError, MAX_PAYLOAD, append_frame_with_header};
use framelet::{Address, Batch, Client, Layout, Server};
use futures_lite::FutureExt;
use futures_lite::future::{block_on, poll_once};
use smol::Timer;

/// Returns the layouts with a header, and a header of each.
fn with_headers() -> Vec<(Layout, Vec<u8>)> {
    let with_header = |layout: Layout| match layout.header_len() {
        Some(0) => None,
        Some(len) => Some((layout, (7..).take(len).collect())),
        None if layout.to_string() == "lsp" => Some((layout, b"Id: 7\r\n".to_vec())),
        // Its header takes the place of the payload.
        None => None,
    };
    let found: Vec<_> = layouts().into_iter().filter_map(with_header).collect();
    assert!(found.len() >= 7, "{found:?}");
    found
}

/// Waits for as long as no test should take.
async fn in_time<T>(future: impl Future<Output = T>) -> T {
    let late = async {
        Timer::after(PATIENCE).await;
        panic!("it waits forever");
    };
    future.or(late).await
}

/// Starts a server on a free port, and lets a client of it act.
fn with_server<T, F: Future<Output = T>>(
    layout: Layout,
    handler: impl Handler,
    act: impl FnOnce(Client) -> F,
) -> T {
    block_on(in_time(async {
        let listener = "127.0.0.1:0".parse::<Address>().unwrap().listen().await.unwrap();
        let address = listener.address().unwrap();
        let (stop, stopped) = smol::channel::bounded::<()>(1);
        let server = Server::new(listener).layout(layout).answer(handler);
        let running = smol::spawn(server.run(async move {
            let _ = stopped.recv().await;
        }));
        let done = act(Client::connect(&address).await.unwrap().layout(layout).unwrap()).await;
        drop(stop);
        running.await.unwrap();
        done
    }))
}

#[test]
fn a_reply_has_the_header_that_its_handler_gave_it() {
    for (layout, header) in with_headers() {
        let handler = |request: Request| async move {
            let header = request.header().to_vec();
            let mut replies = Vec::new();
            match request.payload() {
                b"same" => replies.push(Reply::from("payload").with_header(header)),
                b"back" => replies.push(Reply::from(request)),
                _ => replies.push(Reply::from("none")),
            }
            replies
        };
        with_server(layout, handler, |mut client| async move {
            let reply = client.request_with_header(&header, b"same").await.unwrap();
            assert_eq!(reply, (header.clone(), b"payload".to_vec()), "{layout}");
            let reply = client.request_with_header(&header, b"back").await.unwrap();
            assert_eq!(reply, (header.clone(), b"back".to_vec()), "{layout}");
            let zeros = vec![0; layout.header_len().unwrap_or(0)];
            let reply = client.request_with_header(&header, b"zeros").await.unwrap();
            assert_eq!(reply, (zeros.clone(), b"none".to_vec()), "{layout}");
            let reply = client.request_with_header(&[], b"same").await.unwrap();
            assert_eq!(reply, (zeros, b"payload".to_vec()), "{layout}");
            // A request without one, and its reply without one.
            assert_eq!(client.request(b"same").await.unwrap(), b"payload");
            client.finish().await.unwrap();
        });
    }
}

#[test]
fn the_echo_keeps_headers_and_a_client_can_send_and_receive_them_independently() {
    for (layout, header) in with_headers() {
        with_server(layout, Echo, |mut client| async move {
            for payload in ["one", "", "three"] {
                client.feed_with_header(&header, payload.as_bytes()).await.unwrap();
            }
            client.flush().await.unwrap();
            for payload in ["one", "", "three"] {
                let received = client.receive_with_header().await.unwrap().unwrap();
                assert_eq!(received, (header.clone(), payload.into()), "{layout}");
            }
            // A reply that was given up is received neither with its header nor without.
            assert!(poll_once(client.request_with_header(&header, b"late")).await.is_none());
            client.feed_with_header(&header, b"new").await.unwrap();
            client.flush().await.unwrap();
            let received = client.receive_with_header().await.unwrap().unwrap();
            assert_eq!(received, (header, b"new".to_vec()), "{layout}");
            client.finish().await.unwrap();
        });
    }
}

#[test]
fn a_header_that_the_layout_does_not_have_fails_its_request_and_nothing_else() {
    for (layout, header) in [("u32be", &b"Q"[..]), ("h1:u32be", b"QQ"), ("lsp", b"no line")] {
        let layout: Layout = layout.parse().unwrap();
        with_server(layout, Echo, |mut client| async move {
            let error = client.request_with_header(header, b"one").await.unwrap_err();
            let RequestError::Write(WriteError::Encode(error)) = error else { panic!("{error:?}") };
            assert_eq!(error, EncodeError::Header { length: header.len(), layout });
            assert_eq!(client.request(b"two").await.unwrap(), b"two");
            client.finish().await.unwrap();
        });
    }
}

#[test]
fn a_reply_with_a_header_that_the_layout_does_not_have_ends_its_connection() {
    let handler = |_: Request| async { Reply::from("payload").with_header("Q") };
    let error = with_server(Layout::U32BE, handler, |mut client| async move {
        client.request(b"one").await.unwrap_err()
    });
    assert!(matches!(error, RequestError::Read(_)), "{error:?}");
}

/// A sink that keeps headers and payloads.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Message>>>);

/// A header and a payload.
type Message = (Vec<u8>, Vec<u8>);

impl MessageSink for Kept {
    fn commit(&mut self, batches: &[Batch]) -> Result<(), SinkError> {
        let messages = batches.iter().flatten();
        let messages = messages.map(|message| (message.header.to_vec(), message.payload.to_vec()));
        self.0.lock().unwrap().extend(messages);
        Ok(())
    }
}

/// Sends bytes to a server that collects messages, and waits until all are in the sink.
fn collect(layout: Layout, sink: impl MessageSink + 'static, bytes: &[u8]) {
    block_on(in_time(async {
        let listener = "127.0.0.1:0".parse::<Address>().unwrap().listen().await.unwrap();
        let address = listener.address().unwrap().to_string();
        let (stop, stopped) = smol::channel::bounded::<()>(1);
        let server = Server::new(listener).layout(layout).collect(sink);
        let running = smol::spawn(server.run(async move {
            let _ = stopped.recv().await;
        }));
        let bytes = bytes.to_vec();
        smol::unblock(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(&bytes).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        })
        .await;
        drop(stop);
        running.await.unwrap();
    }));
}

#[test]
fn a_sink_gets_each_message_with_its_header_however_long_it_is() {
    for (layout, header) in with_headers() {
        let longest = layout.max_payload().min(300_000);
        let mut messages = Vec::new();
        for len in [0, 1, 100, longest.min(40_000), longest] {
            messages.push((header.clone(), vec![b'x'; len]));
        }
        let mut bytes = Vec::new();
        for (header, payload) in &messages {
            append_frame_with_header(&mut bytes, layout, MAX_PAYLOAD, header, payload).unwrap();
        }
        let kept = Kept::default();
        collect(layout, kept.clone(), &bytes);
        assert!(*kept.0.lock().unwrap() == messages, "{layout}");
        // A file of frames has what came over the wire.
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("messages");
        let format = "frames".parse::<OutputFormat>().unwrap().for_layout(layout);
        for round in 1..=2 {
            collect(layout, FileSink::open(&path, format, FileSync::Never).unwrap(), &bytes);
            assert!(fs::read(&path).unwrap() == bytes.repeat(round), "{layout}");
        }
    }
}
