//! One connection of the server, from its first byte to its end.
//!
//! To a sender without acknowledgements, the end of the connection is the only sign of success. So the end
//! is clean only if the peer had closed its own direction and everything it sent is committed. In all other
//! cases the connection is reset.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_lite::{AsyncWrite, AsyncWriteExt, FutureExt, future};
use smol::Timer;

use super::ack_session::AckSession;
use super::ack_state::AckState;
use super::commit_queue::CommitQueue;
use super::connection_state::{Phase, Signal, Snapshot};
use super::handler::{Answering, EachHandler};
use super::open_connection::OpenConnection;
use super::options::MESSAGE_TIMEOUT;
use super::outcome::Outcome;
use super::pace::{Pace, TooSlow};
use super::pipeline::{Pipeline, Waits};
use super::shared::Shared;
use crate::message::{Batch, Origin};
use crate::net::byte_stream::ByteStream;
use crate::stream::error::ReadError;
use crate::stream::payloads::Payloads;
use crate::stream::pool::{BUFFER, HeldForPeer};
use crate::stream::reader::FrameReader;
use crate::wire::ack::{FirstBytes, Hello};
use crate::wire::answer::RefusalCode;

/// A read of [`FrameReader`].
type PollRead<T> =
    fn(&mut FrameReader<ByteStream>, &mut Context<'_>) -> Poll<Result<Option<T>, ReadError>>;

/// How many reads a connection may do before other tasks get their turn: half a megabyte if all are full.
/// Chosen by judgement: with four, throughput is one percent lower; with thirty, other tasks begin to wait
/// for milliseconds.
const READS_A_TURN: u32 = 8;

/// For how many ticks a message must starve before others have to give way. Two, because even a short wait
/// can span one tick.
const STARVED: u64 = 2;

/// How long the clean end of a stream such as TLS, which has one of its own, may take.
const CLOSING: Duration = Duration::from_secs(1);

/// Each idle connection has one of these, so its size matters: rarely used parts are boxed.
pub(crate) struct Connection {
    receiver: Receiver,
    /// Set if the client asks for acknowledgements.
    session: Option<Box<AckSession>>,
}

/// Receives messages and passes them on.
struct Receiver {
    shared: Arc<Shared>,
    connection: Arc<OpenConnection>,
    reader: FrameReader<ByteStream>,
    queue: Option<CommitQueue>,
    /// The origin of the messages, created with the first one.
    origin: Option<Arc<Origin>>,
    /// During shutdown, the offset up to which the stream is read: everything that had arrived when it
    /// began.
    read_until: Option<u64>,
    /// How many reads there were since other tasks last had their turn.
    reads: u32,
    /// While other connections wait for memory: how fast the current message arrives.
    pace: Option<Box<Pace>>,
}

/// Progress of echoing one batch.
#[derive(Default)]
struct Echoing {
    sent: usize,
    /// Once the peer has stopped taking replies: counts the batch as memory held for that peer.
    keeps: Option<HeldForPeer>,
}

impl Connection {
    pub(crate) fn new(
        shared: Arc<Shared>,
        connection: Arc<OpenConnection>,
        stream: ByteStream,
        queue: Option<CommitQueue>,
    ) -> Connection {
        let (layout, pool) = (shared.layout, shared.pool.clone());
        let reader = FrameReader::in_pool(stream, layout, shared.max_message, pool);
        let (origin, read_until, reads, pace) = (None, None, 0, None);
        let receiver =
            Receiver { shared, connection, reader, queue, origin, read_until, reads, pace };
        Connection { receiver, session: None }
    }

    /// Returns how many messages were received.
    pub(crate) fn received(&self) -> u64 {
        self.receiver.received()
    }

    /// Serves the connection to its end, and returns how it ended.
    pub(crate) async fn run(&mut self) -> Outcome {
        let connection = Arc::clone(&self.receiver.connection);
        let outcome = {
            let mut serving = pin!(self.serve());
            poll_fn(|cx| {
                // A signal wakes the task, so the waker is registered before the signal is checked.
                connection.state.register(cx.waker());
                match connection.state.signal() {
                    Signal::Abort => Poll::Ready(Outcome::Aborted),
                    Signal::SinkFailed => Poll::Ready(Outcome::SinkGone),
                    // Either the sink refuses, and gives the reason below, or a newer connection has
                    // replaced this one.
                    Signal::Refused => Poll::Ready(Outcome::Refused(RefusalCode::Fenced)),
                    Signal::None => serving.as_mut().poll(cx),
                }
            })
            .await
        };
        let outcome = match (outcome, self.receiver.refusal()) {
            (Outcome::Refused(RefusalCode::Fenced), Some(code)) => Outcome::Refused(code),
            (outcome, _) => outcome,
        };
        if let Some(session) = &mut self.session {
            session.stop();
            if let Some((code, why)) = session.refusal(&outcome) {
                Box::pin(session.refuse(code, why)).await;
                return outcome;
            }
        }
        match &outcome {
            Outcome::Closed => self.receiver.close().await,
            // A reset would destroy replies that are on their way.
            Outcome::Drained if matches!(self.receiver.shared.answering, Answering::Each(_)) => {
                Box::pin(self.receiver.reader.get_mut().close_and_wait(CLOSING)).await;
            }
            _ => {
                let unsent = connection.acks().map_or_else(Vec::new, AckState::take_unsent);
                self.receiver.reader.get_ref().mark_aborted(&unsent);
            }
        }
        outcome
    }

    async fn serve(&mut self) -> Outcome {
        if self.receiver.shared.upgrade.is_some()
            && let Err(outcome) = Box::pin(self.receiver.set_up()).await
        {
            return outcome;
        }
        // The reader has a large buffer only for a payload, and reads no more than that.
        self.receiver.reader.get_mut().gather_large_reads();
        if let Err(outcome) = self.open().await {
            return outcome;
        }
        let outcome = match &mut self.session {
            None => self.receiver.receive().await,
            // Boxed, since few connections have a session.
            Some(session) => match Box::pin(self.receiver.receive_or(session)).await {
                Ok(outcome) => outcome,
                Err(failed) => return failed,
            },
        };
        if matches!(outcome, Outcome::SinkGone) {
            return outcome;
        }
        self.receiver.settle().await;
        match &mut self.session {
            Some(session) => Box::pin(session.finish(outcome)).await,
            None => outcome,
        }
    }

    /// Finds out whether the client asks for acknowledgements, and sends the welcome if so.
    async fn open(&mut self) -> Result<(), Outcome> {
        let receiver = &mut self.receiver;
        if !Hello::fits(receiver.shared.layout) {
            return Ok(());
        }
        let opening = poll_fn(|cx| receiver.poll_read(cx, FrameReader::poll_opening)).await?;
        let hello = match opening {
            FirstBytes::Hello { hello, resuming, .. } => Some((hello, resuming)),
            FirstBytes::Unsupported { .. } => None,
            _ if receiver.shared.require_acks => return Err(Outcome::NotAsked),
            _ => return Ok(()),
        };
        let (shared, connection) = (&receiver.shared, &receiver.connection);
        let session = AckSession::new(shared, connection, receiver.reader.get_ref());
        let session = self.session.insert(Box::new(session));
        let (hello, resuming) = hello.ok_or(Outcome::Refused(RefusalCode::Version))?;
        // Boxed, since few connections have a session.
        let origin = Box::pin(session.welcome(hello, resuming, receiver.queue.as_ref())).await?;
        receiver.origin = Some(Arc::new(origin));
        Ok(())
    }
}

impl Receiver {
    /// Returns how many messages were received.
    fn received(&self) -> u64 {
        self.reader.at().message - 1
    }

    /// Returns why the sink takes no more messages of this connection, if it has refused any.
    fn refusal(&self) -> Option<RefusalCode> {
        self.origin.as_deref().and_then(Origin::refusal)
    }

    fn origin(&mut self) -> Arc<Origin> {
        let OpenConnection { number, peer, .. } = &*self.connection;
        let new = || Arc::new(Origin::new(*number, peer.clone()));
        Arc::clone(self.origin.get_or_insert_with(new))
    }

    /// Upgrades the accepted stream to the one that carries messages.
    async fn set_up(&mut self) -> Result<(), Outcome> {
        let Some(upgrade) = self.shared.upgrade.clone() else { return Ok(()) };
        let stream = self.reader.get_mut();
        let mut accepted = stream.clone();
        let first_read = accepted.track_first_read();
        let mut upgrading = upgrade.begin(accepted);
        let (state, shared) = (&self.connection.state, &self.shared);
        state.enter(Phase::Setup, shared.now());
        *stream = poll_fn(|cx| match upgrading.as_mut().poll(cx) {
            Poll::Ready(upgraded) => Poll::Ready(upgraded.map_err(|error| {
                let left_at_once = first_read.get() == Some(&false);
                if left_at_once { Outcome::LeftAtOnce } else { Outcome::Setup(error) }
            })),
            Poll::Pending if state.snapshot().is_expired() => {
                let timeout = shared.message_timeout.unwrap_or_default();
                Poll::Ready(Err(Outcome::SetupLate(timeout)))
            }
            // Nothing was read from the upgraded stream yet, so nothing can be lost.
            Poll::Pending if shared.is_draining() => Poll::Ready(Err(Outcome::Drained)),
            Poll::Pending => Poll::Pending,
        })
        .await?;
        state.enter(Phase::Busy, 0);
        Ok(())
    }

    /// Receives messages until there are no more, or until acknowledgements can no longer be sent; the
    /// error says why.
    async fn receive_or(&mut self, session: &mut AckSession) -> Result<Outcome, Outcome> {
        let received = async { Ok(self.receive().await) };
        let failed = async { Err(session.failed().await) };
        received.or(failed).await
    }

    /// Receives messages and passes them on, until there are no more.
    async fn receive(&mut self) -> Outcome {
        match &self.shared.answering {
            Answering::Nothing | Answering::Echo => self.receive_or_echo().await,
            // Boxed, so that idle connections of other servers do not reserve space for it.
            Answering::Each(handler) => {
                let handler = Arc::clone(handler);
                Box::pin(self.receive_and_answer(handler)).await
            }
        }
    }

    async fn receive_or_echo(&mut self) -> Outcome {
        let echoes = matches!(self.shared.answering, Answering::Echo);
        loop {
            let last = self.is_read_until_the_end();
            let payloads = match poll_fn(|cx| self.poll_payloads(cx)).await {
                Ok(payloads) => payloads,
                Err(outcome) => return outcome,
            };
            if let Err(outcome) = self.hand_on(&payloads).await {
                return outcome;
            }
            if echoes {
                let mut echo = Echoing::default();
                if let Err(outcome) = poll_fn(|cx| self.poll_echo(cx, &payloads, &mut echo)).await {
                    return outcome;
                }
            }
            drop(payloads);
            if last {
                // This read returned data that arrived after the shutdown began, so the sender has not
                // stopped by itself.
                return Outcome::Drained;
            }
            self.end_turn().await;
        }
    }

    /// Passes messages to the sink, if there is one.
    async fn hand_on(&mut self, payloads: &Arc<Payloads>) -> Result<(), Outcome> {
        if let Some(acks) = self.connection.acks() {
            acks.set_received(self.received());
        }
        if self.queue.is_none() {
            return Ok(());
        }
        let batch = Batch::received_from(self.origin(), Arc::clone(payloads));
        if let Some(queue) = &self.queue
            && let Some(sending) = queue.send(batch, &self.connection)
            && sending.await.is_err()
        {
            return Err(Outcome::SinkGone);
        }
        Ok(())
    }

    /// Receives requests while others are being answered, until there are no more and all have their
    /// replies.
    async fn receive_and_answer(&mut self, handler: EachHandler) -> Outcome {
        let connection = Arc::clone(&self.connection);
        let mut pipeline = Pipeline::new(&self.shared, connection, handler);
        let mut ended = None;
        loop {
            let read = poll_fn(|cx| self.poll_answering(cx, &mut pipeline, &mut ended)).await;
            let payloads = match read {
                Ok(payloads) => payloads,
                Err(outcome) => return outcome,
            };
            if let Err(outcome) = self.hand_on(&payloads).await {
                return outcome;
            }
            pipeline.push(payloads);
            if self.is_read_until_the_end() {
                ended.get_or_insert(Outcome::Drained);
            }
            self.end_turn().await;
        }
    }

    /// Answers what can be answered, and reads while there is room for more requests. Ends when a batch was
    /// read, or once the requests have `ended` and all are answered.
    fn poll_answering(
        &mut self,
        cx: &mut Context<'_>,
        pipeline: &mut Pipeline,
        ended: &mut Option<Outcome>,
    ) -> Poll<Result<Arc<Payloads>, Outcome>> {
        let before = self.connection.state.snapshot();
        let mut taken = false;
        let waits = pipeline.poll(cx, self.reader.get_mut(), || taken = true)?;
        let mut wanted = match waits {
            Waits::Peer => Phase::Writing,
            Waits::Handlers | Waits::Requests => Phase::Busy,
        };
        if waits == Waits::Requests
            && let Some(outcome) = ended.take()
        {
            return Poll::Ready(Err(outcome));
        }
        if ended.is_none() && pipeline.has_room() {
            match self.poll_reading(cx, FrameReader::poll_batch) {
                Reading::Done(read) => {
                    self.connection.state.enter(Phase::Busy, 0);
                    match read {
                        Ok(payloads) => return Poll::Ready(Ok(Arc::new(payloads))),
                        // Nobody is left to reply to.
                        Err(Outcome::Read(error)) if matches!(*error, ReadError::Io { .. }) => {
                            return Poll::Ready(Err(Outcome::Read(error)));
                        }
                        Err(outcome) => {
                            *ended = Some(outcome);
                            // Poll again: all requests may already be answered.
                            cx.waker().wake_by_ref();
                        }
                    }
                }
                Reading::Waits(Phase::Idle) if waits != Waits::Requests => {}
                Reading::Waits(phase) if waits != Waits::Peer => wanted = phase,
                Reading::Waits(_) => {}
            }
        }
        if taken && wanted == Phase::Writing {
            // The peer is taking data, so its time limit starts anew.
            self.connection.state.enter(wanted, self.shared.now());
            return Poll::Pending;
        }
        match ready!(self.poll_phase(before, wanted)) {
            Outcome::Drained => {
                ended.get_or_insert(Outcome::Drained);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            outcome => Poll::Ready(Err(outcome)),
        }
    }

    /// Yields to other tasks from time to time.
    async fn end_turn(&mut self) {
        if self.ends_its_turn() {
            future::yield_now().await;
        }
        // Waiting for readiness costs several system calls, trying a read only one. While other tasks had
        // their turn, or the peer read its reply, more has often arrived.
        self.reader.get_mut().assume_readable();
    }

    /// Returns whether other tasks get their turn before the next read: after several reads, or as soon as
    /// the socket is empty. Meanwhile more may arrive, which is then read together.
    fn ends_its_turn(&mut self) -> bool {
        self.reads += 1;
        let ends = self.reads >= READS_A_TURN || self.reader.get_ref().would_block_hint();
        if ends {
            self.reads = 0;
        }
        ends
    }

    fn poll_payloads(&mut self, cx: &mut Context<'_>) -> Poll<Result<Arc<Payloads>, Outcome>> {
        let read = self.poll_read(cx, FrameReader::poll_batch);
        if read.is_ready() {
            self.connection.state.enter(Phase::Busy, 0);
        }
        read.map_ok(Arc::new)
    }

    /// Reads, and records what the connection waits for if the read is pending.
    fn poll_read<T>(
        &mut self,
        cx: &mut Context<'_>,
        read: PollRead<T>,
    ) -> Poll<Result<T, Outcome>> {
        // Taken before the read: a verdict that arrives later wakes the task and is seen in the next poll.
        let before = self.connection.state.snapshot();
        match self.poll_reading(cx, read) {
            Reading::Done(read) => Poll::Ready(read),
            Reading::Waits(phase) => self.poll_phase(before, phase).map(Err),
        }
    }

    /// Reads, or returns what to wait for.
    fn poll_reading<T>(&mut self, cx: &mut Context<'_>, read: PollRead<T>) -> Reading<T> {
        let draining = self.shared.is_draining();
        let expired = self.connection.state.snapshot().is_expired();
        let judged = self.pace.is_some();
        if expired || draining || judged || self.reader.waits_for_memory() {
            // What the kernel has received counts, even if the reactor has not reported it yet, or will not
            // before there is more. A reader in the line for memory is there because data has arrived; it
            // must not lose its place because the reactor has not reported that data again.
            self.reader.get_mut().assume_readable();
        }
        if draining && self.read_until.is_none() {
            let unread = self.reader.get_ref().unread();
            self.read_until = unread.map(|unread| self.reader.received() + unread);
        }
        let read = read(&mut self.reader, cx);
        if read.is_ready() {
            self.pace = None;
        }
        match read {
            Poll::Ready(Ok(Some(got))) => Reading::Done(Ok(got)),
            Poll::Ready(Ok(None)) => Reading::Done(Err(Outcome::Closed)),
            Poll::Ready(Err(error)) => Reading::Done(Err(Outcome::Read(Box::new(error)))),
            Poll::Pending => {
                self.admit_what_has_arrived(cx);
                if draining {
                    // If the kernel cannot say how much had arrived, read what could be read without
                    // waiting.
                    self.read_until.get_or_insert(self.reader.received());
                }
                Reading::Waits(self.reading_phase())
            }
        }
    }

    /// Exempts a short message from waiting for its share of the memory if the rest of it has arrived.
    fn admit_what_has_arrived(&mut self, cx: &mut Context<'_>) {
        let short = self.reader.missing().filter(|&missing| missing <= BUFFER as u64);
        if short.is_some_and(|missing| self.reader.get_ref().unread() >= Some(missing))
            && self.reader.admit()
        {
            cx.waker().wake_by_ref();
        }
    }

    /// Returns what a pending read waits for.
    fn reading_phase(&self) -> Phase {
        // Waiting for memory is not the sender's fault, unless it also owes the rest of the message.
        let stalls = || self.reader.waits_for_bytes() && self.reader.get_ref().unread() == Some(0);
        match self.reader.in_message() {
            _ if self.reader.waits_for_memory() && !stalls() => match self.reader.starves() {
                true => Phase::Starving,
                false => Phase::Busy,
            },
            true => Phase::InMessage,
            false => Phase::Idle,
        }
    }

    /// Records what the connection waits for, unless that is unchanged since `before`. Ends the connection
    /// if it has waited too long, or if the server is shutting down and everything was read.
    fn poll_phase(&mut self, before: Snapshot, phase: Phase) -> Poll<Outcome> {
        let (state, now) = (&self.connection.state, self.shared.now());
        if matches!(phase, Phase::Busy | Phase::Starving) {
            // While this side makes the peer wait, the peer's pace cannot be measured.
            self.pace = None;
            if before.phase() != phase {
                state.enter(phase, now);
            }
            return Poll::Pending;
        }
        // The same phase means the same message, since the connection is busy between two messages. So the
        // clock of a message starts once, unless the message has to wait for memory.
        let as_before = before.phase() == phase;
        if as_before && before.is_expired() {
            return Poll::Ready(self.expire(phase));
        }
        if phase != Phase::Writing && self.is_read_until_the_end() {
            return Poll::Ready(Outcome::Drained);
        }
        if !as_before {
            state.enter(phase, now);
        }
        let announced = self.reader.announced().filter(|_| phase == Phase::InMessage);
        match announced.and_then(|len| self.falls_behind(len)) {
            Some(TooSlow { bytes, time }) => {
                Poll::Ready(Outcome::Read(Box::new(self.reader.give_way(bytes, time))))
            }
            None => Poll::Pending,
        }
    }

    /// Returns the measured speed of a message of `len` bytes if it is too slow while others wait for
    /// memory.
    fn falls_behind(&mut self, len: u64) -> Option<TooSlow> {
        let Some(ticks) = self.shared.shortage() else {
            self.pace = None;
            return None;
        };
        // Data in the kernel counts, whether or not there was time to read it.
        let arrived =
            || self.reader.received() + self.reader.get_ref().unread().unwrap_or_default();
        let now = Instant::now();
        match &mut self.pace {
            None => self.pace = Some(Box::new(Pace::start(now, arrived()))),
            Some(pace) if ticks >= STARVED => {
                let timeout = self.shared.message_timeout.unwrap_or(MESSAGE_TIMEOUT);
                return pace.judge(now, arrived(), len, timeout);
            }
            Some(_) => {}
        }
        None
    }

    /// Returns whether the server is shutting down and every message that had begun to arrive has been
    /// read.
    fn is_read_until_the_end(&self) -> bool {
        self.read_until.is_some_and(|until| self.reader.at().offset >= until)
    }

    fn expire(&mut self, phase: Phase) -> Outcome {
        let timeout = self.shared.message_timeout.unwrap_or_default();
        match phase {
            Phase::InMessage => Outcome::Read(Box::new(self.reader.expire(timeout))),
            Phase::Writing => Outcome::NotTaken(timeout),
            _ => Outcome::Idle(self.shared.idle_timeout.unwrap_or_default()),
        }
    }

    /// Echoes messages directly from the buffer in which they were received.
    fn poll_echo(
        &mut self,
        cx: &mut Context<'_>,
        payloads: &Payloads,
        echo: &mut Echoing,
    ) -> Poll<Result<(), Outcome>> {
        let stream = self.reader.get_mut();
        let connection = &self.connection.state;
        let mut state = connection.snapshot();
        loop {
            let mut rest = echo.sent;
            let mut parts = payloads.frames().map(|part| {
                let (_, unsent) = part.split_at(part.len().min(rest));
                rest -= part.len() - unsent.len();
                IoSlice::new(unsent)
            });
            // Empty and sent parts come first and are skipped; most batches have only one part.
            parts.sort_by_key(|part| !part.is_empty());
            let empty = parts.iter().take_while(|part| part.is_empty()).count();
            let stream = Pin::new(&mut *stream);
            let sent = match empty == parts.len() {
                true => stream.poll_flush(cx).map_ok(|()| None),
                false => stream.poll_write_vectored(cx, &parts[empty..]).map_ok(Some),
            };
            match sent {
                Poll::Ready(Ok(None)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(Some(0))) => {
                    return Poll::Ready(Err(Outcome::Write(io::ErrorKind::WriteZero.into())));
                }
                Poll::Ready(Ok(Some(bytes))) => {
                    echo.sent += bytes;
                    if state.phase() == Phase::Writing {
                        // The peer is taking data, so its time limit starts anew.
                        connection.enter(Phase::Busy, 0);
                        state = connection.snapshot();
                    }
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Outcome::Write(error))),
                Poll::Pending if state.phase() != Phase::Writing => {
                    connection.enter(Phase::Writing, self.shared.now());
                    let pool = &self.shared.pool;
                    echo.keeps.get_or_insert_with(|| pool.hold_for_peer(payloads.held()));
                    return Poll::Pending;
                }
                Poll::Pending if state.is_expired() => {
                    let timeout = self.shared.message_timeout.unwrap_or_default();
                    return Poll::Ready(Err(Outcome::NotTaken(timeout)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Waits until everything received is committed: a clean end promises that, and even a reset connection
    /// must not lose what was read.
    async fn settle(&self) {
        if self.queue.is_some() {
            self.connection.state.enter(Phase::Closing, self.shared.now());
            poll_fn(|_| match self.connection.committed() >= self.received() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            })
            .await;
        }
    }

    /// Ends the connection cleanly.
    async fn close(&mut self) {
        let stream = self.reader.get_mut();
        stream.disable_reset_on_close();
        if stream.has_own_end() {
            let too_late = async {
                Timer::after(CLOSING).await;
                Ok(())
            };
            // If this fails, the peer is already gone, and the socket's own end has to do.
            let _ = stream.close().or(too_late).await;
        }
    }
}

/// The result of a read.
enum Reading<T> {
    Done(Result<T, Outcome>),
    Waits(Phase),
}

#[cfg(test)]
mod tests;
