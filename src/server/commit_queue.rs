//! The queue to the thread that a sink runs on.
//!
//! It also carries questions and orders to the sink, so that each of them comes after all messages that
//! were queued before it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, Thread};

use smol::channel::{self, Receiver, Sender, TryRecvError, TrySendError};

use super::adaptive_spin::AdaptiveSpin;
use super::connection_state::Signal;
use super::open_connection::OpenConnection;
use crate::message::Batch;
use crate::wire::sender_id::SenderId;

/// How many batches wait for the writer thread at most. Memory is bounded by the pool, in bytes; this
/// only keeps the queue short enough to be taken in one commit.
pub(super) const LENGTH: usize = 1024;

/// What the writer thread is to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Commit messages of a connection, and acknowledge them.
    Commit(Batch, Arc<OpenConnection>),
    /// Answer how many messages of a sender are committed, if that is known.
    Committed(SenderId, Sender<Option<u64>>),
    /// Answer what the checksum of its last one is, if that is known.
    LastChecksum(SenderId, Sender<Option<u64>>),
    Reopen,
}

/// Hands batches to the writer thread.
#[derive(Clone, Debug)]
pub(crate) struct CommitQueue {
    commands: Arc<CommandSender>,
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

impl CommitQueue {
    pub(super) fn new(commands: &Arc<CommandSender>) -> CommitQueue {
        CommitQueue { commands: Arc::clone(commands) }
    }

    /// Hands a batch on. Where the queue is full that takes a while, and then it returns what to wait
    /// for: in a box, so that only who waits has the room for it.
    pub(crate) fn send(&self, batch: Batch, from: &Arc<OpenConnection>) -> Option<Sending<'_>> {
        let messages = batch.len() as u64;
        self.commands.counts.queued.fetch_add(messages, Ordering::SeqCst);
        match self.commands.send(Command::Commit(batch, Arc::clone(from))) {
            Ok(()) => None,
            Err(TrySendError::Full(command) | TrySendError::Closed(command)) => {
                let connection = Arc::clone(from);
                let waiting = Waiting { counts: &self.commands.counts, messages, connection };
                Some(Box::pin(async move {
                    // All of it, not the one field that is used below.
                    let mut waiting = waiting;
                    self.commands.wait_and_send(command).await?;
                    waiting.messages = 0;
                    Ok(())
                }))
            }
        }
    }

    /// Returns how many messages of `sender` are committed, with everything that was queued before;
    /// `None` if that is not known.
    ///
    /// # Errors
    ///
    /// [`SinkGone`]; [`WriterThread::failed`](super::writer_thread::WriterThread::failed) says why.
    pub(crate) async fn committed(&self, sender: SenderId) -> Result<Option<u64>, SinkGone> {
        self.ask(|answer| Command::Committed(sender, answer)).await
    }

    /// Returns the checksum of the last of them, likewise.
    ///
    /// # Errors
    ///
    /// Those of [`CommitQueue::committed`].
    pub(crate) async fn last_checksum(&self, sender: SenderId) -> Result<Option<u64>, SinkGone> {
        self.ask(|answer| Command::LastChecksum(sender, answer)).await
    }

    async fn ask(
        &self,
        question: impl FnOnce(Sender<Option<u64>>) -> Command,
    ) -> Result<Option<u64>, SinkGone> {
        let (answer, answered) = channel::bounded(1);
        self.commands.wait_and_send(question(answer)).await?;
        answered.recv().await.map_err(|_| SinkGone)
    }
}

/// Messages that wait for room in the queue.
struct Waiting<'a> {
    counts: &'a Counts,
    messages: u64,
    connection: Arc<OpenConnection>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // The sender has them still, and sends them over another connection: they are not lost.
        if self.connection.state.signal() == Signal::Refused {
            self.counts.queued.fetch_sub(self.messages, Ordering::SeqCst);
        }
    }
}

/// Where commands enter the queue to the writer thread.
///
/// The channel could wake the thread itself, but it does so with a lock in its hands that the thread
/// wants before all else: where both share a core, that is two more switches between them for each commit.
#[derive(Debug)]
pub(super) struct CommandSender {
    queue: Sender<Command>,
    pub(super) counts: Arc<Counts>,
    // After the queue, which is closed by the time this is dropped.
    writer: WakeOnDrop,
}

impl CommandSender {
    pub(super) fn new(
        queue: Sender<Command>,
        counts: Arc<Counts>,
        thread: Thread,
    ) -> CommandSender {
        CommandSender { queue, counts, writer: WakeOnDrop(thread) }
    }

    fn send(&self, command: Command) -> Result<(), TrySendError<Command>> {
        self.queue.try_send(command)?;
        self.writer.wake();
        Ok(())
    }

    /// Sends a command once there is room for it.
    pub(super) async fn wait_and_send(&self, command: Command) -> Result<(), SinkGone> {
        self.queue.send(command).await.map_err(|_| SinkGone)?;
        self.writer.wake();
        Ok(())
    }

    pub(super) fn close(&self) {
        self.queue.close();
        self.writer.wake();
    }
}

/// Wakes the writer thread; also by being dropped.
#[derive(Debug)]
struct WakeOnDrop(Thread);

impl WakeOnDrop {
    fn wake(&self) {
        self.0.unpark();
    }
}

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        self.wake();
    }
}

/// Takes the next command, or `None` if there are no more to come. For the writer thread, which the
/// sender of each wakes; with a `spin` it may look for the command awake before it sleeps.
pub(super) fn wait_for_next(
    commands: &Receiver<Command>,
    mut spin: Option<&mut AdaptiveSpin>,
) -> Option<Command> {
    loop {
        match (commands.try_recv(), spin.take()) {
            (Ok(command), _) => return Some(command),
            (Err(TryRecvError::Closed), _) => return None,
            (Err(TryRecvError::Empty), Some(spin)) => {
                spin.until(|| has_next(commands));
            }
            // Whatever has come since has woken it.
            (Err(TryRecvError::Empty), None) => thread::park(),
        }
    }
}

/// Returns whether there is a command to take, or the news that there are no more to come.
fn has_next(commands: &Receiver<Command>) -> bool {
    !commands.is_empty() || commands.is_closed()
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    queued: AtomicU64,
    /// Those whose sender was told that they are refused count, too: they are no longer this server's.
    pub(super) committed: AtomicU64,
}

impl Counts {
    /// Returns how many messages were queued and are not known to be committed.
    pub(super) fn uncommitted(&self) -> u64 {
        let committed = self.committed.load(Ordering::SeqCst);
        self.queued.load(Ordering::SeqCst).saturating_sub(committed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_looks_for_a_command_finds_one_and_the_end_but_nothing_else() {
        let (queue, commands) = channel::bounded(1);
        assert!(!has_next(&commands));
        queue.try_send(Command::Reopen).unwrap();
        assert!(has_next(&commands));
        commands.try_recv().unwrap();
        assert!(!has_next(&commands));
        queue.close();
        assert!(has_next(&commands));
    }
}
