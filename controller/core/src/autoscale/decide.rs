//! Up at once, down only after the idle grace; missing data never scales down.

use std::collections::BTreeMap;

use super::policy::figure;
use super::{Elasticity, Reading};
use crate::effect::{Effect, EventKind};
use crate::ids::AppId;
use crate::limits::{Limits, Planted};
use crate::model::App;
use crate::model::command::{Change, Command, Decision};
use crate::model::spec::{Elastic, Scale};
use crate::observe::world::AppSeen;
use crate::reason::Reason;
use crate::time::Instant;
use crate::turn::{About, Scene, Turn};

impl Elasticity {
    /// Takes a reading and decides. True when the count changed.
    pub fn decide(&mut self, now: Instant, bounds: &Elastic, reading: Reading, limits: &Limits) -> bool {
        let before = self.wanted;
        let bounded = reading.asked(bounds.spare).clamp(bounds.min, bounds.max);
        self.reading = reading;
        if !self.reading.unsure {
            // What cannot be read may work hard: its absence from the sum must not look like rest.
            let noted = if self.reading.missing > 0 { bounded.max(before) } else { bounded };
            self.window.note(now, noted, bounds.idle_grace, limits.window_buckets);
        }
        if bounded > before {
            self.rise(now, bounds, bounded);
        } else if !self.reading.unsure && self.window.is_full(now, bounds.idle_grace.max(limits.watch_least)) {
            self.fall(now, bounds);
        }
        if self.wanted != before {
            self.at = now;
        }
        self.wanted != before
    }

    /// A copy was started where requests waited, before their counts came: it was needed, and stays for the idle grace.
    pub fn take_in(&mut self, now: Instant, bounds: &Elastic, there: u32, limits: &Limits) -> bool {
        let (before, needed) = (self.wanted, there.min(bounds.max));
        if needed <= before {
            return false;
        }
        self.window.note(now, needed, bounds.idle_grace, limits.window_buckets);
        self.up.step(now, needed - before);
        (self.wanted, self.at) = (needed, now);
        let text =
            format!("requests waited at an agent that was allowed to start a copy by itself: {before} -> {needed}");
        self.reason = Reason::new("allowance_used", text);
        true
    }

    fn rise(&mut self, now: Instant, bounds: &Elastic, asked: u32) {
        let before = self.wanted;
        let most = before.saturating_add(self.up.allowed(now, bounds.up));
        self.wanted = asked.min(most);
        if self.wanted == before {
            return;
        }
        self.up.step(now, self.wanted - before);
        let basis = self.basis(bounds);
        let text = match self.wanted == asked {
            true => format!("{basis}: {before} -> {asked} at once"),
            false => {
                format!("{basis}: {before} -> {}, as far as policy.up lets it, on the way to {asked}", self.wanted)
            }
        };
        self.reason = Reason::new("demand_rose", text);
    }

    fn fall(&mut self, now: Instant, bounds: &Elastic) {
        let (before, largest, grace) = (self.wanted, self.window.largest(), bounds.idle_grace);
        if largest >= before {
            return;
        }
        let least = before.saturating_sub(self.down.allowed(now, bounds.down));
        self.wanted = largest.max(least);
        if self.wanted == before {
            return;
        }
        self.down.step(now, before - self.wanted);
        let basis = self.basis(bounds);
        let paced = if self.wanted > largest { ", as far as policy.down lets it" } else { "" };
        let text = format!("{basis}: never more than {largest} for {grace}, {before} -> {}{paced}", self.wanted);
        self.reason = Reason::new("demand_fell", text);
    }

    fn basis(&self, bounds: &Elastic) -> String {
        let texts: Vec<&str> = self.reading.figures.iter().map(|figure| figure.text.as_str()).collect();
        format!("{}, spare {}, between {} and {}", texts.join("; "), bounds.spare, bounds.min, bounds.max)
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
        let Scale::Policies(bounds) = &known.current.spec.scale else { return };
        let scene = self.scene();
        let Some(reading) = self.world.apps.get(&app).and_then(|seen| scene.reading(known, bounds, seen)) else {
            return;
        };
        let (now, limits) = (self.now, self.limits);
        let Some(elastic) = self.world.apps.get_mut(&app).and_then(|seen| seen.elastic.as_mut()) else { return };
        if elastic.decide(now, bounds, reading, limits) {
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

impl Scene<'_> {
    fn reading(&self, known: &App, bounds: &Elastic, seen: &AppSeen) -> Option<Reading> {
        let wanted = seen.elastic.as_ref()?.wanted;
        let (tally, requests, declared) = (&seen.tally, &seen.requests, &known.current.spec.resources);
        let demand = requests.demand(tally.in_flight, self.now, self.limits);
        let mut figures: Vec<_> =
            bounds.policies.iter().map(|policy| figure(policy, &demand, tally, declared)).collect();
        if self.limits.planted == Planted::ScaleFromObserved {
            for figure in figures.iter_mut().filter(|figure| figure.need > tally.fresh_ready) {
                figure.need = tally.fresh + (figure.need - tally.fresh_ready);
            }
        }
        let early = self.now < self.world.since + self.limits.unknown_grace;
        let hidden = u32::from(early && !self.world.all_accounted_for());
        let unreplaced = if tally.fresh_ready < wanted { tally.lost } else { 0 };
        let missing = tally.blind + tally.held + unreplaced + hidden + requests.unheard();
        let unsure = !self.world.traffic_due.is_empty();
        Some(Reading { at: self.now, figures, demand, missing, unsure })
    }
}
