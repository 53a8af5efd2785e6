//! What goes wrong, and when. Every kind has a row in the table, so that a kind that never fires is seen.

use super::event::{Event, HostNumber, SiteNumber};
use super::wire::{Cut, Endpoints, Side};
use super::world::World;
use crate::dice::Dice;
use bellows_agent_core::Exit;

/// Draws the troubles.
pub(crate) struct Weather {
    dice: Dice,
    last_cut: u64,
}

impl Weather {
    pub(crate) fn new(seed: u64) -> Self {
        Self { dice: Dice::new(seed, "weather"), last_cut: 0 }
    }
}

impl World {
    pub(crate) fn weather_changes(&mut self) {
        if !self.troubled() {
            return;
        }
        match self.weather.dice.below(100) {
            0..7 => self.isolate_leader_from_members(),
            7..12 => self.isolate_host(),
            12..17 => self.bisect(),
            17..25 => self.isolate_sites(),
            25..28 => self.deafen_host(),
            28..36 => self.host_dies(),
            36..39 => self.host_stalls(),
            39..42 => self.leader_stalls_cut_off(),
            42..45 => self.disk_slows(),
            45..55 => self.agent_dies(),
            55..62 => self.site_dies(),
            62..66 => self.storm("storms of late messages", |world, until| world.net.late_until = until),
            66..70 => self.storm("storms of lost messages", |world, until| world.net.lossy_until = until),
            70..74 => self.storm("storms of doubled messages", |world, until| world.net.doubling_until = until),
            74..79 => self.loads_go_stale(),
            79..85 => self.starts_slow_down(),
            85..90 => self.starts_fail(),
            _ => self.process_dies(),
        }
        let pause = self.weather.dice.between(200, 3_000);
        self.later(pause, Event::Weather);
    }

    fn length(&mut self, least: u64, most: u64) -> u64 {
        self.weather.dice.between(least, most)
    }

    fn some_host(&mut self) -> HostNumber {
        self.weather.dice.below(self.hosts.len() as u64) as usize
    }

    fn leader(&self) -> Option<HostNumber> {
        (0..self.hosts.len())
            .filter(|host| self.hosts[*host].leads.is_some())
            .max_by_key(|host| self.hosts[*host].leads)
    }

    fn all_hosts(&self) -> Endpoints {
        (1 << self.hosts.len()) - 1
    }

    fn everything(&self) -> Endpoints {
        (1 << (self.people_end() + 1)) - 1
    }

    fn cut(&mut self, what: &'static str, left: Endpoints, right: Endpoints, one_way: bool, length: u64) {
        self.tally.count(what);
        self.diary.note(self.now, what, left as u64, length);
        self.weather.last_cut += 1;
        let id = self.weather.last_cut;
        self.net.cuts.push(Cut { id, left, right, one_way });
        self.later(length, Event::Heal { cut: id });
    }

    pub(crate) fn heal(&mut self, cut: u64) {
        self.net.cuts.retain(|known| known.id != cut);
    }

    /// The old leader keeps its agents while the others elect a new one: two voices at once. Some agents lose their process
    /// in the middle of it, and find the old leader first.
    fn isolate_leader_from_members(&mut self) {
        let Some(leader) = self.leader() else { return };
        let (left, length) = (1 << leader, self.length(1_000, 8_000));
        let right = self.all_hosts() & !left;
        self.cut("cuts between the leader and the members", left, right, false, length);
        for _ in 0..6 {
            self.agent_dies_soon(0, 1_500);
        }
    }

    fn isolate_host(&mut self) {
        let (left, length) = (1 << self.some_host(), self.length(500, 12_000));
        self.cut("cuts around a member", left, self.everything() & !left, false, length);
    }

    fn bisect(&mut self) {
        let mut left = 0;
        for end in 0..=self.people_end() {
            if self.weather.dice.permille(500) {
                left |= 1 << end;
            }
        }
        let length = self.length(500, 9_000);
        self.cut("cuts through everything", left, self.everything() & !left, false, length);
    }

    fn isolate_sites(&mut self) {
        let mut left = 0;
        for _ in 0..self.length(1, 6) {
            let site = self.weather.dice.below(self.sites.len() as u64) as usize;
            left |= 1 << self.site_end(site);
        }
        let length = self.length(500, 20_000);
        self.cut("cuts around some nodes", left, self.everything() & !left, false, length);
    }

    fn deafen_host(&mut self) {
        let (right, length) = (1 << self.some_host(), self.length(500, 6_000));
        self.cut("one-way cuts", self.everything() & !right, right, true, length);
    }

    fn host_dies(&mut self) {
        let leader = self.leader().filter(|_| self.weather.dice.permille(600));
        let host = leader.unwrap_or_else(|| self.some_host());
        if !self.hosts[host].up() {
            return;
        }
        self.tally.count(if leader.is_some() { "leaders crashed" } else { "members crashed" });
        self.diary.note(self.now, "host dies", host as u64, 0);
        self.crash_host(host);
        let length = self.length(200, 10_000);
        self.later(length, Event::HostStart { host });
    }

