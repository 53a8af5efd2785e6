//! Kill rounds: `kill -9` at random moments while apps are scaled up and down; then everything that was killed is started again, and
//! nothing may be lost, doubled or left over. Three variants: the controller; agents and launchers; every process of Bellows, inits
//! included (the programs end with their inits).
//!
//! | variable | meaning | default |
//! | --- | --- | --- |
//! | `BELLOWS_KILL_ROUNDS` | rounds of each variant | 5 |
//! | `BELLOWS_KILL_SEED` | draws the same plans again; the seed is printed | drawn |
//! | `BELLOWS_KILL_READY_S` | how long exactly the declared copies may take to be ready, from the restart on | 60 |
//!
//! The promise is 10 s. The default is six times that, because what is asserted here is that the cluster gets there, on a machine of any
//! load; each round prints the time it took. To hold the promise on a machine of one's own: `BELLOWS_KILL_READY_S=10`.
//!
//! After each round: every acknowledged scale stands with its generation (one that was not acknowledged may stand or not); the
//! controller and the kernel show the same copies, as many as declared; what could keep running has the same process as before; copies
//! that ended by themselves, before the kill or while nobody watched, have their exit code; no process is left over. At the end of a
//! variant, with no copies declared, descriptors and launchers are as many as at the beginning; then all is ended and nothing is left.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use nix::sys::signal::Signal;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::support::cli::{Cli, text};
use super::support::copies::{Copies, Process, Program, catches, kill_nine, lives, signal};
use super::support::machine;
use super::support::parts::{Holds, Parts};
use super::*;

const AGENTS: u8 = 3;
const APPS: [&str; 2] = ["web", "seven"];
/// Of each app.
const MOST_COPIES: u64 = 20;
/// Ends with code 7 when it is asked to end.
const SEVEN: &str = "[sh, -c, \"trap 'exit 7' TERM; while :; do sleep 100000 & wait; done\"]";
/// More than the logs and records that are made ahead.
const FILES_AHEAD: usize = 100;
/// More than one slot costs: cgroup files, sockets, namespaces.
const SLOT_DESCRIPTORS: usize = 32;
/// From the restart until all is as declared.
const PROMISE: Duration = Duration::from_secs(10);
/// Between two looks at what settles by itself. Every look starts a few processes.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Whom it hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    Controller,
    Agents,
    Everything,
}

#[test]
fn the_controller_is_killed() {
    rounds(Variant::Controller);
}

#[test]
fn agents_and_launchers_are_killed() {
    rounds(Variant::Agents);
}

#[test]
fn everything_is_killed() {
    rounds(Variant::Everything);
}

fn rounds(variant: Variant) {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a whole number"));
    let rounds = number("BELLOWS_KILL_ROUNDS").unwrap_or(5);
    let seed = number("BELLOWS_KILL_SEED").unwrap_or_else(|| u64::from(rand::random::<u32>()));
    println!("{variant:?}: {rounds} rounds, again with BELLOWS_KILL_SEED={seed}");
    let patience = Duration::from_secs(number("BELLOWS_KILL_READY_S").unwrap_or(60));
    let mut bench = Killing::start(variant, seed, patience);
    let times: Vec<Duration> = (0..rounds).map(|round| bench.round(round)).collect();
    print_times(variant, times);
    bench.end();
}

fn print_times(variant: Variant, mut times: Vec<Duration>) {
    times.sort();
    let at =
        |percent: usize| times.get((times.len() * percent / 100).min(times.len() - 1)).copied().unwrap_or_default();
    let (least, half, most) = (at(0), at(50), at(100));
    println!(
        "{variant:?}: ready after {least:.2?} at least, {half:.2?} at the median, {:.2?} at 90%, {most:.2?} at most",
        at(90)
    );
}

/// What one round does, drawn before it begins.
#[derive(Debug)]
struct Plan {
    /// In order.
    wishes: Vec<(&'static str, u32)>,
    trigger: Trigger,
    /// Of the processes that the variant may hit; all of them most of the time.
    spared: Vec<bool>,
    /// Copies that are made to end by themselves: before the kill, and while nobody watches.
    ends: [bool; 2],
    down: Duration,
}

/// When to kill.
#[derive(Debug)]
enum Trigger {
    After(Duration),
    /// So many copies have come or gone, or as long as that takes at most.
    Changed(u64),
}

impl Plan {
    fn draw(seed: u64, round: u64) -> Self {
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        dice.set_stream(round);
        let mut below = |bound: u64| dice.next_u64() % bound;
        let wishes = (0..=below(3)).map(|_| (APPS[below(2) as usize], below(MOST_COPIES + 1) as u32)).collect();
        let trigger = match below(2) {
            0 => Trigger::After(Duration::from_millis(below(800))),
            _ => Trigger::Changed(1 + below(MOST_COPIES)),
        };
        let some_spared = below(4) == 0;
        let spared = (0..16).map(|_| some_spared && below(3) == 0).collect();
        Self { wishes, trigger, spared, ends: [below(2) == 0, below(2) == 0], down: Duration::from_millis(below(500)) }
    }
}

/// An app as it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Declared {
    copies: u32,
    generation: u64,
}

