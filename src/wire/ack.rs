//! The hello and its answers: the only frames that framelet itself defines.
//!
//! A client that wants acknowledgements asks for them in its very first bytes. A server never answers
//! unasked: a plain client does not read, and closing a connection while received data is unread resets it,
//! which destroys data still in flight.
//!
//! ```text
//!   hello, in a layout whose field has 4 or 8 bytes (here u32be):
//!
//!  ┌─────────────┬─────────────┬─────────┬────────────┬─────────────────────┐
//!  │ ff ff ff ff │ 00 00 00 19 │ 01      │ 16 bytes   │ 8 bytes, big-endian │
//!  └─────────────┴─────────────┴─────────┴────────────┴─────────────────────┘
//!   all ones: not the layout's  version   sender's id  number of the oldest
//!   a length      prefix of 25                         message it still has
//!
//!   acknowledgement, the payload of an ordinary frame:
//!
//!  ┌─────────────────────┐
//!  │ 8 bytes, big-endian │   how many messages of this sender are committed, in total
//!  └─────────────────────┘
//!
//!   refusal, the payload of an ordinary frame; the server closes after it:
//!
//!  ┌─────────────────────┬──────┬───────────┐
//!  │ 8 bytes, big-endian │ code │ text      │
//!  └─────────────────────┴──────┴───────────┘
//!   as above              1 byte  UTF-8
//!
//!   heartbeat: an empty frame, sent while a commit takes long
//!
//!   welcome, the answer to a hello of version 2, if the server knows the checksum:
//!
//!  ┌─────────────────────┬──────┬─────────────────────┐
//!  │ 8 bytes, big-endian │ 00   │ 8 bytes, big-endian │
//!  └─────────────────────┴──────┴─────────────────────┘
//!   as above              1 byte  checksum of the last committed message
//! ```
//!
//! A waiting client hears something every few seconds: a heartbeat before the welcome, later a heartbeat or
//! the last acknowledgement again.
//!
//! The first acknowledgement is the *welcome*. A client sends nothing between the hello and the welcome;
//! the welcome is the number n of committed messages, and the next frame is message n + 1. The number in
//! the hello is a check: if it is more than one above the server's count, the server has lost, or never
//! had, messages that the client cannot send again, and refuses with [`RefusalCode::Gap`]. For an unknown
//! sender (a restarted server, and a sink that keeps no counts) the server trusts the number in the hello:
//! it counts all earlier messages as committed.
//!
//! A client that resumes the input of an earlier one can check that it is the same input. Its hello has
//! version 2 and otherwise the same bytes. The welcome then carries the checksum of the last committed
//! message's payload, unless there is no such message or the server does not know its checksum. The
//! checksum is 64-bit FNV-1a over the payload's length (8 bytes, little-endian) and its last 1,024 bytes,
//! or the whole payload if it is shorter.
//!
//! This module is pure: no I/O.

use std::fmt;

use crate::wire::count::Count;
use crate::wire::frame::append_frame;
use crate::wire::layout::{Decoded, Layout};
use crate::wire::sender_id::SenderId;

/// The version of a hello without and with the request for the checksum of the last committed message.
const VERSION: u8 = 1;
const RESUMING: u8 = 2;

/// The most messages that one sender can have sent: one per nanosecond for 146 years. Larger numbers are
/// invalid; with this bound, sums of numbers and counts cannot overflow.
pub(crate) const MOST_MESSAGES: u64 = u64::MAX / 4;

/// The length of a hello's body, in bytes: version, sender, number.
const BODY: usize = 1 + 16 + 8;

/// How many bytes of a payload its checksum covers. Chosen by judgement: each large message is a batch of
/// its own and so has a checksum, and hashing 1 MiB would cost as much as receiving it.
const CHECKED: usize = 1024;

/// The longest text of a refusal, in bytes; much longer than any sentence.
const LONGEST_TEXT: usize = 1024;

/// The longest payload of an answer, in bytes.
pub(crate) const LONGEST_ANSWER: usize = 8 + 1 + LONGEST_TEXT;

