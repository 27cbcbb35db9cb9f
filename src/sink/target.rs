//! The target of a server's messages, as text.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::wire::escape::WithoutPassword;

/// Where a server stores messages: `stdout`, `file:PATH`, `sqlite:PATH` or
/// `redis://[USER:PASSWORD@]HOST:PORT/DB?stream=NAME[&maxlen=N]`, also written `valkey://…`.
///
/// Its text form shows `***` instead of a password.
///
/// # Examples
///
/// ```
/// use framelet::sink::SinkTarget;
///
/// let target: SinkTarget = "file:/var/log/messages.json".parse()?;
/// assert_eq!(target, SinkTarget::File("/var/log/messages.json".into()));
/// # Ok::<(), framelet::sink::ParseSinkTargetError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SinkTarget {
    /// Standard output; see [`OutputSink`](crate::sink::OutputSink).
    #[default]
    Stdout,
    /// Appended to a file; see [`FileSink`](crate::sink::FileSink).
    File(PathBuf),
    /// A SQLite database; see [`SqliteSink`](crate::sink::SqliteSink).
    Sqlite(PathBuf),
    /// A Redis stream, as a URL; see [`RedisSink`](crate::sink::RedisSink).
    Redis(String),
}

/// Not a valid target.
///
/// # Examples
///
/// ```
/// use framelet::sink::{ParseSinkTargetError, SinkTarget};
///
/// match "messages.db".parse::<SinkTarget>() {
///     Err(ParseSinkTargetError::Unknown { path }) => assert!(path), // file: or sqlite:?
///     other => panic!("{other:?}"),
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseSinkTargetError {
    /// It starts like none of them.
    Unknown {
        /// Whether it looks like a path.
        path: bool,
    },
    /// The path is missing after this.
    NoPath(&'static str),
}

impl FromStr for SinkTarget {
    type Err = ParseSinkTargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "stdout" {
            return Ok(SinkTarget::Stdout);
        }
        let kinds = [
            ("file:", SinkTarget::File as fn(PathBuf) -> SinkTarget),
            ("sqlite:", SinkTarget::Sqlite),
        ];
        for (kind, place) in kinds {
            match text.strip_prefix(kind) {
                Some("") => return Err(ParseSinkTargetError::NoPath(kind)),
                Some(path) => return Ok(place(path.into())),
                None => {}
            }
        }
        // The sink itself checks the kind of URL.
        let scheme = text.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
        let is_redis = |scheme: &str| {
            let is_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
            (scheme.starts_with("redis") || scheme.starts_with("valkey"))
                && scheme.chars().all(is_scheme)
        };
        if scheme.as_deref().is_some_and(is_redis) {
            return Ok(SinkTarget::Redis(text.into()));
        }
        let path =
            !text.contains(':') && (text.contains('/') || Path::new(text).extension().is_some());
        Err(ParseSinkTargetError::Unknown { path })
    }
}

impl fmt::Display for SinkTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SinkTarget::Stdout => f.write_str("stdout"),
            SinkTarget::File(path) => write!(f, "file:{}", path.display()),
            SinkTarget::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            SinkTarget::Redis(url) => WithoutPassword(url).fmt(f),
        }
    }
}

impl fmt::Debug for SinkTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SinkTarget({self})")
    }
}

impl fmt::Display for ParseSinkTargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParseSinkTargetError::Unknown { path } => {
                f.write_str(
                    "no such sink; the sinks are stdout, file:PATH, sqlite:PATH and redis://…",
                )?;
                f.write_str(if *path { ", and a path alone does not say which" } else { "" })
            }
            ParseSinkTargetError::NoPath(kind) => {
                write!(f, "the path is missing; write it after {kind}, as in {kind}messages")
            }
        }
    }
}

impl std::error::Error for ParseSinkTargetError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_have_one_text_each() {
        for text in [
            "stdout",
            "file:a",
            "file:/a b/c:d",
            "sqlite:x.db",
            "sqlite::memory:",
            "redis://h/?stream=a",
        ] {
            assert_eq!(text.parse::<SinkTarget>().unwrap().to_string(), text);
        }
        for scheme in ["redis", "rediss", "valkey", "valkeys", "Redis", "VALKEY"] {
            let url = format!("{scheme}://me:secret@h/?stream=a");
            let place: SinkTarget = url.parse().unwrap();
            let shown = format!("{scheme}://me:***@h/?stream=a");
            assert_eq!(
                (place.to_string(), format!("{place:?}")),
                (shown.clone(), format!("SinkTarget({shown})"))
            );
            assert_eq!(place, SinkTarget::Redis(url), "the sink needs all of it");
        }
        for (text, words) in [
            ("", "the sinks are stdout, file:PATH"),
            ("kafka:x", "no such sink"),
            ("redis?pass=a:b", "no such sink"),
            ("out/messages", "a path alone does not say which"),
            ("messages.db", "a path alone does not say which"),
            ("file:", "after file:"),
            ("sqlite:", "after sqlite:"),
        ] {
            let error = text.parse::<SinkTarget>().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
