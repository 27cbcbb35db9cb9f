//! The program: a command line on the library of the same name.

#![warn(clippy::unwrap_used)]

use std::io::{self, Write};
use std::process::ExitCode;

use cli::arguments::{self, Request};
use cli::failure::Failure;
use cli::log;

mod cli;

fn main() -> ExitCode {
    let done = arguments::parse(std::env::args_os()).and_then(|request| match request {
        Request::Run(command) => command.run(),
        Request::Show(text) => show(&text),
    });
    let code = done.map_or_else(Failure::report, |()| ExitCode::SUCCESS);
    log::flush();
    code
}

fn show(text: &str) -> Result<(), Failure> {
    io::stdout().write_all(text.as_bytes()).map_err(|error| Failure::output(&error))
}
