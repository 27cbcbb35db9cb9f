//! The event loop of one thread: its phases, waits and clocks.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mio::{Events, Poll};
use rustix::time::{ClockId, clock_gettime};

use super::tally::Tally;

/// How many sockets are reported at once.
const EVENTS: usize = 256;

/// The longest delay until the end of the run or a signal is noticed.
const TICK: Duration = Duration::from_millis(100);

/// The traffic on the connections of one thread.
pub(super) trait Traffic {
    /// Starts measuring.
    fn measure(&mut self, now: Instant);

    /// Does everything that can be done without waiting.
    fn act(&mut self, now: Instant);

    /// Returns how long to wait if no socket is reported.
    fn rest(&self, now: Instant) -> Duration;

    /// Handles a reported socket.
    fn event(&mut self, token: usize, ready: Ready, now: Instant);

    /// Stops starting anything new.
    fn end(&mut self, now: Instant);

    /// Returns whether everything is done.
    fn is_done(&self) -> bool;

    /// Returns whether anything is awaited from the server.
    fn awaits(&self) -> bool;

    /// Handles a timeout: what is awaited has not arrived within `timeout`.
    fn give_up(&mut self, timeout: Duration);

    fn tally(&mut self) -> &mut Tally;

    fn into_tally(self) -> Tally;
}

/// The readiness of a socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub(super) read: bool,
    pub(super) write: bool,
    /// The stream has ended, perhaps after unread bytes: a read that does not fill the buffer may not be
    /// the last one.
    pub(super) over: bool,
}

/// The times of a run, the same for all threads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) start: Instant,
    /// Nothing before this is measured.
    pub(super) measure: Instant,
    /// When to stop starting anything new, if the run is limited by time.
    pub(super) end: Option<Instant>,
    /// How long the server may be silent while something is awaited.
    pub(super) timeout: Option<Duration>,
}

/// Drives the traffic until everything is done. `seen` is set to the number of messages so far.
pub(super) fn drive(
    traffic: &mut impl Traffic,
    poll: &mut Poll,
    times: Times,
    stop: &AtomicBool,
    seen: &AtomicU64,
) -> io::Result<()> {
    let mut events = Events::with_capacity(EVENTS);
    // Set when measuring starts: the time, and the processor time used until then.
    let mut measuring = None;
    let mut ending = false;
    loop {
        let now = Instant::now();
        if !ending && (stop.load(Ordering::Relaxed) || times.end.is_some_and(|end| now >= end)) {
            ending = true;
            traffic.end(now);
        }
        if measuring.is_none() && !ending && now >= times.measure {
            measuring = Some((now, cpu()));
            traffic.measure(now);
        }
        traffic.act(now);
        seen.store(traffic.tally().seen, Ordering::Relaxed);
        if let Some(timeout) = times.timeout
            && traffic.awaits()
            && now.saturating_duration_since(traffic.tally().moved) > timeout
        {
            traffic.give_up(timeout);
        }
        if traffic.is_done() {
            break;
        }
        let next = if measuring.is_none() { Some(times.measure) } else { times.end };
        let until_next = match next {
            Some(next) if !ending => next.saturating_duration_since(now),
            _ => TICK,
        };
        match poll.poll(&mut events, Some(traffic.rest(now).min(until_next).min(TICK))) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            let over = event.is_read_closed() || event.is_error();
            let ready =
                Ready { read: over || event.is_readable(), write: event.is_writable(), over };
            traffic.event(event.token().0, ready, now);
        }
    }
    if let Some((began, used)) = measuring {
        let tally = traffic.tally();
        tally.cpu = cpu().saturating_sub(used);
        tally.wall = began.elapsed();
        tally.busiest = tally.cpu.as_secs_f64() / tally.wall.as_secs_f64().max(f64::EPSILON);
    }
    Ok(())
}

/// Returns the processor time used by this thread.
fn cpu() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}
