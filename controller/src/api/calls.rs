//! Calls to agents: the agent opens a stream, we ask over it, it answers.
//!
//! The table of open calls is behind a lock that is never held across a wait. All calls of a node share one stream each way. So that none holds up the
//! others, the data of those that have much of it goes in messages of which at most [`UNDER_WAY`] wait for their reader, each way; the other side says
//! when one was taken. A log's reader that takes nothing loses its call instead, as it can ask again from where it was.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bellows_core::ids::NodeId;
use bellows_proto::node as wire;
use bellows_proto::types::Input;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::Stream;
use tonic::Status;
pub(super) use wire::call::Body as Ask;
pub(super) use wire::call_reply::Body as Reply;

/// Calls that one agent may be answering.
const CALLS_OPEN: usize = 1_024;
/// Pieces of an answer that may wait for their reader.
const PIECES_WAITING: usize = 64;
/// Messages of data of one call that wait for their reader, each way; the agent's number is the same.
const UNDER_WAY: usize = 16;
/// A reader that takes nothing for so long loses its call: behind it wait the others of that node.
const READER_PATIENCE: Duration = Duration::from_secs(2);

/// All agents that take calls. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct CallHub(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    lines: BTreeMap<NodeId, Line>,
    last: u64,
}

/// What is sent to an agent.
type Asks = mpsc::UnboundedSender<Result<wire::Call, Status>>;

/// One agent's stream. What waits in it is bounded by its open calls and what each of them may have under way.
struct Line {
    id: u64,
    asks: Asks,
    open: BTreeMap<u64, Open>,
}

/// One call's ends.
struct Open {
    pieces: mpsc::Sender<wire::CallReply>,
    /// For input.
    room: Arc<Semaphore>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.room.close();
    }
}

