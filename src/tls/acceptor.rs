//! The server's side of TLS.

use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use log::warn;
use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;

use super::config;
use super::error::TlsError;
use super::files::Identity;
use super::sender_rule::SenderRule;
use super::session::TlsSession;
use super::stream::TlsStream;
use super::subject::{self, Subject};
use super::validity;
use crate::net::byte_stream::{ByteStream, Peer};

/// How long a client may take to read why its handshake failed.
const PARTING: Duration = Duration::from_secs(1);

/// Accepts TLS connections: give it to [`Server::tls`](crate::Server::tls). Clones share the certificate.
///
/// The only clean end of a connection is `close_notify`, whatever its socket does. Session tickets of TLS 1.3 are not
/// sent: a client that only sends messages would leave them unread, and a socket that is closed with unread data
/// destroys what it has sent. If the environment variable `SSLKEYLOGFILE` names a file, the secrets of each
/// connection are added to it, for Wireshark.
///
/// # Examples
///
/// ```
/// use framelet::tls::{TlsAcceptor, TlsConnector};
/// use framelet::server::Request;
/// use framelet::{Address, Client, Server};
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
/// let tls = TlsAcceptor::open(certificate, key)?.client_ca(ca)?.bind_senders(true);
/// let listener = "127.0.0.1:0".parse::<Address>()?.listen().await?;
/// let address = listener.address()?;
/// let who = |request: Request| async move { request.peer().to_string() };
/// let server = smol::spawn(Server::new(listener).tls(tls.clone()).answer(who).run(future::pending()));
///
/// let connector = TlsConnector::with_ca(ca)?.certificate(certificate, key)?.server_name("localhost")?;
/// let stream = connector.connect(&address, address.connect().await?).await?;
/// assert_eq!(Client::new(stream).request(b"who am I?").await?, b"CN=rcgen self signed cert");
/// tls.reload()?; // whenever the files have changed
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct TlsAcceptor {
    files: Identity,
    client_ca: Option<PathBuf>,
    bind_senders: bool,
    config: Arc<RwLock<Arc<ServerConfig>>>,
}

/// An accepted connection.
pub(crate) struct Accepted {
    pub(crate) stream: ByteStream,
    /// Whom the certificate of the client names.
    pub(crate) peer: Option<Peer>,
    /// Which senders it may be.
    pub(crate) senders: Option<SenderRule>,
}

impl TlsAcceptor {
    /// Reads a certificate, with those that lead to its authority, and its key from PEM files.
    ///
    /// A certificate that clients will refuse, because it has expired or is not for a server, is only a warning in the
    /// log: the clock of this machine may be wrong at first.
    ///
    /// # Errors
    ///
    /// An error that names the file and, if it is not valid PEM, the line.
    pub fn open(certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> io::Result<TlsAcceptor> {
        let files = Identity { certificate: certificate.as_ref().into(), key: key.as_ref().into() };
        let config = Arc::new(RwLock::new(Arc::new(config::server(&files, None)?)));
        if let Err(why) = validity::check(&files.certificate) {
            warn!("{why}: clients will refuse it");
        }
        Ok(TlsAcceptor { files, client_ca: None, bind_senders: false, config })
    }

    /// Requires a certificate of each client, signed by an authority in this PEM file. Its subject, such as
    /// `CN=router7,O=Example`, becomes the [peer](crate::Message::peer) of the client's messages.
    ///
    /// # Errors
    ///
    /// Those of [`open`](TlsAcceptor::open).
    pub fn client_ca(self, path: impl AsRef<Path>) -> io::Result<TlsAcceptor> {
        let path = path.as_ref();
        let config = Arc::new(RwLock::new(Arc::new(config::server(&self.files, Some(path))?)));
        Ok(TlsAcceptor { client_ca: Some(path.into()), config, ..self })
    }

    /// Accepts a client as a sender only if its [sender id](crate::wire::SenderId) begins with the common name of
    /// its certificate, which must then be hexadecimal digits: with `CN=0007` as `0007` and 28 more. Needs
    /// [`client_ca`](TlsAcceptor::client_ca): without a certificate, no client is accepted as a sender. Default: no.
    #[must_use]
    pub fn bind_senders(self, bind: bool) -> TlsAcceptor {
        TlsAcceptor { bind_senders: bind, ..self }
    }

    /// Reads all files again, for connections that begin from now on; the others keep what they have.
    ///
    /// # Errors
    ///
    /// Those of [`open`](TlsAcceptor::open), and one if clients would refuse the certificate. Then nothing changes.
    pub fn reload(&self) -> io::Result<()> {
        validity::check(&self.files.certificate)?;
        let config = Arc::new(config::server(&self.files, self.client_ca.as_deref())?);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    /// Does the handshake on an accepted stream. Returns the stream of decrypted bytes, and whom the certificate of
    /// the client names, if it has one.
    ///
    /// There is no time limit; [`Server::tls`](crate::Server::tls), which does this for each connection, has one.
    ///
    /// # Errors
    ///
    /// A [`TlsError`] as the source of the error, or any error of the stream. If the client can still be told why, it
    /// gets a moment to read it.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the stream is in the middle of a handshake and can no longer be used.
    pub async fn accept(&self, mut stream: ByteStream) -> io::Result<(ByteStream, Option<Peer>)> {
        match self.accept_client(stream.clone()).await {
            Ok(Accepted { stream, peer, .. }) => Ok((stream, peer)),
            Err(error) => {
                if TlsError::of(&error).is_some_and(TlsError::is_told) {
                    stream.close_and_wait(PARTING).await;
                }
                Err(error)
            }
        }
    }

    /// Does the same, but leaves a stream whose handshake failed as it is.
    pub(crate) async fn accept_client(&self, stream: ByteStream) -> io::Result<Accepted> {
        let config = Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner));
        let session = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
        let mut tls = TlsStream::new(stream.clone(), TlsSession::server(session));
        poll_fn(|cx| tls.poll_handshake(cx)).await?;
        let certificate = tls.session.state().peer_certificates().and_then(|chain| chain.first());
        let Subject { text, common_name } = certificate.map(subject::of).unwrap_or_default();
        Ok(Accepted {
            peer: (!text.is_empty()).then(|| Peer::named(&text)),
            senders: self.bind_senders.then(|| SenderRule::new(common_name)),
            stream: tls.into_byte_stream(stream),
        })
    }
}
