//! What happens when the ground gives way: full disks, disks that fail, damaged databases. Nothing is
//! acknowledged that is not there, and the server says why in words. What can pass is waited for; otherwise
//! it ends, and the sender ends with an error.
//!
//! Some of them need the program strace or mount a file system, as root. They are run on demand only:
//! `cargo test --test faults -- --ignored`.

#![cfg(target_os = "linux")]

mod common;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::delivery::{Database, check_file, committed, numbers, send, serve};
use common::program::{FRAMELET, Running, Server, check, framelet, run, said, unframe, wait_until};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};

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

    /// Sends to a server that cannot go on sooner or later, says these words then, and waits until it is
    /// `mended`: then everything is there, once.
    #[track_caller]
    fn waits(self, server: Server, path: &Path, words: &[&str], mend: impl FnOnce(&Server)) {
        const MESSAGES: u64 = 50_000;
        let arguments = ["--window", "100", "--sender", SENDER];
        let sending = send(server.address, &arguments, MESSAGES);
        server.wait_for_log("waiting until messages can be written again", 1);
        for words in words {
            assert!(server.log().contains(words), "{words}: {}", server.log());
        }
        mend(&server);
        let output = sending.wait();
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        let left = server.stop();
        assert!(left.status.success(), "{}", left.log);
        for words in ["waiting until", "messages are written again, after"] {
            assert_eq!(left.log.matches(words).count(), 1, "{}", left.log);
        }
        match self {
            Store::File => assert_eq!(check_file(path, MESSAGES), 0),
            Store::Database => Database::open(path).check_numbers(MESSAGES),
        }
    }

    /// With room again, the sender goes on: then everything is there, in a database once.
    #[track_caller]
    fn goes_on(self, path: &Path, messages: u64) {
        let server = serve("127.0.0.1:0", &self.to(path), self.arguments());
        let output = send(server.address, &["--sender", SENDER, "--resume"], messages).wait();
        assert_eq!((output.status.code(), committed(&output)), (Some(0), messages));
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

/// Starts a server that a shell redirects, and that may write files of so many bytes.
fn serve_limited(arguments: &str, limit: u64) -> Server {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec '{FRAMELET}' serve :0 {arguments}")]);
    let server = Server::spawn(command);
    set_limit(&server, Some(limit));
    server
}

/// Sets how long a file may become that the server writes.
fn set_limit(server: &Server, limit: Option<u64>) {
    let pid = Pid::from_raw(server.pid().try_into().unwrap());
    let maximum = getrlimit(Resource::Fsize).maximum;
    prlimit(pid, Resource::Fsize, Rlimit { current: limit.or(maximum), maximum }).unwrap();
}

const OVER_LIMIT: [&str; 3] = [
    "file too large",
    "cut back to its last whole message",
    "raise the limit, or move the file away",
];

/// P27, with a limit in place of the end of the disk.
#[test]
fn a_file_that_is_over_its_limit_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages");
    let arguments = format!("--output frames --to '{}'", Store::File.to(&path));
    let server = serve_limited(&arguments, 100_001);
    Store::File.waits(server, &path, &OVER_LIMIT, |server| {
        ends_with_a_whole_message(&path);
        set_limit(server, None);
    });
}

/// Checks that it does so while a commit waits, and has some.
fn ends_with_a_whole_message(path: &Path) {
    // An attempt may be under way.
    wait_until("whole messages", || {
        let mut rest = &fs::read(path).unwrap()[..];
        while let Some((prefix, more)) = rest.split_first_chunk() {
            let len = u32::from_be_bytes(*prefix).try_into().unwrap();
            let Some(behind) = more.get(len..) else { break };
            rest = behind;
        }
        rest.is_empty()
    });
    assert!(fs::metadata(path).unwrap().len() > 0);
}

