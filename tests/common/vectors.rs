//! Reads the conformance cases from `tests/vectors/`; their README describes the format.
//!
//! Whatever is wrong with a file is a panic that names the case: a case that is silently skipped
//! would look like one that passes.

use std::path::{Path, PathBuf};
use std::{fmt, fs};

use framelet::Layout;
use framelet::stream::ReadError;
use framelet::wire::{Decoded, Fault, Position, ProtocolError};
use serde_json::{Map, Value};

/// The limit of a case that names none, in bytes.
const DEFAULT_LIMIT: usize = 16;

/// All cases of all files.
#[derive(Debug, Default)]
pub(crate) struct Vectors {
    pub(crate) reads: Vec<ReadCase>,
    pub(crate) writes: Vec<WriteCase>,
    pub(crate) limits: Vec<LimitCase>,
}

/// Bytes to read, and what has to come of them in whatever pieces they arrive.
#[derive(Debug)]
pub(crate) struct ReadCase {
    pub(crate) id: String,
    pub(crate) title: String,
    /// The layout as the file names it.
    pub(crate) layout_name: String,
    pub(crate) layout: Layout,
    pub(crate) limit: usize,
    pub(crate) input: Vec<u8>,
    /// The lengths of the pieces this case is about, if it is about particular ones.
    pub(crate) pieces: Vec<usize>,
    /// The payloads of the messages before the end.
    pub(crate) messages: Vec<Vec<u8>>,
    /// Their headers.
    pub(crate) headers: Vec<Vec<u8>>,
    /// Why there is an end; `None` is a clean one.
    pub(crate) failure: Option<Failure>,
}

/// An error that ends a stream.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    /// Where the failing frame starts.
    pub(crate) at: Position,
    /// Its prefix, as far as it matters.
    pub(crate) prefix: Vec<u8>,
    /// Whether bytes of the prefix can be wrong before it is whole, so that it depends on the pieces how many
    /// of them have been read.
    pub(crate) any_prefix: bool,
    /// How many bytes of the frame decide it.
    pub(crate) decided_by: usize,
    /// What the error's text contains.
    pub(crate) says: Vec<String>,
    /// What it contains besides if the whole input has come at once.
    pub(crate) says_in_one_piece: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    OverLong { length: u64, limit: usize },
    Malformed,
    TruncatedPrefix { got: usize, want: usize },
    TruncatedPayload { got: u64, want: u64 },
    TruncatedTrailer { got: usize, want: usize },
}

/// Payloads to write one after the other, and all bytes that come out.
#[derive(Debug)]
pub(crate) struct WriteCase {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) layout_name: String,
    pub(crate) layout: Layout,
    pub(crate) limit: usize,
    pub(crate) payloads: Vec<Payload>,
    pub(crate) output: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Payload {
    pub(crate) bytes: Vec<u8>,
    /// Empty if it is not given, which stands for zeros.
    pub(crate) header: Vec<u8>,
    /// What the error's text contains, if this payload has to be refused.
    pub(crate) refused: Option<Vec<String>>,
}

/// A limit that a layout can keep, or has to refuse.
#[derive(Debug)]
pub(crate) struct LimitCase {
    pub(crate) id: String,
    pub(crate) layout: Layout,
    pub(crate) limit: usize,
    pub(crate) refused: Option<Vec<String>>,
}

impl Vectors {
    /// Reads all files.
    pub(crate) fn load() -> Vectors {
        let mut files: Vec<PathBuf> = fs::read_dir(folder())
            .unwrap_or_else(|error| panic!("{}: {error}", folder().display()))
            .map(|entry| entry.unwrap_or_else(|error| panic!("{error}")).path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .collect();
        files.sort();
        let mut all = Vectors::default();
        for file in files {
            all.add(&file);
        }
        all
    }

    /// Returns the ids of all cases.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        let reads = self.reads.iter().map(|case| &case.id);
        let writes = self.writes.iter().map(|case| &case.id);
        reads.chain(writes).chain(self.limits.iter().map(|case| &case.id)).map(String::as_str)
    }

