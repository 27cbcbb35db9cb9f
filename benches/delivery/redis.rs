//! How fast messages get into a Redis stream, next to what Redis' own benchmark puts there.

use std::path::Path;
use std::process::Command;

use crate::common::redis::Redis;
use crate::comparison::Comparison;
use crate::program::four_senders;
use crate::{MANY, ROUNDS, rate};

/// The stream that both add to.
const STREAM: &str = "messages";

/// Measures both with the same names of fields; the benchmark's values never change.
pub(crate) fn compare(lines: &Path) -> Comparison {
    let redis = Redis::start(&[]);
    let in_empty = |measured: &dyn Fn() -> f64| {
        // Not FLUSHALL: that would give the memory back.
        redis.run(&["DEL", STREAM]);
        let rate = measured();
        assert_eq!(redis.length(STREAM), 4 * MANY);
        rate
    };
    let benchmark = || in_empty(&|| benchmark(&redis, 4 * MANY));
    let framelet = || in_empty(&|| rate(4 * MANY, four_senders(lines, &redis.stream(STREAM))));
    // Memory that Redis has had before is had again at once.
    benchmark();
    framelet();
    let mut comparison = Comparison::of(
        "64 B into a Redis stream, 4 senders",
        "M messages/s",
        "redis-benchmark -P 64 xadd",
    );
    for _ in 0..ROUNDS {
        comparison.measure(benchmark, framelet);
    }
    comparison
}

/// Has Redis' benchmark add so many entries and returns how many millions it made a second.
fn benchmark(redis: &Redis, entries: usize) -> f64 {
    let benchmark = Command::new("redis-benchmark")
        .args(["-p", &redis.port.to_string(), "-P", "64", "-n", &entries.to_string(), "--csv"])
        .args(["xadd", STREAM, "*"])
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
    1e-6 * rate.unwrap_or_else(|| panic!("redis-benchmark says {table:?}"))
}
