//! What holds for every input. The fuzz targets try it with inputs that they invent, and `tests/corpus.rs`
//! with those in `corpus/`. Each function panics if its claim is false.

// `tests/corpus.rs` includes this file as a module.
#![allow(unreachable_pub)]

use std::cell::RefCell;
use std::fmt::{Debug, Display};
use std::fs::File;
use std::future::Future;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::{Pin, pin};
use std::str::FromStr;
use std::task::{Context, Poll, Waker};

use fastrand::Rng;
use framelet::format::{Composer, InputFormat, OutputFormat};
use framelet::sink::{MessageSink, OutputSink, SinkTarget};
use framelet::stream::{Payloads, ReadError};
use framelet::wire::{
    self, Answer, CERTAIN, Candidate, FirstBytes, Hello, Known, Position, ProtocolError, SenderId,
    append_frame_with_header, judge,
};
use framelet::{Address, Batch, FrameReader, FrameWriter, Layout};
use futures_lite::{AsyncRead, future};

/// A claim about an input.
pub type Claim = fn(&[u8]);

/// Every claim, with the name of its target and its folder in `corpus/`.
pub const TARGETS: [(&str, Claim); 6] = [
    ("notation", notation),
    ("layout", layout),
    ("acks", acks),
    ("formats", formats),
    ("addresses", addresses),
    ("detect", detect),
];

/// The longest text of a layout to try, in bytes: parsed layouts are kept as long as the process runs.
const LONGEST_NOTATION: usize = 96;

/// The longest input of other targets, in bytes. Header lines of this length stay within their limit when
/// each of their line ends gets a carriage return.
const LONGEST: usize = 2048;

/// Layouts of every kind, from which one byte of an input may choose.
const LAYOUTS: [&str; 32] = [
    "u32be",
    "u8",
    "u16be",
    "u16le+self",
    "u24be",
    "u64be",
    "u64le+self",
    "varint",
    "h1:u32be+self",
    "x0300:u16be+all",
    "u24le:h1",
    "h3:u8:data:xce",
    "dec/3a:data:x2c",
    "x24:dec/0d0a:data:x0d0a",
    "dec/20",
    "hex4+self",
    "hex2",
    "hex16",
    "h1:ber",
    "ber+3",
    "bcd4",
    "dec4",
    "dec2+self",
    "h16:u16be+all",
    "x5a42:h1:u8:h4",
    "h1:varint",
    "varint+2",
    "u8-4",
    "u64le-1",
    "h1:x00:u8:h2:x0102:h1:data:h1:xff:h2",
    "u8+all:data:h3",
    "lsp",
];

/// A text is a layout, which prints as a text that is the same layout, or an error of one line.
pub fn notation(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if text.len() > LONGEST_NOTATION {
        return;
    }
    let Some(layout) = parsed_and_printed::<Layout>(text) else { return };
    let longest = layout.max_payload();
    let prefix = layout.encode(longest).expect("the longest payload can be written");
    let decoded = layout.decode(&prefix).expect("what is written can be read");
    let (prefix, payload) = (prefix.len(), longest as u64);
    assert_eq!(decoded, framelet::wire::Decoded::Prefix { prefix, payload });
    assert!(layout.encode(longest + 1).is_err());
}

/// A text is an address, the target of a sink, a format and so on, or an error of one line.
pub fn addresses(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    parsed_and_printed::<Address>(text);
    parsed_and_printed::<InputFormat>(text);
    parsed_and_printed::<OutputFormat>(text);
    parsed_and_printed::<SenderId>(text);
    match text.parse::<SinkTarget>() {
        // Without its password it is another URL, which is shown as it is.
        Ok(target @ SinkTarget::Redis(_)) => {
            let shown = target.to_string();
            let again = shown.parse::<SinkTarget>().expect("what is shown is a target");
            assert_eq!(again.to_string(), shown);
        }
        _ => {
            parsed_and_printed::<SinkTarget>(text);
        }
    }
}

/// Parses a text, and checks that what it prints parses to the same.
fn parsed_and_printed<T>(text: &str) -> Option<T>
where
    T: FromStr<Err: Display + Debug> + Display + PartialEq + Debug,
{
    match text.parse::<T>() {
        Ok(value) => {
            let printed = value.to_string();
            assert_eq!(printed.parse::<T>().expect("what is printed parses"), value);
            Some(value)
        }
        Err(error) => {
            is_one_line(&error.to_string());
            None
        }
    }
}

/// Checks the text of an error.
fn is_one_line(text: &str) {
    assert!(!text.is_empty() && !text.contains(char::is_control), "{text:?} is not one line");
}

