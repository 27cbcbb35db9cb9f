//! Room for the bytes around a payload.

use super::pool::Charge;

/// The bytes of one frame around its payload: the prefix, then the trailer.
///
/// As small as possible, since each idle connection has one: it has memory only while a frame is read in steps.
#[derive(Debug, Default)]
pub(crate) struct Framing(Option<Box<Around>>);

#[derive(Debug, Default)]
struct Around {
    bytes: Vec<u8>,
    /// Counts them in the pool if they may be many.
    charge: Option<Charge>,
}

impl Framing {
    /// Returns the first `len` bytes, for which there must be room.
    pub(crate) fn first(&self, len: usize) -> &[u8] {
        self.0.as_ref().map_or(&[], |around| &around.bytes[..len])
    }

    /// Returns the first `len` bytes to be written, after making room for them.
    pub(crate) fn first_mut(&mut self, len: usize) -> &mut [u8] {
        let bytes = &mut self.0.get_or_insert_default().bytes;
        if bytes.len() < len {
            bytes.resize(len, 0);
        }
        &mut bytes[..len]
    }

    /// Returns whether its bytes are counted.
    pub(crate) fn is_counted(&self) -> bool {
        self.0.as_ref().is_some_and(|around| around.charge.is_some())
    }

    /// Makes room for `len` bytes, which `charge` counts.
    pub(crate) fn count(&mut self, len: usize, charge: Charge) {
        let Around { bytes, charge: counted } = &mut **self.0.get_or_insert_default();
        bytes.reserve_exact(len.saturating_sub(bytes.len()));
        *counted = Some(charge);
    }

    /// Frees the room that the whole prefix did not need, if it is counted.
    pub(crate) fn shrink(&mut self) {
        if let Some(Around { bytes, charge: Some(charge) }) = self.0.as_deref_mut() {
            bytes.shrink_to_fit();
            charge.set(bytes.capacity());
        }
    }

    /// Counts its bytes as those of a whole message, which waits for the sink.
    pub(crate) fn hold_for_sink(&mut self) {
        if let Some(Around { charge: Some(charge), .. }) = self.0.as_deref_mut() {
            charge.hold_for_sink();
        }
    }
}
