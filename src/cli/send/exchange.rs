//! The conversation without acknowledgements: sends all messages and prints the replies.

use std::cell::Cell;
use std::io;
use std::pin::{Pin, pin};
use std::time::Duration;

use ::log::debug;
use framelet::message::Direction;
use framelet::net::ByteStream;
use framelet::sink::{MessageSink, OutputSink};
use framelet::stream::{Arrival, ReadError};
use framelet::wire::{Count, EmptyFrames, Fault, ProtocolError, append_frame};
use framelet::{Batch, FrameReader};
use futures_lite::{AsyncWriteExt, FutureExt};
use smol::Timer;
use smol::channel::{Receiver, unbounded};

use super::super::exit_code::Exit;
use super::super::failure::Failure;
use super::super::flags;
use super::messages::Messages;
use super::options::Send;
use super::outgoing::Outgoing;

/// How long a server may take to close the connection after bad input. What was sent is in flight by then,
/// and the exit code reports only the bad input.
const PARTING: Duration = Duration::from_secs(1);

/// How long the end of the input may take to show once the server has closed the connection after its last
/// reply. If the input goes on, this is how long the failure is delayed.
const INPUT_END: Duration = Duration::from_secs(1);

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
        socket: ByteStream,
        limit: usize,
        messages: Messages,
        bad_input: &mut Option<Failure>,
    ) -> Result<(), Failure> {
        let mut reader = FrameReader::with_layout(socket.clone(), self.layout)
            .max_message(limit)?
            .skip(self.skip)
            .skip_empty(self.empty != EmptyFrames::Message);
        let mut output = OutputSink::stdout(self.output.for_layout(self.layout))
            .map_err(|error| Failure::output(&error))?;
        let (replied, new_replies) = unbounded();
        let written = Cell::new(0);
        let outgoing = Outgoing::new(socket.clone(), self.timeout.0);
        let mut sending = pin!(async {
            match self.each {
                true => {
                    self.send_each(&outgoing, &self.preamble.0, messages, new_replies, &written)
                        .await
                }
                false => Ok(send(&outgoing, &self.preamble.0, messages).await?),
            }
        });
        let mut closing = socket;
        // Sends heartbeats back; meanwhile nothing more is read.
        let mut sending_back: Option<SendingBack<'_>> = None;
        let (mut sent, mut replies, mut half_closed) = (None, 0, false);
        // Why no more can be sent. What the server has sent before says more.
        let mut broken = None;
        // The deadline for the server; never while there is something to send.
        let mut give_up = Timer::never();
        loop {
            if let Some(sent) = sent
                && !half_closed
                && sending_back.is_none()
                && (replies >= self.wanted(sent) || bad_input.is_some())
            {
                if self.ends_with_replies() && bad_input.is_none() {
                    break;
                }
                // Only now: many servers drop outstanding replies when the client ends its side.
                closing.close().await.map_err(|error| lost(&error, None))?;
                half_closed = true;
                give_up = match bad_input {
                    None => self.timer(),
                    Some(_) => Timer::after(self.timeout.0.map_or(PARTING, |t| t.min(PARTING))),
                };
            }
            let read = async {
                match &mut sending_back {
                    Some(sending_back) => Event::SentBack(sending_back.await),
                    None => Event::Received(reader.read_arrival().await),
                }
            };
            let event = match sent.is_none() && broken.is_none() {
                true => read.or(async { Event::Sent(sending.as_mut().await) }).await,
                false => {
                    let timed_out = async {
                        (&mut give_up).await;
                        Event::TimedOut
                    };
                    read.or(timed_out).await
                }
            };
            let end = match event {
                Event::Sent(Err(Unsent::Lost(error))) => {
                    broken = Some(error);
                    give_up = Timer::after(PARTING);
                    continue;
                }
                Event::Sent(Err(Unsent::Failed(failure))) => {
                    return Err(self.with_part_of_reply(failure, &mut reader));
                }
                Event::Sent(Ok(Sent { messages, input })) => {
                    *bad_input = input;
                    if bad_input.is_some() && messages == 0 {
                        return Ok(());
                    }
                    sent = Some(messages);
                    give_up = self.timer();
                    continue;
                }
                Event::SentBack(result) => {
                    result.map_err(|error| lost(&error, None))?;
                    sending_back = None;
                    continue;
                }
                Event::Received(Ok(Some(Arrival::Heartbeats(heartbeats)))) => {
                    if self.empty == EmptyFrames::Echo && !half_closed {
                        sending_back = Some(Box::pin(self.send_back(heartbeats, &outgoing)));
                    }
                    continue;
                }
                Event::Received(Ok(Some(Arrival::Messages(mut payloads)))) => {
                    let came = payloads.len() as u64;
                    // How many more than asked for have arrived by now is chance, so none is printed.
                    let most = match self.expect {
                        Some(expect) if !self.hang_up => expect.saturating_sub(replies),
                        _ => u64::MAX,
                    };
                    replies += came;
                    if most > 0 {
                        payloads.truncate(usize::try_from(most).unwrap_or(usize::MAX));
                        output
                            .commit(&[Batch::from(payloads).with_direction(Direction::In)])
                            .map_err(|error| Failure::output(&error.into()))?;
                    }
                    // Cannot fail while anybody waits for it.
                    let _ = replied.try_send(came);
                    // Replies that nobody waits for do not put off the end.
                    let waits = self.each || self.expect.is_some_and(|expect| replies < expect);
                    if waits && bad_input.is_none() && broken.is_none() {
                        give_up = self.timer();
                    }
                    continue;
                }
                // The server has been told that no more follows, and that is enough.
                Event::TimedOut if bad_input.is_some() => break,
                Event::TimedOut if broken.is_some() => None,
                Event::TimedOut => {
                    return Err(self.with_part_of_reply(self.not_closed(replies), &mut reader));
                }
                Event::Received(Ok(None)) => None,
                Event::Received(Err(error)) => Some(error),
            };
            if let Some(error) = &broken {
                return Err(match &end {
                    Some(error @ ReadError::Protocol(_)) => self.bad_reply(error),
                    _ => lost(error, end.as_ref()),
                });
            }
            // The server has ended the connection. If all replies have come and nothing is left to send, which
            // may not have been noticed yet, this is no failure.
            let all_replied = match self.each {
                true => replies >= written.get(),
                false => self.expect.is_some_and(|expect| replies >= expect),
            };
            if sent.is_none() && all_replied && (end.is_none() || !self.hang_up) {
                replied.close();
                let late = async {
                    Timer::after(INPUT_END).await;
                    Err(self.closed_early(replies).into())
                };
                let Sent { messages, input } = match sending.as_mut().or(late).await {
                    Ok(sent) => sent,
                    Err(Unsent::Lost(error)) => return Err(lost(&error, None)),
                    Err(Unsent::Failed(failure)) => return Err(failure),
                };
                (sent, *bad_input) = (Some(messages), input);
                break;
            }
            match end {
                None if sent.is_some() => break,
                None if self.each && !all_replied => return Err(no_reply(written.get())),
                None => return Err(self.closed_early(replies)),
                Some(ref read @ ReadError::Io { ref error, .. }) => {
                    return Err(lost(error, Some(read)));
                }
                Some(error) => return Err(self.bad_reply(&error)),
            }
        }
        if self.tls && !half_closed {
            let enough = async {
                Timer::after(PARTING).await;
                Ok(())
            };
            // Without it, the server would log that the connection was cut. If it fails, the server has left.
            let _ = closing.close().or(enough).await;
        }
        let sent = sent.unwrap_or_default();
        debug!("sent {}, received {}", Count(sent, "message"), count_replies(replies));
        let wanted = self.wanted(sent);
        if replies < wanted && bad_input.is_none() {
            let message = format!(
                "the server closed the connection after {replies} of {wanted} replies (--expect)"
            );
            return Err(Failure::new(Exit::Timeout, message));
        }
        Ok(())
    }

    /// Sends each message after the reply to the one before it, and waits for the last reply. Counts the
    /// messages in `written`; `new_replies` is closed if no more can be sent.
    async fn send_each(
        &self,
        outgoing: &Outgoing,
        preamble: &[u8],
        mut messages: Messages,
        new_replies: Receiver<u64>,
        written: &Cell<u64>,
    ) -> Result<Sent, Unsent> {
        outgoing.write(preamble).await?;
        let (mut sent, mut replies) = (Sent::default(), 0);
        while let Some(composed) = messages.next().await {
            let chunk = match composed {
                Ok(chunk) => chunk,
                Err(failure) => {
                    sent.input = Some(failure);
                    continue;
                }
            };
            for frame in chunk.parts() {
                if new_replies.is_closed() {
                    return Err(self.closed_early(replies).into());
                }
                sent.messages += 1;
                // Counted first: the reply may be there before the write has returned.
                written.set(sent.messages);
                outgoing.write(frame).await?;
                let late = async {
                    self.timer().await;
                    Err(self.no_reply_in_time(sent.messages))
                };
                let reply = async {
                    while replies < sent.messages {
                        match new_replies.recv().await {
                            Ok(more) => replies += more,
                            Err(_) => return Err(no_reply(sent.messages)),
                        }
                    }
                    Ok(())
                };
                reply.or(late).await.map_err(Unsent::Failed)?;
            }
        }
        Ok(sent)
    }

    /// Sends heartbeats back, as soon as no frame is being written.
    async fn send_back(&self, heartbeats: u64, outgoing: &Outgoing) -> io::Result<()> {
        let mut frame = Vec::new();
        // Cannot fail: the layout has such frames, since some have arrived.
        let _ = append_frame(&mut frame, self.layout, 0, &[]);
        // They were read together, so they take little memory.
        let frames = frame.repeat(usize::try_from(heartbeats).unwrap_or_default());
        outgoing.write(&frames).await
    }

    /// Returns how many replies are awaited in all, once this many messages have been sent.
    fn wanted(&self, sent: u64) -> u64 {
        if self.each { sent } else { self.expect.unwrap_or(0) }
    }

    /// Returns whether the replies are the end, whatever the server does with the connection.
    fn ends_with_replies(&self) -> bool {
        (self.each || self.expect.is_some()) && !self.hang_up
    }

    fn bad_reply(&self, error: &ReadError) -> Failure {
        if let ReadError::Protocol(ProtocolError { fault, prefix, .. }) = error
            && self.addr.starts_with("unix:")
            && prefix == &[0xff]
            && !matches!(fault, Fault::TruncatedPayload { got: 1.., .. })
        {
            // This is how a framelet server aborts a connection that has no reset.
            let message =
                "the server cut the connection; messages may not have arrived (its log says why)";
            return Failure::new(Exit::Network, message);
        }
        Failure::new(Exit::Protocol, format!("reply from the server: {}", flags::of_reply(error)))
    }

    /// Adds to a failure what the server has sent of a reply, and what these bytes most likely are.
    fn with_part_of_reply(
        &self,
        failure: Failure,
        reader: &mut FrameReader<ByteStream>,
    ) -> Failure {
        if !reader.in_message() {
            return failure;
        }
        failure.advise(&part_of_reply(&reader.expire(self.timeout.0.unwrap_or_default())))
    }

    fn closed_early(&self, replies: u64) -> Failure {
        let message = match self.each || self.expect.is_some() {
            true => format!(
                "the server closed the connection after {}, before the end of the input",
                count_replies(replies)
            ),
            false => "the server closed the connection before the end of the input; it may not have read \
                      everything that was sent"
                .into(),
        };
        Failure::new(Exit::Network, message)
    }

    fn no_reply_in_time(&self, message: u64) -> Failure {
        let timeout = humantime::format_duration(self.timeout.0.unwrap_or_default());
        let message = format!("no reply to message {message} within {timeout} (--each, --timeout)");
        Failure::new(Exit::Timeout, message)
    }

    fn not_closed(&self, replies: u64) -> Failure {
        let timeout = humantime::format_duration(self.timeout.0.unwrap_or_default());
        let message = match self.expect {
            Some(expect) if replies < expect => format!(
                "{replies} of {expect} replies came, and no more within {timeout} (--expect, \
                 --timeout)"
            ),
            _ => format!(
                "the server has not closed the connection within {timeout} of the end of the input or its \
                 last reply (--timeout); it may not have read everything"
            ),
        };
        Failure::new(Exit::Timeout, message)
    }
}

