//! What a reader knows of what is next: how long a frame is, or what precedes the first one.

/// Bytes before the first frame, which are read and dropped.
pub(super) struct Preamble {
    pub(super) got: u64,
    pub(super) want: u64,
}

impl Preamble {
    pub(super) fn is_complete(&self) -> bool {
        self.got >= self.want
    }
}

/// As small as possible, since each idle connection has space for one.
#[derive(Clone, Copy)]
pub(super) struct Announced {
    prefix: u16,
    trailer: u8,
    payload: u32,
}

impl Announced {
    pub(super) fn prefix(self) -> usize {
        usize::from(self.prefix)
    }

    pub(super) fn payload(self) -> usize {
        self.payload as usize
    }

    pub(super) fn trailer(self) -> usize {
        usize::from(self.trailer)
    }

    /// Returns the length of the whole frame.
    pub(super) fn frame(self) -> u64 {
        (self.prefix() + self.payload() + self.trailer()) as u64
    }

    /// Returns the announced frame, if its payload is within `limit`.
    pub(super) fn within(
        limit: usize,
        prefix: usize,
        payload: u64,
        trailer: usize,
    ) -> Option<Announced> {
        let (prefix, trailer) = (u16::try_from(prefix).ok()?, u8::try_from(trailer).ok()?);
        let payload = u32::try_from(payload).ok()?;
        let announced = Announced { prefix, trailer, payload };
        Some(announced).filter(|announced| announced.payload() <= limit)
    }
}
