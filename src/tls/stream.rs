//! A TLS connection as a stream.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use futures_lite::{AsyncRead, AsyncWrite};

use super::session::TlsSession;
use crate::net::byte_stream::{ByteStream, Part};

/// How many bytes of several parts are put together into one record.
const TOGETHER: usize = 16 * 1024;

/// A TLS connection over a stream.
#[derive(Debug)]
pub(super) struct TlsStream {
    below: ByteStream,
    pub(super) session: TlsSession,
    /// Whether the session has a part of a record.
    part: Part,
}

impl TlsStream {
    pub(super) fn new(below: ByteStream, session: TlsSession) -> TlsStream {
        TlsStream { below, session, part: Part::default() }
    }

    /// Returns it as the stream that `below` carries.
    pub(super) fn into_byte_stream(self, below: ByteStream) -> ByteStream {
        let part = Arc::clone(&self.part);
        ByteStream::over(self, Some(below), part)
    }

    /// Does the handshake.
    pub(super) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Both functions need the context.
        let cx = std::cell::RefCell::new(cx);
        self.session.poll_handshake(
            &mut self.below,
            |below, buf| Pin::new(below).poll_read(&mut cx.borrow_mut(), buf),
            |below, buf| Pin::new(below).poll_write(&mut cx.borrow_mut(), buf),
        )
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        // As the outer stream is told: trying costs one system call, waiting several.
        this.below.assume_readable();
        let read = |below: &mut ByteStream, buf: &mut [u8]| Pin::new(below).poll_read(cx, buf);
        let read = this.session.poll_read(&mut this.below, read, buf);
        this.part.store(this.session.has_part(), Ordering::Relaxed);
        read
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let write = |below: &mut ByteStream, buf: &[u8]| Pin::new(below).poll_write(cx, buf);
        this.session.poll_write(&mut this.below, write, buf)
    }

    /// Puts a prefix and a short payload into one record.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
        let several = bufs.iter().filter(|buf| !buf.is_empty()).count() > 1;
        if !several || first.len() >= TOGETHER {
            return self.poll_write(cx, first);
        }
        let mut together = Vec::new();
        for buf in bufs {
            let room = TOGETHER - together.len();
            together.extend_from_slice(&buf[..buf.len().min(room)]);
        }
        self.poll_write(cx, &together)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(
            this.session
                .poll_flush(&mut this.below, |below, buf| { Pin::new(below).poll_write(cx, buf) })
        )?;
        Pin::new(&mut this.below).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let write = |below: &mut ByteStream, buf: &[u8]| below.poll_write_before_close(cx, buf);
        ready!(this.session.poll_close(&mut this.below, write))?;
        Pin::new(&mut this.below).poll_close(cx)
    }
}
