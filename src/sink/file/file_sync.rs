//! When a file is synced to the disk.

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

impl FromStr for FileSync {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<FileSync, &'static str> {
        match text {
            "always" => Ok(FileSync::Always),
            "never" => Ok(FileSync::Never),
            _ => Err("write always or never"),
        }
    }
}
