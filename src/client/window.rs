//! What a client has sent and the server has not acknowledged yet.
//!
//! ```text
//!        committed      given          pushed
//!            │            │              │
//!   ─────────┼────────────┼──────────────┼───────► numbers of messages
//!    dropped │ under way  │ to be sent   │
//! ```
//!
//! After a lost connection the middle mark goes back to where the server wants to resume. All frames
//! lie in one ring of bytes; no message has an allocation of its own.
//!
//! This module is pure: no I/O, no time.

use std::collections::VecDeque;
use std::fmt;

use crate::wire::ack::MOST_MESSAGES;
use crate::wire::count::Count;

/// Whole frames that wait to be acknowledged, bounded by their count and their bytes.
#[derive(Debug)]
pub(crate) struct Window {
    /// The frames, from the first one that is not acknowledged.
    bytes: VecDeque<u8>,
    /// Where each of these frames ends, in bytes since the very first one.
    ends: VecDeque<u64>,
    most_messages: usize,
    most_bytes: usize,
    /// How many messages are acknowledged.
    committed: u64,
    /// Where the first frame that is not acknowledged starts.
    start: u64,
    /// How many bytes have been given to the connection.
    given: u64,
    /// How many messages have been given whole to this connection, those in front of it included.
    given_messages: u64,
    /// How many messages have been given whole to any connection.
    ever_given: u64,
}

/// A count that no server can have committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CountFault {
    /// The count went back: the server has lost what it had acknowledged.
    Backwards {
        /// What the server says now.
        count: u64,
        /// What it had acknowledged.
        committed: u64,
    },
    /// The count is beyond what was sent.
    Beyond {
        /// What the server says.
        count: u64,
        /// How many messages were sent.
        sent: u64,
    },
}

impl Window {
    /// Returns an empty window behind `committed` messages.
    ///
    /// # Errors
    ///
    /// [`CountFault`] if nobody can have sent so many.
    pub(crate) fn new(
        committed: u64,
        most_messages: usize,
        most_bytes: usize,
    ) -> Result<Window, CountFault> {
        if committed > MOST_MESSAGES {
            return Err(CountFault::Beyond { count: committed, sent: MOST_MESSAGES });
        }
        Ok(Window {
            bytes: VecDeque::new(),
            ends: VecDeque::new(),
            most_messages,
            most_bytes,
            committed,
            start: 0,
            given: 0,
            given_messages: committed,
            ever_given: committed,
        })
    }

    /// Returns how many messages are acknowledged.
    pub(crate) fn committed(&self) -> u64 {
        self.committed
    }

    /// Returns the number of the newest message.
    pub(crate) fn pushed(&self) -> u64 {
        self.committed + self.ends.len() as u64
    }

    /// Returns whether everything is acknowledged.
    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns whether there is room for a frame of `len` bytes. In an empty window there always is,
    /// so that a message larger than the whole window can be sent, too.
    pub(crate) fn has_room(&self, len: usize) -> bool {
        self.is_empty()
            || self.ends.len() < self.most_messages
                && len <= self.most_bytes.saturating_sub(self.bytes.len())
    }

    /// Adds a frame, given in two parts, and returns its number.
    pub(crate) fn push(&mut self, prefix: &[u8], payload: &[u8]) -> u64 {
        self.bytes.extend(prefix);
        self.bytes.extend(payload);
        self.ends.push_back(self.start + self.bytes.len() as u64);
        self.pushed()
    }

    /// Appends to `out` what is to be sent next, at most `most` bytes of it, and counts it as given to
    /// the connection.
    pub(crate) fn give(&mut self, out: &mut Vec<u8>, most: usize) {
        // Cannot fail: no more is given than lies in the ring.
        let from = usize::try_from(self.given - self.start).unwrap_or(usize::MAX);
        let to = self.bytes.len().min(from.saturating_add(most));
        let (front, back) = self.bytes.as_slices();
        let split = front.len();
        out.extend_from_slice(&front[from.min(split)..to.min(split)]);
        out.extend_from_slice(&back[from.max(split) - split..to.max(split) - split]);
        self.given = self.start + to as u64;
        while self.end_of(self.given_messages + 1).is_some_and(|end| end <= self.given) {
            self.given_messages += 1;
        }
        self.ever_given = self.ever_given.max(self.given_messages);
    }

    /// Takes note that the server has committed `count` messages, and drops them.
    ///
    /// # Errors
    ///
    /// [`CountFault`] if the count goes back, or beyond what was given to this connection.
    pub(crate) fn acknowledged(&mut self, count: u64) -> Result<(), CountFault> {
        self.drop_committed(count, self.given_messages)
    }

    /// Begins a new connection, on which everything behind the first `welcome` messages is sent.
    ///
    /// # Errors
    ///
    /// [`CountFault`] if the welcome goes back behind what was acknowledged, or beyond what was ever
    /// given to a connection.
    pub(crate) fn rewind(&mut self, welcome: u64) -> Result<(), CountFault> {
        self.drop_committed(welcome, self.ever_given)?;
        (self.given, self.given_messages) = (self.start, self.committed);
        Ok(())
    }

