//! Finds a few bytes too many or too few between two messages of a layout that is right.

use crate::wire::ack::{FirstBytes, Hello};
use crate::wire::evidence::Evidence;
use crate::wire::frame::whole_frame;
use crate::wire::judge::{self, ENOUGH};
use crate::wire::layout::{Decoded, Layout};
use crate::wire::suspect::{Cause, Suspect};
use crate::wire::text::is_text;

/// How many bytes too many or too few are looked for.
const STRAY: usize = 8;

/// How many messages before the failing one may have been wrong already: zeros are messages, too.
const BACK: usize = 3;

/// What follows a stray byte must have this many bits of evidence; more if nothing is known of that byte.
const PROVEN: (u32, u32) = (16, 20);

/// A few bytes too many or too few between two messages.
pub(crate) fn stray(evidence: &Evidence<'_>) -> Option<Suspect> {
    let layout = evidence.layout;
    // In a narrow layout, nearly any bytes are messages.
    let is_narrow = layout.width() == Some(1) || layout.is_varint();
    if evidence.message < 2 || is_narrow || evidence.frame().is_empty() {
        return None;
    }
    let Some(stream) = evidence.stream() else {
        return extra(evidence, evidence.bytes, &[], evidence.message - 1);
    };
    let mut ends = ends(evidence, stream);
    let start = ends.remove(0);
    for (back, &(end, last)) in (0..BACK as u64).zip(ends.iter().rev()) {
        let confirmed = judge::confirmed(layout, &stream[start.0..end], evidence.limit);
        if confirmed < ENOUGH && !is_text(last) {
            continue;
        }
        let Some(message) = (evidence.message - 1).checked_sub(back).filter(|&message| message > 0)
        else {
            break;
        };
        let found = extra(evidence, &stream[end..], last, message)
            .or_else(|| missing(evidence, stream, end, last, message));
        if found.is_some() {
            return found;
        }
    }
    None
}

/// Returns where each whole message ends, and its payload; first where the first one starts.
fn ends<'a>(evidence: &Evidence<'_>, stream: &'a [u8]) -> Vec<(usize, &'a [u8])> {
    let mut at = match Hello::decode(evidence.layout, stream) {
        FirstBytes::Hello { len, .. } => len,
        _ => 0,
    };
    let mut ends = vec![(at, &stream[..0])];
    let until = &stream[..evidence.frame_at];
    while let Some(extent) =
        until.get(at..).and_then(|rest| whole_frame(evidence.layout, evidence.limit, rest))
    {
        let payload = extent.payload(&until[at..]);
        at += extent.len;
        ends.push((at, payload));
    }
    ends
}

/// `last` is the payload before `rest`, if it is known.
fn extra(evidence: &Evidence<'_>, rest: &[u8], last: &[u8], message: u64) -> Option<Suspect> {
    let suspect = |bytes, cause| Suspect::Extra { message, bytes, cause };
    if !evidence.is_cut && rest.len() <= STRAY {
        // Nothing follows that would prove it.
        let cause = causes(last, rest).next().filter(|cause| match cause {
            Cause::Unknown => false,
            // Zeros are in everything.
            Cause::Nul => is_text(last),
            _ => true,
        })?;
        return Some(suspect(rest.len(), cause));
    }
    (1..=STRAY.min(rest.len())).find_map(|more| {
        let (stray, rest) = rest.split_at(more);
        let each =
            |more, last_may_lack_it| resume(evidence, rest, |_, _| Some(more), 0, last_may_lack_it);
        let is_proven = |cause: &Cause| {
            let enough = match cause {
                // Small numbers look like lengths, and are full of zeros. Text is not.
                Cause::Unknown if !is_text(last) => 2 * PROVEN.1,
                Cause::Unknown => PROVEN.1,
                Cause::LineFeed | Cause::CrLf if is_text(last) => ENOUGH,
                _ => PROVEN.0,
            };
            let bits = match cause {
                Cause::Characters => resume(evidence, rest, characters, 0, false),
                Cause::LineEnds => resume(evidence, rest, line_ends, 0, false),
                Cause::Unknown => {
                    each(more, false).or_else(|| each(0, false).filter(|&bits| bits >= 2 * enough))
                }
                _ => each(more, true).or_else(|| each(0, true)),
            };
            bits.is_some_and(|bits| bits >= enough)
        };
        causes(last, stray).find(is_proven).map(|cause| suspect(more, cause))
    })
}

