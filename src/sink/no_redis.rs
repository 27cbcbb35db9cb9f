//! The sink `redis://…` in a build without it.

use std::convert::Infallible;
use std::io;

use super::message_sink::{MessageSink, SinkError};
use crate::message::Batch;

/// Puts messages into a Redis stream; not in this build, so that none can be opened.
#[derive(Debug)]
pub struct RedisSink(Infallible);

impl RedisSink {
    /// Says that this build has none.
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

    /// Says so, too.
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
