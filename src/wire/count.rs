//! A number and its noun, singular or plural.

use std::fmt;

/// Used by the program; not part of the public interface.
///
/// Shows a number and what it counts: `1 message`, `2 messages`.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Count(pub u64, pub &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Count(number, noun) = self;
        write!(f, "{number} {noun}{}", if *number == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_singular_and_everything_else_is_not() {
        let counts = [0, 1, 2, 11].map(|number| Count(number, "message").to_string());
        assert_eq!(counts, ["0 messages", "1 message", "2 messages", "11 messages"]);
    }
}
