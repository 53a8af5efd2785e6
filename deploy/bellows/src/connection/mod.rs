//! Talking to a controller: who we are, where it is, and what to do when it does not answer.
//!
//! Every request may be sent again: reads change nothing, changes bear an idempotency key that stays the same for all tries of
//! one invocation.

mod credential;
mod status;

use std::time::{Duration, Instant};

use bellows_controller::Credential;
use bellows_proto::operator::operator_client::OperatorClient;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Response, Status};

use crate::failure::{Failure, Kind, chain};
use crate::globals::Globals;

pub use status::failure;

/// The name in every controller's certificate, whatever its address.
const SERVER_NAME: &str = "bellows-controller";

/// How long one try to connect may take: a live controller answers in milliseconds, three lost packets are 3.0 s apart.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// How long requests are tried again: a controller that restarts is back within a second or two, an election takes as long.
const PATIENCE: Duration = Duration::from_secs(4);

/// The first pause between tries; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The header in which a follower names the leader.
const LEADER: &str = "bellows-leader";

/// A controller that we may talk to.
#[derive(Clone)]
pub struct Connection {
    credential: Credential,
    address: String,
    client: OperatorClient<Channel>,
}

impl Connection {
    /// Reads the credential. The network is touched by the first request.
    pub fn open(globals: &Globals) -> Result<Self, Failure> {
        let (credential, path) = credential::find(globals)?;
        let address = credential.controller.clone();
        let client = client(&credential, &address).map_err(|error| credential::unusable(&path, &error))?;
        Ok(Self { credential, address, client })
    }

    /// Whom we talk to: `https://host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Sends a request until it is answered or patience ends, following the leader.
    pub async fn ask<T>(
        &mut self,
        request: impl AsyncFn(&mut OperatorClient<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure> {
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let status = match request(&mut self.client).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => status,
            };
            let patient = unanswered(&status) && !untrusted(&status);
            if !patient || began.elapsed() + pause > PATIENCE {
                return Err(self.explain(&status, began.elapsed()));
            }
            self.follow(&status)?;
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    /// Sends a request that must not be done twice, once. Ask the controller something else before, so that it is the one that leads.
    pub async fn once<T>(
        &mut self,
        request: impl AsyncFnOnce(&mut OperatorClient<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure> {
        let began = Instant::now();
        let answer = request(&mut self.client).await;
        answer.map(Response::into_inner).map_err(|status| self.explain(&status, began.elapsed()))
    }

    /// Turns to the leader, when the one we asked names it.
    fn follow(&mut self, status: &Status) -> Result<(), Failure> {
        let Some(leader) = status.metadata().get(LEADER).and_then(|value| value.to_str().ok()) else { return Ok(()) };
        let address = if leader.contains("://") { leader.to_owned() } else { format!("https://{leader}") };
        self.client = client(&self.credential, &address).map_err(|error| {
            Failure::failed(format!("the controller names a leader at \"{leader}\", which is no address: {error}"))
        })?;
        self.address = address;
        Ok(())
    }

    /// A failed request as a sentence.
    pub fn explain(&self, status: &Status, tried: Duration) -> Failure {
        if unanswered(status) {
            return self.unreachable(status, tried);
        }
        failure(status)
    }

    fn unreachable(&self, status: &Status, tried: Duration) -> Failure {
        let cause = std::error::Error::source(status).map_or_else(|| status.message().to_owned(), chain);
        if untrusted(status) {
            let message =
                format!("whoever answers at {} is not of the cluster of this credential: {cause}", self.address);
            return Failure::new(Kind::Unreachable, message)
                .mend("name the credential of that cluster with --credential or $BELLOWS_CREDENTIAL; its controller prints where it is")
                .mend("was the cluster founded anew? Then this credential is worth nothing any more: take the new one");
        }
        let seconds = tried.as_millis() as u64;
        let message = format!(
            "no controller answers at {} (tried for {}): {cause}",
            self.address,
            crate::units::show_ms(seconds)
        );
        Failure::new(Kind::Unreachable, message)
            .mend("is it running? `bellows dev` or `bellows controller` starts one; a firewall, or another address in the credential file?")
    }
}

/// Nobody was there, or the connection broke before the answer.
fn unanswered(status: &Status) -> bool {
    status.code() == Code::Unavailable || status::broken(status)
}

/// Did the handshake fail for a certificate, ours or theirs? Patience would not mend that.
fn untrusted(error: &(dyn std::error::Error + 'static)) -> bool {
    use rustls::AlertDescription as Alert;
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    let tls = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()).or_else(|| error.downcast_ref());
    let about_certificates = matches!(
        tls,
        Some(
            rustls::Error::InvalidCertificate(_)
                | rustls::Error::AlertReceived(
                    Alert::BadCertificate
                        | Alert::CertificateUnknown
                        | Alert::CertificateExpired
                        | Alert::UnknownCA
                        | Alert::DecryptError
                        | Alert::AccessDenied
                )
        )
    );
    about_certificates || error.source().is_some_and(untrusted)
}

fn client(credential: &Credential, address: &str) -> Result<OperatorClient<Channel>, tonic::transport::Error> {
    let tls = ClientTlsConfig::new()
        .domain_name(SERVER_NAME)
        .ca_certificate(Certificate::from_pem(&credential.authority_pem))
        .identity(Identity::from_pem(&credential.certificate_pem, &credential.key_pem));
    let endpoint = Endpoint::from_shared(address.to_owned())?
        .tls_config(tls)?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10))
        .user_agent(concat!("bellows/", env!("CARGO_PKG_VERSION")))?;
    /// Lists are answered in one message: 100,000 replicas of some 300 bytes are 30 MiB.
    const LARGEST_ANSWER_BYTES: usize = 256 << 20;
    Ok(OperatorClient::new(endpoint.connect_lazy()).max_decoding_message_size(LARGEST_ANSWER_BYTES))
}

/// A key that no other invocation has: repeating a request with it changes nothing twice.
pub fn idempotency_key() -> String {
    format!("cli-{:032x}", rand::random::<u128>())
}
