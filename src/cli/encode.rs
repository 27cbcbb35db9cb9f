//! `framelet encode`: formats to frames, without a network.

use std::io::Write;

use argh::FromArgs;
use framelet::{InputFormat, Layout, PatientFile};

use super::{Chunk, Failure, Framer, size};

/// Turns text or bytes into frames, on standard output.
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "encode",
    help_triggers("-h", "--help", "help"),
    usage = "[FILE] [OPTIONS]"
)]
pub(crate) struct Encode {
    /// what to read (default: standard input)
    #[argh(positional)]
    file: Option<String>,

    /// how messages are read (default: text)
    #[argh(option, arg_name = "format", default = "InputFormat::Text")]
    input: InputFormat,

    /// how prefixes are written (default: u32be)
    #[argh(option, arg_name = "layout", default = "Layout::U32BE")]
    layout: Layout,

    /// longest message to accept (default: 8MiB)
    #[argh(option, arg_name = "size", from_str_fn(size))]
    max_message: Option<usize>,
}

impl Encode {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let limit = self.layout.limit(self.max_message)?;
        let mut framer = Framer::new(self.file, self.input, self.layout, limit)?;
        let mut output = PatientFile::stdout().map_err(|error| Failure::output(&error))?;
        let mut chunk = Chunk::of_frames();
        loop {
            chunk.bytes.clear();
            let more = framer.read(&mut chunk, u64::MAX);
            // What was composed before an error is good.
            output.write_all(&chunk.bytes).map_err(|error| Failure::output(&error))?;
            if !more? {
                return Ok(());
            }
        }
    }
}
