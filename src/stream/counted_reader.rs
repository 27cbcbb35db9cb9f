//! A buffered stream that counts its bytes and borrows its buffer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_lite::AsyncRead;

use crate::stream::pool::{BUFFER, Buffer, Pool, PooledBytes};
use crate::wire::evidence::SAMPLE;

/// Whole messages of up to this many bytes in total are copied out of the read buffer instead of keeping
/// it, so that a trickle of small messages does not hold 64 KiB each.
const COPIED: usize = 4096;

/// The most bytes that a hello can have. So few of each connection need not be counted.
pub(super) const FEW: usize = 64;

/// The start of a stream is kept while it is at most this long, for the case that it fails. Most that are in another
/// layout, or in none, fail at once; and an idle connection has next to nothing.
const START: usize = 512;

/// Payloads of this length and more are read straight into their buffer, without anything that follows.
const LARGE: usize = 2 * BUFFER;

/// The source of a [`FrameReader`](crate::FrameReader): the underlying stream, a buffer borrowed from the
/// pool while there are bytes in it, and the offset of the next byte.
pub(crate) struct CountedReader<R> {
    inner: R,
    pool: Pool,
    /// Borrowed while `next < filled`; or a smaller copy of the remaining bytes.
    /// Boxed, since idle readers have none.
    buffer: Option<Box<PooledBytes>>,
    next: usize,
    filled: usize,
    /// How many bytes have been consumed, from the start of the stream.
    offset: u64,
    /// All that was read so far, while that is little. Boxed to keep idle readers small.
    start: Option<Box<Start>>,
    /// Whether to read no more than was asked for.
    exact: bool,
    /// Whether the underlying stream has ended.
    at_end: bool,
}

/// The first bytes of a stream.
#[derive(Default)]
struct Start(Vec<u8>);

impl<R> CountedReader<R> {
    pub(crate) fn new(inner: R, pool: Pool) -> CountedReader<R> {
        CountedReader {
            inner,
            pool,
            buffer: None,
            next: 0,
            filled: 0,
            offset: 0,
            start: None,
            exact: false,
            at_end: false,
        }
    }

    pub(crate) fn get_ref(&self) -> &R {
        &self.inner
    }

