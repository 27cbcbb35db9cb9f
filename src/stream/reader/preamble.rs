//! What precedes the first frame of a stream.

use std::io;
use std::task::{Context, Poll, ready};

use futures_lite::AsyncRead;

use crate::stream::counted_reader::CountedReader;

/// Bytes before the first frame, which are read and dropped.
pub(super) struct Preamble {
    pub(super) got: u64,
    pub(super) want: u64,
}

impl Preamble {
    pub(super) fn new(want: u64) -> Preamble {
        Preamble { got: 0, want }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.got >= self.want
    }

    /// Drops the bytes up to the last of them, or up to the end of the stream.
    pub(super) fn poll_skip<R: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut CountedReader<R>,
    ) -> Poll<io::Result<()>> {
        while !self.is_complete() {
            // Does not wait for memory: none of these bytes is kept.
            let read = ready!(source.poll_fill_or_few(cx))?;
            if read == 0 {
                break;
            }
            let left = usize::try_from(self.want - self.got).unwrap_or(usize::MAX);
            let skipped = read.min(left);
            self.got += skipped as u64;
            source.consume(skipped);
        }
        Poll::Ready(Ok(()))
    }
}
