//! Where the first message of a stream begins, and which layouts read it from there.

use std::cmp::Reverse;

use crate::wire::ack::{FirstBytes, Hello};
use crate::wire::judge::{Candidate, judge};
use crate::wire::layout::Layout;
use crate::wire::signature::Known;
use crate::wire::text::is_printable;

/// So many bits of evidence leave no doubt.
///
/// # Examples
///
/// ```
/// use framelet::wire::{CERTAIN, judge};
///
/// let candidates = judge(b"\0\0\0\x05hello\0\0\0\x05world", true);
/// assert!(candidates[0].bits >= CERTAIN);
/// ```
pub const CERTAIN: u32 = 32;

/// So many leave none although many places were tried.
const BEYOND_CHANCE: u32 = 2 * CERTAIN;

/// How much of a stream with a beginning of an unknown kind is searched for the first message, in bytes.
const SEARCHED: usize = 16 * 1024;

/// The longest beginning of an unknown kind that is looked for, in bytes.
const UNKNOWN: usize = 64;

/// The longest line that is looked for, in bytes.
const LINE: usize = 256;

/// First bytes of protocols, and how many bytes precede their first message.
const PREAMBLES: [(&[u8], usize); 3] =
    [(b"\x13BitTorrent protocol", 68), (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24), (b"AMQP", 8)];

/// What was found out about a stream.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Detected {
    /// What its first bytes show.
    pub known: Option<Known>,
    /// How many bytes precede the first message.
    pub skip: usize,
    /// The layouts that read it from there, best first: how certain each is, its [`bits`](Candidate::bits) say. None if no
    /// layout reads it, or only by chance.
    pub candidates: Vec<Candidate>,
}

/// Finds out in which layouts a stream is, and where its first message begins. A line of text, the beginning of a known
/// protocol, or at most 64 bytes of any kind may precede it. The stream may end inside a message.
///
/// As in [`judge`], at most [`JUDGED`](crate::wire::JUDGED) bytes are judged, from where the first message begins.
///
/// # Examples
///
/// ```
/// use framelet::wire::{Detected, detect};
///
/// let stream = b"HELLO v1\r\n\0\0\0\x05hello\0\0\0\x05world\0\0\0\x05again";
/// let Detected { skip, candidates, .. } = detect(stream);
/// assert_eq!((skip, candidates[0].name().as_str()), (10, "u32be"));
/// ```
pub fn detect(stream: &[u8]) -> Detected {
    let known = Known::find(stream);
    let detected = |skip, candidates| Detected { known, skip, candidates };
    if known.is_some_and(|known| known.is_packet_capture()) {
        return detected(0, Vec::new());
    }
    let find = |skip: usize, ended, least| {
        let mut candidates = judge(&stream[skip..], ended);
        candidates.retain(|of| of.bits >= least || known.is_some_and(|known| is_in(of, known)));
        candidates
    };
    // What is known by its first bytes may still be read in a layout, but not by chance.
    let whole = find(0, true, if known.is_some() { CERTAIN } else { 0 });
    // A weak reading of many messages may be one by chance: wrong layouts fall into step with the messages after a few of
    // them. One message that is all there is may have others inside, which are not what is to be read.
    let is_one = whole.iter().any(|of| of.messages == 1);
    if most_bits(&whole) >= CERTAIN || is_one || known.is_some() && !whole.is_empty() {
        return detected(0, whole);
    }
    // A capture may end anywhere. The next message of a wrong layout is far longer than what is there.
    let find_cut = |skip, least| {
        let mut cut = find(skip, false, least);
        let most = cut.iter().map(|of| of.bytes).max();
        cut.retain(|of| Some(of.bytes) == most);
        cut
    };
    for skip in [Some(0), preamble(stream)].into_iter().flatten() {
        let cut = find_cut(skip, CERTAIN);
        if !cut.is_empty() {
            return detected(skip, cut);
        }
    }
    let start = &stream[..stream.len().min(SEARCHED)];
    if known.is_some() || start.iter().copied().all(is_printable) {
        return detected(0, whole);
    }
    // With so many places to begin, one is more likely to fit by chance.
    let bits = |skip: usize| most_bits(&judge(&start[skip..], false));
    let places = 1..=UNKNOWN.min(start.len().saturating_sub(1));
    let Some((BEYOND_CHANCE.., Reverse(skip))) =
        places.map(|skip| (bits(skip), Reverse(skip))).max()
    else {
        return detected(0, whole);
    };
    match find_cut(skip, BEYOND_CHANCE) {
        cut if cut.is_empty() => detected(0, whole),
        cut => detected(skip, cut),
    }
}

/// Returns the evidence for the candidate with the most of it.
fn most_bits(candidates: &[Candidate]) -> u32 {
    candidates.iter().map(|of| of.bits).max().unwrap_or_default()
}

/// Returns whether a layout is the one of the protocol that the first bytes show.
fn is_in(candidate: &Candidate, known: Known) -> bool {
    let layout = known.layout.and_then(|name| name.parse::<Layout>().ok());
    layout == Some(candidate.layout)
}

/// Returns how many bytes may precede the first message, if the stream looks like it has such.
fn preamble(stream: &[u8]) -> Option<usize> {
    let fixed = PREAMBLES.iter().find(|(start, _)| stream.starts_with(start)).map(|&(_, len)| len);
    let known = fixed.or_else(|| postgres(stream)).or_else(|| hello(stream));
    known.or_else(|| line(stream)).filter(|&len| len < stream.len())
}

/// The first message of a PostgreSQL client has no type, unlike the others: its length, then the version. Requests for
/// encryption may precede it, one of each kind.
fn postgres(stream: &[u8]) -> Option<usize> {
    const REQUESTS: [&[u8]; 2] = [&[0, 0, 0, 8, 4, 210, 22, 47], &[0, 0, 0, 8, 4, 210, 22, 48]];
    let is_request = |stream: &[u8]| REQUESTS.iter().any(|request| stream.starts_with(request));
    let mut at = 0;
    while at < 8 * REQUESTS.len() && is_request(&stream[at..]) {
        at += 8;
    }
    match stream[at..] {
        [a, b, c, d, 0, 3, 0, 0, ..] => {
            usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?.checked_add(at)
        }
        _ => (at > 0).then_some(at),
    }
}

/// What a framelet client sends that asks for acknowledgements.
fn hello(stream: &[u8]) -> Option<usize> {
    Layout::binary().find_map(|layout| match Hello::decode(layout, stream) {
        FirstBytes::Hello { len, .. } => Some(len),
        _ => None,
    })
}

/// A greeting.
fn line(stream: &[u8]) -> Option<usize> {
    let end = stream.iter().take(LINE).position(|&byte| byte == b'\n')?;
    stream[..end].iter().copied().all(is_printable).then_some(end + 1)
}
