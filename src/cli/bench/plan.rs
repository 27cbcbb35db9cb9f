//! The checked options of a run.

use std::ops::RangeInclusive;
use std::time::Duration;

use framelet::tls::TlsConnector;
use framelet::wire::ProxyVersion;
use framelet::{Address, Layout};

use super::super::values::{Bytes, DefaultHeader};

/// The checked options of a run.
pub(super) struct Plan {
    pub(super) address: Address,
    /// Set if the connections are encrypted.
    pub(super) tls: Option<TlsConnector>,
    pub(super) layout: Layout,
    pub(super) header: DefaultHeader,
    pub(super) sizes: RangeInclusive<usize>,
    pub(super) connections: usize,
    pub(super) threads: usize,
    pub(super) mode: Mode,
    pub(super) warm_up: Duration,
    pub(super) length: Length,
    /// The version of the PROXY header to send first, if any.
    pub(super) proxy: Option<ProxyVersion>,
    pub(super) preamble: Bytes,
    /// How many bytes of the server precede its first frame.
    pub(super) skip: u64,
    /// Whether empty frames of the server are no replies.
    pub(super) skips_empty: bool,
    pub(super) timeout: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Mode {
    Flood,
    Echo,
    /// Messages per second.
    Rate(u64),
}

/// The length of the measurement.
#[derive(Clone, Copy, Debug)]
pub(super) enum Length {
    Time(Duration),
    Messages(u64),
}
