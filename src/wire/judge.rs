//! Which layouts read a stream, best first.
//!
//! A layout that fits by chance is the danger. Each candidate therefore has its evidence in bits: how many bits of
//! the stream could not have been otherwise if the layout is right. A length counts with the bits that decide
//! that its frame ends within the stream, and the last one with all of them if its frame ends where the stream does.

use std::sync::LazyLock;

use crate::wire::frame::whole_frame;
use crate::wire::layout::{Decoded, Layout, MAX_PAYLOAD, PRESETS, Part, Preset};
use crate::wire::shape::{self, Shape};
use crate::wire::text;

/// How much of a stream is judged, in bytes.
pub const JUDGED: usize = 1024 * 1024;

/// Without this many bits, a layout fits by chance too often. A 16-bit length that ends with the stream has them.
pub(crate) const ENOUGH: u32 = 11;

/// What is shown to a user who asks may be less sure: the evidence is shown, too.
const ENOUGH_TO_SHOW: u32 = 7;

/// Text is full of bytes that are lengths by chance.
const ENOUGH_IN_TEXT: u32 = 30;

/// After an empty message, which is what zeros before anything look like, the others have to leave no doubt, and most of
/// them must have content: half of each longer length is an empty message, too.
const ENOUGH_AFTER_ZEROS: u32 = 64;

/// What a frame shows of a protocol is evidence, too, in bits.
const BY_SHAPE: u32 = 12;

/// So many frames are enough to show it.
const SHOWN_BY: u32 = 4;

/// It is evidence against a layout that only one protocol has if its frames are not like those.
const DOUBT: u32 = 8;

/// A message of zeros, or an empty one, is evidence against a layout: zeros are in everything, and whatever follows
/// them begins where the layout would have it.
const FOR_ZEROS: u32 = 4;

/// Zeros beside a single message that its length does not count are more likely part of something else: of data, or of
/// an empty message. Only a text may end with one, as in C.
const FOR_ZEROS_BESIDE: u32 = 16;

/// With so many bits, fewer whole messages are enough for the last one to be incomplete.
const ENOUGH_IF_CUT: u32 = 16;

/// After this many whole messages, the last one may be incomplete.
pub(crate) const MANY: usize = 4;

/// A layout that reads a stream.
///
/// # Examples
///
/// ```
/// use framelet::wire::judge;
///
/// let [best, ..] = &judge(b"\x05\0\0\0hello\x05\0\0\0world", true)[..] else { panic!("nothing fits") };
/// assert_eq!(best.name(), "u32le");
/// assert_eq!((best.messages, best.bytes, best.is_exact), (2, 18, true));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Candidate {
    /// The layout.
    pub layout: Layout,
    /// The protocol with this layout that the messages show, if they show one.
    pub preset: Option<&'static Preset>,
    /// How many whole messages it reads.
    pub messages: usize,
    /// How many bytes they are, with all that frames them.
    pub bytes: usize,
    /// Whether the last message ends with the stream.
    pub is_exact: bool,
    /// The length of the first payload, in bytes.
    pub first: u64,
    /// The evidence: that it fits by chance is about as likely as this many tosses of a coin.
    pub bits: u32,
    /// Whether it cuts the text of every message in two, a header and the payload: then its length is too small.
    pub cuts_text: bool,
}

impl Candidate {
    /// Returns the text form of the layout: the name of the protocol, or else the notation.
    pub fn name(&self) -> String {
        self.preset.map_or_else(|| self.layout.to_string(), |preset| preset.name.into())
    }
}

/// A layout to try.
struct Tried {
    layout: Layout,
    /// How many bits of evidence it takes to prefer it to a simple layout.
    handicap: u32,
}

