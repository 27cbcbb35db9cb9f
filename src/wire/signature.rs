//! What shows other protocols, and data that no length precedes: their first bytes.
//!
//! A name needs proof. Most have bytes that nothing else starts with; a first line is HTTP only if it says so; and
//! what is short has to be whole.

use std::fmt;

use crate::wire::shape::is_bitcoin;

/// Another protocol, or a kind of data, that its first bytes show.
///
/// # Examples
///
/// ```
/// use framelet::wire::Known;
///
/// let known = Known::find(b"GET / HTTP/1.1\r\n").expect("its first line says HTTP");
/// assert_eq!(known.name, "an HTTP request");
/// assert!(Known::find(b"GET key\r\n").is_none());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Known {
    /// What it is, with an article where it needs one.
    pub name: &'static str,
    /// What that means, or what to do; may be empty.
    pub advice: &'static str,
    /// The name of the layout that reads it, if one does.
    pub layout: Option<&'static str>,
}

impl Known {
    /// Returns whether it is a file with packets of several connections, and so no stream, even if a layout reads it.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::wire::Known;
    ///
    /// let start = b"\xd4\xc3\xb2\xa1\x02\0\x04\0";
    /// assert!(Known::find(start).is_some_and(|known| known.is_packet_capture()));
    /// ```
    pub fn is_packet_capture(&self) -> bool {
        *self == CAPTURE
    }

    /// Returns whether it is TLS: then the peer speaks it, and this side does not.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::wire::Known;
    ///
    /// assert!(Known::find(b"\x16\x03\x01\x02\0\x01").is_some_and(|known| known.is_tls()));
    /// ```
    pub fn is_tls(&self) -> bool {
        [TLS_HANDSHAKE, TLS_ALERT, TLS_DATA].contains(self)
    }
}

const fn known(name: &'static str, advice: &'static str) -> Known {
    Known { name, advice, layout: None }
}

const fn framed(name: &'static str, layout: &'static str, advice: &'static str) -> Known {
    Known { name, advice, layout: Some(layout) }
}

const UNFRAMED: &str = "the sender may not be framing";
const OTHER_PORT: &str = "is this the right port?";

const HTTP_REQUEST: Known =
    known("an HTTP request", "the peer is a web client and does not frame its messages");
const HTTP_RESPONSE: Known =
    known("an HTTP response", "the peer is a web server and does not frame its messages");
const TLS_HANDSHAKE: Known = known(
    "a TLS handshake",
    "the peer expects TLS here: give this side a certificate, or turn TLS off there",
);
const TLS_ALERT: Known =
    known("a TLS alert", "the peer speaks TLS and rejected what it was sent; turn TLS on here");
const TLS_DATA: Known = known("TLS data", "the peer speaks TLS: turn it on here, or off there");
const JSON: Known = known("JSON without a length prefix", UNFRAMED);
const XML: Known = known("XML without a length prefix", UNFRAMED);
const UTF_16: Known = known("UTF-16 text without a length prefix", UNFRAMED);
const WITH_BOM: Known = known("text that begins with a byte order mark", UNFRAMED);
const SYSLOG: Known =
    known("syslog in lines", "choose octet counting there, and the layout dec/20 here");
const LSP: Known = framed("header lines with Content-Length", "lsp", "the layout lsp reads them");
const PROXY: Known =
    known("a PROXY protocol header", "turn it off in the load balancer, or take it here");
const TELNET: Known = known("telnet", OTHER_PORT);
const SOCKS5: Known = known("a SOCKS5 client", "it takes this port for a proxy");
const SOCKS4: Known = known("a SOCKS4 client", "it takes this port for a proxy");
const WEB_SOCKET: Known = known("a WebSocket frame", "this side does not speak WebSocket");
const THRIFT: Known = known("unframed Thrift", "choose the framed transport there");
const BITCOIN: Known = framed("a message of Bitcoin", "bitcoin", "the layout bitcoin reads it");
const REDIS: Known = known("Redis", OTHER_PORT);
const PICKLE: Known = known("a Python pickle without a length prefix", UNFRAMED);
const MESSAGE_PACK: Known = known("MessagePack without a length prefix", UNFRAMED);
const CBOR: Known = known("CBOR without a length prefix", UNFRAMED);
const MYSQL: Known = framed("the greeting of a MySQL server", "mysql", "the layout mysql reads it");
const MQTT: Known = framed("MQTT", "mqtt", "the layout mqtt reads it");