/// P27. Where there is no room, it may be elsewhere.
#[test]
fn a_new_file_is_begun_while_the_old_one_is_full() {
    let directory = tempfile::tempdir().unwrap();
    let (path, old) = (directory.path().join("messages"), directory.path().join("old"));
    let arguments = format!("--output frames --to '{}'", Store::File.to(&path));
    let server = serve_limited(&arguments, 100_001);
    let sending = send(server.address, &["--window", "100"], 15_000);
    server.wait_for_log("waiting until messages can be written again", 1);
    fs::rename(&path, &old).unwrap();
    server.signal(Signal::HUP);
    assert_eq!(sending.wait().status.code(), Some(0));
    assert!(server.stop().status.success());
    let mut messages = unframe(&fs::read(old).unwrap());
    messages.extend(unframe(&fs::read(path).unwrap()));
    let expected: Vec<_> = (1..=15_000).map(|n: u64| n.to_string().into_bytes()).collect();
    assert!(messages == expected);
}

/// P27, and P15.
#[test]
fn a_server_that_waits_for_room_ends_when_it_is_to_and_says_what_is_not_committed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages");
    let arguments = format!("--grace 500ms --output frames --to '{}'", Store::File.to(&path));
    let server = serve_limited(&arguments, 100_001);
    let arguments = ["--retry", "0s", "--window", "100", "--sender", SENDER];
    let sending = send(server.address, &arguments, 50_000);
    server.wait_for_log("waiting until messages can be written again", 1);
    let left = server.stop();
    assert!(left.took < Duration::from_secs(5), "{:?}", left.took);
    assert_eq!(left.status.code(), Some(4), "{}", left.log);
    let (_, last) = left.log.trim_end().rsplit_once('\n').unwrap();
    assert!(last.contains("messages received were not written"), "{last}");
    assert!(OVER_LIMIT.iter().all(|words| last.contains(words)), "{last}");
    let output = sending.wait();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let there = unframe(&fs::read(&path).unwrap()).len() as u64;
    assert_eq!(committed(&output), there);
    Store::File.goes_on(&path, 50_000);
}

/// P27 for standard output: what was written stays, and nothing is torn or there again.
#[test]
fn standard_output_that_is_over_its_limit_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages");
    let server = serve_limited(&format!("--output frames >'{}'", path.display()), 100_001);
    let sending = send(server.address, &["--window", "100"], 50_000);
    server.wait_for_log("file too large where the output goes; raise the limit", 1);
    for limit in [100_002, 100_003, 150_000] {
        set_limit(&server, Some(limit));
        wait_until("a file that is full", || fs::metadata(&path).unwrap().len() == limit);
    }
    set_limit(&server, None);
    assert_eq!(sending.wait().status.code(), Some(0));
    let left = server.stop();
    assert!(left.status.success(), "{}", left.log);
    assert!(left.log.contains("messages are written again"), "{}", left.log);
    let expected: Vec<_> = (1..=50_000).map(|n: u64| n.to_string().into_bytes()).collect();
    assert!(unframe(&fs::read(&path).unwrap()) == expected);
}

/// The calls that make a file safe.
const SYNCS: &str = "fsync,fdatasync";

/// Returns the command for a server in which some calls fail, as strace counts them.
fn failing(calls: &str, how: &str, to: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}")]);
    command.args(["-e", &format!("inject={calls}:{how}")]);
    command.args([FRAMELET, "serve", "127.0.0.1:0", "--to", to]).args(arguments);
    let found = Command::new("strace").arg("-V").output();
    assert!(found.is_ok(), "this test needs the program strace: apt-get install strace");
    command
}

/// P27.
#[test]
#[ignore = "needs the program strace"]
fn a_disk_that_fails_for_a_while_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages");
    // The first three are those at the start.
    let server = Server::spawn(failing(
        SYNCS,
        "error=EIO:when=5..8",
        &Store::File.to(&path),
        Store::File.arguments(),
    ));
    let words = ["input/output error", "cut back to its last whole message"];
    Store::File.waits(server, &path, &words, |_| {});
}

