//! The options of a server.

use std::sync::Arc;
use std::time::Duration;

use log::warn;
use rustix::process::{Resource, getrlimit};

use super::error::ServeError;
use super::figures::Monitor;
use super::handler::Answering;
use super::reopen::Reopen;
use super::upgrade::Upgrade;
use crate::net::network::Network;
use crate::wire::ack::{Hello, UnsupportedLayout};
use crate::wire::count::Count;
use crate::wire::empty_frames::EmptyFrames;
use crate::wire::layout::Layout;

/// How many file descriptors are reserved for everything but connections.
const SPARE_DESCRIPTORS: u64 = 32;

/// The default limit on connections, if there are enough file descriptors.
const MAX_CONNECTIONS: usize = 10_000;

/// The default memory for payloads, in bytes; more if two messages would not fit.
const DEFAULT_MEMORY: usize = 64 * 1024 * 1024;

/// The default time limit of a message.
pub(crate) const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);

/// After how long an idle connection may have to give way to another one by default. Chosen by judgement: a client
/// that sends every few seconds keeps its connection, and a peer that takes all of them keeps the others out no
/// longer than they try again.
const EVICT_IDLE: Duration = Duration::from_secs(10);

/// How many requests of one connection are answered at the same time by default. Chosen by judgement:
/// enough for a handler that waits for a database, and few enough that ten thousand connections cannot
/// start millions.
const DEFAULT_PIPELINE: usize = 16;

/// The chosen options; see the methods of [`Server`](super::server::Server).
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) layout: Layout,
    pub(crate) max_message: Option<usize>,
    pub(crate) max_connections: Option<usize>,
    pub(crate) max_per_address: Option<usize>,
    pub(crate) allow: Option<Vec<Network>>,
    pub(crate) evict_idle: Option<Duration>,
    pub(crate) message_timeout: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) memory: Option<usize>,
    pub(crate) grace: Duration,
    pub(crate) require_acks: bool,
    pub(crate) proxy_protocol: bool,
    pub(crate) proxy_from: Option<Vec<Network>>,
    pub(crate) preamble: Arc<[u8]>,
    pub(crate) skip: u64,
    pub(crate) empty: EmptyFrames,
    pub(crate) pipeline: usize,
    pub(crate) answering: Answering,
    pub(crate) upgrade: Option<Upgrade>,
    pub(crate) reopen: Reopen,
    pub(crate) monitor: Monitor,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            layout: Layout::U32BE,
            max_message: None,
            max_connections: None,
            max_per_address: None,
            allow: None,
            evict_idle: Some(EVICT_IDLE),
            message_timeout: Some(MESSAGE_TIMEOUT),
            idle_timeout: None,
            memory: None,
            grace: Duration::from_secs(10),
            require_acks: false,
            proxy_protocol: false,
            proxy_from: None,
            preamble: Arc::default(),
            skip: 0,
            empty: EmptyFrames::Message,
            pipeline: DEFAULT_PIPELINE,
            answering: Answering::Nothing,
            upgrade: None,
            reopen: Reopen::default(),
            monitor: Monitor::default(),
        }
    }
}

impl Options {
    /// Returns whether either side sends something before its first frame.
    pub(crate) fn has_preamble(&self) -> bool {
        !self.preamble.is_empty() || self.skip > 0
    }

    /// Checks that the options are consistent. Returns the longest message and the memory to use, in bytes.
    pub(crate) fn check(&self) -> Result<(usize, usize), ServeError> {
        let max_message = self.layout.limit(self.max_message).map_err(ServeError::Limit)?;
        let memory = self.memory.unwrap_or(DEFAULT_MEMORY.max(2 * max_message));
        if memory / 2 < max_message {
            return Err(ServeError::Memory { memory, max_message });
        }
        let zero = |duration: Option<Duration>| duration.is_some_and(|duration| duration.is_zero());
        for (is_zero, what) in [
            (self.max_connections == Some(0), "max_connections"),
            (self.max_per_address == Some(0), "max_per_address"),
            (zero(self.evict_idle), "evict_idle"),
            (zero(self.message_timeout), "message_timeout"),
            (zero(self.idle_timeout), "idle_timeout"),
            (self.pipeline == 0, "pipeline"),
        ] {
            if is_zero {
                return Err(ServeError::Zero(what));
            }
        }
        if self.require_acks && self.answering.answers() {
            return Err(ServeError::AnswerAcks);
        }
        if self.require_acks && self.has_preamble() {
            return Err(ServeError::PreambleAcks);
        }
        if self.require_acks && self.empty != EmptyFrames::Message {
            return Err(ServeError::EmptyAcks);
        }
        if self.require_acks && !Hello::fits(self.layout) {
            return Err(ServeError::Acks(UnsupportedLayout { layout: self.layout }));
        }
        Ok((max_message, memory))
    }
}

/// Returns the limit to use: `asked`, or as many as the file descriptors allow.
pub(crate) fn max_connections(asked: Option<usize>) -> usize {
    let files = getrlimit(Resource::Nofile).current;
    let room = files.map_or(usize::MAX, |files| {
        usize::try_from(files.saturating_sub(SPARE_DESCRIPTORS)).unwrap_or(usize::MAX)
    });
    let max = asked.unwrap_or(MAX_CONNECTIONS.min(room)).max(1);
    if max > room {
        warn!(
            "{} may need more than the {} open files this process may have (ulimit -n); further \
             connections wait in the backlog",
            Count(max as u64, "connection"),
            files.unwrap_or(u64::MAX)
        );
    }
    max
}
