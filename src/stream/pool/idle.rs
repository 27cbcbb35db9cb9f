//! Unused buffers, kept for the next reader.

use super::buffer::Buffer;
use super::limits::BUFFER;

/// Idle buffers. They are initialized (with old bytes) over their whole length, so they need no clearing
/// before the next read.
#[derive(Debug, Default)]
pub(super) struct Idle {
    /// Buffers of [`BUFFER`] bytes, the most recent one last.
    read: Stock,
    /// Larger buffers, in the order of their lengths; among equals, the most recent one last.
    large: Stock,
    /// How often `trim` was called.
    trims: u64,
}

#[derive(Debug, Default)]
struct Stock {
    /// Each buffer with the value of `trims` when it was added.
    buffers: Vec<(Buffer, u64)>,
    bytes: usize,
}

impl Idle {
    /// Returns the total size of all idle buffers, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.read.bytes + self.large.bytes
    }

    /// Takes a buffer for `len` bytes; `len` is [`BUFFER`] or more. A buffer of more than twice `len` is
    /// not used, since the whole buffer is counted. The most recent one is taken, as it may still be in a
    /// cache.
    pub(super) fn take(&mut self, len: usize) -> Option<Buffer> {
        if len == BUFFER {
            let last = self.read.buffers.len().checked_sub(1)?;
            return Some(self.read.take(last));
        }
        let smallest = self.large.buffers.get(self.large.behind(len - 1))?.0.len();
        (smallest <= 2 * len).then(|| self.large.take(self.large.behind(smallest) - 1))
    }

    pub(super) fn put(&mut self, buffer: Buffer) {
        debug_assert!(buffer.len() >= BUFFER);
        let stock = if buffer.len() == BUFFER { &mut self.read } else { &mut self.large };
        stock.bytes += buffer.len();
        stock.buffers.insert(stock.behind(buffer.len()), (buffer, self.trims));
    }

    /// Removes the buffers that have been idle since the call before the last one.
    pub(super) fn trim(&mut self) -> Vec<Buffer> {
        let mut parted = Vec::new();
        for stock in [&mut self.read, &mut self.large] {
            let unneeded = stock.buffers.extract_if(.., |(_, since)| *since < self.trims);
            let before = parted.len();
            parted.extend(unneeded.map(|(buffer, _)| buffer));
            stock.bytes -= parted[before..].iter().map(|buffer| buffer.len()).sum::<usize>();
            stock.buffers.shrink_to_fit();
        }
        self.trims += 1;
        parted
    }

    /// Removes buffers until at most `most` bytes are left, the largest first.
    pub(super) fn shed(&mut self, most: usize) -> Vec<Buffer> {
        let mut parted = Vec::new();
        while self.bytes() > most {
            let stock = if self.large.bytes > 0 { &mut self.large } else { &mut self.read };
            parted.push(stock.take(stock.buffers.len() - 1));
        }
        parted
    }
}

impl Stock {
    /// Returns the index after all buffers of up to `len` bytes.
    fn behind(&self, len: usize) -> usize {
        self.buffers.partition_point(|(buffer, _)| buffer.len() <= len)
    }

    fn take(&mut self, index: usize) -> Buffer {
        let (buffer, _) = self.buffers.remove(index);
        self.bytes -= buffer.len();
        buffer
    }
}

#[cfg(test)]
mod tests {
    use super::super::buffer::Supply;
    use super::*;

    /// Returns idle buffers of these lengths.
    fn idle(lengths: &[usize]) -> Idle {
        let mut idle = Idle::default();
        for &len in lengths {
            idle.put(Buffer::new(len, Supply::Heap));
        }
        idle
    }

    fn lengths(buffers: &[Buffer]) -> Vec<usize> {
        buffers.iter().map(|buffer| buffer.len()).collect()
    }

    #[test]
    fn the_smallest_buffer_that_fits_is_taken_but_none_of_more_than_twice_as_much() {
        let mut idle = idle(&[400_000, BUFFER, 100_000, 200_000, BUFFER]);
        let mut take = |len| idle.take(len).map(|buffer| buffer.len());
        assert_eq!(take(BUFFER), Some(BUFFER));
        assert_eq!(take(150_000), Some(200_000));
        assert_eq!(take(150_000), None);
        assert_eq!(take(200_000), Some(400_000));
        assert_eq!(take(100_000), Some(100_000));
        assert_eq!(take(100_000), None);
        assert_eq!(idle.bytes(), BUFFER);
    }

    #[test]
    fn what_was_not_needed_between_two_trims_goes() {
        let mut idle = idle(&[BUFFER, BUFFER, BUFFER, 100_000, 100_000, 900_000]);
        // They have only just come.
        assert!(idle.trim().is_empty());
        let taken = [idle.take(BUFFER), idle.take(BUFFER), idle.take(100_000), idle.take(900_000)];
        taken.into_iter().flatten().for_each(|buffer| idle.put(buffer));
        assert_eq!(lengths(&idle.trim()), [BUFFER, 100_000]);
        assert_eq!(idle.bytes(), 2 * BUFFER + 100_000 + 900_000);
        assert_eq!(lengths(&idle.trim()), [BUFFER, BUFFER, 100_000, 900_000]);
        assert_eq!(idle.bytes(), 0);
    }

    #[test]
    fn the_largest_are_parted_with_first() {
        let mut idle = idle(&[BUFFER, 300_000, BUFFER, 100_000, 200_000]);
        assert!(idle.shed(usize::MAX).is_empty());
        assert_eq!(lengths(&idle.shed(400_000)), [300_000, 200_000]);
        assert_eq!(lengths(&idle.shed(BUFFER)), [100_000, BUFFER]);
        assert_eq!(idle.bytes(), BUFFER);
    }

    #[test]
    fn among_equals_the_last_one_is_taken_first() {
        let mut idle = idle(&[100_000, 100_000, 200_000]);
        let mut marked = Buffer::new(100_000, Supply::Heap);
        marked[0] = 1;
        idle.put(marked);
        assert_eq!(idle.take(100_000).unwrap()[0], 1);
        assert_eq!(idle.take(100_000).unwrap()[0], 0);
    }
}
