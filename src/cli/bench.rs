//! `framelet bench`: loads a server, and measures what it takes and how fast it answers.

use std::io::{self, IsTerminal, Write};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use argh::{ArgsInfo, FromArgs};
use framelet::Layout;
use framelet::net::Backoff;
use framelet::wire::{Count, EmptyFrames, ProxyVersion};
use mio::Poll;

use super::connect::may_pass;
use super::exit_code::Exit;
use super::failure::{Failure, plain};
use super::log;
use super::process::{check_threads, raise_file_limit};
use super::signals::stop_signal;
use super::tls;
use super::values::{
    Bytes, DEFAULT_ADDRESS, DefaultHeader, Timeout, address, bytes, check_empty, count, duration,
    empty, header, layout, size, timeout,
};
use block::Block;
use connection::{Connection, Open};
use echo::{Echo, Echoing, Rate};
use flood::{Flood, Flooding};
use load::{Times, Traffic, drive};
use plan::{Length, Mode, Plan};
use progress::Progress;
use report::Report;
use schedule::{FASTEST, Schedule};
use tally::Tally;

mod block; // the frames to send
mod connection; // a socket, and its errors
mod echo; // round trips
mod flood; // one way
mod load; // the event loop of a thread
mod plan; // the checked options
mod progress; // the progress line
mod report; // what is printed at the end
mod schedule; // when messages are due
mod tally; // the results of a thread

/// The default duration of a measurement.
const DURATION: Duration = Duration::from_secs(10);

/// The longest duration: nobody waits for its end, and the clock does not overflow.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Loads a server with messages: floods it, or with --echo measures round trips.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "bench",
    help_triggers("-h", "--help", "help"),
    note = "Each connection of a flood writes as fast as it can, then waits until the server has closed it.",
    note = "Use a server of its own, as in the example: a server that stores messages stores millions of them.",
    note = "With --rate, latency is measured from the intended send time (no coordinated omission)."
)]
pub(crate) struct Bench {
    /// where to connect to (default: 127.0.0.1:4747)
    #[argh(positional, arg_name = "ADDR", default = "DEFAULT_ADDRESS.into()")]
    addr: String,

    /// send a message on each connection, wait until the same bytes come back, and repeat
    #[argh(switch)]
    echo: bool,

    /// with --echo: messages per second over all connections (default: as many as there are replies)
    #[argh(option, arg_name = "N", from_str_fn(count))]
    rate: Option<u64>,

    /// number of connections (default: 4)
    #[argh(option, arg_name = "N", from_str_fn(count), default = "4")]
    connections: u64,

    /// number of threads that drive them (default: 1)
    #[argh(option, arg_name = "N", from_str_fn(count), default = "1")]
    threads: u64,

    /// length of the messages, or a range of lengths, as in 1..4KiB (default: 64)
    #[argh(option, arg_name = "SIZE", from_str_fn(sizes), default = "64..=64")]
    size: RangeInclusive<usize>,

    /// how long to measure (default: 10s)
    #[argh(option, arg_name = "DURATION", from_str_fn(duration))]
    duration: Option<Duration>,

    /// how many messages to measure, instead of --duration
    #[argh(option, arg_name = "N", from_str_fn(count))]
    count: Option<u64>,

