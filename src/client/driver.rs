//! Drives the connection of a client: connects, sends, reads acknowledgements, and connects again.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io;
use std::mem;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use event_listener::EventListener;
use futures_lite::{AsyncRead, AsyncWrite, AsyncWriteExt, FutureExt};
use log::{debug, info, warn};
use smol::Timer;

use super::ack_error::{AckError, AnswerError};
use super::ack_options::AckOptions;
use super::ack_state::Shared;
use super::window::{CountFault, Window};
use crate::net::backoff::Backoff;
use crate::stream::error::ReadError;
use crate::stream::pool::Pool;
use crate::stream::reader::FrameReader;
use crate::wire::ack::{Answer, Hello, LONGEST_ANSWER, Refusal, RefusalCode};
use crate::wire::count::Count;
use crate::wire::error::{Fault, ProtocolError};
use crate::wire::io_error::Plain;
use crate::wire::sender_id::SenderId;

/// How much is written at once, in bytes: as much as a plain writer queues.
const CHUNK: usize = 64 * 1024;

/// The shortest and the longest wait between two attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How many handshakes in a row have to fail until the log says so. A server without acknowledgements closes
/// the connection, but so does one that is full, or a load balancer whose servers are just starting.
const HANDSHAKES: u32 = 6;

/// For how long a fenced connection is remembered. The first time it may have been a connection of this client
/// that was given up and arrived late; a second time, somebody else uses the same sender id.
const FENCED: Duration = Duration::from_secs(60);

/// How long there may be no connection before the log says so: a server that restarts takes less.
const WORTH_A_LINE: Duration = Duration::from_secs(1);

/// How often at most to look whether the server is silent.
const SHORTEST_LOOK: Duration = Duration::from_millis(1);

/// Makes a new stream to the server for each connection.
pub(super) trait Connector: Send + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn connect(&mut self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl<F, C, S> Connector for F
where
    F: FnMut() -> C + Send + 'static,
    C: Future<Output = io::Result<S>> + Send,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = S;

    fn connect(&mut self) -> impl Future<Output = io::Result<S>> + Send {
        self()
    }
}

/// What drives the connection.
pub(super) struct Driver {
    shared: Arc<Shared>,
    /// The server, for the log.
    server: String,
    options: AckOptions,
    sender: SenderId,
    /// How long there was no connection since the last progress, up to the last handshake.
    disconnected_for: Duration,
    /// Since when there is none.
    disconnected_since: Option<Instant>,
    /// Whether the log says that there is none.
    reported: bool,
    /// How many handshakes failed in a row.
    handshake_failures: u32,
    /// When a connection was last fenced.
    fenced: Option<Instant>,
    /// Whether the message that is next was once refused because it arrived too late.
    late: bool,
    /// Whether the numbers have changed since the last handshake.
    renumbered: bool,
}

/// Why a connection has ended.
enum Disconnected {
    /// Another connection may fare better.
    Transient(AckError),
    /// No other connection will.
    Final(AckError),
    /// The server has lost messages; the next connection uses other numbers.
    Renumbered,
}

impl Driver {
    pub(super) fn new(
        shared: Arc<Shared>,
        server: String,
        options: AckOptions,
        sender: SenderId,
    ) -> Driver {
        Driver {
            shared,
            server,
            options,
            sender,
            disconnected_for: Duration::ZERO,
            disconnected_since: None,
            reported: false,
            handshake_failures: 0,
            fenced: None,
            late: false,
            renumbered: false,
        }
    }

    pub(super) async fn run(mut self, mut connector: impl Connector) {
        let ended = AssertUnwindSafe(self.drive(&mut connector)).catch_unwind().await;
        let bug = |_| Err(self.lost(io::Error::other("a bug in framelet ended the client")));
        let ended = ended.unwrap_or_else(bug);
        self.shared.lock().ended = Some(ended);
        self.shared.news.notify(usize::MAX);
    }