/// Returns the layout that an input chooses, and the rest of the input: its first byte is an index, or its
/// first line is the text of a layout.
fn choose_layout(input: &[u8]) -> Option<(Layout, &[u8])> {
    let (&first, rest) = input.split_first()?;
    if first < b'a' {
        let text = LAYOUTS[usize::from(first) % LAYOUTS.len()];
        return Some((text.parse().expect("the listed layouts are valid"), rest));
    }
    let end = input.iter().take(LONGEST_NOTATION).position(|&byte| byte == b'\n')?;
    let text = std::str::from_utf8(&input[..end]).ok()?;
    Some((text.parse().ok()?, &input[end + 1..]))
}

/// Returns random numbers that depend on the input only.
fn random(input: &[u8]) -> Rng {
    let seed = input.iter().fold(0, |seed: u64, &byte| seed.wrapping_mul(31) + u64::from(byte) + 1);
    Rng::with_seed(seed)
}

/// A stream of bytes in pieces, with a `Pending` now and then.
struct Pieces<'a> {
    rest: &'a [u8],
    longest: usize,
    random: Option<Rng>,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut len = self.longest.min(buf.len()).min(self.rest.len());
        if let Some(random) = &mut self.random {
            if random.u8(..) < 64 {
                return Poll::Pending;
            }
            len = random.usize(len.min(1)..=len);
        }
        buf[..len].copy_from_slice(&self.rest[..len]);
        self.rest = &self.rest[len..];
        Poll::Ready(Ok(len))
    }
}

/// How a stream was read: its messages, where it ended, and the error at its end.
#[derive(Debug)]
struct Reading {
    messages: Vec<(Vec<u8>, Vec<u8>)>,
    frames: Vec<u8>,
    end: Position,
    error: Option<ProtocolError>,
}

/// Reads all messages. Each read that is pending is dropped and begun anew.
fn read(layout: Layout, source: Pieces<'_>) -> Reading {
    let most = 64 + 64 * source.rest.len();
    let mut reader = FrameReader::with_layout(source, layout);
    let (mut messages, mut frames) = (Vec::new(), Vec::new());
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..most {
        let at = reader.at();
        let Poll::Ready(read) = pin!(reader.read_batch()).poll(&mut cx) else { continue };
        let error = match read {
            Ok(Some(payloads)) => {
                assert_eq!(payloads.first_number(), at.message);
                take_messages(&payloads, &mut messages, &mut frames);
                continue;
            }
            Ok(None) => None,
            Err(ReadError::Protocol(error)) => Some(error),
            Err(error) => panic!("the source does not fail: {error}"),
        };
        assert_eq!(reader.at().message, messages.len() as u64 + 1);
        assert_eq!(reader.at().offset, frames.len() as u64);
        if let Some(error) = &error {
            is_one_line(&error.to_string());
            assert_eq!(error.at, reader.at());
        }
        return Reading { messages, frames, end: reader.at(), error };
    }
    panic!("the reader does not come to an end");
}

fn take_messages(
    payloads: &Payloads,
    messages: &mut Vec<(Vec<u8>, Vec<u8>)>,
    frames: &mut Vec<u8>,
) {
    let before = messages.len();
    for (header, payload) in payloads.messages() {
        let bytes = header.to_vec();
        assert_eq!((bytes.len(), bytes.is_empty()), (header.len(), header.is_empty()));
        messages.push((bytes, payload.to_vec()));
    }
    let new = &messages[before..];
    assert_eq!(new.len(), payloads.len());
    let sum: usize = new.iter().map(|(_, payload)| payload.len()).sum();
    assert_eq!(sum, payloads.payload_bytes());
    payloads.frames().iter().for_each(|part| frames.extend_from_slice(part));
}

/// Bytes are read the same however they arrive, and what was read can be written and read again.
pub fn layout(input: &[u8]) {
    let Some((layout, bytes)) = choose_layout(input).filter(|_| input.len() <= LONGEST) else {
        return;
    };
    let whole = read(layout, Pieces { rest: bytes, longest: usize::MAX, random: None });
    assert_eq!(whole.frames, bytes[..whole.frames.len()]);
    let mut random = random(input);
    // Every other input byte by byte: a second reading takes as long as all the rest.
    let other = match random.bool() {
        true => Pieces { rest: bytes, longest: 1, random: None },
        false => Pieces { rest: bytes, longest: 40, random: Some(random) },
    };
    let other = read(layout, other);
    assert_eq!((&other.messages, other.end), (&whole.messages, whole.end));
    match (&whole.error, &other.error) {
        (None, None) => {}
        // More may have been read, which shows more of what is wrong.
        (Some(a), Some(b)) => {
            assert_eq!(a.fault, b.fault);
            let len = a.prefix.len().min(b.prefix.len());
            assert_eq!(a.prefix[..len], b.prefix[..len]);
        }
        (a, b) => panic!("{a:?} is not {b:?}"),
    }
    write_back(layout, &whole);
}

