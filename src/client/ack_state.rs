//! What the caller of a client with acknowledgements shares with the task that drives its connection.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use event_listener::Event;

use super::ack_error::AckError;
use super::window::Window;

#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// There is more to send, or no more will follow.
    pub(super) work: Event,
    /// Something is acknowledged, or the client has ended.
    pub(super) news: Event,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// There is one from the server's first acknowledgement on.
    pub(super) window: Option<Window>,
    /// No more messages will follow.
    pub(super) finishing: bool,
    /// The checksum of the last message that was committed at the first handshake, if the server knows it.
    pub(super) checksum: Option<u64>,
    /// How many messages the server has lost: its numbers are lower by this than those of the window.
    pub(super) lost: u64,
    /// When the server last gave a sign of life.
    pub(super) last_heard: Option<Instant>,
    /// How it ended.
    pub(super) ended: Option<Result<(), AckError>>,
}

impl Shared {
    /// Looks at the window; before there is one, all its numbers are 0.
    pub(super) fn window(&self, look: impl Fn(&Window) -> u64) -> u64 {
        self.lock().window.as_ref().map_or(0, look)
    }

    /// Notes a sign of life of the server.
    pub(super) fn heard(&self) {
        self.lock().last_heard = Some(Instant::now());
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `found` finds something, or the client has ended with an error.
    pub(super) async fn wait<T>(
        &self,
        mut found: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<T, AckError> {
        loop {
            let mut listener = None;
            // The second look is for what happened between the first one and listening.
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
