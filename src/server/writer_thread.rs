//! The thread that a sink runs on.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use smol::channel::{self, Receiver, Sender};

use super::adaptive_spin::AdaptiveSpin;
use super::commit_counts::CommitCounts;
use super::commit_queue::{Command, CommandSender, CommitQueue, LENGTH, Next, wait_for_next};
use super::connection_state::Signal;
use super::known_senders::KnownSenders;
use super::patience::Patience;
use super::pruning::Pruning;
use super::reopen::Reopen;
use super::turns::{Group, Pending};
use crate::message::Batch;
use crate::sink::message_sink::{MessageSink, SinkError};
use crate::wire::sender_id::SenderId;

/// After how many single messages in a row the thread busy-waits for the next one: they show a client that
/// waits for each acknowledgement. Other clients send single messages only now and then, and taking theirs
/// up sooner would make batches even smaller.
const SINGLES: u32 = 8;

/// A handle to the writer thread of a sink.
#[derive(Debug)]
pub(crate) struct WriterThread {
    commands: Arc<CommandSender>,
    /// Asks a sink that is in trouble to reopen its output.
    reopen: Arc<AtomicBool>,
    ended: Receiver<io::Result<()>>,
}

impl WriterThread {
    /// Starts the writer thread of `sink`.
    ///
    /// # Errors
    ///
    /// Any error of the system call, if no thread can be started.
    pub(crate) fn start(mut sink: Box<dyn MessageSink>) -> io::Result<WriterThread> {
        let (queue, commands) = channel::bounded(LENGTH);
        let (end, ended) = channel::bounded(1);
        let (counts, reopen) = (Arc::<CommitCounts>::default(), Arc::<AtomicBool>::default());
        let noted = Arc::clone(&counts);
        let reopens = Arc::clone(&reopen);
        let thread = thread::Builder::new().name("framelet-sink".into()).spawn(move || {
            let patience = Patience::new(Arc::clone(&noted), || end.is_closed());
            let result = run(&mut *sink, &commands, &noted, patience, &reopens);
            // Dropped on this thread: ending a sink may block, like everything else it does.
            drop(sink);
            // If the receiver is gone, nobody needs the result.
            let _ = end.try_send(result);
        })?;
        let commands = CommandSender::new(queue, counts, thread.thread().clone());
        Ok(WriterThread { commands: Arc::new(commands), reopen, ended })
    }

    /// Returns another queue to the thread.
    pub(crate) fn queue(&self) -> CommitQueue {
        CommitQueue::new(&self.commands)
    }

    /// Makes the sink reopen its output after everything that was queued before. A sink that is in trouble
    /// reopens at once, since that may help.
    pub(crate) async fn reopen(&self, request: &Reopen) {
        self.reopen_in_trouble();
        // If the sink has failed, that is reported elsewhere.
        let _ = self.commands.wait_and_send(Command::Reopen(request.clone())).await;
    }

    /// Makes the sink reopen its output at once if it is in trouble.
    pub(crate) fn reopen_in_trouble(&self) {
        self.reopen.store(true, Ordering::SeqCst);
    }

    /// Waits until the thread has ended by itself, which only happens if the sink has failed.
    pub(crate) async fn failed(&self) -> io::Error {
        match self.ended.recv().await {
            Ok(Err(error)) => error,
            Ok(Ok(())) | Err(_) => panicked(),
        }
    }

    /// Waits until everything that was queued is committed. All queues must have been dropped.
    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        self.commands.close();
        match self.ended.recv().await {
            Ok(result) => result,
            Err(_) => Err(panicked()),
        }
    }

    /// Returns why the sink cannot take messages now, if it is in trouble.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.commands.counts.trouble()
    }

    /// Returns what the thread has done and does now.
    pub(crate) fn counts(&self) -> Arc<CommitCounts> {
        Arc::clone(&self.commands.counts)
    }

    /// Returns how many queued messages are not known to be committed.
    pub(crate) fn uncommitted(&self) -> u64 {
        self.commands.counts.uncommitted()
    }
}

fn panicked() -> io::Error {
    io::Error::other("the sink panicked")
}

