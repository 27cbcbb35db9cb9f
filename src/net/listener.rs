//! Listening, and accepting connections.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_lite::future;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use smol::{Async, Timer};
use socket2::{Domain, SockAddr, SockRef, TcpKeepalive, Type};

use super::address::Address;
use super::byte_stream::{
    ByteStream, Kind, LOOK_AGAIN, Peer, invalid, no_address, unix_address, unix_socket,
};
use super::unix_socket::{self, SocketAccess, SocketFile};
use crate::wire::io_error::same_again;

/// How many connections the kernel queues until they are accepted. The standard library hard-codes 128; a
/// burst overflows that, and each overflow costs its client a second.
pub(crate) const BACKLOG: i32 = 4096;

/// How long a connection may be idle before the kernel checks that the peer is still there.
const KEEPALIVE: Duration = Duration::from_secs(300);

/// How long to wait for other servers that are starting in the same directory. Starting takes them no time;
/// a program that holds the lock for longer uses it for something else.
const LOCKING: Duration = Duration::from_secs(5);

/// A socket that accepts connections. Dropping it stops listening and removes a Unix socket's file.
///
/// # Examples
///
/// ```
/// use framelet::{Address, FrameReader, FrameWriter};
///
/// # smol::block_on(async {
/// let listener = "127.0.0.1:0".parse::<Address>()?.listen().await?;
/// let mut writer = FrameWriter::new(listener.address()?.connect().await?);
/// let (stream, _peer) = listener.accept().await?;
/// writer.send(b"hello").await?;
/// assert_eq!(FrameReader::new(stream).read().await?, Some(b"hello".to_vec()));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct Listener(Listening);

#[derive(Debug)]
enum Listening {
    Tcp {
        listener: Arc<Async<std::net::TcpListener>>,
        /// Whether accepted connections inherit the listener's options. A listener that was opened
        /// elsewhere may hold connections from before the options were set.
        inherits: bool,
    },
    // Fields drop in order, and the file must go first: a server that starts in between then finds a free
    // path, not a leftover. The file of a listener that was opened elsewhere is not ours to remove.
    Unix {
        _file: Option<SocketFile>,
        listener: Arc<Async<UnixListener>>,
    },
}

impl Address {
    /// Listens here, with a backlog of 4096 connections.
    ///
    /// The file of a Unix socket is replaced if nobody listens on it.
    ///
    /// # Errors
    ///
    /// Any error of the system call, such as "address in use", or of the name lookup.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing listens here.
    pub async fn listen(&self) -> io::Result<Listener> {
        self.listen_with(SocketAccess::default()).await
    }

    /// Does the same, and gives the file of a Unix socket an owner and a mode before anybody can connect.
    ///
    /// # Errors
    ///
    /// Those of [`Address::listen`]; if the address is a TCP port; or if the file cannot be given to its owner, for
    /// which most changes need root. Then the file is removed.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing listens here.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::Address;
    /// use framelet::net::SocketAccess;
    /// use std::os::unix::fs::PermissionsExt;
    ///
    /// # smol::block_on(async {
    /// # let directory = tempfile::tempdir()?;
    /// let path = directory.path().join("socket");
    /// let for_the_group = SocketAccess { mode: Some(0o660), ..SocketAccess::default() };
    /// let _listener = Address::Unix(path.clone()).listen_with(for_the_group).await?;
    /// assert_eq!(std::fs::metadata(&path)?.permissions().mode() & 0o777, 0o660);
    /// # Ok::<(), std::io::Error>(()) }).unwrap();
    /// ```
    pub async fn listen_with(&self, access: SocketAccess) -> io::Result<Listener> {
        match self {
            Address::Tcp { .. } if access != SocketAccess::default() => {
                Err(invalid("only the file of a Unix socket has an owner and a mode".into()))
            }
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
            Address::Unix(path) => listen_unix(path, access).await,
        }
    }
}

fn listen_tcp(address: SocketAddr) -> io::Result<Listener> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // A restart must not wait until the kernel has forgotten the old connections.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    // Set before listening: a connection inherits the options that its listener had when it arrived.
    set_options(&SockRef::from(&socket))?;
    socket.listen(BACKLOG)?;
    let listener = Arc::new(Async::new(socket.into())?);
    Ok(Listener(Listening::Tcp { listener, inherits: true }))
}

/// Sets the options of accepted connections: no delay, and keepalive after 300 s.
fn set_options(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))
}

/// Makes a connection end with a reset, even if the process is killed, unless
/// [`ByteStream::disable_reset_on_close`] is called. On a listener, this applies to all connections that
/// arrive from now on.
fn reset_at_the_end(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_linger(Some(Duration::ZERO))
}

