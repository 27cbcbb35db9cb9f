//! Replaces the progress line in a program that was built without it.

use std::time::Duration;

pub(crate) const BUILT: bool = false;

pub(crate) struct Line;

pub(crate) fn suspend(write: impl FnOnce()) {
    write();
}

impl Line {
    pub(crate) fn new(_bytes: Option<u64>, _after: Duration) -> Line {
        Line
    }

    pub(crate) fn show(&self, _words: impl Into<String>, _bytes: u64) {}
}
