//! TLS from whoever asks ends here. `pair` reads one certificate with its key, `certificates` is the folder of them and who gets which,
//! `secure` a connection.
//!
//! Deliberately absent: fetching certificates from an authority; whoever does that puts the files into the folder.

mod certificates;
mod pair;
mod secure;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;

pub(super) use certificates::Certificates;
pub use pair::TlsError;
pub(super) use secure::Secure;

/// What an ingress needs to take connections over TLS.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// Ports for apps that name none of their own.
    pub shared_ports: Vec<u16>,
    /// Of NAME.crt with NAME.key, in PEM.
    pub folder: PathBuf,
    /// NAME of the certificate for whoever names no host, or one that no certificate is for. A single certificate needs no naming.
    pub default: Option<String>,
}

/// How often the folder is looked at: a new certificate is in use after that.
const LOOK: Duration = Duration::from_secs(1);

/// What all threads need of it.
pub(super) struct Tls {
    /// Agrees on the version of HTTP.
    pub(super) http: TlsAcceptor,
    /// For bytes of whatever protocol, which nothing needs to be agreed on for.
    pub(super) raw: TlsAcceptor,
    pub(super) shared_ports: Vec<u16>,
    certificates: Arc<Certificates>,
}

impl Tls {
    /// Reads every certificate; one that is not right is an error now, and never later.
    pub(super) fn new(config: &TlsConfig) -> Result<Self, TlsError> {
        let certificates = Arc::new(Certificates::read(&config.folder, config.default.clone())?);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(TlsError::Setup)?
            .with_no_client_auth()
            .with_cert_resolver(certificates.clone());
        server.ticketer = rustls::crypto::ring::Ticketer::new().map_err(TlsError::Setup)?;
        let raw = TlsAcceptor::from(Arc::new(server.clone()));
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let http = TlsAcceptor::from(Arc::new(server));
        Ok(Self { http, raw, shared_ports: config.shared_ports.clone(), certificates })
    }

    /// Takes changes of the files in, for as long as the ingress lives. Connections go on with what they began with.
    pub(super) async fn look_after(self: Arc<Self>) {
        let mut round = tokio::time::interval(LOOK);
        loop {
            round.tick().await;
            let certificates = self.certificates.clone();
            if tokio::task::spawn_blocking(move || certificates.look()).await.is_err() {
                tracing::error!("looking at the certificates failed");
            }
        }
    }
}
