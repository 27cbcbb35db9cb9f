//! What was typed, what it means, and how it ends.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::mem;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use argh::FromArgs;
use framelet::{
    Address, Composer, InputError, InputFault, InputFormat, Layout, LimitError, PatientFile,
    TooLong, WithoutPassword, append_frame,
};
use parse_size::parse_size;

// The only place that knows whether this build has it.
#[cfg(feature = "bench")]
mod bench;
#[cfg(not(feature = "bench"))]
#[path = "cli/no_bench.rs"]
mod bench;
mod decode;
mod encode;
mod log;
// Likewise.
#[cfg(not(feature = "progress"))]
#[path = "cli/no_progress.rs"]
mod progress;
#[cfg(feature = "progress")]
mod progress;
mod send;
mod serve;
mod signals;

/// Where `serve` and `send` meet if nothing else is said.
const DEFAULT_ADDRESS: &str = "127.0.0.1:4747";

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The network: refused, reset, closed early, unacknowledged.
    Network = 1,
    /// The command line, a local file, or input that is not in its format.
    Usage = 2,
    /// The protocol: over-long, truncated, malformed, no acknowledgements.
    Protocol = 3,
    /// It took too long, or there were fewer replies than expected.
    Timeout = 4,
    /// Standard output was closed by its reader: what a shell shows for a program ended by SIGPIPE.
    ClosedOutput = 141,
}

/// Why the program ends other than well: what to say, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: Some(message.into()) }
    }

    /// The failure of a write to standard output.
    pub(crate) fn output(error: &io::Error) -> Failure {
        if error.kind() == io::ErrorKind::BrokenPipe {
            // Who closes a pipe has seen enough and needs no explanation.
            return Failure { exit: Exit::ClosedOutput, message: None };
        }
        Failure::new(Exit::Usage, format!("cannot write to standard output: {}", plain(error)))
    }

    /// Adds what went wrong besides; the exit code stays.
    fn and(mut self, other: Failure) -> Failure {
        if let (Some(message), Some(other)) = (&mut self.message, other.message) {
            message.push_str("; and ");
            message.push_str(&other);
        }
        self
    }

    /// Says why and returns the exit code.
    pub(crate) fn report(self) -> ExitCode {
        if let Some(message) = self.message {
            log::say(message);
        }
        log::flush();
        ExitCode::from(self.exit as u8)
    }
}

impl From<LimitError> for Failure {
    fn from(error: LimitError) -> Self {
        Failure::new(Exit::Usage, format!("--max-message: {error}"))
    }
}

/// Shows a system's error without Rust's `(os error 2)`.
fn plain(error: &io::Error) -> String {
    framelet::Plain(error).to_string()
}

/// framelet carries whole messages over TCP: it puts a length in front of each one.
#[derive(FromArgs)]
#[argh(
    help_triggers("-h", "--help", "help"),
    note = "Data goes to standard output, everything else to standard error.",
    note = "ADDR is HOST:PORT, [IPV6]:PORT, :PORT (on 127.0.0.1) or unix:PATH.",
    note = "SIZE takes k M G KiB MiB GiB, DURATION takes ms s m h."
)]
struct Arguments {
    /// print the version
    #[argh(switch)]
    version: bool,

    #[argh(subcommand)]
    command: Option<Command>,
}

#[derive(FromArgs)]
#[argh(subcommand)]
pub(crate) enum Command {
    Serve(serve::Serve),
    Send(send::Send),
    Encode(encode::Encode),
    Decode(decode::Decode),
    Bench(bench::Bench),
}

/// What the help of a command has besides what the options themselves say.
struct Help {
    command: &'static str,
    /// What it begins with.
    example: &'static str,
    sections: &'static [&'static str],
}

const HELP: [Help; 6] = [
    Help {
        command: "",
        example: r"framelet serve &  printf 'two\nlines\n\n' | framelet send",
        sections: &[EXIT_CODES],
    },
    Help {
        command: "serve",
        example: "framelet serve 127.0.0.1:4747 --output json >> messages.json",
        sections: &[SINKS, OUTPUT_FORMATS, LAYOUTS, EXIT_CODES],
    },
    Help {
        command: "send",
        example: r"printf 'two\nlines\n\nanother message' | framelet send 127.0.0.1:4747",
        sections: &[INPUT_FORMATS, OUTPUT_FORMATS, LAYOUTS, EXIT_CODES],
    },
    Help {
        command: "encode",
        example: "framelet encode --input lines < lines.txt > frames.bin",
        sections: &[INPUT_FORMATS, LAYOUTS, EXIT_CODES],
    },
    Help {
        command: "decode",
        example: "framelet decode --output json < frames.bin",
        sections: &[OUTPUT_FORMATS, LAYOUTS, EXIT_CODES],
    },
    Help {
        command: "bench",
        example: "framelet serve :4848 --echo --output none &  framelet bench :4848 --echo",
        sections: &[LAYOUTS, EXIT_CODES],
    },
];

