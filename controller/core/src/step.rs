//! `Core`: the one entry. `step(now, input)` answers with everything that shall be done because of it.
//!
//! ```text
//!            BecameLeader                      SteppedDown
//! follower ----------------> leader (World) ----------------> follower
//!    | Committed, Restored      | everything
//!    v model only               v model, world, orders
//! ```
//! Deliberately absent: a clock, randomness, sockets. A follower applies what was committed and nothing else.

use serde::{Deserialize, Serialize};

use crate::effect::Effect;
use crate::ids::{Fence, LogIndex, NodeId, Token};
use crate::input::{Input, Request};
use crate::limits::Limits;
use crate::model::Model;
use crate::model::apply::{apply, nearest};
use crate::model::command::{Change, Command, Outcome, Refusal};
use crate::observe::world::World;
use crate::time::Instant;
use crate::turn::Turn;

/// What a core is made with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The name under which a first leader founds the cluster, when its log is empty.
    pub cluster: String,
    /// Durations and bounds.
    pub limits: Limits,
    /// For draws among equals.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { cluster: "bellows".to_owned(), limits: Limits::default(), seed: 0 }
    }
}

/// The leader's mind, or a follower's memory.
#[derive(Clone, Debug, Serialize)]
pub struct Core {
    config: Config,
    model: Model,
    applied: LogIndex,
    world: Option<World>,
    now: Instant,
}

impl Core {
    /// Knows nothing yet; a snapshot or the log tells it.
    pub fn new(config: Config) -> Self {
        Self { config, model: Model::default(), applied: LogIndex(0), world: None, now: Instant(0) }
    }

    /// One thing happened.
    pub fn step(&mut self, now: Instant, input: Input) -> Vec<Effect> {
        self.now = self.now.max(now);
        let mut effects = Vec::new();
        match input {
            Input::Committed { index, token, command } => self.committed(index, token, &command, &mut effects),
            Input::Restored { index, model } => self.restored(index, *model, &mut effects),
            Input::BecameLeader { term } => self.became_leader(term, &mut effects),
            Input::SteppedDown => self.world = None,
            Input::Request { token, by, key, request } => self.request(token, by, key, request, &mut effects),
            Input::ProposalDropped { token, why } => effects.push(Effect::Unanswered { token, why }),
            Input::Connecting { node, session, .. } if self.world.is_none() => {
                let why = "this controller does not lead; connect to another".to_owned();
                effects.push(Effect::CloseSession { node, session, why, retry: true });
            }
            other => self.as_leader(&mut effects, |turn| turn.take(other)),
        }
        self.as_leader(&mut effects, |turn| {
            turn.plan();
            turn.send_orders();
            turn.send_routes();
            turn.send_allowances();
        });
        effects
    }

    /// The declared world.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The last command applied.
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// The running world, while this member leads.
    pub fn world(&self) -> Option<&World> {
        self.world.as_ref()
    }

