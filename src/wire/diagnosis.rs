//! Guesses what a stream that is not in the expected layout most likely is.
//!
//! A server that reads `GET ` as a length reports "1195725856 is over the limit", and its user raises the
//! limit. The bytes say more than that. This module is only used once a stream has failed, so it need not
//! be fast; and it only suggests, since no evidence here is proof.

use std::fmt;

use crate::wire::ack::{FirstBytes, Hello};
use crate::wire::escape::Escaped;
use crate::wire::layout::{Decoded, Layout};

/// What a failed stream most likely is, which shows what to do.
///
/// Its text form is a clause that can follow an error message.
///
/// # Examples
///
/// A sender whose lengths have the other byte order:
///
/// ```
/// use framelet::stream::ReadError;
/// use framelet::FrameReader;
///
/// # futures_lite::future::block_on(async {
/// let mut reader = FrameReader::new(&b"\x05\0\0\0hello"[..]);
/// let Err(ReadError::Protocol(error)) = reader.read().await else { panic!("it was valid") };
/// let suspect = error.suspect.expect("the bytes are valid in another layout");
/// assert_eq!(suspect.layout(), Some("u32le".parse()?));
/// assert_eq!(suspect.to_string(), "as u32le it would be 5");
/// # Ok::<(), framelet::wire::ParseLayoutError>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Suspect {
    /// An HTTP/1 request.
    HttpRequest,
    /// An HTTP/1 response.
    HttpResponse,
    /// The preface of an HTTP/2 connection.
    Http2,
    /// A TLS handshake.
    TlsHandshake,
    /// A TLS alert.
    TlsAlert,
    /// The greeting of an SSH client or server.
    Ssh,
    /// A PROXY protocol header, as a load balancer sends it.
    ProxyHeader,
    /// JSON without a length prefix.
    Json,
    /// Other text without a length prefix.
    Text {
        /// How it starts.
        start: Vec<u8>,
    },
    /// Another layout, in which the same bytes are valid.
    Layout {
        /// That layout.
        layout: Layout,
        /// The length it reads where this layout reads an impossible one.
        length: u64,
    },
    /// The other byte order, in which the length is possible; too little of the message arrived to be sure.
    PossibleLayout {
        /// That layout.
        layout: Layout,
        /// The length it reads.
        length: u64,
    },
    /// A client that asks for acknowledgements, in another layout.
    Hello {
        /// That layout.
        layout: Layout,
    },
    /// The length includes its own prefix although the layout says otherwise, or the reverse.
    Count {
        /// The layout to try.
        layout: Layout,
    },
}

impl Suspect {
    /// Returns the layout to try instead, if the suspicion is another layout.
    pub fn layout(&self) -> Option<Layout> {
        match self {
            Suspect::Layout { layout, .. }
            | Suspect::Hello { layout }
            | Suspect::Count { layout } => Some(*layout),
            _ => None,
        }
    }
}

/// The first bytes that identify a foreign protocol.
const SIGNATURES: [(&[u8], Suspect); 21] = [
    (b"GET ", Suspect::HttpRequest),
    (b"HEAD ", Suspect::HttpRequest),
    (b"POST ", Suspect::HttpRequest),
    (b"PUT ", Suspect::HttpRequest),
    (b"PATCH ", Suspect::HttpRequest),
    (b"DELETE ", Suspect::HttpRequest),
    (b"OPTIONS ", Suspect::HttpRequest),
    (b"CONNECT ", Suspect::HttpRequest),
    (b"TRACE ", Suspect::HttpRequest),
    (b"HTTP/", Suspect::HttpResponse),
    (b"PRI * HTTP/2", Suspect::Http2),
    (b"SSH-", Suspect::Ssh),
    (b"PROXY ", Suspect::ProxyHeader),
    (b"\r\n\r\n\0\r\nQUIT\n", Suspect::ProxyHeader),
    (b"\x16\x03\x00", Suspect::TlsHandshake),
    (b"\x16\x03\x01", Suspect::TlsHandshake),
    (b"\x16\x03\x03", Suspect::TlsHandshake),
    (b"\x15\x03\x01", Suspect::TlsAlert),
    (b"\x15\x03\x03", Suspect::TlsAlert),
    (b"{\"", Suspect::Json),
    (b"[{\"", Suspect::Json),
];

/// After this many whole messages, the last one may be incomplete.
const MANY: usize = 4;

/// How much of a stream is examined, in bytes. More would not make the guess better.
pub(crate) const SAMPLE: usize = 4096;

