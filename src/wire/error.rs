//! What can go wrong on a stream of frames, and where.

use std::fmt;
use std::time::Duration;

use crate::wire::count::Count;
use crate::wire::escape::{Escaped, SpacedHex};
use crate::wire::layout::{MAX_PAYLOAD, Malformed};
use crate::wire::suspect::Suspect;

/// How many bytes of a prefix a text shows.
const SHOWN: usize = 32;

/// A position on a stream.
///
/// # Examples
///
/// ```
/// use framelet::FrameReader;
///
/// # futures_lite::future::block_on(async {
/// let mut reader = FrameReader::new(&b"\0\0\0\x02hi\0\0\0\x02yo"[..]);
/// reader.read().await?;
/// let next = reader.at();
/// assert_eq!((next.message, next.offset), (2, 6));
/// assert_eq!(next.to_string(), "message 2 at byte 6");
/// # Ok::<(), framelet::stream::ReadError>(()) }).unwrap();
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The number of the message on this stream, counted from 1.
    pub message: u64,
    /// How many bytes precede that message's prefix.
    pub offset: u64,
}

/// A stream that broke the protocol; nothing more can be read from it.
///
/// Its text form is one line: where, what, which limit, and what the peer most likely sent instead:
///
/// ```text
/// message 1 at byte 0: length 1195725856 is over the limit of 8388608; prefix 47 45 54 20 "GET ";
/// this looks like an HTTP request: the peer is a web client and does not frame its messages
/// ```
///
/// # Examples
///
/// ```
/// use framelet::stream::ReadError;
/// use framelet::wire::{Known, Suspect};
/// use framelet::FrameReader;
///
/// # futures_lite::future::block_on(async {
/// let mut reader = FrameReader::new(&b"GET / HTTP/1.1\r\n\r\n"[..]);
/// let Err(ReadError::Protocol(error)) = reader.read().await else { panic!("it was valid") };
/// assert_eq!((error.at.message, &error.prefix[..]), (1, &b"GET "[..]));
/// let Some(Suspect::Known(known)) = error.suspect else { panic!("it is not known") };
/// assert_eq!(known.name, "an HTTP request");
/// # });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProtocolError {
    /// Where the failing frame starts.
    pub at: Position,
    /// The bytes of its prefix that arrived.
    pub prefix: Vec<u8>,
    /// What is wrong with it.
    pub fault: Fault,
    /// What the stream most likely is, if its bytes show it.
    pub suspect: Option<Suspect>,
}

/// What is wrong with a frame. All lengths are in bytes.
///
/// # Examples
///
/// ```
/// use framelet::stream::ReadError;
/// use framelet::wire::Fault;
/// use framelet::FrameReader;
///
/// # futures_lite::future::block_on(async {
/// let mut reader = FrameReader::new(&b"\0\0\0\x05hel"[..]);
/// let Err(ReadError::Protocol(error)) = reader.read().await else { panic!("it was valid") };
/// match error.fault {
///     Fault::TruncatedPayload { got, want } => assert_eq!((got, want), (3, 5)),
///     other => panic!("{other}"),
/// }
/// # });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The announced length is over the limit. Nothing was allocated for it.
    TooLarge {
        /// The announced length of the payload.
        length: u64,
        /// The limit of this stream.
        limit: usize,
    },
    /// The prefix is not a valid length.
    Malformed(Malformed),
    /// The stream ended inside the prefix.
    TruncatedPrefix {
        /// How many bytes of the prefix arrived.
        got: usize,
        /// How many it needs.
        want: usize,
    },
    /// The stream ended inside the payload.
    TruncatedPayload {
        /// How many bytes of the payload arrived.
        got: u64,
        /// How many were announced.
        want: u64,
    },
    /// The stream ended inside the trailer, the bytes of the layout that follow the payload.
    TruncatedTrailer {
        /// How many bytes of the trailer arrived.
        got: usize,
        /// How many it has.
        want: usize,
    },
    /// The stream ended inside the bytes that precede the first message and are skipped.
    TruncatedPreamble {
        /// How many of them arrived.
        got: u64,
        /// How many there are.
        want: u64,
    },
    /// The message was not complete in time.
    TimedOut {
        /// How many bytes of the frame arrived, its prefix included.
        got: u64,
        /// The length of the whole frame, if its prefix is complete.
        want: Option<u64>,
        /// The time limit.
        timeout: Duration,
    },
    /// The message arrived too slowly while other connections waited for the memory it held.
    Slow {
        /// How many bytes of the frame were read, its prefix included.
        got: u64,
        /// The length of the whole frame.
        want: u64,
        /// How many bytes arrived during `time`.
        bytes: u64,
        /// The time in which they arrived.
        time: Duration,
    },
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message {} at byte {}", self.message, self.offset)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ended = |inside: &str, got: u64, want: u64| {
            write!(f, "the stream ended inside {inside}: got {got} of {}", Count(want, "byte"))
        };
        match self {
            Fault::TooLarge { length, limit } => {
                write!(f, "length {length} is over the limit of {limit}")
            }
            Fault::Malformed(malformed) => malformed.fmt(f),
            Fault::TruncatedPrefix { got, want } => ended("the prefix", *got as u64, *want as u64),
            Fault::TruncatedPayload { got, want } => ended("the payload", *got, *want),
            Fault::TruncatedTrailer { got, want } => {
                ended("the trailer", *got as u64, *want as u64)
            }
            Fault::TruncatedPreamble { got, want } => {
                ended("the preamble, before the first message", *got, *want)
            }
            Fault::TimedOut { got, want: Some(want), timeout } => write!(
                f,
                "not complete within {}: got {got} of {}",
                humantime::format_duration(*timeout),
                Count(*want, "byte")
            ),
            Fault::Slow { got, want, bytes, time } => {
                let came = match bytes {
                    0 => "nothing".to_owned(),
                    _ => format!("only {}", Count(*bytes, "byte")),
                };
                let time = Duration::new(time.as_secs(), time.subsec_millis() * 1_000_000);
                let (time, want) = (humantime::format_duration(time), Count(*want, "byte"));
                write!(
                    f,
                    "{came} came in {time} while others waited for memory: got {got} of {want}"
                )
            }
            Fault::TimedOut { got, want: None, timeout } => write!(
                f,
                "not complete within {}: got {} of the prefix",
                humantime::format_duration(*timeout),
                Count(*got, "byte")
            ),
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ProtocolError { at, prefix, fault, suspect } = self;
        write!(f, "{at}: {fault}")?;
        if !prefix.is_empty() {
            let shown = &prefix[..prefix.len().min(SHOWN)];
            write!(f, "; prefix {} \"{}\"", SpacedHex(shown), Escaped(shown))?;
            if shown.len() < prefix.len() {
                write!(f, " … of {}", Count(prefix.len() as u64, "byte"))?;
            }
        }
        match (suspect, fault) {
            (Some(suspect), _) => write!(f, "; {suspect}"),
            (None, Fault::TooLarge { length, .. }) if *length <= MAX_PAYLOAD as u64 => {
                f.write_str("; if the sender means this length, raise the limit")
            }
            (None, _) => Ok(()),
        }
    }
}

impl std::error::Error for ProtocolError {}
