//! The tables of a database, and how those of older versions are upgraded.

use std::time::Duration;

use rusqlite::{Connection, Row, TransactionBehavior};

use super::failure::{Failed, unusable};
use super::senders::count_senders;
use crate::wire::escape::Escaped;

/// The application id in the header of the database: "frlt".
const APPLICATION: i64 = 0x6672_6c74;

/// The version of the schema below.
const SCHEMA_VERSION: i64 = 4;

/// The tables. Times are text, because a shell shows it and SQLite's functions understand it.
const SCHEMA: &str = "
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,    -- in the order in which they were committed; none is used twice
    received TEXT NOT NULL,    -- when the last byte had come: 2026-01-02T03:04:05.678Z
    peer TEXT,                 -- 127.0.0.1:40122, or uid:1000/pid:4242 at a Unix socket
    connection INTEGER,        -- numbered from 1 each time the server starts
    number INTEGER NOT NULL,   -- on its connection, or of its sender
    sender TEXT,               -- 32 hexadecimal digits, if it asked for acknowledgements
    payload BLOB NOT NULL,     -- TEXT if it is UTF-8 without NUL characters, else BLOB
    header BLOB                -- what the layout keeps beside the payload; NULL if there is nothing
);
CREATE TABLE senders (
    sender TEXT PRIMARY KEY,
    committed INTEGER NOT NULL, -- the number of its last message
    seen TEXT NOT NULL,         -- when that was committed
    last_id INTEGER NOT NULL,   -- its id, by which those that were silent for longest are known
    checksum INTEGER            -- that of its payload
) WITHOUT ROWID;
CREATE TABLE last_id (id INTEGER NOT NULL); -- the highest id that was ever used, in one row
";

/// The columns of these tables. Users may add others.
const COLUMNS: [(&str, &[&str]); 3] = [
    (
        "messages",
        &["id", "received", "peer", "connection", "number", "sender", "payload", "header"],
    ),
    ("senders", &["sender", "committed", "seen", "last_id", "checksum"]),
    ("last_id", &["id"]),
];

/// What turns a version into the next one.
struct Upgrade {
    from: i64,
    /// The table, and the column if only that is added.
    adds: &'static [(&'static str, Option<&'static str>)],
    sql: &'static str,
}

const UPGRADES: [Upgrade; 3] = [
    Upgrade { from: 1, adds: &[("last_id", None), ("senders", Some("last_id"))], sql: UPGRADE_1 },
    Upgrade { from: 2, adds: &[("senders", Some("checksum"))], sql: UPGRADE_2 },
    Upgrade { from: 3, adds: &[("messages", Some("header"))], sql: UPGRADE_3 },
];

/// Upgrades version 1 to version 2. Not with `AUTOINCREMENT`, which is just such a table: that would copy
/// all messages.
///
/// Before version 2, `seen` was a wall-clock time, which may have jumped: from here on it only gives the
/// order of the senders.
const UPGRADE_1: &str = "
CREATE TABLE last_id (id INTEGER NOT NULL); -- the highest id that was ever used, in one row
INSERT INTO last_id SELECT coalesce(max(id), 0) FROM messages;
ALTER TABLE senders ADD COLUMN last_id INTEGER NOT NULL DEFAULT 0;
UPDATE senders SET last_id = ranked.rank FROM (
    SELECT sender, row_number() OVER (ORDER BY seen) - (SELECT count(*) FROM senders) AS rank
    FROM senders
) AS ranked WHERE ranked.sender = senders.sender;
";

/// Upgrades version 2 to version 3.
const UPGRADE_2: &str = "ALTER TABLE senders ADD COLUMN checksum INTEGER";

/// Upgrades version 3 to version 4, without a change to any row.
const UPGRADE_3: &str = "ALTER TABLE messages ADD COLUMN header BLOB";

