//! The conformance cases in `tests/vectors/`, against the reader and the writer.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::{fs, io};

use common::vectors::{Failure, ReadCase, Vectors, WriteCase, folder, seams};
use common::{Pieces, Step, Tail, random_pieces};
use framelet::stream::{ReadError, WriteError};
use framelet::wire::PRESETS;
use framelet::{FrameReader, FrameWriter, Layout};
use futures_lite::future::block_on;
use futures_lite::{AsyncWrite, StreamExt};

/// Every number that has to be covered.
const NUMBERS: &[&str] = &[
    "A1", "A2", "A3", "A4", "A5", "A6", "A7", "A8", "A9", "B1", "B2", "B3", "B5", "B6", "B8", "B9",
    "B10", "C1", "C2", "C3", "C4", "C5", "C6", "C7", "D1", "D2", "D3", "D4", "D7", "D8", "E1",
    "E2", "E3", "E4", "E5", "F1", "F2", "F3", "F4", "F5", "G1", "H1", "H2", "I1", "I2", "I3", "I4",
    "I5", "I6", "I7", "I8", "P1", "P2",
];

/// Those of them that bytes alone cannot express.
const WITHOUT_DATA: &[&str] = &["B10", "C6", "E3", "E4", "F1", "F2", "F3", "F4", "F5", "H1", "H2"];

/// Up to this many bytes, an input is cut at every pair of places.
const SHORT: usize = 64;

/// Up to this many bytes, an input is cut at every place; a longer one at its seams and at random.
const MEDIUM: usize = 600;

/// Up to this many bytes, an input is read one byte at a time.
const LONG: usize = 256 * 1024;

#[derive(Clone, Copy, Debug)]
enum By {
    Read,
    Batch,
    Stream,
}

const WAYS: [By; 3] = [By::Read, By::Batch, By::Stream];

#[test]
fn every_case_gives_its_events_in_one_piece() {
    for case in Vectors::load().reads {
        check(&case, &[Step::Give(case.input.len())]);
        check(&case, &[Step::Pend, Step::Give(case.input.len()), Step::Pend]);
    }
}

#[test]
fn every_case_gives_the_same_events_in_its_own_pieces() {
    let cases = Vectors::load().reads;
    let cases: Vec<_> = cases.iter().filter(|case| !case.pieces.is_empty()).collect();
    assert!(!cases.is_empty());
    for case in cases {
        assert_eq!(case.pieces.iter().sum::<usize>(), case.input.len(), "{case}");
        let steps: Vec<_> =
            case.pieces.iter().flat_map(|&piece| [Step::Give(piece), Step::Pend]).collect();
        check(case, &steps);
    }
}

#[test]
fn every_case_gives_the_same_events_byte_by_byte() {
    for case in Vectors::load().reads.iter().filter(|case| case.input.len() <= LONG) {
        check(case, &vec![Step::Give(1); case.input.len()]);
        check(case, &[Step::Pend, Step::Give(1)].repeat(case.input.len()));
    }
}

#[test]
fn every_case_gives_the_same_events_wherever_it_is_cut_once() {
    let mut random = fastrand::Rng::with_seed(1);
    for case in Vectors::load().reads {
        for cut in cuts(&case, &mut random) {
            check(&case, &[Step::Give(cut), Step::Pend]);
        }
    }
}

#[test]
fn every_short_case_gives_the_same_events_wherever_it_is_cut_twice() {
    let cases = Vectors::load().reads;
    for case in cases.iter().filter(|case| case.input.len() <= SHORT) {
        for first in 1..case.input.len() {
            for second in 1..case.input.len() - first {
                check(case, &[Step::Give(first), Step::Pend, Step::Give(second), Step::Pend]);
            }
        }
    }
}

#[test]
fn every_case_gives_the_same_events_in_random_pieces() {
    let mut random = fastrand::Rng::with_seed(2);
    for case in Vectors::load().reads {
        let rounds = match case.input.len() {
            len if len <= MEDIUM => 50,
            len if len <= LONG => 8,
            _ => 2,
        };
        for _ in 0..rounds {
            check(&case, &random_pieces(&mut random, case.input.len()));
        }
    }
}

