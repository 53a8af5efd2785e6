//! A controller in a temporary folder, an operator's client, and an agent made of test code.
#![allow(dead_code)] // each test program uses its own part

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bellows_controller::{Allowance, Allowed, Controller, ControllerConfig, Credential, Planted, StartError};
use bellows_proto::node::nodes_client::NodesClient;
use bellows_proto::node::{self as node, FromAgent, ToAgent};
use bellows_proto::operator::operator_client::OperatorClient;
use bellows_proto::operator::{self as operator};
use bellows_proto::types;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status, Streaming};

/// Nothing here takes longer unless it is broken; a test that waits for this has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits, but not for ever.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} did not happen within {PATIENCE:?}"))
}

pub struct House {
    folder: TempDir,
    pub controller: Controller,
}

pub fn config(folder: &Path) -> ControllerConfig {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    ControllerConfig {
        state: folder.join("state"),
        listen: any,
        dashboard: any,
        store: folder.join("store"),
        cluster: "test".to_owned(),
        advertise: vec!["127.0.0.1".to_owned()],
        allowed: Allowed {
            capabilities: vec![Allowance { tenant: Some("trusted".to_owned()), name: "sys_ptrace".to_owned() }],
            calls: vec![Allowance { tenant: None, name: "kcmp".to_owned() }],
        },
        seed: 1,
        planted: Planted::None,
    }
}

impl House {
    pub async fn new() -> Self {
        Self::within(tempfile::tempdir().expect("a temporary folder")).await
    }

    async fn within(folder: TempDir) -> Self {
        let controller = Controller::start(config(folder.path())).await.expect("the controller starts");
        Self { folder, controller }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// As by `kill -9`: nothing is said or flushed. The folder is free once the last batch is written.
    pub async fn killed_and_restarted(self) -> Self {
        let Self { folder, controller } = self;
        drop(controller);
        let started = soon("the restart", async {
            loop {
                match Controller::start(config(folder.path())).await {
                    Err(StartError::FolderInUse { .. }) => tokio::task::yield_now().await,
                    started => return started,
                }
            }
        });
        let controller = started.await.expect("the controller starts again");
        Self { folder, controller }
    }

    pub fn credential(&self) -> Credential {
        Credential::load(self.controller.credential_path()).expect("the credential")
    }

    pub async fn operator(&self) -> OperatorClient<Channel> {
        let credential = self.credential();
        let identity = Identity::from_pem(&credential.certificate_pem, &credential.key_pem);
        OperatorClient::new(self.channel(Some(identity)).await)
    }

    pub async fn channel(&self, identity: Option<Identity>) -> Channel {
        let credential = self.credential();
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&credential.authority_pem))
            .domain_name("bellows-controller");
        let tls = match identity {
            Some(identity) => tls.identity(identity),
            None => tls,
        };
        let endpoint = Endpoint::from_shared(credential.controller).expect("an address").tls_config(tls);
        soon("connecting", endpoint.expect("sound TLS").connect()).await.expect("connected")
    }

    pub async fn token(&self) -> String {
        self.controller.create_token(Duration::from_secs(60)).await.expect("a token")
    }

    /// A server that joined.
    pub async fn join(&self, name: &str) -> Joined {
        let token = self.token().await;
        let secret = token.split('.').nth(1).expect("bellows1.secret.fingerprint").to_owned();
        self.try_join(name, &secret).await.expect("joined")
    }

    pub async fn try_join(&self, name: &str, secret: &str) -> Result<Joined, Status> {
        let key = rcgen::KeyPair::generate().expect("a key");
        let request = rcgen::CertificateParams::new(Vec::new()).expect("no names").serialize_request(&key);
        let request = node::JoinRequest {
            token: secret.to_owned(),
            name: name.to_owned(),
            machine: format!("machine-of-{name}"),
            labels: Default::default(),
            certificate_request_der: request.expect("a request").der().to_vec(),
            protocol: bellows_proto::PROTOCOL,
        };
        let mut client = NodesClient::new(self.channel(None).await);
        let response = soon("joining", client.join(request)).await?.into_inner();
        let identity = Identity::from_pem(&response.certificate_pem, key.serialize_pem());
        Ok(Joined { node: response.node, machine: format!("machine-of-{name}"), identity, response })
    }

    /// Puts an image with one layer into the cluster, and says its digest.
    pub async fn load_image(&self, name: &str) -> String {
        let mut client = self.operator().await;
        let layer = put_blob(&mut client, b"no real layer").await;
        let config = put_blob(&mut client, b"{}").await;
        let manifest =
            format!(r#"{{"schemaVersion":2,"config":{{"digest":"{config}"}},"layers":[{{"digest":"{layer}"}}]}}"#);
        let digest = put_blob(&mut client, manifest.as_bytes()).await;
        let request = operator::RegisterImageRequest { name: name.to_owned(), digest: digest.clone() };
        client.register_image(request).await.expect("registered");
        digest
    }

    pub fn stored_blobs(&self) -> usize {
        std::fs::read_dir(self.path().join("store/blobs/sha256")).expect("the store").count()
    }

    pub fn state(&self) -> PathBuf {
        self.path().join("state")
    }
}

