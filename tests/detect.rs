//! What the bytes of other programs are taken for: `tests/vectors/h-detect.json`.
//!
//! Each stream is read in each layout that somebody may expect it in. A wrong answer is worse than none: a layout that
//! is offered has to read the stream, and a name has to be the right one.

mod common;

use std::io;

use common::openings::openings;
use common::program::{check, framelet};
use common::unseen::unseen;
use common::vectors::folder;
use common::{Pieces, Step, Tail};
use framelet::stream::ReadError;
use framelet::wire::{
    DEFAULT_MAX_MESSAGE, MAX_PAYLOAD, PRESETS, Suspect, append_frame, detect, judge,
};
use framelet::{FrameReader, Layout};
use futures_lite::future::block_on;
use serde_json::Value;

struct Case {
    what: String,
    bytes: Vec<u8>,
    read_as: Vec<Layout>,
    names: Vec<String>,
}

/// Returns the streams of `h-detect.json`, with which the diagnosis was written.
fn known_cases() -> Vec<Case> {
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

impl Case {
    /// A stream that is read in the layouts that are most often expected.
    fn new(what: &str, bytes: Vec<u8>, names: &[&str]) -> Case {
        let read_as = ["u32be", "u16be", "u32le", "u8", "varint", "u64be", "u16le", "u32be+self"];
        Case {
            what: what.into(),
            bytes,
            read_as: read_as.iter().map(|layout| layout.parse().unwrap()).collect(),
            names: names.iter().map(|&name| name.into()).collect(),
        }
    }
}

/// Returns the openings of other protocols.
fn other_cases() -> Vec<Case> {
    openings().into_iter().map(|of| Case::new(of.what, of.bytes, of.names)).collect()
}

/// Returns streams that the diagnosis was not written with.
fn unseen_cases() -> Vec<Case> {
    unseen().map(|(what, bytes, names)| Case::new(what, bytes.into(), names)).collect()
}

/// How a stream arrives, and what follows it.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    byte_by_byte: bool,
    /// Whether it ends. If not, nothing more is known about it.
    ends: bool,
}

impl Arrival {
    const ALL: [Arrival; 4] = [
        Arrival { byte_by_byte: false, ends: true },
        Arrival { byte_by_byte: false, ends: false },
        Arrival { byte_by_byte: true, ends: true },
        Arrival { byte_by_byte: true, ends: false },
    ];

    /// Reads a stream as far as it goes.
    fn read(self, layout: Layout, bytes: &[u8]) -> Result<(), ReadError> {
        let mut steps = match self.byte_by_byte {
            true => vec![Step::Give(1); bytes.len()],
            false => vec![Step::Give(bytes.len())],
        };
        steps.extend((!self.ends).then_some(Step::Fail(io::ErrorKind::ConnectionReset)));
        read(layout, Pieces::new(bytes, steps, Tail::End))
    }
}

fn read(layout: Layout, pieces: Pieces<'_>) -> Result<(), ReadError> {
    let mut reader = FrameReader::with_layout(pieces, layout);
    while block_on(reader.read())?.is_some() {}
    Ok(())
}

fn reads_all(layout: Layout, bytes: &[u8]) -> bool {
    read(layout, Pieces::new(bytes, [], Tail::End)).is_ok()
}

#[derive(Default, Debug, PartialEq)]
struct Tally {
    failed: usize,
    could_be_named: usize,
    named: usize,
}

/// Reads every stream in every layout, and returns what was said and all that is misleading.
fn diagnose(cases: &[Case], arrival: Arrival) -> (Tally, Vec<String>) {
    let (mut tally, mut misled) = (Tally::default(), Vec::new());
    for case in cases {
        for &layout in &case.read_as {
            let Err(error) = arrival.read(layout, &case.bytes) else { continue };
            let suspect = error.suspect();
            // What is not known to be wrong when the connection breaks need not be named.
            if suspect.is_none() && matches!(error, ReadError::Io { .. }) {
                continue;
            }
            tally.failed += 1;
            tally.could_be_named += usize::from(!case.names.is_empty());
            let said = suspect.map_or("nothing".into(), Suspect::to_string);
            let at = format!("{} as {layout}: {said}", case.what);
            match suspect {
                Some(suspect) if is_right(suspect, case) => tally.named += 1,
                Some(_) => misled.push(at),
                None if case.names.is_empty() => {}
                None => println!("not named: {at}"),
            }
        }
    }
    (tally, misled)
}

