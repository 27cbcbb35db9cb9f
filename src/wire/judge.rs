//! Which layouts read a stream, best first.
//!
//! A layout that fits by chance is the danger. Each candidate therefore has its evidence in bits: how many bits of
//! the stream could not have been otherwise if the layout is right. A length counts with the bits that decide
//! that its frame ends within the stream, and the last one with all of them if its frame ends where the stream does.

use std::sync::LazyLock;

use crate::wire::frame::whole_frame;
use crate::wire::layout::{Decoded, Layout, MAX_PAYLOAD, PRESETS, Preset};

/// How much of a stream is judged, in bytes.
pub const JUDGED: usize = 64 * 1024;

/// Without this many bits, a layout fits by chance too often. A 16-bit length that ends with the stream has them.
const ENOUGH: u32 = 11;

/// What is shown to a user who asks may be less sure: the evidence is shown, too.
const ENOUGH_TO_SHOW: u32 = 7;

/// Text is full of bytes that are lengths by chance.
const ENOUGH_IN_TEXT: u32 = 30;

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
    /// A protocol with this layout, if fixed bytes of it are in the stream.
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
    preset: Option<&'static Preset>,
    /// How many bits of evidence it takes to prefer it to a simple layout.
    handicap: u32,
}

/// Layouts that many protocols have, beside the plain ones and the presets.
const USUAL: [&str; 40] = [
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
    "x30:ber",
    "x5a425844:h1:u32le:h4",
    "h1:u32be+self",
    "h1:u32le+self",
    "h1:u32be",
    "h1:u32le",
    "h1:u16be",
    "h1:u16le",
    "h2:u32be",
    "h2:u32le",
    "h2:u16be",
    "h4:u16be",
    "h4:u16le",
    "h4:u32be",
    "h4:u32le",
    "h5:u32be",
    "h8:u32be",
    "h16:u32le:h4",
    "u24le:h1",
    "u24be:h6",
    "h2:u16be+all",
    "u32be:h1",
    "u32be:data:h4",
    "u32be:data:x0a",
    "u32be:data:x0d0a",
    "u16be:h1",
];

static TRIED: LazyLock<Vec<Tried>> = LazyLock::new(|| {
    let mut all: Vec<Tried> = Vec::new();
    let mut add = |layout: Layout, preset, handicap| {
        if !all.iter().any(|tried| tried.layout == layout) {
            all.push(Tried { layout, preset, handicap });
        }
    };
    // What varint reads as u8 does, and longer messages, too.
    let mut plain: Vec<Layout> = Layout::binary().collect();
    plain.sort_by_key(|layout| layout.width().is_some());
    plain.into_iter().for_each(|layout| add(layout, None, u32::from(layout.counts_itself())));
    for preset in PRESETS {
        if let Ok(layout) = preset.notation.parse() {
            add(layout, is_telling(preset.notation).then_some(preset), 2);
        }
    }
    for usual in USUAL {
        if let Ok(layout) = usual.parse() {
            add(layout, None, if usual.starts_with('x') { 0 } else { 3 });
        }
    }
    all
});

/// Returns the protocol with this layout, if no other one has it.
pub(crate) fn preset(layout: Layout) -> Option<&'static Preset> {
    TRIED.iter().find(|tried| tried.layout == layout)?.preset
}

/// Returns whether the bytes of a stream in this layout show the protocol: other protocols have the same order
/// of a header and a length, but not the same fixed bytes.
fn is_telling(notation: &str) -> bool {
    let fixed = |item: &str| item.len() >= 5 && item.starts_with('x') && !item.starts_with("x00");
    notation.split(':').any(fixed) || notation == "hex4+self"
}

/// Returns the layouts that read a stream, best first. `ended` says that no more follows; then a layout has to
/// read it to its end.
///
/// At most the first 64 KiB are judged; if `bytes` are more, that is not the end.
pub fn judge(bytes: &[u8], ended: bool) -> Vec<Candidate> {
    let ended = ended && bytes.len() <= JUDGED;
    let mut candidates = candidates_with(bytes, MAX_PAYLOAD, ENOUGH_TO_SHOW);
    candidates.retain(|of| of.is_exact || (!ended && of.messages >= MANY));
    candidates
}

/// Returns the layouts with enough evidence, best first, those too that do not read `bytes` to their end.
pub(crate) fn candidates(bytes: &[u8], limit: usize) -> Vec<Candidate> {
    candidates_with(bytes, limit, ENOUGH)
}

fn candidates_with(bytes: &[u8], limit: usize, enough: u32) -> Vec<Candidate> {
    let bytes = &bytes[..bytes.len().min(JUDGED)];
    let is_text = bytes.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n'));
    let mut candidates: Vec<Candidate> = TRIED
        .iter()
        .filter_map(|tried| {
            let read = read(tried.layout, bytes, limit)?;
            let bits = read.bits.saturating_sub(tried.handicap);
            // Letters are lengths by chance, digits and what ends them are not.
            let by_letters = is_text && !tried.layout.has_text_length();
            let enough = if by_letters { ENOUGH_IN_TEXT } else { enough };
            (bits >= enough).then_some(Candidate { preset: tried.preset, bits, ..read })
        })
        .collect();
    candidates.sort_by_key(|of| (!of.is_exact, std::cmp::Reverse(of.bits)));
    candidates
}

/// Reads `bytes` as far as whole frames go. Returns nothing if they are not valid in `layout`, or prove nothing.
pub(crate) fn read(layout: Layout, bytes: &[u8], limit: usize) -> Option<Candidate> {
    let (mut rest, mut messages, mut first, mut bits, mut last) = (bytes, 0, None, 0, 0);
    let mut has_content = false;
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
        let proof = layout.proof(&rest[..prefix], &rest[extent.payload_end..extent.len]);
        let ends = (rest.len() - prefix + 1).ilog2();
        // An empty message may be any zeros.
        if payload > 0 {
            bits += proof.saturating_sub(ends);
            last = ends.min(proof);
        } else {
            last = 0;
        }
        has_content |= extent.payload(rest).iter().any(|&byte| byte != 0);
        first = first.or(Some(payload));
        messages += 1;
        rest = &rest[extent.len..];
    }
    let is_exact = rest.is_empty();
    let bits = if is_exact { bits + last } else { bits };
    // Zeros are messages in any layout, so they prove nothing.
    let first = first.filter(|&first| first > 0 && has_content)?;
    let bytes = bytes.len() - rest.len();
    Some(Candidate { layout, preset: None, messages, bytes, is_exact, first, bits })
}
