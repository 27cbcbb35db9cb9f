//! Receives the messages of one connection, within its time limits, and passes them on.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_lite::{AsyncWriteExt, FutureExt, future};
use smol::Timer;

use super::ack_session::AckSession;
use super::commit_queue::{CommitQueue, Sending};
use super::connection_state::{Phase, Snapshot};
use super::handler::Answering;
use super::open_connection::OpenConnection;
use super::options::MESSAGE_TIMEOUT;
use super::outcome::{Outcome, SetupLate};
use super::pace::{Pace, TooSlow};
use super::shared::Shared;
use crate::message::{Batch, Origin};
use crate::net::byte_stream::ByteStream;
use crate::net::proxy_header::read_proxy_header;
use crate::stream::arrival::Arrival;
use crate::stream::error::ReadError;
use crate::stream::payloads::Payloads;
use crate::stream::pool::BUFFER;
use crate::stream::reader::FrameReader;
use crate::tls::Accepted;
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
pub(super) const STARVED: u64 = 2;

/// How long the clean end of a stream such as TLS, which has one of its own, may take.
pub(super) const CLOSING: Duration = Duration::from_secs(1);

/// Receives messages and passes them on.
pub(super) struct Receiver {
    pub(super) shared: Arc<Shared>,
    pub(super) connection: Arc<OpenConnection>,
    pub(super) reader: FrameReader<ByteStream>,
    pub(super) queue: Option<CommitQueue>,
    /// The origin of the messages, created with the first one.
    pub(super) origin: Option<Arc<Origin>>,
    /// During shutdown, the offset up to which the stream is read: everything that had arrived when it
    /// began. Boxed, since it is needed only then.
    pub(super) read_until: Option<Box<u64>>,
    /// How many reads there were since other tasks last had their turn.
    pub(super) reads: u32,
    /// Whether the stream has taken a part of what precedes the first frame, or of a frame, and not yet the rest.
    pub(super) is_in_frame: bool,
    /// While other connections wait for memory: how fast the current message arrives.
    pub(super) pace: Option<Box<Pace>>,
}

/// The result of a read.
pub(super) enum Reading<T> {
    Done(Result<T, Outcome>),
    Waits(Phase),
}

impl Receiver {
    /// Returns how many messages were received.
    pub(super) fn received(&self) -> u64 {
        self.reader.at().message - 1
    }

    /// Returns why the sink takes no more messages of this connection, if it has refused any.
    pub(super) fn refusal(&self) -> Option<RefusalCode> {
        self.origin.as_deref().and_then(Origin::refusal)
    }

    pub(super) fn origin(&mut self) -> Arc<Origin> {
        let connection = &self.connection;
        let new = || Arc::new(Origin::new(connection.number, connection.peer().clone()));
        Arc::clone(self.origin.get_or_insert_with(new))
    }

    /// Reads whom a load balancer speaks for, and upgrades the accepted stream to the one that carries messages.
    pub(super) async fn set_up(&mut self) -> Result<(), Outcome> {
        let (upgrade, connection) =
            (self.shared.options.upgrade.clone(), Arc::clone(&self.connection));
        let expects_header = self.shared.options.proxy_protocol;
        let stream = self.reader.get_mut();
        let mut accepted = stream.clone();
        let first_read = accepted.track_first_read();
        let admission = Arc::clone(&self.shared);
        let (in_header, begin) = (AtomicBool::new(expects_header), upgrade.clone());
        let in_header = &in_header;
        let mut setting_up = pin!(async move {
            if expects_header {
                let named = read_proxy_header(&mut accepted).await.map(|header| header.peer);
                let named =
                    named.map_err(|error| Outcome::Setup(Box::new(("PROXY header", error))))?;
                if let Some(peer) = &named {
                    let (number, through) = (connection.number, connection.peer());
                    let line = format_args!("connection {number} from {peer}: through {through}");
                    admission.log.about(&connection).debug("named", line);
                }
                let peer = named.unwrap_or_else(|| connection.peer().clone());
                let admitted = admission.admit_named(&connection, peer.clone());
                admitted.map_err(|why| Outcome::NotAdmitted(Box::new((peer, why))))?;
                in_header.store(false, Ordering::Relaxed);
            }
            let Some(upgrade) = begin else { return Ok(None) };
            let accepted = upgrade.begin(accepted).await;
            let Accepted { stream, peer, senders } =
                accepted.map_err(|error| Outcome::Setup(Box::new((upgrade.name, error))))?;
            connection.certify(peer, senders);
            Ok(Some(stream))
        });
        let stage = || match (in_header.load(Ordering::Relaxed), &upgrade) {
            (true, _) => "PROXY header",
            (false, Some(upgrade)) => upgrade.name,
            // Without an upgrade, nothing is left to wait for.
            (false, None) => "setup",
        };
        let (state, shared) = (&self.connection.state, &self.shared);
        state.enter(Phase::Setup, shared.now());
        let upgraded = poll_fn(|cx| match setting_up.as_mut().poll(cx) {
            Poll::Ready(Err(Outcome::Setup(..))) if first_read.get() == Some(&false) => {
                Poll::Ready(Err(Outcome::LeftAtOnce))
            }
            Poll::Ready(upgraded) => Poll::Ready(upgraded),
            Poll::Pending if state.snapshot().is_expired() => {
                let timeout = shared.options.message_timeout.unwrap_or_default();
                let silent = first_read.get().is_none();
                let late = SetupLate { stage: stage(), timeout, silent };
                Poll::Ready(Err(Outcome::SetupLate(Box::new(late))))
            }
            // A peer that has sent nothing yet is idle; the others have the time limit of messages.
            Poll::Pending if state.snapshot().is_evicted() => match first_read.get() {
                None if !stream.has_unread() => Poll::Ready(Err(Outcome::Evicted)),
                _ => {
                    shared.stays(&self.connection, Phase::Setup, state.snapshot().since());
                    Poll::Pending
                }
            },
            // What the peer has sent with or after its part of the setup is still read.
            Poll::Pending if shared.is_draining() && !shared.may_have_unread(stream) => {
                Poll::Ready(Err(Outcome::Drained))
            }
            Poll::Pending => Poll::Pending,
        })
        .await?;
        if let Some(upgraded) = upgraded {
            *stream = upgraded;
        }
        state.enter(Phase::Busy, 0);
        Ok(())
    }

