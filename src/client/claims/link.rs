//! A connection of the client, as the model of the server sees it, and what holds for each.

use std::time::{Duration, Instant};

use super::caller::Desk;
use crate::runtime::pipe::End;
use crate::wire::ack::{FirstBytes, Hello};
use crate::wire::answer::RefusalCode;
use crate::wire::frame::whole_frame;
use crate::wire::layout::Layout;

/// What the client says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) committed: u64,
    pub(super) lost: u64,
    /// Whether it was ever connected.
    pub(super) is_connected: bool,
}

fn hello_len(layout: Layout) -> usize {
    2 * layout.width().unwrap_or(0) + 25
}

pub(super) struct Link {
    pub(super) end: End,
    /// What the client said when it made the connection.
    pub(super) known: Known,
    /// How many bytes the server has read, and how many of those are the hello and whole messages.
    received: usize,
    parsed: usize,
    pub(super) hello: Option<Hello>,
    /// Whether the hello asks for a checksum, and whether there was one.
    pub(super) is_resuming: bool,
    pub(super) had_checksum: bool,
    /// How many messages were committed before this connection.
    pub(super) base: Option<u64>,
    /// Where the first acknowledgement ends in what the server has sent.
    welcome_end: Option<usize>,
    /// Whether the client cannot go on with that.
    is_impossible: bool,
    /// By how much the server's numbers are lower than the client's, once it has sent any message.
    pub(super) lost: Option<u64>,
    /// How many messages the server has read whole.
    pub(super) received_messages: u64,
    /// The last count that the server has said.
    pub(super) said: Option<u64>,
    /// Where each answer ends in what the server has sent, and how many of them the client has read.
    answers: Vec<usize>,
    pub(super) heard: usize,
    /// When the client made the connection, has last read an answer, or began to wait for one.
    pub(super) last_sign: Instant,
    /// The count of a refusal that makes the client renumber its messages.
    pub(super) gap: Option<u64>,
    /// Whether the client waited for room when it was last seen, and how much it had written.
    was_blocked: bool,
    seen: usize,
    /// Whether the client had a reason to leave it, if it has.
    was_left: Option<bool>,
    /// Why the server has refused the client, and when the client has read that.
    pub(super) refused: Option<RefusalCode>,
    pub(super) read_refusal: Option<Instant>,
    /// Whether the server says nothing more that makes sense.
    pub(super) is_spoiled: bool,
    /// Whether the client has a reason to make another connection.
    pub(super) may_be_left: bool,
    /// The client makes no other connection when it has read so far.
    final_at: Option<usize>,
}

impl Link {
    pub(super) fn new(end: End, known: Known, now: Instant) -> Link {
        Link {
            end,
            known,
            received: 0,
            parsed: 0,
            hello: None,
            is_resuming: false,
            had_checksum: false,
            base: None,
            welcome_end: None,
            is_impossible: false,
            lost: None,
            received_messages: 0,
            said: None,
            answers: Vec::new(),
            heard: 0,
            last_sign: now,
            gap: None,
            was_blocked: false,
            seen: 0,
            was_left: None,
            refused: None,
            read_refusal: None,
            is_spoiled: false,
            may_be_left: false,
            final_at: None,
        }
    }

    /// Checks that the client had a reason to make another connection.
    pub(super) fn check_left(&self, known: Known) {
        assert!(!self.end.is_shared(), "there is one connection at a time");
        let read = self.end.lock().read;
        assert!(self.final_at.is_none_or(|at| read < at), "what is final ends the client");
        assert_eq!(self.was_left, Some(true), "no connection is left for nothing");
        if let Some(lost) = self.lost {
            assert_eq!(known.lost, lost);
        } else if let Some(lost) = self.lost_by_refusal() {
            assert_eq!(known.lost, lost);
        } else if self.base.is_none() {
            assert_eq!(known.lost, self.known.lost);
        } else {
            let lost = self.lost_by_welcome();
            assert!(known.lost == self.known.lost || Some(known.lost) == lost);
        }
    }

    /// Returns how many messages are lost if the client has read the first acknowledgement.
    fn lost_by_welcome(&self) -> Option<u64> {
        Some(self.known.committed.saturating_sub(self.base?).max(self.known.lost))
    }

    /// Returns how many messages are lost if the client has read that it is to renumber its messages.
    pub(super) fn lost_by_refusal(&self) -> Option<u64> {
        self.read_refusal?;
        Some(self.known.committed - self.gap?)
    }

    /// Looks at what the client has done in its last step.
    pub(super) fn observe(
        &mut self,
        layout: Layout,
        known: Known,
        now: Instant,
        timeout: Option<Duration>,
    ) {
        let pipe = self.end.lock();
        while self.answers.get(self.heard).is_some_and(|&end| end <= pipe.read) {
            self.heard += 1;
            self.last_sign = now;
        }
        // The server has read something, if there is room again.
        let is_answered = self.welcome_end.is_some_and(|end| pipe.read >= end);
        if is_answered && self.was_blocked && pipe.written.len() > self.seen {
            self.last_sign = now;
        }
        (self.was_blocked, self.seen) = (is_answered && pipe.is_blocked(), pipe.written.len());
        if !self.end.is_shared() {
            let silence = now.saturating_duration_since(self.last_sign);
            let is_silent = timeout.is_some_and(|timeout| silence >= timeout);
            self.was_left.get_or_insert(self.may_be_left || is_silent);
        }
        // It is the last answer.
        if self.refused.is_some() && self.heard == self.answers.len() {
            self.read_refusal.get_or_insert(now);
        }
        if pipe.written.len() > hello_len(layout) && self.lost.is_none() {
            let base = self.base.expect("no message is sent before the first acknowledgement");
            assert!(!self.is_impossible);
            assert_eq!(Some(known.lost), self.lost_by_welcome());
            assert_eq!(known.committed, base + known.lost);
            self.lost = Some(known.lost);
        }
    }