const POSTGRES: Known = known(
    "the first message to PostgreSQL",
    "it is in the layout u32be+self, and those that follow are in postgres",
);
const GIT: Known = framed("git", "git", "the layout git reads it");
const RPC: Known =
    known("ONC RPC (such as NFS)", "its lengths have a flag in the top bit, which no layout has");
const DCE_RPC: Known = known("DCE/RPC", OTHER_PORT);
const DNP3: Known = known("DNP3", "its checksums inside each message are in no layout");
const X11: Known = known("an X11 client", OTHER_PORT);
const ZEROMQ: Known = known("ZeroMQ", "its frames are in no layout");
const RTMP: Known = known("RTMP", OTHER_PORT);
const LUMBERJACK: Known = known("Beats (Lumberjack)", OTHER_PORT);
const RIFF: Known = known("RIFF data (such as WAV)", UNFRAMED);
const CAPTURE: Known = known(
    "a packet capture",
    "extract one direction of a connection first: tshark -r FILE -qz follow,tcp,raw,0 | grep -E '^[0-9a-f]+$' | \
     xxd -r -p",
);

/// First bytes that nothing else has, four or more of which are enough.
const SIGNATURES: &[(&[u8], Known)] = &[
    (b"HTTP/", HTTP_RESPONSE),
    (
        b"PRI * HTTP/2",
        known(
            "HTTP/2 (gRPC too starts like this)",
            "the peer does not frame its messages this way",
        ),
    ),
    (b"SSH-", known("SSH", OTHER_PORT)),
    (b"PROXY ", PROXY),
    (b"\r\n\r\n\0\r\nQUIT\n", PROXY),
    (b"\x1f\x8b\x08\0", known("gzip data", UNFRAMED)),
    (b"\x1f\x8b\x08\x08", known("gzip data", UNFRAMED)),
    (b"\x28\xb5\x2f\xfd", known("zstd data", UNFRAMED)),
    (b"PK\x03\x04", known("a zip archive", UNFRAMED)),
    (b"\xfd7zXZ\0", known("xz data", UNFRAMED)),
    (b"\x04\x22\x4d\x18", known("LZ4 data", UNFRAMED)),
    (b"\x89PNG\r\n\x1a\n", known("a PNG image", UNFRAMED)),
    (b"%PDF-", known("a PDF document", UNFRAMED)),
    (b"\x7fELF", known("an ELF program", UNFRAMED)),
    (b"SQLite format 3\0", known("an SQLite database", UNFRAMED)),
    (
        b"\xac\xed\0\x05",
        known("Java serialization", "ObjectOutputStream does not frame what it writes"),
    ),
    (b"\x13BitTorrent protocol", known("BitTorrent", OTHER_PORT)),
    (b"@RSYNCD:", known("rsync", OTHER_PORT)),
    (b"RFB 00", known("VNC", OTHER_PORT)),
    (b"AMQP\0", known("AMQP", OTHER_PORT)),
    (b"AMQP\x01", known("AMQP", OTHER_PORT)),
    (b"AMQP\x02", known("AMQP", OTHER_PORT)),
    (b"AMQP\x03", known("AMQP", OTHER_PORT)),
    (b"<?xml", XML),
    (b"IKETCP", known("IKE over TCP", OTHER_PORT)),
    (b"Content-Length:", LSP),
    (b"Content-Type: application/vscode", LSP),
    (b"\xa1\xb2\xc3\xd4\0\x02\0\x04", CAPTURE),
    (b"\xd4\xc3\xb2\xa1\x02\0\x04\0", CAPTURE),
    (b"\xa1\xb2\x3c\x4d\0\x02\0\x04", CAPTURE),
    (b"\x4d\x3c\xb2\xa1\x02\0\x04\0", CAPTURE),
    (b"GIOP\x01", known("CORBA (GIOP)", OTHER_PORT)),
    (b"8=FIX", known("FIX", "its messages end with a checksum field, not after a length")),
    (b"\x0bMSH|", known("HL7 (MLLP)", "its messages end with 1c 0d, and have no length")),
    (b"JRMI\0", known("Java RMI", OTHER_PORT)),
    (b"JDWP-Handshake", known("a Java debugger (JDWP)", OTHER_PORT)),
    (
        b"\0SP\0",
        known(
            "nanomsg",
            "after its first 8 bytes, which are to be skipped, it is in the layout nanomsg",
        ),
    ),
    (b"\0AUTH ", known("D-Bus", OTHER_PORT)),
    (b"\x60\x60\xb0\x17", known("Bolt (Neo4j)", OTHER_PORT)),
    (b"hrpc", known("Hadoop RPC", OTHER_PORT)),
    (b"CNXN\x01\0\0\x01", known("the ADB protocol of a device", OTHER_PORT)),
    (b".NET\x01\0", known(".NET remoting", OTHER_PORT)),
    (b"\xff\xd8\xff", known("a JPEG image", UNFRAMED)),
    (b"GIF8", known("a GIF image", UNFRAMED)),
    (b"Obj\x01\x04", known("an Avro file", UNFRAMED)),
    (b"BZh91AY&SY", known("bzip2 data", UNFRAMED)),
];

