//! The formats for messages as text or bytes outside the wire.
//!
//! | format | a message is |
//! |---|---|
//! | `text` | lines up to an empty line |
//! | `lines` | a line |
//! | `nul` | bytes up to a NUL byte |
//! | `hex`, `base64` | a line of digits |
//! | `json` | a line with an object: the message's origin and its payload |
//! | `hexdump` (out) | a line that names it, and lines of its bytes, for people |
//! | `frames` | a `u32be` frame, or one in a layout with a header |
//! | `whole` (in) | the whole input |
//! | `raw` (out) | its bytes, with nothing in between |
//! | `none` (out) | not written: only counted |
//!
//! `json`, `hex`, `base64` and `frames` preserve any payload in both directions; `json` and `frames` also
//! preserve the header of a message, which the others leave out. The others preserve what
//! they can express: `lines` messages without a line feed, `nul` messages without a NUL byte, `text`
//! messages without an empty line, a line feed at the end, or a carriage return at the end of a line. A UTF-8
//! byte order mark at the start of text, lines, digits or JSON is not part of a message, and input in UTF-16 is
//! refused.

use std::fmt;
use std::mem;
use std::str::FromStr;

use crate::wire::layout::Layout;

/// How messages are read from text or bytes.
///
/// # Examples
///
/// ```
/// use framelet::format::{Composer, InputFormat};
///
/// let format: InputFormat = "base64".parse()?;
/// let mut composer = Composer::new(&b"aGVsbG8=\n"[..], format, 1024);
/// composer.read(|message| assert_eq!(message, b"hello"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum InputFormat {
    /// The lines up to an empty line are a message, without the last line end; `\r\n` ends a line, too. An
    /// empty line without a line before it is an empty message.
    #[default]
    Text,
    /// A line is a message, without its line feed.
    Lines,
    /// The bytes up to a NUL byte are a message.
    Nul,
    /// A line of hexadecimal digits is a message. There may be spaces between them, and bytes may be written as
    /// `0x1f` or be separated by colons.
    Hex,
    /// A line of Base64 (RFC 4648) is a message.
    Base64,
    /// A line with a JSON object is a message: its `payload` or `payload_base64`, and its `header`, if any.
    Json,
    /// A frame in this layout is a message.
    Frames(Layout),
    /// The whole input is one message.
    Whole,
}

/// How messages are written as text or bytes.
///
/// # Examples
///
/// ```
/// use framelet::format::OutputFormat;
///
/// assert_eq!("json".parse(), Ok(OutputFormat::Json));
/// assert_eq!(OutputFormat::default().to_string(), "lines");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OutputFormat {
    /// The message, and an empty line.
    Text,
    /// The message, and a line feed.
    #[default]
    Lines,
    /// The message, and a NUL byte.
    Nul,
    /// A line of hexadecimal digits.
    Hex,
    /// A line of Base64 (RFC 4648).
    Base64,
    /// A line with a JSON object: the message's origin, its `header` in hexadecimal if it has one, and its
    /// `payload`, or `payload_base64` if it is not UTF-8.
    Json,
    /// A line that names the message, then lines of its bytes as hexadecimal digits and as ASCII: for people.
    Hexdump,
    /// A frame in this layout. If the message has a header, the layout should have one as well, since
    /// otherwise the header is left out.
    Frames(Layout),
    /// The message, and nothing else.
    Raw,
    /// Nothing.
    None,
}

pub(crate) const INPUT: [(&str, InputFormat); 8] = [
    ("text", InputFormat::Text),
    ("lines", InputFormat::Lines),
    ("nul", InputFormat::Nul),
    ("hex", InputFormat::Hex),
    ("base64", InputFormat::Base64),
    ("json", InputFormat::Json),
    ("frames", InputFormat::Frames(Layout::U32BE)),
    ("whole", InputFormat::Whole),
];

pub(crate) const OUTPUT: [(&str, OutputFormat); 10] = [
    ("text", OutputFormat::Text),
    ("lines", OutputFormat::Lines),
    ("nul", OutputFormat::Nul),
    ("hex", OutputFormat::Hex),
    ("base64", OutputFormat::Base64),
    ("json", OutputFormat::Json),
    ("hexdump", OutputFormat::Hexdump),
    ("frames", OutputFormat::Frames(Layout::U32BE)),
    ("raw", OutputFormat::Raw),
    ("none", OutputFormat::None),
];