/// A scale that was sent; acknowledged with a generation, or not.
#[derive(Debug)]
struct Sent {
    app: &'static str,
    copies: u32,
    acknowledged: Option<u64>,
}

/// A copy that was told to end by itself, and whether its init surely saw it.
#[derive(Debug)]
struct Told {
    program: Program,
    seen: bool,
}

struct Killing {
    variant: Variant,
    seed: u64,
    patience: Duration,
    parts: Parts,
    launchers: usize,
    declared: BTreeMap<&'static str, Declared>,
    /// Of each copy, when all was settled last.
    attempts: BTreeMap<String, Option<u64>>,
    holds: BTreeMap<u32, Holds>,
}

impl Killing {
    /// A cluster whose pools were used once, so that what it holds afterwards can be compared with the end.
    fn start(variant: Variant, seed: u64, patience: Duration) -> Self {
        let parts = Parts::start(AGENTS);
        let layout = images::busybox(parts.state());
        parts.cli.json(&["image", "load", layout.to_str().expect("temporary paths are text"), "--name", "busybox"]);
        let launchers = parts.copies().launchers.len();
        assert!(launchers >= AGENTS.into(), "the launchers are seen from outside");
        let (declared, attempts, holds) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut killing = Self { variant, seed, patience, parts, launchers, declared, attempts, holds };
        for (app, yaml) in APPS.into_iter().zip([sleeper("web", 20), app("seven", SEVEN, "replicas: 20")]) {
            let answers = killing.parts.cli.apply(&yaml, &[]);
            killing.declare(app, 20, &answers[0]);
        }
        killing.settle();
        killing.scale_to_nothing();
        killing.holds = killing.parts.holds();
        killing
    }

    fn declare(&mut self, app: &'static str, copies: u32, answer: &Value) {
        let generation = answer["generation"].as_u64().expect("a change has a generation");
        self.declared.insert(app, Declared { copies, generation });
    }

    fn scale_to_nothing(&mut self) {
        for app in APPS {
            let answer = self.parts.cli.json(&["scale", app, "0"]);
            self.declare(app, 0, &answer);
        }
        self.settle();
    }

    /// One round; how long it took until all was as declared again.
    fn round(&mut self, round: u64) -> Duration {
        let plan = Plan::draw(self.seed, round);
        let before = self.parts.copies();
        let commander = command(self.parts.cli.clone(), plan.wishes.clone());
        self.await_trigger(&plan.trigger, &before);
        let mut told: Vec<Told> = self.tell_to_end(&before, plan.ends[0], &[]).into_iter().collect();
        let at_kill = self.parts.copies();
        let inits_gone: BTreeSet<u32> = self.kill(&plan, &at_kill, &told);
        // The time in which nobody watches is part of the plan: this is no waiting for anything.
        std::thread::park_timeout(plan.down);
        // Without its init nobody could tell afterwards how a copy ended.
        let later = plan.ends[1] && self.variant != Variant::Everything;
        told.extend(self.tell_to_end(&before, later, &told));
        for one in &mut told {
            one.seen = self.variant != Variant::Everything || inits_gone.contains(&one.program.init);
        }
        let began = Instant::now();
        self.restart();
        let sent = commander.join().expect("the verbs ran");
        self.check_declared(&sent, &plan);
        let rows = self.settle();
        let took = began.elapsed();
        if took > PROMISE {
            println!(
                "longer than promised, {}{}",
                text(&self.parts.cli.run(&["events"]).stdout),
                self.parts.complaints()
            );
        }
        self.check_survivors(if self.variant == Variant::Controller { &at_kill } else { &before }, &told, &rows);
        self.check_exit_codes(&told, &rows);
        self.attempts = rows.iter().map(|row| (field(row, "id"), row["attempt"].as_u64())).collect();
        let ended = told.len();
        println!(
            "  round {round}: {sent:?}, killed {:?}, {ended} ended by itself, ready after {took:.2?}",
            plan.trigger
        );
        took
    }

    /// The one place where time itself is what is wanted: a random moment of whatever is going on.
    fn await_trigger(&self, trigger: &Trigger, before: &Copies) {
        match *trigger {
            Trigger::After(length) => std::thread::park_timeout(length),
            Trigger::Changed(most) => {
                let end = Instant::now() + Duration::from_secs(2);
                let known: BTreeSet<Process> = before.programs.iter().map(|program| program.process).collect();
                let changed = || {
                    let now: BTreeSet<Process> =
                        self.parts.copies().programs.iter().map(|program| program.process).collect();
                    now.symmetric_difference(&known).count() as u64
                };
                while changed() < most && Instant::now() < end {}
            }
        }
    }

