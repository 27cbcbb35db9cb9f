//! The requests of one connection that are being answered, and the replies waiting to be sent.

use std::collections::VecDeque;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll};

use super::handler::{EachHandler, Reply, Replying, Request};
use super::open_connection::OpenConnection;
use super::outcome::Outcome;
use super::shared::Shared;
use crate::net::byte_stream::ByteStream;
use crate::stream::frame_queue::FrameQueue;
use crate::stream::payloads::{Locations, Payloads};
use crate::stream::pool::Charge;
use crate::wire::empty_frames::EmptyFrames;

/// With this many bytes of unsent replies, no more requests are answered.
const HIGH_WATER: usize = 64 * 1024;

/// Answers requests, several at once, and sends the replies in the order of the requests.
pub(crate) struct Pipeline {
    handler: EachHandler,
    connection: Arc<OpenConnection>,
    /// How many requests are answered at once.
    most: usize,
    /// Requests that were read but not started.
    waiting: VecDeque<Requests>,
    /// Started requests, the oldest first.
    working: VecDeque<Work>,
    /// Replies that are encoded and not yet sent.
    replies: FrameQueue,
    /// Whether to read while no more requests are started: a peer whose heartbeats are answered sends some meanwhile.
    reads_ahead: bool,
    /// Heartbeats that are still to be sent back.
    heartbeats: u64,
    /// Whether the latest reply was a large one, or there was none: then the next request waits until its
    /// reply has been encoded, so that a peer that reads nothing makes the server hold one reply and not many.
    large: bool,
    /// Counts the memory of the replies in the pool.
    charge: Charge,
}

struct Requests {
    payloads: Arc<Payloads>,
    locations: Locations,
    /// The number of the next request.
    number: u64,
}

enum Work {
    Answering(Replying),
    Done(Vec<Reply>),
    /// The reason; replies to earlier requests are still sent.
    Failed(String),
}

/// What a pipeline waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    /// Requests; all earlier ones are answered.
    Requests,
    /// Handlers.
    Handlers,
    /// The peer to take replies.
    Peer,
}

impl Pipeline {
    pub(crate) fn new(
        shared: &Shared,
        connection: Arc<OpenConnection>,
        handler: EachHandler,
    ) -> Pipeline {
        Pipeline {
            handler,
            connection,
            most: shared.options.pipeline,
            waiting: VecDeque::new(),
            working: VecDeque::new(),
            replies: FrameQueue::with_limit(shared.options.layout, shared.max_message),
            reads_ahead: shared.options.empty == EmptyFrames::Echo,
            heartbeats: 0,
            large: true,
            charge: shared.pool.charge_nothing(),
        }
    }

    /// Adds the requests of a batch.
    pub(crate) fn push(&mut self, payloads: Arc<Payloads>) {
        let (locations, number) = (payloads.locations(), payloads.first_number());
        self.waiting.push_back(Requests { payloads, locations, number });
    }

    /// Adds heartbeats to be sent back: at once, and not after the replies to earlier requests, which may take longer
    /// than the peer waits for a sign of life.
    pub(crate) fn send_back(&mut self, heartbeats: u64) {
        self.heartbeats += heartbeats;
    }

    /// Returns whether to read more requests.
    pub(crate) fn has_room(&self) -> bool {
        let reads_ahead = self.reads_ahead && self.may_go_on();
        self.heartbeats == 0 && self.waiting.is_empty() && (reads_ahead || self.may_begin())
    }

    fn may_begin(&self) -> bool {
        let most = if self.large { 1 } else { self.most };
        self.working.len() < most && self.may_go_on()
    }

    fn may_go_on(&self) -> bool {
        let failed = self.working.iter().any(|work| matches!(work, Work::Failed(_)));
        !failed && self.replies.len() < HIGH_WATER
    }

