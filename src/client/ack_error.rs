//! Why messages are not known to be committed.

use std::fmt;
use std::io;

use crate::wire::ack::{Refusal, UnfitLayout};
use crate::wire::count::Count;
use crate::wire::io_error::{Plain, same_again};
use crate::wire::layout::{LimitError, TooLong};
use crate::wire::sender_id::SenderId;

/// Why messages are not known to be committed.
#[derive(Debug)]
#[non_exhaustive]
pub enum AckError {
    /// The message is too long. Nothing of it was sent, and the client is as good as before.
    TooLong(TooLong),
    /// There are no acknowledgements in this layout.
    Layout(UnfitLayout),
    /// The limit is more than the layout can say.
    Limit(LimitError),
    /// The client has been told to finish, and takes no more messages.
    Finished,
    /// There is no new sender id to be had from the system.
    Random(io::Error),
    /// The server does not answer the hello as one does that gives acknowledgements. Nothing was sent.
    NoAcknowledgements {
        /// What it did instead.
        why: String,
    },
    /// The server goes no further.
    Refused {
        /// Why.
        refusal: Refusal,
        /// Who was refused.
        sender: SenderId,
    },
    /// The server has fewer messages of the sender than it had acknowledged, and the client has none of
    /// those any more. See [`AckOptions::renumber`].
    Behind {
        /// How many the server has.
        server: u64,
        /// How many were acknowledged.
        committed: u64,
        /// How many messages the client has taken, all in all: those after the acknowledged ones can still
        /// be sent.
        sent: u64,
        /// Whose messages they are.
        sender: SenderId,
    },
    /// What the server says cannot be.
    Protocol {
        /// What is wrong.
        what: String,
        /// Who was told so.
        sender: SenderId,
    },
    /// There was no connection for as long as the client was to try, or none at all.
    Lost {
        /// What failed last.
        error: io::Error,
        /// How many messages the client has taken, all in all.
        sent: u64,
        /// How many of them are known to be committed.
        committed: u64,
        /// Who can go on with the rest.
        sender: SenderId,
    },
}

impl Clone for AckError {
    fn clone(&self) -> Self {
        match self {
            AckError::TooLong(error) => AckError::TooLong(*error),
            AckError::Layout(error) => AckError::Layout(*error),
            AckError::Limit(error) => AckError::Limit(*error),
            AckError::Finished => AckError::Finished,
            AckError::Random(error) => AckError::Random(same_again(error)),
            AckError::NoAcknowledgements { why } => {
                AckError::NoAcknowledgements { why: why.clone() }
            }
            AckError::Refused { refusal, sender } => {
                AckError::Refused { refusal: refusal.clone(), sender: *sender }
            }
            AckError::Behind { server, committed, sent, sender } => AckError::Behind {
                server: *server,
                committed: *committed,
                sent: *sent,
                sender: *sender,
            },
            AckError::Protocol { what, sender } => {
                AckError::Protocol { what: what.clone(), sender: *sender }
            }
            AckError::Lost { error, sent, committed, sender } => AckError::Lost {
                error: same_again(error),
                sent: *sent,
                committed: *committed,
                sender: *sender,
            },
        }
    }
}

impl fmt::Display for AckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AckError::TooLong(error) => error.fmt(f),
            AckError::Layout(error) => error.fmt(f),
            AckError::Limit(error) => error.fmt(f),
            AckError::Finished => f.write_str("the client has been told to finish; use a new one"),
            AckError::Random(error) => {
                write!(f, "no random sender id to be had: {}; choose one", Plain(error))
            }
            AckError::NoAcknowledgements { why } => write!(
                f,
                "this server gives no acknowledgements, as far as can be seen: {why}; nothing was sent; \
                 send without acknowledgements, or to a server that gives them"
            ),
            AckError::Refused { refusal, .. } => write!(f, "the server refuses: {refusal}"),
            AckError::Behind { server, committed, sent, .. } => {
                let (server, next) = (Count(*server, "message"), committed.saturating_add(1));
                write!(f, "the server has {server} of this sender, the client ")?;
                match sent.saturating_sub(*committed) {
                    0 => write!(f, "goes on with {next}")?,
                    1 => write!(f, "offers {next}")?,
                    _ => write!(f, "offers {next} to {sent}")?,
                }
                f.write_str(": was the database replaced, or the sender forgotten?")
            }
            AckError::Protocol { what, .. } => f.write_str(what),
            AckError::Lost { error, sent, committed, .. } if sent == committed => {
                write!(f, "no connection to the server: {}", Plain(error))
            }
            AckError::Lost { error, sent, committed, sender } => write!(
                f,
                "the connection to the server was lost: {}; {committed} of {sent} messages are committed, \
                 the others may or may not be: go on as the same sender ({})",
                Plain(error),
                sender.short()
            ),
        }
    }
}

impl std::error::Error for AckError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            AckError::TooLong(error) => Some(error),
            AckError::Layout(error) => Some(error),
            AckError::Limit(error) => Some(error),
            AckError::Random(error) | AckError::Lost { error, .. } => Some(error),
            _ => None,
        }
    }
}
