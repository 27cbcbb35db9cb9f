//! Text that is safe to show: nothing in it can drive a terminal or forge a line of a log.

use std::fmt::{self, Write};

/// Shows bytes as text on one line.
///
/// Printable characters stand for themselves, `\` is doubled, and everything else is written as an
/// escape: `\n`, `\t`, `\u{1b}`, `\u{202e}`, and `\xff` for bytes that are not UTF-8.
///
/// # Examples
///
/// ```
/// assert_eq!(framelet::Escaped(b"red \x1b[31m\xff").to_string(), r"red \u{1b}[31m\xff");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    // Harmless, and escaping them would only hurt the eye.
                    '"' | '\'' => f.write_char(c)?,
                    _ => write!(f, "{}", c.escape_debug())?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Shows bytes as pairs of hexadecimal digits: `47 45 54 20`.
pub(crate) struct SpacedHex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for SpacedHex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if index > 0 { " " } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_raw_gets_through() {
        let hostile = "a\r\n\u{1b}]0;x\u{7}\u{202e}\u{9b}\u{2028}\\\t'é'\u{0}";
        let shown = Escaped(hostile.as_bytes()).to_string();
        assert_eq!(shown, r"a\r\n\u{1b}]0;x\u{7}\u{202e}\u{9b}\u{2028}\\\t'é'\0");
    }
}
