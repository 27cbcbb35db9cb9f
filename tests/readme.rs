//! Runs the commands that the README and the pages of `docs/` show, as they stand there, each page from top to
//! bottom; and checks that links lead somewhere.

#![cfg(target_os = "linux")]

mod common;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{PipeWriter, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use common::held_port::HeldPort;
use common::program::{FRAMELET, Growing, terminal};
use rusqlite::fallible_iterator::FallibleIterator as _;
use rusqlite::types::Value;
use rusqlite::{Batch, Connection};
use rustix::process::{Pid, Signal, kill_process};

/// What is not run, and why.
const NOT_RUN: [(&str, &str); 8] = [
    ("cargo install --locked --path .", "it builds everything again, and installs it"),
    ("cargo test", "it is what runs this"),
    ("scripts/bench.sh", "it takes minutes, and needs other servers"),
    ("cargo install --locked --features redis --path .", "it builds everything again"),
    ("framelet serve :4754 --to 'redis://127.0.0.1:6379/0?stream=log' &", "it needs Redis"),
    ("framelet send :4754 --ack --message hello", "it needs the server with Redis"),
    ("redis-cli XRANGE log - +", "it needs Redis"),
    (
        "FRAMELET_REDIS_PASSWORD=\"$(cat /run/secrets/redis)\" framelet serve --to 'redis://USER@HOST/?stream=NAME'",
        "it needs Redis",
    ),
];

/// What somebody who types answers `framelet send`.
const TYPED: &[u8] = b"two\nlines\n\nanother message\n\n";

/// The languages of the blocks that hold nothing to run here: examples of the library are tests of
/// the documentation; help texts and the client in Python are tested elsewhere. `sh peers NAME` needs
/// other programs: `scripts/peers.sh` runs it. `sh install` changes the system: `scripts/package.sh` tries what it
/// installs.
const NOT_COMMANDS: [&str; 4] = ["text", "rust", "python", "yaml"];

struct Block {
    language: String,
    lines: Vec<String>,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in page.lines() {
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

/// Goes through a page in a shell, with all servers that were started so far.
struct Reader {
    directory: tempfile::TempDir,
    /// The database of the page, if it has one.
    database: String,
    /// The ports in the page, and those that stand for them here.
    ports: Vec<(String, HeldPort)>,
    servers: Vec<Child>,
    /// The shells into which blocks were pasted, which wait for the servers that they started.
    shells: Vec<Child>,
    /// How many commands have been run.
    commands: u32,
    terminal: File,
    shown: Arc<Growing>,
    errors: PipeWriter,
    said: Arc<Growing>,
}

impl Reader {
    fn new(page: &str) -> Reader {
        let directory = tempfile::tempdir().unwrap();
        let (person, terminal) = terminal();
        let (said, errors) = std::io::pipe().unwrap();
        let mut ports = vec![("4747".to_owned(), HeldPort::new())];
        for word in page.split(|c: char| !c.is_ascii_digit()) {
            let shown = word.len() == 4 && (word.starts_with("47") || word.starts_with("48"));
            if shown && ports.iter().all(|(port, _)| port != word) {
                ports.push((word.to_owned(), HeldPort::new()));
            }
        }
        let mut names =
            page.split("--to sqlite:").skip(1).filter_map(|rest| rest.split(' ').next());
        let database = names.find(|name| name.ends_with(".db")).unwrap_or_default().into();
        let reader = Reader {
            directory,
            database,
            ports,
            servers: Vec::new(),
            shells: Vec::new(),
            commands: 0,
            terminal,
            shown: Growing::follow(person),
            errors,
            said: Growing::follow(said),
        };
        // Nothing else: a person who pastes the commands has no other files.
        fs::write(reader.path("framelet"), reader.wrapper()).unwrap();
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(reader.path("framelet"), mode).unwrap();
        reader
    }

    /// Returns a program that stands for `framelet`: other tests and programs use the ports in the
    /// page, so that it has some of its own. It is in no hurry, but a benchmark need not take long.
    fn wrapper(&self) -> Vec<u8> {
        let mut script = String::from("#!/usr/bin/env bash\ncommand=$1\nshift\n");
        let default = self.here("4747");
        write!(
            script,
            "case $command:$1 in\n\
             (serve:[!-]* | send:[!-]* | ping:[!-]* | bench:[!-]*) address=$1; shift ;;\n\
             (serve:* | send:* | ping:* | bench:*) address=:{default} ;;\n\
             esac\n\
             case $address in\n"
        )
        .unwrap();
        for (port, here) in &self.ports {
            writeln!(script, "(:{port} | 127.0.0.1:{port}) address=127.0.0.1:{here} ;;").unwrap();
        }
        // A command that does not wait for its server fails here, and not only on a busy machine.
        write!(
            script,
            "esac\n\
             if [ \"$command\" = serve ] && [ -n \"$PASTED\" ]; then sleep 0.2; fi\n\
             if [ \"$command\" = bench ]; then set -- --duration 200ms --warm-up 10ms \"$@\"; fi\n\
             exec '{FRAMELET}' \"$command\" ${{address:+\"$address\"}} \"$@\"\n"
        )
        .unwrap();
        script.into_bytes()
    }

    fn here(&self, port: &str) -> &HeldPort {
        &self.ports.iter().find(|(shown, _)| shown == port).expect("a port of the page").1
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn bash(&self) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut bash = Command::new("bash");
        bash.current_dir(&self.directory)
            .env("PATH", format!("{}:{path}", self.directory.path().display()))
            .env("PASTED", "")
            .stdin(Stdio::piped())
            .stdout(self.terminal.try_clone().unwrap())
            .stderr(self.errors.try_clone().unwrap());
        bash
    }

    fn shell(&self, command: &str) -> Child {
        let mut child = self.bash().args(["-c", command]).spawn().unwrap();
        // It may read none of it.
        let _ = child.stdin.take().unwrap().write_all(TYPED);
        child
    }

    /// Gives all lines of a block to a shell at once, as somebody does who pastes it: a command that reads
    /// standard input swallows those after it, and servers start late.
    fn paste(&mut self, lines: &[String]) {
        let is_run = |line: &&String| NOT_RUN.iter().all(|(other, _)| other != line);
        let lines: Vec<&str> = lines.iter().filter(is_run).map(String::as_str).collect();
        let block = lines.join("\n");
        let servers = lines.iter().filter(|line| line.contains("framelet serve ")).count();
        self.wait_for_earlier_output();
        let (said_before, done) = (self.said().len(), self.path("done"));
        let mut shell = self.bash().env("PASTED", "yes").spawn().unwrap();
        // The shell lives until its servers have ended, and ends with them if something goes wrong.
        let script = format!(
            "set -e\ntrap 'exit 1' TERM\ntrap 'kill $(jobs -p) 2> none' EXIT\n{block}\n\
             servers=$(jobs -p); echo \"$servers\" > pids; mv pids done\n\
             for server in $servers; do wait \"$server\"; done; trap - EXIT\n"
        );
        shell.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        self.shells.push(shell);
        common::program::wait_until(&block, || {
            let ended = self.shells.last_mut().unwrap().try_wait().unwrap();
            let said = || String::from_utf8(self.said.so_far()).unwrap()[said_before..].to_owned();
            assert!(ended.is_none() || done.exists(), "{block}: {ended:?}: {}", said());
            done.exists() && said().matches("listening on ").count() == servers
        });
        fs::rename(done, self.path(&format!("servers-{}", self.shells.len()))).unwrap();
    }

    /// Ends all servers, each of which must end well.
    fn end(&mut self) {
        for (index, _) in self.shells.iter().enumerate() {
            let pids = fs::read_to_string(self.path(&format!("servers-{}", index + 1))).unwrap();
            let pids =
                pids.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap()).unwrap());
            pids.for_each(|pid| kill_process(pid, Signal::TERM).unwrap());
        }
        for server in &self.servers {
            kill_process(Pid::from_child(server), Signal::TERM).unwrap();
        }
        for mut child in self.servers.drain(..).chain(self.shells.drain(..)) {
            assert!(child.wait().unwrap().success());
        }
    }

