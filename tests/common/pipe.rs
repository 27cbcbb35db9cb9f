//! A stream in memory with two ends, neither of which can be cloned.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use futures_lite::{AsyncRead, AsyncWrite};

/// One end. Dropping it closes it.
pub(crate) struct Pipe {
    from: Arc<Mutex<Direction>>,
    to: Arc<Mutex<Direction>>,
}

struct Direction {
    bytes: VecDeque<u8>,
    capacity: usize,
    /// Nothing more will be written.
    ended: bool,
    /// Nothing more will be read.
    abandoned: bool,
    waiting: Vec<Waker>,
}

/// Returns two ends with room for so many bytes in each direction.
pub(crate) fn pipe(capacity: usize) -> (Pipe, Pipe) {
    let direction = || {
        let (bytes, waiting) = (VecDeque::new(), Vec::new());
        let direction = Direction { bytes, capacity, ended: false, abandoned: false, waiting };
        Arc::new(Mutex::new(direction))
    };
    let (there, back) = (direction(), direction());
    (Pipe { from: back.clone(), to: there.clone() }, Pipe { from: there, to: back })
}

impl Direction {
    fn changed(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
    }

    fn wait<T>(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        self.waiting.push(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut from = self.from.lock().unwrap();
        if from.bytes.is_empty() && !from.ended {
            return from.wait(cx);
        }
        let read = buf.len().min(from.bytes.len());
        buf.iter_mut().zip(from.bytes.drain(..read)).for_each(|(to, byte)| *to = byte);
        from.changed();
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut to = self.to.lock().unwrap();
        if to.abandoned || to.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let written = buf.len().min(to.capacity - to.bytes.len());
        if written == 0 {
            return to.wait(cx);
        }
        to.bytes.extend(&buf[..written]);
        to.changed();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut to = self.to.lock().unwrap();
        to.ended = true;
        to.changed();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let mut to = self.to.lock().unwrap();
        to.ended = true;
        to.changed();
        drop(to);
        let mut from = self.from.lock().unwrap();
        from.abandoned = true;
        from.changed();
    }
}
