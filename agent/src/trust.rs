//! Telling a controller of another cluster from one that cannot be reached: patience mends only the second.

use std::error::Error;
use std::io;

/// Did the handshake fail for a certificate, ours or theirs?
pub(crate) fn untrusted(error: &(dyn Error + 'static)) -> bool {
    let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    let tls = inner.and_then(|inner| inner.downcast_ref()).or_else(|| error.downcast_ref());
    tls.is_some_and(about_certificates) || error.source().is_some_and(untrusted)
}

fn about_certificates(error: &rustls::Error) -> bool {
    use rustls::AlertDescription as Alert;
    match error {
        rustls::Error::InvalidCertificate(_) => true,
        rustls::Error::AlertReceived(alert) => matches!(
            alert,
            Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied
                | Alert::DecryptError
        ),
        _ => false,
    }
}
