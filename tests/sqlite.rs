//! The sink `sqlite:PATH`, as its users see it.

mod common;

use std::fs;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use common::acks::read_answer;
use common::delivery::Database;
use common::program::{
    FRAMELET, PATIENCE, Server, check, closed, frame, framelet, run, unprivileged, wait_until,
};
use common::resume::refuses_another_input;
use framelet::Layout;
use framelet::wire::{Hello, SenderId};
use rusqlite::Connection;
use rusqlite::types::Value;
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

fn to(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

fn send(server: &Server, arguments: &[&str], input: &[u8]) -> Output {
    let address = server.address.to_string();
    framelet(&[&["send", &address], arguments].concat(), input)
}

/// Runs a server that is to fail before it listens.
fn refused(path: &Path) -> Output {
    framelet(&["serve", "127.0.0.1:0", "--to", &to(path)], b"")
}

#[test]
fn messages_are_rows_with_what_is_known_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages.db");
    let before = SystemTime::now();
    for round in 0..2 {
        let server = Server::start(&["--to", &to(&path)]);
        let input = b"text \xc3\xa9\n\nlast".to_vec();
        check(&send(&server, &["--input", "lines"], &input), 0, &[]);
        check(&send(&server, &["--input", "hex"], b"ff00\n610062\n"), 0, &[]);
        // What send has succeeded with is there already, for everybody to read.
        let count: i64 = Connection::open(&path)
            .unwrap()
            .query_row("SELECT count(*) FROM messages", [], |row| row.get(0))
            .unwrap();
        assert_eq!(count, 5 * (round + 1));
        let left = server.stop();
        assert!(left.status.success() && left.output.is_empty(), "{}", left.log);
        assert!(!directory.path().join("messages.db-wal").exists(), "it was closed in good order");
    }
    let database = Connection::open(&path).unwrap();
    let mut query = database
        .prepare("SELECT id, received, peer, connection, number, sender, payload FROM messages")
        .unwrap();
    type Row = (i64, String, String, i64, i64, Option<String>, Value);
    let rows: Vec<Row> = query
        .query_map([], |row| {
            Ok((
                row.get(0)?,
                row.get(1)?,
                row.get(2)?,
                row.get(3)?,
                row.get(4)?,
                row.get(5)?,
                row.get(6)?,
            ))
        })
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let expected = [
        (1, 1, Value::Text("text é".into())),
        (1, 2, Value::Text(String::new())),
        (1, 3, Value::Text("last".into())),
        (2, 1, Value::Blob(b"\xff\0".into())),
        (2, 2, Value::Blob(b"a\0b".into())),
    ];
    assert_eq!(rows.len(), 10);
    for (index, row) in rows.into_iter().enumerate() {
        let (id, received, peer, connection, number, sender, payload) = row;
        assert_eq!(id, i64::try_from(index).unwrap() + 1);
        assert_eq!((connection, number, payload), expected[index % 5]);
        assert!(peer.starts_with("127.0.0.1:") && sender.is_none());
        let received = humantime::parse_rfc3339(&received).unwrap();
        // It is cut to a millisecond.
        assert!(before - Duration::from_millis(1) < received && received < SystemTime::now());
    }
    let pragma = |name: &str| -> String {
        let query = format!("SELECT CAST({name} AS TEXT) FROM pragma_{name}");
        database.query_row(&query, [], |row| row.get(0)).unwrap()
    };
    assert_eq!((pragma("journal_mode"), pragma("user_version")), ("wal".into(), "4".into()));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o137, 0);
}

#[test]
fn a_header_has_a_column_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages.db");
    for (layout, frame) in [("h1:u32be+self", &b"Q\0\0\0\x05a"[..]), ("u32be", b"\0\0\0\x01a")] {
        let server = Server::start(&["--to", &to(&path), "--layout", layout]);
        let mut stream = server.connect();
        stream.write_all(frame).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert!(closed(&mut stream));
        server.stop();
    }
    let database = Connection::open(&path).unwrap();
    let mut query = database.prepare("SELECT header, payload FROM messages ORDER BY id").unwrap();
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let rows: Vec<(Option<Vec<u8>>, String)> = rows.map(Result::unwrap).collect();
    assert_eq!(rows, [(Some(b"Q".to_vec()), "a".into()), (None, "a".into())]);
}

