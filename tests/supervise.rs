//! A server under a service manager: sockets that it is passed, what it tells, and its log.

mod common;

use std::fs;
use std::io::Write;
use std::net::{Shutdown, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::program::{
    FRAMELET, Growing, PATIENCE, Running, Server, check, closed, frame, framelet,
};
use rustix::process::Signal;
use serde_json::Value;

// ---- sockets

/// Returns a command that starts a server which is passed `socket` as file 3, and once more as file 4 if it
/// has two `names`.
fn passed(socket: OwnedFd, names: &str, arguments: &[&str]) -> Command {
    let script = r#"exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1
        case $LISTEN_FDNAMES in *:*) exec 4<&3; LISTEN_FDS=2 ;; esac
        exec "$@""#;
    let mut command = Command::new("bash");
    command.args(["-c", script, "bash", FRAMELET, "serve"]).args(arguments);
    command.env("LISTEN_FDNAMES", names).stdin(Stdio::from(socket));
    command
}

/// Starts it, and returns what it listens on.
fn start(mut command: Command) -> (std::process::Child, std::sync::Arc<Growing>, String) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let log = Growing::follow(child.stderr.take().unwrap());
    let address = log.wait("the listening line", |log| {
        let (_, rest) = str::from_utf8(log).ok()?.split_once("listening on ")?;
        Some(rest.split_once('\n')?.0.to_owned())
    });
    (child, log, address)
}

fn stop(mut child: std::process::Child) {
    let pid = rustix::process::Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

fn send(address: &str) -> Output {
    framelet(&["send", address, "--message", "hello"], b"")
}

#[test]
fn a_server_serves_the_socket_that_it_is_passed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let tcp: OwnedFd = TcpListener::bind("127.0.0.1:0").unwrap().into();
    let unix: OwnedFd = UnixListener::bind(&path).unwrap().into();
    for (socket, prefix) in [(tcp, "127.0.0.1:"), (unix, "unix:/")] {
        let (child, _, address) = start(passed(socket, "framelet.socket", &["systemd"]));
        assert!(address.starts_with(prefix), "{address}");
        check(&send(&address), 0, &[]);
        stop(child);
    }
    // It is not the server's to remove.
    assert!(path.exists());
}

#[test]
fn threads_that_start_the_program_again_keep_the_socket() {
    let socket: OwnedFd = TcpListener::bind("127.0.0.1:0").unwrap().into();
    let (child, _, address) = start(passed(socket, "", &["systemd", "--threads", "2"]));
    check(&send(&address), 0, &[]);
    stop(child);
}

#[test]
fn one_of_several_sockets_is_chosen_by_its_name() {
    let socket = || -> OwnedFd { TcpListener::bind("127.0.0.1:0").unwrap().into() };
    let (child, _, address) = start(passed(socket(), "first:second", &["systemd:second"]));
    check(&send(&address), 0, &[]);
    stop(child);
    for (names, address, words) in [
        ("first:second", "systemd", "has passed 2 sockets (first, second)"),
        ("first:second", "systemd:third", "has passed 0 sockets of the name third"),
        ("same:same", "systemd:same", "has passed 2 sockets of the name same"),
    ] {
        let mut command = passed(socket(), names, &[address]);
        check(&command.output().unwrap(), 2, &[words]);
    }
}

#[test]
fn what_is_no_listening_socket_is_refused_in_words() {
    check(&framelet(&["serve", "systemd"], b""), 2, &["has passed no socket", "socket unit"]);
    let file: OwnedFd = fs::File::open("/dev/null").unwrap().into();
    let mut command = passed(file, "", &["systemd"]);
    check(&command.output().unwrap(), 2, &["cannot serve the socket", "not a socket"]);
    let datagrams: OwnedFd = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into();
    let mut command = passed(datagrams, "", &["systemd"]);
    check(&command.output().unwrap(), 2, &["cannot serve the socket", "Accept=no"]);
    let connected: OwnedFd = std::os::unix::net::UnixStream::pair().unwrap().0.into();
    let mut command = passed(connected, "", &["systemd"]);
    check(&command.output().unwrap(), 2, &["does not listen", "Accept=no"]);
}

#[test]
fn a_socket_that_nobody_serves_is_worth_a_warning_and_another_process_s_is_not() {
    let socket: OwnedFd = TcpListener::bind("127.0.0.1:0").unwrap().into();
    let (child, log, _) = start(passed(socket, "", &["127.0.0.1:0"]));
    log.wait("the warning", |log| {
        String::from_utf8_lossy(log).contains("1 socket that nobody serves").then_some(())
    });
    stop(child);
    let mut command = Command::new(FRAMELET);
    command.args(["serve", "systemd"]).envs([("LISTEN_FDS", "1"), ("LISTEN_PID", "1")]);
    check(&command.output().unwrap(), 2, &["has passed no socket"]);
}