    /// Makes as much progress as possible, answering and sending. Calls `taken` when the peer takes data.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut ByteStream,
        mut taken: impl FnMut(),
    ) -> Result<Waits, Outcome> {
        loop {
            while self.may_begin()
                && let Some(request) = self.next_request()
            {
                let work = self.begin(request);
                self.working.push_back(work);
            }
            self.poll_handlers(cx);
            self.collect()?;
            self.collect_heartbeats()?;
            let unsent = self.replies.len();
            let sent = self.replies.poll_flush(stream, cx);
            self.charge();
            if self.replies.len() < unsent {
                taken();
            }
            let begins = self.may_begin() && !self.waiting.is_empty();
            match sent {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Err(Outcome::Write(error.into())),
                // What it took may have made room for more replies.
                Poll::Pending if begins || self.replies.len() < unsent => continue,
                Poll::Pending => return Ok(Waits::Peer),
            }
            return match self.working.front() {
                _ if self.heartbeats > 0 => continue,
                // Their replies, or the failure after them, are next.
                Some(Work::Done(_) | Work::Failed(_)) => continue,
                _ if begins => continue,
                None => Ok(Waits::Requests),
                Some(_) => Ok(Waits::Handlers),
            };
        }
    }

    /// Returns whether the stream has taken a part of a reply, and not yet the rest.
    pub(crate) fn is_in_frame(&mut self) -> bool {
        self.replies.is_in_frame()
    }

    fn next_request(&mut self) -> Option<Request> {
        let requests = self.waiting.front_mut()?;
        let payloads = Arc::clone(&requests.payloads);
        let (location, number) = (requests.locations.next(&payloads)?, requests.number);
        requests.number += 1;
        if requests.number == payloads.first_number() + payloads.len() as u64 {
            self.waiting.pop_front();
        }
        let (connection, peer) = (self.connection.number, self.connection.peer().clone());
        Some(Request::new(payloads, location, number, connection, peer))
    }

    fn begin(&self, request: Request) -> Work {
        let begun = catch_unwind(AssertUnwindSafe(|| (self.handler)(request)));
        begun.map_or_else(|_| panicked(), Work::Answering)
    }

    fn poll_handlers(&mut self, cx: &mut Context<'_>) {
        for work in &mut self.working {
            let Work::Answering(replying) = work else { continue };
            *work = match catch_unwind(AssertUnwindSafe(|| replying.as_mut().poll(cx))) {
                Ok(Poll::Pending) => continue,
                Ok(Poll::Ready(Ok(replies))) => Work::Done(replies),
                Ok(Poll::Ready(Err(error))) => Work::Failed(format!("the handler failed: {error}")),
                Err(_) => panicked(),
            };
        }
    }

    /// Encodes the replies that are ready, in the order of their requests.
    fn collect(&mut self) -> Result<(), Outcome> {
        while self.replies.len() < HIGH_WATER {
            let all_sent = self.replies.len() == 0;
            let replies = match self.working.front_mut() {
                Some(Work::Done(replies)) => mem::take(replies),
                Some(Work::Failed(why)) if all_sent => {
                    return Err(Outcome::HandlerFailed(mem::take(why)));
                }
                Some(Work::Answering(_) | Work::Failed(_)) | None => break,
            };
            self.working.pop_front();
            for reply in replies {
                self.large = reply.as_ref().len() > HIGH_WATER;
                let header = reply.header().to_bytes();
                if let Err(error) = self.replies.append(&header, reply.as_ref()) {
                    // The replies before it are still sent.
                    let why = format!("the handler's reply cannot be sent: {error}");
                    self.working.push_front(Work::Failed(why));
                    break;
                }
            }
        }
        self.charge();
        Ok(())
    }

    /// Encodes as many heartbeats as there is room for.
    fn collect_heartbeats(&mut self) -> Result<(), Outcome> {
        while self.heartbeats > 0 && self.replies.len() < HIGH_WATER {
            let encoded = self.replies.append(&[], &[]);
            // Cannot fail: the layout has such frames, since some have arrived.
            encoded.map_err(|error| Outcome::Write(error.into()))?;
            self.heartbeats -= 1;
        }
        Ok(())
    }

    /// Counts the memory of the replies, but no more than would keep it from the messages of others.
    fn charge(&mut self) {
        self.charge.set(self.replies.capacity().min(HIGH_WATER));
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        // If two of them panicked while they are dropped together, the process would abort.
        for work in self.working.drain(..) {
            let _ = catch_unwind(AssertUnwindSafe(|| drop(work)));
        }
    }
}

fn panicked() -> Work {
    Work::Failed("the handler panicked".into())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::pin::Pin;
    use std::task::Waker;

    use futures_lite::{AsyncRead, AsyncWrite};

    use super::*;
    use crate::net::byte_stream::Peer;
    use crate::server::options::Options;

    /// A peer that takes nothing.
    struct Deaf;

    impl AsyncRead for Deaf {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Deaf {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[test]
    fn heartbeats_that_are_not_taken_take_the_memory_of_short_replies_and_stop_the_reading() {
        let shared = Shared::new(Options::default()).unwrap();
        let connection = Arc::new(OpenConnection::new(1, Peer::Unix));
        let handler: EachHandler = Arc::new(|_| Box::pin(std::future::pending()));
        let mut pipeline = Pipeline::new(&shared, connection, handler);
        let (mut stream, cx) = (ByteStream::new(Deaf), &mut Context::from_waker(Waker::noop()));
        assert!(pipeline.has_room());
        pipeline.send_back(3);
        assert!(!pipeline.has_room());
        assert_eq!(pipeline.poll(cx, &mut stream, || {}).ok(), Some(Waits::Peer));
        assert!(pipeline.has_room());
        pipeline.send_back(1_000_000);
        assert_eq!(pipeline.poll(cx, &mut stream, || {}).ok(), Some(Waits::Peer));
        assert!(!pipeline.has_room());
        assert_eq!(pipeline.replies.len(), HIGH_WATER);
    }
}
