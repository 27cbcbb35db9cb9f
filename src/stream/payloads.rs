//! Messages that were read together.

use crate::stream::pool::Lent;
use crate::wire::layout::{Decoded, Layout, MAX_PAYLOAD, Prefix};

/// Messages that were read together, in their order.
///
/// They lie in one buffer as they were received; no message has an allocation of its own.
#[derive(Debug)]
pub struct Payloads {
    pub(crate) layout: Layout,
    /// The message that had been incomplete before this read: its prefix and its payload.
    pub(crate) head: Option<(Prefix, Lent)>,
    /// Whole frames one after the other, from `from` to `to`.
    pub(crate) run: Lent,
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) count: usize,
    pub(crate) first: u64,
}

impl Payloads {
    /// Returns how many messages there are; at least one.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns the number of the first of them on its stream; the very first message is 1.
    pub fn first_number(&self) -> u64 {
        self.first
    }

    /// Returns how many bytes of memory are counted for them.
    pub(crate) fn held(&self) -> usize {
        self.run.counted() + self.head.as_ref().map_or(0, |(_, payload)| payload.counted())
    }

    /// Returns the length of all payloads together, in bytes.
    pub fn payload_bytes(&self) -> usize {
        match self.layout.width() {
            Some(width) => {
                let frames: usize = self.frames().iter().map(|part| part.len()).sum();
                frames - self.count * width
            }
            None => self.iter().map(<[u8]>::len).sum(),
        }
    }

    /// Returns the payloads in the order in which they were sent.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut run = &self.run[self.from..self.to];
        let run = std::iter::from_fn(move || {
            let (prefix, len) = whole_frame(self.layout, MAX_PAYLOAD, run)?;
            let (frame, rest) = run.split_at(len);
            run = rest;
            Some(&frame[prefix..])
        });
        self.head.iter().map(|(_, payload)| &payload[..]).chain(run)
    }

    /// Returns the frames as they were received; the parts follow each other, and may be empty.
    pub fn frames(&self) -> [&[u8]; 3] {
        let (prefix, payload) = match &self.head {
            Some((prefix, payload)) => (&prefix[..], &payload[..]),
            None => (&[][..], &[][..]),
        };
        [prefix, payload, &self.run[self.from..self.to]]
    }
}

/// Returns the lengths of the prefix and of the whole frame if `bytes` starts with a good one.
#[inline]
pub(crate) fn whole_frame(layout: Layout, limit: usize, bytes: &[u8]) -> Option<(usize, usize)> {
    let Ok(Decoded::Prefix { prefix, payload }) = layout.decode(bytes) else { return None };
    let payload = usize::try_from(payload).ok().filter(|&payload| payload <= limit)?;
    let len = prefix + payload;
    (len <= bytes.len()).then_some((prefix, len))
}
