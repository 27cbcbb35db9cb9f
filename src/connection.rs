//! One connection of the server, from its first byte to its end.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::future;

use crate::error::ReadError;
use crate::net::{ResetOnDrop, Stream};
use crate::reader::{FrameReader, Payloads};
use crate::server::Server;
use crate::sink::{Batch, Origin, Queue};
use crate::watch::{Order, Phase};
use crate::writer::{FrameWriter, WriteError};

/// How many full reads a connection may take before other tasks get their turn: half a megabyte. A
/// judgement; at four it costs a percent of throughput, at thirty others begin to wait for milliseconds.
const READS_A_TURN: u32 = 8;

/// How a connection ended.
pub(crate) enum Outcome {
    /// Its peer ended it, and all is committed.
    Closed,
    /// The server ended, and all that had come is committed.
    Drained,
    /// Its peer was silent for too long.
    Idle(Duration),
    /// It was cut off by the end of the server.
    Aborted,
    /// What came was no message, or the stream failed.
    Read(ReadError),
    /// Replies could not be sent.
    Write(WriteError),
    /// The sink takes no more.
    SinkGone,
}

pub(crate) struct Connection {
    server: Arc<Server>,
    origin: Arc<Origin>,
    reader: FrameReader<Stream>,
    replies: Option<FrameWriter<Stream>>,
    queue: Option<Queue>,
    received: u64,
    /// The message under way and the tick at which its first byte was seen.
    message_since: (u64, u64),
}

impl Connection {
    pub(crate) fn new(
        server: Arc<Server>,
        origin: Arc<Origin>,
        stream: Stream,
        queue: Option<Queue>,
    ) -> Connection {
        let replies = server.echo.then(|| {
            // Cannot fail: the reader has the same limit.
            FrameWriter::with_limit(stream.clone(), server.layout, server.max_message)
        });
        let pool = server.pool.clone();
        let reader = FrameReader::in_pool(stream, server.layout, server.max_message, pool);
        Connection { server, origin, reader, replies, queue, received: 0, message_since: (0, 0) }
    }

    /// Serves the connection to its end; returns how many messages came and how it ended.
    pub(crate) async fn run(mut self) -> (u64, Outcome) {
        let origin = Arc::clone(&self.origin);
        // Until it is known to be orderly, an end by whatever cause is a reset.
        let mut reset = ResetOnDrop::new(self.reader.get_ref());
        let outcome = {
            let mut serving = pin!(self.serve());
            poll_fn(|cx| {
                // The order comes with a wake-up, so whom to wake is noted before looking.
                origin.watch.register(cx.waker());
                if origin.watch.order() == Order::Abort {
                    return Poll::Ready(Outcome::Aborted);
                }
                serving.as_mut().poll(cx)
            })
            .await
        };
        if outcome.is_orderly() {
            reset.disarm();
        }
        (self.received, outcome)
    }

    async fn serve(&mut self) -> Outcome {
        let mut reads = 0;
        loop {
            let payloads = match poll_fn(|cx| self.poll_payloads(cx)).await {
                Ok(payloads) => Arc::new(payloads),
                Err(outcome) => return self.settle(outcome).await,
            };
            self.received += payloads.len() as u64;
            if let Some(queue) = &self.queue {
                let batch = Batch::received_from(Arc::clone(&self.origin), Arc::clone(&payloads));
                if queue.send(batch).await.is_err() {
                    return Outcome::SinkGone;
                }
            }
            if let Err(outcome) = self.echo(&payloads).await {
                return outcome;
            }
            drop(payloads);
            reads += 1;
            if reads % READS_A_TURN == 0 {
                future::yield_now().await;
            }
        }
    }

