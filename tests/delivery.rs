//! Delivery: whatever is killed, cut or full, what was acknowledged is there, and in a database once.
//!
//! These are promises of the program as a whole, so they are tested on the program as a whole.

#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::acks::read_answer;
use common::delivery::{Database, check_file, committed, send, serve};
use common::program::{
    FRAMELET, PATIENCE, Running, Server, check, frame, measured, read_frame, said, unframe,
    wait_until,
};
use common::proxy::start_proxy;
use framelet::client::{AckError, AckOptions, AnswerError, CountFault};
use framelet::wire::{Hello, SenderId};
use framelet::{AckClient, Address, Layout};
use rustix::process::Signal;

// ---- a server that is killed

/// Kills a server at two random points, starting it anew each time, while a client sends 10,000 messages.
/// `progress` says how much is there, and `full` how much that is at the end. Returns how often it was killed
/// before all of it was there: on a busy machine that can be too late.
fn kill_servers(
    seed: u64,
    to: &str,
    arguments: &[&str],
    full: u64,
    progress: impl Fn() -> u64,
) -> usize {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut server = serve("127.0.0.1:0", to, arguments);
    let address = server.address;
    // A small window, so that there are many commits to be killed in.
    let sending = send(address, &["--window", "100", "--retry", "60s"], 10_000);
    let (mut point, mut in_time) = (0, 0);
    for _ in 0..2 {
        point = random.u64(point + 1..full * 9 / 10);
        wait_until("progress", || progress() >= point);
        // So that the point is anywhere in a commit.
        thread::sleep(Duration::from_micros(random.u64(0..2000)));
        server.signal(Signal::KILL);
        server.wait();
        in_time += usize::from(progress() < full);
        server = serve(address, to, arguments);
    }
    check(&sending.wait(), 0, &["sent 10000, committed 10000"]);
    assert!(server.stop().status.success());
    in_time
}

/// P12 and P16. `scripts/crash.sh` does the same many times.
#[test]
fn a_database_has_each_message_once_however_often_the_server_is_killed() {
    let mut in_time = 0;
    for seed in 0..4 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("messages.db");
        let to = format!("sqlite:{}", path.display());
        in_time += kill_servers(seed, &to, &[], 10_000, || match path.exists() {
            true => Database::open(&path).committed(),
            false => 0,
        });
        Database::open(&path).check_numbers(10_000);
    }
    assert!(in_time >= 4, "killed in time {in_time} times of 8");
}

/// P12 for a file: it does not say how far a sender has come, so a new server takes the sender's word, and
/// what was committed and not yet acknowledged comes again.
#[test]
fn a_file_has_each_message_however_often_the_server_is_killed() {
    let mut in_time = 0;
    for seed in 0..4 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("messages");
        let to = format!("file:{}", path.display());
        let length = || fs::metadata(&path).map_or(0, |file| file.len());
        let full: usize = (1..=10_000).map(|number: u64| 4 + number.to_string().len()).sum();
        in_time += kill_servers(seed, &to, &["--output", "frames"], full as u64, length);
        let again = check_file(&path, 10_000);
        assert!(again <= 2 * 100, "{again} messages are there again, more than two windows");
    }
    assert!(in_time >= 4, "killed in time {in_time} times of 8");
}

// ---- connections that are reset

/// About how many bytes 500 of the messages take.
const BYTES_OF_500: usize = 500 * 9;

fn send_through_resets(seed: u64, to: &str, arguments: &[&str]) {
    let server = serve("127.0.0.1:0", to, &[&["--verbose"], arguments].concat());
    let proxy = start_proxy(seed, server.address, BYTES_OF_500);
    check(&send(proxy, &[], 20_000).wait(), 0, &["sent 20000, committed 20000"]);
    let left = server.stop();
    assert!(left.status.success(), "{}", left.log);
    let connections = left.log.matches(": open").count();
    assert!(connections >= 25, "only {connections} connections for 20,000 messages");
}

/// P16.
#[test]
fn a_database_has_each_message_once_however_often_connections_are_reset() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages.db");
    send_through_resets(1, &format!("sqlite:{}", path.display()), &[]);
    Database::open(&path).check_numbers(20_000);
}

