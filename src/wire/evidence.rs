//! What is known of a failed stream.

use crate::wire::ack::{FirstBytes, Hello};
use crate::wire::judge::{self, ENOUGH};
use crate::wire::layout::Layout;

/// How much of a stream is examined, in bytes. More would not make the guess better.
pub(crate) const SAMPLE: usize = 4096;

/// A failed stream, with those of its bytes that are still in memory.
pub(crate) struct Evidence<'a> {
    /// The layout the stream was read with.
    pub(crate) layout: Layout,
    /// The longest payload it was allowed, in bytes.
    pub(crate) limit: usize,
    /// The number of the failing message.
    pub(crate) message: u64,
    /// The bytes from the start of the stream or, if that is no longer at hand, of the failing frame.
    pub(crate) bytes: &'a [u8],
    pub(crate) is_from_start: bool,
    /// Where in `bytes` the failing frame starts.
    pub(crate) frame_at: usize,
    /// How many bytes of the failing payload are missing, if the stream ended inside it.
    pub(crate) missing: Option<u64>,
    /// Whether non-empty messages arrived before: then the layout is not in doubt.
    pub(crate) has_worked: bool,
    /// Whether more bytes arrived than are here: then it says nothing that a message ends with these.
    pub(crate) is_cut: bool,
}

impl<'a> Evidence<'a> {
    /// Returns all bytes from the start of the stream, if they are at hand.
    pub(crate) fn stream(&self) -> Option<&'a [u8]> {
        self.is_from_start.then_some(self.bytes)
    }

    /// Returns the bytes from the start of the failing frame.
    pub(crate) fn frame(&self) -> &'a [u8] {
        &self.bytes[self.frame_at..]
    }

    /// Returns how much is said for the expected layout by the messages before the failing one, in bits.
    pub(crate) fn confirmed(&self) -> u32 {
        match self.stream() {
            _ if !self.has_worked => 0,
            Some(stream) => {
                let before = &stream[..self.frame_at];
                let before = match Hello::decode(self.layout, before) {
                    FirstBytes::Hello { len, .. } => &before[len..],
                    _ => before,
                };
                judge::confirmed(self.layout, before, self.limit)
            }
            None => ENOUGH,
        }
    }
}