    /// Checks that a client that rests has written all that it has taken, if the stream takes it.
    pub(super) fn check_written(&self, layout: Layout, desk: &Desk) {
        let pipe = self.end.lock();
        let is_open = self.end.is_shared() && !pipe.is_deaf && !pipe.is_reset && pipe.room > 0;
        let is_answered = self.welcome_end.is_some_and(|end| pipe.read >= end);
        let (Some(base), Some(lost)) = (self.base, self.lost_by_welcome()) else { return };
        if !is_open || !is_answered || self.is_impossible {
            return;
        }
        let width = layout.width().unwrap_or(0);
        let frames = (base + lost + 1..).map_while(|number| desk.payload(number));
        let len: usize = frames.map(|payload| width + payload.len()).sum();
        assert_eq!(pipe.written.len(), hello_len(layout) + len, "it has not sent what it has");
    }

    pub(super) fn receive(&mut self, most: usize) {
        let flushed = self.end.lock().flushed;
        self.received = self.received.saturating_add(most).min(flushed);
    }

    /// Returns the hello if it was read just now.
    pub(super) fn read_hello(&mut self, layout: Layout) -> Option<Hello> {
        if self.hello.is_some() {
            return None;
        }
        match Hello::decode(layout, &self.end.lock().written[..self.received]) {
            FirstBytes::Hello { hello, resuming, len } => {
                (self.hello, self.is_resuming, self.parsed) = (Some(hello), resuming, len);
            }
            FirstBytes::Incomplete { .. } => {}
            other => panic!("a client begins with a hello: {other:?}"),
        }
        self.hello
    }

    /// Reads whole messages. They are those that the client has taken, in order.
    pub(super) fn read_messages(&mut self, layout: Layout, desk: &Desk) {
        let (Some(base), Some(lost)) = (self.base, self.lost) else { return };
        let pipe = self.end.lock();
        let received = &pipe.written[..self.received];
        while let Some(extent) = whole_frame(layout, usize::MAX >> 8, &received[self.parsed..]) {
            self.received_messages += 1;
            let number = base + lost + self.received_messages;
            let payload = extent.payload(&received[self.parsed..]);
            assert_eq!(Some(payload), desk.payload(number), "message {number}");
            self.parsed += extent.len;
        }
        if pipe.is_closed && self.received == pipe.written.len() {
            assert_eq!(self.parsed, self.received, "the end is after a whole message");
        }
    }

    /// The server has said how many messages it has, with the checksum of the last one or not. The client ends
    /// if that is `impossible`.
    pub(super) fn welcomed(&mut self, base: u64, had_checksum: bool, impossible: bool) {
        (self.base, self.said, self.had_checksum) = (Some(base), Some(base), had_checksum);
        self.is_impossible = impossible;
        self.welcome_end = self.answers.last().copied();
        if impossible {
            self.is_final_here();
        }
    }

    /// The server says something, which has not arrived.
    pub(super) fn say(&mut self, frame: &[u8]) {
        let mut pipe = self.end.lock();
        if !pipe.has_ended {
            pipe.send(frame);
            self.answers.push(pipe.sent.len());
        }
    }

    /// What the server has said last ends the client.
    pub(super) fn is_final_here(&mut self) {
        let pipe = self.end.lock();
        if !pipe.has_ended {
            self.final_at = Some(pipe.sent.len());
        }
    }

    /// The server ends the connection after what has arrived.
    pub(super) fn cut(&mut self) {
        let mut pipe = self.end.lock();
        let arrived = pipe.arrived;
        pipe.sent.truncate(arrived);
        drop(pipe);
        self.close(false);
    }

    /// The server closes or resets the connection.
    pub(super) fn close(&mut self, reset: bool) {
        (self.is_spoiled, self.may_be_left) = (true, true);
        let mut pipe = self.end.lock();
        pipe.has_ended = true;
        pipe.is_reset |= reset;
        pipe.wake();
    }

    /// From now on, nothing can be written to the server. It may have said why, so that is no reason to leave.
    pub(super) fn deafen(&mut self) {
        let mut pipe = self.end.lock();
        pipe.is_deaf = true;
        pipe.wake();
    }

    /// Lets everything through, and closes a connection after its client has, or if it is of no use.
    pub(super) fn finish(&mut self) {
        let mut pipe = self.end.lock();
        (pipe.piece, pipe.stalls, pipe.lags) = (usize::MAX, 0, 0);
        let is_over = pipe.is_closed && self.received == pipe.written.len();
        let ends = !pipe.has_ended && (is_over || self.is_spoiled || pipe.is_deaf);
        let opens = pipe.room < usize::MAX / 4;
        if opens {
            pipe.room = usize::MAX / 2;
        }
        pipe.has_ended |= ends;
        // Nobody is woken for nothing: a wake-up that is lost must show.
        if ends || opens || pipe.arrived < pipe.sent.len() {
            pipe.arrive(usize::MAX);
        }
        self.may_be_left |= pipe.has_ended;
        self.is_spoiled |= pipe.has_ended;
    }

    /// Returns whether the server still serves it, and the client still has it.
    pub(super) fn is_live(&self) -> bool {
        self.end.is_shared() && !self.may_be_left
    }

    /// Returns what changes if anything happens.
    pub(super) fn state(&self) -> (usize, usize, bool) {
        let pipe = self.end.lock();
        (self.received, pipe.sent.len(), pipe.has_ended)
    }
}