// ---- what it tells

/// A service manager, as far as a service sees it.
struct Manager {
    socket: UnixDatagram,
    name: String,
    _directory: tempfile::TempDir,
}

impl Manager {
    fn new() -> Manager {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Manager::with(socket, path.to_str().unwrap().to_owned(), directory)
    }

    fn with(socket: UnixDatagram, name: String, _directory: tempfile::TempDir) -> Manager {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager { socket, name, _directory }
    }

    fn start(&self, watchdog: Option<Duration>, arguments: &[&str]) -> Server {
        Server::spawn(self.command(watchdog, arguments))
    }

    fn command(&self, watchdog: Option<Duration>, arguments: &[&str]) -> Command {
        let mut command = Command::new(FRAMELET);
        command.args(["serve", "127.0.0.1:0"]).args(arguments).env("NOTIFY_SOCKET", &self.name);
        if let Some(time) = watchdog {
            command.env("WATCHDOG_USEC", time.as_micros().to_string());
        }
        command
    }

    fn next(&self) -> String {
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).expect("a message to the service manager");
        String::from_utf8(message[..length].to_vec()).unwrap()
    }

    /// Returns the next message that begins like this, and how many of others came before it.
    #[track_caller]
    fn next_of(&self, prefix: &str) -> (String, Vec<String>) {
        let mut others = Vec::new();
        loop {
            let message = self.next();
            if message.starts_with(prefix) {
                return (message, others);
            }
            others.push(message);
        }
    }
}

#[test]
fn the_service_manager_is_told_when_it_is_ready_and_when_it_stops() {
    let manager = Manager::new();
    let server = manager.start(None, &[]);
    assert_eq!(manager.next(), "READY=1");
    check(&send(&server.address.to_string()), 0, &[]);
    let (status, others) = manager.next_of("STATUS=");
    assert!(others.is_empty() && status.contains("connection"), "{status} {others:?}");
    let left = server.stop();
    assert!(left.status.success());
    let (_, others) = manager.next_of("STOPPING=1");
    // Without WATCHDOG_USEC nobody wants to know.
    assert!(others.iter().all(|other| other.starts_with("STATUS=")), "{others:?}");
}

#[test]
fn a_socket_without_a_file_reaches_the_service_manager_too() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;

    let directory = tempfile::tempdir().unwrap();
    let name = format!("framelet{}", directory.path().display());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&address).unwrap();
    let manager = Manager::with(socket, format!("@{name}"), directory);
    let server = manager.start(None, &[]);
    assert_eq!(manager.next(), "READY=1");
    server.stop();
}

#[test]
fn a_service_manager_that_is_not_there_or_does_not_read_holds_nothing_up() {
    let mut command = Command::new(FRAMELET);
    command.args(["serve", "127.0.0.1:0"]).env("NOTIFY_SOCKET", "/nonexistent/notify");
    let server = Server::spawn(command);
    assert!(server.log().contains("cannot reach the service manager"), "{}", server.log());
    check(&send(&server.address.to_string()), 0, &[]);
    assert!(server.stop().status.success());
    // Its queue is full before the server tells it anything.
    let manager = Manager::new();
    let other = UnixDatagram::unbound().unwrap();
    other.set_nonblocking(true).unwrap();
    let full = loop {
        if let Err(error) = other.send_to(b"X_FILL=1", &manager.name) {
            break error;
        }
    };
    assert_eq!(full.kind(), std::io::ErrorKind::WouldBlock);
    let server = manager.start(Some(Duration::from_millis(3)), &[]);
    check(&send(&server.address.to_string()), 0, &[]);
    assert!(server.stop().status.success());
}

#[test]
fn a_reload_lasts_until_the_output_is_reopened() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages");
    let to = format!("file:{}", path.display());
    let manager = Manager::new();
    let server = manager.start(None, &["--to", &to]);
    manager.next_of("READY=1");
    for round in 0..3 {
        check(&send(&server.address.to_string()), 0, &[]);
        fs::rename(&path, directory.path().join(format!("old-{round}"))).unwrap();
        server.signal(Signal::HUP);
        let (reloading, _) = manager.next_of("RELOADING=1\nMONOTONIC_USEC=");
        let micros = reloading.rsplit_once('=').unwrap().1;
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let age = i128::from(now.tv_sec) * 1_000_000 - micros.parse::<i128>().unwrap();
        assert!((-2_000_000..60_000_000).contains(&age), "{reloading}");
        manager.next_of("READY=1");
        // By then it is done.
        assert!(path.exists(), "round {round}");
    }
    server.stop();
}

