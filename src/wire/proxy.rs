//! The header that a load balancer sends before the bytes of a connection: the PROXY protocol, versions 1 and
//! 2, by the specification `proxy-protocol.txt` of HAProxy.
//!
//! ```text
//!   version 1, a line:    PROXY TCP4 203.0.113.7 192.0.2.1 40000 4747\r\n
//!
//!   version 2, in bytes:  ┌──────────────┬────┬────┬────────┬───────────┬────────┐
//!                         │ signature 12 │ 21 │ 11 │ length │ addresses │ TLVs … │
//!                         └──────────────┴────┴────┴────────┴───────────┴────────┘
//!                                          │    └ address family and transport
//!                                          └ version 2, command PROXY
//! ```

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crate::wire::escape::{Escaped, SpacedHex};

const V1: &[u8] = b"PROXY ";

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest line of version 1, with its end.
const LONGEST_LINE: usize = 107;

/// The shortest header of both versions, `PROXY UNKNOWN` and the end of the line.
const SHORTEST: usize = 15;

/// The part of a header of version 2 that precedes the addresses.
const V2_START: usize = 16;

/// The most bytes of addresses and TLVs to accept. Chosen by judgement: addresses have at most 216, and what
/// load balancers add, such as names in a certificate, a few hundred.
const LONGEST_REST: usize = 4096;

/// How many bytes of something else an error shows.
const SHOWN: usize = 16;

/// A version of the PROXY protocol.
///
/// # Examples
///
/// ```
/// use framelet::wire::ProxyVersion;
///
/// let (client, server) = ("203.0.113.7:40000".parse()?, "192.0.2.1:4747".parse()?);
/// let header = ProxyVersion::V1.header(Some((client, server)));
/// assert_eq!(header, b"PROXY TCP4 203.0.113.7 192.0.2.1 40000 4747\r\n");
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// One line of text.
    V1,
    /// Bytes.
    V2,
}

/// Whom a PROXY header names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxySource {
    /// The sender of the header itself: its own check, or a connection of an unknown kind.
    Sender,
    Tcp(SocketAddr),
    Unix,
}

/// The beginning of a stream with a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyStart {
    /// The header has at least this many bytes.
    Incomplete {
        need: usize,
    },
    Header {
        len: usize,
        source: ProxySource,
    },
}

/// Why a stream does not begin with a valid PROXY header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProxyError {
    /// It begins with something else.
    Missing { found: Vec<u8> },
    /// A line that is not one of version 1.
    Line { found: Vec<u8> },
    /// A version, command, family or transport that version 2 does not have.
    Unknown { what: &'static str, value: u8 },
    /// More bytes than this accepts.
    TooLong { length: usize },
    /// Too few bytes for the addresses.
    TooShort { length: usize, want: usize },
}

impl ProxyVersion {
    /// Returns the header that names the source and the destination of a connection. Without them, and for
    /// addresses of different families, it says that nothing is known.
    pub fn header(self, addresses: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
        let same_family =
            |(source, to): &(SocketAddr, SocketAddr)| source.is_ipv4() == to.is_ipv4();
        let addresses = addresses.filter(same_family);
        match self {
            ProxyVersion::V1 => line(addresses),
            ProxyVersion::V2 => binary(addresses),
        }
    }
}

fn line(addresses: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let Some((source, to)) = addresses else { return b"PROXY UNKNOWN\r\n".into() };
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from_port, to_port) = (source.port(), to.port());
    format!("PROXY {family} {} {} {from_port} {to_port}\r\n", source.ip(), to.ip()).into()
}

fn binary(addresses: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let Some((source, to)) = addresses else { return [V2, &[0x20, 0, 0, 0]].concat() };
    let (start, ips) = match (source.ip(), to.ip()) {
        (IpAddr::V4(source), IpAddr::V4(to)) => {
            ([0x21, 0x11, 0, 12], [source.octets(), to.octets()].concat())
        }
        (source, to) => ([0x21, 0x21, 0, 36], [v6(source), v6(to)].concat()),
    };
    let ports = [source.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    [V2, &start, &ips, &ports].concat()
}

fn v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

impl FromStr for ProxyVersion {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<ProxyVersion, &'static str> {
        match text {
            "v1" => Ok(ProxyVersion::V1),
            "v2" => Ok(ProxyVersion::V2),
            _ => Err("not a version of the PROXY protocol; write v1 or v2"),
        }
    }
}

/// Decodes the header at the start of `bytes`. What it says to need is never more than the header has, so that
/// nothing after it is read.
pub(crate) fn decode(bytes: &[u8]) -> Result<ProxyStart, ProxyError> {
    if bytes.is_empty() {
        return Ok(ProxyStart::Incomplete { need: SHORTEST });
    }
    if V2.starts_with(bytes) || bytes.starts_with(V2) {
        return decode_binary(bytes);
    }
    if V1.starts_with(bytes) || bytes.starts_with(V1) {
        return decode_line(bytes);
    }
    Err(ProxyError::Missing { found: bytes[..bytes.len().min(SHOWN)].into() })
}

