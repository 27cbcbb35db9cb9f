//! Connects to the server.

use std::io;
use std::time::{Duration, Instant};

use ::log::debug;
use framelet::Address;
use framelet::net::{Backoff, ByteStream};
use futures_lite::FutureExt;
use smol::Timer;

use super::super::failure::{Failure, plain};
use super::ack;
use super::options::Send;

/// The shortest and the longest wait between two attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

impl Send {
    /// Connects, and tries again for as long as `--retry` says.
    pub(super) async fn connect(&self, address: &Address) -> Result<ByteStream, Failure> {
        let started = Instant::now();
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        loop {
            let timed_out = async {
                self.timer().await;
                let timeout = humantime::format_duration(self.timeout.0.unwrap_or_default());
                let what = format!("no connection within {timeout} (--timeout)");
                Err(io::Error::new(io::ErrorKind::TimedOut, what))
            };
            let attempt = address.connect().or(timed_out);
            let error = match attempt.await {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            let left = self.retry.unwrap_or_default().saturating_sub(started.elapsed());
            if left.is_zero() {
                return Err(self.not_connected(address, &error));
            }
            debug!("cannot connect to {address}: {}; retrying", plain(&error));
            Timer::after(backoff.next_wait().min(left)).await;
        }
    }

    pub(super) fn not_connected(&self, address: &Address, error: &io::Error) -> Failure {
        let retry = self.retry.unwrap_or(if self.ack { ack::RETRY } else { Duration::ZERO });
        let (tried, retrying) = match retry.is_zero() {
            true => (String::new(), " (--retry 10s keeps trying)"),
            false => (format!(" within {}", humantime::format_duration(retry)), ""),
        };
        Failure::to_connect(address, &tried, error, retrying)
    }

    /// Returns a timer for the longest silence of the server.
    pub(super) fn timer(&self) -> Timer {
        self.timeout.0.map_or_else(Timer::never, Timer::after)
    }
}
