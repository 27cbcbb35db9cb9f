//! Stores the messages of a server.
//!
//! A [`MessageSink`] is plain blocking code. It runs on a thread of its own, the writer thread, so a full
//! pipe or a slow disk never blocks a socket. A bounded queue leads to that thread; when the queue is full,
//! connections stop reading and TCP slows the senders down. The thread commits everything that is queued
//! together: batches grow with the load, and a single message is committed at once.

mod file;
pub(crate) mod keep; // how much a sink keeps
pub(crate) mod message_sink;
mod output;
pub(crate) mod sender_counts; // how many messages of each sender are stored
pub(crate) mod target; // where messages go, as text
// The only place that checks whether this build has the feature.
#[cfg(not(feature = "sqlite"))]
#[path = "sink/no_sqlite.rs"]
mod sqlite;
#[cfg(feature = "sqlite")]
mod sqlite;
// The same for Redis.
#[cfg(not(feature = "redis"))]
#[path = "sink/no_redis.rs"]
mod redis;
#[cfg(feature = "redis")]
mod redis;

pub use self::redis::RedisSink;
pub use file::FileSink;
pub use file::file_sync::{FileSync, ParseFileSyncError};
pub use keep::{Keep, Pruned};
pub use message_sink::{MessageSink, SinkError};
pub use output::OutputSink;
pub use sqlite::SqliteSink;
pub use target::{ParseSinkTargetError, SinkTarget};