    /// Runs a command, and waits until it shows what the page says that it does, if it says so.
    fn run(&mut self, command: &str, shows: Option<&[&str]>) {
        let command = command.split(" #").next().unwrap().trim();
        if NOT_RUN.iter().any(|(other, _)| *other == command) {
            return;
        }
        self.wait_for_earlier_output();
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
                    "{command}: the page shows\n{expected}\nand it shows\n{}",
                    so_far()
                );
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    }

    /// Waits until all that earlier commands have written is here.
    fn wait_for_earlier_output(&mut self) {
        self.commands += 1;
        let mark = format!("[command {}]\n", self.commands);
        (&self.terminal).write_all(mark.as_bytes()).unwrap();
        (&self.errors).write_all(mark.as_bytes()).unwrap();
        let here = || self.shown().contains(&mark) && self.said().contains(&mark);
        common::program::wait_until("the output of earlier commands", here);
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
        let database = Connection::open(self.path(&self.database)).unwrap();
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
        for shell in &mut self.shells {
            let _ = kill_process(Pid::from_child(shell), Signal::TERM);
            let _ = shell.wait();
        }
    }
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory: PathBuf| directory.join(program).exists())
}

/// Runs everything that a page shows.
fn run_page(page: &Path) {
    let text = fs::read_to_string(page).unwrap();
    let mut reader = Reader::new(&text);
    for block in &blocks(&text) {
        match block.language.as_str() {
            "console" => {
                let lines: Vec<&str> = block.lines.iter().map(String::as_str).collect();
                assert!(lines[0].starts_with("$ "), "{lines:?}");
                for part in lines.chunk_by(|_, next| !next.starts_with("$ ")) {
                    reader.run(part[0].trim_start_matches("$ "), Some(&part[1..]));
                }
            }
            "sh" if block.lines.len() > 1 => reader.paste(&block.lines),
            "sh" => reader.run(&block.lines[0], None),
            "sql" => drop(reader.query(&block.lines.join("\n"))),
            other => {
                let known = NOT_COMMANDS.contains(&other)
                    || other == "sh install"
                    || other.starts_with("sh peers ");
                assert!(known, "{}: a block of {other:?}", page.display());
            }
        }
    }
    reader.end();
}

