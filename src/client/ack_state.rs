//! Where the caller of a client with acknowledgements and the task that drives its connection meet.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use event_listener::Event;

use super::ack_error::AckError;
use super::window::Window;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    /// There is more to send, or no more to come.
    pub(super) work: Event,
    /// Something is acknowledged, or it is all over.
    pub(super) news: Event,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// There is one since the first welcome.
    pub(super) window: Option<Window>,
    /// No more messages will come.
    pub(super) finishing: bool,
    /// The checksum of the last message that was committed at the first welcome, if the server knows it.
    pub(super) checksum: Option<u64>,
    /// How many messages the server has lost: by so much its numbers are lower than those of the window.
    pub(super) lost: u64,
    /// When the server last showed a sign of life.
    pub(super) heard: Option<Instant>,
    /// How it ended.
    pub(super) ended: Option<Result<(), AckError>>,
}

impl Shared {
    /// Looks at the window; before the first welcome there is 0 of everything.
    pub(super) fn window(&self, look: impl Fn(&Window) -> u64) -> u64 {
        self.lock().window.as_ref().map_or(0, look)
    }

    /// Notes that the server shows a sign of life.
    pub(super) fn hear(&self) {
        self.lock().heard = Some(Instant::now());
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `found` finds something, or else until all has ended with an error.
    pub(super) async fn wait<T>(
        &self,
        mut found: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<T, AckError> {
        loop {
            // Before looking, so that nothing slips through between looking and waiting.
            let mut listener = None;
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
