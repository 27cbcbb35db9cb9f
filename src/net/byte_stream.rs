//! Byte streams to a peer: TCP and Unix sockets, and anything else that reads and writes.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite, FutureExt};
#[cfg(target_os = "linux")]
use nix::libc;
use rustix::io::ioctl_fionread;
use smol::{Async, Timer};
use socket2::{Domain, SockAddr, SockRef, Type};

use super::address::Address;
use super::low_water::LowWater;
use crate::wire::escape::Escaped;

/// How often to retry an operation that sends no wake-up when it can succeed.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Marks an unclean end: after a whole frame, this byte begins one that is incomplete or invalid, whatever the
/// layout. (In `u8+255`, whose messages are all empty, it would be one.)
const HALF_A_FRAME: &[u8] = &[0xff];

/// The longest path of a Unix socket, in bytes; Linux has room for 108, including the final NUL byte.
const LONGEST_PATH: usize = 107;

/// The other end of a connection.
///
/// # Examples
///
/// ```
/// use framelet::net::Peer;
/// use framelet::Address;
///
/// # smol::block_on(async {
/// let listener = "127.0.0.1:0".parse::<Address>()?.listen().await?;
/// let _client = listener.address()?.connect().await?;
/// match listener.accept().await?.1 {
///     Peer::Tcp(address) => assert!(address.ip().is_loopback()),
///     other => panic!("{other}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Peer {
    /// A TCP peer.
    Tcp(SocketAddr),
    /// The peer of a Unix socket, which has no address, if nothing else is known of it.
    Unix,
    /// A process at the other end of a Unix socket, as the system recorded it when it connected.
    UnixProcess {
        /// Its effective user.
        uid: u32,
        /// Its number; `None` if the process is not visible here, as across containers.
        pid: Option<u32>,
    },
    /// The other end of any other stream, by the name it was given.
    Named(Arc<str>),
}

impl Peer {
    /// Returns the peer of a stream that is not a socket, or not only a socket.
    pub fn named(name: &str) -> Peer {
        Peer::Named(name.into())
    }
}

/// A byte stream to and from a peer. Clones share it; one of them may read while another writes.
///
/// TCP and Unix sockets are used directly. Anything else that implements [`AsyncRead`] and [`AsyncWrite`]
/// (TLS, a pipe in memory, a tokio stream in its compatibility layer) can be wrapped with
/// [`ByteStream::new`], which costs a lock and an indirect call for each read and write.
///
/// # Examples
///
/// ```
/// use framelet::net::ByteStream;
/// use framelet::{FrameReader, FrameWriter};
/// use std::os::unix::net::UnixStream;
///
/// # smol::block_on(async {
/// let (near, far) = UnixStream::pair()?;
/// let mut writer = FrameWriter::new(ByteStream::try_from(near)?);
/// let mut reader = FrameReader::new(ByteStream::try_from(far)?);
/// writer.send(b"hello").await?;
/// assert_eq!(reader.read().await?, Some(b"hello".to_vec()));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct ByteStream {
    pub(super) kind: Kind,
    /// Whether the last read emptied the socket, so that the next one should first wait.
    would_block: bool,
    /// Set if the first read is to be recorded.
    first_read: Option<FirstRead>,
    low_water: LowWater,
}

/// Whether the first read brought bytes, once there was one.
pub(crate) type FirstRead = Arc<OnceLock<bool>>;

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Tcp(Arc<Async<std::net::TcpStream>>),
    Unix(Arc<Async<UnixStream>>),
    Other(Arc<Other>),
}

/// A stream that can only be read and written.
pub(super) struct Other {
    stream: Mutex<Pin<Box<dyn Duplex>>>,
    /// The underlying stream, if a server's connection was upgraded to this one.
    below: Option<ByteStream>,
    part: Part,
}

/// Whether a stream that carries another one has the start of something in memory that it can pass on only as a
/// whole, such as a record of TLS. The stream sets it.
pub(crate) type Part = Arc<AtomicBool>;

trait Duplex: AsyncRead + AsyncWrite + Send {}

impl<S: AsyncRead + AsyncWrite + Send> Duplex for S {}

impl Address {
    /// Connects to this address, trying each address of a name in turn.
    ///
    /// # Errors
    ///
    /// Any error of the system call, such as "connection refused", or of the name lookup.
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
                            // A message is written in one piece: waiting for more data to fill a segment
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
                // Retry while the backlog is full: TCP would wait too, but a non-blocking Unix socket
                // fails.
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

/// Returns a new Unix socket that is non-blocking: connecting fails if the backlog is full.
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

    /// Fails if the socket cannot be made non-blocking.
    fn try_from(stream: std::net::TcpStream) -> io::Result<Self> {
        Ok(ByteStream::of(Kind::Tcp(Arc::new(Async::new(stream)?))))
    }
}

impl TryFrom<UnixStream> for ByteStream {
    type Error = io::Error;

