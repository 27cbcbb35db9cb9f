//! One connection of the server, from its first byte to its end.
//!
//! For a sender without acknowledgements the end of the connection is the only word it ever gets. So
//! the end is orderly only if the peer had ended its own direction and everything it sent is committed.
//! In all other cases it is a reset.

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::{AsyncWrite, FutureExt, future};
use log::debug;

use super::commit_queue::Queue;
use crate::message::{Batch, Origin};
use crate::net::socket::Socket;
use crate::server::accept::Server;
use crate::server::connection_state::{Order, Phase, State};
use crate::server::rate_limited_log::{Kind, RateLimitedLog};
use crate::stream::error::ReadError;
use crate::stream::payloads::Payloads;
use crate::stream::pool::{BUFFER, HeldForPeer};
use crate::stream::reader::FrameReader;
use crate::wire::ack::RefusalCode;
use crate::wire::count::Count;
use crate::wire::diagnosis::Suspect;
use crate::wire::error::{Fault, ProtocolError};
use crate::wire::io_error::Plain;

mod asking; // for clients that ask for acknowledgements

use asking::Telling;

/// How many reads a connection may take before other tasks get their turn: half a megabyte if they are
/// full. A judgement; at four it costs a percent of throughput, at thirty others begin to wait for
/// milliseconds.
const READS_A_TURN: u32 = 8;

/// How a connection ended.
pub(crate) enum Outcome {
    /// Its peer ended it, and all is committed. The only orderly end.
    Closed,
    /// The server ended, and all that had come is committed.
    Drained,
    /// Its peer was silent for too long.
    Idle(Duration),
    /// Its peer did not take its replies.
    NotTaken(Duration),
    /// It was cut off by the end of the server.
    Aborted,
    /// What came was no message, or the stream failed.
    Read(Box<ReadError>),
    /// Replies could not be sent.
    Write(io::Error),
    /// The sink takes no more.
    SinkGone,
    /// It asked for acknowledgements and does not get them, or not any more.
    Refused(RefusalCode),
    /// It cannot send the message that comes next: the oldest that it has is a later one.
    Missing { committed: u64, oldest: u64 },
    /// It did not ask for acknowledgements, as it has to here.
    NotAsked,
}

/// How far the replies to one batch have got.
#[derive(Default)]
struct Echo {
    sent: usize,
    /// Once the peer has taken nothing for a while: the memory that it keeps from others.
    keeps: Option<HeldForPeer>,
}

/// There are as many of these as there are idle connections, so their size counts.
pub(crate) struct Connection {
    server: Arc<Server>,
    origin: Arc<Origin>,
    reader: FrameReader<Socket>,
    queue: Option<Queue>,
    /// How many messages have come.
    received: u64,
    /// The offset up to which the stream is read once the server ends: what had come by then.
    read_until: Option<u64>,
    /// How many reads there were since others had their turn.
    reads: u32,
    /// Whether the client asks for acknowledgements.
    asked: bool,
}

impl Connection {
    pub(crate) fn new(
        server: Arc<Server>,
        origin: Arc<Origin>,
        socket: Socket,
        queue: Option<Queue>,
    ) -> Connection {
        let pool = server.pool.clone();
        Connection {
            reader: FrameReader::in_pool(socket, server.layout, server.max_message, pool),
            server,
            origin,
            queue,
            received: 0,
            read_until: None,
            reads: 0,
            asked: false,
        }
    }

    pub(crate) fn server(&self) -> &Arc<Server> {
        &self.server
    }

    pub(crate) fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    /// Returns how many messages have come.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Serves the connection to its end, and returns how it ended.
    pub(crate) async fn run(&mut self) -> Outcome {
        let origin = Arc::clone(&self.origin);
        let outcome = {
            let mut serving = pin!(self.serve());
            poll_fn(|cx| {
                // The order comes with a wake-up, so whom to wake is noted before looking.
                origin.watch.register(cx.waker());
                match origin.watch.order() {
                    Order::Abort => Poll::Ready(Outcome::Aborted),
                    Order::SinkFailed => Poll::Ready(Outcome::SinkGone),
                    Order::Refused => {
                        let code = origin.refusal().unwrap_or(RefusalCode::Fenced);
                        Poll::Ready(Outcome::Refused(code))
                    }
                    Order::None => serving.as_mut().poll(cx),
                }
            })
            .await
        };
        match (self.refusal(&outcome), &outcome) {
            (Some((code, why)), _) => Box::pin(self.refuse(code, why)).await,
            (None, Outcome::Closed) => self.reader.get_ref().end_in_order(),
            (None, _) => self.reader.get_ref().spoil(),
        }
        outcome
    }