/// Layouts that many protocols have, beside the plain ones and the presets.
const USUAL: &[&str] = &[
    "dec/20:data:x0a",
    "dec/0a",
    "dec/0a:data:x0a",
    "dec/0d0a",
    "dec/3a",
    "dec/3a:data:x0a",
    "dec/2c",
    "dec/3b",
    "dec/7c",
    "dec/09",
    "dec5",
    "dec6",
    "dec8",
    "dec10",
    "dec4+self",
    "dec6+self",
    "dec8+self",
    "dec10+self",
    "hex8",
    "hex8+self",
    "x1234:u16be",
    "x02:u16be:data:x03",
    "h1:u32le+self",
    "h1:u32le",
    "h1:u24be",
    "h1:u24le",
    "h1:u16be",
    "h1:u16le",
    "h2:u32le",
    "h2:u16be",
    "h2:u16le",
    "h4:u16be",
    "h4:u16le",
    "h4:u16be:h2",
    "h4:u32le",
    "h8:u16le+all",
    "u32be:h1",
    "u32be:h4",
    "u32le:h1",
    "u32le:h4",
    "u32be:data:h2",
    "u32be:data:h4",
    "u32le:data:h4",
    "u32be:data:x00",
    "u32be:data:x0a",
    "u32be:data:x0d0a",
    "u32le:data:x00",
    "u32le:data:x0a",
    "u32le:data:x0d0a",
    "u16be:h1",
    "u16be:h2",
    "u16be:data:h2",
    "u16be:data:x0a",
    "u16be:data:x0d0a",
];

static TRIED: LazyLock<Vec<Tried>> = LazyLock::new(|| {
    let mut all: Vec<Tried> = Vec::new();
    let mut add = |layout: Layout, handicap| {
        if !all.iter().any(|tried| tried.layout == layout) {
            all.push(Tried { layout, handicap });
        }
    };
    // What varint reads as u8 does, and longer messages, too.
    let mut plain: Vec<Layout> = Layout::binary().collect();
    plain.sort_by_key(|layout| layout.width().is_some());
    plain.into_iter().for_each(|layout| add(layout, u32::from(layout.counts_itself())));
    // Digits that are decimal are more likely meant so.
    let hexadecimal = |notation: &str| u32::from(notation.starts_with("hex"));
    for preset in PRESETS {
        if let Ok(layout) = preset.notation.parse() {
            add(layout, 2 + hexadecimal(preset.notation));
        }
    }
    for usual in USUAL {
        if let Ok(layout) = usual.parse() {
            add(layout, if usual.starts_with('x') { 0 } else { 3 + hexadecimal(usual) });
        }
    }
    all
});

/// Returns the layouts that read a stream, best first. `ended` says that no more follows; then a layout has to
/// read it to its end. If more may follow, the last message may be incomplete, but then several have to be whole.
///
/// At most the first [`JUDGED`] bytes are judged; if `bytes` are more, that is not the end.
///
/// # Examples
///
/// The start of a file:
///
/// ```
/// use framelet::wire::{JUDGED, judge};
/// use std::io::Read;
///
/// # let file = tempfile::NamedTempFile::new()?;
/// # let path = file.path();
/// # std::fs::write(path, b"\x05\0\0\0hello\x05\0\0\0world")?;
/// let mut start = Vec::new();
/// std::fs::File::open(path)?.take(JUDGED as u64 + 1).read_to_end(&mut start)?;
/// let candidates = judge(&start, true);
/// assert!(candidates.iter().any(|candidate| candidate.name() == "u32le"));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn judge(bytes: &[u8], ended: bool) -> Vec<Candidate> {
    let ended = ended && bytes.len() <= JUDGED;
    let mut candidates = candidates_with(bytes, MAX_PAYLOAD, ENOUGH_TO_SHOW);
    let is_enough = |of: &Candidate| of.messages >= MANY || of.bits >= ENOUGH_IF_CUT;
    candidates.retain(|of| of.is_exact || (!ended && is_enough(of)));
    candidates
}

/// Returns the layouts with enough evidence, best first, those too that do not read `bytes` to their end.
pub(crate) fn candidates(bytes: &[u8], limit: usize) -> Vec<Candidate> {
    candidates_with(bytes, limit, ENOUGH)
}

