//! One TLS connection without its socket: records in, records out.
//!
//! rustls' own buffers would hold 4 KiB for each idle connection and read a socket in pieces of that size. So this
//! uses its interface without buffers. Received records are read into a large buffer that all connections of a
//! thread share, and decrypted from there into the caller's; what is kept between two calls is the start of an
//! incomplete record, and what the caller had no room for.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::task::{Poll, ready};

use rustls::CommonState;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};

use super::error::TlsError;
use super::explain::{self, Side};

/// How much is read from a socket at once: four of the longest records.
const RECEIVED: usize = 72 * 1024;

/// The longest record, in bytes, with everything that TLS 1.2 may add.
const RECORD: usize = CONTENT + 2048 + HEADER;

/// A record of TLS 1.3 with as much content as it can have, in bytes: it adds the type of the content and a tag of 16.
const FULL: usize = HEADER + CONTENT + 1 + 16;

/// The most bytes of a record's content.
const CONTENT: usize = 16 * 1024;

/// The bytes that precede a record. The last two are its length without them.
const HEADER: usize = 5;

/// The most bytes that encryption adds to a record.
const OVERHEAD: usize = 64;

/// How many bytes are encrypted at once. No more are taken before the socket has those.
const OUTGOING: usize = 64 * 1024;

thread_local! {
    /// The buffer for received records, while nobody uses it.
    static SHARED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The state of one TLS connection, for event loops that read and write its socket themselves. Streams are
/// [`TlsAcceptor::accept`](super::TlsAcceptor::accept) and [`TlsConnector::connect`](super::TlsConnector::connect).
///
/// Its methods are given functions that read from and write to the socket, and return [`Poll::Pending`] if that
/// would wait.
///
/// # Examples
///
/// ```
/// use framelet::tls::{TlsConnector, TlsSession};
/// use std::io::{self, Read, Write};
/// use std::net::TcpStream;
/// use std::task::Poll;
///
/// # use framelet::{Server, server::Echo, tls::TlsAcceptor};
/// # let made = rcgen::generate_simple_self_signed(["localhost".into()])?;
/// # let parts = [("CERTIFICATE", &made.cert.der()[..]), ("PRIVATE KEY", &made.signing_key.serialize_der())];
/// # let text = parts.map(|(label, bytes)| {
/// #     let base64 = data_encoding::BASE64.encode(bytes);
/// #     format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n")
/// # });
/// # let pem = tempfile::NamedTempFile::new()?;
/// # std::fs::write(pem.path(), text.concat())?;
/// # let (certificate, key, ca) = (pem.path(), pem.path(), pem.path());
/// # let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// # let address = listener.local_addr()?;
/// # let listener = framelet::net::Listener::try_from(listener)?;
/// # let server = Server::new(listener).tls(TlsAcceptor::open(certificate, key)?).answer(Echo);
/// # let server = smol::spawn(server.run(std::future::pending()));
/// // This socket blocks, so nothing is ever pending.
/// let read = |socket: &mut TcpStream, buf: &mut [u8]| Poll::Ready(socket.read(buf));
/// let write = |socket: &mut TcpStream, buf: &[u8]| Poll::Ready(socket.write(buf));
/// fn done<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
///     match poll {
///         Poll::Ready(result) => result,
///         Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
///     }
/// }
///
/// let mut socket = TcpStream::connect(address)?;
/// let mut session: TlsSession = TlsConnector::with_ca(ca)?.session(&"localhost:4747".parse()?)?;
/// done(session.poll_handshake(&mut socket, read, write))?;
///
/// let frame = b"\0\0\0\x02hi";
/// assert_eq!(done(session.poll_write(&mut socket, write, frame))?, frame.len());
/// done(session.poll_flush(&mut socket, write))?;
/// assert!(!session.wants_write());
///
/// let (mut reply, mut got) = ([0; 6], 0);
/// while got < reply.len() {
///     got += done(session.poll_read(&mut socket, read, &mut reply[got..]))?;
/// }
/// assert_eq!(&reply, frame);
/// done(session.poll_close(&mut socket, write))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TlsSession {
    connection: Connection,
    /// Received bytes that are not processed: the start of an incomplete record, or more if the caller had no room.
    incoming: Vec<u8>,
    /// Whether `incoming` may hold a whole record.
    may_be_whole: bool,
    /// Decrypted bytes that the caller had no room for, from `plain_start` on.
    plain: Vec<u8>,
    plain_start: usize,
    /// Encrypted bytes that the socket has not taken, from `outgoing_start` on.
    outgoing: Vec<u8>,
    outgoing_start: usize,
    /// The first bytes that were received, until the handshake is complete.
    first: Vec<u8>,
    peer_closed: bool,
    closed: bool,
    failed: Option<TlsError>,
}

