//! What happens when the ground gives way: full disks, disks that fail, damaged databases. Nothing is
//! acknowledged that is not there, the sender ends with an error, and the server says why in words.
//!
//! Some of them need the program strace or mount a file system, as root. They are run on demand only:
//! `cargo test --test faults -- --ignored`.

#![cfg(target_os = "linux")]

mod common;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use common::delivery::{Database, check_file, committed, numbers, send, serve};
use common::program::{FRAMELET, Running, Server, check, framelet, run, said, unframe};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

const SENDER: &str = "000102030405060708090a0b0c0d0e0f";

/// Where the messages go.
#[derive(Clone, Copy)]
enum Store {
    File,
    Database,
}

impl Store {
    fn to(self, path: &Path) -> String {
        match self {
            Store::File => format!("file:{}", path.display()),
            Store::Database => format!("sqlite:{}", path.display()),
        }
    }

    /// What the server needs besides.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Store::File => &["--output", "frames"],
            Store::Database => &[],
        }
    }

    /// Sends to a server that fails sooner or later, and says these words then. Returns how many messages
    /// it acknowledged; it cannot commit all of them.
    #[track_caller]
    fn fails(self, server: Server, path: &Path, messages: u64, words: &[&str]) -> u64 {
        let arguments = ["--retry", "0s", "--window", "100", "--sender", SENDER];
        let output = send(server.address, &arguments, messages).wait();
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        // Where the server has time to say so; otherwise the connection is lost.
        assert!(said.contains("its sink failed") || said.contains("was lost"), "{said}");
        let committed = committed(&output);
        assert!(committed < messages, "it did not fail");
        let left = server.wait();
        assert_eq!(left.status.code(), Some(2), "{}", left.log);
        for words in words {
            assert!(left.log.contains(words), "{words}: {}", left.log);
        }
        // Loud: how much is lost to those who do not ask.
        assert!(left.log.contains("messages received were not written"), "{}", left.log);
        let there = match self {
            Store::File => unframe(&fs::read(path).unwrap()).len() as u64,
            Store::Database => Database::open(path).committed(),
        };
        assert!(committed <= there && there < messages, "{committed} of {there} acknowledged");
        committed
    }

    /// With room again, the sender goes on: then everything is there, in a database once.
    #[track_caller]
    fn goes_on(self, path: &Path, messages: u64) {
        let server = serve("127.0.0.1:0", &self.to(path), self.arguments());
        let output = send(server.address, &["--sender", SENDER, "--resume"], messages).wait();
        check(&output, 0, &[&format!("sent {messages}, committed {messages}")]);
        assert!(server.stop().status.success());
        match self {
            Store::File => drop(check_file(path, messages)),
            Store::Database => Database::open(path).check_numbers(messages),
        }
    }
}

/// P15.
#[test]
fn what_a_device_has_no_room_for_is_not_acknowledged() {
    let server = serve("127.0.0.1:0", "file:/dev/full", &["--output", "frames"]);
    let output = send(server.address, &["--retry", "0s"], 1000).wait();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("its sink failed"), "{}", said(&output));
    assert_eq!(committed(&output), 0);
    let left = server.wait();
    assert_eq!(left.status.code(), Some(2), "{}", left.log);
    assert!(left.log.contains("no space left on device"), "{}", left.log);
}

/// P15, with a limit in place of the end of the disk: the last write is cut short in both cases.
#[test]
fn what_is_over_the_limit_of_a_file_is_not_acknowledged() {
    let store = Store::File;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages");
    let to = store.to(&path);
    let mut command = Command::new("sh");
    // Without that, it would be ended by a signal.
    command.args(["-c", &format!("trap '' XFSZ; exec '{FRAMELET}' serve :0 --to '{to}' \"$@\"")]);
    command.arg("serve").args(store.arguments());
    let server = Server::spawn(command);
    let limit = Some(100_001);
    let pid = Pid::from_raw(server.pid().try_into().unwrap());
    prlimit(pid, Resource::Fsize, Rlimit { current: limit, maximum: limit }).unwrap();
    let words = &["file too large", "cut back to its last whole message", "move the file away"];
    let committed = store.fails(server, &path, 50_000, words);
    assert!(committed > 0, "it failed at once");
    store.goes_on(&path, 50_000);
}

/// Returns the command for a server in which these calls that make a file safe fail, as strace counts them.
fn failing_sync(to: &str, arguments: &[&str], when: &str) -> Command {
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"]);
    command.args(["-e", &format!("inject=fsync,fdatasync:error=EIO:when={when}")]);
    command.args([FRAMELET, "serve", "127.0.0.1:0", "--to", to]).args(arguments);
    let found = Command::new("strace").arg("-V").output();
    assert!(found.is_ok(), "this test needs the program strace: apt-get install strace");
    command
}

/// P15.
#[test]
#[ignore = "needs the program strace"]
fn what_a_failing_disk_may_have_lost_is_not_acknowledged() {
    let store = Store::File;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages");
    let words = &["input/output error", "cut back to its last whole message"];
    let server = Server::spawn(failing_sync(&store.to(&path), store.arguments(), "5+"));
    store.fails(server, &path, 50_000, words);
    store.goes_on(&path, 50_000);
}

