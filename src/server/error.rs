//! Why a server did not start, or did not end as it should.

use std::fmt;
use std::io;

use crate::wire::ack::UnsupportedLayout;
use crate::wire::count::Count;
use crate::wire::io_error::Plain;
use crate::wire::layout::LimitError;

/// Why a server did not start, or did not end as it should.
///
/// # Examples
///
/// ```
/// use framelet::server::ServeError;
/// use framelet::{Address, Server};
///
/// # futures_lite::future::block_on(async {
/// let listener = "127.0.0.1:0".parse::<Address>()?.listen().await?;
/// match Server::new(listener).max_message(8 << 20).memory(1 << 20).check() {
///     Err(ServeError::Memory { max_message, .. }) => assert_eq!(max_message, 8 << 20),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// The longest message is too long for the layout.
    Limit(LimitError),
    /// The memory does not hold two of the longest messages.
    Memory {
        /// The memory asked for, in bytes.
        memory: usize,
        /// The longest message, in bytes.
        max_message: usize,
    },
    /// The option of this name must not be zero.
    Zero(&'static str),
    /// Acknowledgements are required, but the layout does not support them.
    Acks(UnsupportedLayout),
    /// Acknowledgements are required, but the server answers instead.
    AnswerAcks,
    /// Acknowledgements are required, but the connection begins with a preamble.
    PreambleAcks,
    /// Acknowledgements are required, with which each frame is a message, but empty frames are to be none.
    EmptyAcks,
    /// A system call failed at the start.
    Start(io::Error),
    /// The sink failed.
    Sink {
        /// Why.
        error: io::Error,
        /// How many received messages are not known to be committed.
        uncommitted: u64,
    },
    /// The sink did not commit everything within the grace period.
    Unfinished {
        /// How many received messages are not known to be committed.
        uncommitted: u64,
        /// Why the sink could not take messages, if it was in trouble.
        trouble: Option<String>,
    },
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Limit(error) => error.fmt(f),
            ServeError::Memory { memory, max_message } => write!(
                f,
                "{memory} bytes of memory do not hold two messages of {max_message} bytes: at least {} \
                 are needed",
                max_message.saturating_mul(2)
            ),
            ServeError::Zero(what) => write!(f, "{what} must not be zero"),
            ServeError::Acks(unfit) => unfit.fmt(f),
            ServeError::AnswerAcks => f.write_str(
                "a server that replies gives no acknowledgements, so it cannot require clients to ask \
                 for them",
            ),
            ServeError::PreambleAcks => f.write_str(
                "a connection with a preamble has no acknowledgements, so they cannot be required",
            ),
            ServeError::EmptyAcks => f.write_str(
                "where acknowledgements are required, each frame is a message, also an empty one",
            ),
            ServeError::Start(error) => Plain(error).fmt(f),
            ServeError::Sink { error, uncommitted } => {
                write!(f, "cannot put messages into the sink: {}", Plain(error))?;
                match uncommitted {
                    0 => Ok(()),
                    1 => write!(f, "; {}", not_written(1)),
                    many => write!(f, "; up to {}", not_written(*many)),
                }
            }
            ServeError::Unfinished { uncommitted, trouble } => {
                write!(f, "{} by the end of the grace period", not_written(*uncommitted))?;
                trouble.as_ref().map_or(Ok(()), |trouble| write!(f, ": {trouble}"))
            }
        }
    }
}

fn not_written(messages: u64) -> String {
    let were = if messages == 1 { "was" } else { "were" };
    format!("{} received {were} not written", Count(messages, "message"))
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ServeError::Limit(error) => Some(error),
            ServeError::Start(error) | ServeError::Sink { error, .. } => Some(error),
            _ => None,
        }
    }
}
