//! Checks the time limits of all connections and frees unused memory, at least four times a second.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use super::connection_state::{Phase, Snapshot};
use super::shared::Shared;

/// Checks every connection once per tick, and ends those that have waited too long, until it is dropped.
///
/// Runs on a thread of its own: a timer in the reactor would be re-armed in the kernel each time the
/// reactor waits, which is as often as messages arrive.
pub(crate) struct DeadlineSweeper(thread::Thread, Arc<AtomicBool>);

impl DeadlineSweeper {
    pub(crate) fn start(shared: &Arc<Shared>) -> io::Result<DeadlineSweeper> {
        let (shared, stop) = (Arc::clone(shared), Arc::<AtomicBool>::default());
        let stopped = Arc::clone(&stop);
        let sweeping = thread::Builder::new().name("framelet-sweep".into()).spawn(move || {
            let mut next = Instant::now() + shared.tick;
            while !stopped.load(Ordering::Relaxed) {
                let left = next.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    sweep(&shared);
                    next = Instant::now() + shared.tick;
                } else {
                    thread::park_timeout(left);
                }
            }
        })?;
        Ok(DeadlineSweeper(sweeping.thread().clone(), stop))
    }
}

impl Drop for DeadlineSweeper {
    fn drop(&mut self) {
        self.1.store(true, Ordering::Relaxed);
        self.0.unpark();
    }
}

/// Ends connections that have waited too long, frees unused memory, and logs how many lines were
/// suppressed.
fn sweep(shared: &Shared) {
    let now = shared.advance();
    let waited_for = note_shortage(shared, now);
    let look_around = waited_for || shared.pool.is_crowded();
    for connection in shared.open().values() {
        if let Some(acks) = connection.acks()
            && (acks.is_waiting(&connection.progress()) || acks.has_unsent())
        {
            // Time for a heartbeat, or to retry an answer that could not be sent.
            acks.wake();
        }
        if look_around {
            // While it waited for memory, the rest of its message may have arrived. Or it has to check
            // whether it is too slow.
            connection.state.wake();
        }
        let snapshot = connection.state.snapshot();
        if is_over(shared, snapshot, now) {
            connection.state.expire(snapshot);
        }
    }
    shared.forget_evictions();
    shared.pool.trim();
    shared.log.sweep();
}

/// Records for how long messages have waited for memory. Returns whether any do.
fn note_shortage(shared: &Shared, now: u64) -> bool {
    let waited_for = shared.pool.is_waited_for();
    shared.set_shortage(waited_for.then(|| {
        let open = shared.open();
        let snapshots = open.values().map(|connection| connection.state.snapshot());
        let starving = snapshots.filter(|snapshot| snapshot.phase() == Phase::Starving);
        starving.map(|snapshot| now.saturating_sub(snapshot.since())).max().unwrap_or(0)
    }));
    waited_for
}

/// Returns whether a connection has been in the same phase for too long.
fn is_over(shared: &Shared, snapshot: Snapshot, now: u64) -> bool {
    let timeout = match snapshot.phase() {
        Phase::Setup | Phase::InMessage | Phase::Writing => shared.options.message_timeout,
        Phase::Idle => shared.options.idle_timeout,
        Phase::Busy | Phase::Starving | Phase::Closing => None,
    };
    timeout.is_some_and(|timeout| shared.has_lasted(snapshot, timeout, now))
}
