//! `bellows logs`: one attempt's log after another.

use std::sync::Arc;

use bellows_agent_core::ReplicaId;
use bellows_proto::node::{CallReply, LogsCall, call_reply};
use bellows_proto::types::LogPosition;
use tokio::sync::{mpsc, watch};

use super::Calls;
use crate::attempts::Attempt;
use crate::containers::container;
use crate::convert;
use crate::logs::{AttemptLog, Begin, Growth, LogError, Piece};

impl Calls {
    /// One attempt after another while it is followed.
    pub(super) async fn logs(
        &self,
        id: u64,
        call: LogsCall,
        replies: &mpsc::Sender<CallReply>,
    ) -> Result<(), LogError> {
        let replica = convert::replica(call.replica).map_err(LogError::Misunderstood)?;
        let mut changes = self.attempts.changes();
        let Start { mut attempt, mut begin, must_exist } = self.start(replica, &call)?;
        let mut missing = !must_exist;
        loop {
            match self.open(replica, attempt, begin, call.since_unix_ms).await? {
                Some((log, growth)) => {
                    let follower = Follower { calls: self, id, replica, attempt, replies };
                    if !follower.follow(log, growth, &mut changes, call.follow).await? {
                        return Ok(());
                    }
                }
                None if missing => {
                    let notice = format!("the log of attempt {attempt} of replica {replica} is not kept (any more)");
                    if replies.send(CallReply { id, notice, ..CallReply::default() }).await.is_err() {
                        return Ok(());
                    }
                }
                None => return Err(LogError::Dropped { replica, attempt, latest: self.attempt(replica)?.number }),
            }
            attempt += 1;
            begin = Begin::At(0);
            missing = attempt < self.attempt(replica)?.number;
        }
    }

    fn start(&self, replica: ReplicaId, call: &LogsCall) -> Result<Start, LogError> {
        let latest = self.attempt(replica)?.number;
        let first = call.tail_lines.map_or(Begin::At(0), Begin::Last);
        match (call.from, call.previous) {
            (Some(from), _) if from.attempt <= latest => {
                Ok(Start { attempt: from.attempt, begin: Begin::At(from.bytes), must_exist: from.attempt == latest })
            }
            (Some(_), _) => Err(LogError::Unknown(replica)),
            (None, true) if latest < 2 => Err(LogError::NoPrevious(replica)),
            (None, true) => Ok(Start { attempt: latest - 1, begin: first, must_exist: true }),
            (None, false) => Ok(Start { attempt: latest, begin: first, must_exist: true }),
        }
    }

    async fn open(
        &self,
        replica: ReplicaId,
        attempt: u32,
        begin: Begin,
        since_unix_ms: u64,
    ) -> Result<Option<(AttemptLog, Growth)>, LogError> {
        let (containers, id) = (Arc::clone(&self.containers), container(replica, attempt));
        // Watching needs the async runtime, which a thread of `spawn_blocking` knows.
        let work = move || AttemptLog::open(&containers, id, begin, since_unix_ms);
        tokio::task::spawn_blocking(work).await.map_err(|_| LogError::Interrupted)?
    }

    fn attempt(&self, replica: ReplicaId) -> Result<Attempt, LogError> {
        self.attempts.find(replica).ok_or(LogError::Unknown(replica))
    }
}

/// Where a call begins.
struct Start {
    attempt: u32,
    begin: Begin,
    /// Nothing can be told without it.
    must_exist: bool,
}

/// Who sends one attempt's log to one caller.
struct Follower<'a> {
    calls: &'a Calls,
    id: u64,
    replica: ReplicaId,
    attempt: u32,
    replies: &'a mpsc::Sender<CallReply>,
}

impl Follower<'_> {
    /// Sends what there is, and what comes when it is followed. True when there is a next attempt.
    async fn follow(
        &self,
        mut log: AttemptLog,
        mut growth: Growth,
        changes: &mut watch::Receiver<()>,
        follow: bool,
    ) -> Result<bool, LogError> {
        loop {
            // Looked at before the log is read to its end: what ended before that look has nothing more to say.
            changes.mark_unchanged();
            let latest = self.calls.attempt(self.replica)?;
            loop {
                let (piece, back) = next(log).await?;
                log = back;
                let Some(piece) = piece else { break };
                if self.send(piece).await.is_err() {
                    return Ok(false);
                }
            }
            if !follow {
                return Ok(false);
            }
            if latest.number > self.attempt {
                return Ok(true);
            }
            if latest.over && !latest.running {
                return Ok(false);
            }
            tokio::select! {
                () = growth.more() => {}
                _ = changes.changed() => {}
                () = self.replies.closed() => return Ok(false),
            }
        }
    }

    async fn send(&self, piece: Piece) -> Result<(), ()> {
        let notice = match piece.rotated_bytes {
            0 => String::new(),
            bytes => {
                format!("{bytes} bytes of the log of replica {} were rotated away before they were read", self.replica)
            }
        };
        let reply = CallReply {
            id: self.id,
            body: Some(call_reply::Body::Data(piece.text)),
            position: Some(LogPosition { attempt: self.attempt, bytes: piece.at }),
            notice,
        };
        self.replies.send(reply).await.map_err(|_| ())
    }
}

async fn next(mut log: AttemptLog) -> Result<(Option<Piece>, AttemptLog), LogError> {
    let work = move || log.next().map(|piece| (piece, log));
    tokio::task::spawn_blocking(work).await.map_err(|_| LogError::Interrupted)?
}
