//! The state that all connections of a server share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use event_listener::{Event, EventListener};
use futures_lite::FutureExt;
use smol::Timer;

use super::active_senders::ActiveSenders;
use super::addresses::{Addresses, NotAdmitted, Source};
use super::connection_state::{Phase, Signal, Snapshot};
use super::error::ServeError;
use super::eviction::Evictions;
use super::figures::{Figures, Stage};
use super::open_connection::OpenConnection;
use super::options::{Options, max_connections};
use super::rate_limited_log::RateLimitedLog;
use crate::net::byte_stream::{ByteStream, Peer};
use crate::stream::payloads::Payloads;
use crate::stream::pool::Pool;
use crate::wire::ack::Hello;

/// The shortest and longest time between two sweeps.
const MIN_TICK: Duration = Duration::from_millis(10);
const MAX_TICK: Duration = Duration::from_millis(250);

/// The state that all connections of a server share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    /// The longest message, in bytes: that of the options, or what follows from the layout.
    pub(crate) max_message: usize,
    /// Whether a client may ask for acknowledgements.
    pub(crate) may_have_acks: bool,
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
    /// Locked before `addresses` where both are needed.
    open: Mutex<HashMap<u64, Arc<OpenConnection>>>,
    addresses: Addresses,
    /// Found when they are needed, and again in the next tick.
    evictions: Mutex<Option<Evictions>>,
    /// Notified whenever a connection has ended, or does not give way.
    ended: Event,
    connections: AtomicU64,
    messages: AtomicU64,
    payload_bytes: AtomicU64,
    started: Instant,
}