pub fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

pub async fn put_blob(client: &mut OperatorClient<Channel>, bytes: &[u8]) -> String {
    let digest = digest_of(bytes);
    try_put_blob(client, &digest, bytes).await.expect("stored");
    digest
}

pub async fn try_put_blob(client: &mut OperatorClient<Channel>, digest: &str, bytes: &[u8]) -> Result<(), Status> {
    use operator::put_blob_request::Body;
    let digest = operator::PutBlobRequest { body: Some(Body::Digest(digest.to_owned())) };
    let data = bytes.chunks(5).map(|chunk| operator::PutBlobRequest { body: Some(Body::Data(chunk.to_vec())) });
    let messages: Vec<_> = std::iter::once(digest).chain(data).collect();
    client.put_blob(tokio_stream::iter(messages)).await.map(|_| ())
}

/// A spec that passes all checks.
pub fn spec(name: &str, image: &str, replicas: u32) -> types::AppSpec {
    types::AppSpec {
        name: name.to_owned(),
        image: image.to_owned(),
        resources: Some(types::Resources { cpu_milli: 100, memory_bytes: 16 << 20 }),
        processes: 16,
        scratch_bytes: 16 << 20,
        log_bytes: 1 << 20,
        scale: Some(types::app_spec::Scale::Replicas(replicas)),
        stop_grace_ms: 1_000,
        drain_deadline_ms: 5_000,
        ..Default::default()
    }
}

pub fn apply(spec: types::AppSpec) -> operator::ApplyRequest {
    operator::ApplyRequest { spec: Some(spec), ..Default::default() }
}

pub fn scale(app: &str, replicas: u32) -> operator::ScaleRequest {
    operator::ScaleRequest { app: app.to_owned(), replicas, ..Default::default() }
}

/// A node's identity.
pub struct Joined {
    pub node: u32,
    pub machine: String,
    pub identity: Identity,
    pub response: node::JoinResponse,
}

/// An agent that does what it is told at once, and says so.
pub struct Agent {
    sender: mpsc::Sender<FromAgent>,
    stream: Streaming<ToAgent>,
    pub greeting: node::Greeting,
    pub specs: Vec<node::Spec>,
    replicas: Replicas,
}

type Replicas = BTreeMap<u64, node::ReplicaReport>;

fn from_agent(body: node::from_agent::Body) -> FromAgent {
    FromAgent { body: Some(body) }
}

pub fn open_as(machine: &str, fence: types::Fence) -> FromAgent {
    let protocol = bellows_proto::PROTOCOL;
    let (machine, fence) = (machine.to_owned(), Some(fence));
    let (boot, instance) = ("boot-1".to_owned(), format!("of {machine}"));
    from_agent(node::from_agent::Body::Open(node::Open { protocol, machine, fence, boot, instance }))
}

/// Says these words and hears the first answer.
pub async fn first_answer(house: &House, joined: &Joined, words: Vec<FromAgent>) -> Option<node::to_agent::Body> {
    let mut client = NodesClient::new(house.channel(Some(joined.identity.clone())).await);
    let (sender, receiver) = mpsc::channel(16);
    let mut stream = client.session(ReceiverStream::new(receiver)).await.expect("a stream").into_inner();
    for word in words {
        sender.send(word).await.expect("an open stream");
    }
    soon("an answer", stream.message()).await.expect("no error").and_then(|message| message.body)
}

impl Agent {
    /// Open, Greeting, Hello.
    pub async fn connect(house: &House, joined: &Joined) -> Self {
        Self::connect_with(house, joined, types::Fence::default(), Default::default()).await
    }

    /// Comes back with what it runs and the fence that it has obeyed.
    pub async fn reconnect(self, house: &House, joined: &Joined) -> Self {
        let fence = self.greeting.fence.expect("a fence");
        let mut agent = Self::connect_with(house, joined, fence, self.replicas).await;
        agent.report(0).await;
        agent
    }

