//! `framelet encode`: formats to frames, without a network.

use std::io::{self, Write};

use argh::FromArgs;
use framelet::{Composer, InputFormat, Layout, append_frame, checked_limit};

use super::{Failure, input_failure, open_input, size};

/// Turns text or bytes into frames, on standard output.
#[derive(FromArgs)]
#[argh(subcommand, name = "encode", help_triggers("-h", "--help"), usage = "[FILE] [OPTIONS]")]
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
        let limit = checked_limit(self.layout, self.max_message)?;
        let input = open_input(self.file.as_deref())?;
        let mut composer = Composer::new(input, self.input, limit);
        let mut output = io::stdout().lock();
        let mut frames = Vec::new();
        loop {
            frames.clear();
            let mut too_long = Ok(());
            let more = composer.read(|message| {
                let appended = append_frame(&mut frames, self.layout, limit, message);
                too_long = too_long.and(appended);
            });
            // What was composed before an error is good.
            output
                .write_all(&frames)
                .and_then(|()| output.flush())
                .map_err(|error| Failure::output(&error))?;
            let more = more.and_then(|more| Ok(too_long.map(|()| more)?));
            if !more.map_err(|error| input_failure(error, self.layout))? {
                return Ok(());
            }
        }
    }
}
