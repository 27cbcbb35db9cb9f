//! What may precede the first message of a stream.

use framelet::Layout;
use framelet::net::{ProxyHeader, read_proxy_header};
use framelet::wire::{FirstBytes, Hello};
use futures_lite::future::block_on;

/// First bytes of protocols, and how many bytes precede their first message.
const PREAMBLES: [(&[u8], usize); 3] =
    [(b"\x13BitTorrent protocol", 68), (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24), (b"AMQP", 8)];

/// The longest line that is looked for, in bytes.
const LINE: usize = 256;

/// The longest beginning of an unknown kind that is looked for, in bytes.
const UNKNOWN: usize = 64;

/// Returns how many bytes may precede the first message, if the stream looks like it has such.
pub(super) fn preamble(stream: &[u8]) -> Option<usize> {
    let fixed = PREAMBLES.iter().find(|(start, _)| stream.starts_with(start)).map(|&(_, len)| len);
    let known = fixed.or_else(|| postgres(stream)).or_else(|| hello(stream));
    known.or_else(|| line(stream)).filter(|&len| len < stream.len())
}

/// Returns how many bytes of an unknown kind may precede the first message: none is likelier than the others.
pub(super) fn unknown(stream: &[u8]) -> impl Iterator<Item = usize> {
    1..=UNKNOWN.min(stream.len().saturating_sub(1))
}

/// Returns the header that a load balancer has put before the stream, if there is one.
pub(super) fn proxy_header(stream: &[u8]) -> Option<ProxyHeader> {
    block_on(read_proxy_header(&mut &stream[..])).ok()
}

/// The first message of a PostgreSQL client has no type, unlike the others: its length, then the version. Requests for
/// encryption may precede it, one of each kind.
fn postgres(stream: &[u8]) -> Option<usize> {
    const REQUESTS: [&[u8]; 2] = [&[0, 0, 0, 8, 4, 210, 22, 47], &[0, 0, 0, 8, 4, 210, 22, 48]];
    let is_request = |stream: &[u8]| REQUESTS.iter().any(|request| stream.starts_with(request));
    let mut at = 0;
    while at < 8 * REQUESTS.len() && is_request(&stream[at..]) {
        at += 8;
    }
    match stream[at..] {
        [a, b, c, d, 0, 3, 0, 0, ..] => {
            usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?.checked_add(at)
        }
        _ => (at > 0).then_some(at),
    }
}

/// What a framelet client sends that asks for acknowledgements.
fn hello(stream: &[u8]) -> Option<usize> {
    Layout::binary().find_map(|layout| match Hello::decode(layout, stream) {
        FirstBytes::Hello { len, .. } => Some(len),
        _ => None,
    })
}

/// A greeting.
fn line(stream: &[u8]) -> Option<usize> {
    let end = stream.iter().take(LINE).position(|&byte| byte == b'\n')?;
    is_text(&stream[..end]).then_some(end + 1)
}

/// Returns whether these bytes may be text in ASCII.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n'))
}
