//! Reads the answers of a server, with a time limit.

use std::future::{pending, poll_fn};
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_lite::AsyncRead;

use super::ack_error::AnswerError;
use crate::runtime::clock;
use crate::stream::error::ReadError;
use crate::stream::reader::FrameReader;
use crate::wire::ack::MOST_MESSAGES;
use crate::wire::answer::{Answer, InvalidAnswer, Refusal};
use crate::wire::error::{Fault, ProtocolError};
use crate::wire::io_error::Plain;
use crate::wire::suspect::Suspect;

/// Reads an answer to the hello. The end of the stream is an error, and so is a count that no server can have:
/// nearly any text of 8 bytes and more would be one.
///
/// # Cancel safety
///
/// The same as that of [`FrameReader::read`].
pub(super) async fn read_first_answer(
    reader: &mut FrameReader<impl AsyncRead + Unpin>,
) -> Result<Answer, AnswerError> {
    let answer = poll_fn(|cx| poll_answer(reader, cx)).await?;
    match &answer {
        Answer::Acknowledgement(committed)
        | Answer::Welcome { committed, .. }
        | Answer::Refusal(Refusal { committed, .. })
            if *committed > MOST_MESSAGES =>
        {
            Err(AnswerError::Payload(InvalidAnswer::new(&answer.encode())))
        }
        _ => Ok(answer),
    }
}

pub(super) fn poll_answer(
    reader: &mut FrameReader<impl AsyncRead + Unpin>,
    cx: &mut Context<'_>,
) -> Poll<Result<Answer, AnswerError>> {
    Poll::Ready(match ready!(reader.poll_message(cx)) {
        Ok(Some(payload)) => Answer::decode(&payload).map_err(AnswerError::Payload),
        Ok(None) => Err(closed().into()),
        Err(ReadError::Io { error, at, suspect: Some(suspect), .. })
            if at.message == 1 && is_other(&suspect) =>
        {
            let what = format!("{suspect}; {}", Plain(&error));
            Err(io::Error::new(error.kind(), what).into())
        }
        Err(ReadError::Io { error, .. }) => Err(error.into()),
        Err(ReadError::Protocol(error)) => Err(of_bytes(error)),
    })
}

/// Returns what the server's bytes mean that are no frame of an answer.
fn of_bytes(error: ProtocolError) -> AnswerError {
    let is_first = error.at.message == 1;
    let is_answer = !is_first || !error.suspect.as_ref().is_some_and(is_other);
    match error.fault {
        // Half an answer: this is how a server aborts a connection that has no reset.
        Fault::TruncatedPrefix { .. } | Fault::TruncatedPayload { .. } if is_answer => {
            let what = "the server cut the connection";
            io::Error::new(io::ErrorKind::UnexpectedEof, what).into()
        }
        // The hello begins with as many of them as the prefix has, and no answer does.
        Fault::TooLarge { .. } if is_first && error.prefix.iter().all(|&byte| byte == 0xff) => {
            AnswerError::Echo
        }
        _ => AnswerError::Frame(Box::new(error)),
    }
}

/// Returns whether these bytes are sure to be no part of an answer.
fn is_other(suspect: &Suspect) -> bool {
    matches!(suspect, Suspect::Known(_) | Suspect::Text { .. })
}

/// Returns the error of a server whose first answer is not complete in time: what its bytes are, if they show it.
pub(super) fn expired(
    reader: &mut FrameReader<impl AsyncRead + Unpin>,
    error: AnswerError,
    timeout: Option<Duration>,
) -> AnswerError {
    match (&error, timeout) {
        (AnswerError::Io(io), Some(timeout))
            if io.kind() == io::ErrorKind::TimedOut && reader.in_message() =>
        {
            match reader.expire(timeout) {
                ReadError::Protocol(part)
                    if part.at.message == 1 && part.suspect.as_ref().is_some_and(is_other) =>
                {
                    AnswerError::Frame(Box::new(part))
                }
                _ => late("no whole answer", timeout).into(),
            }
        }
        _ => error,
    }
}

/// Waits until the timeout, and returns the error.
pub(super) async fn timed_out<T>(what: &str, timeout: Option<Duration>) -> io::Result<T> {
    let Some(timeout) = timeout else { return pending().await };
    clock::sleep(timeout).await;
    Err(late(what, timeout))
}

pub(super) fn late(what: &str, after: Duration) -> io::Error {
    let after = humantime::format_duration(after);
    io::Error::new(io::ErrorKind::TimedOut, format!("{what} within {after}"))
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")
}