impl Shared {
    pub(crate) fn new(options: Options) -> Result<Shared, ServeError> {
        let (max_message, memory) = options.check()?;
        Ok(Shared {
            max_message,
            may_have_acks: Hello::fits(options.layout) && !options.has_preamble(),
            pool: Pool::new(memory, max_message),
            senders: Arc::default(),
            log: RateLimitedLog::default(),
            tick: tick(
                [options.message_timeout, options.idle_timeout, options.evict_idle]
                    .into_iter()
                    .flatten(),
            ),
            clock: AtomicU64::new(0),
            shortage: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            last_call: AtomicBool::new(false),
            max_connections: max_connections(options.max_connections),
            open: Mutex::default(),
            addresses: Addresses::new(
                options.allow.clone(),
                options.proxy_from.clone(),
                options.max_per_address,
            ),
            evictions: Mutex::default(),
            ended: Event::new(),
            connections: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            payload_bytes: AtomicU64::new(0),
            started: Instant::now(),
            options,
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
        self.options.answering.answers()
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

    /// Adds a connection. If a load balancer has still to name the peer, [`Shared::admit_named`] follows.
    pub(crate) fn add(&self, peer: &Peer) -> Result<Arc<OpenConnection>, NotAdmitted> {
        let mut open = self.open();
        self.check(peer)?;
        if open.len() >= self.max_connections {
            return Err(NotAdmitted::Full { open: open.len() });
        }
        let number = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let connection = Arc::new(OpenConnection::new(number, peer.clone()));
        self.addresses.add(self.source(&connection));
        open.insert(number, Arc::clone(&connection));
        Ok(connection)
    }

    /// Checks what is known of a peer when it connects: if a load balancer names the peer, only that it is one.
    fn check(&self, peer: &Peer) -> Result<(), NotAdmitted> {
        match self.options.proxy_protocol {
            true => self.addresses.check_balancer(peer),
            false => self.addresses.check(peer),
        }
    }

    /// Names the peer of a connection, as a load balancer has done.
    pub(crate) fn admit_named(
        &self,
        connection: &OpenConnection,
        peer: Peer,
    ) -> Result<(), NotAdmitted> {
        let _open = self.open();
        self.addresses.check(&peer)?;
        self.addresses.remove(self.source(connection));
        connection.name_peer(peer);
        self.addresses.add(self.source(connection));
        Ok(())
    }

    fn source(&self, connection: &OpenConnection) -> Source {
        connection.source(self.options.proxy_protocol)
    }

    /// Returns whether a peer could be admitted if an idle connection gave way.
    pub(crate) fn needs_room_for(&self, peer: &Peer) -> bool {
        self.open().len() >= self.max_connections && self.check(peer).is_ok()
    }

    /// Tells an idle connection to give way to this peer, if there is one that should.
    pub(crate) fn evict_for(&self, peer: &Peer) -> Option<Arc<OpenConnection>> {
        let evict_idle = self.options.evict_idle?;
        let now = self.now();
        // Whom a load balancer names, and how many connections that one has, is not known yet.
        let already = match self.options.proxy_protocol {
            true => 0,
            false => self.addresses.count(Source::of(peer)),
        };
        let source = |connection: &OpenConnection| {
            let source = self.source(connection);
            (source, self.addresses.count(source))
        };
        let is_idle = |snapshot| self.has_lasted(snapshot, evict_idle, now);
        let mut evictions = self.evictions();
        let open = self.open();
        let evictions =
            evictions.get_or_insert_with(|| Evictions::find(open.values(), is_idle, source));
        evictions.evict(already, |connection| open.contains_key(&connection.number))
    }

    /// Forgets which connections are idle.
    pub(crate) fn forget_evictions(&self) {
        *self.evictions() = None;
    }

    fn evictions(&self) -> MutexGuard<'_, Option<Evictions>> {
        self.evictions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether a connection that was told to give way may still do so.
    pub(crate) fn is_giving_way(&self, connection: &OpenConnection) -> bool {
        let snapshot = connection.state.snapshot();
        (snapshot.is_evicted() || snapshot.phase() == Phase::Closing)
            && self.open().contains_key(&connection.number)
    }

    /// Returns whether a phase has lasted for longer than `limit` at the tick `now`.
    pub(crate) fn has_lasted(&self, snapshot: Snapshot, limit: Duration, now: u64) -> bool {
        // The phase may have begun at any time within its first tick. One more tick makes sure that no
        // connection is cut off early, or in the tick in which the phase begins.
        let ticks = limit.as_nanos().div_ceil(self.tick.as_nanos());
        u128::from(now.saturating_sub(snapshot.since())) > ticks
    }

    /// Counts messages that were received together.
    pub(crate) fn count_received(&self, payloads: &Payloads) {
        self.messages.fetch_add(payloads.len() as u64, Ordering::Relaxed);
        self.payload_bytes.fetch_add(payloads.payload_bytes() as u64, Ordering::Relaxed);
    }

    /// Removes a connection that has ended.
    pub(crate) fn remove(&self, connection: u64) {
        if let Some(connection) = self.open().remove(&connection) {
            self.addresses.remove(self.source(&connection));
        }
        self.ended.notify(usize::MAX);
    }

    /// Records that a connection does not give way.
    pub(crate) fn stays(&self, connection: &OpenConnection, phase: Phase, since: u64) {
        // Overwrites the verdict.
        connection.state.enter(phase, since);
        self.ended.notify(usize::MAX);
    }

    /// Returns a listener that is notified whenever a connection ends, or does not give way.
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

    /// Returns the figures of everything but the sink.
    pub(crate) fn figures(&self) -> Figures {
        let (connections, messages) = self.totals();
        Figures {
            stage: if self.is_draining() { Stage::Stopping } else { Stage::Serving },
            uptime: self.started.elapsed(),
            connections,
            open_connections: self.open().len(),
            max_connections: self.max_connections,
            incidents: self.log.incidents(),
            messages,
            payload_bytes: self.payload_bytes.load(Ordering::Relaxed),
            memory: self.pool.held(),
            memory_limit: self.pool.limit().saturating_add(self.max_message),
            sink: None,
        }
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
