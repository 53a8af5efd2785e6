//! The cluster's own certificate authority: makes the server's certificate, credentials for people, certificates for nodes.
//!
//! Deliberately absent: revocation lists (a removed node is refused by name, because the model no longer knows it).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bellows_core::ids::NodeId;
use bellows_core::time::Instant;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, pem::PemObject};
use sha2::{Digest as _, Sha256};

use crate::state::replace_file;

/// The name that every controller's certificate bears, whatever its address: clients check for it.
const SERVER_NAME: &str = "bellows-controller";

/// Clocks of servers differ: certificates begin an hour before they are made.
const BACKDATED: Duration = Duration::from_secs(60 * 60);

/// The authority lives as long as a cluster may: 20 years of 365.25 days.
const AUTHORITY_LIFE: Duration = Duration::from_secs(20 * 31_557_600);

/// The rest: 5 years, because nothing renews them yet but a new join.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(5 * 31_557_600);

/// Where the certificate begins in the authority's file.
const CERTIFICATE_HEADING: &str = "-----BEGIN CERTIFICATE-----";

/// The largest certificate request that is parsed: an RSA-8192 request has 2.5 KiB.
const MAX_REQUEST_BYTES: usize = 16 << 10;

/// What can go wrong with keys and certificates.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file.
    #[error("cannot {operation} {path}")]
    File {
        /// What was tried.
        operation: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A stored file is not what it should be.
    #[error("{path} is damaged; restore it from a backup")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A certificate could not be made.
    #[error("cannot make the certificate of {subject}")]
    Make {
        /// Whose.
        subject: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// A node's request is no certificate request.
    #[error(
        "certificate_request_der is not a signed PKCS #10 request with a supported key (ECDSA P-256, P-384, Ed25519 or RSA)"
    )]
    Request(#[source] rcgen::Error),
    /// Too long.
    #[error("certificate_request_der has {bytes} bytes, at most {MAX_REQUEST_BYTES} are taken")]
    RequestTooLong {
        /// Its length.
        bytes: usize,
    },
}

/// The authority, ready to sign.
pub(crate) struct Authority {
    certificate_pem: String,
    fingerprint: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key.
pub(crate) struct Identity {
    pub(crate) certificate_pem: String,
    pub(crate) key_pem: String,
}

/// A node's public key, proved to be its own.
pub(crate) struct NodeRequest(rcgen::PublicKey);

impl Authority {
    /// Reads the authority back, or makes it. Key and certificate are one file, so that there is never half of them.
    pub(crate) fn open(path: &Path, cluster: &str, now: Instant) -> Result<Self, AuthorityError> {
        match fs::read_to_string(path) {
            Ok(text) => Self::load(path, &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::found(path, cluster, now),
            Err(source) => Err(AuthorityError::File { operation: "read", path: path.to_owned(), source }),
        }
    }

    fn load(path: &Path, text: &str) -> Result<Self, AuthorityError> {
        let damaged = |source| AuthorityError::Damaged { path: path.to_owned(), source };
        let pair = KeyPair::from_pem(text).map_err(|error| damaged(error.into()))?;
        let der = CertificateDer::from_pem_slice(text.as_bytes()).map_err(|error| damaged(error.into()))?;
        let begin = text.find(CERTIFICATE_HEADING).unwrap_or(0);
        let issuer = Issuer::from_ca_cert_der(&der, pair).map_err(|error| damaged(error.into()))?;
        let fingerprint = hex::encode(Sha256::digest(&der));
        Ok(Self { certificate_pem: text[begin..].to_owned(), fingerprint, issuer })
    }

    fn found(path: &Path, cluster: &str, now: Instant) -> Result<Self, AuthorityError> {
        let (pair, certificate) = make_authority(cluster, now).map_err(make_error("the cluster's authority"))?;
        let text = format!("{}{}", pair.serialize_pem(), certificate.pem());
        replace_file(path, text.as_bytes(), 0o600).map_err(|source| AuthorityError::File {
            operation: "write",
            path: path.to_owned(),
            source,
        })?;
        tracing::info!(path = %path.display(), "made the cluster's authority");
        Self::load(path, &text)
    }

    pub(crate) fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// SHA-256 of the authority's certificate, hex: by it a joining server knows the right cluster.
    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// A certificate for this controller's own listener, made anew at each start.
    pub(crate) fn server(&self, advertise: &[String], now: Instant) -> Result<Identity, AuthorityError> {
        let names = std::iter::once(SERVER_NAME.to_owned()).chain(advertise.iter().cloned()).collect::<Vec<_>>();
        let usages = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.identity("member:1", names, &usages, now)
    }

    /// A credential for a person or a service.
    pub(crate) fn operator(&self, name: &str, now: Instant) -> Result<Identity, AuthorityError> {
        self.identity(&format!("operator:{name}"), Vec::new(), &[ExtendedKeyUsagePurpose::ClientAuth], now)
    }

    /// Checks a node's request before anything is committed: its key is usable, and the node has it.
    pub(crate) fn check_request(&self, der: &[u8]) -> Result<NodeRequest, AuthorityError> {
        if der.len() > MAX_REQUEST_BYTES {
            return Err(AuthorityError::RequestTooLong { bytes: der.len() });
        }
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der));
        Ok(NodeRequest(request.map_err(AuthorityError::Request)?.public_key))
    }

