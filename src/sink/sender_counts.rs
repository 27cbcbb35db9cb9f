//! Counts the committed messages of a bounded number of senders.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::message::Batch;
use crate::wire::sender_id::SenderId;

/// How many senders are remembered, those with the latest messages. This takes about 8 MiB, so that new
/// senders cannot fill the memory. Their order is by count of events and not by time, since any clock can
/// jump or stand still.
pub(crate) const MOST: usize = 100_000;

/// How many messages of each sender are committed, and the checksum of the last one.
#[derive(Debug, Default)]
pub(crate) struct SenderCounts {
    senders: HashMap<SenderId, Sender>,
    /// Counts events of all senders.
    turn: u64,
}

#[derive(Clone, Copy, Debug)]
struct Sender {
    committed: u64,
    checksum: Option<u64>,
    /// The value of that count at the sender's last event.
    turn: u64,
}

impl SenderCounts {
    pub(crate) fn committed(&self, sender: SenderId) -> Option<u64> {
        self.senders.get(&sender).map(|sender| sender.committed)
    }

    pub(crate) fn len(&self) -> usize {
        self.senders.len()
    }

    pub(crate) fn checksum(&self, sender: SenderId) -> Option<u64> {
        self.senders.get(&sender)?.checksum
    }

    /// Returns the new messages of the batches.
    pub(crate) fn only_new<'a>(&self, batches: &'a [Batch]) -> Cow<'a, [Batch]> {
        let committed = |batch: &Batch| batch.sender().and_then(|sender| self.committed(sender));
        if batches.iter().all(|batch| committed(batch).is_none_or(|n| batch.first_number() > n)) {
            return Cow::Borrowed(batches);
        }
        batches.iter().filter_map(|batch| batch.after(committed(batch).unwrap_or(0))).collect()
    }

    /// Records that the batches are committed.
    pub(crate) fn commit(&mut self, batches: &[Batch]) {
        for batch in batches {
            if let Some(sender) = batch.sender() {
                self.insert(sender, batch.last_number(), Some(batch.last_checksum()));
            }
        }
    }

    /// Records the count of a sender.
    pub(crate) fn insert(&mut self, sender: SenderId, committed: u64, checksum: Option<u64>) {
        if self.senders.len() >= MOST && !self.senders.contains_key(&sender) {
            // A tenth of them at once, so that this is rare.
            let mut turns: Vec<u64> = self.senders.values().map(|sender| sender.turn).collect();
            let (_, &mut until, _) = turns.select_nth_unstable(MOST / 10);
            self.senders.retain(|_, sender| sender.turn > until);
        }
        self.turn += 1;
        self.senders.insert(sender, Sender { committed, checksum, turn: self.turn });
    }

    /// Forgets a sender.
    pub(crate) fn remove(&mut self, sender: SenderId) {
        self.senders.remove(&sender);
    }

    /// Returns all senders, those with the oldest messages first.
    pub(crate) fn by_age(&self) -> Vec<(SenderId, u64, Option<u64>)> {
        let mut senders: Vec<_> = self.senders.iter().collect();
        senders.sort_unstable_by_key(|(_, sender)| sender.turn);
        senders.into_iter().map(|(&id, sender)| (id, sender.committed, sender.checksum)).collect()
    }
}

/// Those with the oldest messages first.
impl FromIterator<(SenderId, u64, Option<u64>)> for SenderCounts {
    fn from_iter<T: IntoIterator<Item = (SenderId, u64, Option<u64>)>>(by_age: T) -> SenderCounts {
        let mut senders = SenderCounts::default();
        for (sender, committed, checksum) in by_age {
            senders.insert(sender, committed, checksum);
        }
        senders
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::tests::{batch, origin};
    use crate::wire::ack::checksum;

    #[test]
    fn the_oldest_senders_are_forgotten_first() {
        let id = |number: usize| SenderId::from_bytes((number as u128).to_be_bytes());
        let mut senders: SenderCounts = (0..MOST).map(|number| (id(number), 5, None)).collect();
        // The very first one has sent again.
        senders.commit(&[batch(&origin(Some((id(0), 5))), &[b"f"])]);
        assert_eq!(senders.by_age().len(), MOST);
        senders.commit(&[batch(&origin(Some((id(MOST), 0))), &[b"a"])]);
        assert_eq!(senders.by_age().len(), MOST - MOST / 10);
        let committed = [0, 1, MOST / 10 + 2, MOST].map(|number| senders.committed(id(number)));
        assert_eq!(committed, [Some(6), None, Some(5), Some(1)]);
        let last = senders.by_age().pop().unwrap();
        assert_eq!((last.0, last.1), (id(MOST), 1));
    }

    #[test]
    fn the_checksum_is_that_of_the_last_message() {
        let sender = SenderId::from_bytes([1; 16]);
        let mut senders: SenderCounts = [(sender, 2, Some(7))].into_iter().collect();
        assert_eq!(senders.checksum(sender), Some(7));
        let batches = [batch(&origin(Some((sender, 1))), &[b"b", b"c"])];
        senders.commit(&senders.only_new(&batches));
        assert_eq!(senders.by_age(), [(sender, 3, Some(checksum(b"c")))]);
        assert_eq!(senders.checksum(SenderId::from_bytes([2; 16])), None);
    }

    #[test]
    fn what_is_known_is_left_out() {
        let sender = SenderId::from_bytes([1; 16]);
        let senders: SenderCounts = [(sender, 2, None)].into_iter().collect();
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