    /// Makes one settled copy of the app that ends with code 7 do so.
    fn tell_to_end(&self, before: &Copies, wanted: bool, but: &[Told]) -> Option<Told> {
        let free = |program: &&Program| but.iter().all(|told| told.program.process != program.process);
        // Before its shell has set the trap, the signal would end it with another code.
        let able = |program: &&Program| lives(program.process) && catches(program.process, Signal::SIGTERM);
        let there = before.programs_of("seven").filter(free).filter(able);
        // Those that never ended before: so that what is known afterwards is of this end.
        let program = there.min_by_key(|program| self.attempts.get(&program.replica))?;
        wanted.then(|| {
            signal(program.process, Signal::SIGTERM);
            Told { program: program.clone(), seen: false }
        })
    }

    /// Kills, from the top down; tells which inits of copies that were told to end had ended before it was their turn.
    fn kill(&mut self, plan: &Plan, at_kill: &Copies, told: &[Told]) -> BTreeSet<u32> {
        let mut spared = plan.spared.iter().chain(std::iter::repeat(&false));
        if self.variant != Variant::Agents {
            self.parts.controller.kill();
        }
        if self.variant == Variant::Controller {
            return BTreeSet::new();
        }
        let agents = self.parts.agents.iter_mut().zip(&mut spared).filter(|(_, spared)| !**spared);
        agents.for_each(|(agent, _)| agent.kill());
        let launchers = at_kill.launchers.iter().zip(&mut spared).filter(|(_, spared)| !**spared);
        launchers.for_each(|(launcher, _)| kill_nine(*launcher));
        if self.variant == Variant::Agents {
            return BTreeSet::new();
        }
        let gone = told.iter().map(|told| told.program.init).filter(|init| !is_init_of(at_kill, *init)).collect();
        // Also those that were made since.
        self.parts.copies().inits.into_iter().for_each(kill_nine);
        gone
    }

    fn restart(&mut self) {
        let killed: Vec<_> = self.parts.all().filter_map(|part| part.restart().then_some(part)).collect();
        killed.into_iter().for_each(|part| drop(part.await_line()));
    }

    /// What was acknowledged stands; what was sent afterwards may.
    fn check_declared(&mut self, sent: &[Sent], plan: &Plan) {
        let rows = self.parts.cli.rows(&["apps"]);
        for app in APPS {
            let row = rows.iter().find(|row| row["app"] == app).unwrap_or_else(|| panic!("{app} is lost: {rows:?}"));
            let is = Declared {
                copies: row["wanted"].as_u64().expect("a count") as u32,
                generation: row["generation"].as_u64().expect("a number"),
            };
            let mut possible = vec![self.declared[app]];
            for one in sent.iter().filter(|one| one.app == app) {
                match one.acknowledged {
                    Some(generation) => possible = vec![Declared { copies: one.copies, generation }],
                    None => possible.push(Declared { copies: one.copies, generation: is.generation }),
                }
            }
            assert!(possible.contains(&is), "{app} is {is:?}, possible are {possible:?} after {sent:?} ({plan:?})");
            self.declared.insert(app, is);
        }
    }

    /// Waits until controller and kernel show exactly what is declared; gives the controller's rows.
    fn settle(&self) -> Vec<Value> {
        let end = Instant::now() + self.patience;
        loop {
            match self.look() {
                Ok(rows) => return rows,
                Err(why) if Instant::now() > end => {
                    panic!("not as declared within {:?}: {why}{}", self.patience, self.parts.complaints())
                }
                // Nothing tells when the kernel has buried the last process.
                Err(_) => std::thread::park_timeout(LOOK_EVERY),
            }
        }
    }

    fn look(&self) -> Result<Vec<Value>, String> {
        let apps = rows(&self.parts.cli, &["apps"])?;
        if let Some(app) = apps.iter().find(|app| app["state"] != "settled") {
            return Err(format!("the controller says {app}"));
        }
        let nodes = rows(&self.parts.cli, &["nodes"])?;
        if let Some(node) = nodes.iter().find(|node| node["ready"] != true) {
            return Err(format!("the controller says {node}"));
        }
        let rows = rows(&self.parts.cli, &["replicas"])?;
        let copies = self.parts.copies();
        for (app, declared) in &self.declared {
            let told: Vec<&Value> = rows.iter().filter(|row| row["app"] == *app && row["ready"] == true).collect();
            let seen: BTreeSet<String> = copies.programs_of(app).map(|program| program.replica.clone()).collect();
            let ids: BTreeSet<String> = told.iter().map(|row| field(row, "id")).collect();
            let counts = [told.len(), ids.len(), seen.len(), copies.programs_of(app).count()];
            if counts != [declared.copies as usize; 4] || ids != seen {
                return Err(format!("{declared:?} of {app}, ready are {ids:?}, the kernel shows {seen:?}"));
            }
        }
        // An agent replaces a launcher, and collects the old one, when it needs it next.
        let launchers = copies.launchers.len() + copies.zombies.len() == self.launchers;
        if rows.len() != copies.programs.len() || copies.inits.len() != copies.programs.len() || !launchers {
            return Err(format!("{} copies listed, and the kernel shows {copies:#?}", rows.len()));
        }
        Ok(rows)
    }

