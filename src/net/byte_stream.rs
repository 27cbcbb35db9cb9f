//! Streams of bytes to a peer: TCP and Unix sockets, and whatever else reads and writes.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite};
use rustix::io::ioctl_fionread;
use smol::{Async, Timer};
use socket2::{Domain, SockAddr, SockRef, Type};

use super::address::Address;
use crate::wire::escape::Escaped;

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
    /// The other end of some other stream, by the name it was given.
    Named(Arc<str>),
}

impl Peer {
    /// Returns the peer of a stream that is no socket, or no longer just one.
    pub fn named(name: &str) -> Peer {
        Peer::Named(name.into())
    }
}

/// A stream of bytes to and from a peer. Clones share it; one of them may read while another writes.
///
/// TCP and Unix sockets are used directly. Everything else that implements [`AsyncRead`] and
/// [`AsyncWrite`] — TLS, a pipe in memory, a tokio stream in its compatibility layer — becomes one with
/// [`ByteStream::new`], and costs a lock and an indirect call for each read and write.
#[derive(Clone, Debug)]
pub struct ByteStream {
    pub(super) kind: Kind,
    /// Whether the last read took all there was, so that the next one had better wait first.
    would_block: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Tcp(Arc<Async<std::net::TcpStream>>),
    Unix(Arc<Async<UnixStream>>),
    Other(Arc<Other>),
}

/// A stream of which nothing is known but how to read and write.
pub(super) struct Other {
    stream: Mutex<Pin<Box<dyn Duplex>>>,
    /// The stream below, if this is one that a server's connection was upgraded to.
    below: Option<ByteStream>,
}

trait Duplex: AsyncRead + AsyncWrite + Send {}

