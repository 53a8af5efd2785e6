//! Calls: what the controller asks on behalf of a person, authorised there and unfenced here.
//!
//! All calls share one stream each way. So that none holds up the others, data goes in messages of which at most [`UNDER_WAY`] of one call wait for
//! their reader, each way; the other side says when one was taken.

mod copy;
mod exec;
mod freeze;
mod logs;
mod stats;
mod stream;

pub(crate) use self::stream::{Stream, registered};

use std::collections::BTreeMap;
use std::sync::Arc;

use bellows_agent_core::ReplicaId;
use bellows_proto::node::call::Body;
use bellows_proto::node::nodes_client::NodesClient;
use bellows_proto::node::{Call, CallReply, Done, Taken, call_reply};
use bellows_proto::types::Input;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;

use crate::attempts::Attempts;
use crate::backoff::BackOff;
use crate::containers::Containers;
use crate::images::Images;
use crate::news::{News, Standing};
use crate::worker::chain;

/// Replies that wait for the network.
const REPLIES: usize = 16;

/// Messages of data of one call that wait for their reader, each way.
const UNDER_WAY: usize = 16;

/// What calls are answered from.
pub(crate) struct Calls {
    pub(crate) node: String,
    pub(crate) containers: Arc<dyn Containers>,
    pub(crate) attempts: Arc<Attempts>,
    pub(crate) images: Arc<Images>,
    pub(crate) news: mpsc::Sender<News>,
}

/// Why a call was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error(transparent)]
    Logs(#[from] crate::logs::LogError),
    #[error(transparent)]
    Exec(#[from] exec::ExecError),
    #[error("this agent does not know such a call; is it older than the controller?")]
    Unknown,
}

/// A call that is being answered.
struct Running {
    task: AbortHandle,
    inputs: mpsc::Sender<Input>,
    room: Arc<Semaphore>,
}

/// Whoever asked, as the one who answers sees it. Its way back is gone when the stream is.
pub(crate) struct Caller {
    id: u64,
    replies: mpsc::Sender<CallReply>,
    inputs: mpsc::Receiver<Input>,
    room: Arc<Semaphore>,
}

/// The caller's stream ended: nobody waits for an answer.
#[derive(Debug, thiserror::Error)]
#[error("the caller is gone")]
pub(crate) struct Gone;

/// The way back to a caller.
#[derive(Clone)]
pub(crate) struct Answers {
    id: u64,
    replies: mpsc::Sender<CallReply>,
    room: Arc<Semaphore>,
}

impl Answers {
    /// News of the call, of which there are few.
    pub(crate) async fn say(&self, body: call_reply::Body) -> Result<(), Gone> {
        self.replies.send(CallReply { id: self.id, body: Some(body), ..CallReply::default() }).await.map_err(|_| Gone)
    }

    /// Data, as soon as its reader has room.
    pub(crate) async fn data(&self, body: call_reply::Body) -> Result<(), Gone> {
        self.room.acquire().await.map_err(|_| Gone)?.forget();
        self.say(body).await
    }

    /// One message of input has reached whoever it was for.
    pub(crate) async fn taken(&self) -> Result<(), Gone> {
        self.say(call_reply::Body::Taken(Taken { messages: 1 })).await
    }
}

impl Caller {
    fn split(self) -> (Answers, mpsc::Receiver<Input>) {
        (Answers { id: self.id, replies: self.replies, room: self.room }, self.inputs)
    }
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

    /// What is still being answered when the stream ends, ends with it.
    async fn stream(self: &Arc<Self>, channel: Channel) -> Result<(), Status> {
        let (replies, outbound) = mpsc::channel(REPLIES);
        replies.try_send(CallReply::default()).expect("a new channel has room for one message");
        let mut calls = NodesClient::new(channel).calls(ReceiverStream::new(outbound)).await?.into_inner();
        let mut tasks = JoinSet::new();
        let mut running: BTreeMap<u64, Running> = BTreeMap::new();
        while let Some(Call { id, body }) = calls.message().await? {
            running.retain(|_, call| !call.task.is_finished());
            while tasks.try_join_next().is_some() {}
            match body {
                Some(Body::Cancel(_)) => drop(running.remove(&id).map(|call| call.task.abort())),
                Some(Body::Taken(Taken { messages })) => {
                    let room = running.get(&id).map(|call| &call.room);
                    room.inspect(|room| room.add_permits((messages as usize).min(UNDER_WAY)));
                }
                Some(Body::Input(input)) => {
                    // More than may be under way: whoever sends that does not keep to the rules.
                    if let Some(call) = running.get(&id)
                        && let Err(mpsc::error::TrySendError::Full(_)) = call.inputs.try_send(input)
                    {
                        call.task.abort();
                    }
                }
                asked => {
                    let (inputs, taken) = mpsc::channel(UNDER_WAY);
                    let room = Arc::new(Semaphore::new(UNDER_WAY));
                    let caller = Caller { id, replies: replies.clone(), inputs: taken, room: room.clone() };
                    let task = tasks.spawn(self.clone().answer(asked, caller));
                    running.insert(id, Running { task, inputs, room });
                }
            }
        }
        Ok(())
    }

    async fn answer(self: Arc<Self>, asked: Option<Body>, caller: Caller) {
        let (id, replies) = (caller.id, caller.replies.clone());
        let done = match asked {
            Some(Body::Logs(logs)) => self.logs(id, logs, &replies).await.map_err(CallError::from),
            Some(Body::Exec(call)) => self.exec(call, caller).await.map_err(CallError::from),
            Some(Body::Copy(call)) => self.copy(call, caller).await.map_err(CallError::from),
            Some(Body::Freeze(call)) => self.freeze(call, caller.split().0).await.map_err(CallError::from),
            Some(Body::Stats(call)) => self.stats(call, caller.split().0).await.map_err(CallError::from),
            _ => Err(CallError::Unknown),
        };
        let body = match done {
            Ok(()) => call_reply::Body::Done(Done {}),
            Err(error) => call_reply::Body::Failed(chain(&error)),
        };
        if replies.send(CallReply { id, body: Some(body), ..CallReply::default() }).await.is_err() {
            tracing::debug!(id, "the caller is gone");
        }
    }

    /// How a replica stands; nothing when this node does not know it.
    async fn standing(&self, replica: ReplicaId) -> Option<Standing> {
        let (answer, answered) = oneshot::channel();
        // A driver that is gone answers nothing.
        self.news.send(News::Find { replica, answer }).await.ok()?;
        answered.await.ok()?
    }
}