/// P16 for a file: as long as the server runs, it remembers how far its senders have come.
#[test]
fn a_file_has_each_message_once_as_long_as_its_server_runs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages");
    send_through_resets(2, &format!("file:{}", path.display()), &["--output", "frames"]);
    assert_eq!(check_file(&path, 20_000), 0);
}

// ---- raw connections

const SENDER: [u8; 16] = *b"one of the tests";

/// Connects as the sender of these tests; returns how many of its messages are committed, too.
fn hello(server: &Server, first: u64) -> (TcpStream, u64) {
    let mut stream = server.connect();
    stream.write_all(&hello_bytes(first)).unwrap();
    match read_answer(&mut stream) {
        Some(Ok(welcome)) => (stream, welcome),
        other => panic!("{other:?} instead of a welcome"),
    }
}

fn hello_bytes(first: u64) -> Vec<u8> {
    let sender = SenderId::from_bytes(SENDER);
    Hello { sender, first }.encode(Layout::U32BE).unwrap()
}

/// Returns the numbers of these messages as frames.
fn frames(numbers: impl IntoIterator<Item = u64>) -> Vec<u8> {
    numbers.into_iter().flat_map(|number| frame(number.to_string().as_bytes())).collect()
}

// ---- two connections of one sender

#[test]
fn a_newer_connection_takes_over_where_the_older_one_got_to() {
    let mut command = Command::new(FRAMELET);
    command.args(["serve", "127.0.0.1:0", "--output", "frames"]);
    let mut server = Server::spawn_stalled(command);
    let (mut older, welcome) = hello(&server, 1);
    assert_eq!(welcome, 0);
    // More than the pipe holds: the sink is at work when the newer one comes.
    let sent = frames(1..=20_000);
    older.write_all(&sent).unwrap();
    wait_until("a full pipe", || server.unread_output() > 60_000);
    let mut newer = server.connect();
    newer.write_all(&hello_bytes(1)).unwrap();
    let mut acknowledged = 0;
    let refusal = loop {
        match read_answer(&mut older) {
            Some(Ok(count)) => acknowledged = count,
            Some(Err(refusal)) => break refusal,
            None => panic!("the end without a refusal"),
        }
    };
    assert_eq!(refusal.code.to_byte(), 3);
    assert!(refusal.committed >= acknowledged && refusal.committed < 20_000, "{refusal:?}");
    assert!(read_answer(&mut older).is_none());
    // The server has done with the older one, though the sink has its messages still.
    wait_until("a closed connection", || older.write_all(b"x").is_err());
    server.resume();
    let Some(Ok(welcome)) = read_answer(&mut newer) else { panic!("no welcome") };
    assert!(welcome > refusal.committed, "what was handed on is not in the welcome of {welcome}");
    newer.write_all(&frames(welcome + 1..=20_000)).unwrap();
    newer.shutdown(Shutdown::Write).unwrap();
    let mut last = welcome;
    while let Some(Ok(count)) = read_answer(&mut newer) {
        last = count;
    }
    assert_eq!(last, 20_000);
    let left = server.stop();
    assert!(left.status.success(), "{}", left.log);
    assert!(left.output == sent, "something is doubled or lost");
}

// ---- a sink that stands still

