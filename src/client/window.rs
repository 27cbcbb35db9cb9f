//! The messages that a client has sent and the server has not acknowledged.
//!
//! ```text
//!        committed    next_to_send   last_pushed
//!            │            │              │
//!   ─────────┼────────────┼──────────────┼───────► numbers of messages
//!    dropped │ sent       │ to be sent   │
//! ```
//!
//! After a lost connection, the middle mark moves back to where the server wants to resume. All frames lie
//! in one ring of bytes; no message has an allocation of its own.
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
    /// Where each of these frames ends; positions are counted in bytes from the very first frame.
    ends: VecDeque<u64>,
    most_messages: usize,
    most_bytes: usize,
    /// How many messages are acknowledged.
    committed: u64,
    /// The start of the first frame that is not acknowledged.
    start: u64,
    /// The start of the bytes that this connection has not taken yet.
    next_to_send: u64,
    /// How many messages any connection has taken whole.
    ever_taken: u64,
}

/// A count that the server cannot have committed.
///
/// # Examples
///
/// A server that acknowledges what was never sent:
///
/// ```
/// use framelet::client::{AckError, AckOptions, AnswerError, CountFault};
/// use framelet::AckClient;
///
/// # smol::block_on(async {
/// # let listener = smol::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let address = listener.local_addr()?;
/// # smol::spawn(async move {
/// #     let mut stream = listener.accept().await.unwrap().0;
/// #     smol::io::AsyncReadExt::read_exact(&mut stream, &mut [0; 33]).await.unwrap();
/// #     let mut server = framelet::Framed::new(stream, framelet::Layout::U32BE);
/// #     server.send(&0_u64.to_be_bytes()).await.unwrap();
/// #     server.read().await.unwrap();
/// #     server.send(&9_u64.to_be_bytes()).await.unwrap();
/// #     server.read().await
/// # })
/// # .detach();
/// let mut client = AckClient::connect(address, AckOptions::new()).await?;
/// client.send(b"21.5").await?;
/// let Err(AckError::Protocol { error, .. }) = client.finish().await else { panic!("it was valid") };
/// assert!(matches!(error, AnswerError::Count(CountFault::Beyond { count: 9, sent: 1 })));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
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
    /// The messages were renumbered, and a server then has more than it has acknowledged since. It may be
    /// one from before, whose numbers mean other messages. All counts are in the new numbers.
    Unclear {
        /// What the server says.
        count: u64,
        /// How many are known to be committed.
        committed: u64,
        /// How many the client has taken in all.
        sent: u64,
    },
}

impl Window {
    /// Returns an empty window after `committed` messages.
    ///
    /// # Errors
    ///
    /// [`CountFault`] if no sender can have sent that many.
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
            next_to_send: 0,
            ever_taken: committed,
        })
    }

    /// Returns how many messages are acknowledged.
    pub(crate) fn committed(&self) -> u64 {
        self.committed
    }

    /// Returns the number of the newest message.
    pub(crate) fn last_pushed(&self) -> u64 {
        self.committed + self.ends.len() as u64
    }

    /// Returns whether everything is acknowledged.
    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns whether there is room for a frame of `len` bytes. An empty window always has room, so that a
    /// message larger than the whole window can be sent.
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
        self.last_pushed()
    }

    /// Appends the next bytes to send to `out`, at most `most`, and counts them as taken by the connection.
    pub(crate) fn take_unsent(&mut self, out: &mut Vec<u8>, most: usize) {
        // Cannot fail: the ring holds at least that much.
        let from = usize::try_from(self.next_to_send - self.start).unwrap_or(usize::MAX);
        let to = self.bytes.len().min(from.saturating_add(most));
        let (front, back) = self.bytes.as_slices();
        let split = front.len();
        out.extend_from_slice(&front[from.min(split)..to.min(split)]);
        out.extend_from_slice(&back[from.max(split) - split..to.max(split) - split]);
        self.next_to_send = self.start + to as u64;
        self.ever_taken = self.ever_taken.max(self.taken());
    }

    /// Records that the server has committed `count` messages, and drops them.
    ///
    /// # Errors
    ///
    /// [`CountFault`] if the count goes back, or beyond what this connection has taken.
    pub(crate) fn acknowledged(&mut self, count: u64) -> Result<(), CountFault> {
        self.drop_committed(count, self.taken())
    }

    /// Begins a new connection, on which everything after the first `committed` messages is sent.
    ///
    /// # Errors
    ///
    /// [`CountFault`] if the count goes back, or beyond what any connection has taken.
    pub(crate) fn rewind(&mut self, committed: u64) -> Result<(), CountFault> {
        self.drop_committed(committed, self.ever_taken)?;
        self.next_to_send = self.start;
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
            // Cannot fail: both are lengths of data in the ring.
            let messages = usize::try_from(count - self.committed).unwrap_or(usize::MAX);
            let bytes = usize::try_from(end - self.start).unwrap_or(usize::MAX);
            self.ends.drain(..messages);
            self.bytes.drain(..bytes);
            (self.committed, self.start) = (count, end);
        }
        Ok(())
    }

    /// Returns how many messages this connection has taken whole, the earlier ones included.
    fn taken(&self) -> u64 {
        let whole = self.ends.partition_point(|&end| end <= self.next_to_send);
        self.committed + whole as u64
    }

    /// Returns where the frame of a message ends, if it is in the window.
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
            CountFault::Unclear { count, committed, sent } => write!(
                f,
                "the server has messages 1 to {count} of this sender, and the client, renumbered to \
                 follow another count, knows of {committed} and has taken {sent}: it may be a server with \
                 another database, whose messages are others, so none of them count as committed; \
                 compare the databases"
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
                        window.take_unsent(&mut given, most);
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
                assert_eq!(window.last_pushed(), before + model.frames.len() as u64);
                assert_eq!(window.is_empty(), model.committed == model.frames.len());
            }
        }
    }
}
