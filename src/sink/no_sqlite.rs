//! The sink `sqlite:PATH`, in a build without it.

use std::convert::Infallible;
use std::io;
use std::path::Path;

use super::keep::Keep;
use super::message_sink::{MessageSink, SinkError};
use crate::message::Batch;

/// Stores messages in a SQLite database. This build has no SQLite support, so opening it fails.
///
/// # Examples
///
/// ```
/// use framelet::sink::SqliteSink;
/// use std::io::ErrorKind;
///
/// match SqliteSink::open("messages.db") {
///     Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported),
///     Ok(sink) => panic!("{sink:?}"),
/// }
/// ```
#[derive(Debug)]
pub struct SqliteSink(Infallible);

impl SqliteSink {
    /// Fails, because this build has no SQLite support.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn open(path: impl AsRef<Path>) -> io::Result<SqliteSink> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "cannot open {}: this build has no sqlite; build framelet with the feature sqlite",
                path.as_ref().display()
            ),
        ))
    }

    /// Keeps only so much of what is stored.
    #[must_use]
    pub fn keep(self, _: Keep) -> SqliteSink {
        match self.0 {}
    }
}

impl MessageSink for SqliteSink {
    fn commit(&mut self, _: &[Batch]) -> Result<(), SinkError> {
        match self.0 {}
    }
}