    fn add(&mut self, file: &Path) {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{error}"));
        let file = file.display();
        let json: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        let mut fields = Fields::new(&json, format!("{file}"));
        fields.text("about");
        let cases = |section: Option<&Value>| match section {
            Some(section) => section.as_array().cloned().unwrap_or_default(),
            None => Vec::new(),
        };
        self.reads.extend(cases(fields.maybe("read")).iter().map(ReadCase::parse));
        self.writes.extend(cases(fields.maybe("write")).iter().map(WriteCase::parse));
        self.limits.extend(cases(fields.maybe("limits")).iter().map(LimitCase::parse));
        for case in cases(fields.maybe("both")) {
            let (read, write) = both(&case);
            self.reads.push(read);
            self.writes.push(write);
        }
        // These have a test of their own.
        fields.maybe("detect");
        fields.done();
    }
}

/// Returns the folder in which the files are.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

impl ReadCase {
    fn parse(json: &Value) -> ReadCase {
        let mut fields = Fields::new(json, String::new());
        let (id, layout_name, layout, limit) = fields.start();
        let case = ReadCase {
            id,
            title: fields.text("title"),
            layout_name,
            layout,
            limit,
            input: bytes(fields.get("input")),
            pieces: list(fields.maybe("pieces"), number),
            messages: Vec::new(),
            headers: Vec::new(),
            failure: None,
        };
        let mut expect = Fields::new(fields.get("expect"), case.id.clone());
        fields.done();
        let (headers, messages) = messages(expect.get("messages")).into_iter().unzip();
        let kind = match expect.text("end").as_str() {
            "clean" => None,
            "over-long" => Some(Kind::OverLong {
                length: number(expect.get("length")),
                limit: number(expect.get("limit")),
            }),
            "malformed" => Some(Kind::Malformed),
            "truncated-prefix" => Some(Kind::TruncatedPrefix {
                got: number(expect.get("got")),
                want: number(expect.get("want")),
            }),
            "truncated-payload" => Some(Kind::TruncatedPayload {
                got: number(expect.get("got")),
                want: number(expect.get("want")),
            }),
            "truncated-trailer" => Some(Kind::TruncatedTrailer {
                got: number(expect.get("got")),
                want: number(expect.get("want")),
            }),
            other => panic!("{}: no such end: {other}", case.id),
        };
        let failure = kind.map(|kind| {
            let mut at = Fields::new(expect.get("at"), case.id.clone());
            let prefix = bytes_or_hex(expect.get("prefix"));
            let any_prefix =
                kind == Kind::Malformed && Layout::binary().all(|plain| plain != layout);
            Failure {
                kind,
                at: Position {
                    message: number(at.get("message")),
                    offset: number(at.get("offset")),
                },
                decided_by: expect.maybe("decided_by").map_or(prefix.len(), number),
                prefix,
                any_prefix,
                says: list(expect.maybe("says"), text),
                says_in_one_piece: list(expect.maybe("says_in_one_piece"), text),
            }
        });
        expect.done();
        ReadCase { messages, headers, failure, ..case }
    }
}

impl Failure {
    /// Returns whether this is decided by the bytes themselves, not by the stream's end.
    pub(crate) fn needs_no_end(&self) -> bool {
        matches!(self.kind, Kind::OverLong { .. } | Kind::Malformed)
    }

