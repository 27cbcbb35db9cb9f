//! Drives the connection of a client: connects, sends, reads acknowledgements, and connects again.

use std::future::pending;
use std::io;
use std::mem;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_lite::{AsyncWriteExt, FutureExt, future};
use log::{debug, info, warn};
use smol::Timer;

use super::ack_error::AckError;
use super::ack_options::AckOptions;
use super::ack_state::Shared;
use crate::client::window::{CountFault, Window};
use crate::net::address::Address;
use crate::net::backoff::Backoff;
use crate::net::byte_stream::ByteStream;
use crate::stream::error::ReadError;
use crate::stream::reader::FrameReader;
use crate::wire::ack::{Answer, Hello, LONGEST_ANSWER, NoAnswer, Refusal, RefusalCode};
use crate::wire::count::Count;
use crate::wire::error::{Fault, ProtocolError};
use crate::wire::io_error::Plain;
use crate::wire::sender_id::SenderId;

/// How much is written at once, in bytes: as much as a plain writer queues.
const CHUNK: usize = 64 * 1024;

/// The shortest and the longest wait between two attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How often in a row connections are closed instead of a welcome until the log says so: a server
/// without acknowledgements does that, but so does one that is full, or a load balancer whose servers
/// are just being started.
const UNWELCOME: u32 = 6;

/// How long it is without a connection until the log says so: a server that starts anew takes less.
const WORTH_A_LINE: Duration = Duration::from_secs(1);

/// For how long it counts that the sender was fenced. It may have been by a connection of its own that was
/// given up and came through later; if it happens again, somebody else uses its id.
const FENCED: Duration = Duration::from_secs(60);

/// What drives the connection.
pub(super) struct Driver {
    shared: Arc<Shared>,
    address: Address,
    options: AckOptions,
    sender: SenderId,
    /// How long it has been without a connection since it last got on, up to the last welcome.
    without: Duration,
    /// Since when it is without one.
    lost: Option<Instant>,
    /// Whether the log says that it is without one.
    said: bool,
    /// How often in a row a connection was closed instead of a welcome.
    unwelcome: u32,
    /// When a connection was fenced last.
    fenced: Option<Instant>,
    /// Whether the message under way came too late before.
    late: bool,
    /// Whether the numbers have changed since the last welcome.
    renumbered: bool,
}

/// Why a connection is no more.
enum Broken {
    /// Another connection may be better.
    Passing(AckError),
    /// No other connection will be better.
    Final(AckError),
    /// The server has lost messages; the next connection goes on with other numbers.
    Renumbered,
}

impl Driver {
    pub(super) fn new(
        shared: Arc<Shared>,
        address: Address,
        options: AckOptions,
        sender: SenderId,
    ) -> Driver {
        Driver {
            shared,
            address,
            options,
            sender,
            without: Duration::ZERO,
            lost: None,
            said: false,
            unwelcome: 0,
            fenced: None,
            late: false,
            renumbered: false,
        }
    }

    pub(super) async fn run(mut self) {
        let ended = AssertUnwindSafe(self.drive()).catch_unwind().await;
        let bug = |_| Err(self.lost(io::Error::other("a bug in framelet ended the client")));
        let ended = ended.unwrap_or_else(bug);
        self.shared.lock().ended = Some(ended);
        self.shared.news.notify(usize::MAX);
    }

    async fn drive(&mut self) -> Result<(), AckError> {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        loop {
            let committed = self.shared.window(Window::committed);
            let error = match self.converse().await {
                Ok(()) => return Ok(()),
                // All is known to be safe; that the connection did not end well changes nothing.
                Err(_) if self.is_done() => return Ok(()),
                Err(Broken::Final(error)) => return Err(error),
                Err(Broken::Renumbered) => continue,
                Err(Broken::Passing(error)) => error,
            };
            if self.shared.window(Window::committed) != committed {
                backoff.reset();
            }
            let since = *self.lost.get_or_insert_with(Instant::now);
            let without = self.without.saturating_add(since.elapsed());
            let left = self.options.retry.saturating_sub(without);
            if left.is_zero() {
                return Err(error);
            }
            match &error {
                AckError::Lost { error, .. } if !self.said && since.elapsed() >= WORTH_A_LINE => {
                    self.said = true;
                    let left = Duration::from_secs(left.as_secs().max(1));
                    let left = humantime::format_duration(left);
                    warn!(
                        "no connection to {}: {}; retrying for {left}",
                        self.address,
                        Plain(error)
                    );
                }
                _ => debug!("{error}; retrying"),
            }
            Timer::after(backoff.next_wait().min(left)).await;
        }
    }

