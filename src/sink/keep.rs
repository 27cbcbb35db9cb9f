//! How much a sink keeps.

use std::time::Duration;

/// What a sink keeps of the messages that it has stored. It prunes those before.
///
/// # Examples
///
/// ```
/// use framelet::sink::Keep;
/// use std::time::Duration;
///
/// let month = Keep::For(Duration::from_secs(30 * 24 * 3600));
/// assert_ne!(month, Keep::Messages(1_000_000));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Keep {
    /// Messages that were received at most this long ago.
    For(Duration),
    /// The latest messages that take at most this many bytes in total, as stored.
    Bytes(u64),
    /// This many messages, the latest.
    Messages(u64),
}

/// What one step of pruning removed, and when the next one is due.
///
/// # Examples
///
/// ```
/// use framelet::sink::Pruned;
///
/// assert_eq!(Pruned::default().messages, 0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// How many messages were removed.
    pub messages: u64,
    /// How many bytes their payloads had.
    pub bytes: u64,
    /// After how long there is to be another step even if nothing is committed until then; `None` if that
    /// is not needed.
    pub next: Option<Duration>,
}