/// P3, where the senders wait for acknowledgements.
#[test]
fn memory_is_bounded_while_the_sink_stands_still_and_nothing_is_lost() {
    const CLIENTS: u8 = 64;
    const MESSAGES: u8 = 3;
    const MIB: usize = 1 << 20;
    let mut command = Command::new(FRAMELET);
    command.args(["serve", "127.0.0.1:0", "--output", "frames"]);
    command.args(["--memory", "16MiB", "--max-message", "1MiB"]);
    let mut server = Server::spawn_stalled(command);
    let address: Address = server.address.to_string().parse().unwrap();
    let before = server.memory();
    let message = |client, number| {
        let mut message = vec![client; MIB];
        message[0] = number;
        message
    };
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let address = address.clone();
            smol::spawn(async move {
                let options = AckOptions::new().server_timeout(None);
                let mut sending = AckClient::connect(&address, options).await?;
                for number in 0..MESSAGES {
                    sending.send(&message(client, number)).await?;
                }
                sending.finish().await?;
                Ok::<_, framelet::client::AckError>(sending.committed())
            })
        })
        .collect();
    // It takes as much as it may, and stays at that.
    wait_until("what the server may hold", || server.memory() > before + 12 * MIB);
    thread::sleep(Duration::from_millis(500));
    let growth = server.peak_memory() - before;
    let most = 16 * MIB + usize::from(CLIENTS) * 64 * 1024;
    assert!(growth <= most, "grew by {growth} bytes, and {most} are allowed");
    measured(format_args!("grew by {} KiB, and {} are allowed", growth / 1024, most / 1024));
    server.resume();
    for client in clients {
        assert_eq!(smol::block_on(client).unwrap(), u64::from(MESSAGES));
    }
    let left = server.stop();
    assert!(left.status.success(), "{}", left.log);
    let mut next = [0; CLIENTS as usize];
    for received in unframe(&left.output) {
        let client = received[1];
        assert!(received == message(client, next[usize::from(client)]));
        next[usize::from(client)] += 1;
    }
    assert_eq!(next, [MESSAGES; CLIENTS as usize]);
}

// ---- a client that takes nothing

/// P17.
#[test]
fn a_client_that_never_reads_its_acknowledgements_holds_up_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages");
    let to = format!("file:{}", path.display());
    let arguments = ["--output", "frames", "--sync", "never", "--message-timeout", "1s"];
    // A Unix socket, since it holds a few hundred acknowledgements, where one of TCP holds so many that
    // the server would never have to wait.
    let socket = directory.path().join("socket");
    let server = serve(format!("unix:{}", socket.display()), &to, &arguments);
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&hello_bytes(1)).unwrap();
    assert_eq!(read_answer(&mut stream), Some(Ok(0)));
    let before = server.memory();
    for number in 1..=1_000_000 {
        stream.write_all(&frame(number.to_string().as_bytes())).unwrap();
    }
    wait_until("the last message", || fs::read(&path).unwrap().ends_with(&frame(b"1000000")));
    let growth = server.memory().saturating_sub(before);
    assert!(growth < 8 << 20, "grew by {growth} bytes");
    measured(format_args!("grew by {} KiB over 1000000 messages", growth / 1024));
    stream.shutdown(Shutdown::Write).unwrap();
    server.wait_for_log("took nothing of its replies for 1s", 1);
    assert_eq!(check_file(&path, 1_000_000), 0);
    assert!(server.stop().status.success());
}

// ---- ends

/// P18.
#[test]
fn a_server_that_is_stopped_under_load_has_what_it_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages.db");
    let server = serve("127.0.0.1:0", &format!("sqlite:{}", path.display()), &[]);
    let senders: Vec<(String, Running)> = (1..=4)
        .map(|sender| {
            let id = format!("{sender:032}");
            let running = send(server.address, &["--retry", "0s", "--sender", &id], 1_000_000);
            (id, running)
        })
        .collect();
    let database = Database::open(&path);
    wait_until("each sender's first messages", || {
        database.senders().len() == 4 && database.committed() > 5000
    });
    let left = server.stop();
    assert!(left.status.success(), "{}", left.log);
    assert!(left.took < Duration::from_secs(10), "{:?}", left.took);
    for (id, running) in senders {
        let output = running.wait();
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        let rows = database.rows(&id);
        // Everything that was read is committed, and the client knows it.
        assert_eq!(committed(&output), rows.len() as u64);
        assert!(rows.iter().zip(1..).all(|(row, number)| *row == (number, number.to_string())));
    }
}

// ---- clients that are killed