/// Boxed, since idle connections are many and these are large.
enum Connection {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

impl Connection {
    fn state(&self) -> &CommonState {
        match self {
            Connection::Client(client) => client,
            Connection::Server(server) => server,
        }
    }
}

/// What one step over the received records led to.
enum Step {
    /// There may be more to do.
    Again,
    /// More bytes have to be received.
    Waits,
}

/// Where decrypted bytes go: to the caller, and what it has no room for to `rest`.
struct Plain<'a> {
    buf: &'a mut [u8],
    filled: usize,
    rest: &'a mut Vec<u8>,
}

impl Plain<'_> {
    fn take(&mut self, bytes: &[u8]) {
        let room = &mut self.buf[self.filled..];
        let (first, rest) = bytes.split_at(bytes.len().min(room.len()));
        room[..first.len()].copy_from_slice(first);
        self.filled += first.len();
        self.rest.extend_from_slice(rest);
    }

    fn is_full(&self) -> bool {
        self.filled == self.buf.len()
    }
}

impl TlsSession {
    pub(super) fn client(connection: UnbufferedClientConnection) -> TlsSession {
        TlsSession::new(Connection::Client(Box::new(connection)))
    }

    pub(super) fn server(connection: UnbufferedServerConnection) -> TlsSession {
        TlsSession::new(Connection::Server(Box::new(connection)))
    }

    fn new(connection: Connection) -> TlsSession {
        TlsSession {
            connection,
            incoming: Vec::new(),
            may_be_whole: false,
            plain: Vec::new(),
            plain_start: 0,
            outgoing: Vec::new(),
            outgoing_start: 0,
            first: Vec::new(),
            peer_closed: false,
            closed: false,
            failed: None,
        }
    }

    pub(super) fn state(&self) -> &CommonState {
        self.connection.state()
    }

    fn is_handshaking(&self) -> bool {
        self.state().is_handshaking()
    }

    /// Returns whether encrypted bytes wait for the socket.
    pub fn wants_write(&self) -> bool {
        self.outgoing_start < self.outgoing.len()
    }

    /// Returns whether it holds the start of a record, or of a message of the handshake.
    pub(super) fn has_part(&self) -> bool {
        !self.incoming.is_empty()
    }

