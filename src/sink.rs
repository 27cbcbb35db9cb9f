//! Where the server puts messages.
//!
//! A [`Sink`] is plain blocking code. It runs on a thread of its own, the writer thread, so that a
//! full pipe or a slow disk stops no socket; a bounded queue leads there, and when it is full the
//! connections stop reading and TCP slows the senders down. The thread takes all that is queued and
//! commits it together, so commits grow with the load and a single message does not wait.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use smol::channel::{self, Receiver, Sender, TrySendError};

use crate::net::Peer;
use crate::payloads::Payloads;
use crate::watch::Watch;

mod output;

pub use output::OutputSink;

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
    /// # Errors
    ///
    /// An error is final: it ends the server, and says why.
    fn commit(&mut self, batches: &[Batch]) -> io::Result<()>;
}

/// A payload, with where it came from.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Message<'a> {
    /// The bytes that were sent.
    pub payload: &'a [u8],
    /// The message's number on its connection; the first one is 1.
    pub number: u64,
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
}

/// Where a connection's messages come from, and how many of them are committed.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) connection: u64,
    pub(crate) peer: Peer,
    pub(crate) watch: Watch,
    committed: AtomicU64,
}

impl Origin {
    pub(crate) fn new(connection: u64, peer: Peer) -> Origin {
        Origin { connection, peer, watch: Watch::default(), committed: AtomicU64::new(0) }
    }

    /// Returns how many messages of this connection the sink has committed.
    pub(crate) fn committed(&self) -> u64 {
        self.committed.load(Ordering::SeqCst)
    }

    fn commit(&self, messages: usize) {
        self.committed.fetch_add(messages as u64, Ordering::SeqCst);
        self.watch.committed();
    }
}

impl Batch {
    pub(crate) fn received_from(origin: Arc<Origin>, payloads: Arc<Payloads>) -> Batch {
        Batch { payloads, origin: Some(origin), received: Some(SystemTime::now()) }
    }

    /// Returns how many messages there are; at least one.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.payloads.len()
    }

    /// Returns the messages in the order in which they were sent.
    pub fn messages(&self) -> impl Iterator<Item = Message<'_>> {
        let origin = self.origin.as_deref();
        let received = self.received;
        self.payloads.iter().zip(self.payloads.first_number()..).map(move |(payload, number)| {
            Message {
                payload,
                number,
                connection: origin.map(|origin| origin.connection),
                peer: origin.map(|origin| &origin.peer),
                received,
            }
        })
    }
}

/// Messages that came over no connection, for example out of a file.
impl From<Payloads> for Batch {
    fn from(payloads: Payloads) -> Batch {
        Batch { payloads: Arc::new(payloads), origin: None, received: None }
    }
}

/// The way to a sink's writer thread.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: Sender<Batch>,
    ended: Receiver<io::Result<()>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    queued: AtomicU64,
    committed: AtomicU64,
}

impl Writer {
    /// Starts the writer thread of `sink`.
    ///
    /// # Errors
    ///
    /// The system's, if it has no thread to give.
    pub(crate) fn start(mut sink: Box<dyn Sink>) -> io::Result<Writer> {
        let (queue, batches) = channel::bounded(QUEUE);
        let (end, ended) = channel::bounded(1);
        let counts = Arc::<Counts>::default();
        let committed = Arc::clone(&counts);
        std::thread::Builder::new().name("framelet-sink".into()).spawn(move || {
            let result = commit_all(&mut *sink, &batches, &committed);
            // The receiver may be gone: then nobody wants to know any more.
            let _ = end.try_send(result);
        })?;
        Ok(Writer { queue, ended, counts })
    }

    /// Returns a queue to the thread that is independent of this one.
    pub(crate) fn queue(&self) -> Queue {
        Queue { queue: self.queue.clone(), counts: Arc::clone(&self.counts) }
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
    queue: Sender<Batch>,
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
        match self.queue.try_send(batch) {
            Ok(()) => None,
            Err(TrySendError::Full(batch) | TrySendError::Closed(batch)) => {
                Some(Box::pin(async move { self.queue.send(batch).await.map_err(|_| SinkGone) }))
            }
        }
    }
}

fn commit_all(sink: &mut dyn Sink, batches: &Receiver<Batch>, counts: &Counts) -> io::Result<()> {
    let mut group = Vec::new();
    while let Ok(batch) = batches.recv_blocking() {
        group.push(batch);
        while group.len() < QUEUE
            && let Ok(batch) = batches.try_recv()
        {
            group.push(batch);
        }
        sink.commit(&group)?;
        for batch in group.drain(..) {
            counts.committed.fetch_add(batch.len() as u64, Ordering::SeqCst);
            if let Some(origin) = &batch.origin {
                origin.commit(batch.len());
            }
        }
    }
    Ok(())
}
