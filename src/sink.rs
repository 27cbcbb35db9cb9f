//! Where the server puts messages.
//!
//! A [`Sink`] is plain blocking code. It runs on a thread of its own, the writer thread, so that a
//! full pipe or a slow disk stops no socket; a bounded queue leads there, and when it is full the
//! connections stop reading and TCP slows the senders down. The thread takes all that is queued and
//! commits it together, so commits grow with the load and a single message does not wait.
//!
//! The same queue carries questions and orders to the sink, so that each of them comes after all
//! messages that were queued before it.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use smol::channel::{self, Receiver, Sender, TrySendError};

use crate::acknowledger::Acked;
use crate::acks::RefusalCode;
use crate::net::Peer;
use crate::payloads::Payloads;
use crate::sender::SenderId;
use crate::watch::{Order, Watch};

mod file;
mod output;
mod place; // where messages go, as text
mod seen; // how far each sender has come
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

use seen::Seen;

pub use self::redis::RedisSink;
pub use file::{FileSink, FileSync, ParseFileSyncError};
pub use output::OutputSink;
pub use place::{ParsePlaceError, Place};
pub use sqlite::SqliteSink;

/// How many batches wait for the writer thread at most. Memory is bounded by the pool, in bytes; this
/// only keeps the queue short enough to be taken in one commit.
const QUEUE: usize = 1024;

/// Takes messages in.
///
/// # Examples
///
/// A sink that adds up lengths:
///
/// ```
/// use framelet::{Batch, Sink};
///
/// struct Sum(usize);
///
/// impl Sink for Sum {
///     fn commit(&mut self, batches: &[Batch]) -> std::io::Result<()> {
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
    /// An error is final: it ends the server, and says why.
    fn commit(&mut self, batches: &[Batch]) -> io::Result<()>;

    /// Returns how many messages of `sender` are committed: the number of its last one. It is asked
    /// when a client connects that wants acknowledgements, after everything that came over an older
    /// connection of this sender. A sink that several servers share can make this server the one that
    /// may commit messages of `sender`.
    ///
    /// A sink that knows it has to leave out by itself what it has already.
    ///
    /// `None`, which is what this returns unless it is implemented, means that the sink does not know.
    /// Then the server remembers it while it runs: for a day after the sender's last message, and of the
    /// latest 100,000 senders at most. Of a sender that it does not remember it believes what that one
    /// knows itself: that everything in front of the first message that it can send is committed.
    ///
    /// # Errors
    ///
    /// An error is final, like that of a commit.
    fn committed(&mut self, sender: SenderId) -> io::Result<Option<u64>> {
        let _ = sender;
        Ok(None)
    }

    /// Opens again what it writes to, for example since the file was renamed to start a new one. All
    /// that was received before is committed by then.
    ///
    /// # Errors
    ///
    /// An error is final, like that of a commit.
    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
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
    pub(crate) fn set_sender(&self, sender: SenderId, before: u64) {
        let _ = self.acked.set(Box::new(Acked::new(sender, before)));
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

    fn commit(&self, messages: usize) {
        self.committed.fetch_add(messages as u64, Ordering::SeqCst);
        self.watch.committed();
        if let Some(acked) = self.acked() {
            acked.changed();
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
            origin.watch.tell(Order::Fenced);
        }
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
        let payloads = self.payloads.iter().skip(self.skipped);
        payloads.zip(self.first_number()..).map(move |(payload, number)| Message {
            payload,
            number,
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

/// What the writer thread is to do.
#[derive(Debug)]
enum Command {
    Commit(Batch),
    /// Answer how many messages of a sender are committed, if that is known.
    Committed(SenderId, Sender<Option<u64>>),
    Reopen,
}

/// The way to a sink's writer thread.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: Sender<Command>,
    ended: Receiver<io::Result<()>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    queued: AtomicU64,
    /// Those whose sender was told that they are refused count, too: they are no longer this server's.
    committed: AtomicU64,
}

impl Writer {
    /// Starts the writer thread of `sink`.
    ///
    /// # Errors
    ///
    /// The system's, if it has no thread to give.
    pub(crate) fn start(mut sink: Box<dyn Sink>) -> io::Result<Writer> {
        let (queue, commands) = channel::bounded(QUEUE);
        let (end, ended) = channel::bounded(1);
        let counts = Arc::<Counts>::default();
        let committed = Arc::clone(&counts);
        std::thread::Builder::new().name("framelet-sink".into()).spawn(move || {
            let result = obey(&mut *sink, &commands, &committed);
            // It may have something to do at its end, too, and that belongs to it.
            drop(sink);
            // The receiver may be gone: then nobody wants to know any more.
            let _ = end.try_send(result);
        })?;
        Ok(Writer { queue, ended, counts })
    }

    /// Returns a queue to the thread that is independent of this one.
    pub(crate) fn queue(&self) -> Queue {
        Queue { queue: self.queue.clone(), counts: Arc::clone(&self.counts) }
    }

    /// Has the sink open again what it writes to, after everything that was queued before.
    pub(crate) async fn reopen(&self) {
        // If it has failed, that is said elsewhere.
        let _ = self.queue.send(Command::Reopen).await;
    }

    /// Waits until the thread has ended by itself, which it only does if the sink has failed.
    pub(crate) async fn failed(&self) -> io::Error {
        match self.ended.recv().await {
            Ok(Err(error)) => error,
            Ok(Ok(())) | Err(_) => io::Error::other("the sink has ended by a panic"),
        }
    }

    /// Waits until all that was queued is committed, once all queues have been dropped.
    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        self.queue.close();
        match self.ended.recv().await {
            Ok(result) => result,
            Err(_) => Err(io::Error::other("the sink has ended by a panic")),
        }
    }

    /// Returns how many messages were queued and are not known to be committed.
    pub(crate) fn uncommitted(&self) -> u64 {
        let committed = self.counts.committed.load(Ordering::SeqCst);
        self.counts.queued.load(Ordering::SeqCst).saturating_sub(committed)
    }
}

/// Hands batches to the writer thread.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    queue: Sender<Command>,
    counts: Arc<Counts>,
}

/// The rest of handing a batch on.
pub(crate) type Sending<'a> = Pin<Box<dyn Future<Output = Result<(), SinkGone>> + Send + 'a>>;

/// The sink has failed; what is handed to it now goes nowhere.
#[derive(Debug)]
pub(crate) struct SinkGone;

impl fmt::Display for SinkGone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the sink takes no more messages")
    }
}

