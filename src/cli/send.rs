//! `framelet send`: composes messages and sends them, and prints replies.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::Duration;

use ::log::{LevelFilter, debug};
use argh::{ArgsInfo, FromArgs};
use framelet::format::{InputFormat, OutputFormat};
use framelet::wire::{ProxyVersion, SenderId};
use framelet::{Address, Layout};
use futures_lite::FutureExt;
use futures_lite::future::block_on;

use super::exit_code::Exit;
use super::failure::Failure;
use super::log;
use super::process::check_threads;
use super::values::{
    Bytes, DEFAULT_ADDRESS, DefaultHeader, Timeout, address, bytes, count, duration, header,
    layout, size, timeout,
};
use progress::{Input, Progress};

mod ack; // the conversation with acknowledgements
mod connect;
mod exchange; // the conversation without them
mod identity; // the sender's id, and its state file
mod messages; // what is sent
mod progress;

/// Sends messages from standard input, and prints replies.
#[derive(FromArgs, ArgsInfo)]
#[argh(
    subcommand,
    name = "send",
    help_triggers("-h", "--help", "help"),
    note = "Without --expect and --each, send waits at the end of the input until the server closes the connection: it has then read everything, and a framelet server has also written it. Through a proxy, a close proves nothing; only --ack proves delivery.",
    note = "The sender's id is that of --sender-file or --sender, else of the variable FRAMELET_SENDER, else a random one. Anyone who knows it can take the sender's place; --sender shows it in the list of processes."
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

    /// end once everything is sent and this many replies have come
    #[argh(option, arg_name = "N", from_str_fn(count))]
    expect: Option<u64>,

    /// wait for a reply after each message, and end after the last reply
    #[argh(switch)]
    each: bool,

    /// with --expect or --each: half-close after the last reply; wait until the server closes the connection
    #[argh(switch)]
    hang_up: bool,

    /// longest wait for the connection, for each reply, and for the server to close it (default: 10s)
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
    #[argh(option, arg_name = "LAYOUT", default = "Layout::U32BE", from_str_fn(layout))]
    layout: Layout,

    /// header of messages that bring none, in hexadecimal, for a layout that has one (default: zeros)
    #[argh(option, arg_name = "HEX", from_str_fn(header), default = "DefaultHeader::default()")]
    header: DefaultHeader,

    /// send a PROXY header first, as a load balancer does: v1 or v2
    #[argh(option, arg_name = "V")]
    proxy_protocol: Option<ProxyVersion>,

    /// bytes to send first, in hexadecimal
    #[argh(option, arg_name = "HEX", from_str_fn(bytes), default = "Bytes::default()")]
    preamble: Bytes,

    /// how many bytes the other side sends first, to be skipped (default: 0)
    #[argh(option, arg_name = "N", from_str_fn(count), default = "0")]
    skip: u64,

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

impl Send {
    pub(crate) fn run(self) -> Result<(), Failure> {
        log::start(if self.verbose { LevelFilter::Debug } else { LevelFilter::Info });
        let address = address(&self.addr).map_err(|failure| self.is_file(failure))?;
        let limit = self.layout.limit(self.max_message)?;
        self.check()?;
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

    /// Checks that the options are consistent.
    fn check(&self) -> Result<(), Failure> {
        if !self.message.is_empty() && self.input.is_some() {
            let message = "--message takes the place of the input, so --input has no use with it";
            return Err(Failure::new(Exit::Usage, message));
        }
        if self.ack && (!self.preamble.0.is_empty() || self.skip > 0) {
            let message =
                "a connection with a preamble has no acknowledgements (--ack, --preamble, --skip)";
            return Err(Failure::new(Exit::Usage, message));
        }
        if self.ack && self.proxy_protocol.is_some() {
            let message = "--proxy-protocol is for sending without --ack; a load balancer adds its own header";
            return Err(Failure::new(Exit::Usage, message));
        }
        self.header.check(self.layout)?;
        ack::check(self)?;
        let message = match self.expect {
            Some(0) => {
                "--expect must be at least 1; without it, send waits until the server closes the connection"
            }
            Some(_) if self.each => {
                "--each and --expect contradict each other: --each awaits as many replies as messages"
            }
            None if self.hang_up && !self.each => {
                "--hang-up has no use without --expect or --each: send then hangs up anyway"
            }
            _ => return Ok(()),
        };
        Err(Failure::new(Exit::Usage, message))
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
}
