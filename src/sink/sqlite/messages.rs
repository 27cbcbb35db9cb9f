//! The rows of messages.

use std::time::SystemTime;

use humantime::format_rfc3339_millis;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, params};

use super::failure::{Failed, unusable};
use super::senders::{Senders, committed, forget, integer, remember};
use crate::message::Batch;

/// Without an id, a row gets the one after the highest present, which is faster than setting one.
const INSERT: &str = "INSERT INTO messages (received, peer, connection, number, sender, payload, \
                      header) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
const LAST_IDS: &str = "SELECT coalesce((SELECT max(id) FROM messages), 0), \
                        coalesce((SELECT max(id) FROM last_id), 0)";
const SET_ID: &str = "UPDATE messages SET id = ?1 WHERE id = ?2";
const SET_LAST_ID: &str = "REPLACE INTO last_id (rowid, id) VALUES (1, ?1)";

/// Inserts the new messages of these batches. Returns the number of senders afterwards.
pub(super) fn insert(
    connection: &Connection,
    batches: &[Batch],
    mut senders: Senders,
) -> Result<Senders, Failed> {
    let mut insert = connection.prepare_cached(INSERT)?;
    let (mut highest, used): (i64, i64) =
        connection.prepare_cached(LAST_IDS)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    // Other programs may have added messages as well.
    let before = highest.max(used);
    let (mut id, mut new_senders) = (before, 0);
    for batch in batches {
        let sender = batch.sender().map(|sender| sender.to_string());
        let known = match &sender {
            Some(sender) => committed(connection, sender)?,
            None => None,
        };
        let fresh = match sender {
            Some(_) => batch.after(known.unwrap_or(0)),
            None => Some(batch.clone()),
        };
        let Some(batch) = fresh else { continue };
        let mut origin = None;
        for message in batch.messages() {
            // The same for all messages of a batch.
            let (received, peer) = &*origin.get_or_insert_with(|| {
                let received = message.received.unwrap_or_else(SystemTime::now);
                let received = format_rfc3339_millis(received).to_string();
                (received, message.peer.map(ToString::to_string))
            });
            let Some(next) = id.checked_add(1) else {
                return unusable("it has a message with the highest possible id".into());
            };
            id = next;
            let header = message.header.to_bytes();
            insert.execute(params![
                received,
                peer,
                message.connection.map(integer),
                integer(message.number),
                sender,
                value(message.payload),
                (!header.is_empty()).then_some(&*header),
            ])?;
            if highest + 1 != id {
                // The rows with the highest ids were deleted.
                connection.prepare_cached(SET_ID)?.execute([id, highest + 1])?;
            }
            highest = id;
        }
        if let Some(sender) = &sender {
            remember(connection, sender, &batch, id)?;
            new_senders += i64::from(known.is_none());
        }
    }
    if id > before {
        connection.prepare_cached(SET_LAST_ID)?.execute([id])?;
    }
    senders.now += new_senders;
    if new_senders > 0 && senders.now > senders.most {
        forget(connection, &mut senders)?;
    }
    Ok(senders)
}

fn value(payload: &[u8]) -> ToSqlOutput<'_> {
    // SQLite's functions end a text at a NUL character.
    let text = memchr::memchr(0, payload).is_none() && str::from_utf8(payload).is_ok();
    ToSqlOutput::Borrowed(if text { ValueRef::Text(payload) } else { ValueRef::Blob(payload) })
}

#[cfg(test)]
mod tests {
    use crate::message::Batch;
    use crate::message::tests::{batch, origin};
    use crate::sink::message_sink::MessageSink;
    use crate::sink::sqlite::sqlite_sink::tests::{fatal, number, open};

    #[test]
    fn a_payload_is_text_where_it_can_be() {
        let directory = tempfile::tempdir().unwrap();
        let mut sink = open(&directory).unwrap();
        let payloads = ["a".as_bytes(), "\u{e9}".as_bytes(), b"", b"a\0b", b"\xff", b"\xff\0"];
        sink.commit(&[batch(&origin(None), &payloads)]).unwrap();
        let mut query = sink.connection.prepare("SELECT typeof(payload) FROM messages").unwrap();
        let types: Vec<String> =
            query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        assert_eq!(types, ["text", "text", "text", "blob", "blob", "blob"]);
    }

    #[test]
    fn a_header_is_a_blob_and_null_where_there_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let mut sink = open(&directory).unwrap();
        let git = "hex4+self".parse().unwrap();
        let of_git = [("0000", ""), ("", "a")];
        sink.commit(&[
            batch(&origin(None), &[b"plain"]),
            Batch::with_headers(origin(None), "h2:u8".parse().unwrap(), [("ab", "c")]).unwrap(),
            Batch::with_headers(origin(None), git, of_git).unwrap(),
        ])
        .unwrap();
        let mut query = sink.connection.prepare("SELECT header FROM messages ORDER BY id").unwrap();
        let headers: Vec<Option<Vec<u8>>> =
            query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        assert_eq!(headers, [None, Some(b"ab".into()), Some(b"0000".into()), None]);
    }

    #[test]
    fn no_id_is_used_again_whatever_is_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let mut sink = open(&directory).unwrap();
        let mut last = 0;
        let deletions = [
            "DELETE FROM messages",
            "DELETE FROM messages WHERE id >= (SELECT max(id) - 1 FROM messages)",
        ];
        for round in 0..6 {
            sink.commit(&[batch(&origin(None), &[b"a", b"b", b"c"])]).unwrap();
            let newest = number(&sink, "SELECT max(id) FROM messages");
            assert_eq!(newest, last + 3);
            last = newest;
            sink.connection.execute(deletions[round / 3], []).unwrap();
            if round % 2 == 0 {
                drop(sink);
                sink = open(&directory).unwrap();
            }
        }
        // Another program's ids are no reason to stop, but the highest one that there can be is.
        let other = "INSERT INTO messages (id, received, number, payload) VALUES (?1, '', 1, '')";
        sink.connection.execute(other, [1000]).unwrap();
        sink.commit(&[batch(&origin(None), &[b"a"])]).unwrap();
        assert_eq!(number(&sink, "SELECT max(id) FROM messages"), 1001);
        sink.connection.execute(other, [i64::MAX]).unwrap();
        let error = fatal(sink.commit(&[batch(&origin(None), &[b"a"])]));
        assert!(error.contains("highest possible id"), "{error}");
    }
}
