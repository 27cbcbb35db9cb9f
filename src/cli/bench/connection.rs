//! One connection of the load: its socket, its progress, and its errors.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::time::Duration;

use framelet::Address;
use futures_lite::FutureExt;
use futures_lite::future::block_on;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use smol::Timer;
use socket2::{Domain, SockAddr, Socket, Type};

use super::block::{Block, Cursor};
use crate::cli::failure::plain;

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
    /// The socket took everything; this many frames ended.
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

/// Connects to the first address that answers, and sends the preamble.
pub(super) fn connect(
    addresses: &[SockAddr],
    preamble: &[u8],
    timeout: Option<Duration>,
) -> io::Result<Socket> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match connect_to(address, timeout) {
            Ok(mut socket) => {
                socket.set_write_timeout(timeout)?;
                socket.write_all(preamble)?;
                socket.set_nonblocking(true)?;
                return Ok(socket);
            }
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
    pub(super) fn new(number: usize, socket: Socket, skip: u64, begin: Cursor) -> Connection {
        Connection { number, socket, skip, written: begin, until: None }
    }

    /// Makes the poller report every change of the socket.
    pub(super) fn register(&self, registry: &Registry, token: usize) -> io::Result<()> {
        let interests = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut SourceFd(&self.socket.as_raw_fd()), Token(token), interests)
    }

    /// Writes once.
    pub(super) fn write(&mut self, block: &Block) -> Result<Wrote, Fault> {
        let bytes = block.bytes(self.written, self.until);
        if bytes.is_empty() {
            return Ok(Wrote::Nothing);
        }
        let written = match self.socket.write(bytes) {
            Ok(written) => written,
            Err(error) if passing(&error) => 0,
            Err(error) => return Err(self.lost(&error)),
        };
        let whole = written == bytes.len();
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
        match self.socket.read(buffer) {
            Ok(read) => Ok(Some(read)),
            Err(error) if passing(&error) => Ok(None),
            Err(error) => Err(self.lost(&error)),
        }
    }

    /// Closes the direction to the server.
    pub(super) fn half_close(&mut self) -> Result<(), Fault> {
        match self.socket.shutdown(Shutdown::Write) {
            // The reset that caused the error is read next.
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(self.lost(&error)),
            _ => Ok(()),
        }
    }

    pub(super) fn fault(&self, kind: Kind, what: impl std::fmt::Display) -> Fault {
        Fault { kind, text: format!("connection {}: {what}", self.number) }
    }

    fn lost(&self, error: &io::Error) -> Fault {
        let what = format_args!("the connection to the server was lost: {}", plain(error));
        self.fault(Kind::Lost, what)
    }
}

/// Returns whether the same call may succeed later. An interruption cannot happen, as no signal handler is
/// installed that interrupts.
fn passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
