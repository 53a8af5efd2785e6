//! Copies that are no more, kept to be explained. Three memories together outlive any leader: this one, which forgets with its
//! leader; the agents', which keep their latest ends and tell every new leader of them; and raft's, for ends that no agent can tell
//! (a node left for good, an order was lost). So the reasons of 100,000 ends cost no consensus.

use super::replica::Slot;
use crate::effect::{Effect, EventKind};
use crate::ids::NodeId;
use crate::input::{Ended, Exit, ReplicaReport};
use crate::model::Gone;
use crate::model::command::{Change, Command};
use crate::observe::inventory::exit_text;
use crate::observe::replica::Standing;
use crate::reason::Reason;
use crate::turn::{About, Turn};

impl Turn<'_> {
    /// What raft remembers; once per leader.
    pub fn recall(&mut self) {
        for gone in &self.model.ended {
            self.remember(gone.clone());
        }
    }

    /// A copy is no more, and its agent told so: it will tell the next leader too.
    pub fn finish_told(&mut self, slot: Slot, end: Ended, by_itself: bool) {
        let gone = self.close(slot, end, by_itself);
        self.remember(gone);
    }

    /// A copy is no more, and no agent can tell.
    pub fn finish(&mut self, slot: Slot, exit: Exit, why: Reason, by_itself: bool) {
        let gone = self.close(slot, Ended { exit, why, wanted: !by_itself, at: self.now }, by_itself);
        self.world.untold.push(gone.clone());
        self.remember(gone);
    }

    fn close(&mut self, slot: Slot, end: Ended, by_itself: bool) -> Gone {
        let scene = self.scene();
        let placed = scene.placed_reason(scene.world.replicas.at(slot));
        let replica = self.world.remove(slot);
        let Ended { exit, why, at, wanted: _ } = end;
        let (id, app, node, revision) = (replica.id, replica.app, replica.node, replica.revision);
        if by_itself && replica.standing == Standing::Known {
            self.note_crash(app, node, &why);
        }
        let text = Reason::new(&why.code, format!("{}: {}", exit_text(exit), why.text));
        self.tell(EventKind::Ended, About::replica(app, id, node), text);
        Gone { id, app, node, revision, exit, why, placed, at }
    }

    /// It lived and ended in another leader's time, or while none looked.
    pub fn remember_report(&mut self, node: NodeId, report: ReplicaReport, end: Ended) {
        let Ended { exit, why, at, wanted: _ } = end;
        let (id, app, revision, placed) = (report.id, report.app, report.revision, report.reason);
        self.remember(Gone { id, app, node, revision, exit, why, placed, at });
    }

    /// Sorted by time: inventories come in any order.
    fn remember(&mut self, gone: Gone) {
        let keep = self.limits.kept_ended;
        let kept = &mut self.world.apps.entry(gone.app).or_default().gone;
        if kept.iter().any(|other| other.id == gone.id) {
            return;
        }
        let at = kept.partition_point(|other| (other.at, other.id) <= (gone.at, gone.id));
        kept.insert(at, gone);
        if kept.len() > keep {
            kept.pop_front();
        }
    }

    /// What no agent can tell goes into the log, batched.
    pub fn record_ended(&mut self) {
        if self.world.untold.is_empty() || self.now < self.world.ends_recorded + self.limits.record_ended_every {
            return;
        }
        self.world.ends_recorded = self.now;
        let mut ended = std::mem::take(&mut self.world.untold);
        ended.drain(..ended.len().saturating_sub(self.limits.record_ended_most));
        let change = Change::RecordEnded { ended };
        let command = Command { at: self.now, by: "leader".to_owned(), key: String::new(), change };
        self.effects.push(Effect::Propose { token: None, command });
    }
}
