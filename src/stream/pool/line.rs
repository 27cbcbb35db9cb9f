//! Who waits for room to read, in the order in which they came.
//!
//! Only the first one may read. It keeps its place until there is room, however often it looks in vain:
//! what is free is often gone by the time that somebody who was woken for it gets there, and whoever had
//! to go to the end for that could do so for ever beside those who read much.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// Tasks that wait, by the number of their place.
#[derive(Debug, Default)]
pub(super) struct Line {
    tasks: Mutex<Tasks>,
    /// How many there are, to be read without the lock.
    len: AtomicUsize,
}

#[derive(Debug, Default)]
struct Tasks {
    by_number: BTreeMap<u64, Waker>,
    /// The number that was given out last.
    last: u64,
}

/// A place in the line, which is left by dropping it.
pub(crate) struct Place {
    number: u64,
    line: Arc<Line>,
}

impl Line {
    /// Returns whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.len.load(Ordering::SeqCst) == 0
    }

    /// Takes the last place.
    pub(super) fn join(self: &Arc<Line>, waker: &Waker) -> Place {
        let mut tasks = self.tasks();
        tasks.last += 1;
        let number = tasks.last;
        tasks.by_number.insert(number, waker.clone());
        self.len.store(tasks.by_number.len(), Ordering::SeqCst);
        Place { number, line: Arc::clone(self) }
    }

    /// Notes whom to wake when it is the turn of this place. Returns whether it is that already.
    pub(super) fn wait_at(&self, place: &Place, waker: &Waker) -> bool {
        let mut tasks = self.tasks();
        if let Some(noted) = tasks.by_number.get_mut(&place.number) {
            noted.clone_from(waker);
        }
        tasks.by_number.first_key_value().is_some_and(|(&first, _)| first == place.number)
    }

    /// Wakes the first one.
    pub(super) fn wake_first(&self) {
        if self.is_empty() {
            return;
        }
        let first = self.tasks().by_number.first_key_value().map(|(_, waker)| waker.clone());
        // Without the lock, which whoever is woken wants first.
        if let Some(waker) = first {
            waker.wake();
        }
    }

    fn leave(&self, number: u64) {
        let mut tasks = self.tasks();
        tasks.by_number.remove(&number);
        self.len.store(tasks.by_number.len(), Ordering::SeqCst);
    }

    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.line.leave(self.number);
        // It may have been woken for room that it no longer needs, or has left some.
        self.line.wake_first();
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("number", &self.number).finish_non_exhaustive()
    }
}