#[test]
fn a_reload_ends_no_server_that_has_nothing_to_reopen() {
    let directory = tempfile::tempdir().unwrap();
    let file = format!("sqlite:{}", directory.path().join("messages.db").display());
    let database = ["--to", &file];
    let mut servers = vec![&["--output", "none"][..], &["--echo"]];
    if cfg!(feature = "sqlite") {
        servers.push(&database);
    }
    for arguments in servers {
        let manager = Manager::new();
        let server = manager.start(None, arguments);
        manager.next_of("READY=1");
        for _ in 0..2 {
            server.signal(Signal::HUP);
            manager.next_of("RELOADING=1");
            manager.next_of("READY=1");
        }
        assert!(server.stop().status.success());
    }
}

#[test]
fn the_watchdog_is_told_while_the_sink_works_and_not_while_it_hangs() {
    let manager = Manager::new();
    let watchdog = Duration::from_millis(300);
    // A reader that stalls makes the sink hang in a write.
    let mut server = Server::spawn_stalled(manager.command(Some(watchdog), &[]));
    manager.next_of("READY=1");
    for _ in 0..3 {
        manager.next_of("WATCHDOG=1");
    }
    let mut stream = server.connect();
    let message = frame(&vec![b'x'; 1 << 20]);
    stream.write_all(&message).unwrap();
    server.wait_for_log("the watchdog is not told", 1);
    // Earlier notifications are read; no other one may arrive after them.
    manager.socket.set_nonblocking(true).unwrap();
    while manager.socket.recv(&mut [0; 4096]).is_ok() {}
    manager.socket.set_nonblocking(false).unwrap();
    std::thread::sleep(2 * watchdog);
    manager.socket.set_nonblocking(true).unwrap();
    let mut told = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(length) = manager.socket.recv(&mut buffer) {
        told.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    assert!(told.iter().all(|message| message != "WATCHDOG=1"), "{told:?}");
    manager.socket.set_nonblocking(false).unwrap();
    server.resume();
    manager.next_of("WATCHDOG=1");
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(closed(&mut stream));
    assert!(server.stop().status.success());
}

#[test]
fn the_watchdog_of_another_process_is_not_told() {
    let manager = Manager::new();
    let mut command = manager.command(Some(Duration::from_millis(3)), &[]);
    command.env("WATCHDOG_PID", "1");
    let server = Server::spawn(command);
    manager.next_of("READY=1");
    manager.next_of("STATUS=");
    server.stop();
    let (_, others) = manager.next_of("STOPPING=1");
    assert!(others.iter().all(|message| message != "WATCHDOG=1"), "{others:?}");
}

// ---- the figures

#[test]
fn sigusr1_logs_the_figures() {
    let server = Server::start(&[]);
    check(&send(&server.address.to_string()), 0, &[]);
    server.signal(Signal::USR1);
    server.wait_for_log(
        "0 of 1 connection open, 1 message of 5 bytes, memory 0 bytes of 64.0 MiB",
        1,
    );
    server.signal(Signal::USR1);
    server.wait_for_log("1 committed, 0 waiting, last commit ", 2);
    assert!(server.stop().status.success());
}

#[cfg(feature = "progress")]
#[test]
fn a_terminal_shows_the_figures_in_a_line_that_leaves_the_log_whole() {
    let (person, program) = common::program::terminal();
    let mut command = Command::new(FRAMELET);
    command.args(["serve", "127.0.0.1:0", "--status"]).env("TERM", "xterm");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::from(program));
    let mut child = command.spawn().unwrap();
    drop(command);
    let shown = Growing::follow(person);
    let address = shown.wait("the listening line", |shown| {
        let (_, rest) = str::from_utf8(shown).ok()?.split_once("listening on ")?;
        Some(rest.split_once("\r\n")?.0.to_owned())
    });
    check(&send(&address), 0, &[]);
    let has = |words: &'static str| {
        move |shown: &[u8]| String::from_utf8_lossy(shown).contains(words).then_some(())
    };
    shown.wait("the figures", has("1 message of 5 bytes, memory"));
    let pid = rustix::process::Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::USR1).unwrap();
    // The live line, which has the same words, was erased before.
    let line = "framelet: 0 of 1 connection open, 1 message of 5 bytes";
    shown.wait("the line of the log", |shown| {
        let shown = String::from_utf8_lossy(shown);
        let (before, _) = shown.split_once(line)?;
        let (_, left) = before.rsplit_once("\u{1b}[2K")?;
        assert!(!left.contains("open"), "{before:?}");
        Some(())
    });
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn without_a_terminal_there_is_no_live_line() {
    let words =
        if cfg!(feature = "progress") { "--status needs a terminal" } else { "no --status" };
    check(&framelet(&["serve", "127.0.0.1:0", "--status"], b""), 2, &[words]);
}

