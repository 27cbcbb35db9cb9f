//! The hello and its answers: the only frames that framelet itself invents.
//!
//! A client that wants to know what has become of its messages says so with its very first bytes. A
//! server never volunteers an answer: a plain client does not read, and closing a connection whose
//! peer has not read everything resets it, which destroys what is still under way.
//!
//! ```text
//!   hello, in a layout whose field has 4 or 8 bytes (here u32be):
//!
//!  ┌─────────────┬─────────────┬─────────┬────────────┬─────────────────────┐
//!  │ ff ff ff ff │ 00 00 00 19 │ 01      │ 16 bytes   │ 8 bytes, big-endian │
//!  └─────────────┴─────────────┴─────────┴────────────┴─────────────────────┘
//!   all ones: no  the layout's  version   sender's id  number of the first
//!   length at all prefix of 25                         message it can send
//!
//!   acknowledgement, the payload of an ordinary frame:
//!
//!  ┌─────────────────────┐
//!  │ 8 bytes, big-endian │   how many messages of this sender are committed, all in all
//!  └─────────────────────┘
//!
//!   refusal, the payload of an ordinary frame; behind it the server closes:
//!
//!  ┌─────────────────────┬──────┬───────────┐
//!  │ 8 bytes, big-endian │ code │ text      │
//!  └─────────────────────┴──────┴───────────┘
//!   as above              1 byte  UTF-8
//!
//!   sign of life: an empty frame. What the client waits for takes its time
//!
//!   welcome, the answer to a hello of version 2, where the server knows the checksum:
//!
//!  ┌─────────────────────┬──────┬─────────────────────┐
//!  │ 8 bytes, big-endian │ 00   │ 8 bytes, big-endian │
//!  └─────────────────────┴──────┴─────────────────────┘
//!   as above              1 byte  checksum of the last message that is committed
//! ```
//!
//! A client that waits hears something every few seconds: before the welcome a sign of life, later perhaps
//! the last acknowledgement again.
//!
//! The first acknowledgement is the *welcome*: the first frame behind the hello is the message whose
//! number is one more. So a client waits for the welcome before it sends anything else. The number in
//! the hello is a check where the server knows the sender: if it is more than one above what is
//! committed, the server has lost, or never had, messages that the client cannot send again, and refuses
//! with [`RefusalCode::Gap`]. Where the server knows nothing of the sender, since it was started anew and
//! its sink does not say, it takes the number for the welcome.
//!
//! A client that goes on in an input of which an earlier one has sent the beginning can find out whether it
//! is the same input: its hello has the version 2, and else the same bytes. Then the welcome comes with the
//! checksum of the last committed message's payload, or without, where there is none or the server does not
//! know it. The checksum is 64-bit FNV-1a of the payload's length, in 8 bytes, little-endian, and of its last
//! 1,024 bytes, or all if there are fewer.
//!
//! This module is pure: no I/O.

use std::fmt;

use crate::wire::count::Count;
use crate::wire::frame::append_frame;
use crate::wire::layout::{Decoded, Layout};
use crate::wire::sender_id::SenderId;

/// The version of a hello, and of one that asks for the checksum of the last committed message.
const VERSION: u8 = 1;
const RESUMING: u8 = 2;

/// The most messages that anybody can have sent: one a nanosecond for 146 years. A number above it is
/// no number of a message, and up to it sums of numbers and counts do not overflow.
pub(crate) const MOST_MESSAGES: u64 = u64::MAX / 4;

/// The length of a hello's body, in bytes: version, sender, number.
const BODY: usize = 1 + 16 + 8;

/// How many bytes of a payload its checksum looks at. A judgement: each large message is a batch of its own and
/// so has a checksum, and to look at 1 MiB would cost as much as to receive it.
const CHECKED: usize = 1024;

/// The longest text of a refusal, in bytes. Much longer than any sentence.
const LONGEST_TEXT: usize = 1024;

