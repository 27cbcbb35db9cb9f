//! Why messages are not known to be committed.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::window::CountFault;
use crate::net::address::ParseAddressError;
use crate::wire::ack::UnsupportedLayout;
use crate::wire::answer::{InvalidAnswer, Refusal};
use crate::wire::count::Count;
use crate::wire::error::{Fault, ProtocolError};
use crate::wire::escape::{Escaped, SpacedHex};
use crate::wire::io_error::Plain;
use crate::wire::layout::{DEFAULT_MAX_MESSAGE, EncodeError, LimitError};
use crate::wire::sender_id::SenderId;
use crate::wire::suspect::Suspect;

/// Why messages are not known to be committed.
///
/// # Examples
///
/// ```
/// use framelet::client::{AckError, AckOptions};
/// use framelet::AckClient;
///
/// # smol::block_on(async {
/// match AckClient::connect("localhost", AckOptions::new()).await {
///     Err(AckError::Refused { refusal, .. }) => panic!("the server refuses: {refusal}"),
///     Err(AckError::Address(error)) => assert!(error.to_string().contains("a port is missing")),
///     other => panic!("{other:?}"),
/// }
/// # });
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AckError {
    /// The message is too long. Nothing of it was sent, and the client can still be used.
    Encode(EncodeError),
    /// Not a valid address.
    Address(ParseAddressError),
    /// There are no acknowledgements in this layout.
    Layout(UnsupportedLayout),
    /// The limit is more than the layout can express.
    Limit(LimitError),
    /// [`finish`](crate::AckClient::finish) was called; the client takes no more messages.
    Finished,
    /// The system cannot generate a sender id.
    Random(Arc<io::Error>),
    /// The server does not answer like one that gives acknowledgements. Nothing was sent to it.
    NoAcknowledgements(AnswerError),
    /// The server refused the client.
    Refused {
        /// Why.
        refusal: Refusal,
        /// The sender that was refused.
        sender: SenderId,
    },
    /// The server has fewer messages of the sender than it had acknowledged, and the client no longer has
    /// them. See [`AckOptions::renumber`](crate::client::AckOptions::renumber).
    Behind {
        /// How many the server has.
        server: u64,
        /// How many were acknowledged.
        committed: u64,
        /// How many messages the client has taken in all: those after the acknowledged ones can still be
        /// sent.
        sent: u64,
        /// Whose messages they are.
        sender: SenderId,
    },
    /// The server broke the protocol.
    Protocol {
        /// How.
        error: AnswerError,
        /// The sender that it answered.
        sender: SenderId,
    },
    /// There was no connection for longer than [`AckOptions::retry`](crate::client::AckOptions::retry).
    Lost {
        /// What failed last.
        error: Arc<io::Error>,
        /// How many messages the client has taken in all.
        sent: u64,
        /// How many of them are known to be committed.
        committed: u64,
        /// A client with this sender id can send the rest.
        sender: SenderId,
    },
}

/// What a client got instead of an acknowledgement.
///
/// # Examples
///
/// A server of another kind:
///
/// ```
/// use framelet::client::{AckError, AckOptions, AnswerError};
/// use framelet::AckClient;
///
/// # smol::block_on(async {
/// # let listener = smol::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let address = listener.local_addr()?;
/// # smol::spawn(async move {
/// #     let stream = listener.accept().await.unwrap().0;
/// #     framelet::FrameWriter::new(stream.clone()).send(b"hi").await.unwrap();
/// #     smol::io::copy(stream, smol::io::sink()).await
/// # })
/// # .detach();
/// match AckClient::connect(address, AckOptions::new()).await {
///     Err(AckError::NoAcknowledgements(AnswerError::Payload(error))) => assert_eq!(error.length, 2),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), std::io::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum AnswerError {
    /// The connection failed or ended, or nothing arrived in time ([`io::ErrorKind::TimedOut`]).
    Io(Arc<io::Error>),
    /// The client's own first bytes: the server sends back what it receives.
    Echo,
    /// Something that is not a frame of an answer.
    Frame(Box<ProtocolError>),
    /// A frame that is not an answer.
    Payload(InvalidAnswer),
    /// A count that no server can have committed.
    Count(CountFault),
}

impl AnswerError {
    /// Says what happened before there was any answer.
    pub(super) fn before_an_answer(&self) -> String {
        match self {
            AnswerError::Io(error) if error.kind() == io::ErrorKind::TimedOut => self.to_string(),
            AnswerError::Io(_) => format!("{self} before it answered"),
            AnswerError::Echo => self.to_string(),
            AnswerError::Frame(error) => format!("it sent {}", description(error)),
            AnswerError::Payload(error) => format!("it sent {}", error.description()),
            AnswerError::Count(_) => format!("its answer is invalid: {self}"),
        }
    }
}

