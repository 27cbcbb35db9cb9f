//! Runs the commands that the README shows, as they stand there, from its beginning to its end.

#![cfg(target_os = "linux")]

mod common;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{PipeWriter, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use common::program::{FRAMELET, Growing, frame, terminal};
use rusqlite::fallible_iterator::FallibleIterator as _;
use rusqlite::types::Value;
use rusqlite::{Batch, Connection};

/// What is not run, and why.
const NOT_RUN: [(&str, &str); 3] = [
    ("cargo install --locked --path .", "it builds everything again, and installs it"),
    ("cargo test", "it is what runs this"),
    ("scripts/bench.sh", "it takes minutes, and needs other servers"),
];

/// What somebody who types answers `framelet send`.
const TYPED: &[u8] = b"two\nlines\n\nanother message\n\n";

/// The languages of the blocks that hold nothing to run here: examples of the library are tests of
/// the documentation, and help texts are compared elsewhere.
const NOT_COMMANDS: [&str; 2] = ["text", "rust"];

struct Block {
    language: String,
    lines: Vec<String>,
}

fn blocks(readme: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in readme.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(language), None) => {
                open = Some(Block { language: language.into(), lines: Vec::new() });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => block.lines.push(line.into()),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block does not end");
    blocks
}

/// One who goes through the README in a shell, with all servers that were started so far.
struct Reader {
    directory: tempfile::TempDir,
    /// The ports in the README, and those that stand for them here.
    ports: Vec<(String, String)>,
    servers: Vec<Child>,
    terminal: File,
    shown: Arc<Growing>,
    errors: PipeWriter,
    said: Arc<Growing>,
}

impl Reader {
    fn new(readme: &str) -> Reader {
        let directory = tempfile::tempdir().unwrap();
        let (person, terminal) = terminal();
        let (said, errors) = std::io::pipe().unwrap();
        let mut ports = Vec::new();
        for word in readme.split(|c: char| !c.is_ascii_digit()) {
            let shown = word.len() == 4 && (word.starts_with("47") || word.starts_with("48"));
            if shown && ports.iter().all(|(port, _)| port != word) {
                ports.push((word.to_owned(), free_port()));
            }
        }
        let reader = Reader {
            directory,
            ports,
            servers: Vec::new(),
            terminal,
            shown: Growing::follow(person),
            errors,
            said: Growing::follow(said),
        };
        reader.put("framelet", &reader.wrapper());
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(reader.path("framelet"), mode).unwrap();
        let mut readings = String::new();
        for number in 0..120_000 {
            match number % 3 {
                0 => writeln!(readings, "reading {number}").unwrap(),
                _ => writeln!(readings, "{{\"temperature\":{number}}}").unwrap(),
            }
        }
        reader.put("readings.txt", readings.as_bytes());
        reader.put("lines.txt", b"one\ntwo\nthree\n");
        reader.put("capture.bin", &[frame(b"one"), frame(b"two")].concat());
        reader
    }

    /// Returns a program that stands for `framelet`: other tests and programs use the ports in the
    /// README, so that it has some of its own. It is in no hurry, but a benchmark need not take long.
    fn wrapper(&self) -> Vec<u8> {
        let mut script = String::from("#!/usr/bin/env bash\ncommand=$1\nshift\n");
        let default = self.here("4747");
        write!(
            script,
            "case $command:$1 in\n\
             (serve:[!-]* | send:[!-]* | bench:[!-]*) address=$1; shift ;;\n\
             (serve:* | send:* | bench:*) address=:{default} ;;\n\
             esac\n\
             case $address in\n"
        )
        .unwrap();
        for (port, here) in &self.ports {
            writeln!(script, "(:{port} | 127.0.0.1:{port}) address=127.0.0.1:{here} ;;").unwrap();
        }
        write!(
            script,
            "esac\n\
             if [ \"$command\" = bench ]; then set -- --duration 200ms --warm-up 10ms \"$@\"; fi\n\
             exec '{FRAMELET}' \"$command\" ${{address:+\"$address\"}} \"$@\"\n"
        )
        .unwrap();
        script.into_bytes()
    }

