//! One connection of the server, from its first byte to its end.
//!
//! To a sender without acknowledgements, the end of the connection is the only sign of success. So the end
//! is clean only if the peer had closed its own direction and everything it sent is committed. In all other
//! cases the connection is reset.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use futures_lite::FutureExt;

use super::ack_session::AckSession;
use super::ack_state::AckState;
use super::commit_queue::CommitQueue;
use super::connection_state::Signal;
use super::open_connection::OpenConnection;
use super::outcome::Outcome;
use super::receiver::{CLOSING, Receiver};
use super::shared::Shared;
use crate::net::byte_stream::ByteStream;
use crate::stream::reader::FrameReader;
use crate::tls::TlsError;
use crate::wire::ack::FirstBytes;
use crate::wire::answer::RefusalCode;
use crate::wire::empty_frames::EmptyFrames;

/// Each idle connection has one of these, so its size matters: rarely used parts are boxed.
pub(crate) struct Connection {
    receiver: Receiver,
    /// Set if the client asks for acknowledgements.
    session: Option<Box<AckSession>>,
}

impl Connection {
    pub(crate) fn new(
        shared: Arc<Shared>,
        connection: Arc<OpenConnection>,
        stream: ByteStream,
        queue: Option<CommitQueue>,
    ) -> Connection {
        let (layout, pool) = (shared.options.layout, shared.pool.clone());
        let reader = FrameReader::in_pool(stream, layout, shared.max_message, pool)
            .skip(shared.options.skip)
            .skip_empty(shared.options.empty != EmptyFrames::Message);
        let (origin, read_until, reads, is_in_frame, pace) = (None, None, 0, false, None);
        let receiver = Receiver {
            shared,
            connection,
            reader,
            queue,
            origin,
            read_until,
            reads,
            is_in_frame,
            pace,
        };
        Connection { receiver, session: None }
    }

    /// Returns what all connections share.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.receiver.shared
    }

    /// Returns what the server knows of this connection.
    pub(crate) fn open_connection(&self) -> &Arc<OpenConnection> {
        &self.receiver.connection
    }

    /// Returns how many messages were received.
    pub(crate) fn received(&self) -> u64 {
        self.receiver.received()
    }

    /// Serves the connection to its end, and returns how it ended.
    pub(crate) async fn run(&mut self) -> Outcome {
        let connection = Arc::clone(&self.receiver.connection);
        let signalled = poll_fn(move |cx| {
            // A signal wakes the task, so the waker is registered before the signal is checked.
            connection.state.register(cx.waker());
            match connection.state.signal() {
                Signal::Abort => Poll::Ready(Outcome::Aborted),
                Signal::SinkFailed => Poll::Ready(Outcome::SinkGone),
                // Either the sink refuses, and gives the reason below, or a newer connection has replaced
                // this one.
                Signal::Refused => Poll::Ready(Outcome::Refused(RefusalCode::Fenced)),
                Signal::None => Poll::Pending,
            }
        });
        let outcome = signalled.or(self.serve()).await;
        // Boxed, so that an idle connection reserves no space for its end.
        Box::pin(self.end(outcome)).await
    }

    /// Closes or resets the connection, as befits its outcome, and returns that.
    async fn end(&mut self, outcome: Outcome) -> Outcome {
        let outcome = match (outcome, self.receiver.refusal()) {
            (Outcome::Refused(RefusalCode::Fenced), Some(code)) => Outcome::Refused(code),
            (outcome, _) => outcome,
        };
        if let Some(session) = &mut self.session {
            session.stop();
            if let Some((code, why)) = session.refusal(&outcome) {
                Box::pin(session.refuse(code, why)).await;
                return outcome;
            }
        }
        match &outcome {
            Outcome::Closed => self.receiver.close().await,
            Outcome::Setup(failed) if TlsError::of(&failed.1).is_some_and(TlsError::is_told) => {
                Box::pin(self.receiver.reader.get_mut().close_and_wait(CLOSING)).await;
            }
            // A reset would destroy replies that are on their way.
            _ if self.receiver.may_have_replies_in_flight(&outcome) => {
                let stream = self.receiver.reader.get_mut();
                match outcome {
                    Outcome::Drained => Box::pin(stream.close_and_wait(CLOSING)).await,
                    _ => Box::pin(stream.abort_and_wait(CLOSING)).await,
                }
            }
            // The stream ends inside a frame as it is, and the mark could be the last byte of that frame.
            _ if self.receiver.is_in_frame => {}
            _ => {
                let unsent =
                    self.receiver.connection.acks().map_or_else(Vec::new, AckState::take_unsent);
                self.receiver.reader.get_ref().mark_aborted(&unsent);
            }
        }
        outcome
    }

    async fn serve(&mut self) -> Outcome {
        // What comes before and after the messages is boxed, so that an idle connection reserves no space for it.
        if let Err(outcome) = Box::pin(self.begin()).await {
            return outcome;
        }
        let outcome = match &mut self.session {
            None => self.receiver.receive().await,
            // Boxed, since few connections have a session.
            Some(session) => match Box::pin(self.receiver.receive_or(session)).await {
                Ok(outcome) => outcome,
                Err(failed) => return failed,
            },
        };
        match outcome {
            Outcome::SinkGone => outcome,
            _ => Box::pin(self.finish(outcome)).await,
        }
    }

    /// Does everything that precedes the first message.
    async fn begin(&mut self) -> Result<(), Outcome> {
        let options = &self.receiver.shared.options;
        // Boxed as well: a connection that waits for its first byte in `open` has neither of these any more.
        if options.upgrade.is_some() || options.proxy_protocol {
            Box::pin(self.receiver.set_up()).await?;
        }
        if !self.receiver.shared.options.preamble.is_empty() {
            Box::pin(self.receiver.send_preamble()).await?;
        }
        // The reader has a large buffer only for a payload, and reads no more than that.
        self.receiver.reader.get_mut().gather_large_reads();
        self.open().await
    }

    /// Waits until everything that was received is committed, and told to the client if it has asked for that.
    async fn finish(&mut self, outcome: Outcome) -> Outcome {
        self.receiver.settle().await;
        match &mut self.session {
            Some(session) => session.finish(outcome).await,
            None => outcome,
        }
    }

    /// Finds out whether the client asks for acknowledgements, and sends the welcome if so.
    async fn open(&mut self) -> Result<(), Outcome> {
        let receiver = &mut self.receiver;
        if !receiver.shared.may_have_acks {
            return Ok(());
        }
        let opening = poll_fn(|cx| receiver.poll_read(cx, FrameReader::poll_first_bytes)).await?;
        let hello = match opening {
            FirstBytes::Hello { hello, resuming, .. } => Some((hello, resuming)),
            FirstBytes::Unsupported { .. } => None,
            _ if receiver.shared.options.require_acks => return Err(Outcome::NotAsked),
            _ => return Ok(()),
        };
        // The client counts each frame as a message.
        receiver.reader.set_skip_empty(false);
        let (shared, connection) = (&receiver.shared, &receiver.connection);
        let session = AckSession::new(shared, connection, receiver.reader.get_ref());
        let session = self.session.insert(Box::new(session));
        let (hello, resuming) = hello.ok_or(Outcome::Refused(RefusalCode::Version))?;
        // Boxed, since few connections have a session.
        let origin = Box::pin(session.welcome(hello, resuming, receiver.queue.as_ref())).await?;
        receiver.origin = Some(Arc::new(origin));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
