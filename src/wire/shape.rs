//! Which protocol the frames of a stream show, beyond their layout.
//!
//! Many protocols share a layout, and programs of one's own have the same ones, too. So a protocol is only named if its
//! frames have what the protocol's specification says of them: a command that exists, a version, a field that is zero.

use crate::wire::layout::{Layout, PRESETS, Preset};

/// What the whole frames at the start of a stream show.
pub(crate) enum Shape {
    /// This protocol.
    Preset(&'static Preset),
    /// Nothing more than the layout.
    Open,
    /// Not the protocol, although no other one is known to have this layout.
    Doubtful,
}

/// The name of a protocol and what is true of a frame of it.
type Told = (&'static str, fn(&[u8]) -> bool);

/// The name of a protocol and what is true of all frames of it.
type ToldByAll = (&'static str, fn(&[&[u8]]) -> bool);

/// The protocols that each frame shows, given whole. The specifications are those of [`PRESETS`].
const BY_EACH: &[Told] = &[
    ("adb", |frame| frame[4..].starts_with(b"host")),
    // The command, and the flags of a request or a response.
    ("ads", |frame| matches!(frame.get(22..26), Some([1..=9, 0, 4 | 5, 0]))),
    ("amqp", |frame| matches!(frame[0], 1..=3 | 8)),
    // The data offset, the type, and then a described type.
    ("amqp1", |frame| matches!(frame, [_, _, _, _, 2, 0 | 1, _, _, 0, 0x53, ..])),
    ("bgp", |frame| matches!(frame.get(18), Some(1..=5))),
    ("bitcoin", is_bitcoin),
    ("bmp", |frame| matches!(frame.get(5), Some(0..=6))),
    ("cassandra", |frame| matches!(frame, [3..=5 | 0x83..=0x85, 0..=0x1f, _, _, 0..=0x10, ..])),
    ("diameter", |frame| {
        // Flags, of which four are reserved, and a command of the base protocol.
        matches!(frame, [_, _, _, _, flags, 0, 1, _, ..] if flags & 0x0f == 0) && frame.len() >= 20
    }),
    ("dns", |frame| {
        // A query or a response with one question, and room for it.
        matches!(frame, [_, _, _, _, flags, _, 0, 1, 0, _, 0, _, 0, _, ..] if flags & 0x78 == 0)
            && frame.len() >= 19
    }),
    // The standard input is 0, but is not sent.
    ("docker", |frame| matches!(frame, [1 | 2, 0, 0, 0, ..])),
    ("doip", |frame| matches!(frame[0], 1..=4 | 0xff) && frame[1] == !frame[0]),
    (
        "drda",
        |frame| matches!(frame, [_, _, 0xd0, format, ..] if (1..=5).contains(&(format & 0x0f))),
    ),
    ("enip", |frame| matches!(frame[..2], [4 | 0x63..=0x66 | 0x6f | 0x70, 0])),
    ("gearman", |frame| matches!(frame, [0, b'R', b'E', b'Q' | b'S', 0, 0, 0, 1..=42, ..])),
    ("iec104", is_iec104),
    // The first set is one of templates, or has the number of a template.
    ("ipfix", |frame| matches!(frame.get(16..18), Some([0, 2 | 3] | [1..=0xff, _]))),
    ("iso8583", |frame| is_iso8583(&frame[2..])),
    ("iso8583-ascii", |frame| is_iso8583(&frame[4..])),
    ("kafka", is_kafka),
    ("kerberos", |frame| matches!(frame[4..], [0x6a..=0x6e | 0x7e, ..]) && is_ber(&frame[4..])),
    ("ldap", is_ldap),
    ("memcached", |frame| {
        let [0x80 | 0x81, 0..=0x40, key @ .., _, _] = &frame[..6] else { return false };
        let body = frame.len() - 24;
        usize::from(key[0]) << 8 | usize::from(key[1]) <= body && frame[5] == 0
    }),
    ("modbus", is_modbus),
    ("mongodb", |frame| {
        matches!(frame.get(12..16), Some([1 | 0xd4..=0xd7 | 0xdb..=0xdd, _, 0, 0]))
            && matches!(frame[13], 0 | 7)
    }),
    ("netstring", |_| true),
    ("opcua", |frame| {
        let kinds = [b"HEL", b"ACK", b"ERR", b"RHE", b"OPN", b"MSG", b"CLO"];
        kinds.iter().any(|kind| frame.starts_with(*kind)) && matches!(frame[3], b'F' | b'C' | b'A')
    }),
    ("postgres", is_postgres),
    ("radius", is_radius),
    ("rcon", |frame| {
        matches!(frame.get(8..12), Some([0 | 2 | 3, 0, 0, 0])) && frame.ends_with(b"\0\0")
    }),
    ("resp", |_| true),
    ("rpki", |frame| {
        // The version, and the type, most of which have one length.
        match (frame, frame.len()) {
            ([0..=2, 0 | 1, ..], len) => len == 12,
            ([0..=2, 2 | 3 | 8, ..], len) => len == 8,
            ([0..=2, 4, ..], len) => len == 20,
            ([0..=2, 6, ..], len) => len == 32,
            ([0..=2, 7, ..], len) => matches!(len, 12 | 24),
            ([0..=2, 9..=11, ..], len) => len >= 16,
            _ => false,
        }
    }),
    ("s7", |frame| {
        // A connection request between two TSAPs, or data with the id of S7.
        let has = |tsap: [u8; 2]| frame.windows(2).any(|two| two == tsap);
        let is_request = || frame[5] == 0xe0 && has([0xc1, 2]) && has([0xc2, 2]);
        frame.len() > 7 && (matches!(frame, [_, _, _, _, 2, 0xf0, 0x80, 0x32, ..]) || is_request())
    }),
    ("smb", |frame| matches!(frame, [_, _, _, _, 0xfc..=0xff, b'S', b'M', b'B', ..])),
    ("smpp", |frame| {
        // A command, a status, and a sequence number.
        matches!(frame, [_, _, _, _, 0 | 0x80, 0, 0 | 1, 0..=0x21, 0, 0, _, _, _, _, _, _, ..])
    }),
    ("someip", |frame| {
        // The version of the protocol, and the type of the message.
        matches!(frame.get(12..16), Some([1, _, 0..=2 | 0x80 | 0x81, 0..=0x20]))
    }),
    ("syslog", |frame| {
        let text = frame.iter().position(|&byte| byte == b' ').map(|at| &frame[at + 1..]);
        matches!(text, Some([b'<', b'0'..=b'9', ..]))
    }),
    ("thrift", |frame| matches!(frame[4..], [0x80, 1, 0, 1..=4, ..])),
    ("tls", |frame| matches!(frame, [0x14..=0x17, 3, 0..=4, ..])),
    ("tns", |frame| matches!(frame, [_, _, 0, 0, 1..=19, _, 0, 0, ..])),
    ("tpkt", |frame| {
        // The length of the header, and its type: a request, a confirmation, the end, or data.
        matches!(frame, [_, _, _, _, length, 0xe0 | 0xd0 | 0x80 | 0xf0, ..]
            if usize::from(*length) + 5 <= frame.len())
    }),
    ("uwsgi", is_uwsgi),
    ("zabbix", |_| true),
];

/// Those that the first frame shows.
const BY_FIRST: &[Told] = &[
    ("9p", |frame| {
        matches!(frame, [_, _, _, _, 100 | 101, 0xff, 0xff, _, _, _, _, _, 0, b'9', b'P', ..])
    }),
    ("dicom", |frame| matches!(frame, [1 | 2, 0, _, _, _, _, 0, 1, 0, 0, ..]) && frame.len() > 70),
    ("libp2p", |frame| frame.ends_with(b"/multistream/1.0.0\n")),
    ("minecraft", is_minecraft),
    ("openflow", |frame| {
        // A hello, whose elements start with the bitmap of versions.
        matches!(frame, [1..=6, 0, 0, 8, _, _, _, _] | [1..=6, 0, _, _, _, _, _, _, 0, 1, 0, 8, ..])
    }),
    // An object OPEN in a message Open.
    ("pcep", |frame| matches!(frame, [0x20, 1, _, _, 1, 0x10..=0x13, _, _, 0x20, ..])),
    ("rdp", |frame| {
        // A connection request with a cookie, or with a request to negotiate.
        matches!(
            frame,
            [_, _, _, _, _, 0xe0, .., 0, 8, 0, _, 0, 0, 0]
                | [_, _, _, _, _, 0xe0, .., b'\r', b'\n']
        )
    }),
    // A frame SETUP of version 1.0, on stream 0.
    ("rsocket", |frame| matches!(frame, [_, _, _, 0, 0, 0, 0, 4..=7, _, 0, 1, 0, 0, ..])),
    ("soup", |frame| frame.len() == 49 && frame[2] == b'L'),
];

/// Those that the frames show together.
const BY_ALL: &[ToldByAll] = &[
    ("git", is_git),
    ("http2", |frames| {
        // Settings first, on stream 0.
        matches!(frames[0], [_, _, length, 4, 0 | 1, 0, 0, 0, 0, ..] if length % 6 == 0)
            && frames.iter().all(|frame| frame[3] <= 16)
    }),
    ("mqtt", |frames| {
        // A connection begins only once.
        frames.iter().all(|frame| is_mqtt(frame))
            && !frames[1..].iter().any(|frame| matches!(frame[0], 0x10 | 0x20))
    }),
    ("mysql", is_mysql),
    ("tds", |frames| {
        // The type, the status, and the window, which is not used.
        let is_one = |frame: &&[u8]| {
            matches!(
                frame,
                [1..=4 | 6 | 7 | 14 | 16..=18, 0 | 1 | 8 | 9, _, _, _, _, 0..=0xfe, 0, ..]
            )
        };
        frames.iter().all(is_one) && matches!(frames[0][0], 4 | 16..=18)
    }),
];

/// Layouts that no other protocol is known to have, and that fix too little to be likely without it.
const ONLY_OF_A_PROTOCOL: [&str; 14] = [
    "x00:u24be",
    "x0000:u32le",
    "x000a:u16be+all",
    "x01:u24be+all",
    "x03:u32be+all",
    "x30:ber",
    "x68:u8",
    "h1:u16le:h1",
    "h2:u16le:h20",
    "h3:u32be:data:xce",
    "h4:u32be+all",
    "h8:u32be:h12",
    "u24be:h6",
    "bcd4",
];

/// Returns what these frames, whole and in this layout, show. There is at least one.
pub(crate) fn shape(layout: Layout, frames: &[&[u8]]) -> Shape {
    let notation = layout.to_string();
    let shows = |Preset { name, .. }: &&Preset| {
        let is_each = |(of, is): &(&str, fn(&[u8]) -> bool)| {
            of == name && frames.iter().all(|frame| is(frame))
        };
        BY_EACH.iter().any(is_each)
            || BY_FIRST.iter().any(|(of, is)| of == name && is(frames[0]))
            || BY_ALL.iter().any(|(of, are)| of == name && are(frames))
    };
    match PRESETS.iter().filter(|preset| preset.notation == notation).find(shows) {
        Some(preset) => Shape::Preset(preset),
        // Other protocols have sequences of BER, too.
        None if notation == "x30:ber" && frames.iter().all(|frame| is_ber(frame)) => Shape::Open,
        None if ONLY_OF_A_PROTOCOL.contains(&notation.as_str()) => Shape::Doubtful,
        None => Shape::Open,
    }
}

/// The magic number of a network, and the name of a command.
pub(crate) fn is_bitcoin(start: &[u8]) -> bool {
    let (Some(magic), Some(command)) = (start.first_chunk(), start.get(4..16)) else {
        return false;
    };
    let networks = [[0xf9, 0xbe, 0xb4, 0xd9], [0x0b, 0x11, 9, 7], [0xfa, 0xbf, 0xb5, 0xda]];
    networks.contains(magic) && command[0].is_ascii_lowercase() && command[11] == 0
}

/// A control field of one of three kinds, each with bits that are fixed.
fn is_iec104(frame: &[u8]) -> bool {
    match frame {
        [_, 4, kind, 0, 0, 0] => matches!(kind, 7 | 0x0b | 0x13 | 0x23 | 0x43 | 0x83),
        [_, 4, 1, 0, received, _] => received & 1 == 0,
        [_, _, sent, _, received, _, _, ..] => sent & 1 == 0 && received & 1 == 0,
        _ => false,
    }
}

/// The type of the message, in digits: the version, the class, the function, the origin.
fn is_iso8583(payload: &[u8]) -> bool {
    matches!(payload, [b'0'..=b'2', b'1'..=b'8', b'0'..=b'4', b'0'..=b'5', ..])
        && payload.len() >= 12
}

/// A request: its kind, its version, a number, and the name of the client.
fn is_kafka(frame: &[u8]) -> bool {
    let Some([0, 0..=92, 0, 0..=20, _, _, _, _, 0, name @ 1..=255]) = frame.get(4..14) else {
        return false;
    };
    frame.get(14..14 + usize::from(*name)).is_some_and(|name| name.iter().all(u8::is_ascii_graphic))
}

/// Returns whether these bytes are one element of BER after another, to the end.
fn is_ber(bytes: &[u8]) -> bool {
    is_ber_within(bytes, DEPTH)
}

/// How deep elements may lie in others. No protocol comes near it, and a stream must not decide how deep this recurses.
const DEPTH: usize = 32;

fn is_ber_within(mut bytes: &[u8], depth: usize) -> bool {
    while let [tag, length, rest @ ..] = bytes {
        let more = if *length > 0x80 { usize::from(*length & 0x7f) } else { 0 };
        if more > 4 || more > rest.len() || *length == 0x80 || *tag == 0 {
            return false;
        }
        let (length_bytes, rest) = rest.split_at(more);
        let length = match more {
            0 => usize::from(*length),
            _ => length_bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)),
        };
        let Some((value, rest)) = rest.split_at_checked(length) else { return false };
        let is_constructed = tag & 0x20 != 0;
        if is_constructed && (depth == 0 || !is_ber_within(value, depth - 1)) {
            return false;
        }
        bytes = rest;
    }
    bytes.is_empty()
}

/// The number of a message, and an operation.
fn is_ldap(frame: &[u8]) -> bool {
    let content = match frame[1] {
        short @ ..=0x80 => &frame[frame.len().saturating_sub(usize::from(short))..],
        long => frame.get(2 + usize::from(long & 0x7f)..).unwrap_or_default(),
    };
    let [2, digits @ 1..=4, rest @ ..] = content else { return false };
    matches!(rest.get(usize::from(*digits)), Some(0x42 | 0x4a | 0x50 | 0x60..=0x79))
        && is_ber(frame)
}

/// A handshake: the version, the name of the server, its port, and the next state.
fn is_minecraft(frame: &[u8]) -> bool {
    let Some([0, version @ ..]) = frame.get(1..) else { return false };
    let digits = version.iter().take(5).take_while(|&&byte| byte >= 0x80).count() + 1;
    let Some((&length, rest)) = version.get(digits..).and_then(<[u8]>::split_first) else {
        return false;
    };
    rest.len() == usize::from(length) + 3 && length > 0 && matches!(rest.last(), Some(1..=3))
}

/// A function, with as many bytes as it has.
fn is_modbus(frame: &[u8]) -> bool {
    let [_, _, 0, 0, _, _, _, function, data @ ..] = frame else { return false };
    let counted =
        |at: usize| data.get(at).is_some_and(|&count| data.len() == at + 1 + usize::from(count));
    match function {
        1..=4 => data.len() == 4 || counted(0),
        5 | 6 => data.len() == 4,
        15 | 16 => data.len() == 4 || counted(4),
        0x81..=0xab => data.len() == 1,
        // The identification of a device.
        43 => matches!(data, [13 | 14, _, ..]),
        _ => false,
    }
}

/// A request, a version, a list of references, a pack, or a marker after one of them.
fn is_git(frames: &[&[u8]]) -> bool {
    const LINES: [&[u8]; 12] = [
        b"git-upload-pack ",
        b"git-receive-pack ",
        b"# service=git-",
        b"version ",
        b"command=",
        b"want ",
        b"have ",
        b"ACK ",
        b"NAK",
        b"ERR ",
        b"unpack ",
        b"done",
    ];
    let is_line = |line: &[u8]| {
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        LINES.iter().any(|start| line.starts_with(start))
            // The name of an object.
            || (matches!(digits, 40 | 64) && line.get(digits) == Some(&b' '))
            // The pack, progress, or an error.
            || matches!(line, [1..=3, _, ..])
    };
    let mut lines = frames.iter().map(|frame| &frame[4..]).filter(|line| !line.is_empty());
    lines.next().is_some_and(is_line)
}

/// A packet type with its flags, and what it has at least; a message has a topic.
fn is_mqtt(frame: &[u8]) -> bool {
    let length = frame[1..].iter().take_while(|&&byte| byte >= 0x80).count() + 1;
    let rest = &frame[(1 + length).min(frame.len())..];
    match frame[0] {
        0x10 => matches!(
            rest,
            [0, 4, b'M', b'Q', b'T', b'T', ..] | [0, 6, b'M', b'Q', b'I', b's', b'd', b'p', ..]
        ),
        0x20 => rest.len() >= 2 && rest[0] <= 1,
        0x30..=0x3d => {
            let [high, low, topic @ ..] = rest else { return false };
            let topic = topic.get(..usize::from(*high) << 8 | usize::from(*low));
            topic.is_some_and(|topic| {
                !topic.is_empty()
                    && std::str::from_utf8(topic).is_ok_and(|text| !text.contains(char::is_control))
            })
        }
        0x40 | 0x50 | 0x62 | 0x70 | 0xb0 | 0x82 | 0x90 | 0xa2 => rest.len() >= 2,
        0xc0 | 0xd0 | 0xe0 => rest.is_empty(),
        _ => false,
    }
}

/// A greeting, a login, or a query; or packets that are numbered.
fn is_mysql(frames: &[&[u8]]) -> bool {
    let numbered =
        frames.len() > 1 && frames.windows(2).all(|two| two[1][3] == two[0][3].wrapping_add(1));
    numbered
        || match frames[0] {
            [_, _, _, 0, 10, b'3'..=b'9' | b'1', b'.' | b'0'..=b'9', ..] => true,
            // An error has a number from 1000 on, and says what it is.
            [_, _, _, _, 0xff, _, 3..=0x1f, text @ ..] => {
                text.len() > 8 && text.iter().all(|byte| (b' '..=b'~').contains(byte))
            }
            [_, _, _, 0, 3, query @ ..] => {
                !query.is_empty() && query.iter().all(|&byte| byte >= b' ' || byte == b'\n')
            }
            // After the capabilities, the longest packet, and the character set, 23 bytes are zero.
            [_, _, _, 1, rest @ ..] => {
                rest.get(9..32).is_some_and(|zeros| zeros.iter().all(|&byte| byte == 0))
            }
            _ => false,
        }
}

/// A type of message, and an end that it has.
fn is_postgres(frame: &[u8]) -> bool {
    match (frame[0], &frame[5..]) {
        (b'R', [0, 0, 0, 0..=12, ..]) | (b'Z', [b'I' | b'T' | b'E']) => true,
        (b'K', payload) => payload.len() >= 8,
        (b'X' | b'H' | b'S' | b'n' | b's' | b'I' | b'1' | b'2' | b'3', []) => true,
        (b'Q' | b'p' | b'S' | b'E' | b'N' | b'C', payload) => payload.ends_with(b"\0"),
        (b'B' | b'D' | b'P' | b'd' | b'T' | b't', payload) => payload.len() >= 2,
        (b'A' | b'G' | b'W' | b'V' | b'v' | b'f' | b'c', _) => true,
        _ => false,
    }
}

/// A code, and attributes to the end.
fn is_radius(frame: &[u8]) -> bool {
    let (true, Some(mut attributes)) =
        (matches!(frame[0], 1..=5 | 11..=13 | 40..=45), frame.get(20..))
    else {
        return false;
    };
    while let [_, length @ 2..=0xff, ..] = attributes {
        match attributes.get(usize::from(*length)..) {
            Some(rest) => attributes = rest,
            None => return false,
        }
    }
    attributes.is_empty()
}

/// Names and values, each with its length, to the end.
fn is_uwsgi(frame: &[u8]) -> bool {
    let mut texts = &frame[4..];
    let mut count = 0;
    while let [low, high, rest @ ..] = texts {
        match rest.get((usize::from(*high) << 8 | usize::from(*low))..) {
            Some(rest) => texts = rest,
            None => return false,
        }
        count += 1;
    }
    texts.is_empty() && count > 0 && count % 2 == 0
}