impl Queue {
    /// Hands a batch on. Where the queue is full that takes a while, and then it returns what to wait
    /// for: in a box, so that only who waits has the room for it.
    pub(crate) fn send(&self, batch: Batch) -> Option<Sending<'_>> {
        self.counts.queued.fetch_add(batch.len() as u64, Ordering::SeqCst);
        match self.queue.try_send(Command::Commit(batch)) {
            Ok(()) => None,
            Err(TrySendError::Full(command) | TrySendError::Closed(command)) => {
                Some(Box::pin(async move { self.queue.send(command).await.map_err(|_| SinkGone) }))
            }
        }
    }

    /// Returns how many messages of `sender` are committed, with everything that was queued before;
    /// `None` if that is not known.
    ///
    /// # Errors
    ///
    /// [`SinkGone`]; why is said by [`Writer::failed`].
    pub(crate) async fn committed(&self, sender: SenderId) -> Result<Option<u64>, SinkGone> {
        let (answer, answered) = channel::bounded(1);
        let question = Command::Committed(sender, answer);
        self.queue.send(question).await.map_err(|_| SinkGone)?;
        answered.recv().await.map_err(|_| SinkGone)
    }
}

/// Does what comes through the queue, in its order, until the queue is closed.
fn obey(sink: &mut dyn Sink, commands: &Receiver<Command>, counts: &Counts) -> io::Result<()> {
    let mut seen = Seen::default();
    let mut group = Vec::new();
    while let Ok(command) = commands.recv_blocking() {
        let mut next = Some(command);
        while let Some(Command::Commit(batch)) = next {
            group.push(batch);
            next = if group.len() < QUEUE { commands.try_recv().ok() } else { None };
        }
        if !group.is_empty() {
            commit(sink, &mut seen, &group)?;
            for batch in group.drain(..) {
                counts.committed.fetch_add(batch.len() as u64, Ordering::SeqCst);
                if let Some(origin) = &batch.origin
                    && origin.refusal().is_none()
                {
                    origin.commit(batch.len());
                }
            }
        }
        match next {
            Some(Command::Committed(sender, answer)) => {
                let committed = seen.committed(sender, sink)?;
                // Who asked may be gone.
                let _ = answer.try_send(committed);
            }
            Some(Command::Reopen) => sink.reopen()?,
            Some(Command::Commit(_)) | None => {}
        }
    }
    Ok(())
}

