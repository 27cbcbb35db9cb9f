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
mod tests {
    use super::*;
    use crate::wire::frame::append_frame_with_header;

    /// A source that gives its bytes in pieces of random length.
    struct Pieces<'a>(&'a [u8], fastrand::Rng);

    impl Read for Pieces<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let len = self.1.usize(1..=9).min(self.0.len()).min(buf.len());
            buf[..len].copy_from_slice(&self.0[..len]);
            self.0 = &self.0[len..];
            Ok(len)
        }
    }

    fn compose(input: &[u8], format: &str, limit: usize) -> (Vec<Vec<u8>>, Option<String>) {
        let (format, mut found) = (format.parse().unwrap(), Vec::new());
        for seed in 0..20 {
            let source = Pieces(input, fastrand::Rng::with_seed(seed));
            let mut composer = Composer::new(source, format, limit);
            let mut messages = Vec::new();
            let error = loop {
                match composer.read(|message| messages.push(message.to_vec())) {
                    Ok(true) => {}
                    Ok(false) => break None,
                    Err(error) => break Some(error.to_string()),
                }
            };
            found.push((messages, error));
        }
        assert!(found.iter().all(|each| *each == found[0]), "pieces matter: {found:?}");
        found.swap_remove(0)
    }

    #[track_caller]
    fn check(input: &[u8], format: &str, messages: &[&[u8]]) {
        let (found, error) = compose(input, format, 1000);
        assert_eq!(
            (found, error),
            (messages.iter().map(|message| message.to_vec()).collect(), None)
        );
    }

    #[test]
    fn text_is_lines_up_to_an_empty_line() {
        check(b"a\nb\n\nc", "text", &[b"a\nb", b"c"]);
        check(b"a\nb\n\nc\n", "text", &[b"a\nb", b"c"]);
        check(b"a\r\nb\r\n\r\nc\r\n", "text", &[b"a\nb", b"c"]);
        check(b"\na\n\n\nb\n\n", "text", &[b"", b"a", b"", b"b"]);
        check(b"", "text", &[]);
    }

    #[test]
    fn lines_and_nul_keep_every_other_byte() {
        check(b"a\r\n\nb\0c", "lines", &[b"a\r", b"", b"b\0c"]);
        check(b"a\n\0\0b", "nul", &[b"a\n", b"", b"b"]);
    }

    #[test]
    fn encoded_lines_are_decoded() {
        check(b"00ff\n\n4A 4b\r\n", "hex", &[b"\0\xff", b"", b"JK"]);
        check(b"AP8=\n\n", "base64", &[b"\0\xff", b""]);
        check(
            b"{\"payload\":\"a\\n\"}\n\n{\"payload_base64\":\"/w==\"}",
            "json",
            &[b"a\n", b"\xff"],
        );
        check(b"\0\0\0\x01a\0\0\0\0", "frames", &[b"a", b""]);
        check(b"a\n\nb", "whole", &[b"a\n\nb"]);
        check(b"", "whole", &[b""]);
    }

    #[test]
    fn what_cannot_be_decoded_is_said_with_its_place_in_the_line() {
        for (line, format, words) in [
            (" 0 0\t0x", "hex", "not hexadecimal: byte 7 is 'x'"),
            ("00 0", "hex", "not hexadecimal: the number of digits is odd"),
            ("\x1b0", "hex", r"byte 1 is '\u{1b}'"),
            (" YQ-=", "base64", "not Base64: byte 4 is '-'"),
            ("YQ= YQ==", "base64", "byte 3 is '='"),
            (
                "YQ==\nYQ",
                "base64",
                "2 of the input: not Base64: the number of digits is no multiple of 4 (is = ",
            ),
            ("YR==", "base64", "byte 2 is 'R', whose last bits are not zero"),
            ("Y===", "base64", "the padding (=) is wrong at byte 2"),
            (
                "\n{\"payload\":}",
                "json",
                "record 2 of the input: not JSON: expected value at byte 12",
            ),
            (
                "{\"payload_base64\":\"Y!==\"}",
                "json",
                "payload_base64 is not Base64: byte 2 is '!'",
            ),
        ] {
            let error = compose(line.as_bytes(), format, 1000).1.unwrap();
            assert!(error.contains(words), "{line}: {error}");
        }
    }

    #[test]
    fn bad_records_are_named_and_those_before_are_not_lost() {
        for (input, format, word) in [
            (&b"00\nxy\n00\n"[..], "hex", "record 2 of the input: not hexadecimal"),
            (b"AP8=\n!\n", "base64", "record 2 of the input: not Base64"),
            (b"{\"payload\":\"\"}\n{}\n", "json", "record 2 of the input: neither payload"),
            (b"\0\0\0\x01a\0\0\0\x05hel", "frames", "got 3 of 5"),
            (
                b"ok\n12345678901\n",
                "lines",
                "record 2 of the input: message is over the limit of 10",
            ),
            (b"ok\n\n12345\n67890\n", "text", "message is over the limit of 10"),
        ] {
            let (messages, error) = compose(input, format, 10);
            assert_eq!(messages.len(), 1, "{format}");
            let error = error.unwrap();
            assert!(error.contains(word), "{format}: {error}");
        }
    }

    #[test]
    fn a_record_that_cannot_be_framed_is_named_and_ends_the_input() {
        let layout: Layout = "h1:u32be".parse().unwrap();
        let records = b"{\"header\":\"51\",\"payload\":\"a\"}\n\n{\"payload\":\"b\"}\n\
                        {\"header\":\"5152\",\"payload\":\"c\"}\n{\"payload\":\"d\"}\n";
        let framed = b"\x51\0\0\0\x01a\0\0\0\0\x01b";
        for (input, format, record) in [
            (&records[..], InputFormat::Json, Some(4)),
            (b"\0\0\0\0\x01a\0\0\0\0\x01b", InputFormat::Frames(layout), None),
        ] {
            let mut composer = Composer::new(input, format, 10);
            let mut out = Vec::new();
            let mut read = || {
                composer.read_with_headers(|header, payload| {
                    append_frame_with_header(&mut out, layout, 10, &header.to_vec(), payload)
                })
            };
            match record {
                Some(record) => {
                    let error = read().unwrap_err();
                    assert_eq!(error.record, Some(record));
                    let text = "record 4 of the input: a header of 2 bytes, but h1:u32be has 1";
                    assert_eq!(error.to_string(), text);
                    assert!(!read().unwrap(), "nothing follows");
                    assert_eq!(out, framed);
                }
                None => {
                    assert!(read().unwrap());
                    assert_eq!(out, input);
                }
            }
        }
        // In each format, and wherever a message is passed on.
        let layout: Layout = "u8-3".parse().unwrap();
        for (format, input, record) in [
            ("text", &b"long\n\nab\n\n"[..], Some(4)),
            ("text", b"long\n\nab", Some(3)),
            ("text", b"long\n\n\n", Some(3)),
            ("lines", b"long\nab\nlong\n", Some(2)),
            ("lines", b"long\nab", Some(2)),
            ("nul", b"long\0ab\0", Some(2)),
            ("hex", b"6c6f6e67\n6162\n", Some(2)),
            ("base64", b"bG9uZw==\nYWI=\n", Some(2)),
            ("whole", b"ab", None),
            ("frames", b"\0\0\0\x04long\0\0\0\x02ab", Some(2)),
        ] {
            let mut composer = Composer::new(input, format.parse().unwrap(), 10);
            let mut out = Vec::new();
            let error = loop {
                let read = composer.read_with_headers(|header, payload| {
                    append_frame_with_header(&mut out, layout, 10, &header.to_vec(), payload)
                });
                match read {
                    Ok(more) => assert!(more, "{format}: nothing was refused"),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.record, record, "{format}: {error}");
            assert!(error.to_string().contains("is less than a u8-3 prefix"), "{error}");
            assert_eq!(out, if format == "whole" { &b""[..] } else { b"\x01long" }, "{format}");
        }
    }

    #[test]
    fn frames_with_headers_are_read_in_their_layout() {
        for (layout, input, messages) in [
            ("h1:u32be+self", &b"Q\0\0\0\x05a"[..], &[(&b"Q"[..], &b"a"[..])][..]),
            ("h1:u8:data:h1", b"a\x01xbc\0d", &[(b"ab", b"x"), (b"cd", b"")]),
            ("hex4+self", b"0005a0000", &[(b"", b"a"), (b"0000", b"")]),
        ] {
            let format = InputFormat::default();
            assert_eq!(format.for_layout(layout.parse().unwrap()), format);
            let format = InputFormat::Frames(Layout::U32BE).for_layout(layout.parse().unwrap());
            let mut composer = Composer::new(input, format, 10);
            let mut found = Vec::new();
            let mut take = |header: Header<'_>, payload: &[u8]| {
                found.push((header.to_vec(), payload.to_vec()));
                Ok(())
            };
            while composer.read_with_headers(&mut take).unwrap() {}
            let messages =
                messages.iter().map(|(header, payload)| (header.to_vec(), payload.to_vec()));
            assert!(found.iter().cloned().eq(messages), "{layout}: {found:?}");
        }
        let layout = "h1:u32be+self".parse().unwrap();
        let mut composer = Composer::new(&b"Q\0\0\0\x01"[..], InputFormat::Frames(layout), 10);
        let error = composer.read(|_| {}).unwrap_err().to_string();
        assert!(error.starts_with("the input is not h1:u32be+self frames: message 1"), "{error}");
    }
}