/// The magic number of pcapng is the same in both byte orders, and stands before a length.
fn is_pcapng(start: &[u8]) -> bool {
    matches!(
        start,
        [0x0a, 0x0d, 0x0d, 0x0a, _, _, _, _, 0x1a, 0x2b, 0x3c, 0x4d, ..]
            | [0x0a, 0x0d, 0x0d, 0x0a, _, _, _, _, 0x4d, 0x3c, 0x2b, 0x1a, ..]
    )
}

/// What the first line starts with, and what is in it.
const LINES: &[(&str, &str, Known)] = &[
    ("", " HTTP/1.", HTTP_REQUEST),
    ("", " HTTP/2", HTTP_REQUEST),
    ("", " RTSP/1.", known("RTSP", OTHER_PORT)),
    ("", " RTSP/2.", known("RTSP", OTHER_PORT)),
    ("RTSP/", "", known("RTSP", OTHER_PORT)),
    ("", " SIP/2.0", known("SIP", OTHER_PORT)),
    ("SIP/2.0", "", known("SIP", OTHER_PORT)),
    ("CONNECT {", "\"", known("a NATS client", OTHER_PORT)),
    ("INFO {", "\"", known("a NATS server", OTHER_PORT)),
    ("CONNECT\r", "", known("STOMP", OTHER_PORT)),
    ("CONNECT\n", "", known("STOMP", OTHER_PORT)),
    ("STOMP\r", "", known("STOMP", OTHER_PORT)),
    ("STOMP\n", "", known("STOMP", OTHER_PORT)),
    ("CONNECTED\n", "", known("STOMP", OTHER_PORT)),
    ("EHLO ", "", known("an SMTP client", OTHER_PORT)),
    ("HELO ", "", known("an SMTP client", OTHER_PORT)),
    ("220", "SMTP", known("the greeting of an SMTP server", OTHER_PORT)),
    ("220", "FTP", known("the greeting of an FTP server", OTHER_PORT)),
    ("* OK", "IMAP", known("the greeting of an IMAP server", OTHER_PORT)),
    ("+OK", "POP3", known("the greeting of a POP3 server", OTHER_PORT)),
    ("-ERR unknown command", "", REDIS),
    ("-NOAUTH ", "", REDIS),
    ("+PONG\r\n", "", REDIS),
];

