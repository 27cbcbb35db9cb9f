//! `--status`: the figures in a live line on the terminal.

use std::io::{self, IsTerminal};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use framelet::format::OutputFormat;
use framelet::server::Monitor;
use framelet::sink::SinkTarget;

use super::super::exit_code::Exit;
use super::super::failure::Failure;
use super::super::progress::{self, Line};
use super::figures::words;
use super::options::Serve;

/// How often the line is updated.
const EVERY: Duration = Duration::from_millis(500);

/// How long the program waits at its end for the line to be erased.
const LAST_LINE: Duration = Duration::from_secs(1);

impl Serve {
    /// Checks that a line can be shown.
    pub(super) fn check_status(&self) -> Result<(), Failure> {
        let prints = self.to == SinkTarget::Stdout && self.output != Some(OutputFormat::None);
        let why = match self.status {
            true if !progress::BUILT => {
                "this build has no --status; build framelet with its default features to get it"
            }
            true if !io::stderr().is_terminal() => {
                "--status needs a terminal; kill -USR1 makes the server log the same figures"
            }
            true if prints && io::stdout().is_terminal() => {
                "--status and the messages share the terminal; put messages elsewhere with --to or > FILE, or \
                 drop them with --output none"
            }
            _ => return Ok(()),
        };
        Err(Failure::new(Exit::Usage, why))
    }
}

/// Shows the figures until it is dropped.
///
/// A thread of its own writes the line: a terminal that is stopped with Ctrl-S must not stop the server.
pub(super) struct StatusLine {
    /// Closed to end the thread.
    stop: Option<SyncSender<()>>,
    ended: Receiver<()>,
}

impl StatusLine {
    pub(super) fn start(monitor: Monitor) -> io::Result<StatusLine> {
        let ((stop, stopped), (end, ended)) = (sync_channel::<()>(0), sync_channel::<()>(0));
        thread::Builder::new().name("framelet-status".into()).spawn(move || {
            let _end = end;
            let line = Line::new(None, Duration::ZERO);
            loop {
                line.show(words(&monitor.figures()), 0);
                if let Err(RecvTimeoutError::Disconnected) = stopped.recv_timeout(EVERY) {
                    return;
                }
            }
        })?;
        Ok(StatusLine { stop: Some(stop), ended })
    }
}

impl Drop for StatusLine {
    fn drop(&mut self) {
        self.stop = None;
        // Until the line is erased.
        let _ = self.ended.recv_timeout(LAST_LINE);
    }
}
