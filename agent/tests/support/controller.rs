//! A controller that a test speaks through: real TLS, real gRPC, no mind of its own.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bellows_proto::node::nodes_server::{Nodes, NodesServer};
use bellows_proto::node::{
    Call, CallReply, FetchBlobRequest, FromAgent, Greeting, Hello, JoinRequest, JoinResponse, Open, Refusal,
    ReplicaReport, Report, ToAgent, from_agent, to_agent,
};
use bellows_proto::types::{BlobChunk, Fence};
use bellows_runtime::image::Store;
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer, KeyPair};
use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use super::PATIENCE;

/// The test's end of one session.
pub struct Session {
    /// What the agent opened it with.
    pub open: Open,
    pub up: mpsc::Receiver<FromAgent>,
    pub down: mpsc::Sender<Result<ToAgent, Status>>,
}

/// The test's end of the stream of calls.
pub struct CallStream {
    pub up: mpsc::Receiver<CallReply>,
    pub down: mpsc::Sender<Result<Call, Status>>,
}

pub struct Controller {
    pub address: String,
    pub token: String,
    pub joins: Arc<AtomicU32>,
    sessions: Mutex<mpsc::Receiver<Session>>,
    calls: Mutex<mpsc::Receiver<CallStream>>,
}

struct Service {
    authority: Issuer<'static, KeyPair>,
    authority_pem: String,
    store: Option<Store>,
    joins: Arc<AtomicU32>,
    sessions: mpsc::Sender<Session>,
    calls: mpsc::Sender<CallStream>,
}

impl Controller {
    /// Listens on a free port of the loopback; serves blobs of this store.
    pub async fn start(store: Option<Store>) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(&key).expect("a certificate");
        let (authority_pem, fingerprint) = (certificate.pem(), hex::encode(Sha256::digest(certificate.der())));
        let authority = Issuer::new(params, key);
        let server_key = KeyPair::generate().expect("a key");
        let server = CertificateParams::new(vec!["bellows-controller".to_owned()]).expect("parameters");
        let server = server.signed_by(&server_key, &authority).expect("a certificate");
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(server.pem() + &authority_pem, server_key.serialize_pem()))
            .client_ca_root(Certificate::from_pem(&authority_pem))
            .client_auth_optional(true);
        let (session_sender, sessions) = mpsc::channel(8);
        let (call_sender, calls) = mpsc::channel(8);
        let joins = Arc::new(AtomicU32::new(0));
        let service = Service {
            authority,
            authority_pem,
            store,
            joins: joins.clone(),
            sessions: session_sender,
            calls: call_sender,
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = format!("https://{}", listener.local_addr().expect("an address"));
        let server = Server::builder().tls_config(tls).expect("TLS").add_service(NodesServer::new(service));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let token = format!("bellows1.secret.{fingerprint}");
        Self { address, token, joins, sessions: Mutex::new(sessions), calls: Mutex::new(calls) }
    }

    /// The next session that an agent opens, after its Open.
    pub async fn session(&self) -> Session {
        let mut session = within(self.sessions.lock().await.recv()).await.expect("the server runs");
        match session.next().await.body {
            Some(from_agent::Body::Open(open)) => session.open = open,
            other => panic!("open was expected, not {other:?}"),
        }
        session
    }

    /// A session up to hello.
    pub async fn greet(&self, fence: Fence, number: u64) -> (Session, Hello) {
        let mut session = self.session().await;
        session.say(greeting(fence, number)).await;
        match session.next().await.body {
            Some(from_agent::Body::Hello(hello)) => (session, hello),
            other => panic!("hello was expected, not {other:?}"),
        }
    }

    pub async fn calls(&self) -> CallStream {
        within(self.calls.lock().await.recv()).await.expect("the server runs")
    }
}

pub fn greeting(fence: Fence, session: u64) -> to_agent::Body {
    to_agent::Body::Greeting(Greeting { fence: Some(fence), session, cluster: "test".to_owned(), heartbeat_ms: 50 })
}

pub fn refusal(retry: bool, leader: &str) -> to_agent::Body {
    let text = "this is not to be".to_owned();
    to_agent::Body::Refusal(Refusal { text, retry, leader_address: leader.to_owned() })
}