/// P14. Plain clients, and some that ask for acknowledgements; they are in a message of 100,000 bytes, mostly.
#[test]
fn killed_clients_leave_no_part_of_a_message_and_nothing_else() {
    const CLIENTS: usize = 8;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages");
    let to = format!("file:{}", path.display());
    let server = serve("127.0.0.1:0", &to, &["--output", "frames", "--sync", "never"]);
    let input = [&[b'x'; 100_000][..], b"\n"].concat().repeat(300);
    let mut random = fastrand::Rng::with_seed(1);
    let start = || -> Vec<Running> {
        let kinds = (0..CLIENTS).map(|client| if client % 2 == 0 { "--ack" } else { "--verbose" });
        kinds
            .map(|kind| {
                let mut command = Command::new(FRAMELET);
                let address = server.address.to_string();
                command.args(["send", &address, "--input", "lines", kind]);
                Running::start(command, &input)
            })
            .collect()
    };
    let written = || fs::metadata(&path).map_or(0, |file| file.len());
    /// What a server holds that has done something.
    #[derive(Clone, Copy)]
    struct Base {
        files: usize,
        memory: usize,
    }
    let unconnected = server.sockets();
    let mut base = None;
    // Other programs share this machine, so the quickest of some rounds counts.
    let mut quickest = Duration::MAX;
    for round in 0..8 {
        let (before, clients) = (written(), start());
        for client in clients {
            let point = before + random.u64(1..2_000_000) * (round + 1) / 8;
            wait_until("progress", || written() >= point);
            client.kill();
        }
        let killed = Instant::now();
        // In the first round that is found out.
        let base = *base.get_or_insert_with(|| {
            wait_until("the end of all connections", || server.sockets() == unconnected);
            Base { files: server.files(), memory: server.memory() }
        });
        wait_until("the end of all connections", || server.files() == base.files);
        // The allocator may hold on to some of it, but not to a message of each client in each round.
        let (memory, most) = (|| server.memory(), base.memory + (2 << 20));
        wait_until(&format!("memory below {most}, now {}", memory()), || memory() < most);
        if round > 0 {
            quickest = quickest.min(killed.elapsed());
        }
    }
    assert!(quickest < Duration::from_secs(1), "{quickest:?}");
    assert!(server.stop().status.success());
    let messages = unframe(&fs::read(&path).unwrap());
    assert!(messages.iter().all(|message| message == &[b'x'; 100_000]));
}

/// A client that is killed goes on with `--resume`.
#[test]
fn a_database_has_each_message_of_a_killed_client_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages.db");
    let server = serve("127.0.0.1:0", &format!("sqlite:{}", path.display()), &[]);
    let arguments = ["--window", "100", "--sender", "000102030405060708090a0b0c0d0e0f", "--resume"];
    let database = Database::open(&path);
    for point in [1, 2500, 5000] {
        let running = send(server.address, &arguments, 10_000);
        wait_until("progress", || database.committed() >= point);
        running.kill();
    }
    let output = send(server.address, &arguments, 10_000).wait();
    check(&output, 0, &["skipped ", " that were committed, sent ", ", committed 10000"]);
    database.check_numbers(10_000);
    assert!(server.stop().status.success());
}

// ---- a server that has lost messages

#[test]
fn messages_can_follow_those_of_another_database_than_the_one_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let [first, second] = ["1.db", "2.db"].map(|name| directory.path().join(name));
    let file = directory.path().join("sender");
    let server = serve("127.0.0.1:0", &format!("sqlite:{}", first.display()), &[]);
    let address = server.address;
    let sender = ["--sender-file", file.to_str().unwrap()];
    check(&send(address, &sender, 4).wait(), 0, &["sent 4, committed 4"]);
    assert!(server.stop().status.success());
    let server = serve(address, &format!("sqlite:{}", second.display()), &[]);
    // Without being told so it does nothing, whatever is tried.
    let resume = [&sender[..], &["--resume"]].concat();
    for _ in 0..2 {
        let words = [
            "the server has 0 messages of this sender, the client continues with 5: was the database",
            "or the sender forgotten? `--renumber` sends what follows as message 1 and up; without",
        ];
        check(&send(address, &resume, 8).wait(), 1, &words);
    }
    assert_eq!(Database::open(&second).committed(), 0);
    // As the line says. From then on the numbers of the input are ahead, which the file knows.
    let output = send(address, &[&resume[..], &["--renumber"]].concat(), 8).wait();
    let shown = said(&output);
    assert!(output.status.success(), "{shown}");
    assert!(shown.contains("has lost 4 acknowledged messages of sender "), "{shown}");
    assert!(shown.ends_with("skipped 4 that were committed, sent 4, committed 8\n"), "{shown}");
    let words = "skipped 8 that were committed, sent 2, committed 10";
    check(&send(address, &resume, 10).wait(), 0, &[words]);
    let database = Database::open(&second);
    let rows = database.rows(&database.senders()[0]);
    let expected: Vec<_> = (1..=6).map(|number: u64| (number, (number + 4).to_string())).collect();
    assert_eq!(rows, expected);
    assert!(server.stop().status.success());
}

