//! The event loop of one thread of the generator: its phases, its waits and its clocks.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mio::{Events, Poll};
use rustix::time::{ClockId, clock_gettime};

use super::tally::Tally;

/// How many sockets are reported at once.
const EVENTS: usize = 256;

/// How long it takes at most until the end of the run or a signal is noticed.
const TICK: Duration = Duration::from_millis(100);

/// What goes over the connections of one thread.
pub(super) trait Traffic {
    /// From now on it counts.
    fn measure(&mut self, now: Instant);

    /// Does what is to be done without waiting for anything.
    fn act(&mut self, now: Instant);

    /// Returns how long there is nothing to do unless a socket is reported.
    fn rest(&self, now: Instant) -> Duration;

    /// A socket was reported.
    fn event(&mut self, token: usize, ready: Ready, now: Instant);

    /// Nothing new is to be begun.
    fn end(&mut self, now: Instant);

    /// Returns whether all is done.
    fn is_done(&self) -> bool;

    /// Returns whether something has to come from the server.
    fn awaits(&self) -> bool;

    /// What is still awaited has not come within `timeout`.
    fn give_up(&mut self, timeout: Duration);

    fn tally(&mut self) -> &mut Tally;

    fn into_tally(self) -> Tally;
}

/// What a socket was reported for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub(super) read: bool,
    pub(super) write: bool,
    /// It has come to its end, perhaps behind bytes that were not read yet: a read that does not fill
    /// the buffer was not the last one.
    pub(super) over: bool,
}

/// When what happens, for all threads alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) start: Instant,
    /// What happens before this does not count.
    pub(super) measure: Instant,
    /// When nothing new is begun, if it is time that decides.
    pub(super) end: Option<Instant>,
    /// How long nothing may happen while something is awaited.
    pub(super) timeout: Option<Duration>,
}

/// Drives the traffic until all is done. `seen` shows how many messages there were so far.
pub(super) fn drive(
    traffic: &mut impl Traffic,
    poll: &mut Poll,
    times: Times,
    stop: &AtomicBool,
    seen: &AtomicU64,
) -> io::Result<()> {
    let mut events = Events::with_capacity(EVENTS);
    // Set once it counts: when that began, and the processor time used until then.
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

/// Returns the processor time that this thread has used.
fn cpu() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}
