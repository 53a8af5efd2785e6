//! A certificate with its key, from files: everything that can be wrong with them is said with where, and how to mend it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

/// Certificates cannot be used as they are.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The folder.
    #[error("cannot read the folder of certificates {path}: pass one that is there with --certificates")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Nothing in it.
    #[error(
        "{path} holds no certificate: put NAME.crt, the chain beginning with the host's own, and NAME.key into it, in PEM"
    )]
    None {
        /// Which.
        path: PathBuf,
    },
    /// No such name.
    #[error("{path} holds no {name}.crt, which --default-certificate names: it holds {there}")]
    Default {
        /// The folder.
        path: PathBuf,
        /// The name.
        name: String,
        /// Those that are there.
        there: String,
    },
    /// A file.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others may read the key.
    #[error("the key {path} can be read by every user of this server (mode {mode:04o}): run `chmod 600 {path}`")]
    Open {
        /// Which.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// No PEM, or of something else.
    #[error("{path} holds no {what} in PEM: it must begin with -----BEGIN {label}-----")]
    Pem {
        /// Which.
        path: PathBuf,
        /// What is looked for.
        what: &'static str,
        /// How it begins.
        label: &'static str,
    },
    /// A certificate that cannot be read.
    #[error("{path} holds a certificate that cannot be understood: write it anew, in X.509")]
    Malformed {
        /// Which.
        path: PathBuf,
    },
    /// A key of another kind.
    #[error("the key {path} is of no kind that TLS uses: RSA, ECDSA (P-256, P-384) and Ed25519 are")]
    Key {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: rustls::Error,
    },
    /// They do not belong together.
    #[error(
        "the key {key} does not belong to the first certificate in {certificate}: put the host's own certificate first, and beside it the key that it was made with"
    )]
    Mismatch {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// Too old.
    #[error("the certificate {path} expired on {day}: put a new one in its place")]
    Expired {
        /// Which.
        path: PathBuf,
        /// Until when it was good.
        day: String,
    },
    /// Too new.
    #[error(
        "the certificate {path} is not good before {day}: set this server's clock, or put another one in its place"
    )]
    Early {
        /// Which.
        path: PathBuf,
        /// From when it is.
        day: String,
    },
    /// It is for nobody.
    #[error(
        "the certificate {path} names no host (no DNS name or address among its alternative names): make one that does"
    )]
    Unnamed {
        /// Which.
        path: PathBuf,
    },
    /// rustls.
    #[error("cannot set up TLS")]
    Setup(#[source] rustls::Error),
}

/// A certificate with its key.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) key: Arc<CertifiedKey>,
    /// In small letters; some begin with `*.`.
    pub(super) names: Vec<String>,
}

impl Pair {
    /// Reads `certificate` and the key beside it.
    pub(super) fn read(certificate: &Path) -> Result<Self, TlsError> {
        let chain = chain(certificate)?;
        let own = chain.first().ok_or_else(|| malformed(certificate))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(own).map_err(|_| malformed(certificate))?;
        timely(certificate, &parsed)?;
        let names = names(&parsed);
        if names.is_empty() {
            return Err(TlsError::Unnamed { path: certificate.to_owned() });
        }
        let key_path = certificate.with_extension("key");
        let signing = rustls::crypto::ring::sign::any_supported_type(&key(&key_path)?);
        let signing = signing.map_err(|source| TlsError::Key { path: key_path.clone(), source })?;
        let key = CertifiedKey::new(chain.clone(), signing);
        if key.keys_match().is_err() {
            return Err(TlsError::Mismatch { certificate: certificate.to_owned(), key: key_path });
        }
        Ok(Self { key: Arc::new(key), names })
    }
}

fn malformed(path: &Path) -> TlsError {
    TlsError::Malformed { path: path.to_owned() }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let none = || TlsError::Pem { path: path.to_owned(), what: "certificate", label: "CERTIFICATE" };
    chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(none)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    const OTHERS: u32 = 0o007;
    let known = std::fs::metadata(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })?;
    if known.mode() & OTHERS != 0 {
        return Err(TlsError::Open { path: path.to_owned(), mode: known.mode() & 0o7777 });
    }
    let none = |_| TlsError::Pem { path: path.to_owned(), what: "private key", label: "PRIVATE KEY" };
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(none)
}

fn timely(path: &Path, certificate: &X509Certificate<'_>) -> Result<(), TlsError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let (path, validity) = (path.to_owned(), certificate.validity());
    if validity.not_after.timestamp() < now {
        return Err(TlsError::Expired { path, day: validity.not_after.to_string() });
    }
    if validity.not_before.timestamp() > now {
        return Err(TlsError::Early { path, day: validity.not_before.to_string() });
    }
    Ok(())
}

/// Whom it is for.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let names = alternative.iter().flat_map(|names| names.value.general_names.iter());
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| std::net::IpAddr::from(bytes).to_string()),
                16 => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| std::net::IpAddr::from(bytes).to_string()),
                _ => None,
            },
            _ => None,
        })
        .collect()
}
