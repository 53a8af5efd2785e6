//! Freezing and thawing: a person's wish, and what stands against it. A parked replica takes no requests, so nobody waits for one that is frozen.
//!
//! It lasts until the wish to thaw, the order to unpark or to stop, or the agent's own restart, which thaws what it finds: none of them waits for a person.

use crate::core::AgentCore;
use crate::effect::Effect;
use crate::ids::ReplicaId;
use crate::replica::{Phase, Replica};

impl AgentCore {
    pub(crate) fn freeze(&mut self, id: ReplicaId, frozen: bool, force: bool, ticket: u64) {
        let refusal = match self.replicas.get(&id) {
            None => Some(format!("replica {id} is not known on this node: it has ended, or never ran here")),
            Some(replica) => refusal(replica, frozen, force),
        };
        if let Some(why) = refusal {
            return self.effects.push(Effect::RefuseFreeze { ticket, why });
        }
        let Some(replica) = self.replicas.get_mut(&id) else { return };
        replica.seen.frozen = frozen;
        let attempt = replica.seen.attempt;
        self.effects.push(Effect::Freeze { replica: id, attempt, frozen, ticket });
        self.touched.insert(id);
    }
}

fn refusal(replica: &Replica, frozen: bool, force: bool) -> Option<String> {
    let id = replica.id;
    if replica.seen.phase != Phase::Running || replica.wanted.stop.is_some() {
        let lifecycle = format!("{:?}", replica.lifecycle()).to_lowercase();
        return Some(format!("replica {id} is {lifecycle}: only one that runs can be frozen or thawed"));
    }
    if frozen && !replica.wanted.parked && !force {
        return Some(format!(
            "replica {id} is in rotation, and whoever asks it would wait: only a parked one is frozen; --force freezes it all the same"
        ));
    }
    None
}
