//! What can be chosen about a server, and why it may not start or end well.

use std::fmt;
use std::io;
use std::time::Duration;

use log::warn;
use rustix::process::{Resource, getrlimit};
use smol::channel::{self, Receiver, Sender};

use crate::wire::ack::{Hello, UnfitLayout};
use crate::wire::count::Count;
use crate::wire::io_error::Plain;
use crate::wire::layout::{Layout, LimitError};

/// The file descriptors that are left to everything but connections.
const SPARE_DESCRIPTORS: u64 = 32;

/// The most connections that are served at once unless told otherwise.
const MAX_CONNECTIONS: usize = 10_000;

/// The memory for payloads unless told otherwise, in bytes; more if two messages would not fit.
const DEFAULT_MEMORY: usize = 64 * 1024 * 1024;

/// How a server treats its connections.
///
/// # Examples
///
/// ```
/// use framelet::ServeOptions;
///
/// let options = ServeOptions { echo: true, ..ServeOptions::default() };
/// ```
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// How prefixes are written, in both directions. Default: `u32be`.
    pub layout: Layout,
    /// The longest payload to accept, in bytes. Default: 8 MiB, or what the layout can say.
    pub max_message: Option<usize>,
    /// How many connections are served at once; more are closed as soon as they come. Default: the
    /// limit of open files less 32, at most 10,000.
    pub max_connections: Option<usize>,
    /// How long a message may take from its first byte to its last, and how long a peer may take nothing
    /// of its replies. Default: 30 s.
    pub message_timeout: Option<Duration>,
    /// How long a connection may be silent between messages. Default: for ever.
    pub idle_timeout: Option<Duration>,
    /// How many bytes of received messages are held at once, of all connections together. Where
    /// there are more to come, connections wait. Messages that are incomplete, and replies that are not
    /// taken, may have a part of it only, and the longer they are the less: so shorter messages get
    /// through beside longer ones that stall. At least, and by default where that is more than 64 MiB,
    /// twice the longest message; less than 1 MiB and the longest message has no effect.
    pub memory: Option<usize>,
    /// How long ending may take. Default: 10 s.
    pub grace: Duration,
    /// Whether each message is sent back.
    pub echo: bool,
    /// Whether only clients that ask for acknowledgements are served.
    pub require_ack: bool,
    /// Where the sink is told to open again what it writes to; keep a clone to tell it.
    pub reopen: Reopen,
}

/// Tells the sink of a running server to open again what it writes to: see
/// [`Sink::reopen`](crate::Sink::reopen).
///
/// All clones are the same.
///
/// # Examples
///
/// ```
/// use framelet::ServeOptions;
///
/// let options = ServeOptions::default();
/// let reopen = options.reopen.clone();
/// // … start the server with the options, and then, from anywhere:
/// reopen.ask();
/// ```
#[derive(Clone, Debug)]
pub struct Reopen {
    // Room for one: who asks again before it is done has asked for the same thing.
    ask: Sender<()>,
    asked: Receiver<()>,
}

impl Default for Reopen {
    fn default() -> Self {
        let (ask, asked) = channel::bounded(1);
        Reopen { ask, asked }
    }
}

impl Reopen {
    /// Asks the sink to open again what it writes to, once it has taken what was received so far. It
    /// does not wait for that.
    pub fn ask(&self) {
        let _ = self.ask.try_send(());
    }

    /// Waits until it was asked for.
    pub(crate) async fn asked(&self) {
        // Cannot fail: a sender is right here.
        let _ = self.asked.recv().await;
    }
}

impl Default for ServeOptions {
    fn default() -> Self {
        ServeOptions {
            layout: Layout::U32BE,
            max_message: None,
            max_connections: None,
            message_timeout: Some(Duration::from_secs(30)),
            idle_timeout: None,
            memory: None,
            grace: Duration::from_secs(10),
            echo: false,
            require_ack: false,
            reopen: Reopen::default(),
        }
    }
}