fn write_back(layout: Layout, reading: &Reading) {
    let mut written = Vec::new();
    let mut writer = FrameWriter::with_layout(Vec::new(), layout);
    for (header, payload) in &reading.messages {
        append_frame_with_header(&mut written, layout, payload.len(), header, payload)
            .expect("what was read can be written");
        future::block_on(writer.feed_with_header(header, payload)).expect("the same");
    }
    future::block_on(writer.flush()).expect("a Vec takes everything");
    assert_eq!(writer.into_inner(), written);
    let text = layout.to_string();
    let several_forms = ["ber", "hex", "lsp"].iter().any(|name| text.contains(name));
    if !several_forms {
        assert_eq!(written, reading.frames);
        return;
    }
    let again = read(layout, Pieces { rest: &written, longest: usize::MAX, random: None });
    assert_eq!((again.messages, again.error), (reading.messages.clone(), None));
}

/// A hello is recognised from as many bytes as decide it, and answers that are written are read the same.
pub fn acks(input: &[u8]) {
    let Some((layout, bytes)) = choose_layout(input) else { return };
    let verdict = Hello::decode(layout, bytes);
    for len in 0..bytes.len().min(64) {
        match Hello::decode(layout, &bytes[..len]) {
            FirstBytes::Incomplete { need } => assert!(need > len),
            early => assert_eq!(early, verdict, "after {len} bytes"),
        }
    }
    if let FirstBytes::Hello { hello, resuming, len } = verdict {
        let encoded = match resuming {
            true => hello.encode_resuming(layout),
            false => hello.encode(layout),
        };
        assert_eq!(encoded.as_deref(), Ok(&bytes[..len]));
    }
    let Ok(answer) = Answer::decode(bytes) else { return };
    if let Answer::Refusal(refusal) = &answer {
        assert!(!refusal.to_string().contains(char::is_control));
    }
    // A text that is not UTF-8 takes up to three times its bytes, and one that is too long is cut.
    if bytes.len() <= 9 + 1024 / 3 {
        assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
    }
}

/// A layout that is said to read bytes does: as many messages, to the same end. The best one comes first. Bytes before the first
/// message are skipped only if nothing is certain without that, and after them nothing else is.
pub fn detect(input: &[u8]) {
    if input.len() > LONGEST {
        return;
    }
    let detected = wire::detect(input);
    assert_eq!(detected.known, Known::find(input));
    detected.known.iter().for_each(|known| is_one_line(&known.to_string()));
    let (ended, open) = (judge(input, true), judge(input, false));
    let rank = |of: &Candidate| (of.is_exact, !of.cuts_text, of.bits);
    assert!(open.is_sorted_by(|a, b| rank(a) >= rank(b)));
    // What reads all of it does so whether or not more follows.
    let exact = open.iter().filter(|of| of.is_exact).map(Candidate::name);
    assert!(exact.eq(ended.iter().map(Candidate::name)));
    reads(input, &open);
    assert!(detected.candidates.is_sorted_by(|a, b| rank(a) >= rank(b) && a.bytes == b.bytes));
    if detected.skip > 0 {
        let rest = &input[detected.skip..];
        let is_certain = |of: &Candidate| of.bits >= CERTAIN;
        assert!(!open.iter().any(is_certain) && detected.candidates.iter().any(is_certain));
        // Nor is a message opened because there are others inside.
        assert!(detected.known.is_some() || ended.iter().all(|of| of.messages > 1));
        assert_eq!(wire::detect(rest).skip, 0);
        reads(rest, &detected.candidates);
    }
}

/// Checks that layouts read bytes as they are said to.
fn reads(input: &[u8], candidates: &[Candidate]) {
    for candidate in candidates {
        assert_eq!(candidate.is_exact, candidate.bytes == input.len());
        assert_eq!(candidate.name().parse::<Layout>().as_ref(), Ok(&candidate.layout));
        let bytes = &input[..candidate.bytes];
        let read =
            read(candidate.layout, Pieces { rest: bytes, longest: usize::MAX, random: None });
        assert_eq!((read.messages.len(), read.error), (candidate.messages, None));
        let first = read.messages.first().map(|(_, payload)| payload.len() as u64);
        assert_eq!(first, Some(candidate.first));
    }
}

