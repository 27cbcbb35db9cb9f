//! `framelet detect`: which layout a stream is in.

use std::io::{self, Read, Write};
use std::path::Path;

use argh::{ArgsInfo, FromArgs};
use framelet::format::BlockingFile;
use framelet::net::read_proxy_header;
use framelet::stream::ReadError;
use framelet::wire::{CERTAIN, Candidate, Cause, Count, Detected, JUDGED, Suspect, detect};
use framelet::{FrameReader, Layout};
use futures_lite::future::block_on;

use super::decode::said;
use super::exit_code::Exit;
use super::failure::{Failure, quoted};
use super::input::{cannot_read, open_input};
use super::log;
use super::values::count;

/// Finds out in which layouts a stream can be read, best first; judges its first MiB.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "detect", help_triggers("-h", "--help", "help"))]
pub(crate) struct Detect {
    /// the file to read (default: standard input)
    #[argh(positional, arg_name = "FILE")]
    file: Option<String>,

    /// print lines for people, or json (default: lines)
    #[argh(option, arg_name = "lines|json", default = "Output::Lines", from_str_fn(output))]
    output: Output,

    /// how many bytes before the first message to skip (default: 0)
    #[argh(option, arg_name = "N", from_str_fn(count), default = "0")]
    skip: u64,
}

/// The options of decode that pass over what precedes the bytes that are judged.
#[derive(Clone, Copy)]
struct Options {
    proxy_protocol: bool,
    /// So many bytes, after the PROXY header.
    skip: u64,
}

impl Options {
    /// Returns how many bytes precede the first message, after the PROXY header.
    fn skipped(self, found: &Detected) -> u64 {
        self.skip.saturating_add(found.skip as u64)
    }
}

/// More than any PROXY header has, in bytes.
const HEADER: u64 = 8192;

#[derive(Clone, Copy)]
enum Output {
    Lines,
    Json,
}

fn output(text: &str) -> Result<Output, String> {
    match text {
        "lines" => Ok(Output::Lines),
        "json" => Ok(Output::Json),
        _ => Err("write lines or json".into()),
    }
}

