//! Round trips: closed loop, where each reply lets the next message go, or at a rate.
//!
//! An echo server returns exactly the bytes it was sent, so the replies are the same endless stream of
//! frames as the messages.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use framelet::wire::Count;

use super::block::{Block, Cursor};
use super::connection::{Connection, Fault, Kind, Wrote};
use super::load::{Ready, Traffic};
use super::schedule::Schedule;
use super::tally::{Tally, record};

/// Large enough for the replies that usually arrive together.
const BUFFER: usize = 64 * 1024;

/// The poller counts in whole milliseconds and tends to wake up late. When a message is due sooner than
/// this, the poller is called without waiting.
const SPIN: Duration = Duration::from_millis(2);
const EARLY: Duration = Duration::from_millis(1);

/// The most messages sent in one turn before other work is checked. At a rate that cannot be reached, more
/// and more messages are due, and a turn would never end.
const AT_ONCE: usize = 4096;

pub(super) struct Echo<'a> {
    block: &'a Block,
    connections: Vec<Option<Echoing>>,
    open: usize,
    rate: Option<Rate>,
    /// Messages without a reply, on all connections.
    awaited: u64,
    started: bool,
    measuring: bool,
    ending: bool,
    buffer: Vec<u8>,
    /// Connections with something to write, collected while due messages are assigned.
    touched: Vec<usize>,
    tally: Tally,
}

/// The messages that one thread sends at a rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) schedule: Schedule,
    pub(super) start: Instant,
    /// Its next message, and the distance to the one after that: other threads send the messages in
    /// between.
    pub(super) next: u64,
    pub(super) step: u64,
    /// The first message that is measured.
    pub(super) first: u64,
    /// The first message that is no longer sent.
    pub(super) end: u64,
    /// The connection that sends next.
    pub(super) turn: usize,
}

pub(super) struct Echoing {
    connection: Connection,
    begin: Cursor,
    /// How many more measured messages to send, if the run is limited by --count.
    left: Option<u64>,
    /// How far the replies were read.
    read: Cursor,
    /// How many bytes of a heartbeat were read after that.
    in_heartbeat: usize,
    /// The furthest that `read` has been: it goes back when what seemed to be a reply is a heartbeat.
    furthest: Cursor,
    /// The messages without a reply, in order.
    waiting: VecDeque<Waiting>,
    /// How many of them the socket has not begun to take.
    unsent: usize,
    /// How many frames the socket has begun to take, as counted by the block.
    begun: u64,
    /// The position at which the measurement began.
    mark: Option<Cursor>,
}

struct Waiting {
    due: Instant,
    sent: Instant,
    counts: bool,
}

impl Echoing {
    pub(super) fn new(mut connection: Connection, block: &Block, share: Option<u64>) -> Echoing {
        let begin = connection.written;
        connection.until = Some(begin);
        Echoing {
            connection,
            begin,
            left: share,
            read: begin,
            in_heartbeat: 0,
            furthest: begin,
            waiting: VecDeque::new(),
            unsent: 0,
            begun: block.begun(begin),
            mark: None,
        }
    }

    /// Queues a message. Returns whether it is the only one.
    fn add(&mut self, block: &Block, due: Instant, counts: bool) -> bool {
        let until = self.connection.until.unwrap_or(self.connection.written);
        let only = until == self.connection.written;
        if counts && self.mark.is_none() {
            self.mark = Some(until);
        }
        self.connection.until = Some(block.skip(until, 1));
        self.waiting.push_back(Waiting { due, sent: due, counts });
        self.unsent += 1;
        only
    }

    /// Writes everything queued, or as much as the socket takes.
    fn write(&mut self, block: &Block, now: Instant) -> Result<(), Fault> {
        loop {
            let wrote = self.connection.write(block)?;
            let begun = block.begun(self.connection.written);
            while self.begun < begun {
                let first = self.waiting.len() - self.unsent;
                self.waiting[first].sent = now;
                self.unsent -= 1;
                self.begun += 1;
            }
            // The queued bytes may wrap around the end of the block.
            if !matches!(wrote, Wrote::All(_))
                || Some(self.connection.written) == self.connection.until
            {
                return Ok(());
            }
        }
    }

