//! Who asks for what: subscriptions, and the counts of ingresses and owners. What is not heard anew counts as it was; it is never taken
//! for rest.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use crate::autoscale::policy::Demand;
use crate::ids::{AppId, NodeId, ReplicaId, SessionId};
use crate::input::{AppTraffic, TrafficReport};
use crate::limits::Limits;
use crate::time::Instant;
use crate::turn::Turn;
use crate::units::Millis;

/// What an app is asked for, as its ingresses tell it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Requests {
    /// By the ingress's node: every one that subscribed.
    pub ingresses: BTreeMap<NodeId, Ingress>,
    /// The sum of what they hold.
    pub held: u64,
    /// What came lately.
    pub arrivals: Arrivals,
}

/// What one ingress said last.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Ingress {
    /// Requests that wait there.
    pub held: u32,
    /// Requests that have come there since its session began.
    pub arrivals: u64,
    /// Of these, those that nobody served.
    pub refused: u64,
    /// Why the last one of them was refused, and when.
    pub last_refusal: Option<(String, Instant)>,
    /// When it said so, or subscribed.
    pub at: Instant,
    /// In the session that is open now; else the counts are those of the last one.
    pub current: bool,
}

/// Requests that came lately, in buckets.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Arrivals(VecDeque<(u64, u64)>);

/// The length of a bucket of arrivals.
const BUCKET_MS: u64 = 250;

impl Arrivals {
    /// So many came between two moments; nobody knows when exactly, so they are spread evenly.
    fn note(&mut self, from: Instant, to: Instant, count: u64, window: Millis) {
        let oldest = Instant(to.0.saturating_sub(window.0)).0 / BUCKET_MS;
        let (first, last) = ((from.0 / BUCKET_MS).max(oldest), to.0 / BUCKET_MS);
        let buckets = last - first.min(last) + 1;
        for step in 0..buckets {
            // The rests add up: each bucket gets what is due by its end, less what was given before.
            let share = count * (step + 1) / buckets - count * step / buckets;
            self.add(last + 1 + step - buckets, share);
        }
        while self.0.front().is_some_and(|(bucket, _)| *bucket < oldest) {
            self.0.pop_front();
        }
    }

    fn add(&mut self, bucket: u64, count: u64) {
        let at = self.0.partition_point(|(other, _)| *other < bucket);
        match self.0.get_mut(at) {
            Some((other, sum)) if *other == bucket => *sum += count,
            _ if count > 0 => self.0.insert(at, (bucket, count)),
            _ => {}
        }
    }

    /// Requests per second, rounded up, over the window.
    pub fn per_second(&self, now: Instant, window: Millis) -> u64 {
        let oldest = Instant(now.0.saturating_sub(window.0)).0 / BUCKET_MS;
        let sum: u64 = self.0.iter().filter(|(bucket, _)| *bucket > oldest).map(|(_, count)| count).sum();
        (sum * 1_000).div_ceil(window.0.max(1))
    }
}

impl Requests {
    /// Everything that is asked for, with what the owners count.
    pub fn demand(&self, in_flight: u64, now: Instant, limits: &Limits) -> Demand {
        let per_second = self.arrivals.per_second(now, limits.rate_window);
        Demand { in_flight, held: self.held, per_second }
    }

    /// Ingresses that have not been heard since their session ended.
    pub fn unheard(&self) -> u32 {
        u32::try_from(self.ingresses.values().filter(|ingress| !ingress.current).count()).unwrap_or(u32::MAX)
    }

    /// When the oldest of the counts was told.
    pub fn oldest(&self) -> Option<Instant> {
        self.ingresses.values().map(|ingress| ingress.at).min()
    }

    fn forget(&mut self, node: NodeId) {
        if let Some(ingress) = self.ingresses.remove(&node) {
            self.held -= u64::from(ingress.held);
        }
    }
}

