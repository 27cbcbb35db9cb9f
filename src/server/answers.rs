//! A connection with a handler: receives requests while others are being answered.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::connection_state::Phase;
use super::handler::{Answering, EachHandler};
use super::outcome::Outcome;
use super::pipeline::{Pipeline, Waits};
use super::receiver::{Reading, Receiver};
use crate::stream::arrival::Arrival;
use crate::stream::error::ReadError;
use crate::stream::payloads::Payloads;
use crate::stream::reader::FrameReader;
use crate::wire::empty_frames::EmptyFrames;
use crate::wire::error::Fault;

/// Since which tick a connection that answers has waited for its peer. Both waits have the same limit, so the
/// longer one is the one that expires first.
#[derive(Default)]
struct WaitsForPeer {
    /// For the rest of a message.
    message: Option<u64>,
    /// To take replies.
    replies: Option<u64>,
}

impl WaitsForPeer {
    /// Returns the longer wait.
    fn longer(&self) -> Option<(Phase, u64)> {
        let message = self.message.map(|since| (Phase::InMessage, since));
        let replies = self.replies.map(|since| (Phase::Writing, since));
        message.into_iter().chain(replies).min_by_key(|(_, since)| *since)
    }
}

/// What a connection does to answer requests.
struct Answers {
    pipeline: Pipeline,
    waits: WaitsForPeer,
    /// Why there are no more requests; those that were read are still answered.
    ended: Option<Outcome>,
}

impl Receiver {
    /// Receives requests while others are being answered, until there are no more and all have their
    /// replies.
    pub(super) async fn receive_and_answer(&mut self, handler: EachHandler) -> Outcome {
        let connection = Arc::clone(&self.connection);
        let pipeline = Pipeline::new(&self.shared, connection, handler);
        let mut answers = Answers { pipeline, waits: WaitsForPeer::default(), ended: None };
        loop {
            let read = poll_fn(|cx| self.poll_answering(cx, &mut answers, true)).await;
            let payloads = match read {
                Ok(payloads) => payloads,
                Err(outcome) => return outcome,
            };
            if let Some(mut sending) = self.begin_to_hand_on(&payloads) {
                // While these requests wait for the sink, earlier ones are answered. If that fails, they are handed on
                // all the same: what was read is committed, however the connection ends.
                let mut failed = None;
                let sent = poll_fn(|cx| {
                    let sent = sending.as_mut().poll(cx);
                    if sent.is_pending()
                        && failed.is_none()
                        && let Poll::Ready(Err(outcome)) =
                            self.poll_answering(cx, &mut answers, false)
                    {
                        self.connection.state.enter(Phase::Closing, self.shared.now());
                        failed = Some(outcome);
                    }
                    sent
                });
                if sent.await.is_err() {
                    return Outcome::SinkGone;
                }
                if let Some(outcome) = failed {
                    return outcome;
                }
            }
            answers.pipeline.push(payloads);
            if self.is_read_until_the_end() {
                answers.ended.get_or_insert(Outcome::Drained);
            }
            self.end_turn().await;
        }
    }

    /// Answers what can be answered, and `reads` while there is room for more requests. Ends when a batch
    /// was read, or once the requests have ended and all are answered.
    fn poll_answering(
        &mut self,
        cx: &mut Context<'_>,
        answers: &mut Answers,
        reads: bool,
    ) -> Poll<Result<Arc<Payloads>, Outcome>> {
        let Answers { pipeline, waits, ended } = answers;
        let before = self.connection.state.snapshot();
        let mut taken = false;
        let pending = pipeline.poll(cx, self.reader.get_mut(), || taken = true)?;
        self.is_in_frame = pipeline.is_in_frame();
        // When the peer takes data, its time limit starts anew.
        let since = waits.replies.filter(|_| !taken);
        waits.replies =
            (pending == Waits::Peer).then(|| since.unwrap_or_else(|| self.shared.now()));
        if pending == Waits::Requests
            && let Some(outcome) = ended.take()
        {
            return Poll::Ready(Err(outcome));
        }
        let mut reading = Phase::Busy;
        if reads && ended.is_none() && pipeline.has_room() {
            match self.poll_reading(cx, FrameReader::poll_arrival) {
                Reading::Done(read) => {
                    waits.message = None;
                    self.connection.state.enter(Phase::Busy, 0);
                    match read {
                        Ok(Arrival::Messages(payloads)) => {
                            return Poll::Ready(Ok(Arc::new(payloads)));
                        }
                        Ok(Arrival::Heartbeats(heartbeats)) => {
                            if self.shared.options.empty == EmptyFrames::Echo {
                                pipeline.send_back(heartbeats);
                            }
                            if self.is_read_until_the_end() {
                                *ended = Some(Outcome::Drained);
                            }
                            // Poll again, after other tasks have had their turn.
                            cx.waker().wake_by_ref();
                        }
                        // Nobody is left to reply to.
                        Err(Outcome::Read(error)) if matches!(*error, ReadError::Io { .. }) => {
                            return Poll::Ready(Err(Outcome::Read(error)));
                        }
                        Err(outcome) => {
                            *ended = Some(outcome);
                            // Poll again: all requests may already be answered.
                            cx.waker().wake_by_ref();
                        }
                    }
                }
                // A peer that waits for its replies is not idle.
                Reading::Waits(Phase::Idle) if pending != Waits::Requests => {}
                Reading::Waits(phase) => reading = phase,
            }
        }
        // Taking replies does not excuse a peer that has sent half a message.
        let since = waits.message;
        waits.message =
            (reading == Phase::InMessage).then(|| since.unwrap_or_else(|| self.shared.now()));
        let (phase, since) = waits
            .longer()
            .unwrap_or_else(|| (reading, before.since_or(reading, self.shared.now())));
        match ready!(self.poll_phase(before, phase, since)) {
            Outcome::Drained => {
                ended.get_or_insert(Outcome::Drained);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            outcome => Poll::Ready(Err(outcome)),
        }
    }

    /// Returns whether all replies are sent, but may still be on their way to a peer that is there to take them.
    pub(super) fn may_have_replies_in_flight(&self, outcome: &Outcome) -> bool {
        let takes_replies = match outcome {
            Outcome::Drained | Outcome::HandlerFailed(_) => true,
            Outcome::Read(error) => match &**error {
                ReadError::Protocol(error) => {
                    // A peer that was too slow is not waited for any longer.
                    !matches!(error.fault, Fault::TimedOut { .. } | Fault::Slow { .. })
                }
                ReadError::Io { .. } => false,
            },
            _ => false,
        };
        takes_replies && matches!(self.shared.options.answering, Answering::Each(_))
    }
}
