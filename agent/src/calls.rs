//! Calls: what the controller asks on behalf of a person, authorised there and unfenced here. Today: logs.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bellows_agent_core::ReplicaId;
use bellows_proto::node::call::Body;
use bellows_proto::node::nodes_client::NodesClient;
use bellows_proto::node::{Call, CallReply, Done, LogsCall, call_reply};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use crate::backoff::BackOff;
use crate::containers::{Containers, container};
use crate::convert;
use crate::logs::{LogError, LogReader};
use crate::worker::{Attempt, Attempts, chain};

/// Replies that wait for the network.
const REPLIES: usize = 16;
/// The largest piece of one reply.
const PIECE_BYTES: usize = 64 << 10;
/// How often a followed log is looked at: fast enough for an eye.
const FOLLOW: Duration = Duration::from_millis(100);

/// What calls are answered from.
pub(crate) struct Calls {
    pub(crate) containers: Arc<dyn Containers>,
    pub(crate) attempts: Arc<Attempts>,
}

impl Calls {
    /// Answers calls as long as the session lives; a stream that breaks alone is opened again.
    pub(crate) async fn serve(self: Arc<Self>, channel: Channel) {
        let mut back_off = BackOff::default();
        loop {
            match self.stream(channel.clone()).await {
                Ok(()) => tracing::debug!("the controller ended the stream of calls"),
                Err(status) => tracing::debug!(%status, "the stream of calls ended"),
            }
            tokio::time::sleep(back_off.next()).await;
        }
    }

    async fn stream(self: &Arc<Self>, channel: Channel) -> Result<(), Status> {
        let (replies, outbound) = mpsc::channel(REPLIES);
        replies.try_send(CallReply::default()).expect("a new channel has room for one message");
        let mut calls = NodesClient::new(channel).calls(ReceiverStream::new(outbound)).await?.into_inner();
        let mut tasks = JoinSet::new();
        let mut running: BTreeMap<u64, AbortHandle> = BTreeMap::new();
        while let Some(Call { id, body }) = calls.message().await? {
            running.retain(|_, task| !task.is_finished());
            while tasks.try_join_next().is_some() {}
            match body {
                Some(Body::Cancel(_)) => running.remove(&id).into_iter().for_each(|task| task.abort()),
                Some(Body::Logs(logs)) => {
                    running.insert(id, tasks.spawn(self.clone().answer(id, logs, replies.clone())));
                }
                None => {
                    let failed = call_reply::Body::Failed(
                        "this agent does not know such a call; is it older than the controller?".to_owned(),
                    );
                    if replies.send(CallReply { id, body: Some(failed) }).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    async fn answer(self: Arc<Self>, id: u64, logs: LogsCall, replies: mpsc::Sender<CallReply>) {
        let body = match self.logs(id, logs, &replies).await {
            Ok(()) => call_reply::Body::Done(Done {}),
            Err(error) => call_reply::Body::Failed(chain(&error)),
        };
        if replies.send(CallReply { id, body: Some(body) }).await.is_err() {
            tracing::debug!(id, "the caller is gone");
        }
    }

    /// One attempt after another while it is followed.
    async fn logs(&self, id: u64, call: LogsCall, replies: &mpsc::Sender<CallReply>) -> Result<(), LogError> {
        let replica = convert::replica(call.replica).map_err(LogError::Misunderstood)?;
        let mut attempt = self.attempt(replica)?;
        let mut reader = LogReader::open(self.containers.clone(), container(replica, attempt.number));
        let mut tail = call.tail_lines;
        loop {
            let (text, back) = read(reader, tail.take()).await?;
            reader = back;
            if send(id, text, replies).await.is_err() || !call.follow {
                return Ok(());
            }
            let (before, now) = (attempt, self.attempt(replica)?);
            attempt = now;
            match (before.running, now.number == before.number) {
                (_, false) => reader = LogReader::open(self.containers.clone(), container(replica, now.number)),
                (false, true) => return Ok(()), // it had ended before the last look
                (true, true) => tokio::time::sleep(FOLLOW).await,
            }
        }
    }

    fn attempt(&self, replica: ReplicaId) -> Result<Attempt, LogError> {
        let attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.get(&replica).copied().ok_or(LogError::Unknown(replica))
    }
}

async fn read(mut reader: LogReader, tail: Option<u32>) -> Result<(Vec<u8>, LogReader), LogError> {
    let work = move || reader.read(tail).map(|text| (text, reader));
    tokio::task::spawn_blocking(work).await.map_err(|_| LogError::Interrupted)?
}

async fn send(id: u64, text: Vec<u8>, replies: &mpsc::Sender<CallReply>) -> Result<(), ()> {
    for piece in text.chunks(PIECE_BYTES) {
        let reply = CallReply { id, body: Some(call_reply::Body::Data(piece.to_vec())) };
        replies.send(reply).await.map_err(|_| ())?;
    }
    Ok(())
}
