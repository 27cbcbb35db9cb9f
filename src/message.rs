//! Messages and their origin.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use crate::net::byte_stream::Peer;
use crate::stream::payloads::{self, Payloads, UNKNOWN};
use crate::wire::ack::checksum;
use crate::wire::answer::RefusalCode;
use crate::wire::layout::{EncodeError, Header, Layout};
use crate::wire::sender_id::SenderId;

/// A received payload with its header and its origin.
///
/// # Examples
///
/// ```
/// use framelet::Message;
///
/// let message = Message::new(b"21.5");
/// assert_eq!((message.number, message.payload), (1, &b"21.5"[..]));
/// assert!(message.header.is_empty() && message.sender.is_none() && message.peer.is_none());
///
/// let query = Message::new(b"SELECT 1\0").with_header(b"Q");
/// assert_eq!(query.header.to_vec(), b"Q");
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Message<'a> {
    /// The bytes that the layout keeps beside the payload; none in most layouts.
    pub header: Header<'a>,
    /// The bytes that were sent.
    pub payload: &'a [u8],
    /// The message's number, counted from 1: on its connection, or, if there is a `sender`, among all messages
    /// of that sender.
    pub number: u64,
    /// The sender, if the client asked for acknowledgements.
    pub sender: Option<SenderId>,
    /// The number of its connection, counted from 1, if there is one.
    pub connection: Option<u64>,
    /// The other end of its connection, if known.
    pub peer: Option<&'a Peer>,
    /// When its last byte was read, if known.
    pub received: Option<SystemTime>,
    /// Which way it went, if that was [said](Batch::with_direction).
    pub direction: Option<Direction>,
    /// Where its frame begins; `UNKNOWN` if it was not read from a stream.
    pub(crate) start: u64,
}

impl<'a> Message<'a> {
    /// Returns the first message of an unknown peer, with an empty header.
    pub fn new(payload: &'a [u8]) -> Message<'a> {
        let (sender, connection, peer, received) = (None, None, None, None);
        let (header, direction, start) = (Header::EMPTY, None, UNKNOWN);
        Message { header, payload, number: 1, sender, connection, peer, received, direction, start }
    }

    /// Sets the header.
    #[must_use]
    pub fn with_header(self, header: &'a [u8]) -> Message<'a> {
        Message { header: Header::new(header), ..self }
    }

    /// Returns the offset in bytes at which its frame begins in the stream of its connection or in its file, if
    /// it was read from one.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::{Batch, FrameReader};
    ///
    /// # futures_lite::future::block_on(async {
    /// let mut reader = FrameReader::new(&b"\0\0\0\x04ping\0\0\0\x04pong"[..]);
    /// let batch = Batch::from(reader.read_batch().await?.expect("two messages"));
    /// let offsets: Vec<_> = batch.messages().map(|message| message.offset()).collect();
    /// assert_eq!(offsets, [Some(0), Some(8)]);
    /// # Ok::<(), framelet::stream::ReadError>(()) }).unwrap();
    /// ```
    pub fn offset(&self) -> Option<u64> {
        (self.start != UNKNOWN).then_some(self.start)
    }
}

/// Which way a message went, for programs that write down both sides of a conversation.
///
/// The format `json` has it as `"direction":"in"` or `"direction":"out"`.
///
/// # Examples
///
/// ```
/// use framelet::message::Direction;
/// use framelet::Batch;
///
/// let reply: Batch = ["pong"].into_iter().collect();
/// let reply = reply.with_direction(Direction::In);
/// assert_eq!(reply.messages().next().unwrap().direction, Some(Direction::In));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It was received.
    In,
    /// It was sent.
    Out,
}

/// The connection over which messages arrived.
///
/// # Examples
///
/// ```
/// use framelet::message::Origin;
/// use framelet::net::Peer;
/// use framelet::wire::SenderId;
/// use framelet::Batch;
///
/// let origin = Origin::new(7, Peer::Unix).with_sender(SenderId::from_bytes([1; 16]), 40);
/// let batch = Batch::new(origin, ["21.5", "21.7"]);
/// assert_eq!((batch.first_number(), batch.last_number()), (41, 42));
/// ```
#[derive(Debug)]
pub struct Origin {
    connection: u64,
    peer: Peer,
    sender: Option<SenderId>,
    /// How many messages of the sender were committed before the first one on this connection.
    before: u64,
    /// Why the sink takes no more messages of this connection.
    refusal: OnceLock<RefusalCode>,
}

impl Origin {
    /// Returns the connection with this number; the first one is 1.
    pub fn new(connection: u64, peer: Peer) -> Origin {
        Origin { connection, peer, sender: None, before: 0, refusal: OnceLock::new() }
    }

    /// Sets the sender, and how many of its messages were committed before the first one on this
    /// connection.
    #[must_use]
    pub fn with_sender(self, sender: SenderId, before: u64) -> Origin {
        Origin { sender: Some(sender), before, ..self }
    }

