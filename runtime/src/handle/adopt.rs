//! What an earlier runtime with the same state folder left: read from the records, checked against the kernel.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::containers::{self, Containers, Life};
use super::folders::Place;
use super::record::{self, Record};
use super::slots::{Maker, Slot, group_name, group_number};
use super::types::{Adopted, Running, Timings};
use super::{Error, machine};
use crate::kernel::cgroup::{self, Group};
use crate::kernel::process::{ends_within, is_nobodys};
use crate::launch::CGROUP_ROOT;

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    pub adopted: Vec<Adopted>,
    /// Numbers that are in use.
    pub slots: BTreeSet<u32>,
}

/// Everything that an earlier runtime left, as it was found: nothing has been changed yet.
#[derive(Debug)]
pub struct Left(Vec<(Place, Option<Known>)>);

/// A folder that is somebody's.
#[derive(Debug)]
struct Known {
    record: Record,
    file: File,
    /// Of its init, if that is alive: a process with the recorded identity, in this boot.
    init: Option<OwnedFd>,
}

impl Left {
    /// Reads every record. One of another version is refused before anything is done: whose it is, runs on.
    pub fn read(containers: &Containers) -> Result<Self, Error> {
        let one = |place: Place| {
            let path = place.record();
            match known(containers, &path) {
                Ok(known) => Ok((place, known)),
                Err(Error::State { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok((place, None)),
                Err(error) => Err(error),
            }
        };
        containers.found().into_iter().map(one).collect::<Result<_, _>>().map(Self)
    }

    /// Where in the tree (v2), or trees, the node's directory `parent` is below which they run; nothing when none runs. Elsewhere than in groups of
    /// `parent` nobody would find them.
    pub fn cgroup_top(&self, parent: &str) -> Result<Option<PathBuf>, Error> {
        let mut top: Option<PathBuf> = None;
        for Known { record, init, .. } in self.0.iter().filter_map(|(_, known)| known.as_ref()) {
            let Some(init) = init else { continue };
            let found = cgroup::of_process(Path::new(CGROUP_ROOT), record.process.pid).map_err(wrong)?;
            let Some(found) = found else { continue };
            let above = cgroup::above(&found, parent, &group_name(record.slot));
            match above {
                Some(above) if top.as_ref().is_none_or(|top| *top == above) => top = Some(above),
                // On v1 the kernel shows a process that is about to end elsewhere.
                _ if ends(init.as_fd())? => {}
                _ => {
                    let (id, pid, parent) = (record.id.clone(), record.process.pid, parent.to_owned());
                    return Err(Error::Elsewhere { id, pid, found, parent });
                }
            }
        }
        Ok(top)
    }
}

fn known(containers: &Containers, path: &Path) -> Result<Option<Known>, Error> {
    let unreadable = |source| Error::State { what: "read", path: path.to_owned(), source };
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(unreadable)?;
    match Record::version(&file).map_err(unreadable)? {
        Some(found) if found != record::VERSION => {
            return Err(Error::RecordVersion { path: path.to_owned(), found, known: record::VERSION });
        }
        _ => {}
    }
    let record = Record::read(&file).map_err(unreadable)?;
    let known = |record| Ok(Known { init: process(containers, &record)?, record, file });
    record.map(known).transpose()
}

/// Takes over what was left. Alive is whose init is; everything else has ended. Cgroups of nobody are removed.
pub fn find(containers: &Containers, maker: &Maker, left: Left) -> Result<Found, Error> {
    let mut found = Found::default();
    let mut ended = Vec::new();
    for (place, known) in left.0 {
        match known {
            Some(Known { record, file, init }) => match living(record.process.pid, init)? {
                Some((pidfd, network)) => {
                    found.slots.insert(record.slot);
                    let slot = maker.adopt(record.slot, network)?;
                    found.adopted.push(Adopted::Alive(alive(containers, slot, &record, pidfd, place, file)?));
                }
                None => ended.push((record, place, file)),
            },
            // Nobody's: made ahead, or to be removed, by a runtime that is gone.
            None => containers.discard(place)?,
        }
    }
    for (record, place, file) in ended {
        // An earlier container of that name, whose launch could not be undone or whose forgetting was interrupted.
        if containers.alive(&record.id).is_ok() {
            containers.discard(place)?;
            continue;
        }
        found.adopted.push(Adopted::Ended(over(containers, maker, &found.slots, &record, place, &file)?));
    }
    remove_leftovers(maker, &found.slots)?;
    Ok(found)
}

/// Its init, if that is alive.
fn process(containers: &Containers, record: &Record) -> Result<Option<OwnedFd>, Error> {
    let same_boot = record.boot == containers.boot() && !containers::is_over(record.exit);
    if !same_boot {
        return Ok(None);
    }
    record.process.alive().map_err(|source| Error::Machine("whether a container's process is alive", source))
}

/// The init and its network namespace. It may have ended since it was found, and whoever is about to end has no namespaces before that can be seen.
fn living(pid: u32, init: Option<OwnedFd>) -> Result<Option<(OwnedFd, OwnedFd)>, Error> {
    let Some(init) = init else { return Ok(None) };
    match File::open(format!("/proc/{pid}/ns/net")) {
        Ok(network) => Ok(Some((init, network.into()))),
        Err(error) if is_nobodys(&error) && ends(init.as_fd())? => Ok(None),
        Err(error) => Err(wrong(error)),
    }
}

/// Whether a process that seems to end does.
fn ends(init: BorrowedFd<'_>) -> Result<bool, Error> {
    ends_within(init, PATIENCE).map_err(wrong)
}

fn wrong(source: io::Error) -> Error {
    Error::Machine("a running container's process", source)
}

fn alive(
    containers: &Containers,
    slot: Slot,
    record: &Record,
    pidfd: OwnedFd,
    place: Place,
    file: File,
) -> Result<Running, Error> {
    let (id, pid) = (record.id.clone(), record.process.pid);
    let address = slot.network.address;
    let ours = pidfd.try_clone().map_err(wrong)?;
    // Whose packets its network has seen is not recorded: the slot will serve nobody else.
    let tenant = format!("adopted {id}");
    containers.insert(id.clone(), Life::new(ours, slot, file, place, tenant));
    let started_unix_ms = machine::started_unix_ms(pid).unwrap_or(record.started_unix_ms);
    Ok(Running { id, pid, pidfd, address, started_unix_ms, timings: Timings::default() })
}

/// Its cgroup tells of out-of-memory kills only if it has not been given to another since.
fn over(
    containers: &Containers,
    maker: &Maker,
    in_use: &BTreeSet<u32>,
    record: &Record,
    place: Place,
    file: &File,
) -> Result<super::Ended, Error> {
    machine::bury_zombie(record.process);
    let name = group_name(record.slot);
    let still_there =
        record.boot == containers.boot() && !in_use.contains(&record.slot) && maker.cgroups.names()?.contains(&name);
    let oom_kills = if still_there { maker.cgroups.group(&name)?.oom_kills().ok() } else { None };
    let wrong = |source| Error::State { what: "use", path: place.record(), source };
    let ended = containers::conclude(file, oom_kills).map_err(wrong)?;
    containers.insert_ended(ended.clone(), place);
    Ok(ended)
}

/// Slots of a runtime that ended without a word. A process in one of them was cloned and never recorded: nobody knows it, so it ends.
fn remove_leftovers(maker: &Maker, in_use: &BTreeSet<u32>) -> Result<(), Error> {
    for name in maker.cgroups.names()? {
        if group_number(&name).is_none_or(|number| in_use.contains(&number)) {
            continue;
        }
        let group = maker.cgroups.group(&name)?;
        end_strangers(&group)?;
        group.remove()?;
    }
    Ok(())
}

/// How long the last of them may take to go; mostly it is some microseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// Ends what a launch that failed may have left in a slot: nobody knows it. On success it is gone; else the slot is nobody's.
pub fn end_strangers(group: &Group) -> Result<(), Error> {
    if group.pids()?.is_empty() {
        return Ok(());
    }
    // As for whatever is killed: at 20m of a CPU an end may take a minute.
    if let Err(error) = group.unbind_cpu() {
        tracing::warn!(error = &error as &dyn std::error::Error, "cannot give a process the CPU to end");
    }
    if let Err(error) = group.thaw_if_frozen() {
        tracing::warn!(error = &error as &dyn std::error::Error, "cannot let a process go on to its end");
    }
    if let Err(error) = group.kill() {
        tracing::warn!(error = &error as &dyn std::error::Error, "cannot end all of a cgroup at once");
    }
    end_listed(|| Ok(group.pids()?), PATIENCE)
}

/// Ends processes until none is listed.
fn end_listed(list: impl Fn() -> Result<Vec<u32>, Error>, patience: Duration) -> Result<(), Error> {
    let until = Instant::now() + patience;
    let mut ended = BTreeSet::new();
    loop {
        let pids = list()?;
        if pids.is_empty() {
            return Ok(());
        }
        for pid in &pids {
            if ended.insert(*pid) {
                tracing::warn!(pid, "a process of a launch that was never finished: ending it");
            }
            // SAFETY: a plain call; the number was read from the cgroup that only this runtime's containers join.
            unsafe { libc::kill(pid.cast_signed(), libc::SIGKILL) };
        }
        if Instant::now() > until {
            return Err(Error::Unfinished { pids });
        }
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn who_ends_before_being_taken_over_has_ended() {
        let mut child = Command::new("sleep").arg("1000").spawn().expect("a process");
        let pid = child.id();
        let init = || {
            let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a number");
            rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("a child")
        };
        assert!(living(pid, Some(init())).expect("it lives").is_some());
        let (before, after) = (init(), init());
        child.kill().expect("a child");
        // A zombie, and then nobody.
        assert!(ends_within(before.as_fd(), PATIENCE).expect("a pidfd"));
        assert!(living(pid, Some(before)).expect("it has ended").is_none());
        child.wait().expect("it was killed");
        assert!(living(pid, Some(after)).expect("it has ended").is_none());
    }

    #[test]
    fn what_does_not_go_is_told_and_never_taken_for_gone() {
        // Killed, and listed until it is waited for.
        let mut child = Command::new("sleep").arg("1000").spawn().expect("a process");
        let pid = child.id();
        match end_listed(|| Ok(vec![pid]), Duration::ZERO) {
            Err(Error::Unfinished { pids }) => assert_eq!(pids, [pid]),
            other => panic!("{other:?}"),
        }
        child.wait().expect("it was killed");
        end_listed(|| Ok(Vec::new()), Duration::ZERO).expect("nothing is left");
    }
}