/// Bytes in pieces of random length.
struct Chunks<'a>(&'a [u8], Rng);

impl Read for Chunks<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = self.1.usize(1..=9).min(self.0.len()).min(buf.len());
        buf[..len].copy_from_slice(&self.0[..len]);
        self.0 = &self.0[len..];
        Ok(len)
    }
}

/// Returns the messages of a text, and the error at its end.
fn compose(source: impl Read, format: InputFormat, limit: usize) -> (Vec<Vec<u8>>, Option<String>) {
    let mut composer = Composer::new(source, format, limit);
    let mut messages = Vec::new();
    loop {
        match composer.read(|message| messages.push(message.to_vec())) {
            Ok(true) => {}
            Ok(false) => return (messages, None),
            Err(error) => return (messages, Some(error.to_string())),
        }
    }
}

/// Text is read the same however it arrives, and messages that are written are read the same.
pub fn formats(input: &[u8]) {
    let Some((&choice, text)) = input.split_first().filter(|_| input.len() <= LONGEST) else {
        return;
    };
    let names = ["text", "lines", "nul", "hex", "base64", "json", "frames", "whole"];
    let name = names[usize::from(choice) % names.len()];
    let limit = if choice & 0x80 == 0 { 10_000 } else { 10 };
    let format: InputFormat = name.parse().expect("a format of the list");
    let (messages, error) = compose(text, format, limit);
    let in_pieces = compose(Chunks(text, random(input)), format, limit);
    assert_eq!(in_pieces.0, messages);
    if let Some(error) = &error {
        is_one_line(error);
    }
    // More of a frame that is wrong may have been read, which shows more of what is wrong.
    match format {
        InputFormat::Frames(_) => assert_eq!(in_pieces.1.is_some(), error.is_some()),
        _ => assert_eq!(in_pieces.1, error),
    }
    if messages.is_empty() {
        return;
    }
    let messages: Vec<Vec<u8>> = match format {
        // A carriage return at the end of a line belongs to the line end, and a byte order mark at the start to no message.
        InputFormat::Text => {
            let kept = messages.into_iter().filter(|each| !each.contains(&b'\r'));
            kept.skip_while(|each| begins_with_mark(each)).collect()
        }
        InputFormat::Lines | InputFormat::Nul => {
            messages.into_iter().skip_while(|each| begins_with_mark(each)).collect()
        }
        _ => messages,
    };
    // These keep any bytes, the format itself those that it can express.
    for name in ["hex", "base64", "json", "frames", name] {
        let Ok(format) = name.parse() else { continue };
        let written = write(&messages, format);
        let read = name.parse().expect("formats to write can be read");
        assert_eq!(compose(&written[..], read, limit), (messages.clone(), None), "{name}");
    }
}

fn begins_with_mark(message: &[u8]) -> bool {
    let marks: [&[u8]; 3] = [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"];
    marks.iter().any(|mark| message.starts_with(mark))
}

/// A sink that writes to a socket, and the other end of that.
struct Writing {
    sink: OutputSink,
    far: UnixStream,
}

impl Writing {
    fn begin(format: OutputFormat) -> io::Result<Writing> {
        let (near, far) = UnixStream::pair()?;
        far.set_nonblocking(true)?;
        Ok(Writing { sink: OutputSink::new(File::from(OwnedFd::from(near)), format), far })
    }
}

/// Returns what a sink writes.
fn write(messages: &[Vec<u8>], format: OutputFormat) -> Vec<u8> {
    thread_local! {
        static BEGUN: RefCell<Vec<(OutputFormat, Writing)>> = const { RefCell::new(Vec::new()) };
    }
    let mut written = Vec::new();
    if messages.is_empty() {
        return written;
    }
    BEGUN.with_borrow_mut(|begun| {
        let index = begun.iter().position(|(of, _)| *of == format).unwrap_or_else(|| {
            begun.push((format, Writing::begin(format).expect("a pair of sockets")));
            begun.len() - 1
        });
        let Writing { sink, far } = &mut begun[index].1;
        // A socket has room for everything that a short input becomes.
        sink.commit(&[Batch::from_iter(messages)]).expect("the socket takes everything");
        let end = far.read_to_end(&mut written).expect_err("the socket stays open");
        assert_eq!(end.kind(), io::ErrorKind::WouldBlock);
    });
    written
}
