//! Guesses what a stream that is not in the expected layout most likely is.
//!
//! A server that reads `GET ` as a length reports "1195725856 is over the limit", and its user raises the
//! limit. The bytes say more than that. This module is only used once a stream has failed, so it need not
//! be fast; and it only suggests, since no evidence here is proof.

use std::fmt;

use crate::wire::ack::{FirstBytes, Hello};
use crate::wire::count::Count;
use crate::wire::escape::Escaped;
use crate::wire::frame::whole_frame;
use crate::wire::judge::{self, Candidate, MANY};
use crate::wire::layout::{Decoded, Layout};
use crate::wire::signature::{Known, is_text};

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
        start: Vec<u8>,
    },
    /// Another layout, in which the same bytes are valid.
    Layout {
        /// That layout.
        layout: Layout,
        /// The length it reads where this layout reads another one.
        length: u64,
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
            Suspect::Layout { layout, .. } => Some(name(*layout)),
            _ => self.layout().map(|layout| layout.to_string()),
        }
    }
}

/// How much of a stream is examined, in bytes. More would not make the guess better.
pub(crate) const SAMPLE: usize = 4096;

/// How many bytes too many or too few are looked for.
const STRAY: usize = 8;

/// A layout that has worked is in doubt only if another one has this many bits of evidence.
const OVERWHELMING: u32 = 32;

/// A failed stream, with those of its bytes that are still in memory.
pub(crate) struct Evidence<'a> {
    /// The layout the stream was read with.
    pub(crate) layout: Layout,
    /// The longest payload it was allowed, in bytes.
    pub(crate) limit: usize,
    /// The number of the failing message.
    pub(crate) message: u64,
    /// How many bytes of the stream precede it.
    pub(crate) offset: u64,
    /// The bytes from the start of the failing frame; at least what was read of its prefix.
    pub(crate) frame: &'a [u8],
    /// All bytes from the start of the stream, if the failing frame is near it.
    pub(crate) stream: Option<&'a [u8]>,
    /// How many bytes of the failing payload are missing, if the stream ended inside it.
    pub(crate) missing: Option<u64>,
    /// Whether the stream ended, or was given up after a time: then nothing follows these bytes.
    pub(crate) ended: bool,
    /// Whether non-empty messages arrived before: then the layout is not in doubt.
    pub(crate) has_worked: bool,
    /// Whether more bytes arrived than are here: then it says nothing that a message ends with these.
    pub(crate) is_cut: bool,
}

/// Returns what the stream most likely is, or nothing if any answer would be a guess.
pub(crate) fn diagnose(evidence: &Evidence<'_>) -> Option<Suspect> {
    let start = evidence.stream.unwrap_or(evidence.frame);
    if matches!(Hello::decode(evidence.layout, start), FirstBytes::Hello { .. }) {
        return stray(evidence);
    }
    if evidence.has_worked {
        return after_messages(evidence);
    }
    hello(evidence.layout, start)
        .or_else(|| Known::find(start).map(Suspect::from))
        .or_else(|| best_layout(evidence))
        .or_else(|| missing_a_prefix(evidence))
        .or_else(|| text(evidence.frame))
        .or_else(|| possible_layout(evidence))
}

/// A layout that has already worked is only in doubt if another one reads the stream from its start, and much is
/// said for it.
fn after_messages(evidence: &Evidence<'_>) -> Option<Suspect> {
    let is_narrow = matches!(evidence.layout.width(), None | Some(1));
    let overwhelming = || {
        let stream = evidence.stream.filter(|_| evidence.message <= 3)?;
        let likeliest = [evidence.layout.other_count(), evidence.layout.other_order()];
        let like = likeliest.into_iter().flatten().find_map(|layout| {
            let read = judge::read(layout, stream, evidence.limit.max(1 << 20))?;
            (read.is_exact && !evidence.is_cut && read.messages > 1).then_some(read)
        });
        let best = || judge::candidates(stream, evidence.limit.max(1 << 20)).into_iter().next();
        let best = like.or_else(best)?;
        (best.is_exact && !evidence.is_cut && best.bits >= OVERWHELMING)
            .then(|| suggest(evidence.layout, best))
    };
    let (known, unknown) = match stray(evidence) {
        unknown @ (Some(Suspect::Extra { cause: Cause::Unknown, .. } | Suspect::Missing { .. })
        | None) => (None, unknown),
        known => (known, None),
    };
    let found = known.or_else(overwhelming).or(unknown);
    let here = evidence.layout.decode(evidence.frame);
    if matches!(here, Ok(Decoded::Prefix { payload, .. }) if payload <= evidence.limit as u64) {
        // Its prefix is as it should be: only the rest is missing or late.
        return found;
    }
    found
        // Nearly anything has messages in a narrow layout.
        .or_else(|| Known::find(evidence.stream.filter(|_| is_narrow)?).map(Suspect::from))
        .or_else(|| Known::find(evidence.frame).map(Suspect::from))
        .or_else(|| text(evidence.frame))
}

