//! TLS for servers and clients, by rustls.
//!
//! Only with the feature `tls`, which is a default. Without it, everything here has the same names, and opening a
//! certificate returns an error that says so.

mod acceptor; // the server's side
mod cipher_suites; // which come first
mod config; // what rustls needs to know
mod connector; // the client's side
mod error;
mod explain; // errors of rustls in words
mod files; // PEM files
mod sender_rule; // which sender ids a client may use
mod session; // a connection without its socket
mod stream; // a connection as a stream
mod subject; // whom a certificate names
mod validity; // whether clients accept a server's certificate

pub(crate) use acceptor::Accepted;
pub use acceptor::TlsAcceptor;
pub use connector::TlsConnector;
pub use error::TlsError;
pub(crate) use sender_rule::SenderRule;
pub use session::TlsSession;