impl Known {
    /// Returns what the first bytes of a stream show, if they show it.
    pub fn find(start: &[u8]) -> Option<Known> {
        let by_bytes = SIGNATURES.iter().find(|(signature, _)| {
            // If the stream is a short prefix only, four bytes of a signature are enough.
            let shared = signature.len().min(start.len());
            shared >= signature.len().min(4) && signature[..shared] == start[..shared]
        });
        let by_line = || {
            // A line without its end is one if it is text.
            let end =
                start.iter().position(|&byte| byte == b'\n').map_or(start.len(), |end| end + 1);
            let line = std::str::from_utf8(&start[..end.min(4096)]).ok()?;
            let fits = |(begin, within, _): &&(&str, &str, Known)| {
                line.starts_with(begin) && line.contains(within)
                    // A method, or a status, and nothing of another kind before the version.
                    && (!begin.is_empty() || line.starts_with(|c: char| c.is_ascii_uppercase()))
            };
            LINES.iter().find(fits).map(|(_, _, known)| *known)
        };
        by_bytes.map(|(_, known)| *known).or_else(by_line).or_else(|| by_structure(start))
    }

    /// Returns whether it is the header of a load balancer, which a server takes with
    /// [`proxy_protocol`](crate::Server::proxy_protocol).
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::wire::Known;
    ///
    /// let start = b"PROXY TCP4 203.0.113.7 192.0.2.1 40000 4747\r\n";
    /// assert!(Known::find(start).is_some_and(|known| known.is_proxy_header()));
    /// ```
    pub fn is_proxy_header(&self) -> bool {
        *self == PROXY
    }
}

/// Recognises what has no fixed first bytes, but a structure.
fn by_structure(start: &[u8]) -> Option<Known> {
    let found = tls(start)
        .or_else(|| is_ssl2(start).then_some(TLS_HANDSHAKE))
        .or_else(|| is_redis(start).then_some(REDIS))
        .or_else(|| is_syslog(start).then_some(SYSLOG))
        .or_else(|| is_json(start).then_some(JSON))
        .or_else(|| is_telnet(start).then_some(TELNET))
        .or_else(|| is_socks5(start).then_some(SOCKS5))
        .or_else(|| is_socks4(start).then_some(SOCKS4))
        .or_else(|| is_web_socket(start).then_some(WEB_SOCKET))
        .or_else(|| is_thrift(start).then_some(THRIFT))
        .or_else(|| is_bitcoin(start).then_some(BITCOIN))
        .or_else(|| is_pickle(start).then_some(PICKLE))
        .or_else(|| is_git(start).then_some(GIT))
        .or_else(|| is_pcapng(start).then_some(CAPTURE))
        .or_else(|| is_postgres(start).then_some(POSTGRES))
        .or_else(|| is_onc_rpc(start).then_some(RPC))
        .or_else(|| is_dce_rpc(start).then_some(DCE_RPC))
        .or_else(|| is_dnp3(start).then_some(DNP3))
        .or_else(|| is_x11(start).then_some(X11))
        .or_else(|| matches!(start, [0xff, _, _, _, _, _, _, _, 0 | 1, 0x7f, ..]).then_some(ZEROMQ))
        .or_else(|| is_rtmp(start).then_some(RTMP))
        .or_else(|| is_lumberjack(start).then_some(LUMBERJACK))
        .or_else(|| {
            matches!(start, [b'R', b'I', b'F', b'F', _, _, _, _, b'A'..=b'W', _, _, _, ..])
                .then_some(RIFF)
        })
        .or_else(|| is_mqtt(start).then_some(MQTT))
        .or_else(|| is_mysql(start).then_some(MYSQL))
        .or_else(|| is_message_pack(start).then_some(MESSAGE_PACK))
        .or_else(|| is_cbor(start).then_some(CBOR));
    found.or_else(|| text_of_other_encoding(start))
}

