//! Every call of a program's execution in a container that runs.

use std::time::Duration;

use crate::driven::{Answer, Descriptors, descriptors};
use crate::support::{self, wait_until};
use crate::tracer::{self, Actor, Fault};
use crate::tried::Tried;

/// A test that hangs ends so.
const PATIENCE: Duration = Duration::from_secs(180);

/// Ends at once, with a code of its own.
const ORDER: &str = "execute app /bin/payload exit 7";
const ENDED: &str = "Code(7)";

/// What an execution goes on without, or what is known of its end then.
const SWALLOWED: [(Actor, i64, &str); 13] = [
    (Actor::Runtime, libc::SYS_close, "the descriptor is closed all the same"),
    (Actor::Launcher, libc::SYS_close, "the descriptor is closed all the same"),
    (Actor::Child, libc::SYS_close, "the descriptor is closed all the same"),
    (Actor::Program, libc::SYS_close, "the descriptor is closed all the same"),
    (Actor::Runtime, libc::SYS_fcntl, "std's own check that a descriptor is open"),
    (Actor::Launcher, libc::SYS_fcntl, "std's own check that a descriptor is open"),
    (Actor::Child, libc::SYS_fcntl, "std's own check that a descriptor is open"),
    (Actor::Program, libc::SYS_fcntl, "std's own check that a descriptor is open"),
    (Actor::Program, libc::SYS_sched_setaffinity, "the program stays on its launcher's CPU"),
    (Actor::Runtime, libc::SYS_ppoll, "its beginning is waited for without a bound, its end not at all"),
    (Actor::Runtime, libc::SYS_waitid, "who was sent in is buried by its launcher"),
    (Actor::Child, libc::SYS_ppoll, "its end is waited for, also when nobody asks for it any more"),
    (Actor::Child, libc::SYS_sendmsg, "its end is unknown"),
];

struct Executions {
    tried: Tried,
    launcher: u32,
    ours: Descriptors,
    theirs: Descriptors,
}

impl Executions {
    /// Whether there was such a call.
    fn refuse(&mut self, fault: Fault) -> bool {
        let (seen, answer) = self.tried.order(ORDER, Some(fault));
        let what = format!("{fault:?} {:?} {answer:?}", seen.refused);
        match (seen.refused, &answer) {
            (None, Answer::Ok(said)) => assert_eq!(said, ENDED, "{what}"),
            (None, _) => panic!("{what}"),
            (Some((nr, _)), Answer::Ok(_)) => drop(self.tried.swallowed.insert((fault.actor, nr))),
            (Some((nr, refused)), Answer::Failed { kind, errno, text }) => {
                // A launcher that cannot answer ends, and that is what is told; so does whoever it sends in.
                let mute = kind == "EnterLauncher" || (fault.actor, nr) == (Actor::Child, libc::SYS_sendmsg as u64);
                assert!(*errno == refused || mute, "the kernel's answer is lost: {what}");
                self.tried.told.insert((fault.actor, nr, text.clone()));
            }
        }
        self.nothing_is_left(&what);
        assert_eq!(self.tried.must(ORDER), ENDED, "after {what}");
        seen.reached(fault.actor, fault.index)
    }

    /// But the container, with its program and init.
    fn nothing_is_left(&mut self, what: &str) {
        wait_until(&format!("only the app runs after {what}"), || self.tried.place.processes().len() == 2);
        let launcher = self.tried.must("launchers").parse().expect("one launcher");
        if launcher == self.launcher {
            assert_eq!(descriptors(launcher), self.theirs, "the launcher's descriptors after {what}");
        } else {
            self.launcher = launcher;
            self.tried.tracer.seize(launcher, Actor::Launcher);
            assert_eq!(self.tried.must(ORDER), ENDED, "by another launcher");
            self.theirs = descriptors(launcher);
        }
        assert_eq!(self.tried.victim.descriptors(), self.ours, "the runtime's descriptors after {what}");
    }
}

#[test]
fn every_system_call_of_an_execution_is_refused_in_its_turn() {
    let Some(place) = support::place() else { return };
    let mut tried = Tried::begin(place, &["start", "launch app /bin/payload sleep", ORDER], PATIENCE);
    let launcher = tried.must("launchers").parse().expect("one launcher");
    tried.tracer.seize(launcher, Actor::Launcher);
    let (ours, theirs) = (tried.victim.descriptors(), descriptors(launcher));
    let mut executions = Executions { tried, launcher, ours, theirs };
    for with in [tracer::no_memory as tracer::Answer, tracer::used_up] {
        for actor in [Actor::Program, Actor::Child, Actor::Launcher, Actor::Runtime] {
            let calls = (0..).find(|index| !executions.refuse(Fault { actor, index: *index, with }));
            println!("{actor:?}: {calls:?} calls refused");
        }
    }
    executions.tried.must("end app");
    executions.tried.check(
        &SWALLOWED,
        &[
            "enter the container",
            "start a process in the container",
            "the container's cgroups",
            "stand apart",
            "its standard streams",
            "execute /bin/payload",
        ],
    );
    executions.tried.end();
}
