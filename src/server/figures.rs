//! What a server has done so far and is doing now, as numbers.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The upper bounds of the buckets of [`SinkFigures::commit_times`], in microseconds. Chosen by judgement: about
/// three for each power of ten, from a commit into a pipe to one that a slow disk holds up.
pub(super) const BOUNDS: [u64; 11] =
    [100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000];

/// Gives the [`Figures`] of a server, from anywhere, before, while and after it runs.
///
/// Clones watch the same server. If several servers have the same monitor, it watches the one that began to run
/// last.
///
/// # Examples
///
/// ```
/// use framelet::Server;
/// use framelet::net::Peer;
/// use framelet::server::{Monitor, Stage};
/// use futures_lite::{future, io::Cursor, stream};
///
/// # future::block_on(async {
/// let monitor = Monitor::default();
/// let streams = stream::once(Ok((Cursor::new(b"\0\0\0\x02hi".to_vec()), Peer::Unix)));
/// Server::accept_from(streams).monitor(monitor.clone()).run(future::pending()).await?;
/// let figures = monitor.figures();
/// assert_eq!((figures.stage, figures.messages, figures.payload_bytes), (Stage::Ended, 1, 2));
/// # Ok::<(), framelet::server::ServeError>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, Default)]
pub struct Monitor(Arc<Mutex<Source>>);

/// Where figures come from.
struct Source(Box<dyn Fn() -> Figures + Send>);

/// What a server has done since it began to run, and what it does now.
///
/// The numbers are read one after the other while the server goes on, so sums may be off by what happened
/// in between. All counts only grow, except those that say "now".
///
/// # Examples
///
/// A connection that ends in the middle of its second message:
///
/// ```
/// use framelet::format::OutputFormat;
/// use framelet::net::Peer;
/// use framelet::server::{Figures, Incident, Monitor};
/// use framelet::sink::OutputSink;
/// use framelet::Server;
/// use futures_lite::{future, io::Cursor, stream};
///
/// # future::block_on(async {
/// let monitor = Monitor::default();
/// let bytes = b"\0\0\0\x02hi\0\0\0\x05hel".to_vec();
/// Server::accept_from(stream::once(Ok((Cursor::new(bytes), Peer::Unix))))
///     .collect(OutputSink::stdout(OutputFormat::None)?)
///     .monitor(monitor.clone())
///     .run(future::pending())
///     .await?;
/// let figures: Figures = monitor.figures();
/// let sink = figures.sink.expect("there is a sink");
/// assert_eq!((sink.committed, sink.uncommitted, sink.trouble), (1, 0, None));
/// let happened: Vec<Incident> =
///     figures.incidents.into_iter().filter(|incident| incident.count > 0).collect();
/// assert_eq!((happened[0].reason, happened[0].count), ("truncated", 1));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Figures {
    /// How far the server is between its start and its end.
    pub stage: Stage,
    /// For how long it has run.
    pub uptime: Duration,
    /// How many connections it has served, including the open ones.
    pub connections: u64,
    /// How many connections are open now.
    pub open_connections: usize,
    /// The most connections that may be open.
    pub max_connections: usize,
    /// What went wrong with connections, and how often: one entry for each reason, in the same order for all servers.
    pub incidents: Vec<Incident>,
    /// How many messages were received, including those that a sender sent again.
    pub messages: u64,
    /// The total length of their payloads, in bytes.
    pub payload_bytes: u64,
    /// How many bytes of memory received messages and unsent replies take now.
    pub memory: usize,
    /// How many they may take.
    pub memory_limit: usize,
    /// What the sink has done; `None` if there is no sink.
    pub sink: Option<SinkFigures>,
}

/// How far a server is between its start and its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// It does not run yet.
    #[default]
    Starting,
    /// It accepts connections.
    Serving,
    /// It shuts down.
    Stopping,
    /// It has ended.
    Ended,
}

/// How often something went wrong with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Incident {
    /// The reason, as one word in lower case such as `truncated` or `over_limit`.
    pub reason: &'static str,
    /// How often it happened.
    pub count: u64,
}

/// What a sink has done, and what it does now.
///
/// # Examples
///
/// ```
/// use framelet::server::{SinkFigures, Trouble};
///
/// fn state(sink: &SinkFigures) -> String {
///     match &sink.trouble {
///         Some(Trouble { reason, lasted, .. }) => format!("{reason}, for {} s", lasted.as_secs()),
///         None => format!("{} messages in {} commits", sink.committed, sink.commit_times.count()),
///     }
/// }
/// assert_eq!(state(&SinkFigures::default()), "0 messages in 0 commits");
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct SinkFigures {
    /// How many messages were committed, including those that a sender sent again and that were not stored twice.
    pub committed: u64,
    /// How many received messages are not committed now: in the queue, or in the current commit.
    pub uncommitted: u64,
    /// How many messages the sink has removed because it is to keep only so much.
    pub pruned: u64,
    /// The total length of their payloads, in bytes.
    pub pruned_bytes: u64,
    /// How long commits took, waiting for the sink's trouble included.
    pub commit_times: CommitTimes,
    /// How long ago the last commit ended; `None` if there was none.
    pub last_commit: Option<Duration>,
    /// For how long the sink has been in its current call; `None` if it has nothing to do, or waits before
    /// it tries again. A call that takes minutes means that the sink hangs.
    pub working_for: Option<Duration>,
    /// Why the sink cannot take messages now; `None` if it can.
    pub trouble: Option<Trouble>,
    /// How many senders the server remembers now; at most 100,000.
    pub senders: usize,
}

/// Why a sink cannot take messages for the time being.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trouble {
    /// The last error, as text.
    pub reason: String,
    /// For how long the sink has been in trouble.
    pub lasted: Duration,
}

/// How long commits took.
///
/// # Examples
///
/// ```
/// use framelet::server::CommitTimes;
/// use std::time::Duration;
///
/// /// Returns the share of commits that took longer than `limit`, one of the bounds.
/// fn share_over(limit: Duration, times: &CommitTimes) -> f64 {
///     let over: u64 =
///         times.buckets.iter().filter(|(bound, _)| *bound > limit).map(|(_, commits)| commits).sum();
///     over as f64 / times.count().max(1) as f64
/// }
/// assert_eq!(share_over(Duration::from_millis(100), &CommitTimes::default()), 0.0);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CommitTimes {
    /// Upper bounds in ascending order, each with the number of commits that took at most so long, and longer than
    /// the bound before. The last bound is [`Duration::MAX`].
    pub buckets: Vec<(Duration, u64)>,
    /// How long all of them took together.
    pub total: Duration,
}

impl CommitTimes {
    /// Returns the number of commits.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}

impl Monitor {
    /// Returns the figures of now. Costs about as much as receiving a message; it never waits for a sink.
    pub fn figures(&self) -> Figures {
        let source = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        source.0()
    }

    /// Watches a server until the result is dropped, and keeps its last figures.
    pub(super) fn watch(&self, figures: impl Fn() -> Figures + Send + 'static) -> Watching {
        self.set(figures);
        Watching(self.clone())
    }

    fn set(&self, figures: impl Fn() -> Figures + Send + 'static) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Source(Box::new(figures));
    }
}

/// Watches a server until it is dropped.
pub(super) struct Watching(Monitor);

impl Drop for Watching {
    fn drop(&mut self) {
        let last = Figures { stage: Stage::Ended, ..self.0.figures() };
        self.0.set(move || last.clone());
    }
}

impl Default for Source {
    fn default() -> Self {
        Source(Box::new(Figures::default))
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Source")
    }
}