/// A record: its type, the version 3.0 to 3.4, and a length that a record can have.
fn tls(start: &[u8]) -> Option<Known> {
    let &[kind @ 0x14..=0x17, 3, version @ 0..=4, high, ref rest @ ..] = start else { return None };
    let length = rest.first().map(|&low| usize::from(high) << 8 | usize::from(low));
    let possible = match (length, kind) {
        // The first four bytes could be a length in themselves.
        (None, 0x16) => version > 0 && high <= 0x48,
        (None, _) => version > 0 && high == 0,
        (Some(length), 0x14) => length == 1,
        (Some(length), 0x15) => length == 2 || (16..=64).contains(&length),
        // A handshake that is not encrypted is a hello at first.
        (Some(length), 0x16) => {
            (4..=18432).contains(&length) && rest.get(1).is_none_or(|kind| matches!(kind, 0..=24))
        }
        (Some(length), _) => (1..=18432).contains(&length),
    };
    possible.then_some(match kind {
        0x16 => TLS_HANDSHAKE,
        0x15 => TLS_ALERT,
        _ => TLS_DATA,
    })
}

/// The hello of SSL 2, with which old clients offer newer versions, too.
fn is_ssl2(start: &[u8]) -> bool {
    let [0x80..=0xff, _, kind, rest @ ..] = start else { return false };
    *kind == 1
        && matches!(rest, [3, 0..=3, 0, ciphers, ..] | [0, 2, 0, ciphers, ..] if ciphers % 3 == 0)
}

/// An array of bulk strings, as clients send commands.
fn is_redis(start: &[u8]) -> bool {
    let Some(rest) = start.strip_prefix(b"*") else { return false };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (1..=6).contains(&digits) && rest[digits..].starts_with(b"\r\n$")
}

/// A priority in angle brackets, and then the time or the version.
fn is_syslog(start: &[u8]) -> bool {
    let Some(rest) = start.strip_prefix(b"<") else { return false };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (1..=3).contains(&digits)
        && matches!(rest[digits..], [b'>', next, ..] if next.is_ascii_alphanumeric())
}

/// An object or a list, and then what can be in it.
fn is_json(start: &[u8]) -> bool {
    let trimmed = start.trim_ascii_start();
    let inside = |bytes: &[u8]| bytes.trim_ascii_start().first().copied();
    match trimmed.split_first() {
        Some((b'{', rest)) => matches!(inside(rest), Some(b'"' | b'}')),
        Some((b'[', rest)) => matches!(inside(rest), Some(b'{' | b'"' | b'[')) && rest.len() >= 3,
        _ => false,
    }
}

/// Two options are negotiated, or the user has interrupted.
fn is_telnet(start: &[u8]) -> bool {
    matches!(
        start,
        [0xff, 0xfb..=0xfe, 0..=0x31, 0xff, 0xfa..=0xfe, ..] | [0xff, 0xf4, 0xff, 0xfd, 6, ..]
    ) || matches!(start, [0xff, 0xfb..=0xfe, 0..=0x31])
}

/// The methods of authentication, and no more: the client waits for the choice.
fn is_socks5(start: &[u8]) -> bool {
    let [5, count @ 1..=8, methods @ ..] = start else { return false };
    methods.len() == usize::from(*count) && methods.iter().all(|method| matches!(method, 0..=2))
}

/// A request to connect, with the user's name up to a zero, and the server's if its address is 0.0.0.x.
fn is_socks4(start: &[u8]) -> bool {
    let [4, 1 | 2, _, _, address @ .., 0] = start else { return false };
    let Some((address, names)) = address.split_at_checked(4) else { return false };
    let has_name = matches!(address, [0, 0, 0, 1..=0xff]);
    let mut names = names.split(|&byte| byte == 0);
    names.clone().count() == 1 + usize::from(has_name)
        && names.all(|name| name.iter().all(u8::is_ascii_graphic))
}

