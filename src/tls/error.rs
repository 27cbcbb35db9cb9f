//! Why a TLS connection failed, to match on.

use std::fmt;
use std::io;

/// Why a TLS connection failed: the source of the [`io::Error`] that says so.
///
/// # Examples
///
/// ```
/// use framelet::tls::TlsError;
/// use std::io;
///
/// let error = io::Error::from(TlsError::CertificateRequired);
/// match TlsError::of(&error) {
///     Some(TlsError::CertificateRequired) => eprintln!("give the client a certificate: {error}"),
///     other => panic!("{other:?}"),
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsError {
    /// The stream ended without the orderly end of TLS (`close_notify`): somebody may have cut it.
    Cut {
        /// Whether the handshake was not complete.
        handshake: bool,
    },
    /// The peer does not speak TLS. In words.
    NotTls(String),
    /// The certificate of the peer comes from no authority that is trusted here. In words.
    Untrusted(String),
    /// The certificate of the server is for other names. In words.
    WrongName(String),
    /// The certificate of one side is not accepted by the other, for another reason than these. In words.
    BadCertificate(String),
    /// The server asks for a certificate, and this client presented none.
    CertificateRequired,
    /// The handshake took too long. In words.
    TimedOut(String),
    /// Anything else. In words.
    Other(String),
}

impl TlsError {
    /// Returns the TLS error that `error` was made from, if any.
    pub fn of(error: &io::Error) -> Option<&TlsError> {
        error.get_ref()?.downcast_ref()
    }

    /// Returns whether the peer was sent the reason. Its socket should be closed only once it has read that: while it
    /// goes on sending, a close is a reset, which destroys the reason on its way.
    pub(crate) fn is_told(&self) -> bool {
        !matches!(self, TlsError::Cut { .. } | TlsError::TimedOut(_))
    }

    /// Returns whether one side does not accept the certificate of the other, or does not speak TLS: another attempt helps
    /// only if something is changed.
    ///
    /// # Examples
    ///
    /// ```
    /// use framelet::tls::TlsError;
    ///
    /// assert!(TlsError::CertificateRequired.is_refusal());
    /// assert!(!TlsError::Cut { handshake: true }.is_refusal());
    /// ```
    pub fn is_refusal(&self) -> bool {
        !matches!(self, TlsError::Cut { .. } | TlsError::TimedOut(_) | TlsError::Other(_))
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::Cut { handshake: true } => {
                f.write_str("the peer ended the connection during the TLS handshake; does it speak TLS?")
            }
            TlsError::Cut { handshake: false } => f.write_str(
                "the connection was cut: it ended without the close_notify of TLS, so more may have been sent",
            ),
            TlsError::CertificateRequired => f.write_str("the server requires a certificate of the client"),
            TlsError::NotTls(what)
            | TlsError::Untrusted(what)
            | TlsError::WrongName(what)
            | TlsError::BadCertificate(what)
            | TlsError::TimedOut(what)
            | TlsError::Other(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for TlsError {}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        let kind = match &error {
            TlsError::Cut { .. } => io::ErrorKind::UnexpectedEof,
            TlsError::TimedOut(_) => io::ErrorKind::TimedOut,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}
