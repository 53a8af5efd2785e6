//! Connections of agents: Connecting -> Greet -> Hello -> live. Who may not speak to this leader is told why, and what mends it.

use super::node::{Liveness, Session};
use super::replica::Sight;
use crate::effect::{Effect, EventKind};
use crate::ids::{Fence, NodeId, OrderSequence, SessionId};
use crate::reason::Reason;
use crate::turn::{About, Turn};

/// A connection that is not taken.
struct Rejection {
    why: String,
    retry: bool,
}

impl Turn<'_> {
    /// An agent opened a stream.
    pub fn connecting(&mut self, node: NodeId, session: SessionId, machine: String, fence: Fence) {
        if let Err(Rejection { why, retry }) = self.admit(node, &machine, fence) {
            if !retry {
                self.tell(EventKind::Refused, About::node(node), Reason::new("session_refused", why.clone()));
            }
            self.effects.push(Effect::CloseSession { node, session, why, retry });
            return;
        }
        let (now, lost_after) = (self.now, self.limits.node_lost);
        let Some(seen) = self.world.node_mut(node) else { return };
        let replaced = seen.session.take();
        let clash = replaced.is_some() && now < seen.heard + lost_after;
        seen.clashes = if clash { seen.clashes + 1 } else { 0 };
        let (sent, acknowledged) = (OrderSequence(0), OrderSequence(0));
        seen.session = Some(Session { id: session, machine, live: false, sent, acknowledged, since: now });
        if let Some(old) = replaced {
            let why = "the agent opened a newer connection".to_owned();
            self.effects.push(Effect::CloseSession { node, session: old.id, why, retry: false });
            self.out_of_sight(node);
        }
        let fence = self.world.fence;
        self.effects.push(Effect::Greet { node, session, fence });
    }

    fn admit(&self, node: NodeId, machine: &str, fence: Fence) -> Result<(), Rejection> {
        let name = self.scene().node_name(node);
        let reject = |retry: bool, why: String| Err(Rejection { why, retry });
        let Some(known) = self.model.nodes.get(&node) else {
            return reject(
                false,
                format!(
                    "node {node} is not part of this cluster (any more); join again with a token from `bellows token`"
                ),
            );
        };
        let own = self.world.fence;
        if fence.incarnation > own.incarnation {
            return reject(
                false,
                format!(
                    "node {name} has obeyed incarnation {} of the cluster and this controller is of incarnation {}: it was started from an older backup; restore it again with `bellows controller restore --incarnation {}`",
                    fence.incarnation,
                    own.incarnation,
                    fence.incarnation + 1
                ),
            );
        }
        if fence > own {
            return reject(
                true,
                format!("node {name} has obeyed fence {fence}, this leader has {own}: a newer leader is there"),
            );
        }
        let seen = self.world.node(node);
        let live = seen.and_then(|seen| seen.session.as_ref()).filter(|session| session.machine != machine);
        if known.machine != machine || live.is_some() {
            return reject(false, cloned(&name));
        }
        if seen.is_some_and(|seen| {
            seen.clashes >= self.limits.identity_clashes && self.now < seen.heard + self.limits.node_lost
        }) {
            return reject(false, cloned(&name));
        }
        Ok(())
    }

    /// A stream ended. Its copies stay where they are; only their being heard ends.
    pub fn disconnected(&mut self, node: NodeId, session: SessionId) {
        let Some(seen) = self.world.node_mut(node) else { return };
        if seen.session.as_ref().is_some_and(|open| open.id == session) {
            seen.session = None;
            self.out_of_sight(node);
        }
    }

    /// No session: unknown until it is heard again or given up.
    pub fn out_of_sight(&mut self, node: NodeId) {
        let Some(seen) = self.world.node_mut(node) else { return };
        if seen.liveness == Liveness::Up {
            seen.liveness = Liveness::Unknown;
        }
        self.world.touch(node);
        self.set_sight(node, |sight| if sight == Sight::Clear { Sight::Blind } else { sight });
        self.watch(node);
    }

    /// Is this the live session of the node?
    pub fn speaks(&self, node: NodeId, session: SessionId) -> bool {
        let open = self.world.node(node).and_then(|seen| seen.session.as_ref());
        open.is_some_and(|open| open.id == session && open.live)
    }
}

fn cloned(name: &str) -> String {
    format!(
        "another machine is connected as node {name}: two agents with one identity, as from a cloned disk; on the machine that was cloned remove the folder `identity` in the agent's state folder and join again with a token"
    )
}
