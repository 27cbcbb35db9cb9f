//! A sink that stores messages in a SQLite database.
//!
//! The count of each sender is stored in the same transaction as the messages, so it is always exact.

mod failure; // what an error means, and what to do
mod files; // checks that the files still exist
mod messages; // the rows of messages
mod prune; // which messages are removed, and when
mod schema; // the tables, and how older ones are upgraded
mod senders; // the rows of senders, and which are forgotten
mod sqlite_sink; // the sink: transactions

pub use sqlite_sink::SqliteSink;