    /// Notes that there is a connection, on which the server answers.
    fn connected(&mut self) {
        (self.unwelcome, self.said) = (0, false);
        if let Some(lost) = self.lost.take() {
            self.without = self.without.saturating_add(lost.elapsed());
        }
    }

    /// Notes that messages are committed, or that none is waiting.
    fn got_on(&mut self) {
        (self.without, self.late) = (Duration::ZERO, false);
    }

    /// Connects and goes on until everything is done, or the connection is no more.
    async fn converse(&mut self) -> Result<(), Broken> {
        if self.is_done() {
            return Ok(());
        }
        let lost = |driver: &Driver, error| Broken::Passing(driver.lost(error));
        let connect = self.address.connect().or(too_late("no connection", self.options.silence));
        let socket = connect.await.map_err(|error| lost(self, error))?;
        let mut reader = FrameReader::with_layout(socket.clone(), self.options.layout)
            .max_message(LONGEST_ANSWER)
            .map_err(|error| Broken::Final(AckError::Limit(error)))?;
        let (welcome, checksum) = self.greet(socket.clone(), &mut reader).await?;
        self.welcomed(welcome, checksum)?;
        let shared = Arc::clone(&self.shared);
        let mut write = pin!(async {
            if let Err(error) = write_all(socket.clone(), &shared).await {
                // The server may have said why before it closed: what it says goes first.
                debug!("cannot write: {}", Plain(&error));
            }
            pending().await
        });
        // Both live as long as the connection. A timer that was armed and dropped for each answer would wake
        // the reactor's thread each time.
        let mut silent = pin!(silent(self.options.silence, &shared));
        loop {
            let answer = read_answer(&mut reader).or(write.as_mut()).or(silent.as_mut()).await;
            match answer {
                Ok(Some(
                    Answer::Acknowledgement(count) | Answer::Welcome { committed: count, .. },
                )) => self.acknowledged(count)?,
                Ok(Some(Answer::Refusal(refusal))) => {
                    // Its count is as good as any; but why it refuses matters more than a wrong one.
                    let _ = self.acknowledged(refusal.committed);
                    return Err(self.refused(refusal));
                }
                Ok(Some(Answer::Heartbeat)) => {}
                Ok(None) if self.is_done() => return Ok(()),
                Ok(None) => {
                    let what = "the server closed the connection";
                    return Err(lost(self, io::Error::new(io::ErrorKind::UnexpectedEof, what)));
                }
                Err(Bad::Io(error) | Bad::Silent(error)) => return Err(lost(self, error)),
                Err(Bad::Protocol(what)) => return Err(self.protocol(what)),
            }
            self.shared.hear();
        }
    }

    /// Says hello and returns the welcome, and the checksum of the last of these messages if it is asked for
    /// and known.
    async fn greet(
        &mut self,
        mut socket: ByteStream,
        reader: &mut FrameReader<ByteStream>,
    ) -> Result<(u64, Option<u64>), Broken> {
        let first = self.committed().saturating_sub(self.lost_messages()).saturating_add(1);
        let hello = Hello { sender: self.sender, first };
        // Only a client that begins with the messages of an earlier one has not sent the last one itself.
        let resuming = self.options.sender.is_some() && self.shared.lock().window.is_none();
        let encode = if resuming { Hello::encode_resuming } else { Hello::encode };
        let hello = encode(&hello, self.options.layout)
            .map_err(|error| Broken::Final(AckError::Layout(error)))?;
        let greeting = async {
            // A server that refuses to be greeted may do so before it has read everything.
            let written = socket.write_all(&hello).await;
            match read_answer(reader).await {
                Err(Bad::Io(error)) => Err(Bad::Io(written.err().unwrap_or(error))),
                answer => answer,
            }
        };
        let silence = self.options.silence;
        let late = || async { too_late("no answer", silence).await.map_err(Bad::Silent) };
        let mut answer = greeting.or(late()).await;
        // A server that answers at all gives acknowledgements.
        let mut gives_any = self.shared.lock().window.is_some();
        let mut alive = false;
        while let Ok(Some(Answer::Heartbeat)) = answer {
            if !alive {
                info!("{} is busy with earlier messages; waiting for its answer", self.address);
                self.connected();
            }
            (gives_any, alive) = (true, true);
            answer = read_answer(reader).or(late()).await;
        }
        let closed = "the server closed the connection";
        let instead = match answer {
            Ok(Some(Answer::Acknowledgement(welcome))) => return Ok((welcome, None)),
            Ok(Some(Answer::Welcome { committed, checksum })) => {
                return Ok((committed, Some(checksum)));
            }
            Ok(Some(Answer::Refusal(refusal))) => return Err(self.refused(refusal)),
            Ok(_) => Bad::Io(io::Error::new(io::ErrorKind::UnexpectedEof, closed)),
            Err(instead) => instead,
        };
        Err(match (gives_any, instead) {
            (false, Bad::Io(error)) => {
                let why = format!("{} before it answered", Plain(&error));
                self.unwelcome(1, why)
            }
            (false, Bad::Silent(error)) => self.unwelcome(UNWELCOME, error.to_string()),
            (false, Bad::Protocol(what)) => {
                let why = format!("its answer is not one: {what}");
                Broken::Final(AckError::NoAcknowledgements { why })
            }
            (true, Bad::Io(error) | Bad::Silent(error)) => Broken::Passing(self.lost(error)),
            (true, Bad::Protocol(what)) => self.protocol(what),
        })
    }

