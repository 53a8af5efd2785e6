//! The session with the leader: open, greeting, hello, then reports up and orders down; after its end another one, from any controller, until the agent closes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bellows_agent_core::{Fence, Input, SessionId};
use bellows_proto::PROTOCOL;
use bellows_proto::node::nodes_client::NodesClient;
use bellows_proto::node::{self as wire, Alive, FromAgent, Open, Probe, ToAgent, from_agent, to_agent};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::backoff::BackOff;
use crate::calls::Calls;
use crate::convert::{self, Misunderstood};
use crate::dial::{DialError, endpoint};
use crate::identity::Identity;
use crate::news::{Greeting, News, Outbound};
use crate::traffic;
use crate::trust::untrusted;
use crate::worker::chain;

/// Reports that wait for the network: a burst of a thousand replicas is a few thousand.
const REPORTS: usize = 8_192;

/// The largest message: an inventory of 10,000 replicas at about 500 bytes is 5 MB.
const MESSAGE_BYTES: usize = 64 << 20;

/// What sessions need.
pub(crate) struct Sessions {
    pub(crate) controllers: Vec<String>,
    pub(crate) identity: Identity,
    /// Of the server.
    pub(crate) boot: String,
    /// Of this agent: another one at the same time has the same identity by mistake.
    pub(crate) instance: String,
    pub(crate) fence: watch::Receiver<Fence>,
    pub(crate) news: mpsc::Sender<News>,
    /// The channel to the leader while there is one, for images.
    pub(crate) channel: watch::Sender<Option<Channel>>,
    pub(crate) calls: Arc<Calls>,
}

/// How one connection ended.
enum End {
    /// Somebody else leads.
    Elsewhere(String),
    /// The network, or a controller that asks for patience.
    Lost(String),
    /// Somebody else's controller.
    Stranger(String),
    /// Not without a person.
    Refused(String),
    /// The agent closes.
    Closed,
}

/// Why a stream ended early.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("cannot connect to {address}")]
    Connect {
        address: String,
        #[source]
        source: tonic::transport::Error,
    },
    #[error("the session with {address} ended")]
    Stream {
        address: String,
        #[source]
        source: Box<Status>,
    },
    #[error(transparent)]
    Misunderstood(#[from] Misunderstood),
}

impl Sessions {
    /// One session after another.
    pub(crate) async fn run(self, mut closing: watch::Receiver<bool>) {
        tokio::select! {
            () = self.sessions() => {}
            _ = closing.wait_for(|closing| *closing) => {}
        }
        self.channel.send_replace(None);
    }

    async fn sessions(&self) {
        let mut addresses = self.controllers.iter().cycle().cloned();
        let mut elsewhere = None;
        let mut back_off = BackOff::default();
        let mut strangers = BTreeSet::new();
        while let Some(address) = elsewhere.take().or_else(|| addresses.next()) {
            let end = self.one(&address, &mut back_off).await;
            self.channel.send_replace(None);
            match end {
                End::Elsewhere(leader) => {
                    tracing::info!(%address, %leader, "another controller leads");
                    elsewhere = Some(leader);
                }
                End::Lost(why) => tracing::warn!(%address, why, "no session; trying again"),
                End::Stranger(why) if strangers.insert(address.clone()) => {
                    tracing::error!(
                        %address, why,
                        "the controller there is not of the cluster that this node has joined, or does not know this node's certificate; name the right \
                         address with --controller, or, to join that cluster, give this node an empty folder with --state and a token. Replicas run on, \
                         and it is tried again in case the address gets its old controller back"
                    );
                }
                End::Stranger(why) => tracing::debug!(%address, why, "still not of this cluster"),
                End::Refused(why) => {
                    tracing::error!(%address, why, "the controller refuses this node for good; mend it and start the agent again. Replicas run on");
                    if self.tell(News::Refused(why)).await.is_err() {
                        tracing::debug!("refused after the end");
                    }
                    return;
                }
                End::Closed => return,
            }
            tokio::time::sleep(back_off.next()).await;
        }
    }

    async fn one(&self, address: &str, back_off: &mut BackOff) -> End {
        match self.try_one(address, back_off).await {
            Ok(end) => end,
            Err(SessionError::Stream { source, .. }) if leader_of(&source).is_some() => {
                End::Elsewhere(leader_of(&source).unwrap_or_default())
            }
            Err(error) if untrusted(&error) => End::Stranger(chain(&error)),
            Err(error) => End::Lost(chain(&error)),
        }
    }

    async fn try_one(&self, address: &str, back_off: &mut BackOff) -> Result<End, SessionError> {
        let tls = |source| DialError::Tls { address: address.to_owned(), source };
        let connect = |source| SessionError::Connect { address: address.to_owned(), source };
        let stream_error = |source| SessionError::Stream { address: address.to_owned(), source: Box::new(source) };
        let channel =
            endpoint(address)?.tls_config(self.identity.tls()).map_err(tls)?.connect().await.map_err(connect)?;
        let (messages, outbound) = mpsc::channel(REPORTS);
        messages.try_send(self.open()).expect("a new channel has room for one message");
        let mut client = NodesClient::new(channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES);
        let stream = client.session(ReceiverStream::new(outbound)).await.map_err(stream_error)?.into_inner();
        self.converse(stream, messages, channel, back_off).await?.map_err(stream_error)
    }

