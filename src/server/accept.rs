//! Accepts connections, gives each a task of its own, and ends in good order.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use event_listener::Event;
use futures_lite::{FutureExt, future};
use log::{debug, info, warn};
use smol::Timer;

use super::writer_thread::Writer;
use crate::message::Origin;
use crate::net::listener::{BACKLOG, Listener, ResettingListener};
use crate::net::socket::{Peer, Socket};
use crate::server::connection::{Connection, Outcome, report};
use crate::server::connection_state::Order;
use crate::server::deadlines::{Sweep, tick};
use crate::server::options::{Reopen, ServeError, ServeOptions, max_connections};
use crate::server::rate_limited_log::{Kind, RateLimitedLog};
use crate::server::senders::Senders;
use crate::sink::message_sink::Sink;
use crate::stream::pool::Pool;
use crate::wire::count::Count;
use crate::wire::io_error::Plain;
use crate::wire::layout::Layout;

/// The shortest and longest wait after a failed accept. The kernel keeps the connection meanwhile.
const ACCEPT_BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// How many connections are accepted before other tasks get their turn.
const ACCEPTS_A_TURN: u32 = 64;

/// The part of the grace period that is the sink's, after connections were cut: one in this many.
const GRACE_FOR_SINK: u32 = 5;

/// What a server has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// How many messages it has received.
    pub messages: u64,
    /// How many connections it has served.
    pub connections: u64,
    /// How many connections it closed at the end of the grace period, before they had ended.
    pub cut: usize,
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
    pub(crate) tick: Duration,
    pub(crate) clock: AtomicU64,
    draining: AtomicBool,
    open: Mutex<HashMap<u64, Arc<Origin>>>,
    pub(crate) require_ack: bool,
    pub(crate) senders: Arc<Senders>,
    /// Of what peers do.
    pub(crate) log: RateLimitedLog,
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
/// In good order means: nothing more is accepted; what peers had sent by then is read, and incomplete
/// messages have until near the end of the grace period; the sink commits everything.
///
/// A connection has an orderly end only if its peer had ended its own direction and everything it sent
/// is committed. All others are reset, also those that are idle when the server ends: what is on its
/// way to them from a peer will not be read, and the peer must not take the end for a sign that it was.
/// Even a server that is killed resets its connections. A Unix socket knows no reset; there, the end is
/// marked by one byte, `ff`, which is half a frame in every layout, unless the server was killed.
///
/// A client that begins with a [`Hello`](crate::Hello) is told how many messages of its sender are
/// committed, and then, whenever there are more, how many by now. Clients that do not ask are never
/// written to, unless the server echoes.
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
/// If the future is dropped, it stops accepting, and the connections go on by themselves, without any
/// time limits.
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
    let result = run(&server, listener, &options.reopen, sink, shutdown).await;
    server.log.finish();
    result
}

