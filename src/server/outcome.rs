//! How a connection ends, and what is logged about it.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use super::addresses::NotAdmitted;
use super::open_connection::OpenConnection;
use super::rate_limited_log::{About, Kind, RateLimitedLog};
use crate::net::byte_stream::Peer;
use crate::stream::error::ReadError;
use crate::wire::answer::RefusalCode;
use crate::wire::count::Count;
use crate::wire::error::{Fault, ProtocolError};
use crate::wire::io_error::Plain;
use crate::wire::layout::MAX_PAYLOAD;
use crate::wire::suspect::Suspect;

/// A stream that was not set up in time.
pub(crate) struct SetupLate {
    /// What took so long.
    pub(crate) stage: &'static str,
    pub(crate) timeout: Duration,
    /// Whether the peer had sent nothing at all.
    pub(crate) silent: bool,
}

/// How a connection ended. Small, since each connection reserves space for one: long variants are boxed.
pub(crate) enum Outcome {
    /// The peer closed it, and everything is committed. The only clean end.
    Closed,
    /// The server shut down, and everything received is committed.
    Drained,
    /// The peer was silent for too long.
    Idle(Duration),
    /// It was idle, and gave way to another connection.
    Evicted,
    /// The peer that the load balancer named may not connect, or not once more.
    NotAdmitted(Box<(Peer, NotAdmitted)>),
    /// The stream was not set up in time.
    SetupLate(Box<SetupLate>),
    /// The peer left before its first byte, as a probe does, so the stream was not set up.
    LeftAtOnce,
    /// The stream could not be set up: what failed, and why.
    Setup(Box<(&'static str, io::Error)>),
    /// The peer did not take its replies.
    NotTaken(Duration),
    /// It was cut off at shutdown.
    Aborted,
    /// The received bytes are not a message, or the stream failed.
    Read(Box<ReadError>),
    /// Replies could not be sent.
    Write(io::Error),
    /// The handler failed, or its reply was too long.
    HandlerFailed(String),
    /// The sink takes no more messages.
    SinkGone,
    /// The client asked for acknowledgements and gets none, or no more.
    Refused(RefusalCode),
    /// Messages are missing: the oldest message that the client has comes after the next one expected.
    Missing { committed: u64, oldest: u64 },
    /// The client's certificate does not allow the sender id. In words.
    ForeignSender(Box<str>),
    /// The client did not ask for acknowledgements, which this server requires.
    NotAsked,
}

/// Describes a gap between the committed messages and those that the client still has.
pub(crate) fn missing(committed: u64, oldest: u64) -> String {
    format!(
        "the server has {} of this sender, and the client's oldest is {oldest}: was the database \
         replaced?",
        Count(committed, "message")
    )
}

/// Logs that a connection of `peer` is not served.
pub(crate) fn report_refusal(log: About<'_>, peer: &Peer, why: NotAdmitted) {
    let kind = match why {
        NotAdmitted::NotAllowed => Kind::NotAllowed,
        NotAdmitted::NotBalancer => Kind::NotBalancer,
        NotAdmitted::AddressFull { .. } => Kind::AddressFull,
        NotAdmitted::Full { .. } => Kind::OverLimit,
    };
    log.say(kind, format_args!("refused a connection from {peer}: {why}"));
}

/// Logs the end of a connection; the only place that does.
pub(crate) fn report(
    log: &RateLimitedLog,
    connection: &OpenConnection,
    messages: u64,
    outcome: &Outcome,
) {
    let log = log.about(connection);
    let who = format_args!("connection {} from {}", connection.number, connection.peer());
    let messages = Count(messages, "message");
    match outcome {
        Outcome::LeftAtOnce => log.debug("closed", format_args!("{who}: closed without a message")),
        Outcome::Closed if messages.0 == 0 => {
            log.debug("closed", format_args!("{who}: closed without a message"))
        }
        Outcome::Closed => log.debug("closed", format_args!("{who}: closed after {messages}")),
        Outcome::Drained => {
            log.debug("closed", format_args!("{who}: reset at shutdown after {messages}"))
        }
        Outcome::Read(error) if is_empty(error) => {
            log.debug("closed", format_args!("{who}: {error}"))
        }
        Outcome::Idle(timeout) => {
            let timeout = humantime::format_duration(*timeout);
            let why = format_args!("the peer was idle for {timeout}");
            log.say(Kind::Idle, format_args!("{who}: reset after {messages}, since {why}"));
        }
        Outcome::Evicted => {
            let why = "it was idle when there could be no more connections";
            log.say(Kind::Evicted, format_args!("{who}: reset after {messages}, since {why}"));
        }
        Outcome::NotAdmitted(refused) => report_refusal(log, &refused.0, refused.1),
        Outcome::SetupLate(late) => {
            let SetupLate { stage, timeout, silent } = **late;
            let timeout = humantime::format_duration(timeout);
            let sent = if silent { "; the peer sent nothing" } else { "" };
            let line =
                format_args!("{who}: reset, since its {stage} took longer than {timeout}{sent}");
            log.say(Kind::SetupLate, line);
        }
        Outcome::Setup(failed) => {
            let (stage, error) = &**failed;
            log.say(Kind::Setup, format_args!("{who}: its {stage} failed: {}", Plain(error)));
        }
        Outcome::HandlerFailed(why) => {
            let line = format_args!("{who}: reset after {messages}, since {why}");
            log.say(Kind::HandlerFailed, line);
        }
        Outcome::NotTaken(timeout) => {
            let timeout = humantime::format_duration(*timeout);
            let why = format_args!("the peer took nothing of its replies for {timeout}");
            log.say(Kind::NotTaken, format_args!("{who}: reset after {messages}, since {why}"));
        }
        Outcome::Aborted => {
            let line = format_args!("{who}: cut off by the end of the server, after {messages}");
            log.say(Kind::Aborted, line);
        }
        Outcome::Read(error) => {
            log.say_about(&target(error), kind(error), format_args!("{who}: {error}"));
        }
        Outcome::Write(error) => {
            let what = if connection.acks().is_some() { "acknowledgements" } else { "replies" };
            let line = format_args!("{who}: cannot send {what}: {}", Plain(error));
            log.say(Kind::WriteFailed, line);
        }
        Outcome::Refused(code) => {
            let line = match messages.0 {
                0 => format!("{who}: refused: {code}"),
                _ => format!("{who}: refused after {messages}: {code}"),
            };
            log.say(Kind::Refused, line);
        }
        Outcome::Missing { committed, oldest } => {
            let line = format_args!("{who}: refused, since {}", missing(*committed, *oldest));
            log.say(Kind::Refused, line);
        }
        Outcome::ForeignSender(why) => {
            log.say(Kind::Refused, format_args!("{who}: refused, since {why}"));
        }
        Outcome::NotAsked => {
            let why = "the client asks for no acknowledgements";
            log.say(Kind::NotAsked, format_args!("{who}: reset, since {why}"));
        }
        Outcome::SinkGone => {
            let line = format_args!("{who}: cut off after {messages}, since the sink failed");
            log.say(Kind::SinkGone, line);
        }
    }
}

/// Returns whether the stream failed before its first byte, as with probes that only check whether somebody
/// listens. Nobody has lost anything then.
fn is_empty(error: &ReadError) -> bool {
    matches!(error, ReadError::Io { at, got: 0, .. } if at.offset == 0)
}

/// Returns the target of a line about the error: the option that most likely fixes it.
fn target(error: &ReadError) -> Cow<'static, str> {
    let ReadError::Protocol(ProtocolError { fault, suspect, .. }) = error else {
        return "framelet".into();
    };
    if matches!(suspect, Some(Suspect::Known(known)) if known.is_proxy_header()) {
        return "framelet::proxy_protocol".into();
    }
    match (suspect.as_ref().map(Suspect::layout_name), fault) {
        (Some(Some(layout)), _) => format!("framelet::layout::{layout}").into(),
        (None, Fault::TooLarge { length, .. }) if *length <= MAX_PAYLOAD as u64 => {
            "framelet::max_message".into()
        }
        (None, Fault::TimedOut { .. }) => "framelet::message_timeout".into(),
        (None, Fault::Slow { .. }) => "framelet::memory".into(),
        _ => "framelet".into(),
    }
}

fn kind(error: &ReadError) -> Kind {
    match error {
        ReadError::Io { .. } => Kind::Lost,
        ReadError::Protocol(error) => match error.fault {
            Fault::TooLarge { .. } | Fault::Malformed(_) => Kind::NoMessage,
            Fault::TruncatedPrefix { .. }
            | Fault::TruncatedPayload { .. }
            | Fault::TruncatedTrailer { .. }
            | Fault::TruncatedPreamble { .. } => Kind::Truncated,
            Fault::TimedOut { .. } => Kind::Late,
            Fault::Slow { .. } => Kind::Slow,
        },
    }
}
