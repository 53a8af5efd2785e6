//! Performing what the core decided. No choices are left here.

use bellows_core::effect::{Action, Effect, Event, Order};
use bellows_core::ids::{Fence, NodeId, ReplicaId, SessionId, Token};
use bellows_core::input::Input;
use bellows_core::model::command::Command;
use bellows_member::ProposeError;
use bellows_proto::node as wire;
use prost::Message as _;
use wire::to_agent::Body;

use super::message::Answer;
use super::run::Driver;
use super::view::event_to_wire;
use crate::convert::{command_to_log, entrances_to_wire, fence_to_wire, replica_id_to_wire};

impl Driver {
    pub(super) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Propose { token, command } => self.propose(token, &command),
            Effect::Reply { token, outcome } => self.reply(token, Answer::Decided(outcome)),
            Effect::Unanswered { token, why } => self.reply(token, Answer::Undecided(why)),
            Effect::Greet { node, session, fence } => self.greet(node, session, fence),
            Effect::Orders { node: _, session, fence, orders } => {
                self.metrics.placements.inc_by(orders.iter().filter(|order| starts(order)).count() as u64);
                self.sessions.order(session, fence, orders);
            }
            Effect::Probe { node, session, newcomer } => {
                self.send(node, session, Body::Probe(wire::Probe { nonce: newcomer.0 }));
            }
            Effect::Entrances { node, session, fence, whole, apps, gone, removed } => {
                let push = entrances_to_wire((session, fence), whole, &apps, &gone, &removed);
                self.send(node, session, Body::Entrances(push));
            }
            Effect::Allowances { node, session, fence, version, allowances } => {
                let push = self.sessions.allowances((session, fence, version), &allowances, self.core.model());
                self.send(node, session, Body::Allowances(push));
            }
            Effect::Routes { node: _, session, fence, updates } => self.sessions.route(session, fence, updates),
            Effect::Acknowledge { node, session, ended } => self.acknowledge(node, session, &ended),
            Effect::CloseSession { node, session, why, retry } => {
                tracing::info!(%node, %session, why, retry, "an agent's session was closed");
                self.sessions.close(session, why, retry, self.core.model());
            }
            Effect::Event(event) => self.record(&event),
        }
    }

    fn propose(&mut self, token: Option<Token>, command: &Command) {
        let bytes = command_to_log(command).encode_to_vec();
        match (self.member.propose(bytes), token) {
            (Ok(place), Some(token)) => self.proposals.wait(place, token),
            (Ok(_), None) => {}
            (Err(error), Some(token)) => {
                self.inputs.push_back(Input::ProposalDropped { token, why: refusal(&error) });
            }
            // The leader's own records are proposed again when they are still due.
            (Err(error), None) => tracing::debug!(%error, "a record of the leader was not proposed"),
        }
    }

    fn reply(&mut self, token: Token, answer: Answer) {
        if let Some(waiting) = self.waiting.remove(&token) {
            // Whoever asked may have hung up; the change stands all the same.
            let _ = waiting.send(answer);
        }
    }

    fn greet(&mut self, node: NodeId, session: SessionId, fence: Fence) {
        let greeting = wire::Greeting {
            fence: Some(fence_to_wire(fence)),
            session: session.0,
            cluster: self.core.model().cluster.clone(),
            heartbeat_ms: self.core.config().limits.heartbeat.0,
        };
        self.send(node, session, Body::Greeting(greeting));
    }

    fn acknowledge(&mut self, node: NodeId, session: SessionId, ended: &[ReplicaId]) {
        let ended = ended.iter().map(|id| replica_id_to_wire(*id)).collect();
        self.send(node, session, Body::Acknowledge(wire::Acknowledge { ended }));
    }

    fn send(&mut self, node: NodeId, session: SessionId, body: Body) {
        if self.sessions.send(session, body).is_err() {
            tracing::warn!(%node, %session, "the agent takes its messages too slowly");
            let why = "the agent took its messages too slowly and too many were waiting; it may connect again";
            self.sessions.close(session, why.to_owned(), true, self.core.model());
            self.inputs.push_back(Input::Disconnected { node, session });
        }
    }

    fn record(&mut self, event: &Event) {
        let wire = event_to_wire(self.core.view(), event);
        tracing::debug!(kind = wire.kind, app = wire.app, node = wire.node, why = event.reason.text, "event");
        self.events.push(wire);
    }
}

fn starts(order: &Order) -> bool {
    matches!(order.action, Action::Start { .. })
}

fn refusal(error: &ProposeError) -> String {
    match error {
        ProposeError::NotLeader { .. } => format!("{error}; ask the leader"),
        ProposeError::Empty | ProposeError::TooLong { .. } | ProposeError::Busy => error.to_string(),
    }
}