fn missing(
    evidence: &Evidence<'_>,
    stream: &[u8],
    end: usize,
    last: &[u8],
    message: u64,
) -> Option<Suspect> {
    (1..=STRAY.min(last.len())).find_map(|less| {
        let rest = &stream[end - less..];
        let bits = resume(evidence, rest, |_, _| Some(0), less, false)
            .or_else(|| resume(evidence, rest, |_, _| Some(0), 0, false))?;
        // What was read of the next prefix is not part of the message.
        let enough = match is_text(&last[..last.len() - less]) {
            true => PROVEN.0,
            false => 2 * PROVEN.0,
        };
        (bits >= enough).then_some(Suspect::Missing { message, bytes: less })
    })
}

/// Reads on to the end. Given the bytes from the start of a payload and its length, `more` says how many bytes after
/// it are not counted; or every payload is `less` bytes shorter than its length says. Returns the evidence in bits if
/// that works.
fn resume(
    evidence: &Evidence<'_>,
    mut rest: &[u8],
    more: impl Fn(&[u8], usize) -> Option<usize>,
    less: usize,
    last_may_lack_it: bool,
) -> Option<u32> {
    let (mut bits, mut last) = (0, 0);
    while !rest.is_empty() {
        let (prefix, payload) = sizes(evidence.layout, rest, evidence.limit)?;
        let end = (prefix + payload + evidence.layout.trailer_len()).checked_sub(less)?;
        let Some(after) = rest.get(end..).filter(|_| prefix <= end) else {
            // The last message may be incomplete if more follows.
            return (evidence.is_cut && bits > 0).then_some(bits);
        };
        // Zeros are in everything.
        if rest[prefix..end].iter().any(|&byte| byte != 0) {
            let proof = evidence.layout.proof(&rest[..prefix], &[]);
            let ends = (rest.len() - prefix + 1).ilog2();
            last = ends.min(proof);
            bits += proof.saturating_sub(ends);
        }
        rest = match after.get(more(&rest[prefix..], payload)?..) {
            Some(rest) => rest,
            None if last_may_lack_it && after.is_empty() => after,
            None => return None,
        };
    }
    (bits > 0 || last > 0).then_some(bits + last)
}

/// Returns how many bytes more than its characters a text of `len` characters has.
fn characters(bytes: &[u8], len: usize) -> Option<usize> {
    let starts = bytes.iter().enumerate().filter(|(_, byte)| **byte & 0xc0 != 0x80);
    starts.map(|(at, _)| at).chain([bytes.len()]).nth(len)?.checked_sub(len)
}

/// Returns how many bytes longer a text has become in which line feeds were counted as one byte each.
fn line_ends(bytes: &[u8], len: usize) -> Option<usize> {
    let is_added = |at: &usize| bytes[*at..].starts_with(b"\r\n");
    (0..bytes.len()).filter(|at| !is_added(at)).chain([bytes.len()]).nth(len)?.checked_sub(len)
}

/// Returns the lengths of a prefix and of its payload.
fn sizes(layout: Layout, bytes: &[u8], limit: usize) -> Option<(usize, usize)> {
    let Ok(Decoded::Prefix { prefix, payload }) = layout.decode(bytes) else { return None };
    let payload = usize::try_from(payload).ok().filter(|&payload| payload <= limit)?;
    Some((prefix, payload))
}

/// Returns why a message may be longer than its length says, given its counted bytes and those that follow.
fn causes(last: &[u8], extra: &[u8]) -> impl Iterator<Item = Cause> {
    // What is cut off is the end of the message, so that is counted, too.
    let count = |is: &dyn Fn(&u8) -> bool| last.iter().chain(extra).filter(|byte| is(byte)).count();
    let in_characters = count(&|byte| (0x80..0xc0).contains(byte));
    let is_utf8 = || std::str::from_utf8(&[last, extra].concat()).is_ok();
    let has_more_line_ends = || {
        let line_ends = [last, extra].concat().windows(2).filter(|two| two == b"\r\n").count();
        line_ends == extra.len() && is_utf8()
    };
    let (first, second) = match extra {
        [] => (None, None),
        b"\n" if has_more_line_ends() => (Some(Cause::LineEnds), None),
        b"\n" => (Some(Cause::LineFeed), None),
        b"\r\n" => (Some(Cause::CrLf), has_more_line_ends().then_some(Cause::LineEnds)),
        b"\0" => (Some(Cause::Nul), None),
        _ if in_characters >= extra.len() && !last.is_empty() && is_utf8() => {
            (Some(Cause::Characters), None)
        }
        _ if has_more_line_ends() => (Some(Cause::LineEnds), None),
        _ => (Some(Cause::Unknown), None),
    };
    first.into_iter().chain(second)
}
