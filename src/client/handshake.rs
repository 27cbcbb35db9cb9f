//! The handshake of a connection: the hello, and the first answer to it.

use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite, AsyncWriteExt, FutureExt};

use super::ack_error::AnswerError;
use super::answers::{expired, read_first_answer, timed_out};
use crate::stream::reader::FrameReader;
use crate::wire::answer::{Answer, Refusal};

/// Why a handshake failed.
pub(super) enum Failure {
    /// The server refused the client.
    Refused(Refusal),
    /// The connection was lost, or the server broke the protocol.
    Broken {
        error: AnswerError,
        /// Whether the server had answered with a heartbeat.
        answered: bool,
    },
}

/// Sends the hello. Returns how many messages the server has committed, and the checksum of the last one
/// if that was requested and the server knows it. Calls `on_busy` when the server first says that it takes
/// longer.
pub(super) async fn greet(
    reader: &mut FrameReader<impl AsyncRead + AsyncWrite + Unpin>,
    hello: &[u8],
    timeout: Option<Duration>,
    on_busy: impl FnOnce(),
) -> Result<(u64, Option<u64>), Failure> {
    let greeting = async {
        let written = async {
            reader.get_mut().write_all(hello).await?;
            reader.get_mut().flush().await
        };
        // A server that refuses may close before it has read the hello, but its answer can still be read.
        let written = written.await;
        match (read_first_answer(reader).await, written) {
            (Err(AnswerError::Io(_)), Err(error)) => Err(error.into()),
            (answer, _) => answer,
        }
    };
    let late = || async { Ok(timed_out("no answer", timeout).await?) };
    let mut answer = greeting.or(late()).await;
    let mut on_busy = Some(on_busy);
    loop {
        match answer {
            Ok(Answer::Heartbeat) => {}
            Ok(Answer::Acknowledgement(committed)) => return Ok((committed, None)),
            Ok(Answer::Welcome { committed, checksum }) => return Ok((committed, Some(checksum))),
            Ok(Answer::Refusal(refusal)) => return Err(Failure::Refused(refusal)),
            Err(error) => {
                let error = expired(reader, error, timeout);
                return Err(Failure::Broken { error, answered: on_busy.is_none() });
            }
        }
        if let Some(on_busy) = on_busy.take() {
            on_busy();
        }
        answer = read_first_answer(reader).or(late()).await;
    }
}
