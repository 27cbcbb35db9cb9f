//! `framelet send`: composes messages and sends them, and prints replies.

use std::future::pending;
use std::io::{self, IsTerminal};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::pin::pin;
use std::time::{Duration, Instant};

use ::log::{LevelFilter, debug};
use argh::{ArgsInfo, FromArgs};
use framelet::format::{InputFormat, OutputFormat};
use framelet::net::{Backoff, ByteStream};
use framelet::sink::{MessageSink, OutputSink};
use framelet::stream::{Payloads, ReadError};
use framelet::wire::{Count, Fault, ProtocolError, SenderId};
use framelet::{Address, Batch, FrameReader, Layout};
use futures_lite::future::block_on;
use futures_lite::{AsyncWriteExt, FutureExt};
use smol::Timer;
use smol::channel::{self, Receiver, Sender};

use super::exit_code::Exit;
use super::failure::{Failure, plain};
use super::flags;
use super::input::{Chunk, Framer};
use super::log;
use super::process::check_threads;
use super::values::{DEFAULT_ADDRESS, Timeout, address, count, duration, size, timeout};

mod ack;
mod identity; // the sender's id, and its state file
mod progress;

use progress::{Input, Progress};

/// The most chunks of composed messages that wait to be sent.
const AHEAD: usize = 4;

/// A chunk of more bytes than this waits alone: the next one is composed after it was sent.
const LARGE: usize = 1024 * 1024;

/// How long a server may take to close the connection after bad input. What was sent is in flight by then,
/// and the exit code reports only the bad input.
const PARTING: Duration = Duration::from_secs(1);

/// The shortest and the longest wait between two attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Sends messages from standard input, and prints replies.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "send",
    help_triggers("-h", "--help", "help"),
    note = "At the end of the input, send waits until the server closes the connection: it has then read everything, and a framelet server has also written it. Behind a proxy a close says nothing; only --ack tells.",
    note = "The sender's id is that of --sender-file or --sender, else of the variable FRAMELET_SENDER, else a random one. Whoever knows it can take the sender's place; --sender shows it in the list of processes."
)]
pub(crate) struct Send {
    /// where to connect to (default: 127.0.0.1:4747)
    #[argh(positional, arg_name = "ADDR", default = "DEFAULT_ADDRESS.into()")]
    addr: String,

    /// how messages are read from the input (default: text)
    #[argh(option, arg_name = "FORMAT")]
    input: Option<InputFormat>,

    /// send this text instead of standard input; may be repeated
    #[argh(option, arg_name = "TEXT")]
    message: Vec<String>,

    /// end after the first message
    #[argh(switch)]
    once: bool,

    /// how replies are printed (default: lines)
    #[argh(option, arg_name = "FORMAT", default = "OutputFormat::Lines")]
    output: OutputFormat,

    /// wait for this many replies before ending the connection (default: 0)
    #[argh(option, arg_name = "N", from_str_fn(count), default = "0")]
    expect: u64,

    /// longest silence of the server while something is awaited of it (default: 10s)
    #[argh(
        option,
        arg_name = "DURATION",
        from_str_fn(timeout),
        default = "Timeout(Some(Duration::from_secs(10)))"
    )]
    timeout: Timeout,

    /// give up after this long without a connection (default: at once; with --ack 30s)
    #[argh(option, arg_name = "DURATION", from_str_fn(duration))]
    retry: Option<Duration>,

    /// ask for acknowledgements; reconnect and send again what is not committed
    #[argh(switch)]
    ack: bool,

    /// with --ack: most messages to await acknowledgement, in 8 MiB at most (default: 4000)
    #[argh(option, arg_name = "N", from_str_fn(window))]
    window: Option<usize>,

    /// with --ack: file that holds the sender's id and progress; created if missing
    #[argh(option, arg_name = "PATH")]
    sender_file: Option<String>,

    /// with --ack: the sender's id, 32 hexadecimal digits (default: a random one)
    #[argh(option, arg_name = "ID")]
    sender: Option<SenderId>,

    /// with an id: skip what is committed; give the same input as before, from its start (another one is
    /// refused)
    #[argh(switch)]
    resume: bool,

    /// with --ack: if the server has lost messages, number the rest after those it has
    #[argh(switch)]
    renumber: bool,

    /// how lengths are written (default: u32be)
    #[argh(option, arg_name = "LAYOUT", default = "Layout::U32BE")]
    layout: Layout,

    /// longest message to send or accept (default: 8MiB)
    #[argh(option, arg_name = "SIZE", from_str_fn(size))]
    max_message: Option<usize>,

    /// log attempts to connect, and how much was sent
    #[argh(switch, short = 'v')]
    verbose: bool,
}

