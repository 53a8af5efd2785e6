//! What the ingress of this node counts, on its way to the leader; and copies that this agent starts by itself, under an allowance.
//!
//! An allowance names one copy that may be started here without asking: its id was given out, its room and its share of the app's
//! largest count are set aside. It is used when a request waits here that no copy takes, and no copy of the app is on its way here
//! already. Allowances outlive the session, so that a first request is served while no leader is there; they do not outlive the process,
//! since an id that may have been used is never used again.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::{AgentCore, ImageState};
use crate::effect::{Effect, Serving};
use crate::ids::{AppId, Fence, Obeyed, OrderSequence, ReplicaId, SessionId, SpecDigest};
use crate::input::{Allowance, RunSpec, WhenCutOff};
use crate::journal::Record;
use crate::replica::{Phase, Replica};
use crate::report::Reason;
use crate::traffic::{Demand, Refused};
use crate::units::{Instant, Millis};

/// Without a request for an hour.
const QUIET: Millis = Millis(3_600_000);

/// What the leader hears of one app's demand at this ingress.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Asked {
    /// Requests that wait now.
    pub held: u32,
    /// Requests that came since the session began.
    pub arrivals: u64,
    /// How long the oldest of the waiting ones has waited.
    pub oldest_held: Millis,
    /// Requests that nobody served, since the session began.
    pub refused: u64,
    /// Why the last one of these was refused, and how long ago.
    pub last_refusal: Option<(String, Millis)>,
}

