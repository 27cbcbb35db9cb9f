//! Frames as plain bytes.

use super::layout::{Decoded, LONGEST_PREFIX, Layout, Prefix, TooLong};

/// Appends the frame of `payload` to `out`, for writing without a stream.
///
/// # Errors
///
/// [`TooLong`] if `payload` is longer than `limit` bytes or than `layout` can express; `out` is unchanged.
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
/// # Ok::<(), framelet::wire::TooLong>(())
/// ```
#[inline]
pub fn append_frame(
    out: &mut Vec<u8>,
    layout: Layout,
    limit: usize,
    payload: &[u8],
) -> Result<(), TooLong> {
    let prefix = checked_prefix(layout, limit, payload.len())?;
    out.reserve(LONGEST_PREFIX + payload.len());
    prefix.append_to(out);
    out.extend_from_slice(payload);
    Ok(())
}

#[inline]
pub(crate) fn checked_prefix(
    layout: Layout,
    limit: usize,
    length: usize,
) -> Result<Prefix, TooLong> {
    let prefix = layout.encode(length)?;
    if length > limit {
        return Err(TooLong { length, limit, field: None });
    }
    Ok(prefix)
}

/// Returns the lengths of the prefix and of the whole frame if `bytes` starts with a whole, valid one.
#[inline]
pub(crate) fn whole_frame(layout: Layout, limit: usize, bytes: &[u8]) -> Option<(usize, usize)> {
    let Ok(Decoded::Prefix { prefix, payload }) = layout.decode(bytes) else { return None };
    let payload = usize::try_from(payload).ok().filter(|&payload| payload <= limit)?;
    let len = prefix + payload;
    (len <= bytes.len()).then_some((prefix, len))
}
