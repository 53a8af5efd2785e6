//! The network: letters between members, and streams between agents and hosts. Both may be late, lost or doubled; a
//! stream keeps its order and, as TCP does, dies of a loss instead of hiding it.

use super::event::{Event, HostNumber, SiteNumber};
use super::world::World;
use crate::dice::Dice;
use bellows_agent_core as agent;
use bellows_core::input as leader;
use std::collections::BTreeSet;
use std::rc::Rc;

/// Place of a stream in the world. Never reused.
pub(crate) type StreamId = usize;

/// One end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Agent,
    Host,
}

/// From an agent, in the leader's words.
#[derive(Clone, Debug)]
pub(crate) enum Up {
    Connecting {
        agent: leader::AgentIdentity,
        fence: bellows_core::ids::Fence,
    },
    Hello {
        facts: leader::NodeFacts,
        inventory: Vec<leader::ReplicaReport>,
        remembered: Vec<leader::ReplicaReport>,
    },
    /// Answers a probe.
    Alive {
        newcomer: bellows_core::ids::SessionId,
    },
    Report(leader::Report),
}

/// From a host, in the agent's words.
#[derive(Clone, Debug)]
pub(crate) enum Down {
    Greeting {
        fence: agent::Fence,
        session: agent::SessionId,
    },
    Orders {
        fence: agent::Fence,
        session: agent::SessionId,
        specs: Vec<(agent::SpecDigest, agent::RunSpec)>,
        orders: Vec<agent::Order>,
    },
    Acknowledged {
        session: agent::SessionId,
        ended: Vec<agent::ReplicaId>,
    },
    /// Another agent with the same identity waits: is this one there?
    Probe {
        newcomer: bellows_core::ids::SessionId,
    },
}

/// One connection of one agent to one host.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) site: SiteNumber,
    pub(crate) site_life: u64,
    pub(crate) host: HostNumber,
    pub(crate) host_life: u64,
    /// As the host numbered it; zero before it arrived there.
    pub(crate) session: u64,
    pub(crate) fence: agent::Fence,
    pub(crate) greeted: bool,
    /// Specs that this session has carried.
    pub(crate) carried: BTreeSet<agent::SpecDigest>,
    pub(crate) up_until: u64,
    pub(crate) down_until: u64,
    pub(crate) breaking: bool,
    pub(crate) gone_at_agent: bool,
    pub(crate) gone_at_host: bool,
}

/// A set of endpoints: hosts first, then sites, then the people.
pub(crate) type Endpoints = u128;

/// Messages from left to right are lost, and back too unless it is one-way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    pub(crate) id: u64,
    pub(crate) left: Endpoints,
    pub(crate) right: Endpoints,
    pub(crate) one_way: bool,
}

/// The state of the network.
#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) dice: Dice,
    pub(crate) cuts: Vec<Cut>,
    pub(crate) late_until: u64,
    pub(crate) lossy_until: u64,
    pub(crate) doubling_until: u64,
    pub(crate) calm: bool,
}

impl Net {
    pub(crate) fn new(seed: u64) -> Self {
        let dice = Dice::new(seed, "network");
        Self { dice, cuts: Vec::new(), late_until: 0, lossy_until: 0, doubling_until: 0, calm: false }
    }

    pub(crate) fn blocked(&self, from: usize, to: usize) -> bool {
        let (from, to) = (1u128 << from, 1u128 << to);
        self.cuts.iter().any(|cut| {
            cut.left & from != 0 && cut.right & to != 0 || !cut.one_way && cut.right & from != 0 && cut.left & to != 0
        })
    }

    fn in_storm(&mut self, quiet: u64, storm: u64, storms: bool) -> bool {
        let share = if storms { storm } else { quiet };
        !self.calm && self.dice.permille(share)
    }
}

impl World {
    pub(crate) fn host_end(&self, host: HostNumber) -> usize {
        host
    }

    pub(crate) fn site_end(&self, site: SiteNumber) -> usize {
        self.hosts.len() + site
    }

    pub(crate) fn people_end(&self) -> usize {
        self.hosts.len() + self.sites.len()
    }

    /// How long a message takes.
    pub(crate) fn delay(&mut self) -> u64 {
        let now = self.now;
        let usual = self.net.dice.between(1, 8);
        let storm = now < self.net.late_until;
        if self.net.in_storm(10, 300, storm) {
            self.tally.count("messages late");
            return usual + self.net.dice.between(20, 2_000);
        }
        usual
    }

    fn loses(&mut self, quiet: u64, storm: u64) -> bool {
        let storms = self.now < self.net.lossy_until;
        let lost = self.net.in_storm(quiet, storm, storms);
        if lost {
            self.tally.count("messages lost");
        }
        lost
    }

    fn doubles(&mut self) -> bool {
        let storms = self.now < self.net.doubling_until;
        let doubled = self.net.in_storm(5, 200, storms);
        if doubled {
            self.tally.count("messages doubled");
        }
        doubled
    }

    /// Sends a raft message.
    pub(crate) fn post(&mut self, from: HostNumber, to: HostNumber, bytes: Vec<u8>) {
        let bytes: Rc<[u8]> = bytes.into();
        if self.loses(5, 200) {
            return;
        }
        let copies = if self.doubles() { 2 } else { 1 };
        for _ in 0..copies {
            let delay = self.delay();
            self.later(delay, Event::Letter { from, to, bytes: bytes.clone() });
        }
    }

