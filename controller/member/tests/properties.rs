//! A group under a random schedule, against one oracle: what a leader acknowledged stays, in one order, everywhere.

mod support;

use std::collections::BTreeMap;
use support::Group;

/// A small generator of its own, so that a schedule is a function of its seed alone.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

struct Run {
    group: Group,
    dice: Dice,
    proposed: u64,
    /// Index -> command, once the member that took it has applied it.
    acknowledged: BTreeMap<u64, String>,
    open: Vec<(u64, u64, String)>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut group = Group::new(3, seed);
        group.set_snapshot_after(15);
        Self { group, dice: Dice(seed), proposed: 0, acknowledged: BTreeMap::new(), open: Vec::new() }
    }

    fn step(&mut self) {
        let id = 1 + self.dice.below(3);
        match self.dice.below(100) {
            0..15 => self.group.tick(),
            15..70 => self.some_letters(),
            70..80 => self.propose(),
            80..90 => self.group.sync(id),
            90..91 => self.toggle_disk(id),
            91..95 => self.start(id),
            95..96 => self.crash(id),
            96..98 => self.group.cuts.clear(),
            98..99 => self.cut_sometimes(id),
            _ => self.group.compact(id),
        }
        self.settle();
    }

    /// Delivers some, loses some, delivers some twice, and not in their order.
    fn some_letters(&mut self) {
        for _ in 0..self.dice.below(12) {
            let waiting = self.group.wire.len() as u64;
            if waiting == 0 {
                return;
            }
            let place = self.dice.below(waiting) as usize;
            let Some((from, letter)) = self.group.wire.remove(place) else {
                return;
            };
            match self.dice.below(10) {
                0 => {}
                1 => {
                    self.group.deliver(from, &letter);
                    self.group.wire.push_back((from, letter));
                }
                _ => self.group.deliver(from, &letter),
            }
        }
    }

    fn propose(&mut self) {
        let Some(leader) = self.group.leader() else {
            return;
        };
        self.proposed += 1;
        let command = format!("c{}", self.proposed);
        if let Some(place) = self.group.propose(leader, &command) {
            self.open.push((leader, place.index, command));
        }
    }

    fn toggle_disk(&mut self, id: u64) {
        self.group.sync(id);
        let host = self.group.hosts.get_mut(&id).expect("one of three");
        host.slow_disk = !host.slow_disk;
    }

    fn start(&mut self, id: u64) {
        if self.group.hosts[&id].member.is_none() {
            self.group.start(id);
        }
    }

    fn cut_sometimes(&mut self, id: u64) {
        if self.dice.below(3) == 0 {
            self.group.cut(&[id], &[1 + id % 3, 1 + (id + 1) % 3]);
        }
    }

    fn crash(&mut self, id: u64) {
        if self.group.hosts[&id].member.is_none() || self.dice.below(3) > 0 {
            return;
        }
        let kept = self.dice.below(3) as usize;
        self.group.crash(id, kept);
        self.open.retain(|(owner, ..)| *owner != id);
    }

    /// A command counts as acknowledged when the member that took it has applied it.
    fn settle(&mut self) {
        let hosts = &self.group.hosts;
        let applied: Vec<_> =
            self.open.iter().filter(|(owner, _, command)| hosts[owner].model.contains(command)).cloned().collect();
        for (_, index, command) in applied {
            self.open.retain(|(_, _, other)| *other != command);
            self.acknowledged.insert(index, command);
        }
    }

    fn calm_down(&mut self) {
        self.group.cuts.clear();
        for id in 1..=3 {
            self.group.hosts.get_mut(&id).expect("one of three").slow_disk = false;
            if self.group.hosts[&id].member.is_none() {
                self.group.start(id);
            }
            self.group.sync(id);
        }
        for _ in 0..150 {
            self.group.tick();
            self.group.deliver_all();
        }
    }

    fn check(&self) {
        let models: Vec<_> = self.group.hosts.values().map(|host| &host.model).collect();
        assert_eq!(models[0], models[1], "members agree once all is calm");
        assert_eq!(models[0], models[2], "members agree once all is calm");
        let wanted: Vec<_> = self.acknowledged.values().collect();
        let found: Vec<_> = models[0].iter().filter(|command| wanted.contains(command)).collect();
        assert_eq!(wanted, found, "acknowledged commands are there, in their order");
    }
}

fn run(seed: u64, steps: u64) -> Run {
    let mut run = Run::new(seed);
    for _ in 0..steps {
        run.step();
    }
    run.calm_down();
    run
}

#[test]
fn what_was_acknowledged_stays() {
    let mut acknowledged = 0;
    let mut restored = 0;
    for seed in 0..60 {
        let run = run(seed, 3_000);
        run.check();
        acknowledged += run.acknowledged.len();
        restored += run.group.trace.matches("restores").count();
    }
    assert!(
        acknowledged > 5_000,
        "only {acknowledged} commands were acknowledged: the schedule is too harsh to say much"
    );
    assert!(restored > 100, "only {restored} snapshots were restored");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [3, 17] {
        let (first, second) = (run(seed, 2_000).group.trace, run(seed, 2_000).group.trace);
        assert!(first == second, "seed {seed} ran differently the second time");
        assert!(first != run(seed + 1, 2_000).group.trace, "the seed has no influence");
    }
}
