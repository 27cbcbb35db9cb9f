//! One way: each connection writes as fast as its socket takes it.

use std::time::{Duration, Instant};

use super::block::{Block, Cursor};
use super::connection::{Connection, Fault, Kind, Wrote};
use super::load::{Ready, Traffic};
use super::tally::Tally;

/// For data from a server that should not send any.
const BUFFER: usize = 64 * 1024;

pub(super) struct Flood<'a> {
    block: &'a Block,
    connections: Vec<Option<Flooding>>,
    /// The connections whose socket is not full.
    ready: Vec<usize>,
    open: usize,
    buffer: Vec<u8>,
    tally: Tally,
}

pub(super) struct Flooding {
    connection: Connection,
    /// How many measured messages to send, if the run is limited by --count.
    share: Option<u64>,
    /// The position at which the measurement began.
    mark: Option<Cursor>,
    /// Whether the socket is not full.
    ready: bool,
    half_closed: bool,
    /// How many bytes the server has sent, and the last of them.
    unasked: u64,
    last: u8,
}

impl Flooding {
    pub(super) fn new(connection: Connection, share: Option<u64>) -> Flooding {
        Flooding {
            connection,
            share,
            mark: None,
            ready: false,
            half_closed: false,
            unasked: 0,
            last: 0,
        }
    }

    /// Writes once, or closes the direction to the server. Returns how many frames ended, and whether the
    /// socket may take more.
    fn write(&mut self, block: &Block) -> Result<(u64, bool), Fault> {
        match self.connection.write(block)? {
            Wrote::All(frames) => Ok((frames, true)),
            Wrote::Part(frames) => Ok((frames, false)),
            Wrote::Nothing => {
                self.half_closed = true;
                self.connection.half_close()?;
                Ok((0, false))
            }
        }
    }

    /// Reads until the end of the stream or until nothing more is available. Returns whether the server has
    /// closed the connection cleanly.
    fn read(&mut self, buffer: &mut [u8], over: bool) -> Result<bool, Fault> {
        loop {
            match self.connection.read(buffer)? {
                None => return Ok(false),
                Some(0) => return self.closed().map(|()| true),
                Some(read) => {
                    self.unasked += read as u64;
                    self.last = buffer[read - 1];
                    if self.connection.is_emptied_by(read, buffer.len()) && !over {
                        return Ok(false);
                    }
                }
            }
        }
    }

    fn closed(&self) -> Result<(), Fault> {
        if self.unasked == 1 && self.last == 0xff {
            // Half a frame: this is how a framelet server aborts a connection that has no reset, such as a
            // Unix socket.
            return Err(self.connection.fault(Kind::Lost, "the server cut the connection"));
        }
        if !self.half_closed {
            let what = "the server closed the connection while messages were being sent";
            return Err(self.connection.fault(Kind::ClosedEarly, what));
        }
        Ok(())
    }
}

impl<'a> Flood<'a> {
    pub(super) fn new(block: &'a Block, connections: Vec<Flooding>, now: Instant) -> Flood<'a> {
        let open = connections.len();
        Flood {
            block,
            connections: connections.into_iter().map(Some).collect(),
            ready: Vec::with_capacity(open),
            open,
            buffer: vec![0; BUFFER],
            tally: Tally::new(now),
        }
    }

    fn fail(&mut self, token: usize, fault: Fault) {
        if self.connections[token].take().is_some() {
            self.open -= 1;
            self.tally.fail(fault);
        }
    }

    /// Handles a clean end of the connection: its messages count.
    fn finish(&mut self, token: usize) {
        if let Some(flooding) = self.connections[token].take() {
            self.tally.unasked += flooding.unasked;
            self.open -= 1;
            if let Some(mark) = flooding.mark {
                let written = flooding.connection.written;
                self.tally.messages += self.block.frames(written) - self.block.frames(mark);
                self.tally.bytes += self.block.payload(written) - self.block.payload(mark);
                self.tally.ended = Instant::now();
            }
        }
    }
}

impl Traffic for Flood<'_> {
    fn measure(&mut self, now: Instant) {
        (self.tally.began, self.tally.ended) = (now, now);
        for flooding in self.connections.iter_mut().flatten() {
            let written = flooding.connection.written;
            flooding.mark = Some(written);
            flooding.connection.until = flooding.share.map(|share| self.block.skip(written, share));
        }
    }

    fn act(&mut self, now: Instant) {
        let mut failed = Vec::new();
        self.ready.retain(|&token| {
            let Some(flooding) = &mut self.connections[token] else { return false };
            let before = (flooding.connection.written, flooding.half_closed);
            match flooding.write(self.block) {
                Ok((frames, more)) => {
                    self.tally.seen += frames;
                    if (flooding.connection.written, flooding.half_closed) != before {
                        self.tally.moved = now;
                    }
                    flooding.ready = more;
                }
                Err(fault) => {
                    failed.push((token, fault));
                    flooding.ready = false;
                }
            }
            flooding.ready
        });
        for (token, fault) in failed {
            self.fail(token, fault);
        }
    }

    fn rest(&self, _: Instant) -> Duration {
        if self.ready.is_empty() { Duration::MAX } else { Duration::ZERO }
    }

    fn event(&mut self, token: usize, ready: Ready, now: Instant) {
        let Some(flooding) = &mut self.connections[token] else { return };
        if ready.write && !flooding.ready && !flooding.half_closed {
            flooding.ready = true;
            self.ready.push(token);
        }
        if ready.read {
            match flooding.read(&mut self.buffer, ready.over) {
                // What the server sends is not asked for, and does not put off the timeout.
                Ok(false) => {}
                Ok(true) => {
                    self.tally.moved = now;
                    self.finish(token);
                }
                Err(fault) => self.fail(token, fault),
            }
        }
    }

    fn end(&mut self, _: Instant) {
        // Started frames are sent to their end, so that the server sees only whole ones.
        for flooding in self.connections.iter_mut().flatten() {
            let written = flooding.connection.written;
            flooding.connection.until = Some(self.block.round_up(written));
        }
    }

    fn is_done(&self) -> bool {
        self.open == 0
    }

    fn awaits(&self) -> bool {
        true
    }

    fn give_up(&mut self, timeout: Duration) {
        let timeout = humantime::format_duration(timeout);
        for token in 0..self.connections.len() {
            let Some(flooding) = &self.connections[token] else { continue };
            let what = match flooding.half_closed {
                true => format!("not closed by the server within {timeout} of the end (--timeout)"),
                false => format!("the server took nothing for {timeout} (--timeout)"),
            };
            let fault = flooding.connection.fault(Kind::TimedOut, what);
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
