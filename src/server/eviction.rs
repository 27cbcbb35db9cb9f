//! Which idle connection gives way when there can be no more.
//!
//! The address with the most connections loses one first, and of those the one that has been idle longest. A peer
//! cannot take the place of one whose address has fewer connections than its own. So a peer that holds many places
//! in silence loses them, and not the others.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::addresses::Source;
use super::connection_state::{Phase, Snapshot};
use super::open_connection::OpenConnection;

/// The connections that may give way, for one tick: looking at ten thousand for each peer that tries to connect would
/// cost the server more than the peer.
#[derive(Debug)]
pub(crate) struct Evictions {
    groups: Vec<Group>,
    /// The turn of each group; the greatest is next. Outdated ones are left in it and skipped.
    turns: BinaryHeap<Turn>,
    /// The last connection that was told to give way, and its group.
    last: Option<(usize, Arc<OpenConnection>)>,
}

/// The connections of one source.
#[derive(Debug)]
struct Group {
    /// How many there are, idle or not.
    open: usize,
    /// Those that may give way; the one that has been idle longest comes last.
    idle: Vec<Idle>,
}

#[derive(Debug)]
struct Idle {
    snapshot: Snapshot,
    connection: Arc<OpenConnection>,
}

impl Idle {
    /// Returns since which tick it has been idle. Of two that began in the same tick, the older connection is first.
    fn since(&self) -> (u64, u64) {
        (self.snapshot.since(), self.connection.number)
    }
}

/// When a group loses a connection: how many it has, since when the next one has been idle, and its index.
type Turn = (usize, Reverse<(u64, u64)>, usize);

