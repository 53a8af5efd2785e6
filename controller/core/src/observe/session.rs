//! Connections of agents: Connecting -> Greet -> Hello -> live. Who may not speak to this leader is told why, and what mends it.
//!
//! A node's certificate may be shown by two agents: by one that was restarted, while its old connection still seems to be open, and by
//! one on a cloned disk. Both look the same when they connect, so the one that is there is asked:
//!
//! ```text
//! nobody is connected ----------------------------------------------> greeted
//! the same instance is connected (its network failed) --------------> greeted, the older connection ends
//! another instance is connected -> it is probed -> it answers ------> refused for good, with the remedy
//!                                       |-> its connection ends ----> greeted at once
//!                                       `-> silence for 1.5 s ------> greeted, the older connection ends
//! ```
//!
//! An agent that ended is known to be gone at once, because its kernel closes its connections; a probe decides only when that has not
//! happened. For a moment after the live agent's connection failed, only agents of the same boot of its server are let in, so that a
//! clone that keeps trying does not take its place.

use super::node::{Liveness, Newcomer, Session};
use super::replica::Sight;
use super::world::Timer;
use crate::effect::{Effect, EventKind};
use crate::ids::{Fence, NodeId, OrderSequence, SessionId};
use crate::input::AgentIdentity;
use crate::reason::Reason;
use crate::turn::{About, Scene, Turn};

/// A connection that is not taken.
struct Rejection {
    why: String,
    retry: bool,
}

impl Rejection {
    fn for_good(why: String) -> Self {
        Self { why, retry: false }
    }

    fn for_now(why: String) -> Self {
        Self { why, retry: true }
    }
}

impl Turn<'_> {
    /// An agent opened a stream.
    pub fn connecting(&mut self, node: NodeId, session: SessionId, agent: AgentIdentity, fence: Fence) {
        let admitted = self.scene().admit(node, &agent, fence);
        if let Err(rejection) = admitted.and_then(|()| self.scene().wait_for_silence(node, &agent)) {
            return self.reject(node, session, rejection);
        }
        let Some(seen) = self.world.node(node) else { return };
        match seen.session.as_ref().filter(|open| open.agent.instance != agent.instance).map(|open| open.id) {
            Some(open) => self.wait(node, open, session, agent),
            None => self.open(node, session, agent),
        }
    }

    fn reject(&mut self, node: NodeId, session: SessionId, Rejection { why, retry }: Rejection) {
        if !retry {
            self.tell(EventKind::Refused, About::node(node), Reason::new("session_refused", why.clone()));
        }
        self.effects.push(Effect::CloseSession { node, session, why, retry });
    }

    /// The newcomer waits until the agent that is there has shown that it is, or is not.
    fn wait(&mut self, node: NodeId, open: SessionId, session: SessionId, agent: AgentIdentity) {
        let now = self.now;
        let Some(seen) = self.world.node_mut(node) else { return };
        let before = seen.newcomer.take();
        // One that connects again goes on waiting; it does not begin anew.
        let again = before.as_ref().filter(|before| before.agent.instance == agent.instance);
        let since = again.map_or(now, |before| before.since);
        seen.newcomer = Some(Newcomer { session: Some(session), agent, since });
        let at = since + self.limits.probe_patience;
        if let Some(overtaken) = before.and_then(|before| before.session) {
            let why = "another agent with this node's identity has connected since; connect again".to_owned();
            self.reject(node, overtaken, Rejection::for_now(why));
        }
        self.world.timers.insert((at, Timer::Node(node)));
        self.effects.push(Effect::Probe { node, session: open, newcomer: session });
    }

    /// The agent that was there first answers: the other one is a clone.
    pub fn alive(&mut self, node: NodeId, session: SessionId, newcomer: SessionId) {
        let now = self.now;
        let Some(seen) = self.world.node_mut(node) else { return };
        let Some(open) = seen.session.as_ref().filter(|open| open.id == session) else { return };
        let (first, since) = (open.agent.clone(), open.since);
        let Some(second) = seen.newcomer.take_if(|waiting| waiting.session == Some(newcomer)) else { return };
        let name = self.scene().node_name(node);
        let whose = if first.boot == second.agent.boot { "this very server" } else { "another server" };
        let why = format!(
            "an agent on {whose} has been connected as node {name} for {} (boot {}, instance {}), and this one (boot {}, instance {}) shows the same identity, as from a cloned disk; {REMEDY}",
            now - since,
            short(&first.boot),
            short(&first.instance),
            short(&second.agent.boot),
            short(&second.agent.instance),
        );
        self.reject(node, newcomer, Rejection::for_good(why));
    }

    /// Nothing is in the newcomer's way any more: the agent before it is gone, or has been silent for too long.
    fn admit_newcomer(&mut self, node: NodeId) {
        let waiting = self.world.node_mut(node).and_then(|seen| seen.newcomer.take());
        if let Some(Newcomer { session: Some(session), agent, .. }) = waiting {
            self.open(node, session, agent);
        }
    }

    /// A probe that was not answered in time.
    pub fn admit_patient(&mut self, node: NodeId) {
        let due = self.now.0.saturating_sub(self.limits.probe_patience.0);
        let waiting = self.world.node(node).and_then(|seen| seen.newcomer.as_ref());
        if waiting.is_some_and(|newcomer| newcomer.since.0 <= due) {
            self.admit_newcomer(node);
        }
    }

    fn open(&mut self, node: NodeId, session: SessionId, agent: AgentIdentity) {
        let now = self.now;
        let Some(seen) = self.world.node_mut(node) else { return };
        let replaced = seen.session.take();
        seen.spoke = Some(agent.clone());
        let (sent, acknowledged) = (OrderSequence(0), OrderSequence(0));
        seen.session = Some(Session { id: session, agent, live: false, sent, acknowledged, allowed: 0, since: now });
        if let Some(old) = replaced {
            let why = "the agent opened a newer connection".to_owned();
            self.effects.push(Effect::CloseSession { node, session: old.id, why, retry: true });
            self.out_of_sight(node);
        }
        let fence = self.world.fence;
        self.effects.push(Effect::Greet { node, session, fence });
        let waiting = self.world.node(node).and_then(|seen| seen.newcomer.as_ref()).and_then(|waiting| waiting.session);
        if let Some(newcomer) = waiting {
            self.effects.push(Effect::Probe { node, session, newcomer });
        }
    }

    /// A stream ended. Its copies stay where they are; only their being heard ends.
    pub fn disconnected(&mut self, node: NodeId, session: SessionId) {
        let Some(seen) = self.world.node_mut(node) else { return };
        if let Some(newcomer) = &mut seen.newcomer {
            newcomer.session.take_if(|waiting| *waiting == session);
        }
        if seen.session.as_ref().is_some_and(|open| open.id == session) {
            seen.session = None;
            self.out_of_sight(node);
            self.admit_newcomer(node);
        }
    }

    /// No session: unknown until it is heard again or given up.
    pub fn out_of_sight(&mut self, node: NodeId) {
        let Some(seen) = self.world.node_mut(node) else { return };
        if seen.liveness == Liveness::Up {
            seen.liveness = Liveness::Unknown;
        }
        self.world.touch(node);
        self.ingress_unheard(node);
        self.set_sight(node, |sight| if sight == Sight::Clear { Sight::Blind } else { sight });
        self.watch(node);
    }

    /// Is this the live session of the node?
    pub fn speaks(&self, node: NodeId, session: SessionId) -> bool {
        let open = self.world.node(node).and_then(|seen| seen.session.as_ref());
        open.is_some_and(|open| open.id == session && open.live)
    }
}

