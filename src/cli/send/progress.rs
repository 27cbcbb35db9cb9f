//! Shows how much of a long input is committed.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IsTerminal, Seek};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use framelet::client::AckProgress;
use smol::Timer;

use super::super::grouped::grouped;
use super::super::progress::Line;

/// How long a run may take before its progress is shown.
const LONG: Duration = Duration::from_secs(1);

/// How often the line is updated.
const EVERY: Duration = Duration::from_millis(250);

/// An input whose length is known: a file.
#[derive(Debug)]
pub(super) struct InputFile {
    file: File,
    start: u64,
    end: u64,
}

impl InputFile {
    /// Returns standard input, if it is a file.
    pub(super) fn stdin() -> Option<InputFile> {
        let mut file = File::from(io::stdin().as_fd().try_clone_to_owned().ok()?);
        let metadata = file.metadata().ok()?;
        let (start, end) = (file.stream_position().ok()?, metadata.len());
        (metadata.is_file() && start < end).then_some(InputFile { file, start, end })
    }

    /// Returns how many bytes there are to read.
    pub(super) fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Returns how many bytes have been read: the reader shares the file offset.
    pub(super) fn read(&mut self) -> u64 {
        let place = self.file.stream_position().unwrap_or(self.start);
        place.saturating_sub(self.start)
    }
}

/// The progress of a run, as shown on a terminal.
pub(super) struct Progress {
    /// How many bytes of input there are, if that is known.
    len: Option<u64>,
    /// The input position of each message that was passed to the client and is not committed yet; the first
    /// entry is the last committed one.
    marks: RefCell<VecDeque<(u64, u64)>>,
}

impl Progress {
    pub(super) fn new(len: Option<u64>) -> Progress {
        Progress { len, marks: RefCell::new(VecDeque::from([(0, 0)])) }
    }

    /// Returns whether to show progress: on a terminal without other output.
    pub(super) fn is_looked_at(typed: bool, verbose: bool) -> bool {
        !typed && !verbose && io::stderr().is_terminal()
    }

    /// Records the input position after this message.
    pub(super) fn handed_over(&self, number: u64, bytes: u64) {
        if self.len.is_some() {
            self.marks.borrow_mut().push_back((number, bytes));
        }
    }

    /// Updates the line, forever.
    pub(super) async fn show<T>(&self, of: AckProgress) -> T {
        let started = Instant::now();
        let line = Line::new(self.len, LONG);
        loop {
            let committed = of.committed();
            let bytes = self.bytes_of(committed);
            line.show(words(committed, of.sent(), self.len.is_some(), started.elapsed()), bytes);
            Timer::after(EVERY).await;
        }
    }

    /// Returns about how many bytes of input this many messages are.
    fn bytes_of(&self, committed: u64) -> u64 {
        let mut marks = self.marks.borrow_mut();
        while marks.get(1).is_some_and(|&(number, _)| number <= committed) {
            marks.pop_front();
        }
        let (from, to) = (marks[0], marks.get(1).copied().unwrap_or(marks[0]));
        // Between two entries, all messages are assumed to have the same length.
        let (messages, bytes) = (to.0 - from.0, to.1.saturating_sub(from.1));
        let part = u128::from(bytes) * u128::from(committed.saturating_sub(from.0));
        let part = part.checked_div(u128::from(messages)).unwrap_or(0);
        from.1 + u64::try_from(part).unwrap_or(0)
    }
}

fn words(committed: u64, sent: u64, len_known: bool, elapsed: Duration) -> String {
    let plural = if committed == 1 { "" } else { "s" };
    let committed = grouped(committed);
    match len_known {
        true => format!("committed {committed} message{plural}"),
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
    fn bytes_count_as_their_messages_are_committed() {
        let progress = Progress::new(Some(300));
        assert_eq!(progress.bytes_of(5), 0);
        for (number, bytes) in [(10, 100), (20, 200), (20, 250), (30, 300)] {
            progress.handed_over(number, bytes);
        }
        let seen = [0, 5, 10, 19, 20, 29, 30, 40].map(|committed| progress.bytes_of(committed));
        assert_eq!(seen, [0, 50, 100, 190, 250, 295, 300, 300]);
    }

    #[test]
    fn what_is_shown_depends_on_what_is_known() {
        let elapsed = Duration::from_millis(2900);
        assert_eq!(words(1_234, 5_678, true, elapsed), "committed 1,234 messages");
        assert_eq!(words(1, 5_678, true, elapsed), "committed 1 message");
        assert_eq!(words(1_234, 5_678, false, elapsed), "committed 1,234 of 5,678 messages, 2 s");
    }
}
