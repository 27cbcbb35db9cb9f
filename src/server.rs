//! Accepts connections, gives each a task of its own, and ends in good order.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use event_listener::Event;
use futures_lite::{FutureExt, future};
use log::{debug, error, info, warn};
use smol::Timer;

use crate::connection::{Connection, Outcome};
use crate::error::Plain;
use crate::layout::Layout;
use crate::net::{Listener, Peer, ResetOnDrop, Stream};
use crate::pool::Pool;
use crate::reader::{LimitError, checked_limit};
use crate::sink::{Origin, Queue, Sink, Writer};
use crate::watch::{Order, Phase};

/// The file descriptors that are left to everything but connections.
const SPARE_DESCRIPTORS: u64 = 32;

/// The most connections that are served at once unless told otherwise.
const MAX_CONNECTIONS: usize = 10_000;

/// The memory for payloads unless told otherwise, in bytes; more if two messages would not fit.
const DEFAULT_MEMORY: usize = 64 * 1024 * 1024;

/// The bounds of the time between two sweeps.
const MIN_TICK: Duration = Duration::from_millis(10);
const MAX_TICK: Duration = Duration::from_secs(1);

/// The shortest and longest wait after a failed accept. The kernel keeps the connection meanwhile.
const ACCEPT_BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// How often a line that an outsider can cause is logged at most.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// How many connections are accepted before other tasks get their turn.
const ACCEPTS_A_TURN: u32 = 64;

/// The part of the grace period after which connections are cut; the rest is the sink's.
const GRACE_FOR_CONNECTIONS: f64 = 0.8;

/// How a server treats its connections.
///
/// # Examples
///
/// ```
/// use framelet::ServeOptions;
///
/// let options = ServeOptions { echo: true, ..ServeOptions::default() };
/// ```
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// How prefixes are written, in both directions. Default: `u32be`.
    pub layout: Layout,
    /// The longest payload to accept, in bytes. Default: 8 MiB, or what the layout can say.
    pub max_message: Option<usize>,
    /// How many connections are served at once; more are closed as soon as they come. Default: the
    /// limit of open files less 32, at most 10,000.
    pub max_connections: Option<usize>,
    /// How long a message may take from its first byte to its last. Default: 30 s.
    pub message_timeout: Option<Duration>,
    /// How long a connection may be silent between messages. Default: for ever.
    pub idle_timeout: Option<Duration>,
    /// How many bytes of payload are held at once, of all connections together. Where there are more
    /// to come, connections wait. Default: 64 MiB, or twice the longest message.
    pub memory: Option<usize>,
    /// How long ending may take. Default: 10 s.
    pub grace: Duration,
    /// Whether each message is sent back.
    pub echo: bool,
}

impl Default for ServeOptions {
    fn default() -> Self {
        ServeOptions {
            layout: Layout::U32BE,
            max_message: None,
            max_connections: None,
            message_timeout: Some(Duration::from_secs(30)),
            idle_timeout: None,
            memory: None,
            grace: Duration::from_secs(10),
            echo: false,
        }
    }
}

impl ServeOptions {
    /// Checks that the options make sense together, as [`serve`] does before anything else.
    ///
    /// # Errors
    ///
    /// [`ServeError::Limit`], [`ServeError::Memory`] or [`ServeError::Zero`].
    pub fn check(&self) -> Result<(), ServeError> {
        self.checked().map(|_| ())
    }

    /// Returns the longest message and the memory to use, both in bytes.
    fn checked(&self) -> Result<(usize, usize), ServeError> {
        let max_message =
            checked_limit(self.layout, self.max_message).map_err(ServeError::Limit)?;
        let memory = self.memory.unwrap_or(DEFAULT_MEMORY.max(2 * max_message));
        if memory < max_message {
            return Err(ServeError::Memory { memory, max_message });
        }
        let zero = |duration: Option<Duration>| duration.is_some_and(|duration| duration.is_zero());
        for (is_zero, what) in [
            (self.max_connections == Some(0), "the number of connections (--max-connections)"),
            (zero(self.message_timeout), "the time for a message (--message-timeout)"),
            (zero(self.idle_timeout), "the time for silence (--idle-timeout)"),
        ] {
            if is_zero {
                return Err(ServeError::Zero(what));
            }
        }
        Ok((max_message, memory))
    }
}

/// What a server has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many messages it has received.
    pub messages: u64,
    /// How many connections it has served.
    pub connections: u64,
    /// How many connections it closed at the end of the grace period, before they had ended.
    pub cut: usize,
}