fn decode_line(bytes: &[u8]) -> Result<ProxyStart, ProxyError> {
    let shown = &bytes[..bytes.len().min(LONGEST_LINE)];
    let wrong = || ProxyError::Line { found: shown.into() };
    let Some(end) = shown.iter().position(|&byte| byte == b'\n') else {
        let need = match bytes.last() {
            Some(b'\r') => bytes.len() + 1,
            _ => bytes.len() + 2,
        };
        let need = need.max(SHORTEST);
        return if need > LONGEST_LINE {
            Err(wrong())
        } else {
            Ok(ProxyStart::Incomplete { need })
        };
    };
    let line = bytes[V1.len()..end].strip_suffix(b"\r").ok_or_else(wrong)?;
    let source = source_of(line).ok_or_else(wrong)?;
    Ok(ProxyStart::Header { len: end + 1, source })
}

/// Returns the source that a line names.
fn source_of(line: &[u8]) -> Option<ProxySource> {
    let line = std::str::from_utf8(line).ok()?;
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Some(ProxySource::Sender);
    }
    let mut words = line.split(' ');
    let family = words.next()?;
    let mut address = || {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::from),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(IpAddr::from),
            _ => None,
        }
    };
    let (source, _) = (address()?, address()?);
    let mut port = || {
        let word = words.next()?;
        let is_plain = word == "0" || word.starts_with(|digit: char| ('1'..='9').contains(&digit));
        word.parse::<u16>().ok().filter(|_| is_plain)
    };
    let (source_port, _) = (port()?, port()?);
    words.next().is_none().then(|| ProxySource::Tcp((source, source_port).into()))
}

fn decode_binary(bytes: &[u8]) -> Result<ProxyStart, ProxyError> {
    if let Some(&value) = bytes.get(12)
        && !matches!(value, 0x20 | 0x21)
    {
        let what = if value >> 4 == 2 { "command" } else { "version" };
        return Err(ProxyError::Unknown { what, value });
    }
    let Some(&[.., command, family, high, low]) = bytes.first_chunk::<V2_START>() else {
        return Ok(ProxyStart::Incomplete { need: V2_START });
    };
    let rest = usize::from(u16::from_be_bytes([high, low]));
    let len = V2_START + rest;
    if rest > LONGEST_REST {
        return Err(ProxyError::TooLong { length: len });
    }
    let (source, want): (fn(&[u8]) -> ProxySource, usize) =
        match (command & 1, family >> 4, family & 0xf) {
            (0, ..) => (|_| ProxySource::Sender, 0),
            (_, 4.., _) => {
                return Err(ProxyError::Unknown { what: "address family", value: family });
            }
            (_, _, 3..) => return Err(ProxyError::Unknown { what: "transport", value: family }),
            (_, 1, 1) => (address::<4>, 12),
            (_, 2, 1) => (address::<16>, 36),
            (_, 3, 1) => (|_| ProxySource::Unix, 216),
            // Datagrams are not what framelet is for, and unspecified is nobody.
            _ => (|_| ProxySource::Sender, 0),
        };
    if rest < want {
        return Err(ProxyError::TooShort { length: rest, want });
    }
    let Some(block) = bytes.get(V2_START..len) else {
        return Ok(ProxyStart::Incomplete { need: len });
    };
    Ok(ProxyStart::Header { len, source: source(block) })
}

/// Returns the source of a block of two addresses and two ports.
fn address<const N: usize>(block: &[u8]) -> ProxySource
where
    IpAddr: From<[u8; N]>,
{
    let ip = block.first_chunk::<N>().map(|ip| IpAddr::from(*ip));
    let port = block[2 * N..].first_chunk().map(|port| u16::from_be_bytes(*port));
    ip.zip(port).map_or(ProxySource::Sender, |source| ProxySource::Tcp(source.into()))
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProxyError::Missing { found } => {
                let looks = match found.first() {
                    Some(0x16) => ", which looks like TLS",
                    Some(b'G' | b'P' | b'H') if found.is_ascii() => ", which looks like HTTP",
                    _ => "",
                };
                write!(
                    f,
                    "it begins with {} \"{}\"{looks}, not with a PROXY header: is the load balancer set to send \
                     one, and is the peer the load balancer?",
                    SpacedHex(found),
                    Escaped(found)
                )
            }
            ProxyError::Line { found } => {
                write!(f, "the PROXY header is not a line of version 1: \"{}\"", Escaped(found))
            }
            ProxyError::Unknown { what, value } => {
                write!(f, "the PROXY header of version 2 has an unknown {what}: {value:02x}")
            }
            ProxyError::TooLong { length } => {
                let limit = V2_START + LONGEST_REST;
                write!(f, "the PROXY header of {length} bytes is over the limit of {limit}")
            }
            ProxyError::TooShort { length, want } => {
                write!(f, "the PROXY header has {length} bytes of addresses instead of {want}")
            }
        }
    }
}