/// A failed stream, with those of its bytes that are still in memory.
pub(crate) struct Evidence<'a> {
    /// The layout the stream was read with.
    pub(crate) layout: Layout,
    /// The longest payload it was allowed, in bytes.
    pub(crate) limit: usize,
    /// The bytes from the start of the failing frame; at least what was read of its prefix.
    pub(crate) frame: &'a [u8],
    /// All bytes from the start of the stream, if the failing frame is near it.
    pub(crate) stream: Option<&'a [u8]>,
    /// How many bytes of the failing payload are missing, if the stream ended inside it.
    pub(crate) missing: Option<u64>,
    /// Whether non-empty messages arrived before: then the layout is not in doubt.
    pub(crate) has_worked: bool,
}

/// Returns what the stream most likely is, or nothing if any answer would be a guess.
pub(crate) fn diagnose(evidence: &Evidence<'_>) -> Option<Suspect> {
    let start = evidence.stream.unwrap_or(evidence.frame);
    hello(evidence.layout, start)
        .or_else(|| foreign_protocol(start))
        .or_else(|| another_layout(evidence))
        .or_else(|| unframed_text(evidence.frame))
}

/// A layout is only suggested if it can read the bytes in memory: the advice has to work. A layout that has
/// already worked is only in doubt if a similar one reads the stream from its start.
fn another_layout(evidence: &Evidence<'_>) -> Option<Suspect> {
    if evidence.has_worked {
        return a_like_layout_fits(evidence);
    }
    missing_a_prefix(evidence)
        .or_else(|| a_like_layout_fits(evidence))
        .or_else(|| other_order_is_plausible(evidence))
        .or_else(|| any_layout_fits(evidence))
}

/// A hello is unmistakable, and one of another layout is over any limit in this one.
fn hello(layout: Layout, start: &[u8]) -> Option<Suspect> {
    let is_hello =
        |other: &Layout| matches!(Hello::decode(*other, start), FirstBytes::Hello { .. });
    let layout = Layout::all().filter(|other| *other != layout).find(is_hello)?;
    Some(Suspect::Hello { layout })
}

fn foreign_protocol(start: &[u8]) -> Option<Suspect> {
    SIGNATURES
        .iter()
        .find(|(signature, _)| {
            // If the stream is a short prefix only, three bytes of a signature are enough.
            let shared = signature.len().min(start.len());
            shared >= signature.len().min(4) && signature[..shared] == start[..shared]
        })
        .map(|(_, suspect)| suspect.clone())
}

/// A payload that is short by exactly the length of its prefix: the sender includes the prefix in the
/// length.
fn missing_a_prefix(evidence: &Evidence<'_>) -> Option<Suspect> {
    let width = evidence.layout.width()?;
    let layout = evidence.layout.other_count()?;
    (layout.counts_itself() && evidence.missing? == width as u64)
        .then_some(Suspect::Count { layout })
}

/// A layout that differs in one point and reads the stream from its start as whole messages.
fn a_like_layout_fits(evidence: &Evidence<'_>) -> Option<Suspect> {
    let other_count = evidence.layout.other_count();
    let likeliest = [other_count, evidence.layout.other_order()];
    let (layout, length) = first_that_fits(evidence, likeliest.into_iter().flatten())?;
    if Some(layout) == other_count {
        return Some(Suspect::Count { layout });
    }
    Some(Suspect::Layout { layout, length })
}

/// Any layout that reads the stream. Tried after the other byte order: if a read ended inside a message,
/// the bytes may by chance be a whole message of an unrelated layout.
fn any_layout_fits(evidence: &Evidence<'_>) -> Option<Suspect> {
    // Excluded: one-byte prefixes and varints match nearly any text.
    let wide = Layout::all().filter(|layout| layout.width().is_some_and(|width| width > 1));
    let others = wide.filter(|&layout| layout != evidence.layout);
    let (layout, length) = first_that_fits(evidence, others)?;
    Some(Suspect::Layout { layout, length })
}

fn first_that_fits(
    evidence: &Evidence<'_>,
    mut layouts: impl Iterator<Item = Layout>,
) -> Option<(Layout, u64)> {
    let stream = evidence.stream?;
    let stream = &stream[..stream.len().min(SAMPLE)];
    layouts.find_map(|layout| Some((layout, whole_messages(layout, evidence.limit, stream)?)))
}