/// Why a server did not start, or did not end as it should.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// The limit cannot be reached in the layout.
    Limit(LimitError),
    /// The memory does not hold even one message of the longest allowed.
    Memory {
        /// The memory asked for, in bytes.
        memory: usize,
        /// The longest message, in bytes.
        max_message: usize,
    },
    /// Something has no sense when it is zero.
    Zero(&'static str),
    /// The system refused something at the start.
    Start(io::Error),
    /// The sink failed.
    Sink {
        /// Why.
        error: io::Error,
        /// How many messages had been received and are not known to be committed.
        uncommitted: u64,
    },
    /// The sink did not take everything within the grace period.
    Unfinished {
        /// How many messages had been received and are not known to be committed.
        uncommitted: u64,
    },
}

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) layout: Layout,
    pub(crate) max_message: usize,
    pub(crate) message_timeout: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) echo: bool,
    pub(crate) pool: Pool,
    max_connections: usize,
    grace: Duration,
    /// How long a tick of `clock` is.
    tick: Duration,
    clock: AtomicU64,
    draining: AtomicBool,
    open: Mutex<HashMap<u64, Arc<Origin>>>,
    /// Notified whenever a connection has ended.
    ended: Event,
    connections: AtomicU64,
    messages: AtomicU64,
}

/// Receives messages over `listener` and puts them into `sink`, until `shutdown` is ready; then it
/// ends in good order.
///
/// Each accepted connection is a task of its own on smol's executor. Without a sink, messages are
/// counted and dropped.
///
/// In good order means: nothing more is accepted; what peers have sent is read, idle connections are
/// closed, and incomplete messages have until near the end of the grace period; the sink commits
/// everything. A connection that the sink has not heard out is reset, never closed as if all were well.
///
/// Run it as a task, `block_on(smol::spawn(serve(…)))`: a thread that polls the reactor itself, as
/// [`smol::block_on`] does, takes events away from the threads that run the connections.
///
/// # Errors
///
/// [`ServeError`]: at the start if the options contradict each other, later if the sink fails. The
/// errors of a connection end that connection, and are logged through the [`log`] crate.
///
/// # Cancel safety
///
/// If the future is dropped, it stops accepting, and the connections go on by themselves.
///
/// # Examples
///
/// ```
/// use framelet::{Address, Client, OutputFormat, OutputSink, ServeOptions, serve};
/// use futures_lite::future;
///
/// # future::block_on(async {
/// let listener = "127.0.0.1:0".parse::<Address>()?.listen().await?;
/// let address = listener.address()?;
/// let (stop, stopped) = smol::channel::bounded::<()>(1);
/// let server = smol::spawn(async move {
///     let sink = Box::new(OutputSink::new(tempfile::tempfile()?, OutputFormat::Lines));
///     let shutdown = async move { drop(stopped.recv().await) };
///     serve(listener, ServeOptions::default(), Some(sink), shutdown).await.map_err(std::io::Error::other)
/// });
///
/// let mut client = Client::connect(&address).await?;
/// client.send(b"hello").await?;
/// client.finish().await?; // the server has read and committed it
/// drop(stop);
/// assert_eq!(server.await?.messages, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub async fn serve(
    listener: Listener,
    options: ServeOptions,
    sink: Option<Box<dyn Sink>>,
    shutdown: impl Future<Output = ()>,
) -> Result<Summary, ServeError> {
    let server = Arc::new(Server::new(&options)?);
    listener.prepare().map_err(ServeError::Start)?;
    let mut writer = sink.map(Writer::start).transpose().map_err(ServeError::Start)?;
    // Dropping a task cancels it, so the sweep ends with this function.
    let _sweep = smol::spawn(sweep(Arc::clone(&server)));

    let told_to_stop = async {
        shutdown.await;
        Ok(())
    };
    let stopped = told_to_stop
        .or(async { Err(sink_failure(writer.as_ref()).await) })
        .or(accept(&server, &listener, writer.as_ref()))
        .await;
    drop(listener);

    let deadline = Instant::now() + server.grace;
    let drained = match stopped {
        Ok(()) => {
            let drain = async { Ok(server.drain().await) };
            drain.or(async { Err(sink_failure(writer.as_ref()).await) }).await
        }
        Err(error) => Err(error),
    };
    let cut = match drained {
        Ok(cut) => cut,
        Err(error) => {
            server.abort_all().await;
            let uncommitted = writer.as_ref().map_or(0, Writer::uncommitted);
            return Err(ServeError::Sink { error, uncommitted });
        }
    };
    if let Some(writer) = &mut writer {
        let in_time = async {
            Timer::at(deadline).await;
            Ok(())
        };
        let finished = writer.finish().or(in_time).await;
        match (finished, writer.uncommitted()) {
            (Err(error), uncommitted) => return Err(ServeError::Sink { error, uncommitted }),
            (Ok(()), 0) => {}
            (Ok(()), uncommitted) => return Err(ServeError::Unfinished { uncommitted }),
        }
    }
    Ok(Summary {
        messages: server.messages.load(Ordering::Relaxed),
        connections: server.connections.load(Ordering::Relaxed),
        cut,
    })
}