    /// Who was there before and is declared still has the same process, unless its init was killed or it ended by itself.
    fn check_survivors(&self, before: &Copies, told: &[Told], rows: &[Value]) {
        if self.variant == Variant::Everything {
            return;
        }
        let ids: BTreeSet<String> = rows.iter().map(|row| field(row, "id")).collect();
        let ended = |program: &&Program| told.iter().any(|told| told.program.process == program.process);
        for program in before.programs.iter().filter(|program| !ended(program) && ids.contains(&program.replica)) {
            let complaints = || self.parts.complaints();
            assert!(lives(program.process), "{program:?} is declared and has another process now{}", complaints());
        }
    }

    /// In the row of the copy that was started again in place, or in that of the one that ended for good.
    fn check_exit_codes(&self, told: &[Told], rows: &[Value]) {
        let ended = self.parts.cli.rows(&["replicas", "seven", "--ended"]);
        for told in told.iter().filter(|told| told.seen) {
            let id = &told.program.replica;
            let row = rows.iter().chain(&ended).find(|row| field(row, "id") == *id);
            let Some(row) = row else {
                // Its end was acknowledged by a controller that was killed afterwards.
                assert!(self.variant != Variant::Agents, "{told:?} is not remembered: {ended:?}");
                continue;
            };
            let known = [&row["ended"]["exit_code"], &row["last_exit"]["exit_code"]].into_iter().any(|code| *code == 7);
            assert!(known, "{told:?} ended with code 7: {row}{}", self.parts.complaints());
        }
    }

    /// Everything that was made is gone.
    fn end(mut self) {
        self.scale_to_nothing();
        // Slots are made and dropped ahead in quiet moments.
        let end = Instant::now() + self.patience;
        while let Err(why) = self.check_holds() {
            assert!(Instant::now() < end, "{why}");
            std::thread::park_timeout(LOOK_EVERY);
        }
        self.parts.end();
    }

    fn check_holds(&self) -> Result<(), String> {
        let holds = self.parts.holds();
        // Of those that lived all along. Connections come and go by ones; what leaks does so in every round.
        for (pid, before) in &self.holds {
            let Some(now) = holds.get(pid) else { continue };
            let slots = now.slots.saturating_sub(before.slots);
            if now.descriptors > before.descriptors + slots * SLOT_DESCRIPTORS + 12 {
                return Err(format!("process {pid} has {now:?}, at the beginning {before:?}"));
            }
        }
        // One network of each slot, and the machine's own. No copy runs.
        match holds.iter().find(|(_, now)| now.networks > now.slots + 1 || now.files > FILES_AHEAD) {
            Some((pid, now)) => Err(format!("process {pid} has {now:?}")),
            None => Ok(()),
        }
    }
}

fn is_init_of(copies: &Copies, pid: u32) -> bool {
    copies.inits.iter().any(|init| init.pid == pid && lives(*init))
}

/// A listing, when the controller answers.
fn rows(cli: &Cli, arguments: &[&str]) -> Result<Vec<Value>, String> {
    let output = cli.run(arguments);
    if !output.status.success() {
        return Err(format!("bellows {}: {}", arguments.join(" "), text(&output.stderr)));
    }
    Ok(serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output.stdout))))
}

/// Sends the wishes one after the other.
fn command(cli: Cli, wishes: Vec<(&'static str, u32)>) -> std::thread::JoinHandle<Vec<Sent>> {
    let send = move |(app, copies): (&'static str, u32)| {
        let output = cli.run(&["scale", app, &copies.to_string()]);
        let acknowledged = output.status.success().then(|| {
            let answer: Value = serde_json::from_slice(&output.stdout).expect("the verb prints JSON");
            answer["generation"].as_u64().expect("a change has a generation")
        });
        if acknowledged.is_none() {
            println!("  not acknowledged: {}", text(&output.stderr));
        }
        Sent { app, copies, acknowledged }
    };
    std::thread::spawn(move || wishes.into_iter().map(send).collect())
}