    /// Opens a stream; the host hears of it when its first message arrives.
    pub(crate) fn open_stream(&mut self, site: SiteNumber, host: HostNumber) -> StreamId {
        self.streams.push(Stream {
            site,
            site_life: self.sites[site].life,
            host,
            host_life: self.hosts[host].life,
            session: 0,
            fence: agent::Fence::default(),
            greeted: false,
            carried: BTreeSet::new(),
            up_until: self.now,
            down_until: self.now,
            breaking: false,
            gone_at_agent: false,
            gone_at_host: false,
        });
        self.streams.len() - 1
    }

    pub(crate) fn send_up(&mut self, stream: StreamId, message: Up) {
        if !self.carries(stream, Side::Agent) {
            return;
        }
        let opening = matches!(message, Up::Connecting { .. });
        let doubled = !opening && self.doubles();
        let at = (self.now + self.delay()).max(self.streams[stream].up_until);
        self.streams[stream].up_until = at;
        if doubled {
            self.at(at, Event::Up { stream, message: message.clone() });
        }
        self.at(at, Event::Up { stream, message });
    }

    pub(crate) fn send_down(&mut self, stream: StreamId, message: Down) {
        if !self.carries(stream, Side::Host) {
            return;
        }
        let message = Rc::new(message);
        let doubled = self.doubles();
        let at = (self.now + self.delay()).max(self.streams[stream].down_until);
        self.streams[stream].down_until = at;
        if doubled {
            self.at(at, Event::Down { stream, message: message.clone() });
        }
        self.at(at, Event::Down { stream, message });
    }

    /// Can a message enter the stream at this end? A loss or a cut breaks it.
    fn carries(&mut self, stream: StreamId, from: Side) -> bool {
        let known = &self.streams[stream];
        let gone = match from {
            Side::Agent => known.gone_at_agent,
            Side::Host => known.gone_at_host,
        };
        if gone {
            return false;
        }
        if self.stream_blocked(stream, from) || self.loses(1, 30) {
            self.break_stream(stream);
            return false;
        }
        true
    }

    pub(crate) fn stream_blocked(&self, stream: StreamId, from: Side) -> bool {
        let known = &self.streams[stream];
        let (site, host) = (self.site_end(known.site), self.host_end(known.host));
        match from {
            Side::Agent => self.net.blocked(site, host),
            Side::Host => self.net.blocked(host, site),
        }
    }

    /// Both ends notice, each in its own time.
    pub(crate) fn break_stream(&mut self, stream: StreamId) {
        if std::mem::replace(&mut self.streams[stream].breaking, true) {
            return;
        }
        self.tally.count("streams broken");
        for side in [Side::Agent, Side::Host] {
            let delay = self.net.dice.between(200, 3_500);
            self.later(delay, Event::Broken { stream, side });
        }
    }

    /// One end closes; the other hears of it soon, unless it is cut off.
    pub(crate) fn close_stream(&mut self, stream: StreamId, by: Side) {
        self.forget_stream(stream, by);
        let (other, blocked) = match by {
            Side::Agent => (Side::Host, self.stream_blocked(stream, Side::Agent)),
            Side::Host => (Side::Agent, self.stream_blocked(stream, Side::Host)),
        };
        if std::mem::replace(&mut self.streams[stream].breaking, true) {
            return;
        }
        let delay = if blocked { self.net.dice.between(2_000, 3_500) } else { self.delay() };
        // What was sent before the end arrives before it.
        let sent = match by {
            Side::Agent => self.streams[stream].up_until,
            Side::Host => self.streams[stream].down_until,
        };
        let at = (self.now + delay).max(sent);
        self.at(at, Event::Broken { stream, side: other });
    }

    pub(crate) fn forget_stream(&mut self, stream: StreamId, side: Side) {
        match side {
            Side::Agent => self.streams[stream].gone_at_agent = true,
            Side::Host => self.streams[stream].gone_at_host = true,
        }
    }

    pub(crate) fn arrive_up(&mut self, stream: StreamId, message: Up) {
        if self.stream_blocked(stream, Side::Agent) {
            return self.break_stream(stream);
        }
        let known = &self.streams[stream];
        let host = &self.hosts[known.host];
        if !host.up() || host.life != known.host_life {
            return self.close_stream(stream, Side::Host);
        }
        self.heard_from_agent(stream, message);
    }

    pub(crate) fn arrive_down(&mut self, stream: StreamId, message: &Down) {
        if self.stream_blocked(stream, Side::Host) {
            return self.break_stream(stream);
        }
        let known = &self.streams[stream];
        let site = &self.sites[known.site];
        if site.agent.is_none() || site.life != known.site_life {
            return;
        }
        self.heard_from_host(stream, message);
    }

    pub(crate) fn broken(&mut self, stream: StreamId, side: Side) {
        let gone = match side {
            Side::Agent => self.streams[stream].gone_at_agent,
            Side::Host => self.streams[stream].gone_at_host,
        };
        if gone {
            return;
        }
        self.forget_stream(stream, side);
        match side {
            Side::Agent => self.agent_lost_stream(stream),
            Side::Host => self.host_lost_stream(stream),
        }
    }
}
