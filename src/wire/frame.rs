//! Frames as plain bytes.

use super::layout::{LONGEST_PREFIX, Layout, Prefix, TooLong};

/// Appends the frame of `payload` to `out`: the writer without a stream.
///
/// # Errors
///
/// [`TooLong`] if `payload` is longer than `limit` bytes or than `layout` can say; `out` is untouched.
///
/// # Examples
///
/// ```
/// use framelet::{Layout, MAX_PAYLOAD, append_frame};
///
/// let mut out = Vec::new();
/// append_frame(&mut out, Layout::U32BE, MAX_PAYLOAD, b"hi")?;
/// assert_eq!(out, b"\0\0\0\x02hi");
/// # Ok::<(), framelet::TooLong>(())
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