impl CallHub {
    /// An agent opened its stream; an older one of the same node ends.
    pub(super) fn connect(&self, node: NodeId) -> (u64, mpsc::UnboundedReceiver<Result<wire::Call, Status>>) {
        #[expect(
            clippy::disallowed_methods,
            reason = "bounded by its calls: CALLS_OPEN of them, each with UNDER_WAY pieces under way"
        )]
        let (asks, asked) = mpsc::unbounded_channel();
        let mut table = self.table();
        table.last += 1;
        let id = table.last;
        table.lines.insert(node, Line { id, asks, open: BTreeMap::new() });
        (id, asked)
    }

    /// The stream ended: so do its calls.
    pub(super) fn disconnect(&self, node: NodeId, line: u64) {
        let mut table = self.table();
        if table.lines.get(&node).is_some_and(|open| open.id == line) {
            table.lines.remove(&node);
        }
    }

    /// Ends every stream, at a shutdown.
    pub(crate) fn close(&self) {
        self.table().lines.clear();
    }

    /// Asks the agent of this node.
    pub(super) fn open(&self, node: NodeId, ask: Ask) -> Result<OpenCall, Status> {
        let mut table = self.table();
        table.last += 1;
        let id = table.last;
        let no_calls =
            || Status::unavailable(format!("the agent of node {node} takes no calls at the moment; is it running?"));
        let line = table.lines.get_mut(&node).ok_or_else(no_calls)?;
        if line.open.len() >= CALLS_OPEN {
            return Err(Status::resource_exhausted(format!(
                "the agent of node {node} answers {CALLS_OPEN} calls already; end some, or try again later"
            )));
        }
        line.asks.send(Ok(wire::Call { id, body: Some(ask) })).map_err(|_| no_calls())?;
        let (pieces, taken) = mpsc::channel(PIECES_WAITING);
        let room = Arc::new(Semaphore::new(UNDER_WAY));
        line.open.insert(id, Open { pieces, room: room.clone() });
        Ok(OpenCall { way: Way { hub: self.clone(), node, id, room }, pieces: taken, ended: false })
    }

    /// An agent's answer goes to whoever asked.
    pub(super) async fn reply(&self, node: NodeId, line: u64, reply: wire::CallReply) {
        let id = reply.id;
        let Some((reader, room)) = self.reader(node, line, id) else { return };
        if let Some(Reply::Taken(taken)) = &reply.body {
            return room.add_permits((taken.messages as usize).min(UNDER_WAY));
        }
        let last = ends(&reply);
        let sent = reader.send_timeout(reply, READER_PATIENCE).await;
        if last {
            self.finish(node, id);
        } else if sent.is_err() {
            self.cancel(node, id);
        }
    }

    fn reader(&self, node: NodeId, line: u64, id: u64) -> Option<(mpsc::Sender<wire::CallReply>, Arc<Semaphore>)> {
        let table = self.table();
        let open = table.lines.get(&node).filter(|open| open.id == line)?.open.get(&id)?;
        Some((open.pieces.clone(), open.room.clone()))
    }

    /// The agent has said all of it.
    fn finish(&self, node: NodeId, id: u64) {
        if let Some(line) = self.table().lines.get_mut(&node) {
            line.open.remove(&id);
        }
    }

    /// Ends a call that the agent may still be answering: it is told to stop.
    fn cancel(&self, node: NodeId, id: u64) {
        let mut table = self.table();
        let Some(line) = table.lines.get_mut(&node) else { return };
        if line.open.remove(&id).is_some() {
            // A closed channel means that the agent has gone, and its calls with it.
            let _ = line.asks.send(Ok(wire::Call { id, body: Some(Ask::Cancel(wire::Cancel {})) }));
        }
    }

    /// More for a call that is open; false when it is not any more.
    fn send(&self, node: NodeId, id: u64, ask: Ask) -> bool {
        let table = self.table();
        let line = table.lines.get(&node).filter(|line| line.open.contains_key(&id));
        line.is_some_and(|line| line.asks.send(Ok(wire::Call { id, body: Some(ask) })).is_ok())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Every change of the table is a single insertion or removal: a panic leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ends(reply: &wire::CallReply) -> bool {
    matches!(reply.body, Some(Reply::Done(_) | Reply::Failed(_))) || reply.body.is_none() && reply.notice.is_empty()
}

/// The way of an open call to its agent.
#[derive(Clone)]
pub(super) struct Way {
    hub: CallHub,
    node: NodeId,
    id: u64,
    room: Arc<Semaphore>,
}

impl Way {
    /// Sends input as soon as the agent has room for it; false when the call has ended.
    pub(super) async fn input(&self, input: Input) -> bool {
        let Ok(room) = self.room.acquire().await else { return false };
        room.forget();
        self.hub.send(self.node, self.id, Ask::Input(input))
    }

    /// Ends the call: what its caller says cannot be taken.
    pub(super) fn abandon(&self) {
        self.hub.cancel(self.node, self.id);
    }
}

/// What the reader holds; dropped, it cancels the call.
pub(super) struct OpenCall {
    way: Way,
    pieces: mpsc::Receiver<wire::CallReply>,
    ended: bool,
}

impl OpenCall {
    /// For its input.
    pub(super) fn way(&self) -> Way {
        self.way.clone()
    }

    /// Tells the agent that a message of data has reached its reader.
    fn take(&self, reply: &wire::CallReply) {
        if matches!(reply.body, Some(Reply::Data(_) | Reply::Errors(_))) && reply.position.is_none() {
            self.way.hub.send(self.way.node, self.way.id, Ask::Taken(wire::Taken { messages: 1 }));
        }
    }
}

impl Stream for OpenCall {
    type Item = Result<wire::CallReply, Status>;

    /// An answer that breaks off is told from one that is complete, so that its reader may ask for the rest.
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let Poll::Ready(piece) = self.pieces.poll_recv(context) else { return Poll::Pending };
        self.ended = piece.as_ref().is_none_or(ends);
        Poll::Ready(match piece {
            Some(wire::CallReply { body: Some(Reply::Failed(why)), .. }) => Some(Err(Status::failed_precondition(why))),
            Some(_) if self.ended => None,
            Some(reply) => {
                self.take(&reply);
                Some(Ok(reply))
            }
            None => Some(Err(Status::unavailable(format!(
                "the answer of node {} broke off: its agent went away, or its reader took nothing for {} s",
                self.way.node,
                READER_PATIENCE.as_secs()
            )))),
        })
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.way.hub.cancel(self.way.node, self.way.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellows_proto::types::input::Part;
    use tokio_stream::StreamExt;

    const NODE: NodeId = NodeId(7);

    fn input(text: &str) -> Input {
        Input { part: Some(Part::Data(text.as_bytes().to_vec())) }
    }

    fn data(id: u64) -> wire::CallReply {
        wire::CallReply { id, body: Some(Reply::Data(b"x".to_vec())), ..Default::default() }
    }

    #[tokio::test]
    async fn input_waits_for_room_and_ends_with_the_call() {
        let hub = CallHub::default();
        let (line, mut asked) = hub.connect(NODE);
        let call = hub.open(NODE, Ask::Exec(wire::ExecCall::default())).expect("it takes calls");
        let id = asked.recv().await.expect("asked").expect("no fault").id;
        let way = call.way();
        for n in 0..UNDER_WAY {
            assert!(way.input(input("a")).await, "{n}");
        }
        let next = tokio::spawn({
            let way = way.clone();
            async move { way.input(input("b")).await }
        });
        let taken = Reply::Taken(wire::Taken { messages: 1 });
        hub.reply(NODE, line, wire::CallReply { id, body: Some(taken), ..Default::default() }).await;
        assert!(next.await.expect("no panic"));
        drop(call);
        assert!(!way.input(input("c")).await, "nobody would hear it");
        let mut seen = Vec::new();
        while let Ok(ask) = asked.try_recv() {
            seen.push(ask.expect("no fault").body.expect("a body"));
        }
        assert_eq!(seen.len(), UNDER_WAY + 2);
        assert_eq!(seen.last(), Some(&Ask::Cancel(wire::Cancel {})));
    }

    #[tokio::test]
    async fn the_agent_hears_of_what_its_reader_took() {
        let hub = CallHub::default();
        let (line, mut asked) = hub.connect(NODE);
        let mut call = hub.open(NODE, Ask::Exec(wire::ExecCall::default())).expect("it takes calls");
        let id = asked.recv().await.expect("asked").expect("no fault").id;
        hub.reply(NODE, line, data(id)).await;
        assert!(asked.try_recv().is_err(), "nobody has read it yet");
        assert_eq!(call.next().await.expect("a piece").expect("no fault"), data(id));
        let told = asked.try_recv().expect("told").expect("no fault");
        assert_eq!(told.body, Some(Ask::Taken(wire::Taken { messages: 1 })));
        hub.disconnect(NODE, line);
        assert!(call.next().await.expect("an end").is_err(), "it broke off");
        assert!(call.next().await.is_none());
    }
}
