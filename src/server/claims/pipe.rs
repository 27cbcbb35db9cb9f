//! A stream in memory.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_lite::{AsyncRead, AsyncWrite};

/// A stream in memory, as both ends see it.
#[derive(Default)]
pub(super) struct Pipe {
    /// What the peer has sent.
    pub(super) sent: Vec<u8>,
    /// How much of that has arrived, and how much was read.
    pub(super) arrived: usize,
    pub(super) read: usize,
    /// The most that one read returns.
    pub(super) piece: usize,
    /// How many reads find nothing although something has arrived.
    pub(super) stalls: usize,
    pub(super) has_ended: bool,
    pub(super) is_reset: bool,
    /// What the server has written, and how much more the stream takes.
    pub(super) written: Vec<u8>,
    pub(super) room: usize,
    pub(super) is_closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    pub(super) fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }
}

#[derive(Clone, Default)]
pub(super) struct End(Arc<Mutex<Pipe>>);

impl End {
    pub(super) fn lock(&self) -> MutexGuard<'_, Pipe> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncRead for End {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut pipe = self.lock();
        if pipe.is_reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if pipe.stalls > 0 {
            pipe.stalls -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let len = buf.len().min(pipe.arrived - pipe.read).min(pipe.piece);
        if len == 0 && !buf.is_empty() && !(pipe.has_ended && pipe.read == pipe.sent.len()) {
            pipe.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        buf[..len].copy_from_slice(&pipe.sent[pipe.read..pipe.read + len]);
        pipe.read += len;
        Poll::Ready(Ok(len))
    }
}

impl AsyncWrite for End {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut pipe = self.lock();
        if pipe.is_reset {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        assert!(!pipe.is_closed, "nothing is written after the end");
        let len = buf.len().min(pipe.room);
        if len == 0 {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        pipe.room -= len;
        pipe.written.extend_from_slice(&buf[..len]);
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lock().is_closed = true;
        Poll::Ready(Ok(()))
    }
}
