//! What a server's kernel and runtime would do, and the truth about which processes exist.

use super::event::{Attempt, Event, Fate, News, SiteNumber};
use super::world::World;
use crate::dice::Dice;
use bellows_agent_core as agent;
use std::collections::BTreeMap;

/// Where a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The launch is under way; an agent that dies takes it along.
    Launching,
    Running,
}

/// One attempt's process.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) stage: Stage,
    pub(crate) app: agent::AppId,
    pub(crate) resources: agent::Resources,
    pub(crate) since: u64,
    pub(crate) listens: bool,
    /// Ignores the stop signal.
    stubborn: bool,
    busy_until: u64,
    cpu_us: u64,
    read_at: u64,
}

/// The truth of one server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    pub(crate) processes: BTreeMap<Attempt, Process>,
    /// Ended while no agent looked, or not yet forgotten by it.
    ended: BTreeMap<Attempt, agent::Exit>,
    pub(crate) slow_until: u64,
    pub(crate) failing_until: u64,
}

impl Machine {
    /// What a new agent finds, by its clock.
    pub(crate) fn found(&self, clock: impl Fn(u64) -> agent::Instant) -> Vec<agent::input::Found> {
        let alive = self.processes.iter().map(|(attempt, process)| agent::input::Found {
            replica: attempt.0,
            attempt: attempt.1,
            state: agent::input::FoundState::Alive { address: address_of(*attempt), since: clock(process.since) },
        });
        let ended = self.ended.iter().map(|(attempt, exit)| agent::input::Found {
            replica: attempt.0,
            attempt: attempt.1,
            state: agent::input::FoundState::Ended(*exit),
        });
        alive.chain(ended).collect()
    }

    pub(crate) fn abort_launches(&mut self) {
        self.processes.retain(|_, process| process.stage == Stage::Running);
    }

    pub(crate) fn used(&self) -> agent::Resources {
        let use_of = |process: &Process| agent::Resources {
            cpu: if process.busy_until > process.read_at { process.resources.cpu } else { agent::CpuMilli(2) },
            memory: process.resources.memory,
        };
        self.processes.values().fold(agent::Resources::default(), |sum, process| sum + use_of(process))
    }

    /// What is declared of everything that exists.
    pub(crate) fn declared(&self) -> agent::Resources {
        self.processes.values().fold(agent::Resources::default(), |sum, process| sum + process.resources)
    }

    pub(crate) fn running(&self) -> Vec<Attempt> {
        let running = self.processes.iter().filter(|(_, process)| process.stage == Stage::Running);
        running.map(|(attempt, _)| *attempt).collect()
    }

    /// Some processes get something to do, or all rest.
    pub(crate) fn set_busy(&mut self, attempt: Attempt, until: u64) {
        if let Some(process) = self.processes.get_mut(&attempt) {
            process.busy_until = until;
        }
    }
}

fn address_of(attempt: Attempt) -> String {
    format!("10.{}.{}.{}", attempt.0.fence.term % 256, attempt.0.counter / 256 % 256, attempt.0.counter % 256)
}

impl World {
    pub(crate) fn perform_on_machine(&mut self, number: SiteNumber, effect: agent::Effect) {
        match effect {
            agent::Effect::Pull { image } => self.pull(number, image),
            agent::Effect::Launch { replica, attempt, .. } => self.launch(number, (replica, attempt)),
            agent::Effect::Watch { replica, attempt, .. } => self.watch_port(number, (replica, attempt)),
            agent::Effect::Sample { replica, attempt } => {
                self.machine_later(number, 1, News::Sampled { attempt: (replica, attempt) });
            }
            agent::Effect::Stop { replica, attempt, .. } => self.signal(number, (replica, attempt)),
            agent::Effect::Kill { replica, attempt } => {
                let (attempt, exit) = ((replica, attempt), agent::Exit::Signal(9));
                self.machine_later(number, 3, News::Exits { attempt, exit });
            }
            agent::Effect::Forget { replica, attempt } => {
                self.sites[number].machine.ended.remove(&(replica, attempt));
            }
            agent::Effect::Stray { .. } => self.tally.count("strays found"),
            _ => {}
        }
    }

    fn machine_later(&mut self, number: SiteNumber, delay: u64, news: News) {
        let boot = self.sites[number].boot;
        self.later(delay, Event::Machine { site: number, boot, news });
    }

    fn pull(&mut self, number: SiteNumber, image: String) {
        let fails = self.troubled() && self.machine_dice.permille(30);
        let slow = self.troubled() && self.machine_dice.permille(100);
        let delay = if slow { self.machine_dice.between(1_000, 6_000) } else { self.machine_dice.between(20, 200) };
        if fails {
            self.tally.count("images that could not be had");
        }
        self.machine_later(number, delay, News::Pulled { image, fails });
    }

