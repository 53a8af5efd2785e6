//! What people and services say. Only operators get here (see `auth::require_operator`).

use bellows_core::ids::{Generation, ReplicaId};
use bellows_core::input::Request as Change;
use bellows_core::model::command::{NodeState, Outcome};
use bellows_core::units::{Bytes, Millis};
use bellows_proto::{node, operator as wire};
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status, Streaming};
use wire::operator_server::Operator;

use super::calls::{Ask, Reply};
use super::streams::{self, Answers};
use super::{Services, executions, images, stats, status_of_refusal, token};
use crate::auth::caller;
use crate::convert::{Malformed, check_spec_size, check_text, replica_id_from_wire, spec_digest, spec_from_wire};
use crate::driver::Question;

/// A UUID has 36 bytes; people may use longer words.
const MAX_KEY_BYTES: usize = 256;
/// An app's, a node's or an image's name. What may stand in it is the core's to say.
const MAX_NAME_BYTES: usize = 512;
/// When nobody says: ten minutes for a drain.
const DEFAULT_DRAIN: Millis = Millis(600_000);

/// The operator service.
pub(super) struct OperatorService(pub(super) Services);

/// What was decided, or a refusal as a status.
pub(crate) fn accepted(outcome: Outcome) -> Result<Outcome, Status> {
    match outcome {
        Outcome::Refused(refusal) => Err(status_of_refusal(&refusal)),
        outcome => Ok(outcome),
    }
}

/// Nobody said which tenant: the default one.
fn tenant(named: String) -> String {
    if named.is_empty() { "default".to_owned() } else { named }
}

fn named(field: &str, text: String) -> Result<String, Status> {
    if text.is_empty() {
        return Err(Malformed::new(field, "is empty").into());
    }
    check_text(field, &text, MAX_NAME_BYTES)?;
    Ok(text)
}

impl OperatorService {
    async fn change<T>(&self, request: &Request<T>, key: &str, change: Change) -> Result<Outcome, Status> {
        check_text("idempotency_key", key, MAX_KEY_BYTES)?;
        let by = caller(request)?.name();
        accepted(self.0.driver.request(&by, key, change).await?)
    }