/// A hello is unmistakable, and one of another layout is over any limit in this one.
fn hello(layout: Layout, start: &[u8]) -> Option<Suspect> {
    let is_hello =
        |other: &Layout| matches!(Hello::decode(*other, start), FirstBytes::Hello { .. });
    let layout = Layout::binary().filter(|other| *other != layout).find(is_hello)?;
    Some(Suspect::Hello { layout })
}

/// The layout with the most evidence that reads the stream to its end. It is offered, so the advice has to work.
fn best_layout(evidence: &Evidence<'_>) -> Option<Suspect> {
    let stream = evidence.stream?;
    let mut best: Option<Candidate> = None;
    for candidate in judge::candidates(stream, evidence.limit.max(1 << 20)) {
        let goes_on = !evidence.ended || evidence.is_cut;
        let reads =
            (candidate.is_exact && !evidence.is_cut) || (goes_on && candidate.messages >= MANY);
        // Single short messages prove nothing if the length has one byte.
        let is_wide = candidate.layout.width() != Some(1) || candidate.messages > 1;
        if !reads || candidate.layout == evidence.layout || !is_wide {
            continue;
        }
        let is_alike = Some(candidate.layout) == evidence.layout.other_count()
            || Some(candidate.layout) == evidence.layout.other_order();
        // More may follow, so a single message ends here by chance, the more so if another is possible.
        let is_likely = || {
            let is_long = candidate.bits >= 13 && candidate.first >= 4;
            is_alike || (is_long && (candidate.bits >= 17 || possible_layout(evidence).is_none()))
        };
        if !evidence.ended && candidate.messages == 1 && !is_likely() {
            continue;
        }
        match &best {
            None => best = Some(candidate),
            // The difference that is smaller is the likelier one.
            Some(now) if is_alike && candidate.bits + 2 >= now.bits => best = Some(candidate),
            Some(_) => {}
        }
    }
    Some(suggest(evidence.layout, best?))
}

/// A payload that is short by exactly the length of its prefix: the sender includes the prefix in the length.
fn missing_a_prefix(evidence: &Evidence<'_>) -> Option<Suspect> {
    let (width, layout) = (evidence.layout.width()?, evidence.layout.other_count()?);
    (layout.counts_itself() && evidence.missing? == width as u64)
        .then_some(Suspect::Count { layout })
}

fn suggest(layout: Layout, candidate: Candidate) -> Suspect {
    if Some(candidate.layout) == layout.other_count() {
        return Suspect::Count { layout: candidate.layout };
    }
    Suspect::Layout { layout: candidate.layout, length: candidate.first }
}

/// A length that is impossible as it stands and small in the other byte order.
fn possible_layout(evidence: &Evidence<'_>) -> Option<Suspect> {
    let layout = evidence.layout.other_order()?;
    let Ok(Decoded::Prefix { payload, prefix }) = layout.decode(evidence.frame) else {
        return None;
    };
    let here = evidence.layout.decode(evidence.frame);
    let over =
        !matches!(here, Ok(Decoded::Prefix { payload, .. }) if payload <= evidence.limit as u64);
    let limit = evidence.limit.min(1 << 20);
    let possible = judge::read(layout, evidence.frame, limit).is_some() || {
        let payload = usize::try_from(payload).ok().filter(|len| (1..=limit).contains(len));
        payload.is_some_and(|payload| evidence.frame.len() < prefix + payload)
    };
    // More than the message came, or it ended early: then it is no such message.
    let ended = evidence.ended
        && !judge::read(layout, evidence.frame, limit).is_some_and(|read| read.is_exact);
    (over && possible && !ended).then_some(Suspect::PossibleLayout { layout, length: payload })
}