async fn listen_unix(path: &Path, access: SocketAccess) -> io::Result<Listener> {
    let address = unix_address(path)?;
    // Without the lock, two servers that start at once would find the same leftover, and the second would
    // remove the first one's new socket, or take it for a leftover before the first one listens.
    let locked = lock_directory(path).await;
    let socket = unix_socket()?;
    if let Err(error) = socket.bind(&address) {
        if error.kind() != io::ErrorKind::AddrInUse {
            return Err(error);
        }
        match std::fs::metadata(path) {
            Ok(file) if !file.file_type().is_socket() => {
                return Err(invalid("there is a file of that name that is not a socket".into()));
            }
            Ok(_) => {
                // The file outlives a server that was killed: if nobody answers, it is a leftover.
                if !is_leftover(&address)? {
                    return Err(error);
                }
                locked.as_ref().map_err(same_again)?;
                std::fs::remove_file(path)?;
            }
            // Its server has just exited.
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => {}
            Err(_) => return Err(error),
        }
        socket.bind(&address)?;
    }
    let file = SocketFile::of_bound(path);
    // Nobody can connect before the socket listens, so nobody can be faster than this.
    access.give_to(path)?;
    socket.listen(BACKLOG)?;
    Ok(Listener(Listening::Unix {
        _file: Some(file),
        listener: Arc::new(Async::new(socket.into())?),
    }))
}

/// Locks the directory of a file, against all programs that use this lock, until the result is dropped.
///
/// # Errors
///
/// Any error of the system call, for example if the directory cannot be read; or another program does not
/// release the lock.
async fn lock_directory(path: &Path) -> io::Result<OwnedFd> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = std::fs::File::open(directory.unwrap_or(Path::new(".")))?;
    let started = Instant::now();
    loop {
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::AGAIN) if started.elapsed() < LOCKING => {
                Timer::after(LOOK_AGAIN).await;
            }
            Err(Errno::AGAIN) => {
                return Err(io::Error::new(
                    io::ErrorKind::WouldBlock,
                    "another program has locked the directory of the socket",
                ));
            }
            locked => return Ok(locked.map(|()| directory.into())?),
        }
    }
}

/// Returns whether nobody listens on a Unix socket's file. A server that is too busy to accept still
/// listens.
fn is_leftover(address: &SockAddr) -> io::Result<bool> {
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    Ok(unix_socket()?.connect(address).is_err_and(refused))
}

impl Listener {
    /// Returns the address it listens on, with the port that the system chose.
    ///
    /// # Errors
    ///
    /// Any error of the system call.
    pub fn address(&self) -> io::Result<Address> {
        match &self.0 {
            Listening::Tcp { listener, .. } => {
                let address = listener.get_ref().local_addr()?;
                Ok(Address::Tcp { host: address.ip().to_string(), port: address.port() })
            }
            Listening::Unix { listener, .. } => {
                let address = listener.get_ref().local_addr()?;
                let unnamed = || io::Error::other("the listening socket has no path");
                Ok(Address::Unix(address.as_pathname().ok_or_else(unnamed)?.to_owned()))
            }
        }
    }

    /// Accepts the next connection.
    ///
    /// The connection ends like any socket: what was written before it is dropped still arrives, provided
    /// that everything the peer sent was read. [`Server`](crate::Server) is stricter: it resets a
    /// connection unless it ended cleanly.
    ///
    /// # Errors
    ///
    /// Any error of the system call, such as "too many open files". The listener can still be used: the next
    /// call may succeed.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no connection is lost.
    pub async fn accept(&self) -> io::Result<(ByteStream, Peer)> {
        match &self.0 {
            Listening::Tcp { listener, inherits } => {
                let (stream, address) = listener.accept().await?;
                if !inherits {
                    set_options(&SockRef::from(stream.get_ref()))?;
                }
                Ok((ByteStream::of(Kind::Tcp(Arc::new(stream))), Peer::Tcp(address)))
            }
            Listening::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                let peer = unix_socket::peer(stream.get_ref());
                Ok((ByteStream::of(Kind::Unix(Arc::new(stream))), peer))
            }
        }
    }
}

/// A listener whose connections end with a reset unless [`ByteStream::disable_reset_on_close`] is called.
#[derive(Debug)]
pub(crate) struct ResettingListener {
    listener: Listener,
    /// Whether all connections still to be accepted arrived after the option was set, and so inherit it.
    inherits: bool,
}

