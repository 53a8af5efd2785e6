//! What failed: crashes back off and go elsewhere, lost nodes are replaced, and a brake doubts the network first.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::effect::EventKind;
use crate::ids::{AppId, NodeId};
use crate::limits::Limits;
use crate::observe::node::{Liveness, NodeSeen};
use crate::reason::Reason;
use crate::time::Instant;
use crate::turn::{About, Turn};

/// What crashed or was refused lately, per app.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Backoff {
    /// Crashes in a row.
    pub level: u32,
    /// The last one.
    pub last: Instant,
    /// When each crashed copy may be replaced.
    pub due: Vec<Instant>,
    /// Nodes to try last: how often it crashed there, and until when that counts.
    pub distrusted: BTreeMap<NodeId, (u32, Instant)>,
    /// Nodes that refused for want of room, until when they are left alone.
    pub full: BTreeMap<NodeId, Instant>,
}

/// Bounds replacement when the network is the likelier culprit than the servers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Brake {
    /// On until then.
    pub until: Instant,
    /// Recent losses.
    pub losses: Vec<Instant>,
    /// The second that is being spent, ...
    pub second: u64,
    /// ... and how much of it.
    pub spent: u32,
}

/// How a part of the starts went.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// Found a place.
    pub placed: u32,
    /// Were tried.
    pub asked: u32,
}

impl Share {
    /// Did all find a place?
    pub fn satisfied(&self) -> bool {
        self.placed == self.asked
    }

    /// How many did not?
    pub fn missing(&self) -> u32 {
        self.asked - self.placed
    }
}

impl Backoff {
    /// Replacements that must wait.
    pub fn waiting(&mut self, now: Instant) -> u32 {
        self.due.retain(|due| *due > now);
        u32::try_from(self.due.len()).unwrap_or(u32::MAX)
    }

    /// Does nothing speak against any node?
    pub fn is_clean(&self) -> bool {
        self.distrusted.is_empty() && self.full.is_empty()
    }

    /// How often it crashed on a node, as far as that still counts.
    pub fn distrust(&self, node: NodeId, now: Instant) -> u32 {
        self.distrusted.get(&node).filter(|(_, until)| now < *until).map_or(0, |(level, _)| *level)
    }

    /// Did the node just say that it has no room?
    pub fn said_full(&self, node: NodeId, now: Instant) -> bool {
        self.full.get(&node).is_some_and(|until| now < *until)
    }
}

impl Turn<'_> {
    /// A copy ended by itself, or could not be started: later, and elsewhere.
    pub fn note_crash(&mut self, app: AppId, node: NodeId, _why: &Reason) {
        let (now, limits) = (self.now, self.limits);
        let backoff = &mut self.world.apps.entry(app).or_default().backoff;
        backoff.level = if now < backoff.last + limits.crash_forgiven { backoff.level + 1 } else { 1 };
        backoff.last = now;
        let due = now + Limits::doubled(limits.crash_backoff, limits.crash_backoff_most, backoff.level);
        backoff.due.push(due);
        backoff.distrusted.retain(|_, (_, until)| now < *until);
        let distrust = backoff.distrust(node, now) + 1;
        backoff.distrusted.insert(node, (distrust, now + limits.crash_forgiven));
        self.wake(app, due);
    }

    /// A node measured less room than our books show.
    pub fn note_no_room(&mut self, app: AppId, node: NodeId) {
        let until = self.now + self.limits.no_room_pause;
        let now = self.now;
        let full = &mut self.world.apps.entry(app).or_default().backoff.full;
        full.retain(|_, until| now < *until);
        full.insert(node, until);
        self.wake(app, until);
    }

    /// A node was lost. Too many at once are no coincidence.
    pub fn note_loss(&mut self) {
        let now = self.now;
        let nodes = self.world.nodes().count();
        // Those that are silent but not given up yet belong to the same incident.
        let overdue = self.limits.node_late;
        let silent =
            |seen: &NodeSeen| seen.ever_heard && seen.liveness != Liveness::Lost && now >= seen.heard + overdue;
        let late = self.world.nodes().filter(|(_, seen)| silent(seen)).count();
        let window = self.limits.node_lost;
        let share = nodes * self.limits.brake_share.0 as usize / 1_000;
        let most = share.max(self.limits.brake_nodes as usize);
        let brake = &mut self.world.brake;
        brake.losses.retain(|at| now < *at + window);
        brake.losses.push(now);
        let lost = brake.losses.len() + late;
        if lost > most {
            let engaged = now < brake.until;
            brake.until = brake.until.max(now + self.limits.brake_hold);
            if !engaged {
                let rate = self.limits.brake_starts_per_second;
                let text = format!(
                    "{lost} of {nodes} nodes fell silent within {window}: suspecting the network, replacing at most {rate} copies a second"
                );
                self.tell(EventKind::Brake, About::default(), Reason::new("brake", text));
            }
        }
    }

    /// How many replacements may start now. The rest waits for the next second, or for the brake's end.
    pub fn grant_repair(&mut self, app: AppId, asked: u32) -> u32 {
        if asked == 0 || self.now >= self.world.brake.until {
            return asked;
        }
        let second = self.now.0 / 1_000;
        let most = self.limits.brake_starts_per_second;
        let brake = &mut self.world.brake;
        if brake.second != second {
            (brake.second, brake.spent) = (second, 0);
        }
        let granted = asked.min(most.saturating_sub(brake.spent));
        brake.spent += granted;
        if granted < asked {
            let next = Instant((second + 1) * 1_000).min(self.world.brake.until);
            self.wake(app, next);
        }
        granted
    }
}