    /// A node's certificate. Of its request only the key counts; name and usage are ours to give.
    pub(crate) fn node(&self, node: NodeId, request: &NodeRequest, now: Instant) -> Result<String, AuthorityError> {
        let name = format!("node:{}", node.0);
        let made = leaf(&name, Vec::new(), &[ExtendedKeyUsagePurpose::ClientAuth], now)
            .and_then(|params| params.signed_by(&request.0, &self.issuer));
        Ok(made.map_err(make_error(&name))?.pem())
    }

    fn identity(
        &self,
        name: &str,
        alternative_names: Vec<String>,
        usages: &[ExtendedKeyUsagePurpose],
        now: Instant,
    ) -> Result<Identity, AuthorityError> {
        let make = || -> Result<Identity, rcgen::Error> {
            let pair = KeyPair::generate()?;
            let certificate = leaf(name, alternative_names, usages, now)?.signed_by(&pair, &self.issuer)?;
            Ok(Identity { certificate_pem: certificate.pem(), key_pem: pair.serialize_pem() })
        };
        make().map_err(make_error(name))
    }
}

fn make_authority(cluster: &str, now: Instant) -> Result<(KeyPair, Certificate), rcgen::Error> {
    let pair = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, format!("bellows authority of {cluster}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, now, AUTHORITY_LIFE);
    // Two clusters may have one name: the key's own digest makes each subject unique.
    let unique = hex::encode(&Sha256::digest(pair.subject_public_key_info())[..8]);
    params.distinguished_name.push(DnType::OrganizationalUnitName, unique);
    let certificate = params.self_signed(&pair)?;
    Ok((pair, certificate))
}

fn leaf(
    name: &str,
    alternative_names: Vec<String>,
    usages: &[ExtendedKeyUsagePurpose],
    now: Instant,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(alternative_names)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages.to_vec();
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, now, CERTIFICATE_LIFE);
    Ok(params)
}

fn set_validity(params: &mut CertificateParams, now: Instant, life: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = Duration::from_secs(now.0 / 1000);
    params.not_before = epoch + now.saturating_sub(BACKDATED);
    params.not_after = epoch + now + life;
}

fn make_error(subject: &str) -> impl FnOnce(rcgen::Error) -> AuthorityError {
    let subject = subject.to_owned();
    move |source| AuthorityError::Make { subject, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const NOW: Instant = Instant(1_700_000_000_000);

    #[test]
    fn it_is_the_same_after_a_restart_and_private() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("authority.pem");
        let made = Authority::open(&path, "test", NOW).expect("made");
        let loaded = Authority::open(&path, "test", NOW).expect("loaded");
        assert_eq!(made.fingerprint(), loaded.fingerprint());
        assert_eq!(made.certificate_pem(), loaded.certificate_pem());
        assert!(!made.certificate_pem().contains("PRIVATE"));
        let mode = fs::metadata(&path).expect("written").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(&path, "neither key nor certificate").expect("writable");
        assert!(matches!(Authority::open(&path, "test", NOW), Err(AuthorityError::Damaged { .. })));
    }

    #[test]
    fn requests_are_checked() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let authority = Authority::open(&folder.path().join("authority.pem"), "test", NOW).expect("made");
        assert!(matches!(authority.check_request(b"nonsense"), Err(AuthorityError::Request(_))));
        assert!(matches!(authority.check_request(&[0; 20_000]), Err(AuthorityError::RequestTooLong { bytes: 20_000 })));
    }
}
