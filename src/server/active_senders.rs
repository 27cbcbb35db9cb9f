//! Which connection each sender uses: only its newest one counts.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_listener::Event;

use super::connection_state::Signal;
use super::open_connection::OpenConnection;
use crate::wire::sender_id::SenderId;

/// The active connection of each sender that asked for acknowledgements.
#[derive(Debug, Default)]
pub(crate) struct ActiveSenders {
    connections: Mutex<HashMap<SenderId, Arc<OpenConnection>>>,
    /// Notified whenever a connection has passed on its last message.
    left: Event,
}

/// Marks a connection as the active one of its sender. Once this is dropped, that connection passes on no
/// more messages.
#[derive(Debug)]
pub(crate) struct ActiveSender {
    senders: Arc<ActiveSenders>,
    sender: SenderId,
}

impl ActiveSenders {
    /// Makes `connection` the active one of `sender`, after the previous one has passed on its last
    /// message; `None` if a newer one is active already.
    pub(crate) async fn take_over(
        self: &Arc<Self>,
        sender: SenderId,
        connection: &Arc<OpenConnection>,
    ) -> Option<ActiveSender> {
        loop {
            let left = self.left.listen();
            let older = match self.connections().entry(sender) {
                Entry::Vacant(free) => {
                    free.insert(Arc::clone(connection));
                    return Some(ActiveSender { senders: Arc::clone(self), sender });
                }
                Entry::Occupied(taken) => Arc::clone(taken.get()),
            };
            if older.number > connection.number {
                return None;
            }
            older.state.send(Signal::Refused);
            left.await;
        }
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<SenderId, Arc<OpenConnection>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ActiveSender {
    fn drop(&mut self) {
        self.senders.connections().remove(&self.sender);
        self.senders.left.notify(usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;
    use crate::net::byte_stream::Peer;

    #[test]
    fn the_newest_connection_wins_in_whatever_order_they_ask() {
        let senders = Arc::<ActiveSenders>::default();
        let sender = SenderId::from_bytes([1; 16]);
        let [first, second, third] =
            [1, 2, 3].map(|n| Arc::new(OpenConnection::new(n, Peer::Unix)));
        block_on(async {
            let place = senders.take_over(sender, &first).await.unwrap();
            let mut waiting = Box::pin(senders.take_over(sender, &third));
            assert!(poll_once(&mut waiting).await.is_none(), "the first one is not done yet");
            assert_eq!(first.state.signal(), Signal::Refused);
            let mut late = Box::pin(senders.take_over(sender, &second));
            assert!(poll_once(&mut late).await.is_none());
            drop(place);
            let place = poll_once(&mut waiting).await.unwrap().unwrap();
            // Not to wait, either: it is over for that one.
            assert!(poll_once(&mut late).await.unwrap().is_none(), "an older one takes over");
            assert_eq!(third.state.signal(), Signal::None);
            // Another sender is nobody's business.
            assert!(senders.take_over(SenderId::from_bytes([2; 16]), &second).await.is_some());
            drop(place);
            assert!(senders.take_over(sender, &second).await.is_some());
        });
    }
}
