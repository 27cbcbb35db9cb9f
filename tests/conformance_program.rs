//! The conformance cases against the program itself: `framelet decode` and `framelet serve`.
//!
//! The reader and the writer meet the same cases in `conformance.rs`, in all kinds of pieces.

mod common;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::Shutdown;

use common::program::{Server, closed, framelet, unframe};
use common::vectors::{Payload, ReadCase, Vectors};
use data_encoding::{BASE64, HEXLOWER};
use framelet::wire::{EncodeError, append_frame_with_header};
use framelet::{FrameReader, Layout};
use futures_lite::future::block_on;
use serde_json::Value;

/// Checks what the program has said about the end of a case; `said` is empty if it said nothing.
fn check_end(case: &ReadCase, said: &str, in_one_piece: bool) {
    let Some(failure) = &case.failure else {
        assert_eq!(said, "", "{}: {}", case.id, case.title);
        return;
    };
    assert!(said.contains(&failure.at.to_string()), "{}: {said:?}", case.id);
    if let Err(difference) = failure.compare_text(said, in_one_piece) {
        panic!("{}: {difference}", case.id);
    }
    assert_eq!(said.trim_end().lines().count(), 1, "{}: one line, not {said:?}", case.id);
}

/// Returns the headers and the payloads of whole frames.
fn read_all(layout: Layout, frames: &[u8]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let mut reader = FrameReader::with_layout(frames, layout);
    let (mut headers, mut payloads) = (Vec::new(), Vec::new());
    while let Some(batch) = block_on(reader.read_batch()).unwrap() {
        for (header, payload) in batch.messages() {
            headers.push(header.to_vec());
            payloads.push(payload.to_vec());
        }
    }
    (headers, payloads)
}

/// Returns whether messages in this layout may have a header.
fn may_have_header(layout: Layout) -> bool {
    layout.header_len() != Some(0)
}

#[test]
fn decode_gives_the_messages_and_says_what_is_wrong() {
    let cases = Vectors::load().reads;
    assert!(cases.len() > 50, "only {} cases", cases.len());
    for case in cases {
        let (layout, limit) = (case.layout.to_string(), case.limit.to_string());
        let arguments =
            ["decode", "--layout", &layout, "--max-message", &limit, "--output", "frames"];
        let output = framelet(&arguments, &case.input);
        // Without loss: in a layout with headers, frames stay in it.
        let (headers, messages) = match may_have_header(case.layout) {
            true => read_all(case.layout, &output.stdout),
            false => (case.headers.clone(), unframe(&output.stdout)),
        };
        assert!(messages == case.messages, "{}: {}", case.id, case.title);
        assert!(headers == case.headers, "{}: {}", case.id, case.title);
        let code = if case.failure.is_some() { 3 } else { 0 };
        assert_eq!(output.status.code(), Some(code), "{}: {}", case.id, case.title);
        let in_one_piece = case.input.len() < 64 * 1024;
        check_end(&case, &String::from_utf8(output.stderr).unwrap(), in_one_piece);
    }
}

#[test]
fn serve_gives_the_messages_and_says_what_is_wrong() {
    let mut alike = BTreeMap::<(String, usize), Vec<ReadCase>>::new();
    for case in Vectors::load().reads {
        alike.entry((case.layout.to_string(), case.limit)).or_default().push(case);
    }
    // No more lines of a kind are logged in a row.
    let groups = alike.iter().flat_map(|(how, cases)| cases.chunks(5).map(move |few| (how, few)));
    for ((layout, limit), cases) in groups {
        let limit = limit.to_string();
        let server =
            Server::start(&["--layout", layout, "--max-message", &limit, "--output", "json"]);
        for case in cases {
            // One connection after the other, so that they are numbered like the cases.
            let mut stream = server.connect();
            let pieces =
                if case.pieces.is_empty() { vec![case.input.len()] } else { case.pieces.clone() };
            let mut rest = &case.input[..];
            for piece in pieces {
                let (now, later) = rest.split_at(piece.min(rest.len()));
                // The server need not read on after an error.
                if stream.write_all(now).is_err() {
                    break;
                }
                rest = later;
            }
            let _ = stream.write_all(rest);
            let _ = stream.shutdown(Shutdown::Write);
            assert!(closed(&mut stream), "{}: {}", case.id, case.title);
        }
        let left = server.stop();
        let mut received = BTreeMap::<u64, Vec<Vec<u8>>>::new();
        for line in String::from_utf8(left.output).unwrap().lines() {
            let message: Value = serde_json::from_str(line).unwrap();
            let of_connection =
                received.entry(message["connection"].as_u64().unwrap()).or_default();
            let payload = match &message["payload"] {
                Value::String(text) => text.clone().into_bytes(),
                _ => BASE64.decode(message["payload_base64"].as_str().unwrap().as_bytes()).unwrap(),
            };
            of_connection.push(payload);
            assert_eq!(message["number"], of_connection.len());
            assert_eq!(message["length"], of_connection.last().unwrap().len());
        }
        for (case, connection) in cases.iter().zip(1..) {
            let messages = received.remove(&connection).unwrap_or_default();
            assert!(messages == case.messages, "{}: {}", case.id, case.title);
            let said = left
                .log
                .lines()
                .find(|line| line.starts_with(&format!("framelet: connection {connection} ")));
            check_end(case, said.unwrap_or_default(), false);
        }
    }
}