    async fn drive(&mut self, connector: &mut impl Connector) -> Result<(), AckError> {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        while !self.is_done() {
            let committed = self.shared.window(Window::committed);
            let Err(disconnected) = self.converse(connector).await;
            let error = match disconnected {
                // Everything is known to be committed, so it does not matter how the connection ended.
                _ if self.is_done() => break,
                Disconnected::Final(error) => return Err(error),
                Disconnected::Renumbered => continue,
                Disconnected::Transient(error) => error,
            };
            if self.shared.window(Window::committed) != committed {
                backoff.reset();
            }
            let since = *self.disconnected_since.get_or_insert_with(Instant::now);
            let disconnected_for = self.disconnected_for.saturating_add(since.elapsed());
            let left = self.options.retry.saturating_sub(disconnected_for);
            if left.is_zero() {
                return Err(error);
            }
            match &error {
                AckError::Lost { error, .. }
                    if !self.reported && since.elapsed() >= WORTH_A_LINE =>
                {
                    self.reported = true;
                    let left = Duration::from_secs(left.as_secs().max(1));
                    let left = humantime::format_duration(left);
                    warn!(
                        "no connection to {}: {}; retrying for {left}",
                        self.server,
                        Plain(error)
                    );
                }
                _ => debug!("{error}; retrying"),
            }
            Timer::after(backoff.next_wait().min(left)).await;
        }
        Ok(())
    }

    /// Notes that there is a connection on which the server answers.
    fn connected(&mut self) {
        (self.handshake_failures, self.reported) = (0, false);
        if let Some(since) = self.disconnected_since.take() {
            self.disconnected_for = self.disconnected_for.saturating_add(since.elapsed());
        }
    }

    /// Notes that messages are committed, or that none is waiting.
    fn progressed(&mut self) {
        (self.disconnected_for, self.late) = (Duration::ZERO, false);
    }

    /// Connects, sends and reads acknowledgements until the connection ends.
    async fn converse(
        &mut self,
        connector: &mut impl Connector,
    ) -> Result<Infallible, Disconnected> {
        let timeout = self.options.server_timeout;
        let connecting = connector.connect().or(timed_out("no connection", timeout));
        let stream = connecting.await.map_err(|error| self.failed(error.into()))?;
        let pool = Pool::unbounded();
        let mut reader = FrameReader::in_pool(stream, self.options.layout, LONGEST_ANSWER, pool);
        let (committed, checksum) = self.greet(&mut reader).await?;
        self.resume(committed, checksum)?;
        let shared = Arc::clone(&self.shared);
        let mut sending = Some(Sending::default());
        // It lives as long as the connection. A timer that was armed and dropped for each answer would wake the
        // reactor's thread each time.
        let mut silent = pin!(silent(timeout, &shared));
        loop {
            let answer = poll_fn(|cx| {
                let answer = poll_answer(&mut reader, cx);
                if answer.is_pending()
                    && let Some(unsent) = &mut sending
                    && let Poll::Ready(ended) = unsent.poll(reader.get_mut(), &shared, cx)
                {
                    sending = None;
                    if let Err(error) = ended {
                        // The server may have said why before it closed: that is more important.
                        debug!("cannot write: {}", Plain(&error));
                    }
                }
                answer
            });
            let answer = answer.or(silent.as_mut()).await;
            match answer.map_err(|error| self.failed(error))? {
                Answer::Acknowledgement(count) | Answer::Welcome { committed: count, .. } => {
                    self.acknowledged(count)?;
                }
                Answer::Refusal(refusal) => {
                    // Its count is as good as any; but why it refuses matters more than a wrong one.
                    let _ = self.acknowledged(refusal.committed);
                    return Err(self.refused(refusal));
                }
                Answer::Heartbeat => {}
            }
            self.shared.heard();
        }
    }

