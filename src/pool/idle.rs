//! Buffers that nobody uses, for whoever needs one next.

use super::BUFFER;
use super::buffer::Buffer;

/// Idle buffers. All of them are filled with old bytes up to their length, so that they need no clearing
/// before the next read.
#[derive(Debug, Default)]
pub(super) struct Idle {
    /// Those of [`BUFFER`] bytes.
    read: Stock,
    /// Those of more, in the order of their lengths.
    large: Stock,
}

#[derive(Debug, Default)]
struct Stock {
    buffers: Vec<Buffer>,
    bytes: usize,
    /// The fewest there were since the last `trim`: those were not needed.
    unneeded: usize,
}

impl Idle {
    /// Returns how many bytes lie idle.
    pub(super) fn bytes(&self) -> usize {
        self.read.bytes + self.large.bytes
    }

    /// Takes a buffer for `len` bytes, which are [`BUFFER`] or more, but none that has more than twice as
    /// many: all of them are counted.
    pub(super) fn take(&mut self, len: usize) -> Option<Buffer> {
        if len == BUFFER {
            let last = self.read.buffers.len().checked_sub(1)?;
            return Some(self.read.take(last));
        }
        let index = self.large.first_of(len);
        let fits = self.large.buffers.get(index)?.len() <= 2 * len;
        fits.then(|| self.large.take(index))
    }

    pub(super) fn put(&mut self, buffer: Buffer) {
        debug_assert!(buffer.len() >= BUFFER);
        if buffer.len() == BUFFER {
            self.read.put(self.read.buffers.len(), buffer);
        } else {
            self.large.put(self.large.first_of(buffer.len()), buffer);
        }
    }

    /// Parts with what has not been needed since the last call.
    pub(super) fn trim(&mut self) -> [Vec<Buffer>; 2] {
        [&mut self.read, &mut self.large].map(|stock| {
            let unneeded = stock.unneeded;
            let parted = stock.part_with(unneeded);
            stock.buffers.shrink_to_fit();
            stock.unneeded = stock.buffers.len();
            parted
        })
    }

    /// Parts with all but `most` bytes, the largest buffers first.
    pub(super) fn shed(&mut self, most: usize) -> Vec<Buffer> {
        let mut parted = Vec::new();
        while self.bytes() > most {
            let stock = if self.large.bytes > 0 { &mut self.large } else { &mut self.read };
            parted.append(&mut stock.part_with(1));
        }
        parted
    }
}

impl Stock {
    /// Returns the index of the first buffer that has `len` bytes or more.
    fn first_of(&self, len: usize) -> usize {
        self.buffers.partition_point(|buffer| buffer.len() < len)
    }

    fn take(&mut self, index: usize) -> Buffer {
        let buffer = self.buffers.remove(index);
        self.bytes -= buffer.len();
        self.unneeded = self.unneeded.min(self.buffers.len());
        buffer
    }

    fn put(&mut self, index: usize, buffer: Buffer) {
        self.bytes += buffer.len();
        self.buffers.insert(index, buffer);
    }

    /// Parts with so many of the last buffers.
    fn part_with(&mut self, buffers: usize) -> Vec<Buffer> {
        let parted = self.buffers.split_off(self.buffers.len() - buffers);
        self.bytes -= parted.iter().map(|buffer| buffer.len()).sum::<usize>();
        self.unneeded = self.unneeded.min(self.buffers.len());
        parted
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
    fn what_was_needed_since_the_last_time_stays() {
        let mut idle = idle(&[BUFFER, BUFFER, BUFFER, 100_000, 100_000]);
        // They have only just come.
        assert_eq!(idle.trim().map(|parted| parted.len()), [0, 0]);
        let taken = [idle.take(BUFFER), idle.take(BUFFER), idle.take(100_000)];
        taken.into_iter().flatten().for_each(|buffer| idle.put(buffer));
        assert_eq!(idle.trim().map(|parted| parted.len()), [1, 1]);
        assert_eq!(idle.bytes(), 2 * BUFFER + 100_000);
        assert_eq!(idle.trim().map(|parted| parted.len()), [2, 1]);
        assert_eq!(idle.bytes(), 0);
    }

    #[test]
    fn the_largest_are_parted_with_first() {
        let mut idle = idle(&[BUFFER, 300_000, BUFFER, 100_000, 200_000]);
        assert!(idle.shed(usize::MAX).is_empty());
        assert_eq!(lengths(&idle.shed(400_000)), [300_000, 200_000]);
        assert_eq!(lengths(&idle.shed(BUFFER)), [100_000, BUFFER]);
        assert_eq!(idle.bytes(), BUFFER);
        // Their number says no more how many were not needed.
        assert_eq!(idle.trim().map(|parted| parted.len()), [0, 0]);
    }
}
