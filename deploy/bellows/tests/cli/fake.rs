//! A controller made of memory: mutual TLS as the real one, answers from a table, everything that was asked is remembered.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bellows_proto::operator::operator_server::{Operator, OperatorServer};
use bellows_proto::operator::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use crate::run::{Outcome, bellows};

type Answer<T> = Result<Response<T>, Status>;
type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the controller heard and shall say.
#[derive(Default)]
pub struct Memory {
    /// Method and request, in order.
    pub heard: Mutex<Vec<String>>,
    /// Said instead of the next answers.
    pub refusals: Mutex<VecDeque<Status>>,
    /// Bytes by digest.
    pub blobs: Mutex<BTreeMap<String, usize>>,
    /// How often the nodes were listed: they empty with time.
    looks: Mutex<u32>,
    /// How often use was read: the counters grow.
    readings: Mutex<u32>,
}

/// A running fake with a home folder in which the credential lies.
pub struct Fake {
    pub memory: Arc<Memory>,
    pub home: TempDir,
    pub address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

/// One authority for server and people.
pub struct Trust {
    authority: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Trust {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let authority = params.self_signed(&key).expect("a certificate").pem();
        Self { authority, issuer: Issuer::new(params, key) }
    }

    fn identity(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a DNS name");
        (params.signed_by(&key, &self.issuer).expect("a certificate").pem(), key.serialize_pem())
    }

    /// Writes a credential for `address` where the executable looks for it.
    pub fn write_credential(&self, home: &Path, address: SocketAddr) {
        let (certificate, key) = self.identity("admin");
        let folder = home.join(".config/bellows");
        std::fs::create_dir_all(&folder).expect("a temporary folder");
        let credential = serde_json::json!({
            "controller": format!("https://{address}"),
            "authority_pem": self.authority,
            "certificate_pem": certificate,
            "key_pem": key,
            "name": "fake",
        });
        std::fs::write(folder.join("credential.json"), credential.to_string()).expect("a temporary file");
    }
}

impl Fake {
    pub fn start() -> Self {
        Self::trusting(Arc::new(Trust::new()))
    }

    pub fn trusting(trust: Arc<Trust>) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let memory = Arc::new(Memory::default());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("a bound socket");
        let home = tempfile::tempdir().expect("a temporary folder");
        trust.write_credential(home.path(), address);
        runtime.spawn(serve(listener, Heard(memory.clone()), trust));
        Self { memory, home, address, _runtime: runtime }
    }

    /// Runs the executable against this controller.
    pub fn run(&self, words: &[&str]) -> Outcome {
        bellows(self.home.path(), words)
    }

    /// The next request gets this instead of its answer.
    pub fn refuse(&self, status: Status) {
        self.memory.refusals.lock().expect("no panic while held").push_back(status);
    }

    pub fn heard(&self) -> Vec<String> {
        self.memory.heard.lock().expect("no panic while held").clone()
    }
}

async fn serve(listener: std::net::TcpListener, heard: Heard, trust: Arc<Trust>) {
    let (certificate, key) = trust.identity("bellows-controller");
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(certificate, key))
        .client_ca_root(Certificate::from_pem(&trust.authority));
    let listener = tokio::net::TcpListener::from_std(listener).expect("a non-blocking socket");
    let server = Server::builder().tls_config(tls).expect("sound certificates").add_service(OperatorServer::new(heard));
    server.serve_with_incoming(TcpListenerStream::new(listener)).await.expect("the fake serves until the test ends");
}

struct Heard(Arc<Memory>);

impl Heard {
    fn hear(&self, method: &str, request: &impl std::fmt::Debug) -> Result<(), Status> {
        self.0.heard.lock().expect("no panic while held").push(format!("{method} {request:?}"));
        match self.0.refusals.lock().expect("no panic while held").pop_front() {
            Some(status) => Err(status),
            None => Ok(()),
        }
    }
}

