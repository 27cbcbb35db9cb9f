//! How far each sender has come, so that what it sends again is recognised.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::{Batch, Sink, SinkError};
use crate::sender::SenderId;

/// How long a sender is remembered after its last message: long enough for a machine that is switched
/// off over night.
const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

/// How many senders are remembered at most: 8 MiB, so that nobody can fill the memory with new ones.
const MOST: usize = 100_000;

/// How often those are looked for who are to be forgotten, while there is room.
const LOOK: Duration = Duration::from_secs(60 * 60);

/// How far each sender has come.
///
/// For a sink that knows that itself this only saves asking.
#[derive(Debug, Default)]
pub(super) struct Seen {
    senders: HashMap<SenderId, Sender>,
    looked: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Sender {
    /// The number of its last message that is committed, or about to be.
    committed: u64,
    last: Instant,
}

impl Seen {
    /// Returns how many messages of `sender` are committed; `None` if neither the sink nor this knows it.
    ///
    /// # Errors
    ///
    /// The sink's.
    pub(super) fn committed(
        &mut self,
        sender: SenderId,
        sink: &mut dyn Sink,
    ) -> Result<Option<u64>, SinkError> {
        let Some(committed) = sink.committed(sender)? else {
            return Ok(self.senders.get(&sender).map(|sender| sender.committed));
        };
        // That may be less than was thought here, too: the sink can have refused the rest.
        let now = Instant::now();
        self.forget(now);
        self.senders.insert(sender, Sender { committed, last: now });
        Ok(Some(committed))
    }

    /// Returns what is new in `batch`, if anything is. That counts as committed from now on: a commit
    /// that fails is the end of everything, and who is refused has to connect again.
    pub(super) fn only_new(&mut self, batch: &Batch) -> Option<Batch> {
        let Some(id) = batch.sender() else { return Some(batch.clone()) };
        let now = Instant::now();
        let committed = match self.senders.get(&id) {
            Some(sender) => sender.committed,
            // Forgotten since it has connected. What its connection sends comes after what it was
            // told then, and a sink that knows more leaves that out.
            None => {
                self.forget(now);
                0
            }
        };
        let sender = Sender { committed: committed.max(batch.last_number()), last: now };
        self.senders.insert(id, sender);
        batch.after(committed)
    }

    /// Takes back that `batch` counts as committed. How far its sender has come is not known here any
    /// more, but it knows itself.
    pub(super) fn refused(&mut self, batch: &Batch) {
        if let Some(sender) = batch.sender() {
            self.senders.remove(&sender);
        }
    }

    /// Makes room for one more.
    fn forget(&mut self, now: Instant) {
        let full = self.senders.len() >= MOST;
        if !full && self.looked.is_some_and(|looked| now - looked < LOOK) {
            return;
        }
        self.looked = Some(now);
        self.senders.retain(|_, sender| now - sender.last < REMEMBERED);
        if self.senders.len() >= MOST {
            // A tenth of them at once, so that this is seldom.
            let mut ages: Vec<Instant> = self.senders.values().map(|sender| sender.last).collect();
            let (_, &mut until, _) = ages.select_nth_unstable(MOST / 10);
            self.senders.retain(|_, sender| sender.last > until);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::tests::{batch, origin};

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
            let mut seen = Seen::default();
            let mut sink = Knows(known);
            assert_eq!(seen.committed(sender, &mut sink).unwrap(), known);
            let fresh = seen.only_new(&again);
            assert_eq!(fresh.map(|batch| batch.first_number()), new);
        }
    }

    #[test]
    fn there_is_an_end_to_remembering() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        let id = |number: usize| SenderId::from_bytes((number as u128).to_be_bytes());
        for number in 0..MOST {
            let last = start + Duration::from_millis(number as u64);
            seen.senders.insert(id(number), Sender { committed: 1, last });
        }
        seen.forget(start + Duration::from_millis(MOST as u64));
        assert_eq!(seen.senders.len(), MOST - MOST / 10 - 1);
        assert!(!seen.senders.contains_key(&id(0)), "the oldest go first");
        assert!(seen.senders.contains_key(&id(MOST - 1)));
        // After a day, all of them are gone.
        seen.forget(start + Duration::from_millis(MOST as u64) + REMEMBERED);
        assert_eq!(seen.senders.len(), 0);
    }
}