/// The longest payload of an answer, in bytes.
pub(crate) const LONGEST_ANSWER: usize = 8 + 1 + LONGEST_TEXT;

/// The first bytes of a client that wants acknowledgements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Who it is.
    pub sender: SenderId,
    /// The number of the first message that it can send; a sender's very first message is 1. A server
    /// refuses numbers over 2⁶² − 1, which nobody gets to.
    pub first: u64,
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FirstBytes {
    /// Plain frames, or nothing that is known here: what these bytes are is for the layout to say.
    Plain,
    /// Not enough bytes to tell.
    Incomplete {
        /// How many bytes, counted from the start of the connection, are needed to go on.
        need: usize,
    },
    /// A hello.
    Hello {
        /// What it says.
        hello: Hello,
        /// Whether it asks for the checksum of the last committed message.
        resuming: bool,
        /// How many bytes it takes; behind them the frames begin.
        len: usize,
    },
    /// A hello of another version.
    Unsupported {
        /// The version it names.
        version: u8,
    },
    /// It begins as a hello does, but its length is that of none.
    Malformed,
}

/// A layout in which no hello can be told from a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsupportedLayout {
    /// The layout.
    pub layout: Layout,
}

/// What a server says to a client that has said hello: the payload of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// So many messages of this sender are committed, all in all.
    Acknowledgement(u64),
    /// The first acknowledgement, for a client that asked for the checksum.
    Welcome {
        /// So many messages of this sender are committed, all in all.
        committed: u64,
        /// The checksum of the last one's payload.
        checksum: u64,
    },
    /// The server goes no further.
    Refusal(Refusal),
    /// Nothing new, but the server is at work on it.
    Heartbeat,
}

/// Why a server goes no further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// How many messages of this sender are committed, all in all; 0 where that is not known.
    pub committed: u64,
    /// Why, for the program.
    pub code: RefusalCode,
    /// Why, for people: one line. May be empty. What comes from the wire may hold anything; the text
    /// form of a [`Refusal`] has it escaped.
    pub text: String,
}

/// Why a server goes no further, for the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalCode {
    /// 1: it does not know this version of the hello.
    Version,
    /// 2: it sends each message back, and does not acknowledge.
    Echo,
    /// 3: a newer connection of this sender has taken over.
    Fenced,
    /// 4: there are messages between the committed ones and the first that the client can send.
    Gap,
    /// 5: it is shutting down; another one may soon take its place.
    Shutdown,
    /// 6: its sink failed; what is behind the committed messages is not safe.
    Sink,
    /// 7: it drops what it receives, so there is nothing to acknowledge.
    NoSink,
    /// 8: the message behind the committed ones is longer than it takes.
    TooLong,
    /// 9: the message behind the committed ones did not come in the time that it takes.
    Late,
    /// One that is not known here.
    Other(u8),
}

/// A payload that is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidAnswer {
    /// Its length in bytes; an answer has at least 8, or none.
    pub length: usize,
}

/// Returns the checksum of a payload, which tells messages apart that were mixed up, not those of an attacker.
pub(crate) fn checksum(payload: &[u8]) -> u64 {
    let end = &payload[payload.len().saturating_sub(CHECKED)..];
    let length = (payload.len() as u64).to_le_bytes();
    let add = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    length.iter().chain(end).fold(0xcbf2_9ce4_8422_2325, add)
}

/// Returns the width of the layout's field if there can be a hello in it: one so wide that all ones are
/// no length of any message.
fn hello_width(layout: Layout) -> Option<usize> {
    layout.width().filter(|width| matches!(width, 4 | 8))
}

impl Hello {
    /// Returns whether there can be a hello in this layout: its field has 4 or 8 bytes.
    pub fn fits(layout: Layout) -> bool {
        hello_width(layout).is_some()
    }