impl Scene<'_> {
    fn admit(&self, node: NodeId, agent: &AgentIdentity, fence: Fence) -> Result<(), Rejection> {
        let name = self.node_name(node);
        let Some(known) = self.model.nodes.get(&node) else {
            return Err(Rejection::for_good(self.not_a_member(node)));
        };
        let own = self.world.fence;
        if fence.incarnation > own.incarnation {
            return Err(Rejection::for_good(format!(
                "node {name} has obeyed incarnation {} of the cluster and this controller is of incarnation {}: it was started from an older backup; restore it again with `bellows controller restore --incarnation {}`",
                fence.incarnation,
                own.incarnation,
                fence.incarnation + 1
            )));
        }
        if fence > own {
            return Err(Rejection::for_now(format!(
                "node {name} has obeyed fence {fence}, this leader has {own}: a newer leader is there"
            )));
        }
        if known.machine != agent.machine {
            return Err(Rejection::for_good(format!(
                "node {name} has another machine identity than this agent: its identity was copied from elsewhere, as with a cloned disk; {REMEDY}"
            )));
        }
        Ok(())
    }

    /// Just heard, from another boot of the server than this agent's: a server does not restart that fast, but its clone may try.
    fn wait_for_silence(&self, node: NodeId, agent: &AgentIdentity) -> Result<(), Rejection> {
        let Some(seen) = self.world.node(node).filter(|seen| seen.session.is_none()) else { return Ok(()) };
        let until = seen.heard + self.limits.node_late;
        let elsewhere = |spoke: &AgentIdentity| spoke.boot != agent.boot;
        if seen.ever_heard && self.now < until && seen.spoke.as_ref().is_some_and(elsewhere) {
            let silence = self.now - seen.heard;
            return Err(Rejection::for_now(format!(
                "node {} was heard {silence} ago from another boot of its server; an agent of this boot is taken after {} of silence",
                self.node_name(node),
                self.limits.node_late
            )));
        }
        Ok(())
    }

    /// For an agent whose node has left, or never was.
    pub fn not_a_member(&self, node: NodeId) -> String {
        let Some(removed) = self.model.removed_node(node) else {
            return format!("node {node} is not part of this cluster; {REMEDY}");
        };
        format!(
            "node {} ({node}) was removed from this cluster by {} at {}; to come back, {REJOIN}: it becomes a new node, and copies that still run there are taken in or ended",
            removed.name,
            removed.by,
            removed.at.utc()
        )
    }
}

/// How an agent gets an identity of its own.
const REMEDY: &str = "on the machine that was cloned, remove the folder `identity` in the agent's state folder and start the agent with --token (`bellows token` prints one) and a --name of its own";

/// How a server that left becomes a node again.
const REJOIN: &str = "remove the folder `identity` in its agent's state folder and start the agent with --token (`bellows token` prints one)";

/// Enough of an id to tell two apart.
fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}
