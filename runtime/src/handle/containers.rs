//! The containers a runtime knows, and their folders, kept from launch until forgotten.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;
use rustix::io::Errno;
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use super::folders::{Folder, Folders, Place};
use super::here::Here;
use super::record::{self, Record};
use super::remains::Trees;
use super::reserve::Reserve;
use super::slots::Slot;
use super::types::{Ended, Exit, LogFiles};
use super::{Error, Shared, machine};
use crate::kernel::cgroup::{CgroupError, Group};
use crate::spec::ContainerId;

/// The init's signal for "end everything at once"; the other side is `init/init.rs`.
const KILL_ALL: i32 = 40;
/// How long an init may take to end everything before it is ended itself. Mostly it takes a millisecond; with a pipe full of short lines to write down, some
/// hundreds.
const KILL_PATIENCE_MS: u64 = 2_000;
/// How long a container's start may take beyond its program's.
const INIT_PATIENCE: Duration = Duration::from_secs(2);

/// Where an init holds the reading end of its container's busy mark; the other side is `init/init.rs`.
const MARK: i32 = 9;
/// Of what an app writes into its mark, which says nothing: so many pages are thrown away at a look.
const MARK_PAGES: usize = 16;

/// A container from launch to reaping.
#[derive(Debug)]
pub struct Life {
    pidfd: OwnedFd,
    record: File,
    place: Place,
    tenant: String,
    /// It is to end.
    killed: AtomicBool,
    /// Taken at reaping.
    slot: Mutex<Option<Slot>>,
}

#[derive(Debug, Clone)]
enum Known {
    /// The name is taken; there is nothing to talk to yet.
    Starting,
    Running(Shared<Life>),
    /// With its folder.
    Reaped(Ended, Place),
    /// Being forgotten; the name is taken until its record is blank, lest the next start finds two of that name.
    Leaving,
}

/// The table.
#[derive(Debug)]
pub struct Containers {
    boot: [u8; 16],
    folders: Folders,
    known: Mutex<BTreeMap<ContainerId, Known>>,
}

/// A name that is taken for a launch, and free again when this is dropped without a container of that name.
#[derive(Debug)]
pub struct Reserved<'a> {
    containers: &'a Containers,
    id: &'a ContainerId,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut known = self.containers.lock();
        if matches!(known.get(self.id), Some(Known::Starting)) {
            known.remove(self.id);
        }
    }
}

impl Containers {
    pub fn open(state: &Path) -> Result<Self, Error> {
        let root = state.join("containers");
        // Looked for first: who is told that it cannot be made should hear why.
        let made = match fs::metadata(&root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(&root),
            found => found.map(drop),
        };
        made.map_err(|source| Error::State { what: "make", path: root.clone(), source })?;
        let folders = Folders::start(&root)?;
        Ok(Self { boot: machine::boot_id()?, folders, known: Mutex::new(BTreeMap::new()) })
    }

    /// Names the time since the machine was started.
    pub fn boot(&self) -> [u8; 16] {
        self.boot
    }

    /// Folders that an earlier runtime left.
    pub fn found(&self) -> Vec<Place> {
        self.folders.found()
    }

    /// Takes a name.
    pub fn reserve<'a>(&'a self, id: &'a ContainerId) -> Result<Reserved<'a>, Error> {
        match self.lock().entry(id.clone()) {
            Entry::Occupied(_) => return Err(Error::Exists(id.clone())),
            Entry::Vacant(free) => free.insert(Known::Starting),
        };
        Ok(Reserved { containers: self, id })
    }

    /// A folder that is the container's from now on, whoever reads it after a crash.
    pub fn folder(&self, record: &Record) -> Result<Folder, Error> {
        let folder = self.folders.take()?;
        match record.write(&folder.record) {
            Ok(()) => Ok(folder),
            Err(source) => {
                let path = folder.place.record();
                self.discard(folder.place)?;
                Err(Error::State { what: "write", path, source })
            }
        }
    }

    /// Undoes [`Self::folder`].
    pub fn discard(&self, place: Place) -> Result<(), Error> {
        self.folders.give_up(place)
    }

    /// Waits until nothing is left of what was forgotten.
    pub fn settle(&self) {
        self.folders.settle();
    }

    pub fn insert(&self, id: ContainerId, life: Life) {
        self.lock().insert(id, Known::Running(Shared::new(life)));
    }

    pub fn insert_ended(&self, ended: Ended, place: Place) {
        self.lock().insert(ended.id.clone(), Known::Reaped(ended, place));
    }