    fn drop_committed(&mut self, count: u64, sent: u64) -> Result<(), CountFault> {
        if count < self.committed {
            return Err(CountFault::Backwards { count, committed: self.committed });
        }
        if count > sent {
            return Err(CountFault::Beyond { count, sent });
        }
        if let Some(end) = self.end_of(count) {
            // Cannot fail: both are lengths of what lies in the ring.
            let messages = usize::try_from(count - self.committed).unwrap_or(usize::MAX);
            let bytes = usize::try_from(end - self.start).unwrap_or(usize::MAX);
            self.ends.drain(..messages);
            self.bytes.drain(..bytes);
            (self.committed, self.start) = (count, end);
        }
        Ok(())
    }

    /// Returns where the frame of a message ends, if it is in here.
    fn end_of(&self, number: u64) -> Option<u64> {
        let index = number.checked_sub(self.committed + 1)?;
        self.ends.get(usize::try_from(index).ok()?).copied()
    }
}

impl fmt::Display for CountFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CountFault::Backwards { count, committed } => write!(
                f,
                "the server says that it has committed {}, but it has acknowledged {committed}: it \
                 has lost some, or is another one; connect again to learn what it has",
                Count(*count, "message")
            ),
            CountFault::Beyond { count, sent } => write!(
                f,
                "the server says that it has committed {} of this sender, which has sent {sent}: \
                 somebody else uses the same sender id, and each sender needs its own",
                Count(*count, "message")
            ),
        }
    }
}

impl std::error::Error for CountFault {}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same, as simple as can be: every frame there ever was, and three numbers.
    struct Model {
        frames: Vec<Vec<u8>>,
        committed: usize,
        /// Bytes given, counted from the very first frame.
        given: usize,
        ever_given: usize,
    }

    impl Model {
        fn end(&self, count: usize) -> usize {
            self.frames[..count].iter().map(Vec::len).sum()
        }

        fn given_whole(&self) -> usize {
            (0..=self.frames.len()).rev().find(|&n| self.end(n) <= self.given).unwrap()
        }
    }

    #[test]
    fn a_count_that_nobody_can_have_reached_is_none() {
        assert!(Window::new(MOST_MESSAGES, 1, 1).is_ok());
        assert!(
            Window::new(MOST_MESSAGES + 1, 1, 1).is_err() && Window::new(u64::MAX, 1, 1).is_err()
        );
    }

    #[test]
    fn a_window_does_as_its_model_does() {
        for seed in 0..3000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (messages, bytes) = (random.usize(1..8), random.usize(1..60));
            let before = random.u64(0..3) * 1000;
            let mut window = Window::new(before, messages, bytes).unwrap();
            let mut model = Model { frames: Vec::new(), committed: 0, given: 0, ever_given: 0 };
            for _ in 0..60 {
                let in_window = model.end(model.frames.len()) - model.end(model.committed);
                match random.u8(0..8) {
                    0..=2 => {
                        let frame: Vec<u8> =
                            (0..random.usize(1..30)).map(|_| random.u8(..)).collect();
                        let waiting = model.frames.len() - model.committed;
                        let room =
                            waiting == 0 || waiting < messages && in_window + frame.len() <= bytes;
                        assert_eq!(window.has_room(frame.len()), room, "seed {seed}");
                        if room {
                            let (prefix, payload) = frame.split_at(random.usize(..=frame.len()));
                            let number = window.push(prefix, payload);
                            model.frames.push(frame);
                            assert_eq!(number, before + model.frames.len() as u64);
                        }
                    }
                    3..=4 => {
                        let most = random.usize(0..40);
                        let mut given = Vec::new();
                        window.give(&mut given, most);
                        let all = model.frames.concat();
                        let to = all.len().min(model.given + most);
                        assert_eq!(given, all[model.given..to], "seed {seed}");
                        model.given = to;
                        model.ever_given = model.ever_given.max(model.given_whole());
                    }
                    what => {
                        let count = random.usize(..model.frames.len() + 2);
                        let most = if what == 7 { model.ever_given } else { model.given_whole() };
                        let good = (model.committed..=most).contains(&count);
                        let said = before + count as u64;
                        let done = match what {
                            7 => window.rewind(said),
                            _ => window.acknowledged(said),
                        };
                        assert_eq!(done.is_ok(), good, "seed {seed}: {done:?}");
                        if good {
                            model.committed = count;
                            if what == 7 {
                                model.given = model.end(count);
                            }
                        }
                    }
                }
                assert_eq!(window.committed(), before + model.committed as u64);
                assert_eq!(window.pushed(), before + model.frames.len() as u64);
                assert_eq!(window.is_empty(), model.committed == model.frames.len());
            }
        }
    }
}
