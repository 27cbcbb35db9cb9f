//! Where the server puts messages.
//!
//! A [`Sink`] is plain blocking code. It runs on a thread of its own, the writer thread, so that a
//! full pipe or a slow disk stops no socket; a bounded queue leads there, and when it is full the
//! connections stop reading and TCP slows the senders down. The thread takes all that is queued and
//! commits it together, so commits grow with the load and a single message does not wait.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use crate::acknowledger::Acked;
use crate::acks::{RefusalCode, checksum};
use crate::net::Peer;
use crate::payloads::Payloads;
use crate::sender::SenderId;
use crate::watch::{Order, Watch};

mod file;
mod linger; // when the writer thread stays awake
mod output;
mod patience; // what passes is waited for
mod place; // where messages go, as text
mod queue; // to the writer thread
mod seen; // how far each sender has come
mod thread; // the writer thread
mod turns; // what is committed together
// The only place that knows whether this build has it.
#[cfg(not(feature = "sqlite"))]
#[path = "sink/no_sqlite.rs"]
mod sqlite;
#[cfg(feature = "sqlite")]
mod sqlite;
// Likewise.
#[cfg(not(feature = "redis"))]
#[path = "sink/no_redis.rs"]
mod redis;
#[cfg(feature = "redis")]
mod redis;

pub use self::redis::RedisSink;
pub use file::{FileSink, FileSync, ParseFileSyncError};
pub use output::OutputSink;
pub use place::{ParsePlaceError, Place};
pub(crate) use queue::Queue;
pub use sqlite::SqliteSink;
pub(crate) use thread::Writer;

/// Takes messages in.
///
/// # Examples
///
/// A sink that adds up lengths:
///
/// ```
/// use framelet::{Batch, Sink, SinkError};
///
/// struct Sum(usize);
///
/// impl Sink for Sum {
///     fn commit(&mut self, batches: &[Batch]) -> Result<(), SinkError> {
///         for message in batches.iter().flat_map(Batch::messages) {
///             self.0 += message.payload.len();
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait Sink: Send {
    /// Takes all these messages in, and returns once they are as safe as this sink promises.
    ///
    /// It may block. Messages of one connection come in the order in which they were sent, in one
    /// batch and from batch to batch.
    ///
    /// A sink with transactions stores in the same transaction how far each [`Batch::sender`] has come,
    /// for [`Sink::committed`]. A message that a sender has sent again, since it did not know that it
    /// was committed, does not come here again as long as the server remembers the sender.
    ///
    /// Where some of the messages cannot be taken since another server has taken over their sender, the
    /// sink says so with [`Batch::refuse`].
    ///
    /// # Errors
    ///
    /// [`SinkError::Transient`] if the same call may succeed later: the server logs that once and calls
    /// again, with the same batches less those that were [refused](Batch::refuse). So nothing of
    /// them may be left, or it must be recognized when they come again. [`SinkError::Fatal`] ends
    /// the server.
    fn commit(&mut self, batches: &[Batch]) -> Result<(), SinkError>;

    /// Returns how many messages of `sender` are committed: the number of its last one. It is asked
    /// when a client connects that wants acknowledgements, after everything that came over an older
    /// connection of this sender. A sink that several servers share can make this server the one that
    /// may commit messages of `sender`.
    ///
    /// A sink that knows it has to leave out by itself what it has already.
    ///
    /// `None`, which is what this returns unless it is implemented, means that the sink does not know.
    /// Then the server remembers it while it runs, of the 100,000 senders with the latest messages. Of a
    /// sender that it does not remember it believes what that one knows itself: that everything before
    /// the first message that it can send is committed.
    ///
    /// # Errors
    ///
    /// As those of a commit.
    fn committed(&mut self, sender: SenderId) -> Result<Option<u64>, SinkError> {
        let _ = sender;
        Ok(None)
    }

    /// Answers [`Sink::committed`] for several senders, in their order. To be implemented where many
    /// questions at once cost less than each on its own, for example a way to another machine.
    ///
    /// # Errors
    ///
    /// As those of a commit.
    fn committed_by_each(&mut self, senders: &[SenderId]) -> Result<Vec<Option<u64>>, SinkError> {
        senders.iter().map(|sender| self.committed(*sender)).collect()
    }

    /// Returns the checksum of the last message that [`Sink::committed`] counts, for each of several
    /// senders in their order: what [`Batch::last_checksum`] said of the batch with which it came. A sink that
    /// stores how far a sender has come stores this with it. A client that goes on in an input compares it,
    /// so that another input is not taken for the one of which the beginning was sent.
    ///
    /// `None` means that the sink does not know; then what the server remembers while it runs counts.
    ///
    /// # Errors
    ///
    /// As those of a commit.
    fn last_checksums(&mut self, senders: &[SenderId]) -> Result<Vec<Option<u64>>, SinkError> {
        Ok(vec![None; senders.len()])
    }

    /// Opens again what it writes to, for example since the file was renamed to start a new one. All
    /// that was received before is committed by then.
    ///
    /// # Errors
    ///
    /// As those of a commit.
    fn reopen(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// Why a sink could not do what it was asked to do.
///
/// An [`io::Error`] becomes a fatal one.
#[derive(Debug)]
pub enum SinkError {
    /// The same call may succeed later, for example once a disk has room again. The server waits and
    /// calls again.
    Transient(io::Error),
    /// No later call will succeed. It ends the server.
    Fatal(io::Error),
}

impl From<io::Error> for SinkError {
    fn from(error: io::Error) -> SinkError {
        SinkError::Fatal(error)
    }
}

impl From<SinkError> for io::Error {
    fn from(error: SinkError) -> io::Error {
        match error {
            SinkError::Transient(error) | SinkError::Fatal(error) => error,
        }
    }
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SinkError::Transient(error) | SinkError::Fatal(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SinkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SinkError::Transient(error) | SinkError::Fatal(error) => Some(error),
        }
    }
}

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
    origin: Option<Arc<Origin>>,
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
    fn connection(&self) -> Option<u64> {
        self.origin.as_deref().map(|origin| origin.connection)
    }

    fn is_refused(&self) -> bool {
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

    /// Returns the checksum of the last message's payload, for [`Sink::last_checksums`].
    pub fn last_checksum(&self) -> u64 {
        checksum(self.payloads.iter().last().unwrap_or_default())
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
    use crate::reader::FrameReader;
    use crate::writer::append_frame;
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
