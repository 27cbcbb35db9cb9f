//! Whether a server's own certificate is one that clients accept.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rustls::pki_types::UnixTime;
use webpki::{EndEntityCert, Error, KeyUsage};

use super::explain::date;
use super::files;

/// Returns why each client would refuse the first certificate of a file, whichever authority it trusts.
///
/// # Errors
///
/// An error that names the file: the certificate is outside its time, or is not for a server.
pub(super) fn check(path: &Path) -> std::io::Result<()> {
    let certificates = files::certificates(path)?;
    let Some(Ok(certificate)) = certificates.first().map(EndEntityCert::try_from) else {
        return Ok(());
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let now = UnixTime::since_unix_epoch(now);
    let usage = KeyUsage::server_auth();
    // No authority is given: if nothing else is wrong, that is.
    let why = match certificate.verify_for_usage(&[], &[], &[], now, usage, None, None) {
        Err(Error::CertExpired { not_after, .. }) => format!("expired on {}", date(not_after)),
        Err(Error::CertNotValidYet { not_before, .. }) => {
            format!("is valid from {}", date(not_before))
        }
        Err(Error::CaUsedAsEndEntity) => {
            let what = "is one of an authority (CA:TRUE), which is not for a server itself";
            return Err(files::problem(path, &format!("the certificate {what}")));
        }
        Err(Error::RequiredEkuNotFoundContext(_)) => {
            let what = "is not for use by a server (its extended key usage says so)";
            return Err(files::problem(path, &format!("the certificate {what}")));
        }
        _ => return Ok(()),
    };
    Err(files::problem(path, &format!("the certificate {why}, and it is {} now", date(now))))
}
