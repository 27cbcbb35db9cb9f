//! The state shared by the caller of a client with acknowledgements and the task that drives its
//! connection.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use event_listener::Event;

use super::ack_error::AckError;
use super::window::Window;
use crate::runtime::clock;

#[derive(Debug, Default)]
pub(super) struct Delivery {
    state: Mutex<State>,
    /// Notified when there is more to send, or no more will follow.
    pub(super) work: Event,
    /// Notified when messages are acknowledged, or the client has ended.
    pub(super) news: Event,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// `None` until the server's first acknowledgement.
    pub(super) window: Option<Window>,
    /// Whether no more messages will follow.
    pub(super) finishing: bool,
    /// The checksum of the last message that was committed at the first handshake, if the server knows it.
    pub(super) checksum: Option<u64>,
    /// How many messages the server has lost: its numbers are lower by this than those of the window.
    pub(super) lost: u64,
    /// When the server was last known to be alive: it answered, or took data.
    pub(super) last_heard: Option<Instant>,
    /// The result of the client, once it has ended.
    pub(super) ended: Option<Result<(), AckError>>,
}

impl Delivery {
    /// Reads a number of the window; 0 before there is a window.
    pub(super) fn window(&self, look: impl Fn(&Window) -> u64) -> u64 {
        self.lock().window.as_ref().map_or(0, look)
    }

    /// Records that the server is alive.
    pub(super) fn heard(&self) {
        self.lock().last_heard = Some(clock::now());
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `found` returns something, or the client has ended.
    pub(super) async fn wait<T>(
        &self,
        mut found: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<T, AckError> {
        loop {
            let mut listener = None;
            // Look, listen, look again: so a change between the first look and listening is not missed.
            for _ in 0..2 {
                let mut state = self.lock();
                if let Some(found) = found(&mut state) {
                    return Ok(found);
                }
                match &state.ended {
                    None => {}
                    Some(Ok(())) => return Err(AckError::Finished),
                    Some(Err(error)) => return Err(error.clone()),
                }
                drop(state);
                listener.get_or_insert_with(|| self.news.listen());
            }
            if let Some(listener) = listener {
                listener.await;
            }
        }
    }
}
