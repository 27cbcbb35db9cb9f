//! Readers that wait for room, in the order of their arrival.
//!
//! Only the first may read, and it keeps its place until there is room, however often it is woken in vain.
//! Freed room is often taken by others before a woken task runs; if that sent the task to the end of the
//! line, busy readers could make it wait forever.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// Waiting tasks, by the number of their place.
#[derive(Debug, Default)]
pub(super) struct Line {
    tasks: Mutex<Tasks>,
    /// The number of tasks, to be read without the lock.
    len: AtomicUsize,
}

#[derive(Debug, Default)]
struct Tasks {
    by_number: BTreeMap<u64, Waker>,
    /// The last number that was assigned.
    last: u64,
}

/// A place in the line. Dropping it leaves the line.
pub(crate) struct Place {
    number: u64,
    line: Arc<Line>,
}

impl Line {
    /// Returns whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.len.load(Ordering::SeqCst) == 0
    }

    /// Joins at the end of the line.
    pub(super) fn join(self: &Arc<Line>, waker: &Waker) -> Place {
        let mut tasks = self.tasks();
        tasks.last += 1;
        let number = tasks.last;
        tasks.by_number.insert(number, waker.clone());
        self.len.store(tasks.by_number.len(), Ordering::SeqCst);
        Place { number, line: Arc::clone(self) }
    }

    /// Registers the waker for this place. Returns whether the place is the first.
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
        // Called without the lock, because the woken task takes it first thing.
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
        // The dropped place may have consumed a wake-up without using its room: pass it on.
        self.line.wake_first();
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("number", &self.number).finish_non_exhaustive()
    }
}