    /// Fails if the socket cannot be made non-blocking.
    fn try_from(stream: UnixStream) -> io::Result<Self> {
        Ok(ByteStream::of(Kind::Unix(Arc::new(Async::new(stream)?))))
    }
}

impl ByteStream {
    /// Wraps anything that reads and writes.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::FrameReader;
    /// use framelet::net::ByteStream;
    ///
    /// # futures_lite::future::block_on(async {
    /// let stream = ByteStream::new(futures_lite::io::Cursor::new(b"\0\0\0\x02hi".to_vec()));
    /// assert_eq!(FrameReader::new(stream).read().await?, Some(b"hi".to_vec()));
    /// # Ok::<(), framelet::stream::ReadError>(()) }).unwrap();
    /// ```
    pub fn new(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> ByteStream {
        ByteStream::over(stream, None, Part::default())
    }

    /// Wraps a stream that is carried by the stream `below`, and that sets `part`.
    pub(crate) fn over(
        stream: impl AsyncRead + AsyncWrite + Send + 'static,
        below: Option<ByteStream>,
        part: Part,
    ) -> ByteStream {
        let stream = Mutex::new(Box::pin(stream) as Pin<Box<dyn Duplex>>);
        ByteStream::of(Kind::Other(Arc::new(Other { stream, below, part })))
    }

    pub(super) fn of(kind: Kind) -> ByteStream {
        let low_water = LowWater::default();
        ByteStream { kind, would_block: false, low_water, first_read: None }
    }

    /// Returns the address of this end and that of the peer, if the stream is a TCP socket.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::Address;
    ///
    /// # smol::block_on(async {
    /// let listener = "127.0.0.1:0".parse::<Address>()?.listen().await?;
    /// let stream = listener.address()?.connect().await?;
    /// assert!(stream.addresses().is_some_and(|(own, peer)| own.ip() == peer.ip()));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        let Kind::Tcp(stream) = &self.kind else { return None };
        let stream = stream.get_ref();
        stream.local_addr().ok().zip(stream.peer_addr().ok())
    }

    /// Starts to record the first read, so that a server knows whether the peer has sent anything to an
    /// upgrade that failed.
    pub(crate) fn track_first_read(&mut self) -> FirstRead {
        Arc::clone(self.first_read.get_or_insert_default())
    }

    fn read_done(&self, read: io::Result<usize>) -> Poll<io::Result<usize>> {
        if let Some(first_read) = &self.first_read {
            // Fails for all reads but the first.
            let _ = first_read.set(matches!(read, Ok(bytes) if bytes > 0));
        }
        Poll::Ready(read)
    }

    /// Lets a connection from a [`ResettingListener`](super::listener::ResettingListener) end cleanly.
    /// Unless this was called, it ends with a reset, whatever the cause: so a peer never takes an early end
    /// for success.
    pub(crate) fn disable_reset_on_close(&self) {
        match &self.kind {
            // If this fails, the connection is already gone.
            Kind::Tcp(stream) => drop(SockRef::from(stream.get_ref()).set_linger(None)),
            Kind::Unix(_) => {}
            Kind::Other(other) => {
                if let Some(below) = &other.below {
                    below.disable_reset_on_close();
                }
            }
        }
    }

    /// Marks an unclean end on streams that have no reset, by writing half a frame after the `unsent` rest
    /// of the last one. A frame that lacked only its last byte would be complete with
    /// this one.
    pub(crate) fn mark_aborted(&self, unsent: &[u8]) {
        let mut bytes = &[unsent, HALF_A_FRAME].concat()[..];
        match &self.kind {
            Kind::Tcp(_) => {}
            // If this fails, the peer is already gone, or takes nothing.
            Kind::Unix(stream) => drop(stream.get_ref().write_all(bytes)),
            Kind::Other(other) => {
                let cx = &mut Context::from_waker(Waker::noop());
                let mut stream = other.lock();
                while let Poll::Ready(Ok(taken @ 1..)) = stream.as_mut().poll_write(cx, bytes) {
                    bytes = &bytes[taken..];
                    if bytes.is_empty() {
                        break;
                    }
                }
                let _ = stream.as_mut().poll_flush(cx);
            }
        }
    }

    /// Returns how many bytes the kernel has received that are not read yet, if known.
    pub(crate) fn unread(&self) -> Option<u64> {
        match &self.kind {
            Kind::Tcp(stream) => Some(ioctl_fionread(stream.get_ref()).unwrap_or(0)),
            Kind::Unix(stream) => Some(ioctl_fionread(stream.get_ref()).unwrap_or(0)),
            Kind::Other(_) => None,
        }
    }

    /// Returns whether the next read is likely to wait, because the last one emptied the socket.
    pub(crate) fn would_block_hint(&self) -> bool {
        self.would_block
    }

    /// Makes the next read try the socket at once, even if the kernel has not reported it readable.
    pub(crate) fn assume_readable(&mut self) {
        self.would_block = false;
    }

    /// Lets reads into large buffers sleep until many bytes have arrived, on sockets that can. Only for a reader
    /// that never asks for more than its peer has announced, and while no other clone reads: any other reader
    /// could wait for bytes that nobody sends.
    pub(crate) fn gather_large_reads(&mut self) {
        self.low_water.enable();
    }

