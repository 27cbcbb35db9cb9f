//! How far each sender has come, so that what it sends again is recognised.

use std::collections::HashMap;

use crate::message::Batch;
use crate::sink::message_sink::{Sink, SinkError};
use crate::wire::sender_id::SenderId;

/// How many senders are remembered, those with the latest messages: 8 MiB, so that nobody can fill the
/// memory with new ones. No clock says who is forgotten, since any clock can jump or stand still.
const MOST: usize = 100_000;

/// How far each sender has come.
///
/// For a sink that knows that itself this only saves asking.
#[derive(Debug, Default)]
pub(super) struct KnownSenders {
    senders: HashMap<SenderId, Sender>,
    /// Counts whatever is heard of any of them.
    turn: u64,
}

#[derive(Clone, Copy, Debug)]
struct Sender {
    /// The number of its last message that is committed, or about to be.
    committed: u64,
    /// The turn at which that was heard.
    last: u64,
}

impl KnownSenders {
    /// Returns how many messages of each sender are committed; `None` if neither the sink nor this knows it.
    ///
    /// # Errors
    ///
    /// The sink's.
    pub(super) fn committed(
        &mut self,
        senders: &[SenderId],
        sink: &mut dyn Sink,
    ) -> Result<Vec<Option<u64>>, SinkError> {
        let mut answers = sink.committed_by_each(senders)?;
        for (sender, answer) in senders.iter().zip(&mut answers) {
            match answer {
                // That may be less than was thought here, too: the sink can have refused the rest.
                Some(committed) => self.remember(*sender, *committed),
                None => *answer = self.senders.get(sender).map(|sender| sender.committed),
            }
        }
        Ok(answers)
    }

    /// Returns what is new in `batch`, if anything is. That counts as committed from now on: a commit
    /// that fails is the end of everything, and who is refused has to connect again.
    pub(super) fn only_new(&mut self, batch: &Batch) -> Option<Batch> {
        let Some(id) = batch.sender() else { return Some(batch.clone()) };
        // Where it was forgotten since it has connected, what its connection sends comes after what it was
        // told then, and a sink that knows more leaves that out.
        let committed = self.senders.get(&id).map_or(0, |sender| sender.committed);
        self.remember(id, committed.max(batch.last_number()));
        batch.after(committed)
    }

    /// Takes back that `batch` counts as committed. How far its sender has come is not known here any
    /// more, but it knows itself.
    pub(super) fn refused(&mut self, batch: &Batch) {
        if let Some(sender) = batch.sender() {
            self.senders.remove(&sender);
        }
    }

    fn remember(&mut self, sender: SenderId, committed: u64) {
        self.turn += 1;
        if self.senders.len() >= MOST && !self.senders.contains_key(&sender) {
            // A tenth of them at once, so that this is seldom.
            let mut turns: Vec<u64> = self.senders.values().map(|sender| sender.last).collect();
            let (_, &mut until, _) = turns.select_nth_unstable(MOST / 10);
            self.senders.retain(|_, sender| sender.last > until);
        }
        self.senders.insert(sender, Sender { committed, last: self.turn });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::tests::{batch, origin};

    /// A sink that has all that its senders have sent before, if it knows.
    struct Knows(Option<u64>);

    impl Sink for Knows {
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
    fn a_hundred_thousand_senders_are_remembered_and_then_those_with_the_latest_messages() {
        let mut senders = KnownSenders::default();
        let id = |number: u128| SenderId::from_bytes(number.to_be_bytes());
        let send = |senders: &mut KnownSenders, number| senders.remember(id(number), 1);
        (0..100_000).for_each(|number| send(&mut senders, number));
        let known = |senders: &mut KnownSenders, number| {
            senders.committed(&[id(number)], &mut Knows(None)).unwrap()[0].is_some()
        };
        assert!((0..100_000).all(|number| known(&mut senders, number)));
        // The first one is heard of again; then there are too many.
        send(&mut senders, 0);
        assert_eq!(senders.senders.len(), 100_000);
        send(&mut senders, 100_000);
        let forgotten: Vec<u128> =
            (0..=100_000).filter(|number| !known(&mut senders, *number)).collect();
        assert_eq!(forgotten, (1..=10_001).collect::<Vec<_>>());
        // Who only asks a sink that does not know is not remembered.
        assert!(!known(&mut senders, 200_000));
        assert_eq!(senders.senders.len(), 90_000);
    }
}