impl ServeOptions {
    /// Checks that the options make sense together, as [`serve`](crate::serve) does before anything else.
    ///
    /// # Errors
    ///
    /// [`ServeError::Limit`], [`ServeError::Memory`], [`ServeError::Zero`], [`ServeError::Acks`] or
    /// [`ServeError::EchoAcks`].
    pub fn check(&self) -> Result<(), ServeError> {
        self.checked().map(|_| ())
    }

    /// Returns the longest message and the memory to use, both in bytes.
    pub(crate) fn checked(&self) -> Result<(usize, usize), ServeError> {
        let max_message = self.layout.limit(self.max_message).map_err(ServeError::Limit)?;
        let memory = self.memory.unwrap_or(DEFAULT_MEMORY.max(2 * max_message));
        if memory / 2 < max_message {
            return Err(ServeError::Memory { memory, max_message });
        }
        let zero = |duration: Option<Duration>| duration.is_some_and(|duration| duration.is_zero());
        for (is_zero, what) in [
            (self.max_connections == Some(0), "max_connections"),
            (zero(self.message_timeout), "message_timeout"),
            (zero(self.idle_timeout), "idle_timeout"),
        ] {
            if is_zero {
                return Err(ServeError::Zero(what));
            }
        }
        if self.require_ack && self.echo {
            return Err(ServeError::EchoAcks);
        }
        if self.require_ack && !Hello::fits(self.layout) {
            return Err(ServeError::Acks(UnfitLayout { layout: self.layout }));
        }
        Ok((max_message, memory))
    }
}

/// Why a server did not start, or did not end as it should.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// The limit cannot be reached in the layout.
    Limit(LimitError),
    /// The memory does not hold two messages of the longest allowed.
    Memory {
        /// The memory asked for, in bytes.
        memory: usize,
        /// The longest message, in bytes.
        max_message: usize,
    },
    /// The option of this name must not be zero.
    Zero(&'static str),
    /// Acknowledgements are required, but the layout has none.
    Acks(UnfitLayout),
    /// Acknowledgements are required of a server that sends messages back instead.
    EchoAcks,
    /// The system refused something at the start.
    Start(io::Error),
    /// The sink failed.
    Sink {
        /// Why.
        error: io::Error,
        /// How many messages had been received and are not known to be committed.
        uncommitted: u64,
    },
    /// The sink did not take everything within the grace period.
    Unfinished {
        /// How many messages had been received and are not known to be committed.
        uncommitted: u64,
        /// What the sink was waiting for, if it could not take messages just then.
        trouble: Option<String>,
    },
}

/// Returns the limit to use: the one asked for, or as many as there are file descriptors for.
pub(crate) fn max_connections(asked: Option<usize>) -> usize {
    let files = getrlimit(Resource::Nofile).current;
    let room = files.map_or(usize::MAX, |files| {
        usize::try_from(files.saturating_sub(SPARE_DESCRIPTORS)).unwrap_or(usize::MAX)
    });
    let max = asked.unwrap_or(MAX_CONNECTIONS.min(room)).max(1);
    if max > room {
        warn!(
            "{} may need more than the {} open files this process may have (ulimit -n); what is over \
             that waits",
            Count(max as u64, "connection"),
            files.unwrap_or(u64::MAX)
        );
    }
    max
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Limit(error) => error.fmt(f),
            ServeError::Memory { memory, max_message } => write!(
                f,
                "{memory} bytes of memory do not hold two messages of {max_message} bytes"
            ),
            ServeError::Zero(option) => write!(f, "{option} cannot be zero"),
            ServeError::Acks(unfit) => unfit.fmt(f),
            ServeError::EchoAcks => f.write_str(
                "a server that echoes messages gives no acknowledgements, so it cannot require them",
            ),
            ServeError::Start(error) => Plain(error).fmt(f),
            ServeError::Sink { error, uncommitted } => {
                write!(f, "cannot put messages into the sink: {}", Plain(error))?;
                match uncommitted {
                    0 => Ok(()),
                    1 => write!(f, "; {}", not_written(1)),
                    many => write!(f, "; {}, or not all of them", not_written(*many)),
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