    /// Compares replies with what was sent. Returns how many were completed.
    fn compare(&mut self, block: &Block, mut replies: &[u8]) -> Result<u64, Fault> {
        let mut ended = 0;
        while !replies.is_empty() {
            if self.in_heartbeat > 0 {
                replies = self.read_heartbeat(block, replies)?;
                continue;
            }
            let sent = block.bytes(self.read, Some(self.connection.written));
            let (now, later) = replies.split_at(sent.len().min(replies.len()));
            if !now.is_empty() && now == &sent[..now.len()] {
                ended += block.advance(&mut self.read, now.len());
                replies = later;
                continue;
            }
            let same = same(now, sent);
            ended += block.advance(&mut self.read, same);
            replies = &replies[same..];
            // A heartbeat may begin as the frame does that is awaited.
            let at = block.offset(self.read);
            let begins_same = || block.frame(self.read).get(..at) == block.heartbeat().get(..at);
            if block.heartbeat().get(at) == replies.first() && begins_same() {
                self.read = block.skip(self.read, 0);
                self.in_heartbeat = at;
                replies = self.read_heartbeat(block, replies)?;
            } else if now.is_empty() {
                let what = "wrong reply: the server sent more than it was sent";
                return Err(self.connection.fault(Kind::WrongReply, what));
            } else {
                return Err(self.wrong(block, at, replies[0], sent[same]));
            }
        }
        Ok(ended)
    }

    /// Reads more of a heartbeat. Returns what follows it.
    fn read_heartbeat<'r>(&mut self, block: &Block, replies: &'r [u8]) -> Result<&'r [u8], Fault> {
        let rest = &block.heartbeat()[self.in_heartbeat..];
        let same = same(replies, rest);
        self.in_heartbeat += same;
        if same == rest.len() {
            self.in_heartbeat = 0;
        } else if same < replies.len() {
            return Err(self.wrong(block, self.in_heartbeat, replies[same], rest[same]));
        }
        Ok(&replies[same..])
    }

    fn wrong(&self, block: &Block, at: usize, reply: u8, sent: u8) -> Fault {
        let number = block.frames(self.read) - block.frames(self.begin) + 1;
        self.connection.fault(
            Kind::WrongReply,
            format_args!(
                "wrong reply: reply {number} differs from what was sent at byte {at} of its frame: \
                 {reply:02x} instead of {sent:02x}{}",
                // Later, it has been an echo server.
                if number == 1 {
                    "; does the server send anything else? (--skip, --empty)"
                } else {
                    ""
                }
            ),
        )
    }
}

/// Returns how many bytes are the same.
fn same(replies: &[u8], sent: &[u8]) -> usize {
    replies.iter().zip(sent).take_while(|(reply, sent)| reply == sent).count()
}

impl<'a> Echo<'a> {
    pub(super) fn new(
        block: &'a Block,
        connections: Vec<Echoing>,
        rate: Option<Rate>,
        now: Instant,
    ) -> Echo<'a> {
        let open = connections.len();
        Echo {
            block,
            connections: connections.into_iter().map(Some).collect(),
            open,
            rate,
            awaited: 0,
            started: false,
            measuring: false,
            ending: false,
            buffer: vec![0; BUFFER],
            touched: Vec::with_capacity(open),
            tally: Tally::new(now),
        }
    }

    /// Removes a connection from the load. Its results count, even if it failed later.
    fn remove(&mut self, token: usize) {
        if let Some(echoing) = self.connections[token].take() {
            self.open -= 1;
            self.awaited -= echoing.waiting.len() as u64;
            if let Some(mark) = echoing.mark {
                let (from, to) = (self.block.payload(mark), self.block.payload(echoing.read));
                self.tally.bytes += to.saturating_sub(from);
            }
        }
    }

    fn fail(&mut self, token: usize, fault: Fault) {
        self.remove(token);
        self.tally.fail(fault);
    }

    /// Sends the next message of a closed loop, or ends the connection if there is none.
    fn go_on(&mut self, token: usize, now: Instant) {
        let Some(echoing) = &mut self.connections[token] else { return };
        if !echoing.waiting.is_empty() {
            return;
        }
        if self.ending || self.measuring && echoing.left == Some(0) {
            return self.remove(token);
        }
        if self.rate.is_some() {
            return;
        }
        if self.measuring
            && let Some(left) = &mut echoing.left
        {
            *left -= 1;
        }
        echoing.add(self.block, now, self.measuring);
        self.awaited += 1;
        self.write(token, now);
    }

    fn write(&mut self, token: usize, now: Instant) {
        let Some(echoing) = &mut self.connections[token] else { return };
        let before = echoing.connection.written;
        let wrote = echoing.write(self.block, now);
        // While an earlier reply is awaited, no other message puts off the timeout.
        let is_next = self.block.frames(before) == self.block.frames(echoing.read);
        if is_next && echoing.connection.written != before {
            self.tally.moved = now;
        }
        if let Err(fault) = wrote {
            self.fail(token, fault);
        }
    }

    /// Reads replies. Returns when the last of them was read.
    fn read(&mut self, token: usize, over: bool) -> Result<Option<Instant>, Fault> {
        let Some(echoing) = &mut self.connections[token] else { return Ok(None) };
        let mut last = None;
        loop {
            let read = match echoing.connection.read(&mut self.buffer)? {
                None => return Ok(last),
                Some(0) => {
                    let what = "the server closed the connection before a reply";
                    return Err(echoing.connection.fault(Kind::ClosedEarly, what));
                }
                Some(read) => read,
            };
            let now = Instant::now();
            last = Some(now);
            let ended = echoing.compare(self.block, &self.buffer[..read])?;
            self.awaited -= ended;
            self.tally.seen += ended;
            // Heartbeats do not put off the timeout.
            if echoing.read > echoing.furthest {
                echoing.furthest = echoing.read;
                self.tally.moved = now;
            }
            for _ in 0..ended {
                let Some(waiting) = echoing.waiting.pop_front() else { break };
                if waiting.counts {
                    self.tally.messages += 1;
                    self.tally.ended = self.tally.ended.max(now);
                    record(&mut self.tally.latency, now - waiting.due);
                    if self.rate.is_some() {
                        record(&mut self.tally.from_send, now - waiting.sent);
                    }
                }
            }
            if echoing.connection.is_emptied_by(read, self.buffer.len()) && !over {
                return Ok(last);
            }
        }
    }

    /// Sends the messages that are due.
    fn send_due(&mut self, now: Instant) {
        let Some(mut rate) = self.rate else { return };
        // Only connections that had nothing to write before: the others wait for their sockets, or are
        // listed already.
        let mut touched = std::mem::take(&mut self.touched);
        for _ in 0..AT_ONCE {
            let due = rate.start + rate.schedule.due(rate.next);
            if rate.next >= rate.end || self.open == 0 || due > now {
                break;
            }
            let token = rate.turn;
            rate.turn = (rate.turn + 1) % self.connections.len();
            let Some(echoing) = &mut self.connections[token] else { continue };
            let counts = self.measuring && rate.next >= rate.first;
            if echoing.add(self.block, due, counts) {
                touched.push(token);
            }
            self.awaited += 1;
            if counts {
                record(&mut self.tally.lateness, now - due);
                self.tally.last_send = now;
            }
            rate.next += rate.step;
        }
        self.rate = Some(rate);
        for token in touched.drain(..) {
            self.write(token, now);
        }
        self.touched = touched;
        if rate.next >= rate.end && !self.ending {
            self.end(now);
        }
    }
}