    /// Does the handshake.
    ///
    /// # Errors
    ///
    /// A [`TlsError`] as the source of the error, or any error of the socket.
    pub fn poll_handshake<S>(
        &mut self,
        socket: &mut S,
        mut read: impl FnMut(&mut S, &mut [u8]) -> Poll<io::Result<usize>>,
        mut write: impl FnMut(&mut S, &[u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        loop {
            // A client begins to speak by itself.
            if let Err(error) = self.process(&mut [], &mut []) {
                return Poll::Ready(Err(error));
            }
            ready!(self.poll_flush(socket, &mut write))?;
            if !self.is_handshaking() {
                self.first = Vec::new();
                return Poll::Ready(Ok(()));
            }
            if let Err(error) = ready!(self.poll_receive(socket, &mut read, &mut [])) {
                // The peer is told why, if its socket takes that at once.
                let _ = self.poll_flush(socket, &mut write);
                return Poll::Ready(Err(error));
            }
        }
    }

    /// Reads decrypted bytes; 0 is the orderly end of the peer's direction.
    ///
    /// # Errors
    ///
    /// A [`TlsError`] as the source of the error: [`TlsError::Cut`] if the socket ended without the orderly end of
    /// TLS; or any error of the socket.
    pub fn poll_read<S>(
        &mut self,
        socket: &mut S,
        mut read: impl FnMut(&mut S, &mut [u8]) -> Poll<io::Result<usize>>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            let rest = &self.plain[self.plain_start..];
            if !rest.is_empty() {
                let taken = rest.len().min(buf.len());
                buf[..taken].copy_from_slice(&rest[..taken]);
                self.plain_start += taken;
                if self.plain_start == self.plain.len() {
                    (self.plain, self.plain_start) = (Vec::new(), 0);
                }
                return Poll::Ready(Ok(taken));
            }
            if let Some(error) = &self.failed {
                return Poll::Ready(Err(error.clone().into()));
            }
            if self.peer_closed {
                return Poll::Ready(Ok(0));
            }
            let filled = match self.may_be_whole {
                true => self.process(&mut [], buf)?,
                false => ready!(self.poll_receive(socket, &mut read, buf))?,
            };
            if filled > 0 {
                return Poll::Ready(Ok(filled));
            }
        }
    }

    /// Encrypts bytes and writes as much as the socket takes; the rest is written by the next call, or by
    /// [`poll_flush`](TlsSession::poll_flush). Returns how many bytes were taken.
    ///
    /// # Errors
    ///
    /// A [`TlsError`] as the source of the error, or any error of the socket.
    pub fn poll_write<S>(
        &mut self,
        socket: &mut S,
        mut write: impl FnMut(&mut S, &[u8]) -> Poll<io::Result<usize>>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(error) = &self.failed {
            return Poll::Ready(Err(error.clone().into()));
        }
        if self.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(self.poll_flush(socket, &mut write))?;
        let taken = buf.len().min(OUTGOING);
        self.encrypt(&buf[..taken])?;
        match self.poll_flush(socket, &mut write) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // What is encrypted is taken, whether or not the socket has it already.
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(taken)),
        }
    }

    /// Writes everything that is encrypted.
    ///
    /// # Errors
    ///
    /// Any error of the socket.
    pub fn poll_flush<S>(
        &mut self,
        socket: &mut S,
        mut write: impl FnMut(&mut S, &[u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        while self.wants_write() {
            match ready!(write(socket, &self.outgoing[self.outgoing_start..])) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(written) => self.outgoing_start += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        // An idle connection owns no buffer.
        (self.outgoing, self.outgoing_start) = (Vec::new(), 0);
        Poll::Ready(Ok(()))
    }

    /// Writes everything that is encrypted, and the orderly end of this direction. The socket itself stays open.
    ///
    /// # Errors
    ///
    /// Any error of the socket.
    pub fn poll_close<S>(
        &mut self,
        socket: &mut S,
        write: impl FnMut(&mut S, &[u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        if !self.closed && self.failed.is_none() && !self.is_handshaking() {
            self.closed = true;
            self.with_traffic(|traffic, outgoing| {
                let start = outgoing.len();
                outgoing.resize(start + OVERHEAD, 0);
                let written = traffic(Traffic::Close(&mut outgoing[start..]))?;
                outgoing.truncate(start + written);
                Ok(())
            })?;
        }
        self.poll_flush(socket, write)
    }

    /// Receives bytes from the socket once, and processes them. Returns how many bytes were decrypted to `buf`.
    fn poll_receive<S>(
        &mut self,
        socket: &mut S,
        read: &mut impl FnMut(&mut S, &mut [u8]) -> Poll<io::Result<usize>>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let kept = self.incoming.len();
        // A client says little before it is known; the certificates of a server may be more.
        let most = match self.side() {
            Side::Server if self.is_handshaking() => RECORD,
            _ => RECEIVED,
        };
        if kept >= most {
            let what = format!(
                "the TLS handshake of the {} has a message of over {most} bytes",
                self.side().peer()
            );
            return Poll::Ready(Err(self.fail(TlsError::Other(what))));
        }
        let mut shared = SHARED.take();
        if shared.is_empty() {
            shared.resize(RECEIVED, 0);
        }
        shared[..kept].copy_from_slice(&self.incoming);
        let end = read_until(&self.incoming, buf.len());
        let received = loop {
            match read(socket, &mut shared[kept..end]) {
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                received => break received,
            }
        };
        let filled = match received {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0)) => {
                let handshake = self.is_handshaking();
                Poll::Ready(Err(self.fail(TlsError::Cut { handshake })))
            }
            Poll::Ready(Ok(received)) => {
                if self.is_handshaking() && self.first.len() < explain::FIRST {
                    let more = received.min(explain::FIRST - self.first.len());
                    self.first.extend_from_slice(&shared[kept..kept + more]);
                }
                Poll::Ready(self.process(&mut shared[..kept + received], buf))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        };
        SHARED.set(shared);
        filled
    }

    /// Processes received records, or those that were kept if there are none. Returns how many bytes were decrypted
    /// to `buf`.
    fn process(&mut self, received: &mut [u8], buf: &mut [u8]) -> io::Result<usize> {
        if let Some(error) = &self.failed {
            return Err(error.clone().into());
        }
        let mut kept = std::mem::take(&mut self.incoming);
        let records = if received.is_empty() { &mut kept[..] } else { received };
        let mut plain = Plain { buf, filled: 0, rest: &mut self.plain };
        let mut used = 0;
        let (mut failed, mut waits) = (None, false);
        while !waits {
            let (outgoing, closed) = (&mut self.outgoing, &mut self.peer_closed);
            let step = match &mut self.connection {
                Connection::Client(client) => {
                    let status = client.process_tls_records(&mut records[used..]);
                    advance(status, &mut plain, outgoing, closed, &mut used)
                }
                Connection::Server(server) => {
                    let status = server.process_tls_records(&mut records[used..]);
                    advance(status, &mut plain, outgoing, closed, &mut used)
                }
            };
            match step {
                Ok(Step::Again) if plain.filled > 0 && plain.is_full() => break,
                Ok(Step::Again) => {}
                Ok(Step::Waits) => waits = true,
                Err(error) => failed = failed.or(Some(error)),
            }
            // Once it has failed, only what says so is left to encode, and the records must not be looked at again.
            waits |= failed.is_some() && !self.connection.state().wants_write();
        }
        let filled = plain.filled;
        self.incoming = records[used..].to_vec();
        self.may_be_whole = !waits && !self.incoming.is_empty();
        if let Some(error) = failed {
            let error = explain::error(&error, self.side(), self.is_handshaking(), &self.first);
            let error = self.fail(error);
            // What was decrypted before is still good; the error is kept for the next read.
            if filled == 0 && self.plain.is_empty() {
                return Err(error);
            }
        }
        Ok(filled)
    }

    fn encrypt(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        self.with_traffic(|traffic, outgoing| {
            while !bytes.is_empty() {
                let (content, rest) = bytes.split_at(bytes.len().min(CONTENT));
                let start = outgoing.len();
                outgoing.resize(start + content.len() + OVERHEAD, 0);
                let written = traffic(Traffic::Data(content, &mut outgoing[start..]))?;
                outgoing.truncate(start + written);
                bytes = rest;
            }
            Ok(())
        })
    }

    /// Calls `act` with what encrypts, once everything that precedes that is in the outgoing bytes.
    fn with_traffic(
        &mut self,
        act: impl FnOnce(
            &mut dyn FnMut(Traffic<'_>) -> Result<usize, TlsError>,
            &mut Vec<u8>,
        ) -> Result<(), TlsError>,
    ) -> io::Result<()> {
        // A reply to a change of keys, say.
        self.process(&mut [], &mut [])?;
        // Cannot be anything else: what was received is processed.
        let done = match &mut self.connection {
            Connection::Client(client) => {
                write(client.process_tls_records(&mut self.incoming), &mut self.outgoing, act)
            }
            Connection::Server(server) => {
                write(server.process_tls_records(&mut self.incoming), &mut self.outgoing, act)
            }
        };
        done.map_err(|error| self.fail(error))
    }

    fn side(&self) -> Side {
        match &self.connection {
            Connection::Client(_) => Side::Client,
            Connection::Server(_) => Side::Server,
        }
    }

    /// The first error stays: others follow from it.
    fn fail(&mut self, error: TlsError) -> io::Error {
        self.failed.get_or_insert(error).clone().into()
    }
}

/// What is to be encrypted, and the place for it.
enum Traffic<'a> {
    Data(&'a [u8], &'a mut [u8]),
    /// The orderly end.
    Close(&'a mut [u8]),
}

/// Returns how many bytes to have received after the next read, of which some are kept already. It is no more than the
/// caller has room for, or than one record has: the rest would have to be kept.
fn read_until(kept: &[u8], room: usize) -> usize {
    let record = match kept {
        [_, _, _, high, low, ..] => HEADER + usize::from(u16::from_be_bytes([*high, *low])),
        _ => FULL,
    };
    let end = match record {
        // Only a message of the handshake can be longer than a record.
        _ if kept.len() >= record.min(RECORD) => kept.len() + RECORD,
        // Who sends much sends full records. After a read to the end of one, no part of another has to be kept.
        CONTENT.. => (room / CONTENT).max(1) * record,
        _ => (kept.len() + room).max(RECORD),
    };
    end.min(RECEIVED)
}

/// Handles the state that the received records led to.
fn advance<D>(
    status: UnbufferedStatus<'_, '_, D>,
    plain: &mut Plain<'_>,
    outgoing: &mut Vec<u8>,
    peer_closed: &mut bool,
    used: &mut usize,
) -> Result<Step, rustls::Error> {
    let UnbufferedStatus { discard, state } = status;
    *used += discard;
    let mut step = Step::Again;
    match state? {
        ConnectionState::ReadTraffic(mut traffic) => {
            while let Some(record) = traffic.next_record() {
                let record = record?;
                *used += record.discard;
                plain.take(record.payload);
            }
        }
        ConnectionState::EncodeTlsData(mut data) => {
            let start = outgoing.len();
            // The first attempt only asks for the length.
            while let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut outgoing[start..])
            {
                outgoing.resize(start + size.required_size, 0);
            }
        }
        // In the order in which it was encoded; the socket takes it later.
        ConnectionState::TransmitTlsData(data) => data.done(),
        ConnectionState::PeerClosed => *peer_closed = true,
        // Early data is never offered or accepted, so the last ones are these: the peer has the next word, or none.
        _ => step = Step::Waits,
    }
    Ok(step)
}

fn write<D>(
    status: UnbufferedStatus<'_, '_, D>,
    outgoing: &mut Vec<u8>,
    act: impl FnOnce(
        &mut dyn FnMut(Traffic<'_>) -> Result<usize, TlsError>,
        &mut Vec<u8>,
    ) -> Result<(), TlsError>,
) -> Result<(), TlsError> {
    let Ok(ConnectionState::WriteTraffic(mut traffic)) = status.state else {
        return Err(TlsError::Other("the TLS connection takes no more data".into()));
    };
    let mut encrypt = |what: Traffic<'_>| {
        match what {
            Traffic::Data(content, place) => traffic.encrypt(content, place),
            Traffic::Close(place) => traffic.queue_close_notify(place),
        }
        .map_err(|error: EncryptError| TlsError::Other(error.to_string()))
    };
    act(&mut encrypt, outgoing)
}

impl fmt::Debug for TlsSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSession")
            .field("is_handshaking", &self.is_handshaking())
            .field("peer_closed", &self.peer_closed)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}