/// Returns the length of the first message if `stream` is valid in `layout`: whole messages up to the last
/// byte, or enough of them that the last one may be incomplete.
fn whole_messages(layout: Layout, limit: usize, stream: &[u8]) -> Option<u64> {
    let (mut rest, mut whole, mut first, mut bytes) = (stream, 0, 0, 0);
    while !rest.is_empty() {
        match layout.decode(rest) {
            Ok(Decoded::Prefix { prefix, payload }) => {
                let payload_len =
                    usize::try_from(payload).ok().filter(|&payload| payload <= limit)?;
                let Some(after) = rest.get(prefix + payload_len..) else { break };
                if whole == 0 {
                    first = payload;
                }
                rest = after;
                whole += 1;
                bytes += payload;
            }
            Ok(Decoded::Incomplete { .. }) => break,
            Err(_) => return None,
        }
    }
    // Zeros are whole messages in any layout, so they prove nothing.
    (first > 0 && bytes > 0 && (rest.is_empty() || whole >= MANY)).then_some(first)
}

/// A length that is impossible as it stands and small in the other byte order.
fn other_order_is_plausible(evidence: &Evidence<'_>) -> Option<Suspect> {
    let layout = evidence.layout.other_order()?;
    let Ok(Decoded::Prefix { payload, .. }) = layout.decode(evidence.frame) else { return None };
    let here = evidence.layout.decode(evidence.frame);
    let over =
        !matches!(here, Ok(Decoded::Prefix { payload, .. }) if payload <= evidence.limit as u64);
    // Text is over any limit in either order, so it cannot pass this check.
    (over && is_possible(layout, evidence.limit.min(1 << 20), evidence.frame))
        .then_some(Suspect::PossibleLayout { layout, length: payload })
}

/// Returns whether no length is over `limit` if these bytes are read in `layout`.
fn is_possible(layout: Layout, limit: usize, mut bytes: &[u8]) -> bool {
    loop {
        match layout.decode(bytes) {
            Ok(Decoded::Prefix { prefix, payload }) => {
                let Some(payload) = usize::try_from(payload).ok().filter(|&len| len <= limit)
                else {
                    return false;
                };
                match bytes.get(prefix + payload..) {
                    Some(rest) => bytes = rest,
                    None => return true,
                }
            }
            Ok(Decoded::Incomplete { .. }) => return true,
            Err(_) => return false,
        }
    }
}

fn unframed_text(frame: &[u8]) -> Option<Suspect> {
    let start = &frame[..frame.len().min(24)];
    let (mut shown, mut letters) = (0, 0);
    for chunk in start.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() && !matches!(c, '\r' | '\n' | '\t') {
                return None;
            }
            shown += 1;
            letters += usize::from(c.is_alphanumeric());
        }
        // The sample may end inside a character, but nothing may follow bytes that are not text.
        if !chunk.invalid().is_empty() && !start.ends_with(chunk.invalid()) {
            return None;
        }
    }
    (shown >= 3 && (letters > 0 || start.contains(&b'\n')))
        .then(|| Suspect::Text { start: start.to_vec() })
}

