//! The answers to a hello. [`ack`](super::ack) draws them, and says when they are sent.
//!
//! This module is pure: no I/O.

use std::fmt;
use std::num::NonZeroU8;

use crate::wire::count::Count;
use crate::wire::escape::Escaped;
use crate::wire::frame::append_frame;
use crate::wire::layout::Layout;

/// The longest text of a refusal, in bytes; much longer than any sentence.
const LONGEST_TEXT: usize = 1024;

/// The longest payload of an answer, in bytes.
pub(crate) const LONGEST_ANSWER: usize = 8 + 1 + LONGEST_TEXT;

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
/// let code = RefusalCode::from_byte(5).unwrap();
/// assert_eq!((code, code.to_byte()), (RefusalCode::Shutdown, 5));
/// assert!(code.is_passing()); // connect again a little later
/// assert_eq!(RefusalCode::from_byte(0), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefusalCode {
    /// 1: the server does not know this version of the hello.
    Version,
    /// 2: the server replies to messages and does not acknowledge them.
    Replies,
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
    /// 10: the certificate of the client does not allow it this sender id.
    Sender,
    /// A code that this version does not know.
    Other(NonZeroU8),
}

/// A payload that is not a valid answer.
///
/// # Examples
///
/// ```
/// use framelet::wire::{Answer, InvalidAnswer};
///
/// let error = Answer::decode(b"hello").unwrap_err();
/// assert_eq!(error, InvalidAnswer { length: 5, start: b"hello".into() });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidAnswer {
    /// Its length in bytes.
    pub length: usize,
    /// Its first bytes, at most 32.
    pub start: Vec<u8>,
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
    pub(crate) fn frame(&self, layout: Layout) -> Vec<u8> {
        let mut frame = Vec::new();
        // Cannot fail: a layout that has room for a hello has room for the longest answer.
        let _ = append_frame(&mut frame, layout, LONGEST_ANSWER, &self.encode());
        frame
    }

    /// Decodes the payload of a frame.
    ///
    /// # Errors
    ///
    /// [`InvalidAnswer`] if it has 1 to 7 bytes, or its ninth byte is 0 and it does not have 17.
    pub fn decode(payload: &[u8]) -> Result<Answer, InvalidAnswer> {
        if payload.is_empty() {
            return Ok(Answer::Heartbeat);
        }
        let invalid = || InvalidAnswer::new(payload);
        let (&committed, rest) = payload.split_first_chunk().ok_or_else(invalid)?;
        let committed = u64::from_be_bytes(committed);
        Ok(match *rest {
            [] => Answer::Acknowledgement(committed),
            [0, a, b, c, d, e, f, g, h] => {
                let checksum = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
                Answer::Welcome { committed, checksum }
            }
            [code, ref text @ ..] => Answer::Refusal(Refusal {
                committed,
                code: RefusalCode::from_byte(code).ok_or_else(invalid)?,
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
            RefusalCode::Replies => 2,
            RefusalCode::Fenced => 3,
            RefusalCode::Gap => 4,
            RefusalCode::Shutdown => 5,
            RefusalCode::Sink => 6,
            RefusalCode::NoSink => 7,
            RefusalCode::TooLong => 8,
            RefusalCode::Late => 9,
            RefusalCode::Sender => 10,
            RefusalCode::Other(byte) => byte.get(),
        }
    }

    /// Returns the code of a byte on the wire; `None` for 0, which marks the answer that is no refusal but has a
    /// checksum.
    pub fn from_byte(byte: u8) -> Option<RefusalCode> {
        Some(match byte {
            1 => RefusalCode::Version,
            2 => RefusalCode::Replies,
            3 => RefusalCode::Fenced,
            4 => RefusalCode::Gap,
            5 => RefusalCode::Shutdown,
            6 => RefusalCode::Sink,
            7 => RefusalCode::NoSink,
            8 => RefusalCode::TooLong,
            9 => RefusalCode::Late,
            10 => RefusalCode::Sender,
            other => RefusalCode::Other(NonZeroU8::new(other)?),
        })
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
            RefusalCode::Replies => f.write_str("a server that replies gives no acknowledgements"),
            RefusalCode::Fenced => f.write_str("a newer connection of this sender has taken over"),
            RefusalCode::Gap => f.write_str("an earlier message of this sender was expected"),
            RefusalCode::Shutdown => f.write_str("it is shutting down"),
            RefusalCode::Sink => f.write_str("its sink failed"),
            RefusalCode::NoSink => {
                f.write_str("it drops what it receives, so there is nothing to acknowledge")
            }
            RefusalCode::TooLong => f.write_str("a message is longer than it takes"),
            RefusalCode::Late => f.write_str("a message took longer to arrive than it allows"),
            RefusalCode::Sender => {
                f.write_str("the client's certificate does not allow this sender id")
            }
            RefusalCode::Other(byte) => write!(f, "code {byte}"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text.is_empty() {
            true => self.code.fmt(f),
            false => Escaped(self.text.as_bytes()).fmt(f),
        }
    }
}

impl InvalidAnswer {
    pub(crate) fn new(payload: &[u8]) -> InvalidAnswer {
        let start = payload[..payload.len().min(32)].to_vec();
        InvalidAnswer { length: payload.len(), start }
    }

    /// Describes the payload.
    pub(crate) fn description(&self) -> String {
        let InvalidAnswer { length, start } = self;
        let more = if start.len() < *length { "…" } else { "" };
        let length = Count(*length as u64, "byte");
        format!("a message of {length}, \"{}{more}\"", Escaped(start))
    }
}

impl fmt::Display for InvalidAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected an acknowledgement, got {}", self.description())
    }
}

impl std::error::Error for InvalidAnswer {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bytes_make_an_answer_panic() {
        let mut random = fastrand::Rng::with_seed(2);
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..random.usize(0..64)).map(|_| random.u8(..)).collect();
            let short = (1..8).contains(&bytes.len());
            let other = bytes.get(8) == Some(&0) && bytes.len() != 17;
            let answer = Answer::decode(&bytes);
            assert_eq!(answer.is_err(), short || other, "{bytes:02x?}");
            if let Ok(Answer::Refusal(refusal)) = answer {
                // A text that is not UTF-8 becomes another one, but the answer stays a refusal.
                let again = Answer::decode(&Answer::Refusal(refusal.clone()).encode());
                assert_eq!(again, Ok(Answer::Refusal(refusal)), "{bytes:02x?}");
            }
        }
        // Three bytes for each that is not UTF-8: as text, this has the length of a checksum.
        let odd = b"\0\0\0\0\0\0\0\x06\0\xff\xffAA";
        assert_eq!(Answer::decode(odd), Err(InvalidAnswer { length: 13, start: odd.to_vec() }));
    }

    #[test]
    fn answers_survive_the_wire() {
        assert_eq!(RefusalCode::from_byte(0), None);
        for byte in 1..=u8::MAX {
            let code = RefusalCode::from_byte(byte).unwrap();
            assert_eq!(code.to_byte(), byte);
            // One of them as long as a checksum.
            for text in ["", "fenced: ", "message 7 was expected"] {
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
            let error = InvalidAnswer { length, start: vec![1; length] };
            assert_eq!(Answer::decode(&[1; 8][..length]), Err(error));
        }
        let refusal = Refusal { committed: 0, code: RefusalCode::Gap, text: "é".repeat(600) };
        let payload = Answer::Refusal(refusal).encode();
        assert_eq!(payload.len(), LONGEST_ANSWER);
        assert!(str::from_utf8(&payload[9..]).is_ok());
    }
}