    /// how long to run before measuring (default: 1s)
    #[argh(
        option,
        arg_name = "DURATION",
        from_str_fn(super::values::duration),
        default = "Duration::from_secs(1)"
    )]
    warm_up: Duration,

    /// how messages are framed (default: u32be)
    #[argh(option, arg_name = "LAYOUT", default = "Layout::U32BE", from_str_fn(layout))]
    layout: Layout,

    /// header of the messages, in hexadecimal, if the layout has headers (default: zeros)
    #[argh(option, arg_name = "HEX", from_str_fn(header), default = "DefaultHeader::default()")]
    header: DefaultHeader,

    /// speak TLS, and check that the server's certificate is for the host of ADDR
    #[argh(switch)]
    tls: bool,

    /// with --tls: PEM file of the authorities to trust (default: those of the system)
    #[argh(option, arg_name = "FILE")]
    tls_ca: Option<String>,

    /// with --tls: PEM file of this client's certificate, if the server asks for one
    #[argh(option, arg_name = "FILE")]
    tls_cert: Option<String>,

    /// with --tls-cert: PEM file of its key
    #[argh(option, arg_name = "FILE")]
    tls_key: Option<String>,

    /// with --tls: the name that the server's certificate must be for, instead of the host
    #[argh(option, arg_name = "NAME")]
    tls_name: Option<String>,

    /// send a PROXY header first on each connection, as a load balancer does: v1 or v2
    #[argh(option, arg_name = "V")]
    proxy_protocol: Option<ProxyVersion>,

    /// bytes to send first on each connection, in hexadecimal
    #[argh(option, arg_name = "HEX", from_str_fn(bytes), default = "Bytes::default()")]
    preamble: Bytes,

    /// how many bytes the other side sends first, to be skipped (default: 0)
    #[argh(option, arg_name = "N", from_str_fn(super::values::count), default = "0")]
    skip: u64,

    /// with --echo: what an empty frame is: a message, or a heartbeat to skip (default: message)
    #[argh(option, arg_name = "WHAT", from_str_fn(empty), default = "EmptyFrames::Message")]
    empty: EmptyFrames,

    /// most time to connect, and to wait for a reply or the end of a connection (default: 10s)
    #[argh(
        option,
        arg_name = "DURATION",
        from_str_fn(timeout),
        default = "Timeout(Some(Duration::from_secs(10)))"
    )]
    timeout: Timeout,

    /// give up after this long without a connection (default: at once)
    #[argh(
        option,
        arg_name = "DURATION",
        from_str_fn(super::values::duration),
        default = "Duration::ZERO"
    )]
    retry: Duration,

    /// print the figures as one JSON object
    #[argh(switch)]
    json: bool,
}

impl Bench {
    pub(crate) fn run(self) -> Result<(), Failure> {
        log::start(::log::LevelFilter::Info);
        check_threads()?;
        let (json, retry, plan) = (self.json, self.retry, self.plan()?);
        let mut block = Block::new(plan.layout, &plan.header.0, plan.sizes.clone())
            .map_err(|error| usage("--size", &error.to_string()))?;
        if plan.skips_empty {
            block = block
                .skip_empty(plan.layout)
                .map_err(|error| usage("--empty", &error.to_string()))?;
        }
        raise_file_limit();
        let hint = if retry.is_zero() { " (--retry 10s keeps trying)" } else { "" };
        let sockets = retrying(retry, || plan.connect())
            .map_err(|error| Failure::to_connect(&plan.address, "", &error, hint))?;
        let stop = stop_flag()?;
        let tally = plan.measure(&block, sockets, &stop)?;
        let report = Report { plan: &plan, tally: &tally };
        let text = if json { report.json() } else { report.text() };
        io::stdout().write_all(text.as_bytes()).map_err(|error| Failure::output(&error))?;
        plan.failure(&tally).map_or(Ok(()), Err)
    }

    fn plan(self) -> Result<Plan, Failure> {
        let address = address(&self.addr)?;
        let tls = tls::ClientOptions {
            tls: self.tls,
            ca: self.tls_ca.as_deref(),
            certificate: self.tls_cert.as_deref(),
            key: self.tls_key.as_deref(),
            name: self.tls_name.as_deref(),
        };
        let tls = tls.connector(&address)?;
        let mode = match (self.echo, self.rate) {
            (false, None) => Mode::Flood,
            (true, None) => Mode::Echo,
            (true, Some(rate)) if (1..=FASTEST).contains(&rate) => Mode::Rate(rate),
            (true, Some(_)) => return Err(usage("--rate", "must be from 1 to 1000000000")),
            (false, Some(_)) => return Err(usage("--rate", "goes with --echo only")),
        };
        let length = match (self.duration, self.count) {
            (Some(_), Some(_)) => {
                return Err(usage("--count", "replaces --duration; give only one of them"));
            }
            (_, Some(0)) => return Err(usage("--count", "cannot be zero")),
            (_, Some(messages)) => Length::Messages(messages),
            (Some(Duration::ZERO), None) => return Err(usage("--duration", "cannot be zero")),
            (time, None) => Length::Time(time.unwrap_or(DURATION).min(LONGEST)),
        };
        let (connections, threads) = (some(self.connections), some(self.threads));
        let connections = connections.ok_or_else(|| usage("--connections", "cannot be zero"))?;
        let threads = threads.ok_or_else(|| usage("--threads", "cannot be zero"))?;
        if threads > connections {
            let why = "cannot be more than --connections: each connection has one thread";
            return Err(usage("--threads", why));
        }
        self.header.check(self.layout)?;
        self.layout
            .encode(*self.size.end())
            .map_err(|error| usage("--size", &error.to_string()))?;
        check_empty(self.empty, self.layout)?;
        match (self.empty, mode) {
            (EmptyFrames::Message, _) => {}
            (_, Mode::Flood) => return Err(usage("--empty", "goes with --echo only")),
            (EmptyFrames::Echo, _) => {
                let why = "cannot be echo: bench sends nothing but its messages; write skip";
                return Err(usage("--empty", why));
            }
            (EmptyFrames::Skip, _) if *self.size.start() == 0 => {
                return Err(usage(
                    "--size",
                    "cannot be zero if empty frames are skipped (--empty)",
                ));
            }
            (EmptyFrames::Skip, _) => {}
        }
        Ok(Plan {
            address,
            tls,
            layout: self.layout,
            header: self.header,
            sizes: self.size,
            connections,
            threads,
            mode,
            warm_up: self.warm_up.min(LONGEST),
            length,
            proxy: self.proxy_protocol,
            preamble: self.preamble,
            skip: self.skip,
            skips_empty: self.empty == EmptyFrames::Skip,
            timeout: self.timeout.0,
        })
    }
}

