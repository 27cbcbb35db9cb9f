//! Converts text or bytes to messages.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read};

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use futures_lite::future::block_on;
use futures_lite::io::AssertAsync;

use super::json::message_of_json;
use super::names::InputFormat;
use super::undecodable::{not_base64, not_hex};
use crate::stream::error::ReadError;
use crate::stream::pool::Pool;
use crate::stream::reader::FrameReader;
use crate::wire::io_error::Plain;
use crate::wire::layout::{EncodeError, Header, Layout};

/// The byte order marks at the start of text: Windows writes them.
const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";
const UTF16_MARKS: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// How much is read at once, in bytes.
const CHUNK: usize = 64 * 1024;

/// Reads messages from a blocking source of text or bytes, such as standard input.
///
/// It holds the current record and, while a message is passed on, that message: together less than three
/// times the record. A record is bounded by the longest encoding of a message of the limit: 6 times its
/// length in `json`, 5 times in `hex`, twice in `base64`.
///
/// # Examples
///
/// ```
/// use framelet::format::{Composer, InputFormat};
///
/// let mut composer = Composer::new(&b"a\nb\n\nc"[..], InputFormat::Text, 1024);
/// let mut messages = Vec::new();
/// while composer.read(|message| messages.push(message.to_vec()))? {}
/// assert_eq!(messages, [&b"a\nb"[..], b"c"]);
/// # Ok::<(), framelet::format::InputError>(())
/// ```
#[derive(Debug)]
pub struct Composer<R>(Kind<R>);

#[derive(Debug)]
enum Kind<R> {
    Records(Records<R>),
    Frames(Box<FrameReader<AssertAsync<R>>>),
    /// Ended by an error.
    Ended,
}

#[derive(Debug)]
struct Records<R> {
    source: R,
    format: InputFormat,
    limit: usize,
    chunk: Vec<u8>,
    /// The record that has not ended yet.
    unfinished: Vec<u8>,
    /// The lines of the current message; used only in the format `text`.
    composed: Option<Vec<u8>>,
    /// The number of the current record, counted from 1.
    record: u64,
    /// The first bytes of the input, as long as they may be the beginning of a byte order mark.
    mark: Option<Vec<u8>>,
    at_end: bool,
}

/// Input that cannot be read or is not valid in its format.
///
/// All messages before it have been passed on.
///
/// # Examples
///
/// ```
/// use framelet::format::{Composer, InputFormat};
///
/// let mut composer = Composer::new(&b"00ff\nxy\n"[..], InputFormat::Hex, 1024);
/// let mut messages = Vec::new();
/// match composer.read(|message| messages.push(message.to_vec())) {
///     Ok(_) => panic!("xy is not hexadecimal"),
///     Err(error) => assert_eq!(error.record, Some(2)),
/// }
/// assert_eq!(messages, [b"\0\xff"]);
/// ```
#[derive(Debug)]
pub struct InputError {
    /// The number of the line or record, counted from 1, in formats that have them.
    pub record: Option<u64>,
    /// What is wrong.
    pub fault: InputFault,
}

/// What is wrong with the input.
///
/// # Examples
///
/// ```
/// use framelet::format::{Composer, InputFault, InputFormat};
///
/// let mut composer = Composer::new(&b"hello\n"[..], InputFormat::Lines, 4);
/// match composer.read(|_| {}).map_err(|error| error.fault) {
///     Err(InputFault::TooLong { limit }) => assert_eq!(limit, 4),
///     other => panic!("{other:?}"),
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum InputFault {
    /// A message is over the limit.
    TooLong {
        /// The longest payload allowed, in bytes.
        limit: usize,
    },
    /// A record is not valid in its format.
    NotInFormat(String),
    /// A message cannot be framed, as the closure said that takes it.
    Encode(EncodeError),
    /// A frame is not valid.
    Frame {
        /// The layout in which it was read.
        layout: Layout,
        /// What is wrong with it.
        error: Box<ReadError>,
    },
    /// The source cannot be read.
    Io(io::Error),
}

impl<R: Read> Composer<R> {
    /// Returns a composer of messages of at most `limit` bytes, read from `source`.
    pub fn new(source: R, format: InputFormat, limit: usize) -> Composer<R> {
        if let InputFormat::Frames(layout) = format {
            let source = AssertAsync::new(source);
            let limit = limit.min(layout.max_payload());
            let reader = FrameReader::in_pool(source, layout, limit, Pool::unbounded());
            return Composer(Kind::Frames(Box::new(reader)));
        }
        Composer(Kind::Records(Records {
            source,
            format,
            limit,
            chunk: vec![0; CHUNK],
            unfinished: Vec::new(),
            composed: None,
            record: 1,
            mark: is_text(format).then(Vec::new),
            at_end: false,
        }))
    }

