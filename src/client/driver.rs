//! Drives the connection of a client: connects, sends, reads acknowledgements, and reconnects.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io;
use std::mem;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_lite::future::Boxed;
use futures_lite::{AsyncRead, AsyncWrite, FutureExt};
use log::{debug, info, warn};

use super::ack_error::{AckError, AnswerError};
use super::ack_options::AckOptions;
use super::answers::{late, poll_answer, timed_out};
use super::delivery::Delivery;
use super::handshake::{self, Failure};
use super::sending::Sending;
use super::window::{CountFault, Window};
use crate::net::backoff::Backoff;
use crate::runtime::clock;
use crate::stream::pool::Pool;
use crate::stream::reader::FrameReader;
use crate::tls::TlsError;
use crate::wire::ack::Hello;
use crate::wire::answer::{Answer, LONGEST_ANSWER, Refusal, RefusalCode};
use crate::wire::count::Count;
use crate::wire::io_error::Plain;
use crate::wire::sender_id::SenderId;

/// The shortest and the longest wait between two attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How many handshakes in a row must fail before that is logged. A server without acknowledgements closes
/// the connection, but so do a full server and a load balancer whose servers are just starting.
const HANDSHAKES: u32 = 6;

/// How long a fenced connection is remembered. The first one may have been an old connection of this client
/// that arrived late; a second one within this time means that another client uses the same sender id.
const FENCED: Duration = Duration::from_secs(60);

/// How long a connection must be missing before that is logged: a server restarts in less.
const WORTH_A_LINE: Duration = Duration::from_secs(1);

/// The shortest interval between checks for a silent server.
const SHORTEST_LOOK: Duration = Duration::from_millis(1);

/// Makes a new stream to the server for each connection. Boxed, so that a driver is compiled for each kind of stream only.
pub(super) type Connector<S> = Box<dyn FnMut() -> Boxed<io::Result<S>> + Send>;

/// The task that drives the connection.
pub(super) struct Driver {
    shared: Arc<Delivery>,
    /// The server, for the log.
    server: String,
    options: AckOptions,
    sender: SenderId,
    /// The total time without a connection since the last progress, not including the current gap.
    disconnected_for: Duration,
    /// When the current gap began, if there is no connection.
    disconnected_since: Option<Instant>,
    /// Whether the current gap has been logged.
    reported: bool,
    /// How many handshakes failed in a row.
    handshake_failures: u32,
    /// When a connection was last fenced.
    fenced: Option<Instant>,
    /// Whether the next message was already refused once for arriving too late.
    late: bool,
    /// Whether messages were renumbered since the last successful handshake.
    renumbered: bool,
}

/// Why a connection has ended.
enum Disconnected {
    /// A new connection may succeed.
    Transient(AckError),
    /// No new connection can succeed.
    Final(AckError),
    /// The server has lost messages; the next connection uses other numbers.
    Renumbered,
}