impl ResettingListener {
    pub(crate) fn new(listener: Listener) -> io::Result<ResettingListener> {
        if let Listening::Tcp { listener, .. } = &listener.0 {
            reset_at_the_end(&SockRef::from(listener.get_ref()))?;
        }
        Ok(ResettingListener { listener, inherits: false })
    }

    /// Accepts the next connection; see [`Listener::accept`].
    pub(crate) async fn accept(&mut self) -> io::Result<(ByteStream, Peer)> {
        if !self.inherits {
            if let Some(accepted) = future::poll_once(self.listener.accept()).await {
                let (socket, peer) = accepted?;
                if let Kind::Tcp(stream) = &socket.kind {
                    reset_at_the_end(&SockRef::from(stream.get_ref()))?;
                }
                return Ok((socket, peer));
            }
            // The backlog was empty, so all older connections have been accepted.
            self.inherits = true;
        }
        self.listener.accept().await
    }
}

impl From<async_net::TcpListener> for Listener {
    fn from(listener: async_net::TcpListener) -> Self {
        Listener(Listening::Tcp { listener: listener.into(), inherits: false })
    }
}

impl From<async_net::unix::UnixListener> for Listener {
    fn from(listener: async_net::unix::UnixListener) -> Self {
        let listener: Arc<Async<UnixListener>> = listener.into();
        Listener(Listening::Unix { _file: None, listener })
    }
}

/// Wraps a socket that listens already, such as one opened by the service manager.
impl TryFrom<std::net::TcpListener> for Listener {
    type Error = io::Error;

    fn try_from(listener: std::net::TcpListener) -> io::Result<Self> {
        let listener = Arc::new(Async::new(listener)?);
        Ok(Listener(Listening::Tcp { listener, inherits: false }))
    }
}

/// Wraps a socket that listens already. Its file stays when the listener is dropped.
impl TryFrom<UnixListener> for Listener {
    type Error = io::Error;

    fn try_from(listener: UnixListener) -> io::Result<Self> {
        let listener = Arc::new(Async::new(listener)?);
        Ok(Listener(Listening::Unix { _file: None, listener }))
    }
}

/// Wraps a socket of either kind that listens already.
///
/// # Errors
///
/// If it is not a listening TCP or Unix socket.
impl TryFrom<OwnedFd> for Listener {
    type Error = io::Error;