    async fn serve(&mut self) -> Outcome {
        let mut telling = None;
        if let Err(outcome) = self.open(&mut telling).await {
            return outcome;
        }
        let outcome = match &mut telling {
            None => self.receive().await,
            // In a box, since few connections have it.
            Some(telling) => match Box::pin(self.receive_or(telling)).await {
                Ok(outcome) => outcome,
                Err(failed) => return failed,
            },
        };
        if matches!(outcome, Outcome::SinkGone) {
            return outcome;
        }
        self.settle().await;
        match telling {
            Some(telling) => Box::pin(self.tell_all(telling, outcome)).await,
            None => outcome,
        }
    }

    /// Reads a hello, if there is one, and answers it.
    async fn open(&mut self, telling: &mut Option<Box<Telling>>) -> Result<(), Outcome> {
        if let Some(hello) = poll_fn(|cx| self.poll_opening(cx)).await? {
            self.asked = true;
            // In a box, since few connections have it.
            *telling = Some(Box::pin(self.welcome(hello)).await?);
        }
        Ok(())
    }

    /// Receives messages as long as the client can be told which of them are committed; otherwise
    /// returns why it cannot be.
    async fn receive_or(&mut self, telling: &mut Telling) -> Result<Outcome, Outcome> {
        let received = async { Ok(self.receive().await) };
        let failed = async { Err(telling.failed().await) };
        received.or(failed).await
    }

    /// Receives messages and hands them on, until there are no more to come.
    async fn receive(&mut self) -> Outcome {
        loop {
            let last = self.is_read_until_the_end();
            let payloads = match poll_fn(|cx| self.poll_payloads(cx)).await {
                Ok(payloads) => payloads,
                Err(outcome) => return outcome,
            };
            self.received += payloads.len() as u64;
            if let Some(acked) = self.origin.acked() {
                acked.received(self.received);
            }
            if let Some(queue) = &self.queue {
                let batch = Batch::received_from(Arc::clone(&self.origin), Arc::clone(&payloads));
                if let Some(sending) = queue.send(batch)
                    && sending.await.is_err()
                {
                    return Outcome::SinkGone;
                }
            }
            let mut echo = Echo::default();
            if let Err(outcome) = poll_fn(|cx| self.poll_echo(cx, &payloads, &mut echo)).await {
                return outcome;
            }
            drop(payloads);
            if last {
                // What was read is more than had come by then: this sender does not stop by itself.
                return Outcome::Drained;
            }
            if self.ends_its_turn() {
                future::yield_now().await;
            }
            // Waiting costs several system calls, and asking once more only one. While others had
            // their turn, or the peer its reply, there has often come something.
            self.reader.get_mut().look_again();
        }
    }

    /// Returns whether other tasks have their turn before the next read: after some reads, and as soon as
    /// there is nothing to read just now. While they have it, more comes that is then read together.
    fn ends_its_turn(&mut self) -> bool {
        self.reads += 1;
        let ends = self.reads >= READS_A_TURN || self.reader.get_ref().is_drained();
        if ends {
            self.reads = 0;
        }
        ends
    }

    fn poll_payloads(&mut self, cx: &mut Context<'_>) -> Poll<Result<Arc<Payloads>, Outcome>> {
        let read = self.poll_read(cx, FrameReader::poll_batch);
        if read.is_ready() {
            self.origin.watch.enter(Phase::Busy, 0);
        }
        read.map_ok(Arc::new)
    }

    /// Reads something, and notes what is waited for where it has to wait.
    fn poll_read<T>(
        &mut self,
        cx: &mut Context<'_>,
        read: impl FnOnce(
            &mut FrameReader<Socket>,
            &mut Context<'_>,
        ) -> Poll<Result<Option<T>, ReadError>>,
    ) -> Poll<Result<T, Outcome>> {
        // What is judged later is looked at when the connection is woken for it.
        let state = self.origin.watch.state();
        let draining = self.server.draining();
        if state.is_expired() || draining {
            // What counts is what the kernel has, not what it has told us of.
            self.reader.get_mut().look_again();
        }
        if draining && self.read_until.is_none() {
            self.read_until = Some(self.reader.received() + self.reader.get_ref().unread());
        }
        match read(&mut self.reader, cx) {
            Poll::Ready(Ok(Some(got))) => Poll::Ready(Ok(got)),
            Poll::Ready(Ok(None)) => Poll::Ready(Err(Outcome::Closed)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(Outcome::Read(Box::new(error)))),
            Poll::Pending => {
                self.admit_what_has_arrived(cx);
                self.poll_wait(state).map(Err)
            }
        }
    }

