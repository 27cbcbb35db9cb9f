//! Numbers are sent, a message each, and what has become of them is looked at from outside.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use rusqlite::{Connection, OpenFlags};

use super::program::{FRAMELET, PATIENCE, Running, Server, said, unframe};

/// Starts a server at `address` that puts messages into `to`.
pub(crate) fn serve(address: impl ToString, to: &str, arguments: &[&str]) -> Server {
    let mut command = Command::new(FRAMELET);
    command.args(["serve", &address.to_string(), "--to", to]).args(arguments);
    Server::spawn(command)
}

/// Starts `framelet send --ack` with the numbers from 1 to `last`, a message each.
pub(crate) fn send(address: impl ToString, arguments: &[&str], last: u64) -> Running {
    let mut command = Command::new(FRAMELET);
    command.args(["send", &address.to_string(), "--ack", "--input", "lines"]).args(arguments);
    Running::start(command, numbers(last).as_bytes())
}

pub(crate) fn numbers(last: u64) -> String {
    (1..=last).map(|number| format!("{number}\n")).collect()
}

/// A database, looked at from outside. Read only: a last reader that could write would tidy up behind
/// a killed server, which is for the next server to do.
pub(crate) struct Database(Connection);

impl Database {
    pub(crate) fn open(path: &Path) -> Database {
        let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        database.busy_timeout(PATIENCE).unwrap();
        Database(database)
    }

    /// Returns how many messages all senders have there.
    pub(crate) fn committed(&self) -> u64 {
        let query = "SELECT coalesce(sum(committed), 0) FROM senders";
        let sum: i64 = self.0.query_row(query, [], |row| row.get(0)).unwrap();
        u64::try_from(sum).unwrap()
    }

    pub(crate) fn senders(&self) -> Vec<String> {
        let mut query = self.0.prepare("SELECT DISTINCT sender FROM messages").unwrap();
        query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    /// Returns number and text of each message of a sender, in the order in which they were committed.
    pub(crate) fn rows(&self, sender: &str) -> Vec<(u64, String)> {
        let query = "SELECT number, payload FROM messages WHERE sender = ?1 ORDER BY id";
        let mut query = self.0.prepare(query).unwrap();
        query
            .query_map([sender], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?)))
            .unwrap()
            .map(Result::unwrap)
            .map(|(number, text)| (u64::try_from(number).unwrap(), text))
            .collect()
    }

    /// Checks that the messages of the only sender are the numbers from 1 to `last`, each one once and
    /// in order.
    #[track_caller]
    pub(crate) fn check_numbers(&self, last: u64) {
        let senders = self.senders();
        assert_eq!(senders.len(), 1);
        let rows = self.rows(&senders[0]);
        let expected: Vec<_> = (1..=last).map(|number| (number, number.to_string())).collect();
        let differs = rows.iter().zip(&expected).find(|(row, expected)| row != expected);
        assert!(rows == expected, "{} rows instead of {last}; first {differs:?}", rows.len());
        let ok: String = self.0.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(ok, "ok");
    }
}

/// Checks that a file of frames has all numbers from 1 to `last`; returns how many are there again.
#[track_caller]
pub(crate) fn check_file(path: &Path, last: u64) -> usize {
    let mut numbers: Vec<u64> = unframe(&fs::read(path).unwrap())
        .iter()
        .map(|payload| str::from_utf8(payload).unwrap().parse().unwrap())
        .collect();
    let all = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    let missing = (1..=last).find(|number| numbers.binary_search(number).is_err());
    assert_eq!((missing, numbers.len() as u64), (None, last), "the first one that is missing");
    all - numbers.len()
}

/// Returns the count of committed messages that a client has ended with.
pub(crate) fn committed(output: &Output) -> u64 {
    let said = said(output);
    let count = said.split("committed ").nth(1).and_then(|rest| rest.split('\n').next());
    count.unwrap_or_else(|| panic!("no count in {said:?}")).parse().unwrap()
}
