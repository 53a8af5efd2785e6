//! The loop itself: takes in what comes, lets core and member work it off, sends what follows.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bellows_core::ids::{LogIndex, Token};
use bellows_core::input::Input;
use bellows_core::step::{Config, Core};
use bellows_core::time::Instant;
use bellows_member::{Actions, Committed, Member, Restore, Role};
use bellows_proto::log as stored;
use prost::Message as _;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use super::DriverError;
use super::event_ring::EventRing;
use super::handle::Handle;
use super::message::{AgentMessage, Answer, Message};
use super::metrics::Metrics;
use super::proposals::Proposals;
use super::sessions::Sessions;
use super::standing::Standing;
use super::writer::Writer;
use crate::clock::Clock;
use crate::convert::{command_from_log, model_from_log, model_to_log};

/// The member's tick: its default patience is meant for 50 ms (a heartbeat each 100 ms, an election after 0.5 to 1 s).
const MEMBER_TICK: Duration = Duration::from_millis(50);

/// Messages that may wait: some requests and one report from each of some hundred agents. The senders wait when it is full.
const INBOX: usize = 1_024;

/// Messages per turn: enough to commit a burst of requests with one write to the disk, few enough to keep the ticks.
const MESSAGES_PER_TURN: usize = 256;

/// What the driver takes over.
pub(crate) struct DriverParts {
    pub(crate) core: Config,
    pub(crate) member: Member,
    pub(crate) writer: Writer,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) dashboard: String,
}

/// The driver's state. One task owns it.
pub(super) struct Driver {
    pub(super) core: Core,
    pub(super) member: Member,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) dashboard: String,
    pub(super) sessions: Sessions,
    pub(super) proposals: Proposals,
    pub(super) events: EventRing,
    /// Requests that wait for their fate.
    pub(super) waiting: BTreeMap<Token, oneshot::Sender<Answer>>,
    /// Inputs that follow from effects of this turn.
    pub(super) inputs: VecDeque<Input>,
    /// Something that people can see may have changed in this turn.
    pub(super) stirred: bool,
    /// When the invariants were last checked, and how many did not hold.
    pub(super) checked: Option<(Instant, usize)>,
    writer: Writer,
    last_token: u64,
    pub(super) last_session: u64,
    ticks: u64,
    quorum: bool,
    changes: watch::Sender<u64>,
    standing: watch::Sender<Standing>,
}

/// Starts the driver's task. It ends when `stop` does, or by itself when it cannot go on.
pub(crate) fn start(
    parts: DriverParts,
    stop: watch::Receiver<bool>,
) -> (Handle, tokio::task::JoinHandle<Result<(), DriverError>>) {
    let (inbox, messages) = mpsc::channel(INBOX);
    let (changes, changes_seen) = watch::channel(0);
    let (standing, standing_seen) = watch::channel(Standing::default());
    let driver = Driver {
        core: Core::new(parts.core),
        member: parts.member,
        clock: parts.clock,
        metrics: parts.metrics,
        dashboard: parts.dashboard,
        sessions: Sessions::default(),
        proposals: Proposals::default(),
        events: EventRing::default(),
        waiting: BTreeMap::new(),
        inputs: VecDeque::new(),
        stirred: false,
        checked: None,
        writer: parts.writer,
        last_token: 0,
        last_session: 0,
        ticks: 0,
        quorum: false,
        changes,
        standing,
    };
    let handle = Handle { inbox, changes: changes_seen, standing: standing_seen };
    (handle, tokio::spawn(driver.run(messages, stop)))
}