#[test]
fn what_the_bytes_decide_is_said_if_nothing_more_arrives() {
    let mut seen = 0;
    for case in Vectors::load().reads {
        let Some(failure) = case.failure.as_ref().filter(|failure| failure.needs_no_end()) else {
            continue;
        };
        // The bytes that decide it, and not one more: then the stream breaks.
        let until = usize::try_from(failure.at.offset).unwrap() + failure.decided_by;
        for by in WAYS {
            let breaks = Step::Fail(io::ErrorKind::ConnectionReset);
            let steps = [Step::Give(until - 1), Step::Pend, Step::Give(1), breaks];
            let pieces = Pieces::new(&case.input[..until], steps, Tail::Forbidden);
            let outcome = outcome(pieces, case.layout, case.limit, by);
            compare(&case, &outcome, false).unwrap_or_else(|what| panic!("{case} {by:?}: {what}"));
        }
        seen += 1;
    }
    assert!(seen > 0);
}

#[test]
fn every_write_case_gives_its_bytes() {
    for case in Vectors::load().writes {
        let mut writer = writer(Vec::new(), &case);
        feed_all(&mut writer, &case);
        block_on(writer.flush()).unwrap();
        assert!(writer.into_inner() == case.output, "{case}");
    }
}

#[test]
fn every_write_case_gives_the_same_bytes_on_an_output_that_takes_little() {
    for case in Vectors::load().writes.iter().filter(|case| case.output.len() <= LONG) {
        let mut writer = writer(Crumbs::default(), case);
        feed_all(&mut writer, case);
        block_on(writer.close()).unwrap();
        assert!(writer.into_inner().taken == case.output, "{case}");
    }
}

#[test]
fn what_a_write_case_writes_is_read_again() {
    for case in Vectors::load().writes {
        let accepted = case.payloads.iter().filter(|payload| payload.refused.is_none());
        for by in WAYS {
            let pieces = Pieces::new(&case.output, [], Tail::End);
            let outcome = outcome(pieces, case.layout, case.limit, by);
            assert!(outcome.error.is_none(), "{case}: {:?}", outcome.error);
            assert!(outcome.messages.iter().eq(accepted.clone().map(|payload| &payload.bytes)));
            let headers = accepted.clone().map(|payload| match &payload.header[..] {
                [] => vec![0; case.layout.header_len().unwrap_or(0)],
                header => header.to_vec(),
            });
            assert!(outcome.headers.is_none_or(|read| read.into_iter().eq(headers)), "{case}");
        }
    }
}

#[test]
fn a_limit_that_the_field_cannot_say_is_refused_by_both_sides() {
    for case in Vectors::load().limits {
        let reader = FrameReader::with_layout(&b""[..], case.layout).max_message(case.limit);
        let writer =
            FrameWriter::with_layout(Vec::<u8>::new(), case.layout).max_message(case.limit);
        let errors = [reader.err(), writer.err()].map(|error| error.map(|error| error.to_string()));
        for error in errors {
            match (&case.refused, error) {
                (None, None) => {}
                (Some(says), Some(error)) => {
                    assert!(says.iter().all(|part| error.contains(part)), "{}: {error}", case.id);
                }
                (_, error) => panic!("{}: {error:?}", case.id),
            }
        }
    }
}

#[test]
fn the_bytes_of_every_layout_are_among_the_cases() {
    let vectors = Vectors::load();
    let written: BTreeSet<_> = vectors
        .writes
        .iter()
        .filter(|case| number(&case.id) == "E5")
        .map(|case| case.layout.to_string())
        .collect();
    let all: BTreeSet<_> = Layout::binary().map(|layout| layout.to_string()).collect();
    assert_eq!(written, all);
}

#[test]
fn the_bytes_of_every_preset_are_read_and_written() {
    let vectors = Vectors::load();
    let presets: BTreeSet<_> = PRESETS.iter().map(|preset| preset.name).collect();
    let is_preset = |id: &str, messages: usize| number(id) == "P1" && messages > 0;
    let reads = vectors.reads.iter().filter(|case| is_preset(&case.id, case.messages.len()));
    let writes = vectors.writes.iter().filter(|case| is_preset(&case.id, case.payloads.len()));
    let read: BTreeSet<_> = reads.map(|case| case.layout_name.as_str()).collect();
    let written: BTreeSet<_> = writes.map(|case| case.layout_name.as_str()).collect();
    assert_eq!((&read, &written), (&presets, &presets));
}