/// Describes what came in place of the frame of an answer. The longest frame of an answer is no limit that
/// anybody can raise, so it is not named.
fn description(error: &ProtocolError) -> String {
    let ProtocolError { prefix, fault, suspect, .. } = error;
    let start = format!("{} \"{}\"", SpacedHex(prefix), Escaped(prefix));
    match (suspect, fault) {
        (Some(suspect), _) => format!("{start}; {suspect}"),
        // It may be the prefix of a message in another protocol.
        (None, Fault::TooLarge { length, .. }) if *length <= DEFAULT_MAX_MESSAGE as u64 => {
            format!("{start} (as a length, {length})")
        }
        (None, Fault::TooLarge { .. }) => start,
        (None, fault) => format!("{start}; {fault}"),
    }
}

impl From<io::Error> for AnswerError {
    fn from(error: io::Error) -> Self {
        AnswerError::Io(Arc::new(error))
    }
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnswerError::Io(error) => Plain(error).fmt(f),
            AnswerError::Echo => f.write_str("it sends back what it receives"),
            AnswerError::Frame(error) => {
                write!(f, "{}: expected an acknowledgement, got {}", error.at, description(error))
            }
            AnswerError::Payload(error) => error.fmt(f),
            AnswerError::Count(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for AnswerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            AnswerError::Io(error) => Some(&**error),
            AnswerError::Echo => None,
            AnswerError::Frame(error) => Some(&**error),
            AnswerError::Payload(error) => Some(error),
            AnswerError::Count(error) => Some(error),
        }
    }
}

impl fmt::Display for AckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AckError::Encode(error) => error.fmt(f),
            AckError::Address(error) => error.fmt(f),
            AckError::Layout(error) => error.fmt(f),
            AckError::Limit(error) => error.fmt(f),
            AckError::Finished => f.write_str("the client has been told to finish; use a new one"),
            AckError::Random(error) => {
                write!(f, "cannot generate a sender id: {}; choose one", Plain(error))
            }
            AckError::NoAcknowledgements(AnswerError::Frame(frame)) if matches!(&frame.suspect, Some(Suspect::Known(known)) if known.is_tls()) => {
                f.write_str("the server speaks TLS, and this client does not; nothing was sent")
            }
            AckError::NoAcknowledgements(error @ AnswerError::Io(io))
                if io.kind() != io::ErrorKind::TimedOut =>
            {
                write!(
                    f,
                    "this server seems to give no acknowledgements: {}; nothing was sent; it may \
                     also be full, or not let this client in (its log says which)",
                    error.before_an_answer()
                )
            }
            AckError::NoAcknowledgements(error) => write!(
                f,
                "this server seems to give no acknowledgements: {}; nothing was sent; \
                 send without acknowledgements, or to a server that gives them",
                error.before_an_answer()
            ),
            AckError::Refused { refusal, .. } => write!(f, "the server refuses: {refusal}"),
            AckError::Behind { server, committed, sent, .. } => {
                let (server, next) = (Count(*server, "message"), committed.saturating_add(1));
                write!(f, "the server has {server} of this sender, the client ")?;
                match sent.saturating_sub(*committed) {
                    0 => write!(f, "continues with {next}")?,
                    1 => write!(f, "offers {next}")?,
                    _ => write!(f, "offers {next} to {sent}")?,
                }
                f.write_str(": was the database replaced, or the sender forgotten?")
            }
            AckError::Protocol { error, .. } => error.fmt(f),
            AckError::Lost { error, sent, committed, .. } if sent == committed => {
                write!(f, "no connection to the server: {}", Plain(error))
            }
            AckError::Lost { error, sent, committed, sender } => write!(
                f,
                "the connection to the server was lost: {}; {committed} of {sent} messages are committed, \
                 the others may or may not be; resume as the same sender ({})",
                Plain(error),
                sender.short()
            ),
        }
    }
}

impl std::error::Error for AckError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            AckError::Encode(error) => Some(error),
            AckError::Address(error) => Some(error),
            AckError::Layout(error) => Some(error),
            AckError::Limit(error) => Some(error),
            AckError::Random(error) | AckError::Lost { error, .. } => Some(&**error),
            AckError::NoAcknowledgements(error) | AckError::Protocol { error, .. } => Some(error),
            AckError::Finished | AckError::Refused { .. } | AckError::Behind { .. } => None,
        }
    }
}
