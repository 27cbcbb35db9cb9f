//! When a file's messages are made safe from a failure of the machine.

use std::fmt;
use std::str::FromStr;

/// When a file's messages are made safe from a failure of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FileSync {
    /// At each commit, by `fdatasync`.
    #[default]
    Always,
    /// When the system finds the time. A commit is safe from the end of the program, not from that of
    /// the machine.
    Never,
}

/// A text that is neither `always` nor `never`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseFileSyncError;

impl FromStr for FileSync {
    type Err = ParseFileSyncError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "always" => Ok(FileSync::Always),
            "never" => Ok(FileSync::Never),
            _ => Err(ParseFileSyncError),
        }
    }
}

impl fmt::Display for ParseFileSyncError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("write always or never")
    }
}

impl std::error::Error for ParseFileSyncError {}