/// All apps that were ever asked for here, and what may be started for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asks {
    apps: BTreeMap<AppId, App>,
    pub(crate) allowances: BTreeMap<ReplicaId, Allowance>,
    /// To be subscribed to in this step.
    new: BTreeSet<AppId>,
    /// To be unsubscribed from in this step.
    dropped: BTreeSet<AppId>,
    /// What was counted of those that were unsubscribed from: no news, should they be asked for again.
    quiet: BTreeMap<AppId, Past>,
    /// Whose counts have changed.
    changed: BTreeSet<AppId>,
    counted: BTreeSet<ReplicaId>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct App {
    held: u32,
    arrivals: u64,
    refused: Refused,
    /// Before the session: its leader does not hear of that.
    before: Past,
    oldest_held: Option<Instant>,
    /// When the counts changed last.
    changed_at: Instant,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Past {
    arrivals: u64,
    refused: u64,
}

impl App {
    fn past(&self) -> Past {
        Past { arrivals: self.arrivals, refused: self.refused.count }
    }
}

impl AgentCore {
    /// The ingress counted anew.
    pub(crate) fn demanded(&mut self, now: Instant, app: AppId, demand: Demand) {
        for (replica, requests) in demand.in_flight {
            if self.replicas.get(&replica).is_some_and(|known| known.seen.work.in_flight() != requests) {
                self.asks.counted.insert(replica);
                self.requests(now, replica, requests);
            }
        }
        if !self.asks.apps.contains_key(&app) {
            self.asks.new.insert(app);
        }
        let before = self.asks.quiet.remove(&app).unwrap_or_default();
        let asked = self.asks.apps.entry(app).or_insert_with(|| App { before, ..App::default() });
        let was = (asked.held, asked.past());
        (asked.held, asked.arrivals, asked.oldest_held) = (demand.held, demand.arrivals, demand.oldest_held);
        asked.refused = demand.refused;
        if (asked.held, asked.past()) != was || self.asks.new.contains(&app) {
            asked.changed_at = now;
            self.asks.changed.insert(app);
        }
        self.start_by_allowance(now, app);
    }

    /// Routes of apps that nobody has asked for here for long are of no use: no more of them is told to this node. Those of which a copy is
    /// or may be started here stay.
    pub(crate) fn forget_quiet(&mut self, now: Instant) {
        let quiet = |asked: &App| asked.held == 0 && now - asked.changed_at >= QUIET;
        let needed = |app: AppId| {
            self.replicas.values().any(|copy| copy.app == app)
                || self.asks.allowances.values().any(|one| one.app == app)
        };
        let apps = self.asks.apps.iter().filter(|(app, asked)| quiet(asked) && !needed(**app));
        let gone: Vec<AppId> = apps.map(|(app, _)| *app).collect();
        for app in gone {
            let past = self.asks.apps.remove(&app).map(|asked| asked.past()).unwrap_or_default();
            self.asks.quiet.insert(app, past);
            self.asks.new.remove(&app);
            self.asks.dropped.insert(app);
        }
    }

    /// What may be started from here on; what was allowed before and is not named is not allowed any more.
    pub(crate) fn allowed(
        &mut self,
        now: Instant,
        (fence, session, version): (Fence, SessionId, u64),
        specs: Vec<(SpecDigest, RunSpec)>,
        allowances: Vec<Allowance>,
    ) {
        let Some(live) = self.session.as_mut().filter(|live| (live.fence, live.id) == (fence, session)) else { return };
        live.allowed = version;
        self.acknowledge = true; // what is over is free for others once the leader knows
        for (digest, run) in specs {
            self.learn(digest, run);
        }
        let used = |id: &ReplicaId| self.replicas.contains_key(id) || self.remembered.iter().any(|gone| gone.id == *id);
        let unused = allowances.into_iter().filter(|allowance| !used(&allowance.id));
        self.asks.allowances = unused.map(|allowance| (allowance.id, allowance)).collect();
        let digests: BTreeSet<SpecDigest> = self.asks.allowances.values().map(|allowance| allowance.digest).collect();
        for run in digests.iter().filter_map(|digest| self.specs.get(digest)) {
            // The image must be there before it is needed.
            if !self.images.contains_key(&run.image) {
                self.images.insert(run.image.clone(), ImageState::Fetching);
                self.effects.push(Effect::Pull { image: run.image.clone() });
            }
        }
        let waiting: Vec<AppId> =
            self.asks.apps.iter().filter(|(_, asked)| asked.held > 0).map(|(app, _)| *app).collect();
        waiting.into_iter().for_each(|app| self.start_by_allowance(now, app));
    }

    /// The image of an allowance came: somebody may wait for it.
    pub(crate) fn retry_allowances(&mut self, now: Instant) {
        let apps: BTreeSet<AppId> = self.asks.allowances.values().map(|allowance| allowance.app).collect();
        apps.into_iter().for_each(|app| self.start_by_allowance(now, app));
    }

    fn start_by_allowance(&mut self, now: Instant, app: AppId) {
        let held = self.asks.apps.get(&app).map_or(0, |asked| asked.held);
        let coming = |copy: &Replica| copy.app == app && copy.live() && copy.wanted.stop.is_none() && !copy.ready();
        if held == 0 || self.replicas.values().any(coming) {
            return;
        }
        let usable = |allowance: &&Allowance| allowance.app == app && self.may_start(now, allowance);
        let Some(allowance) = self.asks.allowances.values().find(usable).cloned() else { return };
        self.asks.allowances.remove(&allowance.id);
        let Some(run) = self.specs.get(&allowance.digest).cloned() else { return };
        let Allowance { id, app, revision, digest } = allowance;
        let text = format!("{held} requests waited here and no copy took them; its room had been set aside");
        let reason = Reason::new("allowance", text);
        let obeyed = Obeyed { fence: id.fence, session: SessionId(0), sequence: OrderSequence(0) };
        self.persist(Record::Ordered { replica: id, app, revision, digest, reason: reason.clone(), obeyed });
        self.replicas.insert(id, Replica::ordered(now, id, (app, revision, digest), run, reason, obeyed));
        self.changed(id);
    }

    fn may_start(&self, now: Instant, allowance: &Allowance) -> bool {
        let Some(run) = self.specs.get(&allowance.digest) else { return false };
        let cut_off = match (self.cut_off_since, run.when_cut_off) {
            (Some(since), WhenCutOff::StopAfter(length)) => since + length <= now,
            _ => false,
        };
        let there = self.images.get(&run.image) == Some(&ImageState::Ready);
        there && !cut_off && self.check_room(run.resources, self.set_aside()).is_ok()
    }

    /// A new leader knows nothing: it hears of every app that is asked for here, and of all counts.
    pub(crate) fn ask_anew(&mut self) {
        for asked in self.asks.apps.values_mut() {
            asked.before = asked.past();
        }
        self.asks.new = self.asks.apps.keys().copied().collect();
        self.asks.dropped.clear();
        self.asks.changed.clone_from(&self.asks.new);
        let serving = self.replicas.values().filter(|copy| copy.seen.work.in_flight() > 0);
        self.asks.counted = serving.map(|copy| copy.id).collect();
    }

    /// After the report, so that the leader knows a copy started here before it hears what it was started for.
    pub(crate) fn tell_demand(&mut self, now: Instant) {
        let Some(session) = self.session else {
            return; // the next one hears everything
        };
        let (fence, session) = (session.fence, session.id);
        let new: Vec<AppId> = std::mem::take(&mut self.asks.new).into_iter().collect();
        let dropped: Vec<AppId> = std::mem::take(&mut self.asks.dropped).into_iter().collect();
        if !new.is_empty() || !dropped.is_empty() {
            self.effects.push(Effect::Subscribe { fence, session, apps: new, dropped });
        }
        let changed = std::mem::take(&mut self.asks.changed);
        let counted = std::mem::take(&mut self.asks.counted);
        if changed.is_empty() && counted.is_empty() {
            return;
        }
        let asked = |app: &App| {
            let refused = app.refused.count.saturating_sub(app.before.refused);
            Asked {
                held: app.held,
                arrivals: app.arrivals.saturating_sub(app.before.arrivals),
                oldest_held: app.oldest_held.map_or(Millis(0), |since| now - since),
                refused,
                last_refusal: (refused > 0).then(|| (app.refused.why.clone(), now - app.refused.at)),
            }
        };
        let apps = changed.iter().filter_map(|app| Some((*app, asked(self.asks.apps.get(app)?)))).collect();
        let count = |id: &ReplicaId| Some((*id, self.replicas.get(id)?.seen.work.in_flight()));
        let replicas = counted.iter().filter_map(count).collect();
        self.effects.push(Effect::Traffic { fence, session, apps, replicas });
    }

    /// Tells the ingress how each changed copy stands, before the leader hears of it: what the leader takes for parked is parked.
    pub(crate) fn tell_ingress(&mut self) {
        for id in &self.news {
            let Some(copy) = self.replicas.get_mut(id) else { continue };
            let Some(next) = copy.serving() else { continue };
            if copy.served.as_ref() != Some(&next) {
                copy.served = Some(next.clone());
                self.effects.push(Effect::Serve(next));
            }
        }
    }
}

impl Replica {
    /// How it stands for the ingress; nothing while it had no address yet, and for what has no port.
    fn serving(&self) -> Option<Serving> {
        self.run.ready_port?;
        let (id, app, attempt) = (self.id, self.app, self.seen.attempt);
        let running = self.seen.phase == Phase::Running;
        if self.served.is_none() && !running {
            return None;
        }
        let address = if running { self.seen.address.clone() } else { String::new() };
        let ready = self.ready();
        let parked = self.wanted.parked || self.wanted.stop.is_some();
        Some(Serving { id, app, attempt, address, ready, parked, over: !self.live() })
    }
}