    async fn connect_with(house: &House, joined: &Joined, fence: types::Fence, replicas: Replicas) -> Self {
        let mut client = NodesClient::new(house.channel(Some(joined.identity.clone())).await);
        let (sender, receiver) = mpsc::channel(64);
        let stream = soon("the session", client.session(ReceiverStream::new(receiver))).await.expect("a session");
        let mut stream = stream.into_inner();
        sender.send(open_as(&joined.machine, fence)).await.expect("an open stream");
        let greeting = match soon("the greeting", stream.message()).await.expect("no error").and_then(|m| m.body) {
            Some(node::to_agent::Body::Greeting(greeting)) => greeting,
            other => panic!("no greeting but {other:?}"),
        };
        let hello = node::Hello {
            fence: greeting.fence,
            session: greeting.session,
            boot: "boot-1".to_owned(),
            capacity: Some(types::Resources { cpu_milli: 8_000, memory_bytes: 8 << 30 }),
            version: "test".to_owned(),
            inventory: replicas.values().cloned().collect(),
            ..Default::default()
        };
        sender.send(from_agent(node::from_agent::Body::Hello(hello))).await.expect("an open stream");
        Self { sender, stream, greeting, specs: Vec::new(), replicas }
    }

    /// The next orders.
    pub async fn orders(&mut self) -> Vec<node::Order> {
        loop {
            match soon("an order", self.stream.message()).await.expect("no error").and_then(|m| m.body) {
                Some(node::to_agent::Body::Orders(batch)) => {
                    assert_eq!(batch.session, self.greeting.session);
                    assert_eq!(batch.fence, self.greeting.fence);
                    self.specs.extend(batch.specs);
                    return batch.orders;
                }
                Some(node::to_agent::Body::Acknowledge(_)) => {}
                other => panic!("no orders but {other:?}"),
            }
        }
    }

    /// Obeys at once, and reports what came of it.
    pub async fn obey(&mut self, orders: &[node::Order]) {
        use node::order::Action;
        let mut acknowledged = 0;
        for order in orders {
            acknowledged = acknowledged.max(order.sequence);
            let id = order.replica.expect("a replica");
            let report = match order.action.as_ref().expect("an action") {
                Action::Start(start) => started(id, order, start),
                action => {
                    let report = self.replicas.get(&id.counter).expect("a replica that was started").clone();
                    changed(report, action)
                }
            };
            let report = node::ReplicaReport {
                obeyed_fence: self.greeting.fence,
                obeyed_session: self.greeting.session,
                obeyed_sequence: order.sequence,
                ..report
            };
            self.replicas.insert(id.counter, report);
        }
        self.report(acknowledged).await;
    }

    pub async fn report(&mut self, acknowledged: u64) {
        let used = types::Resources { cpu_milli: 100, memory_bytes: 64 << 20 };
        let report = node::Report {
            session: self.greeting.session,
            acknowledged,
            load: Some(node::NodeUse { used: Some(used), age_ms: 0, pressure_permille: None }),
            replicas: self.replicas.values().cloned().collect(),
            refused: Vec::new(),
            allowed: 0,
        };
        self.say(node::from_agent::Body::Report(report)).await;
    }

    pub async fn say(&mut self, body: node::from_agent::Body) {
        self.sender.send(from_agent(body)).await.expect("an open stream");
    }

    pub async fn next(&mut self) -> Option<node::to_agent::Body> {
        soon("a message", self.stream.message()).await.expect("no error").and_then(|message| message.body)
    }
}

fn started(id: types::ReplicaId, order: &node::Order, start: &node::Start) -> node::ReplicaReport {
    node::ReplicaReport {
        id: Some(id),
        app: start.app,
        revision: start.revision,
        spec_digest: start.spec_digest.clone(),
        attempt: 1,
        lifecycle: types::Lifecycle::Running.into(),
        ready: true,
        activity: Some(types::Activity { busy: false, requests: 0, idle_ms: 5_000 }),
        address: "10.0.0.2".to_owned(),
        resources: Some(types::Resources { cpu_milli: 100, memory_bytes: 16 << 20 }),
        reason: order.reason.clone(),
        ..Default::default()
    }
}

fn changed(mut report: node::ReplicaReport, action: &node::order::Action) -> node::ReplicaReport {
    match action {
        node::order::Action::Park(_) => report.parked = true,
        node::order::Action::Unpark(_) => report.parked = false,
        node::order::Action::Stop(_) => {
            report.lifecycle = types::Lifecycle::Ended.into();
            report.ready = false;
            let why = types::Reason { code: "stopped".to_owned(), text: "ordered".to_owned() };
            let exit = Some(types::ended::Exit::Code(0));
            report.ended = Some(types::Ended { exit, why: Some(why), at_unix_ms: 1, wanted: true });
        }
        node::order::Action::Start(_) => unreachable!("handled by started"),
    }
    report
}

pub fn request<T>(message: T) -> Request<T> {
    Request::new(message)
}