impl Evictions {
    /// Finds the connections that are idle and for which `may_give_way` holds. `source` returns the source of each, and
    /// how many connections that has.
    pub(crate) fn find<'a>(
        open: impl Iterator<Item = &'a Arc<OpenConnection>>,
        may_give_way: impl Fn(Snapshot) -> bool,
        source: impl Fn(&OpenConnection) -> (Source, usize),
    ) -> Evictions {
        let mut idle: Vec<((Source, usize), Idle)> = open
            .map(|connection| (connection.state.snapshot(), connection))
            .filter(|(snapshot, _)| matches!(snapshot.phase(), Phase::Idle | Phase::Setup))
            .filter(|(snapshot, _)| may_give_way(*snapshot))
            .map(|(snapshot, connection)| {
                let connection = Arc::clone(connection);
                (source(&connection), Idle { snapshot, connection })
            })
            .collect();
        idle.sort_by_key(|(source, idle)| (*source, Reverse(idle.since())));
        let (groups, turns) = (Vec::new(), BinaryHeap::new());
        let mut found = Evictions { groups, turns, last: None };
        let mut before = None;
        for ((source, open), idle) in idle {
            if before != Some(source) {
                found.groups.push(Group { open, idle: Vec::new() });
                before = Some(source);
            }
            if let Some(group) = found.groups.last_mut() {
                group.idle.push(idle);
            }
        }
        found.turns = (0..found.groups.len()).filter_map(|group| found.turn(group)).collect();
        found
    }

    /// Tells the next connection to give way to a peer whose address has `open` connections already, and returns
    /// it. It ends, unless it is active again: then `is_open` holds at the next call.
    pub(crate) fn evict(
        &mut self,
        open: usize,
        is_open: impl Fn(&OpenConnection) -> bool,
    ) -> Option<Arc<OpenConnection>> {
        if let Some((group, last)) = self.last.take()
            && is_open(&last)
        {
            self.groups[group].open += 1;
            self.turns.extend(self.turn(group));
        }
        while let Some(&next) = self.turns.peek() {
            let (of_address, _, group) = next;
            if self.turn(group) != Some(next) {
                self.turns.pop();
                continue;
            }
            if of_address < open {
                return None;
            }
            let idle = self.groups[group].idle.pop()?;
            let evicted = idle.connection.state.evict(idle.snapshot);
            self.groups[group].open -= usize::from(evicted);
            self.turns.extend(self.turn(group));
            if evicted {
                self.last = Some((group, Arc::clone(&idle.connection)));
                return Some(idle.connection);
            }
        }
        None
    }

    /// Returns the turn of a group, if it has an idle connection.
    fn turn(&self, group: usize) -> Option<Turn> {
        let Group { open, idle } = &self.groups[group];
        Some((*open, Reverse(idle.last()?.since()), group))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::byte_stream::Peer;

    /// Connections of these addresses, all idle since the tick that follows each.
    fn connections(of: &[(u8, u64)]) -> Vec<Arc<OpenConnection>> {
        let open = of.iter().zip(1..).map(|(&(last, since), number)| {
            let connection = OpenConnection::new(number, Peer::Tcp(([10, 0, 0, last], 1).into()));
            connection.state.enter(Phase::Idle, since);
            Arc::new(connection)
        });
        open.collect()
    }

    fn find(open: &[Arc<OpenConnection>], may_give_way: impl Fn(Snapshot) -> bool) -> Evictions {
        let source = |of: &OpenConnection| of.source(false);
        let count = |of: Source| open.iter().filter(|other| source(other) == of).count();
        Evictions::find(open.iter(), may_give_way, |of| (source(of), count(source(of))))
    }

    /// Returns the order in which they give way to peers that have no connection.
    fn order(of: &[(u8, u64)]) -> Vec<u64> {
        let open = connections(of);
        let mut evictions = find(&open, |_| true);
        std::iter::from_fn(|| evictions.evict(0, |_| false)).map(|of| of.number).collect()
    }

    #[test]
    fn the_longest_idle_of_the_address_with_the_most_goes_first() {
        assert_eq!(order(&[(1, 1), (2, 5), (2, 4), (2, 6)]), [3, 2, 1, 4]);
        assert_eq!(order(&[(1, 3), (2, 2), (3, 1)]), [3, 2, 1]);
        assert_eq!(order(&[(1, 1), (1, 1), (1, 1)]), [1, 2, 3]);
        assert_eq!(order(&[]), [0; 0]);
    }

    #[test]
    fn a_peer_does_not_take_the_place_of_one_that_has_fewer() {
        let open = connections(&[(1, 1), (2, 2), (2, 3)]);
        let mut evictions = find(&open, |_| true);
        assert!(evictions.evict(3, |_| false).is_none());
        assert_eq!(evictions.evict(2, |_| false).unwrap().number, 2);
        assert!(evictions.evict(2, |_| false).is_none());
        assert_eq!(evictions.evict(1, |_| false).unwrap().number, 1);
    }

    #[test]
    fn only_what_is_idle_for_long_enough_and_still_is_gives_way() {
        let open = connections(&[(1, 1), (1, 2), (1, 3), (1, 4), (1, 5)]);
        open[0].state.enter(Phase::InMessage, 1);
        open[1].state.enter(Phase::Setup, 2);
        let mut evictions = find(&open, |snapshot| snapshot.since() < 5);
        // A message arrives after it was found.
        open[2].state.enter(Phase::Busy, 0);
        let gone: Vec<u64> =
            std::iter::from_fn(|| evictions.evict(0, |_| false)).map(|of| of.number).collect();
        assert_eq!(gone, [2, 4]);
    }

    #[test]
    fn another_one_of_the_same_address_takes_the_turn_of_one_that_stays() {
        let open = connections(&[(1, 1), (2, 2), (2, 3), (2, 4)]);
        let mut evictions = find(&open, |_| true);
        // One that gets a message before it is told, and one that gets it after that.
        open[1].state.enter(Phase::Busy, 0);
        assert_eq!(evictions.evict(3, |_| false).unwrap().number, 3);
        assert_eq!(evictions.evict(3, |last| last.number == 3).unwrap().number, 4);
        assert!(evictions.evict(3, |_| false).is_none());
        assert_eq!(evictions.evict(1, |_| false).unwrap().number, 1);
    }
}