/// How long another program may keep the database locked before that is logged. When opening, it is an
/// error.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Sets up a new database, or checks that an existing one is framelet's. Returns the number of senders in
/// it.
pub(super) fn prepare(connection: &mut Connection) -> Result<i64, Failed> {
    connection.busy_timeout(PATIENCE)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let number = |query| transaction.query_row(query, [], |row| row.get::<_, i64>(0));
    let application = number("SELECT application_id FROM pragma_application_id")?;
    let version = number("SELECT user_version FROM pragma_user_version")?;
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    match (application, version, tables) {
        (0, 0, 0) => transaction.execute_batch(SCHEMA)?,
        (APPLICATION, version @ 1..=SCHEMA_VERSION, _) => {
            for upgrade in UPGRADES.iter().filter(|upgrade| upgrade.from >= version) {
                check_room(&transaction, upgrade, version)?;
                transaction.execute_batch(upgrade.sql)?;
            }
            check_columns(&transaction)?;
        }
        (APPLICATION, version, _) if version > SCHEMA_VERSION => {
            return unusable(format!(
                "a newer framelet has made it (schema {version}, and this one knows {SCHEMA_VERSION}); use \
                 that one, or another file"
            ));
        }
        (0, 0, _) if check_columns(&transaction).is_ok() => {
            return unusable(format!(
                "it has the tables of framelet but not its mark, as if it was restored from a dump; if it is \
                 framelet's, set the mark with the program sqlite3: PRAGMA application_id = {APPLICATION}; \
                 PRAGMA user_version = {SCHEMA_VERSION};"
            ));
        }
        _ => {
            let tables = tables_of(&transaction)?;
            return unusable(format!(
                "it is the database of another program{tables}; give another file"
            ));
        }
    }
    // Done even if nothing changes: a server that was killed may have left a commit that is not synced.
    // This commit syncs the whole log before any count is reported.
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    transaction.commit()?;
    // Not possible in a transaction. The pragma can report success and fail afterwards.
    let mut set_mode = connection.prepare("PRAGMA journal_mode = WAL")?;
    let mut answers = set_mode.query([])?;
    let mut mode = String::new();
    while let Some(answer) = answers.next()? {
        mode = answer.get(0)?;
    }
    if mode != "wal" {
        return unusable(format!(
            "its file system does not support SQLite's WAL mode (journal mode {mode}); use a file on a \
             local one"
        ));
    }
    Ok(count_senders(connection)?)
}

/// A column of a table.
struct Column {
    name: String,
    /// Whether each row must bring a value for it.
    is_required: bool,
}

/// Returns the columns of a table; none if there is no such table.
fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<Column>> {
    let mut query = connection
        .prepare("SELECT name, \"notnull\" AND dflt_value IS NULL FROM pragma_table_info(?1)")?;
    let column = |row: &Row<'_>| Ok(Column { name: row.get(0)?, is_required: row.get(1)? });
    query.query_map([table], column)?.collect()
}

/// Returns whether the column has this name. SQLite compares names without regard to case.
fn is_named(column: &Column, name: &str) -> bool {
    column.name.eq_ignore_ascii_case(name)
}

/// Checks that what an upgrade adds is not there already: users may have added it themselves.
fn check_room(connection: &Connection, upgrade: &Upgrade, version: i64) -> Result<(), Failed> {
    for (table, added) in upgrade.adds {
        let present = columns(connection, table)?;
        let (what, rename) = match added {
            None if !present.is_empty() => {
                (format!("a table {table}"), format!("ALTER TABLE {table} RENAME TO my_{table}"))
            }
            Some(name) if present.iter().any(|column| is_named(column, name)) => (
                format!("a column {name} in its table {table}"),
                format!("ALTER TABLE {table} RENAME COLUMN {name} TO my_{name}"),
            ),
            _ => continue,
        };
        return unusable(format!(
            "an older framelet has made it (schema {version}), and it has {what} that framelet has not made and \
             now needs; rename yours with the program sqlite3, as in {rename}, or give another file"
        ));
    }
    Ok(())
}

/// Checks that the tables have all columns of the current version, and no other one that must be filled.
fn check_columns(connection: &Connection) -> Result<(), Failed> {
    for (table, expected) in COLUMNS {
        let present = columns(connection, table)?;
        let is_missing = |name: &&&str| !present.iter().any(|column| is_named(column, name));
        if let Some(missing) = expected.iter().find(is_missing) {
            let what = match present.is_empty() {
                true => format!("no table {table}"),
                false => format!("no column {missing} in its table {table}"),
            };
            return unusable(format!(
                "it has {what}, although its mark says schema {SCHEMA_VERSION}: another program has changed \
                 it; restore it from a copy, or give another file"
            ));
        }
        let is_other = |column: &&Column| !expected.iter().any(|name| is_named(column, name));
        if let Some(other) = present.iter().filter(is_other).find(|column| column.is_required) {
            let name = Escaped(other.name.as_bytes());
            return unusable(format!(
                "its table {table} has a column {name} that framelet has not made and cannot fill; let it be \
                 null or give it a default, or give another file"
            ));
        }
    }
    Ok(())
}