async fn sink_failure(writer: Option<&Writer>) -> io::Error {
    match writer {
        Some(writer) => writer.failed().await,
        None => future::pending().await,
    }
}

/// Accepts connections for ever: no error that `accept` can report is the listener's own.
async fn accept<T>(server: &Arc<Server>, listener: &Listener, writer: Option<&Writer>) -> T {
    let mut backoff = ACCEPT_BACKOFF.0;
    let mut failures = Seldom::default();
    let mut refusals = Seldom::default();
    let mut turn = 0;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                backoff = ACCEPT_BACKOFF.0;
                let open = server.open().len();
                if open < server.max_connections {
                    server.admit(stream, peer, writer.map(Writer::queue));
                } else {
                    // What it may have sent already is not read, so its end must not look orderly.
                    drop(ResetOnDrop::new(&stream));
                    if let Some(refused) = refusals.due() {
                        warn!(
                            "{refused} refused, the last one from {peer}: {open} connections are \
                             open, the limit (--max-connections)"
                        );
                    }
                }
                turn += 1;
                if turn % ACCEPTS_A_TURN == 0 {
                    future::yield_now().await;
                }
            }
            // The peer was gone before it was accepted; there is nothing to wait for.
            Err(error) if is_peers_own(&error) => debug!("a peer left early: {}", Plain(&error)),
            Err(error) => {
                if let Some(times) = failures.due() {
                    error!(
                        "cannot accept connections: {} ({times} times); trying on",
                        Plain(&error)
                    );
                }
                // Where descriptors ran out, the end of a connection frees one.
                let freed = server.ended.listen();
                let wait = async {
                    Timer::after(backoff).await;
                };
                wait.or(freed).await;
                backoff = (2 * backoff).min(ACCEPT_BACKOFF.1);
            }
        }
    }
}

