//! Up at once, down only after the idle grace; missing data never scales down.

use std::collections::BTreeMap;

use super::Elasticity;
use super::policy::{Figure, figure};
use crate::effect::{Effect, EventKind};
use crate::ids::AppId;
use crate::limits::Limits;
use crate::model::command::{Change, Command, Decision};
use crate::model::spec::{Elastic, Scale};
use crate::observe::replica::Tally;
use crate::reason::Reason;
use crate::time::Instant;
use crate::turn::{About, Turn};

impl Elasticity {
    /// Takes a reading and decides. True when the count changed.
    pub fn decide(
        &mut self,
        now: Instant,
        bounds: &Elastic,
        figures: Vec<Figure>,
        missing: u32,
        limits: &Limits,
    ) -> bool {
        let demand = figures.iter().map(|figure| figure.need).max().unwrap_or(0);
        let bounded = demand.saturating_add(bounds.spare).clamp(bounds.min, bounds.max);
        // Copies that cannot be read may work hard: their absence from the sum must not look like rest.
        let noted = if missing > 0 { bounded.max(self.wanted) } else { bounded };
        self.window.note(now, noted, bounds.idle_grace, limits.window_buckets);
        let texts: Vec<&str> = figures.iter().map(|figure| figure.text.as_str()).collect();
        let basis = format!("{}, spare {}, between {} and {}", texts.join("; "), bounds.spare, bounds.min, bounds.max);
        let before = self.wanted;
        let largest = self.window.largest();
        if bounded > before {
            self.wanted = bounded;
            self.reason = Reason::new("demand_rose", format!("{basis}: {before} -> {bounded} at once"));
        } else if largest < before && self.window.is_full(now, bounds.idle_grace) {
            self.wanted = largest;
            let grace = bounds.idle_grace;
            self.reason = Reason::new(
                "demand_fell",
                format!("{basis}: never more than {largest} for {grace}, {before} -> {largest}"),
            );
        }
        self.figures = figures;
        if self.wanted != before {
            self.at = now;
        }
        self.wanted != before
    }
}

impl Turn<'_> {
    /// Evaluates the elastic apps whose demand changed, and on ticks all of them: time alone may let a count fall.
    pub fn evaluate_demand(&mut self) {
        for app in std::mem::take(&mut self.world.demand) {
            self.evaluate(app);
        }
    }

    /// Time went by: every window moves.
    pub fn demand_of_all(&mut self) {
        let elastic = self.world.apps.iter().filter(|(_, seen)| seen.elastic.is_some());
        let apps: Vec<AppId> = elastic.map(|(app, _)| *app).collect();
        self.world.demand.extend(apps);
    }

    fn evaluate(&mut self, app: AppId) {
        let Some(known) = self.model.apps.get(&app) else { return };
        let spec = &known.current.spec;
        let Scale::Policies(bounds) = &spec.scale else { return };
        let hidden =
            u32::from(self.now < self.world.since + self.limits.unknown_grace && !self.world.all_accounted_for());
        let (now, limits) = (self.now, self.limits);
        let Some(seen) = self.world.apps.get_mut(&app) else { return };
        let tally: Tally = seen.tally;
        let Some(elastic) = &mut seen.elastic else { return };
        let demand = seen.demand;
        let figures = bounds.policies.iter().map(|policy| figure(policy, &demand, &tally, &spec.resources)).collect();
        let unreplaced = if tally.fresh_ready < elastic.wanted { tally.lost } else { 0 };
        let missing = tally.blind + tally.held + unreplaced + hidden;
        if elastic.decide(now, bounds, figures, missing, limits) {
            let reason = elastic.reason.clone();
            self.world.dirty.insert(app);
            self.tell(EventKind::Scaled, About::app(app), reason);
        }
    }

    /// The counts go into the log, batched, so that a new leader has a floor.
    pub fn record_wanted(&mut self) {
        if self.now < self.world.recorded + self.limits.record_wanted_every {
            return;
        }
        let mut wanted = BTreeMap::new();
        for (app, seen) in &self.world.apps {
            let (Some(elastic), Some(known)) = (&seen.elastic, self.model.apps.get(app)) else { continue };
            if elastic.wanted != known.wanted || elastic.reason != known.counted.why {
                let (replicas, at, why) = (elastic.wanted, elastic.at, elastic.reason.clone());
                wanted.insert(*app, Decision { replicas, at, why });
            }
        }
        if !wanted.is_empty() {
            self.world.recorded = self.now;
            let change = Change::RecordWanted { wanted };
            let command = Command { at: self.now, by: "leader".to_owned(), key: String::new(), change };
            self.effects.push(Effect::Propose { token: None, command });
        }
    }
}
