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
/// assert_eq!(framelet::wire::Escaped(b"red \x1b[31m\xff").to_string(), r"red \u{1b}[31m\xff");
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

/// Shows a text that may be a URL, without its password: for logs and errors that show the target of a
/// sink.
///
/// Everything before the last `@` is treated as user and password, and so is the value of a parameter such
/// as `?pass=`, even in a text that is not a URL: hiding too much is better than showing a secret.
///
/// # Examples
///
/// ```
/// use framelet::wire::WithoutPassword;
///
/// let url = "redis://user:secret@localhost/0";
/// assert_eq!(WithoutPassword(url).to_string(), "redis://user:***@localhost/0");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct WithoutPassword<'a>(pub &'a str);

impl fmt::Display for WithoutPassword<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (login, host) = self.0.rsplit_once('@').unwrap_or(("", self.0));
        // Only the first colon can end a scheme; a later `://` is part of a password.
        let scheme = login.find(':').filter(|&end| login[end..].starts_with("://"));
        let start = scheme.map_or(0, |end| end + "://".len());
        let text = match login[start..].find(':') {
            Some(user) => format!("{}:***@{host}", &login[..start + user]),
            None => self.0.to_owned(),
        };
        let mut rest = &text[..];
        while let Some(mark) = rest.find(['?', '&']) {
            let (before, parameter) = rest.split_at(mark + 1);
            f.write_str(before)?;
            rest = parameter;
            let end = parameter.find(['?', '&']).unwrap_or(parameter.len());
            if let Some((key, _)) = parameter[..end].split_once('=')
                && key.to_ascii_lowercase().contains("pass")
            {
                write!(f, "{key}=***")?;
                rest = &parameter[end..];
            }
        }
        f.write_str(rest)
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
    fn a_password_is_not_shown() {
        for (text, shown) in [
            ("redis://me:secret@h:1/0?stream=a", "redis://me:***@h:1/0?stream=a"),
            ("redis://:secret@h", "redis://:***@h"),
            // Not as they should be written.
            ("redis://:s@cr/e?t@h?stream=a", "redis://:***@h?stream=a"),
            ("redis:me:secret@h", "redis:***@h"),
            ("redis:sec://ret@h", "redis:***@h"),
            ("REDISS://:secret@h", "REDISS://:***@h"),
            (
                "unix+redis:///run/a.sock?db=1&pass=secret&a=b",
                "unix+redis:///run/a.sock?db=1&pass=***&a=b",
            ),
            ("redis+unix:///a?Password=se@cr:et", "redis+unix:///a?Password=***"),
            // Without one.
            ("redis://me@h:1/0?stream=a", "redis://me@h:1/0?stream=a"),
            ("redis://h:1/?stream=a", "redis://h:1/?stream=a"),
            ("[::1]:4747", "[::1]:4747"),
            ("", ""),
        ] {
            assert_eq!(WithoutPassword(text).to_string(), shown);
        }
    }

    #[test]
    fn nothing_raw_gets_through() {
        let hostile = "a\r\n\u{1b}]0;x\u{7}\u{202e}\u{9b}\u{2028}\\\t'é'\u{0}";
        let shown = Escaped(hostile.as_bytes()).to_string();
        assert_eq!(shown, r"a\r\n\u{1b}]0;x\u{7}\u{202e}\u{9b}\u{2028}\\\t'é'\0");
    }
}