/// Returns whether text has a length before its first message, in digits, and possibly before the next ones, or in
/// letters before each, up to the end.
pub(crate) fn has_lengths_in_text(text: &[u8], limit: usize) -> bool {
    TRIED
        .iter()
        .filter_map(|tried| Some(read_frames(tried.layout, text, limit)?.candidate))
        .filter(|read| read.first > 0)
        .any(|read| match read.layout.has_text_length() {
            true => read.bits >= ENOUGH,
            false => read.is_exact && read.layout.is_varint(),
        })
}

fn candidates_with(bytes: &[u8], limit: usize, enough: u32) -> Vec<Candidate> {
    let bytes = &bytes[..bytes.len().min(JUDGED)];
    let is_text = bytes.iter().copied().all(text::is_printable);
    let mut candidates: Vec<Candidate> = TRIED
        .iter()
        .filter_map(|tried| {
            let Read { candidate: read, frames, few_empty, beside_zeros, .. } =
                read_frames(tried.layout, bytes, limit)?;
            let (preset, shown, doubt) = match shape::shape(tried.layout, &frames) {
                Shape::Preset(preset) => (
                    Some(preset),
                    BY_SHAPE
                        * u32::try_from(frames.len())
                            .map_or(SHOWN_BY, |frames| frames.min(SHOWN_BY)),
                    0,
                ),
                Shape::Open | Shape::Doubtful if beside_zeros => (None, 0, FOR_ZEROS_BESIDE),
                Shape::Open => (None, 0, 0),
                Shape::Doubtful => (None, 0, DOUBT),
            };
            let bits = (read.bits + shown).saturating_sub(tried.handicap + doubt);
            // Letters are lengths by chance, digits and what ends them are not.
            let by_letters = is_text && !tried.layout.has_text_length();
            let enough = if by_letters { ENOUGH_IN_TEXT } else { enough };
            // A length of zero first is what zeros before anything look like.
            let begins = read.first > 0
                || (few_empty && bits >= ENOUGH_AFTER_ZEROS)
                || counts_more(tried.layout)
                || preset.is_some();
            (begins && bits >= enough).then_some(Candidate { preset, bits, ..read })
        })
        .collect();
    candidates.sort_by_key(|of| (!of.is_exact, of.cuts_text, std::cmp::Reverse(of.bits)));
    candidates
}

/// Returns how much is said for a layout by `bytes`, which are whole frames of it because more did not fit.
pub(crate) fn confirmed(layout: Layout, bytes: &[u8], limit: usize) -> u32 {
    read_frames(layout, bytes, limit).map_or(0, |read| read.candidate.bits - read.exactness)
}

/// What was read in a layout.
struct Read<'a> {
    candidate: Candidate,
    frames: Vec<&'a [u8]>,
    /// Those of the bits that are due to the end of the stream.
    exactness: u32,
    /// Whether few of the messages are empty.
    few_empty: bool,
    /// Whether it is one message, with zeros beside it that its length does not count.
    beside_zeros: bool,
}

