//! Listening and connecting, and the sockets that come of it: TCP and Unix alike.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite};
use rustix::io::ioctl_fionread;
use smol::Async;
use socket2::{Domain, SockAddr, SockRef, TcpKeepalive, Type};

use crate::address::Address;

/// How many connections the kernel queues until they are accepted; std hard-codes 128, which a burst
/// overruns, and each overrun costs its client a second.
pub(crate) const BACKLOG: i32 = 4096;

/// How long a connection may be silent before the kernel asks whether the peer is still there.
const KEEPALIVE: Duration = Duration::from_secs(300);

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
    connected: Connected,
    /// Whether the last read took all there was, so that the next one had better wait first.
    drained: bool,
}

#[derive(Clone, Debug)]
enum Connected {
    Tcp(Arc<Async<std::net::TcpStream>>),
    Unix(Arc<Async<UnixStream>>),
}

/// A socket that accepts connections. Dropping it stops listening and removes a Unix socket's file.
#[derive(Debug)]
pub struct Listener(Listening);

#[derive(Debug)]
enum Listening {
    Tcp {
        listener: Arc<Async<std::net::TcpListener>>,
        /// Whether accepted connections inherit their options. A listener that others have opened may
        /// hold connections from before it could be given any.
        inherits: bool,
    },
    // The file goes first: a server that starts in between finds a free place, not a leftover.
    Unix(SocketFile, Async<UnixListener>),
}

/// Removes the file of a Unix socket when it is dropped, if it is still the same.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: Option<u64>,
}

impl Address {
    /// Listens here, with a backlog of 4096 connections.
    ///
    /// The file of a Unix socket that nobody listens on any more is replaced.
    ///
    /// # Errors
    ///
    /// The system's, for example if the address is in use or the name does not resolve.
    pub async fn listen(&self) -> io::Result<Listener> {
        match self {
            Address::Tcp { host, port } => {
                let mut last = None;
                for address in async_net::resolve((host.as_str(), *port)).await? {
                    match listen_tcp(address) {
                        Ok(listener) => return Ok(listener),
                        Err(error) => last = Some(error),
                    }
                }
                Err(last.unwrap_or_else(no_address))
            }
            Address::Unix(path) => listen_unix(path),
        }
    }

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
                let stream = Async::<UnixStream>::connect(path).await?;
                Ok(Socket::new(Connected::Unix(Arc::new(stream))))
            }
        }
    }
}

fn no_address() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the name has no address")
}

fn listen_tcp(address: SocketAddr) -> io::Result<Listener> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // A restart must not wait until the old connections have left the kernel's tables.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    // Before it listens: a connection has the options that its listener had when it came in.
    set_options(&SockRef::from(&socket))?;
    socket.listen(BACKLOG)?;
    let listener = Arc::new(Async::new(socket.into())?);
    Ok(Listener(Listening::Tcp { listener, inherits: true }))
}

/// Sets what an accepted connection has: no delay, keepalive after 300 s, and an end by a reset unless
/// [`Socket::end_in_order`] was called. The last one holds even if the process is killed.
fn set_options(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    socket.set_linger(Some(Duration::ZERO))
}

fn listen_unix(path: &Path) -> io::Result<Listener> {
    let address = SockAddr::unix(path).map_err(|_| {
        let length = path.as_os_str().len();
        invalid(format!("a Unix socket's path can have at most {LONGEST_PATH} bytes, not {length}"))
    })?;
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    if let Err(error) = socket.bind(&address) {
        if error.kind() != io::ErrorKind::AddrInUse {
            return Err(error);
        }
        if !std::fs::metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
            return Err(invalid("there is a file of that name that is no socket".into()));
        }
        // The file outlives a server that was killed: if nobody answers there, it is a leftover.
        let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        if !UnixStream::connect(path).is_err_and(refused) {
            return Err(error);
        }
        std::fs::remove_file(path)?;
        socket.bind(&address)?;
    }
    socket.listen(BACKLOG)?;
    let file = SocketFile { path: path.to_owned(), inode: inode(path) };
    Ok(Listener(Listening::Unix(file, Async::new(socket.into())?)))
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|file| file.ino())
}

impl Listener {
    /// Returns the address it listens on, with the port that the system has chosen.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn address(&self) -> io::Result<Address> {
        match &self.0 {
            Listening::Tcp { listener, .. } => {
                let address = listener.get_ref().local_addr()?;
                Ok(Address::Tcp { host: address.ip().to_string(), port: address.port() })
            }
            Listening::Unix(file, _) => Ok(Address::Unix(file.path.clone())),
        }
    }

    /// Accepts the next connection.
    ///
    /// # Errors
    ///
    /// The system's. None of them means that the listener is broken; the next call may succeed.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no connection is lost.
    pub async fn accept(&self) -> io::Result<(Socket, Peer)> {
        match &self.0 {
            Listening::Tcp { listener, inherits } => {
                let (stream, address) = listener.accept().await?;
                if !inherits {
                    set_options(&SockRef::from(stream.get_ref()))?;
                }
                Ok((Socket::new(Connected::Tcp(Arc::new(stream))), Peer::Tcp(address)))
            }
            Listening::Unix(_, listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Socket::new(Connected::Unix(Arc::new(stream))), Peer::Unix))
            }
        }
    }
}

impl From<async_net::TcpListener> for Listener {
    fn from(listener: async_net::TcpListener) -> Self {
        Listener(Listening::Tcp { listener: listener.into(), inherits: false })
    }
}

impl From<async_net::TcpStream> for Socket {
    fn from(stream: async_net::TcpStream) -> Self {
        Socket::new(Connected::Tcp(stream.into()))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.inode.is_some() && self.inode == inode(&self.path) {
            // At worst the next server finds the leftover and replaces it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Socket {
    fn new(connected: Connected) -> Socket {
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

    /// Lets the end of an accepted connection look orderly. Unless this was called, it is a reset, by
    /// whatever cause it comes: so a peer never takes an early end for a sign that all is well.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leftover_socket_file_is_replaced_and_one_in_use_is_not() {
        smol::block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("socket");
            let address = Address::Unix(path.clone());
            drop(UnixListener::bind(&path).unwrap());
            assert!(path.exists());
            let listener = address.listen().await.unwrap();
            assert_eq!(address.listen().await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
            drop(listener);
            assert!(!path.exists());
            std::fs::write(&path, "precious").unwrap();
            let error = address.listen().await.unwrap_err();
            assert!(error.to_string().contains("no socket"), "{error}");
            assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        });
    }

    #[test]
    fn accepted_connections_have_their_options() {
        smol::block_on(async {
            let opened_here = ":0".parse::<Address>().unwrap().listen().await.unwrap();
            let others = async_net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            for listener in [opened_here, Listener::from(others)] {
                let _client = listener.address().unwrap().connect().await.unwrap();
                let (socket, _) = listener.accept().await.unwrap();
                let Connected::Tcp(stream) = &socket.connected else { panic!("not TCP") };
                let socket = SockRef::from(stream.get_ref());
                assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
                assert_eq!(socket.linger().unwrap(), Some(Duration::ZERO));
            }
        });
    }
}