/// Returns whether what is said is true, and a layout that is offered reads the stream.
fn is_right(suspect: &Suspect, case: &Case) -> bool {
    let said = suspect.to_string();
    let layout = match suspect {
        // A hello is for a server to read.
        Suspect::Hello { .. } => return case.names.iter().any(|name| said.contains(name)),
        Suspect::PossibleLayout { layout, .. } => Some(*layout),
        _ => suspect.layout(),
    };
    let Some(layout) = layout else { return case.names.iter().any(|name| said.contains(name)) };
    let is_one = |name: &String| name.parse::<Layout>().is_ok_and(|right| right == layout);
    case.names.iter().any(is_one) && reads_all(layout, &case.bytes)
}

#[test]
fn the_layouts_of_the_openings_read_them() {
    for case in other_cases().into_iter().chain(unseen_cases()) {
        let is_preset = |name: &str| PRESETS.iter().any(|preset| preset.name == name);
        for layout in case.names.iter().filter(|name| !is_preset(name)) {
            let Ok(layout) = layout.parse() else { continue };
            assert!(reads_all(layout, &case.bytes), "{} as {layout}", case.what);
        }
    }
}

#[test]
fn what_other_programs_send_is_named_and_nothing_misleading_is_said() {
    for (cases, least) in [(known_cases(), 99), (other_cases(), 97), (unseen_cases(), 97)] {
        for arrival in Arrival::ALL {
            let (tally, misled) = diagnose(&cases, arrival);
            println!("{arrival:?}: {tally:?}");
            assert_eq!(misled, [""; 0], "{arrival:?}");
            assert!(tally.named * 100 >= tally.could_be_named * least, "{arrival:?}: {tally:?}");
        }
    }
}

#[test]
fn a_protocol_is_named_only_where_its_messages_show_it() {
    let pcep = Case::new("two keep-alives of PCEP", b"\x20\x02\0\x04\x20\x02\0\x04".into(), &[]);
    let cases: Vec<Case> = other_cases().into_iter().chain(unseen_cases()).chain([pcep]).collect();
    for (what, preset) in [
        ("two keep-alives of PCEP", None),
        ("an empty message last, in eight bytes", None),
        ("MySQL server that refuses a host", Some("mysql")),
        ("Cassandra server, an empty message first", Some("cassandra")),
        ("Modbus client that asks for a name", Some("modbus")),
        ("RPKI router", Some("rpki")),
        ("S7 client", Some("s7")),
        ("S7 answer", Some("s7")),
        ("DICOM", Some("dicom")),
        ("Modbus client", Some("modbus")),
        ("PostgreSQL server", Some("postgres")),
        ("MySQL result", Some("mysql")),
        ("MongoDB client", Some("mongodb")),
        ("a document of BSON", None),
        ("Kafka client", Some("kafka")),
        ("ZooKeeper client", None),
        ("SECS host", None),
        ("DNS client", Some("dns")),
        ("ISO 8583 with a TPDU", None),
        ("SMPP client", Some("smpp")),
        ("AMQP 1.0 frame", Some("amqp1")),
        ("SNMP over TCP", None),
        ("LDAP client", Some("ldap")),
        ("RADIUS client over TCP", Some("radius")),
        ("OpenFlow switch", Some("openflow")),
        ("SQL Server client", Some("tds")),
        ("a version, a type, 32 bits", None),
        ("a type, then 16 bits", None),
        ("gRPC", None),
        ("a C program", None),
    ] {
        let case = cases.iter().find(|case| case.what == what).unwrap();
        let best = judge(&case.bytes, true).into_iter().next().expect(what);
        assert_eq!(best.preset.map(|preset| preset.name), preset, "{what}");
    }
}