#[test]
fn encode_writes_the_same_bytes_as_the_writer() {
    for case in Vectors::load().writes {
        let (layout, limit) = (case.layout.to_string(), case.limit.to_string());
        let has_header = case.payloads.iter().any(|payload| !payload.header.is_empty());
        let input = if has_header || may_have_header(case.layout) { "json" } else { "frames" };
        let arguments = ["encode", "--layout", &layout, "--max-message", &limit, "--input", input];
        let records = case.payloads.iter().flat_map(|Payload { header, bytes, .. }| match input {
            "json" if header.is_empty() => {
                format!("{{\"payload_base64\":\"{}\"}}\n", BASE64.encode(bytes)).into_bytes()
            }
            "json" => {
                let (header, payload) = (HEXLOWER.encode(header), BASE64.encode(bytes));
                format!("{{\"header\":\"{header}\",\"payload_base64\":\"{payload}\"}}\n")
                    .into_bytes()
            }
            _ => common::program::frame(bytes),
        });
        let frames: Vec<u8> = records.collect();
        let output = framelet(&arguments, &frames);
        if case.payloads.iter().all(|payload| payload.refused.is_none()) {
            assert_eq!(output.status.code(), Some(0), "{}: {}", case.id, case.title);
            assert!(output.stdout == case.output, "{}: {}", case.id, case.title);
        } else {
            // The writer continues after a payload that it has refused; a filter ends there.
            let refused = case.payloads.iter().find(|payload| payload.refused.is_some()).unwrap();
            let Payload { header, bytes, .. } = refused;
            let mut out = Vec::new();
            let error = append_frame_with_header(&mut out, case.layout, case.limit, header, bytes)
                .unwrap_err();
            // A header that does not fit is a fault of the input, and a length one of the protocol.
            let code = if matches!(error, EncodeError::Header { .. }) { 2 } else { 3 };
            assert_eq!(output.status.code(), Some(code), "{}: {}", case.id, case.title);
            assert!(case.output.starts_with(&output.stdout), "{}: {}", case.id, case.title);
            assert!(!output.stderr.is_empty());
        }
    }
}

#[test]
fn limits_that_no_message_can_reach_are_refused_by_every_command() {
    for case in Vectors::load().limits {
        let (layout, limit) = (case.layout.to_string(), case.limit.to_string());
        for command in ["encode", "decode"] {
            let output = framelet(&[command, "--layout", &layout, "--max-message", &limit], b"");
            let said = String::from_utf8(output.stderr).unwrap();
            let code = if case.refused.is_some() { 2 } else { 0 };
            assert_eq!(output.status.code(), Some(code), "{command} {}: {said}", case.id);
            for words in case.refused.iter().flatten() {
                assert!(said.contains(words), "{command} {}: {said}", case.id);
            }
        }
        if case.refused.is_some() {
            for command in ["serve", "send"] {
                let output =
                    framelet(&[command, ":0", "--layout", &layout, "--max-message", &limit], b"");
                assert_eq!(output.status.code(), Some(2), "{command} {}", case.id);
            }
        }
    }
}