impl Detect {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let (mut bytes, file) = (Vec::new(), self.file.as_deref());
        let cannot_read = |error| cannot_read(file, &error);
        let mut input = open_input(file)?;
        let mut start = Vec::new();
        Read::by_ref(&mut input).take(HEADER).read_to_end(&mut start).map_err(cannot_read)?;
        let header = block_on(read_proxy_header(&mut &start[..])).ok();
        let mut rest = &start[header.as_ref().map_or(0, |header| header.len)..];
        let mut rest = Read::chain(&mut rest, input);
        if let Some(header) = &header {
            log::say(said(header));
        }
        let skipped = io::copy(&mut Read::by_ref(&mut rest).take(self.skip), &mut io::sink());
        let skipped = skipped.map_err(cannot_read)?;
        if skipped < self.skip {
            let message = format!("there are only {} to skip (--skip)", Count(skipped, "byte"));
            return Err(Failure::new(Exit::Protocol, message));
        }
        rest.take(JUDGED as u64 + 1).read_to_end(&mut bytes).map_err(cannot_read)?;
        let options = Options { proxy_protocol: header.is_some(), skip: self.skip };
        let found = detect(&bytes);
        let judged = (bytes.len() - found.skip).min(JUDGED);
        let text: String = match self.output {
            Output::Json => {
                found.candidates.iter().map(|of| self.json(&found, of, judged, options)).collect()
            }
            Output::Lines => self.lines(&found, judged, options),
        };
        let mut stdout = BlockingFile::stdout().map_err(|error| Failure::output(&error))?;
        stdout.write_all(text.as_bytes()).map_err(|error| Failure::output(&error))?;
        if let Some(best) = found.candidates.first() {
            // Where it names no layout, it may say that there is none.
            if best.preset.is_none() || found.known.is_some_and(|known| known.layout.is_some()) {
                found.known.iter().for_each(|known| log::say(known.to_string()));
            }
            if found.skip > 0 {
                let skipped = Count(options.skipped(&found), "byte");
                log::say(format!("{skipped} precede the first message (--skip)"));
            }
            if !best.is_exact && bytes.len() <= JUDGED {
                log::say("the last message is cut off");
            }
            return Ok(());
        }
        let judged = match bytes.len() {
            0 => {
                let why = match start.is_empty() {
                    true => "the input is empty",
                    false => "nothing follows what is skipped",
                };
                let message = format!("there is nothing to judge: {why}");
                return Err(Failure::new(Exit::Protocol, message));
            }
            len if len > JUDGED => format!("the first {}", Count(JUDGED as u64, "byte")),
            len => format!("these {}", Count(len as u64, "byte")),
        };
        let message = match (found.known, suspicion(&bytes)) {
            (Some(known), _) => known.to_string(),
            (None, Some(suspicion)) => {
                format!("no layout is known that reads {judged}; {suspicion}")
            }
            (None, None) => format!("no layout is known that reads {judged}"),
        };
        Err(Failure::new(Exit::Protocol, message))
    }

    fn command(&self, found: &Detected, candidate: &Candidate, options: Options) -> String {
        let mut command = format!("framelet decode --layout {}", candidate.name());
        if options.proxy_protocol {
            command += " --proxy-protocol";
        }
        if options.skipped(found) > 0 {
            command += &format!(" --skip {}", options.skipped(found));
        }
        match self.file.as_deref() {
            Some(file) => format!("{command} {}", quoted(Path::new(file))),
            None => command,
        }
    }

    fn json(
        &self,
        found: &Detected,
        candidate: &Candidate,
        judged: usize,
        options: Options,
    ) -> String {
        let json = serde_json::json!({
            "layout": candidate.layout.to_string(),
            "preset": candidate.preset.map(|preset| preset.name),
            "messages": candidate.messages,
            "bytes": candidate.bytes,
            "of": judged,
            "proxy_header": options.proxy_protocol,
            "skip": options.skipped(found),
            "bits": candidate.bits,
            "command": self.command(found, candidate, options),
        });
        format!("{json}\n")
    }

    /// Returns a line for each candidate, in columns, and then the command that reads the best one.
    fn lines(&self, found: &Detected, judged: usize, options: Options) -> String {
        let candidates = &found.candidates;
        let Some(best) = candidates.first() else { return String::new() };
        let width = candidates.iter().map(|of| of.name().len()).max().unwrap_or(0);
        let mut text = String::new();
        for candidate in candidates {
            let messages = Count(candidate.messages as u64, "message").to_string();
            let part = match candidate.bytes == judged {
                true => format!("all {}", Count(judged as u64, "byte")),
                false => format!("{} of {}", candidate.bytes, Count(judged as u64, "byte")),
            };
            let name = candidate.name();
            let sure = sure(candidate.bits);
            text += &format!("{name:width$}  {sure:8}  {messages} in {part}\n");
        }
        text + &format!("\n{}\n", self.command(found, best, options))
    }
}

/// Says what is wrong with bytes that no layout reads: they are text, or bytes too many follow a message.
fn suspicion(bytes: &[u8]) -> Option<String> {
    Layout::binary().find_map(|layout| {
        let mut reader = FrameReader::with_layout(bytes, layout);
        let error = loop {
            match block_on(reader.read()) {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(error) => break error,
            }
        };
        match error {
            ReadError::Protocol(error) => match error.suspect? {
                text @ Suspect::Text { after: 0, .. } => Some(text.to_string()),
                // A NUL byte alone proves too little where nothing says which layout is meant.
                Suspect::Extra { cause: Cause::Unknown | Cause::Nul, .. } => None,
                extra @ Suspect::Extra { .. } => Some(format!("as {layout}, {extra}")),
                _ => None,
            },
            _ => None,
        }
    })
}

/// Says how sure it is, in a word.
fn sure(bits: u32) -> &'static str {
    match bits {
        CERTAIN.. => "certain",
        16.. => "likely",
        _ => "possible",
    }
}