/// Parses how many messages may wait.
fn window(text: &str) -> Result<usize, String> {
    let window = text.parse().map_err(|_| "not a number; write digits only")?;
    if window == 0 { Err("must be at least 1".into()) } else { Ok(window) }
}

/// Messages from the composing thread: chunks, and perhaps finally the error that stopped it.
type Composed = Result<Chunk, Failure>;

/// The composed messages. The first chunk can be inspected before anything is sent.
struct Messages {
    composed: Receiver<Composed>,
    first: Option<Composed>,
}

impl Messages {
    /// Returns the next chunk; `None` at the end.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if it is dropped.
    async fn next(&mut self) -> Option<Composed> {
        match self.first.take() {
            None => self.composed.recv().await.ok(),
            first => first,
        }
    }

    /// Waits until bad input has left nothing to send, which may never happen.
    async fn bad_from_the_start(&mut self) -> Failure {
        if self.first.is_none() {
            self.first = self.composed.recv().await.ok();
        }
        match self.first.take() {
            Some(Err(failure)) => failure,
            first => {
                self.first = first;
                pending().await
            }
        }
    }
}

impl Send {
    pub(crate) fn run(self) -> Result<(), Failure> {
        log::start(if self.verbose { LevelFilter::Debug } else { LevelFilter::Info });
        let address = address(&self.addr).map_err(|failure| self.is_file(failure))?;
        let limit = self.layout.limit(self.max_message)?;
        if !self.message.is_empty() && self.input.is_some() {
            let message = "--message takes the place of the input, so --input has no use with it";
            return Err(Failure::new(Exit::Usage, message));
        }
        ack::check(&self)?;
        let terminal = self.message.is_empty() && io::stdin().is_terminal();
        if self.ack {
            check_threads()?;
            let shown = Progress::is_looked_at(terminal, self.verbose);
            let input = (shown && self.message.is_empty()).then(Input::stdin).flatten();
            let progress = shown.then(|| Progress::new(input.as_ref().map(Input::len)));
            let messages = self.compose(limit, input)?;
            return block_on(ack::run(&self, &address, terminal, messages, progress));
        }
        let mut messages = self.compose(limit, None)?;
        block_on(async {
            let bad = async { Err(messages.bad_from_the_start().await) };
            let stream = self.connect(&address).or(bad).await?;
            debug!("connected to {address}");
            if terminal {
                self.say_how_to_send(&address);
            }
            self.exchange(stream, limit, messages).await
        })
    }

    /// Returns a hint if the address looks like the input.
    fn is_file(&self, failure: Failure) -> Failure {
        let file = &self.addr;
        match Path::new(file).is_file() {
            true => Failure::new(
                Exit::Usage,
                format!(
                    "{file} is a file, not an address; send reads standard input, as in \
                     framelet send ADDR < {file}"
                ),
            ),
            false => failure,
        }
    }

    fn say_how_to_send(&self, address: &Address) {
        let how = match self.input.unwrap_or_default() {
            InputFormat::Text => "type lines, an empty line sends them; Ctrl-D ends",
            InputFormat::Whole => "type a message; Ctrl-D sends it and ends",
            InputFormat::Nul => "a NUL byte (Ctrl-@) sends what was typed; Ctrl-D ends",
            InputFormat::Frames(_) => "waiting for frames on standard input; Ctrl-D ends",
            _ => "each line is sent as a message; Ctrl-D ends",
        };
        log::say(format!("connected to {address}; {how}"));
    }