    /// Those not reaped.
    pub fn running(&self) -> Vec<ContainerId> {
        self.lock().iter().filter(|(_, known)| matches!(known, Known::Running(_))).map(|(id, _)| id.clone()).collect()
    }

    pub fn alive(&self, id: &ContainerId) -> Result<Shared<Life>, Error> {
        match self.find(id)? {
            Known::Running(life) => Ok(life),
            Known::Reaped(..) => Err(Error::HasEnded(id.clone())),
            Known::Starting | Known::Leaving => Err(Error::NoSuchContainer(id.clone())),
        }
    }

    /// Waits for the end; gives the slot to whoever came first.
    pub fn reap(&self, id: &ContainerId) -> Result<(Ended, Option<(Slot, String)>), Error> {
        let life = match self.find(id)? {
            Known::Reaped(ended, _) => return Ok((ended, None)),
            Known::Running(life) => life,
            Known::Starting | Known::Leaving => return Err(Error::NoSuchContainer(id.clone())),
        };
        life.await_end()?;
        machine::bury(life.pidfd.as_fd());
        let mut slot = life.slot.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(taken) = slot.as_ref() else {
            drop(slot);
            return self.reap(id);
        };
        let ended =
            conclude(&life.record, taken.group.oom_kills().ok()).map_err(|source| broken(&life.place, source))?;
        // Before the slot goes: who waits for this lock looks the container up again.
        self.insert_ended(ended.clone(), life.place.clone());
        Ok((ended, slot.take().map(|slot| (slot, life.tenant.clone()))))
    }

    /// Nobody can be told of its logs any more once its folder is given up.
    pub fn forget(&self, id: &ContainerId) -> Result<(), Error> {
        let (ended, place) = self.begin_to_leave(id)?;
        let discarded = self.discard(place.clone());
        let mut known = self.lock();
        match &discarded {
            Ok(()) => known.remove(id),
            Err(_) => known.insert(id.clone(), Known::Reaped(ended, place)),
        };
        discarded
    }

    /// Takes what a reaped container was; its name stays taken.
    fn begin_to_leave(&self, id: &ContainerId) -> Result<(Ended, Place), Error> {
        let mut known = self.lock();
        let found = match known.get(id) {
            Some(Known::Running(_)) => return Err(Error::StillRuns(id.clone())),
            Some(Known::Starting | Known::Leaving) | None => return Err(Error::NoSuchContainer(id.clone())),
            Some(Known::Reaped(ended, place)) => (ended.clone(), place.clone()),
        };
        known.insert(id.clone(), Known::Leaving);
        Ok(found)
    }

    pub fn log(&self, id: &ContainerId) -> Result<LogFiles, Error> {
        let place = self.told(id)?;
        let read =
            File::open(place.record()).and_then(|file| Record::read(&file)).map_err(|source| match source.kind() {
                // Forgotten meanwhile.
                io::ErrorKind::NotFound => Error::NoSuchContainer(id.clone()),
                _ => broken(&place, source),
            })?;
        let (rotations, lost_bytes) = read.map_or((0, 0), |record| (record.rotations, record.lost_bytes));
        let (older, newer) = if rotations % 2 == 0 { ("out.1", "out.0") } else { ("out.0", "out.1") };
        let folder = place.tell();
        Ok(LogFiles { older: folder.join(older), newer: folder.join(newer), rotations, lost_bytes })
    }

    /// Its folder, told to readers before anybody can forget it.
    fn told(&self, id: &ContainerId) -> Result<Place, Error> {
        let known = self.lock();
        let place = match known.get(id) {
            Some(Known::Running(life)) => &life.place,
            Some(Known::Reaped(_, place)) => place,
            Some(Known::Starting | Known::Leaving) | None => return Err(Error::NoSuchContainer(id.clone())),
        };
        place.tell();
        Ok(place.clone())
    }

