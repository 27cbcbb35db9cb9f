//! Who may connect, how often, and who gives way when there can be no more connections.

#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use common::program::{
    FRAMELET, Running, Server, check, closed, connect_from, frame, framelet, logged, measured,
    read_frame, said, unprivileged, wait_until,
};
use framelet::wire::ProxyVersion;
use rustix::process::geteuid;

/// Returns whether a server that echoes serves this connection, and not only accepts it.
fn is_served(stream: &mut TcpStream) -> bool {
    // The server may have closed it already.
    let _ = stream.write_all(&frame(b"me?"));
    read_frame(stream).is_some()
}

/// Connects from 127.0.0.`last` and sends `header` first; `None` if the server does not serve that.
fn served(server: &Server, last: u8, header: &[u8]) -> Option<TcpStream> {
    let mut stream = connect_from(last, server.address).ok()?;
    let _ = stream.write_all(header);
    is_served(&mut stream).then_some(stream)
}

/// Tries until it is served: the others may not have been idle for long enough.
fn soon_served(server: &Server, last: u8, header: &[u8]) -> TcpStream {
    let mut stream = None;
    wait_until("a place", || {
        stream = served(server, last, header);
        stream.is_some()
    });
    stream.unwrap()
}

/// Returns what a load balancer sends first for `peer`.
fn header(peer: Option<&str>) -> Vec<u8> {
    ProxyVersion::V2.header(peer.map(|peer| {
        let peer: IpAddr = peer.parse().unwrap();
        let server = if peer.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { peer };
        (SocketAddr::new(peer, 40_000), SocketAddr::new(server, 4747))
    }))
}

#[test]
fn only_peers_in_the_allowed_networks_are_served_and_the_others_counted() {
    let server = Server::start(&[
        "--echo",
        "--output",
        "none",
        "--allow",
        "127.0.0.8/30",
        "--allow",
        "127.0.0.2",
    ]);
    for last in [2, 8, 9, 10, 11] {
        assert!(served(&server, last, b"").is_some(), "127.0.0.{last}");
    }
    for _ in 0..10 {
        for last in [1, 3, 7, 12] {
            assert!(served(&server, last, b"").is_none(), "127.0.0.{last}");
        }
    }
    let log = server.stop().log;
    let line = "its address is not allowed (--allow)";
    assert!(log.contains("refused a connection from 127.0.0.1:"), "{log}");
    assert_eq!(logged(&log, line, "connections from addresses that are not allowed"), 40, "{log}");
}

#[test]
fn an_ipv4_peer_of_an_ipv6_socket_is_an_ipv4_peer() {
    for (network, is_allowed) in
        [("127.0.0.0/8", true), ("::/0", false), ("::ffff:127.0.0.0/104", true)]
    {
        let mut command = Command::new(FRAMELET);
        command.args(["serve", "[::]:0", "--echo", "--output", "none", "--allow", network]);
        let mut server = Server::spawn(command);
        server.address.set_ip(Ipv4Addr::LOCALHOST.into());
        assert_eq!(served(&server, 1, b"").is_some(), is_allowed, "{network}");
    }
}

#[test]
fn limits_for_addresses_are_refused_where_no_peer_has_one() {
    let directory = tempfile::tempdir().unwrap();
    let address = format!("unix:{}", directory.path().join("socket").display());
    for (option, others) in [
        ("--allow", &["10.0.0.0/8"][..]),
        ("--max-per-address", &["2"]),
        ("--proxy-from", &["10.0.0.0/8", "--proxy-protocol"]),
    ] {
        let output = framelet(&[&["serve", &address, option], others].concat(), b"");
        check(&output, 2, &[option, "has no use with a Unix socket", "--mode and --owner"]);
    }
}

