//! How controllers are dialled: bounds in time everywhere, so that a dead server is noticed within 5 s.

use std::time::Duration;

use tonic::transport::Endpoint;

/// Why an address cannot be dialled at all.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The configuration names none.
    #[error("no controller address was given: pass one as https://HOST:PORT")]
    NoAddress,
    /// It is no address.
    #[error("{address:?} is no controller address such as https://10.0.0.1:7440")]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        #[source]
        source: tonic::transport::Error,
    },
    /// Certificates.
    #[error("cannot set up TLS for {address}")]
    Tls {
        /// For whom.
        address: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
}

/// Pings every 2 s, answers within 2 s: a server that is gone is noticed in 4 s.
const PING: Duration = Duration::from_secs(2);

/// A handshake takes milliseconds; a server that does not answer for this long is not worth waiting for.
const CONNECT: Duration = Duration::from_secs(3);

/// An endpoint with bounds in time.
pub(crate) fn endpoint(address: &str) -> Result<Endpoint, DialError> {
    let endpoint = Endpoint::from_shared(address.to_owned())
        .map_err(|source| DialError::Address { address: address.to_owned(), source })?;
    Ok(endpoint
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .keep_alive_while_idle(true))
}