#[test]
fn what_the_readme_shows_runs_as_it_stands_there() {
    run_page(Path::new("README.md"));
}

#[test]
fn what_the_docs_show_runs_as_it_stands_there() {
    std::thread::scope(|scope| {
        for page in pages_of_docs() {
            scope.spawn(move || run_page(&page));
        }
    });
}

/// A reader who goes from one page to another has the servers of the first one still running.
#[test]
fn no_two_servers_in_the_docs_have_the_same_address_or_sink() {
    let mut pages = pages_of_docs();
    pages.push("README.md".into());
    let (mut seen, mut servers) = (Vec::new(), 0);
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        let commands = blocks(&text).into_iter().filter(|block| block.language != "text");
        for line in commands.flat_map(|block| block.lines) {
            let Some((_, arguments)) = line.split_once("framelet serve ") else { continue };
            let words: Vec<&str> = arguments.split_whitespace().collect();
            // The last one is an example of a password, and is never run as it stands.
            if !words.contains(&"&") {
                continue;
            }
            servers += 1;
            let address = if words[0].contains(':') { words[0] } else { ":4747" };
            let to = words.windows(2).find(|pair| pair[0] == "--to").map(|pair| pair[1]);
            for what in [Some(address), to].into_iter().flatten() {
                let before = seen.iter().find(|(other, _)| other == what);
                assert_eq!(before, None, "{}: {line}", page.display());
                seen.push((what.to_owned(), page.clone()));
            }
        }
    }
    assert!(servers > 10, "only {servers} servers were found");
}

#[test]
fn what_is_not_run_is_shown() {
    let mut pages = pages_of_docs();
    pages.push("README.md".into());
    let pages: Vec<String> = pages.iter().map(|page| fs::read_to_string(page).unwrap()).collect();
    for (command, why) in NOT_RUN {
        let shown = pages.iter().any(|page| page.lines().any(|line| line == command));
        assert!(shown, "{command:?} is not run, since {why}; and it is on no page either");
    }
}

fn pages_of_docs() -> Vec<PathBuf> {
    fs::read_dir("docs").unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The docs show the tables, and this is what they are.
#[test]
fn the_tables_in_the_docs_are_those_of_the_database() {
    let page = fs::read_to_string("docs/sinks.md").unwrap();
    let shown = blocks(&page).into_iter().find(|block| block.lines[0].starts_with("CREATE TABLE"));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages.db");
    drop(framelet::sink::SqliteSink::open(&path).unwrap());
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

// ---- links

/// Returns all pages of the project in Markdown.
fn find_pages(directory: &Path, pages: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            find_pages(&path, pages);
        } else if name.ends_with(".md") {
            pages.push(path);
        }
    }
}

/// Returns the lines of a page that are in no block.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut in_block = false;
    page.lines().filter(move |line| {
        let fence = line.starts_with("```");
        in_block ^= fence;
        !fence && !in_block
    })
}

/// Returns the anchors of a page, as GitHub makes them of headings.
fn anchors(page: &str) -> Vec<String> {
    let headings = prose(page).filter_map(|line| line.trim_start_matches('#').strip_prefix(' '));
    let kept = |c: char| (c.is_alphanumeric() || "-_ ".contains(c)).then_some(c);
    let anchor =
        |heading: &str| heading.to_lowercase().chars().filter_map(kept).collect::<String>();
    headings.map(|heading| anchor(heading).replace(' ', "-")).collect()
}

/// Returns where the links of a page lead that stay within the project.
fn links(page: &str) -> Vec<&str> {
    let targets = prose(page).flat_map(|line| line.split("](").skip(1));
    let targets = targets.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    targets.filter(|target| !target.contains("://")).collect()
}

#[test]
fn links_lead_to_files_and_headings_that_exist() {
    let mut found = Vec::new();
    find_pages(Path::new("."), &mut found);
    let mut checked = 0;
    for page in &found {
        let text = fs::read_to_string(page).unwrap();
        for link in links(&text) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => page.clone(),
                file => page.parent().unwrap().join(file),
            };
            let shown = format!("{} links to {link}", page.display());
            assert!(target.exists(), "{shown}: no such file");
            if !anchor.is_empty() {
                let target = fs::read_to_string(&target).unwrap();
                assert!(
                    anchors(&target).iter().any(|known| known == anchor),
                    "{shown}: no such heading"
                );
            }
            checked += 1;
        }
    }
    assert!(checked > 50, "{checked} links are not all of them");
}
