//! The interface between a server and its sink.

use std::fmt;
use std::io;

use super::keep::Pruned;
use crate::message::Batch;
use crate::wire::sender_id::SenderId;

/// Stores the messages of a server.
///
/// # Examples
///
/// A sink that adds up the lengths of messages:
///
/// ```
/// use framelet::sink::{MessageSink, SinkError};
/// use framelet::Batch;
///
/// struct Sum(usize);
///
/// impl MessageSink for Sum {
///     fn commit(&mut self, batches: &[Batch]) -> Result<(), SinkError> {
///         for message in batches.iter().flat_map(Batch::messages) {
///             self.0 += message.payload.len();
///         }
///         Ok(())
///     }
/// }
/// ```
///
/// A sink that knows its senders, so that no message is stored twice:
///
/// ```
/// use framelet::message::Origin;
/// use framelet::net::Peer;
/// use framelet::sink::{MessageSink, SinkError};
/// use framelet::wire::SenderId;
/// use framelet::Batch;
/// use std::collections::HashMap;
///
/// #[derive(Default)]
/// struct Latest {
///     payloads: Vec<Vec<u8>>,
///     /// The count and the last checksum of each sender.
///     senders: HashMap<SenderId, (u64, u64)>,
/// }
///
/// impl MessageSink for Latest {
///     fn commit(&mut self, batches: &[Batch]) -> Result<(), SinkError> {
///         for batch in batches {
///             let known = batch.sender().map(|sender| self.senders.entry(sender).or_default());
///             let count = known.as_ref().map_or(0, |known| known.0);
///             let Some(new) = batch.after(count) else { continue };
///             self.payloads.extend(new.messages().map(|message| message.payload.to_vec()));
///             if let Some(known) = known {
///                 *known = (new.last_number(), new.last_checksum());
///             }
///         }
///         Ok(())
///     }
///
///     fn committed(&mut self, sender: SenderId) -> Result<Option<u64>, SinkError> {
///         Ok(Some(self.senders.get(&sender).map_or(0, |known| known.0)))
///     }
///
///     fn last_checksums(&mut self, senders: &[SenderId]) -> Result<Vec<Option<u64>>, SinkError> {
///         Ok(senders.iter().map(|sender| Some(self.senders.get(sender)?.1)).collect())
///     }
/// }
///
/// let (mut sink, sender) = (Latest::default(), SenderId::from_bytes([1; 16]));
/// let batch = Batch::new(Origin::new(1, Peer::Unix).with_sender(sender, 0), ["21.5", "21.7"]);
/// sink.commit(&[batch.clone()])?;
/// sink.commit(&[batch.clone()])?; // the client has sent them again
/// assert_eq!(sink.payloads, [b"21.5", b"21.7"]);
/// let stranger = SenderId::from_bytes([2; 16]);
/// assert_eq!(sink.committed_by_each(&[sender, stranger])?, [Some(2), Some(0)]);
/// assert_eq!(sink.last_checksums(&[sender])?, [Some(batch.last_checksum())]);
/// # Ok::<(), SinkError>(())
/// ```
pub trait MessageSink: Send {
    /// Stores all these messages, and returns once they are as safe as this sink promises.
    ///
    /// May block. Messages of one connection arrive in the order in which they were sent, within a batch
    /// and across batches.
    ///
    /// A sink with transactions should store the count of each [`Batch::sender`] in the same transaction,
    /// for [`MessageSink::committed`]. A sender may send a message again if it did not learn that it was
    /// committed; the server removes such repetitions as long as it remembers the sender.
    ///
    /// If another server has taken over a sender, the sink cannot store that sender's messages: it then
    /// calls [`Batch::refuse`] on them.
    ///
    /// # Errors
    ///
    /// [`SinkError::Transient`] if the same call may succeed later. The server logs that once and calls
    /// again with the same batches, except [refused](Batch::refuse) ones. So the sink must have stored
    /// nothing of them, or must recognize them the next time. [`SinkError::Fatal`] ends the server.
    fn commit(&mut self, batches: &[Batch]) -> Result<(), SinkError>;

