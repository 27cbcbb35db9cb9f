//! Empty frames that are no messages but heartbeats: `--empty`.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use common::program::{Server, check, frame, framelet, odd_server, read_frame, unframe};
use common::{Pieces, Tail, layouts, random_pieces};
use framelet::stream::Arrival;
use framelet::wire::{EmptyFrames, MAX_PAYLOAD, append_frame_with_header};
use framelet::{Client, FrameReader, FrameWriter, Layout};
use futures_lite::future::{block_on, poll_once};
use futures_lite::{StreamExt, io};
use smol::net::TcpListener;

/// Returns the frames of these payloads, one after the other.
fn frames(payloads: &[&str]) -> Vec<u8> {
    payloads.iter().flat_map(|payload| frame(payload.as_bytes())).collect()
}

#[test]
fn empty_frames_are_skipped_in_every_layout_that_has_some() {
    let random = &mut fastrand::Rng::with_seed(1);
    for layout in layouts() {
        let (mut bytes, mut messages, mut skipped) = (Vec::new(), Vec::new(), 0);
        for _ in 0..200 {
            let payload = vec![b'm'; random.usize(0..3)];
            if append_frame_with_header(&mut bytes, layout, MAX_PAYLOAD, b"", &payload).is_err() {
                continue;
            }
            // A header makes a message of it.
            match payload.is_empty() && layout.header_len().is_none_or(|len| len == 0) {
                true => skipped += 1,
                false => messages.push((payload, bytes.len() as u64)),
            }
        }
        let can_be_empty = layout.header_len().is_none_or(|len| len == 0);
        assert_eq!(skipped > 0, can_be_empty, "{layout}");
        for _ in 0..10 {
            let steps = random_pieces(random, bytes.len());
            let reader = || {
                let stream = Pieces::new(&bytes, steps.clone(), Tail::End);
                FrameReader::with_layout(stream, layout).skip_empty(true)
            };
            let mut single = reader();
            for (number, (payload, end)) in messages.iter().enumerate() {
                assert_eq!(block_on(single.read()).unwrap().as_ref(), Some(payload), "{layout}");
                assert_eq!(single.at().message, number as u64 + 2);
                assert_eq!(single.at().offset, *end, "{layout}");
            }
            assert_eq!(block_on(single.read()).unwrap(), None);
            let all = block_on(reader().map(Result::unwrap).collect::<Vec<_>>());
            assert!(all.iter().eq(messages.iter().map(|(payload, _)| payload)), "{layout}");
            let (mut batches, mut heartbeats, mut count) = (reader(), 0, 0);
            while let Some(arrival) = block_on(batches.read_arrival()).unwrap() {
                match arrival {
                    Arrival::Heartbeats(more) => heartbeats += more,
                    Arrival::Messages(batch) => {
                        let expected = &messages[count..][..batch.len()];
                        assert!(batch.iter().eq(expected.iter().map(|(payload, _)| &payload[..])));
                        count += batch.len();
                    }
                }
            }
            assert_eq!((count, heartbeats), (messages.len(), skipped), "{layout}");
        }
    }
}

#[test]
fn gits_markers_and_other_header_lines_are_messages() {
    for (layout, bytes, headers) in [
        ("git", &b"000400000004000100060a0004"[..], &[&b"0000"[..], b"0001", b""][..]),
        ("lsp", b"Content-Length: 0\r\n\r\nContent-Length: 0\r\nX: y\r\n\r\n", &[b"X: y\r\n"]),
    ] {
        let mut reader = FrameReader::with_layout(bytes, layout.parse().unwrap()).skip_empty(true);
        for header in headers {
            let (got, _) = block_on(reader.read_with_header()).unwrap().unwrap();
            assert_eq!(&got, header, "{layout}");
        }
        assert!(block_on(reader.read()).unwrap().is_none(), "{layout}");
    }
}

/// F3. Other tasks get their turn, and other tasks include the one that stops this one.
#[test]
fn a_read_of_heartbeats_without_end_lets_others_run() {
    let mut reader = FrameReader::new(io::repeat(0)).skip_empty(true);
    for _ in 0..100 {
        assert!(block_on(poll_once(reader.read())).is_none());
        assert!(block_on(poll_once(reader.read_batch())).is_none());
    }
}

#[test]
fn decode_skips_empty_frames_and_counts_their_bytes() {
    let input = frames(&["", "one", "", "", "two", "three", ""]);
    let output = framelet(&["decode", "--output", "json", "--empty", "skip"], &input);
    check(&output, 0, &[]);
    let shown = String::from_utf8(output.stdout).unwrap();
    let places: Vec<_> = shown
        .lines()
        .map(|line| {
            let json: serde_json::Value = serde_json::from_str(line).unwrap();
            ["number", "offset"].map(|field| json[field].as_u64().unwrap())
        })
        .collect();
    assert_eq!(places, [[1, 4], [2, 19], [3, 26]], "{shown}");
    let output = framelet(&["decode"], &input);
    assert_eq!(output.stdout, b"\none\n\n\ntwo\nthree\n\n");
}