const SINKS: &str = "
Sinks (--to):
  stdout, file:PATH (appended to), sqlite:PATH (a database),
  redis://[USER:PASSWORD@]HOST:PORT/DB?stream=NAME[&maxlen=N] (a stream, trimmed
  to about N; the password can be in the variable FRAMELET_REDIS_PASSWORD)
";

const INPUT_FORMATS: &str = "
Formats to read (--input), one message each:
  text (lines up to an empty line), lines, nul (up to a NUL byte), hex, base64,
  json (objects with payload or payload_base64), frames (u32be), whole (all)
";

const OUTPUT_FORMATS: &str = "
Formats to print (--output), one message each:
  lines, text (with an empty line behind it), nul, hex, base64, json, frames
  (u32be), raw (nothing in between), none
";

const LAYOUTS: &str = "
Layouts (--layout):
  u8 u16be u16le u24be u24le u32be u32le u64be u64le varint, with +self appended
  if the length counts its own prefix
";

const EXIT_CODES: &str = "
Exit codes:
  0    all that was asked for was done
  1    network: refused, reset, closed early, unacknowledged
  2    usage, local files, or input that is not in its format
  3    protocol: over-long, truncated, malformed, no acknowledgements
  4    timed out, or fewer replies than --expect
  141  standard output was closed by its reader, as after SIGPIPE
";

/// Returns the arguments as text.
pub(crate) fn arguments(arguments: impl Iterator<Item = OsString>) -> Result<Vec<String>, Failure> {
    arguments
        .map(|argument| {
            argument.into_string().map_err(|argument| {
                let argument = argument.to_string_lossy();
                let argument = WithoutPassword(&argument).to_string();
                Failure::new(Exit::Usage, format!("an argument is not UTF-8: {argument:?}"))
            })
        })
        .collect()
}

/// Makes out what was typed. Help and version are printed right here.
pub(crate) fn parse(arguments: &[String]) -> Result<Command, ExitCode> {
    let arguments: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    let name = arguments.iter().find(|argument| !argument.starts_with('-')).copied();
    let help = HELP.iter().find(|help| Some(help.command) == name).unwrap_or(&HELP[0]);
    match Arguments::from_args(&["framelet"], &arguments) {
        Ok(Arguments { version: true, .. }) => {
            print(concat!("framelet ", env!("CARGO_PKG_VERSION"), "\n"))
        }
        Ok(Arguments { command: Some(command), .. }) => Ok(command),
        Ok(Arguments { command: None, .. }) => {
            let message =
                "which command? serve, send, encode, decode or bench (see framelet --help)";
            Err(Failure::new(Exit::Usage, message).report())
        }
        Err(early) if early.status.is_ok() => {
            let Help { example, sections, .. } = help;
            print(&format!("Example: {example}\n\n{}{}", early.output, sections.concat()))
        }
        Err(early) => {
            // It repeats what was typed, and that may be a URL.
            let output = arguments.iter().fold(early.output, |output, typed| {
                output.replace(typed, &WithoutPassword(typed).to_string())
            });
            let message = usage_error(&output, help.command);
            Err(Failure::new(Exit::Usage, message).report())
        }
    }
}

/// Makes one line of what is wrong with the command line.
fn usage_error(output: &str, command: &str) -> String {
    let what: Vec<&str> = output
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("Run "))
        .collect();
    let what = what.join(" ");
    let (first, rest) = what.split_at(what.chars().next().map_or(0, char::len_utf8));
    let space = if command.is_empty() { "" } else { " " };
    format!("{}{rest} (see framelet {command}{space}--help)", first.to_lowercase())
}

fn print(text: &str) -> Result<Command, ExitCode> {
    Err(match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => Failure::output(&error).report(),
    })
}

/// Does what was asked for; returns the exit code.
pub(crate) fn run(command: Command) -> ExitCode {
    let result = match command {
        Command::Serve(serve) => serve.run(),
        Command::Send(send) => send.run(),
        Command::Encode(encode) => encode.run(),
        Command::Decode(decode) => decode.run(),
        Command::Bench(bench) => bench.run(),
    };
    match result {
        Ok(()) => {
            log::flush();
            ExitCode::SUCCESS
        }
        Err(failure) => failure.report(),
    }
}

fn parse_address(text: &str) -> Result<Address, Failure> {
    text.parse().map_err(|error| {
        let text = WithoutPassword(text).to_string();
        Failure::new(Exit::Usage, format!("address {text:?}: {error}"))
    })
}

/// The failure to connect. `tried` says for how long, `hint` what to do if nobody listens there.
fn cannot_connect(address: &Address, tried: &str, error: &io::Error, hint: &str) -> Failure {
    let (exit, hint) = match error.kind() {
        io::ErrorKind::TimedOut => (Exit::Timeout, ""),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => (Exit::Network, hint),
        _ => (Exit::Network, ""),
    };
    let message = format!("cannot connect to {address}{tried}: {}{hint}", plain(error));
    Failure::new(exit, message)
}

/// Parses a size: `1000`, `64k`, `8MiB`.
fn size(text: &str) -> Result<usize, String> {
    parse_size(text).ok().and_then(|size| usize::try_from(size).ok()).ok_or_else(|| {
        "not a size; write bytes, or a number with k M G (thousands) or KiB MiB GiB (1024), as in 8MiB"
            .into()
    })
}

