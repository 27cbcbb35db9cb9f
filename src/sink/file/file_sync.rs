//! When a file is synced to the disk.

use std::fmt;
use std::str::FromStr;

/// When a file's messages are synced to the disk.
///
/// # Examples
///
/// ```
/// use framelet::sink::FileSync;
///
/// assert_eq!("never".parse(), Ok(FileSync::Never));
/// assert_eq!(FileSync::default(), FileSync::Always);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FileSync {
    /// At each commit, with `fdatasync`.
    #[default]
    Always,
    /// Whenever the system does. Committed messages survive a crash of the program, but not of the machine.
    Never,
}

/// Neither `always` nor `never`.
///
/// # Examples
///
/// ```
/// use framelet::sink::{FileSync, ParseFileSyncError};
///
/// assert_eq!("sometimes".parse::<FileSync>(), Err(ParseFileSyncError));
/// ```
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
