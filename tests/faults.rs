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
use common::program::{FRAMELET, Running, Server, check, framelet, said, unframe};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

const SENDER: &str = "000102030405060708090a0b0c0d0e0f";

/// Where the messages go.
#[derive(Clone, Copy)]
enum Store {
    File,
    Database,
}

impl Store {
    const ALL: [Store; 2] = [Store::File, Store::Database];

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
    for store in Store::ALL {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("messages");
        let to = store.to(&path);
        let mut command = Command::new("sh");
        // Without that, it would be ended by a signal.
        command
            .args(["-c", &format!("trap '' XFSZ; exec '{FRAMELET}' serve :0 --to '{to}' \"$@\"")]);
        command.arg("serve").args(store.arguments());
        let server = Server::spawn(command);
        let limit = Some(match store {
            Store::File => 100_001,
            Store::Database => 300_000,
        });
        let pid = Pid::from_raw(server.pid().try_into().unwrap());
        prlimit(pid, Resource::Fsize, Rlimit { current: limit, maximum: limit }).unwrap();
        let words: &[&str] = match store {
            Store::Database => &["disk I/O error", "the disk or its file system fails"],
            Store::File => {
                &["file too large", "cut back to its last whole message", "move the file away"]
            }
        };
        let committed = store.fails(server, &path, 50_000, words);
        assert!(committed > 0, "it failed at once");
        store.goes_on(&path, 50_000);
    }
}

/// Starts a server in which some calls fail.
fn serve_failing(calls: &str, how: &str, to: &str, arguments: &[&str]) -> Server {
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}")]);
    command.args(["-e", &format!("inject={calls}:{how}")]);
    command.args([FRAMELET, "serve", "127.0.0.1:0", "--to", to]).args(arguments);
    let found = Command::new("strace").arg("-V").output();
    assert!(found.is_ok(), "this test needs the program strace: apt-get install strace");
    Server::spawn(command)
}

/// P15.
#[test]
#[ignore = "needs the program strace"]
fn what_a_failing_disk_may_have_lost_is_not_acknowledged() {
    for store in Store::ALL {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("messages");
        let words: &[&str] = match store {
            Store::Database => &["disk I/O error", "the disk or its file system fails"],
            Store::File => &["input/output error", "cut back to its last whole message"],
        };
        // Each call that makes a file safe, from the fifth on.
        let how = "error=EIO:when=5+";
        let server = serve_failing("fsync,fdatasync", how, &store.to(&path), store.arguments());
        store.fails(server, &path, 50_000, words);
        store.goes_on(&path, 50_000);
    }
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
        let server = serve_failing("sendto", &how, &to, Store::File.arguments());
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
    for store in Store::ALL {
        let tiny = Tiny::new();
        let path = tiny.0.path().join("messages");
        let words: &[&str] = match store {
            Store::Database => &["database or disk is full", "make room there"],
            Store::File => {
                &["no space left on device", "cut back to its last whole message", "make room"]
            }
        };
        let server = serve("127.0.0.1:0", &store.to(&path), store.arguments());
        let committed = store.fails(server, &path, 100_000, words);
        assert!(committed > 0, "it failed at once");
        tiny.enlarge();
        store.goes_on(&path, 100_000);
    }
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