#[test]
fn the_peer_that_a_load_balancer_names_must_be_allowed_and_else_the_load_balancer() {
    for (peer, balancer_is_allowed, is_allowed) in [
        (Some("203.0.113.7"), false, true),
        (Some("203.0.114.7"), true, false),
        (Some("2001:db8::1"), true, false),
        (None, false, false),
        (None, true, true),
    ] {
        let mut arguments =
            vec!["--echo", "--proxy-protocol", "--output", "none", "--allow", "203.0.113.0/24"];
        if balancer_is_allowed {
            arguments.extend(["--allow", "127.0.0.1"]);
        }
        let server = Server::start(&arguments);
        assert_eq!(served(&server, 1, &header(peer)).is_some(), is_allowed, "{peer:?}");
        let log = server.stop().log;
        let refused = format!("refused a connection from {}", peer.unwrap_or("127.0.0.1"));
        let refused = refused.replace("2001:db8::1", "[2001:db8::1]");
        assert_eq!(log.contains(&refused), !is_allowed, "{peer:?}: {log}");
    }
}

#[test]
fn only_load_balancers_in_their_networks_can_name_a_peer() {
    let server = Server::start(&[
        "--echo",
        "--proxy-protocol",
        "--output",
        "json",
        "--proxy-from",
        "127.0.0.8/30",
        "--proxy-from",
        "127.0.0.2",
    ]);
    for last in [2, 8, 11] {
        assert!(served(&server, last, &header(Some("203.0.113.7"))).is_some(), "127.0.0.{last}");
    }
    for _ in 0..10 {
        for last in [1, 3, 7, 12] {
            let named = header(Some("203.0.113.8"));
            assert!(served(&server, last, &named).is_none(), "127.0.0.{last}");
        }
    }
    let left = server.stop();
    let output = String::from_utf8(left.output).unwrap();
    assert!(!output.contains("203.0.113.8"), "{output}");
    let line = "its address is not that of a load balancer (--proxy-from)";
    assert!(left.log.contains("refused a connection from 127.0.0.1:"), "{}", left.log);
    let told = logged(&left.log, line, "connections that are not from a load balancer");
    assert_eq!(told, 40, "{}", left.log);
    measured(format_args!("{told} refused"));

    let arguments = ["serve", ":0", "--proxy-from", "10.0.0.0/8"];
    check(&framelet(&arguments, b""), 2, &["--proxy-from has no use without --proxy-protocol"]);
}

#[test]
fn the_limit_of_an_address_counts_the_peers_that_a_load_balancer_names() {
    let server = Server::start(&[
        "--echo",
        "--proxy-protocol",
        "--max-per-address",
        "2",
        "--output",
        "none",
    ]);
    // Before it has named them, they are nobody's.
    let mut unnamed: Vec<TcpStream> = (0..5).map(|_| server.connect()).collect();
    let peers = ["203.0.113.7", "2001:db8::1"].map(Some);
    // The second is in the same network of 64 bits, where a device can choose its address.
    let others = ["::ffff:203.0.113.7", "2001:db8::ffff:2"].map(Some);
    let mut open = Vec::new();
    for (peer, other) in peers.into_iter().zip(others).chain([(None, None)]) {
        let first = [peer, other].map(|peer| served(&server, 1, &header(peer)).unwrap());
        assert!(served(&server, 1, &header(other)).is_none(), "{peer:?}");
        open.push(first);
    }
    assert!(served(&server, 1, &header(Some("2001:db8:0:1::1"))).is_some());
    // An end frees a place, and one that was refused never had one.
    drop(open.remove(0));
    soon_served(&server, 1, &header(peers[0]));
    for stream in &mut unnamed {
        stream
            .write_all(
                &ProxyVersion::V1.header(Some((
                    "198.51.100.1:1".parse().unwrap(),
                    "192.0.2.1:1".parse().unwrap(),
                ))),
            )
            .unwrap();
    }
    assert_eq!(unnamed.iter_mut().filter_map(|stream| is_served(stream).then_some(())).count(), 2);
    let log = server.stop().log;
    for words in [
        "2 connections open from 203.0.113.7, the limit (--max-per-address)",
        "from 2001:db8::/64",
        "from 127.0.0.1, the limit",
        "from 198.51.100.1, the limit",
    ] {
        assert!(log.contains(words), "{words}: {log}");
    }
}

// ---- idle connections that give way

