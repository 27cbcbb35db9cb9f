//! One connection of the load: its socket, its progress, and its errors.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::task::Poll;
use std::time::{Duration, Instant};

use framelet::Address;
use framelet::tls::{TlsConnector, TlsError, TlsSession};
use framelet::wire::ProxyVersion;
use futures_lite::FutureExt;
use futures_lite::future::block_on;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use smol::Timer;
use socket2::{Domain, SockAddr, Socket, Type};

use super::block::{Block, Cursor};
use crate::cli::flags;

/// Why a connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Reset, or another error of the system.
    Lost,
    /// The server ended the connection too early.
    ClosedEarly,
    /// A reply differs from what was sent.
    WrongReply,
    /// Nothing happened for too long.
    TimedOut,
}

/// The failure of a connection.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    pub(super) text: String,
}

/// A connected, non-blocking socket, and its position in the stream of frames.
#[derive(Debug)]
pub(super) struct Connection {
    /// The number of the connection, counted from 1.
    number: usize,
    socket: Socket,
    /// Set if the connection is encrypted.
    tls: Option<Box<TlsSession>>,
    /// How many more bytes precede the first frame of the server.
    skip: u64,
    /// How much was written.
    pub(super) written: Cursor,
    /// How far to write for now; `None` is no limit.
    pub(super) until: Option<Cursor>,
}

/// The result of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrote {
    /// There was nothing to write.
    Nothing,
    /// The socket took everything that was tried; this many frames ended.
    All(u64),
    /// The socket is full; this many frames ended.
    Part(u64),
}

/// Resolves the address to connect to.
pub(super) fn resolve(address: &Address, timeout: Option<Duration>) -> io::Result<Vec<SockAddr>> {
    let addresses: Vec<SockAddr> = match address {
        Address::Tcp { host, port } => {
            let timed_out = async {
                timeout.map_or_else(Timer::never, Timer::after).await;
                Err(io::ErrorKind::TimedOut.into())
            };
            let resolved = block_on(async_net::resolve((host.as_str(), *port)).or(timed_out))?;
            resolved.into_iter().map(SockAddr::from).collect()
        }
        Address::Unix(path) => vec![SockAddr::unix(path)?],
        _ => return Err(io::ErrorKind::Unsupported.into()),
    };
    Ok(addresses)
}

/// A socket that is connected and does not block, and its TLS session if it is encrypted.
pub(super) struct Open {
    socket: Socket,
    tls: Option<Box<TlsSession>>,
}

/// Connects to the first address that answers, sends a PROXY header if there is to be one, does the handshake if there is
/// to be TLS, and sends the preamble.
pub(super) fn open(
    addresses: &[SockAddr],
    proxy: Option<ProxyVersion>,
    tls: Option<(&TlsConnector, &Address)>,
    preamble: &[u8],
    timeout: Option<Duration>,
) -> io::Result<Open> {
    let mut socket = connect(addresses, timeout)?;
    if let Some(version) = proxy {
        socket.set_write_timeout(timeout)?;
        let ends = socket.local_addr()?.as_socket().zip(socket.peer_addr()?.as_socket());
        socket.write_all(&version.header(ends))?;
    }
    let mut tls = match tls {
        Some((connector, address)) => Some(handshake(&mut socket, connector, address, timeout)?),
        None => None,
    };
    socket.set_write_timeout(timeout)?;
    match &mut tls {
        Some(session) => {
            let mut rest = preamble;
            while !rest.is_empty() {
                let written = session.poll_write(&mut socket, poll_write, rest);
                rest = &rest[ready(written)?..];
            }
            ready(session.poll_flush(&mut socket, poll_write))?;
        }
        None => socket.write_all(preamble)?,
    }
    socket.set_nonblocking(true)?;
    Ok(Open { socket, tls })
}

/// Returns what a blocking socket says, which is pending only after its timeout.
fn ready<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Does the handshake on a blocking socket.
fn handshake(
    socket: &mut Socket,
    connector: &TlsConnector,
    address: &Address,
    timeout: Option<Duration>,
) -> io::Result<Box<TlsSession>> {
    let mut session = Box::new(connector.session(address)?);
    let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let read = |socket: &mut Socket, buffer: &mut [u8]| {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        // Zero would be no limit.
        let left = left.map(|left| left.max(Duration::from_millis(1)));
        match socket.set_read_timeout(left).and_then(|()| socket.set_write_timeout(left)) {
            Ok(()) => poll_read(socket, buffer),
            Err(error) => Poll::Ready(Err(error)),
        }
    };
    if let Poll::Ready(done) = session.poll_handshake(socket, read, poll_write) {
        return done.map(|()| session);
    }
    let timeout = humantime::format_duration(timeout.unwrap_or_default());
    let message = format!("the TLS handshake was not complete after {timeout} (--timeout)");
    Err(TlsError::TimedOut(message).into())
}

fn poll_read(socket: &mut Socket, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
    pending(socket.read(buffer))
}

fn poll_write(socket: &mut Socket, bytes: &[u8]) -> Poll<io::Result<usize>> {
    pending(socket.write(bytes))
}

fn pending(result: io::Result<usize>) -> Poll<io::Result<usize>> {
    match result {
        Err(error) if passing(&error) => Poll::Pending,
        result => Poll::Ready(result),
    }
}

