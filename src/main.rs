//! The program: a command line on the library of the same name.

#![warn(clippy::unwrap_used)]

mod cli;

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = match cli::arguments(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(failure) => return failure.report(),
    };
    let command = match cli::parse(&arguments) {
        Ok(command) => command,
        Err(exit) => return exit,
    };
    cli::run(command)
}