/// Parses a duration: `500ms`, `30s`, `5m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "not a duration; write a number with ms, s, m or h, as in 30s".into())
}

/// Parses a duration, or `off`.
fn timeout(text: &str) -> Result<Timeout, String> {
    match text {
        "off" => Ok(Timeout(None)),
        _ => match duration(text)? {
            Duration::ZERO => Err("cannot be zero; write off to wait for ever".into()),
            duration => Ok(Timeout(Some(duration))),
        },
    }
}

/// A duration, or none.
#[derive(Clone, Copy, Debug)]
struct Timeout(Option<Duration>);

/// Parses a number of things.
fn count(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "not a number; write digits only".into())
}

/// Shows a whole number with a comma in front of every three digits.
fn grouped(number: impl ToString) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// Opens the file to read: the one named, or standard input.
fn open_input(file: Option<&str>) -> Result<PatientFile, Failure> {
    let opened = match file {
        None => PatientFile::stdin(),
        Some(path) => File::open(path).map(PatientFile::from),
    };
    opened.map_err(|error| cannot_read(file, &error))
}

fn cannot_read(file: Option<&str>, error: &io::Error) -> Failure {
    let name = file.unwrap_or("standard input");
    Failure::new(Exit::Usage, format!("cannot read {name}: {}", plain(error)))
}

/// Composed messages, and how many they are.
struct Chunk {
    /// Whole frames, ready to be sent or written; or payloads, for a client that makes the frames itself.
    bytes: Vec<u8>,
    /// Where each payload ends.
    ends: Option<Vec<usize>>,
    messages: u64,
    /// How many bytes of the input had been read by then, where somebody wants to know.
    read: u64,
    /// Dropped with the chunk, for a composer that waits until it is.
    #[allow(dead_code, reason = "dropping it is the answer")]
    waited_for: Option<SyncSender<()>>,
}

impl Chunk {
    /// Returns one without frames, with room for those of one read of short lines: 64 KiB of text and
    /// half as much for the prefixes.
    fn of_frames() -> Chunk {
        let bytes = Vec::with_capacity(96 * 1024);
        Chunk { bytes, ends: None, messages: 0, read: 0, waited_for: None }
    }

    fn of_payloads() -> Chunk {
        Chunk { ends: Some(Vec::new()), ..Chunk::of_frames() }
    }

    fn append(&mut self, layout: Layout, limit: usize, message: &[u8]) -> Result<(), TooLong> {
        match &mut self.ends {
            None => append_frame(&mut self.bytes, layout, limit, message)?,
            Some(_) if message.len() > limit => {
                return Err(TooLong { length: message.len(), limit, field: None });
            }
            Some(ends) => {
                self.bytes.extend_from_slice(message);
                ends.push(self.bytes.len());
            }
        }
        self.messages += 1;
        Ok(())
    }

    /// Returns the payloads, if it is made of them.
    fn payloads(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().flatten().map(move |&end| &self.bytes[mem::replace(&mut start, end)..end])
    }

    /// Returns what is disconnected once the chunk is dropped.
    fn dropped(&mut self) -> Receiver<()> {
        let (sender, receiver) = sync_channel(0);
        self.waited_for = Some(sender);
        receiver
    }
}

/// Composes frames from input.
struct Framer {
    composer: Composer<PatientFile>,
    file: Option<String>,
    layout: Layout,
    limit: usize,
}

impl Framer {
    fn new(
        file: Option<String>,
        format: InputFormat,
        layout: Layout,
        limit: usize,
    ) -> Result<Framer, Failure> {
        let composer = Composer::new(open_input(file.as_deref())?, format, limit);
        Ok(Framer { composer, file, layout, limit })
    }

    /// Reads once and appends the messages that are now complete, at most `most` of them, to `chunk`.
    /// Returns `false` at the end of the input.
    fn read(&mut self, chunk: &mut Chunk, most: u64) -> Result<bool, Failure> {
        let (layout, limit) = (self.layout, self.limit);
        let read = self.composer.read(|message| {
            if chunk.messages < most {
                // Cannot fail: the composer has the same limit, and the layout can say it.
                let _ = chunk.append(layout, limit, message);
            }
        });
        read.map_err(|error| self.failure(error))
    }

    fn failure(&self, error: InputError) -> Failure {
        let record = error.record;
        match error.fault {
            InputFault::Io(error) => cannot_read(self.file.as_deref(), &error),
            // No other limit would help.
            InputFault::TooLong { limit } if limit == self.layout.max_payload() => {
                let layout = self.layout;
                let what = format!("message is over the {limit} bytes that {layout} can say");
                let error = InputError { record, fault: InputFault::NotInFormat(what) };
                Failure::new(Exit::Protocol, error.to_string())
            }
            InputFault::TooLong { .. } | InputFault::Frame(_) => {
                Failure::new(Exit::Protocol, error.to_string())
            }
            _ => Failure::new(Exit::Usage, error.to_string()),
        }
    }
}
