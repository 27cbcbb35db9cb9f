//! Where the server puts messages.
//!
//! A [`MessageSink`] is plain blocking code. It runs on a thread of its own, the writer thread, so that a
//! full pipe or a slow disk stops no socket; a bounded queue leads there, and when it is full the
//! connections stop reading and TCP slows the senders down. The thread takes all that is queued and
//! commits it together, so commits grow with the load and a single message does not wait.

mod file;
pub(crate) mod message_sink;
mod output;
pub(crate) mod sender_counts; // how far each sender has come
pub(crate) mod target; // where messages go, as text
// The only place that knows whether this build has it.
#[cfg(not(feature = "sqlite"))]
#[path = "sink/no_sqlite.rs"]
mod sqlite;
#[cfg(feature = "sqlite")]
mod sqlite;
// Likewise.
#[cfg(not(feature = "redis"))]
#[path = "sink/no_redis.rs"]
mod redis;
#[cfg(feature = "redis")]
mod redis;

pub use self::redis::RedisSink;
pub use file::FileSink;
pub use file::file_sync::{FileSync, ParseFileSyncError};
pub use message_sink::{MessageSink, SinkError};
pub use output::OutputSink;
pub use sqlite::SqliteSink;
pub use target::{ParseSinkTargetError, SinkTarget};
