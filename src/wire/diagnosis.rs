//! Guesses what a stream that is not in the expected layout most likely is.
//!
//! A server that reads `GET ` as a length reports "1195725856 is over the limit", and its user raises the
//! limit. The bytes say more than that. This module is only used once a stream has failed, so it need not
//! be fast; and it only suggests, since no evidence here is proof.

use crate::wire::ack::{FirstBytes, Hello};
use crate::wire::evidence::{Evidence, SAMPLE};
use crate::wire::judge::{self, Candidate, ENOUGH, MANY};
use crate::wire::layout::{Decoded, Layout};
use crate::wire::signature::Known;
use crate::wire::stray::stray;
use crate::wire::suspect::{Cause, Suspect};
use crate::wire::text::is_text;

/// Returns what the stream most likely is, or nothing if any answer would be a guess.
pub(crate) fn diagnose(evidence: &Evidence<'_>) -> Option<Suspect> {
    if !cfg!(feature = "detect") {
        return at_a_glance(evidence);
    }
    if matches!(Hello::decode(evidence.layout, evidence.bytes), FirstBytes::Hello { .. }) {
        return stray(evidence);
    }
    if evidence.has_worked {
        return after_messages(evidence);
    }
    hello(evidence.layout, evidence.bytes)
        .or_else(|| Known::find(evidence.bytes).map(Suspect::from))
        .or_else(|| best_layout(evidence, 0))
        .or_else(|| missing_a_prefix(evidence))
        .or_else(|| text(evidence))
        .or_else(|| possible_layout(evidence))
}

/// What can be said of the start of a stream without judging layouts.
fn at_a_glance(evidence: &Evidence<'_>) -> Option<Suspect> {
    if evidence.message > 1 {
        return None;
    }
    let start = evidence.frame();
    // It may have lengths in text: in digits, or as in Redis and LSP.
    let has_lengths = matches!(start.first(), Some(b'0'..=b'9' | b'*' | b'$' | b'C'));
    hello(evidence.layout, start)
        .or_else(|| Known::find(start).map(Suspect::from))
        .or_else(|| missing_a_prefix(evidence))
        .or_else(|| {
            (is_text(start) && !has_lengths)
                .then(|| Suspect::Text { start: first_of(start).into(), after: 0 })
        })
        .or_else(|| {
            let (layout, length, _) = in_other_order(evidence)?;
            Some(Suspect::PossibleLayout { layout, length })
        })
}

/// A layout that has already worked is only in doubt if more is said for something else.
fn after_messages(evidence: &Evidence<'_>) -> Option<Suspect> {
    let confirmed = evidence.confirmed();
    let is_confirmed = confirmed >= ENOUGH;
    let other = || {
        let start = evidence.stream()?;
        hello(evidence.layout, start)
            .or_else(|| Known::find(start).filter(|_| !is_confirmed).map(Suspect::from))
            .or_else(|| best_layout(evidence, confirmed))
            .or_else(|| lines(start).filter(|_| !is_confirmed))
    };
    let (known, unknown) = match stray(evidence) {
        unknown @ (Some(Suspect::Extra { cause: Cause::Unknown, .. } | Suspect::Missing { .. })
        | None) => (None, unknown),
        known => (known, None),
    };
    let found = known.or_else(other).or(unknown);
    let here = evidence.layout.decode(evidence.frame());
    if matches!(here, Ok(Decoded::Prefix { payload, .. }) if payload <= evidence.limit as u64) {
        // Its prefix is as it should be: only the rest is missing or late.
        return found;
    }
    // What is text may also be the rest of the last message.
    let frame = evidence.frame();
    let is_other = |known: &Known| !(known.is_unframed() && is_text(&frame[..frame.len().min(12)]));
    let known = || Known::find(frame).filter(is_other).map(Suspect::from);
    found.or_else(known).or_else(|| text(evidence))
}

/// A hello is unmistakable, and one of another layout is over any limit in this one.
fn hello(layout: Layout, start: &[u8]) -> Option<Suspect> {
    let is_hello =
        |other: &Layout| matches!(Hello::decode(*other, start), FirstBytes::Hello { .. });
    let layout = Layout::binary().filter(|other| *other != layout).find(is_hello)?;
    Some(Suspect::Hello { layout })
}

