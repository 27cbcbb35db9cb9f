//! Output on standard error.
//!
//! A thread of its own writes the lines. If nobody reads standard error, a server that waited there would
//! serve nobody and could not even be stopped. Lines that find the queue full are dropped and counted.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime};

use framelet::wire::Count;

use super::flags;

/// The most lines that may wait.
const QUEUE: usize = 4096;

/// How long the program waits at its end for the last lines to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

enum Entry {
    Line(String),
    /// Closed once everything before it has been written.
    Flush(#[allow(dead_code, reason = "dropping it is the answer")] SyncSender<()>),
}

static QUEUED: OnceLock<SyncSender<Entry>> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);
static TIMES: AtomicBool = AtomicBool::new(false);

/// Starts the log, at this level and above.
pub(crate) fn start(level: log::LevelFilter) {
    let (sender, entries) = sync_channel(QUEUE);
    let writing = thread::Builder::new().name("framelet-log".into()).spawn(|| write_all(entries));
    if writing.is_ok() {
        // Without the thread, the caller writes the lines itself. This is called only once.
        let _ = QUEUED.set(sender);
    }
    if log::set_logger(&StandardError).is_ok() {
        log::set_max_level(level);
    }
}

/// From now on, each line starts with the time.
pub(crate) fn show_times() {
    TIMES.store(true, Ordering::Relaxed);
}

fn write_all(entries: Receiver<Entry>) {
    for entry in entries {
        if let Entry::Line(line) = entry {
            write(&line);
        }
        let dropped = DROPPED.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let lines = Count(dropped, "line");
            write(&stamped(&format!("dropped {lines} that nobody read in time")));
        }
    }
}

fn write(line: &str) {
    // If this fails, there is no place to report it.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Formats a line, with the time if requested.
fn stamped(line: &str) -> String {
    match TIMES.load(Ordering::Relaxed) {
        true => {
            let now = humantime::format_rfc3339_millis(SystemTime::now());
            format!("{now} framelet: {line}")
        }
        false => format!("framelet: {line}"),
    }
}

/// Logs a line.
pub(crate) fn say(line: impl Into<String>) {
    let line = stamped(&line.into());
    match QUEUED.get() {
        None => write(&line),
        Some(queue) => match queue.try_send(Entry::Line(line)) {
            Err(TrySendError::Full(_)) => {
                DROPPED.fetch_add(1, Ordering::Relaxed);
            }
            Err(TrySendError::Disconnected(_)) | Ok(()) => {}
        },
    }
}

/// Waits until all lines are written, but not forever.
pub(crate) fn flush() {
    if let Some(queue) = QUEUED.get() {
        let (done, written) = sync_channel(0);
        if queue.try_send(Entry::Flush(done)).is_ok() {
            let _ = written.recv_timeout(LAST_LINES);
        }
    }
}

/// Receives the library's log.
struct StandardError;

impl log::Log for StandardError {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("framelet")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let mended_by = flags::of_target(record.target()).unwrap_or_default();
            say(format!("{}{mended_by}", record.args()));
        }
    }

    fn flush(&self) {
        flush();
    }
}
