//! The program under measurement, as a user runs it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server; it is ended in good order when it is dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
}

impl Server {
    pub(crate) fn start(arguments: &[&str]) -> Server {
        let mut child = Command::new(env!("CARGO_BIN_EXE_framelet"))
            .args(["serve", "127.0.0.1:0"])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim_end().split(' ').next_back().unwrap().to_owned();
        Server { child, address }
    }

    pub(crate) fn send(&self, input: &Path) -> Child {
        Command::new(env!("CARGO_BIN_EXE_framelet"))
            .args(["send", &self.address, "--ack", "--input", "lines"])
            .stdin(File::open(input).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let _ = rustix::process::kill_process(pid.unwrap(), rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

/// Sends the lines of a file four times at once.
pub(crate) fn four_senders(input: &Path, to: &str) -> Duration {
    let server = Server::start(&["--to", to]);
    let started = Instant::now();
    let senders: Vec<Child> = (0..4).map(|_| server.send(input)).collect();
    for mut sender in senders {
        assert!(sender.wait().unwrap().success());
    }
    started.elapsed()
}