    /// Compares with the error of a reader; `in_one_piece` says how the input had come.
    ///
    /// # Errors
    ///
    /// What is different.
    pub(crate) fn compare(&self, error: &ReadError, in_one_piece: bool) -> Result<(), String> {
        let ReadError::Protocol(ProtocolError { at, prefix, fault, .. }) = error else {
            return Err(format!("not a protocol error: {error}"));
        };
        let kind = match *fault {
            Fault::TooLarge { length, limit } => Kind::OverLong { length, limit },
            Fault::Malformed(_) => Kind::Malformed,
            Fault::TruncatedPrefix { got, want } => Kind::TruncatedPrefix { got, want },
            Fault::TruncatedPayload { got, want } => Kind::TruncatedPayload { got, want },
            Fault::TruncatedTrailer { got, want } => Kind::TruncatedTrailer { got, want },
            _ => return Err(format!("there was no hurry: {error}")),
        };
        let same_prefix = match self.any_prefix {
            true => prefix.starts_with(&self.prefix) || self.prefix.starts_with(prefix),
            false => *prefix == self.prefix,
        };
        if (kind, *at, same_prefix) != (self.kind, self.at, true) {
            return Err(format!("{kind:?} {at:?} {prefix:x?} where this was due: {self:?}"));
        }
        self.compare_text(&error.to_string(), in_one_piece)
    }

    /// Compares with the text of an error, as a program prints it.
    ///
    /// # Errors
    ///
    /// What is missing in it.
    pub(crate) fn compare_text(&self, text: &str, in_one_piece: bool) -> Result<(), String> {
        let more = if in_one_piece { &self.says_in_one_piece[..] } else { &[] };
        match self.says.iter().chain(more).find(|part| !text.contains(part.as_str())) {
            Some(part) => Err(format!("{part:?} is missing in: {text}")),
            None => Ok(()),
        }
    }
}

impl WriteCase {
    fn parse(json: &Value) -> WriteCase {
        let mut fields = Fields::new(json, String::new());
        let (id, layout_name, layout, limit) = fields.start();
        let title = fields.text("title");
        let payloads = list(Some(fields.get("payloads")), |payload| match payload.get("refused") {
            Some(refused) => {
                let refused_with = list(payload.get("says"), text);
                Payload {
                    bytes: bytes(refused),
                    header: header(refused),
                    refused: Some(refused_with),
                }
            }
            None => Payload { bytes: bytes(payload), header: header(payload), refused: None },
        });
        let output = bytes(fields.get("output"));
        fields.done();
        WriteCase { id, title, layout_name, layout, limit, payloads, output }
    }
}

/// Returns what a case in both directions stands for: the same bytes read, and written.
fn both(json: &Value) -> (ReadCase, WriteCase) {
    let mut fields = Fields::new(json, String::new());
    let (id, layout_name, layout, limit) = fields.start();
    let title = fields.text("title");
    let output = bytes(fields.get("bytes"));
    let messages = messages(fields.get("messages"));
    fields.done();
    let payload = |(header, bytes): &(Vec<u8>, Vec<u8>)| Payload {
        bytes: bytes.clone(),
        header: header.clone(),
        refused: None,
    };
    let write = WriteCase {
        id: format!("{id}w"),
        title: title.clone(),
        layout_name: layout_name.clone(),
        layout,
        limit,
        payloads: messages.iter().map(payload).collect(),
        output: output.clone(),
    };
    let (headers, messages) = messages.into_iter().unzip();
    let read = ReadCase {
        id: format!("{id}r"),
        title,
        layout_name,
        layout,
        limit,
        input: output,
        pieces: Vec::new(),
        messages,
        headers,
        failure: None,
    };
    (read, write)
}

impl LimitCase {
    fn parse(json: &Value) -> LimitCase {
        let mut fields = Fields::new(json, String::new());
        let (id, _, layout, limit) = fields.start();
        let refused = fields.maybe("refused").map(|says| list(Some(says), text));
        fields.done();
        LimitCase { id, layout, limit, refused }
    }
}

impl fmt::Display for ReadCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.id, self.title)
    }
}

impl fmt::Display for WriteCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.id, self.title)
    }
}

/// Returns where in `input` frames and their payloads begin, as far as `layout` can tell: the
/// places where a cut is most likely to hurt.
pub(crate) fn seams(layout: Layout, input: &[u8]) -> Vec<usize> {
    let (mut seams, mut start) = (vec![0], 0);
    while let Ok(Decoded::Prefix { prefix, payload }) = layout.decode(&input[start..]) {
        let Some(end) = usize::try_from(payload)
            .ok()
            .and_then(|payload| payload.checked_add(start + prefix))
            .filter(|&end| end + layout.trailer_len() <= input.len())
        else {
            break;
        };
        start = end + layout.trailer_len();
        seams.extend([end - usize::try_from(payload).unwrap_or(0), end, start]);
    }
    seams.push(input.len());
    seams
}

