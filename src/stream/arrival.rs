//! What a read has returned.

use std::task::{Context, Poll};

use super::error::ReadError;
use super::payloads::Payloads;

/// What a read has returned: messages, or heartbeats that were skipped.
///
/// # Examples
///
/// ```
/// use framelet::FrameReader;
/// use framelet::stream::Arrival;
///
/// # futures_lite::future::block_on(async {
/// let mut reader = FrameReader::new(&b"\0\0\0\0\0\0\0\x02hi"[..]).skip_empty(true);
/// assert!(matches!(reader.read_arrival().await?, Some(Arrival::Heartbeats(1))));
/// assert!(matches!(reader.read_arrival().await?, Some(Arrival::Messages(_))));
/// # Ok::<(), framelet::stream::ReadError>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub enum Arrival<M = Payloads> {
    /// Messages.
    Messages(M),
    /// So many empty frames, at least one, which are not messages.
    Heartbeats(u64),
}

/// Returns the messages. After heartbeats other tasks get their turn first, since there may be no end of them.
pub(crate) fn poll_messages<M>(
    cx: &mut Context<'_>,
    arrival: Option<Arrival<M>>,
) -> Poll<Result<Option<M>, ReadError>> {
    match arrival {
        Some(Arrival::Messages(messages)) => Poll::Ready(Ok(Some(messages))),
        Some(Arrival::Heartbeats(_)) => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
        None => Poll::Ready(Ok(None)),
    }
}
