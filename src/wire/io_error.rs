//! Operating system errors, in the style of this crate's messages.

use std::fmt;
use std::io;

/// Returns an error of the same kind and text, since `io::Error` is not `Clone`.
pub(crate) fn same_again(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// Shows an operating system's error as the messages of this crate do: in lower case, and without the
/// `(os error 32)` that Rust appends.
///
/// # Examples
///
/// ```
/// use framelet::wire::Plain;
/// use std::io;
///
/// let error = io::Error::other("Broken pipe (os error 32)");
/// assert_eq!(Plain(&error).to_string(), "broken pipe");
/// ```
#[derive(Debug)]
pub struct Plain<'a>(pub &'a io::Error);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        let mut letters = text.chars();
        let first = letters.next().map(|c| c.to_ascii_lowercase());
        // "No such file" but not "EOF": only a capital before a lower-case letter is lowered.
        let lower = letters.clone().next().is_some_and(char::is_lowercase);
        match first.filter(|_| lower) {
            Some(first) => write!(f, "{first}{}", letters.as_str()),
            None => f.write_str(text),
        }
    }
}
