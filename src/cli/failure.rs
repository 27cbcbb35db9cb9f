//! Failures of the program: the message and the exit code.

use std::io;
use std::process::ExitCode;

use framelet::Address;
use framelet::wire::LimitError;

use super::exit_code::Exit;
use super::log;

/// The final message, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: Some(message.into()) }
    }

    /// A failed write to standard output.
    pub(crate) fn output(error: &io::Error) -> Failure {
        if error.kind() == io::ErrorKind::BrokenPipe {
            // Whoever closed the pipe has seen enough.
            return Failure { exit: Exit::ClosedOutput, message: None };
        }
        Failure::new(Exit::Usage, format!("cannot write to standard output: {}", plain(error)))
    }

    /// A failure to connect. `tried` says for how long, `hint` what to do if nobody listens there.
    pub(crate) fn to_connect(
        address: &Address,
        tried: &str,
        error: &io::Error,
        hint: &str,
    ) -> Failure {
        let (exit, hint) = match error.kind() {
            io::ErrorKind::TimedOut => (Exit::Timeout, ""),
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => (Exit::Network, hint),
            _ => (Exit::Network, ""),
        };
        let message = format!("cannot connect to {address}{tried}: {}{hint}", plain(error));
        Failure::new(exit, message)
    }

    /// Adds another failure; the exit code stays.
    pub(crate) fn and(mut self, other: Failure) -> Failure {
        if let (Some(message), Some(other)) = (&mut self.message, other.message) {
            message.push_str("; and ");
            message.push_str(&other);
        }
        self
    }

    /// Prints the message and returns the exit code.
    pub(crate) fn report(self) -> ExitCode {
        if let Some(message) = self.message {
            log::say(message);
        }
        ExitCode::from(self.exit as u8)
    }
}

impl From<LimitError> for Failure {
    fn from(error: LimitError) -> Self {
        Failure::new(Exit::Usage, format!("--max-message: {error}"))
    }
}

/// Shows an operating system's error without Rust's `(os error 2)`.
pub(crate) fn plain(error: &io::Error) -> String {
    framelet::wire::Plain(error).to_string()
}