    /// Returns why the sink takes no more messages of this connection, if it has [refused](Batch::refuse)
    /// any.
    pub fn refusal(&self) -> Option<RefusalCode> {
        self.refusal.get().copied()
    }
}

/// Messages of one connection that were read together.
///
/// # Examples
///
/// ```
/// use framelet::Batch;
///
/// let batch: Batch = ["21.5", "21.7", "21.9"].into_iter().collect();
/// assert_eq!((batch.len(), batch.last_number()), (3, 3));
/// let rest = batch.after(2).expect("the third message is new");
/// assert_eq!((rest.len(), rest.first_number()), (1, 3));
/// assert!(batch.after(3).is_none());
/// assert_eq!(batch.skip(1).map(|rest| rest.first_number()), Some(2));
/// assert_eq!(batch.sender(), None); // its client did not ask for acknowledgements
/// ```
#[derive(Clone, Debug)]
pub struct Batch {
    payloads: Arc<Payloads>,
    origin: Option<Arc<Origin>>,
    received: Option<SystemTime>,
    direction: Option<Direction>,
    /// How many payloads at the start do not belong to the batch.
    skipped: usize,
}

impl Batch {
    /// Returns the first messages of a connection as a batch, as a server passes them to a sink; useful in
    /// tests of a sink.
    ///
    /// # Panics
    ///
    /// If there are no messages, or one is over [`MAX_PAYLOAD`](crate::wire::MAX_PAYLOAD).
    pub fn new<P: AsRef<[u8]>>(
        origin: impl Into<Arc<Origin>>,
        payloads: impl IntoIterator<Item = P>,
    ) -> Batch {
        let batch: Batch = payloads.into_iter().collect();
        Batch { origin: Some(origin.into()), received: Some(SystemTime::now()), ..batch }
    }

    /// Returns the first messages of a connection in `layout` as a batch, each a header and a payload. An
    /// empty header stands for zeros.
    ///
    /// # Errors
    ///
    /// [`EncodeError`] if the layout cannot frame a message, or has no such header.
    ///
    /// # Panics
    ///
    /// If there are no messages.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::Batch;
    /// use framelet::message::Origin;
    /// use framelet::net::Peer;
    ///
    /// let origin = Origin::new(1, Peer::Unix);
    /// let batch = Batch::with_headers(origin, "h1:u32be".parse()?, [(b"Q", "SELECT 1")])?;
    /// let message = batch.messages().next().unwrap();
    /// assert_eq!((message.header.to_vec(), message.payload), (b"Q".to_vec(), &b"SELECT 1"[..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_headers<H: AsRef<[u8]>, P: AsRef<[u8]>>(
        origin: impl Into<Arc<Origin>>,
        layout: Layout,
        messages: impl IntoIterator<Item = (H, P)>,
    ) -> Result<Batch, EncodeError> {
        let payloads = Payloads::in_layout(layout, messages)?;
        assert!(payloads.len() > 0, "a batch has at least one message");
        Ok(Batch::received_from(origin.into(), Arc::new(payloads)))
    }

    pub(crate) fn received_from(origin: Arc<Origin>, payloads: Arc<Payloads>) -> Batch {
        Batch {
            payloads,
            origin: Some(origin),
            received: Some(SystemTime::now()),
            direction: None,
            skipped: 0,
        }
    }

    /// Says which way the messages went.
    #[must_use]
    pub fn with_direction(self, direction: Direction) -> Batch {
        Batch { direction: Some(direction), ..self }
    }

    /// Returns the number of messages; at least one.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.payloads.len() - self.skipped
    }

    /// Returns the sender, if the client asked for acknowledgements.
    pub fn sender(&self) -> Option<SenderId> {
        self.origin.as_deref()?.sender
    }

    /// Refuses these messages and all later ones of their connection; to be called within
    /// [`MessageSink::commit`](crate::sink::MessageSink::commit). They are not acknowledged: the client is
    /// told the reason and its connection ends. When it reconnects, it resumes after the count that
    /// [`MessageSink::committed`](crate::sink::MessageSink::committed) returns.
    ///
    /// Does nothing for a batch without a [`Batch::sender`]: its client waits for no answer. A sink that
    /// cannot take such a batch must return an error.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::message::Origin;
    /// use framelet::net::Peer;
    /// use framelet::wire::{RefusalCode, SenderId};
    /// use framelet::Batch;
    /// use std::sync::Arc;
    ///
    /// let origin = Origin::new(1, Peer::Unix).with_sender(SenderId::from_bytes([1; 16]), 0);
    /// let origin = Arc::new(origin);
    /// Batch::new(Arc::clone(&origin), ["21.5"]).refuse(RefusalCode::Fenced);
    /// assert_eq!(origin.refusal(), Some(RefusalCode::Fenced));
    /// ```
    pub fn refuse(&self, code: RefusalCode) {
        if let Some(origin) = self.origin.as_deref().filter(|origin| origin.sender.is_some()) {
            let _ = origin.refusal.set(code);
        }
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.origin.as_deref().and_then(Origin::refusal).is_some()
    }

    /// Returns the number of the first message; see [`Message::number`].
    pub fn first_number(&self) -> u64 {
        let before = self.origin.as_deref().map_or(0, |origin| origin.before);
        before.saturating_add(self.payloads.first_number()).saturating_add(self.skipped as u64)
    }

    /// Returns the number of the last message; see [`Message::number`].
    pub fn last_number(&self) -> u64 {
        self.first_number().saturating_add(self.len() as u64 - 1)
    }

    /// Returns the checksum of the last message's payload, for
    /// [`MessageSink::last_checksums`](crate::sink::MessageSink::last_checksums).
    pub fn last_checksum(&self) -> u64 {
        checksum(self.payloads.iter().last().unwrap_or_default())
    }

    /// Returns the batch without its first `count` messages, or `None` if none would be left. Nothing is
    /// copied.
    #[must_use]
    pub fn skip(&self, count: usize) -> Option<Batch> {
        (count < self.len()).then(|| Batch { skipped: self.skipped + count, ..self.clone() })
    }

    /// Returns the messages with numbers above `committed`, or `None` if there are none.
    #[must_use]
    pub fn after(&self, committed: u64) -> Option<Batch> {
        let known = committed.saturating_add(1).saturating_sub(self.first_number());
        self.skip(usize::try_from(known).unwrap_or(usize::MAX))
    }

    /// Returns the messages in the order in which they were sent.
    pub fn messages(&self) -> Messages<'_> {
        let mut messages = self.payloads.messages();
        for _ in 0..self.skipped {
            messages.next();
        }
        Messages {
            messages,
            end: self.payloads.end,
            number: self.first_number(),
            sender: self.sender(),
            origin: self.origin.as_deref(),
            received: self.received,
            direction: self.direction,
        }
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = Message<'a>;
    type IntoIter = Messages<'a>;

    fn into_iter(self) -> Messages<'a> {
        self.messages()
    }
}