fn known(app: &str) -> Result<(), Status> {
    match app {
        "web" | "slow" | "" => Ok(()),
        other => Err(Status::not_found(format!(
            "there is no app \"{other}\" in tenant \"default\"; `bellows apps` lists them"
        ))),
    }
}

fn changed(generation: u64) -> AppChanged {
    AppChanged { id: 1, generation, changed: true, image_digest: format!("sha256:{}", "ab".repeat(32)) }
}

fn streamed<T: Send + 'static>(items: Vec<T>) -> Streamed<T> {
    Box::pin(tokio_stream::iter(items.into_iter().map(Ok)))
}

#[tonic::async_trait]
impl Operator for Heard {
    async fn apply(&self, request: Request<ApplyRequest>) -> Answer<AppChanged> {
        let request = request.into_inner();
        self.hear("Apply", &request)?;
        Ok(Response::new(changed(request.expected_generation.unwrap_or(6) + 1)))
    }

    async fn scale(&self, request: Request<ScaleRequest>) -> Answer<AppChanged> {
        let request = request.into_inner();
        self.hear("Scale", &request)?;
        known(&request.app)?;
        Ok(Response::new(changed(8)))
    }

    async fn remove_app(&self, request: Request<RemoveAppRequest>) -> Answer<AppChanged> {
        let request = request.into_inner();
        self.hear("RemoveApp", &request)?;
        known(&request.app)?;
        Ok(Response::new(changed(9)))
    }

    async fn list_apps(&self, request: Request<ListAppsRequest>) -> Answer<ListAppsResponse> {
        self.hear("ListApps", request.get_ref())?;
        Ok(Response::new(ListAppsResponse { apps: crate::verbs::some_apps() }))
    }

    async fn list_replicas(&self, request: Request<ListReplicasRequest>) -> Answer<ListReplicasResponse> {
        let request = request.into_inner();
        self.hear("ListReplicas", &request)?;
        known(&request.app)?;
        let mut replicas = crate::verbs::some_replicas();
        replicas.retain(|replica| request.ended || replica.ended.is_none());
        Ok(Response::new(ListReplicasResponse { replicas }))
    }

    async fn list_nodes(&self, request: Request<ListNodesRequest>) -> Answer<ListNodesResponse> {
        self.hear("ListNodes", request.get_ref())?;
        let mut looks = self.0.looks.lock().expect("no panic while held");
        let mut nodes = crate::verbs::some_nodes();
        nodes[0].replicas = nodes[0].replicas.saturating_sub(*looks);
        *looks += 1;
        Ok(Response::new(ListNodesResponse { nodes }))
    }

    type AwaitStream = Streamed<AwaitProgress>;