#[test]
fn what_nobody_can_do_is_refused_in_words() {
    for (arguments, words) in [
        (&["decode", "--empty", "echo"][..], "decode has nobody to send to"),
        (&["decode", "--empty", "ping"], "write message, skip or echo"),
        (&["decode", "--empty", "skip", "--layout", "grpc"], "is empty: each has a header"),
        (&["decode", "--empty", "skip", "--layout", "u8-2"], "is empty: each has a payload"),
        (&["serve", "--empty", "echo", "--layout", "grpc"], "is empty: each has a header"),
        (&["serve", "--empty", "skip", "--require-ack"], "each frame is a message"),
        (&["send", "--empty", "skip", "--ack"], "each frame is a message"),
        (&["send", "--empty", "skip", "--layout", "mqtt"], "is empty: each has a header"),
    ] {
        check(&framelet(arguments, b""), 2, &[words, "--empty"]);
    }
    // Markers make a frame of git a message, but it has others.
    check(&framelet(&["decode", "--empty", "skip", "--layout", "git"], b"0004"), 0, &[]);
}

#[test]
fn serve_answers_heartbeats_and_keeps_them_from_its_output() {
    for (arguments, replies) in [
        (&["--empty", "echo"][..], &["", "", "", ""][..]),
        (&["--empty", "echo", "--echo"], &["", "one", "", "", "two", ""]),
        (&["--empty", "skip", "--echo"], &["one", "two"]),
        (&["--echo"], &["", "one", "", "", "two", ""]),
    ] {
        let server = Server::start(&[arguments, &["--output", "lines"]].concat());
        let mut stream = server.connect();
        stream.write_all(&frames(&["", "one", "", "", "two", ""])).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        for reply in replies {
            let read = read_frame(&mut stream);
            assert_eq!(read.as_deref(), Some(reply.as_bytes()), "{arguments:?}");
        }
        assert_eq!(read_frame(&mut stream), None);
        let left = server.stop();
        let messages = if arguments == ["--echo"] { 6 } else { 2 };
        let summary = format!("{messages} messages over 1 connection");
        assert!(left.log.contains(&summary), "{arguments:?}: {}", left.log);
        if messages == 2 {
            assert_eq!(left.output, b"one\ntwo\n");
        }
    }
}

/// F4.
#[test]
fn a_peer_that_reads_no_heartbeats_is_read_no_further_and_costs_little_memory() {
    const PEERS: usize = 100;
    let server = Server::start(&["--empty", "echo", "--output", "none"]);
    let mut peers: Vec<TcpStream> = (0..PEERS).map(|_| server.connect()).collect();
    let before = server.memory();
    let (heartbeats, mut last) = (frame(b"").repeat(16 * 1024), Instant::now());
    let mut sent = vec![0; PEERS];
    for peer in &peers {
        peer.set_nonblocking(true).unwrap();
    }
    // Until nothing has been taken for a while: that it is full shows by nothing else.
    while last.elapsed() < Duration::from_millis(400) {
        for (peer, sent) in peers.iter_mut().zip(&mut sent) {
            if let Ok(written) = peer.write(&heartbeats[*sent % 4..]) {
                (*sent, last) = (*sent + written, Instant::now());
            }
        }
        assert!(sent.iter().all(|&sent| sent < 64 << 20), "there is no end of it");
    }
    let growth = server.peak_memory().saturating_sub(before);
    assert!(growth < PEERS * 70 * 1024 + (4 << 20), "{growth} bytes");
    // All of them come back once they are read.
    let (mut peer, sent) = (peers.pop().unwrap(), sent.pop().unwrap());
    peer.set_nonblocking(false).unwrap();
    let mut back = vec![1; sent / 4 * 4];
    peer.read_exact(&mut back).unwrap();
    assert!(back.iter().all(|&byte| byte == 0));
}

