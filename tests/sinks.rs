//! Where messages go, as users of `serve --to` see it.

mod common;

use std::fs;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::program::{
    Server, check, closed, frame, framelet, run, unframe, unprivileged, wait_until,
};
use rustix::process::Signal;

fn send(server: &Server, arguments: &[&str], input: &[u8]) -> Output {
    let address = server.address.to_string();
    framelet(&[&["send", &address], arguments].concat(), input)
}

fn to(path: &Path) -> String {
    format!("file:{}", path.display())
}

/// Waits until a file is there and has this length.
#[track_caller]
fn wait_for_len(path: &Path, len: u64) {
    let what = format!("{path:?} of {len} bytes");
    wait_until(&what, || fs::metadata(path).map_or(0, |file| file.len()) >= len);
}

/// Runs a server that is to fail before it listens.
fn refused(arguments: &[&str]) -> Output {
    framelet(&[&["serve", "127.0.0.1:0"], arguments].concat(), b"")
}

#[test]
fn each_format_is_appended_to_a_file_as_it_is_printed() {
    for format in ["lines", "text", "nul", "hex", "base64", "json", "frames", "raw"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("messages");
        let mut printed = Vec::new();
        for round in 0..2 {
            let input = format!("one of {round}\ntwo of {round}\n");
            let file = Server::start(&["--to", &to(&path), "--output", format]);
            check(&send(&file, &["--input", "lines"], input.as_bytes()), 0, &[]);
            // What send has succeeded with is there already.
            let before = fs::read(&path).unwrap();
            let left = file.stop();
            assert!(left.status.success() && left.output.is_empty(), "{}", left.log);
            assert_eq!(fs::read(&path).unwrap(), before);
            let stdout = Server::start(&["--output", format]);
            check(&send(&stdout, &["--input", "lines"], input.as_bytes()), 0, &[]);
            printed.extend(stdout.stop().output);
        }
        let written = fs::read(&path).unwrap();
        if format == "json" {
            // Times and ports differ.
            let payloads = |text: &[u8]| -> Vec<(String, u64)> {
                str::from_utf8(text)
                    .unwrap()
                    .lines()
                    .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
                    .map(|v| (v["payload"].as_str().unwrap().into(), v["number"].as_u64().unwrap()))
                    .collect()
            };
            assert_eq!(payloads(&written), payloads(&printed));
            assert_eq!(payloads(&written).len(), 4);
        } else {
            assert_eq!(written, printed, "{format}");
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o137, 0);
    }
}

#[test]
fn a_torn_record_is_moved_aside_and_reported() {
    for (format, whole, torn, added) in [
        ("lines", &b"one\n"[..], &b"tw"[..], &b"new\n"[..]),
        ("text", b"one\n\n", b"two\nli", b"new\n\n"),
        ("nul", b"one\0", b"tw", b"new\0"),
        ("hex", b"6f6e65\n", b"747", b"6e6577\n"),
        ("base64", b"b25l\n", b"dH", b"bmV3\n"),
        ("json", b"{\"time\"", b"{\"payl", b"{\"time\""),
        ("frames", b"\0\0\0\x03one", b"\0\0\0\x03tw", b"\0\0\0\x03new"),
        ("raw", b"one", &[0; 100], b"new"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("messages");
        let server = Server::start(&["--to", &to(&path), "--output", format]);
        check(&send(&server, &["--message", "one"], b""), 0, &[]);
        server.signal(Signal::KILL);
        server.wait();
        let left = fs::read(&path).unwrap();
        assert!(left.starts_with(whole), "{format}: {left:?}");
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(torn).unwrap();
        let server = Server::start(&["--to", &to(&path), "--output", format]);
        let aside = directory.path().join("messages.torn-1");
        let (len, path_shown, aside_shown) = (torn.len(), path.display(), aside.display());
        let moved = format!("moved the last {len} bytes of {path_shown} to {aside_shown}: ");
        server.wait_for_log(&moved, 1);
        check(&send(&server, &["--message", "new"], b""), 0, &[]);
        assert!(server.stop().status.success());
        let content = fs::read(&path).unwrap();
        assert!(content.starts_with(&[&left, added].concat()), "{format}: {content:?}");
        assert_eq!(fs::read(&aside).unwrap(), torn);
        assert_eq!(fs::metadata(&aside).unwrap().permissions().mode() & 0o137, 0);
    }
}

#[test]
fn a_killed_server_leaves_a_file_that_the_next_one_goes_on_in() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages");
    let arguments = ["--to", &to(&path), "--output", "frames", "--sync", "never"];
    for _ in 0..3 {
        let server = Server::start(&arguments);
        let mut stream = server.connect();
        let writing = thread::spawn(move || {
            let message = frame(&[b'x'; 100_000]);
            while stream.write_all(&message).is_ok() {}
        });
        // Some of it is there; where it is cut is up to chance.
        let before = fs::metadata(&path).unwrap().len();
        wait_for_len(&path, before + 1_000_000);
        server.signal(Signal::KILL);
        server.wait();
        writing.join().unwrap();
    }
    let server = Server::start(&arguments);
    check(&send(&server, &["--message", "last"], b""), 0, &[]);
    server.stop();
    let mut messages = unframe(&fs::read(&path).unwrap());
    assert_eq!(messages.pop().unwrap(), b"last");
    assert!(messages.iter().all(|message| message == &[b'x'; 100_000]));
}