/// A few bytes too many or too few between two messages.
fn stray(evidence: &Evidence<'_>) -> Option<Suspect> {
    // In a narrow layout, nearly any bytes are messages.
    if evidence.message < 2 || evidence.layout.width() == Some(1) || evidence.frame.is_empty() {
        return None;
    }
    let message = evidence.message - 1;
    let last = last_message(evidence).unwrap_or_default();
    let extra = |bytes: &[u8]| {
        let cause = cause(last, bytes)?;
        Some(Suspect::Extra { message, bytes: bytes.len(), cause })
    };
    if evidence.ended && evidence.frame.len() <= STRAY {
        // Nothing follows that would prove it.
        return extra(evidence.frame)
            .filter(|extra| !matches!(extra, Suspect::Extra { cause: Cause::Unknown, .. }));
    }
    // A whole message, then another one, possibly after as many bytes again.
    let goes_on = |bytes: &[u8], extra: usize| {
        let read = |bytes| judge::read(evidence.layout, bytes, evidence.limit);
        let Some(extent) = whole_frame(evidence.layout, evidence.limit, bytes) else {
            return false;
        };
        let (now, rest) = bytes.split_at(extent.len);
        let bits = read(now).map_or(0, |read| read.bits);
        let next = read(rest).or_else(|| read(rest.get(extra..)?)).map(|read| read.bits);
        let is_end = rest.len() <= extra;
        (is_end || next.is_some()) && bits + next.unwrap_or(0) >= 16
    };
    if last.is_empty() && evidence.stream.is_some() {
        return None;
    }
    let frame = evidence.frame;
    if let Some(more) = (1..=STRAY.min(frame.len())).find(|&more| goes_on(&frame[more..], more)) {
        // By chance, two bytes are too often a length.
        let is_wide = evidence.layout.width() != Some(2);
        return extra(&frame[..more])
            .filter(|of| is_wide || !matches!(of, Suspect::Extra { cause: Cause::Unknown, .. }));
    }
    if frame.len() <= STRAY {
        return extra(frame)
            .filter(|extra| !matches!(extra, Suspect::Extra { cause: Cause::Unknown, .. }));
    }
    let stream = evidence.stream?;
    let at = usize::try_from(evidence.offset).ok().filter(|&at| at <= stream.len())?;
    let width = evidence.layout.width();
    let less = (1..=STRAY.min(last.len())).find(|&less| goes_on(&stream[at - less..], 0))?;
    (Some(less) != width).then_some(Suspect::Missing { message, bytes: less })
}

/// Returns the payload of the last whole message, if the stream is at hand.
fn last_message<'a>(evidence: &Evidence<'a>) -> Option<&'a [u8]> {
    let stream = evidence.stream?;
    let until = usize::try_from(evidence.offset).ok().filter(|&at| at <= stream.len())?;
    let mut rest = &stream[..until];
    if let FirstBytes::Hello { len, .. } = Hello::decode(evidence.layout, rest) {
        rest = &rest[len..];
    }
    let mut last = None;
    while let Some(extent) = whole_frame(evidence.layout, evidence.limit, rest) {
        last = Some(extent.payload(rest));
        rest = &rest[extent.len..];
    }
    last.filter(|_| rest.is_empty())
}

fn cause(last: &[u8], extra: &[u8]) -> Option<Cause> {
    // What is cut off is the end of the message, so that is counted, too.
    let count = |is: &dyn Fn(&u8) -> bool| last.iter().chain(extra).filter(|byte| is(byte)).count();
    let in_characters = count(&|byte| (0x80..0xc0).contains(byte));
    let is_utf8 = || std::str::from_utf8(&[last, extra].concat()).is_ok();
    Some(match extra {
        [] => return None,
        b"\n" => Cause::LineFeed,
        b"\r\n" => Cause::CrLf,
        b"\0" => Cause::Nul,
        _ if in_characters >= extra.len() && !last.is_empty() && is_utf8() => Cause::Characters,
        _ if is_utf8()
            && [last, extra].concat().windows(2).filter(|two| two == b"\r\n").count()
                == extra.len() =>
        {
            Cause::LineEnds
        }
        _ => Cause::Unknown,
    })
}

fn name(layout: Layout) -> String {
    judge::preset(layout).map_or_else(|| layout.to_string(), |preset| preset.name.into())
}

fn text(frame: &[u8]) -> Option<Suspect> {
    is_text(frame).then(|| Suspect::Text { start: frame[..frame.len().min(24)].to_vec() })
}

impl fmt::Display for Suspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Suspect::Known(known) => known.fmt(f),
            Suspect::Text { start } => write!(
                f,
                "this looks like text without a length prefix (\"{}\"): the sender may not be framing",
                Escaped(start)
            ),
            Suspect::Layout { layout, length } => match judge::preset(*layout) {
                Some(preset) => write!(f, "as {} ({layout}) it would be {length}", preset.name),
                None => write!(f, "as {layout} it would be {length}"),
            },
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

#[cfg(test)]
mod tests;
