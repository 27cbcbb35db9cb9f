//! Errors of a [`Client`](super::Client).

use std::fmt;
use std::time::Duration;

use crate::stream::error::{ReadError, WriteError};

/// Why a request has no reply.
///
/// # Examples
///
/// ```
/// use framelet::client::RequestError;
/// use framelet::Client;
/// use std::time::Duration;
///
/// # smol::block_on(async {
/// # let silent = smol::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let address = silent.local_addr()?;
/// let mut client = Client::connect(address).await?.timeout(Duration::from_millis(1));
/// match client.request(b"ping").await {
///     Err(RequestError::TimedOut { timeout }) => assert_eq!(timeout.as_millis(), 1),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum RequestError {
    /// The request could not be sent. After [`WriteError::Encode`] the client can still be used.
    Write(WriteError),
    /// The reply could not be read.
    Read(ReadError),
    /// The server closed the connection before it replied.
    Closed,
    /// The reply did not arrive in time. The client can still be used: a late reply is dropped.
    TimedOut {
        /// The time that each reply was given.
        timeout: Duration,
    },
}

/// Why a client could not finish.
///
/// # Examples
///
/// ```
/// use framelet::client::FinishError;
/// use framelet::Client;
/// use futures_lite::io::Cursor;
///
/// # futures_lite::future::block_on(async {
/// let client = Client::new(Cursor::new(b"\0\0\0\x05hel".to_vec())); // ends inside a message
/// match client.finish().await {
///     Err(FinishError::Read(error)) => eprintln!("some messages may be lost: {error}"),
///     other => panic!("{other:?}"),
/// }
/// # });
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum FinishError {
    /// What was queued could not be sent.
    Write(WriteError),
    /// The server did not close the stream cleanly; it may not have read everything.
    Read(ReadError),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestError::Write(error) => error.fmt(f),
            RequestError::Read(error) => error.fmt(f),
            RequestError::Closed => {
                f.write_str("the server closed the connection before it replied")
            }
            RequestError::TimedOut { timeout } => {
                write!(f, "no reply within {}", humantime::format_duration(*timeout))
            }
        }
    }
}

impl std::error::Error for RequestError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            RequestError::Write(error) => Some(error),
            RequestError::Read(error) => Some(error),
            RequestError::Closed | RequestError::TimedOut { .. } => None,
        }
    }
}

impl fmt::Display for FinishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FinishError::Write(error) => error.fmt(f),
            FinishError::Read(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for FinishError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            FinishError::Write(error) => Some(error),
            FinishError::Read(error) => Some(error),
        }
    }
}
