//! Divides the batches of a commit by sender, and into calls of the script.

use std::ops::Range;

use crate::message::Batch;
use crate::wire::ack::checksum as checksum_of;
use crate::wire::answer::RefusalCode;
use crate::wire::sender_id::SenderId;

/// The most messages in one call of the script, during which Redis does nothing else. Chosen by judgement:
/// a thousand take 2 to 3 ms.
const PORTION: usize = 1000;

/// The most bytes of payload in one call of the script, unless a single message is longer.
const PORTION_BYTES: usize = 1 << 20;

/// The batches of one sender in a commit, or all batches without a sender.
pub(super) struct Group<'a> {
    pub(super) sender: Option<SenderId>,
    pub(super) epoch: i64,
    pub(super) batches: Vec<&'a Batch>,
    /// The number of the first message of each batch, as Redis counts them.
    pub(super) first: Vec<u64>,
    pub(super) refused: bool,
}

/// The part of a group in one call of the script.
pub(super) struct Portion {
    pub(super) group: usize,
    pub(super) parts: Vec<Part>,
    pub(super) messages: usize,
    pub(super) done: bool,
}

/// Consecutive messages of a batch.
pub(super) struct Part {
    pub(super) batch: usize,
    pub(super) messages: Range<usize>,
}

impl Group<'_> {
    pub(super) fn messages(&self) -> u64 {
        self.batches.iter().map(|batch| batch.len() as u64).sum()
    }

    /// Divides the group into calls of the script.
    pub(super) fn divide(&self, group: usize, portions: &mut Vec<Portion>) {
        let (mut parts, mut messages, mut bytes) = (Vec::new(), 0, 0);
        for (batch, of_batch) in self.batches.iter().enumerate() {
            let mut from = 0;
            for (index, message) in of_batch.messages().enumerate() {
                let length = message.payload.len();
                if messages == PORTION || messages > 0 && bytes + length > PORTION_BYTES {
                    if from < index {
                        parts.push(Part { batch, messages: from..index });
                    }
                    let parts = std::mem::take(&mut parts);
                    portions.push(Portion { group, parts, messages, done: false });
                    (from, messages, bytes) = (index, 0, 0);
                }
                messages += 1;
                bytes += length;
            }
            if from < of_batch.len() {
                parts.push(Part { batch, messages: from..of_batch.len() });
            }
        }
        if !parts.is_empty() {
            portions.push(Portion { group, parts, messages, done: false });
        }
    }

    /// Returns the number of the first message of a portion, as Redis counts them.
    pub(super) fn first_of(&self, portion: &Portion) -> u64 {
        let part = &portion.parts[0];
        self.first[part.batch].saturating_add(part.messages.start as u64)
    }

    /// Returns the checksum of the last message of a portion.
    pub(super) fn last_checksum_of(&self, portion: &Portion) -> Option<u64> {
        let Part { batch, messages } = portion.parts.last()?;
        let last = self.batches[*batch].messages().nth(messages.end.checked_sub(1)?);
        last.map(|message| checksum_of(message.payload))
    }

    pub(super) fn refuse(&mut self, code: RefusalCode) {
        self.refused = true;
        self.batches.iter().for_each(|batch| batch.refuse(code));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::tests::{batch, origin};

    #[test]
    fn a_run_of_the_script_takes_so_many_messages_or_bytes_or_one_that_is_longer() {
        let origin = origin(None);
        let [many, few, long] = [&vec![&b"a"[..]; 1500][..], &[b"b", b"c"], &[&[b'd'; 1 << 20]]]
            .map(|payloads| batch(&origin, payloads));
        for (batches, expected) in [
            (vec![&few], vec![vec![(0, 0..2)]]),
            (vec![&many], vec![vec![(0, 0..1000)], vec![(0, 1000..1500)]]),
            (
                vec![&few, &many, &many],
                vec![
                    vec![(0, 0..2), (1, 0..998)],
                    vec![(1, 998..1500), (2, 0..498)],
                    vec![(2, 498..1498)],
                    vec![(2, 1498..1500)],
                ],
            ),
            (vec![&few, &long, &few], vec![vec![(0, 0..2)], vec![(1, 0..1)], vec![(2, 0..2)]]),
            (vec![&long], vec![vec![(0, 0..1)]]),
        ] {
            let mut portions = Vec::new();
            let first = vec![1; batches.len()];
            Group { sender: None, epoch: 1, batches, first, refused: false }
                .divide(5, &mut portions);
            for portion in &portions {
                let messages: usize = portion.parts.iter().map(|part| part.messages.len()).sum();
                assert_eq!((portion.group, portion.messages, portion.done), (5, messages, false));
            }
            let parts = |portion: Portion| {
                portion
                    .parts
                    .into_iter()
                    .map(|part| (part.batch, part.messages))
                    .collect::<Vec<_>>()
            };
            assert_eq!(portions.into_iter().map(parts).collect::<Vec<_>>(), expected);
        }
    }
}