impl Turn<'_> {
    /// An ingress will take requests for these apps, or has not had any for long.
    pub fn subscribe(&mut self, node: NodeId, session: SessionId, apps: Vec<AppId>, dropped: Vec<AppId>) {
        if !self.speaks(node, session) {
            return;
        }
        for app in dropped {
            self.unsubscribe(node, app);
        }
        for app in apps {
            let at = self.now;
            let requests = &mut self.world.apps.entry(app).or_default().requests;
            let unheard = Ingress { at, ..Ingress::default() };
            requests.ingresses.entry(node).or_insert(unheard);
            if let Some(seen) = self.world.node_mut(node) {
                seen.asks_for.insert(app);
            }
            self.open_routes(node, session, app);
            self.world.dirty.insert(app);
        }
    }

    fn unsubscribe(&mut self, node: NodeId, app: AppId) {
        if let Some(seen) = self.world.node_mut(node) {
            seen.asks_for.remove(&app);
        }
        if let Some(seen) = self.world.apps.get_mut(&app) {
            seen.requests.forget(node);
        }
        self.close_routes(node, app);
        self.world.demand.insert(app);
        self.world.dirty.insert(app);
    }

    /// Counts of an ingress and of an owner. The decision follows in this very step.
    pub fn traffic(&mut self, node: NodeId, session: SessionId, report: TrafficReport) {
        if !self.speaks(node, session) {
            return;
        }
        self.world.traffic_due.remove(&node);
        for (id, requests) in report.replicas {
            self.count_in_flight(node, id, requests);
        }
        let (now, window) = (self.now, self.limits.rate_window);
        for told in report.apps {
            let Some(seen) = self.world.apps.get_mut(&told.app) else { continue };
            let requests = &mut seen.requests;
            let Some(ingress) = requests.ingresses.get_mut(&node) else { continue };
            // A new session counts anew.
            let before = if ingress.current { ingress.arrivals } else { 0 };
            let since = if ingress.current { ingress.at } else { now };
            requests.held = requests.held - u64::from(ingress.held) + u64::from(told.held);
            let last_refusal = told.last_refusal.map(|(why, ago)| (why, Instant(now.0.saturating_sub(ago.0))));
            let AppTraffic { held, arrivals, refused, .. } = told;
            *ingress = Ingress { held, arrivals, refused, last_refusal, at: now, current: true };
            requests.arrivals.note(since, now, arrivals.saturating_sub(before), window);
            self.world.demand.insert(told.app);
            self.world.tell_waiting(told.app);
        }
    }

    fn count_in_flight(&mut self, node: NodeId, id: ReplicaId, requests: u32) {
        let here = self.world.node(node).and_then(|seen| seen.replicas.get(&id)).copied();
        if let Some(slot) = here {
            self.world.change(slot, |replica| replica.seen.requests = requests);
        }
    }

    /// A session begins: an ingress hears of every way in, and tells its subscriptions and counts before its first heartbeat.
    pub fn begin_ingress(&mut self, node: NodeId, session: SessionId) {
        let reached = self.world.node(node).is_some_and(|seen| !seen.facts.ingress.is_empty());
        if reached || self.world.news.any_open() {
            self.tell_entrances(node, session);
        }
        self.world.traffic_due.insert(node);
    }

    /// Its connection ended: what it said last stands until it is heard again or given up.
    pub fn ingress_unheard(&mut self, node: NodeId) {
        self.world.traffic_due.remove(&node);
        for app in self.asked_for(node) {
            if let Some(seen) = self.world.apps.get_mut(&app)
                && let Some(ingress) = seen.requests.ingresses.get_mut(&node)
            {
                ingress.current = false;
            }
            self.close_routes(node, app);
        }
    }

    /// The first heartbeat of a session: subscriptions and counts came before it, so what was not told anew is no more.
    pub fn ingress_heard(&mut self, node: NodeId) {
        if !self.world.traffic_due.remove(&node) {
            return;
        }
        for app in self.asked_for(node) {
            let stale = |ingress: &Ingress| !ingress.current;
            let requests = self.world.apps.get(&app).map(|seen| &seen.requests);
            if requests.and_then(|requests| requests.ingresses.get(&node)).is_none_or(stale) {
                self.unsubscribe(node, app);
            }
        }
    }

    /// Lost or removed: whoever waited there is gone with it.
    pub fn ingress_gone(&mut self, node: NodeId) {
        self.world.traffic_due.remove(&node);
        for app in self.asked_for(node) {
            self.unsubscribe(node, app);
        }
    }

    fn asked_for(&self, node: NodeId) -> Vec<AppId> {
        self.world.node(node).map(|seen| seen.asks_for.iter().copied().collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_spread_over_the_time_in_which_they_came() {
        let window = Millis(2_000);
        let mut arrivals = Arrivals::default();
        for second in 1..=5 {
            arrivals.note(Instant(second * 1_000 - 1_000), Instant(second * 1_000), 100, window);
        }
        let rate = arrivals.per_second(Instant(5_000), window);
        assert!((90..=115).contains(&rate), "{rate}");
        assert!(arrivals.0.len() <= 10, "{arrivals:?}");
        assert_eq!(arrivals.per_second(Instant(7_600), window), 0);
    }

    #[test]
    fn none_is_lost_or_made_by_spreading() {
        let mut arrivals = Arrivals::default();
        arrivals.note(Instant(10_100), Instant(11_400), 7, Millis(2_000));
        assert_eq!(arrivals.0.iter().map(|(_, count)| count).sum::<u64>(), 7);
        arrivals.note(Instant(11_400), Instant(11_400), 3, Millis(2_000));
        assert_eq!(arrivals.0.iter().map(|(_, count)| count).sum::<u64>(), 10);
        assert!(arrivals.0.iter().zip(arrivals.0.iter().skip(1)).all(|(one, next)| one.0 < next.0));
    }
}
