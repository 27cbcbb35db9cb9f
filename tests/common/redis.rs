//! Redis servers of one's own.

use std::collections::HashMap;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use redis::{Client, Connection, cmd};

use super::held_port::HeldPort;
use super::program::PATIENCE;

/// A Redis server in a directory of its own; it is killed when it is dropped.
pub(crate) struct Redis {
    child: Child,
    pub(crate) port: u16,
    _held: HeldPort,
    arguments: Vec<String>,
    directory: tempfile::TempDir,
}

impl Redis {
    pub(crate) fn start(arguments: &[&str]) -> Redis {
        let (held, directory) = (HeldPort::new(), tempfile::tempdir().unwrap());
        let port = held.number();
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let child = Redis::spawn(port, &arguments, &directory);
        let redis = Redis { child, port, _held: held, arguments, directory };
        redis.wait();
        redis
    }

    fn spawn(port: u16, arguments: &[String], directory: &tempfile::TempDir) -> Child {
        Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(directory.path())
            .args(arguments)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is needed for this (on Debian: apt-get install redis-server)")
    }

    fn wait(&self) {
        let deadline = Instant::now() + PATIENCE;
        let loaded = || {
            let mut connection = self.client("").get_connection().ok()?;
            match cmd("PING").query::<String>(&mut connection) {
                Ok(_) => Some(()),
                Err(error) => (error.code() == Some("NOAUTH")).then_some(()),
            }
        };
        while loaded().is_none() {
            assert!(Instant::now() < deadline, "redis-server did not listen");
            thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn restart(&mut self) {
        self.child = Redis::spawn(self.port, &self.arguments, &self.directory);
        self.wait();
    }

    pub(crate) fn client(&self, login: &str) -> Client {
        Client::open(format!("redis://{login}127.0.0.1:{}/", self.port)).unwrap()
    }

    pub(crate) fn connect(&self) -> Connection {
        self.client("").get_connection().unwrap()
    }

    pub(crate) fn run(&self, command: &[&str]) {
        cmd(command[0]).arg(&command[1..]).exec(&mut self.connect()).unwrap();
    }

    /// Where framelet is to put messages.
    pub(crate) fn stream(&self, name: &str) -> String {
        format!("redis://127.0.0.1:{}/0?stream={name}", self.port)
    }

    /// The same, for a user who may do everything but one command.
    pub(crate) fn stream_without(&self, name: &str, command: &str) -> String {
        let may_not = format!("-{command}");
        self.run(&["ACL", "SETUSER", "user", "on", ">right", "~*", "+@all", &may_not]);
        self.stream(name).replace("redis://", "redis://user:right@")
    }

    pub(crate) fn length(&self, stream: &str) -> usize {
        cmd("XLEN").arg(stream).query(&mut self.connect()).unwrap()
    }

    pub(crate) fn entries(&self, stream: &str) -> Vec<HashMap<String, Vec<u8>>> {
        type Entry = (String, HashMap<String, Vec<u8>>);
        let entries: Vec<Entry> =
            cmd("XRANGE").arg(stream).arg("-").arg("+").query(&mut self.connect()).unwrap();
        entries.into_iter().map(|(_, fields)| fields).collect()
    }

    pub(crate) fn payloads(&self, stream: &str) -> Vec<String> {
        payloads(&self.entries(stream))
    }

    pub(crate) fn wait_for_entries(&self, stream: &str, count: usize) {
        let (mut connection, deadline) = (self.connect(), Instant::now() + PATIENCE);
        while cmd("XLEN").arg(stream).query::<usize>(&mut connection).unwrap() < count {
            assert!(Instant::now() < deadline, "{count} entries did not come");
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn text(entry: &HashMap<String, Vec<u8>>, field: &str) -> String {
    String::from_utf8(entry[field].clone()).unwrap()
}

pub(crate) fn payloads(entries: &[HashMap<String, Vec<u8>>]) -> Vec<String> {
    entries.iter().map(|entry| text(entry, "payload")).collect()
}
