//! What acknowledged delivery costs, next to a plain loop that makes the same bytes as safe:
//! `cargo bench --bench delivery`, or with `--features redis` into Redis, too. It writes below `target`, so
//! what it measures is the disk there.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use framelet::Layout;
use framelet::wire::{Answer, Hello, SenderId, append_frame};
use rusqlite::{Connection, TransactionBehavior, params};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

#[cfg(feature = "redis")]
#[path = "../../tests/common/mod.rs"]
mod common;
mod comparison;
mod program;
#[cfg(feature = "redis")]
mod redis;

use comparison::Comparison;
use program::{Server, four_senders};

/// How often each thing is measured; what is compared takes turns. The speed of a shared machine changes
/// from second to second, so these are many short rounds.
const ROUNDS: usize = 31;

/// How many messages four senders send each, and how many are sent one at a time.
const MANY: usize = 50_000;
const SINGLE: usize = 2000;

/// How many bytes go into a file.
const BYTES: usize = 256 << 20;

fn main() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("delivery");
    let _ = fs::remove_dir_all(&directory);
    let (lines, blocks) = (directory.join("lines"), directory.join("blocks"));
    fs::create_dir_all(&directory).unwrap();
    fs::write(&lines, [&[b'x'; 64][..], b"\n"].concat().repeat(MANY)).unwrap();
    fs::write(&blocks, [&[b'x'; 65_536][..], b"\n"].concat().repeat(BYTES / 65_536)).unwrap();
    let out = directory.join("out");
    let in_fresh = |measured: &dyn Fn() -> Duration| {
        let _ = fs::remove_dir_all(&out);
        fs::create_dir_all(&out).unwrap();
        measured()
    };
    // A virtual machine may have to ask for memory that it has not used for a while, which takes longer
    // than to write to the disk: what is written is written twice, and the second time counts.
    let in_used_memory = |write: &dyn Fn() -> Duration| {
        in_fresh(write);
        in_fresh(write)
    };
    let database = out.join("messages.db");
    let to_database = format!("sqlite:{}", database.display());

    let all_cores = sched_getaffinity(None).unwrap();
    let messages = out.join("messages");
    let millis = |elapsed: Duration| 1e3 * elapsed.as_secs_f64() / SINGLE as f64;
    let speed = |elapsed: Duration| 1e-9 * BYTES as f64 / elapsed.as_secs_f64();

    let comparison = |what, unit| Comparison::of(what, unit, "a plain loop");
    let mut four =
        comparison("64 B into SQLite, 1,000 rows a transaction or 4 senders", "M rows/s");
    let mut one = comparison("64 B into SQLite, one at a time", "ms");
    let mut one_on_one_core = comparison("the same with everything on one core", "ms");
    let mut file = comparison("64 KiB into a file, synced", "GB/s");
    for _ in 0..ROUNDS {
        four.measure(
            || rate(4 * MANY, in_fresh(&|| plain_loop(&database, 4 * MANY, 1000))),
            || rate(4 * MANY, in_fresh(&|| four_senders(&lines, &to_database))),
        );
        for (cores, one) in [(all_cores, &mut one), (one_of(&all_cores), &mut one_on_one_core)] {
            sched_setaffinity(None, &cores).unwrap();
            one.measure(
                || millis(in_fresh(&|| plain_loop(&database, SINGLE, 1))),
                || millis(in_fresh(&|| one_at_a_time(&to_database))),
            );
        }
        sched_setaffinity(None, &all_cores).unwrap();
        file.measure(
            || speed(in_used_memory(&|| plain_file(&messages))),
            || speed(in_used_memory(&|| through_server(&blocks, &messages))),
        );
    }
    for comparison in [four, one, one_on_one_core, file] {
        println!("{comparison}");
    }
    #[cfg(feature = "redis")]
    println!("{}", redis::compare(&lines));
    let _ = fs::remove_dir_all(&directory);
}

/// Returns how many millions a second that is.
fn rate(many: usize, elapsed: Duration) -> f64 {
    1e-6 * many as f64 / elapsed.as_secs_f64()
}

/// Returns the last of `cores`. A client, a server and its sink take turns for each message, and on some
/// machines it takes longer to wake a thread on another core than to do all of its work.
fn one_of(cores: &CpuSet) -> CpuSet {
    let mut one = CpuSet::new();
    one.set((0..CpuSet::MAX_CPU).rfind(|core| cores.is_set(*core)).unwrap());
    one
}

/// Inserts rows like those of framelet, so many in a transaction.
fn plain_loop(path: &Path, rows: usize, per: usize) -> Duration {
    let mut database = Connection::open(path).unwrap();
    let mode: String =
        database.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
    database.pragma_update(None, "synchronous", "FULL").unwrap();
    database
        .execute_batch(
            "CREATE TABLE messages (id INTEGER PRIMARY KEY, received TEXT NOT NULL, peer TEXT, \
             connection INTEGER, number INTEGER NOT NULL, sender TEXT, payload BLOB NOT NULL)",
        )
        .unwrap();
    let payload = "x".repeat(64);
    let started = Instant::now();
    for transaction in 0..rows / per {
        let begun = database.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        {
            let mut insert = begun
                .prepare_cached(
                    "INSERT INTO messages (received, peer, connection, number, sender, payload) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )
                .unwrap();
            for row in 0..per {
                let number = i64::try_from(transaction * per + row).unwrap();
                let (received, peer) = ("2026-01-02T03:04:05.678Z", "127.0.0.1:40122");
                let sender = "0123456789abcdef0123456789abcdef";
                insert.execute(params![received, peer, 1, number, sender, payload]).unwrap();
            }
        }
        begun.commit().unwrap();
    }
    started.elapsed()
}

/// Writes the same frames as [`through_server`], and syncs them once.
fn plain_file(path: &Path) -> Duration {
    let frame = [&[0, 1, 0, 0], &[b'x'; 65_536][..]].concat();
    let started = Instant::now();
    let mut file = File::create(path).unwrap();
    for _ in 0..BYTES / 65_536 {
        file.write_all(&frame).unwrap();
    }
    file.sync_data().unwrap();
    started.elapsed()
}

/// Sends each message once the one before is acknowledged.
fn one_at_a_time(to: &str) -> Duration {
    let server = Server::start(&["--to", to]);
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.set_nodelay(true).unwrap();
    let hello = Hello { sender: SenderId::from_bytes([1; 16]), first: 1 };
    stream.write_all(&hello.encode(Layout::U32BE).unwrap()).unwrap();
    let mut writing = stream.try_clone().unwrap();
    let mut acknowledged = || {
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        match Answer::decode(&answer[4..]) {
            Ok(Answer::Acknowledgement(count)) => count,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(acknowledged(), 0);
    let mut frame = Vec::new();
    append_frame(&mut frame, Layout::U32BE, 64, &[b'x'; 64]).unwrap();
    let started = Instant::now();
    for number in 1..=SINGLE as u64 {
        writing.write_all(&frame).unwrap();
        while acknowledged() < number {}
    }
    started.elapsed()
}

fn through_server(input: &Path, messages: &Path) -> Duration {
    let to = format!("file:{}", messages.display());
    let server = Server::start(&["--to", &to, "--output", "frames"]);
    let started = Instant::now();
    assert!(server.send(input).wait().unwrap().success());
    started.elapsed()
}
