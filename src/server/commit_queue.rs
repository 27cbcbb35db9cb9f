//! The queue to the writer thread.
//!
//! Questions and orders to the sink travel in the same queue. An order is handled after all messages that
//! were queued before it, a question after those of the sender that it is about.

use std::pin::Pin;
use std::sync::Arc;
use std::thread::{self, Thread};
use std::time::Instant;

use smol::channel::{self, Receiver, Sender, TryRecvError, TrySendError};

use super::adaptive_spin::AdaptiveSpin;
use super::commit_counts::CommitCounts;
use super::connection_state::Signal;
use super::open_connection::OpenConnection;
use super::reopen::Reopen;
use crate::message::Batch;
use crate::wire::sender_id::SenderId;

/// The most batches that wait for the writer thread. The pool bounds their memory; this bound only keeps
/// the queue short enough for one commit.
pub(super) const LENGTH: usize = 1024;

/// A command to the writer thread.
#[derive(Debug)]
pub(super) enum Command {
    /// Commit messages of a connection, and acknowledge them.
    Commit(Batch, Arc<OpenConnection>),
    /// Answer how many messages of a sender are committed, if known.
    Committed(SenderId, Sender<Option<u64>>),
    /// Answer the checksum of the sender's last message, if known.
    LastChecksum(SenderId, Sender<Option<u64>>),
    /// Reopen the output, and record that in the request.
    Reopen(Reopen),
}

/// Passes batches to the writer thread.
#[derive(Clone, Debug)]
pub(crate) struct CommitQueue {
    commands: Arc<CommandSender>,
}

/// A batch that waits for room in the queue.
pub(crate) type Sending = Pin<Box<dyn Future<Output = Result<(), SinkGone>> + Send>>;

/// The sink has failed and takes nothing more.
#[derive(Debug)]
pub(crate) struct SinkGone;

impl CommitQueue {
    pub(super) fn new(commands: &Arc<CommandSender>) -> CommitQueue {
        CommitQueue { commands: Arc::clone(commands) }
    }

    /// Passes a batch on. If the queue is full, returns a future that waits for room: boxed, so that only
    /// connections that wait have the space for it.
    pub(crate) fn send(&self, batch: Batch, from: &Arc<OpenConnection>) -> Option<Sending> {
        let messages = batch.len() as u64;
        self.commands.counts.queue(messages);
        match self.commands.send(Command::Commit(batch, Arc::clone(from))) {
            Ok(()) => None,
            Err(TrySendError::Full(command) | TrySendError::Closed(command)) => {
                let (commands, connection) = (Arc::clone(&self.commands), Arc::clone(from));
                let counts = Arc::clone(&commands.counts);
                let waiting = Waiting { counts, messages, connection };
                Some(Box::pin(async move {
                    // Captures the whole value, not only the field used below, so that its `drop` runs if
                    // this is cancelled.
                    let mut waiting = waiting;
                    commands.wait_and_send(command).await?;
                    waiting.messages = 0;
                    Ok(())
                }))
            }
        }
    }

    /// Returns how many messages of `sender` are committed, including all of them that were queued before;
    /// `None` if that is not known. No more messages of `sender` may be queued before the answer.
    ///
    /// # Errors
    ///
    /// [`SinkGone`]; [`WriterThread::failed`](super::writer_thread::WriterThread::failed) says why.
    pub(crate) async fn committed(&self, sender: SenderId) -> Result<Option<u64>, SinkGone> {
        self.ask(|answer| Command::Committed(sender, answer)).await
    }

    /// Returns the checksum of the last of them; `None` if that is not known.
    ///
    /// # Errors
    ///
    /// The same as those of [`CommitQueue::committed`].
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
struct Waiting {
    counts: Arc<CommitCounts>,
    messages: u64,
    connection: Arc<OpenConnection>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Its sender was refused: it still has these messages and sends them over another connection, so
        // they are not lost and must not count as uncommitted.
        if self.connection.state.signal() == Signal::Refused {
            self.counts.unqueue(self.messages);
        }
    }
}

/// The sending end of the queue to the writer thread.
///
/// The channel could wake the thread itself, but would do so while holding a lock that the thread needs
/// first: on a shared core, that costs two more context switches per commit.
#[derive(Debug)]
pub(super) struct CommandSender {
    queue: Sender<Command>,
    pub(super) counts: Arc<CommitCounts>,
    // Declared after the queue: fields drop in order, so the queue is closed when this wakes the thread.
    writer: WakeOnDrop,
}

impl CommandSender {
    pub(super) fn new(
        queue: Sender<Command>,
        counts: Arc<CommitCounts>,
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

/// Wakes the writer thread, also when dropped.
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

/// What the writer thread is to do next.
#[derive(Debug)]
pub(super) enum Next {
    Command(Command),
    /// No more commands will follow.
    End,
    /// The time until which to wait has come.
    Due,
}

/// Waits for the next command, or until `due`. Only for the writer thread, which every sender of a command
/// wakes. With a `spin`, it may busy-wait before it sleeps.
pub(super) fn wait_for_next(
    commands: &Receiver<Command>,
    mut spin: Option<&mut AdaptiveSpin>,
    due: Option<Instant>,
) -> Next {
    loop {
        match (commands.try_recv(), spin.take(), due) {
            (Ok(command), ..) => return Next::Command(command),
            (Err(TryRecvError::Closed), ..) => return Next::End,
            (Err(TryRecvError::Empty), Some(spin), _) => {
                spin.until(|| has_next(commands));
            }
            // Cannot miss a command: a sender that queued one since the check has unparked this thread.
            (Err(TryRecvError::Empty), None, None) => thread::park(),
            (Err(TryRecvError::Empty), None, Some(due)) => {
                match due.checked_duration_since(Instant::now()) {
                    Some(left) if !left.is_zero() => thread::park_timeout(left),
                    _ => return Next::Due,
                }
            }
        }
    }
}

/// Returns whether there is a command to take, or no more will follow.
fn has_next(commands: &Receiver<Command>) -> bool {
    !commands.is_empty() || commands.is_closed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_looks_for_a_command_finds_one_and_the_end_but_nothing_else() {
        let (queue, commands) = channel::bounded(1);
        assert!(!has_next(&commands));
        queue.try_send(Command::Reopen(Reopen::default())).unwrap();
        assert!(has_next(&commands));
        commands.try_recv().unwrap();
        assert!(!has_next(&commands));
        queue.close();
        assert!(has_next(&commands));
    }
}
