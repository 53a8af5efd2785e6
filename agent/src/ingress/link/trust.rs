//! Who may be at the other end of a link: a node of this cluster, by its certificate. Both ends show one.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::sync::watch;

/// A node's own certificate and key, and the authority of its cluster, in PEM.
#[derive(Clone)]
pub struct LinkIdentity {
    /// Of the node.
    pub certificate_pem: String,
    /// To the certificate.
    pub key_pem: String,
    /// Whose signature makes a node.
    pub authority_pem: String,
}

impl std::fmt::Debug for LinkIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LinkIdentity")
    }
}

/// A certificate or key is none.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// PEM.
    #[error("cannot read this node's certificate, its key, or its authority's certificate")]
    Pem(#[source] rustls_pki_types::pem::Error),
    /// TLS.
    #[error("cannot set up TLS between ingresses")]
    Tls(#[source] rustls::Error),
    /// The authority.
    #[error("the authority's certificate vouches for nobody")]
    Authority(#[source] rustls::server::VerifierBuilderError),
}

/// Nodes that left for good. Ids are never given out again.
pub(super) type Removed = watch::Sender<BTreeSet<u32>>;

/// For taking links, and for making them.
pub(super) fn configs(
    identity: &LinkIdentity,
    removed: Arc<Removed>,
) -> Result<(Arc<ServerConfig>, Arc<ClientConfig>), LinkError> {
    let certificates = |pem: &str| -> Result<Vec<CertificateDer<'static>>, _> {
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(LinkError::Pem)
    };
    let key = || PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).map_err(LinkError::Pem);
    let mut roots = RootCertStore::empty();
    for authority in certificates(&identity.authority_pem)? {
        roots.add(authority).map_err(LinkError::Tls)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let nodes = Arc::new(NodesOnly { verifier: verifier.build().map_err(LinkError::Authority)?, removed });
    let chain = certificates(&identity.certificate_pem)?;
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(LinkError::Tls)?
        .with_client_cert_verifier(nodes.clone())
        .with_single_cert(chain.clone(), key()?)
        .map_err(LinkError::Tls)?;
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(LinkError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(nodes)
        .with_client_auth_cert(chain, key()?)
        .map_err(LinkError::Tls)?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    client.alpn_protocols = vec![b"h2".to_vec()];
    Ok((Arc::new(server), Arc::new(client)))
}

/// Nodes have no names that stand in certificates, and addresses that may change: what counts is the authority's word that it is a node.
#[derive(Debug)]
struct NodesOnly {
    verifier: Arc<dyn ClientCertVerifier>,
    removed: Arc<Removed>,
}

/// Which node shows this certificate; none if no node does.
pub(super) fn node_of(certificate: &CertificateDer<'_>) -> Option<u32> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    parsed.subject().iter_common_name().next()?.as_str().ok()?.strip_prefix("node:")?.parse().ok()
}

impl NodesOnly {
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        match node_of(certificate) {
            Some(node) if self.removed.borrow().contains(&node) => Err(rustls::CertificateError::Revoked.into()),
            Some(_) => Ok(()),
            None => Err(rustls::CertificateError::ApplicationVerificationFailure.into()),
        }
    }
}

impl ClientCertVerifier for NodesOnly {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(certificate)?;
        self.verifier.verify_client_cert(certificate, between, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

impl ServerCertVerifier for NodesOnly {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verify_client_cert(certificate, between, now).map(|_| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