    fn try_from(socket: OwnedFd) -> io::Result<Self> {
        let socket = socket2::Socket::from(socket);
        if !socket.is_listener()? {
            return Err(invalid("the socket does not listen".into()));
        }
        match socket.domain()? {
            Domain::UNIX => Listener::try_from(UnixListener::from(socket)),
            Domain::IPV4 | Domain::IPV6 => Listener::try_from(std::net::TcpListener::from(socket)),
            domain => Err(invalid(format!(
                "a socket of domain {domain:?} is not supported; use TCP or a Unix socket"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::sync::Barrier;
    use std::thread;

    use super::*;
    use crate::stream::writer::FrameWriter;

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
            assert!(error.to_string().contains("not a socket"), "{error}");
            assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        });
    }

    /// Many servers start at once where one was killed.
    #[test]
    fn one_of_many_servers_replaces_a_leftover_socket_file() {
        const SERVERS: usize = 8;
        let directory = tempfile::tempdir().unwrap();
        for round in 0..50 {
            let path = directory.path().join(format!("socket-{round}"));
            let address = Address::Unix(path.clone());
            drop(UnixListener::bind(&path).unwrap());
            let start = Barrier::new(SERVERS);
            let listeners: Vec<io::Result<Listener>> = thread::scope(|scope| {
                let listen = || {
                    start.wait();
                    smol::block_on(address.listen())
                };
                let starting: Vec<_> = (0..SERVERS).map(|_| scope.spawn(listen)).collect();
                starting.into_iter().map(|server| server.join().unwrap()).collect()
            });
            let (listening, refused): (Vec<_>, Vec<_>) =
                listeners.into_iter().partition(Result::is_ok);
            assert_eq!(listening.len(), 1, "round {round}");
            for refused in refused {
                assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::AddrInUse);
            }
            UnixStream::connect(&path).expect("the one that listens is the one that is found");
        }
    }

    /// Returns a listener with a full backlog, and what it is full of.
    fn full_backlog(path: &Path) -> (socket2::Socket, Vec<socket2::Socket>) {
        let address = SockAddr::unix(path).unwrap();
        let listener = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&address).unwrap();
        listener.listen(1).unwrap();
        let mut waiting = Vec::new();
        loop {
            let client = unix_socket().unwrap();
            match client.connect(&address) {
                Ok(()) => waiting.push(client),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    return (listener, waiting);
                }
            }
        }
    }

    #[test]
    fn a_server_that_is_too_busy_to_accept_still_has_its_socket_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let _full = full_backlog(&path);
        let (done, listened) = std::sync::mpsc::channel();
        let address = Address::Unix(path.clone());
        // In a thread, since it is not to block.
        thread::spawn(move || done.send(smol::block_on(address.listen())));
        let listened = listened.recv_timeout(Duration::from_secs(30)).expect("no hanging");
        assert_eq!(listened.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists());
    }

    #[test]
    fn a_client_waits_for_room_in_the_backlog_of_a_unix_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let (listener, waiting) = full_backlog(&path);
        smol::block_on(async {
            let address = Address::Unix(path);
            let mut connecting = Box::pin(address.connect());
            assert!(future::poll_once(&mut connecting).await.is_none());
            for _ in &waiting {
                listener.accept().unwrap();
            }
            connecting.await.unwrap();
        });
    }

    /// Replies arrive even if the caller of the public API sets no option of the socket.
    #[test]
    fn what_is_written_to_an_accepted_connection_arrives_though_it_is_closed_at_once() {
        const LEN: usize = 3_000_000;
        smol::block_on(async {
            let listener = "127.0.0.1:0".parse::<Address>().unwrap().listen().await.unwrap();
            let address = listener.address().unwrap().to_string();
            let (closed, is_closed) = std::sync::mpsc::channel();
            let client = thread::spawn(move || {
                let mut stream = std::net::TcpStream::connect(address).unwrap();
                // By then the kernel has the most of it still to send, unless it does not take so much.
                let _ = is_closed.recv_timeout(Duration::from_secs(1));
                let mut chunk = vec![0; 64 * 1024];
                std::iter::from_fn(|| Some(stream.read(&mut chunk).unwrap()))
                    .take_while(|&read| read > 0)
                    .sum::<usize>()
            });
            let (socket, _) = listener.accept().await.unwrap();
            let mut writer = FrameWriter::new(socket);
            for _ in 0..3 {
                writer.send(&vec![b'x'; LEN / 3]).await.unwrap();
            }
            writer.close().await.unwrap();
            drop(writer);
            closed.send(()).unwrap();
            assert_eq!(client.join().unwrap(), LEN + 3 * 4);
        });
    }

    /// As a service manager hands them on.
    #[test]
    fn a_socket_that_others_have_opened_serves_and_keeps_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let unix: OwnedFd = UnixListener::bind(&path).unwrap().into();
        let tcp: OwnedFd = std::net::TcpListener::bind("127.0.0.1:0").unwrap().into();
        smol::block_on(async {
            for socket in [unix, tcp] {
                let listener = Listener::try_from(socket).unwrap();
                let connecting = listener.address().unwrap();
                let _client = connecting.connect().await.unwrap();
                listener.accept().await.unwrap();
            }
        });
        assert!(path.exists());
        let client: OwnedFd = UnixStream::pair().unwrap().0.into();
        assert!(Listener::try_from(client).unwrap_err().to_string().contains("does not listen"));
    }

    fn linger(socket: &ByteStream) -> Option<Duration> {
        let Kind::Tcp(stream) = &socket.kind else { panic!("not TCP") };
        let socket = SockRef::from(stream.get_ref());
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        socket.linger().unwrap()
    }

    #[test]
    fn accepted_connections_have_their_options_and_those_of_a_server_are_reset() {
        smol::block_on(async {
            let opened_here = ":0".parse::<Address>().unwrap().listen().await.unwrap();
            let others = async_net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            for listener in [opened_here, Listener::from(others)] {
                let address = listener.address().unwrap();
                let _first = address.connect().await.unwrap();
                assert_eq!(linger(&listener.accept().await.unwrap().0), None);
                let _before = [address.connect().await.unwrap(), address.connect().await.unwrap()];
                let mut listener = ResettingListener::new(listener).unwrap();
                for _ in 0..2 {
                    let accepted = listener.accept().await.unwrap().0;
                    assert_eq!(linger(&accepted), Some(Duration::ZERO), "it came before");
                }
                let mut accepting = Box::pin(listener.accept());
                assert!(future::poll_once(&mut accepting).await.is_none());
                let _after = address.connect().await.unwrap();
                let accepted = accepting.await.unwrap().0;
                assert_eq!(linger(&accepted), Some(Duration::ZERO), "it inherits");
                accepted.disable_reset_on_close();
                assert_eq!(linger(&accepted), None);
            }
        });
    }
}