    /// Encodes it as the first bytes of a connection.
    ///
    /// # Errors
    ///
    /// [`UnsupportedLayout`] if there can be no hello in this layout.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::wire::{FirstBytes, Hello, SenderId};
    /// use framelet::Layout;
    ///
    /// let hello = Hello { sender: SenderId::from_bytes([7; 16]), first: 1 };
    /// let bytes = hello.encode(Layout::U32BE)?;
    /// assert_eq!(bytes[..9], [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 25, 1]);
    /// let opening = FirstBytes::Hello { hello, resuming: false, len: 33 };
    /// assert_eq!(Hello::decode(Layout::U32BE, &bytes), opening);
    /// # Ok::<(), framelet::wire::UnsupportedLayout>(())
    /// ```
    pub fn encode(&self, layout: Layout) -> Result<Vec<u8>, UnsupportedLayout> {
        self.encode_version(layout, VERSION)
    }

    /// The same with the question for the checksum of the last committed message
    /// ([`Answer::Welcome`]).
    ///
    /// # Errors
    ///
    /// [`UnsupportedLayout`] if there can be no hello in this layout.
    pub fn encode_resuming(&self, layout: Layout) -> Result<Vec<u8>, UnsupportedLayout> {
        self.encode_version(layout, RESUMING)
    }

    fn encode_version(&self, layout: Layout, version: u8) -> Result<Vec<u8>, UnsupportedLayout> {
        let unfit = UnsupportedLayout { layout };
        let width = hello_width(layout).ok_or(unfit)?;
        let length = layout.encode(BODY).map_err(|_| unfit)?;
        let mut bytes = vec![0xff; width];
        bytes.extend_from_slice(&length);
        bytes.push(version);
        bytes.extend_from_slice(self.sender.as_bytes());
        bytes.extend_from_slice(&self.first.to_be_bytes());
        Ok(bytes)
    }

    /// Makes out what the first bytes of a connection are. There may be more of them, or so few that
    /// it is not to be told yet.
    pub fn decode(layout: Layout, bytes: &[u8]) -> FirstBytes {
        let Some(width) = hello_width(layout) else { return FirstBytes::Plain };
        if bytes.iter().take(width).any(|&byte| byte != 0xff) {
            return FirstBytes::Plain;
        }
        let Some(length) = bytes.get(width..2 * width) else {
            return FirstBytes::Incomplete { need: 2 * width };
        };
        let Ok(Decoded::Prefix { payload: length, .. }) = layout.decode(length) else {
            return FirstBytes::Malformed;
        };
        if length == 0 {
            return FirstBytes::Malformed;
        }
        // The version comes before the length is judged: that of another version may be another one.
        let Some(&version) = bytes.get(2 * width) else {
            return FirstBytes::Incomplete { need: 2 * width + 1 };
        };
        if !matches!(version, VERSION | RESUMING) {
            return FirstBytes::Unsupported { version };
        }
        if length != BODY as u64 {
            return FirstBytes::Malformed;
        }
        let len = 2 * width + BODY;
        let body = bytes.get(2 * width + 1..len);
        let Some((&sender, first)) = body.and_then(|body| body.split_first_chunk()) else {
            return FirstBytes::Incomplete { need: len };
        };
        let Some((&first, _)) = first.split_first_chunk() else {
            return FirstBytes::Incomplete { need: len };
        };
        let sender = SenderId::from_bytes(sender);
        let hello = Hello { sender, first: u64::from_be_bytes(first) };
        FirstBytes::Hello { hello, resuming: version == RESUMING, len }
    }
}

