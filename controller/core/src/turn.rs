//! One step of a leader: the model as it stands, the world to change, and the effects that come of it.

use std::borrow::Cow;

use crate::effect::{Action, Effect, Event, EventKind, Order};
use crate::ids::{AppId, NodeId, OrderSequence, ReplicaId};
use crate::limits::Limits;
use crate::model::Model;
use crate::observe::outbox::Pending;
use crate::observe::world::{Timer, World};
use crate::reason::Reason;
use crate::time::Instant;

/// What every rule of the leader may look at and change.
pub struct Turn<'a> {
    /// The caller's clock.
    pub now: Instant,
    /// Durations and bounds.
    pub limits: &'a Limits,
    /// For draws among equals.
    pub seed: u64,
    /// The declared world.
    pub model: &'a Model,
    /// The running world.
    pub world: &'a mut World,
    /// What shall be done.
    pub effects: &'a mut Vec<Effect>,
}

/// The same, only to be looked at.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    /// The caller's clock.
    pub now: Instant,
    /// Durations and bounds.
    pub limits: &'a Limits,
    /// For draws among equals.
    pub seed: u64,
    /// The declared world.
    pub model: &'a Model,
    /// The running world.
    pub world: &'a World,
}

impl<'a> Scene<'a> {
    /// A node as people call it.
    pub fn node_name(&self, node: NodeId) -> Cow<'a, str> {
        if let Some(name) = self.world.names.of(node) {
            return name.into();
        }
        self.model.node_name(node)
    }
}

impl Scene<'_> {
    fn write(&self, order: Pending) -> Order {
        match order {
            Pending::Written(order) => *order,
            Pending::Start { slot, sequence, resources } => {
                let copy = self.world.replicas.at(slot);
                let (app, revision, digest) = (copy.app, copy.revision, copy.digest);
                let action = Action::Start { app, revision, digest, resources };
                Order { sequence, replica: copy.id, action, reason: self.placed_reason(copy) }
            }
        }
    }
}

/// What an event is about.
#[derive(Clone, Copy, Debug, Default)]
pub struct About {
    /// An app.
    pub app: Option<AppId>,
    /// A copy.
    pub replica: Option<ReplicaId>,
    /// A node.
    pub node: Option<NodeId>,
}

impl About {
    /// An app.
    pub fn app(app: AppId) -> Self {
        Self { app: Some(app), ..Self::default() }
    }

    /// A node.
    pub fn node(node: NodeId) -> Self {
        Self { node: Some(node), ..Self::default() }
    }

    /// A copy with its app and node.
    pub fn replica(app: AppId, replica: ReplicaId, node: NodeId) -> Self {
        Self { app: Some(app), replica: Some(replica), node: Some(node) }
    }
}

impl Turn<'_> {
    /// Tells people.
    pub fn tell(&mut self, kind: EventKind, about: About, reason: Reason) {
        let About { app, replica, node } = about;
        self.effects.push(Effect::Event(Event { at: self.now, kind, app, replica, node, reason }));
    }

    /// Plan this app at that time.
    pub fn wake(&mut self, app: AppId, at: Instant) {
        self.world.timers.insert((at, Timer::App(app)));
    }

    /// Puts an order into the outbox. `None` when the node has no live session: then nothing can be ordered.
    pub fn order(&mut self, node: NodeId, replica: ReplicaId, action: Action, reason: Reason) -> Option<OrderSequence> {
        let sequence = self.world.next_sequence(node)?;
        self.world.post(node, Pending::Written(Box::new(Order { sequence, replica, action, reason })));
        Some(sequence)
    }

    /// Orders of this step leave, one batch per node.
    pub fn send_orders(&mut self) {
        let outbox = std::mem::take(&mut self.world.outbox);
        let scene = Scene { now: self.now, limits: self.limits, seed: self.seed, model: self.model, world: self.world };
        let fence = scene.world.fence;
        let batches = outbox.take(|order| scene.write(order));
        self.effects.reserve(batches.len());
        for (node, orders) in batches {
            let session = scene.world.node(node).and_then(|seen| seen.session.as_ref()).map(|session| session.id);
            if let Some(session) = session {
                self.effects.push(Effect::Orders { node, session, fence, orders });
            }
        }
    }

    /// This turn, only to be looked at.
    pub fn scene(&self) -> Scene<'_> {
        Scene { now: self.now, limits: self.limits, seed: self.seed, model: self.model, world: self.world }
    }
}
