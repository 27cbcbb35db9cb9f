//! Connects to the server.

use std::io;
use std::time::{Duration, Instant};

use ::log::debug;
use framelet::Address;
use framelet::net::{Backoff, ByteStream};
use framelet::tls::TlsConnector;
use smol::Timer;

use super::super::connect::{connect, may_pass};
use super::super::failure::{Failure, plain};
use super::super::tls;
use super::ack;
use super::options::Send;

/// The shortest and the longest wait between two attempts to connect.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

impl Send {
    /// Reads the certificates, if there is to be TLS.
    pub(super) fn tls(&self, address: &Address) -> Result<Option<TlsConnector>, Failure> {
        let options = tls::ClientOptions {
            tls: self.tls,
            ca: self.tls_ca.as_deref(),
            certificate: self.tls_cert.as_deref(),
            key: self.tls_key.as_deref(),
            name: self.tls_name.as_deref(),
        };
        options.connector(address)
    }

    /// Connects, and tries again for as long as `--retry` says.
    pub(super) async fn connect(
        &self,
        address: &Address,
        tls: Option<&TlsConnector>,
    ) -> Result<ByteStream, Failure> {
        let started = Instant::now();
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        loop {
            let connecting = connect(address, self.proxy_protocol, tls, self.timeout.0);
            let error = match connecting.await {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            let left = self.retry.unwrap_or_default().saturating_sub(started.elapsed());
            if left.is_zero() || !may_pass(&error) {
                return Err(self.not_connected(address, &error));
            }
            debug!("cannot connect to {address}: {}; retrying", plain(&error));
            Timer::after(backoff.next_wait().min(left)).await;
        }
    }

    pub(super) fn not_connected(&self, address: &Address, error: &io::Error) -> Failure {
        let retry = self.retry.unwrap_or(if self.ack { ack::RETRY } else { Duration::ZERO });
        let (tried, retrying) = match retry.is_zero() || !may_pass(error) {
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