/// Tries to connect for so long, for a server that has not started yet.
fn retrying<T>(retry: Duration, connect: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let started = Instant::now();
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
    loop {
        let left = retry.saturating_sub(started.elapsed());
        match connect() {
            Err(error) if !left.is_zero() && may_pass(&error) => {
                thread::sleep(backoff.next_wait().min(left))
            }
            result => return result,
        }
    }
}

impl Plan {
    /// Opens all connections.
    fn connect(&self) -> io::Result<Vec<Open>> {
        let addresses = connection::resolve(&self.address, self.timeout)?;
        (0..self.connections)
            .map(|_| {
                let tls = self.tls.as_ref().map(|tls| (tls, &self.address));
                connection::open(&addresses, self.proxy, tls, &self.preamble.0, self.timeout)
            })
            .collect()
    }

    /// Loads the server from all threads, and returns their combined results.
    fn measure(
        &self,
        block: &Block,
        sockets: Vec<Open>,
        stop: &AtomicBool,
    ) -> Result<Tally, Failure> {
        let mut shares: Vec<Vec<(usize, Open)>> = Vec::new();
        shares.resize_with(self.threads, Vec::new);
        for (number, socket) in sockets.into_iter().enumerate() {
            shares[number % self.threads].push((number, socket));
        }
        let seen: Vec<AtomicU64> = shares.iter().map(|_| AtomicU64::new(0)).collect();
        let start = Instant::now();
        let times = Times {
            start,
            measure: start + self.warm_up,
            end: match (self.mode, self.length) {
                // The schedule ends by itself.
                (Mode::Rate(_), _) | (_, Length::Messages(_)) => None,
                (_, Length::Time(time)) => Some(start + self.warm_up + time),
            },
            timeout: self.timeout,
        };
        thread::scope(|scope| {
            let (done, running) = std::sync::mpsc::channel::<()>();
            let mut threads = Vec::new();
            for (thread, share) in shares.into_iter().enumerate() {
                let (seen, done) = (&seen[thread], done.clone());
                let started = thread::Builder::new().spawn_scoped(scope, move || {
                    // Dropped at the end of the thread, even after a panic.
                    let _done = done;
                    self.drive(block, share, thread, times, stop, seen)
                });
                match started {
                    Ok(started) => threads.push(started),
                    Err(error) => {
                        // Otherwise the other threads would continue until the end of the run.
                        stop.store(true, Ordering::Relaxed);
                        let why = format!("cannot start thread {}: {}", thread + 1, plain(&error));
                        return Err(usage("--threads", &why));
                    }
                }
            }
            drop(done);
            let mut progress = Progress::new(self.warm_up, start);
            if io::stderr().is_terminal() {
                progress.show_until_done(&running, || {
                    seen.iter().map(|seen| seen.load(Ordering::Relaxed)).sum()
                });
            }
            let mut all: Option<Tally> = None;
            for thread in threads {
                let tally = match thread.join() {
                    Ok(tally) => tally.map_err(|error| {
                        let message = format!("cannot wait for sockets: {}", plain(&error));
                        Failure::new(Exit::Usage, message)
                    })?,
                    Err(panic) => std::panic::resume_unwind(panic),
                };
                match &mut all {
                    None => all = Some(tally),
                    Some(all) => all.add(tally),
                }
            }
            Ok(all.unwrap_or_else(|| Tally::new(start)))
        })
    }