#[test]
fn another_input_is_not_taken_for_the_one_of_which_the_beginning_is_committed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages.db");
    // Whatever has become of the messages.
    let start = || {
        let server = Server::start(&["--to", &to(&path)]);
        let database = Connection::open(&path).unwrap();
        database.execute("DELETE FROM messages WHERE number < 4", []).unwrap();
        server
    };
    assert!(refuses_another_input(start, true).stop().status.success());
    let database = Connection::open(&path).unwrap();
    let mut query = database.prepare("SELECT CAST(payload AS TEXT) FROM messages").unwrap();
    let payloads = query.query_map([], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(payloads.map(Result::unwrap).collect::<Vec<_>>(), ["", "5"]);
}

#[test]
fn a_killed_server_has_what_it_said_it_has() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages.db");
    let server = Server::start(&["--to", &to(&path)]);
    let mut done = server.connect();
    done.write_all(&frame(b"done").repeat(1000)).unwrap();
    done.shutdown(Shutdown::Write).unwrap();
    assert!(closed(&mut done));
    let mut stream = server.connect();
    let writing = thread::spawn(move || while stream.write_all(&frame(b"more")).is_ok() {});
    server.signal(Signal::KILL);
    server.wait();
    writing.join().unwrap();
    let server = Server::start(&["--to", &to(&path)]);
    check(&send(&server, &["--message", "after"], b""), 0, &[]);
    server.stop();
    let database = Connection::open(&path).unwrap();
    let text = |query| database.query_row(query, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(text("SELECT count(*) || '' FROM messages WHERE payload = 'done'"), "1000");
    assert_eq!(text("SELECT payload FROM messages ORDER BY id DESC LIMIT 1"), "after");
    assert_eq!(text("PRAGMA integrity_check"), "ok");
}

#[test]
fn databases_of_others_and_of_newer_versions_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages.db");
    assert!(Server::start(&["--to", &to(&path)]).stop().status.success());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 5).unwrap();
    check(&refused(&path), 2, &["a newer framelet has made it (schema 5"]);

    let other = directory.path().join("other.db");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE messages (a)").unwrap();
    check(&refused(&other), 2, &["it is the database of another program"]);

    let text = directory.path().join("text");
    fs::write(&text, "a note\n".repeat(200)).unwrap();
    check(&refused(&text), 2, &["text", "it is not a SQLite database"]);
    assert_eq!(fs::read(&text).unwrap(), "a note\n".repeat(200).as_bytes());
}

#[test]
fn what_cannot_be_written_is_said_before_anything_is_received() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("no folder/messages.db");
    check(&refused(&missing), 2, &["cannot open", "no such file or directory"]);
    check(&refused(directory.path()), 2, &["unable to open", "check that it is a file"]);
    let arguments = ["serve", "127.0.0.1:0", "--to", "sqlite:x", "--output", "json"];
    check(&framelet(&arguments, b""), 2, &["--output is for stdout and files only"]);
    let arguments = ["serve", "127.0.0.1:0", "--to", "sqlite:x", "--sync", "never"];
    check(&framelet(&arguments, b""), 2, &["a database is always made safe"]);
    let arguments = ["serve", "127.0.0.1:0", "--to", "sqlite:x", "--max-message", "1GB"];
    check(&framelet(&arguments, b""), 2, &["over the 999,000,000 bytes that SQLite takes"]);

    let path = directory.path().join("messages.db");
    assert!(Server::start(&["--to", &to(&path)]).stop().status.success());
    fs::set_permissions(&path, PermissionsExt::from_mode(0o444)).unwrap();
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = unprivileged();
    command.args(["serve", "127.0.0.1:0", "--to", &to(&path)]);
    check(&run(command, b""), 2, &["messages.db", "permissions of"]);
}

/// A client with acknowledgements that sends the numbers from 1 on, a message each, until it is told to
/// stop.
struct Feed {
    client: Child,
    stop: mpsc::Sender<()>,
    feeding: thread::JoinHandle<u64>,
}