    /// Returns whether the kernel has received bytes for this stream that are not read yet, if that is known
    /// of the stream or of the one below it.
    pub(crate) fn has_unread(&self) -> bool {
        match &self.kind {
            Kind::Tcp(_) | Kind::Unix(_) => self.unread() > Some(0),
            Kind::Other(other) => other.below.as_ref().is_some_and(ByteStream::has_unread),
        }
    }

    /// Returns whether the peer has sent the start of something that can be read only as a whole.
    pub(crate) fn has_part(&self) -> bool {
        matches!(&self.kind, Kind::Other(other) if other.part.load(Ordering::Relaxed))
    }

    /// Ends the direction to the peer cleanly, and gives it until `limit` to read what is on its way and to close
    /// its own: data that it still sends would turn the end into a reset, which destroys the rest in flight.
    pub(crate) async fn close_and_wait(&mut self, limit: Duration) {
        self.end_and_wait(&[], limit).await;
    }

    /// Does the same, but ends the direction to the peer with half a frame, as the mark of an unclean end.
    pub(crate) async fn abort_and_wait(&mut self, limit: Duration) {
        self.end_and_wait(HALF_A_FRAME, limit).await;
    }

    async fn end_and_wait(&mut self, last: &[u8], limit: Duration) {
        // Only here: elsewhere their names are those of the socket's own calls.
        use futures_lite::{AsyncReadExt, AsyncWriteExt};

        debug_assert!(last.len() <= 1, "written whole or not at all");
        self.disable_reset_on_close();
        let closed = async {
            if !last.is_empty() {
                poll_fn(|cx| self.poll_write_before_close(cx, last)).await?;
            }
            self.close().await?;
            let mut rest = [0; 4096];
            while AsyncReadExt::read(self, &mut rest).await? > 0 {}
            io::Result::Ok(())
        };
        let too_late = async {
            Timer::after(limit).await;
            Ok(())
        };
        // If it fails, the peer is already gone.
        let _ = closed.or(too_late).await;
    }

    /// Returns whether the stream is no plain socket, and so may have an end of its own, as TLS has.
    pub(crate) fn has_own_end(&self) -> bool {
        matches!(&self.kind, Kind::Other(_))
    }

    /// Writes what the kernel takes without waiting.
    pub(crate) fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    /// Writes bytes after which this direction is closed at once. TCP then sends both in one segment.
    pub(crate) fn poll_write_before_close(
        &mut self,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let Kind::Tcp(stream) = &self.kind else {
                return Pin::new(self).poll_write(cx, buf);
            };
            let written = write_to_be_continued(stream.get_ref(), buf);
            if !would_block(&written) {
                return Poll::Ready(written);
            }
            ready!(stream.poll_writable(cx))?;
        }
    }

    fn write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        // A plain write is cheaper than a vectored write of one part.
        match (&self.kind, bufs) {
            (Kind::Tcp(stream), [buf]) => stream.get_ref().write(buf),
            (Kind::Tcp(stream), bufs) => stream.get_ref().write_vectored(bufs),
            (Kind::Unix(stream), bufs) => stream.get_ref().write_vectored(bufs),
            // Such a stream needs a waker, which this call does not have.
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

/// Writes bytes. The kernel keeps the last ones until more is written or the direction is closed, for a fifth of a second
/// at most.
#[cfg(target_os = "linux")]
fn write_to_be_continued(stream: &std::net::TcpStream, buf: &[u8]) -> io::Result<usize> {
    SockRef::from(stream).send_with_flags(buf, libc::MSG_MORE | libc::MSG_NOSIGNAL)
}

/// Writes bytes. This system has no way to keep them.
#[cfg(not(target_os = "linux"))]
fn write_to_be_continued(mut stream: &std::net::TcpStream, buf: &[u8]) -> io::Result<usize> {
    stream.write(buf)
}

fn would_block<T>(result: &io::Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

impl AsyncRead for ByteStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            // A read that did not fill the buffer has emptied the socket: another attempt would only return
            // `WouldBlock`.
            let wait = this.would_block;
            let (read, size) = match &this.kind {
                Kind::Tcp(stream) => {
                    if wait {
                        this.low_water.prepare(stream, buf.len());
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
                Kind::Other(other) => {
                    let read = ready!(other.lock().as_mut().poll_read(cx, buf));
                    return this.read_done(read);
                }
            };
            this.would_block = would_block(&read) || matches!(read, Ok(n) if n > 0 && n < size);
            if !would_block(&read) {
                return this.read_done(read);
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

/// A connection that is already gone needs no shutdown.
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
            Peer::UnixProcess { uid, pid: None } => write!(f, "uid:{uid}"),
            Peer::UnixProcess { uid, pid: Some(pid) } => write!(f, "uid:{uid}/pid:{pid}"),
            Peer::Named(name) => Escaped(name.as_bytes()).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
