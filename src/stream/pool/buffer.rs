//! Memory for received bytes, from the allocator or directly from the system.

use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

/// Where memory comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Supply {
    /// The allocator. Freed memory often stays with the process: the allocator cannot return what lies
    /// before memory that is still in use.
    Heap,
    /// The system, as a memory mapping of its own that is returned when the buffer is dropped. (If the
    /// process is at its limit of mappings, 65,530 on Linux, the system may be unable to release it.)
    Pages,
}

/// Bytes, initially zero.
#[derive(Debug)]
pub(crate) enum Buffer {
    Heap(Vec<u8>),
    Pages(MmapMut),
}

impl Buffer {
    pub(crate) fn new(len: usize, supply: Supply) -> Buffer {
        match supply {
            Supply::Heap => Buffer::Heap(vec![0; len]),
            // The process is at its limit of mappings: use the heap.
            Supply::Pages => MmapMut::map_anon(len)
                .map_or_else(|_| Buffer::new(len, Supply::Heap), Buffer::Pages),
        }
    }

    /// Returns the first `len` bytes as a vector.
    pub(crate) fn into_vec(self, len: usize) -> Vec<u8> {
        match self {
            Buffer::Heap(mut bytes) => {
                bytes.truncate(len);
                bytes
            }
            Buffer::Pages(pages) => pages[..len].to_vec(),
        }
    }
}

impl From<&[u8]> for Buffer {
    fn from(bytes: &[u8]) -> Buffer {
        Buffer::Heap(bytes.into())
    }
}

impl Default for Buffer {
    fn default() -> Buffer {
        Buffer::Heap(Vec::new())
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Buffer::Heap(bytes) => bytes,
            Buffer::Pages(pages) => pages,
        }
    }
}

impl DerefMut for Buffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Buffer::Heap(bytes) => bytes,
            Buffer::Pages(pages) => pages,
        }
    }
}
