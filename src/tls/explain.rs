//! Errors of rustls in words: what is wrong, and on which side.

use std::time::{Duration, SystemTime};

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use super::error::TlsError;
use crate::wire::escape::{Escaped, SpacedHex};
use crate::wire::signature::Known;

/// How many of the first bytes of a peer that does not speak TLS are kept: enough to recognise most protocols.
pub(super) const FIRST: usize = 64;

/// How many of them are shown.
const SHOWN: usize = 8;

/// Which side of a connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

impl Side {
    pub(super) fn peer(self) -> &'static str {
        match self {
            Side::Client => "server",
            Side::Server => "client",
        }
    }
}

/// Explains an error, given the first bytes of the peer if it came during the handshake.
pub(super) fn error(error: &Error, side: Side, handshake: bool, first: &[u8]) -> TlsError {
    let peer = side.peer();
    match error {
        Error::InvalidMessage(what) if handshake && !looks_like_tls(first) => {
            not_tls(peer, first).unwrap_or_else(|| invalid(peer, what))
        }
        Error::InvalidMessage(what) => invalid(peer, what),
        Error::InvalidCertificate(error) => certificate(error, peer),
        Error::NoCertificatesPresented => TlsError::Untrusted(format!(
            "the {peer} presented no certificate, and this server requires one"
        )),
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            TlsError::CertificateRequired
        }
        Error::AlertReceived(
            alert @ (AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRevoked),
        ) => TlsError::BadCertificate(rejected(*alert, peer)),
        Error::AlertReceived(alert) => TlsError::Other(rejected(*alert, peer)),
        Error::PeerIncompatible(why) => {
            TlsError::Other(format!("the {peer} and this side have no TLS in common: {why:?}"))
        }
        Error::PeerMisbehaved(why) => {
            TlsError::Other(format!("the {peer} broke the TLS protocol: {why:?}"))
        }
        Error::DecryptError => TlsError::Other(format!(
            "TLS data of the {peer} cannot be decrypted: it was changed on its way"
        )),
        other => TlsError::Other(format!("TLS failed: {other}")),
    }
}

fn invalid(peer: &str, what: &InvalidMessage) -> TlsError {
    TlsError::Other(format!("the {peer} sent something that is not valid TLS: {what:?}"))
}

/// Returns whether these bytes begin a record of TLS.
fn looks_like_tls(first: &[u8]) -> bool {
    matches!(first, [0x14..=0x17, 3, ..])
}

fn not_tls(peer: &str, first: &[u8]) -> Option<TlsError> {
    let shown = first.get(..first.len().min(SHOWN)).filter(|shown| !shown.is_empty())?;
    let looks = match Known::find(first) {
        Some(Known { name, .. }) => format!("; this looks like {name}"),
        None => String::new(),
    };
    Some(TlsError::NotTls(format!(
        "the {peer} does not speak TLS, which this side expects: its first bytes are {} \"{}\"{looks}",
        SpacedHex(shown),
        Escaped(shown)
    )))
}

fn certificate(error: &CertificateError, peer: &str) -> TlsError {
    let what = |why: String| format!("the certificate of the {peer} {why}");
    let bad = |why: String| TlsError::BadCertificate(what(why));
    match error {
        CertificateError::UnknownIssuer => TlsError::Untrusted(format!(
            "the certificate of the {peer} is signed by an authority that is not trusted here"
        )),
        CertificateError::BadSignature => TlsError::Untrusted(format!(
            "the certificate of the {peer} is not signed with the key of the trusted authority of that name"
        )),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names = match presented.len() {
                0 => "no name".to_owned(),
                _ => presented.iter().map(|name| plain_name(name)).collect::<Vec<_>>().join(", "),
            };
            TlsError::WrongName(format!(
                "the certificate of the {peer} is not for {} but for {names}",
                expected.to_str()
            ))
        }
        CertificateError::ExpiredContext { time, not_after } => {
            bad(format!("expired on {}, and it is {} now", date(*not_after), date(*time)))
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            // Which time passes.
            let (from, now) = (date(*not_before), date(*time));
            TlsError::Other(what(format!("is valid from {from}, and it is {now} now")))
        }
        CertificateError::Other(why) if why.to_string().contains("CaUsedAsEndEntity") => {
            bad("is one of an authority (CA:TRUE), which is not for a server or client itself"
                .into())
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            bad(format!("is not for use by a {peer} (its extended key usage says so)"))
        }
        error => bad(format!("is not valid: {error}")),
    }
}

/// Returns `localhost` for `DnsName("localhost")`, as rustls shows it.
fn plain_name(shown: &str) -> &str {
    let inner = shown.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(shown).trim_matches('"')
}

pub(super) fn date(time: UnixTime) -> String {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs()));
    time.map_or_else(
        || "a day far from now".into(),
        |time| humantime::format_rfc3339_seconds(time).to_string(),
    )
}

fn rejected(alert: AlertDescription, peer: &str) -> String {
    let own = if peer == "server" { "client" } else { "server" };
    match alert {
        AlertDescription::UnknownCA => {
            format!(
                "the {peer} does not trust the authority that signed the certificate of this {own}"
            )
        }
        AlertDescription::CertificateExpired => {
            format!(
                "the {peer} says that the certificate of this {own} is expired or not valid yet"
            )
        }
        AlertDescription::BadCertificate
        | AlertDescription::DecryptError
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateRevoked => {
            format!("the {peer} rejected the certificate of this {own} ({alert:?})")
        }
        AlertDescription::ProtocolVersion | AlertDescription::HandshakeFailure => {
            format!("the {peer} and this side have no TLS in common ({alert:?})")
        }
        alert => format!("the {peer} ended the TLS connection ({alert:?})"),
    }
}