/// Then the server's last message is none of those in front of the first that is sent.
#[test]
fn messages_can_follow_those_of_a_database_of_before() {
    let directory = tempfile::tempdir().unwrap();
    let [path, backup] = ["messages.db", "backup.db"].map(|name| directory.path().join(name));
    let (file, to) = (directory.path().join("sender"), format!("sqlite:{}", path.display()));
    let resume = ["--sender-file", file.to_str().unwrap(), "--resume"];
    let renumber = [&resume[..], &["--renumber"]].concat();
    for (last, arguments, words) in [
        (3, &resume[..], "sent 3, committed 3"),
        (7, &resume, "skipped 3 that were committed, sent 4, committed 7"),
        (9, &renumber, "skipped 7 that were committed, sent 2, committed 9"),
        (10, &resume, "skipped 9 that were committed, sent 1, committed 10"),
    ] {
        if last == 9 {
            fs::copy(&backup, &path).unwrap();
        }
        let server = serve("127.0.0.1:0", &to, &[]);
        let output = send(server.address, arguments, last).wait();
        let shown = said(&output);
        assert!(output.status.success() && shown.trim_end().ends_with(words), "{shown}");
        assert!(server.stop().status.success());
        if last == 3 {
            fs::copy(&path, &backup).unwrap();
        }
    }
    let database = Database::open(&path);
    let rows = database.rows(&database.senders()[0]);
    let expected: Vec<_> = (1..).zip([1, 2, 3, 8, 9, 10].map(|n: u64| n.to_string())).collect();
    assert_eq!(rows, expected);
}

#[test]
fn a_client_under_way_goes_on_with_another_database_if_it_may() {
    for renumber in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let [first, second] = ["1.db", "2.db"].map(|name| directory.path().join(name));
        let server = serve("127.0.0.1:0", &format!("sqlite:{}", first.display()), &[]);
        let address = server.address;
        let mut command = Command::new(FRAMELET);
        command.args(["send", &address.to_string(), "--ack", "--input", "lines", "-v"]);
        command.args(if renumber { &["--renumber"][..] } else { &[] });
        let (client, mut input) = Running::start_with_input(command);
        input.write_all(b"1\n2\n3\n4\n").unwrap();
        wait_until("four rows", || Database::open(&first).committed() == 4);
        // It acknowledges everything before it ends.
        assert!(server.stop().status.success());
        client.wait_until_it_says("retrying");
        input.write_all(b"5\n6\n7\n8\n").unwrap();
        drop(input);
        let server = serve(address, &format!("sqlite:{}", second.display()), &[]);
        let output = client.wait();
        let shown = said(&output);
        let database = Database::open(&second);
        if renumber {
            assert!(output.status.success(), "{shown}");
            assert!(shown.contains("lost 4 acknowledged messages"), "{shown}");
            assert!(shown.ends_with("framelet: sent 8, committed 8\n"), "{shown}");
            let rows = database.rows(&database.senders()[0]);
            let expected = (1..=4).map(|number: u64| (number, (number + 4).to_string()));
            assert_eq!(rows, expected.collect::<Vec<_>>());
        } else {
            assert_eq!(output.status.code(), Some(1), "{shown}");
            let last = shown.lines().last().unwrap();
            // It may not have taken all of them in by then.
            let words = "the server has 0 messages of this sender, the client ";
            assert!(last.contains(words), "{shown}");
            assert!(last.contains("started with `--renumber` it sends "), "{shown}");
            assert!(last.matches("the server has").count() == 1, "{shown}");
            assert_eq!(database.committed(), 0);
            // The other way out, as the line has it.
            let (_, options) = last.split_once("; `--ack ").unwrap();
            let (options, _) = options.split_once("` on the same input sends").unwrap();
            let options: Vec<&str> = options.split(' ').collect();
            let output = send(address, &options, 8).wait();
            assert!(output.status.success(), "{}", said(&output));
            assert!(said(&output).contains("no messages of this sender: sending all"));
            database.check_numbers(8);
        }
        assert!(server.stop().status.success());
    }
}