impl Driver {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Message>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), DriverError> {
        let mut ticker = tokio::time::interval(MEMBER_TICK);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut messages = Vec::with_capacity(MESSAGES_PER_TURN);
        let outcome = loop {
            if let Err(error) = self.work_off() {
                break Err(error);
            }
            tokio::select! {
                // An error means that the controller was dropped: the same thing.
                _ = stop.wait_for(|stop| *stop) => break Ok(()),
                _ = ticker.tick() => self.tick(),
                written = self.writer.written() => match written {
                    Ok(number) => self.member.persisted(number),
                    Err(why) => break Err(DriverError::Disk { why }),
                },
                _ = inbox.recv_many(&mut messages, MESSAGES_PER_TURN) => {
                    messages.drain(..).for_each(|message| self.take(message));
                }
            }
        };
        self.end(outcome.as_ref().err()).await;
        outcome
    }

    async fn end(mut self, error: Option<&DriverError>) {
        if let Some(error) = error {
            tracing::error!(%error, "the controller cannot go on");
        }
        for (_, session) in self.sessions.ids() {
            self.sessions.close(session, "this controller is stopping".to_owned(), true, self.core.model());
        }
        self.writer.finish().await;
    }

    fn tick(&mut self) {
        self.member.tick();
        self.ticks += 1;
        let per_core_tick = (self.core.config().limits.tick.0 / MEMBER_TICK.as_millis() as u64).max(1);
        if self.ticks.is_multiple_of(per_core_tick) {
            self.inputs.push_back(Input::Tick);
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Request { by, key, request, answer } => {
                self.last_token += 1;
                let token = Token(self.last_token);
                self.waiting.insert(token, answer);
                self.input(Input::Request { token, by, key, request });
            }
            Message::Question(question) => self.answer(question),
            Message::Agent(message) => self.take_agent(message),
            Message::Raft { bytes } => {
                if let Err(error) = self.member.step(&bytes) {
                    tracing::warn!(error = super::writer::chain(&error), "a member's message was not taken");
                }
            }
        }
    }

    fn take_agent(&mut self, message: AgentMessage) {
        match message {
            AgentMessage::Connecting { node, agent, fence, outbox, session } => {
                self.last_session += 1;
                let id = bellows_core::ids::SessionId(self.last_session);
                self.sessions.open(node, id, outbox);
                // The stream may have ended meanwhile; then `Disconnected` cannot follow, so it is told here.
                let gone = session.send(id).is_err();
                self.input(Input::Connecting { node, session: id, agent, fence });
                if gone {
                    self.take_agent(AgentMessage::Disconnected { node, session: id });
                }
            }
            AgentMessage::Hello { node, session, facts, inventory, remembered } => {
                self.input(Input::Hello { node, session, facts, inventory, remembered });
            }
            AgentMessage::Alive { node, session, newcomer } => self.input(Input::Alive { node, session, newcomer }),
            AgentMessage::Report { node, session, report } => self.input(Input::Report { node, session, report }),
            AgentMessage::Subscribe { node, session, apps, dropped } => {
                self.input(Input::Subscribe { node, session, apps, dropped });
            }
            AgentMessage::Traffic { node, session, report } => self.input(Input::Traffic { node, session, report }),
            AgentMessage::Unfit { node, session, why } => {
                tracing::warn!(%node, %session, why, "an agent's message was not taken");
                self.sessions.close(session, why, false, self.core.model());
                self.input(Input::Disconnected { node, session });
            }
            AgentMessage::Disconnected { node, session } => {
                self.sessions.forget(session);
                self.input(Input::Disconnected { node, session });
            }
        }
    }

    /// The core steps now, so that questions of the same turn see it.
    pub(super) fn input(&mut self, input: Input) {
        self.inputs.push_back(input);
        self.step_all();
    }

    fn step_all(&mut self) {
        while let Some(input) = self.inputs.pop_front() {
            let quiet = matches!(input, Input::Tick);
            let started = std::time::Instant::now();
            let effects = self.core.step(self.clock.now(), input);
            self.metrics.step_seconds.observe(started.elapsed().as_secs_f64());
            self.stirred |= !quiet || !effects.is_empty();
            effects.into_iter().for_each(|effect| self.perform(effect));
        }
    }

    /// Until neither core nor member has anything left to do; then everything of this turn leaves together.
    fn work_off(&mut self) -> Result<(), DriverError> {
        loop {
            self.step_all();
            while let Some(written) = self.writer.more_written() {
                self.member.persisted(written.map_err(|why| DriverError::Disk { why })?);
            }
            if !self.writer.has_room() {
                break; // goes on when a batch is written
            }
            let actions = self.member.ready();
            if actions.is_empty() {
                break;
            }
            self.carry_out(actions)?;
        }
        self.watch_quorum();
        self.send_orders();
        self.publish();
        Ok(())
    }

    fn carry_out(&mut self, actions: Actions) -> Result<(), DriverError> {
        // A single member sends no letters; three get their transport with the issue that brings them.
        self.metrics.letters_dropped.inc_by(actions.messages.len() as u64);
        if let Some(batch) = actions.persist {
            self.writer.write(batch);
        }
        if let Some(restore) = actions.restore {
            self.restore(restore)?;
        }
        for committed in actions.committed {
            self.commit(&committed)?;
        }
        if let Some(role) = actions.role {
            self.change_role(role);
        }
        if actions.snapshot_wanted {
            self.snapshot();
        }
        Ok(())
    }

    fn restore(&mut self, restore: Restore) -> Result<(), DriverError> {
        let index = restore.index;
        let unfit = |why: String| DriverError::Snapshot { index, why };
        let snapshot = stored::Snapshot::decode(&*restore.model).map_err(|error| unfit(error.to_string()))?;
        let model = model_from_log(snapshot).map_err(|error| unfit(error.to_string()))?;
        self.input(Input::Restored { index: LogIndex(index), model: Box::new(model) });
        Ok(())
    }

    fn commit(&mut self, committed: &Committed) -> Result<(), DriverError> {
        let index = committed.index;
        let unfit = |why: String| DriverError::Entry { index, why };
        let command = stored::Command::decode(&*committed.command).map_err(|error| unfit(error.to_string()))?;
        let command = command_from_log(command).map_err(|error| unfit(error.to_string()))?;
        let claim = self.proposals.claim(committed);
        if let Some(token) = claim.lost {
            self.input(Input::ProposalDropped {
                token,
                why: "another leader's entry took its place; try again".to_owned(),
            });
        }
        self.input(Input::Committed { index: LogIndex(index), token: claim.own, command });
        Ok(())
    }

    fn change_role(&mut self, role: Role) {
        match role {
            Role::Leader { term } => {
                tracing::info!(term, "this member leads");
                self.input(Input::BecameLeader { term });
                self.quorum = self.member.quorum_heard();
                self.input(Input::Quorum { heard: self.quorum });
            }
            Role::Follower { .. } => self.step_down(),
        }
    }

    fn step_down(&mut self) {
        for token in self.proposals.give_up() {
            let why = "leadership was lost before the change was committed; it may or may not take effect, look before you repeat it";
            self.input(Input::ProposalDropped { token, why: why.to_owned() });
        }
        for (_, session) in self.sessions.ids() {
            self.sessions.close(
                session,
                "this controller leads no more; connect to another".to_owned(),
                true,
                self.core.model(),
            );
        }
        self.input(Input::SteppedDown);
    }

    fn snapshot(&mut self) {
        let model = model_to_log(self.core.model()).encode_to_vec();
        if let Err(error) = self.member.compact(self.core.applied().0, model) {
            tracing::warn!(%error, "the log was not compacted");
        }
    }

    fn watch_quorum(&mut self) {
        let heard = self.member.quorum_heard();
        if heard != self.quorum {
            self.quorum = heard;
            self.input(Input::Quorum { heard });
        }
    }

    fn send_orders(&mut self) {
        let (sent, slow) = self.sessions.flush(self.core.model());
        self.metrics.orders_sent.inc_by(sent);
        for (node, session) in slow {
            tracing::warn!(%node, %session, "the agent takes its orders too slowly");
            let why = "the agent took its orders too slowly and too many were waiting; it may connect again".to_owned();
            self.sessions.close(session, why, true, self.core.model());
            self.input(Input::Disconnected { node, session });
        }
    }

    fn publish(&mut self) {
        let leading = self.leads_with_quorum();
        self.standing.send_if_modified(|standing| std::mem::replace(&mut standing.leading, leading) != leading);
        if std::mem::take(&mut self.stirred) {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    pub(super) fn leads_with_quorum(&self) -> bool {
        self.core.view().leads() && self.quorum && self.core.model().incarnation > 0
    }
}
