//! `framelet encode`: formats to frames, without a network.

use std::io::{self, IsTerminal, Write};

use argh::{ArgsInfo, FromArgs};
use framelet::Layout;
use framelet::format::{BlockingFile, InputFormat};
use framelet::wire::ProxyVersion;

use super::exit_code::Exit;
use super::failure::Failure;
use super::input::{Chunk, Framer};
use super::values::{Bytes, DefaultHeader, bytes, header, layout, size};

/// Turns text or bytes into frames on standard output.
#[derive(FromArgs, ArgsInfo)]
#[argh(subcommand, name = "encode", help_triggers("-h", "--help", "help"))]
pub(crate) struct Encode {
    /// the file to read (default: standard input)
    #[argh(positional, arg_name = "FILE")]
    file: Option<String>,

    /// how messages are read from the input (default: text)
    #[argh(option, arg_name = "FORMAT", default = "InputFormat::Text")]
    input: InputFormat,

    /// how messages are framed (default: u32be)
    #[argh(option, arg_name = "LAYOUT", default = "Layout::U32BE", from_str_fn(layout))]
    layout: Layout,

    /// header of messages that come without one, in hexadecimal, if the layout has headers (default: zeros)
    #[argh(option, arg_name = "HEX", from_str_fn(header), default = "DefaultHeader::default()")]
    header: DefaultHeader,

    /// write a PROXY header first, which names nobody: v1 or v2
    #[argh(option, arg_name = "V")]
    proxy_protocol: Option<ProxyVersion>,

    /// bytes to write before the first frame, in hexadecimal
    #[argh(option, arg_name = "HEX", from_str_fn(bytes), default = "Bytes::default()")]
    preamble: Bytes,

    /// longest message to accept (default: 8MiB)
    #[argh(option, arg_name = "SIZE", from_str_fn(size))]
    max_message: Option<usize>,
}

impl Encode {
    pub(crate) fn run(self) -> Result<(), Failure> {
        if io::stdout().is_terminal() {
            let message = "frames are not for a terminal; write them to a file or a pipe, as in \
                           framelet encode > frames.bin or framelet encode | xxd";
            return Err(Failure::new(Exit::Usage, message));
        }
        let limit = self.layout.limit(self.max_message)?;
        self.header.check(self.layout)?;
        let mut framer = Framer::new(self.file, self.input, self.layout, limit, self.header)?;
        let mut output = BlockingFile::stdout().map_err(|error| Failure::output(&error))?;
        let header = self.proxy_protocol.map(|version| version.header(None)).unwrap_or_default();
        for first in [&header, &self.preamble.0] {
            output.write_all(first).map_err(|error| Failure::output(&error))?;
        }
        let mut chunk = Chunk::of_frames();
        loop {
            chunk.bytes.clear();
            let more = framer.read(&mut chunk, u64::MAX);
            // Messages before the error are still written.
            output.write_all(&chunk.bytes).map_err(|error| Failure::output(&error))?;
            if !more? {
                return Ok(());
            }
        }
    }
}
