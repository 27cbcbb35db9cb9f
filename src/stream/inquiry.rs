//! What is still read of a stream that has failed, to find out what it is.
//!
//! The first bytes of many protocols are the same, and a sender may write a prefix and its payload one after the
//! other. So the bytes that arrive soon after a wrong prefix are evidence, too. None of them becomes a message.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::{AsyncRead, Future};

use crate::runtime::clock::{Sleep, sleep};
use crate::stream::counted_reader::CountedReader;
use crate::wire::error::Fault;
use crate::wire::evidence::SAMPLE;
use crate::wire::signature::Known;

/// For how long more evidence is awaited. What follows a prefix that was sent alone may be held back (Nagle's
/// algorithm) until the prefix is acknowledged, which systems delay by 40 to 200 ms.
const WAIT: Duration = Duration::from_millis(250);

/// Those bytes of a stream that are known when it fails.
pub(crate) struct Sample {
    /// The bytes from the start of the stream or, if that is no longer in memory, of the failing frame.
    pub(crate) bytes: Vec<u8>,
    pub(crate) is_from_start: bool,
    /// Where in them the failing frame starts.
    pub(crate) frame_at: usize,
    /// Whether more bytes arrived than are here.
    pub(crate) is_cut: bool,
}

/// A stream that has failed, while it is being found out why.
pub(crate) struct Inquiry {
    pub(crate) fault: Fault,
    pub(crate) sample: Sample,
    timer: Option<Sleep>,
}

impl Inquiry {
    pub(crate) fn new(fault: Fault, sample: Sample) -> Inquiry {
        Inquiry { fault, sample, timer: None }
    }

    /// Reads on until there is enough, nothing more, or no more time.
    pub(crate) fn poll_more<R: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut CountedReader<R>,
    ) -> Poll<()> {
        // A name is final: more bytes would not change it.
        let Inquiry { sample, timer, .. } = self;
        if timer.is_none() && sample.is_from_start && Known::find(&sample.bytes).is_some() {
            return Poll::Ready(());
        }
        let mut more = [0; 512];
        while !sample.is_cut {
            match source.poll_below(cx, &mut more) {
                // The stream has ended. An error does not count: the fault came first.
                Poll::Ready(Ok(0) | Err(_)) => break,
                Poll::Ready(Ok(_)) if sample.bytes.len() - sample.frame_at >= SAMPLE => {
                    sample.is_cut = true;
                }
                Poll::Ready(Ok(read)) => sample.bytes.extend_from_slice(&more[..read]),
                Poll::Pending => {
                    let timer = timer.get_or_insert_with(|| sleep(WAIT));
                    return Pin::new(timer).poll(cx).map(drop);
                }
            }
        }
        Poll::Ready(())
    }
}