/// A line that leads to the first of two servers, then to the second, which hears nothing but hellos, and then
/// to the first again. All payloads are the same, so no checksum can tell messages apart.
#[test]
fn after_a_renumbering_no_server_with_another_database_is_believed() {
    let directory = tempfile::tempdir().unwrap();
    let paths = ["1.db", "2.db"].map(|name| directory.path().join(name));
    let [first, second] = paths
        .each_ref()
        .map(|path| serve("127.0.0.1:0", &format!("sqlite:{}", path.display()), &[]));
    let line = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: Address = line.local_addr().unwrap().into();
    // The second server refuses a client that offers message 5, and is offered message 1 next.
    let servers = [&first, &second, &second, &first].map(|server| server.address);
    let leading = thread::spawn(move || {
        for (number, (server, swallowed)) in (1..).zip(servers.into_iter().zip([0, 0, 8, 0])) {
            let mut client = line.accept().unwrap().0;
            let mut server = TcpStream::connect(server).unwrap();
            let mut hello = [0; 33];
            client.read_exact(&mut hello).unwrap();
            server.write_all(&hello).unwrap();
            client.write_all(&frame(&read_frame(&mut server).unwrap())).unwrap();
            if swallowed > 0 {
                (0..swallowed).for_each(|_| drop(read_frame(&mut client).unwrap()));
                continue;
            }
            // The client ends the connection to a server that refuses it or is not believed.
            for _ in 0..4 {
                let Some(message) = read_frame(&mut client) else { break };
                server.write_all(&frame(&message)).unwrap();
            }
            if number > 1 {
                let _ = server.shutdown(Shutdown::Write);
            }
            while let Some(answer) = read_frame(&mut server) {
                let is_last = answer == 4_u64.to_be_bytes();
                if client.write_all(&frame(&answer)).is_err() || is_last {
                    break;
                }
            }
        }
    });
    smol::block_on(async {
        let options = AckOptions::new().renumber(true);
        let mut client = AckClient::connect(&address, options).await.unwrap();
        for _ in 0..4 {
            client.send(b"21.5").await.unwrap();
        }
        client.wait_committed(4).await.unwrap();
        for _ in 0..8 {
            client.send(b"21.5").await.unwrap();
        }
        let ended = client.wait_committed(5).await;
        assert_eq!((client.committed(), client.lost()), (4, 4));
        let Err(AckError::Protocol { error: AnswerError::Count(fault), .. }) = &ended else {
            panic!("{ended:?}")
        };
        assert_eq!(*fault, CountFault::Unclear { count: 4, committed: 0, sent: 8 });
        let words = "the server has messages 1 to 4 of this sender, and the client, renumbered";
        assert!(fault.to_string().starts_with(words), "{fault}");
    });
    leading.join().unwrap();
    assert_eq!(paths.map(|path| Database::open(&path).committed()), [4, 0]);
    assert!(first.stop().status.success() && second.stop().status.success());
}

/// The server of a file forgets its senders when it is killed; the file of the sender does not.
#[test]
fn with_a_file_of_its_sender_nothing_is_sent_twice_into_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let (path, file) = (directory.path().join("messages"), directory.path().join("sender"));
    let sender = ["--sender-file", file.to_str().unwrap(), "--resume"];
    for (last, words) in [
        (3, "framelet: sent 3, committed 3"),
        (5, "skipped 3 that were committed, sent 2, committed 5"),
    ] {
        let to = format!("file:{}", path.display());
        let server = serve("127.0.0.1:0", &to, &["--output", "frames"]);
        check(&send(server.address, &sender, last).wait(), 0, &[words]);
        server.signal(Signal::KILL);
        server.wait();
    }
    assert_eq!(check_file(&path, 5), 0);
}