/// The first bytes of a client that wants acknowledgements.
///
/// # Examples
///
/// ```
/// use framelet::wire::{Hello, SenderId};
/// use framelet::Layout;
///
/// let hello = Hello { sender: SenderId::random()?, first: 1 };
/// assert!(Hello::fits(Layout::U32BE));
/// assert_eq!(hello.encode(Layout::U32BE)?.len(), 33);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The sender's id.
    pub sender: SenderId,
    /// The number of the oldest message that the client still has; a sender's very first message is 1. A
    /// server refuses numbers over 2⁶² − 1, which no sender can reach.
    pub first: u64,
}

/// What the first bytes of a connection mean.
///
/// # Examples
///
/// ```
/// use framelet::wire::{FirstBytes, Hello};
/// use framelet::Layout;
///
/// let decode = |bytes| Hello::decode(Layout::U32BE, bytes);
/// assert_eq!(decode(b"\0\0\0\x02hi"), FirstBytes::Plain);
/// assert_eq!(decode(b"\xff\xff"), FirstBytes::Incomplete { need: 8 });
/// assert_eq!(decode(b"\xff\xff\xff\xff\0\0\0\x01\x09"), FirstBytes::Unsupported { version: 9 });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FirstBytes {
    /// Plain frames, or anything else that is not a hello; the layout decides whether they are valid.
    Plain,
    /// More bytes are needed.
    Incomplete {
        /// How many bytes are needed, counted from the start of the connection.
        need: usize,
    },
    /// A hello.
    Hello {
        /// Its contents.
        hello: Hello,
        /// Whether it asks for the checksum of the last committed message.
        resuming: bool,
        /// The length of the hello in bytes; frames follow it.
        len: usize,
    },
    /// A hello of an unknown version.
    Unsupported {
        /// The version it names.
        version: u8,
    },
    /// It begins like a hello, but its length is wrong.
    Malformed,
}

/// A layout in which a hello cannot be told from a frame.
///
/// # Examples
///
/// ```
/// use framelet::wire::{Hello, SenderId, UnsupportedLayout};
/// use framelet::Layout;
///
/// let layout: Layout = "u16be".parse()?;
/// let hello = Hello { sender: SenderId::from_bytes([7; 16]), first: 1 };
/// assert_eq!(hello.encode(layout), Err(UnsupportedLayout { layout }));
/// # Ok::<(), framelet::wire::ParseLayoutError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsupportedLayout {
    /// The layout.
    pub layout: Layout,
}

/// A server's answer to a client that sent a hello: the payload of a frame.
///
/// # Examples
///
/// ```
/// use framelet::wire::Answer;
///
/// let payload = Answer::Acknowledgement(42).encode();
/// assert_eq!(payload, [0, 0, 0, 0, 0, 0, 0, 42]);
/// assert_eq!(Answer::decode(&payload)?, Answer::Acknowledgement(42));
/// assert_eq!(Answer::decode(b"")?, Answer::Heartbeat);
/// # Ok::<(), framelet::wire::InvalidAnswer>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// How many messages of this sender are committed, in total.
    Acknowledgement(u64),
    /// The first acknowledgement, for a client that asked for the checksum.
    Welcome {
        /// How many messages of this sender are committed, in total.
        committed: u64,
        /// The checksum of the last committed message's payload.
        checksum: u64,
    },
    /// The server refuses to continue.
    Refusal(Refusal),
    /// Nothing new, but the server is working on it.
    Heartbeat,
}

/// Why a server refuses to continue.
///
/// # Examples
///
/// ```
/// use framelet::wire::{Answer, RefusalCode};
///
/// match Answer::decode(b"\0\0\0\0\0\0\0\x2a\x05back at 9\n")? {
///     Answer::Refusal(refusal) => {
///         assert_eq!((refusal.committed, refusal.code), (42, RefusalCode::Shutdown));
///         assert_eq!(refusal.to_string(), r"back at 9\n");
///     }
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), framelet::wire::InvalidAnswer>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// How many messages of this sender are committed, in total; 0 if that is not known.
    pub committed: u64,
    /// The reason, for programs.
    pub code: RefusalCode,
    /// The reason, for people: one line, possibly empty. A text from the wire may contain anything; the
    /// text form of a [`Refusal`] escapes it.
    pub text: String,
}

