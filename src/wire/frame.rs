//! Frames as plain bytes.

use super::layout::{Decoded, EncodeError, Header, Layout, PREFIX_ROOM};

/// Appends the frame of `payload` to `out`, for writing without a stream. If the layout has a header, it is
/// zeros.
///
/// # Errors
///
/// [`EncodeError`] if `payload` is longer than `limit` bytes or than `layout` can express; `out` is unchanged.
///
/// # Examples
///
/// ```
/// use framelet::wire::{MAX_PAYLOAD, append_frame};
/// use framelet::Layout;
///
/// let mut out = Vec::new();
/// append_frame(&mut out, Layout::U32BE, MAX_PAYLOAD, b"hi")?;
/// assert_eq!(out, b"\0\0\0\x02hi");
/// # Ok::<(), framelet::wire::EncodeError>(())
/// ```
#[inline]
pub fn append_frame(
    out: &mut Vec<u8>,
    layout: Layout,
    limit: usize,
    payload: &[u8],
) -> Result<(), EncodeError> {
    append_frame_with_header(out, layout, limit, &[], payload)
}

/// Appends the frame of `payload` with `header` to `out`, for writing without a stream.
///
/// # Errors
///
/// [`EncodeError`] as for [`append_frame`], or if `header` is neither empty nor one that the layout has; `out`
/// is unchanged.
///
/// # Examples
///
/// ```
/// use framelet::wire::{MAX_PAYLOAD, append_frame_with_header};
///
/// let mut out = Vec::new();
/// append_frame_with_header(&mut out, "h1:u32be+self".parse()?, MAX_PAYLOAD, b"Q", b"SELECT 1\0")?;
/// assert_eq!(out, b"Q\0\0\0\x0dSELECT 1\0");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[inline]
pub fn append_frame_with_header(
    out: &mut Vec<u8>,
    layout: Layout,
    limit: usize,
    header: &[u8],
    payload: &[u8],
) -> Result<(), EncodeError> {
    layout.check(limit, header, payload.len())?;
    out.reserve(PREFIX_ROOM + payload.len());
    let rest = layout.append_prefix(header, payload.len(), out);
    out.extend_from_slice(payload);
    layout.append_trailer(rest, out);
    Ok(())
}

/// Where the parts of a whole frame end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// The length of the prefix.
    pub(crate) prefix: usize,
    /// Where the payload ends.
    pub(crate) payload_end: usize,
    /// The length of the whole frame.
    pub(crate) len: usize,
}

impl Extent {
    /// Returns the payload of the frame at the start of `bytes`.
    #[inline]
    pub(crate) fn payload(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.prefix..self.payload_end]
    }

    /// Returns whether the frame at the start of `bytes` has neither payload nor header.
    #[inline]
    pub(crate) fn is_empty(self, layout: Layout, bytes: &[u8]) -> bool {
        self.payload_end == self.prefix && self.header(layout, bytes).is_empty()
    }

    /// Returns the header of the frame at the start of `bytes`.
    #[inline]
    pub(crate) fn header(self, layout: Layout, bytes: &[u8]) -> Header<'_> {
        layout.header(&bytes[..self.len], self.prefix)
    }
}

/// Returns the payload of the frame at the start of `bytes`, and what follows the frame, if it is whole and
/// valid.
#[inline]
pub(crate) fn split_payload(layout: Layout, limit: usize, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    if !layout.is_u32be() {
        let extent = whole_frame_in(layout, limit, bytes)?;
        return Some((extent.payload(bytes), &bytes[extent.len..]));
    }
    let (prefix, rest) = bytes.split_first_chunk()?;
    let payload = usize::try_from(u32::from_be_bytes(*prefix)).ok().filter(|&len| len <= limit)?;
    rest.split_at_checked(payload)
}

/// Returns the extent of the frame at the start of `bytes` if it is whole and valid.
#[inline]
pub(crate) fn whole_frame(layout: Layout, limit: usize, bytes: &[u8]) -> Option<Extent> {
    if !layout.is_u32be() {
        return whole_frame_in(layout, limit, bytes);
    }
    // The fast path of the default layout.
    let &[a, b, c, d, ..] = bytes else { return None };
    let payload = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
    let len = 4 + payload;
    (payload <= limit && len <= bytes.len()).then_some(Extent { prefix: 4, payload_end: len, len })
}

/// Whole frames at the start of some bytes. No more than two words, which are returned in registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) count: usize,
    pub(crate) bytes: usize,
}

impl Run {
    #[inline]
    fn add(&mut self, frame: Extent) {
        self.count += 1;
        self.bytes += frame.len;
    }
}

/// Returns the frames at the start of `bytes`, up to the first one that is not whole or not valid.
#[inline]
pub(crate) fn whole_frames(layout: Layout, limit: usize, bytes: &[u8]) -> Run {
    let (mut count, mut rest) = (0, bytes);
    while let Some(frame) = whole_frame(layout, limit, rest) {
        count += 1;
        rest = &rest[frame.len..];
    }
    Run { count, bytes: bytes.len() - rest.len() }
}

/// Returns the same, but stops before the first heartbeat. It is a loop of its own, so that readers to which every frame
/// is a message do not pay for it.
#[inline(never)]
pub(crate) fn frames_before_heartbeat(layout: Layout, limit: usize, bytes: &[u8]) -> Run {
    let mut run = Run::default();
    while let Some(frame) = whole_frame(layout, limit, &bytes[run.bytes..])
        && !frame.is_empty(layout, &bytes[run.bytes..])
    {
        run.add(frame);
    }
    run
}

/// Returns the heartbeats at the start of `bytes`: frames with neither payload nor header.
pub(crate) fn heartbeats(layout: Layout, limit: usize, bytes: &[u8]) -> Run {
    let mut run = Run::default();
    while let Some(frame) = whole_frame(layout, limit, &bytes[run.bytes..])
        && frame.is_empty(layout, &bytes[run.bytes..])
    {
        run.add(frame);
    }
    run
}

/// Returns whether `bytes` begin with a heartbeat.
pub(crate) fn is_heartbeat(layout: Layout, limit: usize, bytes: &[u8]) -> bool {
    whole_frame(layout, limit, bytes).is_some_and(|frame| frame.is_empty(layout, bytes))
}

#[inline(never)]
fn whole_frame_in(layout: Layout, limit: usize, bytes: &[u8]) -> Option<Extent> {
    let Ok(Decoded::Prefix { prefix, payload }) = layout.decode(bytes) else { return None };
    let payload = usize::try_from(payload).ok().filter(|&payload| payload <= limit)?;
    let payload_end = prefix + payload;
    let len = payload_end + layout.trailer_len();
    layout.check_trailer(bytes.get(payload_end..len)?, payload_end).ok()?;
    Some(Extent { prefix, payload_end, len })
}