impl Answer {
    /// Encodes it as the payload of a frame. A refusal's text is cut behind 1024 bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Answer::Acknowledgement(committed) => committed.to_be_bytes().to_vec(),
            Answer::Welcome { committed, checksum } => {
                let mut payload = committed.to_be_bytes().to_vec();
                payload.push(0);
                payload.extend_from_slice(&checksum.to_be_bytes());
                payload
            }
            Answer::Refusal(Refusal { committed, code, text }) => {
                let mut payload = committed.to_be_bytes().to_vec();
                payload.push(code.to_byte());
                payload.extend_from_slice(shortened(text).as_bytes());
                payload
            }
            Answer::Heartbeat => Vec::new(),
        }
    }

    /// Returns it as it travels.
    pub fn frame(&self, layout: Layout) -> Vec<u8> {
        let mut frame = Vec::new();
        // Cannot fail: there is no hello in a layout in which an answer would be too long.
        let _ = append_frame(&mut frame, layout, LONGEST_ANSWER, &self.encode());
        frame
    }

    /// Decodes the payload of a frame.
    ///
    /// # Errors
    ///
    /// [`InvalidAnswer`] if it is so short that it is none.
    pub fn decode(payload: &[u8]) -> Result<Answer, InvalidAnswer> {
        if payload.is_empty() {
            return Ok(Answer::Heartbeat);
        }
        let Some((&committed, rest)) = payload.split_first_chunk() else {
            return Err(InvalidAnswer { length: payload.len() });
        };
        let committed = u64::from_be_bytes(committed);
        Ok(match *rest {
            [] => Answer::Acknowledgement(committed),
            // No refusal has this code.
            [0, a, b, c, d, e, f, g, h] => {
                let checksum = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
                Answer::Welcome { committed, checksum }
            }
            [code, ref text @ ..] => Answer::Refusal(Refusal {
                committed,
                code: RefusalCode::from_byte(code),
                text: String::from_utf8_lossy(text).into_owned(),
            }),
        })
    }
}

/// Cuts a text behind [`LONGEST_TEXT`] bytes, between two characters.
fn shortened(text: &str) -> &str {
    let ends = (0..=text.len().min(LONGEST_TEXT)).rev();
    &text[..ends.into_iter().find(|&end| text.is_char_boundary(end)).unwrap_or(0)]
}

impl RefusalCode {
    /// Returns the byte that stands for it on the wire.
    pub fn to_byte(self) -> u8 {
        match self {
            RefusalCode::Version => 1,
            RefusalCode::Echo => 2,
            RefusalCode::Fenced => 3,
            RefusalCode::Gap => 4,
            RefusalCode::Shutdown => 5,
            RefusalCode::Sink => 6,
            RefusalCode::NoSink => 7,
            RefusalCode::TooLong => 8,
            RefusalCode::Late => 9,
            RefusalCode::Other(byte) => byte,
        }
    }

    /// Returns the code that a byte on the wire stands for.
    pub fn from_byte(byte: u8) -> RefusalCode {
        match byte {
            1 => RefusalCode::Version,
            2 => RefusalCode::Echo,
            3 => RefusalCode::Fenced,
            4 => RefusalCode::Gap,
            5 => RefusalCode::Shutdown,
            6 => RefusalCode::Sink,
            7 => RefusalCode::NoSink,
            8 => RefusalCode::TooLong,
            9 => RefusalCode::Late,
            other => RefusalCode::Other(other),
        }
    }

    /// Returns whether the same client may be welcome a little later.
    pub fn is_passing(self) -> bool {
        matches!(self, RefusalCode::Shutdown | RefusalCode::Sink)
    }
}

impl fmt::Display for RefusalCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RefusalCode::Version => f.write_str("it does not know this version of the protocol"),
            RefusalCode::Echo => f.write_str("a server that replies gives no acknowledgements"),
            RefusalCode::Fenced => f.write_str("a newer connection of this sender has taken over"),
            RefusalCode::Gap => f.write_str("an earlier message of this sender was expected"),
            RefusalCode::Shutdown => f.write_str("it is shutting down"),
            RefusalCode::Sink => f.write_str("its sink failed"),
            RefusalCode::NoSink => {
                f.write_str("it drops what it receives, so there is nothing to acknowledge")
            }
            RefusalCode::TooLong => f.write_str("a message is longer than it takes"),
            RefusalCode::Late => f.write_str("a message took longer to come than it takes"),
            RefusalCode::Other(byte) => write!(f, "code {byte}"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text.is_empty() {
            true => self.code.fmt(f),
            false => crate::wire::escape::Escaped(self.text.as_bytes()).fmt(f),
        }
    }
}