    /// Has a short message not wait for its share of the memory if the rest of it has arrived.
    fn admit_what_has_arrived(&mut self, cx: &mut Context<'_>) {
        let short = self.reader.missing().filter(|&missing| missing <= BUFFER as u64);
        if short.is_some_and(|missing| self.reader.get_ref().unread() >= missing)
            && self.reader.admit()
        {
            cx.waker().wake_by_ref();
        }
    }

    /// Notes what is waited for, unless that is the same as in `state`.
    fn poll_wait(&mut self, state: State) -> Poll<Outcome> {
        let (watch, now) = (&self.origin.watch, self.server.now());
        // The time until there is memory is not the sender's fault, unless it owes the rest of a message.
        let stalls = || self.reader.waits_for_bytes() && self.reader.get_ref().unread() == 0;
        if self.reader.waits_for_memory() && !stalls() {
            watch.enter(Phase::Busy, now);
            return Poll::Pending;
        }
        let phase = match self.reader.in_message() {
            true => Phase::InMessage,
            false => Phase::Idle,
        };
        // It is the same message, too: between two of them the connection is busy. So the clock of a
        // message starts once, unless it has to wait for memory.
        let as_before = state.phase() == phase;
        if as_before && state.is_expired() {
            return Poll::Ready(self.expire());
        }
        if self.is_read_until_the_end() {
            return Poll::Ready(Outcome::Drained);
        }
        if !as_before {
            watch.enter(phase, now);
        }
        Poll::Pending
    }

    /// Returns whether the server ends and every message that had begun to arrive by then has been read.
    fn is_read_until_the_end(&self) -> bool {
        self.read_until.is_some_and(|until| self.reader.at().offset >= until)
    }

    fn expire(&mut self) -> Outcome {
        match (self.reader.in_message(), self.server.message_timeout) {
            (true, Some(timeout)) => Outcome::Read(Box::new(self.reader.expire(timeout))),
            _ => Outcome::Idle(self.server.idle_timeout.unwrap_or_default()),
        }
    }