    fn here(&self, port: &str) -> &str {
        &self.ports.iter().find(|(shown, _)| shown == port).expect("a port of the README").1
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn put(&self, name: &str, content: &[u8]) {
        fs::write(self.path(name), content).unwrap();
    }

    fn shell(&self, command: &str) -> Child {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut child = Command::new("bash")
            .args(["-c", command])
            .current_dir(&self.directory)
            .env("PATH", format!("{}:{path}", self.directory.path().display()))
            .stdin(Stdio::piped())
            .stdout(self.terminal.try_clone().unwrap())
            .stderr(self.errors.try_clone().unwrap())
            .spawn()
            .unwrap();
        // It may read none of it.
        let _ = child.stdin.take().unwrap().write_all(TYPED);
        child
    }

    /// Runs a command, and waits until it shows what the README says that it does, if it says so.
    fn run(&mut self, command: &str, shows: Option<&[&str]>) {
        let command = command.split(" #").next().unwrap().trim();
        if NOT_RUN.iter().any(|(other, _)| *other == command) {
            return;
        }
        let (before, said_before) = (self.shown().len(), self.said().len());
        if let Some(server) = command.strip_suffix('&') {
            // In place of the shell, so that it can be ended.
            let server = self.shell(&format!("exec {server}"));
            self.servers.push(server);
            let said = || self.said()[said_before..].contains("listening on ");
            common::program::wait_until(command, said);
        } else if command.starts_with("sqlite3 ") && !is_installed("sqlite3") {
            let (_, query) = command.split_once('\'').unwrap();
            let rows = self.query(query.trim_end_matches('\''));
            writeln!(&self.terminal, "{rows}").unwrap();
        } else {
            let status = self.shell(command).wait().unwrap();
            assert!(status.success(), "{command}: {status}: {}", &self.said()[said_before..]);
        }
        if let Some(lines) = shows {
            let expected: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let so_far = || {
                let both = [&self.shown()[before..], &self.said()[said_before..]].concat();
                self.ports.iter().fold(both, |text, (port, here)| {
                    text.replace(&format!("127.0.0.1:{here}"), &format!("127.0.0.1:{port}"))
                })
            };
            let started = std::time::Instant::now();
            while so_far() != expected {
                assert!(
                    started.elapsed() < common::program::PATIENCE,
                    "{command}: the README shows\n{expected}\nand it shows\n{}",
                    so_far()
                );
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    }

    /// What was shown on the terminal.
    fn shown(&self) -> String {
        String::from_utf8(self.shown.so_far()).unwrap().replace("\r\n", "\n")
    }

    /// What was said on standard error.
    fn said(&self) -> String {
        String::from_utf8(self.said.so_far()).unwrap()
    }

    /// Runs statements on the database, and returns the first column of the last result.
    fn query(&self, sql: &str) -> String {
        let database = Connection::open(self.path("messages.db")).unwrap();
        let mut result = String::new();
        let mut statements = Batch::new(&database, sql);
        while let Some(mut statement) = statements.next().unwrap() {
            let rows = statement.query_map([], |row| row.get::<_, Value>(0)).unwrap();
            let rows: Vec<String> = rows.map(|row| format!("{:?}", row.unwrap())).collect();
            assert!(!rows.is_empty(), "{sql}: nothing");
            result = match rows.last().unwrap().strip_prefix("Integer(") {
                Some(number) => number.trim_end_matches(')').to_owned(),
                None => rows.join("\n"),
            };
        }
        result
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory: PathBuf| directory.join(program).exists())
}

#[test]
fn what_the_readme_shows_runs_as_it_stands_there() {
    let readme = fs::read_to_string("README.md").unwrap();
    let mut reader = Reader::new(&readme);
    let blocks = blocks(&readme);
    for block in &blocks {
        match block.language.as_str() {
            "console" => {
                let lines: Vec<&str> = block.lines.iter().map(String::as_str).collect();
                assert!(lines[0].starts_with("$ "), "{lines:?}");
                for part in lines.chunk_by(|_, next| !next.starts_with("$ ")) {
                    reader.run(part[0].trim_start_matches("$ "), Some(&part[1..]));
                }
            }
            "sh" => block.lines.iter().for_each(|line| reader.run(line, None)),
            "sql" => drop(reader.query(&block.lines.join("\n"))),
            other => assert!(NOT_COMMANDS.contains(&other), "a block of {other:?}"),
        }
    }
    for (command, why) in NOT_RUN {
        let shown = blocks.iter().flat_map(|block| &block.lines).any(|line| line == command);
        assert!(shown, "{command:?} is not run, since {why}; and it is not in the README either");
    }
    for server in &reader.servers {
        let pid = rustix::process::Pid::from_child(server);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }
    for mut server in std::mem::take(&mut reader.servers) {
        assert!(server.wait().unwrap().success());
    }
}

/// The README shows the tables, and this is what they are.
#[test]
fn the_tables_in_the_readme_are_those_of_the_database() {
    let readme = fs::read_to_string("README.md").unwrap();
    let shown =
        blocks(&readme).into_iter().find(|block| block.lines[0].starts_with("CREATE TABLE"));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages.db");
    drop(framelet::SqliteSink::open(&path).unwrap());
    let real = columns(&Connection::open(&path).unwrap());
    let empty = Connection::open_in_memory().unwrap();
    empty.execute_batch(&shown.expect("the tables").lines.join("\n")).unwrap();
    assert_eq!(columns(&empty), real);
}

/// Returns the columns of all tables, with their types.
fn columns(database: &Connection) -> Vec<String> {
    let query = "SELECT m.name || '.' || c.name || ' ' || c.type FROM sqlite_master m \
                 JOIN pragma_table_info(m.name) c WHERE m.type = 'table' ORDER BY m.name, c.cid";
    let mut statement = database.prepare(query).unwrap();
    let columns = statement.query_map([], |row| row.get(0)).unwrap();
    columns.map(Result::unwrap).collect()
}