/// P15 and P27: what was not synced is written and synced again, and there once.
#[test]
#[ignore = "needs the program strace"]
fn a_database_on_a_disk_that_fails_for_a_while_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages.db");
    // The last sync of a new database: then it has its tables, and no log.
    let output = run(failing(SYNCS, "error=EIO:when=8", &Store::Database.to(&path), &[]), b"");
    check(&output, 2, &["messages.db: disk I/O error"]);
    let server =
        Server::spawn(failing(SYNCS, "error=EIO:when=15..19", &Store::Database.to(&path), &[]));
    let output = send(server.address, &["--window", "100"], 10_000).wait();
    check(&output, 0, &["sent 10000, committed 10000"]);
    let left = server.stop();
    assert!(
        left.log.contains("disk I/O error: the disk or its file system failed"),
        "{}",
        left.log
    );
    assert_eq!(
        left.log.matches("waiting until messages can be written").count(),
        1,
        "{}",
        left.log
    );
    assert_eq!(left.log.matches("messages are written again").count(), 1, "{}", left.log);
    Database::open(&path).check_numbers(10_000);
}

/// Whatever the first writes of each thread to a socket fail with: that passes, or ends the connection in
/// words, so that the client looks for another one.
#[test]
#[ignore = "needs the program strace"]
fn an_acknowledgement_that_cannot_be_sent_is_sent_again_or_ends_its_connection() {
    for (error, passes) in [("ENOBUFS", true), ("ENOMEM", true), ("EINTR", true), ("EIO", false)] {
        let directory = tempfile::tempdir().unwrap();
        let to = Store::File.to(&directory.path().join("messages"));
        let how = format!("error={error}:when=1..2");
        let server = Server::spawn(failing("sendto", &how, &to, Store::File.arguments()));
        let retry = if passes { "0s" } else { "30s" };
        let output = send(server.address, &["--retry", retry], 10).wait();
        check(&output, 0, &["committed 10"]);
        // It cannot be stopped in good order: a signal is passed on by such a call, too.
        let words = "cannot send acknowledgements: ";
        if passes {
            assert!(!server.log().contains(words), "{error}: {}", server.log());
        } else {
            server.wait_for_log(words, 1);
        }
    }
}

#[test]
#[ignore = "needs the program strace"]
fn the_file_of_a_socket_has_its_owner_and_mode_before_anybody_can_connect() {
    let directory = tempfile::tempdir().unwrap();
    let address = format!("unix:{}", directory.path().join("socket").display());
    let calls = directory.path().join("calls");
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-qq", "-e", "trace=bind,listen,/chown,/chmod", "-o"]).arg(&calls);
    let owner = format!("{}", rustix::process::geteuid().as_raw());
    command.args([FRAMELET, "serve", &address, "--mode", "0660", "--owner", &owner]);
    Server::spawn(command).stop();
    let read = || fs::read_to_string(&calls).unwrap();
    wait_until("the trace", || read().contains("listen("));
    let calls = read();
    let at = |call: &str| calls.find(call).unwrap_or_else(|| panic!("no {call} in {calls}"));
    assert!(at("bind(") < at("chown") && at("chown") < at("chmod"), "{calls}");
    assert!(at("chmod") < at("listen("), "{calls}");
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

/// P27.
#[test]
#[ignore = "mounts a file system, as root"]
fn room_on_the_disk_is_waited_for() {
    let tiny = Tiny::new();
    let path = tiny.0.path().join("messages");
    fs::write(tiny.0.path().join("large"), vec![b'x'; 200_000]).unwrap();
    let server = serve("127.0.0.1:0", &Store::File.to(&path), Store::File.arguments());
    let words =
        ["no space left on device", "cut back to its last whole message", "make room there"];
    Store::File.waits(server, &path, &words, |_| {
        ends_with_a_whole_message(&path);
        tiny.enlarge();
    });
}

/// The same without acknowledgements: whoever sends more than there is room for has to wait.
#[test]
#[ignore = "mounts a file system, as root"]
fn room_on_the_disk_is_waited_for_by_plain_senders() {
    let tiny = Tiny::new();
    let path = tiny.0.path().join("messages");
    let server = serve("127.0.0.1:0", &Store::File.to(&path), Store::File.arguments());
    let mut command = Command::new(FRAMELET);
    command.args(["send", &server.address.to_string(), "--input", "lines"]);
    let sending = Running::start(command, numbers(100_000).as_bytes());
    server.wait_for_log("no space left on device", 1);
    tiny.enlarge();
    let output = sending.wait();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(server.stop().status.success());
    assert_eq!(check_file(&path, 100_000), 0);
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
