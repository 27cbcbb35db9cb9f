//! Room for the bytes around a payload.

use crate::wire::layout::SHORT_PREFIX;

/// The bytes of one frame around its payload: the prefix, then the trailer. A few need no memory of their own.
#[derive(Debug)]
pub(crate) struct Framing {
    short: [u8; SHORT_PREFIX],
    long: Option<Box<[u8]>>,
}

impl Framing {
    pub(crate) fn new() -> Framing {
        Framing { short: [0; SHORT_PREFIX], long: None }
    }

    /// Returns the first `len` bytes, which may have been written or not.
    pub(crate) fn first(&self, len: usize) -> &[u8] {
        &self.long.as_deref().unwrap_or(&self.short)[..len]
    }

    /// Returns the first `len` bytes to be written, after making room for them.
    pub(crate) fn first_mut(&mut self, len: usize) -> &mut [u8] {
        let room = self.long.as_ref().map_or(SHORT_PREFIX, |long| long.len());
        if len > room {
            let mut long = vec![0; len.next_power_of_two()];
            long[..room].copy_from_slice(self.first(room));
            self.long = Some(long.into_boxed_slice());
        }
        &mut self.long.as_deref_mut().unwrap_or(&mut self.short)[..len]
    }
}