    /// Receives messages until there are no more, or until acknowledgements can no longer be sent; the
    /// error says why.
    pub(super) async fn receive_or(
        &mut self,
        session: &mut AckSession,
    ) -> Result<Outcome, Outcome> {
        let received = async { Ok(self.receive().await) };
        let failed = async { Err(session.failed().await) };
        received.or(failed).await
    }

    /// Receives messages and passes them on, until there are no more.
    pub(super) async fn receive(&mut self) -> Outcome {
        match &self.shared.options.answering {
            Answering::Nothing | Answering::Echo => self.receive_or_echo().await,
            // Boxed, so that idle connections of other servers do not reserve space for it.
            Answering::Each(handler) => {
                let handler = Arc::clone(handler);
                Box::pin(self.receive_and_answer(handler)).await
            }
        }
    }

    /// Counts messages, and passes them to the sink, if there is one. If its queue is full, returns a future that waits for
    /// room.
    pub(super) fn begin_to_hand_on(&mut self, payloads: &Arc<Payloads>) -> Option<Sending> {
        self.shared.count_received(payloads);
        if let Some(acks) = self.connection.acks() {
            acks.set_received(self.received());
        }
        self.queue.as_ref()?;
        let batch = Batch::received_from(self.origin(), Arc::clone(payloads));
        self.queue.as_ref()?.send(batch, &self.connection)
    }

    /// Yields to other tasks from time to time.
    pub(super) async fn end_turn(&mut self) {
        if self.ends_its_turn() {
            future::yield_now().await;
        }
        // Waiting for readiness costs several system calls, trying a read only one. While other tasks had
        // their turn, or the peer read its reply, more has often arrived.
        self.reader.get_mut().assume_readable();
    }

    /// Returns whether other tasks get their turn before the next read: after several reads, or as soon as
    /// the socket is empty. Meanwhile more may arrive, which is then read together.
    pub(super) fn ends_its_turn(&mut self) -> bool {
        self.reads += 1;
        let ends = self.reads >= READS_A_TURN || self.reader.get_ref().would_block_hint();
        if ends {
            self.reads = 0;
        }
        ends
    }

    pub(super) fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<Result<Arrival, Outcome>> {
        let read = self.poll_read(cx, FrameReader::poll_arrival);
        if read.is_ready() {
            self.connection.state.enter(Phase::Busy, 0);
        }
        read
    }

    /// Reads, and records what the connection waits for if the read is pending.
    pub(super) fn poll_read<T>(
        &mut self,
        cx: &mut Context<'_>,
        read: PollRead<T>,
    ) -> Poll<Result<T, Outcome>> {
        // Taken before the read: a verdict that arrives later wakes the task and is seen in the next poll.
        let before = self.connection.state.snapshot();
        match self.poll_reading(cx, read) {
            Reading::Done(read) => Poll::Ready(read),
            Reading::Waits(phase) => {
                // The same phase means the same message, since the connection is busy between two messages.
                // So the clock of a message starts once, unless the message has to wait for memory.
                let since = before.since_or(phase, self.shared.now());
                self.poll_phase(before, phase, since).map(Err)
            }
        }
    }

