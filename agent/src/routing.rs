//! The driver's part in traffic: the leader's pushes to the data plane, the data plane's counts to the core.

use bellows_agent_core::input::Reading;
use bellows_agent_core::traffic::HereCopy;
use bellows_agent_core::{AppId, Fence, Input, Serving, SessionId};

use crate::convert::{Misunderstood, run_spec};
use crate::driver::Driver;
use crate::traffic::{AllowancePush, EntrancePush, RoutePush, entrance, update};
use crate::worker::chain;

impl Driver {
    pub(crate) fn entrances(&self, push: EntrancePush) {
        let EntrancePush { fence, session, whole, changed, gone, removed } = push;
        if !self.is_live(fence, session) {
            return;
        }
        self.plane.removed_nodes(&removed);
        let shared = &self.facts.shared_ports;
        let ways = changed.into_iter().map(|told| entrance(told, shared));
        match ways.collect::<Result<Vec<_>, _>>() {
            Ok(ways) => self.plane.entrances(whole, ways, &gone),
            Err(error) => not_understood(&error),
        }
    }

    pub(crate) fn routes(&self, push: RoutePush) {
        let RoutePush { fence, session, apps } = push;
        if !self.is_live(fence, session) {
            return;
        }
        for told in apps {
            let app = AppId(told.app);
            match update(told, self.facts.node) {
                Ok(update) => self.plane.routes(app, update),
                Err(error) => not_understood(&error),
            }
        }
    }

    pub(crate) fn allowed(&mut self, push: AllowancePush) -> Input {
        let AllowancePush { fence, session, version, specs, allowances } = push;
        let specs = specs.into_iter().map(|(digest, spec)| {
            let run = run_spec(&spec);
            self.specs.insert(digest, spec);
            (digest, run)
        });
        Input::Allowances { fence, session, version, specs: specs.collect(), allowances }
    }

    /// How a copy here stands, before anybody else hears of it.
    pub(crate) fn serve(&self, serving: Serving) {
        let Serving { id: replica, app, attempt, address, ready, parked, over } = serving;
        if over {
            return self.plane.here_no_more(replica);
        }
        self.plane.here(app, HereCopy { replica, attempt, address, ready, parked });
    }

    /// Counters as they were read, with the requests that are in the copies now: whoever is about to be stopped as idle has none. The
    /// data plane's own kept connections are no sign of work.
    pub(crate) fn judged(&self, mut readings: Vec<Reading>, inputs: &mut Vec<Input>) {
        for reading in &mut readings {
            let (replica, requests) = (reading.replica, self.plane.in_flight(reading.replica));
            let own = self.plane.connections(replica);
            if let Some(counters) = &mut reading.counters {
                counters.connections = counters.connections.saturating_sub(own);
            }
            inputs.push(Input::Requests { replica, requests });
        }
        inputs.push(Input::Sampled { readings });
    }
}

/// A newer controller may say more than this agent knows: what it knows stands.
fn not_understood(error: &Misunderstood) {
    tracing::error!(error = chain(error), "routes were not taken in");
}

impl Driver {
    fn is_live(&self, fence: Fence, session: SessionId) -> bool {
        self.live_session() == Some((session, fence))
    }
}
