//! Replaces the progress line in a program that was built without it.

use std::time::Duration;

pub(crate) struct Line;

impl Line {
    pub(crate) fn new(_bytes: Option<u64>, _after: Duration) -> Line {
        Line
    }

    pub(crate) fn show(&self, _words: impl Into<String>, _bytes: u64) {}
}
