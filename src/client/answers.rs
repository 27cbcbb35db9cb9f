//! Reads the answers of a server, with a time limit.

use std::future::{pending, poll_fn};
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_lite::AsyncRead;
use smol::Timer;

use super::ack_error::AnswerError;
use crate::stream::error::ReadError;
use crate::stream::reader::FrameReader;
use crate::wire::answer::Answer;
use crate::wire::error::{Fault, ProtocolError};

/// Reads an answer. The end of the stream is an error.
///
/// # Cancel safety
///
/// The same as that of [`FrameReader::read`].
pub(super) async fn read_answer(
    reader: &mut FrameReader<impl AsyncRead + Unpin>,
) -> Result<Answer, AnswerError> {
    poll_fn(|cx| poll_answer(reader, cx)).await
}

pub(super) fn poll_answer(
    reader: &mut FrameReader<impl AsyncRead + Unpin>,
    cx: &mut Context<'_>,
) -> Poll<Result<Answer, AnswerError>> {
    Poll::Ready(match ready!(reader.poll_message(cx)) {
        Ok(Some(payload)) => Answer::decode(&payload).map_err(AnswerError::Payload),
        Ok(None) => Err(closed().into()),
        Err(ReadError::Io { error, .. }) => Err(error.into()),
        Err(ReadError::Protocol(ProtocolError {
            fault: Fault::TruncatedPrefix { .. } | Fault::TruncatedPayload { .. },
            ..
        })) => {
            // Half a frame: this is how a server aborts a connection that has no reset.
            let what = "the server cut the connection";
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, what).into())
        }
        Err(ReadError::Protocol(error)) => Err(AnswerError::Frame(Box::new(error))),
    })
}

/// Waits until the timeout, and returns the error.
pub(super) async fn timed_out<T>(what: &str, timeout: Option<Duration>) -> io::Result<T> {
    let Some(timeout) = timeout else { return pending().await };
    Timer::after(timeout).await;
    Err(late(what, timeout))
}

pub(super) fn late(what: &str, after: Duration) -> io::Error {
    let after = humantime::format_duration(after);
    io::Error::new(io::ErrorKind::TimedOut, format!("{what} within {after}"))
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")
}
