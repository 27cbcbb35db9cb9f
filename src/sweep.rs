//! The time limits of all connections, and memory that is not needed, looked after four times a second.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::server::Server;
use crate::watch::{Phase, State};

/// The bounds of the time between two sweeps.
const MIN_TICK: Duration = Duration::from_millis(10);
const MAX_TICK: Duration = Duration::from_millis(250);

/// Returns the time between two sweeps: a quarter of the shortest timeout is fine enough. Four times a second
/// is little work, and what holds memory that others need is found out within a second, since it takes three
/// sweeps: one that finds them waiting, and two for half a second.
pub(crate) fn tick(timeouts: impl IntoIterator<Item = Duration>) -> Duration {
    let shortest = timeouts.into_iter().min();
    shortest.map_or(MAX_TICK, |shortest| (shortest / 4).clamp(MIN_TICK, MAX_TICK))
}

/// Looks at every connection once a tick, and ends those that have waited too long; until it is
/// dropped.
///
/// It has a thread of its own, since a timer of the reactor would be armed anew in the kernel for each
/// of the reactor's waits, and that is as often as there are messages.
pub(crate) struct Sweep(thread::Thread, Arc<AtomicBool>);

impl Sweep {
    pub(crate) fn start(server: &Arc<Server>) -> io::Result<Sweep> {
        let (server, stop) = (Arc::clone(server), Arc::<AtomicBool>::default());
        let stopped = Arc::clone(&stop);
        let sweeping = thread::Builder::new().name("framelet-sweep".into()).spawn(move || {
            let mut next = Instant::now() + server.tick;
            while !stopped.load(Ordering::Relaxed) {
                let left = next.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    server.sweep();
                    next = Instant::now() + server.tick;
                } else {
                    thread::park_timeout(left);
                }
            }
        })?;
        Ok(Sweep(sweeping.thread().clone(), stop))
    }
}

impl Drop for Sweep {
    fn drop(&mut self) {
        self.1.store(true, Ordering::Relaxed);
        self.0.unpark();
    }
}

impl Server {
    /// Ends the connections that have waited too long, gives memory back that is not needed, and says
    /// what was left out of the log.
    fn sweep(&self) {
        let now = self.clock.fetch_add(1, Ordering::SeqCst) + 1;
        let waited_for = self.note_shortage(now);
        let look_around = waited_for || self.pool.is_crowded();
        for origin in self.open().values() {
            if let Some(acked) = origin.acked()
                && (acked.waits(origin) || acked.has_unsent())
            {
                // Now and then a client is told that the sink is at work, and what could not be sent is
                // tried again.
                acked.changed();
            }
            if look_around {
                // Since it has waited for memory, the rest of its message may have arrived. Or it has to see
                // whether it falls behind.
                origin.watch.wake();
            }
            let state = origin.watch.state();
            if self.is_over(state, now) {
                origin.watch.expire(state);
            }
        }
        self.pool.trim();
        self.log.sweep();
    }

    /// Notes for how long messages have waited for memory. Returns whether there are any.
    fn note_shortage(&self, now: u64) -> bool {
        let waited_for = self.pool.is_waited_for();
        let shortage = waited_for.then(|| {
            let open = self.open();
            let states = open.values().map(|origin| origin.watch.state());
            let starving = states.filter(|state| state.phase() == Phase::Starving);
            1 + starving.map(|state| now.saturating_sub(state.since())).max().unwrap_or(0)
        });
        self.shortage.store(shortage.unwrap_or(0), Ordering::SeqCst);
        waited_for
    }

    /// Returns whether a connection has done the same for too long.
    fn is_over(&self, state: State, now: u64) -> bool {
        let timeout = match state.phase() {
            Phase::InMessage | Phase::Writing => self.message_timeout,
            Phase::Idle => self.idle_timeout,
            Phase::Busy | Phase::Starving | Phase::Closing => None,
        };
        // The phase began at any time within its first tick: one more makes sure that nobody is cut off
        // early. So one that begins now is never meant, either.
        timeout.is_some_and(|timeout| {
            let ticks = timeout.as_nanos().div_ceil(self.tick.as_nanos());
            u128::from(now.saturating_sub(state.since())) > ticks
        })
    }
}