    /// Drives part of the connections.
    fn drive(
        &self,
        block: &Block,
        sockets: Vec<(usize, Open)>,
        thread: usize,
        times: Times,
        stop: &AtomicBool,
        seen: &AtomicU64,
    ) -> io::Result<Tally> {
        let mut poll = Poll::new()?;
        let mut connections = Vec::with_capacity(sockets.len());
        for (token, (number, socket)) in sockets.into_iter().enumerate() {
            let begin = block.beginning(number);
            let connection = Connection::new(number + 1, socket, self.skip, begin);
            connection.register(poll.registry(), token)?;
            connections.push((connection, self.share(number)));
        }
        if let Mode::Flood = self.mode {
            let flooding = connections.into_iter().map(|(c, share)| Flooding::new(c, share));
            let flood = Flood::new(block, flooding.collect(), times.start);
            return finish(flood, &mut poll, times, stop, seen);
        }
        let echoing = connections.into_iter().map(|(c, share)| Echoing::new(c, block, share));
        let echo = Echo::new(block, echoing.collect(), self.rate(thread, times), times.start);
        finish(echo, &mut poll, times, stop, seen)
    }

    /// Returns how many measured messages a connection sends, if the run is limited by --count.
    fn share(&self, connection: usize) -> Option<u64> {
        match (self.mode, self.length) {
            (Mode::Rate(_), _) | (_, Length::Time(_)) => None,
            (_, Length::Messages(messages)) => {
                let all = self.connections as u64;
                Some(messages / all + u64::from((connection as u64) < messages % all))
            }
        }
    }

    /// Returns what a thread sends, if there is a rate.
    fn rate(&self, thread: usize, times: Times) -> Option<Rate> {
        let Mode::Rate(rate) = self.mode else { return None };
        let schedule = Schedule::new(rate);
        let first = schedule.first(self.warm_up);
        let end = match self.length {
            Length::Messages(messages) => first.saturating_add(messages),
            Length::Time(time) => schedule.first(self.warm_up + time),
        };
        let (next, step) = (thread as u64, self.threads as u64);
        Some(Rate { schedule, start: times.start, next, step, first, end, turn: 0 })
    }

    /// Returns why the run failed, if it did.
    fn failure(&self, tally: &Tally) -> Option<Failure> {
        let fault = tally.faults.first()?;
        let exit = if tally.only_timed_out() { Exit::Timeout } else { Exit::Network };
        let all = Count(self.connections as u64, "connection");
        let (errors, text) = (tally.errors, &fault.text);
        Some(Failure::new(exit, format!("{errors} of {all} failed; {text}")))
    }
}

fn finish(
    mut traffic: impl Traffic,
    poll: &mut Poll,
    times: Times,
    stop: &AtomicBool,
    seen: &AtomicU64,
) -> io::Result<Tally> {
    drive(&mut traffic, poll, times, stop, seen)?;
    Ok(traffic.into_tally())
}

/// Returns a flag that the first signal to stop sets. A second signal exits at once.
fn stop_flag() -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::<AtomicBool>::default();
    let (stopped, set) = (stop_signal()?, Arc::clone(&flag));
    smol::spawn(async move {
        stopped.await;
        set.store(true, Ordering::Relaxed);
    })
    .detach();
    Ok(flag)
}

fn usage(option: &str, why: &str) -> Failure {
    Failure::new(Exit::Usage, format!("{option}: {why}"))
}

/// Returns an error if a number that must be positive is zero.
fn some(number: u64) -> Option<usize> {
    usize::try_from(number).ok().filter(|&number| number > 0)
}

/// Parses a size or an inclusive range of sizes: `64`, `1..4KiB`.
fn sizes(text: &str) -> Result<RangeInclusive<usize>, String> {
    let Some((least, most)) = text.split_once("..") else {
        return size(text).map(|size| size..=size);
    };
    if least.is_empty() || most.is_empty() {
        return Err("a range has two ends, as in 1..4KiB".into());
    }
    let (least, most) = (size(least)?, size(most)?);
    match least <= most {
        true => Ok(least..=most),
        false => Err(format!("the range is empty; write {most}..{least}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_one_or_a_range() {
        assert_eq!(sizes("64"), Ok(64..=64));
        assert_eq!(sizes("0..4KiB"), Ok(0..=4096));
        assert_eq!(sizes("5..5"), Ok(5..=5));
        assert_eq!(sizes("5..4"), Err("the range is empty; write 4..5".into()));
        for text in ["", "..", "1..", "..1", "1...2", "x", "-1"] {
            assert!(sizes(text).is_err(), "{text}");
        }
    }
}