impl InputFormat {
    /// Returns the names of all formats.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::format::InputFormat;
    ///
    /// assert!(InputFormat::names().any(|name| name == "json"));
    /// assert!(InputFormat::names().all(|name| name.parse::<InputFormat>().is_ok()));
    /// ```
    pub fn names() -> impl Iterator<Item = &'static str> {
        INPUT.iter().map(|(name, _)| *name)
    }

    /// Returns the format for messages that will be sent in `layout`: frames are then in that layout if it has
    /// a header, so that they carry it, and in `u32be` otherwise.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::format::InputFormat;
    /// use framelet::Layout;
    ///
    /// let (frames, postgres): (InputFormat, Layout) = ("frames".parse()?, "h1:u32be+self".parse()?);
    /// assert_eq!(frames.for_layout(postgres), InputFormat::Frames(postgres));
    /// assert_eq!(frames.for_layout("u16le".parse()?), InputFormat::Frames(Layout::U32BE));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn for_layout(self, layout: Layout) -> InputFormat {
        match self {
            InputFormat::Frames(_) => InputFormat::Frames(frames_for(layout)),
            other => other,
        }
    }
}

impl OutputFormat {
    /// Returns the names of all formats.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::format::OutputFormat;
    ///
    /// assert!(OutputFormat::names().any(|name| name == "hexdump"));
    /// assert!(OutputFormat::names().all(|name| name.parse::<OutputFormat>().is_ok()));
    /// ```
    pub fn names() -> impl Iterator<Item = &'static str> {
        OUTPUT.iter().map(|(name, _)| *name)
    }

    /// Returns the format for messages that were received in `layout`: frames are then in that layout if it
    /// has a header, so that nothing is lost, and in `u32be` otherwise.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::format::OutputFormat;
    /// use framelet::Layout;
    ///
    /// let (frames, postgres): (OutputFormat, Layout) = ("frames".parse()?, "h1:u32be+self".parse()?);
    /// assert_eq!(frames.for_layout(postgres), OutputFormat::Frames(postgres));
    /// assert_eq!(frames.for_layout("u16le".parse()?), OutputFormat::Frames(Layout::U32BE));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn for_layout(self, layout: Layout) -> OutputFormat {
        match self {
            OutputFormat::Frames(_) => OutputFormat::Frames(frames_for(layout)),
            other => other,
        }
    }
}

/// Returns the layout of frames in a file.
fn frames_for(layout: Layout) -> Layout {
    if layout.has_header() { layout } else { Layout::U32BE }
}

/// Not the name of a format.
///
/// # Examples
///
/// ```
/// use framelet::format::OutputFormat;
///
/// match "xml".parse::<OutputFormat>() {
///     Ok(format) => panic!("{format}"),
///     Err(error) => assert!(error.to_string().contains("the formats are text lines nul hex")),
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseFormatError {
    known: Vec<&'static str>,
}

fn find<T: Copy>(text: &str, known: &[(&'static str, T)]) -> Result<T, ParseFormatError> {
    known
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, format)| *format)
        .ok_or_else(|| ParseFormatError { known: known.iter().map(|(name, _)| *name).collect() })
}

fn name<T>(format: &T, known: &[(&'static str, T)]) -> &'static str {
    // Frames in any layout have one name.
    let same = |known: &T| mem::discriminant(known) == mem::discriminant(format);
    known.iter().find(|(_, known)| same(known)).map_or("", |(name, _)| name)
}

impl FromStr for InputFormat {
    type Err = ParseFormatError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        find(text, &INPUT)
    }
}

impl FromStr for OutputFormat {
    type Err = ParseFormatError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        find(text, &OUTPUT)
    }
}

impl fmt::Display for InputFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name(self, &INPUT))
    }
}

impl fmt::Display for OutputFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name(self, &OUTPUT))
    }
}

impl fmt::Display for ParseFormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no such format; the formats are {}", self.known.join(" "))
    }
}

impl std::error::Error for ParseFormatError {}
