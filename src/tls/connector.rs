//! The client's side of TLS.

use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;

use super::config;
use super::error::TlsError;
use super::files::{self, Identity};
use super::session::TlsSession;
use super::stream::TlsStream;
use crate::net::address::Address;
use crate::net::byte_stream::ByteStream;

/// Connects over TLS. It always checks the certificate of the server.
///
/// The secrets of each connection are added to the file that the environment variable `SSLKEYLOGFILE` names, if it
/// is set.
///
/// # Examples
///
/// ```
/// use framelet::tls::{TlsAcceptor, TlsConnector};
/// use framelet::{Address, Client, FrameReader};
/// use futures_lite::future;
///
/// # future::block_on(async {
/// # let made = rcgen::generate_simple_self_signed(["localhost".into()])?;
/// # let parts = [("CERTIFICATE", &made.cert.der()[..]), ("PRIVATE KEY", &made.signing_key.serialize_der())];
/// # let text = parts.map(|(label, bytes)| {
/// #     let base64 = data_encoding::BASE64.encode(bytes);
/// #     format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n")
/// # });
/// # let pem = tempfile::NamedTempFile::new()?;
/// # std::fs::write(pem.path(), text.concat())?;
/// # let (certificate, key, ca) = (pem.path(), pem.path(), pem.path());
/// let listener = "127.0.0.1:0".parse::<Address>()?.listen().await?;
/// let address = listener.address()?;
/// let acceptor = TlsAcceptor::open(certificate, key)?;
/// let server = smol::spawn(async move {
///     let (stream, client) = acceptor.accept(listener.accept().await?.0).await?;
///     assert!(client.is_none()); // it has shown no certificate
///     std::io::Result::Ok(FrameReader::new(stream).read().await?)
/// });
///
/// // The certificate is for localhost, and not for 127.0.0.1.
/// let tls = TlsConnector::with_ca(ca)?.server_name("localhost")?;
/// let mut client = Client::new(tls.connect(&address, address.connect().await?).await?);
/// client.send(b"21.5").await?;
/// assert_eq!(server.await?, Some(b"21.5".to_vec()));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct TlsConnector {
    config: Arc<ClientConfig>,
    /// The name to check, if it is not that of the address.
    name: Option<ServerName<'static>>,
}

impl TlsConnector {
    /// Trusts the authorities that the system trusts.
    ///
    /// # Errors
    ///
    /// If there are none, or they cannot be read.
    ///
    /// # Examples
    ///
    /// It needs a certificate that the system trusts, so this is not run:
    ///
    /// ```no_run
    /// use framelet::tls::TlsConnector;
    /// use framelet::{Address, Client};
    ///
    /// # futures_lite::future::block_on(async {
    /// let address: Address = "collector.example:4747".parse()?;
    /// let tls = TlsConnector::with_system_roots()?;
    /// let mut client = Client::new(tls.connect(&address, address.connect().await?).await?);
    /// client.send(b"21.5").await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn with_system_roots() -> io::Result<TlsConnector> {
        let config = Arc::new(config::client(config::system_roots()?)?);
        Ok(TlsConnector { config, name: None })
    }

    /// Trusts the authorities in this PEM file, and no others.
    ///
    /// # Errors
    ///
    /// An error that names the file and, if it is not valid PEM, the line.
    pub fn with_ca(path: impl AsRef<Path>) -> io::Result<TlsConnector> {
        let config = Arc::new(config::client(files::authorities(path.as_ref())?)?);
        Ok(TlsConnector { config, name: None })
    }

    /// Presents a certificate if the server asks for one. Both files are PEM.
    ///
    /// # Errors
    ///
    /// An error that names the file and, if it is not valid PEM, the line.
    pub fn certificate(
        self,
        certificate: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> io::Result<TlsConnector> {
        let files = Identity { certificate: certificate.as_ref().into(), key: key.as_ref().into() };
        let mut config = ClientConfig::clone(&self.config);
        config.client_auth_cert_resolver = config::identity(&files)?;
        Ok(TlsConnector { config: Arc::new(config), ..self })
    }

    /// Sets the name, or the IP address, that the certificate of the server must be for. Default: the host of the
    /// address; a Unix socket has none.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] if it is neither a name nor an address.
    pub fn server_name(self, name: &str) -> io::Result<TlsConnector> {
        Ok(TlsConnector { name: Some(server_name(name)?), ..self })
    }

    /// Does the handshake on a stream that is connected to `address`. Returns the stream of decrypted bytes.
    ///
    /// # Errors
    ///
    /// A [`TlsError`](super::TlsError) as the source of the error, or any error of the stream;
    /// [`io::ErrorKind::InvalidInput`] if the address has no name to check.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the stream is in the middle of a handshake and can no longer be used.
    pub async fn connect(&self, address: &Address, stream: ByteStream) -> io::Result<ByteStream> {
        let mut tls = TlsStream::new(stream.clone(), self.session(address)?);
        poll_fn(|cx| tls.poll_handshake(cx)).await.map_err(|error| match error.kind() {
            // A server that takes the handshake for something else resets the connection.
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                TlsError::Cut { handshake: true }.into()
            }
            _ => error,
        })?;
        Ok(tls.into_byte_stream(stream))
    }

    /// Returns a new connection to `address` without a stream, for event loops that have their own sockets.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] if the address has no name to check.
    pub fn session(&self, address: &Address) -> io::Result<TlsSession> {
        let name = match (&self.name, address) {
            (Some(name), _) => name.clone(),
            (None, Address::Tcp { host, .. }) => server_name(host)?,
            (None, Address::Unix(_)) => {
                let message = "a Unix socket has no name that the certificate of its server could be for; give one";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
        };
        let session = UnbufferedClientConnection::new(Arc::clone(&self.config), name);
        session.map(TlsSession::client).map_err(io::Error::other)
    }
}

fn server_name(name: &str) -> io::Result<ServerName<'static>> {
    // The interface of a link-local address is no part of a certificate.
    let host = name.split_once('%').map_or(name, |(address, _)| address);
    ServerName::try_from(host.to_owned()).map_err(|_| {
        let message = format!(
            "{name} is neither a host name nor an IP address, so no certificate can be for it"
        );
        io::Error::new(io::ErrorKind::InvalidInput, message)
    })
}
