//! A server becomes a node: the only call without a certificate; a token authorises it.

use bellows_core::input::Request as Change;
use bellows_core::model::command::Outcome;
use bellows_proto::node as wire;
use tonic::Status;

use super::Services;
use super::operator::accepted;
use crate::auth::hash_of;
use crate::convert::{Malformed, check_labels, check_text};
use crate::driver::{Question, chain};

/// As DNS has it.
const MAX_NAME_BYTES: usize = 63;
/// A random identity in hex or as a UUID; longer ones are not made.
const MAX_MACHINE_BYTES: usize = 128;
/// The secret has 32 digits.
const MAX_TOKEN_BYTES: usize = 256;

/// Everything is checked before anything is committed: a refused server leaves no trace.
pub(super) async fn join(services: &Services, asked: wire::JoinRequest) -> Result<wire::JoinResponse, Status> {
    check_protocol(asked.protocol)?;
    check_name(&asked.name)?;
    check_text("machine", &asked.machine, MAX_MACHINE_BYTES)?;
    if asked.machine.is_empty() {
        return Err(Malformed::new("machine", "is empty").into());
    }
    check_labels("labels", &asked.labels)?;
    check_token(services, &asked.token).await?;
    let request = services.authority.check_request(&asked.certificate_request_der);
    let request = request.map_err(|error| Status::invalid_argument(chain(&error)))?;
    let change = Change::Join { name: asked.name.clone(), machine: asked.machine, labels: asked.labels };
    let by = format!("join of {}", asked.name);
    let Outcome::Node { node } = accepted(services.driver.request(&by, "", change).await?)? else {
        return Err(Status::internal("the core answered a join with something else; please report this"));
    };
    let certificate = services.authority.node(node, &request, services.clock.now());
    let certificate_pem = certificate.map_err(|error| Status::internal(chain(&error)))?;
    let cluster = services.driver.ask(|answer| Question::Membership { node, answer }).await?;
    tracing::info!(%node, name = asked.name, "a server joined");
    let authority_pem = services.authority.certificate_pem().to_owned();
    Ok(wire::JoinResponse { node: node.0, certificate_pem, authority_pem, cluster })
}

pub(super) fn check_protocol(protocol: u32) -> Result<(), Status> {
    let known = bellows_proto::PROTOCOL;
    if protocol == known {
        return Ok(());
    }
    Err(Status::failed_precondition(format!(
        "protocol: the agent speaks protocol {protocol}, this controller {known}; install the same version of Bellows on both"
    )))
}

/// A name that can be typed, and be part of a host name.
fn check_name(name: &str) -> Result<(), Status> {
    let fit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    let whole = !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.bytes().all(fit);
    match whole && !name.starts_with(['-', '.']) && !name.ends_with(['-', '.']) {
        true => Ok(()),
        false => Err(Malformed::new(
            "name",
            format!("a node's name has 1 to {MAX_NAME_BYTES} of a-z, 0-9, `-` and `.`, and begins and ends with a letter or digit"),
        )
        .into()),
    }
}

async fn check_token(services: &Services, token: &str) -> Result<(), Status> {
    check_text("token", token, MAX_TOKEN_BYTES)?;
    let hash = hash_of(token);
    match services.driver.ask(|answer| Question::TokenHolds { hash, answer }).await? {
        true => Ok(()),
        false => {
            Err(Status::unauthenticated("the join token is wrong or has expired; make a new one with `bellows token`"))
        }
    }
}
