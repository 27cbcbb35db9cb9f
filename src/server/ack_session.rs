//! The server's side of acknowledgements on one connection, including refusals.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_lite::{AsyncWriteExt, FutureExt, future};
use smol::{Task, Timer};

use super::ack_state::{AckState, REPEATED};
use super::active_senders::ActiveSender;
use super::commit_queue::CommitQueue;
use super::connection_state::{Phase, Signal};
use super::open_connection::OpenConnection;
use super::outcome::{Outcome, missing};
use super::shared::Shared;
use crate::message::Origin;
use crate::net::byte_stream::ByteStream;
use crate::runtime::tasks::spawn;
use crate::stream::error::ReadError;
use crate::wire::ack::{Hello, MOST_MESSAGES};
use crate::wire::answer::{Answer, Refusal, RefusalCode};
use crate::wire::count::Count;
use crate::wire::error::{Fault, ProtocolError};

/// How long a refused client may take to read the reason.
const PARTING: Duration = Duration::from_secs(1);

/// The server's side of acknowledgements on one connection.
pub(crate) struct AckSession {
    shared: Arc<Shared>,
    connection: Arc<OpenConnection>,
    stream: ByteStream,
    welcomed: Option<Welcomed>,
}

/// The state after the welcome.
struct Welcomed {
    /// The task that sends acknowledgements.
    telling: Task<io::Result<()>>,
    _active: ActiveSender,
}

