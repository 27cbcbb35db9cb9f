//! What shows other protocols, and data that no length precedes: their first bytes.
//!
//! A name needs proof. Most have bytes that nothing else starts with; a first line is HTTP only if it says so; and
//! what is short has to be whole.

use std::fmt;

use crate::wire::packed;
use crate::wire::shape::is_bitcoin;
use crate::wire::structure;
use crate::wire::text::{has_byte_order_mark, is_utf16};

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
const MODBUS_RTU: Known = known(
    "Modbus RTU, which is for serial lines",
    "its messages have no length: choose Modbus TCP there",
);
const STUN: Known = known("STUN or TURN", OTHER_PORT);
const TAR: Known = known("a tar archive", UNFRAMED);
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
    (b"7z\xbc\xaf\x27\x1c", known("a 7z archive", UNFRAMED)),
    (b"Rar!\x1a\x07", known("a RAR archive", UNFRAMED)),
    (b"PK\x05\x06", known("an empty zip archive", UNFRAMED)),
    (b"!<arch>\n", known("an ar archive (such as a Debian package)", UNFRAMED)),
    (b"\xff\x06\0\0sNaPpY", known("Snappy data", UNFRAMED)),
    (b"\x1a\x45\xdf\xa3", known("Matroska or WebM video", UNFRAMED)),
    (b"OggS\0\x02", known("Ogg audio or video", UNFRAMED)),
    (b"fLaC\0\0\0\x22", known("FLAC audio", UNFRAMED)),
    (b"II*\0", known("a TIFF image", UNFRAMED)),
    (b"MM\0*", known("a TIFF image", UNFRAMED)),
    (b"\0asm\x01\0\0\0", known("a WebAssembly program", UNFRAMED)),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", known("an old Office document", UNFRAMED)),
    (b"\x89HDF\r\n\x1a\n", known("an HDF5 file", UNFRAMED)),
    (b"\x93NUMPY", known("a NumPy array", UNFRAMED)),
    (b"PAR1\x15", known("a Parquet file", UNFRAMED)),
    (b"bplist00", known("a binary property list", UNFRAMED)),
    (b"NTLMSSP\0", known("NTLM", OTHER_PORT)),
    (b"NBDMAGIC", known("NBD (network block devices)", OTHER_PORT)),
    (b"REDQ\x02\0\0\0", known("SPICE", OTHER_PORT)),
    (b"FINS\0\0", known("Omron FINS", "the layout h4:u32be reads it")),
    (b"\x50\0\0\xff\xff\x03\0", known("Mitsubishi SLMP (MELSEC)", "the layout h7:u16le reads it")),
];

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
            // If the stream is a short prefix only, four bytes of a signature are enough, but not four line ends.
            let shared = signature.len().min(start.len());
            shared >= signature.len().min(4)
                && signature[..shared] == start[..shared]
                && start[..shared] != *b"\r\n\r\n"
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

    /// Returns whether it is data that should have a length before it.
    pub(crate) fn is_unframed(&self) -> bool {
        self.advice == UNFRAMED
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

/// Returns whether a stream that starts with these bytes is one of something.
type IsOne = fn(&[u8]) -> bool;

/// What has no fixed first bytes, but a structure; what is more particular precedes what is less.
const STRUCTURES: &[(IsOne, Known)] = &[
    (structure::is_ssl2, TLS_HANDSHAKE),
    (structure::is_redis, REDIS),
    (structure::is_syslog, SYSLOG),
    (structure::is_json, JSON),
    (structure::is_telnet, TELNET),
    (structure::is_socks5, SOCKS5),
    (structure::is_socks4, SOCKS4),
    (structure::is_web_socket, WEB_SOCKET),
    (structure::is_thrift, THRIFT),
    (is_bitcoin, BITCOIN),
    (structure::is_pickle, PICKLE),
    (structure::is_git, GIT),
    (structure::is_pcapng, CAPTURE),
    (structure::is_postgres, POSTGRES),
    (structure::is_onc_rpc, RPC),
    (structure::is_dce_rpc, DCE_RPC),
    (structure::is_dnp3, DNP3),
    (structure::is_modbus_rtu, MODBUS_RTU),
    (structure::is_stun, STUN),
    (structure::is_x11, X11),
    (structure::is_zeromq, ZEROMQ),
    (structure::is_rtmp, RTMP),
    (structure::is_lumberjack, LUMBERJACK),
    (structure::is_riff, RIFF),
    (structure::is_tar, TAR),
    (structure::is_mqtt, MQTT),
    (structure::is_mysql, MYSQL),
    (packed::is_message_pack, MESSAGE_PACK),
    (packed::is_cbor, CBOR),
    (has_byte_order_mark, WITH_BOM),
    (is_utf16, UTF_16),
];

/// Recognises what has no fixed first bytes, but a structure.
fn by_structure(start: &[u8]) -> Option<Known> {
    let tls = structure::tls_record(start).map(|kind| match kind {
        0x16 => TLS_HANDSHAKE,
        0x15 => TLS_ALERT,
        // Or a change of the cipher.
        _ => TLS_DATA,
    });
    let other = || STRUCTURES.iter().find(|(is, _)| is(start)).map(|(_, known)| *known);
    tls.or_else(other)
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
