//! What an earlier runtime with the same state folder left: read from the records, checked against the kernel.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;

use super::containers::{self, Containers, Life};
use super::record::Record;
use super::slots::{Maker, group_name, group_number};
use super::types::{Adopted, Running, Timings};
use super::{Error, machine};
use crate::kernel::cgroup::Group;
use crate::spec::ContainerId;

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    pub adopted: Vec<Adopted>,
    /// Numbers that are in use.
    pub slots: BTreeSet<u32>,
}

/// Reads every record. Alive is a process with the recorded number and start time, in this boot; everything else has ended. Cgroups of nobody are removed.
pub fn find(containers: &Containers, maker: &Maker) -> Result<Found, Error> {
    let mut found = Found::default();
    let mut ended = Vec::new();
    for id in ids(containers.root())? {
        let path = containers.folder(&id).join("record");
        let broken = |source| Error::State { what: "read", path: path.clone(), source };
        let opened = OpenOptions::new().read(true).write(true).open(&path);
        let read = opened.and_then(|file| Ok((Record::read(&file)?, file)));
        match read {
            Ok((Some(record), file)) => match process(containers, &record) {
                Some(pid) => {
                    found.slots.insert(record.slot);
                    found.adopted.push(Adopted::Alive(alive(containers, maker, id, &record, pid, file)?));
                }
                None => ended.push((id, record, file)),
            },
            // Begun and never launched: made by a runtime that ended in the midst of it.
            Ok((None, _)) => containers.discard(&id)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => containers.discard(&id)?,
            Err(error) => return Err(broken(error)),
        }
    }
    for (id, record, file) in ended {
        found.adopted.push(Adopted::Ended(over(containers, maker, &found.slots, id, &record, &file)?));
    }
    remove_leftovers(maker, &found.slots)?;
    Ok(found)
}

fn ids(root: &Path) -> Result<Vec<ContainerId>, Error> {
    let wrong = |source| Error::State { what: "read", path: root.to_owned(), source };
    let mut ids = Vec::new();
    for entry in fs::read_dir(root).map_err(wrong)? {
        let name = entry.map_err(wrong)?.file_name().to_string_lossy().into_owned();
        match ContainerId::new(name) {
            Ok(id) => ids.push(id),
            Err(error) => tracing::warn!(%error, "not a container's folder, left alone"),
        }
    }
    ids.sort();
    Ok(ids)
}

/// The number of its init, if that is alive.
fn process(containers: &Containers, record: &Record) -> Option<u32> {
    let same_boot = record.boot == containers.boot() && !containers::is_over(record.exit);
    (same_boot && record.pid != 0 && machine::is_alive(record.pid, record.start_ticks)).then_some(record.pid)
}

fn alive(
    containers: &Containers,
    maker: &Maker,
    id: ContainerId,
    record: &Record,
    pid: u32,
    file: File,
) -> Result<Running, Error> {
    let (pidfd, namespace) =
        open_process(pid).map_err(|source| Error::Machine("a running container's process", source))?;
    let slot = maker.adopt(record.slot, namespace)?;
    let address = slot.network.address;
    let ours = pidfd.try_clone().map_err(|source| Error::Machine("a pidfd", source))?;
    // Whose packets its network has seen is not recorded: the slot will serve nobody else.
    let tenant = format!("adopted {id}");
    containers.insert(id.clone(), Life::new(ours, slot, file, tenant));
    Ok(Running { id, pid, pidfd, address, started_unix_ms: record.started_unix_ms, timings: Timings::default() })
}

fn open_process(pid: u32) -> io::Result<(OwnedFd, OwnedFd)> {
    // SAFETY: a plain call; the result is a new descriptor or -1.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if pidfd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, owned by nobody else.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd as i32) };
    Ok((pidfd, File::open(format!("/proc/{pid}/ns/net"))?.into()))
}

/// Its cgroup tells of out-of-memory kills only if it has not been given to another since.
fn over(
    containers: &Containers,
    maker: &Maker,
    in_use: &BTreeSet<u32>,
    id: ContainerId,
    record: &Record,
    file: &File,
) -> Result<super::Ended, Error> {
    machine::bury_zombie(record.pid, record.start_ticks);
    let name = group_name(record.slot);
    let still_there =
        record.boot == containers.boot() && !in_use.contains(&record.slot) && maker.cgroups.names()?.contains(&name);
    let oom_kills = if still_there { maker.cgroups.group(&name)?.oom_kills().ok() } else { None };
    let ended = containers::conclude(&id, file, oom_kills);
    let ended =
        ended.map_err(|source| Error::State { what: "use the record in", path: containers.folder(&id), source })?;
    containers.insert_ended(ended.clone());
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

/// Ends what a launcher that died in the midst of a launch may have left in a slot: nobody knows it.
pub fn end_strangers(group: &Group) -> Result<(), Error> {
    for pid in group.pids()? {
        tracing::warn!(pid, "a process of a launch that was never finished: ending it");
        // SAFETY: a plain call; the number was read from the cgroup that only this runtime's containers join.
        unsafe { libc::kill(pid.cast_signed(), libc::SIGKILL) };
    }
    Ok(())
}