#[test]
fn every_number_has_a_case_or_a_test_that_takes_its_place() {
    let vectors = Vectors::load();
    let mut ids = BTreeSet::new();
    for id in vectors.ids() {
        assert!(ids.insert(id), "{id} is there twice");
        assert!(NUMBERS.contains(&number(id)), "{id} is no case");
    }
    let elsewhere = elsewhere();
    let with_data: BTreeSet<_> = ids.iter().map(|id| number(id)).collect();
    for number in NUMBERS {
        if WITHOUT_DATA.contains(number) {
            assert!(elsewhere.contains_key(*number), "{number} is not explained in the README");
        } else {
            assert!(with_data.contains(number), "{number} is not in the data");
        }
    }
    for (number, tests) in elsewhere {
        assert!(NUMBERS.contains(&number.as_str()), "the README explains {number}: no such case");
        assert!(!tests.is_empty(), "{number}: the README names no test");
        for test in tests {
            let (file, function) = test.split_once("::").unwrap_or((&test, ""));
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
            // A part of the test suite may be left out of a package; a wrong name may not.
            let Ok(text) = fs::read_to_string(&path) else { continue };
            assert!(
                function.is_empty() || text.contains(&format!("fn {function}(")),
                "{number}: there is no {test}"
            );
        }
    }
}

/// Returns the number a case belongs to: `D1c` is the third case of `D1`.
fn number(id: &str) -> &str {
    id.trim_end_matches(|c: char| c.is_ascii_lowercase())
}

/// Returns what the README's table says: the tests in place of data, for each number in it.
fn elsewhere() -> BTreeMap<String, Vec<String>> {
    let readme = fs::read_to_string(folder().join("README.md")).unwrap();
    let rows = readme.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split('|').map(str::trim);
        let number = cells.next().filter(|cell| cell.ends_with(|c: char| c.is_ascii_digit()))?;
        let tests = cells.next_back().filter(|cell| !cell.is_empty()).or(cells.next_back())?;
        let tests = tests.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        Some((number.to_owned(), tests))
    });
    rows.collect()
}

/// Returns the places where an input is cut.
fn cuts(case: &ReadCase, random: &mut fastrand::Rng) -> Vec<usize> {
    let len = case.input.len();
    if len <= MEDIUM {
        return (1..len).collect();
    }
    let seams = seams(case.layout, &case.input);
    let mut cuts: BTreeSet<usize> = (0..10).map(|_| random.usize(1..len)).collect();
    for seam in seams.iter().take(10).chain(seams.iter().rev().take(3)) {
        cuts.extend(seam.saturating_sub(2)..=seam + 2);
    }
    cuts.into_iter().filter(|cut| (1..len).contains(cut)).collect()
}

/// All that comes of a stream.
struct Outcome {
    messages: Vec<Vec<u8>>,
    /// Only a batch tells them.
    headers: Option<Vec<Vec<u8>>>,
    error: Option<ReadError>,
}

/// Reads the case in these steps and all three ways, and compares.
fn check(case: &ReadCase, steps: &[Step]) {
    let in_one_piece = steps.iter().all(|step| match step {
        Step::Give(bytes) => *bytes == case.input.len(),
        _ => true,
    });
    for by in WAYS {
        let pieces = Pieces::new(&case.input, steps.iter().copied(), Tail::End);
        let outcome = outcome(pieces, case.layout, case.limit, by);
        compare(case, &outcome, in_one_piece).unwrap_or_else(|what| {
            let shown = &steps[..steps.len().min(20)];
            panic!("{case} by {by:?} in the steps {shown:?}: {what}")
        });
    }
}

fn compare(case: &ReadCase, outcome: &Outcome, in_one_piece: bool) -> Result<(), String> {
    if outcome.messages != case.messages {
        let lengths =
            |messages: &[Vec<u8>]| messages.iter().take(20).map(Vec::len).collect::<Vec<_>>();
        return Err(format!(
            "{} messages of {:?} bytes instead of {} of {:?}",
            outcome.messages.len(),
            lengths(&outcome.messages),
            case.messages.len(),
            lengths(&case.messages),
        ));
    }
    if outcome.headers.as_ref().is_some_and(|headers| *headers != case.headers) {
        return Err(format!("headers {:x?} instead of {:x?}", outcome.headers, case.headers));
    }
    // A read buffer ends somewhere in a long input, so that it does not come in one piece.
    let in_one_piece = in_one_piece && case.input.len() <= MEDIUM;
    match (&case.failure, &outcome.error) {
        (None, None) => Ok(()),
        (Some(failure), Some(error)) => Failure::compare(failure, error, in_one_piece),
        (None, Some(error)) => Err(format!("an error instead of a clean end: {error}")),
        (Some(failure), None) => Err(format!("a clean end instead of {failure:?}")),
    }
}

