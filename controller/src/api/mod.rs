//! The gRPC services, all on one port: thin handlers that check, convert, ask the driver, convert back.

use std::net::SocketAddr;
use std::time::Duration;

use tonic::transport::server::{Router, TcpIncoming};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use crate::auth::Authority;
use crate::error::StartError;

/// A client that does not finish its TLS handshake in this time is dropped.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A peer that vanished without a word is noticed after an interval and a timeout: 4 s, below the 5 s of the promise.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) fn tls_config(authority: &Authority, certificate_pem: &str, key_pem: &str) -> ServerTlsConfig {
    ServerTlsConfig::new()
        .identity(Identity::from_pem(certificate_pem, key_pem))
        .client_ca_root(Certificate::from_pem(authority.certificate_pem()))
        .client_auth_optional(true)
        .timeout(HANDSHAKE_TIMEOUT)
}

pub(crate) fn bind(address: SocketAddr) -> Result<TcpIncoming, StartError> {
    let incoming = TcpIncoming::bind(address).map_err(|source| StartError::Listen {
        address,
        purpose: "gRPC",
        flag: "--listen",
        source,
    })?;
    Ok(incoming.with_nodelay(Some(true)))
}

pub(crate) fn router(tls: ServerTlsConfig) -> Result<Router, StartError> {
    let mut server = Server::builder()
        .tls_config(tls)
        .map_err(StartError::Tls)?
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(bellows_proto::DESCRIPTORS)
        .build_v1()
        .map_err(StartError::Reflection)?;
    Ok(server.add_service(reflection))
}
