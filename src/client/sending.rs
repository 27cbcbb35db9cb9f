//! Writes the messages of the window to the connection.

use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use event_listener::EventListener;
use futures_lite::AsyncWrite;

use super::delivery::Delivery;

/// How much is written at once, in bytes: as much as a `FrameWriter` queues.
const CHUNK: usize = 64 * 1024;

/// Writes what there is to send, and at last the end of the stream.
#[derive(Default)]
pub(super) struct Sending {
    /// Whole frames or parts of them, of which the stream has taken the first `taken` bytes.
    chunk: Vec<u8>,
    taken: usize,
    /// Whether the stream had no room for the rest.
    full: bool,
    /// Hears of more work; listens since before the last look at the window.
    work: Option<EventListener>,
}

impl Sending {
    pub(super) fn poll(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        shared: &Delivery,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            while self.taken < self.chunk.len() {
                let written = Pin::new(&mut *stream).poll_write(cx, &self.chunk[self.taken..]);
                self.full |= written.is_pending();
                match ready!(written)? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    taken => self.taken += taken,
                }
                if mem::take(&mut self.full) {
                    // There is room again, so the server has read something. If the write succeeds at once,
                    // that proves nothing: the data may just fit into this system's buffers.
                    shared.heard();
                }
            }
            if !self.chunk.is_empty() {
                ready!(Pin::new(&mut *stream).poll_flush(cx))?;
                self.chunk.clear();
                self.taken = 0;
            }
            let work = self.work.get_or_insert_with(|| shared.work.listen());
            let finishing = {
                let mut state = shared.lock();
                if let Some(window) = &mut state.window {
                    window.take_unsent(&mut self.chunk, CHUNK);
                }
                state.finishing
            };
            if self.chunk.is_empty() {
                if finishing {
                    return Pin::new(&mut *stream).poll_close(cx);
                }
                ready!(Pin::new(work).poll(cx));
                self.work = None;
            }
        }
    }
}
