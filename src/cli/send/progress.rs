//! Shows how much of a long input is committed.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IsTerminal, Seek};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use framelet::AckProgress;
use smol::Timer;

use super::super::grouped;
use super::super::progress::Line;

/// How long an input may take without being shown.
const LONG: Duration = Duration::from_secs(1);

/// How often what is shown is renewed.
const EVERY: Duration = Duration::from_millis(250);

/// An input whose length is known: a file.
#[derive(Debug)]
pub(super) struct Input {
    file: File,
    start: u64,
    end: u64,
}

impl Input {
    /// Returns standard input, if it is a file.
    pub(super) fn stdin() -> Option<Input> {
        let mut file = File::from(io::stdin().as_fd().try_clone_to_owned().ok()?);
        let metadata = file.metadata().ok()?;
        let (start, end) = (file.stream_position().ok()?, metadata.len());
        (metadata.is_file() && start < end).then_some(Input { file, start, end })
    }

    /// Returns how many bytes there are to read.
    pub(super) fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Returns how many bytes have been read by now: whoever reads does so from the same place.
    pub(super) fn read(&mut self) -> u64 {
        let place = self.file.stream_position().unwrap_or(self.start);
        place.saturating_sub(self.start)
    }
}

/// How far a run has come, as it is shown on a terminal.
pub(super) struct Progress {
    /// How many bytes of input there are, if that is known.
    len: Option<u64>,
    /// Up to which message and byte of the input all has been handed to the client, for what is not
    /// committed yet.
    marks: RefCell<VecDeque<(u64, u64)>>,
}

impl Progress {
    pub(super) fn new(len: Option<u64>) -> Progress {
        Progress { len, marks: RefCell::default() }
    }

    /// Returns whether somebody looks: at a terminal on which nothing else happens.
    pub(super) fn is_looked_at(typed: bool, verbose: bool) -> bool {
        !typed && !verbose && io::stderr().is_terminal()
    }

    /// Notes that the messages up to this number are those of so many bytes of input.
    pub(super) fn handed_over(&self, number: u64, bytes: u64) {
        if self.len.is_some() {
            self.marks.borrow_mut().push_back((number, bytes));
        }
    }

    /// Shows for ever how it goes.
    pub(super) async fn show<T>(&self, of: AckProgress) -> T {
        let started = Instant::now();
        let line = Line::new(self.len, LONG);
        let mut bytes = 0;
        loop {
            let committed = of.committed();
            bytes = self.bytes_of(committed).unwrap_or(bytes);
            line.show(words(committed, of.sent(), self.len.is_some(), started.elapsed()), bytes);
            Timer::after(EVERY).await;
        }
    }

    /// Returns how many bytes of the input so many messages are, if that has changed.
    fn bytes_of(&self, committed: u64) -> Option<u64> {
        let mut marks = self.marks.borrow_mut();
        let mut bytes = None;
        while let Some(&(number, read)) = marks.front()
            && number <= committed
        {
            bytes = Some(read);
            marks.pop_front();
        }
        bytes
    }
}

fn words(committed: u64, sent: u64, len_known: bool, elapsed: Duration) -> String {
    let committed = grouped(committed);
    match len_known {
        true => format!("committed {committed} messages"),
        false => {
            let sent = grouped(sent);
            format!("committed {committed} of {sent} messages, {} s", elapsed.as_secs())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_once_all_their_messages_are_committed() {
        let progress = Progress::new(Some(300));
        for (number, bytes) in [(10, 100), (20, 200), (20, 250), (30, 300)] {
            progress.handed_over(number, bytes);
        }
        let seen = [5, 10, 19, 20, 29, 30].map(|committed| progress.bytes_of(committed));
        assert_eq!(seen, [None, Some(100), None, Some(250), None, Some(300)]);
    }

    #[test]
    fn what_is_shown_depends_on_what_is_known() {
        let elapsed = Duration::from_millis(2900);
        assert_eq!(words(1_234, 5_678, true, elapsed), "committed 1,234 messages");
        assert_eq!(words(1_234, 5_678, false, elapsed), "committed 1,234 of 5,678 messages, 2 s");
    }
}
