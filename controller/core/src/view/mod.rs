//! What people and programs see. Read only; every row is a value of its own, with stable field names.

pub mod explain;
pub mod rows;
mod scaling;
pub mod settled;

use crate::ids::{AppId, NodeId, ReplicaId};
use crate::model::{App, Model};
use crate::observe::node::NodeSeen;
use crate::observe::world::{AppSeen, World};
use crate::step::Core;
use crate::time::Instant;
use crate::turn::Scene;

/// Queries on a core at one moment.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub(crate) core: &'a Core,
}

impl Core {
    /// Queries on this core as it stands.
    pub fn view(&self) -> View<'_> {
        View { core: self }
    }
}

impl<'a> View<'a> {
    /// Does this member lead? Only then is anything known of nodes and copies.
    pub fn leads(&self) -> bool {
        self.core.world().is_some()
    }

    pub(crate) fn model(&self) -> &'a Model {
        self.core.model()
    }

    pub(crate) fn world(&self) -> Option<&'a World> {
        self.core.world()
    }

    pub(crate) fn now(&self) -> Instant {
        self.core.now()
    }

    pub(crate) fn app_seen(&self, app: AppId) -> Option<&'a AppSeen> {
        self.world()?.apps.get(&app)
    }

    pub(crate) fn node_seen(&self, node: NodeId) -> Option<&'a NodeSeen> {
        self.world()?.node(node)
    }

    /// An app by its names.
    pub fn find_app(&self, tenant: &str, name: &str) -> Option<&'a App> {
        let id = self.model().app_names.get(&(tenant.to_owned(), name.to_owned()))?;
        self.model().apps.get(id)
    }

    /// A node by its name.
    pub fn find_node(&self, name: &str) -> Option<NodeId> {
        self.model().nodes.values().find(|node| node.name == name).map(|node| node.id)
    }

    /// The latest node of that name that left for good.
    pub fn find_removed_node(&self, name: &str) -> Option<NodeId> {
        self.model().removed.iter().rev().find(|node| node.name == name).map(|node| node.id)
    }

    /// A node as people call it.
    pub fn node_name(&self, node: NodeId) -> String {
        self.model().node_name(node).into_owned()
    }

    /// An app as people call it, also when it was removed.
    pub fn app_name(&self, app: AppId) -> String {
        if let Some(known) = self.model().apps.get(&app) {
            return known.current.spec.name.clone();
        }
        let seen = self.app_seen(app).map(|seen| seen.name.clone()).filter(|name| !name.is_empty());
        seen.unwrap_or_else(|| app.to_string())
    }

    /// Where a copy is; where it was, as long as its end is remembered.
    pub fn node_of(&self, replica: ReplicaId) -> Option<NodeId> {
        let world = self.world()?;
        let mut gone = world.apps.values().flat_map(|seen| &seen.gone);
        let living = world.replicas.find(replica).map(|slot| world.replicas.at(slot).node);
        living.or_else(|| gone.find(|gone| gone.id == replica).map(|gone| gone.node))
    }

    /// The planner's own eyes: explanations use the same filters and words as decisions.
    pub(crate) fn scene(&self) -> Option<Scene<'a>> {
        let config = self.core.config();
        let (now, limits, seed) = (self.now(), &config.limits, config.seed);
        Some(Scene { now, limits, seed, model: self.model(), world: self.world()? })
    }
}
