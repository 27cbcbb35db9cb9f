//! Composes the messages to send, from the command line or from standard input.

use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};

use smol::channel::{self, Receiver, Sender};

use super::super::exit_code::Exit;
use super::super::failure::{Failure, plain};
use super::super::flags;
use super::super::input::{Chunk, Framer};
use super::options::Send;
use super::progress::InputFile;

/// The most chunks of composed messages that wait to be sent.
const AHEAD: usize = 4;

/// A chunk of more bytes than this waits alone: the next one is composed after it was sent.
const LARGE: usize = 1024 * 1024;

/// Messages from the composing thread: chunks, and perhaps finally the error that stopped it.
pub(super) type Composed = Result<Chunk, Failure>;

/// The composed messages. The first chunk can be inspected before anything is sent.
pub(super) struct Messages {
    composed: Receiver<Composed>,
    first: Option<Composed>,
}

impl Messages {
    /// Returns the next chunk; `None` at the end.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if it is dropped.
    pub(super) async fn next(&mut self) -> Option<Composed> {
        match self.first.take() {
            None => self.composed.recv().await.ok(),
            first => first,
        }
    }

    /// Waits until bad input has left nothing to send, which may never happen.
    pub(super) async fn bad_from_the_start(&mut self) -> Failure {
        if self.first.is_none() {
            self.first = self.composed.recv().await.ok();
        }
        match self.first.take() {
            Some(Err(failure)) => failure,
            first => {
                self.first = first;
                pending().await
            }
        }
    }
}

impl Send {
    /// Starts composing messages, on a thread of its own: reading from a terminal cannot be cancelled.
    /// Tracks how much of `input` has been read.
    pub(super) fn compose(
        &self,
        limit: usize,
        input: Option<InputFile>,
    ) -> Result<Messages, Failure> {
        let (sender, composed) = channel::bounded(AHEAD);
        let messages = Messages { composed, first: None };
        let (layout, once) = (self.layout, self.once);
        let new_chunk: fn() -> Chunk = match self.ack {
            _ if self.each => Chunk::of_single_frames,
            true => Chunk::of_payloads,
            false => Chunk::of_frames,
        };
        if !self.message.is_empty() {
            let mut chunk = new_chunk();
            let taken = if once { 1 } else { self.message.len() };
            for (number, message) in (1..).zip(self.message.iter().take(taken)) {
                chunk.append(layout, limit, &self.header.0, message.as_bytes()).map_err(
                    |error| {
                        let message = format!("--message {number}: {}", flags::of_message(&error));
                        Failure::new(Exit::of_encoding(&error), message)
                    },
                )?;
            }
            // Cannot fail: the queue is new and has room.
            let _ = sender.try_send(Ok(chunk));
            return Ok(messages);
        }
        let framer =
            Framer::new(None, self.input.unwrap_or_default(), layout, limit, self.header.clone())?;
        std::thread::Builder::new()
            .name("framelet-input".into())
            .spawn(move || {
                let composing =
                    AssertUnwindSafe(|| compose(framer, new_chunk, once, input, &sender));
                if catch_unwind(composing).is_err() {
                    // Reported, because it would otherwise look like the end of the input.
                    let message = "a bug in framelet ended the reading of the input";
                    let _ = sender.send_blocking(Err(Failure::new(Exit::Usage, message)));
                }
            })
            .map_err(|error| {
                let message = format!(
                    "cannot start the thread that reads the input: {}; the limit on processes may be too \
                     low (ulimit -u)",
                    plain(&error)
                );
                Failure::new(Exit::Usage, message)
            })?;
        Ok(messages)
    }
}

/// Composes messages, one chunk per read.
fn compose(
    mut framer: Framer,
    new_chunk: fn() -> Chunk,
    once: bool,
    mut input: Option<InputFile>,
    chunks: &Sender<Composed>,
) {
    let most = if once { 1 } else { u64::MAX };
    loop {
        let mut chunk = new_chunk();
        let more = framer.read(&mut chunk, most);
        chunk.read = input.as_mut().map_or(0, InputFile::read);
        let enough = chunk.messages >= most;
        let dropped = (chunk.bytes.len() > LARGE).then(|| chunk.dropped());
        // The queue is closed if the connection is lost: then nobody needs more.
        if chunk.messages > 0 && chunks.send_blocking(Ok(chunk)).is_err() {
            return;
        }
        if let Some(dropped) = dropped {
            // One such chunk takes enough memory, so wait until it is dropped. Nothing is ever received
            // here.
            let _ = dropped.recv();
        }
        match more {
            // With --one, anything may follow the first message.
            _ if enough => return,
            Ok(true) => {}
            Ok(false) => return,
            Err(failure) => {
                let _ = chunks.send_blocking(Err(failure));
                return;
            }
        }
    }
}