    /// Reads the next messages, and notes what is waited for where it has to wait.
    fn poll_payloads(&mut self, cx: &mut Context<'_>) -> Poll<Result<Payloads, Outcome>> {
        if self.server.draining() {
            // What is to be read before the end is what the kernel has, not what it has told us of.
            self.reader.get_mut().look_again();
        }
        match self.reader.poll_batch(cx) {
            Poll::Ready(read) => {
                self.origin.watch.enter(Phase::Busy, 0);
                Poll::Ready(match read {
                    Ok(Some(payloads)) => Ok(payloads),
                    Ok(None) => Err(Outcome::Closed),
                    Err(error) => Err(Outcome::Read(error)),
                })
            }
            Poll::Pending => self.poll_wait(),
        }
    }

    fn poll_wait(&mut self) -> Poll<Result<Payloads, Outcome>> {
        let (watch, now) = (&self.origin.watch, self.server.now());
        if self.reader.waits_for_memory() {
            // The time until there is memory is not the sender's fault.
            self.message_since = (0, 0);
            watch.enter(Phase::Busy, now);
            return Poll::Pending;
        }
        let message = self.reader.at().message;
        let phase = match self.reader.in_message() {
            true => Phase::InMessage,
            false => Phase::Idle,
        };
        let as_before =
            watch.phase().0 == phase && (phase == Phase::Idle || self.message_since.0 == message);
        if watch.order() == Order::Expired {
            if as_before {
                return Poll::Ready(Err(self.expire()));
            }
            // The sweep came just as something arrived.
            watch.forgive();
        }
        if phase == Phase::Idle && self.server.draining() {
            return Poll::Ready(Err(Outcome::Drained));
        }
        if !as_before {
            if self.message_since.0 != message {
                self.message_since = (message, now);
            }
            // The clock of a message starts once, however often it is waited for.
            let since = if phase == Phase::InMessage { self.message_since.1 } else { now };
            watch.enter(phase, since);
        }
        Poll::Pending
    }

    fn expire(&mut self) -> Outcome {
        match (self.reader.in_message(), self.server.message_timeout) {
            (true, Some(timeout)) => Outcome::Read(self.reader.expire(timeout)),
            _ => Outcome::Idle(self.server.idle_timeout.unwrap_or_default()),
        }
    }

    /// Sends the messages back, if that is what this server does.
    async fn echo(&mut self, payloads: &Payloads) -> Result<(), Outcome> {
        let Some(replies) = &mut self.replies else {
            // Senders that learn early that the server ends do not have to be cut off.
            if self.server.draining() {
                let _ = self.reader.get_ref().shutdown_write();
            }
            return Ok(());
        };
        let (server, origin) = (&self.server, &self.origin);
        let mut sending = pin!(async {
            for payload in payloads.iter() {
                replies.feed(payload).await?;
            }
            replies.flush().await
        });
        poll_fn(|cx| match sending.as_mut().poll(cx) {
            Poll::Ready(sent) => {
                origin.watch.enter(Phase::Busy, 0);
                Poll::Ready(sent.map_err(Outcome::Write))
            }
            Poll::Pending if origin.watch.order() == Order::Expired => {
                Poll::Ready(Err(Outcome::Idle(server.idle_timeout.unwrap_or_default())))
            }
            Poll::Pending => {
                origin.watch.enter(Phase::Writing, server.now());
                Poll::Pending
            }
        })
        .await
    }

    /// Waits until all that has come is committed: only then may the peer see the end of the stream,
    /// for it takes that as a sign that nothing was lost.
    async fn settle(&mut self, outcome: Outcome) -> Outcome {
        if self.queue.is_some() {
            self.origin.watch.enter(Phase::Closing, self.server.now());
            poll_fn(|_| match self.origin.committed() >= self.received {
                true => Poll::Ready(()),
                false => Poll::Pending,
            })
            .await;
        }
        outcome
    }
}

impl Outcome {
    /// Whether the peer may take the end of the connection for a sign that all is well.
    fn is_orderly(&self) -> bool {
        matches!(self, Outcome::Closed | Outcome::Drained | Outcome::Idle(_))
    }
}