    /// Reads once from the source and passes each complete message to `take`. Returns `false` once the
    /// source has ended and every message was passed on.
    ///
    /// # Errors
    ///
    /// [`InputError`]; nothing follows it, and the next call returns `false`.
    pub fn read(&mut self, mut take: impl FnMut(&[u8])) -> Result<bool, InputError> {
        self.read_with_headers(|_, payload| {
            take(payload);
            Ok(())
        })
    }

    /// Does the same as [`read`](Composer::read), with the header of each message; it is empty if the record
    /// has none. If `take` cannot encode a message, nothing follows that, and the error says which record it
    /// is.
    ///
    /// # Errors
    ///
    /// As for `read`, and [`InputFault::Encode`] with what `take` returned.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::format::{Composer, InputFormat};
    /// use framelet::wire::{MAX_PAYLOAD, append_frame_with_header};
    /// use framelet::Layout;
    ///
    /// let layout: Layout = "h1:u32be".parse()?;
    /// let records = "{\"header\":\"01\",\"payload\":\"a\"}\n{\"header\":\"0203\",\"payload\":\"b\"}\n";
    /// let mut composer = Composer::new(records.as_bytes(), InputFormat::Json, 1024);
    /// let mut frames = Vec::new();
    /// let read = composer.read_with_headers(|header, payload| {
    ///     append_frame_with_header(&mut frames, layout, MAX_PAYLOAD, &header.to_vec(), payload)
    /// });
    /// assert_eq!(frames, b"\x01\0\0\0\x01a");
    /// assert_eq!(read.unwrap_err().record, Some(2)); // its header has two bytes
    /// # Ok::<(), framelet::wire::ParseLayoutError>(())
    /// ```
    pub fn read_with_headers(
        &mut self,
        mut take: impl FnMut(Header<'_>, &[u8]) -> Result<(), EncodeError>,
    ) -> Result<bool, InputError> {
        let read = match &mut self.0 {
            Kind::Ended => Ok(false),
            Kind::Records(records) => records.read(&mut take),
            // Does not block on a nested wait: a blocking source is always ready.
            Kind::Frames(reader) => match block_on(reader.read_batch()) {
                Ok(Some(payloads)) => {
                    let mut messages = (payloads.first_number()..).zip(payloads.messages());
                    messages.try_for_each(|(number, (header, payload))| {
                        take(header, payload).map_err(|error| {
                            let fault = InputFault::Encode(error);
                            InputError { record: Some(number), fault }
                        })
                    })
                }
                .map(|()| true),
                Ok(None) => Ok(false),
                Err(ReadError::Io { error, .. }) => {
                    Err(InputError { record: None, fault: InputFault::Io(error) })
                }
                Err(error) => {
                    let (layout, error) = (reader.layout(), Box::new(error));
                    Err(InputError { record: None, fault: InputFault::Frame { layout, error } })
                }
            },
        };
        if read.is_err() {
            self.0 = Kind::Ended;
        }
        read
    }
}

/// Takes the header and the payload of a message.
trait Take: FnMut(Header<'_>, &[u8]) -> Result<(), EncodeError> {}

impl<F: FnMut(Header<'_>, &[u8]) -> Result<(), EncodeError>> Take for F {}

impl<R: Read> Records<R> {
    fn read(&mut self, take: &mut impl Take) -> Result<bool, InputError> {
        if self.at_end {
            return Ok(false);
        }
        // The chunk is moved out so that its records can be passed on without a copy.
        let mut chunk = std::mem::take(&mut self.chunk);
        let read = loop {
            match self.source.read(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        let result = match read {
            Ok(0) => self.finish(take).map(|()| false),
            Ok(filled) => match self.without_mark(&chunk[..filled]) {
                Ok(chunk) => self.split(&chunk, take).map(|()| true),
                Err(error) => Err(error),
            },
            Err(error) => Err(InputError { record: None, fault: InputFault::Io(error) }),
        };
        self.chunk = chunk;
        result
    }

    /// Returns the next bytes of the input without a byte order mark, or nothing while it may be incomplete.
    fn without_mark<'c>(&mut self, chunk: &'c [u8]) -> Result<Cow<'c, [u8]>, InputError> {
        let Some(mut start) = self.mark.take() else { return Ok(Cow::Borrowed(chunk)) };
        start.extend_from_slice(chunk);
        if UTF16_MARKS.iter().any(|mark| start.starts_with(mark)) {
            return Err(self.error(InputFault::NotInFormat(utf16())));
        }
        if start.len() < UTF8_MARK.len()
            && [UTF8_MARK, UTF16_MARKS[0], UTF16_MARKS[1]]
                .iter()
                .any(|mark| mark.starts_with(&start))
        {
            self.mark = Some(start);
            return Ok(Cow::Borrowed(&[]));
        }
        if start.starts_with(UTF8_MARK) {
            start.drain(..UTF8_MARK.len());
        }
        Ok(Cow::Owned(start))
    }

    fn split(&mut self, chunk: &[u8], take: &mut impl Take) -> Result<(), InputError> {
        if self.format == InputFormat::Whole {
            return self.keep(chunk);
        }
        let delimiter = if self.format == InputFormat::Nul { 0 } else { b'\n' };
        let mut from = 0;
        for to in memchr::memchr_iter(delimiter, chunk) {
            if self.unfinished.is_empty() {
                self.compose(&chunk[from..to], take)?;
            } else {
                self.keep(&chunk[from..to])?;
                let mut record = std::mem::take(&mut self.unfinished);
                self.compose(&record, take)?;
                record.clear();
                record.shrink_to(CHUNK);
                self.unfinished = record;
            }
            from = to + 1;
            self.record += 1;
        }
        self.keep(&chunk[from..])
    }

    /// The source has ended, so the current record is complete without an end mark.
    fn finish(&mut self, take: &mut impl Take) -> Result<(), InputError> {
        self.at_end = true;
        if let Some(start) = self.mark.take() {
            self.keep(&start)?;
        }
        let record = std::mem::take(&mut self.unfinished);
        if self.format == InputFormat::Whole {
            self.give(Header::EMPTY, &record, take)?;
        } else if !record.is_empty() {
            self.compose(&record, take)?;
        }
        match self.composed.take() {
            Some(composed) => self.give(Header::EMPTY, &composed, take),
            None => Ok(()),
        }
    }

    /// Converts a whole record to a message, or adds it to one.
    fn compose(&mut self, record: &[u8], take: &mut impl Take) -> Result<(), InputError> {
        let mut header = Vec::new();
        let decoded = match self.format {
            InputFormat::Text => return self.compose_text(record, take),
            InputFormat::Hex => decode_hex(record).map(Cow::Owned),
            InputFormat::Base64 => BASE64
                .decode(record.trim_ascii())
                .map(Cow::Owned)
                .map_err(|error| not_base64(error, record)),
            // An empty line contains no object, so it is skipped and not an error.
            InputFormat::Json if record.trim_ascii().is_empty() => return Ok(()),
            InputFormat::Json => message_of_json(record).map(|(of_record, payload)| {
                header = of_record;
                payload
            }),
            InputFormat::Lines | InputFormat::Nul | InputFormat::Whole | InputFormat::Frames(_) => {
                Ok(Cow::Borrowed(record))
            }
        };
        let payload = decoded.map_err(|what| {
            // Without a byte order mark, UTF-16 is recognised by its zero bytes.
            let what = if self.record == 1 && is_utf16(record) { utf16() } else { what };
            self.error(InputFault::NotInFormat(what))
        })?;
        self.check(payload.len())?;
        self.give(Header::new(&header), &payload, take)
    }

    /// Passes a message on.
    fn give(
        &self,
        header: Header<'_>,
        payload: &[u8],
        take: &mut impl Take,
    ) -> Result<(), InputError> {
        take(header, payload).map_err(|error| self.error(InputFault::Encode(error)))
    }

    fn compose_text(&mut self, line: &[u8], take: &mut impl Take) -> Result<(), InputError> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            let composed = self.composed.take().unwrap_or_default();
            return self.give(Header::EMPTY, &composed, take);
        }
        let length = self.composed.as_ref().map_or(0, |composed| composed.len() + 1) + line.len();
        self.check(length)?;
        match &mut self.composed {
            Some(composed) => {
                composed.push(b'\n');
                composed.extend_from_slice(line);
            }
            None => self.composed = Some(line.to_vec()),
        }
        Ok(())
    }

    /// Keeps part of a record, unless its message would be over the limit.
    fn keep(&mut self, part: &[u8]) -> Result<(), InputError> {
        let length = self.unfinished.len() + part.len();
        // The longest encoding of `limit` bytes, and some room for other fields.
        let longest = match self.format {
            // Each byte may be written as `0xff `.
            InputFormat::Hex => self.limit.saturating_mul(5).saturating_add(CHUNK),
            InputFormat::Base64 => self.limit.saturating_mul(2).saturating_add(CHUNK),
            InputFormat::Json => self.limit.saturating_mul(6).saturating_add(CHUNK),
            // The carriage return of a line end.
            InputFormat::Text => self.limit.saturating_add(1),
            _ => self.limit,
        };
        if length > longest {
            return Err(self.error(InputFault::TooLong { limit: self.limit }));
        }
        self.unfinished.extend_from_slice(part);
        Ok(())
    }

    fn check(&self, length: usize) -> Result<(), InputError> {
        match length > self.limit {
            true => Err(self.error(InputFault::TooLong { limit: self.limit })),
            false => Ok(()),
        }
    }

    fn error(&self, fault: InputFault) -> InputError {
        let counted = self.format != InputFormat::Whole;
        InputError { record: counted.then_some(self.record), fault }
    }
}

/// Returns whether the input is text in the format, and no message can begin with a byte order mark.
fn is_text(format: InputFormat) -> bool {
    use InputFormat::{Base64, Hex, Json, Lines, Text};
    matches!(format, Text | Lines | Hex | Base64 | Json)
}

/// Returns whether the beginning of a line is ASCII text in UTF-16 of either byte order.
fn is_utf16(line: &[u8]) -> bool {
    let zeros = line.first_chunk::<4>().map(|start| start.map(|byte| byte == 0));
    matches!(zeros, Some([true, false, true, false] | [false, true, false, true]))
}

fn utf16() -> String {
    "the input is UTF-16; convert it to UTF-8 with iconv, or read it as nul, whole or frames if it is \
     not text"
        .into()
}

/// Decodes a line of hexadecimal digits. There may be spaces and colons between them, and `0x` before them.
fn decode_hex(line: &[u8]) -> Result<Vec<u8>, String> {
    let digits = match line.iter().all(u8::is_ascii_hexdigit) {
        true => Cow::Borrowed(line),
        false => {
            if let Some((index, byte)) =
                hex_digits(line).find(|(_, digit)| !digit.is_ascii_hexdigit())
            {
                return Err(not_hex(index, *byte));
            }
            check_divisions(line)?;
            hex_digits(line).map(|(_, &digit)| digit).collect()
        }
    };
    // All are digits, so only their number can be wrong.
    let decoded = HEXLOWER_PERMISSIVE.decode(&digits);
    decoded.map_err(|_| "not hexadecimal: the number of digits is odd".into())
}

fn is_between_digits(byte: u8) -> bool {
    byte == b':' || byte.is_ascii_whitespace()
}

fn has_hex_prefix(digits: &[u8]) -> bool {
    matches!(digits, [b'0', b'x' | b'X', _, ..])
}

/// Returns the digits of a line, each with its index, without what may be between and before them.
fn hex_digits(line: &[u8]) -> impl Iterator<Item = (usize, &u8)> {
    let mut next = 0;
    line.split(|&byte| is_between_digits(byte)).flat_map(move |digits| {
        let start = next;
        next += digits.len() + 1;
        let prefix = if has_hex_prefix(digits) { 2 } else { 0 };
        digits.iter().enumerate().skip(prefix).map(move |(index, digit)| (start + index, digit))
    })
}

/// Checks that no byte is divided by a colon or by the end of digits with `0x`: `0x1 0x2` is not `12`.
fn check_divisions(line: &[u8]) -> Result<(), String> {
    let mut end = 0;
    for digits in line.split(|&byte| is_between_digits(byte)) {
        end += digits.len();
        let before_colon = line.get(end) == Some(&b':');
        if digits.len() % 2 == 1 && (before_colon || has_hex_prefix(digits)) {
            return Err(format!(
                "not hexadecimal: the number of digits that end at byte {end} is odd"
            ));
        }
        end += 1;
    }
    Ok(())
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(record) = self.record {
            write!(f, "record {record} of the input: ")?;
        }
        match &self.fault {
            InputFault::TooLong { limit } => {
                write!(f, "message is over the limit of {limit} bytes")
            }
            InputFault::NotInFormat(what) => f.write_str(what),
            InputFault::Encode(error) => error.fmt(f),
            InputFault::Frame { layout, error } => {
                write!(f, "the input is not {layout} frames: {error}")
            }
            InputFault::Io(error) => write!(f, "cannot read the input: {}", Plain(error)),
        }
    }
}

impl std::error::Error for InputError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.fault {
            InputFault::Encode(error) => Some(error),
            InputFault::Frame { error, .. } => Some(&**error),
            InputFault::Io(error) => Some(error),
            InputFault::TooLong { .. } | InputFault::NotInFormat(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
