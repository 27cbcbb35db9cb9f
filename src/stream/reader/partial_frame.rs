//! A frame that does not lie whole in the read buffer, and so is read in steps: prefix, payload, trailer.

use std::future::Future;
use std::io;
use std::num::NonZeroU16;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use event_listener::EventListener;
use futures_lite::{AsyncRead, AsyncReadExt};

use crate::stream::counted_reader::{CountedReader, FEW};
use crate::stream::framing::Framing;
use crate::stream::payloads::Head;
use crate::stream::pool::{Pool, PooledBytes};
use crate::wire::error::Fault;
use crate::wire::layout::{Decoded, Layout};

/// A frame as far as it has been taken from the read buffer. How many bytes of it these are is `got` everywhere: the
/// reader derives it from where the frame starts.
#[derive(Default)]
pub(super) struct PartialFrame {
    /// Its prefix, then its trailer.
    framing: Framing,
    /// Its lengths, once its prefix is complete and valid.
    announced: Option<Announced>,
    /// Its payload; the first bytes are those that have arrived. Boxed to keep idle readers small: most wait between
    /// two messages and have none.
    payload: Option<Box<PooledBytes>>,
    /// The place in the queue for memory; `None` if it does not wait.
    waiting: Option<EventListener>,
}

/// Why a frame is not read.
pub(super) enum Stop {
    /// The stream has ended before it.
    End,
    /// The stream has ended in it.
    Truncated(Fault),
    /// Its bytes are wrong.
    Wrong(Fault),
    Io(io::Error),
}

/// The frame that a source is at.
pub(super) struct FrameSource<'a, R> {
    pub(super) source: &'a mut CountedReader<R>,
    /// The offset at which the frame starts.
    pub(super) start: u64,
    pub(super) layout: Layout,
    pub(super) limit: usize,
}

impl<R> FrameSource<'_, R> {
    /// Returns how many bytes of the frame have been taken from the source.
    fn got(&self) -> usize {
        bytes_between(self.start, self.source.offset())
    }
}

impl PartialFrame {
    /// Returns the length of the whole frame, if known.
    pub(super) fn len(&self) -> Option<u64> {
        self.announced.map(Announced::frame)
    }

    /// Returns the length of the payload, if known.
    pub(super) fn payload_len(&self) -> Option<u64> {
        self.announced.map(|announced| announced.payload() as u64)
    }

    pub(super) fn waits_for_memory(&self) -> bool {
        self.waiting.is_some()
    }

    /// Notes that the rest of it has arrived in the kernel, so it need not wait for its share of the memory. Returns
    /// whether that is new.
    pub(super) fn admit(&mut self) -> bool {
        self.payload.as_mut().is_some_and(|payload| payload.admit())
    }

    /// Returns whether the memory that it waits for is held for other peers.
    pub(super) fn starves(&self, layout: Layout, pool: &Pool) -> bool {
        let lines = layout.longest_lines().filter(|_| self.announced.is_none());
        match (&self.payload, lines) {
            (Some(payload), _) => payload.starves(),
            (None, Some(lines)) => self.waits_for_memory() && pool.is_held_by_peers(lines),
            (None, None) => false,
        }
    }

    /// Returns what there is of the prefix, the payload and the trailer.
    pub(super) fn parts(&self, got: usize) -> [&[u8]; 3] {
        let Some(announced) = self.announced else { return [self.framing.first(got), &[], &[]] };
        let (prefix, want) = (announced.prefix(), announced.payload());
        let after = |start: usize| got.saturating_sub(start);
        let payload =
            self.payload.as_ref().map_or(&[][..], |bytes| &bytes[..after(prefix).min(want)]);
        let around = self.framing.first(prefix + after(prefix + want));
        [&around[..prefix], payload, &around[prefix..]]
    }