    /// Sends messages back, if that is what this server does, from the buffer in which they came.
    fn poll_echo(
        &mut self,
        cx: &mut Context<'_>,
        payloads: &Payloads,
        echo: &mut Echo,
    ) -> Poll<Result<(), Outcome>> {
        if !self.server.echo {
            return Poll::Ready(Ok(()));
        }
        let socket = self.reader.get_mut();
        let watch = &self.origin.watch;
        let mut state = watch.state();
        loop {
            let mut rest = echo.sent;
            let mut parts = payloads.frames().map(|part| {
                let (_, unsent) = part.split_at(part.len().min(rest));
                rest -= part.len() - unsent.len();
                IoSlice::new(unsent)
            });
            // Parts that are empty or sent are in front; most batches have one part only.
            parts.sort_by_key(|part| !part.is_empty());
            let empty = parts.iter().take_while(|part| part.is_empty()).count();
            if empty == parts.len() {
                return Poll::Ready(Ok(()));
            }
            match Pin::new(&mut *socket).poll_write_vectored(cx, &parts[empty..]) {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(Outcome::Write(io::ErrorKind::WriteZero.into())));
                }
                Poll::Ready(Ok(bytes)) => {
                    echo.sent += bytes;
                    if state.phase() == Phase::Writing {
                        // It takes something: its time starts anew.
                        watch.enter(Phase::Busy, 0);
                        state = watch.state();
                    }
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Outcome::Write(error))),
                Poll::Pending if state.phase() != Phase::Writing => {
                    watch.enter(Phase::Writing, self.server.now());
                    let pool = &self.server.pool;
                    echo.keeps.get_or_insert_with(|| pool.hold_for_peer(payloads.held()));
                    return Poll::Pending;
                }
                Poll::Pending if state.is_expired() => {
                    let timeout = self.server.message_timeout.unwrap_or_default();
                    return Poll::Ready(Err(Outcome::NotTaken(timeout)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Waits until all that has come is committed: an orderly end says that it is, and also whoever is
    /// reset shall have lost nothing that was read.
    async fn settle(&self) {
        if self.queue.is_some() {
            self.origin.watch.enter(Phase::Closing, self.server.now());
            poll_fn(|_| match self.origin.committed() >= self.received {
                true => Poll::Ready(()),
                false => Poll::Pending,
            })
            .await;
        }
    }
}

/// What is wrong where messages are missing between the committed ones and those that the client has.
fn missing(committed: u64, oldest: u64) -> String {
    format!(
        "the server has {} of this sender, and the client's oldest is {oldest}: was the database \
         replaced?",
        Count(committed, "message")
    )
}

/// The one place where the end of a connection is logged.
pub(crate) fn report(log: &RateLimitedLog, origin: &Origin, messages: u64, outcome: &Outcome) {
    let who = format_args!("connection {} from {}", origin.connection, origin.peer);
    let messages = Count(messages, "message");
    match outcome {
        Outcome::Closed if messages.0 == 0 => debug!("{who}: closed without a message"),
        Outcome::Closed => debug!("{who}: closed after {messages}"),
        Outcome::Drained => debug!("{who}: reset by the end of the server, after {messages}"),
        Outcome::Read(error) if is_empty(error) => debug!("{who}: {error}"),
        Outcome::Idle(timeout) => {
            let timeout = humantime::format_duration(*timeout);
            let why = format_args!("the peer was idle for {timeout}");
            log.say(Kind::Idle, format_args!("{who}: reset after {messages}, since {why}"));
        }
        Outcome::NotTaken(timeout) => {
            let timeout = humantime::format_duration(*timeout);
            let why = format_args!("the peer took nothing of its replies for {timeout}");
            log.say(Kind::NotTaken, format_args!("{who}: reset after {messages}, since {why}"));
        }
        Outcome::Aborted => {
            let line = format_args!("{who}: cut off by the end of the server, after {messages}");
            log.say(Kind::Aborted, line);
        }
        Outcome::Read(error) => {
            log.say_about(&target(error), kind(error), format_args!("{who}: {error}"));
        }
        Outcome::Write(error) => {
            let what = if origin.acked().is_some() { "acknowledgements" } else { "replies" };
            let line = format_args!("{who}: cannot send {what}: {}", Plain(error));
            log.say(Kind::WriteFailed, line);
        }
        Outcome::Refused(code) => {
            let line = match messages.0 {
                0 => format!("{who}: refused: {code}"),
                _ => format!("{who}: refused after {messages}: {code}"),
            };
            log.say(Kind::Refused, line);
        }
        Outcome::Missing { committed, oldest } => {
            let line = format_args!("{who}: refused, since {}", missing(*committed, *oldest));
            log.say(Kind::Refused, line);
        }
        Outcome::NotAsked => {
            let why = "the client asks for no acknowledgements";
            log.say(Kind::NotAsked, format_args!("{who}: reset, since {why}"));
        }
        Outcome::SinkGone => {
            let line = format_args!("{who}: cut off after {messages}, since the sink failed");
            log.say(Kind::SinkGone, line);
        }
    }
}

/// Returns whether not a single byte came before the stream failed: that happens to probes that look
/// whether somebody listens, and nobody has lost anything.
fn is_empty(error: &ReadError) -> bool {
    matches!(error, ReadError::Io { at, got: 0, .. } if at.offset == 0)
}

/// Returns the target of a line about the error: the option that most likely mends it.
fn target(error: &ReadError) -> Cow<'static, str> {
    let ReadError::Protocol(ProtocolError { fault, suspect, .. }) = error else {
        return "framelet".into();
    };
    match (suspect.as_ref().map(Suspect::layout), fault) {
        (Some(Some(layout)), _) => format!("framelet::layout::{layout}").into(),
        (None, Fault::OverLong { .. }) => "framelet::max_message".into(),
        (None, Fault::Late { .. }) => "framelet::message_timeout".into(),
        _ => "framelet".into(),
    }
}

fn kind(error: &ReadError) -> Kind {
    match error {
        ReadError::Io { .. } => Kind::Lost,
        ReadError::Protocol(error) => match error.fault {
            Fault::OverLong { .. } | Fault::Malformed(_) => Kind::NoMessage,
            Fault::TruncatedPrefix { .. } | Fault::TruncatedPayload { .. } => Kind::Truncated,
            Fault::Late { .. } => Kind::Late,
        },
    }
}

#[cfg(test)]
mod tests;
