//! What becomes of the files that messages are put into: nothing is destroyed, and nothing is acknowledged that
//! is not there.

mod common;

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use common::acks::{SENDER, read_answer};
use common::program::{FRAMELET, PATIENCE, Running, Server, check, frame, framelet, said};
use common::resume::refuses_another_input;
use framelet::Layout;
use framelet::wire::Hello;
use rustix::process::Signal;

struct SinkTarget {
    directory: tempfile::TempDir,
    path: PathBuf,
}

impl SinkTarget {
    fn new() -> SinkTarget {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("messages");
        SinkTarget { directory, path }
    }

    fn to(&self) -> String {
        format!("file:{}", self.path.display())
    }

    fn serve(&self, format: &str) -> Server {
        Server::start(&["--to", &self.to(), "--output", format])
    }

    fn lines(&self) -> Vec<String> {
        lines(&self.path)
    }
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

/// Starts to send these numbers as the one sender of these tests.
fn send(server: &Server, numbers: std::ops::RangeInclusive<u64>, arguments: &[&str]) -> Running {
    let input: String = numbers.map(|number| format!("{number}\n")).collect();
    let mut command = Command::new(FRAMELET);
    command.args(["send", &server.address.to_string(), "--ack", "--input", "lines"]);
    command.args(["--sender", SENDER]).args(arguments);
    Running::start(command, input.as_bytes())
}

#[track_caller]
fn succeeds(output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{}", said(output));
}

fn numbers(range: std::ops::RangeInclusive<u64>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

// ---- what is there already

/// P23.
#[test]
fn acknowledged_messages_stay_in_whatever_format_the_server_is_started_again() {
    let place = SinkTarget::new();
    let server = place.serve("lines");
    succeeds(&send(&server, 1..=1000, &[]).wait());
    // However it ends.
    server.signal(Signal::KILL);
    server.wait();
    let before = fs::read(&place.path).unwrap();
    let note = place.directory.path().join("messages.framelet");
    for format in ["nul", "json", "hex", "base64", "frames", "raw", "text"] {
        let arguments = ["serve", "127.0.0.1:0", "--to", &place.to(), "--output", format];
        let words = ["it holds lines; start with lines, or give another file (--output"];
        check(&framelet(&arguments, b""), 2, &words);
        // Nor is it destroyed without the note, which counts for these.
        let noted = fs::read(&note).unwrap();
        fs::remove_file(&note).unwrap();
        check(&framelet(&arguments, b""), 2, &["cannot open", "messages: it "]);
        assert!(!note.exists());
        fs::write(&note, noted).unwrap();
        assert_eq!(fs::read(&place.path).unwrap(), before);
        assert_eq!(fs::read_dir(place.directory.path()).unwrap().count(), 2);
    }
    let server = place.serve("lines");
    check(&framelet(&["send", &server.address.to_string(), "--message", "last"], b""), 0, &[]);
    assert!(server.stop().status.success());
    assert_eq!(place.lines(), [numbers(1..=1000), vec!["last".into()]].concat());
}

// ---- files that go away

/// A client that notes how much is acknowledged to it.
struct Client {
    stream: TcpStream,
    sent: u64,
}

impl Client {
    fn connect(server: &Server) -> Client {
        let mut stream = server.connect();
        let hello = Hello { sender: SENDER.parse().unwrap(), first: 1 };
        stream.write_all(&hello.encode(Layout::U32BE).unwrap()).unwrap();
        assert_eq!(read_answer(&mut stream), Some(Ok(0)));
        Client { stream, sent: 0 }
    }

    fn send(&mut self, messages: u64) {
        for _ in 0..messages {
            self.sent += 1;
            self.stream.write_all(&frame(self.sent.to_string().as_bytes())).unwrap();
        }
    }

    /// Waits until so many are acknowledged.
    fn wait(&mut self, count: u64) {
        while read_answer(&mut self.stream).unwrap().unwrap() < count {}
    }

    /// Returns how many are acknowledged at most until nothing has come for a while.
    fn acknowledged(&mut self) -> u64 {
        let mut acknowledged = 0;
        self.stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        while !matches!(self.stream.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
        {
            acknowledged = read_answer(&mut self.stream).unwrap().unwrap();
        }
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        acknowledged
    }
}

/// P26.
#[test]
fn nothing_is_acknowledged_into_a_file_that_was_deleted() {
    for (is_directory, is_told) in [(false, true), (false, false), (true, true)] {
        let mut place = SinkTarget::new();
        let folder = place.directory.path().join("folder");
        fs::create_dir(&folder).unwrap();
        place.path = folder.join("messages");
        let server = place.serve("lines");
        let mut client = Client::connect(&server);
        client.send(100);
        client.wait(100);
        if is_directory {
            fs::remove_dir_all(&folder).unwrap();
        } else {
            fs::remove_file(&place.path).unwrap();
        }
        client.send(100);
        server.wait_for_log("it was deleted; create it", 1);
        client.send(100);
        // They are told that the server lives, and no more.
        assert!(client.acknowledged() <= 100);
        fs::create_dir_all(&folder).unwrap();
        if is_told {
            server.signal(Signal::HUP);
        } else {
            File::create(&place.path).unwrap();
        }
        client.wait(300);
        server.wait_for_log("messages are written again", 1);
        assert_eq!(place.lines(), numbers(101..=300));
        let left = server.stop();
        assert!(left.status.success(), "{}", left.log);
        assert_eq!(left.log.matches("it was deleted").count(), 1, "{}", left.log);
    }
}

#[test]
fn a_server_whose_file_was_deleted_ends_when_it_is_to_and_says_what_is_lost() {
    let place = SinkTarget::new();
    let server = Server::start(&["--to", &place.to(), "--grace", "500ms"]);
    let mut client = Client::connect(&server);
    fs::remove_file(&place.path).unwrap();
    client.send(3);
    server.wait_for_log("it was deleted", 1);
    let left = server.stop();
    assert_eq!(left.status.code(), Some(4), "{}", left.log);
    let words =
        "messages received were not written by the end of the grace period: cannot write to";
    assert!(left.log.contains(words), "{}", left.log);
    assert!(left.took < Duration::from_secs(5), "{:?}", left.took);
    assert!(!place.path.exists());
}

/// P26. To rename it is how a new one is begun, and takes a moment.
#[test]
fn a_file_that_was_renamed_is_written_to_until_the_server_is_told() {
    let place = SinkTarget::new();
    let server = place.serve("lines");
    let mut client = Client::connect(&server);
    client.send(100);
    client.wait(100);
    let old = place.directory.path().join("old");
    fs::rename(&place.path, &old).unwrap();
    client.send(100);
    client.wait(200);
    assert_eq!(lines(&old), numbers(1..=200));
    server.signal(Signal::HUP);
    server.wait_for_log("reopened", 1);
    client.send(100);
    client.wait(300);
    assert!(server.stop().status.success());
    assert_eq!((lines(&old), place.lines()), (numbers(1..=200), numbers(201..=300)));
}

// ---- senders

#[test]
fn after_a_clean_end_of_both_sides_only_the_rest_is_sent() {
    let place = SinkTarget::new();
    for last in [300, 600, 1000] {
        let server = place.serve("lines");
        succeeds(&send(&server, 1..=last, &["--resume"]).wait());
        assert!(server.stop().status.success());
        assert_eq!(place.lines(), numbers(1..=last));
    }
    // A server that was killed leaves it to the sender, which has forgotten, too.
    let server = place.serve("lines");
    succeeds(&send(&server, 1..=1001, &["--resume"]).wait());
    server.signal(Signal::KILL);
    server.wait();
    let server = place.serve("lines");
    succeeds(&send(&server, 1..=1002, &["--resume"]).wait());
    assert!(server.stop().status.success());
    assert_eq!(place.lines(), [numbers(1..=1001), numbers(1..=1002)].concat());
}

#[test]
fn another_input_is_not_taken_for_the_one_of_which_the_beginning_is_committed() {
    for restarts in [true, false] {
        let place = SinkTarget::new();
        let server = refuses_another_input(|| place.serve("lines"), restarts);
        assert!(server.stop().status.success());
        assert_eq!(place.lines(), ["1", "2", "3", "", "5"]);
    }
}
