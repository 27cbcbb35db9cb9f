//! The frames to send, prepared in advance, and positions in the endless stream they make.

use std::ops::RangeInclusive;

use framelet::Layout;
use framelet::wire::{EncodeError, MAX_PAYLOAD, append_frame_with_header};

/// The minimum size of a block, in bytes: small enough for a core's cache, and more than a socket usually
/// takes at once.
const LEAST: usize = 256 * 1024;

/// How many frames of different sizes make a block, unless it becomes too large.
const VARIETY: usize = 1024;

/// A block of this size needs no more variety.
const LARGE: usize = 8 * 1024 * 1024;

/// By how much the noise may exceed the longest payload, so that payloads differ.
const NOISE: usize = 1024 * 1024;

/// The same sizes and bytes in every run, so that runs can be compared.
const SEED: u64 = 4747;

/// Whole frames, sent over and over.
#[derive(Debug)]
pub(super) struct Block {
    bytes: Vec<u8>,
    /// Where each frame ends.
    ends: Vec<usize>,
    /// The number of payload bytes before each frame, and in all frames.
    payload: Vec<u64>,
    /// The empty frame that may precede any reply; empty if there is none.
    heartbeat: Vec<u8>,
}

/// A position in the endless stream of a repeated block. The order of the fields is that of positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cursor {
    /// How often the block has been repeated.
    round: u64,
    /// The frame in the block that contains this position.
    frame: usize,
    /// The byte offset in the block.
    at: usize,
}

impl Block {
    /// Prepares frames with the same header and payloads of random sizes within `sizes`.
    pub(super) fn new(
        layout: Layout,
        header: &[u8],
        sizes: RangeInclusive<usize>,
    ) -> Result<Block, EncodeError> {
        let mut random = fastrand::Rng::with_seed(SEED);
        // Each payload is a piece of this noise, so that no two neighbours are alike. It is text, because
        // servers that print what they receive usually print text.
        let letters = sizes.end().saturating_add(NOISE.min(sizes.end() + 256));
        let letters = (0..letters).map(|_| random.alphanumeric());
        let noise = letters.collect::<String>().into_bytes();
        let mut block =
            Block { bytes: Vec::new(), ends: Vec::new(), payload: vec![0], heartbeat: Vec::new() };
        let variety = if sizes.start() == sizes.end() { 1 } else { VARIETY };
        let mut payload = 0;
        while block.bytes.len() < LEAST || block.ends.len() < variety && block.bytes.len() < LARGE {
            let size = random.usize(sizes.clone());
            let from = random.usize(..=noise.len() - size);
            let piece = &noise[from..from + size];
            append_frame_with_header(&mut block.bytes, layout, MAX_PAYLOAD, header, piece)?;
            payload += size as u64;
            block.ends.push(block.bytes.len());
            block.payload.push(payload);
        }
        Ok(block)
    }

    /// Makes empty frames of the server heartbeats, which are no replies.
    pub(super) fn skip_empty(mut self, layout: Layout) -> Result<Block, EncodeError> {
        append_frame_with_header(&mut self.heartbeat, layout, MAX_PAYLOAD, b"", b"")?;
        Ok(self)
    }

    pub(super) fn heartbeat(&self) -> &[u8] {
        &self.heartbeat
    }

    /// Returns the start position of a connection: each connection has another one.
    pub(super) fn beginning(&self, connection: usize) -> Cursor {
        let frame = connection % self.ends.len();
        Cursor { round: 0, frame, at: self.start(frame) }
    }

    /// Returns the bytes from a position on, as far as they are contiguous and before `until`.
    pub(super) fn bytes(&self, from: Cursor, until: Option<Cursor>) -> &[u8] {
        match until {
            Some(until) if until.round == from.round => &self.bytes[from.at..until.at],
            _ => &self.bytes[from.at..],
        }
    }

    /// Returns the bytes of the frame that contains a position, or begins there.
    pub(super) fn frame(&self, at: Cursor) -> &[u8] {
        &self.bytes[self.start(at.frame)..self.ends[at.frame]]
    }

    /// Moves past some of the bytes that [`Block::bytes`] returned. Returns how many frames ended.
    pub(super) fn advance(&self, cursor: &mut Cursor, bytes: usize) -> u64 {
        cursor.at += bytes;
        let ended = self.ends[cursor.frame..].partition_point(|&end| end <= cursor.at);
        cursor.frame += ended;
        if cursor.frame == self.ends.len() {
            *cursor = Cursor { round: cursor.round + 1, frame: 0, at: 0 };
        }
        ended as u64
    }

    /// Returns the position `frames` frames after the frame boundary at or before `from`.
    pub(super) fn skip(&self, from: Cursor, frames: u64) -> Cursor {
        let all = self.ends.len() as u64;
        // Saturates: no run gets that far.
        let frame = (from.frame as u64).saturating_add(frames);
        let round = from.round.saturating_add(frame / all);
        let frame = usize::try_from(frame % all).expect("less than the length of a vector");
        Cursor { round, frame, at: self.start(frame) }
    }

    /// Returns the end of the frame that contains a position; the position itself if it is between two
    /// frames.
    pub(super) fn round_up(&self, from: Cursor) -> Cursor {
        self.skip(from, u64::from(self.inside(from)))
    }

    /// Returns how many frames end before or at a position.
    pub(super) fn frames(&self, cursor: Cursor) -> u64 {
        cursor.round * self.ends.len() as u64 + cursor.frame as u64
    }

    /// Returns how many frames begin before a position.
    pub(super) fn begun(&self, cursor: Cursor) -> u64 {
        self.frames(cursor) + u64::from(self.inside(cursor))
    }

