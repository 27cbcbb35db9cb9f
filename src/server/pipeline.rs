//! The requests of one connection that are being answered, and the replies waiting to be sent.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_lite::AsyncWrite;

use super::handler::{Answering, Reply, Replying, Request};
use super::open_connection::OpenConnection;
use super::outcome::Outcome;
use super::shared::Shared;
use crate::net::byte_stream::ByteStream;
use crate::stream::payloads::{Locations, Payloads};
use crate::stream::pool::Charge;
use crate::wire::frame::append_frame;

/// With this many bytes of unsent replies, no more requests are answered.
const HIGH_WATER: usize = 64 * 1024;

/// How much capacity for replies is kept when all are sent.
const KEPT: usize = 1024;

/// Answers requests, several at once, and sends the replies in the order of the requests.
pub(crate) struct Pipeline {
    shared: Arc<Shared>,
    connection: Arc<OpenConnection>,
    /// Requests that were read but not started.
    waiting: VecDeque<Requests>,
    /// Started requests, the oldest first.
    working: VecDeque<Work>,
    /// Whole frames, of which the first `written` bytes have been sent.
    replies: Vec<u8>,
    written: usize,
    /// Whether the stream may keep some of what has left.
    unflushed: bool,
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
    pub(crate) fn new(shared: Arc<Shared>, connection: Arc<OpenConnection>) -> Pipeline {
        let charge = shared.pool.charge_nothing();
        let (waiting, working) = (VecDeque::new(), VecDeque::new());
        Pipeline {
            shared,
            connection,
            waiting,
            working,
            replies: Vec::new(),
            written: 0,
            unflushed: false,
            large: true,
            charge,
        }
    }

    /// Adds the requests of a batch.
    pub(crate) fn push(&mut self, payloads: Arc<Payloads>) {
        let (locations, number) = (payloads.locations(), payloads.first_number());
        self.waiting.push_back(Requests { payloads, locations, number });
    }

    /// Returns whether to read more requests.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.is_empty() && self.may_begin()
    }

    fn may_begin(&self) -> bool {
        let failed = self.working.iter().any(|work| matches!(work, Work::Failed(_)));
        let most = if self.large { 1 } else { self.shared.pipeline };
        !failed && self.working.len() < most && self.unsent() < HIGH_WATER
    }

    fn unsent(&self) -> usize {
        self.replies.len() - self.written
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
            match self.poll_write(cx, stream) {
                Poll::Ready(Ok(0)) => {}
                Poll::Ready(Ok(_)) => {
                    taken();
                    continue;
                }
                Poll::Ready(Err(error)) => return Err(Outcome::Write(error)),
                Poll::Pending => return Ok(Waits::Peer),
            }
            let begins = self.may_begin() && !self.waiting.is_empty();
            return match self.working.front() {
                _ if begins => continue,
                None => Ok(Waits::Requests),
                Some(_) => Ok(Waits::Handlers),
            };
        }
    }

    fn next_request(&mut self) -> Option<Request> {
        loop {
            let requests = self.waiting.front_mut()?;
            let payloads = &requests.payloads;
            let Some(location) = requests.locations.next(payloads) else {
                self.waiting.pop_front();
                continue;
            };
            let OpenConnection { number: connection, peer, .. } = &*self.connection;
            let (payloads, number) = (Arc::clone(payloads), requests.number);
            requests.number += 1;
            return Some(Request::new(payloads, location, number, *connection, peer.clone()));
        }
    }

    fn begin(&self, request: Request) -> Work {
        let Answering::Each(handler) = &self.shared.answering else {
            return Work::Done(Vec::new());
        };
        let begun = catch_unwind(AssertUnwindSafe(|| handler(request)));
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
        while self.unsent() < HIGH_WATER {
            let all_sent = self.unsent() == 0;
            let replies = match self.working.front_mut() {
                Some(Work::Done(replies)) => mem::take(replies),
                Some(Work::Failed(why)) if all_sent => {
                    return Err(Outcome::HandlerFailed(mem::take(why)));
                }
                Some(Work::Answering(_) | Work::Failed(_)) | None => break,
            };
            self.working.pop_front();
            for reply in replies {
                let (layout, limit) = (self.shared.layout, self.shared.max_message);
                let appended = append_frame(&mut self.replies, layout, limit, reply.as_ref());
                self.large = reply.as_ref().len() > HIGH_WATER;
                if let Err(error) = appended {
                    // The replies before it are still sent.
                    let why = format!("the handler's reply is too long: {error}");
                    self.working.push_front(Work::Failed(why));
                    break;
                }
            }
        }
        // More than that would keep the memory from the messages of others.
        self.charge.set(self.replies.capacity().min(HIGH_WATER));
        Ok(())
    }

    /// Sends replies. Returns how many bytes the stream took.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut ByteStream,
    ) -> Poll<io::Result<usize>> {
        let mut total = 0;
        while self.unsent() > 0 {
            match Pin::new(&mut *stream).poll_write(cx, &self.replies[self.written..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(bytes)) => {
                    self.written += bytes;
                    self.unflushed = true;
                    total += bytes;
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if total > 0 => return Poll::Ready(Ok(total)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if total > 0 {
            // An idle connection keeps almost no memory.
            self.written = 0;
            self.replies.clear();
            self.replies.shrink_to(KEPT);
            self.charge.set(self.replies.capacity().min(HIGH_WATER));
        }
        if self.unflushed {
            match Pin::new(&mut *stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if total > 0 => {}
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(total))
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

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").field("working", &self.working.len()).finish_non_exhaustive()
    }
}

fn panicked() -> Work {
    Work::Failed("the handler panicked".into())
}