    fn open(&self) -> FromAgent {
        let fence = convert::wire_fence(*self.fence.borrow());
        let (machine, boot, instance) = (self.identity.machine.clone(), self.boot.clone(), self.instance.clone());
        let open = Open { protocol: PROTOCOL, machine, fence: Some(fence), boot, instance };
        FromAgent { body: Some(from_agent::Body::Open(open)) }
    }

    /// From the greeting to the end.
    async fn converse(
        &self,
        mut stream: Streaming<ToAgent>,
        messages: mpsc::Sender<FromAgent>,
        channel: Channel,
        back_off: &mut BackOff,
    ) -> Result<Result<End, Status>, Misunderstood> {
        let greeting = match stream.message().await {
            Ok(Some(ToAgent { body: Some(to_agent::Body::Greeting(greeting)) })) => greeting,
            Ok(Some(ToAgent { body: Some(to_agent::Body::Refusal(refusal)) })) => return Ok(Ok(refused(refusal))),
            Ok(Some(_)) => return Err(Misunderstood { what: "something before its greeting" }),
            Ok(None) => return Ok(Ok(End::Lost("the controller ended the stream without a greeting".to_owned()))),
            Err(status) => return Ok(Err(status)),
        };
        let session = SessionId(greeting.session);
        let (close, closed) = oneshot::channel();
        let stream_up = Outbound { messages: messages.clone(), close: Some(close) };
        let fence = convert::fence(greeting.fence)?;
        let heartbeat = Duration::from_millis(greeting.heartbeat_ms);
        tracing::info!(cluster = greeting.cluster, %fence, %session, "greeted by the leader");
        if self.tell(News::Greeting(Greeting { fence, session, heartbeat, stream: stream_up })).await.is_err() {
            return Ok(Ok(End::Closed));
        }
        back_off.reset();
        self.channel.send_replace(Some(channel.clone()));
        let mut tasks = JoinSet::new(); // the calls end with the session
        tasks.spawn(self.calls.clone().serve(channel));
        let end = tokio::select! {
            end = self.listen(&mut stream, session, &messages) => end,
            why = closed => Ok(Ok(End::Lost(why.unwrap_or_else(|_| "a newer session took its place".to_owned())))),
        };
        let told = self.tell(News::Core(Input::Disconnected { session })).await;
        if told.is_err() { Ok(Ok(End::Closed)) } else { end }
    }

    async fn listen(
        &self,
        stream: &mut Streaming<ToAgent>,
        session: SessionId,
        messages: &mpsc::Sender<FromAgent>,
    ) -> Result<Result<End, Status>, Misunderstood> {
        loop {
            let body = match stream.message().await {
                Ok(Some(message)) => message.body,
                Ok(None) => return Ok(Ok(End::Lost("the controller ended the session".to_owned()))),
                Err(status) => return Ok(Err(status)),
            };
            let news = match body {
                Some(to_agent::Body::Orders(orders)) => News::Orders(convert::batch(orders)?),
                Some(to_agent::Body::Acknowledge(acknowledge)) => News::Core(acknowledged(session, acknowledge)?),
                Some(to_agent::Body::Refusal(refusal)) => return Ok(Ok(refused(refusal))),
                Some(to_agent::Body::Probe(Probe { nonce })) => {
                    let alive = FromAgent { body: Some(from_agent::Body::Alive(Alive { nonce })) };
                    // A stream that takes nothing any more is given up by the driver, and this session with it.
                    if messages.try_send(alive).is_err() {
                        tracing::warn!("the controller takes no answer to its probe");
                    }
                    continue;
                }
                Some(to_agent::Body::Greeting(_)) => return Err(Misunderstood { what: "a second greeting" }),
                Some(to_agent::Body::Entrances(push)) => News::Entrances(traffic::entrance_push(push)?),
                Some(to_agent::Body::Routes(push)) => News::Routes(traffic::route_push(push)?),
                Some(to_agent::Body::Allowances(push)) => News::Allowances(traffic::allowance_push(push)?),
                None => return Err(Misunderstood { what: "a message of an unknown kind" }),
            };
            if self.tell(news).await.is_err() {
                return Ok(Ok(End::Closed));
            }
        }
    }

    async fn tell(&self, news: News) -> Result<(), ()> {
        self.news.send(news).await.map_err(|_| ())
    }
}

fn acknowledged(session: SessionId, acknowledge: wire::Acknowledge) -> Result<Input, Misunderstood> {
    let ended = acknowledge.ended.into_iter().map(|id| convert::replica(Some(id))).collect::<Result<_, _>>()?;
    Ok(Input::Acknowledged { session, ended })
}

fn refused(refusal: wire::Refusal) -> End {
    match refusal {
        wire::Refusal { leader_address: leader, .. } if !leader.is_empty() => End::Elsewhere(with_scheme(leader)),
        wire::Refusal { retry: true, text, .. } => End::Lost(text),
        wire::Refusal { text, .. } => End::Refused(text),
    }
}

/// Where the leader is, when a controller that does not lead answers with a status.
fn leader_of(status: &Status) -> Option<String> {
    let leader = status.metadata().get("bellows-leader")?.to_str().ok()?;
    (!leader.is_empty()).then(|| with_scheme(leader.to_owned()))
}

fn with_scheme(address: String) -> String {
    if address.contains("://") { address } else { format!("https://{address}") }
}
