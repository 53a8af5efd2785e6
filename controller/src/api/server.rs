//! The port: TLS, limits, and which services stand behind it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bellows_member::MAX_MESSAGE_BYTES;
use bellows_proto::member::members_server::MembersServer;
use bellows_proto::node::nodes_server::NodesServer;
use bellows_proto::operator::operator_server::OperatorServer;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::{Router, TcpIncoming};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic_health::server::HealthReporter;

use super::CallHub;
use super::members::MemberService;
use super::nodes::NodeService;
use super::operator::OperatorService;
use crate::auth::{Authority, require_any, require_operator};
use crate::blobs::Blobs;
use crate::clock::Clock;
use crate::config::Allowed;
use crate::driver::Handle;
use crate::error::StartError;

/// A client that does not finish its TLS handshake in this time is dropped.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// A peer that vanished without a word is noticed after an interval and a timeout: 4 s, below the 5 s of the promise.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// An inventory of 100,000 copies at 500 bytes each is 50 MB.
const MAX_AGENT_MESSAGE_BYTES: usize = 64 << 20;

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) driver: Handle,
    pub(crate) authority: Arc<Authority>,
    pub(crate) blobs: Blobs,
    pub(crate) clock: Clock,
    pub(crate) calls: CallHub,
    pub(crate) allowed: Arc<Allowed>,
}

pub(crate) fn tls_config(authority: &Authority, certificate_pem: &str, key_pem: &str) -> ServerTlsConfig {
    ServerTlsConfig::new()
        // With the authority behind it: a joining server knows no more of the cluster than the hash of that certificate.
        .identity(Identity::from_pem(format!("{certificate_pem}{}", authority.certificate_pem()), key_pem))
        .client_ca_root(Certificate::from_pem(authority.certificate_pem()))
        .client_auth_optional(true)
        .timeout(HANDSHAKE_TIMEOUT)
}

pub(crate) fn bind(address: SocketAddr) -> Result<TcpIncoming, StartError> {
    let listen = |source| StartError::Listen { address, purpose: "gRPC", flag: "--listen", source };
    Ok(TcpIncoming::bind(address).map_err(listen)?.with_nodelay(Some(true)))
}

pub(crate) fn router(tls: ServerTlsConfig, services: &Services) -> Result<(Router, HealthReporter), StartError> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(bellows_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(StartError::Reflection)?;
    let (reporter, health) = tonic_health::server::health_reporter();
    let nodes = NodesServer::new(NodeService(services.clone())).max_decoding_message_size(MAX_AGENT_MESSAGE_BYTES);
    let members =
        MembersServer::new(MemberService(services.driver.clone())).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let router = Server::builder()
        .tls_config(tls)
        .map_err(StartError::Tls)?
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_service(OperatorServer::with_interceptor(OperatorService(services.clone()), require_operator))
        .add_service(nodes)
        .add_service(members)
        .add_service(InterceptedService::new(reflection, require_any))
        .add_service(InterceptedService::new(health, require_any));
    Ok((router, reporter))
}