impl std::error::Error for ProxyError {}

impl From<ProxyError> for io::Error {
    fn from(error: ProxyError) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(address: &str) -> ProxySource {
        ProxySource::Tcp(address.parse().unwrap())
    }

    /// Decodes `header` whole, and every beginning of it, and with bytes after it.
    #[track_caller]
    fn check(header: &[u8], source: ProxySource) {
        let whole = Ok(ProxyStart::Header { len: header.len(), source });
        assert_eq!(decode(header), whole, "{}", header.escape_ascii());
        assert_eq!(decode(&[header, b"\0\0\0\x02hi\r\n"].concat()), whole);
        for cut in 0..header.len() {
            match decode(&header[..cut]) {
                Ok(ProxyStart::Incomplete { need }) => {
                    assert!((cut + 1..=header.len()).contains(&need), "{cut}: {need}");
                }
                other => panic!("{cut}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_written_is_read_and_never_more_is_asked_for_than_the_header_has() {
        let pairs = [
            ("203.0.113.7:40000", "192.0.2.1:4747"),
            ("1.2.3.4:0", "5.6.7.8:65535"),
            ("[2001:db8::7]:40000", "[::1]:4747"),
        ];
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            for (source, to) in pairs {
                let header = version.header(Some((source.parse().unwrap(), to.parse().unwrap())));
                check(&header, tcp(source));
            }
            check(&version.header(None), ProxySource::Sender);
            let mixed = ("1.2.3.4:5".parse().unwrap(), "[::1]:4747".parse().unwrap());
            check(&version.header(Some(mixed)), ProxySource::Sender);
        }
    }

    #[test]
    fn headers_of_the_specification_are_read() {
        let v6 = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        check(
            b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
            tcp("255.255.255.255:65535"),
        );
        let longest = format!("PROXY UNKNOWN {v6} {v6} 65535 65535\r\n");
        assert_eq!(longest.len(), LONGEST_LINE);
        check(longest.as_bytes(), ProxySource::Sender);
        let v4 = b"\x01\x02\x03\x04\x05\x06\x07\x08\x9c\x40\x12\x8b";
        let tlv = b"\x04\0\x03abc";
        check(&[V2, b"\x21\x11\0\x12", v4, tlv].concat(), tcp("1.2.3.4:40000"));
        // A check by the load balancer itself, whatever it adds; and a family or transport that is unknown to it.
        check(&[V2, b"\x20\x11\0\x0c", v4].concat(), ProxySource::Sender);
        check(&[V2, b"\x20\xff\0\x03abc"].concat(), ProxySource::Sender);
        check(&[V2, b"\x21\0\0\0"].concat(), ProxySource::Sender);
        check(&[V2, b"\x21\x12\0\x0c", v4].concat(), ProxySource::Sender);
        check(&[V2, b"\x21\x31\0\xd8", &[b'x'; 216]].concat(), ProxySource::Unix);
    }

    #[test]
    fn what_is_no_header_is_refused_as_soon_as_it_shows() {
        for (bytes, words) in [
            (&b"\0\0\0\x02hi"[..], "begins with 00 00 00 02 68 69"),
            (b"\0", "not with a PROXY header"),
            (b"GET / HT", "looks like HTTP"),
            (b"\x16\x03\x01", "looks like TLS"),
            (b"PROXI", "not with a PROXY header"),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n", "not a line of version 1"),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 02\r\n", "not a line of version 1"),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 +2\r\n", "not a line of version 1"),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n", "not a line of version 1"),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n", "not a line of version 1"),
            (b"PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n", "not a line of version 1"),
            (b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n", "not a line of version 1"),
            (b"PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n", "not a line of version 1"),
            (&[V1, &[b'1'; 101]].concat(), "not a line of version 1"),
            (&[V2, b"\x31"].concat(), "unknown version: 31"),
            (&[V2, b"\x22"].concat(), "unknown command: 22"),
            (&[V2, b"\x21\x41\0\0"].concat(), "unknown address family: 41"),
            (&[V2, b"\x21\x13\0\0"].concat(), "unknown transport: 13"),
            (&[V2, b"\x21\x11\0\x0b"].concat(), "11 bytes of addresses instead of 12"),
            (&[V2, b"\x21\x11\x10\x01"].concat(), "4113 bytes is over the limit of 4112"),
        ] {
            let error = decode(bytes).expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