#[test]
fn send_does_not_take_heartbeats_for_replies() {
    for empty in ["skip", "echo"] {
        let address = odd_server(|mut stream| {
            stream.write_all(&frames(&["", "", "pong", ""])).unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let arguments = ["send", &address, "--expect", "1", "--empty", empty, "--message", "ping"];
        let output = framelet(&arguments, b"");
        check(&output, 0, &[]);
        assert_eq!(output.stdout, b"pong\n", "{empty}");
    }
    let address = odd_server(|mut stream| {
        stream.write_all(&frames(&["", "pong"])).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let output = framelet(&["send", &address, "--expect", "1", "--message", "ping"], b"");
    assert_eq!(output.stdout, b"\n", "an empty message is a reply");
}

#[test]
fn send_answers_heartbeats_while_it_waits_for_a_reply() {
    for how in [&["--expect", "1"][..], &["--each"]] {
        let address = odd_server(|mut stream| {
            assert_eq!(read_frame(&mut stream).unwrap(), b"ping");
            for _ in 0..3 {
                stream.write_all(&frame(b"")).unwrap();
                // The reply only comes if the heartbeat is answered.
                assert_eq!(read_frame(&mut stream).as_deref(), Some(&b""[..]));
            }
            stream.write_all(&frame(b"pong")).unwrap();
            assert_eq!(read_frame(&mut stream), None);
        });
        let arguments = ["send", &address, "--empty", "echo", "--message", "ping"];
        let output = framelet(&[&arguments[..], how].concat(), b"");
        check(&output, 0, &[]);
        assert_eq!(output.stdout, b"pong\n");
    }
}

/// A frame of which the socket takes a part at a time is not interrupted.
#[test]
fn send_answers_heartbeats_between_whole_frames() {
    const LENGTH: usize = 32 << 20;
    let (done, result) = std::sync::mpsc::channel();
    let address = odd_server(move |mut stream| {
        let (mut got, mut buffer) = (Vec::new(), vec![0; 1 << 20]);
        loop {
            // Much more than sockets hold is still to come, so the client is inside a frame.
            if got.len() < LENGTH / 2 {
                stream.write_all(&frame(b"")).unwrap();
            }
            match stream.read(&mut buffer).unwrap() {
                0 => break,
                read => got.extend_from_slice(&buffer[..read]),
            }
        }
        let (heartbeats, messages): (Vec<_>, Vec<_>) =
            unframe(&got).into_iter().partition(Vec::is_empty);
        done.send((heartbeats.is_empty(), messages == [vec![b'm'; LENGTH], vec![b'n'; LENGTH]]))
            .unwrap();
    });
    let input = [vec![b'm'; LENGTH], vec![b'n'; LENGTH]].join(&b'\n');
    let arguments =
        ["send", &address, "--input", "lines", "--empty", "echo", "--max-message", "32MiB"];
    check(&framelet(&arguments, &input), 0, &[]);
    assert_eq!(result.recv().unwrap(), (false, true));
}

#[test]
fn an_empty_message_of_a_client_with_acknowledgements_is_committed() {
    let server = Server::start(&["--empty", "skip"]);
    let address = server.address.to_string();
    let output = framelet(&["send", &address, "--ack", "--input", "lines"], b"one\n\nthree\n");
    check(&output, 0, &["committed 3"]);
    assert_eq!(server.stop().output, b"one\n\nthree\n");
}

#[test]
fn a_client_sends_heartbeats_back_while_it_waits_for_replies() {
    smol::block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = smol::spawn(async move {
            let stream = listener.accept().await.unwrap().0;
            let mut writer = FrameWriter::new(stream.clone());
            let mut reader = FrameReader::new(stream);
            for reply in ["one", "two", "three"] {
                while reader.read().await.unwrap().unwrap().is_empty() {}
                writer.send(b"").await.unwrap();
                // The reply only comes if the heartbeat is answered.
                while !reader.read().await.unwrap().unwrap().is_empty() {}
                writer.send(reply.as_bytes()).await.unwrap();
            }
            writer.send(b"").await.unwrap();
            reader.read().await.unwrap()
        });
        let client = Client::connect(address).await.unwrap().timeout(Duration::from_secs(30));
        let mut client = client.empty(EmptyFrames::Echo);
        assert_eq!(client.request(b"1").await.unwrap(), b"one");
        assert_eq!(client.request_with_header(b"", b"2").await.unwrap().1, b"two");
        client.send(b"3").await.unwrap();
        assert_eq!(client.receive().await.unwrap().as_deref(), Some(&b"three"[..]));
        assert!(poll_once(client.receive()).await.is_none());
        // To finish is to send nothing more.
        client.finish().await.unwrap();
        serving.await;
    });
}

/// F4.
#[test]
fn a_client_whose_server_reads_no_heartbeats_stops_reading() {
    smol::block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client =
            Client::connect(listener.local_addr().unwrap()).await.unwrap().empty(EmptyFrames::Echo);
        let server = listener.accept().await.unwrap().0;
        let mut writer = FrameWriter::with_layout(server, Layout::U32BE);
        let (mut sent, mut stalled) = (0, 0);
        while stalled < 200 {
            assert!(sent < 64 << 20, "there is no end of it");
            match poll_once(writer.feed(b"")).await {
                Some(fed) => {
                    fed.unwrap();
                    (sent, stalled) = (sent + 4, 0);
                }
                None => {
                    stalled += 1;
                    smol::Timer::after(Duration::from_millis(2)).await;
                }
            }
            if sent % 4096 == 0 || stalled > 0 {
                assert!(poll_once(client.receive()).await.is_none());
            }
        }
    });
}
