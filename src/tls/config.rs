//! What rustls needs to know: the provider of cryptography, certificates, and whom to trust.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, KeyLogFile, RootCertStore, ServerConfig};

use super::cipher_suites::provider;
use super::files::{self, Identity};

/// Reads a certificate and its key, and checks that they belong together.
pub(super) fn identity(files: &Identity) -> io::Result<Arc<SingleCertAndKey>> {
    let chain = files::certificates(&files.certificate)?;
    let key = files::private_key(&files.key)?;
    let certified =
        CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => files::problem(
                &files.key,
                &format!(
                    "the key does not belong to the certificate in {}",
                    files.certificate.display()
                ),
            ),
            error => files::problem(&files.key, &format!("the key cannot be used: {error}")),
        })?;
    Ok(Arc::new(SingleCertAndKey::from(certified)))
}

/// Returns the configuration of a server that presents this certificate, and requires one of these authorities.
pub(super) fn server(files: &Identity, client_ca: Option<&Path>) -> io::Result<ServerConfig> {
    let identity = identity(files)?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(files::authorities(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
            builder.with_client_cert_verifier(
                verifier.map_err(|error| files::problem(path, &error.to_string()))?,
            )
        }
    };
    let mut config = builder.with_cert_resolver(identity);
    // A client that only sends would have them unread in its socket when it closes it. That turns its end into a
    // reset, which destroys data on its way.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.key_log = Arc::new(KeyLogFile::new());
    Ok(config)
}

/// Returns the configuration of a client that trusts these authorities.
pub(super) fn client(roots: RootCertStore) -> io::Result<ClientConfig> {
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(io::Error::other)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_webpki_verifier(verifier)
        .with_no_client_auth();
    config.key_log = Arc::new(KeyLogFile::new());
    Ok(config)
}

/// Returns the authorities that this system trusts.
pub(super) fn system_roots() -> io::Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    match (roots.is_empty(), found.errors.first()) {
        (false, _) => Ok(roots),
        (true, Some(error)) => Err(io::Error::other(format!(
            "cannot read the authorities that this system trusts: {error}"
        ))),
        (true, None) => Err(io::Error::new(
            io::ErrorKind::NotFound,
            "this system has no list of trusted authorities (the package ca-certificates); give one",
        )),
    }
}
