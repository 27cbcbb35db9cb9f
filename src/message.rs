//! Messages, and where they come from.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use crate::net::byte_stream::Peer;
use crate::server::acknowledger::Acked;
use crate::server::connection_state::{Order, Watch};
use crate::stream::payloads::Payloads;
use crate::wire::ack::RefusalCode;
use crate::wire::sender_id::SenderId;

/// A payload, with where it came from.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Message<'a> {
    /// The bytes that were sent.
    pub payload: &'a [u8],
    /// The message's number; the first one is 1. It is the number on its connection, or if there is a
    /// `sender`, among all messages of that sender, over all its connections.
    pub number: u64,
    /// Which client sent it, across reconnections, if it is one that asked for acknowledgements.
    pub sender: Option<SenderId>,
    /// Which connection it came over, where there are several; the first one is 1.
    pub connection: Option<u64>,
    /// Who sent it, where that is known.
    pub peer: Option<&'a Peer>,
    /// When its last byte had been read, where that is known.
    pub received: Option<SystemTime>,
}

/// Messages of one connection that were read together.
#[derive(Clone, Debug)]
pub struct Batch {
    payloads: Arc<Payloads>,
    pub(crate) origin: Option<Arc<Origin>>,
    received: Option<SystemTime>,
    /// How many of the payloads, from the first one on, do not belong to it.
    skipped: usize,
}

/// Where a connection's messages come from, and how many of them are committed.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) connection: u64,
    pub(crate) peer: Peer,
    pub(crate) watch: Watch,
    committed: AtomicU64,
    /// In a box, since most connections have none.
    acked: OnceLock<Box<Acked>>,
}

impl Origin {
    pub(crate) fn new(connection: u64, peer: Peer) -> Origin {
        Origin {
            connection,
            peer,
            watch: Watch::default(),
            committed: AtomicU64::new(0),
            acked: OnceLock::new(),
        }
    }

    /// Says which sender is at the other end, and how many of its messages came before the first one on
    /// this connection. To be called before any message is handed on, and once.
    pub(crate) fn set_sender(&self, sender: SenderId, before: u64) -> &Acked {
        self.acked.get_or_init(|| Box::new(Acked::new(sender, before)))
    }

    /// Returns what there is to know about acknowledgements, if the client asked for them.
    pub(crate) fn acked(&self) -> Option<&Acked> {
        self.acked.get().map(|acked| &**acked)
    }

    /// Returns why the sink takes nothing more of this connection, if that is so.
    pub(crate) fn refusal(&self) -> Option<RefusalCode> {
        self.acked()?.refusal.get().copied()
    }

    /// Returns how many messages of this connection the sink has committed.
    pub(crate) fn committed(&self) -> u64 {
        self.committed.load(Ordering::SeqCst)
    }

    /// Notes that more messages are committed, and sees to it that their sender hears of it, if it asked
    /// for that: here and now if they were `alone` in a commit, and else beside it, so that the next
    /// commit need not wait for the telling of many.
    pub(crate) fn commit(&self, messages: usize, alone: bool) {
        let messages = messages as u64;
        let before = self.committed.fetch_add(messages, Ordering::SeqCst);
        self.watch.committed();
        match self.acked() {
            Some(acked) if alone => acked.tell_at_once(before + messages),
            Some(acked) => acked.changed(),
            None => {}
        }
    }
}

impl Batch {
    pub(crate) fn received_from(origin: Arc<Origin>, payloads: Arc<Payloads>) -> Batch {
        Batch { payloads, origin: Some(origin), received: Some(SystemTime::now()), skipped: 0 }
    }