    /// Sends the hello, and returns how many messages the server says it has committed, and the checksum of
    /// the last of them if that was asked for and is known.
    async fn greet(
        &mut self,
        reader: &mut FrameReader<impl AsyncRead + AsyncWrite + Unpin>,
    ) -> Result<(u64, Option<u64>), Disconnected> {
        let first = self.committed().saturating_sub(self.lost_messages()).saturating_add(1);
        let hello = Hello { sender: self.sender, first };
        // Only a client that begins with the messages of an earlier one has not sent the last one itself.
        let resuming = self.options.sender.is_some() && self.shared.lock().window.is_none();
        let encode = if resuming { Hello::encode_resuming } else { Hello::encode };
        let hello = encode(&hello, self.options.layout)
            .map_err(|error| Disconnected::Final(AckError::Layout(error)))?;
        let greeting = async {
            let written = async {
                reader.get_mut().write_all(&hello).await?;
                reader.get_mut().flush().await
            };
            // A server that refuses may close before it has read everything, but it says why.
            let written = written.await;
            match (read_answer(reader).await, written) {
                (Err(AnswerError::Io(_)), Err(error)) => Err(error.into()),
                (answer, _) => answer,
            }
        };
        let timeout = self.options.server_timeout;
        let late = || async { Ok(timed_out("no answer", timeout).await?) };
        let mut answer = greeting.or(late()).await;
        // A server that answers at all gives acknowledgements.
        let mut gives_any = self.shared.lock().window.is_some();
        let mut busy = false;
        loop {
            match answer {
                Ok(Answer::Heartbeat) => {}
                Ok(Answer::Acknowledgement(committed)) => return Ok((committed, None)),
                Ok(Answer::Welcome { committed, checksum }) => {
                    return Ok((committed, Some(checksum)));
                }
                Ok(Answer::Refusal(refusal)) => return Err(self.refused(refusal)),
                Err(error) if gives_any => return Err(self.failed(error)),
                Err(AnswerError::Io(error)) => return Err(self.handshake_failed(error)),
                Err(error) => return Err(Disconnected::Final(AckError::NoAcknowledgements(error))),
            }
            if !busy {
                info!("{} is busy with earlier messages; waiting for its answer", self.server);
                self.connected();
            }
            (gives_any, busy) = (true, true);
            answer = read_answer(reader).or(late()).await;
        }
    }

    /// Notes that a server has not answered a hello.
    fn handshake_failed(&mut self, error: Arc<io::Error>) -> Disconnected {
        // One that says nothing for long is no busy load balancer.
        let silent = error.kind() == io::ErrorKind::TimedOut;
        let failures = self.handshake_failures.saturating_add(if silent { HANDSHAKES } else { 1 });
        let enough = self.handshake_failures < HANDSHAKES && failures >= HANDSHAKES;
        self.handshake_failures = failures;
        let error = AnswerError::Io(error);
        if enough && !self.options.retry.is_zero() {
            let error = error.before_an_answer();
            warn!(
                "{}: {error}: it may give no acknowledgements, or be full, or just starting; retrying",
                self.server
            );
        }
        Disconnected::Transient(AckError::NoAcknowledgements(error))
    }

    /// Begins, or resumes, after the messages that the server says are committed.
    fn resume(&mut self, server: u64, checksum: Option<u64>) -> Result<(), Disconnected> {
        self.connected();
        let server = self.in_own_numbers(server)?;
        let committed = self.committed();
        // If the server has lost messages, its last one is none of those that are compared.
        let checksum = checksum.filter(|_| server >= committed && self.lost_messages() == 0);
        let from = match server < committed {
            // There is no need to connect again: from here on both sides count the same way.
            true if self.options.renumber => {
                self.renumber(server);
                committed
            }
            true => return Err(Disconnected::Final(self.behind(server))),
            false => server,
        };
        self.renumbered = false;
        let progressed = {
            let mut state = self.shared.lock();
            state.last_heard = Some(Instant::now());
            let before = state.window.as_ref().map(Window::committed);
            match &mut state.window {
                Some(window) => window.rewind(from).map_err(|fault| self.miscounted(fault))?,
                None => {
                    let AckOptions { window, window_bytes, .. } = self.options;
                    let window = Window::new(from, window, window_bytes);
                    state.window = Some(window.map_err(|fault| self.miscounted(fault))?);
                    state.checksum = checksum;
                }
            }
            before != Some(from) || state.window.as_ref().is_some_and(Window::is_empty)
        };
        if progressed {
            self.progressed();
        }
        self.shared.news.notify(usize::MAX);
        Ok(())
    }