impl fmt::Display for Suspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Suspect::HttpRequest => f.write_str(
                "this looks like an HTTP request: the peer is a web client and does not frame its messages",
            ),
            Suspect::HttpResponse => f.write_str(
                "this looks like an HTTP response: the peer is a web server and does not frame its messages",
            ),
            Suspect::Http2 => f.write_str(
                "this looks like HTTP/2 (gRPC too starts like this): the peer does not frame its messages this way",
            ),
            Suspect::TlsHandshake => f.write_str(
                "this looks like a TLS handshake: the peer expects TLS here; turn it off there, or put a TLS proxy before this port",
            ),
            Suspect::TlsAlert => f.write_str(
                "this looks like a TLS alert: the peer speaks TLS and rejected what it was sent",
            ),
            Suspect::Ssh => f.write_str("this looks like SSH: is this the right port?"),
            Suspect::ProxyHeader => f.write_str(
                "this looks like a PROXY protocol header: turn it off in the load balancer",
            ),
            Suspect::Json => f.write_str(
                "this looks like JSON without a length prefix: the sender may not be framing",
            ),
            Suspect::Text { start } => write!(
                f,
                "this looks like text without a length prefix (\"{}\"): the sender may not be framing",
                Escaped(start)
            ),
            Suspect::Layout { layout, length } => {
                write!(f, "as {layout} it would be {length}")
            }
            Suspect::PossibleLayout { layout, length } => {
                write!(f, "as {layout} it would be {length}, if that makes sense")
            }
            Suspect::Hello { layout } => {
                write!(f, "this is a client that asks for acknowledgements, in {layout}")
            }
            Suspect::Count { layout } => {
                let count = if layout.counts_itself() { "count" } else { "not count" };
                write!(f, "the length may {count} its own prefix, as in {layout}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence<'a>(frame: &'a [u8], layout: &str) -> Evidence<'a> {
        let layout: Layout = layout.parse().unwrap();
        let limit = layout.max_payload().min(1 << 20);
        Evidence { layout, limit, frame, stream: Some(frame), missing: None, has_worked: false }
    }

    fn say(frame: &[u8], layout: &str) -> String {
        diagnose(&evidence(frame, layout)).map_or("nothing".into(), |suspect| suspect.to_string())
    }

    #[test]
    fn foreign_protocols_are_named() {
        for (bytes, word) in [
            (&b"GET / HTTP/1.1\r\n"[..], "HTTP request"),
            (b"GET ", "HTTP request"),
            (b"POST", "HTTP request"),
            (b"HTTP/1.1 400 Bad Request", "HTTP response"),
            (b"HTTP", "HTTP response"),
            (b"PRI * HTTP/2.0\r\n", "HTTP/2"),
            (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH"),
            (b"\x16\x03\x01\x02\x00\x01", "TLS handshake"),
            (b"\x15\x03\x03\x00\x02\x02", "TLS alert"),
            (b"{\"id\":1}\n", "JSON"),
            (b"PROXY TCP4 10.0.0.1", "PROXY protocol"),
            (b"hello there\r\n", "text without a length prefix (\"hello there\\r\\n\")"),
            ("grüße an alle und noch mehr".as_bytes(), "text"),
        ] {
            assert!(say(bytes, "u32be").contains(word), "{:?}: {}", bytes, say(bytes, "u32be"));
        }
    }

    #[test]
    fn the_other_byte_order_is_seen_from_one_prefix_and_offered_for_a_whole_message() {
        for (stream, layout, other) in
            [(b"\x05\0\0\0hello", "u32be", "u32le"), (b"\0\0\0\x05hello", "u32le", "u32be")]
        {
            let seen = format!("as {other} it would be 5, if that makes sense");
            assert_eq!(say(&stream[..4], layout), seen);
            assert_eq!(say(&stream[..7], layout), seen);
            let offered = format!("as {other} it would be 5");
            assert_eq!(say(stream, layout), offered);
        }
        // More has come than a message of 5 bytes.
        assert_eq!(say(b"\x05\0\0\0hello \xff\xfe\xff", "u32be"), "nothing");
    }

    #[test]
    fn a_layout_that_has_worked_is_only_in_doubt_if_one_like_it_reads_all() {
        let stray = Evidence { has_worked: true, ..evidence(b"\n\0\0\0\x01", "u32be") };
        assert_eq!(diagnose(&stray), None);
        let counting = b"\0\0\0\x09hello\0\0\0\x09world";
        let all = Evidence { has_worked: true, ..evidence(counting, "u32be") };
        assert!(diagnose(&all).unwrap().to_string().contains("u32be+self"));
    }

    #[test]
    fn another_width_is_seen_from_whole_messages() {
        assert_eq!(say(b"\0\x05hello\0\x05world", "u32be"), "as u16be it would be 5");
    }

    #[test]
    fn a_length_that_counts_its_prefix_is_seen_both_ways() {
        let counting = b"\0\0\0\x09hello\0\0\0\x09world";
        assert!(say(counting, "u32be").contains("may count its own prefix, as in u32be+self"));
        let plain = b"\0\0\0\x05hello\0\0\0\x05world";
        assert!(say(plain, "u32be+self").contains("may not count its own prefix, as in u32be"));
        let one = Evidence { missing: Some(4), ..evidence(b"\0\0\0\x09hello", "u32be") };
        assert!(diagnose(&one).unwrap().to_string().contains("u32be+self"));
    }

    #[test]
    fn a_hello_in_another_layout_is_seen_whatever_the_layout() {
        let hello =
            Hello { sender: crate::wire::sender_id::SenderId::from_bytes([7; 16]), first: 1 };
        for layout in Layout::all().filter(|layout| Hello::fits(*layout)) {
            let bytes = hello.encode(layout).unwrap();
            for other in Layout::all().filter(|other| *other != layout) {
                let evidence = Evidence { layout: other, ..evidence(&bytes, "u32be") };
                assert_eq!(diagnose(&evidence), Some(Suspect::Hello { layout }), "as {other}");
            }
        }
    }

    #[test]
    fn noise_is_not_given_a_name() {
        assert_eq!(say(b"\xff\xff\xff\xff", "u32be"), "nothing");
        assert_eq!(say(b"\x93\x07\xf1\xb2\x00\x01", "u32be"), "nothing");
    }

    #[test]
    fn a_message_cannot_smuggle_control_bytes_into_the_diagnosis() {
        let text = say("ok\u{202e}\tfine".as_bytes(), "u32be");
        assert!(text.contains(r"ok\u{202e}\tfine"), "{text}");
    }
}
