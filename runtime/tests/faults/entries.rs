//! Every call of the end of a container; and of the start of a runtime that finds one alive, some of each kind.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::driven::Answer;
use crate::support::{self, Place, wait_until};
use crate::tracer::{self, Actor, Fault};
use crate::tried::Tried;

/// A test that hangs ends so.
const PATIENCE: Duration = Duration::from_secs(300);

/// But for `close`: the descriptor is closed whatever it says, and std's folders panic.
fn no_memory(nr: u64) -> Option<i32> {
    tracer::no_memory(nr).filter(|_| nr != libc::SYS_close.cast_unsigned())
}

const ANSWERS: [tracer::Answer; 2] = [no_memory, tracer::used_up];

struct Entries {
    tried: Tried,
    /// Told without the kernel's answer.
    lost: BTreeSet<(Actor, u64, String)>,
}

impl Entries {
    /// With a runtime that has been started and dropped once.
    fn begin(place: Place) -> Self {
        Self { tried: Tried::begin(place, &["start", "leave"], PATIENCE), lost: BTreeSet::new() }
    }

    /// Gives the order again and again, each time with another call of the actor refused, of each kind so many; `then` says what must hold after each.
    fn calls_of(
        &mut self,
        actor: Actor,
        order: &str,
        most: usize,
        mut then: impl FnMut(&mut Self, &str, &Answer),
    ) -> usize {
        let spared = self.spared(actor, order, most, &mut then);
        let mut refused = 0;
        for with in ANSWERS {
            for index in (0..).filter(|index| !spared.contains(index)) {
                let (seen, answer) = self.tried.order(order, Some(Fault { actor, index, with }));
                self.judge(actor, seen.refused, &answer);
                then(self, &format!("{order}: {actor:?} {index} {:?}: {answer:?}", seen.refused), &answer);
                refused += usize::from(seen.refused.is_some());
                if !seen.reached(actor, index) {
                    break;
                }
            }
        }
        refused
    }

    /// Those that cannot be refused: std, which makes processes, has no word for a pipe of its own that breaks. And where there are more than so many of a kind, all
    /// but some that are spread over them.
    fn spared(
        &mut self,
        actor: Actor,
        order: &str,
        most: usize,
        then: &mut impl FnMut(&mut Self, &str, &Answer),
    ) -> BTreeSet<usize> {
        let (seen, answer) = self.tried.order(order, None);
        then(self, order, &answer);
        let makes = [libc::SYS_clone, libc::SYS_clone3, libc::SYS_vfork, libc::SYS_fork].map(i64::cast_unsigned);
        let reads = [libc::SYS_read, libc::SYS_recvfrom].map(i64::cast_unsigned);
        let calls = seen.calls.get(&actor).cloned().unwrap_or_default();
        let mut last = 0;
        let mut spared = BTreeSet::new();
        let mut kinds = BTreeMap::<u64, Vec<usize>>::new();
        for (index, nr) in calls.into_iter().enumerate() {
            if reads.contains(&nr) && makes.contains(&last) {
                spared.insert(index);
            } else {
                kinds.entry(nr).or_default().push(index);
            }
            if nr != libc::SYS_close as u64 {
                last = nr;
            }
        }
        for places in kinds.values() {
            let every = places.len().div_ceil(most);
            spared.extend(places.iter().enumerate().filter(|(number, _)| number % every != 0).map(|(_, index)| index));
        }
        spared
    }

    fn judge(&mut self, actor: Actor, refused: Option<(u64, i32)>, answer: &Answer) {
        match (refused, answer) {
            (None, answer) => assert!(matches!(answer, Answer::Ok(_)), "{answer:?}"),
            (Some((nr, _)), Answer::Ok(_)) => drop(self.tried.swallowed.insert((actor, nr))),
            (Some((nr, refused)), Answer::Failed { errno, text, .. }) => {
                // The C library says that a thread may be had later, whatever the kernel says.
                let thread = nr == libc::SYS_clone3.cast_unsigned() && *errno == libc::EAGAIN;
                let all = if *errno == refused || thread { &mut self.tried.told } else { &mut self.lost };
                all.insert((actor, nr, text.clone()));
            }
        }
    }
}

