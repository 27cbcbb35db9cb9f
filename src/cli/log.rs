//! Output on standard error.
//!
//! A thread of its own writes the lines. If nobody reads standard error, a server that waited there would
//! serve nobody and could not even be stopped. Lines that find the queue full are dropped and counted.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime};

use ::log::kv::{Key, Value, VisitSource};
use ::log::{Level, LevelFilter, Log, Metadata, Record};
use framelet::wire::Count;

use super::flags;
use super::progress::suspend;

/// The most lines that may wait.
const QUEUE: usize = 4096;

/// How long the program waits at its end for the last lines to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// An object on each line.
    Json,
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err("write text or json"),
        }
    }
}

enum Entry {
    Line(String),
    /// Closed once everything before it has been written.
    Flush(#[allow(dead_code, reason = "dropping it is the answer")] SyncSender<()>),
}

static QUEUED: OnceLock<SyncSender<Entry>> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);
static JSON: AtomicBool = AtomicBool::new(false);
static TIMES: AtomicBool = AtomicBool::new(false);

/// Starts the log, at this level and above.
pub(crate) fn start(level: LevelFilter) {
    let (sender, entries) = sync_channel(QUEUE);
    let writing = thread::Builder::new().name("framelet-log".into()).spawn(|| write_all(entries));
    if writing.is_ok() {
        // Without the thread, the caller writes the lines itself. This is called only once.
        let _ = QUEUED.set(sender);
    }
    if ::log::set_logger(&StandardError).is_ok() {
        ::log::set_max_level(level);
    }
}

/// From now on, each line starts with the time.
pub(crate) fn show_times() {
    TIMES.store(true, Ordering::Relaxed);
}

/// From now on, lines are written like this.
pub(crate) fn set_format(format: LogFormat) {
    JSON.store(format == LogFormat::Json, Ordering::Relaxed);
}

fn write_all(entries: Receiver<Entry>) {
    for entry in entries {
        if let Entry::Line(line) = entry {
            write(&line);
        }
        let dropped = DROPPED.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let lines = Count(dropped, "line");
            let line = format!("dropped {lines} that nobody read in time");
            write(&written(&Line {
                event: Some("dropped".into()),
                ..Line::new(Level::Warn, &line)
            }));
        }
    }
}

fn write(line: &str) {
    suspend(|| {
        // If this fails, there is no place to report it.
        let _ = writeln!(io::stderr(), "{line}");
    });
}

/// A line, and the fields that name what it is about.
struct Line<'a> {
    level: Level,
    text: &'a str,
    event: Option<String>,
    connection: Option<u64>,
    peer: Option<String>,
}

impl Line<'_> {
    fn new(level: Level, text: &str) -> Line<'_> {
        Line { level, text, event: None, connection: None, peer: None }
    }
}

/// Takes the fields from a record of the log.
impl VisitSource<'_> for Line<'_> {
    fn visit_pair(&mut self, key: Key<'_>, value: Value<'_>) -> Result<(), ::log::kv::Error> {
        match key.as_str() {
            "event" => self.event = Some(value.to_string()),
            "connection" => self.connection = value.to_u64(),
            "peer" => self.peer = Some(value.to_string()),
            _ => {}
        }
        Ok(())
    }
}

/// Formats a line.
fn written(line: &Line<'_>) -> String {
    let text = one_line(line.text);
    let now = || humantime::format_rfc3339_millis(SystemTime::now());
    match (JSON.load(Ordering::Relaxed), TIMES.load(Ordering::Relaxed)) {
        (true, _) => json(line, &text, now()),
        (false, true) => format!("{} framelet: {text}", now()),
        (false, false) => format!("framelet: {text}"),
    }
}

fn json(line: &Line<'_>, text: &str, now: impl std::fmt::Display) -> String {
    let string = |text: &str| serde_json::Value::from(text).to_string();
    let level = line.level.as_str().to_ascii_lowercase();
    let mut object = format!("{{\"time\":\"{now}\",\"level\":\"{level}\"");
    if let Some(event) = &line.event {
        object += &format!(",\"event\":{}", string(event));
    }
    if let Some(connection) = line.connection {
        object += &format!(",\"connection\":{connection}");
    }
    if let Some(peer) = &line.peer {
        object += &format!(",\"peer\":{}", string(&one_line(peer)));
    }
    object + &format!(",\"message\":{}}}", string(text))
}

/// Returns a text in which nothing can drive a terminal or forge another line. Errors of handlers, of sinks and of the
/// system may contain anything. What the library quotes of messages is escaped already.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\'' | '\\' => line.push(c),
            // Cannot fail: a string takes everything.
            _ => drop(write!(line, "{}", c.escape_debug())),
        }
    }
    line
}

/// Logs a line that is not subject to any level.
pub(crate) fn say(text: impl AsRef<str>) {
    queue(&Line::new(Level::Info, text.as_ref()));
}

/// The same, with the level and the event that its fields name.
pub(crate) fn say_event(level: Level, event: &str, text: impl AsRef<str>) {
    queue(&Line { event: Some(event.into()), ..Line::new(level, text.as_ref()) });
}

fn queue(line: &Line<'_>) {
    let line = written(line);
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

impl Log for StandardError {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("framelet")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let mended_by = flags::of_target(record.target()).unwrap_or_default();
            let text = format!("{}{mended_by}", record.args());
            let mut line = Line::new(record.level(), &text);
            // Cannot fail: the line takes all fields.
            let _ = record.key_values().visit(&mut line);
            queue(&line);
        }
    }

    fn flush(&self) {
        flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_can_forge_a_line_or_drive_a_terminal() {
        for (text, shown) in [
            ("plain, \"quoted\" and ü", "plain, \"quoted\" and ü"),
            ("a\r\nframelet: forged", "a\\r\\nframelet: forged"),
            ("red \u{1b}[31m \u{7f}\u{9b}\u{202e}\0", "red \\u{1b}[31m \\u{7f}\\u{9b}\\u{202e}\\0"),
            // What is escaped already stays as it is.
            (r"\xff\n", r"\xff\n"),
        ] {
            assert_eq!(one_line(text), shown);
        }
    }

    #[test]
    fn a_line_in_json_is_one_object_with_its_fields() {
        let text = "it said \"\u{1b}[31m\r\n\\\"";
        let mut line = Line::new(Level::Warn, text);
        let now = "2026-01-02T03:04:05.678Z";
        let parse = |line: &Line<'_>| -> serde_json::Value {
            let written = json(line, &one_line(line.text), now);
            assert!(!written.contains(|c: char| c.is_control()), "{written}");
            serde_json::from_str(&written).unwrap()
        };
        let message = r#"it said "\u{1b}[31m\r\n\""#;
        let plain = serde_json::json!({"time": now, "level": "warn", "message": message});
        assert_eq!(parse(&line), plain);
        line.event = Some("lost".into());
        (line.connection, line.peer) = (Some(7), Some("[::1]:9".into()));
        let mut full = plain;
        full["event"] = "lost".into();
        full["connection"] = 7.into();
        full["peer"] = "[::1]:9".into();
        assert_eq!(parse(&line), full);
    }
}