/// The version of the protocol and the user, or a request for encryption.
fn is_postgres(start: &[u8]) -> bool {
    matches!(start, [0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f | 0x30])
        || matches!(start, [0, 0, _, _, 0, 3, 0 | 2, 0, b'u', b's', b'e', b'r', 0, ..])
}

/// A call in one fragment: its number, the type, and the version of the protocol.
fn is_onc_rpc(start: &[u8]) -> bool {
    matches!(start, [0x80, 0, _, _, _, _, _, _, 0, 0, 0, 0, 0, 0, 0, 2, ..])
}

/// The version, the type, the representation of data, and the length of all.
fn is_dce_rpc(start: &[u8]) -> bool {
    let [5, 0 | 1, 0..=19, _, 0x10, 0, 0, 0, low, high, ..] = start else { return false };
    start.len() >= usize::from(*high) << 8 | usize::from(*low)
}

/// A header with its checksum.
fn is_dnp3(start: &[u8]) -> bool {
    let [5, 0x64, 5..=255, _, _, _, _, _, low, high, ..] = start else { return false };
    let mut crc = 0u16;
    for byte in &start[..8] {
        crc ^= u16::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xa6bc } else { crc >> 1 };
        }
    }
    (!crc).to_le_bytes() == [*low, *high]
}

/// The byte order, the version of the protocol, and the lengths of what proves who it is.
fn is_x11(start: &[u8]) -> bool {
    let (name, data) = match start {
        [b'l', 0, 11, 0, 0, 0, name, 0, data, 0, 0, 0, ..] => (name, data),
        [b'B', 0, 0, 11, 0, 0, 0, name, 0, data, 0, 0, ..] => (name, data),
        _ => return false,
    };
    let padded = |length: &u8| usize::from(*length).next_multiple_of(4);
    start.len() == 12 + padded(name) + padded(data)
}

/// The version, a time, four zeros, and as many random bytes as the handshake has.
fn is_rtmp(start: &[u8]) -> bool {
    matches!(start, [3, _, _, _, _, 0, 0, 0, 0, ..]) && start.len() >= 1537
}

/// The size of a window, and then the first frame of it.
fn is_lumberjack(start: &[u8]) -> bool {
    matches!(start, [b'1' | b'2', b'W', 0, 0, _, _, b'1' | b'2', b'C' | b'D' | b'J', ..])
}

/// One whole frame with a short text, masked as clients do.
fn is_web_socket(start: &[u8]) -> bool {
    let [0x81, length @ 0x81..=0xfd, a, b, c, d, masked @ ..] = start else { return false };
    let mask = [a, b, c, d];
    let text: Vec<u8> = masked.iter().zip(mask.into_iter().cycle()).map(|(x, y)| x ^ y).collect();
    masked.len() == usize::from(length & 0x7f) && is_plain_text(&text)
}

/// The version and the type of a call, and its name.
fn is_thrift(start: &[u8]) -> bool {
    let [0x80, 1, 0, 1..=4, 0, 0, 0, length @ 1..=100, rest @ ..] = start else { return false };
    rest.get(..usize::from(*length)).is_some_and(|name| name.iter().all(u8::is_ascii_graphic))
}

/// The version, and for newer ones a frame; it ends with a full stop.
fn is_pickle(start: &[u8]) -> bool {
    matches!(start, [0x80, 4 | 5, 0x95, _, _, _, _, _, 0, 0, 0, .., b'.'])
        || matches!(start, [0x80, 2 | 3, b']' | b'}' | b'(' | b'X' | b'c', b'q', 0, .., b'.'])
}

/// The length of a line, and a service of git.
fn is_git(start: &[u8]) -> bool {
    let Some((length, line)) = start.split_at_checked(4) else { return false };
    let services: [&[u8]; 3] = [b"git-upload-pack ", b"git-receive-pack ", b"# service=git-"];
    length.iter().all(u8::is_ascii_hexdigit)
        && services.iter().any(|service| line.starts_with(service))
}