/// Returns the names of a few tables in parentheses, so that a user knows which database it is.
fn tables_of(connection: &Connection) -> rusqlite::Result<String> {
    let mut query = connection.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name",
    )?;
    let names: Vec<String> = query.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let shown: Vec<String> =
        names.iter().take(3).map(|name| Escaped(name.as_bytes()).to_string()).collect();
    let more = if names.len() > shown.len() { ", …" } else { "" };
    Ok(match shown.is_empty() {
        true => String::new(),
        false => format!(" (its tables: {}{more})", shown.join(", ")),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use rusqlite::params;

    use super::*;
    use crate::message::Batch;
    use crate::message::tests::{batch, origin};
    use crate::sink::message_sink::MessageSink;
    use crate::sink::sqlite::SqliteSink;
    use crate::sink::sqlite::sqlite_sink::tests::{id, number, open};
    use crate::wire::ack::checksum;
    use crate::wire::sender_id::SenderId;

    #[test]
    fn a_database_that_cannot_be_used_is_refused_in_words() {
        let directory = tempfile::tempdir().unwrap();
        let error = SqliteSink::open(directory.path().join("nowhere/messages.db")).unwrap_err();
        assert!(error.to_string().contains("messages.db: no such file or directory"), "{error}");
        for (version, words) in [
            (5, "a newer framelet has made it (schema 5, and this one knows 4)"),
            (0, "it is the database of another program (its tables: last_id, messages, senders)"),
        ] {
            let sink = open(&directory).unwrap();
            sink.connection.pragma_update(None, "user_version", version).unwrap();
            drop(sink);
            let error = open(&directory).unwrap_err().to_string();
            assert!(error.contains(words), "{version}: {error}");
            let connection = Connection::open(directory.path().join("messages.db")).unwrap();
            connection.pragma_update(None, "user_version", SCHEMA_VERSION).unwrap();
        }
    }

    #[test]
    fn a_database_that_users_have_changed_is_refused_with_what_and_how_to_mend_it() {
        let back = "ALTER TABLE messages DROP COLUMN header; PRAGMA user_version = 3;";
        let to_2 = "ALTER TABLE senders DROP COLUMN checksum; PRAGMA user_version = 2;";
        let to_1 = "DROP TABLE last_id; ALTER TABLE senders DROP COLUMN last_id; \
                    PRAGMA user_version = 1;";
        for (change, words, mended_by) in [
            (
                [back, "ALTER TABLE messages ADD COLUMN Header TEXT DEFAULT 'mine'"].concat(),
                "(schema 3), and it has a column header in its table messages that framelet has not made",
                "ALTER TABLE messages RENAME COLUMN header TO my_header",
            ),
            (
                [back, to_2, "ALTER TABLE senders ADD COLUMN checksum"].concat(),
                "(schema 2), and it has a column checksum in its table senders",
                "ALTER TABLE senders RENAME COLUMN checksum TO my_checksum",
            ),
            (
                [back, to_2, to_1, "CREATE TABLE last_id (mine)"].concat(),
                "(schema 1), and it has a table last_id that framelet has not made",
                "ALTER TABLE last_id RENAME TO my_last_id",
            ),
            (
                "ALTER TABLE messages DROP COLUMN header".into(),
                "it has no column header in its table messages, although its mark says schema 4",
                "ALTER TABLE messages ADD COLUMN header BLOB",
            ),
            (
                "DROP TABLE last_id".into(),
                "it has no table last_id, although its mark says schema 4",
                "CREATE TABLE last_id (id INTEGER NOT NULL)",
            ),
            (
                "DROP TABLE messages; CREATE TABLE messages (id INTEGER PRIMARY KEY, received, peer, \
                 connection, number, sender, payload, header, \"my\ncolumn\" TEXT NOT NULL)"
                    .into(),
                r"its table messages has a column my\ncolumn that framelet has not made and cannot fill",
                "ALTER TABLE messages DROP COLUMN \"my\ncolumn\"",
            ),
            (
                "PRAGMA application_id = 0; PRAGMA user_version = 0".into(),
                "restored from a dump; if it is framelet's, set the mark",
                "PRAGMA application_id = 1718774900; PRAGMA user_version = 4;",
            ),
        ] {
            let directory = tempfile::tempdir().unwrap();
            drop(open(&directory).unwrap());
            let connection = Connection::open(directory.path().join("messages.db")).unwrap();
            connection.execute_batch(&change).unwrap();
            let error = open(&directory).unwrap_err().to_string();
            assert!(error.starts_with("cannot open /") && error.contains(words), "{error}");
            // Nothing was changed, and what the error says works.
            let again = open(&directory).unwrap_err().to_string();
            assert_eq!(again, error);
            connection.execute_batch(mended_by).unwrap();
            let mut sink = open(&directory).unwrap();
            sink.commit(&[batch(&origin(Some((id(1), 0))), &[b"a"])]).unwrap();
            assert_eq!(number(&sink, "SELECT count(*) FROM messages"), 1);
        }
    }

    #[test]
    fn columns_that_users_have_added_are_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let sink = open(&directory).unwrap();
        let added = "ALTER TABLE messages ADD COLUMN seen; \
                     ALTER TABLE messages ADD COLUMN tag TEXT NOT NULL DEFAULT 'new';";
        sink.connection.execute_batch(added).unwrap();
        drop(sink);
        let mut sink = open(&directory).unwrap();
        sink.commit(&[batch(&origin(None), &[b"a"])]).unwrap();
        assert_eq!(number(&sink, "SELECT count(*) FROM messages WHERE tag = 'new'"), 1);
    }

    #[test]
    fn the_database_of_another_program_is_refused_with_its_tables() {
        let directory = tempfile::tempdir().unwrap();
        let connection = Connection::open(directory.path().join("messages.db")).unwrap();
        connection.execute_batch("CREATE TABLE messages (id INTEGER PRIMARY KEY, header)").unwrap();
        let error = open(&directory).unwrap_err().to_string();
        assert!(error.contains("another program (its tables: messages); give another"), "{error}");
        connection
            .execute_batch("CREATE TABLE a (b); CREATE TABLE c (d); CREATE TABLE z (e)")
            .unwrap();
        let error = open(&directory).unwrap_err().to_string();
        assert!(error.contains("(its tables: a, c, messages, …)"), "{error}");
    }

    #[test]
    fn each_commit_is_synced() {
        let directory = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let sink = open(&directory).unwrap();
            // 2 is FULL: the log is synced at each commit. With 1, only when it is copied.
            assert_eq!(number(&sink, "SELECT synchronous FROM pragma_synchronous"), 2);
            let mode: String =
                sink.connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
            assert_eq!(mode, "wal");
        }
    }

    /// What a server that was killed has written may not be synced yet; its successor tells senders of it.
    #[test]
    fn opening_a_database_commits_something_so_that_its_log_is_synced() {
        let directory = tempfile::tempdir().unwrap();
        drop(open(&directory).unwrap());
        let log = directory.path().join("messages.db-wal");
        assert!(!log.exists());
        let _sink = open(&directory).unwrap();
        assert!(log.metadata().unwrap().len() > 0);
    }

    /// The tables of version 1, with a message and these senders.
    pub(in crate::sink::sqlite) fn version_1(
        directory: &tempfile::TempDir,
        senders: &[(SenderId, &str)],
    ) {
        let connection = Connection::open(directory.path().join("messages.db")).unwrap();
        connection
            .execute_batch(
                "CREATE TABLE messages (id INTEGER PRIMARY KEY, received TEXT NOT NULL, peer TEXT,
                     connection INTEGER, number INTEGER NOT NULL, sender TEXT, payload BLOB NOT NULL);
                 CREATE TABLE senders (sender TEXT PRIMARY KEY, committed INTEGER NOT NULL,
                     seen TEXT NOT NULL) WITHOUT ROWID;
                 INSERT INTO messages VALUES (41, '2026-01-02T03:04:05.678Z', NULL, 1, 5, NULL, 'a');
                 PRAGMA application_id = 0x66726c74; PRAGMA user_version = 1;",
            )
            .unwrap();
        for (sender, seen) in senders {
            let insert = "INSERT INTO senders VALUES (?1, 5, ?2)";
            connection.execute(insert, params![sender.to_string(), seen]).unwrap();
        }
    }

    #[test]
    fn a_database_of_version_1_is_taken_over_with_its_senders_and_ids() {
        let directory = tempfile::tempdir().unwrap();
        version_1(&directory, &[(id(1), "2026-01-03T"), (id(2), "2026-01-02T")]);
        let mut sink = open(&directory).unwrap();
        assert_eq!([1, 2, 3].map(|n| sink.committed(id(n)).unwrap()), [Some(5), Some(5), Some(0)]);
        assert_eq!(sink.last_checksums(&[id(1)]).unwrap(), [None]);
        sink.connection.execute("DELETE FROM messages", []).unwrap();
        sink.commit(&[batch(&origin(Some((id(1), 5))), &[b"b"])]).unwrap();
        assert_eq!(number(&sink, "SELECT id FROM messages"), 42);
        drop(sink);
        let mut sink = open(&directory).unwrap();
        assert_eq!(sink.committed(id(1)).unwrap(), Some(6));
        // Who was silent for longer is forgotten first.
        sink.senders.most = 2;
        sink.commit(&[batch(&origin(Some((id(3), 0))), &[b"c"])]).unwrap();
        assert_eq!([1, 2, 3].map(|n| sink.committed(id(n)).unwrap()), [Some(6), Some(0), Some(1)]);
    }

    #[test]
    fn a_database_of_version_2_is_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let mut sink = open(&directory).unwrap();
        sink.commit(&[batch(&origin(Some((id(1), 0))), &[b"a"])]).unwrap();
        let back = "ALTER TABLE senders DROP COLUMN checksum; \
                    ALTER TABLE messages DROP COLUMN header; PRAGMA user_version = 2;";
        sink.connection.execute_batch(back).unwrap();
        drop(sink);
        let mut sink = open(&directory).unwrap();
        assert_eq!(sink.committed(id(1)).unwrap(), Some(1));
        assert_eq!(sink.last_checksums(&[id(1)]).unwrap(), [None]);
        sink.commit(&[batch(&origin(Some((id(1), 1))), &[b"b"])]).unwrap();
        assert_eq!(sink.last_checksums(&[id(1)]).unwrap(), [Some(checksum(b"b"))]);
    }

    #[test]
    fn a_database_of_version_3_is_taken_over_with_its_messages_as_they_are() {
        let directory = tempfile::tempdir().unwrap();
        let mut sink = open(&directory).unwrap();
        sink.commit(&[batch(&origin(Some((id(1), 0))), &[b"a"])]).unwrap();
        let back = "ALTER TABLE messages DROP COLUMN header; PRAGMA user_version = 3;";
        sink.connection.execute_batch(back).unwrap();
        drop(sink);
        let mut sink = open(&directory).unwrap();
        assert_eq!(sink.last_checksums(&[id(1)]).unwrap(), [Some(checksum(b"a"))]);
        let layout = "h1:u32be".parse().unwrap();
        let new = Batch::with_headers(origin(None), layout, [("Q", "b")]).unwrap();
        sink.commit(&[new]).unwrap();
        let rows = "SELECT count(*) FROM messages WHERE (id, CAST(payload AS TEXT), header) IS ";
        assert_eq!(number(&sink, &format!("{rows} (1, 'a', NULL)")), 1);
        assert_eq!(number(&sink, &format!("{rows} (2, 'b', x'51')")), 1);
        drop(sink);
        // It has the tables of a new one.
        let other = tempfile::tempdir().unwrap();
        let columns = |sink: &SqliteSink| -> Vec<String> {
            let query = "SELECT name || type || \"notnull\" FROM pragma_table_info('messages')";
            let mut query = sink.connection.prepare(query).unwrap();
            query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
        };
        assert_eq!(columns(&open(&directory).unwrap()), columns(&open(&other).unwrap()));
    }
}
