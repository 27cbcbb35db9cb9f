//! Memory for received bytes, from the allocator or straight from the system.

use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

/// Where memory comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Supply {
    /// The allocator. What is freed often stays with the process, since the allocator can give nothing
    /// back that has something in use behind it.
    Heap,
    /// The system, as pages of its own, which are the system's again once the buffer is dropped. Only where
    /// a process has as many mappings as it may (65,530 on Linux), it may have to keep them.
    Pages,
}

/// Bytes; zeros at first.
#[derive(Debug)]
pub(crate) enum Buffer {
    Heap(Vec<u8>),
    Pages(MmapMut),
}

impl Buffer {
    pub(crate) fn new(len: usize, supply: Supply) -> Buffer {
        match supply {
            Supply::Heap => Buffer::Heap(vec![0; len]),
            // A process may have so many mappings only; then the heap will do.
            Supply::Pages => MmapMut::map_anon(len)
                .map_or_else(|_| Buffer::new(len, Supply::Heap), Buffer::Pages),
        }
    }

    /// Takes the first `len` bytes out.
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
