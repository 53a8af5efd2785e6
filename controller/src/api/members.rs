//! What other controllers of the group say: bytes that only raft reads.

use bellows_member::MAX_MESSAGE_BYTES;
use bellows_proto::member as wire;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use wire::members_server::Members;

use super::streams::Answers;
use crate::auth::{Caller, caller};
use crate::convert::Malformed;
use crate::driver::Handle;

/// Receipts that may wait; the sender counts them to know how much is on its way.
const RECEIPTS_WAITING: usize = 64;

/// The member service.
pub(super) struct MemberService(pub(super) Handle);

#[tonic::async_trait]
impl Members for MemberService {
    type ExchangeStream = Answers<wire::Receipt>;

    async fn exchange(
        &self,
        request: Request<Streaming<wire::Envelope>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let member = match caller(&request)? {
            Caller::Member(id) => id,
            other => return Err(Status::permission_denied(format!("{} is no member of the raft group", other.name()))),
        };
        let (receipts, receiver) = mpsc::channel(RECEIPTS_WAITING);
        let (driver, envelopes) = (self.0.clone(), request.into_inner());
        tokio::spawn(async move {
            if let Err(status) = take_in(&driver, member, envelopes, &receipts).await {
                // The other side may have gone; then nobody needs to know.
                let _ = receipts.send(Err(status)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

async fn take_in(
    driver: &Handle,
    member: u64,
    mut envelopes: Streaming<wire::Envelope>,
    receipts: &mpsc::Sender<Result<wire::Receipt, Status>>,
) -> Result<(), Status> {
    while let Some(envelope) = envelopes.message().await? {
        if envelope.from != member {
            let problem = format!("is {}, but the certificate is member {member}'s", envelope.from);
            return Err(Malformed::new("from", problem).into());
        }
        if envelope.message.len() > MAX_MESSAGE_BYTES {
            return Err(Malformed::new("message", "is longer than any raft message").into());
        }
        driver.raft(envelope.message).await?;
        if receipts.send(Ok(wire::Receipt {})).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}