/// Why a server refuses to continue, for programs.
///
/// # Examples
///
/// ```
/// use framelet::wire::RefusalCode;
///
/// let code = RefusalCode::from_byte(5);
/// assert_eq!(code, RefusalCode::Shutdown);
/// assert!(code.is_passing()); // connect again a little later
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalCode {
    /// 1: the server does not know this version of the hello.
    Version,
    /// 2: the server replies to messages and does not acknowledge them.
    Echo,
    /// 3: a newer connection of this sender has taken over.
    Fenced,
    /// 4: messages between the committed ones and the oldest that the client has are missing.
    Gap,
    /// 5: the server is shutting down; another one may soon replace it.
    Shutdown,
    /// 6: the sink failed; messages after the committed ones are not safe.
    Sink,
    /// 7: the server drops what it receives, so there is nothing to acknowledge.
    NoSink,
    /// 8: the message after the committed ones is longer than the server accepts.
    TooLong,
    /// 9: the message after the committed ones did not arrive within the server's time limit.
    Late,
    /// A code that this version does not know.
    Other(u8),
}

/// A payload that is not a valid answer.
///
/// # Examples
///
/// ```
/// use framelet::wire::{Answer, InvalidAnswer};
///
/// assert_eq!(Answer::decode(b"hello"), Err(InvalidAnswer { length: 5 }));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidAnswer {
    /// Its length in bytes; an answer has at least 8, or none.
    pub length: usize,
}

/// Returns the checksum of a payload. It detects mix-ups, not attacks.
pub(crate) fn checksum(payload: &[u8]) -> u64 {
    let end = &payload[payload.len().saturating_sub(CHECKED)..];
    let length = (payload.len() as u64).to_le_bytes();
    let add = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    length.iter().chain(end).fold(0xcbf2_9ce4_8422_2325, add)
}

/// Returns the width of the layout's field if a hello can be encoded in it: the field must be so wide that
/// all ones cannot be the length of a message.
fn hello_width(layout: Layout) -> Option<usize> {
    layout.width().filter(|width| matches!(width, 4 | 8))
}

impl Hello {
    /// Returns whether a hello can be encoded in this layout: its field has 4 or 8 bytes.
    pub fn fits(layout: Layout) -> bool {
        hello_width(layout).is_some()
    }

    /// Encodes it as the first bytes of a connection.
    ///
    /// # Errors
    ///
    /// [`UnsupportedLayout`] if the layout has no room for a hello.
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

    /// Does the same, and asks for the checksum of the last committed message ([`Answer::Welcome`]).
    ///
    /// # Errors
    ///
    /// [`UnsupportedLayout`] if the layout has no room for a hello.
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

    /// Classifies the first bytes of a connection. `bytes` may contain more than a hello, or too little to
    /// tell.
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
        // Read before the length is checked: other versions may have other lengths.
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
    /// Encodes it as the payload of a frame. A refusal's text is cut to 1024 bytes.
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

    /// Returns it as a whole frame.
    pub fn frame(&self, layout: Layout) -> Vec<u8> {
        let mut frame = Vec::new();
        // Cannot fail: a layout that has room for a hello has room for the longest answer.
        let _ = append_frame(&mut frame, layout, LONGEST_ANSWER, &self.encode());
        frame
    }

    /// Decodes the payload of a frame.
    ///
    /// # Errors
    ///
    /// [`InvalidAnswer`] if it is too short.
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

/// Cuts a text to at most [`LONGEST_TEXT`] bytes, between two characters.
fn shortened(text: &str) -> &str {
    let ends = (0..=text.len().min(LONGEST_TEXT)).rev();
    &text[..ends.into_iter().find(|&end| text.is_char_boundary(end)).unwrap_or(0)]
}

impl RefusalCode {
    /// Returns its byte on the wire.
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

    /// Returns the code of a byte on the wire.
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

    /// Returns whether the same client may succeed a little later.
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
            RefusalCode::Late => f.write_str("a message took longer to arrive than it allows"),
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
            "there are no acknowledgements in {}; use a layout of 4 or 8 bytes, such as u32be",
            self.layout
        )
    }
}

impl std::error::Error for UnsupportedLayout {}

impl fmt::Display for InvalidAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = Count(self.length as u64, "byte");
        write!(f, "a message of {length} is not an acknowledgement, which has 8")
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
