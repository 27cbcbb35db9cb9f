//! Errors that end a stream of frames.

use std::fmt;
use std::io;

use crate::wire::count::Count;
use crate::wire::error::{Fault, Position, ProtocolError};
use crate::wire::io_error::{Plain, same_again};
use crate::wire::layout::EncodeError;
use crate::wire::suspect::Suspect;

/// Why no more messages can be read.
///
/// It is final: every later read returns the same error again.
///
/// # Examples
///
/// ```
/// use framelet::stream::ReadError;
/// use framelet::FrameReader;
///
/// # futures_lite::future::block_on(async {
/// let mut reader = FrameReader::new(&b"\0\0\0\x05hel"[..]);
/// match reader.read().await {
///     Ok(message) => panic!("{message:?}"),
///     Err(ReadError::Protocol(error)) => assert_eq!(error.at.message, 1),
///     Err(error) => panic!("the stream failed: {error}"),
/// }
///
/// let mut reader = FrameReader::new(&b"GET / HTTP/1.1\r\n"[..]);
/// let error = reader.read().await.unwrap_err();
/// assert!(error.suspect().is_some_and(|it| it.to_string().contains("an HTTP request")));
/// # });
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum ReadError {
    /// The stream broke the protocol.
    Protocol(ProtocolError),
    /// The stream itself failed, for example by a reset.
    Io {
        /// What failed.
        error: io::Error,
        /// The message that was expected or being read.
        at: Position,
        /// How many bytes of that message's frame had arrived.
        got: u64,
        /// What the stream most likely is, if these bytes show that it is something else.
        suspect: Option<Suspect>,
    },
}

/// Why a message was not written.
///
/// # Examples
///
/// ```
/// use framelet::stream::WriteError;
/// use framelet::FrameWriter;
/// use framelet::wire::EncodeError;
///
/// # futures_lite::future::block_on(async {
/// let mut writer = FrameWriter::new(Vec::new()).max_message(4)?;
/// match writer.send(b"hello").await {
///     Err(WriteError::Encode(EncodeError::TooLong(error))) => assert_eq!(error.limit, 4),
///     other => panic!("{other:?}"),
/// }
/// writer.send(b"hi").await?;
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum WriteError {
    /// The message cannot be framed: it is too long, say. Nothing of it was written, and the stream can still
    /// be used.
    Encode(EncodeError),
    /// The stream failed. This is final: every later call returns the same error.
    Io(io::Error),
}

impl ReadError {
    /// Returns what the stream most likely is, if its bytes show that it is something else.
    pub fn suspect(&self) -> Option<&Suspect> {
        match self {
            ReadError::Protocol(error) => error.suspect.as_ref(),
            ReadError::Io { suspect, .. } => suspect.as_ref(),
        }
    }
}

impl Clone for ReadError {
    fn clone(&self) -> Self {
        match self {
            ReadError::Protocol(error) => ReadError::Protocol(error.clone()),
            ReadError::Io { error, at, got, suspect } => {
                let (error, suspect) = (same_again(error), suspect.clone());
                ReadError::Io { error, at: *at, got: *got, suspect }
            }
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Protocol(error) => error.fmt(f),
            ReadError::Io { error, at, got: 0, .. } => write!(f, "{at}: {}", Plain(error)),
            ReadError::Io { error, at, got, suspect } => {
                write!(f, "{at}: {}, {} into it", Plain(error), Count(*got, "byte"))?;
                suspect.iter().try_for_each(|suspect| write!(f, "; {suspect}"))
            }
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ReadError::Protocol(error) => Some(error),
            ReadError::Io { error, .. } => Some(error),
        }
    }
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        let kind = match &error {
            ReadError::Io { error, .. } => error.kind(),
            ReadError::Protocol(ProtocolError { fault, .. }) => match fault {
                Fault::TruncatedPrefix { .. }
                | Fault::TruncatedPayload { .. }
                | Fault::TruncatedTrailer { .. }
                | Fault::TruncatedPreamble { .. } => io::ErrorKind::UnexpectedEof,
                Fault::TimedOut { .. } | Fault::Slow { .. } => io::ErrorKind::TimedOut,
                Fault::TooLarge { .. } | Fault::Malformed(_) => io::ErrorKind::InvalidData,
            },
        };
        io::Error::new(kind, error)
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::Encode(error) => error.fmt(f),
            WriteError::Io(error) => Plain(error).fmt(f),
        }
    }
}

impl std::error::Error for WriteError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            WriteError::Encode(error) => Some(error),
            WriteError::Io(error) => Some(error),
        }
    }
}

impl From<EncodeError> for WriteError {
    fn from(error: EncodeError) -> Self {
        WriteError::Encode(error)
    }
}

impl From<WriteError> for io::Error {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Encode(error) => io::Error::new(io::ErrorKind::InvalidInput, error),
            WriteError::Io(error) => error,
        }
    }
}
