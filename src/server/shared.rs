//! The state that all connections of a server share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_listener::{Event, EventListener};
use futures_lite::FutureExt;
use smol::Timer;

use super::active_senders::ActiveSenders;
use super::connection_state::Signal;
use super::error::ServeError;
use super::handler::Answering;
use super::open_connection::OpenConnection;
use super::options::{Options, max_connections};
use super::rate_limited_log::RateLimitedLog;
use super::upgrade::Upgrade;
use crate::net::byte_stream::{ByteStream, Peer};
use crate::stream::pool::Pool;
use crate::wire::ack::Hello;
use crate::wire::empty_frames::EmptyFrames;
use crate::wire::layout::Layout;

/// The shortest and longest time between two sweeps.
const MIN_TICK: Duration = Duration::from_millis(10);
const MAX_TICK: Duration = Duration::from_millis(250);

/// The state that all connections of a server share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) layout: Layout,
    pub(crate) max_message: usize,
    pub(crate) message_timeout: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) require_acks: bool,
    /// Whether a client may ask for acknowledgements.
    pub(crate) may_have_acks: bool,
    /// Whether a load balancer says first who the peer is.
    pub(crate) proxy_protocol: bool,
    /// What is sent before anything else.
    pub(crate) preamble: Arc<[u8]>,
    /// How many bytes the peer sends before its first frame.
    pub(crate) skip: u64,
    /// What an empty frame is.
    pub(crate) empty: EmptyFrames,
    pub(crate) answering: Answering,
    /// How many requests of a connection are answered at the same time.
    pub(crate) pipeline: usize,
    pub(crate) upgrade: Option<Upgrade>,
    pub(crate) pool: Pool,
    pub(crate) senders: Arc<ActiveSenders>,
    /// Lines that peers can trigger.
    pub(crate) log: RateLimitedLog,
    /// The length of a clock tick.
    pub(crate) tick: Duration,
    clock: AtomicU64,
    /// While payloads wait for memory: one more than the number of ticks that one has waited for its share;
    /// otherwise 0.
    shortage: AtomicU64,
    draining: AtomicBool,
    last_call: AtomicBool,
    max_connections: usize,
    open: Mutex<HashMap<u64, Arc<OpenConnection>>>,
    /// Notified whenever a connection has ended.
    ended: Event,
    connections: AtomicU64,
    messages: AtomicU64,
}

impl Shared {
    pub(crate) fn new(options: &Options) -> Result<Shared, ServeError> {
        let (max_message, memory) = options.check()?;
        Ok(Shared {
            layout: options.layout,
            max_message,
            message_timeout: options.message_timeout,
            idle_timeout: options.idle_timeout,
            require_acks: options.require_acks,
            may_have_acks: Hello::fits(options.layout) && !options.has_preamble(),
            proxy_protocol: options.proxy_protocol,
            preamble: Arc::clone(&options.preamble),
            skip: options.skip,
            empty: options.empty,
            answering: options.answering.clone(),
            pipeline: options.pipeline,
            upgrade: options.upgrade.clone(),
            pool: Pool::new(memory, max_message),
            senders: Arc::default(),
            log: RateLimitedLog::default(),
            tick: tick(options.message_timeout.into_iter().chain(options.idle_timeout)),
            clock: AtomicU64::new(0),
            shortage: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            last_call: AtomicBool::new(false),
            max_connections: max_connections(options.max_connections),
            open: Mutex::default(),
            ended: Event::new(),
            connections: AtomicU64::new(0),
            messages: AtomicU64::new(0),
        })
    }

    /// Returns the current tick.
    pub(crate) fn now(&self) -> u64 {
        self.clock.load(Ordering::SeqCst)
    }

    /// Advances the clock by a tick, and returns the new time.
    pub(crate) fn advance(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// If payloads wait for memory, returns for how many ticks one has waited for its share.
    pub(crate) fn shortage(&self) -> Option<u64> {
        self.shortage.load(Ordering::SeqCst).checked_sub(1)
    }

    pub(crate) fn set_shortage(&self, ticks: Option<u64>) {
        self.shortage.store(ticks.map_or(0, |ticks| ticks + 1), Ordering::SeqCst);
    }

    #[cfg(test)]
    pub(crate) fn set_clock(&self, tick: u64) {
        self.clock.store(tick, Ordering::SeqCst);
    }

    /// Returns whether messages are answered with replies.
    pub(crate) fn answers(&self) -> bool {
        self.answering.answers()
    }

    /// Returns whether the server is shutting down, so that connections should end at the next good moment.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Returns whether the time to read what may have arrived before the shutdown is over.
    pub(crate) fn is_last_call(&self) -> bool {
        self.last_call.load(Ordering::SeqCst)
    }

    /// Returns whether a stream that waits during shutdown is to be read on, because bytes have arrived for it
    /// that it was not told of yet.
    pub(crate) fn may_have_unread(&self, stream: &ByteStream) -> bool {
        !self.is_last_call() && stream.has_unread()
    }

    /// Makes connections that are still reading what may have arrived before the shutdown end after the
    /// message they are in.
    pub(crate) fn call_last(&self) {
        self.last_call.store(true, Ordering::SeqCst);
        self.open().values().for_each(|connection| connection.state.wake());
    }

    /// Makes connections end at the next good moment. Returns how many are open.
    pub(crate) fn drain(&self) -> usize {
        self.draining.store(true, Ordering::SeqCst);
        let open = self.open();
        open.values().for_each(|connection| connection.state.wake());
        open.len()
    }

    /// Adds a connection; the error is the number of open ones, if there can be no more.
    pub(crate) fn add(&self, peer: &Peer) -> Result<Arc<OpenConnection>, usize> {
        let mut open = self.open();
        if open.len() >= self.max_connections {
            return Err(open.len());
        }
        let number = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let connection = Arc::new(OpenConnection::new(number, peer.clone()));
        open.insert(number, Arc::clone(&connection));
        Ok(connection)
    }

    /// Removes a connection that has ended, after this many messages.
    pub(crate) fn remove(&self, connection: u64, messages: u64) {
        self.messages.fetch_add(messages, Ordering::Relaxed);
        self.open().remove(&connection);
        self.ended.notify(usize::MAX);
    }

    /// Returns a listener that is notified whenever a connection ends.
    pub(crate) fn ended(&self) -> EventListener {
        self.ended.listen()
    }

    /// Sends all connections a signal.
    pub(crate) fn signal_all(&self, signal: Signal) {
        self.open().values().for_each(|connection| connection.state.send(signal));
    }

    /// Waits until all connections have ended, at most this long. Returns how many are left.
    pub(crate) async fn all_ended(&self, within: Option<Duration>) -> usize {
        let ended = async {
            loop {
                let ended = self.ended();
                if self.open().is_empty() {
                    return;
                }
                ended.await;
            }
        };
        let time_is_up = async {
            within.map_or_else(Timer::never, Timer::after).await;
        };
        ended.or(time_is_up).await;
        self.open().len()
    }

    /// Returns the total numbers of connections and messages.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.connections.load(Ordering::Relaxed), self.messages.load(Ordering::Relaxed))
    }

    pub(crate) fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<OpenConnection>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the time between two sweeps: a quarter of the shortest timeout, at most 250 ms. Four sweeps a
/// second are little work, and find connections that hold needed memory within a second: one sweep to see
/// that others wait, and two for half a second of waiting.
fn tick(timeouts: impl IntoIterator<Item = Duration>) -> Duration {
    let shortest = timeouts.into_iter().min();
    shortest.map_or(MAX_TICK, |shortest| (shortest / 4).clamp(MIN_TICK, MAX_TICK))
}
