//! Failures of the program: the message and the exit code.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process::ExitCode;

use ::log::Level;
use framelet::Address;
use framelet::wire::LimitError;

use super::exit_code::Exit;
use super::flags;
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
            // The reader closed the pipe, as `head` does: it needs no error.
            return Failure { exit: Exit::ClosedOutput, message: None };
        }
        Failure::new(Exit::Usage, format!("cannot write to standard output: {}", plain(error)))
    }

    /// A failure to connect. `tried` says for how long, `retrying` how to go on trying.
    pub(crate) fn to_connect(
        address: &Address,
        tried: &str,
        error: &io::Error,
        retrying: &str,
    ) -> Failure {
        let failure = |exit, hint: &str| {
            let why = flags::of_io(error);
            let message = format!("cannot connect to {address}{tried}: {why}{hint}");
            Failure::new(exit, message)
        };
        match (error.kind(), address) {
            (io::ErrorKind::TimedOut, _) => failure(Exit::Timeout, ""),
            // The system says the same of a socket on which nobody listens.
            (io::ErrorKind::ConnectionRefused, Address::Unix(path)) if !is_socket(path) => {
                failure(Exit::Network, "; there is a file of that name that is not a socket")
            }
            (io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound, _) => {
                failure(Exit::Network, &format!("; is the server running?{retrying}"))
            }
            (io::ErrorKind::ConnectionReset, _) => failure(
                Exit::Network,
                "; the server may be full, or not let this client in: its log says which",
            ),
            _ => failure(Exit::Network, ""),
        }
    }

    /// Adds advice to the message.
    pub(crate) fn advise(mut self, advice: &str) -> Failure {
        self.message.iter_mut().for_each(|message| message.push_str(advice));
        self
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
            log::say_event(Level::Error, "failed", message);
        }
        ExitCode::from(self.exit as u8)
    }
}

impl From<LimitError> for Failure {
    fn from(error: LimitError) -> Self {
        Failure::new(Exit::Usage, format!("--max-message: {error}"))
    }
}

fn is_socket(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// Returns advice for a file that cannot be created, if the reason is that its directory is missing.
pub(crate) fn missing_directory(path: &Path) -> String {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    match directory.map(|directory| (directory, directory.try_exists())) {
        Some((directory, Ok(false))) => {
            let shown = directory.display();
            format!("; the directory {shown} does not exist (mkdir -p {})", quoted(directory))
        }
        _ => String::new(),
    }
}

/// Returns a path as it can be pasted into a shell.
pub(crate) fn quoted(path: &Path) -> String {
    let path = path.to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%=".contains(c);
    match !path.is_empty() && !path.starts_with('-') && path.chars().all(is_plain) {
        true => path.into(),
        // A leading hyphen would be read as an option.
        false => {
            let start = if path.starts_with('-') { "./" } else { "" };
            format!("'{start}{}'", path.replace('\'', r"'\''"))
        }
    }
}

/// Shows an operating system's error without Rust's `(os error 2)`.
pub(crate) fn plain(error: &io::Error) -> String {
    framelet::wire::Plain(error).to_string()
}

/// Says why it is not possible to listen at `address`, with advice for the usual causes.
pub(crate) fn why_not_listening(address: &Address, error: &io::Error) -> String {
    let hint = match (address, error.kind()) {
        (Address::Unix(path), io::ErrorKind::NotFound) => &missing_directory(path),
        (Address::Tcp { .. }, io::ErrorKind::AddrInUse) => {
            "; another server may be running there (port 0 picks a free port)"
        }
        (Address::Tcp { .. }, io::ErrorKind::PermissionDenied) => {
            "; ports below 1024 need a privilege"
        }
        (Address::Tcp { .. }, io::ErrorKind::AddrNotAvailable) => {
            "; this machine does not have that address"
        }
        (_, io::ErrorKind::AddrInUse) => "; another server is running there",
        _ => "",
    };
    format!("{}{hint}", plain(error))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_quoted_path_is_one_word_of_a_shell() {
        for (path, shown) in [
            ("/var/lib/a.sender", "/var/lib/a.sender"),
            ("my files/a", "'my files/a'"),
            ("it's", r"'it'\''s'"),
            ("$(id)`id`\"*", "'$(id)`id`\"*'"),
            ("~/a", "'~/a'"),
            ("é", "'é'"),
            ("-rf", "'./-rf'"),
            ("", "''"),
        ] {
            let quoted = quoted(Path::new(path));
            assert_eq!(quoted, shown);
            let echo = format!("printf %s {quoted}");
            let output = Command::new("sh").args(["-c", &echo]).output().unwrap();
            let printed = String::from_utf8(output.stdout).unwrap();
            assert_eq!(printed.strip_prefix("./").unwrap_or(&printed), path);
        }
    }
}