    /// Returns the number of payload bytes in the frames that end before or at a position.
    pub(super) fn payload(&self, cursor: Cursor) -> u64 {
        cursor.round * self.payload[self.ends.len()] + self.payload[cursor.frame]
    }

    /// Returns the offset of a position in its frame.
    pub(super) fn offset(&self, cursor: Cursor) -> usize {
        cursor.at - self.start(cursor.frame)
    }

    fn inside(&self, cursor: Cursor) -> bool {
        self.offset(cursor) > 0
    }

    fn start(&self, frame: usize) -> usize {
        frame.checked_sub(1).map_or(0, |before| self.ends[before])
    }
}

#[cfg(test)]
mod tests {
    use framelet::wire::Decoded;

    use super::*;

    /// Returns the lengths of a frame's prefix and payload.
    fn lengths(layout: Layout, frame: &[u8]) -> (usize, usize) {
        match layout.decode(frame).unwrap() {
            Decoded::Prefix { prefix, payload } => (prefix, payload.try_into().unwrap()),
            incomplete => panic!("{incomplete:?}"),
        }
    }

    #[test]
    fn a_block_is_large_enough_and_whole_in_every_layout() {
        for layout in Layout::binary() {
            for sizes in [0..=0, 1..=1, 0..=200, 64..=64, 100..=100] {
                let block = Block::new(layout, b"", sizes.clone()).unwrap();
                assert!(block.bytes.len() >= LEAST);
                let (mut at, mut payload) = (0, 0);
                for (frame, &end) in block.ends.iter().enumerate() {
                    let (prefix, length) = lengths(layout, &block.bytes[at..]);
                    assert!(sizes.contains(&length));
                    assert_eq!(block.payload[frame], payload);
                    at += prefix + length;
                    payload += length as u64;
                    assert_eq!(at, end);
                }
                assert_eq!(at, block.bytes.len());
            }
        }
    }

    #[test]
    fn sizes_reach_both_ends_of_their_range() {
        let block = Block::new(Layout::U32BE, b"", 3..=6).unwrap();
        let sizes: Vec<u64> = block.payload.windows(2).map(|pair| pair[1] - pair[0]).collect();
        for size in 3..=6 {
            assert!(sizes.contains(&size));
        }
        assert!(sizes.iter().all(|size| (3..=6).contains(size)));
    }

    #[test]
    fn large_messages_make_one_of_a_kind_and_several_of_a_range() {
        let length = |sizes| Block::new(Layout::U32BE, b"", sizes).unwrap().ends.len();
        assert_eq!(length(1 << 20..=1 << 20), 1);
        assert!((8..40).contains(&length(1..=1 << 20)));
    }

    #[test]
    fn a_size_that_the_layout_cannot_say_is_refused() {
        assert!(Block::new("u8".parse().unwrap(), b"", 256..=256).is_err());
    }

    #[test]
    fn moving_in_pieces_counts_each_frame_once() {
        let block = Block::new(Layout::U32BE, b"", 0..=1000).unwrap();
        let mut random = fastrand::Rng::with_seed(1);
        let begin = block.beginning(7);
        let (mut cursor, mut ended, mut passed) = (begin, 0, 0);
        while ended < 5000 {
            let bytes = block.bytes(cursor, None);
            let piece = random.usize(1..=bytes.len().min(3000));
            passed += piece;
            ended += block.advance(&mut cursor, piece);
            assert_eq!(block.frames(cursor) - block.frames(begin), ended);
            let up = block.round_up(cursor);
            assert_eq!(block.frames(up), block.begun(cursor));
            assert_eq!(block.bytes(up, Some(up)), b"");
        }
        let whole = block.skip(begin, ended);
        assert_eq!(block.frames(whole), block.frames(cursor));
        let payload = block.payload(cursor) - block.payload(begin);
        assert_eq!(payload + 4 * ended, (passed - block.offset(cursor)) as u64);
    }

    #[test]
    fn bytes_end_at_the_limit_or_with_the_block() {
        let block = Block::new(Layout::U32BE, b"", 64..=64).unwrap();
        let begin = block.beginning(0);
        assert_eq!(block.bytes(begin, Some(block.skip(begin, 3))).len(), 3 * 68);
        let far = block.skip(begin, 3 * block.ends.len() as u64);
        assert_eq!(block.bytes(begin, Some(far)).len(), block.bytes.len());
        assert_eq!(block.skip(begin, block.ends.len() as u64).at, 0);
        let round = block.skip(begin, 7 * block.ends.len() as u64);
        assert_eq!(block.skip(round, u64::MAX).round, 7 + u64::MAX / block.ends.len() as u64);
        let large = Block::new(Layout::U32BE, b"", 1 << 20..=1 << 20).unwrap();
        let round = large.skip(large.beginning(0), 2);
        assert_eq!(large.skip(round, u64::MAX).round, u64::MAX);
        let last = block.skip(begin, block.ends.len() as u64 - 1);
        assert_eq!(block.skip(last, u64::MAX).round, u64::MAX / block.ends.len() as u64);
    }

    #[test]
    fn every_frame_has_the_header() {
        let layout: Layout = "h2:u8:data:h1".parse().unwrap();
        let block = Block::new(layout, b"abc", 3..=5).unwrap();
        let mut start = 0;
        for &end in &block.ends {
            let frame = &block.bytes[start..end];
            assert!(frame.starts_with(b"ab") && frame.ends_with(b"c"), "{frame:?}");
            start = end;
        }
        assert!(Block::new(layout, b"ab", 3..=5).is_err());
    }
}
