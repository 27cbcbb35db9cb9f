//! `framelet decode`: frames to formats, without a network.

use std::io::ErrorKind;

use argh::{ArgsInfo, FromArgs};
use framelet::format::{BlockingFile, OutputFormat};
use framelet::net::{ProxyHeader, read_proxy_header};
use framelet::sink::{MessageSink, OutputSink};
use framelet::stream::ReadError;
use framelet::wire::EmptyFrames;
use framelet::{Batch, FrameReader, Layout};
use futures_lite::future::block_on;
use futures_lite::io::{AssertAsync, AsyncReadExt, repeat};

use super::exit_code::Exit;
use super::failure::Failure;
use super::flags;
use super::input::{cannot_read, open_input};
use super::log;
use super::values::{check_empty, count, empty, layout, size};

/// Turns frames into text or bytes on standard output.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "decode", help_triggers("-h", "--help", "help"))]
pub(crate) struct Decode {
    /// the file to read (default: standard input)
    #[argh(positional, arg_name = "FILE")]
    file: Option<String>,

    /// how messages are printed (default: lines)
    #[argh(option, arg_name = "FORMAT", default = "OutputFormat::Lines")]
    output: OutputFormat,

    /// how messages are framed (default: u32be)
    #[argh(option, arg_name = "LAYOUT", default = "Layout::U32BE", from_str_fn(layout))]
    layout: Layout,

    /// expect a PROXY header first, and say whom it names
    #[argh(switch)]
    proxy_protocol: bool,

    /// how many bytes before the first frame to skip (default: 0)
    #[argh(option, arg_name = "N", from_str_fn(count), default = "0")]
    skip: u64,

    /// what an empty frame is: a message, or a heartbeat to skip (default: message)
    #[argh(option, arg_name = "WHAT", from_str_fn(empty), default = "EmptyFrames::Message")]
    empty: EmptyFrames,

    /// longest message to accept (default: 8MiB)
    #[argh(option, arg_name = "SIZE", from_str_fn(size))]
    max_message: Option<usize>,
}

impl Decode {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let limit = self.layout.limit(self.max_message)?;
        check_empty(self.empty, self.layout)?;
        if self.empty == EmptyFrames::Echo {
            let message = "--empty echo: decode has nobody to send to; write message or skip";
            return Err(Failure::new(Exit::Usage, message));
        }
        // A file is always ready, so blocking on this future does not delay any other.
        let mut input = AssertAsync::new(open_input(self.file.as_deref())?);
        let header = if self.proxy_protocol { self.read_proxy_header(&mut input)? } else { 0 };
        // Bytes in place of the header are skipped, so that positions are those in the file.
        let input = repeat(0).take(header).chain(input);
        let mut reader = FrameReader::with_layout(input, self.layout)
            .max_message(limit)?
            .skip(header.saturating_add(self.skip))
            .skip_empty(self.empty == EmptyFrames::Skip);
        let mut output = OutputSink::stdout(self.output.for_layout(self.layout))
            .map_err(|error| Failure::output(&error))?;
        loop {
            match block_on(reader.read_batch()) {
                Ok(Some(payloads)) => output
                    .commit(&[Batch::from(payloads)])
                    .map_err(|error| Failure::output(&error.into()))?,
                Ok(None) => return Ok(()),
                Err(ReadError::Io { error, .. }) => {
                    return Err(cannot_read(self.file.as_deref(), &error));
                }
                Err(error) => {
                    return Err(Failure::new(Exit::Protocol, flags::of_file(self.layout, &error)));
                }
            }
        }
    }

    /// Says whom the PROXY header names. Returns its length.
    fn read_proxy_header(&self, input: &mut AssertAsync<BlockingFile>) -> Result<u64, Failure> {
        match block_on(read_proxy_header(input)) {
            Ok(header) => {
                log::say(said(&header));
                Ok(header.len as u64)
            }
            Err(error) => match error.kind() {
                ErrorKind::InvalidData | ErrorKind::UnexpectedEof => {
                    Err(Failure::new(Exit::Protocol, error.to_string()))
                }
                _ => Err(cannot_read(self.file.as_deref(), &error)),
            },
        }
    }
}

/// Says whom a PROXY header names.
pub(super) fn said(header: &ProxyHeader) -> String {
    match &header.peer {
        Some(peer) => format!("the PROXY header names {peer}"),
        None => "the PROXY header names nobody".into(),
    }
}
