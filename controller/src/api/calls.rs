//! Calls to agents (logs; later exec and stats): the agent opens a stream, we ask over it, it answers.
//!
//! The table of open calls is behind a lock that is never held across a wait.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bellows_core::ids::NodeId;
use bellows_proto::node as wire;
use bellows_proto::operator::{LogChunk, LogsRequest};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::Status;
use wire::call::Body as Ask;
use wire::call_reply::Body as Reply;

use super::streams::Answers;

/// Questions that may wait for one agent.
const CALLS_WAITING: usize = 64;
/// Pieces of an answer that may wait for their reader.
const PIECES_WAITING: usize = 64;
/// A reader that takes nothing for so long loses its call: behind it wait the others of that node.
const READER_PATIENCE: Duration = Duration::from_secs(2);

/// What an agent says to one call.
enum Piece {
    Chunk(LogChunk),
    Failed(String),
    /// That was all of it.
    Done,
}

/// All agents that take calls. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct CallHub(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    lines: BTreeMap<NodeId, Line>,
    last: u64,
}

/// One agent's stream.
struct Line {
    id: u64,
    asks: mpsc::Sender<Result<wire::Call, Status>>,
    open: BTreeMap<u64, mpsc::Sender<Piece>>,
}

impl CallHub {
    /// An agent opened its stream; an older one of the same node ends.
    pub(super) fn connect(&self, node: NodeId) -> (u64, mpsc::Receiver<Result<wire::Call, Status>>) {
        let (asks, asked) = mpsc::channel(CALLS_WAITING);
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

    /// The log of a replica on this node.
    pub(super) fn logs(&self, node: NodeId, asked: LogsRequest) -> Result<Answers<LogChunk>, Status> {
        let LogsRequest { replica, follow, tail_lines, from, since_unix_ms, previous } = asked;
        let body = wire::LogsCall { replica, follow, tail_lines, from, since_unix_ms, previous };
        let mut table = self.table();
        table.last += 1;
        let id = table.last;
        let line = table.lines.get_mut(&node).ok_or_else(|| {
            Status::unavailable(format!("the agent of node {node} takes no calls at the moment; is it running?"))
        })?;
        let busy =
            |_| Status::resource_exhausted(format!("too many calls wait for the agent of node {node}; try again"));
        line.asks.try_send(Ok(wire::Call { id, body: Some(Ask::Logs(body)) })).map_err(busy)?;
        let (pieces, taken) = mpsc::channel(PIECES_WAITING);
        line.open.insert(id, pieces);
        Ok(Box::pin(OpenCall { hub: self.clone(), node, id, pieces: taken, ended: false }))
    }

    /// An agent's answer goes to whoever asked.
    pub(super) async fn reply(&self, node: NodeId, line: u64, reply: wire::CallReply) {
        let id = reply.id;
        let wire::CallReply { position, notice, .. } = reply;
        let piece = match reply.body {
            Some(Reply::Data(data)) => Piece::Chunk(LogChunk { data, position, notice }),
            Some(Reply::Failed(why)) => Piece::Failed(why),
            None if !notice.is_empty() => Piece::Chunk(LogChunk { data: Vec::new(), position, notice }),
            Some(Reply::Done(_)) | None => Piece::Done,
        };
        let last = !matches!(piece, Piece::Chunk(_));
        let Some(reader) = self.reader(node, line, id) else { return };
        let sent = reader.send_timeout(piece, READER_PATIENCE).await;
        if last {
            self.finish(node, id);
        } else if sent.is_err() {
            self.cancel(node, id);
        }
    }

    fn reader(&self, node: NodeId, line: u64, id: u64) -> Option<mpsc::Sender<Piece>> {
        let table = self.table();
        table.lines.get(&node).filter(|open| open.id == line)?.open.get(&id).cloned()
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
            // A full channel means that the agent reads nothing; its answers go nowhere then.
            let _ = line.asks.try_send(Ok(wire::Call { id, body: Some(Ask::Cancel(wire::Cancel {})) }));
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Every change of the table is a single insertion or removal: a panic leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the reader holds; dropped, it cancels the call.
struct OpenCall {
    hub: CallHub,
    node: NodeId,
    id: u64,
    pieces: mpsc::Receiver<Piece>,
    ended: bool,
}

impl Stream for OpenCall {
    type Item = Result<LogChunk, Status>;

    /// An answer that breaks off is told from one that is complete, so that its reader may ask for the rest.
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let piece = match self.pieces.poll_recv(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(piece) => piece,
        };
        self.ended = !matches!(piece, Some(Piece::Chunk(_)));
        Poll::Ready(match piece {
            Some(Piece::Chunk(chunk)) => Some(Ok(chunk)),
            Some(Piece::Failed(why)) => Some(Err(Status::failed_precondition(why))),
            Some(Piece::Done) => None,
            None => Some(Err(Status::unavailable(format!(
                "the answer of node {} broke off: its agent went away, or its reader took nothing for {} s",
                self.node,
                READER_PATIENCE.as_secs()
            )))),
        })
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.hub.cancel(self.node, self.id);
    }
}
