//! Joining: once in a node's life.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bellows_proto::PROTOCOL;
use bellows_proto::node::nodes_client::NodesClient;
use bellows_proto::node::{JoinRequest, JoinResponse};
use rcgen::{CertificateParams, KeyPair};
use tonic::transport::{Channel, ClientTlsConfig};
use tonic::{Code, Status};

use super::pinned::PinnedAuthority;
use super::token::{Token, TokenError};
use super::{Identity, SERVER_NAME, machine, read};
use crate::backoff::BackOff;
use crate::config::AgentConfig;
use crate::dial::{DialError, endpoint};
use crate::state::{StateError, replace_file};
use crate::trust::untrusted;
use crate::worker::chain;

/// Why this server did not become a node.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// It has not joined and cannot.
    #[error(
        "this server has not joined a cluster and no token was given: `bellows token` prints one, pass it with --token"
    )]
    NoToken,
    /// The token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Files.
    #[error(transparent)]
    State(#[from] StateError),
    /// Key or request.
    #[error("cannot make this node's key or certificate request")]
    Key(#[source] rcgen::Error),
    /// An address.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// A controller said no.
    #[error("the controller {address} refused the join: {message}")]
    Refused {
        /// Which.
        address: String,
        /// Its words.
        message: String,
    },
    /// Somebody else's cluster.
    #[error(
        "the controller {address} is not of the cluster that the token names: take an address of that cluster, or a token of this one"
    )]
    OtherCluster {
        /// Which.
        address: String,
        /// What TLS said.
        #[source]
        source: tonic::transport::Error,
    },
    /// Nobody answered.
    #[error(
        "no controller could be reached within {patience:?}, the last tried was {address} ({why}): does one run there, is the address right, does a firewall stand between?"
    )]
    Unreachable {
        /// The last one tried.
        address: String,
        /// How long.
        patience: Duration,
        /// What happened.
        why: String,
    },
}

/// The kept identity, or a new one by the token.
pub(crate) async fn join(config: &AgentConfig, folder: &Path) -> Result<Identity, JoinError> {
    if let Some(identity) = Identity::load(folder)? {
        return Ok(identity);
    }
    let token: Token = config.token.as_deref().ok_or(JoinError::NoToken)?.parse()?;
    let (machine, key) = (machine(folder)?, key(folder)?);
    let request = request(config, &token, &machine, &key)?;
    let answer = ask_all(config, &token, request).await?;
    let identity = Identity {
        machine,
        node: answer.node,
        key_pem: key.serialize_pem(),
        certificate_pem: answer.certificate_pem,
        authority_pem: answer.authority_pem,
    };
    identity.keep(folder)?;
    tracing::info!(node = identity.node, cluster = answer.cluster, name = config.name, "joined");
    Ok(identity)
}

/// The node's key: made once, so that a join whose answer was lost can be repeated.
fn key(folder: &Path) -> Result<KeyPair, JoinError> {
    let path = folder.join("key.pem");
    if let Some(pem) = read(&path)? {
        return KeyPair::from_pem(&pem).map_err(JoinError::Key);
    }
    let key = KeyPair::generate().map_err(JoinError::Key)?;
    replace_file(&path, key.serialize_pem().as_bytes(), 0o600)?;
    Ok(key)
}

fn request(config: &AgentConfig, token: &Token, machine: &str, key: &KeyPair) -> Result<JoinRequest, JoinError> {
    let params = CertificateParams::new(Vec::new()).map_err(JoinError::Key)?;
    let certificate_request = params.serialize_request(key).map_err(JoinError::Key)?;
    Ok(JoinRequest {
        token: token.secret.clone(),
        name: config.name.clone(),
        machine: machine.to_owned(),
        labels: config.labels.clone().into_iter().collect(),
        certificate_request_der: certificate_request.der().to_vec(),
        protocol: PROTOCOL,
    })
}

/// Asks one controller after another until one answers or patience ends; a refusal ends it at once.
async fn ask_all(config: &AgentConfig, token: &Token, request: JoinRequest) -> Result<JoinResponse, JoinError> {
    let deadline = tokio::time::Instant::now() + config.join_patience;
    let mut told = false;
    let mut back_off = BackOff::default();
    let mut addresses = config.controllers.iter().cycle().cloned();
    let mut address = addresses.next().ok_or(DialError::NoAddress)?;
    loop {
        let status = match ask(&address, token, request.clone()).await? {
            Ok(answer) => return Ok(answer),
            Err(status) => status,
        };
        let leader = leader_address(&status);
        match status.code() {
            _ if leader.is_some() => {}
            Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled => {}
            _ => return Err(JoinError::Refused { address, message: status.message().to_owned() }),
        }
        if tokio::time::Instant::now() >= deadline {
            let (patience, why) = (config.join_patience, status.message().to_owned());
            return Err(JoinError::Unreachable { address, patience, why });
        }
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(%address, why = status.message(), "no controller takes this node yet; trying again for {:?}", config.join_patience);
        }
        tracing::debug!(%address, %status, "no join yet");
        tokio::time::sleep(back_off.next()).await;
        address = leader.or_else(|| addresses.next()).ok_or(DialError::NoAddress)?;
    }
}

/// Where the leader is, when the one that was asked is not.
fn leader_address(status: &Status) -> Option<String> {
    let value = status.metadata().get("bellows-leader")?.to_str().ok()?;
    (!value.is_empty()).then(|| value.to_owned())
}

async fn ask(address: &str, token: &Token, request: JoinRequest) -> Result<Result<JoinResponse, Status>, JoinError> {
    let tls = ClientTlsConfig::new().domain_name(SERVER_NAME);
    let verifier = Arc::new(PinnedAuthority::new(token.fingerprint));
    let with_tls = endpoint(address)?.tls_config_with_verifier(tls, verifier);
    let channel: Channel =
        match with_tls.map_err(|source| DialError::Tls { address: address.to_owned(), source })?.connect().await {
            Ok(channel) => channel,
            Err(source) if untrusted(&source) => {
                return Err(JoinError::OtherCluster { address: address.to_owned(), source });
            }
            Err(error) => return Ok(Err(Status::unavailable(chain(&error)))),
        };
    Ok(NodesClient::new(channel).join(request).await.map(tonic::Response::into_inner))
}
