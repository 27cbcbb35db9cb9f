//! A stream in memory.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use futures_lite::{AsyncRead, AsyncWrite};

/// A stream in memory, as both ends see it: the tested one, which has an [`End`], and its peer.
#[derive(Default)]
pub(crate) struct Pipe {
    /// What the peer has sent.
    pub(crate) sent: Vec<u8>,
    /// How much of that has arrived, and how much was read.
    pub(crate) arrived: usize,
    pub(crate) read: usize,
    /// The most that one read returns.
    pub(crate) piece: usize,
    /// How many reads find nothing although something has arrived.
    pub(crate) stalls: usize,
    pub(crate) has_ended: bool,
    pub(crate) is_reset: bool,
    /// What the tested end has written, and how much more the stream takes.
    pub(crate) written: Vec<u8>,
    pub(crate) room: usize,
    /// How much of what was written the stream does not hold back.
    pub(crate) flushed: usize,
    /// How many flushes and closes are not done at once.
    pub(crate) lags: usize,
    /// Whether writing fails, while what was sent can still be read.
    pub(crate) is_deaf: bool,
    pub(crate) is_closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    /// The peer sends bytes, which have not arrived.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        if !self.has_ended {
            self.sent.extend_from_slice(bytes);
        }
    }

    /// So many of the bytes that were sent arrive.
    pub(crate) fn arrive(&mut self, bytes: usize) {
        self.arrived = self.arrived.saturating_add(bytes).min(self.sent.len());
        self.wake();
    }

    /// Lets everything through that was written, unless that takes its time.
    fn poll_through(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.lags > 0 {
            self.lags -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.flushed = self.written.len();
        Poll::Ready(())
    }

    /// Returns whether the tested end waits for room.
    pub(crate) fn is_blocked(&self) -> bool {
        self.room == 0 && self.writer.is_some()
    }

    pub(crate) fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }
}

#[derive(Clone, Default)]
pub(crate) struct End(Arc<Mutex<Pipe>>);

impl End {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Pipe> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the tested side still has the stream, if the peer has one end as well.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
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
        if pipe.is_reset || pipe.is_deaf {
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

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lock().poll_through(cx).map(Ok)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pipe = self.lock();
        ready!(pipe.poll_through(cx));
        pipe.is_closed = true;
        Poll::Ready(Ok(()))
    }
}
