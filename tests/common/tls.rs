//! An authority of the tests' own, and certificates by it, as PEM files.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use data_encoding::BASE64;
use futures_rustls::rustls::pki_types::pem::PemObject;
use futures_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use futures_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use futures_rustls::{TlsConnector, rustls};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};

/// Files in a directory of their own: `ca.pem`, `server.pem` and `server.key` for localhost and 127.0.0.1.
pub(crate) struct Certificates {
    directory: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Certificates {
    pub(crate) fn new() -> Certificates {
        Certificates::by("the tests")
    }

    /// Does the same with an authority of this name.
    pub(crate) fn by(authority: &str) -> Certificates {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, authority);
        let key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let certificates = Certificates { directory: tempfile::tempdir().unwrap(), issuer };
        certificates.write("ca.pem", &pem("CERTIFICATE", authority.der()));
        certificates.server("server", &["localhost", "127.0.0.1"]);
        certificates
    }

    /// Makes a certificate for a server with these names.
    pub(crate) fn server(&self, file: &str, names: &[&str]) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        self.make(file, CertificateParams::new(names).unwrap());
    }

    /// Makes a certificate for a client with these parts of a name.
    pub(crate) fn client(&self, file: &str, name: &[(DnType, &str)]) {
        let mut params = CertificateParams::new([]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, part) in name {
            params.distinguished_name.push(kind.clone(), *part);
        }
        self.make(file, params);
    }

    /// Makes a certificate and its key.
    pub(crate) fn make(&self, file: &str, params: CertificateParams) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        self.write(&format!("{file}.pem"), &pem("CERTIFICATE", certificate.der()));
        self.write(&format!("{file}.key"), &pem("PRIVATE KEY", &key.serialize_der()));
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        fs::write(self.directory.path().join(file), text).unwrap();
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    pub(crate) fn text(&self, file: &str) -> String {
        self.path(file).to_str().unwrap().to_owned()
    }

    /// Returns another implementation's client, which trusts the authority.
    pub(crate) fn other_client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> TlsConnector {
        TlsConnector::from(self.other_config(versions, None))
    }

    /// Returns what that client is made of, with a certificate of its own if there is one.
    pub(crate) fn other_config(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match identity {
            Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
            None => config.with_no_client_auth(),
        })
    }
}

pub(crate) fn pem(label: &str, bytes: &[u8]) -> String {
    let text = BASE64.encode(bytes);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