    /// Notes that a server has not answered a hello; `times` is how much that says.
    fn unwelcome(&mut self, times: u32, why: String) -> Broken {
        let enough = self.unwelcome < UNWELCOME && self.unwelcome + times >= UNWELCOME;
        if enough && !self.options.retry.is_zero() {
            warn!(
                "{}: {why}: it may give no acknowledgements, or be full, or just starting; retrying",
                self.address
            );
        }
        self.unwelcome = self.unwelcome.saturating_add(times);
        Broken::Passing(AckError::NoAcknowledgements { why })
    }

    /// Begins, or goes on, after what the server says is committed.
    fn welcomed(&mut self, welcome: u64, checksum: Option<u64>) -> Result<(), Broken> {
        self.connected();
        let welcome = self.in_own_numbers(welcome)?;
        let committed = self.committed();
        // If the server has lost messages, its last one is none of those that are looked at.
        let checksum = checksum.filter(|_| welcome >= committed && self.lost_messages() == 0);
        let welcome = match welcome < committed {
            // There is no need to connect again: from here on both sides count the same way.
            true if self.options.renumber => {
                self.renumber(welcome);
                committed
            }
            true => return Err(Broken::Final(self.behind(welcome))),
            false => welcome,
        };
        self.renumbered = false;
        let got_on = {
            let mut state = self.shared.lock();
            state.heard = Some(Instant::now());
            let before = state.window.as_ref().map(Window::committed);
            match &mut state.window {
                Some(window) => window.rewind(welcome).map_err(|fault| self.counts(fault))?,
                None => {
                    let AckOptions { window, window_bytes, .. } = self.options;
                    let window = Window::new(welcome, window.max(1), window_bytes);
                    state.window = Some(window.map_err(|fault| self.counts(fault))?);
                    state.checksum = checksum;
                }
            }
            before != Some(welcome) || state.window.as_ref().is_some_and(Window::is_empty)
        };
        if got_on {
            self.got_on();
        }
        self.shared.news.notify(usize::MAX);
        Ok(())
    }

    fn acknowledged(&mut self, count: u64) -> Result<(), Broken> {
        let count = self.in_own_numbers(count)?;
        let acknowledged = match &mut self.shared.lock().window {
            Some(window) => {
                let got_on = count > window.committed();
                window.acknowledged(count).map(|()| got_on)
            }
            None => Ok(false),
        };
        if acknowledged.map_err(|fault| self.counts(fault))? {
            self.got_on();
            self.shared.news.notify(usize::MAX);
        }
        Ok(())
    }

    /// Returns whether no more messages will come, and all are committed.
    fn is_done(&self) -> bool {
        let state = self.shared.lock();
        state.finishing && state.window.as_ref().is_some_and(Window::is_empty)
    }

    /// Returns how many messages are known to be committed.
    fn committed(&self) -> u64 {
        let state = self.shared.lock();
        state.window.as_ref().map_or(self.options.committed, Window::committed)
    }

    /// Returns how many messages have been taken, all in all.
    fn sent(&self) -> u64 {
        let state = self.shared.lock();
        state.window.as_ref().map_or(self.options.committed, Window::pushed)
    }

    fn lost_messages(&self) -> u64 {
        self.shared.lock().lost
    }

