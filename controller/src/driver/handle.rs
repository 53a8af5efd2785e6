//! How handlers reach the driver.

use bellows_core::input::Request;
use bellows_core::model::command::Outcome;
use tokio::sync::{mpsc, oneshot, watch};
use tonic::Status;

use super::message::{AgentMessage, Answer, Message, Question};
use super::standing::Standing;

/// Cheap to clone. When the driver has ended, every call says so.
#[derive(Clone)]
pub(crate) struct Handle {
    pub(super) inbox: mpsc::Sender<Message>,
    pub(super) changes: watch::Receiver<u64>,
    pub(super) standing: watch::Receiver<Standing>,
}

impl Handle {
    /// Asks for a change and waits until it is committed, refused, or given up.
    pub(crate) async fn request(&self, by: &str, key: &str, request: Request) -> Result<Outcome, Status> {
        let (answer, answered) = oneshot::channel();
        let (by, key) = (by.to_owned(), key.to_owned());
        self.send(Message::Request { by, key, request, answer }).await?;
        match answered.await.map_err(|_| ended())? {
            Answer::Decided(outcome) => Ok(outcome),
            Answer::Undecided(why) => Err(Status::unavailable(why)),
        }
    }

    /// Asks something that changes nothing.
    pub(crate) async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<Result<T, Status>>) -> Question,
    ) -> Result<T, Status> {
        let (answer, answered) = oneshot::channel();
        self.send(Message::Question(question(answer))).await?;
        answered.await.map_err(|_| ended())?
    }

    /// Brings what an agent said; waits while the driver is busy, so that a flood stays in its own connection.
    pub(crate) async fn agent(&self, message: AgentMessage) -> Result<(), Status> {
        self.send(Message::Agent(message)).await
    }

    /// Brings another member's message.
    pub(crate) async fn raft(&self, bytes: Vec<u8>) -> Result<(), Status> {
        self.send(Message::Raft { bytes }).await
    }

    /// Rises whenever something that people can see may have changed.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        let mut changes = self.changes.clone();
        changes.mark_changed();
        changes
    }

    /// Does this member lead, with a quorum?
    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Returns when the driver has ended.
    pub(crate) async fn ended(&self) {
        let mut changes = self.changes.clone();
        while changes.changed().await.is_ok() {}
    }

    async fn send(&self, message: Message) -> Result<(), Status> {
        self.inbox.send(message).await.map_err(|_| ended())
    }
}

fn ended() -> Status {
    Status::unavailable("this controller is stopping; try again in a moment")
}