    fn acknowledged(&mut self, count: u64) -> Result<(), Disconnected> {
        let count = self.in_own_numbers(count)?;
        let acknowledged = match &mut self.shared.lock().window {
            Some(window) => {
                let progressed = count > window.committed();
                window.acknowledged(count).map(|()| progressed)
            }
            None => Ok(false),
        };
        if acknowledged.map_err(|fault| self.miscounted(fault))? {
            self.progressed();
            self.shared.news.notify(usize::MAX);
        }
        Ok(())
    }

    /// Returns whether no more messages will follow, and all are committed.
    fn is_done(&self) -> bool {
        let state = self.shared.lock();
        state.finishing && state.window.as_ref().is_some_and(Window::is_empty)
    }

    /// Returns how many messages are known to be committed.
    fn committed(&self) -> u64 {
        let state = self.shared.lock();
        state.window.as_ref().map_or(self.options.committed, Window::committed)
    }

    /// Returns how many messages the client has taken in all.
    fn sent(&self) -> u64 {
        let state = self.shared.lock();
        state.window.as_ref().map_or(self.options.committed, Window::last_pushed)
    }

    fn lost_messages(&self) -> u64 {
        self.shared.lock().lost
    }

    /// Returns what a count of the server is in the numbers of this client.
    fn in_own_numbers(&self, count: u64) -> Result<u64, Disconnected> {
        let beyond = CountFault::Beyond { count, sent: self.sent() };
        count.checked_add(self.lost_messages()).ok_or_else(|| self.miscounted(beyond))
    }

    /// Gives the messages that are not committed the numbers after `server`, a count in the numbers of
    /// this client.
    fn renumber(&mut self, server: u64) {
        let committed = self.committed();
        let newly_lost = committed.saturating_sub(server);
        let mut state = self.shared.lock();
        let next = server.saturating_sub(state.lost).saturating_add(1);
        state.lost = state.lost.saturating_add(newly_lost);
        self.renumbered = true;
        warn!(
            "the server has lost {} of sender {}: message {} and those after it are sent as message \
             {next} and up",
            Count(newly_lost, "acknowledged message"),
            self.sender.short(),
            committed.saturating_add(1),
        );
    }

    /// The server has only `server` messages, a count in the numbers of this client.
    fn behind(&self, server: u64) -> AckError {
        AckError::Behind {
            server: server.saturating_sub(self.lost_messages()),
            committed: self.committed(),
            sent: self.sent(),
            sender: self.sender,
        }
    }

    fn lost(&self, error: impl Into<Arc<io::Error>>) -> AckError {
        let (sent, committed) = (self.sent(), self.committed());
        AckError::Lost { error: error.into(), sent, committed, sender: self.sender }
    }

    fn refused(&mut self, refusal: Refusal) -> Disconnected {
        if refusal.code == RefusalCode::Gap
            && let Ok(server) = self.in_own_numbers(refusal.committed)
            && server < self.committed()
        {
            // Not twice in a row: that server would never be content.
            if !self.options.renumber || self.renumbered {
                return Disconnected::Final(self.behind(server));
            }
            self.renumber(server);
            return Disconnected::Renumbered;
        }
        let transient = match refusal.code {
            RefusalCode::Fenced => {
                let again = self.fenced.replace(Instant::now());
                again.is_none_or(|last| last.elapsed() > FENCED)
            }
            // The network may have been slow for a while; if it stays so, retrying is of no use.
            RefusalCode::Late => !mem::replace(&mut self.late, true),
            code => code.is_passing(),
        };
        let error = AckError::Refused { refusal, sender: self.sender };
        if transient { Disconnected::Transient(error) } else { Disconnected::Final(error) }
    }

    /// The connection is lost, or the server broke the protocol.
    fn failed(&self, error: AnswerError) -> Disconnected {
        match error {
            AnswerError::Io(error) => Disconnected::Transient(self.lost(error)),
            error => Disconnected::Final(AckError::Protocol { error, sender: self.sender }),
        }
    }

