//! The sink `redis://…`, in a build without it.

use std::convert::Infallible;
use std::io;

use super::message_sink::{MessageSink, SinkError};
use crate::message::Batch;

/// Adds messages to a Redis stream. This build has no Redis support, so opening it fails.
///
/// # Examples
///
/// ```
/// use framelet::sink::RedisSink;
/// use std::io::ErrorKind;
///
/// match RedisSink::open("redis://127.0.0.1:6379/0?stream=readings") {
///     Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported),
///     Ok(sink) => panic!("{sink:?}"),
/// }
/// ```
#[derive(Debug)]
pub struct RedisSink(Infallible);

impl RedisSink {
    /// Fails, because this build has no Redis support.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn open(_: &str) -> io::Result<RedisSink> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "cannot use Redis: this build has no redis; build framelet with the feature redis",
        ))
    }

    /// Fails, because this build has no Redis support.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn open_with_password(url: &str, _: &str) -> io::Result<RedisSink> {
        RedisSink::open(url)
    }
}

impl MessageSink for RedisSink {
    fn commit(&mut self, _: &[Batch]) -> Result<(), SinkError> {
        match self.0 {}
    }
}