    /// Returns what a count of the server is in the numbers of this client.
    fn in_own_numbers(&self, count: u64) -> Result<u64, Broken> {
        let beyond = CountFault::Beyond { count, sent: self.sent() };
        count.checked_add(self.lost_messages()).ok_or_else(|| self.counts(beyond))
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
            "the server has lost {} of sender {}: message {} and what follows it are sent as message \
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

    fn lost(&self, error: io::Error) -> AckError {
        let (sent, committed) = (self.sent(), self.committed());
        AckError::Lost { error, sent, committed, sender: self.sender }
    }

    fn refused(&mut self, refusal: Refusal) -> Broken {
        if refusal.code == RefusalCode::Gap
            && let Ok(server) = self.in_own_numbers(refusal.committed)
            && server < self.committed()
        {
            // Not twice in a row: that server would never be content.
            if !self.options.renumber || self.renumbered {
                return Broken::Final(self.behind(server));
            }
            self.renumber(server);
            return Broken::Renumbered;
        }
        let passing = match refusal.code {
            RefusalCode::Fenced => {
                let again = self.fenced.replace(Instant::now());
                again.is_none_or(|last| last.elapsed() > FENCED)
            }
            // The line may have been slow for a while; if it stays so, there is no use in it.
            RefusalCode::Late => !mem::replace(&mut self.late, true),
            code => code.is_passing(),
        };
        let error = AckError::Refused { refusal, sender: self.sender };
        if passing { Broken::Passing(error) } else { Broken::Final(error) }
    }

    fn protocol(&self, what: String) -> Broken {
        Broken::Final(AckError::Protocol { what, sender: self.sender })
    }

    fn counts(&self, fault: CountFault) -> Broken {
        self.protocol(fault.to_string())
    }
}

/// How often at most it is looked whether the server is silent.
const SHORTEST_LOOK: Duration = Duration::from_millis(1);

/// Waits until the server has shown no sign of life for too long while messages wait.
async fn silent(silence: Option<Duration>, shared: &Shared) -> Result<Option<Answer>, Bad> {
    let Some(silence) = silence else { return pending().await };
    loop {
        // Looking now and then is enough, and costs less than a timer for each message.
        Timer::after((silence / 8).max(SHORTEST_LOOK)).await;
        let mut state = shared.lock();
        let waiting =
            state.finishing || state.window.as_ref().is_some_and(|window| !window.is_empty());
        let heard = *state.heard.get_or_insert_with(Instant::now);
        if !waiting {
            state.heard = Some(Instant::now());
        } else if heard.elapsed() >= silence {
            return Err(Bad::Silent(late("nothing came from the server", silence)));
        }
    }
}

/// Waits until it is too late for something.
async fn too_late<T>(what: &str, silence: Option<Duration>) -> io::Result<T> {
    match silence {
        None => pending().await,
        Some(silence) => {
            Timer::after(silence).await;
            Err(late(what, silence))
        }
    }
}

fn late(what: &str, after: Duration) -> io::Error {
    let after = humantime::format_duration(after);
    io::Error::new(io::ErrorKind::TimedOut, format!("{what} within {after}"))
}

/// What came instead of an answer.
enum Bad {
    Io(io::Error),
    /// Nothing, for too long.
    Silent(io::Error),
    Protocol(String),
}

/// Reads an answer; `None` at the end of the stream.
///
/// # Cancel safety
///
/// As [`FrameReader::read`].
async fn read_answer(reader: &mut FrameReader<ByteStream>) -> Result<Option<Answer>, Bad> {
    match reader.read().await {
        Ok(Some(payload)) => Answer::decode(&payload)
            .map(Some)
            .map_err(|error: NoAnswer| Bad::Protocol(error.to_string())),
        Ok(None) => Ok(None),
        Err(ReadError::Io { error, .. }) => Err(Bad::Io(error)),
        Err(ReadError::Protocol(ProtocolError {
            fault: Fault::TruncatedPrefix { .. } | Fault::TruncatedPayload { .. },
            ..
        })) => {
            // Not spoilt: that is how a connection ends where there is no reset.
            let what = "the server cut the connection";
            Err(Bad::Io(io::Error::new(io::ErrorKind::UnexpectedEof, what)))
        }
        // Nobody wants to raise the limit for an answer.
        Err(ReadError::Protocol(ProtocolError {
            at,
            fault: fault @ Fault::OverLong { .. },
            suspect: None,
            ..
        })) => Err(Bad::Protocol(format!("{at}: {fault}"))),
        Err(error) => Err(Bad::Protocol(error.to_string())),
    }
}

/// Writes what there is to send, and at last the end of the stream.
async fn write_all(mut socket: ByteStream, shared: &Shared) -> io::Result<()> {
    let mut chunk = Vec::new();
    loop {
        let listener = shared.work.listen();
        chunk.clear();
        let finishing = {
            let mut state = shared.lock();
            if let Some(window) = &mut state.window {
                window.give(&mut chunk, CHUNK);
            }
            state.finishing
        };
        if !chunk.is_empty() {
            let mut rest = &chunk[..];
            while !rest.is_empty() {
                let mut writing = socket.write(rest);
                let taken = match future::poll_once(&mut writing).await {
                    Some(taken) => taken?,
                    None => {
                        let taken = writing.await?;
                        // There is room again, so the other side has taken something in. Where there is
                        // room all the time, it may just be our own system that does.
                        shared.hear();
                        taken
                    }
                };
                if taken == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                rest = &rest[taken..];
            }
        } else if finishing {
            return socket.close().await;
        } else {
            listener.await;
        }
    }
}
