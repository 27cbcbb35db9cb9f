//! The options for TLS, which several commands share.

use std::io;

use framelet::Address;
use framelet::tls::{TlsAcceptor, TlsConnector};

use super::exit_code::Exit;
use super::failure::{Failure, plain};

/// What the options of a server say.
pub(crate) struct ServerOptions<'a> {
    pub(crate) certificate: Option<&'a str>,
    pub(crate) key: Option<&'a str>,
    pub(crate) client_ca: Option<&'a str>,
    pub(crate) bind_sender: bool,
}

impl ServerOptions<'_> {
    /// Reads the certificate, if there is to be TLS.
    pub(crate) fn acceptor(&self) -> Result<Option<TlsAcceptor>, Failure> {
        let (certificate, key) = match (self.certificate, self.key) {
            (Some(certificate), Some(key)) => (certificate, key),
            (Some(_), None) => {
                return Err(usage("--tls-cert needs --tls-key: the file with its key"));
            }
            (None, Some(_)) => {
                return Err(usage("--tls-key needs --tls-cert: the certificate of the key"));
            }
            (None, None) if self.client_ca.is_some() => {
                return Err(usage("--tls-client-ca has no use without --tls-cert and --tls-key"));
            }
            (None, None) if self.bind_sender => {
                return Err(usage("--tls-bind-sender has no use without --tls-client-ca"));
            }
            (None, None) => return Ok(None),
        };
        let mut acceptor = TlsAcceptor::open(certificate, key).map_err(|error| unusable(&error))?;
        match self.client_ca {
            Some(path) => acceptor = acceptor.client_ca(path).map_err(|error| unusable(&error))?,
            None if self.bind_sender => {
                return Err(usage("--tls-bind-sender has no use without --tls-client-ca"));
            }
            None => {}
        }
        Ok(Some(acceptor.bind_senders(self.bind_sender)))
    }
}

/// What the options of a client say.
pub(crate) struct ClientOptions<'a> {
    pub(crate) tls: bool,
    pub(crate) ca: Option<&'a str>,
    pub(crate) certificate: Option<&'a str>,
    pub(crate) key: Option<&'a str>,
    pub(crate) name: Option<&'a str>,
}

impl ClientOptions<'_> {
    /// Reads the certificates, if there is to be TLS to this address.
    pub(crate) fn connector(&self, address: &Address) -> Result<Option<TlsConnector>, Failure> {
        let given = [
            ("--tls-ca", self.ca),
            ("--tls-cert", self.certificate),
            ("--tls-key", self.key),
            ("--tls-name", self.name),
        ];
        if !self.tls {
            return match given.iter().find(|(_, value)| value.is_some()) {
                Some((option, _)) => Err(usage(&format!("{option} has no use without --tls"))),
                None => Ok(None),
            };
        }
        let connector = match self.ca {
            Some(path) => TlsConnector::with_ca(path),
            None => TlsConnector::with_system_roots(),
        };
        let mut connector = connector.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if self.ca.is_none() => unusable(&error).advise(" (--tls-ca)"),
            _ => unusable(&error),
        })?;
        connector = match (self.certificate, self.key) {
            (Some(certificate), Some(key)) => {
                connector.certificate(certificate, key).map_err(|error| unusable(&error))?
            }
            (Some(_), None) => {
                return Err(usage("--tls-cert needs --tls-key: the file with its key"));
            }
            (None, Some(_)) => {
                return Err(usage("--tls-key needs --tls-cert: the certificate of the key"));
            }
            (None, None) => connector,
        };
        if let Some(name) = self.name {
            connector = connector
                .server_name(name)
                .map_err(|error| usage(&format!("--tls-name: {}", plain(&error))))?;
        }
        // The name is checked now, not at the first attempt.
        connector.session(address).map_err(|error| unusable(&error).advise(" (--tls-name)"))?;
        Ok(Some(connector))
    }
}

fn usage(message: &str) -> Failure {
    Failure::new(Exit::Usage, message)
}

fn unusable(error: &io::Error) -> Failure {
    let hint = match error.kind() {
        io::ErrorKind::Unsupported => ", as cargo install --locked --path . does",
        _ => "",
    };
    Failure::new(Exit::Usage, format!("{}{hint}", plain(error)))
}
