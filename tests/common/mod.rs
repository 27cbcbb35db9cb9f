//! What the tests share: the conformance cases as data, and streams that do as they are told.

#![allow(dead_code, reason = "each test takes what it needs")]

pub(crate) mod acks;
#[cfg(feature = "sqlite")]
pub(crate) mod delivery;
pub(crate) mod held_port;
pub(crate) mod openings;
pub(crate) mod pipe;
pub(crate) mod program;
pub(crate) mod proxy;
#[cfg(feature = "redis")]
pub(crate) mod redis;
pub(crate) mod resume;
#[cfg(feature = "tls")]
pub(crate) mod tls;
pub(crate) mod unseen;
pub(crate) mod vectors;

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use framelet::Layout;
use futures_lite::AsyncRead;

/// Returns the plain layouts, and layouts of every other kind of item.
pub(crate) fn layouts() -> Vec<Layout> {
    let others = [
        "h1:u32be+self",
        "x0300:u16be+all",
        "u24le:h1",
        "h3:u32be:data:xce",
        "dec/3a:data:x2c",
        "x24:dec/0d0a:data:x0d0a",
        "hex4+self",
        "h1:ber",
        "bcd4",
        "dec6",
        "h16:u16be+all",
        "h2:u16le:h20:data:h3",
        "u16be+4",
        "varint+2",
        "lsp",
    ];
    Layout::binary().chain(others.into_iter().map(|text| text.parse().unwrap())).collect()
}

/// What a [`Pieces`] does when it is read next.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// Gives as many bytes, over several reads if they do not fit into one.
    Give(usize),
    /// Has nothing just now, but asks to be polled again.
    Pend,
    /// Fails with an error of this kind.
    Fail(io::ErrorKind),
}

/// What a [`Pieces`] does when it has given all its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Says that there is nothing more.
    End,
    /// Panics: the reader must have stopped before this.
    Forbidden,
}

/// A stream of bytes that comes in pieces.
#[derive(Debug)]
pub(crate) struct Pieces<'a> {
    bytes: &'a [u8],
    steps: VecDeque<Step>,
    tail: Tail,
    /// How often it was read.
    pub(crate) reads: usize,
}

impl<'a> Pieces<'a> {
    /// Follows `steps`, then gives what is left of `bytes` in one piece, then does as `tail` says.
    pub(crate) fn new(
        bytes: &'a [u8],
        steps: impl IntoIterator<Item = Step>,
        tail: Tail,
    ) -> Pieces<'a> {
        Pieces { bytes, steps: steps.into_iter().collect(), tail, reads: 0 }
    }

    fn give(&mut self, buf: &mut [u8], at_most: usize) -> usize {
        let given = at_most.min(buf.len()).min(self.bytes.len());
        let (now, later) = self.bytes.split_at(given);
        buf[..given].copy_from_slice(now);
        self.bytes = later;
        given
    }
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        assert!(!buf.is_empty(), "a read of nothing looks like the end");
        self.reads += 1;
        loop {
            match self.steps.pop_front() {
                Some(Step::Give(0)) => {}
                Some(Step::Give(bytes)) => {
                    let given = self.give(buf, bytes);
                    if given == 0 {
                        continue;
                    }
                    if given < bytes {
                        self.steps.push_front(Step::Give(bytes - given));
                    }
                    return Poll::Ready(Ok(given));
                }
                Some(Step::Pend) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(Step::Fail(kind)) => return Poll::Ready(Err(kind.into())),
                None => {
                    let given = self.give(buf, usize::MAX);
                    let may_end = given > 0 || self.tail == Tail::End;
                    assert!(may_end, "read on where the answer was known already");
                    return Poll::Ready(Ok(given));
                }
            }
        }
    }
}

/// Returns steps that give `len` bytes in random pieces, half of the time after a pause.
pub(crate) fn random_pieces(random: &mut fastrand::Rng, len: usize) -> Vec<Step> {
    let (mut steps, mut rest) = (Vec::new(), len);
    // Some streams come in crumbs, some in chunks; crumbs of a very long one would only take time.
    let most = (1 << random.u32(0..18)).max(len / 5000);
    while rest > 0 {
        let piece = random.usize(1..=rest.min(most));
        if random.bool() {
            steps.push(Step::Pend);
        }
        steps.push(Step::Give(piece));
        rest -= piece;
    }
    steps
}
