//! The errors of the system, in the words and shapes of this crate.

use std::fmt;
use std::io;

/// `io::Error` is not `Clone`: returns one of the same kind and text.
pub(crate) fn same_again(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// For the program's own messages; not part of the interface.
///
/// Shows an operating system's error without the `(os error 32)` that Rust appends, and in lower case
/// as all other messages are.
#[doc(hidden)]
#[derive(Debug)]
pub struct Plain<'a>(pub &'a io::Error);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        let mut letters = text.chars();
        let first = letters.next().map(|c| c.to_ascii_lowercase());
        // "No such file" but not "EOF": only a capital in front of a small letter is lowered.
        let lower = letters.clone().next().is_some_and(char::is_lowercase);
        match first.filter(|_| lower) {
            Some(first) => write!(f, "{first}{}", letters.as_str()),
            None => f.write_str(text),
        }
    }
}