    fn find(&self, id: &ContainerId) -> Result<Known, Error> {
        self.lock().get(id).cloned().ok_or_else(|| Error::NoSuchContainer(id.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn broken(place: &Place, source: io::Error) -> Error {
    Error::State { what: "use", path: place.record(), source }
}

/// Reads how an ended container ended, and writes it down for good. `oom_kills` is unknown when its cgroup is gone.
pub fn conclude(file: &File, oom_kills: Option<u64>) -> io::Result<Ended> {
    let record = Record::read(file)?.ok_or(io::ErrorKind::InvalidData)?;
    let now = machine::now_unix_ms();
    let oom = oom_kills.is_some_and(|kills| kills > record.oom_kills_before);
    let exit = record.exit.unwrap_or_else(|| record::exit_of(record.end.map(|(status, _)| status), oom));
    let ended = record.ended(exit, now);
    // What the init wrote says a code for good; anything else depends on a cgroup that the next container uses.
    if !(matches!(exit, Exit::Code(_)) && record.end.is_some()) {
        Record::set_exit(file, exit, ended.ended_unix_ms)?;
    }
    Ok(ended)
}

impl Life {
    pub fn new(pidfd: OwnedFd, mut slot: Slot, record: File, place: Place, tenant: String) -> Self {
        slot.trees = Trees::of(pidfd.as_fd());
        Self { pidfd, record, place, tenant, killed: AtomicBool::new(false), slot: Mutex::new(Some(slot)) }
    }

    /// Waits until it has ended, which is told from the CPU that it was started on.
    pub fn await_end(&self) -> Result<(), Error> {
        let wrong = |source| Error::Machine("the end of a container", source);
        if !self.wait(Some(0)).map_err(wrong)? {
            let _near = Here::stay();
            self.wait(None).map_err(wrong)?;
        }
        Ok(())
    }

    /// Waits until it has ended (true), at most `limit_ms`.
    fn wait(&self, limit_ms: Option<u64>) -> io::Result<bool> {
        let limit = limit_ms.map(|ms| Timespec { tv_sec: (ms / 1000) as i64, tv_nsec: (ms % 1000 * 1_000_000) as i64 });
        loop {
            let mut polls = [PollFd::from_borrowed_fd(self.pidfd.as_fd(), PollFlags::IN)];
            match poll(&mut polls, limit.as_ref()) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(ended) => return Ok(ended > 0),
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub fn signal(&self, id: &ContainerId, signal: i32) -> Result<(), Error> {
        let wrong = |source| Error::Signal { id: id.clone(), signal, source };
        if !(1..=64).contains(&signal) || [libc::SIGSTOP, libc::SIGCHLD, KILL_ALL].contains(&signal) {
            return Err(wrong(io::ErrorKind::InvalidInput.into()));
        }
        self.help(id, Group::forgive_cpu);
        // What is frozen would get it some day.
        self.help(id, Group::thaw_if_frozen);
        self.send(signal).map_err(wrong)
    }

    /// Lets it have the CPU that its end, or standing still, needs. Without, that still comes, later.
    fn help(&self, id: &ContainerId, how: impl FnOnce(&Group) -> Result<(), CgroupError>) {
        let helped = self.with_slot(id, |slot| Ok(how(&slot.group)?));
        if let Err(error) = helped
            && !matches!(error, Error::HasEnded(_))
        {
            tracing::warn!(%id, error = &error as &dyn std::error::Error, "a container may lack the CPU for what is asked of it");
        }
    }

    /// A container that has ended cannot get a signal, nor does it need one.
    fn send(&self, signal: i32) -> io::Result<()> {
        // SAFETY: a plain call on our own descriptor.
        let result = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.pidfd.as_raw_fd(), signal, std::ptr::null::<()>(), 0)
        };
        match result {
            0 => Ok(()),
            _ => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
                error => Err(error),
            },
        }
    }

    /// With descriptors in `reserve`.
    pub fn kill(&self, id: &ContainerId, reserve: &Reserve) -> Result<(), Error> {
        let wrong = |signal| move |source| Error::Signal { id: id.clone(), signal, source };
        self.help(id, Group::unbind_cpu);
        self.killed.store(true, Ordering::Release);
        self.send(KILL_ALL).map_err(wrong(KILL_ALL))?;
        let thawed = match self.thaw(id) {
            Err(Error::Cgroup(CgroupError::Read { .. } | CgroupError::Write { .. })) => reserve.lend(|| self.thaw(id)),
            other => other,
        };
        // Without, what is frozen ends with its init, where the kernel ends what is frozen.
        if let Err(error) = thawed
            && !matches!(error, Error::HasEnded(_))
        {
            tracing::warn!(%id, error = &error as &dyn std::error::Error, "cannot let a container go on to its end");
        }
        let unheard = |source| Error::Machine("the end of a container", source);
        if !self.wait(Some(KILL_PATIENCE_MS)).map_err(unheard)? {
            tracing::warn!(%id, "its init does not end it: ending the init");
            self.send(libc::SIGKILL).map_err(wrong(libc::SIGKILL))?;
        }
        Ok(())
    }

    /// Only if it is still `wanted` when nobody can come between.
    pub fn freeze(&self, id: &ContainerId, wanted: impl FnOnce() -> bool) -> Result<(), Error> {
        self.await_init().map_err(|source| broken(&self.place, source))?;
        // Who owes CPU time stands still only when that is paid.
        self.help(id, Group::forgive_cpu);
        let ended = || self.wait(Some(0)).map_err(|source| Error::Machine("the end of a container", source));
        self.with_slot(id, |slot| match self.killed.load(Ordering::Acquire) || ended()? {
            true => Err(Error::HasEnded(id.clone())),
            false if wanted() => Ok(slot.group.freeze(true)?),
            false => Err(Error::Overtaken(id.clone())),
        })
    }

    pub fn thaw(&self, id: &ContainerId) -> Result<(), Error> {
        self.with_slot(id, |slot| Ok(slot.group.freeze(false)?))
    }

    /// Returns when its init has been executed, or never will be. A launch is told as soon as the program runs; its init may be in the launcher's memory
    /// then, and the launcher waits until it is not.
    fn await_init(&self) -> io::Result<()> {
        let process = Record::read(&self.record)?.ok_or(io::ErrorKind::InvalidData)?.process;
        let until = Instant::now() + INIT_PATIENCE;
        while !process.is_init()? && !self.wait(Some(1))? {
            if Instant::now() > until {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }

    /// Does somebody inside hold the busy mark open for writing? Asked of the init's own descriptor, which nobody inside can reach: three
    /// system calls. An init without one (of a bundle, or of an older runtime) says no.
    pub fn holds_mark(&self) -> bool {
        let Ok(mark) = pidfd_getfd(&self.pidfd, MARK, PidfdGetfdFlags::empty()) else { return false };
        if !rustix::fs::fstat(&mark).is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Fifo) {
            return false;
        }
        let mut page = [0_u8; 4096];
        for _ in 0..MARK_PAGES {
            match rustix::io::read(&mark, &mut page) {
                Ok(0) => return false, // the end: nobody holds the other one
                Ok(_) => {}
                Err(error) => return error == Errno::AGAIN,
            }
        }
        true
    }

    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub fn address(&self, id: &ContainerId) -> Result<Ipv4Addr, Error> {
        self.with_slot(id, |slot| Ok(slot.network.address))
    }

    pub fn with_slot<T>(&self, id: &ContainerId, work: impl FnOnce(&Slot) -> Result<T, Error>) -> Result<T, Error> {
        let slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        work(slot.as_ref().ok_or_else(|| Error::HasEnded(id.clone()))?)
    }
}

/// For the adoption of what ended while nobody watched.
pub fn is_over(exit: Option<Exit>) -> bool {
    exit.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(id: &ContainerId) -> Ended {
        Ended { id: id.clone(), exit: Exit::Code(0), started_unix_ms: 1, ended_unix_ms: 2 }
    }

    /// A table with one container that has ended.
    fn table() -> (tempfile::TempDir, Containers, ContainerId, Place) {
        let root = tempfile::tempdir().expect("a folder");
        let containers = Containers::open(root.path()).expect("open");
        let id = ContainerId::new("web").expect("an id");
        let record = Record::new(id.clone(), 1, containers.boot(), 0);
        let place = containers.folder(&record).expect("a folder").place;
        containers.insert_ended(ended(&id), place.clone());
        (root, containers, id, place)
    }

    #[test]
    fn a_name_is_taken_until_its_record_is_blank() {
        let (_root, containers, id, place) = table();
        let (was, _) = containers.begin_to_leave(&id).expect("it had ended");
        assert_eq!(was, ended(&id));
        assert!(matches!(containers.reserve(&id), Err(Error::Exists(_))));
        assert!(matches!(containers.forget(&id), Err(Error::NoSuchContainer(_))));
        assert!(matches!(containers.log(&id), Err(Error::NoSuchContainer(_))));
        containers.insert_ended(was, place);
        containers.forget(&id).expect("forgotten");
        assert!(containers.reserve(&id).is_ok());
    }

    #[test]
    fn what_cannot_be_forgotten_stays_known() {
        let (_root, containers, id, place) = table();
        fs::remove_file(place.record()).expect("removed");
        fs::create_dir(place.record()).expect("a folder cannot be written");
        assert!(matches!(containers.forget(&id), Err(Error::State { .. })));
        assert_eq!(containers.reap(&id).expect("known still").0, ended(&id));
    }

    #[test]
    fn logs_of_a_container_forgotten_meanwhile_are_nobodys() {
        let (_root, containers, id, place) = table();
        fs::remove_file(place.record()).expect("removed");
        assert!(matches!(containers.log(&id), Err(Error::NoSuchContainer(_))));
    }
}
