//! A number and its noun, singular or plural.

use std::fmt;

/// Shows a number and what it counts, as the messages of this crate do. The plural of the noun must end in
/// `s`.
///
/// # Examples
///
/// ```
/// use framelet::wire::Count;
///
/// assert_eq!(Count(1, "message").to_string(), "1 message");
/// assert_eq!(Count(2, "message").to_string(), "2 messages");
/// ```
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