/// A client's first packet: it names the protocol.
fn is_mqtt(start: &[u8]) -> bool {
    let [0x10, length, rest @ ..] = start else { return false };
    let rest = if *length < 0x80 { rest } else { rest.get(1..).unwrap_or_default() };
    rest.starts_with(b"\0\x04MQTT") || rest.starts_with(b"\0\x06MQIsdp")
}

/// The version of the protocol, and that of the server in digits.
fn is_mysql(start: &[u8]) -> bool {
    matches!(start, [_, 0, 0, 0, 10, b'3'..=b'9', b'.', b'0'..=b'9', ..])
}

/// A map or an array whose first item is a word.
fn is_message_pack(start: &[u8]) -> bool {
    let [0x81..=0x8f | 0x92..=0x9f, length @ 0xa2..=0xbf, rest @ ..] = start else { return false };
    is_word(rest, length & 0x1f)
}

/// A map whose first key is a word.
fn is_cbor(start: &[u8]) -> bool {
    let [0xa1..=0xb7, length @ 0x62..=0x77, rest @ ..] = start else { return false };
    is_word(rest, length & 0x1f)
}

/// Returns whether these bytes start with a word of this length, and go on.
fn is_word(bytes: &[u8], length: u8) -> bool {
    let is_in_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    bytes.len() > usize::from(length) && bytes[..usize::from(length)].iter().all(is_in_word)
}

/// Text with a byte order mark, or in UTF-16.
fn text_of_other_encoding(start: &[u8]) -> Option<Known> {
    let is_pair = |(high, low): (u8, u8)| high == 0 && is_printable(low);
    let pairs = |from: usize| start[from..].chunks_exact(2).take(64);
    let little = |from| pairs(from).all(|pair| is_pair((pair[1], pair[0])));
    let big = |from| pairs(from).all(|pair| is_pair((pair[0], pair[1])));
    match start {
        [0xef, 0xbb, 0xbf, rest @ ..] => is_plain_text(rest).then_some(WITH_BOM),
        [0xff, 0xfe, ..] if start.len() >= 6 && little(2) => Some(UTF_16),
        [0xfe, 0xff, ..] if start.len() >= 6 && big(2) => Some(UTF_16),
        _ if start.len() >= 8 && (little(0) || big(0)) => Some(UTF_16),
        _ => None,
    }
}

fn is_printable(byte: u8) -> bool {
    matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n')
}

/// Returns whether these bytes are text, as far as they go: at least four characters in UTF-8, or in an encoding
/// that has letters from 0xc0 on, of which more is asked.
pub(crate) fn is_text(bytes: &[u8]) -> bool {
    let sample = &bytes[..bytes.len().min(64)];
    is_plain_text(sample) || is_8_bit_text(sample)
}

fn is_plain_text(sample: &[u8]) -> bool {
    let (mut shown, mut letters) = (0, 0);
    for chunk in sample.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() && !matches!(c, '\r' | '\n' | '\t') {
                return false;
            }
            shown += 1;
            letters += usize::from(c.is_alphanumeric());
        }
        // The sample may end inside a character, but nothing may follow bytes that are not text.
        if !chunk.invalid().is_empty() && !sample.ends_with(chunk.invalid()) {
            return false;
        }
    }
    let has_tail = std::str::from_utf8(sample).is_err_and(|error| error.error_len().is_some());
    !has_tail
        && (shown >= 4 || (shown == 3 && sample.ends_with(b"\n")))
        && (letters > 0 || sample.contains(&b'\n'))
}

fn is_8_bit_text(sample: &[u8]) -> bool {
    let (plain, high): (Vec<u8>, Vec<u8>) = sample.iter().partition(|&&byte| is_printable(byte));
    let separated = plain.iter().filter(|byte| byte.is_ascii_whitespace()).count() >= 2;
    sample.len() >= 8 && separated && high.iter().all(|&byte| byte >= 0xc0)
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this looks like {}", self.name)?;
        match self.advice {
            "" => Ok(()),
            advice => write!(f, ": {advice}"),
        }
    }
}
