//! What a connection does for a client that asks for acknowledgements, and how it refuses them.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt, future};
use smol::{Task, Timer};

use super::{Connection, Outcome, missing};
use crate::message::Origin;
use crate::server::acknowledger::{REPEATED, acknowledge, frame};
use crate::server::connection_state::{Order, Phase};
use crate::server::senders::Place;
use crate::stream::error::ReadError;
use crate::stream::reader::FrameReader;
use crate::wire::ack::{Answer, Hello, MOST_MESSAGES, Opening, Refusal, RefusalCode};
use crate::wire::count::Count;
use crate::wire::error::{Fault, ProtocolError};

/// How long a client that is refused may take to read why.
const PARTING: Duration = Duration::from_secs(1);

/// Tells the client what is committed, as long as this is the connection of its sender.
pub(super) struct Telling {
    task: Task<io::Result<()>>,
    origin: Arc<Origin>,
    _place: Place,
}

impl Telling {
    /// Waits until the client cannot be told any more, which it never learns otherwise: the connection
    /// may take messages all the same.
    pub(super) async fn failed(&mut self) -> Outcome {
        match (&mut self.task).await {
            Ok(()) => future::pending().await,
            Err(error) => {
                // It has them still, and sends them over another connection.
                self.origin.watch.tell(Order::Refused);
                Outcome::Write(error)
            }
        }
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        if let Some(acked) = self.origin.acked() {
            acked.hang_up();
        }
    }
}

impl Connection {
    /// Finds out whether the client asks for acknowledgements.
    pub(super) fn poll_opening(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Hello>, Outcome>> {
        if !Hello::fits(self.server.layout) {
            return Poll::Ready(Ok(None));
        }
        let opening = match ready!(self.poll_read(cx, FrameReader::poll_opening)) {
            Ok(opening) => opening,
            Err(outcome) => return Poll::Ready(Err(outcome)),
        };
        Poll::Ready(match opening {
            Opening::Hello { hello, .. } => Ok(Some(hello)),
            Opening::Unsupported { .. } => Err(Outcome::Refused(RefusalCode::Version)),
            _ if self.server.require_ack => Err(Outcome::NotAsked),
            _ => Ok(None),
        })
    }

    /// Answers a hello: says how many messages of this sender are committed, and will say so whenever
    /// there are more.
    pub(super) async fn welcome(&mut self, hello: Hello) -> Result<Box<Telling>, Outcome> {
        let origin = &self.origin;
        origin.watch.enter(Phase::Busy, 0);
        let queue = match &self.queue {
            _ if self.server.echo => return Err(Outcome::Refused(RefusalCode::Echo)),
            None => return Err(Outcome::Refused(RefusalCode::NoSink)),
            Some(queue) => queue,
        };
        if hello.first > MOST_MESSAGES {
            return Err(Outcome::Refused(RefusalCode::Gap));
        }
        let finding_out = async {
            // What an older connection of this sender has handed on by now is part of the answer.
            let place = self.server.senders.take_over(hello.sender, origin).await;
            let place = place.ok_or(Outcome::Refused(RefusalCode::Fenced))?;
            let known = queue.committed(hello.sender).await.map_err(|_| Outcome::SinkGone)?;
            Ok((place, known))
        };
        let (place, known) = finding_out.or(self.show_signs_of_life()).await?;
        // Where nobody here knows, as in a new server that writes a file, the sender does: it keeps what
        // is not acknowledged.
        let before = known.unwrap_or(hello.first.saturating_sub(1));
        let acked = origin.set_sender(hello.sender, before);
        if hello.first > before.saturating_add(1) {
            return Err(Outcome::Missing { committed: before, oldest: hello.first });
        }
        acked.pick_up(self.reader.get_ref().clone(), self.server.layout);
        let task = smol::spawn(acknowledge(Arc::clone(origin)));
        Ok(Box::new(Telling { task, origin: Arc::clone(origin), _place: place }))
    }

    /// Lets a client that waits for its welcome know that it does not do so in vain. Ends only if the
    /// client is gone: then nobody need find out any more.
    async fn show_signs_of_life<T>(&self) -> Result<T, Outcome> {
        let mut socket = self.reader.get_ref().clone();
        let sign = frame(self.server.layout, &Answer::SignOfLife);
        loop {
            Timer::after(REPEATED).await;
            socket.write_all(&sign).await.map_err(Outcome::Write)?;
        }
    }

    /// Waits until the client has been told of everything that is committed.
    pub(super) async fn tell_all(&self, mut telling: Box<Telling>, outcome: Outcome) -> Outcome {
        if let Some(acked) = self.origin.acked() {
            acked.complete();
        }
        let limit = self.server.message_timeout;
        let not_taken = async {
            limit.map_or_else(Timer::never, Timer::after).await;
            Err(Outcome::NotTaken(limit.unwrap_or_default()))
        };
        let told = async { (&mut telling.task).await.map_err(Outcome::Write) };
        match (told.or(not_taken).await, outcome) {
            // It may look for another server, and knows how far this one has got.
            (Ok(()), Outcome::Drained) => Outcome::Refused(RefusalCode::Shutdown),
            (Ok(()), outcome) => outcome,
            (Err(failed), _) => failed,
        }
    }

    /// Returns why a client that asked gets no further acknowledgements, and in words, if that is to be
    /// said to it.
    pub(super) fn refusal(&self, outcome: &Outcome) -> Option<(RefusalCode, String)> {
        let code = match outcome {
            Outcome::Refused(code) => *code,
            Outcome::Missing { committed, oldest } => {
                return Some((RefusalCode::Gap, missing(*committed, *oldest)));
            }
            Outcome::SinkGone if self.asked => RefusalCode::Sink,
            Outcome::Read(error) if self.asked => return self.bad_message(error),
            _ => return None,
        };
        Some((code, code.to_string()))
    }

    /// A reset would have the client send the same message again and again.
    fn bad_message(&self, error: &ReadError) -> Option<(RefusalCode, String)> {
        let ReadError::Protocol(ProtocolError { at, fault, .. }) = error else { return None };
        let number = self.before().saturating_add(at.message);
        match fault {
            Fault::OverLong { length, limit } => {
                let length = Count(*length, "byte");
                let text = format!("message {number} has {length}, and the server takes {limit}");
                Some((RefusalCode::TooLong, text))
            }
            Fault::Late { .. } => Some((RefusalCode::Late, format!("message {number} {fault}"))),
            _ => None,
        }
    }

    /// Returns how many messages of the sender came before the first one on this connection.
    fn before(&self) -> u64 {
        self.origin.acked().map_or(0, |acked| acked.before)
    }

    /// Says why the client gets no acknowledgements, and gives it a moment to read that: what it still
    /// sends would turn the end into a reset, which destroys what is under way.
    pub(super) async fn refuse(&mut self, code: RefusalCode, text: String) {
        let committed = self.before().saturating_add(self.origin.committed());
        let refusal = Refusal { committed, code, text };
        let layout = self.server.layout;
        let socket = self.reader.get_mut();
        socket.end_in_order();
        let mut say = socket.clone();
        let last = frame(layout, &Answer::Refusal(refusal));
        let last = match self.origin.acked() {
            Some(acked) => acked.last_word(last),
            None => last,
        };
        let saying = async {
            say.write_all(&last).await?;
            say.shutdown_write()?;
            let mut rest = [0; 4096];
            while say.read(&mut rest).await? > 0 {}
            io::Result::Ok(())
        };
        let enough = async {
            Timer::after(PARTING).await;
            Ok(())
        };
        // Where it fails the client is gone.
        let _ = saying.or(enough).await;
    }
}