#[test]
fn a_packet_capture_is_named_with_a_way_to_a_stream() {
    let mut captures = Vec::new();
    for magic in [0xa1b2_c3d4_u32, 0xa1b2_3c4d] {
        let header = |version: [[u8; 2]; 2], magic: [u8; 4]| {
            let rest: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0];
            [&magic, &version.concat()[..], rest].concat()
        };
        captures.push(header([[0, 2], [0, 4]], magic.to_be_bytes()));
        captures.push(header([[2, 0], [4, 0]], magic.to_le_bytes()));
    }
    // pcapng: the length of the section's header, and then the byte order.
    captures.push(
        b"\n\r\r\n\x1c\0\0\0\x4d\x3c\x2b\x1a\x01\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\x1c\0\0\0"
            .to_vec(),
    );
    captures.push(
        b"\n\r\r\n\0\0\0\x1c\x1a\x2b\x3c\x4d\0\x01\0\0\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\x1c"
            .to_vec(),
    );
    for capture in captures {
        let words = ["a packet capture", "tshark -r FILE -qz follow,tcp,raw,0"];
        check(&framelet(&["detect"], &capture), 3, &words);
        check(&framelet(&["decode"], &capture), 3, &words);
    }
}

/// Numbers are lengths of those that follow by chance, and four digits are a length in git.
#[test]
fn columns_of_numbers_and_digits_are_text() {
    let column: String = (1..=10).map(|number| format!("{number}\n")).collect();
    let digits = "00000000000000056865\n";
    for text in [&column, "42 42 42\n", "21.5\n21.6\n21.7\n", digits, "0005686\n"] {
        check(&framelet(&["detect"], text.as_bytes()), 3, &["this looks like text"]);
    }
}

#[test]
fn random_bytes_are_rarely_taken_for_anything() {
    let mut random = fastrand::Rng::with_seed(7);
    let (mut named, mut judged) = (0, 0);
    for _ in 0..1000 {
        let bytes: Vec<u8> = (0..random.usize(8..300)).map(|_| random.u8(..)).collect();
        judged += usize::from(!judge(&bytes, true).is_empty());
        if let Err(ReadError::Protocol(error)) =
            read(Layout::U32BE, Pieces::new(&bytes, [], Tail::End))
        {
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
                assert!(reads_all(candidate.name().parse().unwrap(), &stream));
            }
        }
    }
}

/// Many wrong layouts fall into step with the messages after a few of them, and then read the rest.
#[test]
fn a_weak_reading_from_the_first_byte_gives_way_to_a_certain_one_from_a_later_one() {
    for (layout, greeting, messages) in
        ["u16be", "u16le", "u32be", "u32le"].iter().flat_map(|&layout| {
            let greetings =
                [&b"HELLO v1\n"[..], b"220 welcome to foo\r\n", b"MAGIC\0\x01", b"\x89FOO\r\n"];
            greetings
                .into_iter()
                .flat_map(move |greeting| [25, 200].map(|messages| (layout, greeting, messages)))
        })
    {
        let mut stream = greeting.to_vec();
        for i in 0..messages {
            let payload = format!(r#"{{"id":{},"v":{}}}"#, i * 7919 % 99_991, i * 37 % 1000);
            append_frame(&mut stream, layout.parse().unwrap(), MAX_PAYLOAD, payload.as_bytes())
                .unwrap();
        }
        let found = detect(&stream);
        let best = found.candidates.first().map(|best| best.name());
        assert_eq!(
            (found.skip, best.as_deref()),
            (greeting.len(), Some(layout)),
            "{greeting:?}, {messages}"
        );
    }
}

/// The messages of a protocol inside another one: what is captured is the outer message.
#[test]
fn one_message_is_not_opened_because_there_are_others_inside() {
    for inner in ["u8", "u16be", "u32be", "u32le"] {
        let mut payload = Vec::new();
        for text in
            ["first of them", "second", "the third", "fourth and last but", "fifth"].repeat(6)
        {
            append_frame(&mut payload, inner.parse().unwrap(), MAX_PAYLOAD, text.as_bytes())
                .unwrap();
        }
        let mut stream = Vec::new();
        append_frame(&mut stream, Layout::U32BE, MAX_PAYLOAD, &payload).unwrap();
        let found = detect(&stream);
        let best = found.candidates.first().map(|best| (best.name(), best.messages));
        assert_eq!((found.skip, best), (0, Some(("u32be".into(), 1))), "{inner}");
    }
}
