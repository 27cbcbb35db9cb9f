//! What a server needs of the place where it puts messages.

use std::fmt;
use std::io;

use crate::message::Batch;
use crate::wire::sender_id::SenderId;

/// Takes messages in.
///
/// # Examples
///
/// A sink that adds up lengths:
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
pub trait MessageSink: Send {
    /// Takes all these messages in, and returns once they are as safe as this sink promises.
    ///
    /// It may block. Messages of one connection come in the order in which they were sent, in one
    /// batch and from batch to batch.
    ///
    /// A sink with transactions stores in the same transaction how far each [`Batch::sender`] has come,
    /// for [`MessageSink::committed`]. A message that a sender has sent again, since it did not know that it
    /// was committed, does not come here again as long as the server remembers the sender.
    ///
    /// Where some of the messages cannot be taken since another server has taken over their sender, the
    /// sink says so with [`Batch::refuse`].
    ///
    /// # Errors
    ///
    /// [`SinkError::Transient`] if the same call may succeed later: the server logs that once and calls
    /// again, with the same batches less those that were [refused](Batch::refuse). So nothing of
    /// them may be left, or it must be recognized when they come again. [`SinkError::Fatal`] ends
    /// the server.
    fn commit(&mut self, batches: &[Batch]) -> Result<(), SinkError>;

    /// Returns how many messages of `sender` are committed: the number of its last one. It is asked
    /// when a client connects that wants acknowledgements, after everything that came over an older
    /// connection of this sender. A sink that several servers share can make this server the one that
    /// may commit messages of `sender`.
    ///
    /// A sink that knows it has to leave out by itself what it has already.
    ///
    /// `None`, which is what this returns unless it is implemented, means that the sink does not know.
    /// Then the server remembers it while it runs, of the 100,000 senders with the latest messages. Of a
    /// sender that it does not remember it believes what that one knows itself: that everything before
    /// the first message that it can send is committed.
    ///
    /// # Errors
    ///
    /// As those of a commit.
    fn committed(&mut self, sender: SenderId) -> Result<Option<u64>, SinkError> {
        let _ = sender;
        Ok(None)
    }

    /// Answers [`MessageSink::committed`] for several senders, in their order. To be implemented where many
    /// questions at once cost less than each on its own, for example a way to another machine.
    ///
    /// # Errors
    ///
    /// As those of a commit.
    fn committed_by_each(&mut self, senders: &[SenderId]) -> Result<Vec<Option<u64>>, SinkError> {
        senders.iter().map(|sender| self.committed(*sender)).collect()
    }

    /// Returns the checksum of the last message that [`MessageSink::committed`] counts, for each of several
    /// senders in their order: what [`Batch::last_checksum`] said of the batch with which it came. A sink that
    /// stores how far a sender has come stores this with it. A client that resumes an input compares it, so
    /// that another input is not taken for the one whose beginning was sent.
    ///
    /// `None` means that the sink does not know; then what the server remembers while it runs counts.
    ///
    /// # Errors
    ///
    /// As those of a commit.
    fn last_checksums(&mut self, senders: &[SenderId]) -> Result<Vec<Option<u64>>, SinkError> {
        Ok(vec![None; senders.len()])
    }

    /// Opens again what it writes to, for example since the file was renamed to start a new one. All
    /// that was received before is committed by then.
    ///
    /// # Errors
    ///
    /// As those of a commit.
    fn reopen(&mut self) -> Result<(), SinkError> {
        Ok(())
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
}

/// Why a sink could not do what it was asked to do.
///
/// An [`io::Error`] becomes a fatal one.
#[derive(Debug)]
pub enum SinkError {
    /// The same call may succeed later, for example once a disk has room again. The server waits and
    /// calls again.
    Transient(io::Error),
    /// No later call will succeed. It ends the server.
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
