//! How many messages of each sender are committed, so that repeated ones are recognized.

use crate::message::Batch;
use crate::sink::message_sink::{MessageSink, SinkError};
use crate::sink::sender_counts::SenderCounts;
use crate::wire::sender_id::SenderId;

/// How many messages of each sender are committed.
///
/// If the sink knows that itself, this only avoids asking it.
#[derive(Debug, Default)]
pub(super) struct KnownSenders {
    counts: SenderCounts,
}

impl KnownSenders {
    /// Returns how many senders are remembered.
    pub(super) fn len(&self) -> usize {
        self.counts.len()
    }

    /// Returns how many messages of each sender are committed; `None` if neither the sink nor the server
    /// knows.
    ///
    /// # Errors
    ///
    /// Any error of the sink.
    pub(super) fn committed(
        &mut self,
        senders: &[SenderId],
        sink: &mut dyn MessageSink,
    ) -> Result<Vec<Option<u64>>, SinkError> {
        let mut answers = sink.committed_by_each(senders)?;
        for (sender, answer) in senders.iter().zip(&mut answers) {
            match answer {
                // The sink's count may be lower than ours, too, if it has refused messages.
                Some(committed) => {
                    let is_same = self.counts.committed(*sender) == Some(*committed);
                    let checksum = self.counts.checksum(*sender).filter(|_| is_same);
                    self.counts.insert(*sender, *committed, checksum);
                }
                None => *answer = self.counts.committed(*sender),
            }
        }
        Ok(answers)
    }

    /// Returns the checksums of the last messages that [`committed`](KnownSenders::committed) counts;
    /// `None` if neither the sink nor the server knows.
    ///
    /// # Errors
    ///
    /// Any error of the sink.
    pub(super) fn last_checksums(
        &mut self,
        senders: &[SenderId],
        sink: &mut dyn MessageSink,
    ) -> Result<Vec<Option<u64>>, SinkError> {
        let answers = sink.last_checksums(senders)?.into_iter().zip(senders);
        let known = |sender: &SenderId| self.counts.checksum(*sender);
        Ok(answers.map(|(answer, sender)| answer.or_else(|| known(sender))).collect())
    }

    /// Returns the new messages of `batch`, if any. They count as committed from now on: if the commit
    /// fails, the server ends, and a refused sender has to reconnect.
    pub(super) fn only_new(&mut self, batch: &Batch) -> Option<Batch> {
        let Some(id) = batch.sender() else { return Some(batch.clone()) };
        // If the sender was forgotten since it connected, all messages of its connection count as new. That
        // is right, since they follow the count in its welcome, and a sink that keeps counts skips repeated
        // ones itself.
        let committed = self.counts.committed(id).unwrap_or(0);
        let fresh = batch.after(committed);
        match &fresh {
            Some(fresh) => self.counts.commit(std::slice::from_ref(fresh)),
            None => self.counts.insert(id, committed, self.counts.checksum(id)),
        }
        fresh
    }

    /// Undoes counting `batch` as committed, by forgetting the sender: when it reconnects, the sink is asked.
    pub(super) fn refused(&mut self, batch: &Batch) {
        if let Some(sender) = batch.sender() {
            self.counts.remove(sender);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::tests::{batch, origin};
    use crate::wire::ack::checksum;

    /// A sink that has all that its senders have sent before, if it knows.
    struct Knows(Option<u64>);

    /// And one that knows nothing but the same checksum of all.
    struct KnowsChecksums;

    impl MessageSink for KnowsChecksums {
        fn commit(&mut self, _: &[Batch]) -> Result<(), SinkError> {
            Ok(())
        }

        fn last_checksums(&mut self, senders: &[SenderId]) -> Result<Vec<Option<u64>>, SinkError> {
            Ok(vec![Some(7); senders.len()])
        }
    }

    impl MessageSink for Knows {
        fn commit(&mut self, _: &[Batch]) -> Result<(), SinkError> {
            Ok(())
        }

        fn committed(&mut self, _: SenderId) -> Result<Option<u64>, SinkError> {
            Ok(self.0)
        }
    }

    #[test]
    fn a_sink_that_knows_is_asked() {
        let sender = SenderId::from_bytes([1; 16]);
        let again = batch(&origin(Some((sender, 4))), &[b"e", b"f"]);
        for (known, new) in
            [(None, Some(5)), (Some(4), Some(5)), (Some(5), Some(6)), (Some(6), None)]
        {
            let mut senders = KnownSenders::default();
            let mut sink = Knows(known);
            assert_eq!(senders.committed(&[sender], &mut sink).unwrap(), [known]);
            let fresh = senders.only_new(&again);
            assert_eq!(fresh.map(|batch| batch.first_number()), new);
        }
    }

    #[test]
    fn the_checksum_is_that_of_the_last_message_whatever_is_sent_again() {
        let sender = SenderId::from_bytes([1; 16]);
        let mut senders = KnownSenders::default();
        let last = |senders: &mut KnownSenders| {
            senders.last_checksums(&[sender], &mut Knows(None)).unwrap()[0]
        };
        assert_eq!(last(&mut senders), None);
        let origin = origin(Some((sender, 0)));
        senders.only_new(&batch(&origin, &[b"a", b"b"]));
        assert_eq!(last(&mut senders), Some(checksum(b"b")));
        senders.only_new(&batch(&origin, &[b"a"]));
        assert_eq!(last(&mut senders), Some(checksum(b"b")));
        let again = batch(&origin, &[b"a", b"b", b""]);
        senders.only_new(&again);
        assert_eq!(last(&mut senders), Some(checksum(b"")));
        // A sink that knows is believed, and one that has another count was written to by others.
        assert_eq!(senders.last_checksums(&[sender], &mut KnowsChecksums).unwrap(), [Some(7)]);
        for (known, kept) in [(3, Some(checksum(b""))), (4, None)] {
            senders.committed(&[sender], &mut Knows(Some(known))).unwrap();
            assert_eq!(last(&mut senders), kept);
        }
        senders.refused(&again);
        assert_eq!(last(&mut senders), None);
    }

    #[test]
    fn a_hundred_thousand_senders_are_remembered_and_then_those_with_the_latest_messages() {
        let mut senders = KnownSenders::default();
        let id = |number: u128| SenderId::from_bytes(number.to_be_bytes());
        let send = |senders: &mut KnownSenders, number| senders.counts.insert(id(number), 1, None);
        (0..100_000).for_each(|number| send(&mut senders, number));
        let known = |senders: &mut KnownSenders, number| {
            senders.committed(&[id(number)], &mut Knows(None)).unwrap()[0].is_some()
        };
        assert!((0..100_000).all(|number| known(&mut senders, number)));
        // The first one is heard of again; then there are too many.
        send(&mut senders, 0);
        assert_eq!(senders.counts.by_age().len(), 100_000);
        send(&mut senders, 100_000);
        let forgotten: Vec<u128> =
            (0..=100_000).filter(|number| !known(&mut senders, *number)).collect();
        assert_eq!(forgotten, (1..=10_001).collect::<Vec<_>>());
        // Who only asks a sink that does not know is not remembered.
        assert!(!known(&mut senders, 200_000));
        assert_eq!(senders.counts.by_age().len(), 90_000);
    }
}