/// The messages of a [`Batch`].
///
/// # Examples
///
/// ```
/// use framelet::Batch;
///
/// let batch: Batch = ["21.5", "21.7"].into_iter().collect();
/// for message in batch.messages() {
///     println!("{}: {}", message.number, String::from_utf8_lossy(message.payload));
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    messages: payloads::Messages<'a>,
    /// Where the last frame ends, as in [`Payloads`].
    end: u64,
    /// The number of the next message.
    number: u64,
    sender: Option<SenderId>,
    origin: Option<&'a Origin>,
    received: Option<SystemTime>,
    direction: Option<Direction>,
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let start = match self.end {
            UNKNOWN => UNKNOWN,
            end => end - self.messages.left() as u64,
        };
        let (header, payload) = self.messages.next()?;
        let number = self.number;
        // Saturates, since a sink may report any number for a sender.
        self.number = number.saturating_add(1);
        Some(Message {
            header,
            payload,
            number,
            sender: self.sender,
            connection: self.origin.map(|origin| origin.connection),
            peer: self.origin.map(|origin| &origin.peer),
            received: self.received,
            direction: self.direction,
            start,
        })
    }
}

/// The first messages of an unknown peer.
///
/// # Panics
///
/// The same as those of [`Batch::new`].
impl<P: AsRef<[u8]>> FromIterator<P> for Batch {
    fn from_iter<I: IntoIterator<Item = P>>(payloads: I) -> Batch {
        let payloads: Payloads = payloads.into_iter().collect();
        assert!(payloads.len() > 0, "a batch has at least one message");
        Batch::from(payloads)
    }
}

/// Messages that did not come over a connection, such as those read from a file.
impl From<Payloads> for Batch {
    fn from(payloads: Payloads) -> Batch {
        let (payloads, origin, received) = (Arc::new(payloads), None, None);
        Batch { payloads, origin, received, direction: None, skipped: 0 }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Returns a connection of a sender that has sent `before` messages over others.
    pub(crate) fn origin(sender: Option<(SenderId, u64)>) -> Arc<Origin> {
        let origin = Origin::new(7, Peer::Unix);
        Arc::new(match sender {
            Some((sender, before)) => origin.with_sender(sender, before),
            None => origin,
        })
    }

    /// Returns a batch of the first messages on a connection.
    pub(crate) fn batch(origin: &Arc<Origin>, payloads: &[&[u8]]) -> Batch {
        Batch::new(Arc::clone(origin), payloads)
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

    #[test]
    fn messages_keep_their_headers_whatever_is_skipped_before_them() {
        let layout = "h2:u8:data:h1".parse().unwrap();
        let messages = [("abc", "one"), ("", "two"), ("def", "")];
        let all = Batch::with_headers(origin(None), layout, messages).unwrap();
        let found = |batch: &Batch| -> Vec<_> {
            batch.messages().map(|m| (m.header.to_vec(), m.payload.to_vec())).collect()
        };
        let expected = messages.map(|(header, payload)| match header {
            "" => (vec![0; 3], payload.into()),
            _ => (header.into(), payload.into()),
        });
        assert_eq!(found(&all), expected);
        assert_eq!(found(&all.skip(2).unwrap()), expected[2..]);
        let error = Batch::with_headers(origin(None), layout, [("ab", "one")]).unwrap_err();
        assert_eq!(error, EncodeError::Header { length: 2, layout });
    }
}