    /// Reads what is missing of the frame, and returns the whole of it.
    pub(super) fn poll<R: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        mut from: FrameSource<'_, R>,
    ) -> Poll<Result<Head, Stop>> {
        let from = &mut from;
        let announced = match self.announced {
            Some(announced) => announced,
            None => {
                let announced = ready!(self.poll_prefix(cx, from))?;
                // Header lines are never read one byte at a time.
                let lines = from.layout.longest_lines().is_some();
                from.source.expect(if lines { 0 } else { announced.payload() });
                self.framing.shrink();
                *self.announced.insert(announced)
            }
        };
        ready!(self.poll_payload(cx, from, announced))?;
        ready!(self.poll_trailer(cx, from, announced))?;
        let payload = self.payload.take();
        let mut payload = payload.map_or_else(|| from.source.pool().empty(), |boxed| *boxed);
        payload.hold_for_sink(1);
        let mut framing = std::mem::take(&mut self.framing);
        framing.hold_for_sink();
        self.announced = None;
        let (prefix, trailer) = (announced.prefix(), announced.trailer());
        Poll::Ready(Ok(Head { framing, prefix, trailer, payload }))
    }

    fn poll_prefix<R: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut FrameSource<'_, R>,
    ) -> Poll<Result<Announced, Stop>> {
        let (layout, limit) = (from.layout, from.limit);
        loop {
            let got = from.got();
            let need = match layout.decode(self.framing.first(got)) {
                Ok(Decoded::Incomplete { need }) => need,
                Ok(Decoded::Prefix { prefix, payload }) => {
                    let announced = Announced::within(limit, prefix, payload, layout.trailer_len());
                    let too_large = Stop::Wrong(Fault::TooLarge { length: payload, limit });
                    return Poll::Ready(announced.ok_or(too_large));
                }
                Err(malformed) => {
                    return Poll::Ready(Err(Stop::Wrong(Fault::Malformed(malformed))));
                }
            };
            let more = layout.rest_of_prefix(self.framing.first(got), from.source.buffered());
            let need = need.max(got + more);
            if need > FEW
                && let Some(longest) = layout.longest_lines()
            {
                ready!(self.poll_lines(cx, from.source, longest));
            }
            // Not `read_exact`: the bytes that have arrived may already be wrong.
            let rest = &mut self.framing.first_mut(need)[got..];
            let read = ready!(Pin::new(&mut *from.source).poll_read(cx, rest)).map_err(Stop::Io)?;
            if read == 0 {
                let truncated = Fault::TruncatedPrefix { got, want: need };
                let stop = if got == 0 { Stop::End } else { Stop::Truncated(truncated) };
                return Poll::Ready(Err(stop));
            }
        }
    }

    /// Waits for memory for header lines, which may have `longest` bytes.
    fn poll_lines<R>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut CountedReader<R>,
        longest: usize,
    ) -> Poll<()> {
        if !self.framing.is_counted() {
            match source.pool().poll_charge(cx, &mut self.waiting, longest) {
                Poll::Ready(charge) => self.framing.count(longest, charge),
                Poll::Pending => {
                    source.shrink();
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(())
    }

    fn poll_payload<R: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut FrameSource<'_, R>,
        announced: Announced,
    ) -> Poll<Result<(), Stop>> {
        let want = announced.payload();
        loop {
            let got = from.got().saturating_sub(announced.prefix());
            if got >= want {
                return Poll::Ready(Ok(()));
            }
            let source = &mut *from.source;
            let payload = self.payload.get_or_insert_with(|| Box::new(source.pool().empty()));
            if got == payload.len() {
                let coming = source.buffered().len();
                if payload.poll_grow(cx, &mut self.waiting, got, coming, want).is_pending() {
                    source.shrink();
                    return Poll::Pending;
                }
            }
            let until = payload.len().min(want);
            let mut read = source.read_exact(&mut payload[got..until]);
            if let Err(error) = ready!(Pin::new(&mut read).poll(cx)) {
                if !source.at_end() {
                    return Poll::Ready(Err(Stop::Io(error)));
                }
                let got = (from.got() - announced.prefix()) as u64;
                let fault = Fault::TruncatedPayload { got, want: want as u64 };
                return Poll::Ready(Err(Stop::Truncated(fault)));
            }
        }
    }

    fn poll_trailer<R: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut FrameSource<'_, R>,
        announced: Announced,
    ) -> Poll<Result<(), Stop>> {
        let (prefix, want) = (announced.prefix(), announced.trailer());
        let start = prefix + announced.payload();
        loop {
            let got = from.got() - start;
            let arrived = &self.framing.first(prefix + got)[prefix..];
            if let Err(malformed) = from.layout.check_trailer(arrived, start) {
                return Poll::Ready(Err(Stop::Wrong(Fault::Malformed(malformed))));
            }
            if got == want {
                return Poll::Ready(Ok(()));
            }
            let rest = &mut self.framing.first_mut(prefix + want)[prefix + got..];
            let read = ready!(Pin::new(&mut *from.source).poll_read(cx, rest)).map_err(Stop::Io)?;
            if read == 0 {
                let truncated = Fault::TruncatedTrailer { got, want };
                return Poll::Ready(Err(Stop::Truncated(truncated)));
            }
        }
    }
}

/// The lengths of a frame. As small as possible, since each idle connection has space for one.
#[derive(Clone, Copy)]
struct Announced {
    prefix: NonZeroU16,
    trailer: u8,
    payload: u32,
}

impl Announced {
    fn prefix(self) -> usize {
        usize::from(self.prefix.get())
    }

    fn payload(self) -> usize {
        self.payload as usize
    }

    fn trailer(self) -> usize {
        usize::from(self.trailer)
    }

    /// Returns the length of the whole frame.
    fn frame(self) -> u64 {
        (self.prefix() + self.payload() + self.trailer()) as u64
    }

    /// Returns the lengths of a frame with these parts, if its payload is within `limit`.
    fn within(limit: usize, prefix: usize, payload: u64, trailer: usize) -> Option<Announced> {
        let (prefix, trailer) = (u16::try_from(prefix).ok()?, u8::try_from(trailer).ok()?);
        let (prefix, payload) = (NonZeroU16::new(prefix)?, u32::try_from(payload).ok()?);
        let announced = Announced { prefix, trailer, payload };
        Some(announced).filter(|announced| announced.payload() <= limit)
    }
}

/// Returns how many bytes of one frame lie between two offsets.
pub(super) fn bytes_between(start: u64, end: u64) -> usize {
    // Cannot fail: no frame is longer than memory.
    usize::try_from(end - start).unwrap_or_default()
}
