//! Streams that behave as a test needs it.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures_lite::{AsyncRead, AsyncWrite};

use crate::net::byte_stream::ByteStream;

/// A stream that the test feeds, and which takes as many bytes as the test allows.
#[derive(Clone, Default)]
pub(super) struct Stub(Arc<Mutex<StubState>>);

#[derive(Default)]
struct StubState {
    input: VecDeque<u8>,
    output: Vec<u8>,
    takes: usize,
}

impl Stub {
    pub(super) fn feed(&self, bytes: &[u8]) {
        self.0.lock().unwrap().input.extend(bytes);
    }

    pub(super) fn allow(&self, bytes: usize) {
        self.0.lock().unwrap().takes += bytes;
    }

    /// Returns how many bytes were not read.
    pub(super) fn unread(&self) -> usize {
        self.0.lock().unwrap().input.len()
    }

    pub(super) fn output(&self) -> Vec<u8> {
        self.0.lock().unwrap().output.clone()
    }
}

impl AsyncRead for Stub {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self.0.lock().unwrap().input.read(buf)? {
            0 => Poll::Pending,
            read => Poll::Ready(Ok(read)),
        }
    }
}

impl AsyncWrite for Stub {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock().unwrap();
        let len = buf.len().min(state.takes);
        state.takes -= len;
        state.output.extend(&buf[..len]);
        if len == 0 { Poll::Pending } else { Poll::Ready(Ok(len)) }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A stream that is told of its bytes later than the kernel has them, as the reactor may do.
pub(super) struct Lagging(pub(super) ByteStream, pub(super) u32);

impl AsyncRead for Lagging {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.1 > 0 {
            self.1 -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Lagging {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

/// A stream that always has more: the same frame over and over.
pub(super) struct Endless(pub(super) Vec<u8>, pub(super) usize);

impl AsyncRead for Endless {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let next = self.0[self.1..].iter().chain(self.0.iter().cycle()).take(buf.len());
        buf.iter_mut().zip(next).for_each(|(byte, next)| *byte = *next);
        self.1 = (self.1 + buf.len()) % self.0.len();
        Poll::Ready(Ok(buf.len()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