impl AckSession {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        connection: &Arc<OpenConnection>,
        stream: &ByteStream,
    ) -> AckSession {
        AckSession {
            shared: Arc::clone(shared),
            connection: Arc::clone(connection),
            stream: stream.clone(),
            welcomed: None,
        }
    }

    /// Answers a hello with how many messages of this sender are committed, and acknowledges later ones as
    /// they are committed. A client that is `resuming` also gets the checksum of the last one. Returns the
    /// origin of the connection's messages.
    pub(crate) async fn welcome(
        &mut self,
        hello: Hello,
        resuming: bool,
        queue: Option<&CommitQueue>,
    ) -> Result<Origin, Outcome> {
        let connection = &self.connection;
        connection.state.enter(Phase::Busy, 0);
        let queue = match queue {
            _ if self.shared.answers() => return Err(Outcome::Refused(RefusalCode::Replies)),
            None => return Err(Outcome::Refused(RefusalCode::NoSink)),
            Some(queue) => queue,
        };
        if let Some(rule) = connection.sender_rule()
            && !rule.allows(hello.sender)
        {
            return Err(Outcome::ForeignSender(rule.refusal().into()));
        }
        if hello.first > MOST_MESSAGES {
            return Err(Outcome::Refused(RefusalCode::Gap));
        }
        let finding_out = async {
            // Messages that an older connection of this sender has already passed on must be part of the
            // answer.
            let active = self.shared.senders.take_over(hello.sender, connection).await;
            let active = active.ok_or(Outcome::Refused(RefusalCode::Fenced))?;
            let known = queue.committed(hello.sender).await.map_err(|_| Outcome::SinkGone)?;
            let checksum = match known {
                Some(1..) if resuming => queue.last_checksum(hello.sender).await,
                _ => Ok(None),
            };
            Ok((active, known, checksum.map_err(|_| Outcome::SinkGone)?))
        };
        let heartbeat = Answer::Heartbeat.frame(self.shared.options.layout);
        let sent = AtomicUsize::new(0);
        let found = finding_out.or(self.send_heartbeats(&heartbeat, &sent)).await;
        // No answer may begin inside a heartbeat.
        let sent = sent.into_inner();
        if sent > 0 {
            let mut stream = self.stream.clone();
            let rest = async {
                let rest = &heartbeat[sent..];
                stream.write_all(rest).await.map_err(Outcome::Write)
            };
            let limit = self.shared.options.message_timeout;
            let not_taken = async {
                limit.map_or_else(Timer::never, Timer::after).await;
                Err(Outcome::NotTaken(limit.unwrap_or_default()))
            };
            rest.or(not_taken).await?;
        }
        let (active, known, checksum) = found?;
        // If neither sink nor server knows the sender, as after a restart with a file, its own number is
        // trusted: the client has kept everything that was not acknowledged.
        let before = known.unwrap_or(hello.first.saturating_sub(1));
        let acks = connection.acknowledge_from(before);
        if hello.first > before.saturating_add(1) {
            return Err(Outcome::Missing { committed: before, oldest: hello.first });
        }
        acks.attach(self.stream.clone(), self.shared.options.layout, checksum);
        let telling = spawn(tell(Arc::clone(connection)));
        self.welcomed = Some(Welcomed { telling, _active: active });
        let origin = Origin::new(connection.number, connection.peer().clone());
        Ok(origin.with_sender(hello.sender, before))
    }

    /// Sends heartbeats to a client that waits for its welcome. Ends only if the client is gone: then the
    /// welcome is no longer needed. `sent` is how much of the current one is written.
    async fn send_heartbeats<T>(&self, heartbeat: &[u8], sent: &AtomicUsize) -> Result<T, Outcome> {
        let mut stream = self.stream.clone();
        loop {
            Timer::after(REPEATED).await;
            let mut rest = heartbeat;
            while !rest.is_empty() {
                let written = stream.write(rest).await.map_err(Outcome::Write)?;
                if written == 0 {
                    return Err(Outcome::Write(io::ErrorKind::WriteZero.into()));
                }
                rest = &rest[written..];
                sent.store((heartbeat.len() - rest.len()) % heartbeat.len(), Ordering::Relaxed);
            }
            stream.flush().await.map_err(Outcome::Write)?;
        }
    }

    /// Waits until no more acknowledgements can be sent. The receiving side would not notice that by
    /// itself: a connection may still deliver messages when nothing can be written to it.
    pub(crate) async fn failed(&mut self) -> Outcome {
        let Some(welcomed) = &mut self.welcomed else { return future::pending().await };
        match (&mut welcomed.telling).await {
            Ok(()) => future::pending().await,
            Err(error) => {
                // The client still has these messages and sends them over another connection.
                self.connection.state.send(Signal::Refused);
                Outcome::Write(error)
            }
        }
    }

    /// Waits until everything that was committed has been acknowledged. `outcome` says why no more messages
    /// follow.
    pub(crate) async fn finish(&mut self, outcome: Outcome) -> Outcome {
        let Some(welcomed) = &mut self.welcomed else { return outcome };
        if let Some(acks) = self.connection.acks() {
            acks.complete();
        }
        let limit = self.shared.options.message_timeout;
        let not_taken = async {
            limit.map_or_else(Timer::never, Timer::after).await;
            Err(Outcome::NotTaken(limit.unwrap_or_default()))
        };
        let told = async { (&mut welcomed.telling).await.map_err(Outcome::Write) };
        match (told.or(not_taken).await, outcome) {
            // The client may look for another server, and knows where to resume.
            (Ok(()), Outcome::Drained) => Outcome::Refused(RefusalCode::Shutdown),
            (Ok(()), outcome) => outcome,
            (Err(failed), _) => failed,
        }
    }

    /// Stops sending acknowledgements, and lets a newer connection of the same sender begin.
    pub(crate) fn stop(&mut self) {
        // The acknowledging task may be in the middle of a poll, on another thread.
        if let Some(acks) = self.connection.acks() {
            acks.detach();
        }
        self.welcomed = None;
    }

    /// Returns the code and text of a refusal, if the client gets one for this `outcome`.
    pub(crate) fn refusal(&self, outcome: &Outcome) -> Option<(RefusalCode, String)> {
        let code = match outcome {
            Outcome::Refused(code) => *code,
            Outcome::Missing { committed, oldest } => {
                return Some((RefusalCode::Gap, missing(*committed, *oldest)));
            }
            Outcome::ForeignSender(why) => return Some((RefusalCode::Sender, why.to_string())),
            Outcome::SinkGone => RefusalCode::Sink,
            Outcome::Read(error) => return self.bad_message(error),
            _ => return None,
        };
        Some((code, code.to_string()))
    }

    /// A refusal and not a reset: after a reset the client would send the same message again, forever.
    fn bad_message(&self, error: &ReadError) -> Option<(RefusalCode, String)> {
        let ReadError::Protocol(ProtocolError { at, fault, .. }) = error else { return None };
        let number = self.committed_earlier().saturating_add(at.message);
        match fault {
            Fault::TooLarge { length, limit } => {
                let length = Count(*length, "byte");
                let text = format!("message {number} has {length}, and the server takes {limit}");
                Some((RefusalCode::TooLong, text))
            }
            Fault::TimedOut { .. } => {
                Some((RefusalCode::Late, format!("message {number} {fault}")))
            }
            _ => None,
        }
    }

    /// Returns how many messages of the sender were committed before this connection.
    fn committed_earlier(&self) -> u64 {
        self.connection.acks().map_or(0, |acks| acks.committed_earlier)
    }

    /// Sends a refusal, after [`AckSession::stop`], and gives the client a moment to read it: data that the
    /// client still sends would turn the end into a reset, which destroys the refusal in flight.
    pub(crate) async fn refuse(&mut self, code: RefusalCode, text: String) {
        let committed = self.committed_earlier().saturating_add(self.connection.committed());
        let refusal = Answer::Refusal(Refusal { committed, code, text });
        let mut last = self.connection.acks().map_or_else(Vec::new, AckState::take_unsent);
        last.extend(refusal.frame(self.shared.options.layout));
        let stream = &mut self.stream;
        let refusing = async {
            // If this fails, the client is already gone.
            if stream.write_all(&last).await.is_ok() {
                stream.close_and_wait(PARTING).await;
            }
        };
        let enough = async {
            Timer::after(PARTING).await;
        };
        refusing.or(enough).await;
    }
}

impl Drop for AckSession {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn tell(connection: Arc<OpenConnection>) -> io::Result<()> {
    let Some(acks) = connection.acks() else { return Ok(()) };
    poll_fn(|cx| acks.poll_tell(cx, || connection.progress())).await
}