    /// Reads, or returns what to wait for.
    pub(super) fn poll_reading<T>(
        &mut self,
        cx: &mut Context<'_>,
        read: PollRead<T>,
    ) -> Reading<T> {
        let draining = self.shared.is_draining();
        let state = self.connection.state.snapshot();
        let judged = self.pace.is_some() || state.is_expired() || state.is_evicted();
        if draining || judged || self.reader.waits_for_memory() {
            // What the kernel has received counts, even if the reactor has not reported it yet, or will not
            // before there is more. A reader in the line for memory is there because data has arrived; it
            // must not lose its place because the reactor has not reported that data again.
            self.reader.get_mut().assume_readable();
        }
        if draining && self.read_until.is_none() {
            let unread = self.reader.get_ref().unread();
            // A sender that never pauses would never get to the end of a stream that cannot say.
            let unread = unread.or(self.shared.is_last_call().then_some(0));
            self.read_until = unread.map(|unread| Box::new(self.reader.received() + unread));
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
                if draining && !self.shared.may_have_unread(self.reader.get_ref()) {
                    // If the stream cannot say how much had arrived, read what could be read without
                    // waiting.
                    self.read_until.get_or_insert_with(|| Box::new(self.reader.received()));
                }
                Reading::Waits(self.reading_phase())
            }
        }
    }

    /// Exempts a short message from waiting for its share of the memory if the rest of it has arrived.
    pub(super) fn admit_what_has_arrived(&mut self, cx: &mut Context<'_>) {
        let short = self.reader.missing().filter(|&missing| missing <= BUFFER as u64);
        if short.is_some_and(|missing| self.reader.get_ref().unread() >= Some(missing))
            && self.reader.admit()
        {
            cx.waker().wake_by_ref();
        }
    }

    /// Returns what a pending read waits for.
    pub(super) fn reading_phase(&self) -> Phase {
        // Waiting for memory is not the sender's fault, unless it also owes the rest of the message.
        let stalls = || self.reader.waits_for_bytes() && self.reader.get_ref().unread() == Some(0);
        // A part of a TLS record is a part of a message as well: it takes memory, and must not do so for ever.
        match self.reader.in_message() || self.reader.get_ref().has_part() {
            _ if self.reader.waits_for_memory() && !stalls() => match self.reader.starves() {
                true => Phase::Starving,
                false => Phase::Busy,
            },
            true => Phase::InMessage,
            false => Phase::Idle,
        }
    }

    /// Records what the connection waits for and since when, unless that is unchanged since `before`. Ends the
    /// connection if it has waited too long, or if the server is shutting down and everything was read.
    pub(super) fn poll_phase(
        &mut self,
        before: Snapshot,
        phase: Phase,
        since: u64,
    ) -> Poll<Outcome> {
        let state = &self.connection.state;
        if matches!(phase, Phase::Busy | Phase::Starving) {
            // While this side makes the peer wait, the peer's pace cannot be measured.
            self.pace = None;
            if before.phase() != phase {
                state.enter(phase, since);
            }
            return Poll::Pending;
        }
        let as_before = before.phase() == phase && before.since() == since;
        if as_before && before.is_expired() {
            return Poll::Ready(self.expire(phase));
        }
        if phase != Phase::Writing && self.is_read_until_the_end() {
            return Poll::Ready(Outcome::Drained);
        }
        if as_before && before.is_evicted() {
            if self.is_settled() {
                return Poll::Ready(Outcome::Evicted);
            }
            self.shared.stays(&self.connection, phase, since);
        }
        if !as_before {
            state.enter(phase, since);
        }
        let payload = self.reader.payload_len().filter(|_| phase == Phase::InMessage);
        match payload.and_then(|len| self.falls_behind(len)) {
            Some(TooSlow { bytes, time }) => {
                Poll::Ready(Outcome::Read(Box::new(self.reader.give_way(bytes, time))))
            }
            None => Poll::Pending,
        }
    }

    /// Returns whether everything that was received is committed, and acknowledged to a client that asked for that.
    fn is_settled(&self) -> bool {
        let committed = self.connection.committed();
        (self.queue.is_none() || committed >= self.received())
            && self.connection.acks().is_none_or(|acks| acks.is_settled(committed))
    }

    /// Returns the measured speed of a message of `len` bytes if it is too slow while others wait for
    /// memory.
    pub(super) fn falls_behind(&mut self, len: u64) -> Option<TooSlow> {
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
                let timeout = self.shared.options.message_timeout.unwrap_or(MESSAGE_TIMEOUT);
                return pace.judge(now, arrived(), len, timeout);
            }
            Some(_) => {}
        }
        None
    }

    /// Returns whether the server is shutting down and every message that had begun to arrive has been
    /// read.
    pub(super) fn is_read_until_the_end(&self) -> bool {
        self.read_until.as_ref().is_some_and(|until| self.reader.at().offset >= **until)
    }

    pub(super) fn expire(&mut self, phase: Phase) -> Outcome {
        let timeout = self.shared.options.message_timeout.unwrap_or_default();
        match phase {
            Phase::InMessage => Outcome::Read(Box::new(self.reader.expire(timeout))),
            Phase::Writing => Outcome::NotTaken(timeout),
            _ => Outcome::Idle(self.shared.options.idle_timeout.unwrap_or_default()),
        }
    }

    /// Waits until everything received is committed: a clean end promises that, and even a reset connection
    /// must not lose what was read.
    pub(super) async fn settle(&self) {
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
    pub(super) async fn close(&mut self) {
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
