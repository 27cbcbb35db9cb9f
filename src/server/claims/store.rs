//! A sink in memory.

use crate::message::Batch;
use crate::sink::message_sink::{MessageSink, SinkError};
use crate::wire::answer::RefusalCode;
use crate::wire::sender_id::SenderId;

/// A message in the sink: its connection, its number, its header and its payload.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) connection: u64,
    pub(super) sender: Option<SenderId>,
    pub(super) number: u64,
    pub(super) header: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

/// A sink that keeps everything.
#[derive(Default)]
pub(super) struct Store {
    pub(super) messages: Vec<Stored>,
    /// Whether it knows its senders, as a database does.
    pub(super) knows: bool,
    pub(super) refuses: bool,
}

impl Store {
    pub(super) fn last(&self, sender: SenderId) -> Option<u64> {
        let of_sender = |stored: &&Stored| stored.sender == Some(sender);
        self.messages.iter().rev().find(of_sender).map(|stored| stored.number)
    }
}

impl MessageSink for Store {
    fn commit(&mut self, batches: &[Batch]) -> Result<(), SinkError> {
        for batch in batches {
            if batch.sender().is_some() && std::mem::take(&mut self.refuses) {
                batch.refuse(RefusalCode::Fenced);
            }
            if batch.is_refused() {
                continue;
            }
            for message in batch {
                if let Some(before) = message.sender.and_then(|sender| self.last(sender)) {
                    assert_eq!(message.number, before + 1, "each message of a sender, and once");
                }
                self.messages.push(Stored {
                    connection: message.connection.expect("each message has a connection"),
                    sender: message.sender,
                    number: message.number,
                    header: message.header.to_vec(),
                    payload: message.payload.into(),
                });
            }
        }
        Ok(())
    }

    fn committed(&mut self, sender: SenderId) -> Result<Option<u64>, SinkError> {
        Ok(self.last(sender).filter(|_| self.knows))
    }
}
