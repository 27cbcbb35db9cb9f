//! What waits to be committed, and the order in which connections get their turn.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::sync::Arc;

use super::open_connection::OpenConnection;
use crate::message::Batch;
use crate::wire::sender_id::SenderId;

/// The most messages in one commit, unless a single batch has more. Chosen by judgement: a database writes
/// that many in about 30 ms, and larger transactions are no faster.
const COMMIT: usize = 32 * 1024;

/// Batches in the order of their arrival, and the connection of each.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) batches: Vec<Batch>,
    pub(super) connections: Vec<Arc<OpenConnection>>,
}

/// Batches waiting to be committed.
#[derive(Debug, Default)]
pub(super) struct Pending {
    waiting: Group,
    messages: usize,
}

impl Pending {
    pub(super) fn push(&mut self, batch: Batch, connection: Arc<OpenConnection>) {
        self.messages += batch.len();
        self.waiting.batches.push(batch);
        self.waiting.connections.push(connection);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.batches.is_empty()
    }

    /// Returns the number of batches.
    pub(super) fn len(&self) -> usize {
        self.waiting.batches.len()
    }

    /// Returns the senders that have batches here.
    pub(super) fn senders(&self) -> HashSet<SenderId> {
        self.waiting.batches.iter().filter_map(Batch::sender).collect()
    }

    /// Moves the batches of the next commit into `group`, which must be empty: all of them, unless that is
    /// too much. Then the connections take turns, one batch each, so that a connection that floods the sink
    /// does not delay the others. The oldest batch goes first, so that none waits forever; then the
    /// connections that have least to commit.
    pub(super) fn take_group(&mut self, group: &mut Group) {
        if self.messages <= COMMIT {
            self.messages = 0;
            mem::swap(&mut self.waiting, group);
            return;
        }
        let chosen = self.choose();
        let (mut batches, mut connections) = (chosen.iter(), chosen.iter());
        let waiting = &mut self.waiting;
        let taken = waiting.batches.extract_if(.., |_| batches.next() == Some(&true));
        group.batches.extend(taken);
        let taken = waiting.connections.extract_if(.., |_| connections.next() == Some(&true));
        group.connections.extend(taken);
        self.messages -= group.batches.iter().map(Batch::len).sum::<usize>();
    }

    /// Returns which batches are in the next group.
    fn choose(&self) -> Vec<bool> {
        let mut connections: Vec<Vec<usize>> = Vec::new();
        let mut known = HashMap::new();
        for (index, connection) in self.waiting.connections.iter().enumerate() {
            let connection = *known.entry(connection.number).or_insert(connections.len());
            match connections.get_mut(connection) {
                Some(batches) => batches.push(index),
                None => connections.push(vec![index]),
            }
        }
        let len = |index: &usize| self.waiting.batches[*index].len();
        if let Some((_, others)) = connections.split_first_mut() {
            others.sort_by_cached_key(|batches| batches.iter().map(len).sum::<usize>());
        }
        let mut chosen = vec![false; self.len()];
        let mut room = COMMIT;
        let longest = connections.iter().map(Vec::len).max().unwrap_or(0);
        for turn in 0..longest {
            for batches in &mut connections {
                let Some(index) = batches.get(turn) else { continue };
                // A batch that does not fit ends the turns of its connection, to keep its messages in
                // order.
                if len(index) <= room || room == COMMIT {
                    chosen[*index] = true;
                    room = room.saturating_sub(len(index));
                } else {
                    batches.clear();
                }
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Origin;
    use crate::net::byte_stream::Peer;

    /// Returns what waits if batches of so many empty messages come over these connections, and the
    /// groups in which they are committed.
    fn groups(batches: &[(u64, usize)]) -> Vec<Vec<(u64, usize)>> {
        let mut pending = Pending::default();
        for &(connection, messages) in batches {
            let batch = Batch::new(Origin::new(connection, Peer::Unix), vec![b""; messages]);
            pending.push(batch, Arc::new(OpenConnection::new(connection, Peer::Unix)));
        }
        let mut groups = Vec::new();
        while !pending.is_empty() {
            let mut group = Group::default();
            pending.take_group(&mut group);
            let sizes = group.batches.iter().map(Batch::len);
            let numbers = group.connections.iter().map(|connection| connection.number);
            groups.push(numbers.zip(sizes).collect());
        }
        assert_eq!(pending.messages, 0);
        groups
    }

    #[test]
    fn what_is_not_too_much_is_committed_together() {
        let all = [(1, 16_000), (2, 1), (1, 16_000), (3, 700)];
        assert_eq!(groups(&all), [all]);
    }

    #[test]
    fn one_that_floods_the_sink_leaves_the_others_their_turn() {
        let mut all = vec![(1, 16_000); 20];
        all.extend([(2, 16_000), (2, 16_000), (3, 1), (3, 2), (4, 5)]);
        let groups = groups(&all);
        assert_eq!(groups[0], [(1, 16_000), (2, 16_000), (3, 1), (3, 2), (4, 5)]);
        assert_eq!(groups[1], [(1, 16_000), (2, 16_000)]);
        assert_eq!(groups.concat().len(), all.len());
    }

    #[test]
    fn nobody_waits_for_ever_and_every_connection_keeps_its_order() {
        // Small batches go first, but the oldest one even before them.
        let mut all = vec![(1, 30_000), (1, 3), (1, 30_000)];
        all.extend((2..1000).map(|connection| (connection, 33)));
        let groups = groups(&all);
        assert_eq!(groups[0][0], (1, 30_000));
        let of_first: Vec<_> = groups.concat().into_iter().filter(|(c, _)| *c == 1).collect();
        assert_eq!(of_first, [(1, 30_000), (1, 3), (1, 30_000)]);
        for group in &groups {
            assert!(group.iter().map(|(_, messages)| messages).sum::<usize>() <= COMMIT);
        }
    }

    #[test]
    fn a_batch_of_more_than_a_commit_is_one_of_its_own() {
        assert_eq!(groups(&[(1, 40_000), (2, 1)]), [vec![(1, 40_000)], vec![(2, 1)]]);
    }
}