/// Reads `bytes` as far as whole frames go. Returns nothing if they are not valid in `layout`, or prove nothing.
fn read_frames(layout: Layout, bytes: &[u8], limit: usize) -> Option<Read<'_>> {
    let (mut rest, mut frames) = (bytes, Vec::new());
    let (mut first, mut bits, mut last, mut zeros) = (None, 0, 0, 0);
    let (mut has_content, mut is_text) = (false, true);
    let headers = Adjoining::of(layout);
    let (mut cuts, mut filled, mut empty) = (0, 0, 0);
    let mut beside_zeros = true;
    while !rest.is_empty() {
        let (prefix, payload) = match layout.decode(rest) {
            Ok(Decoded::Prefix { prefix, payload }) => (prefix, payload),
            Ok(Decoded::Incomplete { .. }) => break,
            Err(_) => return None,
        };
        if usize::try_from(payload).ok().is_none_or(|payload| payload > limit) {
            return None;
        }
        let Some(extent) = whole_frame(layout, limit, rest) else {
            // Its trailer is wrong, or it is not all there.
            let len = prefix + usize::try_from(payload).ok()? + layout.trailer_len();
            if len <= rest.len() {
                return None;
            }
            break;
        };
        let (frame, after) = rest.split_at(extent.len);
        let content = extent.payload(frame);
        empty += usize::from(content.is_empty());
        let proof = layout.proof(&frame[..prefix], &frame[extent.payload_end..]);
        if shows_length(layout, content, proof) {
            let ends = (rest.len() - prefix + 1).ilog2();
            bits += proof.saturating_sub(ends);
            last = ends.min(proof);
            has_content |= !content.is_empty();
        } else if content.is_empty() {
            // A message of which nothing is there ends where the one before it does.
            zeros += if is_zero(frame) { FOR_ZEROS } else { 0 };
        } else {
            zeros += if is_zero(content) { FOR_ZEROS } else { 0 };
            last = 0;
        }
        beside_zeros &= headers.before && frame[prefix - 1] == 0
            || layout.trailer_len() > 0 && is_zero(&frame[extent.payload_end..]);
        if headers.cut_text(&frame[..prefix], content, &frame[extent.payload_end..]) {
            cuts += 1;
        }
        filled += usize::from(!content.is_empty());
        is_text &= text::is_text(content);
        first = first.or(Some(payload));
        frames.push(frame);
        rest = after;
    }
    let first = first.filter(|_| has_content)?;
    let is_exact = rest.is_empty();
    let beside_zeros = beside_zeros && frames.len() == 1 && (headers.after || !is_text);
    let bits = bits.saturating_sub(zeros);
    let exactness = if is_exact { last } else { 0 };
    // Which side of a payload a header is on shows if the payload is text.
    let bits = bits + exactness + u32::from(is_text);
    let (messages, bytes) = (frames.len(), bytes.len() - rest.len());
    // By chance, one letter is beside others in some messages, and several hardly ever are.
    let cuts_text = cuts > 0 && (cuts == filled || (headers.header > 1 && 2 * cuts >= filled));
    let candidate =
        Candidate { layout, preset: None, messages, bytes, is_exact, first, bits, cuts_text };
    Some(Read { candidate, few_empty: 8 * empty <= messages, frames, exactness, beside_zeros })
}

/// Returns whether the length of a frame with this payload would be another one if the layout were wrong. So many bits
/// of the frame are decided by the layout.
fn shows_length(layout: Layout, payload: &[u8], proof: u32) -> bool {
    let is_narrow = proof <= 8;
    match payload {
        [] => counts_more(layout) && !is_narrow,
        // Every number below 512 looks like a byte with its length before it.
        [_] if is_narrow => false,
        // A column of numbers is full of lengths.
        _ if layout.ends_length_with_text() => {
            !payload.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_whitespace())
        }
        _ => !is_zero(payload),
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// Returns whether even an empty payload has a length that is not zero. In text, what would be less is a marker.
fn counts_more(layout: Layout) -> bool {
    layout.counts_more() && !layout.has_text_length()
}

/// Which sides of a payload have bytes of a header, with nothing between.
struct Adjoining {
    before: bool,
    /// How many bytes of it precede the payload.
    header: usize,
    after: bool,
}

impl Adjoining {
    /// A header before the length is not cut off from the payload, since that is between them.
    fn of(layout: Layout) -> Adjoining {
        let parts = layout.parts();
        let at = parts.iter().position(|part| matches!(part, Part::Payload)).unwrap_or(0);
        let header = |part: Option<&Part>| match part {
            Some(Part::Header { len }) => *len,
            _ => 0,
        };
        let before = header(at.checked_sub(1).and_then(|at| parts.get(at)));
        let after = header(parts.get(at + 1)) > 0;
        Adjoining { before: before > 0, header: before, after }
    }

    fn cut_text(&self, prefix: &[u8], payload: &[u8], trailer: &[u8]) -> bool {
        let is_letter = |byte: &u8| matches!(byte, b' '..=b'~');
        let is_text = payload.iter().all(|byte| *byte >= b' ' || byte.is_ascii_whitespace());
        // One letter beside other bytes says nothing, more of them do.
        let begins = self.before
            && prefix[prefix.len() - self.header..].iter().chain(payload.first()).all(is_letter)
            && (is_text || self.header > 1);
        begins || (self.after && is_text && trailer.iter().all(is_letter))
    }
}