impl Feed {
    fn start(server: &Server) -> Feed {
        let mut client = Command::new(FRAMELET)
            .args(["send", &server.address.to_string(), "--input", "lines", "--ack"])
            .args(["--timeout", "60s"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = client.stdin.take().unwrap();
        let (stop, stopped) = mpsc::channel();
        let feeding = thread::spawn(move || {
            let mut number = 0;
            while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                // The client may have ended; then its exit code says why.
                if writeln!(input, "{}", number + 1).is_err() {
                    break;
                }
                number += 1;
            }
            number
        });
        Feed { client, stop, feeding }
    }

    /// Returns how many messages the client has sent, once all of them are committed.
    #[track_caller]
    fn finish(self) -> u64 {
        self.stop.send(()).unwrap();
        let sent = self.feeding.join().unwrap();
        let output = self.client.wait_with_output().unwrap();
        check(&output, 0, &[&format!("sent {sent}, committed {sent}")]);
        sent
    }
}

/// Waits until so many more messages are in the database.
fn wait_for_rows(path: &Path, more: i64) {
    let database = Connection::open(path).unwrap();
    database.busy_timeout(PATIENCE).unwrap();
    let rows = || -> i64 {
        database.query_row("SELECT count(*) FROM messages", [], |row| row.get(0)).unwrap()
    };
    let before = rows();
    wait_until("messages in the database", || rows() >= before + more);
}

/// P27, with a lock that is as long as it takes to be noticed.
#[test]
fn a_database_that_stays_locked_is_waited_for_and_nothing_is_lost_or_doubled() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages.db");
    let server = Server::start(&["--to", &to(&path)]);
    let feed = Feed::start(&server);
    wait_for_rows(&path, 100);
    let other = Connection::open(&path).unwrap();
    other.busy_timeout(PATIENCE).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    thread::scope(|scope| {
        let sending = scope.spawn(|| send(&server, &["--message", "plain"], b""));
        // A start does not wait for it.
        check(&refused(&path), 2, &["database is locked", "close the transaction in that program"]);
        let locked = "another program has kept it locked for 2 s; close the transaction in that program; waiting \
                      until messages can be written again";
        server.wait_for_log(locked, 1);
        assert!(!sending.is_finished());
        other.execute_batch("ROLLBACK").unwrap();
        server.wait_for_log("messages are written again, after", 1);
        check(&sending.join().unwrap(), 0, &[]);
    });
    wait_for_rows(&path, 100);
    let sent = feed.finish();
    let plain: i64 = other
        .query_row("SELECT count(*) FROM messages WHERE sender IS NULL", [], |row| row.get(0))
        .unwrap();
    assert_eq!(plain, 1);
    other.execute("DELETE FROM messages WHERE sender IS NULL", []).unwrap();
    Database::open(&path).check_numbers(sent);
    let left = server.stop();
    assert!(left.status.success(), "{}", left.log);
    let lines =
        left.log.matches("waiting until").count() + left.log.matches("again, after").count();
    assert_eq!(lines, 2, "one line each way: {}", left.log);
}

#[test]
fn a_server_whose_database_is_locked_ends_within_its_grace() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages.db");
    let server = Server::start(&["--to", &to(&path), "--grace", "1s"]);
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    thread::scope(|scope| {
        let sending = scope.spawn(|| send(&server, &["--message", "too late"], b""));
        server.wait_for_log("waiting until", 1);
        server.signal(Signal::TERM);
        assert_eq!(sending.join().unwrap().status.code(), Some(1));
    });
    let left = server.wait();
    assert!(left.took < Duration::from_secs(5), "{:?}", left.took);
    assert_eq!(left.status.code(), Some(4), "{}", left.log);
    assert!(
        left.log.contains("1 message received was not written") && left.log.contains("is locked"),
        "{}",
        left.log
    );
}

/// P27 where writes fail: for another reason than a full disk, which takes a file system to fill.
#[test]
fn a_database_that_cannot_grow_is_waited_for_and_nothing_is_lost_or_doubled() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages.db");
    let mut command = Command::new("sh");
    let script = format!("exec '{FRAMELET}' serve 127.0.0.1:0 --to '{}'", to(&path));
    command.args(["-c", &script]);
    let server = Server::spawn(command);
    let limit = |bytes| {
        let pid = Pid::from_raw(server.pid().try_into().unwrap());
        prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
    };
    limit(Some(300_000));
    let feed = Feed::start(&server);
    server
        .wait_for_log("the disk or its file system failed; see the system's log; waiting until", 1);
    let database = Database::open(&path);
    let there = database.committed();
    limit(None);
    server.wait_for_log("messages are written again, after", 1);
    wait_until("more messages", || database.committed() > there);
    database.check_numbers(feed.finish());
    assert!(server.stop().status.success());
}