fn is_peers_own(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Counts what happens, and says once in a while how often it has.
#[derive(Default)]
struct Seldom {
    last: Option<Instant>,
    since: u64,
}

impl Seldom {
    fn due(&mut self) -> Option<u64> {
        self.since += 1;
        if self.last.is_some_and(|last| last.elapsed() < LOG_INTERVAL) {
            return None;
        }
        self.last = Some(Instant::now());
        Some(std::mem::take(&mut self.since))
    }
}

/// Looks at every connection once a tick, and ends those that have waited too long.
async fn sweep(server: Arc<Server>) {
    loop {
        Timer::after(server.tick).await;
        let now = server.clock.fetch_add(1, Ordering::Relaxed) + 1;
        for origin in server.open().values() {
            let (phase, since) = origin.watch.phase();
            let timeout = match phase {
                Phase::InMessage => server.message_timeout,
                Phase::Idle | Phase::Writing => server.idle_timeout,
                Phase::Busy | Phase::Closing => None,
            };
            // The phase began at any time within its first tick: one more makes sure that nobody is
            // cut off early.
            let over = timeout.is_some_and(|timeout| {
                let ticks = timeout.as_nanos().div_ceil(server.tick.as_nanos());
                u128::from(now - since) > ticks
            });
            if over {
                origin.watch.tell(Order::Expired);
            }
        }
        server.pool.trim();
    }
}

impl Server {
    fn new(options: &ServeOptions) -> Result<Server, ServeError> {
        let (max_message, memory) = options.checked()?;
        // A quarter of the shortest timeout is fine enough, and once a second is little work.
        let shortest = options.message_timeout.into_iter().chain(options.idle_timeout).min();
        let tick = shortest.map_or(MAX_TICK, |shortest| (shortest / 4).clamp(MIN_TICK, MAX_TICK));
        Ok(Server {
            layout: options.layout,
            max_message,
            message_timeout: options.message_timeout,
            idle_timeout: options.idle_timeout,
            echo: options.echo,
            pool: Pool::new(memory, max_message),
            max_connections: max_connections(options.max_connections),
            grace: options.grace,
            tick,
            clock: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            open: Mutex::default(),
            ended: Event::new(),
            connections: AtomicU64::new(0),
            messages: AtomicU64::new(0),
        })
    }

    /// Returns the current tick.
    pub(crate) fn now(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    /// Returns whether connections shall end at the next good moment.
    pub(crate) fn draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Gives a connection a task of its own, which reports how it ended.
    fn admit(self: &Arc<Self>, stream: Stream, peer: Peer, queue: Option<Queue>) {
        let number = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        debug!("connection {number} from {peer}: open");
        let origin = Arc::new(Origin::new(number, peer));
        self.open().insert(number, Arc::clone(&origin));
        let server = Arc::clone(self);
        smol::spawn(async move {
            let connection =
                Connection::new(Arc::clone(&server), Arc::clone(&origin), stream, queue);
            let outcome = AssertUnwindSafe(connection.run()).catch_unwind().await;
            let messages = match outcome {
                Ok((messages, outcome)) => {
                    report(&origin, messages, &outcome);
                    messages
                }
                Err(_) => {
                    error!("connection {number} from {}: ended by a bug in framelet", origin.peer);
                    0
                }
            };
            server.messages.fetch_add(messages, Ordering::Relaxed);
            server.open().remove(&number);
            server.ended.notify(usize::MAX);
        })
        .detach();
    }

    /// Lets the connections end; cuts those that have not done so near the end of the grace period,
    /// and returns how many that were.
    async fn drain(&self) -> usize {
        let open = self.open().len();
        if open > 0 {
            info!("ending {open} connections");
        }
        self.draining.store(true, Ordering::SeqCst);
        for origin in self.open().values() {
            origin.watch.wake();
        }
        let time_is_up = async {
            Timer::after(self.grace.mul_f64(GRACE_FOR_CONNECTIONS)).await;
        };
        self.all_ended().or(time_is_up).await;
        let cut = self.open().len();
        if cut > 0 {
            warn!("{cut} connections had not ended in time (--grace) and were reset");
            self.abort_all().await;
        }
        cut
    }

    /// Ends all connections at once, by a reset.
    async fn abort_all(&self) {
        for origin in self.open().values() {
            origin.watch.tell(Order::Abort);
        }
        // They need no more than one poll each.
        let give_up = async {
            Timer::after(Duration::from_secs(1)).await;
        };
        self.all_ended().or(give_up).await;
    }

    async fn all_ended(&self) {
        loop {
            let ended = self.ended.listen();
            if self.open().is_empty() {
                return;
            }
            ended.await;
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<Origin>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one place where the end of a connection is logged.
fn report(origin: &Origin, messages: u64, outcome: &Outcome) {
    let who = format_args!("connection {} from {}", origin.connection, origin.peer);
    match outcome {
        Outcome::Closed if messages == 0 => debug!("{who}: closed without a message"),
        Outcome::Closed => debug!("{who}: closed after {messages} messages"),
        Outcome::Drained => {
            debug!("{who}: closed by the end of the server, after {messages} messages")
        }
        Outcome::Idle(timeout) => info!(
            "{who}: closed after {messages} messages, since the peer was idle for {} (--idle-timeout)",
            humantime::format_duration(*timeout)
        ),
        Outcome::Aborted => {
            warn!("{who}: reset by the end of the server, after {messages} messages")
        }
        Outcome::Read(error) => warn!("{who}: {error}"),
        Outcome::Write(error) => warn!("{who}: cannot send replies: {error}"),
        Outcome::SinkGone => debug!("{who}: reset, since the sink takes no more messages"),
    }
}

/// Returns the limit to use: the one asked for, or as many as there are file descriptors for.
fn max_connections(asked: Option<usize>) -> usize {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let room = files.map_or(usize::MAX, |files| {
        usize::try_from(files.saturating_sub(SPARE_DESCRIPTORS)).unwrap_or(usize::MAX)
    });
    let max = asked.unwrap_or(MAX_CONNECTIONS.min(room)).max(1);
    if max > room {
        warn!(
            "{max} connections may need more than the {} open files this process may have \
             (ulimit -n); what is over that waits",
            room.saturating_add(32)
        );
    }
    max
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Limit(error) => error.fmt(f),
            ServeError::Memory { memory, max_message } => write!(
                f,
                "{memory} bytes of memory (--memory) do not hold one message of {max_message} bytes \
                 (--max-message)"
            ),
            ServeError::Zero(what) => write!(f, "{what} cannot be zero"),
            ServeError::Start(error) => Plain(error).fmt(f),
            ServeError::Sink { error, uncommitted } => write!(
                f,
                "cannot put messages into the sink: {}; {uncommitted} messages received were not \
                 written, or not all of them",
                Plain(error)
            ),
            ServeError::Unfinished { uncommitted } => write!(
                f,
                "{uncommitted} messages received were not written by the end of the grace period"
            ),
        }
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ServeError::Limit(error) => Some(error),
            ServeError::Start(error) | ServeError::Sink { error, .. } => Some(error),
            _ => None,
        }
    }
}