#[test]
fn rotation_under_load_loses_nothing_and_cuts_no_message() {
    const SENDERS: u32 = 4;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages");
    let server = Server::start(&["--to", &to(&path), "--output", "frames", "--sync", "never"]);
    let rotated = AtomicBool::new(false);
    let mut sent = 0;
    thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let (server, rotated) = (&server, &rotated);
                scope.spawn(move || {
                    let mut stream = server.connect();
                    let mut number = 0_u32;
                    while !rotated.load(Ordering::SeqCst) {
                        let id = [sender.to_be_bytes(), number.to_be_bytes()].concat();
                        stream.write_all(&frame(&id)).unwrap();
                        number += 1;
                    }
                    stream.shutdown(Shutdown::Write).unwrap();
                    assert!(closed(&mut stream));
                    number
                })
            })
            .collect();
        for turn in 1..=5 {
            wait_for_len(&path, 10_000);
            fs::rename(&path, directory.path().join(format!("old{turn}"))).unwrap();
            server.signal(Signal::HUP);
            server.wait_for_log("reopened", turn);
        }
        rotated.store(true, Ordering::SeqCst);
        sent = senders.into_iter().map(|sender| sender.join().unwrap()).sum();
    });
    assert!(server.stop().status.success());
    let mut next = [0; SENDERS as usize];
    let files = (1..=5).map(|turn| directory.path().join(format!("old{turn}"))).chain([path]);
    for file in files {
        for message in unframe(&fs::read(file).unwrap()) {
            let (sender, number) = message.split_first_chunk::<4>().unwrap();
            let next = &mut next[u32::from_be_bytes(*sender) as usize];
            assert_eq!(u32::from_be_bytes(number.try_into().unwrap()), *next);
            *next += 1;
        }
    }
    assert_eq!(next.iter().sum::<u32>(), sent);
}

#[test]
fn a_file_that_cannot_be_opened_again_is_gone_on_in() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("folder");
    fs::create_dir(&folder).unwrap();
    let server = Server::start(&["--to", &to(&folder.join("messages"))]);
    let away = directory.path().join("away");
    fs::rename(&folder, &away).unwrap();
    server.signal(Signal::HUP);
    server.wait_for_log("still writing to the old file", 1);
    check(&send(&server, &["--message", "still here"], b""), 0, &[]);
    assert!(server.stop().status.success());
    assert_eq!(fs::read(away.join("messages")).unwrap(), b"still here\n");
}

#[test]
fn standard_output_ends_with_sighup_as_ever() {
    use std::os::unix::process::ExitStatusExt;

    let server = Server::start(&[]);
    server.signal(Signal::HUP);
    assert_eq!(server.wait().status.signal(), Some(Signal::HUP.as_raw()));
}

#[test]
fn what_cannot_be_opened_is_said_before_anything_is_received() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("no folder/messages");
    check(&refused(&["--to", &to(&path)]), 2, &["cannot open", "messages", "no such file"]);
    check(&refused(&["--to", &to(directory.path())]), 2, &["cannot open", "directory"]);
    check(&refused(&["--to", "kafka:x"]), 2, &["no such sink; the sinks are stdout, file:PATH"]);
    check(&refused(&["--to", "file:"]), 2, &["the path is missing"]);
    let arguments = ["--to", "file:x", "--output", "none"];
    check(&refused(&arguments), 2, &["cannot write to x", "nothing would be written"]);
    check(&refused(&["--sync", "always"]), 2, &["--sync is for --to file:PATH only"]);
    let path = directory.path().join("messages");
    check(&refused(&["--to", &to(&path), "--sync", "often"]), 2, &["always or never"]);

    fs::write(&path, "").unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o444)).unwrap();
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = unprivileged();
    command.args(["serve", "127.0.0.1:0", "--to", &to(&path)]);
    check(&run(command, b""), 2, &["cannot open", "permission denied"]);

    let _first = Server::start(&["--to", &to(&path)]);
    check(&refused(&["--to", &to(&path)]), 2, &["another framelet writes to it"]);
}

#[test]
fn a_device_without_room_ends_the_server_in_words() {
    let server = Server::start(&["--to", "file:/dev/full"]);
    let sent = send(&server, &["--message", "too much"], b"");
    assert_eq!(sent.status.code(), Some(1));
    let left = server.wait();
    assert_eq!(left.status.code(), Some(2), "{}", left.log);
    assert!(
        left.log.contains("cannot write to /dev/full: no space left on device"),
        "{}",
        left.log
    );
}
