//! `framelet send`: composes messages and sends them, and prints replies.

use std::io::{self, IsTerminal};
use std::path::Path;

use ::log::{LevelFilter, debug};
use framelet::Address;
use framelet::format::InputFormat;
use framelet::wire::EmptyFrames;
use futures_lite::FutureExt;
use futures_lite::future::block_on;

use super::exit_code::Exit;
use super::failure::{Failure, quoted};
use super::log;
use super::process::check_threads;
use super::values::{address, check_empty};
pub(crate) use options::Send;
use progress::{InputFile, Progress};

mod ack; // the conversation with acknowledgements
mod connect;
mod exchange; // the conversation without them
mod identity; // the sender's id, and its state file
mod messages; // what is sent
mod options;
mod outgoing; // the direction to the server
mod progress;

impl Send {
    pub(crate) fn run(self) -> Result<(), Failure> {
        log::start(if self.verbose { LevelFilter::Debug } else { LevelFilter::Info });
        let address = address(&self.addr).map_err(|failure| self.is_file(failure))?;
        let limit = self.layout.limit(self.max_message)?;
        self.check()?;
        let tls = self.tls(&address)?;
        let terminal = self.message.is_empty() && io::stdin().is_terminal();
        if self.ack {
            check_threads()?;
            let shown = Progress::is_looked_at(terminal, self.verbose);
            let input = (shown && self.message.is_empty()).then(InputFile::stdin).flatten();
            let progress = shown.then(|| Progress::new(input.as_ref().map(InputFile::len)));
            let messages = self.compose(limit, input)?;
            return block_on(ack::run(&self, &address, tls, terminal, messages, progress));
        }
        let mut messages = self.compose(limit, None)?;
        block_on(async {
            let bad = async { Err(messages.bad_from_the_start().await) };
            let stream = self.connect(&address, tls.as_ref()).or(bad).await?;
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
        check_empty(self.empty, self.layout)?;
        if self.ack && self.empty != EmptyFrames::Message {
            let message =
                "with acknowledgements each frame is a message, also an empty one (--ack, --empty)";
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
                     framelet send ADDR < {}",
                    quoted(Path::new(file))
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
