//! What a failed stream most likely is, in words.

use std::fmt;

use crate::wire::count::Count;
use crate::wire::escape::Escaped;
use crate::wire::layout::{Layout, Preset};
use crate::wire::signature::Known;

/// What a failed stream most likely is, which shows what to do.
///
/// Its text form is a clause that can follow an error message.
///
/// # Examples
///
/// A sender whose lengths have the other byte order:
///
/// ```
/// use framelet::stream::ReadError;
/// use framelet::FrameReader;
///
/// # futures_lite::future::block_on(async {
/// let mut reader = FrameReader::new(&b"\x05\0\0\0hello"[..]);
/// let Err(ReadError::Protocol(error)) = reader.read().await else { panic!("it was valid") };
/// let suspect = error.suspect.expect("the bytes are valid in another layout");
/// assert_eq!(suspect.layout(), Some("u32le".parse()?));
/// assert_eq!(suspect.layout_name().as_deref(), Some("u32le"));
/// assert_eq!(suspect.to_string(), "as u32le it would be 5");
/// # Ok::<(), framelet::wire::ParseLayoutError>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Suspect {
    /// Another protocol, or data of a known kind that no length precedes.
    Known(Box<Known>),
    /// Other text without a length prefix.
    Text {
        /// How it starts.
        start: Box<[u8]>,
        /// How many messages precede it. The last of them may be longer than its length says.
        after: u64,
    },
    /// Another layout, in which the same bytes are valid.
    Layout {
        /// That layout.
        layout: Layout,
        /// The length it reads where this layout reads another one.
        length: u64,
        /// The protocol with that layout, if the messages show it.
        preset: Option<&'static Preset>,
    },
    /// Another layout, in which the length is possible; too little arrived to be sure.
    PossibleLayout {
        /// That layout.
        layout: Layout,
        /// The length it reads.
        length: u64,
    },
    /// A client that asks for acknowledgements, in another layout.
    Hello {
        /// That layout.
        layout: Layout,
    },
    /// The length includes its own prefix although the layout says otherwise, or the reverse.
    Count {
        /// The layout to try.
        layout: Layout,
    },
    /// A message is longer than its length says, and the layout is right: without these bytes, what follows is valid.
    Extra {
        /// The number of the message before them.
        message: u64,
        /// How many bytes after it its length does not count, at most eight.
        bytes: usize,
        /// Why there are so many.
        cause: Cause,
    },
    /// A message is shorter than its length says, and the layout is right: with these bytes, what follows is valid.
    Missing {
        /// The number of the message.
        message: u64,
        /// How many bytes it is shorter, at most eight.
        bytes: usize,
    },
}

/// Why a message is longer than its length says.
///
/// # Examples
///
/// A sender that ends each message with a line feed, which it does not count:
///
/// ```
/// use framelet::FrameReader;
/// use framelet::wire::{Cause, Suspect};
///
/// # futures_lite::future::block_on(async {
/// let bytes = b"\0\0\0\x05hello\n\0\0\0\x05world\n\0\0\0\x05again\n";
/// let mut reader = FrameReader::new(&bytes[..]);
/// reader.read().await?;
/// let error = reader.read().await.unwrap_err();
/// assert!(matches!(error.suspect(), Some(Suspect::Extra { cause: Cause::LineFeed, bytes: 1, .. })));
/// # Ok::<(), framelet::stream::ReadError>(()) }).unwrap();
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// A line feed follows it.
    LineFeed,
    /// A carriage return and a line feed follow it.
    CrLf,
    /// A NUL byte follows it.
    Nul,
    /// The length counts characters, of which some have several bytes.
    Characters,
    /// Line feeds became CR LF after they were counted.
    LineEnds,
    /// Something is not counted: a checksum, or the type of the message.
    Unknown,
}

impl From<Known> for Suspect {
    fn from(known: Known) -> Suspect {
        Suspect::Known(Box::new(known))
    }
}

impl Suspect {
    /// Returns the layout to try instead, if the suspicion is another layout.
    pub fn layout(&self) -> Option<Layout> {
        match self {
            Suspect::Layout { layout, .. }
            | Suspect::Hello { layout }
            | Suspect::Count { layout } => Some(*layout),
            _ => None,
        }
    }

    /// Returns the text form of [`layout`](Suspect::layout): the protocol's name if that is known.
    pub fn layout_name(&self) -> Option<String> {
        match self {
            Suspect::Layout { preset: Some(preset), .. } => Some(preset.name.into()),
            _ => self.layout().map(|layout| layout.to_string()),
        }
    }
}

impl fmt::Display for Suspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Suspect::Known(known) => known.fmt(f),
            Suspect::Text { start, after: 0 } => write!(
                f,
                "this looks like text without a length prefix (\"{}\"): the sender may not be framing",
                Escaped(start)
            ),
            Suspect::Text { start, after } => write!(
                f,
                "this looks like text without a length prefix (\"{}\") after message {after}: that message may be longer than \
                 its length says",
                Escaped(start)
            ),
            Suspect::Layout { layout, length, preset: Some(preset) } => {
                write!(f, "as {} ({layout}) it would be {length}", preset.name)
            }
            Suspect::Layout { layout, length, preset: None } => {
                write!(f, "as {layout} it would be {length}")
            }
            Suspect::PossibleLayout { layout, length } => {
                write!(f, "as {layout} it would be {length}, if that makes sense")
            }
            Suspect::Hello { layout } => {
                write!(f, "this is a client that asks for acknowledgements, in {layout}")
            }
            Suspect::Count { layout } => {
                let count = if layout.counts_itself() { "count" } else { "not count" };
                write!(f, "the length may {count} its own prefix, as in {layout}")
            }
            Suspect::Extra { message, bytes, cause } => {
                let more = Count(*bytes as u64, "byte");
                write!(
                    f,
                    "message {message} seems to be {more} longer than its length says: {cause}"
                )
            }
            Suspect::Missing { message, bytes } => {
                let less = Count(*bytes as u64, "byte");
                write!(
                    f,
                    "message {message} seems to be {less} shorter than its length says: \
                     does the length count something that is not sent?"
                )
            }
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::LineFeed => "a line feed follows it",
            Cause::CrLf => "CR LF follows it",
            Cause::Nul => "a NUL byte follows it",
            Cause::Characters => "does the length count characters, not bytes?",
            Cause::LineEnds => "did line feeds become CR LF after they were counted?",
            Cause::Unknown => "does the length leave out something, such as a checksum or a type?",
        })
    }
}