/// Returns a server that echoes, with so many places.
fn server_with_places(places: &str, more: &[&str]) -> Server {
    let arguments = ["--echo", "--output", "none", "-v", "--evict-idle", "200ms"];
    Server::start(&[&arguments[..], &["--max-connections", places], more].concat())
}

#[test]
fn an_address_that_holds_all_places_in_silence_leaves_one_to_another() {
    let server = server_with_places("4", &[]);
    // The one that is idle longest, but the only one of its address.
    let mut alone = served(&server, 3, b"").unwrap();
    let mut many: Vec<TcpStream> = (0..3).map(|_| served(&server, 2, b"").unwrap()).collect();
    let mut other = soon_served(&server, 4, b"");
    assert!(closed(&mut many[0]));
    assert!(is_served(&mut alone) && is_served(&mut other));
    assert!(is_served(&mut many[1]) && is_served(&mut many[2]));
    let log = server.stop().log;
    let line = "reset after 1 message, since it was idle when there could be no more connections";
    assert!(log.contains(&format!("{line} (--max-connections)")), "{log}");
    assert_eq!(logged(&log, line, "idle connections that gave way"), 1, "{log}");
    assert!(log.contains("connection 2 from 127.0.0.2:"), "{log}");
}

#[test]
fn an_address_with_many_connections_takes_no_place_of_one_with_few() {
    let server = server_with_places("4", &[]);
    let mut few = served(&server, 2, b"").unwrap();
    let mut many: Vec<TcpStream> = (0..3).map(|_| served(&server, 3, b"").unwrap()).collect();
    // Its own, though the other one has been idle for longer; and as often as it likes.
    for _ in 0..4 {
        many.push(soon_served(&server, 3, b""));
        assert!(closed(&mut many.remove(0)));
    }
    assert!(is_served(&mut few));
}

#[test]
fn a_message_that_has_begun_to_arrive_keeps_the_place_of_its_connection() {
    let server = server_with_places("3", &[]);
    let mut active: Vec<TcpStream> = (0..2)
        .map(|_| {
            let mut stream = connect_from(2, server.address).unwrap();
            stream.write_all(&frame(b"me?")[..5]).unwrap();
            stream
        })
        .collect();
    let mut idle = served(&server, 2, b"").unwrap();
    // Each has been idle for long enough to give way, and so would be the first two.
    for _ in 0..3 {
        let next = soon_served(&server, 2, b"");
        assert!(closed(&mut idle));
        idle = next;
    }
    for stream in &mut active {
        stream.write_all(&frame(b"me?")[5..]).unwrap();
        assert_eq!(read_frame(stream).as_deref(), Some(&b"me?"[..]));
    }
}

#[test]
fn a_handshake_gives_way_only_before_its_first_byte() {
    let server = server_with_places("3", &["--proxy-protocol"]);
    let mut begun = server.connect();
    begun.write_all(b"PROXY ").unwrap();
    let mut silent = [server.connect(), server.connect()];
    let served =
        ["203.0.113.7", "203.0.113.8"].map(|peer| soon_served(&server, 1, &header(Some(peer))));
    assert!(silent.iter_mut().all(closed));
    begun.write_all(b"UNKNOWN\r\n").unwrap_or_else(|_| panic!("{}", server.log()));
    assert!(is_served(&mut begun));
    drop(served);
    let log = server.stop().log;
    assert_eq!(
        logged(&log, "since it was idle when there could be no more", "idle connections that"),
        2,
        "{log}"
    );
}

#[test]
fn a_sender_with_acknowledgements_that_gave_way_comes_back_and_loses_nothing() {
    let server =
        Server::start(&["--output", "lines", "--max-connections", "1", "--evict-idle", "200ms"]);
    let mut command = Command::new(FRAMELET);
    let address = server.address.to_string();
    command.args(["send", &address, "--ack", "--input", "lines", "--retry", "60s"]);
    let (sender, mut stdin) = Running::start_with_input(command);
    let mut expected = Vec::new();
    for round in 0..3 {
        for number in 0..4 {
            let line = format!("message {number} of round {round}\n");
            stdin.write_all(line.as_bytes()).unwrap();
            expected.extend(line.into_bytes());
        }
        server.wait_for_output(expected.len());
        // From the same address: whoever tries waits for the other to be idle.
        let gone = "since it was idle when there could be no more connections";
        let taken = server.log().matches(gone).count();
        wait_until("a place", || {
            let _stream = connect_from(1, server.address);
            server.log().matches(gone).count() > taken
        });
    }
    drop(stdin);
    let output = sender.wait();
    check(&output, 0, &["committed 12"]);
    assert_eq!(String::from_utf8_lossy(&server.stop().output), String::from_utf8_lossy(&expected));
}

