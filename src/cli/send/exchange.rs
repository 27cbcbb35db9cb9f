//! The conversation without acknowledgements: sends all messages and prints the replies.

use std::io;
use std::pin::pin;
use std::time::Duration;

use ::log::debug;
use framelet::net::ByteStream;
use framelet::sink::{MessageSink, OutputSink};
use framelet::stream::{Payloads, ReadError};
use framelet::wire::{Count, Fault, ProtocolError};
use framelet::{Batch, FrameReader};
use futures_lite::{AsyncWriteExt, FutureExt};
use smol::Timer;

use super::super::exit_code::Exit;
use super::super::failure::{Failure, plain};
use super::super::flags;
use super::Send;
use super::messages::Messages;

/// How long a server may take to close the connection after bad input. What was sent is in flight by then,
/// and the exit code reports only the bad input.
const PARTING: Duration = Duration::from_secs(1);

impl Send {
    /// Sends all messages and prints all replies, until both sides have finished.
    pub(super) async fn exchange(
        &self,
        socket: ByteStream,
        limit: usize,
        messages: Messages,
    ) -> Result<(), Failure> {
        let mut bad_input = None;
        let ended = self.converse(socket, limit, messages, &mut bad_input).await;
        match (bad_input, ended) {
            (None, ended) => ended,
            (Some(bad_input), Ok(())) => Err(bad_input),
            (Some(bad_input), Err(failure)) => Err(bad_input.and(failure)),
        }
    }

    /// Does the same, but stores bad input in `bad_input` instead of failing.
    async fn converse(
        &self,
        mut socket: ByteStream,
        limit: usize,
        messages: Messages,
        bad_input: &mut Option<Failure>,
    ) -> Result<(), Failure> {
        let mut reader = FrameReader::with_layout(socket.clone(), self.layout)
            .max_message(limit)?
            .skip(self.skip);
        let header = self.proxy_protocol.map(|version| version.header(socket.addresses()));
        let preamble = [&header.unwrap_or_default(), &self.preamble.0[..]].concat();
        let mut output =
            OutputSink::stdout(self.output).map_err(|error| Failure::output(&error))?;
        let mut sending = pin!(send(socket.clone(), &preamble, messages));
        let (mut sent, mut replies, mut half_closed) = (None, 0, false);
        // The deadline for the server; `None` while there is something to send.
        let mut give_up = Timer::never();
        loop {
            let enough = replies >= self.expect || bad_input.is_some();
            if sent.is_some() && !half_closed && enough {
                // Only now: many servers drop outstanding replies when the client ends its side.
                socket.close().await.map_err(|error| lost(&error))?;
                half_closed = true;
                give_up = match bad_input {
                    None => self.timer(),
                    Some(_) => Timer::after(self.timeout.0.map_or(PARTING, |t| t.min(PARTING))),
                };
            }
            let read = async { Event::Received(reader.read_batch().await) };
            let event = match &sent {
                None => read.or(async { Event::Sent(sending.as_mut().await) }).await,
                Some(_) => {
                    let timed_out = async {
                        (&mut give_up).await;
                        Event::TimedOut
                    };
                    read.or(timed_out).await
                }
            };
            match event {
                Event::Sent(result) => {
                    let Sent { messages, input } = result.map_err(|error| lost(&error))?;
                    *bad_input = input;
                    if bad_input.is_some() && messages == 0 {
                        return Ok(());
                    }
                    sent = Some(messages);
                    give_up = self.timer();
                }
                Event::Received(Ok(Some(payloads))) => {
                    replies += payloads.len() as u64;
                    output
                        .commit(&[Batch::from(payloads)])
                        .map_err(|error| Failure::output(&error.into()))?;
                }
                Event::Received(Ok(None)) if sent.is_some() => break,
                Event::Received(Ok(None)) => {
                    return Err(Failure::new(
                        Exit::Network,
                        "the server closed the connection before the end of the input; it may not have \
                         read everything that was sent",
                    ));
                }
                Event::Received(Err(ReadError::Io { error, .. })) => return Err(lost(&error)),
                Event::Received(Err(error)) => return Err(self.bad_reply(&error)),
                // The server has been told that no more follows, and that is enough.
                Event::TimedOut if bad_input.is_some() => break,
                Event::TimedOut => return Err(self.not_closed(replies)),
            }
        }
        let sent = Count(sent.unwrap_or_default(), "message");
        debug!(
            "sent {sent}, received {replies} {}",
            if replies == 1 { "reply" } else { "replies" }
        );
        if replies < self.expect && bad_input.is_none() {
            let message = format!(
                "the server closed the connection after {replies} of {} replies (--expect)",
                self.expect
            );
            return Err(Failure::new(Exit::Timeout, message));
        }
        Ok(())
    }

    fn bad_reply(&self, error: &ReadError) -> Failure {
        if let ReadError::Protocol(ProtocolError {
            fault: Fault::TruncatedPrefix { .. },
            prefix,
            ..
        }) = error
            && self.addr.starts_with("unix:")
            && prefix == &[0xff]
        {
            // Half a frame: this is how a framelet server aborts a connection that has no reset.
            let message =
                "the server cut the connection; messages may not have arrived (its log says why)";
            return Failure::new(Exit::Network, message);
        }
        Failure::new(Exit::Protocol, format!("reply from the server: {}", flags::of_stream(error)))
    }

    fn not_closed(&self, replies: u64) -> Failure {
        let timeout = humantime::format_duration(self.timeout.0.unwrap_or_default());
        let message = if replies < self.expect {
            format!(
                "{replies} of {} replies came within {timeout} (--expect, --timeout)",
                self.expect
            )
        } else {
            format!(
                "the server has not closed the connection within {timeout} of the end of the input \
                 (--timeout); it may not have read everything"
            )
        };
        Failure::new(Exit::Timeout, message)
    }
}

enum Event {
    Sent(io::Result<Sent>),
    Received(Result<Option<Payloads>, ReadError>),
    TimedOut,
}

/// How many messages were sent, and why no more were, if that is the input's fault.
#[derive(Default)]
struct Sent {
    messages: u64,
    input: Option<Failure>,
}

/// Sends the preamble, at once, and the composed messages.
async fn send(mut socket: ByteStream, preamble: &[u8], mut messages: Messages) -> io::Result<Sent> {
    socket.write_all(preamble).await?;
    let mut sent = Sent::default();
    while let Some(composed) = messages.next().await {
        match composed {
            Ok(chunk) => {
                socket.write_all(&chunk.bytes).await?;
                sent.messages += chunk.messages;
            }
            Err(failure) => sent.input = Some(failure),
        }
    }
    Ok(sent)
}

/// The connection failed while messages were in flight.
fn lost(error: &io::Error) -> Failure {
    let hint = match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            " (the server closed it without an orderly end; its log says why)"
        }
        _ => "",
    };
    let message = format!(
        "the connection to the server was lost: {}; messages may not have arrived{hint}",
        plain(error)
    );
    Failure::new(Exit::Network, message)
}