    async fn app_changed<T>(
        &self,
        request: &Request<T>,
        key: &str,
        change: Change,
    ) -> Result<wire::AppChanged, Status> {
        match self.change(request, key, change).await? {
            Outcome::App { app, generation, changed } => {
                Ok(wire::AppChanged { id: app.0, generation: generation.0, changed, image_digest: String::new() })
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn node_changed<T>(
        &self,
        request: &Request<T>,
        key: &str,
        change: Change,
    ) -> Result<Response<wire::NodeChanged>, Status> {
        match self.change(request, key, change).await? {
            Outcome::Node { node } => Ok(Response::new(wire::NodeChanged { id: node.0 })),
            Outcome::Done => Ok(Response::new(wire::NodeChanged { id: 0 })),
            other => Err(unexpected(&other)),
        }
    }

    async fn resolve_image(&self, name: &str) -> Result<String, Status> {
        let name = name.to_owned();
        self.0.driver.ask(|answer| Question::ResolveImage { name, answer }).await
    }
}

/// The core answered another question than was asked: a defect, told as one.
fn unexpected(outcome: &Outcome) -> Status {
    Status::internal(format!(
        "the core answered {outcome:?}, which does not belong to this request; please report this"
    ))
}

fn log_chunk(reply: node::CallReply) -> wire::LogChunk {
    let node::CallReply { body, position, notice, .. } = reply;
    let data = if let Some(Reply::Data(data)) = body { data } else { Vec::new() };
    wire::LogChunk { data, position, notice }
}

#[tonic::async_trait]
impl Operator for OperatorService {
    async fn apply(&self, request: Request<wire::ApplyRequest>) -> Result<Response<wire::AppChanged>, Status> {
        let asked = request.get_ref().clone();
        let spec = asked.spec.ok_or_else(|| Malformed::new("spec", "is missing"))?;
        check_spec_size(&spec).map_err(|malformed| malformed.within("spec"))?;
        let mut spec = spec_from_wire(spec).map_err(|malformed| malformed.within("spec"))?;
        spec.tenant = tenant(spec.tenant);
        if let Some((field, flag, name)) = self.0.allowed.refused(&spec) {
            let problem = format!(
                "\"{name}\" is more than copies of tenant {} have; remove it, or let whoever answers for the cluster start its controller with {flag} {name}",
                spec.tenant
            );
            return Err(Malformed::new(format!("spec.security.{field}"), problem).into());
        }
        named("spec.image", spec.image.clone())?;
        if spec.image_digest.is_empty() {
            spec.image_digest = self.resolve_image(&spec.image).await?;
        } else {
            self.resolve_image(&spec.image_digest).await?;
        }
        let (spec, expected) = (Box::new(spec), asked.expected_generation);
        if asked.dry_run {
            let changed = self.0.driver.ask(|answer| Question::DryRun { spec, expected, answer }).await?;
            return Ok(Response::new(changed));
        }
        let (digest, image_digest) = (spec_digest(&spec), spec.image_digest.clone());
        let change = Change::Apply { spec, digest, expected: expected.map(Generation) };
        let changed = self.app_changed(&request, &asked.idempotency_key, change).await?;
        Ok(Response::new(wire::AppChanged { image_digest, ..changed }))
    }

    async fn scale(&self, request: Request<wire::ScaleRequest>) -> Result<Response<wire::AppChanged>, Status> {
        let asked = request.get_ref().clone();
        let change = Change::Scale {
            tenant: tenant(asked.tenant),
            name: named("app", asked.app)?,
            replicas: asked.replicas,
            expected: asked.expected_generation.map(Generation),
        };
        Ok(Response::new(self.app_changed(&request, &asked.idempotency_key, change).await?))
    }

    async fn remove_app(&self, request: Request<wire::RemoveAppRequest>) -> Result<Response<wire::AppChanged>, Status> {
        let asked = request.get_ref().clone();
        let change = Change::Remove {
            tenant: tenant(asked.tenant),
            name: named("app", asked.app)?,
            expected: asked.expected_generation.map(Generation),
        };
        Ok(Response::new(self.app_changed(&request, &asked.idempotency_key, change).await?))
    }

    async fn list_apps(&self, _: Request<wire::ListAppsRequest>) -> Result<Response<wire::ListAppsResponse>, Status> {
        let apps = self.0.driver.ask(Question::Apps).await?;
        Ok(Response::new(wire::ListAppsResponse { apps }))
    }

    async fn list_replicas(
        &self,
        request: Request<wire::ListReplicasRequest>,
    ) -> Result<Response<wire::ListReplicasResponse>, Status> {
        let asked = request.into_inner();
        let (tenant, app, ended) = (tenant(asked.tenant), asked.app, asked.ended);
        let replicas = self.0.driver.ask(|answer| Question::Replicas { tenant, app, ended, answer }).await?;
        Ok(Response::new(wire::ListReplicasResponse { replicas }))
    }

    async fn list_nodes(
        &self,
        _: Request<wire::ListNodesRequest>,
    ) -> Result<Response<wire::ListNodesResponse>, Status> {
        let nodes = self.0.driver.ask(Question::Nodes).await?;
        Ok(Response::new(wire::ListNodesResponse { nodes }))
    }

    type AwaitStream = Answers<wire::AwaitProgress>;

    async fn r#await(&self, request: Request<wire::AwaitRequest>) -> Result<Response<Self::AwaitStream>, Status> {
        let mut asked = request.into_inner();
        asked.tenant = tenant(asked.tenant);
        asked.app = named("app", asked.app)?;
        Ok(Response::new(streams::await_settled(self.0.driver.clone(), asked)))
    }

    type EventsStream = Answers<wire::Event>;

    async fn events(&self, request: Request<wire::EventsRequest>) -> Result<Response<Self::EventsStream>, Status> {
        Ok(Response::new(streams::events(self.0.driver.clone(), request.into_inner())))
    }

    async fn explain(&self, request: Request<wire::ExplainRequest>) -> Result<Response<wire::ExplainResponse>, Status> {
        let asked = request.into_inner();
        let (tenant, subject) = (tenant(asked.tenant), named("subject", asked.subject)?);
        let asked = subject.clone();
        let explanations = self.0.driver.ask(|answer| Question::Explain { tenant, subject: asked, answer }).await?;
        Ok(Response::new(wire::ExplainResponse { subject, explanations }))
    }

    type LogsStream = Answers<wire::LogChunk>;

    async fn logs(&self, request: Request<wire::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let asked = request.into_inner();
        let replica: ReplicaId = replica_id_from_wire("replica", asked.replica)?;
        let node_id = self.0.driver.ask(|answer| Question::Owner { replica, answer }).await?;
        let wire::LogsRequest { replica, follow, tail_lines, from, since_unix_ms, previous } = asked;
        let ask = node::LogsCall { replica, follow, tail_lines, from, since_unix_ms, previous };
        let call = self.0.calls.open(node_id, Ask::Logs(ask))?;
        Ok(Response::new(Box::pin(call.map(|reply| reply.map(log_chunk)))))
    }

    type ExecStream = Answers<wire::ExecResponse>;

    async fn exec(&self, request: Request<Streaming<wire::ExecRequest>>) -> Result<Response<Self::ExecStream>, Status> {
        Ok(Response::new(executions::execute(&self.0, request.into_inner()).await?))
    }

    async fn stats(&self, request: Request<wire::StatsRequest>) -> Result<Response<wire::StatsResponse>, Status> {
        let wire::StatsRequest { tenant: named, subject } = request.into_inner();
        Ok(Response::new(stats::collect(&self.0, tenant(named), subject).await?))
    }

    async fn freeze(&self, request: Request<wire::FreezeRequest>) -> Result<Response<wire::FreezeResponse>, Status> {
        let wire::FreezeRequest { replica, frozen, force } = request.into_inner();
        let id: ReplicaId = replica_id_from_wire("replica", replica)?;
        let owner = self.0.driver.ask(|answer| Question::Owner { replica: id, answer }).await?;
        let mut call = self.0.calls.open(owner, Ask::Freeze(node::FreezeCall { replica, frozen, force }))?;
        match call.next().await.transpose()? {
            Some(node::CallReply { body: Some(Reply::Frozen(told)), .. }) => {
                let node::Frozen { memory_before_bytes, memory_after_bytes } = told;
                Ok(Response::new(wire::FreezeResponse { memory_before_bytes, memory_after_bytes }))
            }
            _ => Err(Status::internal("the agent did not say what became of it; is it older than this controller?")),
        }
    }

    type CopyStream = Answers<wire::CopyResponse>;

    async fn copy(&self, request: Request<Streaming<wire::CopyRequest>>) -> Result<Response<Self::CopyStream>, Status> {
        Ok(Response::new(executions::copy(&self.0, request.into_inner()).await?))
    }

    async fn set_node_state(
        &self,
        request: Request<wire::SetNodeStateRequest>,
    ) -> Result<Response<wire::NodeChanged>, Status> {
        use wire::set_node_state_request::State;
        let asked = request.get_ref().clone();
        let patience = if asked.deadline_ms == 0 { DEFAULT_DRAIN } else { Millis(asked.deadline_ms) };
        let state = match State::try_from(asked.state) {
            Ok(State::Active) => NodeState::Active,
            Ok(State::Cordoned) => NodeState::Cordoned,
            Ok(State::Draining) => NodeState::Draining { deadline: self.0.clock.now() + patience },
            Ok(State::Unspecified) | Err(_) => {
                return Err(Malformed::new("state", "is none of active, cordoned, draining").into());
            }
        };
        let change = Change::SetNodeState { node: named("node", asked.node)?, state };
        self.node_changed(&request, &asked.idempotency_key, change).await
    }

    async fn remove_node(
        &self,
        request: Request<wire::RemoveNodeRequest>,
    ) -> Result<Response<wire::NodeChanged>, Status> {
        let asked = request.get_ref().clone();
        let change = Change::RemoveNode { node: named("node", asked.node)? };
        self.node_changed(&request, &asked.idempotency_key, change).await
    }

    async fn missing_blobs(
        &self,
        request: Request<wire::MissingBlobsRequest>,
    ) -> Result<Response<wire::MissingBlobsResponse>, Status> {
        let digests = images::missing(self.0.blobs.clone(), request.into_inner().digests).await?;
        Ok(Response::new(wire::MissingBlobsResponse { digests }))
    }

    async fn put_blob(
        &self,
        request: Request<Streaming<wire::PutBlobRequest>>,
    ) -> Result<Response<wire::PutBlobResponse>, Status> {
        images::put(self.0.blobs.clone(), request.into_inner()).await?;
        Ok(Response::new(wire::PutBlobResponse {}))
    }

    async fn register_image(
        &self,
        request: Request<wire::RegisterImageRequest>,
    ) -> Result<Response<wire::RegisterImageResponse>, Status> {
        let asked = request.get_ref().clone();
        let name = named("name", asked.name)?;
        let size = images::check(self.0.blobs.clone(), &asked.digest).await?;
        let change = Change::RegisterImage { name, digest: asked.digest, size: Bytes(size) };
        self.change(&request, "", change).await?;
        Ok(Response::new(wire::RegisterImageResponse {}))
    }

    async fn list_images(
        &self,
        _: Request<wire::ListImagesRequest>,
    ) -> Result<Response<wire::ListImagesResponse>, Status> {
        let images = self.0.driver.ask(Question::Images).await?;
        Ok(Response::new(wire::ListImagesResponse { images }))
    }

    async fn remove_image(
        &self,
        request: Request<wire::RemoveImageRequest>,
    ) -> Result<Response<wire::RemoveImageResponse>, Status> {
        let name = named("name", request.get_ref().name.clone())?;
        self.change(&request, "", Change::RemoveImage { name }).await?;
        Ok(Response::new(wire::RemoveImageResponse {}))
    }

    async fn create_token(
        &self,
        request: Request<wire::CreateTokenRequest>,
    ) -> Result<Response<wire::CreateTokenResponse>, Status> {
        let by = caller(&request)?.name();
        let (token, expires) = token::create_token(&self.0, &by, Millis(request.get_ref().valid_ms)).await?;
        Ok(Response::new(wire::CreateTokenResponse { token, expires_unix_ms: expires.0 }))
    }

    async fn status(&self, _: Request<wire::StatusRequest>) -> Result<Response<wire::StatusResponse>, Status> {
        Ok(Response::new(self.0.driver.ask(Question::Status).await?))
    }
}
