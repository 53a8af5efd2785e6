//! Open connections of agents: their outboxes, and which specs each has carried already.

use std::collections::{BTreeMap, BTreeSet};

use bellows_core::effect::{Action, Order};
use bellows_core::ids::{AppId, Fence, NodeId, RevisionNumber, SessionId, SpecDigest};
use bellows_core::model::Model;
use bellows_core::model::spec::AppSpec;
use bellows_core::plan::allow::Allowance;
use bellows_core::plan::routes::RouteUpdate;
use bellows_proto::node as wire;
use wire::to_agent::Body;

use super::outbox::{Full, ORDERS_PER_MESSAGE, Outbox};
use crate::convert::{allowance_to_wire, fence_to_wire, order_to_wire, routes_to_wire, spec_to_wire};

/// One connection.
struct Session {
    node: NodeId,
    outbox: Outbox,
    /// Specs that it has carried.
    carried: BTreeSet<SpecDigest>,
    /// Orders of this turn.
    waiting: Vec<Order>,
    /// Routes of this turn.
    routes: Vec<RouteUpdate>,
    fence: Fence,
}

/// All connections, by session.
#[derive(Default)]
pub(super) struct Sessions {
    open: BTreeMap<SessionId, Session>,
    /// Sessions with orders of this turn.
    stirred: BTreeSet<SessionId>,
}

impl Sessions {
    pub(super) fn open(&mut self, node: NodeId, id: SessionId, outbox: Outbox) {
        let session = Session {
            node,
            outbox,
            carried: BTreeSet::new(),
            waiting: Vec::new(),
            routes: Vec::new(),
            fence: Fence::default(),
        };
        self.open.insert(id, session);
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn ids(&self) -> Vec<(NodeId, SessionId)> {
        self.open.iter().map(|(id, session)| (session.node, *id)).collect()
    }

    /// Sends one message to it, if it is still there.
    pub(super) fn send(&self, id: SessionId, body: Body) -> Result<(), Full> {
        self.open.get(&id).map_or(Ok(()), |session| session.outbox.send(body))
    }

    /// Orders leave at the end of the turn, all of one node together.
    pub(super) fn order(&mut self, id: SessionId, fence: Fence, orders: Vec<Order>) {
        let Some(session) = self.open.get_mut(&id) else { return };
        session.fence = fence;
        session.waiting.extend(orders);
        self.stirred.insert(id);
    }

    /// Likewise.
    pub(super) fn route(&mut self, id: SessionId, fence: Fence, updates: Vec<RouteUpdate>) {
        let Some(session) = self.open.get_mut(&id) else { return };
        session.fence = fence;
        session.routes.extend(updates);
        self.stirred.insert(id);
    }

    /// What an agent may start by itself, with the specs that its session has not carried yet.
    pub(super) fn allowances(
        &mut self,
        (id, fence, version): (SessionId, Fence, u64),
        allowances: &[Allowance],
        model: &Model,
    ) -> wire::Allowances {
        let runs = |allowance: &Allowance| (allowance.app, allowance.revision, allowance.digest);
        let session = self.open.get_mut(&id);
        let specs = session.map(|session| allowances.iter().filter_map(|one| session.spec(runs(one), model)).collect());
        wire::Allowances {
            fence: Some(fence_to_wire(fence)),
            session: id.0,
            version,
            specs: specs.unwrap_or_default(),
            allowances: allowances.iter().map(allowance_to_wire).collect(),
        }
    }

    /// Sends what waits; says how many orders left, and which sessions are too slow.
    pub(super) fn flush(&mut self, model: &Model) -> (u64, Vec<(NodeId, SessionId)>) {
        let (mut sent, mut slow) = (0, Vec::new());
        for id in std::mem::take(&mut self.stirred) {
            let Some(session) = self.open.get_mut(&id) else { continue };
            sent += session.waiting.len() as u64;
            if session.flush(id, model).is_err() {
                slow.push((session.node, id));
            }
        }
        (sent, slow)
    }

    /// Ends it with a reason; orders of this turn arrive before that.
    pub(super) fn close(&mut self, id: SessionId, text: String, retry: bool, model: &Model) {
        let Some(mut session) = self.open.remove(&id) else { return };
        let refusal = wire::Refusal { text, retry, leader_address: String::new() };
        let orders = !session.waiting.is_empty();
        match orders && session.flush(id, model).is_ok() {
            true => session.outbox.close_in_order(refusal),
            false => session.outbox.close(refusal),
        }
    }

    /// It has ended already.
    pub(super) fn forget(&mut self, id: SessionId) {
        self.open.remove(&id);
    }
}

impl Session {
    fn flush(&mut self, id: SessionId, model: &Model) -> Result<(), Full> {
        let orders = std::mem::take(&mut self.waiting);
        for part in orders.chunks(ORDERS_PER_MESSAGE) {
            let batch = wire::OrderBatch {
                fence: Some(fence_to_wire(self.fence)),
                session: id.0,
                specs: self.specs(part, model),
                orders: part.iter().map(order_to_wire).collect(),
            };
            self.outbox.send(Body::Orders(batch))?;
        }
        let routes = std::mem::take(&mut self.routes);
        if !routes.is_empty() {
            self.outbox.send(Body::Routes(routes_to_wire(id, self.fence, &routes)))?;
        }
        Ok(())
    }

    /// Those that this session has not carried yet.
    fn specs(&mut self, orders: &[Order], model: &Model) -> Vec<wire::Spec> {
        let start = |order: &Order| match &order.action {
            Action::Start { app, revision, digest, .. } => Some((*app, *revision, *digest)),
            _ => None,
        };
        orders.iter().filter_map(start).filter_map(|runs| self.spec(runs, model)).collect()
    }

    /// The spec, when this session has not carried it yet.
    fn spec(&mut self, (app, revision, digest): Runs, model: &Model) -> Option<wire::Spec> {
        if self.carried.contains(&digest) {
            return None;
        }
        let spec = find_spec(model, app, revision, digest)?;
        self.carried.insert(digest);
        Some(wire::Spec { digest: digest.0.to_vec(), spec: Some(spec_to_wire(spec)) })
    }
}

/// What a copy runs.
type Runs = (AppId, RevisionNumber, SpecDigest);

fn find_spec(model: &Model, app: AppId, revision: RevisionNumber, digest: SpecDigest) -> Option<&AppSpec> {
    let app = model.apps.get(&app)?;
    let kept = [Some(&app.current), app.previous.as_ref(), app.last_good.as_ref()];
    let mut kept = kept.into_iter().flatten();
    kept.find(|kept| kept.number == revision && kept.digest == digest).map(|kept| &*kept.spec)
}
