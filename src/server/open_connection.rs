//! A connection, as the rest of the server sees it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ack_state::{AckState, Progress};
use super::connection_state::ConnectionState;
use crate::net::byte_stream::Peer;

/// What the accept loop, the sweep, the writer thread and the connection's own task share about a
/// connection.
#[derive(Debug)]
pub(crate) struct OpenConnection {
    pub(crate) number: u64,
    pub(crate) peer: Peer,
    pub(crate) state: ConnectionState,
    committed: AtomicU64,
    /// In a box, since most connections have none.
    acks: OnceLock<Box<AckState>>,
}

impl OpenConnection {
    pub(crate) fn new(number: u64, peer: Peer) -> OpenConnection {
        OpenConnection {
            number,
            peer,
            state: ConnectionState::default(),
            committed: AtomicU64::new(0),
            acks: OnceLock::new(),
        }
    }

    /// Notes that the client is acknowledged its messages, and how many of its sender were committed
    /// before the first one on this connection. To be called once, before any message is handed on.
    pub(crate) fn acknowledge_from(&self, before: u64) -> &AckState {
        self.acks.get_or_init(|| Box::new(AckState::new(before)))
    }

    /// Returns what there is to know about acknowledgements, if the client asked for them.
    pub(crate) fn acks(&self) -> Option<&AckState> {
        self.acks.get().map(|acks| &**acks)
    }

    /// Returns how many messages of this connection the sink has committed.
    pub(crate) fn committed(&self) -> u64 {
        self.committed.load(Ordering::SeqCst)
    }

    pub(crate) fn progress(&self) -> Progress {
        Progress { committed: self.committed(), phase: self.state.phase() }
    }

    /// Notes that more messages are committed, and tells the sender so if it asked for that: here and now
    /// if they were `alone` in a commit, and else from another thread, so that the next commit need not
    /// wait until many have been told.
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
