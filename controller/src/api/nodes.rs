//! What agents say. Every call but `Join` needs the certificate of a node that the cluster knows.

use bellows_core::ids::NodeId;
use bellows_proto::node as wire;
use bellows_proto::types::BlobChunk;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use wire::nodes_server::Nodes;

use super::streams::Answers;
use super::{Services, images, join, session};
use crate::auth::{Caller, caller};
use crate::driver::Question;

/// The node service.
pub(super) struct NodeService(pub(super) Services);

impl NodeService {
    fn node<T>(request: &Request<T>) -> Result<NodeId, Status> {
        match caller(request)? {
            Caller::Node(node) => Ok(node),
            other => Err(Status::permission_denied(format!("{} is no node; only agents make this call", other.name()))),
        }
    }

    /// A removed node keeps its certificate, but gets nothing for it.
    async fn member<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        let node = Self::node(request)?;
        self.0.driver.ask(|answer| Question::Membership { node, answer }).await?;
        Ok(node)
    }
}

#[tonic::async_trait]
impl Nodes for NodeService {
    async fn join(&self, request: Request<wire::JoinRequest>) -> Result<Response<wire::JoinResponse>, Status> {
        Ok(Response::new(join::join(&self.0, request.into_inner()).await?))
    }

    type SessionStream = Answers<wire::ToAgent>;

    async fn session(
        &self,
        request: Request<Streaming<wire::FromAgent>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let node = Self::node(&request)?;
        Ok(Response::new(session::serve(self.0.driver.clone(), node, request.into_inner())))
    }

    type CallsStream = Answers<wire::Call>;

    async fn calls(&self, request: Request<Streaming<wire::CallReply>>) -> Result<Response<Self::CallsStream>, Status> {
        let node = self.member(&request).await?;
        let mut replies = request.into_inner();
        let (line, asked) = self.0.calls.connect(node);
        let calls = self.0.calls.clone();
        tokio::spawn(async move {
            // An error is the end of the stream as well.
            while let Ok(Some(reply)) = replies.message().await {
                calls.reply(node, line, reply).await;
            }
            calls.disconnect(node, line);
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(asked))))
    }

    type FetchBlobStream = Answers<BlobChunk>;

    async fn fetch_blob(
        &self,
        request: Request<wire::FetchBlobRequest>,
    ) -> Result<Response<Self::FetchBlobStream>, Status> {
        self.member(&request).await?;
        Ok(Response::new(images::fetch(self.0.blobs.clone(), &request.get_ref().digest).await?))
    }
}