impl Traffic for Echo<'_> {
    fn measure(&mut self, now: Instant) {
        self.measuring = true;
        // At a rate, the schedule decides.
        let began = match self.rate {
            Some(rate) => rate.start + rate.schedule.due(rate.first),
            None => now,
        };
        (self.tally.began, self.tally.ended, self.tally.last_send) = (began, began, began);
    }

    fn act(&mut self, now: Instant) {
        if self.rate.is_some() {
            return self.send_due(now);
        }
        if !self.started {
            self.started = true;
            for token in 0..self.connections.len() {
                self.go_on(token, Instant::now());
            }
        }
    }

    fn rest(&self, now: Instant) -> Duration {
        let Some(rate) = self.rate.filter(|rate| rate.next < rate.end) else {
            return Duration::MAX;
        };
        let due = rate.start + rate.schedule.due(rate.next);
        let left = due.saturating_duration_since(now);
        if left < SPIN { Duration::ZERO } else { left - EARLY }
    }

    fn event(&mut self, token: usize, ready: Ready, now: Instant) {
        if ready.read {
            match self.read(token, ready.over) {
                Ok(None) => {}
                Ok(Some(now)) => self.go_on(token, now),
                Err(fault) => self.fail(token, fault),
            }
        }
        if ready.write
            && let Some(echoing) = &self.connections[token]
            && (Some(echoing.connection.written) != echoing.connection.until
                || echoing.connection.wants_write())
        {
            self.write(token, now);
        }
    }

    fn end(&mut self, now: Instant) {
        self.ending = true;
        if let Some(rate) = &mut self.rate {
            rate.end = rate.end.min(rate.next);
            if self.measuring {
                // The interval after the last message belongs to it, even if its reply arrives sooner.
                let planned = rate.start + rate.schedule.due(rate.end);
                self.tally.ended = self.tally.ended.max(planned);
            }
        }
        for token in 0..self.connections.len() {
            self.go_on(token, now);
        }
    }

    fn is_done(&self) -> bool {
        self.open == 0
    }

    fn awaits(&self) -> bool {
        self.awaited > 0
    }

    fn give_up(&mut self, timeout: Duration) {
        let timeout = humantime::format_duration(timeout);
        for token in 0..self.connections.len() {
            let Some(echoing) = &self.connections[token] else { continue };
            let what = match echoing.connection.to_skip() {
                0 => "no reply came within".into(),
                bytes => {
                    format!("{} to be skipped (--skip) did not come within", Count(bytes, "byte"))
                }
            };
            let hint = "(--timeout); is it an echo server? (serve --echo)";
            let what = format_args!("{what} {timeout} {hint}");
            let fault = echoing.connection.fault(Kind::TimedOut, what);
            self.fail(token, fault);
        }
    }

    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    fn into_tally(self) -> Tally {
        self.tally
    }
}