impl fmt::Display for UnsupportedLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "there are no acknowledgements in {}; use a layout of 4 or 8 bytes, as u32be",
            self.layout
        )
    }
}

impl std::error::Error for UnsupportedLayout {}

impl fmt::Display for InvalidAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = Count(self.length as u64, "byte");
        write!(f, "a message of {length} is no acknowledgement, which has 8")
    }
}

impl std::error::Error for InvalidAnswer {}

#[cfg(test)]
mod tests {
    use super::*;

    fn random_hello(random: &mut fastrand::Rng) -> Hello {
        let sender = SenderId::from_bytes(std::array::from_fn(|_| random.u8(..)));
        Hello { sender, first: random.u64(..) }
    }

    #[test]
    fn a_hello_survives_the_wire_and_every_truncation_of_it_is_incomplete() {
        let mut random = fastrand::Rng::with_seed(1);
        let fit: Vec<Layout> = Layout::all().filter(|layout| Hello::fits(*layout)).collect();
        let names: Vec<String> = fit.iter().map(Layout::to_string).collect();
        assert_eq!(
            names.join(" "),
            "u32be u32le u64be u64le u32be+self u32le+self u64be+self u64le+self"
        );
        for (layout, _) in fit.into_iter().flat_map(|layout| (0..200).map(move |n| (layout, n))) {
            let hello = random_hello(&mut random);
            let mut bytes = hello.encode(layout).unwrap();
            let len = bytes.len();
            for end in 0..len {
                match Hello::decode(layout, &bytes[..end]) {
                    FirstBytes::Incomplete { need } => assert!(need > end && need <= len),
                    other => panic!("{layout}, {end} of {len} bytes: {other:?}"),
                }
            }
            bytes.extend_from_slice(b"and what follows");
            assert_eq!(
                Hello::decode(layout, &bytes),
                FirstBytes::Hello { hello, resuming: false, len }
            );
            // With the question for a checksum, nothing but the version is another one.
            let resuming = hello.encode_resuming(layout).unwrap();
            let version = 2 * layout.width().unwrap();
            assert_eq!((bytes[version], resuming[version]), (1, 2));
            bytes[version] = 2;
            assert_eq!(resuming, bytes[..len]);
            assert_eq!(
                Hello::decode(layout, &bytes),
                FirstBytes::Hello { hello, resuming: true, len }
            );
        }
    }

