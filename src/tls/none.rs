//! TLS, in a build without it: opening a certificate, or a list of authorities, returns an error.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::task::Poll;

mod error;

use crate::net::address::Address;
use crate::net::byte_stream::{ByteStream, Peer};
use crate::wire::sender_id::SenderId;
pub use error::TlsError;

fn unsupported() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "this build has no tls; build framelet with the feature tls",
    )
}

/// Accepts TLS connections. This build has no TLS, so there is none.
///
/// # Examples
///
/// ```
/// use framelet::tls::TlsAcceptor;
/// use std::io::ErrorKind;
///
/// match TlsAcceptor::open("server.pem", "server.key") {
///     Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported),
///     Ok(acceptor) => panic!("{acceptor:?}"),
/// }
/// ```
#[derive(Clone, Debug)]
pub struct TlsAcceptor(Infallible);

/// Which senders a client may be.
#[derive(Debug)]
pub(crate) struct SenderRule(Infallible);

impl SenderRule {
    pub(crate) fn allows(&self, _: SenderId) -> bool {
        match self.0 {}
    }

    pub(crate) fn refusal(&self) -> String {
        match self.0 {}
    }
}

/// An accepted connection.
pub(crate) struct Accepted {
    pub(crate) stream: ByteStream,
    pub(crate) peer: Option<Peer>,
    pub(crate) senders: Option<SenderRule>,
}

impl TlsAcceptor {
    /// Fails, because this build has no TLS.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn open(_: impl AsRef<Path>, _: impl AsRef<Path>) -> io::Result<TlsAcceptor> {
        Err(unsupported())
    }

    /// Cannot be called.
    pub fn client_ca(self, _: impl AsRef<Path>) -> io::Result<TlsAcceptor> {
        match self.0 {}
    }

    /// Cannot be called.
    #[must_use]
    pub fn bind_senders(self, _: bool) -> TlsAcceptor {
        match self.0 {}
    }

    /// Cannot be called.
    pub fn reload(&self) -> io::Result<()> {
        match self.0 {}
    }

    /// Cannot be called.
    pub async fn accept(&self, _: ByteStream) -> io::Result<(ByteStream, Option<Peer>)> {
        match self.0 {}
    }

    pub(crate) async fn accept_client(&self, _: ByteStream) -> io::Result<Accepted> {
        match self.0 {}
    }
}

/// Connects over TLS. This build has no TLS, so there is none.
///
/// # Examples
///
/// ```
/// use framelet::tls::TlsConnector;
/// use std::io::ErrorKind;
///
/// match TlsConnector::with_system_roots() {
///     Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported),
///     Ok(connector) => panic!("{connector:?}"),
/// }
/// ```
#[derive(Clone, Debug)]
pub struct TlsConnector(Infallible);

impl TlsConnector {
    /// Fails, because this build has no TLS.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn with_system_roots() -> io::Result<TlsConnector> {
        Err(unsupported())
    }

    /// Fails, because this build has no TLS.
    ///
    /// # Errors
    ///
    /// Always.
    pub fn with_ca(_: impl AsRef<Path>) -> io::Result<TlsConnector> {
        Err(unsupported())
    }

    /// Cannot be called.
    pub fn certificate(self, _: impl AsRef<Path>, _: impl AsRef<Path>) -> io::Result<TlsConnector> {
        match self.0 {}
    }

    /// Cannot be called.
    pub fn server_name(self, _: &str) -> io::Result<TlsConnector> {
        match self.0 {}
    }

    /// Cannot be called.
    pub async fn connect(&self, _: &Address, _: ByteStream) -> io::Result<ByteStream> {
        match self.0 {}
    }

    /// Cannot be called.
    pub fn session(&self, _: &Address) -> io::Result<TlsSession> {
        match self.0 {}
    }
}

/// The state of one TLS connection. This build has no TLS, so there is none.
#[derive(Debug)]
pub struct TlsSession(Infallible);

impl TlsSession {
    /// Cannot be called.
    pub fn wants_write(&self) -> bool {
        match self.0 {}
    }

    /// Cannot be called.
    pub fn poll_handshake<S>(
        &mut self,
        _: &mut S,
        _: impl FnMut(&mut S, &mut [u8]) -> Poll<io::Result<usize>>,
        _: impl FnMut(&mut S, &[u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        match self.0 {}
    }

    /// Cannot be called.
    pub fn poll_read<S>(
        &mut self,
        _: &mut S,
        _: impl FnMut(&mut S, &mut [u8]) -> Poll<io::Result<usize>>,
        _: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self.0 {}
    }

    /// Cannot be called.
    pub fn poll_write<S>(
        &mut self,
        _: &mut S,
        _: impl FnMut(&mut S, &[u8]) -> Poll<io::Result<usize>>,
        _: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.0 {}
    }

    /// Cannot be called.
    pub fn poll_flush<S>(
        &mut self,
        _: &mut S,
        _: impl FnMut(&mut S, &[u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        match self.0 {}
    }

    /// Cannot be called.
    pub fn poll_close<S>(
        &mut self,
        _: &mut S,
        _: impl FnMut(&mut S, &[u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        match self.0 {}
    }
}