impl<S: AsyncRead + AsyncWrite + Send> Duplex for S {}

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
    pub async fn connect(&self) -> io::Result<ByteStream> {
        match self {
            Address::Tcp { host, port } => {
                let mut last = None;
                for address in async_net::resolve((host.as_str(), *port)).await? {
                    match Async::<std::net::TcpStream>::connect(address).await {
                        Ok(stream) => {
                            // A message is written in one piece: waiting for more to fill a segment
                            // would only delay it.
                            stream.get_ref().set_nodelay(true)?;
                            return Ok(ByteStream::of(Kind::Tcp(Arc::new(stream))));
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
                Ok(ByteStream::of(Kind::Unix(Arc::new(stream))))
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

impl From<async_net::TcpStream> for ByteStream {
    fn from(stream: async_net::TcpStream) -> Self {
        ByteStream::of(Kind::Tcp(stream.into()))
    }
}

impl From<async_net::unix::UnixStream> for ByteStream {
    fn from(stream: async_net::unix::UnixStream) -> Self {
        ByteStream::of(Kind::Unix(stream.into()))
    }
}

impl TryFrom<std::net::TcpStream> for ByteStream {
    type Error = io::Error;

    /// Fails if the system does not let the socket be non-blocking.
    fn try_from(stream: std::net::TcpStream) -> io::Result<Self> {
        Ok(ByteStream::of(Kind::Tcp(Arc::new(Async::new(stream)?))))
    }
}

impl TryFrom<UnixStream> for ByteStream {
    type Error = io::Error;

    /// Fails if the system does not let the socket be non-blocking.
    fn try_from(stream: UnixStream) -> io::Result<Self> {
        Ok(ByteStream::of(Kind::Unix(Arc::new(Async::new(stream)?))))
    }
}

impl ByteStream {
    /// Makes a stream of bytes of anything that reads and writes.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::net::ByteStream;
    ///
    /// let stream = ByteStream::new(futures_lite::io::Cursor::new(Vec::new()));
    /// ```
    pub fn new(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> ByteStream {
        ByteStream::over(stream, None)
    }

    /// Makes one of a stream that is carried by the one `below`.
    pub(crate) fn over(
        stream: impl AsyncRead + AsyncWrite + Send + 'static,
        below: Option<ByteStream>,
    ) -> ByteStream {
        let stream = Mutex::new(Box::pin(stream) as Pin<Box<dyn Duplex>>);
        ByteStream::of(Kind::Other(Arc::new(Other { stream, below })))
    }

    pub(super) fn of(kind: Kind) -> ByteStream {
        ByteStream { kind, would_block: false }
    }

    /// Lets the end of a connection from a [`ResettingListener`](super::listener::ResettingListener) be an
    /// orderly one. Unless this was called it is a reset, whatever its cause: so a peer never takes an early
    /// end for a sign that all is well.
    pub(crate) fn disable_reset_on_close(&self) {
        match &self.kind {
            // Where it fails the connection is already gone.
            Kind::Tcp(stream) => drop(SockRef::from(stream.get_ref()).set_linger(None)),
            Kind::Unix(_) => {}
            Kind::Other(other) => {
                if let Some(below) = &other.below {
                    below.disable_reset_on_close();
                }
            }
        }
    }

    /// Marks an end that is not orderly where there is no reset to tell it by: with half a frame. A prefix
    /// of any layout, or the payload it announces, goes on after this byte.
    pub(crate) fn mark_aborted(&self) {
        const HALF_A_FRAME: &[u8] = &[0xff];
        match &self.kind {
            Kind::Tcp(_) => {}
            // Where it fails nobody listens any more.
            Kind::Unix(stream) => drop(stream.get_ref().write(HALF_A_FRAME)),
            Kind::Other(other) => {
                let cx = &mut Context::from_waker(Waker::noop());
                let mut stream = other.lock();
                if let Poll::Ready(Ok(_)) = stream.as_mut().poll_write(cx, HALF_A_FRAME) {
                    let _ = stream.as_mut().poll_flush(cx);
                }
            }
        }
    }

    /// Returns how many bytes the kernel has received that were not read yet, if that can be known.
    pub(crate) fn unread(&self) -> Option<u64> {
        match &self.kind {
            Kind::Tcp(stream) => Some(ioctl_fionread(stream.get_ref()).unwrap_or(0)),
            Kind::Unix(stream) => Some(ioctl_fionread(stream.get_ref()).unwrap_or(0)),
            Kind::Other(_) => None,
        }
    }

    /// Returns whether the next read is likely to wait, since the last one has taken all there was.
    pub(crate) fn would_block_hint(&self) -> bool {
        self.would_block
    }

    /// Makes the next read ask the kernel, even if it has not reported anything to read.
    pub(crate) fn assume_readable(&mut self) {
        self.would_block = false;
    }

    /// Returns whether it is carried by another stream, so that it has an end of its own.
    pub(crate) fn is_upgraded(&self) -> bool {
        matches!(&self.kind, Kind::Other(_))
    }

    /// Writes what the kernel takes without waiting.
    pub(crate) fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    fn write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        // A plain write is cheaper than a vectored one of a single part.
        match (&self.kind, bufs) {
            (Kind::Tcp(stream), [buf]) => stream.get_ref().write(buf),
            (Kind::Tcp(stream), bufs) => stream.get_ref().write_vectored(bufs),
            (Kind::Unix(stream), bufs) => stream.get_ref().write_vectored(bufs),
            // That needs somebody to wake.
            (Kind::Other(_), _) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Other {
    fn lock(&self) -> MutexGuard<'_, Pin<Box<dyn Duplex>>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Other").field("below", &self.below).finish_non_exhaustive()
    }
}

fn would_block<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

impl AsyncRead for ByteStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            // A read that did not fill the buffer has emptied the socket: asking it again would only
            // be told to wait.
            let wait = self.would_block;
            let (read, size) = match &self.kind {
                Kind::Tcp(stream) => {
                    if wait {
                        ready!(stream.poll_readable(cx))?;
                    }
                    (stream.get_ref().read(buf), buf.len())
                }
                Kind::Unix(stream) => {
                    if wait {
                        ready!(stream.poll_readable(cx))?;
                    }
                    (stream.get_ref().read(buf), buf.len())
                }
                Kind::Other(other) => return other.lock().as_mut().poll_read(cx, buf),
            };
            self.would_block = would_block(&read) || matches!(read, Ok(n) if n > 0 && n < size);
            if !would_block(&read) {
                return Poll::Ready(read);
            }
        }
    }
}

impl AsyncWrite for ByteStream {
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
            if let Kind::Other(other) = &self.kind {
                return other.lock().as_mut().poll_write_vectored(cx, bufs);
            }
            let written = self.write_vectored(bufs);
            if !would_block(&written) {
                return Poll::Ready(written);
            }
            match &self.kind {
                Kind::Tcp(stream) => ready!(stream.poll_writable(cx))?,
                Kind::Unix(stream) => ready!(stream.poll_writable(cx))?,
                Kind::Other(_) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.kind {
            Kind::Other(other) => other.lock().as_mut().poll_flush(cx),
            Kind::Tcp(_) | Kind::Unix(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.kind {
            Kind::Tcp(stream) => shut(stream.get_ref().shutdown(Shutdown::Write)),
            Kind::Unix(stream) => shut(stream.get_ref().shutdown(Shutdown::Write)),
            Kind::Other(other) => other.lock().as_mut().poll_close(cx),
        }
    }
}

/// A connection that is gone has no direction to the peer that could be ended.
fn shut(result: io::Result<()>) -> Poll<io::Result<()>> {
    Poll::Ready(result.or_else(|error| match error.kind() {
        io::ErrorKind::NotConnected => Ok(()),
        _ => Err(error),
    }))
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(address) => address.fmt(f),
            Peer::Unix => f.write_str("unix"),
            Peer::Named(name) => Escaped(name.as_bytes()).fmt(f),
        }
    }
}