/// P26.
#[test]
fn a_database_that_is_deleted_or_moved_ends_the_server_before_more_is_acknowledged() {
    let files = ["messages.db", "messages.db-wal", "messages.db-shm"];
    for moved in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("messages.db");
        let server = Server::start(&["--to", &to(&path)]);
        let sender = SenderId::from_bytes([1; 16]);
        let mut stream = server.connect();
        stream.write_all(&Hello { sender, first: 1 }.encode(Layout::U32BE).unwrap()).unwrap();
        assert_eq!(read_answer(&mut stream), Some(Ok(0)));
        let acknowledged = |stream: &mut TcpStream| {
            stream.write_all(&frame(b"message")).ok()?;
            read_answer(stream)?.ok()
        };
        assert_eq!(acknowledged(&mut stream), Some(1));
        let old = directory.path().join("old");
        fs::create_dir(&old).unwrap();
        for file in files {
            let file = directory.path().join(file);
            match moved {
                true => fs::rename(&file, old.join(file.file_name().unwrap())).unwrap(),
                false => fs::remove_file(&file).unwrap(),
            }
        }
        let gone = Instant::now();
        let (mut last, mut count) = (gone, 1);
        while let Some(more) = acknowledged(&mut stream) {
            (last, count) = (Instant::now(), more);
            assert!(gone.elapsed() < PATIENCE, "it never noticed");
        }
        assert!(last - gone < Duration::from_secs(1), "acknowledged after {:?}", last - gone);
        let left = server.wait();
        assert_eq!(left.status.code(), Some(2), "{}", left.log);
        let words = "messages.db was moved or deleted while framelet was writing to it; nothing is \
                     acknowledged from here on";
        assert!(left.log.contains(words), "{}", left.log);
        if moved {
            // One more only if its commit was under way for long when the database was moved.
            let there = Database::open(&old.join("messages.db")).committed();
            assert!((count..=count + 1).contains(&there), "{count} of {there}");
        }
    }
}

#[test]
fn a_short_lock_only_takes_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages.db");
    let server = Server::start(&["--to", &to(&path)]);
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    thread::scope(|scope| {
        let sending = scope.spawn(|| send(&server, &["--message", "patient"], b""));
        thread::sleep(Duration::from_millis(300));
        assert!(!sending.is_finished());
        other.execute_batch("ROLLBACK").unwrap();
        check(&sending.join().unwrap(), 0, &[]);
    });
}

/// Also while nothing is committed: what is too old, or left over, does not wait for the next message.
#[test]
fn a_database_keeps_the_latest_messages_while_clients_send_and_while_they_do_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages.db");
    let server = Server::start(&["--to", &to(&path), "--keep", "1000", "--keep", "1GiB"]);
    let lines = "a line\n".repeat(30_000);
    check(
        &send(&server, &["--ack", "--input", "lines"], lines.as_bytes()),
        0,
        &["committed 30000"],
    );
    let database = Connection::open(&path).unwrap();
    let rows = || -> (i64, i64) {
        let query = "SELECT count(*), max(id) FROM messages";
        database.query_row(query, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    };
    wait_until("the oldest messages are pruned", || rows() == (1000, 30_000));
    let left = server.stop();
    assert!(left.status.success(), "{}", left.log);
    let pruned: u64 = left
        .log
        .lines()
        .filter_map(|line| line.split_once("pruned the oldest ")?.1.split(' ').next())
        .map(|number| number.parse::<u64>().unwrap())
        .sum();
    assert_eq!(pruned, 29_000, "{}", left.log);
}

#[test]
fn keep_is_refused_where_it_would_do_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages");
    let file = format!("file:{}", path.display());
    for (to, keep, words) in [
        (file.as_str(), "30d", "for a file, rename it and send SIGHUP"),
        ("stdout", "30d", "--keep is for --to sqlite:PATH only"),
        ("redis://127.0.0.1/?stream=a", "30d", "add &maxlen=N to the URL"),
        ("sqlite:none", "0", "cannot be zero"),
        ("sqlite:none", "0s", "cannot be zero"),
        ("sqlite:none", "10k", "1MiB or more"),
        ("sqlite:none", "soon", "30d, 10GiB or 1000000"),
    ] {
        let output = framelet(&["serve", "127.0.0.1:0", "--to", to, "--keep", keep], b"");
        check(&output, 2, &[words]);
    }
    assert!(!path.exists());
}
