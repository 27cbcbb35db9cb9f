//! Room for the bytes around a payload.

/// The bytes of one frame around its payload: the prefix, then the trailer.
///
/// As small as possible, since each idle connection has one: it has memory only while a frame is read in steps.
#[derive(Debug, Default)]
#[allow(clippy::box_collection, reason = "a third of the size of a vector")]
pub(crate) struct Framing(Option<Box<Vec<u8>>>);

impl Framing {
    /// Returns the first `len` bytes, for which there must be room.
    pub(crate) fn first(&self, len: usize) -> &[u8] {
        self.0.as_ref().map_or(&[], |bytes| &bytes[..len])
    }

    /// Returns the first `len` bytes to be written, after making room for them.
    pub(crate) fn first_mut(&mut self, len: usize) -> &mut [u8] {
        let bytes = self.0.get_or_insert_default();
        if bytes.len() < len {
            bytes.resize(len, 0);
        }
        &mut bytes[..len]
    }
}