// ---- the log

fn json_log(log: &str) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    log.lines().map(parse).collect()
}

#[test]
fn each_line_of_a_json_log_is_an_object_whatever_peers_send() {
    let server = Server::start(&["--log-format", "json", "-v", "--max-connections", "9"]);
    let openings: [&[u8]; 5] = [
        b"\x1b[31mred\r\n\"quoted\"\\",
        b"{\"level\":\"error\"}\n{\"a\":1}\n",
        b"\xff\xfe\xfd\xfc\xfb\xfa\0\0",
        "\u{9b}31m \u{202e} ünïcode\n".as_bytes(),
        b"\0\0\0\x09half",
    ];
    let mut peers = Vec::new();
    for (number, opening) in openings.iter().enumerate() {
        let mut stream = server.connect();
        peers.push(stream.local_addr().unwrap().to_string());
        stream.write_all(opening).unwrap();
        // It may be reset already.
        let _ = stream.shutdown(Shutdown::Write);
        closed(&mut stream);
        server.wait_for_log("\"warn\"", number + 1);
    }
    server.signal(Signal::USR1);
    server.wait_for_log("\"figures\"", 1);
    let left = server.stop();
    assert!(!left.log.contains(|c: char| c.is_control() && c != '\n'), "{}", left.log);
    let lines = json_log(&left.log);
    for line in &lines {
        let object = line.as_object().unwrap();
        let time = object["time"].as_str().unwrap();
        assert!(humantime::parse_rfc3339(time).is_ok(), "{line}");
        assert!(object["message"].is_string() && object["level"].is_string(), "{line}");
        let known = ["time", "level", "event", "connection", "peer", "message"];
        assert!(object.keys().all(|key| known.contains(&&**key)), "{line}");
    }
    for (number, peer) in peers.iter().enumerate() {
        let about = |line: &&Value| line["connection"] == number + 1 && line["level"] == "warn";
        let line = lines.iter().find(about).unwrap_or_else(|| panic!("{number}: {lines:#?}"));
        let event = line["event"].as_str().unwrap();
        assert_eq!(
            (line["peer"].as_str().unwrap(), line["level"].as_str().unwrap()),
            (&**peer, "warn")
        );
        assert!(["no_message", "truncated"].contains(&event), "{line}");
    }
    let events: Vec<_> = lines.iter().filter_map(|line| line["event"].as_str()).collect();
    assert_eq!((events[0], *events.last().unwrap()), ("listening", "stopped"));
    assert!(events.contains(&"opened") && events.contains(&"figures"), "{events:?}");
}

#[test]
fn json_keeps_the_limits_of_the_log_and_the_options_that_mend() {
    let server = Server::start(&["--log-format", "json", "--max-connections", "1"]);
    let _open = server.connect();
    for _ in 0..50 {
        closed(&mut server.connect());
    }
    let lines = json_log(&server.stop().log);
    let refused: Vec<_> = lines.iter().filter(|line| line["event"] == "over_limit").collect();
    assert!((5..20).contains(&refused.len()), "{refused:#?}");
    let first = refused[0]["message"].as_str().unwrap();
    assert!(first.ends_with("(--max-connections)"), "{first}");
    assert!(refused[0]["peer"].is_string() && refused[0].get("connection").is_none());
}

#[test]
fn a_server_that_cannot_start_says_so_in_the_same_format() {
    let missing = Path::new("/nonexistent/socket");
    let address = format!("unix:{}", missing.display());
    let output = framelet(&["serve", &address, "--log-format", "json"], b"");
    let lines = json_log(&String::from_utf8(output.stderr).unwrap());
    assert_eq!((output.status.code(), lines.len()), (Some(1), 1), "{lines:?}");
    assert_eq!((&lines[0]["level"], &lines[0]["event"]), (&"error".into(), &"failed".into()));
    let output = framelet(&["serve", &address, "--log-format", "xml"], b"");
    check(&output, 2, &["write text or json"]);
}

#[test]
fn a_path_with_a_line_feed_forges_no_line() {
    let address = "unix:/nonexistent/a\nframelet: forged\u{1b}[31m";
    for format in ["text", "json"] {
        let running = Running::start(
            {
                let mut command = Command::new(FRAMELET);
                command.args(["serve", address, "--log-format", format]);
                command
            },
            b"",
        );
        let output = running.wait();
        let log = String::from_utf8(output.stderr).unwrap();
        assert_eq!(log.matches('\n').count(), 1, "{log}");
        assert!(!log.contains('\u{1b}'), "{log}");
    }
}