    fn host_stalls(&mut self) {
        let host = self.leader().unwrap_or(0);
        let length = self.length(500, 6_000);
        self.tally.count("leaders stalled");
        self.stall(host, length);
    }

    /// When it wakes up it still believes that it leads, and nobody can tell it otherwise for a while: the likeliest way
    /// for an old fence to speak after a new one.
    fn leader_stalls_cut_off(&mut self) {
        let Some(host) = self.leader() else { return };
        let length = self.length(1_500, 4_000);
        self.stall(host, length);
        let (left, right) = (1 << host, self.all_hosts() & !(1 << host));
        self.cut("stalls of a leader behind a cut", left, right, false, length + 2_000);
        for _ in 0..15 {
            self.agent_dies_soon(1_500, length);
        }
    }

    /// A stalled process answers no ping: its agents look for another.
    fn stall(&mut self, host: HostNumber, length: u64) {
        self.diary.note(self.now, "host stalls", host as u64, length);
        // Never shorter than the stall that it is in already: what waits for the end of that would be overtaken.
        let until = self.now + length;
        self.hosts[host].paused_until = self.hosts[host].paused_until.max(until);
        for stream in self.hosts[host].streams() {
            let noticed = self.length(700, 2_500);
            if noticed < length {
                self.later(noticed, Event::Broken { stream, side: Side::Agent });
            }
        }
    }

    fn disk_slows(&mut self) {
        let (host, length) = (self.some_host(), self.length(1_000, 10_000));
        self.tally.count("disks slow");
        self.hosts[host].slow_disk_until = self.now + length;
    }

    fn agent_dies(&mut self) {
        let site = self.weather.dice.below(self.sites.len() as u64) as usize;
        let length = self.length(50, 8_000);
        self.agent_falls(site, length);
    }

    fn agent_dies_soon(&mut self, least: u64, most: u64) {
        let site = self.weather.dice.below(self.sites.len() as u64) as usize;
        let (delay, back_after) = (self.length(least, most), self.length(20, 600));
        self.later(delay, Event::AgentFalls { site, back_after });
    }

    pub(crate) fn agent_falls(&mut self, site: SiteNumber, back_after: u64) {
        if self.sites[site].agent.is_none() {
            return;
        }
        self.tally.count("agents crashed");
        self.diary.note(self.now, "agent dies", site as u64, back_after);
        self.crash_agent(site);
        self.later(back_after, Event::AgentStart { site });
    }

    fn site_dies(&mut self) {
        let many = if self.weather.dice.permille(150) { 8 } else { 1 };
        for _ in 0..many {
            let site = self.weather.dice.below(self.sites.len() as u64) as usize;
            let length = self.length(1_000, 25_000);
            if !self.sites[site].on || self.sites[site].removed {
                continue;
            }
            self.tally.count("servers lost power");
            self.diary.note(self.now, "server dies", site as u64, length);
            self.crash_site(site);
            self.later(length, Event::Boot { site });
        }
    }

    fn storm(&mut self, what: &'static str, begin: impl FnOnce(&mut Self, u64)) {
        let until = self.now + self.length(1_000, 8_000);
        self.tally.count(what);
        self.diary.note(self.now, what, 0, until);
        begin(self, until);
    }

    fn loads_go_stale(&mut self) {
        for _ in 0..5 {
            let site = self.weather.dice.below(self.sites.len() as u64) as usize;
            self.sites[site].stale_until = self.now + self.length(2_000, 15_000);
        }
    }

    fn starts_slow_down(&mut self) {
        for _ in 0..10 {
            let site = self.weather.dice.below(self.sites.len() as u64) as usize;
            self.sites[site].machine.slow_until = self.now + self.length(2_000, 15_000);
        }
    }

    fn starts_fail(&mut self) {
        for _ in 0..5 {
            let site = self.weather.dice.below(self.sites.len() as u64) as usize;
            self.sites[site].machine.failing_until = self.now + self.length(2_000, 15_000);
        }
    }

    fn process_dies(&mut self) {
        let site = self.weather.dice.below(self.sites.len() as u64) as usize;
        let running = self.sites[site].machine.running();
        let Some(attempt) = self.weather.dice.pick(&running) else { return };
        let exits = [Exit::Code(1), Exit::Signal(11), Exit::OutOfMemory];
        let exit = self.weather.dice.pick(&exits).unwrap_or(Exit::Code(1));
        self.tally.count("copies crashed");
        self.exits(site, attempt, exit);
    }

    /// All is mended at once: what follows must be as declared.
    pub(crate) fn clear_up(&mut self) {
        self.diary.note(self.now, "calm", 0, 0);
        self.net.cuts.clear();
        self.net.calm = true;
        for host in &mut self.hosts {
            host.paused_until = 0;
            host.slow_disk_until = 0;
        }
        for host in 0..self.hosts.len() {
            self.later(1, Event::HostStart { host });
        }
        for site in 0..self.sites.len() {
            let known = &mut self.sites[site];
            known.stale_until = 0;
            known.machine.slow_until = 0;
            known.machine.failing_until = 0;
            self.later(1, Event::Boot { site });
            self.later(1, Event::AgentStart { site });
        }
    }
}
