//! Over which connection each sender sends: the newest one only.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_listener::Event;

use crate::message::Origin;
use crate::server::connection_state::Order;
use crate::wire::sender_id::SenderId;

/// The connections over which senders send that want acknowledgements, one for each.
#[derive(Debug, Default)]
pub(crate) struct Senders {
    connections: Mutex<HashMap<SenderId, Arc<Origin>>>,
    /// Notified whenever one of them has handed on its last message.
    left: Event,
}

/// The place of the one connection over which a sender sends. Once it is dropped, that connection hands
/// on nothing more.
#[derive(Debug)]
pub(crate) struct Place {
    senders: Arc<Senders>,
    sender: SenderId,
}

impl Senders {
    /// Makes `connection` the one over which `sender` sends, once an older one has handed on its last
    /// message; `None` if there is a newer one already.
    pub(crate) async fn take_over(
        self: &Arc<Self>,
        sender: SenderId,
        connection: &Arc<Origin>,
    ) -> Option<Place> {
        loop {
            let left = self.left.listen();
            let older = match self.connections().entry(sender) {
                Entry::Vacant(free) => {
                    free.insert(Arc::clone(connection));
                    return Some(Place { senders: Arc::clone(self), sender });
                }
                Entry::Occupied(taken) => Arc::clone(taken.get()),
            };
            if older.connection > connection.connection {
                return None;
            }
            older.watch.tell(Order::Refused);
            left.await;
        }
    }

    fn connections(&self) -> MutexGuard<'_, HashMap<SenderId, Arc<Origin>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
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
        let senders = Arc::<Senders>::default();
        let sender = SenderId::from_bytes([1; 16]);
        let [first, second, third] = [1, 2, 3].map(|n| Arc::new(Origin::new(n, Peer::Unix)));
        block_on(async {
            let place = senders.take_over(sender, &first).await.unwrap();
            let mut waiting = Box::pin(senders.take_over(sender, &third));
            assert!(poll_once(&mut waiting).await.is_none(), "the first one is not done yet");
            assert_eq!(first.watch.order(), Order::Refused);
            let mut late = Box::pin(senders.take_over(sender, &second));
            assert!(poll_once(&mut late).await.is_none());
            drop(place);
            let place = poll_once(&mut waiting).await.unwrap().unwrap();
            // Not to wait, either: it is over for that one.
            assert!(poll_once(&mut late).await.unwrap().is_none(), "an older one takes over");
            assert_eq!(third.watch.order(), Order::None);
            // Another sender is nobody's business.
            assert!(senders.take_over(SenderId::from_bytes([2; 16]), &second).await.is_some());
            drop(place);
            assert!(senders.take_over(sender, &second).await.is_some());
        });
    }
}
