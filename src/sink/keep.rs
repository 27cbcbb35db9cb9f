//! How much a sink keeps.

use std::time::Duration;

/// What a sink keeps of the messages that it has stored. It removes older ones.
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
/// use std::collections::VecDeque;
///
/// /// Keeps the latest messages in memory.
/// fn prune(payloads: &mut VecDeque<Vec<u8>>, most: usize) -> Pruned {
///     let old = payloads.drain(..payloads.len().saturating_sub(most));
///     old.fold(Pruned::default(), |pruned, payload| Pruned {
///         messages: pruned.messages + 1,
///         bytes: pruned.bytes + payload.len() as u64,
///         next: None, // only after the next commit
///     })
/// }
/// let mut payloads = VecDeque::from([b"21.5".to_vec(), b"21.75".to_vec(), b"22".to_vec()]);
/// let pruned = prune(&mut payloads, 1);
/// assert_eq!((pruned.messages, pruned.bytes, payloads.len()), (2, 9, 1));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// How many messages were removed.
    pub messages: u64,
    /// How many bytes their payloads had.
    pub bytes: u64,
    /// How long to wait for the next step if nothing is committed before that; `None` if the next step can wait
    /// for the next commit.
    pub next: Option<Duration>,
}
