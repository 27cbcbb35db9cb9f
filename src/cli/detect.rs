//! `framelet detect`: which layout a stream is in.

use std::io::{Read, Write};

use argh::{ArgsInfo, FromArgs};
use framelet::format::BlockingFile;
use framelet::stream::ReadError;
use framelet::wire::{Candidate, Cause, Count, JUDGED, Known, Suspect, judge};
use framelet::{FrameReader, Layout};
use futures_lite::future::block_on;

use super::exit_code::Exit;
use super::failure::Failure;
use super::input::{cannot_read, open_input};

/// Finds out in which layouts a stream can be read, best first; judges its first 64 KiB.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "detect", help_triggers("-h", "--help", "help"))]
pub(crate) struct Detect {
    /// the file to read (default: standard input)
    #[argh(positional, arg_name = "FILE")]
    file: Option<String>,

    /// print lines for people, or json (default: lines)
    #[argh(option, arg_name = "lines|json", default = "Output::Lines", from_str_fn(output))]
    output: Output,
}

/// So many bits of evidence leave no doubt.
const CERTAIN: u32 = 32;

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
        let most = JUDGED as u64 + 1;
        let read = open_input(file)?.take(most).read_to_end(&mut bytes);
        read.map_err(|error| cannot_read(file, &error))?;
        let known = Known::find(&bytes);
        let mut candidates = judge(&bytes, true);
        // What is known by its first bytes may still be read in a layout, for example after a preamble, but
        // not by chance.
        candidates.retain(|of| known.is_none() || of.bits >= CERTAIN);
        let judged = bytes.len().min(JUDGED);
        let text: String = match self.output {
            Output::Json => candidates.iter().map(|of| self.json(of, judged)).collect(),
            Output::Lines => self.lines(&candidates, judged),
        };
        let mut stdout = BlockingFile::stdout().map_err(|error| Failure::output(&error))?;
        stdout.write_all(text.as_bytes()).map_err(|error| Failure::output(&error))?;
        match (known, candidates.is_empty()) {
            (Some(known), is_empty) => {
                let message = format!("{known}");
                if is_empty {
                    return Err(Failure::new(Exit::Protocol, message));
                }
                super::log::say(message);
                Ok(())
            }
            (None, false) => Ok(()),
            (None, true) => {
                let judged = Count(judged as u64, "byte");
                let mut message = format!("no layout is known that reads these {judged}");
                if let Some(suspicion) = suspicion(&bytes) {
                    message += &format!("; {suspicion}");
                }
                Err(Failure::new(Exit::Protocol, message))
            }
        }
    }

    fn command(&self, candidate: &Candidate) -> String {
        let command = format!("framelet decode --layout {}", candidate.name());
        match self.file.as_deref() {
            Some(file) => format!("{command} {}", quoted(file)),
            None => command,
        }
    }

    fn json(&self, candidate: &Candidate, judged: usize) -> String {
        let json = serde_json::json!({
            "layout": candidate.layout.to_string(),
            "preset": candidate.preset.map(|preset| preset.name),
            "messages": candidate.messages,
            "bytes": candidate.bytes,
            "of": judged,
            "bits": candidate.bits,
            "command": self.command(candidate),
        });
        format!("{json}\n")
    }

    /// Returns a line for each candidate, in columns, and then the command that reads the best one.
    fn lines(&self, candidates: &[Candidate], judged: usize) -> String {
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
        text + &format!("\n{}\n", self.command(best))
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
                text @ Suspect::Text { .. } => Some(text.to_string()),
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

/// Quotes a file's name for a shell, if it has to be.
fn quoted(file: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+,:@".contains(c);
    match !file.is_empty() && file.chars().all(is_plain) && !file.starts_with('-') {
        true => file.into(),
        false => format!("'{}'", file.replace('\'', r"'\''")),
    }
}
