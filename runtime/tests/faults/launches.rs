//! Every call of a launch.

use std::time::Duration;

use crate::driven::{Answer, Descriptors, descriptors};
use crate::support::{self, Place, wait_until};
use crate::tracer::{self, Actor, Fault};
use crate::tried::Tried;

/// A test that hangs ends so.
const PATIENCE: Duration = Duration::from_secs(180);

struct Launches {
    tried: Tried,
    launcher: u32,
    alive: usize,
    /// Its own, to us.
    pipes: usize,
    number: usize,
}

impl Launches {
    /// Folders are made ahead by a thread; so are writable layers after the first launch, and roots where slots are kept.
    fn start(place: Place, keep: &str) -> Self {
        let orders = [keep, "start", "launch first /bin/payload sleep", "end first", "settle"];
        let mut tried = Tried::begin(place, &orders, PATIENCE);
        let launcher = tried.must("launchers").parse().expect("one launcher");
        tried.tracer.seize(launcher, Actor::Launcher);
        let pipes = tried.victim.descriptors().get("pipe").copied().unwrap_or(0);
        Self { tried, launcher, alive: 0, pipes, number: 0 }
    }

    /// Refuses each of the actor's calls. With `hold`, what runs stays, so that every launch has to make its own slot. Now and then a launch makes calls that
    /// others do not, behind which one would not get its turn: that turn is taken again.
    fn every_call_of(&mut self, actor: Actor, hold: bool, with: tracer::Answer) -> usize {
        if hold {
            self.number += 1;
            self.tried.must(&format!("launch h{} /bin/payload sleep", self.number));
            self.alive += 1;
        }
        let (mut before, mut again) = (Vec::new(), 0);
        loop {
            let index = before.len();
            let calls = self.refuse(Fault { actor, index, with }, hold);
            if !calls.starts_with(&before) && again < 3 {
                again += 1;
                continue;
            }
            if calls.len() <= index {
                assert!(calls.starts_with(&before), "{actor:?} makes other calls each time: {before:?}, {calls:?}");
                return index;
            }
            before = calls[..=index].to_vec();
            again = 0;
        }
    }

    /// Ends a container; what it leaves to others to do is done.
    fn finish(&mut self, name: &str) {
        self.tried.must(&format!("end {name}"));
        self.tried.must("settle");
    }

    /// Gives all calls of that actor.
    fn refuse(&mut self, fault: Fault, hold: bool) -> Vec<u64> {
        let before = descriptors(self.launcher);
        self.number += 1;
        let name = format!("f{}", self.number);
        let (mut seen, answer) = self.tried.order(&format!("launch {name} /bin/payload sleep"), Some(fault));
        if let Answer::Ok(_) = answer {
            self.finish(&name);
        }
        if let Some(refused) = seen.refused {
            self.judge(fault.actor, refused, seen.after_reply, &answer);
        }
        self.nothing_is_left(&before, &format!("{fault:?} {:?} {answer:?}", seen.refused));
        let after = format!("a{}", self.number);
        self.tried.must(&format!("launch {after} /bin/payload sleep"));
        if hold {
            self.alive += 1;
        } else {
            self.finish(&after);
        }
        seen.calls.remove(&fault.actor).unwrap_or_default()
    }

    fn judge(&mut self, actor: Actor, (nr, refused): (u64, i32), after_reply: bool, answer: &Answer) {
        match answer {
            Answer::Ok(_) if after_reply => {}
            Answer::Ok(_) => drop(self.tried.swallowed.insert((actor, nr))),
            Answer::Failed { kind, errno, text } => {
                // A launcher that cannot answer ends, and that is what is told.
                let told = *errno == refused || kind == "Launcher";
                assert!(told, "{actor:?}, call {nr}: the kernel's answer is lost: {answer:?}");
                self.tried.told.insert((actor, nr, text.clone()));
            }
        }
    }

    fn nothing_is_left(&mut self, before: &Descriptors, what: &str) {
        let (alive, place) = (self.alive, &self.tried.place);
        wait_until(&format!("only {alive} containers' processes are left after {what}"), || {
            place.processes().len() == 2 * alive
        });
        // A slot that was made stays for the next launch.
        wait_until(&format!("only {alive} links and one are left after {what}"), || place.links().len() <= alive + 1);
        // One whose last container left memory behind is made anew meanwhile, and another takes its place: then one too many goes after a while.
        wait_until(&format!("only {alive} groups and one are left after {what}"), || place.groups().len() <= alive + 1);
        let ours = self.tried.victim.descriptors();
        let count = |kind: &str| ours.get(kind).copied().unwrap_or(0);
        assert_eq!(count("pidfd") + count("anon_inode"), alive, "pidfds after {what}: {ours:?}");
        // The host's own, and those of a slot.
        assert!(count("net") <= alive + 3 && count("user") <= alive + 2, "namespaces after {what}: {ours:?}");
        assert_eq!(count("pipe"), self.pipes, "pipes after {what}: {ours:?}");
        let now = self.tried.must("launchers").parse().expect("one launcher");
        if now == self.launcher {
            same_but_for_trees(&descriptors(now), before, what);
        } else {
            self.launcher = now;
            self.tried.tracer.seize(now, Actor::Launcher);
        }
    }
}

