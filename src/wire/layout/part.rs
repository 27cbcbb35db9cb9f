//! The parts of a frame, one after the other, as a layout's text form has them.

use super::items::{Item, LengthCounts};
use super::layout::{Kind, Layout};

/// A part of each frame in a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// Bytes of the message's [header](super::Header).
    Header {
        /// How many.
        len: usize,
    },
    /// The same bytes in each frame.
    Fixed {
        /// The bytes.
        bytes: &'static [u8],
    },
    /// The length.
    Length {
        /// What it counts.
        counts: LengthCounts,
    },
    /// Header lines, one of which holds the length, up to an empty line.
    Lines,
    /// The payload.
    Payload,
}

impl Layout {
    /// Returns the parts of a frame, in the order of the bytes on the wire.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::Layout;
    /// use framelet::wire::{LengthCounts, Part};
    ///
    /// let layout: Layout = "h1:u32be+self".parse()?;
    /// assert_eq!(
    ///     layout.parts(),
    ///     [Part::Header { len: 1 }, Part::Length { counts: LengthCounts::Itself }, Part::Payload]
    /// );
    /// # Ok::<(), framelet::wire::ParseLayoutError>(())
    /// ```
    pub fn parts(self) -> Vec<Part> {
        let part = |item: &'static Item| match item {
            Item::Header(len) => Part::Header { len: *len },
            Item::Fixed(bytes) => Part::Fixed { bytes },
        };
        match self.0 {
            Kind::Lsp => vec![Part::Lines, Part::Payload],
            Kind::Items(items) => {
                let mut parts: Vec<Part> = items.before.items.iter().map(part).collect();
                parts.push(Part::Length { counts: items.counts });
                parts.extend(items.between.items.iter().map(part));
                parts.push(Part::Payload);
                parts.extend(items.trailer.items.iter().map(part));
                parts
            }
            _ if self.counts_itself() => {
                vec![Part::Length { counts: LengthCounts::Itself }, Part::Payload]
            }
            _ => vec![Part::Length { counts: LengthCounts::Payload }, Part::Payload],
        }
    }
}
