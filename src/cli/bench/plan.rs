//! What is to be measured.

use std::ops::RangeInclusive;
use std::time::Duration;

use framelet::{Address, Layout};

/// What is to be done, with nothing contradictory in it.
pub(super) struct Plan {
    pub(super) address: Address,
    pub(super) layout: Layout,
    pub(super) sizes: RangeInclusive<usize>,
    pub(super) connections: usize,
    pub(super) threads: usize,
    pub(super) mode: Mode,
    pub(super) warm_up: Duration,
    pub(super) length: Length,
    pub(super) timeout: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Mode {
    Flood,
    Echo,
    /// Messages per second.
    Rate(u64),
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(super) enum Length {
    Time(Duration),
    Messages(u64),
}
