//! The queue of what is due, and the loop.

use super::diary::Diary;
use super::event::Event;
use super::host::Host;
use super::laws::Laws;
use super::people::People;
use super::report::{Failure, SeedReport};
use super::site::Site;
use super::tally::Tally;
use super::weather::Weather;
use super::wire::{Net, Stream};
use super::{LAWS, Options};
use crate::dice::Dice;
use bellows_core::model::Model;
use bellows_core::model::command::Command;
use std::collections::BTreeMap;

/// Members of the group.
pub(crate) const HOSTS: usize = 3;

/// Everything there is, and what is due.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) options: Options,
    /// Virtual milliseconds.
    pub(crate) now: u64,
    queue: BTreeMap<(u64, u64), Event>,
    queued: u64,
    events: u64,
    pub(crate) done: bool,
    pub(crate) hosts: Vec<Host>,
    pub(crate) sites: Vec<Site>,
    pub(crate) streams: Vec<Stream>,
    pub(crate) net: Net,
    /// What raft's bytes stand for.
    pub(crate) commands: Vec<Command>,
    /// What snapshots' bytes stand for.
    pub(crate) models: Vec<Model>,
    pub(crate) people: People,
    pub(crate) weather: Weather,
    pub(crate) disk_dice: Dice,
    pub(crate) machine_dice: Dice,
    pub(crate) agent_dice: Dice,
    pub(crate) laws: Laws,
    pub(crate) tally: Tally,
    pub(crate) diary: Diary,
}

impl World {
    pub(crate) fn new(seed: u64, options: &Options) -> Self {
        let mut world = Self {
            seed,
            options: options.clone(),
            now: 0,
            queue: BTreeMap::new(),
            queued: 0,
            events: 0,
            done: false,
            hosts: (0..HOSTS).map(|_| Host::new()).collect(),
            sites: (0..options.nodes).map(|number| Site::new(seed, number)).collect(),
            streams: Vec::new(),
            net: Net::new(seed),
            commands: Vec::new(),
            models: Vec::new(),
            people: People::new(seed, options.nodes),
            weather: Weather::new(seed),
            disk_dice: Dice::new(seed, "disk"),
            machine_dice: Dice::new(seed, "machine"),
            agent_dice: Dice::new(seed, "agent"),
            laws: Laws::default(),
            tally: Tally::default(),
            diary: Diary::new(options.keep_diary),
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for host in 0..self.hosts.len() {
            self.later(host as u64, Event::HostStart { host });
        }
        self.later(1_500, Event::Idea);
        self.later(5_000, Event::Weather);
        self.at(self.options.trouble_seconds * 1_000, Event::Judge);
    }

    /// Runs to the end, or to the first broken law.
    pub(crate) fn run(mut self) -> SeedReport {
        while !self.done
            && self.laws.broken.is_none()
            && let Some(((at, place), event)) = self.queue.pop_first()
        {
            self.now = at;
            // What waits for a stalled process keeps its place: streams keep their order across a stall.
            if let Some(until) = self.paused_until(&event) {
                self.queue.insert((until, place), event);
                continue;
            }
            self.events += 1;
            self.carry_out(event);
        }
        self.sum_up()
    }

    fn sum_up(mut self) -> SeedReport {
        let failure = self.laws.broken.take().map(|violation| Failure {
            seed: self.seed,
            at_ms: self.now,
            law: violation.law,
            rule: LAWS.iter().find(|(law, _)| *law == violation.law).map_or("?", |(_, rule)| rule),
            text: violation.text,
        });
        SeedReport {
            seed: self.seed,
            events: self.events,
            virtual_ms: self.now,
            log_hash: self.diary.hash(),
            failure,
            counts: self.tally.0,
            diary: self.diary.take_lines(),
        }
    }

    pub(crate) fn at(&mut self, at: u64, event: Event) {
        self.queued += 1;
        self.queue.insert((at.max(self.now), self.queued), event);
    }

    pub(crate) fn later(&mut self, delay: u64, event: Event) {
        self.at(self.now + delay, event);
    }

    /// Are things still allowed to go wrong?
    pub(crate) fn troubled(&self) -> bool {
        self.now < self.options.trouble_seconds * 1_000
    }

    fn carry_out(&mut self, event: Event) {
        match event {
            Event::HostTick { host, life } => self.host_tick(host, life),
            Event::Letter { from, to, bytes } => self.letter(from, to, &bytes),
            Event::Synced { host, life, number } => self.synced(host, life, number),
            Event::HostStart { host } => self.start_host(host),
            Event::Up { stream, message } => self.arrive_up(stream, message),
            Event::Down { stream, message } => self.arrive_down(stream, &message),
            Event::Broken { stream, side } => self.broken(stream, side),
            Event::Dial { site, life } => self.dial(site, life),
            Event::DialTimeout { stream } => self.dial_timeout(stream),
            Event::Beat { site, life } => self.beat(site, life),
            Event::Wake { site, life } => self.wake(site, life),
            Event::AgentStart { site } => self.start_agent(site),
            Event::AgentFalls { site, back_after } => self.agent_falls(site, back_after),
            Event::Boot { site } => self.boot(site),
            Event::Machine { site, boot, news } => self.machine_news(site, boot, news),
            Event::Idea => self.idea(),
            Event::Request { request, attempt, host } => self.request_arrives(request, attempt, host),
            Event::Answer { request, attempt, answer } => self.answered(request, attempt, answer),
            Event::Impatience { request, attempt } => self.impatient(request, attempt),
            Event::Weather => self.weather_changes(),
            Event::Heal { cut } => self.heal(cut),
            Event::Judge => self.judge(),
        }
    }

    /// A stalled process takes nothing in; everything waits for it in order.
    fn paused_until(&self, event: &Event) -> Option<u64> {
        let host = match event {
            Event::HostTick { host, .. } | Event::Synced { host, .. } | Event::Request { host, .. } => *host,
            Event::Letter { to, .. } => *to,
            Event::Up { stream, .. } => self.streams[*stream].host,
            Event::Broken { stream, side: super::wire::Side::Host } => self.streams[*stream].host,
            _ => return None,
        };
        Some(self.hosts[host].paused_until).filter(|until| *until > self.now)
    }
}