impl Session {
    pub async fn say(&self, body: to_agent::Body) {
        self.send(ToAgent { body: Some(body) }).await;
    }

    pub async fn send(&self, message: ToAgent) {
        self.down.send(Ok(message)).await.expect("the agent listens");
    }

    pub async fn next(&mut self) -> FromAgent {
        within(self.up.recv()).await.expect("the agent speaks on")
    }

    /// Reports until one is as wanted; gives that one.
    pub async fn until(&mut self, wanted: impl Fn(&Report) -> bool) -> Report {
        let found = async {
            loop {
                if let Some(from_agent::Body::Report(report)) = self.next().await.body
                    && wanted(&report)
                {
                    return report;
                }
            }
        };
        within(found).await
    }

    /// Reports until this replica is as wanted.
    pub async fn until_replica(&mut self, counter: u64, wanted: impl Fn(&ReplicaReport) -> bool) -> ReplicaReport {
        let is = |replica: &&ReplicaReport| replica.id.is_some_and(|id| id.counter == counter) && wanted(replica);
        let report = self.until(|report| report.replicas.iter().any(|replica| is(&replica))).await;
        report.replicas.iter().find(is).cloned().expect("it was there a moment ago")
    }
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it comes within the test's patience")
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Only a node's certificate opens these.
fn require_certificate<T>(request: &Request<T>) -> Result<(), Status> {
    match request.peer_certs() {
        Some(certificates) if !certificates.is_empty() => Ok(()),
        _ => Err(Status::unauthenticated("no certificate was shown")),
    }
}

async fn pump<T: Send + 'static>(mut from: Streaming<T>, to: mpsc::Sender<T>) {
    while let Some(Ok(message)) = from.next().await {
        if to.send(message).await.is_err() {
            return;
        }
    }
}

#[tonic::async_trait]
impl Nodes for Service {
    type SessionStream = ReceiverStream<Result<ToAgent, Status>>;
    type CallsStream = ReceiverStream<Result<Call, Status>>;
    type FetchBlobStream = Streamed<BlobChunk>;

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let request = request.into_inner();
        self.joins.fetch_add(1, Ordering::SeqCst);
        if request.token != "secret" {
            return Err(Status::permission_denied("the token is not known"));
        }
        let der = request.certificate_request_der.into();
        let csr = CertificateSigningRequestParams::from_der(&der)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, "node:5");
        let certificate = params.signed_by(&csr.public_key, &self.authority).expect("a certificate");
        Ok(Response::new(JoinResponse {
            node: 5,
            certificate_pem: certificate.pem(),
            authority_pem: self.authority_pem.clone(),
            cluster: "test".to_owned(),
        }))
    }

    async fn session(&self, request: Request<Streaming<FromAgent>>) -> Result<Response<Self::SessionStream>, Status> {
        require_certificate(&request)?;
        let ((up_sender, up), (down, down_receiver)) = (mpsc::channel(1_024), mpsc::channel(1_024));
        tokio::spawn(pump(request.into_inner(), up_sender));
        self.sessions
            .send(Session { open: Open::default(), up, down })
            .await
            .map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(down_receiver)))
    }

    async fn calls(&self, request: Request<Streaming<CallReply>>) -> Result<Response<Self::CallsStream>, Status> {
        require_certificate(&request)?;
        let ((up_sender, up), (down, down_receiver)) = (mpsc::channel(1_024), mpsc::channel(1_024));
        tokio::spawn(pump(request.into_inner(), up_sender));
        self.calls.send(CallStream { up, down }).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(down_receiver)))
    }

    async fn fetch_blob(&self, request: Request<FetchBlobRequest>) -> Result<Response<Self::FetchBlobStream>, Status> {
        require_certificate(&request)?;
        let digest = request.into_inner().digest.parse().map_err(|_| Status::invalid_argument("no digest"))?;
        let store = self.store.as_ref().ok_or_else(|| Status::not_found("no such blob"))?;
        let mut file = store.open_blob(&digest).map_err(|error| Status::not_found(error.to_string()))?;
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut bytes).map_err(|error| Status::internal(error.to_string()))?;
        let chunks: Vec<_> = bytes.chunks(1_000).map(|chunk| Ok(BlobChunk { data: chunk.to_vec() })).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }
}
