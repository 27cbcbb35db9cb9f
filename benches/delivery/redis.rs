//! How fast messages get into a Redis stream, next to what Redis' own benchmark puts there.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use redis::{Client, Connection, cmd};

use crate::comparison::Comparison;
use crate::program::four_senders;
use crate::{MANY, ROUNDS};

/// Measures both with the same names of fields; the benchmark's values never change.
pub(crate) fn compare(directory: &Path, lines: &Path) -> Comparison {
    let redis = Redis::start(directory);
    let benchmark = || {
        redis.empty();
        let rate = redis.benchmark(4 * MANY);
        assert_eq!(redis.length(), 4 * MANY);
        rate
    };
    let framelet = || {
        redis.empty();
        let elapsed = four_senders(lines, &redis.stream());
        assert_eq!(redis.length(), 4 * MANY);
        1e-3 * (4 * MANY) as f64 / elapsed.as_secs_f64()
    };
    // Memory that Redis has had before is had again at once.
    let _ = (benchmark(), framelet());
    let mut comparison = Comparison::of(
        "64 B into a Redis stream, 4 senders",
        "k messages/s",
        "redis-benchmark -P 64 xadd",
    );
    for _ in 0..ROUNDS {
        comparison.measure(benchmark, framelet);
    }
    comparison
}

/// A Redis that keeps nothing; it is ended when this is dropped.
struct Redis {
    child: Child,
    port: u16,
}

impl Redis {
    fn start(directory: &Path) -> Redis {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(directory)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is needed (on Debian: apt-get install redis-server)");
        let redis = Redis { child, port };
        let deadline = Instant::now() + Duration::from_secs(30);
        while redis.connect().is_none() {
            assert!(Instant::now() < deadline, "redis-server did not listen");
            thread::sleep(Duration::from_millis(10));
        }
        redis
    }

    fn connect(&self) -> Option<Connection> {
        let client = Client::open(format!("redis://127.0.0.1:{}/", self.port)).unwrap();
        client.get_connection().ok()
    }

    fn stream(&self) -> String {
        format!("redis://127.0.0.1:{}/?stream=messages", self.port)
    }

    /// Deletes the stream, and not everything: that would give the memory back.
    fn empty(&self) {
        cmd("DEL").arg("messages").exec(&mut self.connect().unwrap()).unwrap();
    }

    fn length(&self) -> usize {
        cmd("XLEN").arg("messages").query(&mut self.connect().unwrap()).unwrap()
    }

    /// Has the benchmark add so many entries and returns how many thousands it made a second.
    fn benchmark(&self, entries: usize) -> f64 {
        let benchmark = Command::new("redis-benchmark")
            .args(["-p", &self.port.to_string(), "-P", "64", "-n", &entries.to_string(), "--csv"])
            .args(["xadd", "messages", "*"])
            .args(["number", "123456", "payload", &"x".repeat(64)])
            .args(["time", "2026-01-02T03:04:05.678Z", "peer", "127.0.0.1:40122"])
            .args(["connection", "1", "sender", "0123456789abcdef0123456789abcdef"])
            .output()
            .expect("redis-benchmark is needed (on Debian: apt-get install redis-tools)");
        let errors = String::from_utf8_lossy(&benchmark.stderr);
        assert!(benchmark.status.success(), "redis-benchmark failed: {errors}");
        let table = String::from_utf8(benchmark.stdout).unwrap();
        let rate = table.lines().last().and_then(|row| row.split(',').nth(1));
        let rate = rate.and_then(|rate| rate.trim_matches('"').parse::<f64>().ok());
        1e-3 * rate.unwrap_or_else(|| panic!("redis-benchmark says {table:?}"))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