    /// What it was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The latest clock it was told.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Runs a rule of the leader; does nothing on a follower.
    pub(crate) fn as_leader(&mut self, effects: &mut Vec<Effect>, rule: impl FnOnce(&mut Turn<'_>)) {
        let Some(world) = &mut self.world else { return };
        let (limits, seed) = (&self.config.limits, self.config.seed);
        rule(&mut Turn { now: self.now, limits, seed, model: &self.model, world, effects });
    }

    fn committed(&mut self, index: LogIndex, token: Option<Token>, command: &Command, effects: &mut Vec<Effect>) {
        if index <= self.applied {
            return;
        }
        self.applied = index;
        let applied = apply(&mut self.model, index, command);
        effects.extend(applied.events.into_iter().map(Effect::Event));
        self.as_leader(effects, |turn| turn.revise(&command.change, &applied.outcome));
        if let Some(token) = token {
            effects.push(Effect::Reply { token, outcome: applied.outcome });
        }
    }

    fn restored(&mut self, index: LogIndex, model: Model, effects: &mut Vec<Effect>) {
        self.model = model;
        self.applied = index;
        self.as_leader(effects, |turn| turn.revise_all());
    }

    fn became_leader(&mut self, term: u64, effects: &mut Vec<Effect>) {
        let fence = Fence { incarnation: self.model.incarnation, term };
        let window = self.config.limits.full_window;
        self.world = Some(World::unseen(fence, self.now, window));
        if self.model.incarnation == 0 {
            let change = Change::FoundCluster { cluster: self.config.cluster.clone(), incarnation: 1 };
            let command = Command { at: self.now, by: "leader".to_owned(), key: String::new(), change };
            effects.push(Effect::Propose { token: None, command });
        }
        self.as_leader(effects, |turn| turn.begin());
    }

    fn request(&mut self, token: Token, by: String, key: String, request: Request, effects: &mut Vec<Effect>) {
        let why = match &self.world {
            None => Some("this controller does not lead; ask another"),
            Some(world) if !world.quorum => Some(
                "most of the controllers do not answer this one, so nothing can be promised; nothing was changed: see whether they run, and try again",
            ),
            Some(_) => None,
        };
        if let Some(why) = why {
            effects.push(Effect::Unanswered { token, why: why.to_owned() });
            return;
        }
        match self.change_for(request, &key) {
            Ok(change) => {
                let command = Command { at: self.now, by, key, change };
                effects.push(Effect::Propose { token: Some(token), command });
            }
            Err(refusal) => effects.push(Effect::Reply { token, outcome: Outcome::Refused(refusal) }),
        }
    }

    /// The door: what can be refused without troubling the log is refused here.
    fn change_for(&self, request: Request, key: &str) -> Result<Change, Refusal> {
        Ok(match request {
            Request::Apply { spec, digest, expected } => {
                spec.check().map_err(|faults| {
                    let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
                    Refusal::BadSpec(texts.join("\n"))
                })?;
                Change::ApplyApp { spec, digest, expected }
            }
            Request::Scale { tenant, name, replicas, expected } => {
                Change::ScaleApp { tenant, name, replicas, expected }
            }
            Request::Remove { tenant, name, expected } => Change::RemoveApp { tenant, name, expected },
            Request::SetNodeState { node, state } => Change::SetNodeState { node: self.node_named(&node, key)?, state },
            Request::RemoveNode { node } => Change::RemoveNode { node: self.node_named(&node, key)? },
            Request::Join { name, machine, labels } => Change::JoinNode { name, machine, labels },
            Request::RegisterImage { name, digest, size } => Change::RegisterImage { name, digest, size },
            Request::RemoveImage { name } => Change::RemoveImage { name },
            Request::CreateToken { hash, expires } => Change::CreateToken { hash, expires },
            Request::Resume => Change::Resume,
        })
    }

    /// A repeated request means the node that it meant the first time, also when that has left.
    fn node_named(&self, name: &str, key: &str) -> Result<NodeId, Refusal> {
        let kept = self.model.keys.iter().find(|kept| !key.is_empty() && kept.key == key);
        let asked = kept.and_then(|kept| match kept.change {
            Change::SetNodeState { node, .. } | Change::RemoveNode { node } => Some(node),
            _ => None,
        });
        let asked = asked.filter(|node| self.model.node_name(*node) == name);
        let found = self.model.node_names.get(name).copied();
        asked.or(found).ok_or_else(|| Refusal::UnknownNode {
            name: name.to_owned(),
            nearest: nearest(name, self.model.node_names.keys()),
        })
    }
}

impl Turn<'_> {
    /// What only a leader hears.
    fn take(&mut self, input: Input) {
        match input {
            Input::Tick => {
                self.demand_of_all();
                self.record_wanted();
                self.record_ended();
            }
            Input::Quorum { heard } => {
                let regained = heard && !self.world.quorum;
                self.world.quorum = heard;
                if regained {
                    self.plan_all();
                }
            }
            Input::Connecting { node, session, agent, fence } => self.connecting(node, session, agent, fence),
            Input::Alive { node, session, newcomer } => self.alive(node, session, newcomer),
            Input::Hello { node, session, facts, inventory, remembered } => {
                self.hello(node, session, facts, (inventory, remembered));
            }
            Input::Report { node, session, report } => self.report(node, session, report),
            Input::Subscribe { node, session, apps, dropped } => self.subscribe(node, session, apps, dropped),
            Input::Traffic { node, session, report } => self.traffic(node, session, report),
            Input::Disconnected { node, session } => self.disconnected(node, session),
            // Taken before.
            Input::Committed { .. }
            | Input::Restored { .. }
            | Input::BecameLeader { .. }
            | Input::SteppedDown
            | Input::ProposalDropped { .. }
            | Input::Request { .. } => {}
        }
    }
}