fn outcome(pieces: Pieces<'_>, layout: Layout, limit: usize, by: By) -> Outcome {
    let mut reader = FrameReader::with_layout(pieces, layout).max_message(limit).unwrap();
    let (mut messages, mut headers) = (Vec::new(), Vec::new());
    let error = block_on(async {
        loop {
            assert_eq!(reader.at().message, messages.len() as u64 + 1);
            match by {
                By::Read => match reader.read().await {
                    Ok(Some(message)) => messages.push(message),
                    Ok(None) => return None,
                    Err(error) => return Some(error),
                },
                By::Batch => match reader.read_batch().await {
                    Ok(Some(batch)) => {
                        let before = messages.len();
                        messages.extend(batch.iter().map(<[u8]>::to_vec));
                        headers.extend(batch.messages().map(|(header, _)| header.to_vec()));
                        assert_eq!(batch.first_number(), before as u64 + 1);
                        assert_eq!(batch.len(), messages.len() - before);
                        let bytes = messages[before..].iter().map(Vec::len).sum::<usize>();
                        assert_eq!(batch.payload_bytes(), bytes);
                        assert!(batch.len() > 0, "a batch of nothing");
                    }
                    Ok(None) => return None,
                    Err(error) => return Some(error),
                },
                By::Stream => match reader.next().await {
                    Some(Ok(message)) => messages.push(message),
                    Some(Err(error)) => return Some(error),
                    None => return None,
                },
            }
        }
    });
    assert_same_again(&mut reader, error.as_ref());
    let headers = matches!(by, By::Batch).then_some(headers);
    Outcome { messages, headers, error }
}

/// After its end, a reader gives the same answer for ever, and does not read.
fn assert_same_again(reader: &mut FrameReader<Pieces<'_>>, error: Option<&ReadError>) {
    // Written out, since `StreamExt` has a `position` too.
    let (reads, position) = (reader.get_ref().reads, FrameReader::at(reader));
    let expected = error.map(ReadError::to_string);
    for _ in 0..3 {
        let read = block_on(reader.read()).map(|message| message.is_some());
        let batch = block_on(reader.read_batch()).map(|batch| batch.is_some());
        for again in [read, batch] {
            match again {
                Ok(more) => assert!(!more && error.is_none(), "{again:?} after {expected:?}"),
                Err(again) => assert_eq!(Some(again.to_string()), expected),
            }
        }
        assert!(block_on(reader.next()).is_none(), "a stream gives its error once");
    }
    assert_eq!(reader.get_ref().reads, reads, "read on after the end");
    assert_eq!(FrameReader::at(reader), position);
    assert!(!reader.in_message());
}

fn writer<W>(output: W, case: &WriteCase) -> FrameWriter<W> {
    FrameWriter::with_layout(output, case.layout).max_message(case.limit).unwrap()
}

fn feed_all<W: AsyncWrite + Unpin>(writer: &mut FrameWriter<W>, case: &WriteCase) {
    for payload in &case.payloads {
        let queued = writer.queued();
        let fed = block_on(writer.feed_with_header(&payload.header, &payload.bytes));
        match (fed, &payload.refused) {
            (Ok(()), None) => {}
            (Err(WriteError::Encode(error)), Some(says)) => {
                let error = error.to_string();
                assert!(says.iter().all(|part| error.contains(part)), "{case}: {error}");
                assert_eq!(writer.queued(), queued, "{case}");
            }
            (result, _) => panic!("{case}: {} bytes: {result:?}", payload.bytes.len()),
        }
    }
}

/// An output that takes a byte a call, and has to be asked twice for each.
#[derive(Default)]
struct Crumbs {
    taken: Vec<u8>,
    asked: bool,
}

impl AsyncWrite for Crumbs {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.asked = !self.asked;
        if self.asked {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.taken.push(buf[0]);
        Poll::Ready(Ok(1))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