    fn miscounted(&self, fault: CountFault) -> Disconnected {
        self.failed(AnswerError::Count(fault))
    }
}

/// Waits until the server has given no sign of life for too long while messages wait.
async fn silent<T>(timeout: Option<Duration>, shared: &Shared) -> Result<T, AnswerError> {
    let Some(timeout) = timeout else { return pending().await };
    loop {
        // Looking now and then is enough, and costs less than a timer for each message.
        Timer::after((timeout / 8).max(SHORTEST_LOOK)).await;
        let mut state = shared.lock();
        let waiting =
            state.finishing || state.window.as_ref().is_some_and(|window| !window.is_empty());
        let last_heard = *state.last_heard.get_or_insert_with(Instant::now);
        if !waiting {
            state.last_heard = Some(Instant::now());
        } else if last_heard.elapsed() >= timeout {
            return Err(late("nothing came from the server", timeout).into());
        }
    }
}

/// Waits until it is too late for something.
async fn timed_out<T>(what: &str, timeout: Option<Duration>) -> io::Result<T> {
    let Some(timeout) = timeout else { return pending().await };
    Timer::after(timeout).await;
    Err(late(what, timeout))
}

fn late(what: &str, after: Duration) -> io::Error {
    let after = humantime::format_duration(after);
    io::Error::new(io::ErrorKind::TimedOut, format!("{what} within {after}"))
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")
}

/// Reads an answer. The end of the stream is an error.
///
/// # Cancel safety
///
/// As [`FrameReader::read`].
async fn read_answer(
    reader: &mut FrameReader<impl AsyncRead + Unpin>,
) -> Result<Answer, AnswerError> {
    poll_fn(|cx| poll_answer(reader, cx)).await
}

fn poll_answer(
    reader: &mut FrameReader<impl AsyncRead + Unpin>,
    cx: &mut Context<'_>,
) -> Poll<Result<Answer, AnswerError>> {
    Poll::Ready(match ready!(reader.poll_message(cx)) {
        Ok(Some(payload)) => Answer::decode(&payload).map_err(AnswerError::Payload),
        Ok(None) => Err(closed().into()),
        Err(ReadError::Io { error, .. }) => Err(error.into()),
        Err(ReadError::Protocol(ProtocolError {
            fault: Fault::TruncatedPrefix { .. } | Fault::TruncatedPayload { .. },
            ..
        })) => {
            // That is how a connection is aborted where there is no reset.
            let what = "the server cut the connection";
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, what).into())
        }
        Err(ReadError::Protocol(error)) => Err(AnswerError::Frame(Box::new(error))),
    })
}

/// Writes what there is to send, and at last the end of the stream.
#[derive(Default)]
struct Sending {
    /// Whole frames or parts of them, of which the stream has taken the first `taken` bytes.
    chunk: Vec<u8>,
    taken: usize,
    /// Whether the stream had no room for the rest.
    full: bool,
    /// Hears of more work; listens since before the last look at the window.
    work: Option<EventListener>,
}

impl Sending {
    fn poll(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        shared: &Shared,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            while self.taken < self.chunk.len() {
                let written = Pin::new(&mut *stream).poll_write(cx, &self.chunk[self.taken..]);
                self.full |= written.is_pending();
                match ready!(written)? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    taken => self.taken += taken,
                }
                if mem::take(&mut self.full) {
                    // There is room again, so the other side has read something. Where there was room all
                    // the time, it may only be this system's buffers that take it.
                    shared.heard();
                }
            }
            if !self.chunk.is_empty() {
                ready!(Pin::new(&mut *stream).poll_flush(cx))?;
                self.chunk.clear();
                self.taken = 0;
            }
            let work = self.work.get_or_insert_with(|| shared.work.listen());
            let finishing = {
                let mut state = shared.lock();
                if let Some(window) = &mut state.window {
                    window.take_unsent(&mut self.chunk, CHUNK);
                }
                state.finishing
            };
            if self.chunk.is_empty() {
                if finishing {
                    return Pin::new(&mut *stream).poll_close(cx);
                }
                ready!(Pin::new(work).poll(cx));
                self.work = None;
            }
        }
    }
}