#[test]
fn with_no_time_to_give_way_the_places_are_kept() {
    let server = Server::start(&[
        "--echo",
        "--output",
        "none",
        "--max-connections",
        "1",
        "--evict-idle",
        "off",
    ]);
    let mut first = served(&server, 1, b"").unwrap();
    for _ in 0..100 {
        assert!(served(&server, 1, b"").is_none());
    }
    assert!(is_served(&mut first));
}

// ---- Unix sockets

#[test]
fn the_file_of_a_socket_has_its_owner_and_mode_and_messages_the_user_who_sent_them() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = directory.path().join("socket");
    let address = format!("unix:{}", path.display());
    let is_root = geteuid().is_root();
    // Only root can give a file away.
    let uid = if is_root { 65_534 } else { geteuid().as_raw() };
    for (mode, others_may) in [("0660", false), ("666", true)] {
        let mut command = Command::new(FRAMELET);
        command.args([
            "serve",
            &address,
            "--output",
            "json",
            "--mode",
            mode,
            "-v",
            "--owner",
            &uid.to_string(),
        ]);
        let server = Server::spawn(command);
        let file = fs::metadata(&path).unwrap();
        assert_eq!(file.permissions().mode() & 0o7777, u32::from_str_radix(mode, 8).unwrap());
        assert_eq!(file.uid(), uid);
        let mut command = unprivileged();
        if is_root {
            // Somebody else, in no group of the file.
            command.uid(65_533).gid(65_533);
        }
        command.args(["send", &address, "--message", "hello"]);
        let sender = Running::start(command, b"");
        let pid = sender.pid();
        let output = sender.wait();
        if is_root {
            assert_eq!(output.status.success(), others_may, "{}", said(&output));
        }
        let left = server.stop();
        let uid = if is_root { 65_533 } else { uid };
        let peer = format!("uid:{uid}/pid:{pid}");
        let output = String::from_utf8(left.output).unwrap();
        let was_there = others_may || !is_root;
        assert_eq!(output.contains(&format!("\"peer\":\"{peer}\"")), was_there, "{output}");
        assert_eq!(left.log.contains(&format!("from {peer}: closed after 1 message")), was_there);
    }
}

#[test]
fn an_owner_or_a_mode_that_cannot_be_is_refused_in_words() {
    let directory = tempfile::tempdir().unwrap();
    let address = format!("unix:{}", directory.path().join("socket").display());
    for (arguments, words) in [
        (["127.0.0.1:0", "--mode", "0660"], "only a Unix socket has a file"),
        (["127.0.0.1:0", "--owner", "0"], "(--mode, --owner)"),
        ([&address, "--mode", "1777"], "write three octal digits"),
        ([&address, "--owner", "no one"], "there is no user"),
        ([&address, "--owner", "4294967295"], "4294967295 is no number of a user"),
        (["127.0.0.1:0", "--allow", "10.0.0.1/8"], "did you mean 10.0.0.0/8?"),
        (["127.0.0.1:0", "--max-per-address", "0"], "--max-per-address cannot be zero"),
        (["127.0.0.1:0", "--evict-idle", "0s"], "cannot be zero"),
    ] {
        check(&framelet(&[&["serve"], &arguments[..]].concat(), b""), 2, &[words]);
    }
    let mut command = unprivileged();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    command.args(["serve", &address, "--owner", "root"]);
    let output = common::program::run(command, b"");
    check(&output, 1, &["cannot set the owner of the socket's file"]);
    assert!(!directory.path().join("socket").exists());
}
