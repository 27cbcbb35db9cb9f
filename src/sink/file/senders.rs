//! How far each sender has come, as far as a file's sink knows.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::sender::SenderId;
use crate::sink::Batch;

/// How many senders are remembered at most: about 8 MiB, and as much in the note.
pub(super) const MOST: usize = 100_000;

/// How many messages of each sender are committed.
#[derive(Debug, Default)]
pub(super) struct Senders {
    senders: HashMap<SenderId, Sender>,
    /// Grows with each batch.
    turn: u64,
}

#[derive(Clone, Copy, Debug)]
struct Sender {
    committed: u64,
    /// That of its last batch.
    turn: u64,
}

impl Senders {
    pub(super) fn committed(&self, sender: SenderId) -> Option<u64> {
        self.senders.get(&sender).map(|sender| sender.committed)
    }

    /// Returns what of the batches is new.
    pub(super) fn only_new<'a>(&self, batches: &'a [Batch]) -> Cow<'a, [Batch]> {
        let committed = |batch: &Batch| batch.sender().and_then(|sender| self.committed(sender));
        if batches.iter().all(|batch| committed(batch).is_none_or(|n| batch.first_number() > n)) {
            return Cow::Borrowed(batches);
        }
        batches.iter().filter_map(|batch| batch.after(committed(batch).unwrap_or(0))).collect()
    }

    /// Notes that the batches are committed.
    pub(super) fn commit(&mut self, batches: &[Batch]) {
        for batch in batches {
            if let Some(sender) = batch.sender() {
                self.insert(sender, batch.last_number());
            }
        }
    }

    fn insert(&mut self, sender: SenderId, committed: u64) {
        if self.senders.len() >= MOST && !self.senders.contains_key(&sender) {
            // A tenth of them at once, so that this is seldom.
            let mut turns: Vec<u64> = self.senders.values().map(|sender| sender.turn).collect();
            let (_, &mut until, _) = turns.select_nth_unstable(MOST / 10);
            self.senders.retain(|_, sender| sender.turn > until);
        }
        self.turn += 1;
        self.senders.insert(sender, Sender { committed, turn: self.turn });
    }

    /// Returns all of them, the one whose last message is the oldest first.
    pub(super) fn by_age(&self) -> Vec<(SenderId, u64)> {
        let mut senders: Vec<_> = self.senders.iter().collect();
        senders.sort_unstable_by_key(|(_, sender)| sender.turn);
        senders.into_iter().map(|(&id, sender)| (id, sender.committed)).collect()
    }
}

/// The one whose last message is the oldest first.
impl FromIterator<(SenderId, u64)> for Senders {
    fn from_iter<T: IntoIterator<Item = (SenderId, u64)>>(by_age: T) -> Senders {
        let mut senders = Senders::default();
        for (sender, committed) in by_age {
            senders.insert(sender, committed);
        }
        senders
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::tests::{batch, origin};

    #[test]
    fn the_oldest_senders_are_forgotten_first() {
        let id = |number: usize| SenderId::from_bytes((number as u128).to_be_bytes());
        let mut senders: Senders = (0..MOST).map(|number| (id(number), 5)).collect();
        // The very first one has sent again.
        senders.commit(&[batch(&origin(Some((id(0), 5))), &[b"f"])]);
        assert_eq!(senders.by_age().len(), MOST);
        senders.commit(&[batch(&origin(Some((id(MOST), 0))), &[b"a"])]);
        assert_eq!(senders.by_age().len(), MOST - MOST / 10);
        let committed = [0, 1, MOST / 10 + 2, MOST].map(|number| senders.committed(id(number)));
        assert_eq!(committed, [Some(6), None, Some(5), Some(1)]);
        assert_eq!(senders.by_age().last(), Some(&(id(MOST), 1)));
    }

    #[test]
    fn what_is_known_is_left_out() {
        let sender = SenderId::from_bytes([1; 16]);
        let senders: Senders = [(sender, 2)].into_iter().collect();
        let numbers = |batches: &[Batch]| -> Vec<u64> {
            let fresh = senders.only_new(batches);
            fresh.iter().flat_map(Batch::messages).map(|message| message.number).collect()
        };
        let again = batch(&origin(Some((sender, 0))), &[b"a", b"b", b"c"]);
        let (new, other) =
            (batch(&origin(Some((sender, 2))), &[b"c"]), batch(&origin(None), &[b"x"]));
        assert_eq!(numbers(&[again.clone(), other.clone()]), [3, 1]);
        let last_again = batch(&origin(Some((sender, 1))), &[b"b", b"c"]);
        assert_eq!(numbers(&[last_again]), [3]);
        assert_eq!(numbers(&[new, other]), [3, 1]);
        assert!(matches!(senders.only_new(&[]), Cow::Borrowed(_)));
    }
}