    pub(crate) fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) fn at_end(&self) -> bool {
        self.at_end
    }

    /// Returns the bytes that were read but not consumed.
    pub(crate) fn buffered(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |buffer| &buffer[self.next..self.filled])
    }

    /// Returns all bytes from the start of the stream to the last buffered one, if they are still in
    /// memory.
    pub(crate) fn since_start(&self) -> Option<&[u8]> {
        if let Some(start) = &self.start {
            return Some(&start.0);
        }
        let buffer = self.buffer.as_ref()?;
        (self.offset == self.next as u64).then_some(&buffer[..self.filled])
    }

    /// Keeps what was read if that is the start of the stream.
    fn keep_start(&mut self, read: &[u8]) {
        if self.start.is_none() && self.offset == 0 && self.filled == 0 {
            self.start = Some(Box::default());
        }
        if let Some(start) = &mut self.start {
            match start.0.len() + read.len() <= START {
                true => start.0.extend_from_slice(read),
                false => self.start = None,
            }
        }
    }

    /// Drops the start of the stream: a reader that waits between two messages holds no memory.
    pub(crate) fn forget_start(&mut self) {
        self.start = None;
    }

    /// Notes that a payload of `len` bytes is next. Long payloads often follow each other, so the prefix
    /// after one is read alone, too: then no payload byte is ever copied.
    pub(crate) fn expect(&mut self, len: usize) {
        self.exact = len >= LARGE;
    }

    /// Consumes `bytes` bytes without looking at them.
    pub(crate) fn consume(&mut self, bytes: usize) {
        self.next += bytes;
        self.offset += bytes as u64;
        if self.next >= self.filled {
            self.drop_buffer();
        }
    }

    /// Consumes the next `bytes` bytes, which are exactly `messages` whole frames. Returns a buffer and the
    /// index in it at which they start.
    pub(crate) fn take_run(&mut self, bytes: usize, messages: usize) -> (PooledBytes, usize) {
        let Some(buffer) = self.buffer.take() else { return (self.pool.empty(), 0) };
        let (from, to) = (self.next, self.next + bytes);
        // A short start of the stream stays in one buffer: it is the best evidence of what the stream is.
        let rest_from = match self.offset == from as u64 && self.filled <= SAMPLE {
            true => 0,
            false => to,
        };
        self.offset += bytes as u64;
        (self.next, self.filled) = (to - rest_from, self.filled - rest_from);
        match self.next < self.filled {
            true => self.buffer = Some(Box::new(self.keep(&buffer[rest_from..][..self.filled]))),
            false => (self.next, self.filled) = (0, 0),
        }
        if bytes == 0 {
            return (self.pool.empty(), 0);
        }
        let (mut run, from) = match bytes {
            ..=COPIED => (self.pool.lend(Buffer::from(&buffer[from..to])), 0),
            _ => (*buffer, from),
        };
        run.hold_for_sink(messages);
        (run, from)
    }

    /// Consumes the same, but returns a copy, and leaves what follows where it is: whole frames, which are taken next.
    /// A stream of many short runs is then copied once and not once a run.
    pub(crate) fn copy_run(&mut self, bytes: usize, messages: usize) -> (PooledBytes, usize) {
        let mut run = self.pool.lend(Buffer::from(&self.buffered()[..bytes]));
        if messages > 0 {
            run.hold_for_sink(messages);
        }
        self.consume(bytes);
        self.wait_for_peer();
        (run, 0)
    }

    /// Keeps what is in the buffer during a wait that only the peer can end, in no more memory than it needs.
    pub(crate) fn wait_for_peer(&mut self) {
        self.shrink();
        if let Some(buffer) = &mut self.buffer {
            buffer.hold_for_peer();
        }
    }

    /// Copies bytes that wait for more: many connections may pause after the start of a message, so each
    /// gets no more room than it needs.
    fn keep(&self, bytes: &[u8]) -> PooledBytes {
        let mut kept = self.pool.lend(Buffer::from(bytes));
        kept.hold_for_peer();
        kept
    }

    /// Makes `bytes` the whole contents of the buffer.
    fn hold(&mut self, bytes: &[u8]) {
        self.buffer = (!bytes.is_empty()).then(|| Box::new(self.keep(bytes)));
        (self.next, self.filled) = (0, bytes.len());
    }

    /// Replaces a read buffer by a copy that is no larger than its bytes, before a wait.
    pub(crate) fn shrink(&mut self) {
        if self.buffer.as_ref().is_some_and(|buffer| buffer.len() > self.filled) {
            let bytes = self.buffered().to_vec();
            self.hold(&bytes);
        }
    }

    /// Returns the buffer to the pool, with everything in it.
    pub(crate) fn drop_buffer(&mut self) {
        self.buffer = None;
        (self.next, self.filled) = (0, 0);
    }
}

