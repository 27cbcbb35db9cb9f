//! Connected sockets, TCP and Unix alike, and connecting them.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite};
use rustix::io::ioctl_fionread;
use smol::{Async, Timer};
use socket2::{Domain, SockAddr, SockRef, Type};

use super::address::Address;

/// How often something is tried again that nobody can wait for.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The longest path of a Unix socket, in bytes; Linux has room for 108 with the NUL byte behind it.
const LONGEST_PATH: usize = 107;

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Peer {
    /// A TCP peer.
    Tcp(SocketAddr),
    /// A Unix socket's peer, which has no address of its own.
    Unix,
}

/// A connected socket. Clones share it; one of them may read while another writes.
#[derive(Clone, Debug)]
pub struct Socket {
    pub(super) connected: Connected,
    /// Whether the last read took all there was, so that the next one had better wait first.
    drained: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Connected {
    Tcp(Arc<Async<std::net::TcpStream>>),
    Unix(Arc<Async<UnixStream>>),
}

impl Address {
    /// Connects to this address, trying each one that a name resolves to.
    ///
    /// # Errors
    ///
    /// The system's, for example if the connection is refused or the name does not resolve.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the attempt is given up.
    pub async fn connect(&self) -> io::Result<Socket> {
        match self {
            Address::Tcp { host, port } => {
                let mut last = None;
                for address in async_net::resolve((host.as_str(), *port)).await? {
                    match Async::<std::net::TcpStream>::connect(address).await {
                        Ok(stream) => {
                            // A message is written in one piece: waiting for more to fill a segment
                            // would only delay it.
                            stream.get_ref().set_nodelay(true)?;
                            return Ok(Socket::new(Connected::Tcp(Arc::new(stream))));
                        }
                        Err(error) => last = Some(error),
                    }
                }
                Err(last.unwrap_or_else(no_address))
            }
            Address::Unix(path) => {
                let address = unix_address(path)?;
                let socket = unix_socket()?;
                // Where the backlog is full it is tried again: TCP would wait, too.
                while let Err(error) = socket.connect(&address) {
                    match error.kind() {
                        io::ErrorKind::WouldBlock => Timer::after(LOOK_AGAIN).await,
                        _ => return Err(error),
                    };
                }
                let stream = Async::new(socket.into())?;
                Ok(Socket::new(Connected::Unix(Arc::new(stream))))
            }
        }
    }
}

pub(super) fn no_address() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the name has no address")
}

/// Returns a new Unix socket whose attempts to connect do not wait for room in a full backlog.
pub(super) fn unix_socket() -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

pub(super) fn unix_address(path: &Path) -> io::Result<SockAddr> {
    SockAddr::unix(path).map_err(|_| {
        let length = path.as_os_str().len();
        invalid(format!("a Unix socket's path can have at most {LONGEST_PATH} bytes, not {length}"))
    })
}

pub(super) fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

impl From<async_net::TcpStream> for Socket {
    fn from(stream: async_net::TcpStream) -> Self {
        Socket::new(Connected::Tcp(stream.into()))
    }
}

impl Socket {
    pub(super) fn new(connected: Connected) -> Socket {
        Socket { connected, drained: false }
    }

    /// Ends the direction to the peer: it reads what was written, and then the end of the stream.
    ///
    /// # Errors
    ///
    /// The system's; a stream that is no longer connected is none.
    pub fn shutdown_write(&self) -> io::Result<()> {
        let shut = match &self.connected {
            Connected::Tcp(stream) => stream.get_ref().shutdown(Shutdown::Write),
            Connected::Unix(stream) => stream.get_ref().shutdown(Shutdown::Write),
        };
        shut.or_else(|error| match error.kind() {
            io::ErrorKind::NotConnected => Ok(()),
            _ => Err(error),
        })
    }

    /// Lets the end of a connection from a [`ResettingListener`] look orderly. Unless this was called, it
    /// is a reset, by whatever cause it comes: so a peer never takes an early end for a sign that all is
    /// well.
    pub(crate) fn end_in_order(&self) {
        if let Connected::Tcp(stream) = &self.connected {
            // Where it fails the connection is already gone.
            let _ = SockRef::from(stream.get_ref()).set_linger(None);
        }
    }

    /// Marks the end of a connection that is not orderly where there is no reset to tell it by: on a
    /// Unix socket, by half a frame. A prefix of any layout, or the payload it announces, goes on
    /// behind this byte.
    pub(crate) fn spoil(&self) {
        if let Connected::Unix(stream) = &self.connected {
            // Where it fails nobody listens any more.
            let _ = stream.get_ref().write(&[0xff]);
        }
    }

    /// Returns how many bytes the kernel has received that were not read yet.
    pub(crate) fn unread(&self) -> u64 {
        let unread = match &self.connected {
            Connected::Tcp(stream) => ioctl_fionread(stream.get_ref()),
            Connected::Unix(stream) => ioctl_fionread(stream.get_ref()),
        };
        unread.unwrap_or(0)
    }

    /// Returns whether the last read has taken all there was.
    pub(crate) fn is_drained(&self) -> bool {
        self.drained
    }

    /// Makes the next read ask the kernel, even if it has not reported anything to read.
    pub(crate) fn look_again(&mut self) {
        self.drained = false;
    }

    /// Writes what the kernel takes without waiting.
    pub(crate) fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        match &self.connected {
            Connected::Tcp(stream) => stream.get_ref().read(buf),
            Connected::Unix(stream) => stream.get_ref().read(buf),
        }
    }

    fn write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        // A plain write is cheaper than a vectored one of a single part.
        match (&self.connected, bufs) {
            (Connected::Tcp(stream), [buf]) => stream.get_ref().write(buf),
            (Connected::Tcp(stream), bufs) => stream.get_ref().write_vectored(bufs),
            (Connected::Unix(stream), bufs) => stream.get_ref().write_vectored(bufs),
        }
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.connected {
            Connected::Tcp(stream) => stream.poll_readable(cx),
            Connected::Unix(stream) => stream.poll_readable(cx),
        }
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.connected {
            Connected::Tcp(stream) => stream.poll_writable(cx),
            Connected::Unix(stream) => stream.poll_writable(cx),
        }
    }
}

fn would_block<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            // A read that did not fill the buffer has emptied the socket: asking it again would only
            // be told to wait.
            if self.drained {
                ready!(self.poll_readable(cx))?;
                self.drained = false;
            }
            let read = self.read(buf);
            self.drained = would_block(&read) || matches!(read, Ok(n) if n > 0 && n < buf.len());
            if !would_block(&read) {
                return Poll::Ready(read);
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let written = self.write_vectored(bufs);
            if !would_block(&written) {
                return Poll::Ready(written);
            }
            ready!(self.poll_writable(cx))?;
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown_write())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(address) => address.fmt(f),
            Peer::Unix => f.write_str("unix"),
        }
    }
}
