//! An open connection, as the rest of the server sees it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use log::debug;

use super::ack_state::{AckState, CommitProgress};
use super::addresses::Source;
use super::connection_state::ConnectionState;
use crate::net::byte_stream::Peer;
use crate::tls::SenderRule;

/// What is known of a peer beside where it connected from.
#[derive(Debug, Default)]
struct Identity {
    /// The peer that a load balancer named, which may be itself.
    named: OnceLock<Peer>,
    /// Whom its certificate names.
    certified: OnceLock<Peer>,
    /// Which senders its certificate lets it be, if that is restricted.
    senders: OnceLock<SenderRule>,
}

/// The state that the accept loop, the sweep, the writer thread and the connection's own task share.
#[derive(Debug)]
pub(crate) struct OpenConnection {
    pub(crate) number: u64,
    accepted_from: Peer,
    /// Boxed, since most connections have none.
    identity: OnceLock<Box<Identity>>,
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
            identity: OnceLock::new(),
            state: ConnectionState::default(),
            committed: AtomicU64::new(0),
            acks: OnceLock::new(),
        }
    }

    /// Returns the peer: the one that a certificate names, or else its address.
    pub(crate) fn peer(&self) -> &Peer {
        let certified = self.identity.get().and_then(|identity| identity.certified.get());
        certified.unwrap_or_else(|| self.address())
    }

    /// Returns the address that a load balancer named, or else the one that connected.
    fn address(&self) -> &Peer {
        self.named().unwrap_or(&self.accepted_from)
    }

    /// Returns the peer that a load balancer named, if any did.
    fn named(&self) -> Option<&Peer> {
        self.identity.get()?.named.get()
    }

    /// Sets the peer that a load balancer named, which may be itself.
    pub(crate) fn name_peer(&self, peer: Peer) {
        // Cannot fail: there is one header on a connection.
        let _ = self.identity.get_or_init(Box::default).named.set(peer);
    }

    /// Sets whom the certificate of the peer names, and which senders it may be.
    pub(crate) fn certify(&self, peer: Option<Peer>, senders: Option<SenderRule>) {
        // Neither can fail: there is one handshake on a connection.
        if let Some(peer) = peer {
            debug!(event = "named", connection = self.number; "connection {} from {peer}: at {}", self.number, self.address());
            let _ = self.identity.get_or_init(Box::default).certified.set(peer);
        }
        if let Some(senders) = senders {
            let _ = self.identity.get_or_init(Box::default).senders.set(senders);
        }
    }

    /// Returns which senders the peer may be, if that is restricted.
    pub(crate) fn sender_rule(&self) -> Option<&SenderRule> {
        self.identity.get()?.senders.get()
    }

    /// Returns what the connection is counted by, with or without a load balancer that names its peer.
    pub(crate) fn source(&self, is_named: bool) -> Source {
        match is_named && self.named().is_none() {
            true => Source::Unknown,
            false => Source::of(self.address()),
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