    /// Starts composing messages, on a thread of its own: reading from a terminal cannot be cancelled.
    /// Tracks how much of `input` has been read.
    fn compose(&self, limit: usize, input: Option<Input>) -> Result<Messages, Failure> {
        let (sender, composed) = channel::bounded(AHEAD);
        let messages = Messages { composed, first: None };
        let (layout, once) = (self.layout, self.once);
        let new_chunk: fn() -> Chunk = match self.ack {
            true => Chunk::of_payloads,
            false => Chunk::of_frames,
        };
        if !self.message.is_empty() {
            let mut chunk = new_chunk();
            let taken = if once { 1 } else { self.message.len() };
            for (number, message) in (1..).zip(self.message.iter().take(taken)) {
                chunk.append(layout, limit, message.as_bytes()).map_err(|error| {
                    let message = format!("--message {number}: {}", flags::of_message(&error));
                    Failure::new(Exit::Protocol, message)
                })?;
            }
            // Cannot fail: the queue is new and has room.
            let _ = sender.try_send(Ok(chunk));
            return Ok(messages);
        }
        let framer = Framer::new(None, self.input.unwrap_or_default(), layout, limit)?;
        std::thread::Builder::new()
            .name("framelet-input".into())
            .spawn(move || {
                let composing =
                    AssertUnwindSafe(|| compose(framer, new_chunk, once, input, &sender));
                if catch_unwind(composing).is_err() {
                    // Reported, because it would otherwise look like the end of the input.
                    let message = "a bug in framelet ended the reading of the input";
                    let _ = sender.send_blocking(Err(Failure::new(Exit::Usage, message)));
                }
            })
            .map_err(|error| Failure::new(Exit::Usage, plain(&error)))?;
        Ok(messages)
    }

    async fn connect(&self, address: &Address) -> Result<ByteStream, Failure> {
        let started = Instant::now();
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        loop {
            let timed_out = async {
                self.timer().await;
                Err(io::ErrorKind::TimedOut.into())
            };
            let attempt = address.connect().or(timed_out);
            let error = match attempt.await {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            let left = self.retry.unwrap_or_default().saturating_sub(started.elapsed());
            if left.is_zero() {
                return Err(self.not_connected(address, &error));
            }
            debug!("cannot connect to {address}: {}; retrying", plain(&error));
            Timer::after(backoff.next_wait().min(left)).await;
        }
    }

    fn not_connected(&self, address: &Address, error: &io::Error) -> Failure {
        let retry = self.retry.unwrap_or(if self.ack { ack::RETRY } else { Duration::ZERO });
        let (tried, hint) = match retry.is_zero() {
            true => (String::new(), "; is the server running? (--retry 10s keeps trying)"),
            false => (format!(" within {}", humantime::format_duration(retry)), ""),
        };
        Failure::to_connect(address, &tried, error, hint)
    }

    /// Sends all messages and prints all replies, until both sides have finished.
    async fn exchange(
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
        let mut reader =
            FrameReader::with_layout(socket.clone(), self.layout).max_message(limit)?;
        let mut output =
            OutputSink::stdout(self.output).map_err(|error| Failure::output(&error))?;
        let mut sending = pin!(send(socket.clone(), messages));
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

    fn timer(&self) -> Timer {
        self.timeout.0.map_or_else(Timer::never, Timer::after)
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

/// Sends the composed messages.
async fn send(mut socket: ByteStream, mut messages: Messages) -> io::Result<Sent> {
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

/// Composes messages, one chunk per read.
fn compose(
    mut framer: Framer,
    new_chunk: fn() -> Chunk,
    once: bool,
    mut input: Option<Input>,
    chunks: &Sender<Composed>,
) {
    let most = if once { 1 } else { u64::MAX };
    loop {
        let mut chunk = new_chunk();
        let more = framer.read(&mut chunk, most);
        chunk.read = input.as_mut().map_or(0, Input::read);
        let enough = chunk.messages >= most;
        let dropped = (chunk.bytes.len() > LARGE).then(|| chunk.dropped());
        // The queue is closed if the connection is lost: then nobody needs more.
        if chunk.messages > 0 && chunks.send_blocking(Ok(chunk)).is_err() {
            return;
        }
        if let Some(dropped) = dropped {
            // One such chunk takes enough memory, so wait until it is dropped. Nothing is ever received
            // here.
            let _ = dropped.recv();
        }
        match more {
            // With --one, anything may follow the first message.
            _ if enough => return,
            Ok(true) => {}
            Ok(false) => return,
            Err(failure) => {
                let _ = chunks.send_blocking(Err(failure));
                return;
            }
        }
    }
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