/// The fields of an object, each of which has to be asked for.
struct Fields<'a> {
    left: Map<String, Value>,
    object: &'a Map<String, Value>,
    name: String,
}

impl<'a> Fields<'a> {
    fn new(json: &'a Value, name: String) -> Fields<'a> {
        let object = json.as_object().unwrap_or_else(|| panic!("{name}: no object: {json}"));
        let id = object.get("id").and_then(Value::as_str);
        let name = id.map_or(name, str::to_owned);
        Fields { left: object.clone(), object, name }
    }

    /// What all cases begin with.
    fn start(&mut self) -> (String, String, Layout, usize) {
        let id = self.text("id");
        let name = self.maybe("layout").map_or("u32be".into(), text);
        let layout = name.parse().unwrap_or_else(|error| panic!("{id}: {error}"));
        let limit = self.maybe("limit").map_or(DEFAULT_LIMIT, number);
        (id, name, layout, limit)
    }

    fn maybe(&mut self, field: &str) -> Option<&'a Value> {
        self.left.remove(field);
        self.object.get(field)
    }

    fn get(&mut self, field: &str) -> &'a Value {
        self.maybe(field).unwrap_or_else(|| panic!("{}: {field} is missing", self.name))
    }

    fn text(&mut self, field: &str) -> String {
        text(self.get(field))
    }

    /// A field that nobody knows is a typing error.
    fn done(self) {
        let left: Vec<_> = self.left.keys().collect();
        assert!(left.is_empty(), "{}: unknown fields: {left:?}", self.name);
    }
}

fn text(json: &Value) -> String {
    json.as_str().unwrap_or_else(|| panic!("no text: {json}")).to_owned()
}

fn number<N: TryFrom<u64>>(json: &Value) -> N {
    let number = json.as_u64().and_then(|number| number.try_into().ok());
    number.unwrap_or_else(|| panic!("no such number: {json}"))
}

fn list<T>(json: Option<&Value>, parse: impl Fn(&Value) -> T) -> Vec<T> {
    let Some(json) = json else { return Vec::new() };
    let list = json.as_array().unwrap_or_else(|| panic!("no list: {json}"));
    list.iter().map(parse).collect()
}

/// Reads a part, or a list of parts that belong together.
fn bytes(json: &Value) -> Vec<u8> {
    if json.is_array() {
        return list(Some(json), bytes).concat();
    }
    if let Some(text) = json["text"].as_str() {
        return text.into();
    }
    if let Some(digits) = json["hex"].as_str() {
        return hex(digits);
    }
    match json.get("repeat") {
        Some(part) => bytes(part).repeat(number(&json["times"])),
        None => panic!("no part: {json}"),
    }
}

/// Returns headers and payloads.
fn messages(json: &Value) -> Vec<(Vec<u8>, Vec<u8>)> {
    list(Some(json), |entry| match entry.get("again") {
        Some(again) => vec![messages(again); number(&entry["times"])].concat(),
        None => vec![(header(entry), bytes(entry))],
    })
    .concat()
}

/// Returns the header of a message; it is empty if there is none.
fn header(json: &Value) -> Vec<u8> {
    json.get("header").map_or(Vec::new(), bytes_or_hex)
}

fn bytes_or_hex(json: &Value) -> Vec<u8> {
    json.as_str().map_or_else(|| bytes(json), hex)
}

fn hex(digits: &str) -> Vec<u8> {
    digits
        .split_ascii_whitespace()
        .map(|pair| u8::from_str_radix(pair, 16).unwrap_or_else(|_| panic!("no byte: {pair}")))
        .collect()
}