async fn run(
    server: &Arc<Server>,
    listener: Listener,
    reopen: &Reopen,
    sink: Option<Box<dyn Sink>>,
    shutdown: impl Future<Output = ()>,
) -> Result<Summary, ServeError> {
    let mut writer = sink.map(Writer::start).transpose().map_err(ServeError::Start)?;
    let _sweep = Sweep::start(server).map_err(ServeError::Start)?;
    let mut listener = ResettingListener::new(listener).map_err(ServeError::Start)?;

    let told_to_stop = async {
        shutdown.await;
        Ok(())
    };
    let stopped = told_to_stop
        .or(async { Err(sink_failure(writer.as_ref()).await) })
        .or(pass_on(reopen, writer.as_ref()))
        .or(accept(server, &mut listener, writer.as_ref()))
        .await;
    let deadline = Instant::now().checked_add(server.grace);
    if stopped.is_ok() {
        accept_the_last(server, &mut listener, writer.as_ref()).await;
    }
    drop(listener);

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
            server.end_all(Order::SinkFailed).await;
            let uncommitted = writer.as_ref().map_or(0, Writer::uncommitted);
            return Err(ServeError::Sink { error, uncommitted });
        }
    };
    if let Some(writer) = &mut writer {
        let in_time = async {
            deadline.map_or_else(Timer::never, Timer::at).await;
            Ok(())
        };
        let finished = writer.finish().or(in_time).await;
        match (finished, writer.uncommitted()) {
            (Err(error), uncommitted) => return Err(ServeError::Sink { error, uncommitted }),
            (Ok(()), 0) => {}
            (Ok(()), uncommitted) => {
                let trouble = writer.trouble();
                return Err(ServeError::Unfinished { uncommitted, trouble });
            }
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

/// Tells the sink to reopen whenever that is asked for.
async fn pass_on<T>(reopen: &Reopen, writer: Option<&Writer>) -> T {
    let Some(writer) = writer else { return future::pending().await };
    loop {
        reopen.asked().await;
        // While that waits for its place in the queue, it may be asked for again, and help by then.
        let again = async {
            loop {
                reopen.asked().await;
                writer.reopen_in_trouble();
            }
        };
        writer.reopen().or(again).await;
    }
}

/// Accepts connections for ever: no error that `accept` can report is the listener's own.
async fn accept<T>(
    server: &Arc<Server>,
    listener: &mut ResettingListener,
    writer: Option<&Writer>,
) -> T {
    let mut backoff = ACCEPT_BACKOFF.0;
    let mut turn = 0;
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                backoff = ACCEPT_BACKOFF.0;
                server.admit(socket, peer, writer);
                turn += 1;
                if turn % ACCEPTS_A_TURN == 0 {
                    future::yield_now().await;
                }
            }
            // The peer was gone before it was accepted; there is nothing to wait for.
            Err(error) if is_peers_own(&error) => debug!("a peer left early: {}", Plain(&error)),
            Err(error) => {
                let why = Plain(&error);
                server.log.say(
                    Kind::AcceptFailed,
                    format_args!("cannot accept connections: {why}; retrying"),
                );
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

/// Closes a connection, which has ended by a panic if there is no `outcome`.
fn close(connection: Connection, outcome: Option<Outcome>) {
    let (server, origin) = (Arc::clone(connection.server()), Arc::clone(connection.origin()));
    let (number, messages) = (origin.connection, connection.received());
    match outcome {
        Some(outcome) => report(&server.log, &origin, messages, &outcome),
        None => {
            let peer = &origin.peer;
            let line = format_args!("connection {number} from {peer}: ended by a bug in framelet");
            server.log.say(Kind::Bug, line);
        }
    }
    drop(connection);
    server.messages.fetch_add(messages, Ordering::Relaxed);
    server.open().remove(&number);
    server.ended.notify(usize::MAX);
}

/// Accepts what had connected before the end: those peers may have sent everything and be gone.
async fn accept_the_last(
    server: &Arc<Server>,
    listener: &mut ResettingListener,
    writer: Option<&Writer>,
) {
    for _ in 0..BACKLOG {
        match future::poll_once(listener.accept()).await {
            Some(Ok((socket, peer))) => server.admit(socket, peer, writer),
            Some(Err(error)) if is_peers_own(&error) => {}
            Some(Err(error)) => {
                warn!("cannot accept the last connections: {}", Plain(&error));
                return;
            }
            None => return,
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

impl Server {
    pub(crate) fn new(options: &ServeOptions) -> Result<Server, ServeError> {
        let (max_message, memory) = options.checked()?;
        Ok(Server {
            layout: options.layout,
            max_message,
            message_timeout: options.message_timeout,
            idle_timeout: options.idle_timeout,
            echo: options.echo,
            pool: Pool::new(memory, max_message),
            max_connections: max_connections(options.max_connections),
            grace: options.grace,
            tick: tick(options.message_timeout.into_iter().chain(options.idle_timeout)),
            clock: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            open: Mutex::default(),
            require_ack: options.require_ack,
            senders: Arc::default(),
            log: RateLimitedLog::default(),
            ended: Event::new(),
            connections: AtomicU64::new(0),
            messages: AtomicU64::new(0),
        })
    }

    /// Returns the current tick.
    pub(crate) fn now(&self) -> u64 {
        self.clock.load(Ordering::SeqCst)
    }

    /// Returns whether connections shall end at the next good moment.
    pub(crate) fn draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Gives a connection a task of its own, which reports how it ended; or refuses it.
    fn admit(self: &Arc<Self>, socket: Socket, peer: Peer, writer: Option<&Writer>) {
        let open = self.open().len();
        if open >= self.max_connections {
            socket.spoil();
            let open = Count(open as u64, "connection");
            let line = format_args!("refused a connection from {peer}: {open} open, the limit");
            self.log.say(Kind::OverLimit, line);
            return;
        }
        let queue = writer.map(Writer::queue);
        let number = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        debug!("connection {number} from {peer}: open");
        let origin = Arc::new(Origin::new(number, peer));
        self.open().insert(number, Arc::clone(&origin));
        let mut connection = Connection::new(Arc::clone(self), origin, socket, queue);
        // It stays where the task has it: each future that it moved into would hold a copy.
        smol::spawn(async move {
            let outcome = AssertUnwindSafe(connection.run()).catch_unwind().await;
            close(connection, outcome.ok());
        })
        .detach();
    }

    /// Lets the connections end; cuts those that have not done so near the end of the grace period,
    /// and returns how many that were.
    async fn drain(&self) -> usize {
        let open = self.open().len();
        if open > 0 {
            info!("ending {}", Count(open as u64, "connection"));
        }
        self.draining.store(true, Ordering::SeqCst);
        for origin in self.open().values() {
            origin.watch.wake();
        }
        let time_is_up = async {
            Timer::after(self.grace - self.grace / GRACE_FOR_SINK).await;
        };
        self.all_ended().or(time_is_up).await;
        let cut = self.open().len();
        if cut > 0 {
            let connections = Count(cut as u64, "connection");
            warn!(
                target: "framelet::grace",
                "cutting off {connections} that did not end in time"
            );
            self.end_all(Order::Abort).await;
        }
        cut
    }

    /// Ends all connections at once.
    async fn end_all(&self, order: Order) {
        for origin in self.open().values() {
            origin.watch.tell(order);
        }
        // They need no more than one poll each, or as long as a client takes to read why.
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

    pub(crate) fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<Origin>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