    #[test]
    fn no_frame_is_taken_for_a_hello() {
        for layout in Layout::all() {
            for payload in [0, 1, 255, 65_535, layout.max_payload()] {
                let Ok(prefix) = layout.encode(payload) else { continue };
                for end in layout.width().unwrap_or(1)..=prefix.len() {
                    assert_eq!(
                        Hello::decode(layout, &prefix[..end]),
                        FirstBytes::Plain,
                        "{layout}"
                    );
                }
            }
            if !Hello::fits(layout) {
                let hello = Hello { sender: SenderId::from_bytes([0; 16]), first: 1 };
                let error = hello.encode(layout).unwrap_err().to_string();
                assert!(error.contains("4 or 8 bytes"), "{error}");
                assert_eq!(Hello::decode(layout, &[0xff; 64]), FirstBytes::Plain);
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic_or_ask_for_ever() {
        let mut random = fastrand::Rng::with_seed(2);
        for layout in Layout::all() {
            for _ in 0..2000 {
                let mut bytes = vec![0xff; layout.width().unwrap_or(0)];
                bytes.extend((0..64).map(|_| random.u8(..)));
                if random.bool() {
                    // A length that could be one, and any version.
                    let body = random.usize(0..40).min(layout.max_payload());
                    let width = layout.width().unwrap_or(0);
                    let prefix = layout.encode(body).unwrap();
                    bytes[width..width + prefix.len()].copy_from_slice(&prefix);
                }
                let opening = Hello::decode(layout, &bytes);
                assert!(
                    !matches!(opening, FirstBytes::Incomplete { .. }),
                    "{layout}: {bytes:02x?}"
                );
                let _ = Answer::decode(&bytes[..random.usize(..bytes.len())]);
            }
        }
    }

    #[test]
    fn another_version_is_told_from_a_malformed_hello() {
        let hello = Hello { sender: SenderId::from_bytes([0; 16]), first: 1 };
        let mut bytes = hello.encode(Layout::U32BE).unwrap();
        bytes[8] = 3;
        bytes[7] = 90;
        assert_eq!(Hello::decode(Layout::U32BE, &bytes), FirstBytes::Unsupported { version: 3 });
        for version in [1, 2] {
            bytes[8] = version;
            assert_eq!(Hello::decode(Layout::U32BE, &bytes), FirstBytes::Malformed);
        }
        bytes[7] = 0;
        assert_eq!(Hello::decode(Layout::U32BE, &bytes), FirstBytes::Malformed);
    }

    #[test]
    fn a_checksum_tells_payloads_apart_and_does_not_change_between_versions() {
        for (payload, expected) in [
            (&b""[..], 0xa8c7_f832_281a_39c5),
            (b"21.5", 0x2b74_19f9_3545_2f45),
            (b"message 1", 0xbfa0_7b77_0655_2bc0),
        ] {
            assert_eq!(checksum(payload), expected, "{payload:?}");
        }
        // Only the end of a long one costs time.
        let long = vec![b'x'; 5000];
        for (index, is_other) in [(0, false), (3975, false), (3976, true), (4999, true)] {
            let mut other = long.clone();
            other[index] = b'y';
            assert_eq!(checksum(&other) != checksum(&long), is_other, "byte {index}");
        }
        assert_ne!(checksum(&long[1..]), checksum(&long));
        let mut random = fastrand::Rng::with_seed(3);
        for len in 0..40 {
            let payload: Vec<u8> = (0..len).map(|_| random.u8(..)).collect();
            let sum = checksum(&payload);
            assert_ne!(checksum(&[&payload[..], &[0]].concat()), sum, "{len} and a zero");
            for bit in 0..8 * len {
                let mut other = payload.clone();
                other[bit / 8] ^= 1 << (bit % 8);
                assert_ne!(checksum(&other), sum, "bit {bit} of {len} bytes");
            }
        }
    }

    #[test]
    fn answers_survive_the_wire() {
        for byte in 0..=u8::MAX {
            let code = RefusalCode::from_byte(byte);
            assert_eq!(code.to_byte(), byte);
            // One of them as long as a checksum.
            for text in ["", "fenced: ", "message 7 was expected"] {
                if byte == 0 && text.len() == 8 {
                    continue;
                }
                let refusal = Refusal { committed: 6, code, text: text.into() };
                let answer = Answer::Refusal(refusal);
                assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
            }
        }
        let answer = Answer::Acknowledgement(u64::MAX - 1);
        assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
        let welcome = Answer::Welcome { committed: 6, checksum: u64::MAX - 1 };
        assert_eq!(welcome.encode(), b"\0\0\0\0\0\0\0\x06\0\xff\xff\xff\xff\xff\xff\xff\xfe");
        assert_eq!(Answer::decode(&welcome.encode()), Ok(welcome));
        assert_eq!(Answer::decode(&Answer::Heartbeat.encode()), Ok(Answer::Heartbeat));
        for length in 1..8 {
            assert_eq!(Answer::decode(&[1; 8][..length]), Err(InvalidAnswer { length }));
        }
        let refusal = Refusal { committed: 0, code: RefusalCode::Gap, text: "é".repeat(600) };
        let payload = Answer::Refusal(refusal).encode();
        assert_eq!(payload.len(), LONGEST_ANSWER);
        assert!(str::from_utf8(&payload[9..]).is_ok());
    }
}
