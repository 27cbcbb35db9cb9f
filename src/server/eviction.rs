//! Which idle connection gives way when there can be no more.
//!
//! The address with the most connections loses one first, and of those the one that has been idle longest. A peer
//! cannot take the place of one whose address has fewer connections than its own. So whoever holds many places
//! in silence loses them, and not the others.

use std::cmp::Reverse;
use std::sync::Arc;

use super::addresses::{Addresses, Source};
use super::connection_state::{Phase, Snapshot};
use super::open_connection::OpenConnection;

/// The connections that may give way, found at most once per tick: looking at ten thousand for each peer that
/// tries to connect would cost the server more than the peer.
#[derive(Debug, Default)]
pub(crate) struct Evictions {
    /// The tick at which they were found.
    found: Option<u64>,
    /// The first one to go is the last one here.
    idle: Vec<Idle>,
}

/// An idle connection.
#[derive(Debug)]
struct Idle {
    /// How many connections its address has left when its turn comes.
    of_address: usize,
    snapshot: Snapshot,
    connection: Arc<OpenConnection>,
}

impl Evictions {
    /// Returns whether the connections must be looked through again.
    pub(crate) fn is_outdated(&self, now: u64) -> bool {
        self.found != Some(now)
    }

    /// Finds the connections for which `may_give_way` holds, at the tick `now`.
    pub(crate) fn find<'a>(
        &mut self,
        now: u64,
        open: impl Iterator<Item = &'a Arc<OpenConnection>>,
        addresses: &Addresses,
        may_give_way: impl Fn(Snapshot) -> bool,
    ) {
        self.found = Some(now);
        let mut idle: Vec<_> = open
            .map(|connection| (connection.source(), connection.state.snapshot(), connection))
            .filter(|(_, snapshot, _)| {
                matches!(snapshot.phase(), Phase::Idle | Phase::Setup) && may_give_way(*snapshot)
            })
            .collect();
        // Two that began to be idle in the same tick: the older connection first.
        idle.sort_by_key(|(source, snapshot, of)| (*source, snapshot.since(), of.number));
        let mut before: Option<(Source, usize)> = None;
        self.idle = idle
            .into_iter()
            .map(|(source, snapshot, connection)| {
                let of_address = match before {
                    Some((same, left)) if same == source => left.saturating_sub(1),
                    _ => addresses.count(source),
                };
                before = Some((source, of_address));
                Idle { of_address, snapshot, connection: Arc::clone(connection) }
            })
            .collect();
        self.idle.sort_by_key(|idle| {
            (idle.of_address, Reverse((idle.snapshot.since(), idle.connection.number)))
        });
    }

    /// Tells the next connection to give way to a peer whose address has `open` connections already, and returns
    /// it. It ends unless it is active again.
    pub(crate) fn evict(&mut self, open: usize) -> Option<Arc<OpenConnection>> {
        while let Some(next) = self.idle.pop_if(|next| next.of_address >= open) {
            if next.connection.state.evict(next.snapshot) {
                return Some(next.connection);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::byte_stream::Peer;

    /// Connections of these addresses, all idle since the tick that follows each.
    fn connections(of: &[(u8, u64)]) -> (Vec<Arc<OpenConnection>>, Addresses) {
        let addresses = Addresses::new(None, None);
        let open = of.iter().zip(1..).map(|(&(last, since), number)| {
            let connection = OpenConnection::new(number, Peer::Tcp(([10, 0, 0, last], 1).into()));
            connection.set_counted();
            addresses.add(connection.source());
            connection.state.enter(Phase::Idle, since);
            Arc::new(connection)
        });
        (open.collect(), addresses)
    }

    /// Returns the order in which they give way to peers that have no connection.
    fn order(of: &[(u8, u64)]) -> Vec<u64> {
        let (open, addresses) = connections(of);
        let mut evictions = Evictions::default();
        evictions.find(9, open.iter(), &addresses, |_| true);
        std::iter::from_fn(|| evictions.evict(0)).map(|connection| connection.number).collect()
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
        let (open, addresses) = connections(&[(1, 1), (2, 2), (2, 3)]);
        let mut evictions = Evictions::default();
        evictions.find(9, open.iter(), &addresses, |_| true);
        assert!(evictions.evict(3).is_none());
        assert_eq!(evictions.evict(2).unwrap().number, 2);
        assert!(evictions.evict(2).is_none());
        assert_eq!(evictions.evict(1).unwrap().number, 1);
    }

    #[test]
    fn only_what_is_idle_for_long_enough_and_still_is_gives_way() {
        let (open, addresses) = connections(&[(1, 1), (1, 2), (1, 3), (1, 4), (1, 5)]);
        open[0].state.enter(Phase::InMessage, 1);
        open[1].state.enter(Phase::Setup, 2);
        let mut evictions = Evictions::default();
        assert!(evictions.is_outdated(9));
        evictions.find(9, open.iter(), &addresses, |snapshot| snapshot.since() < 5);
        assert!(!evictions.is_outdated(9) && evictions.is_outdated(10));
        // A message arrives after it was found.
        open[2].state.enter(Phase::Busy, 0);
        let gone: Vec<u64> =
            std::iter::from_fn(|| evictions.evict(0)).map(|of| of.number).collect();
        assert_eq!(gone, [2, 4]);
    }
}