/// P15 and P27: what was not synced is written and synced again, and there once.
#[test]
#[ignore = "needs the program strace"]
fn a_database_on_a_disk_that_fails_for_a_while_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages.db");
    // The last sync of a new database: then it has its tables, and no log.
    let output = run(failing_sync(&Store::Database.to(&path), &[], "8"), b"");
    check(&output, 2, &["messages.db: disk I/O error"]);
    let server = Server::spawn(failing_sync(&Store::Database.to(&path), &[], "15..19"));
    let output = send(server.address, &["--window", "100"], 10_000).wait();
    check(&output, 0, &["sent 10000, committed 10000"]);
    let left = server.stop();
    assert!(left.log.contains("disk I/O error: the disk or its file system fails"), "{}", left.log);
    assert_eq!(
        left.log.matches("waiting until messages can be written").count(),
        1,
        "{}",
        left.log
    );
    assert_eq!(left.log.matches("messages are written again").count(), 1, "{}", left.log);
    Database::open(&path).check_numbers(10_000);
}

/// A file system of 512 KiB.
struct Tiny(tempfile::TempDir);

impl Tiny {
    fn new() -> Tiny {
        let directory = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=512k", "none"]).arg(directory.path());
        let mounted = mount.output().unwrap();
        assert!(mounted.status.success(), "{}", String::from_utf8_lossy(&mounted.stderr));
        Tiny(directory)
    }

    /// Makes it as large as needed.
    fn enlarge(&self) {
        let mut mount = Command::new("mount");
        mount.args(["-o", "remount,size=64m"]).arg(self.0.path());
        assert!(mount.output().unwrap().status.success());
    }
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).output();
    }
}

/// P15.
#[test]
#[ignore = "mounts a file system, as root"]
fn what_does_not_fit_on_the_disk_is_not_acknowledged() {
    let store = Store::File;
    let tiny = Tiny::new();
    let path = tiny.0.path().join("messages");
    let words = &["no space left on device", "cut back to its last whole message", "make room"];
    let server = serve("127.0.0.1:0", &store.to(&path), store.arguments());
    let committed = store.fails(server, &path, 100_000, words);
    assert!(committed > 0, "it failed at once");
    tiny.enlarge();
    store.goes_on(&path, 100_000);
}

/// P27.
#[test]
#[ignore = "mounts a file system, as root"]
fn a_database_waits_until_there_is_room_on_the_disk() {
    let tiny = Tiny::new();
    let path = tiny.0.path().join("messages.db");
    let server = serve("127.0.0.1:0", &Store::Database.to(&path), &[]);
    let client = send(server.address, &["--timeout", "60s"], 100_000);
    server.wait_for_log("database or disk is full: make room there; waiting until", 1);
    assert!(Database::open(&path).committed() < 100_000);
    tiny.enlarge();
    check(&client.wait(), 0, &["sent 100000, committed 100000"]);
    let left = server.stop();
    assert!(left.status.success(), "{}", left.log);
    assert_eq!(left.log.matches("messages are written again").count(), 1, "{}", left.log);
    Database::open(&path).check_numbers(100_000);
}

/// The same without acknowledgements.
#[test]
#[ignore = "mounts a file system, as root"]
fn a_full_disk_ends_the_server_in_words_and_leaves_whole_messages() {
    let tiny = Tiny::new();
    let path = tiny.0.path().join("messages");
    let server = serve("127.0.0.1:0", &Store::File.to(&path), Store::File.arguments());
    let mut command = Command::new(FRAMELET);
    command.args(["send", &server.address.to_string(), "--input", "lines"]);
    let output = Running::start(command, numbers(100_000).as_bytes()).wait();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let left = server.wait();
    assert_eq!(left.status.code(), Some(2), "{}", left.log);
    assert!(left.log.contains("no space left on device"), "{}", left.log);
    let messages = unframe(&fs::read(&path).unwrap());
    let mut expected = (1_u64..).map(|number| number.to_string().into_bytes());
    assert!(
        !messages.is_empty() && messages.iter().all(|message| *message == expected.next().unwrap())
    );
}

/// Writes over a page of a database, the first of which is 1.
fn damage(path: &Path, page: u64) {
    const PAGE: usize = 4096;
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0xaa; PAGE], (page - 1) * PAGE as u64).unwrap();
}

#[test]
fn a_damaged_database_is_found_out_in_words_and_nothing_more_is_acknowledged() {
    let words = ["it is damaged", ".recover"];
    // The pages of the tables: `messages` is the first one, and `senders` the second.
    for (page, at_start) in [(2, false), (3, true)] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("messages.db");
        let to = Store::Database.to(&path);
        let server = serve("127.0.0.1:0", &to, &[]);
        check(&send(server.address, &[], 1000).wait(), 0, &["committed 1000"]);
        assert!(server.stop().status.success());
        damage(&path, page);
        if at_start {
            check(&framelet(&["serve", ":0", "--to", &to], b""), 2, &words);
            continue;
        }
        let server = serve("127.0.0.1:0", &to, &[]);
        let output = send(server.address, &["--retry", "0s"], 1000).wait();
        assert_eq!((output.status.code(), committed(&output)), (Some(1), 0), "{}", said(&output));
        let left = server.wait();
        assert_eq!(left.status.code(), Some(2), "{}", left.log);
        assert!(words.iter().all(|words| left.log.contains(words)), "{}", left.log);
    }
}
