//! How long to wait between two attempts.

use std::time::Duration;

/// Delays that grow from one attempt to the next, for a program that connects again by itself. An
/// [`AckClient`](crate::AckClient) does so on its own.
///
/// Each is about twice as long as the previous one, less a random part of up to a half: many clients that
/// lost the same server must not come back at the same moment.
///
/// # Examples
///
/// ```
/// use framelet::Client;
/// use framelet::net::Backoff;
/// use std::time::Duration;
///
/// # smol::block_on(async {
/// # let listener = smol::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let address = listener.local_addr()?;
/// let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
/// let mut client = loop {
///     match Client::connect(address).await {
///         Ok(client) => break client,
///         Err(_) => smol::Timer::after(backoff.next_wait()).await,
///     };
/// };
/// client.send(b"21.5").await?;
/// backoff.reset(); // the connection works: the next wait is short again
/// assert!(backoff.next_wait() <= Duration::from_millis(50));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Backoff {
    shortest: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Returns delays of at most `longest`, starting with at most `shortest`.
    pub fn new(shortest: Duration, longest: Duration) -> Backoff {
        Backoff { shortest, longest, next: shortest }
    }

    /// Returns the next delay.
    pub fn next_wait(&mut self) -> Duration {
        let half = self.next / 2;
        self.next = self.next.saturating_mul(2).min(self.longest);
        half + half / 1000 * fastrand::u32(0..=1000)
    }

    /// Starts again with the shortest delay.
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

    #[test]
    fn no_wait_is_too_long_or_too_short_to_be_counted_with() {
        for (shortest, longest) in
            [(Duration::MAX, Duration::MAX), (Duration::ZERO, Duration::ZERO)]
        {
            let mut backoff = Backoff::new(shortest, longest);
            for _ in 0..100 {
                assert!(backoff.next_wait() <= longest);
            }
        }
        let mut backoff = Backoff::new(Duration::from_nanos(1), Duration::MAX);
        assert!((0..200).all(|_| backoff.next_wait() <= Duration::MAX));
    }
}