    async fn r#await(&self, request: Request<AwaitRequest>) -> Answer<Self::AwaitStream> {
        let request = request.into_inner();
        self.hear("Await", &request)?;
        if request.generation == 9 {
            return Err(Status::not_found("gone"));
        }
        let reason = Some(crate::verbs::reason("no_room", "no node has 250m of CPU left"));
        let begun = AwaitProgress { wanted: 5, ready: 1, surplus: 0, settled: false, reason };
        let settled = AwaitProgress { ready: 5, settled: true, reason: None, ..begun.clone() };
        let stream: Streamed<AwaitProgress> = match request.app.as_str() {
            "slow" => Box::pin(streamed(vec![begun]).chain(tokio_stream::pending())),
            _ => streamed(vec![begun, settled]),
        };
        Ok(Response::new(stream))
    }

    type EventsStream = Streamed<Event>;

    async fn events(&self, request: Request<EventsRequest>) -> Answer<Self::EventsStream> {
        let request = request.into_inner();
        self.hear("Events", &request)?;
        let mut events = crate::verbs::some_events();
        events.retain(|event| event.sequence > request.after);
        match request.follow {
            true => Ok(Response::new(Box::pin(streamed(events).chain(tokio_stream::pending())))),
            false => Ok(Response::new(streamed(events))),
        }
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Answer<ExplainResponse> {
        let request = request.into_inner();
        self.hear("Explain", &request)?;
        known(&request.subject)?;
        let one = Explanation {
            question: "Why 5 copies?".to_owned(),
            answer: "CPU: 5 copies at 58% are nearest to the target of 60%.".to_owned(),
            facts: vec!["reading 300 ms old".to_owned(), "max is 20".to_owned()],
        };
        Ok(Response::new(ExplainResponse { subject: request.subject, explanations: vec![one] }))
    }

    type LogsStream = Streamed<LogChunk>;

    async fn logs(&self, request: Request<LogsRequest>) -> Answer<Self::LogsStream> {
        self.hear("Logs", request.get_ref())?;
        let chunks = ["one\ntw", "o\n"].map(|text| LogChunk { data: text.as_bytes().to_vec(), ..LogChunk::default() });
        Ok(Response::new(streamed(chunks.to_vec())))
    }

    type ExecStream = Streamed<ExecResponse>;

    /// Says what it was asked to execute, repeats its input, and returns 7; `missing` is not there.
    async fn exec(&self, request: Request<Streaming<ExecRequest>>) -> Answer<Self::ExecStream> {
        use exec_response::Body;
        let mut requests = request.into_inner();
        let begin = requests.message().await?.unwrap_or_default();
        self.hear("Exec", &begin)?;
        let Some(exec_request::Body::Begin(begin)) = begin.body else { return Err(Status::invalid_argument("begin")) };
        let execution = begin.execution.unwrap_or_default();
        let (say, said) = tokio::sync::mpsc::channel(64);
        tokio::spawn(async move {
            let mut bodies = vec![Body::Started(ExecStarted {})];
            if execution.command[0] == "missing" {
                let text = "there is no missing".to_owned();
                bodies = vec![Body::NotExecuted(bellows_proto::types::NotExecuted { missing: true, text })];
            }
            let mut speaks = execution.input;
            while speaks {
                use bellows_proto::types::{Input, input::Part};
                let request = requests.message().await.expect("the command speaks on").and_then(|request| request.body);
                match request {
                    Some(exec_request::Body::Input(Input { part: Some(Part::Data(data)) })) => {
                        bodies.push(Body::Output(data))
                    }
                    _ => speaks = false,
                }
            }
            let how = Some(bellows_proto::types::exited::How::Code(7));
            bodies.extend([Body::Errors(b"wrong\n".to_vec()), Body::Exited(bellows_proto::types::Exited { how })]);
            for body in bodies {
                // The command ends when it has heard enough.
                let _ = say.send(Ok(ExecResponse { body: Some(body) })).await;
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(said))))
    }

    /// The counters have grown between two looks, a second of the node's clock apart.
    async fn stats(&self, request: Request<StatsRequest>) -> Answer<StatsResponse> {
        self.hear("Stats", request.get_ref())?;
        let looks = {
            let mut looks = self.0.readings.lock().expect("no panic while held");
            *looks += 1;
            u64::from(*looks)
        };
        let usage = bellows_proto::types::Usage {
            replica: crate::verbs::id(57),
            attempt: 1,
            at_ms: 5_000 + looks * 1_000,
            cpu_us: looks * 250_000,
            memory_bytes: 12 << 20,
            memory_peak_bytes: 16 << 20,
            processes: 3,
            read_bytes: looks * 4_096,
            received_bytes: looks * 1_000,
            sent_bytes: looks * 2_000,
            limits: Some(bellows_proto::types::Resources { cpu_milli: 500, memory_bytes: 64 << 20 }),
            ..Default::default()
        };
        let usages = vec![ReplicaUsage { usage: Some(usage), app: "web".to_owned(), node: "node-1".to_owned() }];
        Ok(Response::new(StatsResponse { usages, unheard: vec!["node-2".to_owned()] }))
    }

    async fn freeze(&self, request: Request<FreezeRequest>) -> Answer<FreezeResponse> {
        self.hear("Freeze", request.get_ref())?;
        Ok(Response::new(FreezeResponse { memory_before_bytes: 12 << 20, memory_after_bytes: 3 << 20 }))
    }

    type CopyStream = Streamed<CopyResponse>;

    /// Nothing can be copied in memory.
    async fn copy(&self, request: Request<Streaming<CopyRequest>>) -> Answer<Self::CopyStream> {
        let begin = request.into_inner().message().await?;
        self.hear("Copy", &begin)?;
        Err(Status::failed_precondition("there is no /srv/none in the replica"))
    }

    async fn set_node_state(&self, request: Request<SetNodeStateRequest>) -> Answer<NodeChanged> {
        self.hear("SetNodeState", request.get_ref())?;
        Ok(Response::new(NodeChanged { id: 1 }))
    }

    async fn remove_node(&self, request: Request<RemoveNodeRequest>) -> Answer<NodeChanged> {
        self.hear("RemoveNode", request.get_ref())?;
        Ok(Response::new(NodeChanged { id: 1 }))
    }

    async fn missing_blobs(&self, request: Request<MissingBlobsRequest>) -> Answer<MissingBlobsResponse> {
        self.hear("MissingBlobs", &"")?;
        let blobs = self.0.blobs.lock().expect("no panic while held");
        let digests = request.into_inner().digests.into_iter().filter(|digest| !blobs.contains_key(digest)).collect();
        Ok(Response::new(MissingBlobsResponse { digests }))
    }

    async fn put_blob(&self, request: Request<Streaming<PutBlobRequest>>) -> Answer<PutBlobResponse> {
        self.hear("PutBlob", &"")?;
        let mut stream = request.into_inner();
        let (mut digest, mut data) = (String::new(), Vec::new());
        while let Some(message) = stream.message().await? {
            match message.body {
                Some(put_blob_request::Body::Digest(text)) => digest = text,
                Some(put_blob_request::Body::Data(bytes)) => data.extend(bytes),
                None => return Err(Status::invalid_argument("an empty message")),
            }
        }
        if digest != format!("sha256:{}", hex::encode(Sha256::digest(&data))) {
            return Err(Status::invalid_argument(format!("{digest} has other bytes")));
        }
        self.0.blobs.lock().expect("no panic while held").insert(digest, data.len());
        Ok(Response::new(PutBlobResponse {}))
    }

    async fn register_image(&self, request: Request<RegisterImageRequest>) -> Answer<RegisterImageResponse> {
        self.hear("RegisterImage", request.get_ref())?;
        Ok(Response::new(RegisterImageResponse {}))
    }

    async fn list_images(&self, request: Request<ListImagesRequest>) -> Answer<ListImagesResponse> {
        self.hear("ListImages", request.get_ref())?;
        let image = Image {
            name: "web:1.2".to_owned(),
            digest: changed(1).image_digest,
            size_bytes: 5 << 20,
            at_unix_ms: 1_700_000_000_000,
        };
        Ok(Response::new(ListImagesResponse { images: vec![image] }))
    }

    async fn remove_image(&self, request: Request<RemoveImageRequest>) -> Answer<RemoveImageResponse> {
        self.hear("RemoveImage", request.get_ref())?;
        Ok(Response::new(RemoveImageResponse {}))
    }

    async fn create_token(&self, request: Request<CreateTokenRequest>) -> Answer<CreateTokenResponse> {
        self.hear("CreateToken", request.get_ref())?;
        Ok(Response::new(CreateTokenResponse { token: "bellows-token".to_owned(), expires_unix_ms: 1_700_000_000_000 }))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Answer<StatusResponse> {
        self.hear("Status", request.get_ref())?;
        Ok(Response::new(crate::verbs::some_status()))
    }
}
