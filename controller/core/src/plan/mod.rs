//! From what is wanted and what is there to orders. Each rule has a room: who may (`eligible`), who is best (`score`), where
//! (`place`), how many (`need`), which ones end (`retire`), what failed (`repair`), and what people are told (`report`).

pub mod allow;
pub mod classes;
pub mod eligible;
pub mod need;
pub mod obstacle;
pub mod place;
pub mod repair;
pub mod report;
pub mod retire;
pub mod revise;
pub mod routes;
pub mod score;
pub mod stuck;
pub mod tree;
pub mod workload;

use crate::ids::AppId;
use crate::model::spec::Scale;
use crate::observe::world::Timer;
use crate::turn::{Scene, Turn};
use crate::units::Millis;
use need::{Figures, Need};
use repair::Share;
use score::Why;

impl Turn<'_> {
    /// Every app has to be looked at: something changed that concerns all.
    pub fn plan_all(&mut self) {
        let known = self.model.apps.keys().chain(self.world.apps.keys());
        let all: Vec<AppId> = known.copied().collect();
        self.world.dirty.extend(all);
    }

    /// Looks at what is due, and plans every app that changed. Without a quorum no order leaves: the apps stay marked.
    pub fn plan(&mut self) {
        self.ring_timers();
        self.evaluate_demand();
        self.retry_unplaced();
        if !self.world.quorum || self.model.observing || self.model.incarnation == 0 {
            return;
        }
        while let Some(app) = self.world.dirty.pop_first() {
            self.plan_app(app);
        }
    }

    fn ring_timers(&mut self) {
        while let Some((at, timer)) = self.world.timers.first().copied() {
            if at > self.now {
                return;
            }
            self.world.timers.pop_first();
            match timer {
                Timer::Node(node) => self.look_at(node),
                Timer::App(app) => {
                    self.release_held(app);
                    self.world.dirty.insert(app);
                }
            }
        }
    }

    /// What found no room is tried again when room appears, or after a pause.
    fn retry_unplaced(&mut self) {
        if self.world.unplaced.is_empty() {
            self.world.room_changed = false;
            return;
        }
        let due = self.now >= self.world.retried + self.limits.unplaced_retry;
        if due || self.world.room_changed {
            let apps: Vec<AppId> = self.world.unplaced.iter().copied().collect();
            self.world.dirty.extend(apps);
            self.world.retried = self.now;
            self.world.room_changed = false;
        }
    }

    fn plan_app(&mut self, app: AppId) {
        if !self.model.apps.contains_key(&app) {
            self.plan_removed(app);
            self.plan_allowances(app);
            return;
        }
        self.expire_drains(app);
        self.advance_retirements(app);
        let need = Need::work_out(&self.figures(app));
        let missing = need.unpark - self.unpark(app, need.unpark);
        let startable = self.scene().startable(app);
        let granted = self.grant_repair(app, need.repair.min(startable));
        let placed = self.start_copies(app, granted, Why::Replacement);
        let share = Share { placed, asked: granted };
        let growth = (need.growth + missing).min(startable.saturating_sub(placed));
        let grown = if share.satisfied() { self.start_copies(app, growth, need.why) } else { 0 };
        self.report_unplaced(app, share.missing() + growth - grown);
        self.retire_surplus(app, need.retire_fresh, need.retire_stale);
        self.make_way(app);
        self.plan_allowances(app);
        self.report_rollout(app);
        self.watch_replacement(app);
    }

    fn figures(&mut self, app: AppId) -> Figures {
        let wanted = self.scene().wanted(app);
        let hidden = self.now < self.world.since + self.limits.unknown_grace && !self.world.all_accounted_for();
        let (now, surge) = (self.now, self.limits.surge);
        let seen = self.world.apps.entry(app).or_default();
        if !hidden {
            seen.assumed = 0;
        }
        let tally = seen.tally;
        let unparkable = u32::try_from(seen.retiring.len()).unwrap_or(u32::MAX);
        let backing_off = seen.backoff.waiting(now);
        let assumed = seen.assumed;
        Figures { wanted, tally, assumed, unparkable: unparkable.min(self.unparkable(app)), backing_off, surge }
    }
}

impl Scene<'_> {
    /// How many copies may start, so that with those that agents may start by themselves there are never more than the app's largest count.
    fn startable(&self, app: AppId) -> u32 {
        let (Some(known), Some(seen)) = (self.model.apps.get(&app), self.world.apps.get(&app)) else { return u32::MAX };
        let Scale::Policies(bounds) = &known.current.spec.scale else { return u32::MAX };
        let promised = u32::try_from(seen.promised.len()).unwrap_or(u32::MAX);
        if promised == 0 {
            return u32::MAX; // the wanted count is within the bounds
        }
        bounds.max.saturating_sub(seen.tally.fresh + seen.tally.held).saturating_sub(promised)
    }

    /// The count that an app shall have now.
    pub fn wanted(&self, app: AppId) -> u32 {
        let Some(known) = self.model.apps.get(&app) else { return 0 };
        match &known.current.spec.scale {
            Scale::Declared { .. } => known.wanted,
            Scale::Policies(elastic) => {
                let decided = self.world.apps.get(&app).and_then(|seen| seen.elastic.as_ref());
                decided.map_or(known.wanted, |decided| decided.wanted).clamp(elastic.min, elastic.max)
            }
        }
    }

    /// SIGTERM to SIGKILL, and the patience with a parked copy. An app that no one remembers gets the defaults.
    pub fn terms_of(&self, app: AppId) -> (Millis, Millis) {
        match self.world.apps.get(&app) {
            Some(seen) if !seen.name.is_empty() => (seen.stop_grace, seen.drain_deadline),
            _ => (self.limits.default_stop_grace, self.limits.default_drain_deadline),
        }
    }
}