/// Sends heartbeats back.
type SendingBack<'a> = Pin<Box<dyn Future<Output = io::Result<()>> + 'a>>;

enum Event {
    Sent(Result<Sent, Unsent>),
    Received(Result<Option<Arrival>, ReadError>),
    SentBack(io::Result<()>),
    TimedOut,
}

/// How many messages were sent, and why no more were, if that is the input's fault.
#[derive(Default)]
struct Sent {
    messages: u64,
    input: Option<Failure>,
}

/// Why not everything was sent.
enum Unsent {
    /// The connection failed.
    Lost(io::Error),
    Failed(Failure),
}

impl From<io::Error> for Unsent {
    fn from(error: io::Error) -> Self {
        Unsent::Lost(error)
    }
}

impl From<Failure> for Unsent {
    fn from(failure: Failure) -> Self {
        Unsent::Failed(failure)
    }
}

/// Sends the preamble, at once, and the composed messages.
async fn send(outgoing: &Outgoing, preamble: &[u8], mut messages: Messages) -> io::Result<Sent> {
    outgoing.write(preamble).await?;
    let mut sent = Sent::default();
    while let Some(composed) = messages.next().await {
        match composed {
            Ok(chunk) => {
                outgoing.write(&chunk.bytes).await?;
                sent.messages += chunk.messages;
            }
            Err(failure) => sent.input = Some(failure),
        }
    }
    Ok(sent)
}

fn count_replies(replies: u64) -> String {
    format!("{replies} {}", if replies == 1 { "reply" } else { "replies" })
}

fn no_reply(message: u64) -> Failure {
    let message =
        format!("the server closed the connection without a reply to message {message} (--each)");
    Failure::new(Exit::Timeout, message)
}

/// The connection failed while messages were in flight. `read` is the error of reading, if that is known.
fn lost(error: &io::Error, read: Option<&ReadError>) -> Failure {
    let hint = match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            " (the server closed it without an orderly end; its log says why)"
        }
        _ => "",
    };
    let part = match read {
        Some(read @ ReadError::Io { got: 1.., .. }) => part_of_reply(read),
        _ => String::new(),
    };
    let message = format!(
        "the connection to the server was lost: {}; messages may not have arrived{hint}{part}",
        flags::of_io(error)
    );
    Failure::new(Exit::Network, message)
}

/// Says how much of a reply the server has sent, and what these bytes most likely are.
fn part_of_reply(error: &ReadError) -> String {
    format!("; the server sent part of a reply: {}", flags::of_reply(error))
}
