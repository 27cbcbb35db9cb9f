//! The identity of a sender: one logical client, across reconnections.

use std::fmt;
use std::io;
use std::str::FromStr;

/// The length of an id, in bytes.
const LEN: usize = 16;

/// How many digits the short form shows: enough to tell ids apart in a log.
const SHOWN: usize = 8;

/// The id of a sender: one logical client, across reconnections.
///
/// An id is a secret: anyone who knows it can impersonate the sender. So [`Debug`](fmt::Debug) and
/// [`short`](SenderId::short) show only its beginning, for logs. Its text form ([`Display`](fmt::Display))
/// is the whole id, 32 lower-case hexadecimal digits; store it where only the sender can read it. The
/// server, and everybody who can read its messages, knows it too.
///
/// # Examples
///
/// ```
/// use framelet::wire::SenderId;
///
/// let id: SenderId = "000102030405060708090a0b0c0d0e0f".parse()?;
/// assert_eq!(id.as_bytes()[15], 15);
/// assert_eq!(id.to_string(), "000102030405060708090a0b0c0d0e0f");
/// assert_eq!(id.short(), "00010203…");
/// # Ok::<(), framelet::wire::ParseSenderIdError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SenderId([u8; LEN]);

impl SenderId {
    /// Returns the id with these bytes.
    pub const fn from_bytes(bytes: [u8; LEN]) -> SenderId {
        SenderId(bytes)
    }

    /// Returns the bytes of the id.
    pub const fn as_bytes(&self) -> &[u8; LEN] {
        &self.0
    }

    /// Returns the first 8 digits and `…`: enough to tell senders apart, but not the secret.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(SHOWN);
        text.push('…');
        text
    }

    /// Returns a new id of 128 random bits.
    ///
    /// # Errors
    ///
    /// If the operating system's random number generator fails.
    pub fn random() -> io::Result<SenderId> {
        let mut bytes = [0; LEN];
        getrandom::fill(&mut bytes)?;
        Ok(SenderId(bytes))
    }
}

impl fmt::Display for SenderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for SenderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SenderId({})", self.short())
    }
}

/// Not a valid sender id.
///
/// # Examples
///
/// ```
/// use framelet::wire::{ParseSenderIdError, SenderId};
///
/// assert_eq!("42".parse::<SenderId>(), Err(ParseSenderIdError));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseSenderIdError;

impl fmt::Display for ParseSenderIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a sender id; write 32 lower-case hexadecimal digits")
    }
}

impl std::error::Error for ParseSenderIdError {}

impl FromStr for SenderId {
    type Err = ParseSenderIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Each id has exactly one text form: `from_str_radix` alone would also take upper case and a sign.
        let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        match u128::from_str_radix(text, 16) {
            Ok(number) if digits && text.len() == 2 * LEN => Ok(SenderId(number.to_be_bytes())),
            _ => Err(ParseSenderIdError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_say_the_same() {
        let id = SenderId::random().unwrap();
        assert_eq!(id.to_string().len(), 32);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(SenderId::from_bytes(*id.as_bytes()), id);
        assert_ne!(SenderId::random().unwrap(), id);
    }

    #[test]
    fn only_the_text_form_shows_the_secret() {
        let id: SenderId = "00112233445566778899aabbccddeeff".parse().unwrap();
        assert_eq!(id.short(), "00112233…");
        assert_eq!(format!("{id:?}"), "SenderId(00112233…)");
        let hello = crate::wire::Hello { sender: id, first: 1 };
        assert!(!format!("{hello:?}").contains("4455"));
    }

    #[test]
    fn what_is_no_id_says_what_one_looks_like() {
        let digits = "00112233445566778899aabbccddeeff";
        for text in [
            "",
            "0",
            &digits[1..],
            &format!("+{}", &digits[1..]),
            &digits.to_uppercase(),
            &format!("{digits}00"),
            "é",
        ] {
            let error = text.parse::<SenderId>().unwrap_err();
            assert!(error.to_string().contains("32 lower-case"), "{text}");
        }
    }
}