/// A writable layer made ahead is there or not.
fn same_but_for_trees(after: &Descriptors, before: &Descriptors, what: &str) {
    let trees = |all: &Descriptors| all.get("/").copied().unwrap_or(0);
    let others =
        |all: &Descriptors| all.iter().filter(|(kind, _)| *kind != "/").map(|(k, n)| (k.clone(), *n)).collect();
    let (now, then): (Descriptors, Descriptors) = (others(after), others(before));
    assert_eq!(now, then, "the launcher's descriptors after {what}");
    assert!(trees(after) <= trees(before) + 1, "the launcher's trees after {what}: {after:?}, before {before:?}");
}

/// What goes on after a refusal, as there is another way or nothing that could be done. All else must be told.
const SWALLOWED: [(Actor, i64, &str); 13] = [
    (Actor::Runtime, libc::SYS_rt_sigprocmask, "with its arguments in order the kernel never refuses it"),
    (Actor::Runtime, libc::SYS_close, "the descriptor is closed all the same"),
    (Actor::Launcher, libc::SYS_close, "the descriptor is closed all the same"),
    (Actor::Runtime, libc::SYS_fcntl, "std's own check that a descriptor is open"),
    (Actor::Launcher, libc::SYS_fcntl, "std's own check that a descriptor is open"),
    (Actor::Runtime, libc::SYS_statx, "std's guess at a file's size: it is read all the same"),
    (Actor::Runtime, libc::SYS_fstat, "processes are told apart by when they were started"),
    (Actor::Launcher, libc::SYS_sched_yield, "the launcher goes on at once"),
    (Actor::Child, libc::SYS_sched_setaffinity, "the init stays on its launcher's CPU"),
    (Actor::Child, libc::SYS_fcntl, "the program runs before its init does: the container ends, its exit is unknown"),
    (Actor::Child, libc::SYS_dup3, "the same"),
    (Actor::Child, libc::SYS_execveat, "the same"),
    (Actor::Program, libc::SYS_sched_setaffinity, "the program stays on its launcher's CPU"),
];

/// Steps that must be among those that were told, lest this test tries nothing.
const STEPS: [&str; 23] = [
    "unshare",
    "netlink socket",
    "make a link",
    "configure eth0",
    "route packets",
    "id mapping",
    "make cgroup /sys/fs/cgroup/",
    "pids.max",
    "/record",
    "image tree",
    "speak with the launcher",
    "writable layer of",
    "write /etc/hosts",
    "lay the writable layer over the image",
    "output pipes",
    "first process",
    "user and group ids",
    "mount proc on /proc",
    "hide /proc/keys",
    "make the root file system the root",
    "capabilities",
    "system call filter",
    "execute /bin/payload",
];

#[test]
fn every_system_call_of_a_launch_is_refused_in_its_turn() {
    let Some(mut place) = support::place() else { return };
    place.widen();
    let mut launches = Launches::start(place, "keep 0");
    let actors = [(Actor::Program, false), (Actor::Child, false), (Actor::Launcher, false), (Actor::Runtime, true)];
    for (actor, hold) in actors {
        println!("{actor:?}: {} calls refused", launches.every_call_of(actor, hold, tracer::no_memory));
    }
    for (actor, _) in actors {
        launches.every_call_of(actor, false, tracer::used_up);
    }
    launches.tried.check(&SWALLOWED, &STEPS);
    launches.tried.end();
}

/// What the launcher does with a root that was made ahead, which is less.
#[test]
fn every_system_call_of_a_launch_with_a_root_made_ahead_is_refused_in_its_turn() {
    let Some(place) = support::place() else { return };
    let mut launches = Launches::start(place, "keep 1");
    let (seen, answer) = launches.tried.order("launch known /bin/payload sleep", None);
    let opened = seen.calls[&Actor::Launcher].iter().filter(|nr| **nr == libc::SYS_fsopen.cast_unsigned()).count();
    assert!(opened <= 1, "no file system but /proc: {answer:?}");
    launches.finish("known");
    for with in [tracer::no_memory as tracer::Answer, tracer::used_up] {
        println!("{} calls refused", launches.every_call_of(Actor::Launcher, false, with));
    }
    launches.tried.check(&SWALLOWED, &["writable layer of", "write /etc/hosts", "first process"]);
    launches.tried.end();
}
