//! What may precede the first message of a stream.

use framelet::net::read_proxy_header;
use futures_lite::future::block_on;

/// First bytes of protocols, and how many bytes precede their first message.
const PREAMBLES: [(&[u8], usize); 3] =
    [(b"\x13BitTorrent protocol", 68), (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24), (b"AMQP", 8)];

/// The longest line that is looked for, in bytes.
const LINE: usize = 256;

/// Returns how many bytes may precede the first message, if the stream looks like it has such.
pub(super) fn preamble(stream: &[u8]) -> Option<usize> {
    let fixed = PREAMBLES.iter().find(|(start, _)| stream.starts_with(start)).map(|&(_, len)| len);
    fixed.or_else(|| postgres(stream)).or_else(|| line(stream)).filter(|&len| len < stream.len())
}

/// Returns the length of the header that a load balancer has put before the stream, if there is one.
pub(super) fn proxy_header(stream: &[u8]) -> usize {
    block_on(read_proxy_header(&mut &stream[..])).map_or(0, |header| header.len)
}

/// The first message of a PostgreSQL client has no type, unlike the others: its length, then the version or a request.
fn postgres(stream: &[u8]) -> Option<usize> {
    let (length, rest) = stream.split_first_chunk::<4>()?;
    let is_first = [&[0, 3, 0, 0], &[4, 210, 22, 47], &[4, 210, 22, 48]];
    is_first.iter().any(|first| rest.starts_with(*first)).then_some(())?;
    usize::try_from(u32::from_be_bytes(*length)).ok()
}

/// A greeting.
fn line(stream: &[u8]) -> Option<usize> {
    let end = stream.iter().take(LINE).position(|&byte| byte == b'\n')?;
    let is_text = stream[..end].iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t' | b'\r'));
    is_text.then_some(end + 1)
}