impl<R: AsyncRead + Unpin> CountedReader<R> {
    /// Reads once into the empty buffer. Returns how many bytes arrived, or `None` if no buffer is to be
    /// used: no more may be read than was asked for, or there is no memory.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<usize>>> {
        debug_assert!(self.buffer.is_none());
        if self.exact {
            return Poll::Ready(Ok(None));
        }
        let Some(mut buffer) = self.pool.try_read_buffer() else { return Poll::Ready(Ok(None)) };
        let filled = ready!(self.poll_below(cx, &mut buffer))?;
        if filled > 0 {
            self.buffer = Some(Box::new(buffer));
            (self.next, self.filled) = (0, filled);
        }
        Poll::Ready(Ok(Some(filled)))
    }

    /// Does the same, but without memory for a buffer it reads a few bytes.
    pub(crate) fn poll_fill_or_few(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match ready!(self.poll_fill(cx))? {
            Some(read) => Poll::Ready(Ok(read)),
            None => self.poll_few(cx),
        }
    }

    /// Reads once, appending to the buffer, but only a few bytes, whose memory does not matter. Returns how
    /// many bytes arrived.
    pub(crate) fn poll_few(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // A task that waits must not hold a read buffer.
        self.shrink();
        let mut few = [0; FEW];
        let read = ready!(self.poll_below(cx, &mut few))?;
        let bytes = [self.buffered(), &few[..read]].concat();
        self.hold(&bytes);
        Poll::Ready(Ok(read))
    }

    /// Reads once, without a look at the buffer. Nothing that is read here is counted.
    pub(crate) fn poll_below(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            match ready!(Pin::new(&mut self.inner).poll_read(cx, buf)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => {
                    self.at_end = matches!(read, Ok(0));
                    if let Ok(read) = read {
                        self.keep_start(&buf[..read]);
                    }
                    return Poll::Ready(read);
                }
            }
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for CountedReader<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.buffer.is_none() {
            match ready!(self.poll_fill(cx))? {
                Some(0) => return Poll::Ready(Ok(0)),
                Some(_) => {}
                // The caller has memory for these bytes, so a started message never waits for memory here.
                None => {
                    let read = ready!(self.poll_below(cx, buf))?;
                    self.offset += read as u64;
                    return Poll::Ready(Ok(read));
                }
            }
        }
        let read = buf.len().min(self.buffered().len());
        buf[..read].copy_from_slice(&self.buffered()[..read]);
        self.consume(read);
        Poll::Ready(Ok(read))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::VecDeque;
    use std::task::Waker;

    use super::*;

    /// A stream that gives one of these a read, and then waits.
    pub(crate) struct Chunks(pub(crate) VecDeque<Vec<u8>>);

    impl AsyncRead for Chunks {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            let Some(mut chunk) = self.0.pop_front() else { return Poll::Pending };
            let rest = chunk.split_off(chunk.len().min(buf.len()));
            if !rest.is_empty() {
                self.0.push_front(rest);
            }
            buf[..chunk.len()].copy_from_slice(&chunk);
            Poll::Ready(Ok(chunk.len()))
        }
    }

    /// Returns a source of these chunks, and the pool that counts what it holds.
    fn source<const N: usize>(chunks: [Vec<u8>; N]) -> (CountedReader<Chunks>, Pool) {
        let pool = Pool::new(64 << 20, 8 << 20);
        (CountedReader::new(Chunks(chunks.into()), pool.clone()), pool)
    }

    pub(crate) fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    /// Reads once into the empty buffer.
    #[track_caller]
    fn fill<R: AsyncRead + Unpin>(source: &mut CountedReader<R>) {
        assert!(matches!(source.poll_fill(&mut cx()), Poll::Ready(Ok(Some(1..)))));
    }

    /// So many bytes, of which no two that are near are the same.
    fn noise(len: usize) -> Vec<u8> {
        (0..251).cycle().take(len).collect()
    }

    #[test]
    fn few_bytes_of_messages_do_not_hold_the_whole_read_buffer() {
        for (run_len, held) in [(400, 400), (4096, 4096), (4097, BUFFER), (50_000, BUFFER)] {
            for rest in [0, 10, 5000] {
                let bytes = noise(run_len + rest);
                let (mut source, pool) = source([bytes.clone()]);
                fill(&mut source);
                let (run, from) = source.take_run(run_len, 1);
                assert_eq!(run[from..][..run_len], bytes[..run_len], "{run_len} {rest}");
                assert_eq!(source.buffered(), &bytes[run_len..], "{run_len} {rest}");
                assert_eq!(source.offset(), run_len as u64);
                // The start of a stream stays together, if it is short.
                let start = if rest > 0 && run_len + rest <= SAMPLE { run_len } else { 0 };
                assert_eq!(pool.held(), held + start + rest, "{run_len} {rest}");
                let is_kept = start > 0 || bytes.len() <= START;
                assert_eq!(source.since_start(), is_kept.then_some(&bytes[..]));
                drop((source, run));
                assert_eq!(pool.held(), 0);
            }
        }
    }

    /// Otherwise a stream of short runs would cost the square of its length.
    #[test]
    fn what_follows_a_copied_run_is_moved_once_at_most() {
        for len in [1000, BUFFER] {
            let bytes = noise(len);
            let (mut source, pool) = source([bytes.clone()]);
            fill(&mut source);
            let (run, _) = source.copy_run(10, 1);
            assert_eq!((&run[..], source.buffered()), (&bytes[..10], &bytes[10..]));
            let rest = source.buffered().as_ptr();
            for at in (10..900).step_by(10) {
                let (run, _) = source.copy_run(10, 1);
                assert_eq!(run[..], bytes[at..][..10]);
                assert_eq!(source.buffered().as_ptr(), rest.wrapping_add(at));
            }
            drop(run);
            assert!(pool.held() <= len, "{} held", pool.held());
        }
    }

    #[test]
    fn the_start_of_a_stream_is_kept_while_it_is_short() {
        let (mut source, _) = source([noise(10), noise(START), noise(10)]);
        fill(&mut source);
        source.consume(10);
        assert_eq!(source.since_start(), Some(&noise(10)[..]));
        fill(&mut source);
        assert_eq!((source.since_start(), source.buffered()), (None, &noise(START)[..]));
        source.consume(START);
        fill(&mut source);
        let (run, from) = source.take_run(4, 1);
        assert_eq!(run[from..][..4], noise(4));
        assert_eq!((source.since_start(), source.buffered()), (None, &noise(10)[4..]));
        assert_eq!(source.offset(), 14 + START as u64);
    }

    #[test]
    fn a_long_payload_and_what_follows_it_are_read_to_their_places() {
        let (mut source, pool) = source([noise(10)]);
        for (len, is_exact) in [(2 * BUFFER, true), (2 * BUFFER - 1, false)] {
            source.expect(len);
            assert_eq!(source.exact, is_exact);
        }
        source.expect(2 * BUFFER);
        assert!(matches!(source.poll_fill(&mut cx()), Poll::Ready(Ok(None))));
        let mut place = [0; 4];
        let read = Pin::new(&mut source).poll_read(&mut cx(), &mut place);
        assert!(matches!(read, Poll::Ready(Ok(4))));
        assert_eq!((&place[..], source.offset(), pool.held()), (&noise(4)[..], 4, 0));
    }

    #[test]
    fn what_waits_has_no_more_room_than_it_needs() {
        let (mut source, pool) = source([noise(10), noise(100)]);
        fill(&mut source);
        assert_eq!(pool.held(), BUFFER);
        source.consume(4);
        source.shrink();
        assert_eq!((source.buffered(), pool.held()), (&noise(10)[4..], 6));
        // Also before it waits by itself, and more comes to what is there.
        assert!(matches!(source.poll_few(&mut cx()), Poll::Ready(Ok(FEW))));
        assert_eq!(source.buffered(), [&noise(10)[4..], &noise(FEW)].concat());
        assert!(matches!(source.poll_few(&mut cx()), Poll::Ready(Ok(36))));
        assert!(source.poll_few(&mut cx()).is_pending());
        assert_eq!(pool.held(), 6 + 100);
        let (mut source, pool) = self::source([noise(10)]);
        fill(&mut source);
        assert!(source.poll_few(&mut cx()).is_pending());
        assert_eq!((source.buffered(), pool.held()), (&noise(10)[..], 10));
    }

    #[test]
    fn where_there_is_no_memory_a_few_bytes_are_read() {
        let (mut source, pool) = source([noise(100), Vec::new()]);
        let full = pool.hold_for_peer(64 << 20);
        assert!(matches!(source.poll_fill(&mut cx()), Poll::Ready(Ok(None))));
        assert!(matches!(source.poll_fill_or_few(&mut cx()), Poll::Ready(Ok(64))));
        assert_eq!((source.buffered(), source.at_end()), (&noise(64)[..], false));
        source.drop_buffer();
        drop(full);
        assert!(matches!(source.poll_fill_or_few(&mut cx()), Poll::Ready(Ok(36))));
        source.consume(36);
        assert!(matches!(source.poll_fill_or_few(&mut cx()), Poll::Ready(Ok(0))));
        assert_eq!((source.at_end(), pool.held()), (true, 0));
    }
}