/// The layout with the most evidence that reads the stream to its end. It is offered, so the advice has to work.
/// `confirmed` is the evidence for the expected layout.
fn best_layout(evidence: &Evidence<'_>, confirmed: u32) -> Option<Suspect> {
    let stream = evidence.stream()?;
    let candidates = judge::candidates(stream, evidence.limit.max(1 << 20));
    // The sender has paused or ended, so its last message is whole.
    let reads = |candidate: &Candidate| match evidence.is_cut {
        true => candidate.messages >= MANY,
        false => candidate.is_exact,
    };
    // With a higher limit, the expected layout may read the stream, too: its messages are only too long.
    let expected = candidates.iter().find(|of| of.layout == evidence.layout && reads(of));
    let confirmed = expected.map_or(confirmed, |expected| confirmed.max(expected.bits));
    let mut best: Option<Candidate> = None;
    for candidate in candidates.iter().filter(|candidate| reads(candidate)) {
        // Single short messages prove nothing if the length has one byte.
        let is_wide = candidate.layout.width() != Some(1) || candidate.messages > 1;
        let is_alike = [evidence.layout.other_count(), evidence.layout.other_order()]
            .contains(&Some(candidate.layout));
        if candidate.layout == evidence.layout || !is_wide || candidate.cuts_text {
            continue;
        }
        let more = if confirmed > 0 && !is_alike { ENOUGH } else { 0 };
        if candidate.bits < confirmed + more {
            continue;
        }
        match &best {
            None => best = Some(candidate.clone()),
            // The difference that is smaller is the likelier one.
            Some(now) if is_alike && candidate.bits + 2 >= now.bits => {
                best = Some(candidate.clone());
            }
            Some(_) => {}
        }
    }
    Some(suggest(evidence.layout, best?))
}

/// A payload that is short by exactly the length of its prefix: the sender includes the prefix in the length.
fn missing_a_prefix(evidence: &Evidence<'_>) -> Option<Suspect> {
    let (width, layout) = (evidence.layout.width()?, evidence.layout.other_count()?);
    (layout.counts_itself() && width > 1 && evidence.missing? == width as u64)
        .then_some(Suspect::Count { layout })
}

fn suggest(layout: Layout, candidate: Candidate) -> Suspect {
    if Some(candidate.layout) == layout.other_count() {
        return Suspect::Count { layout: candidate.layout };
    }
    let Candidate { layout, first: length, preset, .. } = candidate;
    Suspect::Layout { layout, length, preset }
}

/// A length that is impossible as it stands and small in the other byte order, of a message of which nothing else
/// has arrived, or so much that it is not all there.
fn possible_layout(evidence: &Evidence<'_>) -> Option<Suspect> {
    let (layout, length, prefix) = in_other_order(evidence)?;
    let (len, frame) = (usize::try_from(length).ok()?, evidence.frame());
    let is_begun = match evidence.is_cut {
        true => len <= 1 << 20 && frame.len() < prefix + len,
        false => len <= SAMPLE && frame.len() == prefix,
    };
    is_begun.then_some(Suspect::PossibleLayout { layout, length })
}

/// Returns the layout with the other byte order, the length that it reads, and how long its prefix is, if only that length is
/// possible.
fn in_other_order(evidence: &Evidence<'_>) -> Option<(Layout, u64, usize)> {
    let (layout, frame) = (evidence.layout.other_order()?, evidence.frame());
    let limit = evidence.limit as u64;
    let Ok(Decoded::Prefix { payload, prefix }) = layout.decode(frame) else { return None };
    let here = evidence.layout.decode(frame);
    let over = !matches!(here, Ok(Decoded::Prefix { payload, .. }) if payload <= limit);
    (over && (1..=limit).contains(&payload)).then_some((layout, payload, prefix))
}

/// Text, unless it may be one with lengths in digits.
fn text(evidence: &Evidence<'_>) -> Option<Suspect> {
    let frame = evidence.frame();
    let after = match evidence.has_worked {
        true => evidence.message - 1,
        // The zeros before it are no text.
        false if evidence.message > 1 => return None,
        false => 0,
    };
    let is_unframed = || !judge::has_lengths_in_text(frame, evidence.limit);
    (is_text(frame) && is_unframed())
        .then(|| Suspect::Text { start: first_of(frame).into(), after })
}

/// Lines of text, whose letters were lengths of one byte by chance. With such lengths, the end of the stream, which
/// cuts a message, would not be the end of a line.
fn lines(stream: &[u8]) -> Option<Suspect> {
    let is_text = |text: &str| !text.contains(|c: char| c.is_control() && !"\r\n\t".contains(c));
    let is_lines = stream.ends_with(b"\n")
        && std::str::from_utf8(stream).is_ok_and(is_text)
        && !judge::has_lengths_in_text(stream, stream.len());
    is_lines.then(|| Suspect::Text { start: first_of(stream).into(), after: 0 })
}

/// Returns as much of a text as is shown.
fn first_of(text: &[u8]) -> &[u8] {
    &text[..text.len().min(24)]
}

#[cfg(test)]
mod tests;