/// What an end goes on without.
const END: [(Actor, i64, &str); 6] = [
    (Actor::Runtime, libc::SYS_openat, "it ends with the CPU that it has"),
    (Actor::Runtime, libc::SYS_pwrite64, "the same, or its peak of memory stays for the next one"),
    (Actor::Runtime, libc::SYS_statx, "it ends with the CPU that it has"),
    (Actor::Runtime, libc::SYS_pread64, "its slot rests; killed for want of memory reads as killed"),
    (Actor::Runtime, libc::SYS_waitid, "its first process stays a zombie until the runtime's process ends"),
    (Actor::Runtime, libc::SYS_fcntl, "std's own check that a descriptor is open"),
];

#[test]
fn every_system_call_of_an_end_is_refused_in_its_turn() {
    let Some(place) = support::place() else { return };
    let mut entries = Entries::begin(place);
    entries.tried.must("start");
    let launch = "launch one /bin/payload sleep";
    for verb in ["kill", "reap", "forget"] {
        let verbs = ["kill", "reap", "forget"];
        let at = verbs.iter().position(|one| *one == verb).expect("one of them");
        let prepare = |entries: &mut Entries| {
            entries.tried.must(launch);
            for earlier in &verbs[..at] {
                entries.tried.must(&format!("{earlier} one"));
            }
        };
        prepare(&mut entries);
        let refused = entries.calls_of(Actor::Runtime, &format!("{verb} one"), usize::MAX, |entries, what, answer| {
            match answer {
                Answer::Ok(said) => assert!(said.is_empty() || said == "Signal(9)", "{what}"),
                // Whatever was not done can be done again.
                Answer::Failed { .. } => drop(entries.tried.must(&format!("{verb} one"))),
            }
            for later in &verbs[at + 1..] {
                let said = entries.tried.must(&format!("{later} one"));
                assert!(said.is_empty() || said == "Signal(9)", "{what}: {later} says {said}");
            }
            wait_until("nothing runs", || entries.tried.place.processes().is_empty());
            let ours = entries.tried.victim.descriptors();
            assert_eq!(ours.get("anon_inode").or(ours.get("pidfd")), None, "pidfds after {what}: {ours:?}");
            prepare(entries);
        });
        println!("{verb}: {refused} calls refused");
        for later in &verbs[at..] {
            entries.tried.must(&format!("{later} one"));
        }
    }
    assert!(entries.lost.is_empty(), "the kernel's answer is lost: {:#?}", entries.lost);
    entries.tried.check(&END, &["/record", "send signal"]);
    entries.tried.end();
}

/// A start makes some five hundred calls, most of them for the files of cgroups and devices.
const OF_EACH_KIND: usize = 3;

/// What a start goes on without.
const START: [(Actor, i64, &str); 7] = [
    (Actor::Runtime, libc::SYS_rt_sigaction, "what becomes of children stays as it was inherited"),
    (Actor::Runtime, libc::SYS_rt_sigprocmask, "std's own, around the start of a process or thread"),
    (Actor::Runtime, libc::SYS_prlimit64, "as many files may be open as before"),
    (Actor::Runtime, libc::SYS_statx, "std's guess of how long a file is"),
    (Actor::Runtime, libc::SYS_read, "its age is that of its record"),
    (Actor::Runtime, libc::SYS_ioctl, "its trees go with its last process"),
    (Actor::Runtime, libc::SYS_fcntl, "std's own check that a descriptor is open"),
];

#[test]
fn system_calls_of_a_start_are_refused_and_no_container_is_lost() {
    let Some(place) = support::place() else { return };
    let mut entries = Entries::begin(place);
    entries.tried.must("start");
    let alive = format!("one=alive:{}", entries.tried.must("launch one /bin/payload sleep"));
    entries.tried.must("leave");
    let refused = entries.calls_of(Actor::Runtime, "start", OF_EACH_KIND, |entries, what, answer| {
        if let Answer::Failed { .. } = answer {
            entries.tried.must("start");
        }
        assert_eq!(entries.tried.must("adopt"), alive, "{what}");
        entries.tried.must("leave");
    });
    println!("start: {refused} calls refused");
    entries.tried.must("start");
    assert_eq!(entries.tried.must("adopt"), alive);
    entries.tried.must("end one");
    assert!(entries.lost.is_empty(), "the kernel's answer is lost: {:#?}", entries.lost);
    entries.tried.check(&START, &["launcher", "cgroup"]);
    entries.tried.end();
}
