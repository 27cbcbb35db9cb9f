//! Which layouts read a stream, best first.
//!
//! A layout that fits by chance is the danger. Each candidate therefore has its evidence in bits: how many bits of
//! the stream could not have been otherwise if the layout is right. A length counts with the bits that decide
//! that its frame ends within the stream, and the last one with all of them if its frame ends where the stream does.

use std::sync::LazyLock;

use crate::wire::frame::whole_frame;
use crate::wire::layout::{Decoded, Layout, MAX_PAYLOAD, PRESETS, Preset};
use crate::wire::shape::{self, Shape};
use crate::wire::signature;

/// How much of a stream is judged, in bytes.
pub const JUDGED: usize = 1024 * 1024;

/// Without this many bits, a layout fits by chance too often. A 16-bit length that ends with the stream has them.
pub(crate) const ENOUGH: u32 = 11;

/// What is shown to a user who asks may be less sure: the evidence is shown, too.
const ENOUGH_TO_SHOW: u32 = 7;

/// Text is full of bytes that are lengths by chance.
const ENOUGH_IN_TEXT: u32 = 30;

/// What a frame shows of a protocol is evidence, too, in bits.
const BY_SHAPE: u32 = 12;

/// So many frames are enough to show it.
const SHOWN_BY: u32 = 4;

/// It is evidence against a layout that only one protocol has if its frames are not like those.
const DOUBT: u32 = 8;

/// A message of zeros, or an empty one, is evidence against a layout: zeros are in everything, and whatever follows
/// them begins where the layout would have it.
const FOR_ZEROS: u32 = 4;

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
    "lsp",
    "dec/3a:data:x2c",
    "dec/20",
    "dec/0a",
    "dec/0d0a",
    "x24:dec/0d0a:data:x0d0a",
    "dec4",
    "dec5",
    "dec6",
    "dec8",
    "hex4+self",
    "hex4",
    "hex8",
    "x0300:u16be+all",
    "x1234:u16be",
    "x30:ber",
    "x5a425844:h1:u32le:h4",
    "x02:u16be:data:x03",
    "h1:u32be+self",
    "h1:u32le+self",
    "h1:u32be",
    "h1:u32le",
    "h1:u24be",
    "h1:u16be",
    "h1:u16le",
    "h2:u32be",
    "h2:u32le",
    "h2:u16be",
    "h2:u16le",
    "h4:u16be",
    "h4:u16le",
    "h4:u16be:h2",
    "h4:u32be",
    "h4:u32le",
    "h5:u32be",
    "h8:u32be",
    "h8:u16le+all",
    "h16:u32le:h4",
    "u24le:h1",
    "u24be:h6",
    "h2:u16be+all",
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
    "u16be:h1",
    "u16be:h2",
    "u16be:data:h2",
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
    for preset in PRESETS {
        if let Ok(layout) = preset.notation.parse() {
            add(layout, 2);
        }
    }
    for usual in USUAL {
        if let Ok(layout) = usual.parse() {
            add(layout, if usual.starts_with('x') { 0 } else { 3 });
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

/// Returns whether text has a length before its first message, in digits, and possibly before the next ones.
pub(crate) fn has_lengths_in_text(text: &[u8], limit: usize) -> bool {
    TRIED
        .iter()
        .filter(|tried| tried.layout.has_text_length())
        .any(|tried| read(tried.layout, text, limit).is_some_and(|read| read.bits >= ENOUGH))
}

fn candidates_with(bytes: &[u8], limit: usize, enough: u32) -> Vec<Candidate> {
    let bytes = &bytes[..bytes.len().min(JUDGED)];
    let is_text = bytes.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n'));
    let mut candidates: Vec<Candidate> = TRIED
        .iter()
        .filter_map(|tried| {
            let Read { candidate: read, frames, .. } = read_frames(tried.layout, bytes, limit)?;
            let (preset, shown, doubt) = match shape::shape(tried.layout, &frames) {
                Shape::Preset(preset) => (
                    Some(preset),
                    BY_SHAPE
                        * u32::try_from(frames.len())
                            .map_or(SHOWN_BY, |frames| frames.min(SHOWN_BY)),
                    0,
                ),
                Shape::Open => (None, 0, 0),
                Shape::Doubtful => (None, 0, DOUBT),
            };
            let bits = (read.bits + shown).saturating_sub(tried.handicap + doubt);
            // Letters are lengths by chance, digits and what ends them are not.
            let by_letters = is_text && !tried.layout.has_text_length();
            let enough = if by_letters { ENOUGH_IN_TEXT } else { enough };
            (bits >= enough).then_some(Candidate { preset, bits, ..read })
        })
        .collect();
    candidates.sort_by_key(|of| (!of.is_exact, std::cmp::Reverse(of.bits)));
    candidates
}

/// Reads `bytes` as far as whole frames go. Returns nothing if they are not valid in `layout`, or prove nothing.
pub(crate) fn read(layout: Layout, bytes: &[u8], limit: usize) -> Option<Candidate> {
    read_frames(layout, bytes, limit).map(|read| read.candidate)
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
}

fn read_frames(layout: Layout, bytes: &[u8], limit: usize) -> Option<Read<'_>> {
    let (mut rest, mut frames) = (bytes, Vec::new());
    let (mut first, mut bits, mut last, mut zeros) = (None, 0, 0, 0);
    let (mut has_content, mut is_text) = (false, true);
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
        let is_zero = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
        last = 0;
        if !is_zero(extent.payload(frame)) {
            let proof = layout.proof(&frame[..prefix], &frame[extent.payload_end..]);
            let ends = (rest.len() - prefix + 1).ilog2();
            bits += proof.saturating_sub(ends);
            last = ends.min(proof);
            has_content = true;
        } else if payload > 0 || is_zero(frame) {
            zeros += FOR_ZEROS;
        }
        is_text &= signature::is_text(extent.payload(frame));
        first = first.or(Some(payload));
        frames.push(frame);
        rest = after;
    }
    let first = first.filter(|&first| first > 0 && has_content)?;
    let is_exact = rest.is_empty();
    let bits = bits.saturating_sub(zeros);
    let exactness = if is_exact { last } else { 0 };
    // Which side of a payload a header is on shows if the payload is text.
    let bits = bits + exactness + u32::from(is_text);
    let (messages, bytes) = (frames.len(), bytes.len() - rest.len());
    let candidate = Candidate { layout, preset: None, messages, bytes, is_exact, first, bits };
    Some(Read { candidate, frames, exactness })
}