/// Executes the commands of the queue, in order, until it is closed.
fn run(
    sink: &mut dyn MessageSink,
    commands: &Receiver<Command>,
    counts: &CommitCounts,
    mut patience: Patience<impl Fn() -> bool>,
    reopen: &AtomicBool,
) -> io::Result<()> {
    let mut known = KnownSenders::default();
    let (mut pending, mut group) = (Pending::default(), Group::default());
    let (mut counts_asked, mut checksums_asked) = (Vec::new(), Vec::new());
    let mut reopens: Option<Reopen> = None;
    let mut spin = AdaptiveSpin::new();
    let mut singles = 0_u32;
    let mut pruning = Pruning::default();
    loop {
        // Reopening is done after everything pending is committed, and before any later command.
        if reopens.is_none() {
            let mut next = if pending.is_empty() {
                let spin = (singles >= SINGLES).then_some(&mut spin);
                match wait_for_next(commands, spin, pruning.due) {
                    Next::Command(command) => Some(command),
                    Next::End => return Ok(()),
                    Next::Due => {
                        pruning.step(sink, counts)?;
                        continue;
                    }
                }
            } else {
                commands.try_recv().ok()
            };
            while let Some(command) = next {
                match command {
                    Command::Commit(batch, connection) => pending.push(batch, connection),
                    // Questions are collected and answered after this commit: a commit for each question,
                    // and a round trip to the sink for each, would slow down all senders.
                    Command::Committed(sender, answer) => counts_asked.push((sender, answer)),
                    Command::LastChecksum(sender, answer) => {
                        checksums_asked.push((sender, answer));
                    }
                    Command::Reopen(request) => reopens = Some(request),
                }
                let questions = counts_asked.len() + checksums_asked.len();
                let full = pending.len() + questions >= LENGTH;
                next = if full || reopens.is_some() { None } else { commands.try_recv().ok() };
            }
        }
        pending.take_group(&mut group);
        let committed = !group.batches.is_empty();
        if committed {
            let since = Instant::now();
            commit(sink, &mut known, &group, &mut patience, reopen)?;
            counts.record_commit(since, known.len());
            let alone = group.batches.len() == 1;
            for (batch, connection) in group.batches.iter().zip(&group.connections) {
                counts.commit(batch.len());
                if !batch.is_refused() {
                    connection.commit(batch.len(), alone);
                }
            }
        }
        singles = if is_single_message(&group) { singles.saturating_add(1) } else { 0 };
        group.batches.clear();
        group.connections.clear();
        if !counts_asked.is_empty() || !checksums_asked.is_empty() {
            let still_pending = pending.senders();
            let asked = answerable(&mut counts_asked, &still_pending);
            answer(asked, &mut patience, |of| known.committed(of, sink))?;
            let asked = answerable(&mut checksums_asked, &still_pending);
            answer(asked, &mut patience, |of| known.last_checksums(of, sink))?;
        }
        if committed {
            pruning.step(sink, counts)?;
        }
        if pending.is_empty()
            && let Some(request) = reopens.take()
        {
            reopen.store(false, Ordering::SeqCst);
            patience.until_done(|| sink.reopen())?;
            request.finish();
        }
    }
}

/// A question about a sender, and where its answer goes.
pub(super) type Question = (SenderId, Sender<Option<u64>>);

/// Takes the questions whose senders have nothing pending. What others have pending does not matter, so a
/// client does not wait for their flood. It cannot wait for later messages of its own either: it sends none
/// before the answer.
pub(super) fn answerable(
    questions: &mut Vec<Question>,
    pending: &HashSet<SenderId>,
) -> Vec<Question> {
    questions.extract_if(.., |(sender, _)| !pending.contains(sender)).collect()
}

/// Answers questions about several senders with one question to the sink.
pub(super) fn answer(
    mut questions: Vec<Question>,
    patience: &mut Patience<impl Fn() -> bool>,
    mut find_out: impl FnMut(&[SenderId]) -> Result<Vec<Option<u64>>, SinkError>,
) -> io::Result<()> {
    let answers = patience.until_done(|| {
        // Skip questions that nobody waits for: asking the sink can itself claim a sender.
        questions.retain(|(_, answer)| !answer.is_closed());
        let senders: Vec<SenderId> = questions.iter().map(|(sender, _)| *sender).collect();
        if senders.is_empty() { Ok(Vec::new()) } else { find_out(&senders) }
    })?;
    for ((_, question), answer) in questions.into_iter().zip(answers) {
        // The task that asked may be gone.
        let _ = question.try_send(answer);
    }
    Ok(())
}

/// Returns whether the group is a single message whose client has just been sent its acknowledgement: the
/// client may have waited for that before sending the next one.
fn is_single_message(group: &Group) -> bool {
    let ([batch], [connection]) = (&group.batches[..], &group.connections[..]) else {
        return false;
    };
    let all_committed =
        || connection.acks().is_some_and(|acks| acks.is_all_committed(connection.committed()));
    batch.len() == 1 && all_committed()
}

/// Commits the new messages of a group of batches.
pub(super) fn commit(
    sink: &mut dyn MessageSink,
    known: &mut KnownSenders,
    group: &Group,
    patience: &mut Patience<impl Fn() -> bool>,
    reopen: &AtomicBool,
) -> io::Result<()> {
    let mut is_first = true;
    let mut commit = |batches: &[Batch]| {
        // Not before the first attempt: messages received earlier belong in the old file.
        if !std::mem::take(&mut is_first) && reopen.swap(false, Ordering::SeqCst) {
            sink.reopen()?;
        }
        let committed = if batches.is_empty() { Ok(()) } else { sink.commit(batches) };
        pass_on_refusals(group);
        committed
    };
    if group.batches.iter().all(|batch| batch.sender().is_none()) {
        return patience.until_done(|| commit(&group.batches));
    }
    let mut fresh = Vec::with_capacity(group.batches.len());
    for batch in group.batches.iter().filter(|batch| !batch.is_refused()) {
        fresh.extend(known.only_new(batch));
    }
    patience.until_done(|| {
        // During the wait, newer connections may have taken senders over.
        for refused in fresh.extract_if(.., |batch| batch.is_refused()) {
            known.refused(&refused);
        }
        commit(&fresh)
    })?;
    for batch in fresh.iter().filter(|batch| batch.is_refused()) {
        known.refused(batch);
    }
    Ok(())
}

/// Tells connections that the sink refuses their messages.
fn pass_on_refusals(group: &Group) {
    for (batch, connection) in group.batches.iter().zip(&group.connections) {
        if batch.is_refused() {
            connection.state.send(Signal::Refused);
        }
    }
}

#[cfg(test)]
mod tests;