fn connect(addresses: &[SockAddr], timeout: Option<Duration>) -> io::Result<Socket> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match connect_to(address, timeout) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn connect_to(address: &SockAddr, timeout: Option<Duration>) -> io::Result<Socket> {
    let socket = Socket::new(address.domain(), Type::STREAM, None)?;
    match timeout {
        // A non-blocking Unix socket would fail if the server accepts slowly.
        Some(_) if address.domain() == Domain::UNIX => {
            socket.set_write_timeout(timeout)?;
            socket.connect(address).map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
                _ => error,
            })?;
        }
        Some(timeout) => socket.connect_timeout(address, timeout)?,
        None => socket.connect(address)?,
    }
    if address.domain() != Domain::UNIX {
        socket.set_tcp_nodelay(true)?;
    }
    Ok(socket)
}

impl Connection {
    pub(super) fn new(number: usize, open: Open, skip: u64, begin: Cursor) -> Connection {
        let Open { socket, tls } = open;
        Connection { number, socket, tls, skip, written: begin, until: None }
    }

    /// Makes the poller report every change of the socket.
    pub(super) fn register(&self, registry: &Registry, token: usize) -> io::Result<()> {
        let interests = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut SourceFd(&self.socket.as_raw_fd()), Token(token), interests)
    }

    /// Writes once.
    pub(super) fn write(&mut self, block: &Block) -> Result<Wrote, Fault> {
        if let Some(tls) = &mut self.tls
            && tls.wants_write()
        {
            match tls.poll_flush(&mut self.socket, poll_write) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Err(self.lost(&error)),
                Poll::Pending => return Ok(Wrote::Part(0)),
            }
        }
        let bytes = block.bytes(self.written, self.until);
        if bytes.is_empty() {
            return Ok(Wrote::Nothing);
        }
        let written = match &mut self.tls {
            Some(tls) => tls.poll_write(&mut self.socket, poll_write, bytes),
            None => poll_write(&mut self.socket, bytes),
        };
        let written = match written {
            Poll::Ready(Ok(written)) => written,
            Poll::Ready(Err(error)) => return Err(self.lost(&error)),
            Poll::Pending => 0,
        };
        // TLS takes what the socket has no room for yet, and a part of many bytes although it has.
        let whole = match &self.tls {
            Some(tls) => !tls.wants_write(),
            None => written == bytes.len(),
        };
        let frames = block.advance(&mut self.written, written);
        Ok(if whole { Wrote::All(frames) } else { Wrote::Part(frames) })
    }

    /// Reads once, after what precedes the first frame: `None` if nothing is available, 0 bytes at the end of the
    /// stream.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, Fault> {
        while self.skip > 0 {
            let most = usize::try_from(self.skip).unwrap_or(usize::MAX).min(buffer.len());
            match self.read_once(&mut buffer[..most])? {
                Some(read @ 1..) => self.skip -= read as u64,
                end => return Ok(end),
            }
        }
        self.read_once(buffer)
    }

    fn read_once(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, Fault> {
        let read = match &mut self.tls {
            Some(tls) => tls.poll_read(&mut self.socket, poll_read, buffer),
            None => poll_read(&mut self.socket, buffer),
        };
        match read {
            Poll::Ready(Ok(read)) => Ok(Some(read)),
            Poll::Ready(Err(error)) => Err(self.lost(&error)),
            Poll::Pending => Ok(None),
        }
    }

    /// Returns whether a read that did not fill its buffer has emptied the socket. One of TLS ends with a record.
    pub(super) fn is_emptied_by(&self, read: usize, buffer: usize) -> bool {
        self.tls.is_none() && read < buffer
    }

    /// Returns whether bytes that were taken wait for the socket.
    pub(super) fn wants_write(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Closes the direction to the server.
    pub(super) fn half_close(&mut self) -> Result<(), Fault> {
        if let Some(tls) = &mut self.tls {
            // Everything before was taken, so this waits for a few bytes of room at most.
            let socket = &mut self.socket;
            let closed = socket.set_nonblocking(false).and_then(|()| {
                // A blocking socket is never pending.
                let _ = tls.poll_close(socket, poll_write)?;
                socket.set_nonblocking(true)
            });
            closed.map_err(|error| self.lost(&error))?;
        }
        match self.socket.shutdown(Shutdown::Write) {
            // The reset that caused the error is read next.
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(self.lost(&error)),
            _ => Ok(()),
        }
    }

    /// Returns how many bytes before the first frame of the server have not come.
    pub(super) fn to_skip(&self) -> u64 {
        self.skip
    }

    pub(super) fn fault(&self, kind: Kind, what: impl std::fmt::Display) -> Fault {
        Fault { kind, text: format!("connection {}: {what}", self.number) }
    }

    fn lost(&self, error: &io::Error) -> Fault {
        let why = flags::of_io(error);
        self.fault(Kind::Lost, format_args!("the connection to the server was lost: {why}"))
    }
}

impl Drop for Connection {
    /// Ends TLS in order, if the socket takes that at once: without it, the server would log a cut connection.
    fn drop(&mut self) {
        if let Some(tls) = &mut self.tls {
            let _ = tls.poll_close(&mut self.socket, poll_write);
        }
    }
}

/// Returns whether the same call may succeed later. An interruption cannot happen, as no signal handler is
/// installed that interrupts.
fn passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