    fn launch(&mut self, number: SiteNumber, attempt: Attempt) {
        let (now, trouble) = (self.now, self.troubled());
        let machine = &self.sites[number].machine;
        let (slow, failing) = (now < machine.slow_until, now < machine.failing_until);
        let Some((app, resources)) = self.laws.terms_of(attempt.0) else { return };
        let dice = &mut self.machine_dice;
        let fate = match dice.below(1_000) {
            0..2 if trouble => Fate::Impossible,
            2..20 if trouble => Fate::Fails,
            20..700 if failing => Fate::Fails,
            _ => Fate::Runs,
        };
        let delay = if slow { dice.between(500, 8_000) } else { dice.between(5, 60) };
        let stubborn = dice.permille(50);
        let process = Process {
            stage: Stage::Launching,
            app,
            resources,
            since: now,
            listens: false,
            stubborn,
            busy_until: 0,
            cpu_us: 0,
            read_at: now,
        };
        self.sites[number].machine.processes.insert(attempt, process);
        if slow {
            self.tally.count("starts slow");
        }
        if fate != Fate::Runs {
            self.tally.count("starts failed");
        }
        self.machine_later(number, delay, News::Launched { attempt, fate });
        self.check_machine(number, attempt);
    }

    fn watch_port(&mut self, number: SiteNumber, attempt: Attempt) {
        let Some(process) = self.sites[number].machine.processes.get(&attempt) else { return };
        let delay = if process.listens { 1 } else { self.machine_dice.between(5, 400) };
        self.machine_later(number, delay, News::Listens { attempt });
    }

    fn signal(&mut self, number: SiteNumber, attempt: Attempt) {
        let Some(process) = self.sites[number].machine.processes.get(&attempt) else { return };
        if process.stubborn {
            return self.tally.count("stop signals ignored");
        }
        let delay = self.machine_dice.between(2, 80);
        self.machine_later(number, delay, News::Exits { attempt, exit: agent::Exit::Code(0) });
    }

    pub(crate) fn machine_news(&mut self, number: SiteNumber, boot: u64, news: News) {
        if self.sites[number].boot != boot || !self.sites[number].on {
            return;
        }
        match news {
            News::Pulled { image, fails: true } => {
                let why = "the registry did not answer".to_owned();
                self.agent(number, [agent::Input::ImageFailed { image, retry: true, why }]);
            }
            News::Pulled { image, fails: false } => self.agent(number, [agent::Input::ImageReady { image }]),
            News::Launched { attempt, fate } => self.launched(number, attempt, fate),
            News::Listens { attempt } => self.listens(number, attempt),
            News::Exits { attempt, exit } => self.exits(number, attempt, exit),
            News::Sampled { attempt } => {
                let readings = vec![self.read_counters(number, attempt)];
                self.agent(number, [agent::Input::Sampled { readings }]);
            }
        }
    }

    fn launched(&mut self, number: SiteNumber, attempt: Attempt, fate: Fate) {
        let machine = &mut self.sites[number].machine;
        let launching = |process: &&mut Process| process.stage == Stage::Launching;
        let Some(process) = machine.processes.get_mut(&attempt).filter(launching) else { return };
        let (replica, number_of_attempt) = attempt;
        if fate == Fate::Runs {
            process.stage = Stage::Running;
            process.since = self.now;
            let address = address_of(attempt);
            return self.agent(number, [agent::Input::Launched { replica, attempt: number_of_attempt, address }]);
        }
        machine.processes.remove(&attempt);
        let failure = match fate {
            Fate::Impossible => agent::input::LaunchFailure::Impossible("no such program".to_owned()),
            _ => agent::input::LaunchFailure::Failed("the kernel said no".to_owned()),
        };
        self.agent(number, [agent::Input::LaunchFailed { replica, attempt: number_of_attempt, failure }]);
    }

    fn listens(&mut self, number: SiteNumber, attempt: Attempt) {
        let Some(process) = self.sites[number].machine.processes.get_mut(&attempt) else { return };
        process.listens = true;
        let (replica, attempt) = attempt;
        self.agent(number, [agent::Input::Listening { replica, attempt, listening: true }]);
    }

    /// A process is no more.
    pub(crate) fn exits(&mut self, number: SiteNumber, attempt: Attempt, exit: agent::Exit) {
        let machine = &mut self.sites[number].machine;
        if machine.processes.remove(&attempt).is_none() {
            return;
        }
        machine.ended.insert(attempt, exit);
        let (replica, attempt) = attempt;
        self.agent(number, [agent::Input::Exited { replica, attempt, exit }]);
    }

    /// CPU time since the last reading: all it may use while busy, 2 milli while not.
    pub(crate) fn read_counters(&mut self, number: SiteNumber, attempt: Attempt) -> agent::input::Reading {
        let now = self.now;
        let running = |process: &&mut Process| process.stage == Stage::Running;
        let process = self.sites[number].machine.processes.get_mut(&attempt).filter(running);
        let counters = process.map(|process| {
            let busy = process.busy_until.clamp(process.read_at, now) - process.read_at;
            let idle = now - process.read_at - busy;
            process.cpu_us += busy * process.resources.cpu.0 + idle * 2;
            process.read_at = now;
            agent::input::Counters {
                cpu_us: process.cpu_us,
                memory: process.resources.memory,
                processes: 1,
                ..agent::input::Counters::default()
            }
        });
        agent::input::Reading { replica: attempt.0, attempt: attempt.1, counters }
    }
}

/// When a process that gets work will be done with it.
pub(crate) fn busy_until(now: u64, dice: &mut Dice) -> u64 {
    now + dice.between(500, 20_000)
}