/// Commits what is new in a group of batches.
fn commit(sink: &mut dyn Sink, seen: &mut Seen, group: &[Batch]) -> io::Result<()> {
    if group.iter().all(|batch| batch.sender().is_none()) {
        return sink.commit(group);
    }
    let mut fresh = Vec::with_capacity(group.len());
    for batch in group.iter().filter(|batch| !batch.is_refused()) {
        fresh.extend(seen.only_new(batch));
    }
    if fresh.is_empty() { Ok(()) } else { sink.commit(&fresh) }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Mutex;

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

    /// What a sink was told, in order.
    type Told = Arc<Mutex<Vec<String>>>;

    /// A sink that notes what it is told.
    struct Notes(Told);

    impl Sink for Notes {
        fn commit(&mut self, batches: &[Batch]) -> io::Result<()> {
            for message in batches.iter().flat_map(Batch::messages) {
                let payload = String::from_utf8_lossy(message.payload);
                self.0.lock().unwrap().push(format!("{} {payload}", message.number));
            }
            Ok(())
        }

        fn reopen(&mut self) -> io::Result<()> {
            self.0.lock().unwrap().push("reopen".into());
            Ok(())
        }
    }

    fn queue(queue: &Queue, batch: Batch) {
        assert!(queue.send(batch).is_none());
    }

    #[test]
    fn messages_that_a_sender_repeats_are_committed_once() {
        let told = Told::default();
        let mut writer = Writer::start(Box::new(Notes(Arc::clone(&told)))).unwrap();
        let to_sink = writer.queue();
        let sender = SenderId::from_bytes([1; 16]);
        let (first, again) = (origin(Some((sender, 0))), origin(Some((sender, 1))));
        queue(&to_sink, batch(&first, &[b"a", b"b", b"c"]));
        // The connection is lost, and the sender knows of one message only.
        queue(&to_sink, batch(&again, &[b"b", b"c", b"d"]));
        queue(&to_sink, batch(&origin(Some((sender, 2))), &[b"c", b"d"]));
        assert_eq!(block_on(to_sink.committed(sender)).unwrap(), Some(4));
        assert_eq!(block_on(to_sink.committed(SenderId::from_bytes([2; 16]))).unwrap(), None);
        // Without a sender everything is new.
        queue(&to_sink, batch(&origin(None), &[b"b"]));
        block_on(writer.finish()).unwrap();
        assert_eq!(*told.lock().unwrap(), ["1 a", "2 b", "3 c", "4 d", "1 b"]);
        // For the connection, what was skipped is committed.
        assert_eq!((first.committed(), again.committed(), writer.uncommitted()), (3, 3, 0));
    }

    #[test]
    fn questions_and_orders_keep_their_place_among_the_messages() {
        let told = Told::default();
        let mut writer = Writer::start(Box::new(Notes(Arc::clone(&told)))).unwrap();
        let (to_sink, origin) = (writer.queue(), origin(None));
        let mut expected = Vec::new();
        for _ in 0..100 {
            queue(&to_sink, batch(&origin, &[b"a"]));
            block_on(writer.reopen());
            expected.extend(["1 a".to_owned(), "reopen".to_owned()]);
        }
        block_on(writer.finish()).unwrap();
        assert_eq!(*told.lock().unwrap(), expected);
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
    fn a_connection_without_a_sender_is_hardly_larger_for_it() {
        let without = size_of::<Origin>() - size_of::<OnceLock<Box<(SenderId, u64)>>>();
        assert!(size_of::<Origin>() - without <= 16, "{without}");
        // The allocator's steps of 16 bytes make that as much as 8 would be.
        assert_eq!((size_of::<Origin>() + 16 + 8).next_multiple_of(16), 128);
    }
}
