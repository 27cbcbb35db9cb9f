//! A progress line on a terminal.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{
    HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle, WeakProgressBar,
};

/// Whether this build has a progress line.
pub(crate) const BUILT: bool = true;

/// The line that is shown now, so that others can write to the terminal without spoiling it.
static SHOWN: Mutex<Option<WeakProgressBar>> = Mutex::new(None);

/// Removes the line, calls `write`, and shows the line again.
pub(crate) fn suspend(write: impl FnOnce()) {
    let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match shown.and_then(|line| line.upgrade()) {
        Some(line) => line.suspend(write),
        None => write(),
    }
}

/// A line at the bottom of standard error, erased at the end. Shown only if that is a terminal.
pub(crate) struct Line {
    bar: ProgressBar,
    /// When it appears.
    from: Instant,
}

impl Line {
    /// Returns a line that shows words and, if the total number of bytes is known, the progress through
    /// them. It appears only after a while.
    pub(crate) fn new(bytes: Option<u64>, after: Duration) -> Line {
        let template = match bytes {
            Some(_) => "{msg} [{wide_bar}] {bytes} of {total_bytes}{left}",
            None => "{msg}",
        };
        // Cannot fail: the template is valid.
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_spinner())
            .with_key("left", |state: &ProgressState, out: &mut dyn fmt::Write| {
                // Without progress there is no estimate.
                if state.pos() > 0 {
                    let _ = write!(out, ", {:#} left", HumanDuration(state.eta()));
                }
            })
            .progress_chars("=> ");
        let bar = ProgressBar::with_draw_target(bytes, ProgressDrawTarget::hidden());
        let bar = bar.with_style(style);
        *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.downgrade());
        Line { bar, from: Instant::now() + after }
    }

    /// Shows words, and how many bytes are done.
    pub(crate) fn show(&self, words: impl Into<String>, bytes: u64) {
        self.bar.set_position(bytes);
        self.bar.set_message(words.into());
        if self.bar.is_hidden() && Instant::now() >= self.from {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.bar.tick();
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
