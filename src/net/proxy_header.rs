//! Reads the header that a load balancer sends before the bytes of a connection.

use std::io;

use futures_lite::{AsyncRead, AsyncReadExt};

use super::byte_stream::Peer;
use crate::wire::proxy::{ProxySource, ProxyStart, decode};

/// The PROXY header of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProxyHeader {
    /// The peer that it names; `None` if it names nobody, as in the load balancer's own checks.
    pub peer: Option<Peer>,
    /// How many bytes it has.
    pub len: usize,
}

/// Reads the PROXY header, version 1 or 2, at the start of a stream, and nothing after it.
///
/// [`ProxyVersion::header`](crate::wire::ProxyVersion::header) makes one. A [`Server`](crate::Server) reads them itself:
/// see [`Server::proxy_protocol`](crate::Server::proxy_protocol).
///
/// # Errors
///
/// Those of the stream; [`InvalidData`](io::ErrorKind::InvalidData) if the bytes are no header, which shows with the first wrong
/// byte of its start, or else at the end of a line of version 1 or of the first 16 bytes of version 2;
/// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) if the stream ends inside it.
///
/// # Cancel safety
///
/// Not cancel safe: if the future is dropped, the part that was read is lost.
///
/// # Examples
///
/// ```
/// use framelet::FrameReader;
/// use framelet::net::{Peer, ProxyHeader, read_proxy_header};
///
/// # smol::block_on(async {
/// let mut stream = &b"PROXY TCP4 203.0.113.7 192.0.2.1 40000 4747\r\n\0\0\0\x02hi"[..];
/// let ProxyHeader { peer, len, .. } = read_proxy_header(&mut stream).await?;
/// assert_eq!((peer, len), (Some(Peer::Tcp("203.0.113.7:40000".parse()?)), 45));
/// let mut reader = FrameReader::new(stream);
/// assert_eq!(reader.read().await?.as_deref(), Some(&b"hi"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub async fn read_proxy_header<R: AsyncRead + Unpin>(stream: &mut R) -> io::Result<ProxyHeader> {
    let mut header = Vec::new();
    loop {
        let need = match decode(&header)? {
            ProxyStart::Header { source, len } => {
                let peer = match source {
                    ProxySource::Sender => None,
                    ProxySource::Tcp(address) => Some(Peer::Tcp(address)),
                    ProxySource::Unix => Some(Peer::Unix),
                };
                return Ok(ProxyHeader { peer, len });
            }
            ProxyStart::Incomplete { need } => need,
        };
        let got = header.len();
        header.resize(need, 0);
        // Not `read_exact`: the bytes that have arrived may already be wrong.
        let read = stream.read(&mut header[got..]).await?;
        if read == 0 {
            let message = format!("the stream ended inside the PROXY header, after {got} bytes");
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
        }
        header.truncate(got + read);
    }
}
