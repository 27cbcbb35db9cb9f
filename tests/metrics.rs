//! `serve --metrics`, as Prometheus and a load balancer see it.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Command, Stdio};

use common::program::{Server, check, frame, framelet, wait_until};
use rusqlite::Connection;

/// A server with metrics, and where they are.
struct Observed {
    server: Server,
    metrics: String,
}

impl Observed {
    fn start(arguments: &[&str]) -> Observed {
        let server = Server::start(&[arguments, &["--metrics", "127.0.0.1:0"]].concat());
        let log = server.log();
        let (_, rest) = log.split_once("metrics at ").expect("the log says where they are");
        let metrics = rest.split(',').next().unwrap().to_owned();
        Observed { server, metrics }
    }

    /// Sends a request, and returns the status and the body of the answer.
    fn ask(&self, request: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.metrics).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let length = format!("\r\nContent-Length: {}\r\n", body.len());
        assert!(head.contains(&length) || request.starts_with("HEAD"), "{head}");
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.metrics))
    }

    /// Returns the samples by their names, labels included.
    fn samples(&self) -> BTreeMap<String, f64> {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200);
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples
            .map(|line| {
                let (name, value) = line.rsplit_once(' ').unwrap();
                (name.to_owned(), value.parse().unwrap())
            })
            .collect()
    }
}

#[test]
fn the_samples_are_what_has_happened() {
    let directory = tempfile::tempdir().unwrap();
    let to = format!("sqlite:{}", directory.path().join("messages.db").display());
    let observed = Observed::start(&["--to", &to, "--max-connections", "7", "--keep", "3"]);
    let address = observed.server.address.to_string();
    let sent =
        framelet(&["send", &address, "--ack", "--input", "lines"], b"abc\n".repeat(5).as_slice());
    check(&sent, 0, &["committed 5"]);
    let mut cut = observed.server.connect();
    cut.write_all(&frame(b"message")[..6]).unwrap();
    cut.shutdown(Shutdown::Write).unwrap();
    wait_until("the cut message is counted", || {
        observed.samples()["framelet_incidents_total{reason=\"truncated\"}"] == 1.0
    });
    let _open = observed.server.connect();
    wait_until("the connections are counted", || {
        let samples = observed.samples();
        samples["framelet_connections_total"] == 3.0 && samples["framelet_connections_open"] == 1.0
    });
    wait_until("the oldest messages are pruned", || {
        observed.samples()["framelet_messages_pruned_total"] == 2.0
    });
    let samples = observed.samples();
    for (name, value) in [
        ("framelet_connections_limit", 7.0),
        ("framelet_messages_received_total", 5.0),
        ("framelet_payload_received_bytes_total", 15.0),
        ("framelet_messages_committed_total", 5.0),
        ("framelet_messages_uncommitted", 0.0),
        ("framelet_payload_pruned_bytes_total", 6.0),
        ("framelet_senders", 1.0),
        ("framelet_memory_bytes", 0.0),
        ("framelet_memory_limit_bytes", f64::from(64 << 20)),
        ("framelet_sink_trouble_seconds", 0.0),
        ("framelet_incidents_total{reason=\"truncated\"}", 1.0),
        ("framelet_incidents_total{reason=\"over_limit\"}", 0.0),
        (concat!("framelet_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1.0),
    ] {
        assert_eq!(samples.get(name), Some(&value), "{name}: {samples:#?}");
    }
    let commits = samples["framelet_commit_duration_seconds_count"];
    assert!((1.0..=5.0).contains(&commits), "{commits}");
    assert_eq!(samples["framelet_commit_duration_seconds_bucket{le=\"+Inf\"}"], commits);
    assert!(samples["framelet_commit_duration_seconds_sum"] > 0.0);
    assert!(samples["framelet_last_commit_age_seconds"] < 60.0);
    assert!(samples["framelet_uptime_seconds"] > 0.0);
    // The labels do not depend on what clients do: so many series, and no more.
    assert!(samples.len() < 80, "{}", samples.len());
}

#[test]
fn a_server_is_healthy_while_its_sink_commits() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("messages.db");
    let observed = Observed::start(&["--to", &format!("sqlite:{}", path.display())]);
    assert_eq!(observed.get("/healthz"), (200, "ok\n".into()));
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    observed.server.connect().write_all(&frame(b"message")).unwrap();
    wait_until("it is ill", || observed.get("/healthz").0 == 503);
    let (_, why) = observed.get("/healthz");
    assert!(why.starts_with("nothing is committed for ") && why.contains("is locked"), "{why}");
    assert!(observed.samples()["framelet_sink_trouble_seconds"] > 0.0);
    other.execute_batch("ROLLBACK").unwrap();
    wait_until("it is well again", || observed.get("/healthz").0 == 200);
}

#[test]
fn other_requests_are_refused_and_garbage_and_slow_clients_do_no_harm() {
    let observed = Observed::start(&["--output", "none"]);
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 404),
        ("GET http://127.0.0.1/healthz HTTP/1.1\r\n\r\n", 200),
        ("POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 405),
        ("\0\0\0\x05hello", 400),
        ("HEAD /metrics HTTP/1.1\r\n\r\n", 200),
    ] {
        assert_eq!(observed.ask(request).0, status, "{request:?}");
    }
    assert_eq!(observed.ask("HEAD /healthz HTTP/1.1\r\n\r\n").1, "");
    // More than are answered at once, and all silent: the next one gets its turn when they run out of time.
    let silent: Vec<_> = (0..80).map(|_| TcpStream::connect(&observed.metrics).unwrap()).collect();
    check(
        &framelet(&["send", &observed.server.address.to_string(), "--message", "a"], b""),
        0,
        &[],
    );
    assert_eq!(observed.get("/healthz").0, 200);
    drop(silent);
    let left = observed.server.stop();
    assert!(left.status.success(), "{}", left.log);
}