impl Driver {
    pub(super) fn new(shared: Arc<Delivery>, options: AckOptions, sender: SenderId) -> Driver {
        Driver {
            shared,
            server: options.server_name.clone().unwrap_or_else(|| "the server".into()),
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

    pub(super) async fn run<S>(mut self, mut connector: Connector<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let ended = AssertUnwindSafe(self.drive(&mut connector)).catch_unwind().await;
        let bug = |_| Err(self.lost(io::Error::other("a bug in framelet ended the client")));
        let ended = ended.unwrap_or_else(bug);
        self.shared.lock().ended = Some(ended);
        self.shared.news.notify(usize::MAX);
    }

    async fn drive<S>(&mut self, connector: &mut Connector<S>) -> Result<(), AckError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        while !self.is_done() {
            let committed = self.shared.window(Window::committed);
            let Err(disconnected) = self.converse(connector).await;
            let error = match disconnected {
                // All messages are known to be committed, so it does not matter how the connection ended.
                _ if self.is_done() => break,
                Disconnected::Final(error) => return Err(error),
                Disconnected::Renumbered => continue,
                Disconnected::Transient(error) => error,
            };
            // Only commits shorten the wait: a server that accepts connections and fails at once must not
            // be flooded.
            if self.shared.window(Window::committed) != committed {
                backoff.reset();
            }
            let since = *self.disconnected_since.get_or_insert_with(clock::now);
            let disconnected_for = self.disconnected_for.saturating_add(clock::since(since));
            let left = self.options.retry.saturating_sub(disconnected_for);
            if left.is_zero() {
                return Err(error);
            }
            match &error {
                AckError::Lost { error, .. }
                    if !self.reported && clock::since(since) >= WORTH_A_LINE =>
                {
                    self.reported = true;
                    let left = Duration::from_secs(left.as_secs().max(1));
                    let left = humantime::format_duration(left);
                    warn!(
                        "no connection to {}: {}; retrying for another {left}",
                        self.server,
                        Plain(error)
                    );
                }
                _ => debug!("{error}; retrying"),
            }
            clock::sleep(backoff.next_wait().min(left)).await;
        }
        Ok(())
    }

    /// Records that the server has answered on a connection.
    fn connected(&mut self) {
        (self.handshake_failures, self.reported) = (0, false);
        if let Some(since) = self.disconnected_since.take() {
            self.disconnected_for = self.disconnected_for.saturating_add(clock::since(since));
        }
    }

    /// Records progress: messages were committed, or none is waiting.
    fn progressed(&mut self) {
        (self.disconnected_for, self.late) = (Duration::ZERO, false);
    }

    /// Connects, sends and reads acknowledgements until the connection ends.
    async fn converse<S>(
        &mut self,
        connector: &mut Connector<S>,
    ) -> Result<Infallible, Disconnected>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let timeout = self.options.server_timeout;
        let connecting = connector().or(timed_out("no connection", timeout));
        let stream = connecting.await.map_err(|error| self.not_connected(Arc::new(error)))?;
        let pool = Pool::unbounded();
        let mut reader = FrameReader::in_pool(stream, self.options.layout, LONGEST_ANSWER, pool);
        let (committed, checksum) = self.greet(&mut reader).await?;
        self.resume(committed, checksum)?;
        let shared = Arc::clone(&self.shared);
        let mut sending = Some(Sending::default());
        // It lives as long as the connection: arming and dropping a timer for each answer would wake the
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
                    // The count is used as well, but if it is wrong, the reason of the refusal matters
                    // more.
                    let _ = self.acknowledged(refusal.committed);
                    return Err(self.refused(refusal));
                }
                Answer::Heartbeat => {}
            }
            self.shared.heard();
        }
    }

    /// Sends the hello. Returns how many messages the server has committed, and the checksum of the last
    /// one if that was requested and the server knows it.
    async fn greet(
        &mut self,
        reader: &mut FrameReader<impl AsyncRead + AsyncWrite + Unpin>,
    ) -> Result<(u64, Option<u64>), Disconnected> {
        let first = self.committed().saturating_sub(self.lost_messages()).saturating_add(1);
        let hello = Hello { sender: self.sender, first };
        // The checksum is only needed if the last message was sent by an earlier client.
        let resuming = self.options.sender.is_some() && self.shared.lock().window.is_none();
        let encode = if resuming { Hello::encode_resuming } else { Hello::encode };
        let hello = encode(&hello, self.options.layout)
            .map_err(|error| Disconnected::Final(AckError::Layout(error)))?;
        let timeout = self.options.server_timeout;
        let on_busy = || {
            info!("{} is busy with earlier messages; waiting for its answer", self.server);
            self.connected();
        };
        match handshake::greet(reader, &hello, timeout, on_busy).await {
            Ok(welcome) => Ok(welcome),
            Err(Failure::Refused(refusal)) => Err(self.refused(refusal)),
            // A server that answers at all gives acknowledgements, so this is an error of a connection.
            Err(Failure::Broken { error, answered })
                if answered || self.shared.lock().window.is_some() =>
            {
                Err(self.failed(error))
            }
            Err(Failure::Broken { error: AnswerError::Io(error), .. }) => {
                Err(self.handshake_failed(error))
            }
            Err(Failure::Broken { error, .. }) => {
                Err(Disconnected::Final(AckError::NoAcknowledgements(error)))
            }
        }
    }

    /// Records that a server has not answered the hello.
    fn handshake_failed(&mut self, error: Arc<io::Error>) -> Disconnected {
        if TlsError::of(&error).is_some() {
            // Such a server says why it does not answer, if only after the handshake of TLS.
            return self.not_connected(error);
        }
        // A server that stays silent for the whole timeout is no busy load balancer, so one such failure is
        // enough.
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

    /// Starts or resumes after the messages that the server has committed.
    fn resume(&mut self, server: u64, checksum: Option<u64>) -> Result<(), Disconnected> {
        self.connected();
        let server = self.in_own_numbers(server)?;
        let (committed, lost) = (self.committed(), self.lost_messages());
        // Servers with different databases use the same numbers for different messages. A checksum cannot
        // tell: payloads may repeat. Only acknowledgements on a connection are sure to be of its messages.
        if lost > 0 && server > committed {
            let in_its_numbers = |count: u64| count.saturating_sub(lost);
            return Err(self.miscounted(CountFault::Unclear {
                count: in_its_numbers(server),
                committed: in_its_numbers(committed),
                sent: in_its_numbers(self.sent()),
            }));
        }
        // If the server has lost messages, its last message is not the one that the checksum is for.
        let checksum = checksum.filter(|_| server >= committed && lost == 0);
        let from = match server < committed {
            // No need to reconnect: from here on, both sides use the same numbers.
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
            state.last_heard = Some(clock::now());
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

    /// Returns whether no more messages will follow and all are committed.
    fn is_done(&self) -> bool {
        let state = self.shared.lock();
        state.finishing && state.window.as_ref().is_some_and(Window::is_empty)
    }

    /// Returns how many messages are known to be committed.
    fn committed(&self) -> u64 {
        let state = self.shared.lock();
        state.window.as_ref().map_or(self.options.committed, Window::committed)
    }

    /// Returns how many messages the client has taken in total.
    fn sent(&self) -> u64 {
        let state = self.shared.lock();
        state.window.as_ref().map_or(self.options.committed, Window::last_pushed)
    }

    fn lost_messages(&self) -> u64 {
        self.shared.lock().lost
    }

    /// Converts a count of the server to this client's numbers.
    fn in_own_numbers(&self, count: u64) -> Result<u64, Disconnected> {
        let beyond = CountFault::Beyond { count, sent: self.sent() };
        count.checked_add(self.lost_messages()).ok_or_else(|| self.miscounted(beyond))
    }

    /// Renumbers the uncommitted messages to follow `server`, a count in this client's numbers.
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

    /// Returns the error of a server that has only `server` messages, a count in this client's numbers.
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
            // Not twice in a row: such a server would never accept the messages.
            if !self.options.renumber || self.renumbered {
                return Disconnected::Final(self.behind(server));
            }
            self.renumber(server);
            return Disconnected::Renumbered;
        }
        let transient = match refusal.code {
            RefusalCode::Fenced => {
                let again = self.fenced.replace(clock::now());
                again.is_none_or(|last| clock::since(last) > FENCED)
            }
            // The network may have been slow for a while. If it is slow again, retrying does not help.
            RefusalCode::Late => !mem::replace(&mut self.late, true),
            code => code.is_passing(),
        };
        let error = AckError::Refused { refusal, sender: self.sender };
        if transient { Disconnected::Transient(error) } else { Disconnected::Final(error) }
    }

    /// Returns how an attempt to connect ended.
    fn not_connected(&self, error: Arc<io::Error>) -> Disconnected {
        let is_final = TlsError::of(&error).is_some_and(TlsError::is_refusal);
        match is_final && self.shared.lock().window.is_none() {
            // No message was taken yet. Later, a certificate may be replaced while the client waits.
            true => Disconnected::Final(self.lost(error)),
            false => Disconnected::Transient(self.lost(error)),
        }
    }

    /// Returns how a connection ended: it was lost, or the server broke the protocol.
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

/// Waits until the server has been silent for too long while messages wait.
async fn silent<T>(timeout: Option<Duration>, shared: &Delivery) -> Result<T, AnswerError> {
    let Some(timeout) = timeout else { return pending().await };
    loop {
        // Checking from time to time is enough, and costs less than a timer for each message.
        clock::sleep((timeout / 8).max(SHORTEST_LOOK)).await;
        let mut state = shared.lock();
        let waiting =
            state.finishing || state.window.as_ref().is_some_and(|window| !window.is_empty());
        let last_heard = *state.last_heard.get_or_insert_with(clock::now);
        if !waiting {
            state.last_heard = Some(clock::now());
        } else if clock::since(last_heard) >= timeout {
            return Err(late("nothing came from the server", timeout).into());
        }
    }
}
