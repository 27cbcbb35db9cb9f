//! A connection without a handler: messages are passed on, and echoed if the server echoes.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_lite::AsyncWrite;

use super::connection_state::Phase;
use super::handler::Answering;
use super::outcome::Outcome;
use super::receiver::Receiver;
use crate::stream::arrival::Arrival;
use crate::stream::payloads::Payloads;
use crate::stream::pool::HeldForPeer;
use crate::wire::empty_frames::EmptyFrames;
use crate::wire::frame::append_frame;

/// How many heartbeats are sent back at once. Chosen by judgement: a kilobyte or two.
const HEARTBEATS: usize = 256;

/// Progress of echoing one batch.
#[derive(Default)]
struct Echoing {
    sent: usize,
    /// Once the peer has stopped taking replies: counts the batch as memory held for that peer.
    keeps: Option<HeldForPeer>,
}

impl Receiver {
    pub(super) async fn receive_or_echo(&mut self) -> Outcome {
        let echoes = matches!(self.shared.options.answering, Answering::Echo);
        loop {
            let last = self.is_read_until_the_end();
            // In a statement of its own: what was read must not take space in the future while it is passed on.
            let (messages, heartbeats) = match poll_fn(|cx| self.poll_arrival(cx)).await {
                Ok(Arrival::Messages(payloads)) => (Some(Arc::new(payloads)), 0),
                Ok(Arrival::Heartbeats(heartbeats)) => (None, heartbeats),
                Err(outcome) => return outcome,
            };
            if let Some(payloads) = messages {
                if let Some(sending) = self.begin_to_hand_on(&payloads)
                    && sending.await.is_err()
                {
                    return Outcome::SinkGone;
                }
                if echoes {
                    let mut echo = Echoing::default();
                    let echoed = poll_fn(|cx| self.poll_echo(cx, &payloads, &mut echo));
                    if let Err(outcome) = echoed.await {
                        return outcome;
                    }
                }
            } else if self.shared.options.empty == EmptyFrames::Echo {
                // Boxed, since few connections have any.
                if let Err(outcome) = Box::pin(self.send_back(heartbeats)).await {
                    return outcome;
                }
            }
            if last {
                // This read returned data that arrived after the shutdown began, so the sender has not
                // stopped by itself.
                return Outcome::Drained;
            }
            self.end_turn().await;
        }
    }

    /// Sends heartbeats back, in pieces, so that it takes no more memory for many of them.
    async fn send_back(&mut self, heartbeats: u64) -> Result<(), Outcome> {
        let mut left = usize::try_from(heartbeats).unwrap_or(usize::MAX);
        let mut frame = Vec::new();
        // Cannot fail: the layout has such frames, since some have arrived.
        let _ = append_frame(&mut frame, self.shared.options.layout, 0, &[]);
        let frames = frame.repeat(left.min(HEARTBEATS));
        while left > 0 {
            let now = left.min(HEARTBEATS);
            let mut sent = 0;
            let bytes = &frames[..now * frame.len()];
            poll_fn(|cx| self.poll_write_all(cx, bytes, frame.len(), &mut sent)).await?;
            left -= now;
        }
        Ok(())
    }

    /// Sends what precedes all messages.
    pub(super) async fn send_preamble(&mut self) -> Result<(), Outcome> {
        let (preamble, mut sent) = (Arc::clone(&self.shared.options.preamble), 0);
        poll_fn(|cx| self.poll_write_all(cx, &preamble, preamble.len(), &mut sent)).await
    }

    /// Writes `bytes` from `sent` on, within the time limit for replies. They are parts of `len` bytes each.
    fn poll_write_all(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        len: usize,
        sent: &mut usize,
    ) -> Poll<Result<(), Outcome>> {
        let connection = &self.connection.state;
        loop {
            let stream = Pin::new(self.reader.get_mut());
            let written = match &bytes[*sent..] {
                [] => stream.poll_flush(cx).map_ok(|()| None),
                rest => stream.poll_write(cx, rest).map_ok(Some),
            };
            match written {
                Poll::Ready(Ok(None)) => {
                    connection.enter(Phase::Busy, 0);
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Ok(Some(0))) => {
                    return Poll::Ready(Err(Outcome::Write(io::ErrorKind::WriteZero.into())));
                }
                Poll::Ready(Ok(Some(bytes))) => {
                    *sent += bytes;
                    self.is_in_frame = !sent.is_multiple_of(len);
                    connection.enter(Phase::Busy, 0);
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Outcome::Write(error))),
                Poll::Pending if connection.phase() != Phase::Writing => {
                    connection.enter(Phase::Writing, self.shared.now());
                    return Poll::Pending;
                }
                Poll::Pending if connection.snapshot().is_expired() => {
                    let timeout = self.shared.options.message_timeout.unwrap_or_default();
                    return Poll::Ready(Err(Outcome::NotTaken(timeout)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Echoes messages directly from the buffer in which they were received.
    fn poll_echo(
        &mut self,
        cx: &mut Context<'_>,
        payloads: &Payloads,
        echo: &mut Echoing,
    ) -> Poll<Result<(), Outcome>> {
        let stream = self.reader.get_mut();
        let connection = &self.connection.state;
        let mut state = connection.snapshot();
        loop {
            let mut rest = echo.sent;
            let mut parts = payloads.frames().map(|part| {
                let (_, unsent) = part.split_at(part.len().min(rest));
                rest -= part.len() - unsent.len();
                IoSlice::new(unsent)
            });
            // Empty and sent parts come first and are skipped; most batches have only one part.
            parts.sort_by_key(|part| !part.is_empty());
            let empty = parts.iter().take_while(|part| part.is_empty()).count();
            let stream = Pin::new(&mut *stream);
            let sent = match empty == parts.len() {
                true => stream.poll_flush(cx).map_ok(|()| None),
                false => stream.poll_write_vectored(cx, &parts[empty..]).map_ok(Some),
            };
            match sent {
                Poll::Ready(Ok(None)) => {
                    self.is_in_frame = false;
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Ok(Some(0))) => {
                    return Poll::Ready(Err(Outcome::Write(io::ErrorKind::WriteZero.into())));
                }
                Poll::Ready(Ok(Some(bytes))) => {
                    echo.sent += bytes;
                    if state.phase() == Phase::Writing {
                        // The peer is taking data, so its time limit starts anew.
                        connection.enter(Phase::Busy, 0);
                        state = connection.snapshot();
                    }
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Outcome::Write(error))),
                Poll::Pending if state.phase() != Phase::Writing => {
                    connection.enter(Phase::Writing, self.shared.now());
                    self.is_in_frame = is_in_frame(payloads, echo.sent);
                    let pool = &self.shared.pool;
                    echo.keeps.get_or_insert_with(|| pool.hold_for_peer(payloads.held()));
                    return Poll::Pending;
                }
                Poll::Pending if state.is_expired() => {
                    let timeout = self.shared.options.message_timeout.unwrap_or_default();
                    return Poll::Ready(Err(Outcome::NotTaken(timeout)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Returns whether a frame of these ends after the first `sent` bytes of them, or none has begun.
fn is_in_frame(payloads: &Payloads, sent: usize) -> bool {
    let mut messages = payloads.messages();
    let all = messages.left();
    let end_of_next = || messages.next().map(|_| all - messages.left());
    std::iter::from_fn(end_of_next)
        .find(|&end| end >= sent)
        .is_some_and(|end| end > sent && sent > 0)
}
