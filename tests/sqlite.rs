//! The sink `sqlite:PATH`, as its users see it.

mod common;

use std::fs;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::thread;
use std::time::{Duration, SystemTime};

use common::program::{Server, check, closed, frame, framelet, run, unprivileged};
use rusqlite::Connection;
use rusqlite::types::Value;

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
    assert_eq!((pragma("journal_mode"), pragma("user_version")), ("wal".into(), "1".into()));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o137, 0);
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
    server.signal(rustix::process::Signal::KILL);
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
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 2).unwrap();
    check(&refused(&path), 2, &["a newer framelet has made it (schema 2"]);

    let other = directory.path().join("other.db");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE messages (a)").unwrap();
    check(&refused(&other), 2, &["it is the database of another program"]);

    let text = directory.path().join("text");
    fs::write(&text, "a note\n".repeat(200)).unwrap();
    check(&refused(&text), 2, &["text", "it is no SQLite database"]);
    assert_eq!(fs::read(&text).unwrap(), "a note\n".repeat(200).as_bytes());
}

#[test]
fn what_cannot_be_written_is_said_before_anything_is_received() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("no folder/messages.db");
    check(&refused(&missing), 2, &["cannot open", "no such file or directory"]);
    check(&refused(directory.path()), 2, &["unable to open", "see that it is a file"]);
    let arguments = ["serve", "--to", "sqlite:x", "--output", "json"];
    check(&framelet(&arguments, b""), 2, &["--output is for stdout and files only"]);
    let arguments = ["serve", "--to", "sqlite:x", "--sync", "never"];
    check(&framelet(&arguments, b""), 2, &["a database is always made safe"]);
    let arguments = ["serve", "--to", "sqlite:x", "--max-message", "1GB"];
    check(&framelet(&arguments, b""), 2, &["over the 999,000,000 bytes that SQLite takes"]);

    let path = directory.path().join("messages.db");
    assert!(Server::start(&["--to", &to(&path)]).stop().status.success());
    fs::set_permissions(&path, PermissionsExt::from_mode(0o444)).unwrap();
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = unprivileged();
    command.args(["serve", "127.0.0.1:0", "--to", &to(&path)]);
    check(&run(command, b""), 2, &["messages.db", "permissions of"]);
}

#[test]
fn a_database_that_stays_locked_ends_the_server_in_words() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages.db");
    let server = Server::start(&["--to", &to(&path)]);
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    thread::scope(|scope| {
        // Both wait for 5 s.
        let starting = scope.spawn(|| refused(&path));
        let sent = send(&server, &["--message", "too late"], b"");
        assert_eq!(sent.status.code(), Some(1));
        check(&starting.join().unwrap(), 2, &["database is locked", "end that one's transaction"]);
    });
    let left = server.wait();
    assert_eq!(left.status.code(), Some(2), "{}", left.log);
    assert!(left.log.contains("another program has kept it locked for 5 s"), "{}", left.log);
    assert!(left.log.contains("1 message received was not written"), "{}", left.log);
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
