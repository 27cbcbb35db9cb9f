//! How long to wait between two attempts.

use std::time::Duration;

/// Waits that grow from one attempt to the next: for the program and the library, not part of the
/// interface.
///
/// Each is about twice as long as the one before, less a random part of up to one half: many clients
/// that lost the same server must not come back at the same moment.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub struct Backoff {
    shortest: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Returns waits of at most `longest`, of which the first one is at most `shortest`.
    pub fn new(shortest: Duration, longest: Duration) -> Backoff {
        Backoff { shortest, longest, next: shortest }
    }

    /// Returns how long to wait now.
    pub fn next_wait(&mut self) -> Duration {
        let half = self.next / 2;
        self.next = (2 * self.next).min(self.longest);
        half + half * fastrand::u32(0..=1000) / 1000
    }

    /// Begins with the shortest wait again.
    pub fn reset(&mut self) {
        self.next = self.shortest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_longest_and_begin_anew() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new(seconds(2), seconds(10));
        for _ in 0..100 {
            for at_most in [2, 4, 8, 10, 10] {
                let wait = backoff.next_wait();
                assert!((seconds(at_most) / 2..=seconds(at_most)).contains(&wait), "{wait:?}");
            }
            backoff.reset();
        }
    }
}