    /// Returns how many messages there are; at least one.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.payloads.len() - self.skipped
    }

    /// Returns which client sent it, across reconnections, if it is one that asked for
    /// acknowledgements.
    pub fn sender(&self) -> Option<SenderId> {
        Some(self.origin.as_deref()?.acked()?.sender)
    }

    /// Says, within [`Sink::commit`], that these messages are not committed and nothing more of their
    /// connection will be. Instead of being acknowledged the client is told why, and its connection is
    /// ended. It goes on from what [`Sink::committed`] says when it connects again.
    ///
    /// Does nothing for a batch without a [`Batch::sender`], which nobody waits for: a sink that cannot
    /// take it has failed.
    pub fn refuse(&self, code: RefusalCode) {
        if let Some(origin) = &self.origin
            && let Some(acked) = origin.acked()
        {
            let _ = acked.refusal.set(code);
            origin.watch.tell(Order::Refused);
        }
    }

    /// Returns which connection it came over, if any.
    pub(crate) fn connection(&self) -> Option<u64> {
        self.origin.as_deref().map(|origin| origin.connection)
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.origin.as_deref().and_then(Origin::refusal).is_some()
    }

    /// Returns the number of the first message; see [`Message::number`].
    pub fn first_number(&self) -> u64 {
        let acked = self.origin.as_deref().and_then(Origin::acked);
        let before = acked.map_or(0, |acked| acked.before);
        before.saturating_add(self.payloads.first_number()).saturating_add(self.skipped as u64)
    }

    /// Returns the number of the last message; see [`Message::number`].
    pub fn last_number(&self) -> u64 {
        self.first_number().saturating_add(self.len() as u64 - 1)
    }

    /// Returns the same batch without its first `count` messages, or `None` if nothing would be left.
    /// Nothing is copied.
    #[must_use]
    pub fn skip(&self, count: usize) -> Option<Batch> {
        (count < self.len()).then(|| Batch { skipped: self.skipped + count, ..self.clone() })
    }

    /// Returns the messages with numbers over `committed`, or `None` if there are none.
    #[must_use]
    pub fn after(&self, committed: u64) -> Option<Batch> {
        let known = committed.saturating_add(1).saturating_sub(self.first_number());
        self.skip(usize::try_from(known).unwrap_or(usize::MAX))
    }

    /// Returns the messages in the order in which they were sent.
    pub fn messages(&self) -> impl Iterator<Item = Message<'_>> {
        let origin = self.origin.as_deref();
        let (received, sender) = (self.received, self.sender());
        let first = self.first_number();
        let payloads = self.payloads.iter().skip(self.skipped);
        (0..).zip(payloads).map(move |(index, payload)| Message {
            payload,
            // What a sink says of a sender may be any number.
            number: first.saturating_add(index),
            sender,
            connection: origin.map(|origin| origin.connection),
            peer: origin.map(|origin| &origin.peer),
            received,
        })
    }
}

/// Messages that came over no connection, for example out of a file.
impl From<Payloads> for Batch {
    fn from(payloads: Payloads) -> Batch {
        Batch { payloads: Arc::new(payloads), origin: None, received: None, skipped: 0 }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use futures_lite::future::block_on;

    use super::*;
    use crate::stream::reader::FrameReader;
    use crate::wire::frame::append_frame;
    use crate::{DEFAULT_MAX_MESSAGE, Layout};

    /// Returns a connection of a sender that has sent `before` messages over others.
    pub(crate) fn origin(sender: Option<(SenderId, u64)>) -> Arc<Origin> {
        let origin = Origin::new(7, Peer::Unix);
        if let Some((sender, before)) = sender {
            origin.set_sender(sender, before);
        }
        Arc::new(origin)
    }

    /// Returns a batch of the first messages on a connection.
    pub(crate) fn batch(origin: &Arc<Origin>, payloads: &[&[u8]]) -> Batch {
        let mut frames = Vec::new();
        for payload in payloads {
            append_frame(&mut frames, Layout::U32BE, DEFAULT_MAX_MESSAGE, payload).unwrap();
        }
        let payloads = block_on(FrameReader::new(&frames[..]).read_batch()).unwrap().unwrap();
        Batch::received_from(Arc::clone(origin), Arc::new(payloads))
    }

    #[test]
    fn a_batch_without_its_first_messages_is_the_rest_of_it() {
        let origin = origin(Some((SenderId::from_bytes([1; 16]), 10)));
        let all = batch(&origin, &[b"a", b"b", b"c"]);
        assert_eq!((all.len(), all.first_number(), all.last_number()), (3, 11, 13));
        let rest = all.skip(1).unwrap().skip(1).unwrap();
        let messages: Vec<_> = rest.messages().map(|m| (m.number, m.payload)).collect();
        assert_eq!(messages, [(13, &b"c"[..])]);
        assert_eq!((rest.len(), rest.first_number(), rest.last_number()), (1, 13, 13));
        assert!(rest.skip(1).is_none() && all.skip(3).is_none() && all.skip(4).is_none());
        assert_eq!(all.after(10).unwrap().len(), 3);
        assert_eq!(all.after(12).unwrap().len(), 1);
        assert!(all.after(13).is_none() && all.after(u64::MAX - 1).is_none());
    }

    #[test]
    fn numbers_stop_at_the_largest_one() {
        let origin = origin(Some((SenderId::from_bytes([1; 16]), u64::MAX - 2)));
        let all = batch(&origin, &[b"a", b"b", b"c", b"d"]);
        let numbers: Vec<u64> = all.messages().map(|message| message.number).collect();
        assert_eq!(numbers, [u64::MAX - 1, u64::MAX, u64::MAX, u64::MAX]);
        assert_eq!(all.last_number(), u64::MAX);
    }
}