    /// Returns how many messages of `sender` are committed, which is the number of its last one. Called
    /// when a client connects that asks for acknowledgements, after everything from an older connection of
    /// this sender is committed. A sink that several servers share can use the call to give this server the
    /// right to commit messages of `sender`.
    ///
    /// A sink that returns `Some` must itself skip messages that it already has.
    ///
    /// The default, `None`, means that the sink does not know. Then the server keeps the counts while it
    /// runs, of the 100,000 senders with the latest messages. For an unknown sender it trusts the first
    /// number in its hello: everything before that counts as committed.
    ///
    /// # Errors
    ///
    /// The same as those of [`commit`](MessageSink::commit).
    fn committed(&mut self, sender: SenderId) -> Result<Option<u64>, SinkError> {
        let _ = sender;
        Ok(None)
    }

    /// Answers [`MessageSink::committed`] for several senders, in order. The default asks for each of them.
    /// Implement it if one question about many senders is cheaper than many questions, for example if the data
    /// is on another machine.
    ///
    /// # Errors
    ///
    /// The same as those of [`commit`](MessageSink::commit).
    fn committed_by_each(&mut self, senders: &[SenderId]) -> Result<Vec<Option<u64>>, SinkError> {
        senders.iter().map(|sender| self.committed(*sender)).collect()
    }

    /// Returns, for each of several senders in order, the checksum of the last message that
    /// [`MessageSink::committed`] counts: the [`Batch::last_checksum`] of its batch. A sink that stores the
    /// count of a sender should store this with it. A client that resumes an input compares it, so that it
    /// does not skip the beginning of a different input.
    ///
    /// `None`, the default for each, means that the sink does not know; then the server uses the checksum that
    /// it remembers itself.
    ///
    /// # Errors
    ///
    /// The same as those of [`commit`](MessageSink::commit).
    fn last_checksums(&mut self, senders: &[SenderId]) -> Result<Vec<Option<u64>>, SinkError> {
        Ok(vec![None; senders.len()])
    }

    /// Reopens the sink's output, for example because the file was renamed for log rotation. Everything
    /// received before has been committed by then. The default does nothing.
    ///
    /// # Errors
    ///
    /// The same as those of [`commit`](MessageSink::commit).
    fn reopen(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Removes a bounded number of the oldest messages, if the sink is to keep only so much and it is time for
    /// that. Called after each commit, and when [`Pruned::next`] asks for it. The default removes nothing.
    ///
    /// # Errors
    ///
    /// The same as those of [`commit`](MessageSink::commit), but after a transient one the server does not wait:
    /// the next call tries again.
    fn prune(&mut self) -> Result<Pruned, SinkError> {
        Ok(Pruned::default())
    }
}

impl<S: MessageSink + ?Sized> MessageSink for Box<S> {
    fn commit(&mut self, batches: &[Batch]) -> Result<(), SinkError> {
        (**self).commit(batches)
    }

    fn committed(&mut self, sender: SenderId) -> Result<Option<u64>, SinkError> {
        (**self).committed(sender)
    }

    fn committed_by_each(&mut self, senders: &[SenderId]) -> Result<Vec<Option<u64>>, SinkError> {
        (**self).committed_by_each(senders)
    }

    fn last_checksums(&mut self, senders: &[SenderId]) -> Result<Vec<Option<u64>>, SinkError> {
        (**self).last_checksums(senders)
    }

    fn reopen(&mut self) -> Result<(), SinkError> {
        (**self).reopen()
    }

    fn prune(&mut self) -> Result<Pruned, SinkError> {
        (**self).prune()
    }
}

/// Why a sink could not do what was asked.
///
/// An [`io::Error`] converts to a fatal error.
///
/// # Examples
///
/// ```
/// use framelet::sink::SinkError;
/// use std::io;
///
/// fn failed(error: io::Error) -> SinkError {
///     match error.kind() {
///         io::ErrorKind::StorageFull => SinkError::Transient(error),
///         _ => SinkError::Fatal(error),
///     }
/// }
/// assert!(matches!(failed(io::ErrorKind::StorageFull.into()), SinkError::Transient(_)));
/// ```
#[derive(Debug)]
pub enum SinkError {
    /// The same call may succeed later, for example once the disk has room again. The server waits and
    /// calls again.
    Transient(io::Error),
    /// No later call can succeed. This ends the server.
    Fatal(io::Error),
}

impl From<io::Error> for SinkError {
    fn from(error: io::Error) -> SinkError {
        SinkError::Fatal(error)
    }
}

impl From<SinkError> for io::Error {
    fn from(error: SinkError) -> io::Error {
        match error {
            SinkError::Transient(error) | SinkError::Fatal(error) => error,
        }
    }
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SinkError::Transient(error) | SinkError::Fatal(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SinkError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SinkError::Transient(error) | SinkError::Fatal(error) => Some(error),
        }
    }
}