#[test]
fn an_address_that_cannot_be_used_is_an_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = framelet(&["serve", "127.0.0.1:0", "--metrics", &address], b"");
    check(&output, 1, &["cannot serve metrics at", "address already in use"]);
}

/// Returns the names of metrics in a text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours = words.filter(|word| word.starts_with("framelet_"));
    ours.map(|word| {
        word.trim_end_matches("_bucket")
            .trim_end_matches("_sum")
            .trim_end_matches("_count")
            .to_owned()
    })
    .collect()
}

#[test]
fn the_documentation_lists_each_metric_and_each_reason() {
    let directory = tempfile::tempdir().unwrap();
    let to = format!("sqlite:{}", directory.path().join("messages.db").display());
    let observed = Observed::start(&["--to", &to]);
    let address = observed.server.address.to_string();
    let sent = framelet(&["send", &address, "--ack", "--message", "a"], b"");
    check(&sent, 0, &["committed 1"]);
    let metrics = observed.get("/metrics").1;
    let text = fs::read_to_string("docs/operate.md").unwrap();
    let (_, section) = text.split_once("### Prometheus").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    assert_eq!(names(section), names(&metrics));
    let (_, table) = section.split_once("| `reason` |").unwrap();
    let documented: BTreeSet<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
        .flat_map(|reasons| reasons.split(", ").map(|reason| reason.trim_matches('`')))
        .collect();
    let reasons = metrics.lines().filter_map(|line| {
        line.strip_prefix("framelet_incidents_total{reason=\"")?.split('"').next()
    });
    assert_eq!(documented, reasons.collect());
}

/// Each metric that the dashboard asks for exists, and it shows each one.
#[test]
fn the_dashboard_asks_for_what_there_is() {
    let directory = tempfile::tempdir().unwrap();
    let to = format!("sqlite:{}", directory.path().join("messages.db").display());
    let observed = Observed::start(&["--to", &to]);
    check(
        &framelet(&["send", &observed.server.address.to_string(), "--ack", "--message", "a"], b""),
        0,
        &["committed 1"],
    );
    let there = names(&observed.get("/metrics").1);
    let dashboard = fs::read_to_string("deploy/grafana.json").unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    let shown: BTreeSet<String> = dashboard["panels"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap())
        .flat_map(|target| names(target["expr"].as_str().unwrap()))
        .collect();
    assert_eq!(shown, there);
    let promtool = Command::new("promtool")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if promtool.is_ok() {
        let mut lint = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        lint.stdin.take().unwrap().write_all(observed.get("/metrics").1.as_bytes()).unwrap();
        let output = lint.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
