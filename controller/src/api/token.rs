//! Making join tokens, for the operator service and for whoever runs the controller.

use bellows_core::input::Request;
use bellows_core::time::Instant;
use bellows_core::units::Millis;
use tonic::Status;

use super::Services;
use crate::auth::JoinToken;

/// When nobody says: one hour.
const DEFAULT_VALID: Millis = Millis(60 * 60 * 1000);
/// Shorter ones would be over before they are typed.
const SHORTEST_VALID: Millis = Millis(1_000);
/// A year: longer ones are forgotten, and found by others.
const LONGEST_VALID: Millis = Millis(365 * 24 * 60 * 60 * 1000);

/// The token and when it expires. Zero means the default.
pub(crate) async fn create_token(services: &Services, by: &str, valid: Millis) -> Result<(String, Instant), Status> {
    let valid = if valid == Millis(0) { DEFAULT_VALID } else { valid };
    if valid < SHORTEST_VALID || valid > LONGEST_VALID {
        return Err(Status::invalid_argument(format!(
            "valid_ms: a join token may be valid for {SHORTEST_VALID} to {LONGEST_VALID}, not {valid}"
        )));
    }
    let token = JoinToken::create(services.authority.fingerprint());
    let expires = services.clock.now() + valid;
    let request = Request::CreateToken { hash: token.hash(), expires };
    super::operator::accepted(services.driver.request(by, "", request).await?)?;
    Ok((token.to_string(), expires))
}
