//! What the bytes of other programs are taken for: `tests/vectors/h-detect.json`.
//!
//! Each stream is read in each layout that somebody may expect it in. A wrong answer is worse than none: a layout that
//! is offered has to read the stream, and a name has to be the right one.

mod common;

use common::vectors::folder;
use common::{Pieces, Step, Tail};
use framelet::stream::ReadError;
use framelet::wire::{DEFAULT_MAX_MESSAGE, PRESETS, Suspect, append_frame, judge};
use framelet::{FrameReader, Layout};
use futures_lite::future::block_on;
use serde_json::Value;

struct Case {
    what: String,
    bytes: Vec<u8>,
    read_as: Vec<Layout>,
    names: Vec<String>,
}

fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(folder().join("h-detect.json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let texts = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().into()).collect()
    };
    let case = |case: &Value| Case {
        what: case["what"].as_str().unwrap().into(),
        bytes: data_encoding::HEXLOWER.decode(case["hex"].as_str().unwrap().as_bytes()).unwrap(),
        read_as: texts(&case["read_as"]).iter().map(|layout| layout.parse().unwrap()).collect(),
        names: texts(&case["names"]),
    };
    all["detect"].as_array().unwrap().iter().map(case).collect()
}

/// Reads a stream to its end.
fn read(layout: Layout, bytes: &[u8], steps: &[Step]) -> Result<(), ReadError> {
    let pieces = Pieces::new(bytes, steps.iter().copied(), Tail::End);
    let mut reader = FrameReader::with_layout(pieces, layout);
    while block_on(reader.read())?.is_some() {}
    Ok(())
}

#[derive(Default, Debug, PartialEq)]
struct Tally {
    failed: usize,
    named: usize,
    could_be_named: usize,
}

/// Reads every stream in every layout, and returns what was said and all that is misleading.
fn diagnose(steps: impl Fn(usize) -> Vec<Step>) -> (Tally, Vec<String>) {
    let (mut tally, mut misled) = (Tally::default(), Vec::new());
    for case in cases() {
        for &layout in &case.read_as {
            let Err(error) = read(layout, &case.bytes, &steps(case.bytes.len())) else { continue };
            tally.failed += 1;
            tally.could_be_named += usize::from(!case.names.is_empty());
            let ReadError::Protocol(error) = error else { panic!("{error}") };
            let Some(suspect) = error.suspect else {
                if !case.names.is_empty() {
                    println!("not named: {} as {layout}", case.what);
                }
                continue;
            };
            let said = suspect.to_string();
            let at = format!("{} as {layout}: {said}", case.what);
            // A hello is for a server to read.
            let offered =
                suspect.layout_name().filter(|_| !matches!(suspect, Suspect::Hello { .. }));
            if let Some(offered) = offered
                && read(offered.parse().unwrap(), &case.bytes, &[]).is_err()
            {
                misled.push(format!("{at} (offered, and does not read it)"));
            }
            let is_right = case.names.iter().any(|name| said.contains(name));
            tally.named += usize::from(is_right);
            if !is_right {
                println!("not named: {at}");
            }
            // What is put as a question is no name; nor is another layout that reads the stream, too.
            let is_name = !matches!(suspect, Suspect::PossibleLayout { .. } | Suspect::Text { .. });
            if is_name && !is_right {
                misled.push(at);
            }
        }
    }
    (tally, misled)
}

#[test]
fn what_other_programs_send_is_named_or_nothing_is_said() {
    let (tally, misled) = diagnose(|len| vec![Step::Give(len)]);
    assert_eq!(misled, [""; 0]);
    assert!(tally.named * 100 >= tally.could_be_named * 93, "{tally:?}");
}

#[test]
fn nothing_misleading_is_said_of_what_arrives_byte_by_byte() {
    let (tally, misled) = diagnose(|len| vec![Step::Give(1); len]);
    assert_eq!(misled, [""; 0], "{tally:?}");
}

#[test]
fn random_bytes_are_rarely_taken_for_anything() {
    let mut random = fastrand::Rng::with_seed(7);
    let (mut named, mut judged) = (0, 0);
    for _ in 0..1000 {
        let bytes: Vec<u8> = (0..random.usize(8..300)).map(|_| random.u8(..)).collect();
        judged += usize::from(!judge(&bytes, true).is_empty());
        if let Err(ReadError::Protocol(error)) = read(Layout::U32BE, &bytes, &[]) {
            named += usize::from(
                error
                    .suspect
                    .is_some_and(|suspect| !matches!(suspect, Suspect::PossibleLayout { .. })),
            );
        }
    }
    assert!(named <= 15 && judged <= 60, "{named} and {judged} of 1000");
}

#[test]
fn messages_in_any_layout_are_recognised() {
    let mut random = fastrand::Rng::with_seed(8);
    let presets = PRESETS.iter().map(|preset| preset.notation.parse().unwrap());
    for layout in Layout::binary().chain(presets) {
        for _ in 0..20 {
            let mut stream = Vec::new();
            for _ in 0..random.usize(4..9) {
                let payload: Vec<u8> = (0..random.usize(1..100)).map(|_| random.u8(..)).collect();
                append_frame(&mut stream, layout, DEFAULT_MAX_MESSAGE, &payload).unwrap();
            }
            let found = judge(&stream, true);
            let reads = |of: &framelet::wire::Candidate| of.layout == layout || of.is_exact;
            assert!(found.iter().any(reads), "{layout}: {found:?}");
            for candidate in found {
                assert!(read(candidate.name().parse().unwrap(), &stream, &[]).is_ok());
            }
        }
    }
}
