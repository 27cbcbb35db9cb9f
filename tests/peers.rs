//! Speaks with programs that are not framelet, over real sockets: the codec that most Rust programs use, in both
//! directions, and the client in Python of docs/protocol.md.

mod common;

use std::fs;
use std::io::Write;
use std::process::{Command, Output};

use common::acks::{Connection, SENDER, start};
use common::program::{FRAMELET, Server, framelet, run, said, unframe};
use common::proxy::start_proxy;
use framelet::wire::RefusalCode;
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::bytes::Bytes;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

/// The same layout in tokio-util's words.
fn codec(layout: &str) -> LengthDelimitedCodec {
    let mut builder = LengthDelimitedCodec::builder();
    builder.max_frame_length(8 << 20);
    match layout {
        "u32be" => builder.big_endian().length_field_length(4),
        "u16le" => builder.little_endian().length_field_length(2),
        "u24be" => builder.big_endian().length_field_length(3),
        "u64le" => builder.little_endian().length_field_length(8),
        // tokio-util takes the adjustment away when it writes.
        "u32be+self" => builder.big_endian().length_field_length(4).length_adjustment(-4),
        _ => panic!("no words for {layout}"),
    };
    builder.new_codec()
}

const LAYOUTS: [&str; 5] = ["u32be", "u16le", "u24be", "u64le", "u32be+self"];

fn messages() -> Vec<Vec<u8>> {
    let mut random = fastrand::Rng::with_seed(7);
    let mut lengths = vec![0, 1, 4, 255, 256, 4096, 65_531, 65_535];
    lengths.extend((0..200).map(|_| random.usize(..300)));
    lengths.iter().map(|&len| (0..len).map(|_| random.u8(..)).collect()).collect()
}

fn tokio_runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap()
}

#[test]
fn a_tokio_client_and_this_server_understand_each_other() {
    for layout in LAYOUTS {
        let server = Server::start(&["--layout", layout, "--echo", "--output", "frames"]);
        let echoed = tokio_runtime().block_on(async {
            let stream = TcpStream::connect(server.address).await.unwrap();
            let (mut sink, stream) = Framed::new(stream, codec(layout)).split::<Bytes>();
            let sending = async {
                for message in messages() {
                    sink.feed(message.into()).await.unwrap();
                }
                sink.close().await.unwrap();
            };
            let receiving = stream.map(|message| message.unwrap().to_vec()).collect::<Vec<_>>();
            futures_util::join!(sending, receiving).1
        });
        assert!(echoed == messages(), "{layout}");
        assert!(unframe(&server.stop().output) == messages(), "{layout}");
    }
}

#[test]
fn this_client_and_a_tokio_server_understand_each_other() {
    for layout in LAYOUTS {
        let runtime = tokio_runtime();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let client = std::thread::spawn(move || {
            let frames =
                messages().into_iter().flat_map(|message| common::program::frame(&message));
            let mut command = Command::new(FRAMELET);
            command.args(["send", &address, "--layout", layout]);
            command.args(["--input", "frames", "--output", "frames"]);
            run(command, &frames.collect::<Vec<u8>>())
        });
        let received = runtime.block_on(async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut framed = Framed::new(stream, codec(layout));
            let mut received = Vec::new();
            while let Some(message) = framed.next().await {
                let message = message.unwrap();
                received.push(message.to_vec());
                framed.send(message.freeze()).await.unwrap();
            }
            received
        });
        let output = client.join().unwrap();
        assert!(output.status.success(), "{layout}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(received == messages(), "{layout}");
        assert!(unframe(&output.stdout) == messages(), "{layout}");
    }
}

#[test]
fn what_tokio_refuses_is_refused_here_too() {
    let frame =
        framelet(&["encode", "--input", "whole", "--max-message", "9MiB"], &[0; (8 << 20) + 1]);
    let mut codec = codec("u32be");
    let mut bytes = frame.stdout[..].into();
    assert!(tokio_util::codec::Decoder::decode(&mut codec, &mut bytes).is_err());
    assert_eq!(framelet(&["decode"], &frame.stdout).status.code(), Some(3));
}

// ---- the client in Python

/// Sends `input` with the client of docs/protocol.md to `127.0.0.1:PORT`. Returns `None`, and says so, where
/// there is no Python.
fn send_from_python(address: &str, input: &[u8]) -> Option<Output> {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("NOT RUN: python3 was not found (on Debian: apt-get install python3)");
        return None;
    }
    let page = fs::read_to_string("docs/protocol.md").unwrap();
    let (_, client) = page.split_once("```python\n").expect("the client");
    let (client, _) = client.split_once("```").unwrap();
    assert!(client.lines().count() <= 40, "the client has {} lines", client.lines().count());
    let (host, port) = address.rsplit_once(':').unwrap();
    let mut command = Command::new("python3");
    command.args(["-c", client, host, port, SENDER]);
    Some(run(command, input))
}

#[test]
fn the_client_of_the_docs_sends_each_message_once_over_a_bad_line() {
    let server = Server::start(&["--require-ack"]);
    let proxy = start_proxy(1, server.address, 40_000);
    let input: String = (0..10_000).map(|number| format!("{number}\n")).collect();
    let Some(output) = send_from_python(&proxy.to_string(), input.as_bytes()) else { return };
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("retrying"), "no connection was lost: {}", said(&output));
    assert!(server.stop().output == input.as_bytes());
}

#[test]
fn the_client_of_the_docs_waits_for_the_first_count_and_tries_again_where_that_may_help() {
    let (address, committed) = start(|mut connection: Connection| match connection.number {
        1 => connection.refuse(RefusalCode::Shutdown, "it is shutting down"),
        2 => {
            // Heartbeats, and then what has been committed before.
            connection.stream.stream.write_all(&[0; 8]).unwrap();
            connection.committed.commit(b"a".into());
            connection.committed.commit(b"b".into());
            connection.acknowledge();
            connection.take().unwrap();
            connection.refuse(RefusalCode::Sink, "its sink failed");
        }
        _ => connection.serve(),
    });
    let Some(output) = send_from_python(&address.to_string(), b"a\nb\nc\nd\n") else { return };
    assert_eq!(said(&output), "it is shutting down; retrying\nits sink failed; retrying\n");
    assert!(output.status.success());
    assert_eq!(committed.all(), [b"a", b"b", b"c", b"d"]);
}

#[test]
fn the_client_of_the_docs_ends_where_it_is_refused_for_good() {
    let server = Server::start(&["--echo"]);
    let Some(output) = send_from_python(&server.address.to_string(), b"a\n") else { return };
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).starts_with("refused: "), "{}", said(&output));
    assert!(server.stop().output.is_empty());
}

#[test]
fn the_client_of_the_docs_ends_if_the_server_has_more_messages_than_it() {
    let server = Server::start(&[]);
    let address = server.address.to_string();
    let Some(output) = send_from_python(&address, b"a\nb\nc\n") else { return };
    assert!(output.status.success(), "{}", said(&output));
    let output = send_from_python(&address, b"a\nb\n").unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(said(&output), "the server has 3 messages, the input fewer\n");
    assert_eq!(server.stop().output, b"a\nb\nc\n");
}
