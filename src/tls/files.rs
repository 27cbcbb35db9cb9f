//! Certificates and keys in PEM files.

use std::io;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::{Error as PemError, SectionKind, from_buf};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::wire::io_error::Plain;

/// A section of a PEM file, and the line on which it ends.
struct Section {
    kind: SectionKind,
    bytes: Vec<u8>,
    line: usize,
}

/// Reads the certificates of a file: that of a server or client first, then those that lead to an authority.
pub(super) fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let mut found = Vec::new();
    for section in sections(path)? {
        if section.kind == SectionKind::Certificate {
            let certificate = CertificateDer::from(section.bytes);
            webpki::EndEntityCert::try_from(&certificate)
                .map_err(|error| invalid(path, section.line, &not_a_certificate(error)))?;
            found.push(certificate);
        }
    }
    match found.is_empty() {
        true => Err(missing(path, "no certificate", "-----BEGIN CERTIFICATE-----")),
        false => Ok(found),
    }
}

/// Reads the private key of a file.
pub(super) fn private_key(path: &Path) -> io::Result<PrivateKeyDer<'static>> {
    let encrypted = std::fs::read(path).is_ok_and(|text| {
        // As PKCS #8 and as OpenSSL's older format say it.
        let marks = ["-----BEGIN ENCRYPTED PRIVATE KEY-----", "Proc-Type: 4,ENCRYPTED"];
        marks.iter().any(|mark| memchr::memmem::find(&text, mark.as_bytes()).is_some())
    });
    if encrypted {
        let why = "its key is encrypted with a passphrase; store it without one, readable for this program alone";
        return Err(problem(path, why));
    }
    let mut keys = sections(path)?
        .into_iter()
        .filter_map(|section| PrivateKeyDer::from_pem(section.kind, section.bytes));
    keys.next().ok_or_else(|| missing(path, "no private key", "-----BEGIN PRIVATE KEY-----"))
}

/// Reads the authorities of a file.
pub(super) fn authorities(path: &Path) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for section in sections(path)? {
        if section.kind == SectionKind::Certificate {
            roots.add(CertificateDer::from(section.bytes)).map_err(|error| {
                invalid(path, section.line, &format!("not a certificate: {error}"))
            })?;
        }
    }
    match roots.is_empty() {
        true => Err(missing(path, "no certificate", "-----BEGIN CERTIFICATE-----")),
        false => Ok(roots),
    }
}

fn sections(path: &Path) -> io::Result<Vec<Section>> {
    let text = std::fs::read(path).map_err(|error| {
        io::Error::new(error.kind(), format!("{}: {}", path.display(), Plain(&error)))
    })?;
    let mut rest = &text[..];
    let mut sections = Vec::new();
    loop {
        let line = |rest: &[u8]| {
            let read = &text[..text.len() - rest.len()];
            1 + memchr::memchr_iter(b'\n', read.strip_suffix(b"\n").unwrap_or(read)).count()
        };
        match from_buf(&mut rest) {
            Ok(Some((kind, bytes))) => sections.push(Section { kind, bytes, line: line(rest) }),
            Ok(None) => return Ok(sections),
            Err(error) => {
                let why = match error {
                    PemError::MissingSectionEnd { .. } => "the END line is missing".to_owned(),
                    PemError::IllegalSectionStart { .. } => {
                        "the BEGIN line is not complete".to_owned()
                    }
                    PemError::Base64Decode(_) => {
                        "the section that ends here is not base64".to_owned()
                    }
                    other => other.to_string(),
                };
                return Err(invalid(path, line(rest), &why));
            }
        }
    }
}

fn not_a_certificate(error: webpki::Error) -> String {
    match error {
        // What `openssl x509 -req` makes unless it is given an extension.
        webpki::Error::UnsupportedCertVersion => {
            "a certificate of version 1, which says nothing of its use; TLS needs version 3".into()
        }
        error => format!("not a certificate: {error:?}"),
    }
}

fn invalid(path: &Path, line: usize, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: line {line}: {why}", path.display()))
}

fn missing(path: &Path, what: &str, mark: &str) -> io::Error {
    problem(path, &format!("{what} in it; one begins with {mark}"))
}

/// Returns an error about a whole file.
pub(super) fn problem(path: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()))
}

/// A certificate and its key, in files.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}
