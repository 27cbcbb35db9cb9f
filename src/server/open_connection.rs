//! An open connection, as the rest of the server sees it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ack_state::{AckState, CommitProgress};
use super::addresses::Source;
use super::connection_state::ConnectionState;
use crate::net::byte_stream::Peer;

/// The state that the accept loop, the sweep, the writer thread and the connection's own task share.
#[derive(Debug)]
pub(crate) struct OpenConnection {
    pub(crate) number: u64,
    accepted_from: Peer,
    /// The peer that a load balancer named, which may be itself. Boxed, since most connections have none.
    named: OnceLock<Box<Peer>>,
    pub(crate) state: ConnectionState,
    committed: AtomicU64,
    /// Boxed, since most connections have none.
    acks: OnceLock<Box<AckState>>,
}

impl OpenConnection {
    pub(crate) fn new(number: u64, peer: Peer) -> OpenConnection {
        OpenConnection {
            number,
            accepted_from: peer,
            named: OnceLock::new(),
            state: ConnectionState::default(),
            committed: AtomicU64::new(0),
            acks: OnceLock::new(),
        }
    }

    /// Returns the peer: the one that a load balancer named, or else the one that connected.
    pub(crate) fn peer(&self) -> &Peer {
        self.named.get().map_or(&self.accepted_from, |named| &**named)
    }

    /// Sets the peer that a load balancer named, which may be itself.
    pub(crate) fn name_peer(&self, peer: Peer) {
        // Cannot fail: there is one header on a connection.
        let _ = self.named.set(Box::new(peer));
    }

    /// Returns what the connection is counted by, with or without a load balancer that names its peer.
    pub(crate) fn source(&self, is_named: bool) -> Source {
        match is_named && self.named.get().is_none() {
            true => Source::Unknown,
            false => Source::of(self.peer()),
        }
    }

    /// Turns on acknowledgements, and records how many messages of the sender were committed before this
    /// connection. To be called once, before any message is passed on.
    pub(crate) fn acknowledge_from(&self, before: u64) -> &AckState {
        self.acks.get_or_init(|| Box::new(AckState::new(before)))
    }

    /// Returns the state of acknowledgements, if the client asked for them.
    pub(crate) fn acks(&self) -> Option<&AckState> {
        self.acks.get().map(|acks| &**acks)
    }

    /// Returns how many messages of this connection are committed.
    pub(crate) fn committed(&self) -> u64 {
        self.committed.load(Ordering::SeqCst)
    }

    pub(crate) fn progress(&self) -> CommitProgress {
        CommitProgress { committed: self.committed(), phase: self.state.phase() }
    }

    /// Records that more messages are committed, and acknowledges them if the client asked for that: from
    /// this thread if they were `alone` in a commit, and otherwise from another one, so that acknowledging
    /// many clients does not delay the next commit.
    pub(crate) fn commit(&self, messages: usize, alone: bool) {
        let messages = messages as u64;
        let before = self.committed.fetch_add(messages, Ordering::SeqCst);
        self.state.notify_committed();
        match self.acks() {
            Some(acks) if alone => acks.tell_at_once(before + messages),
            Some(acks) => acks.wake(),
            None => {}
        }
    }
}
