//! Slots: what a container needs of the host and what can be made ahead: cgroups, an address with its network, a range of ids.
//!
//! ```text
//!   made ──> ready ──take──> in use ──give back──> ready      untouched network without a socket, little memory left behind
//!             ^  ^                        └─────> resting ──> ready   touched: the address rests, then serves the same tenant only
//!             └──┴── refilled in a lull              │     └> dropped   too many, or another tenant needs the room
//!                                                    └──> made anew   where a socket is left
//! ```
//!
//! More are made in a lull only: while launches come one after the other they have the CPUs, and whoever finds nothing ready makes its own.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};

use super::config::{Ipv4Subnet, PoolSizes};
use super::kept::{Kept, Wanted};
use super::lent::Lent;
use super::remains::{Remains, Trees};
use super::surplus::Surplus;
use crate::kernel::cgroup::{CgroupError, Cgroups, Group};
use crate::kernel::{ids, namespace};
use crate::launch::{Layers, device_layer, shifted_devices, tells_changes};
use crate::net::{NetError, Network, Networks};

/// A packet to an address may be under way, and a peer's connection half open, for this long at most.
const QUARANTINE: Duration = Duration::from_secs(2);
/// Nothing was launched or reaped for this long: a burst is over.
const LULL: Duration = Duration::from_millis(20);
/// What failed is tried again after this long, and a launch that takes longer holds nobody up.
const IDLE: Duration = Duration::from_secs(1);

/// Why there is no slot.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// All addresses are in use.
    #[error("all {room} addresses of {subnet} are in use; give the node a larger subnet")]
    NoAddress {
        /// Which subnet.
        subnet: Ipv4Subnet,
        /// How many it has.
        room: u32,
    },
    /// The range of host ids would pass the end.
    #[error("slot {0} has no range of user ids: lower the first one (uid_base)")]
    NoIds(u32),
    /// A user namespace or an id-mapped mount could not be made.
    #[error("cannot {what} for slot {slot}")]
    Mapping {
        /// Which slot.
        slot: u32,
        /// Doing what.
        what: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The thread that makes them ahead could not be started.
    #[error("cannot start the thread that prepares containers")]
    Thread(#[source] io::Error),
    /// Cgroups.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// Network.
    #[error(transparent)]
    Net(#[from] NetError),
}

/// A container's share of the host.
#[derive(Debug)]
pub struct Slot {
    pub number: u32,
    pub first_id: u32,
    pub group: Group,
    pub network: Network,
    /// The device layer with owners shifted, where the kernel takes it as it is: [`Layers::Detached`].
    pub devices: Option<OwnedFd>,
    userns: OwnedFd,
    /// Of the image of its last container.
    kept: Option<Kept>,
    /// Of the image before: to let go of it takes a while, so it stays until nobody waits for the slot.
    outdated: Option<Kept>,
    /// Whose packets its network has seen.
    tenant: Option<String>,
    /// The file trees of the container that has it, which outlive it by this.
    pub trees: Option<Trees>,
    /// CPU time that its cgroup had counted when its last container had ended.
    pub cpu_before_us: u64,
}

impl Slot {
    /// What it keeps of the image at `path`. With [`Layers::Attached`] that is used up by one container.
    pub fn keep(&mut self, path: &Path, wanted: Wanted) -> io::Result<&mut Kept> {
        let usable = |kept: &Kept| self.devices.is_some() && kept.is_of(wanted);
        let kept = match self.kept.take() {
            Some(kept) if usable(&kept) => kept.again(wanted),
            other => {
                self.outdated = other;
                Kept::of(path, self.userns.as_fd(), wanted)?
            }
        };
        Ok(self.kept.insert(kept))
    }

    /// The tree of the image that was last kept.
    pub fn image(&self) -> Option<BorrowedFd<'_>> {
        self.kept.as_ref().map(Kept::tree)
    }

    /// For the next container, which most likely wants the same as the last, and is the same tenant's; with a root made ahead, if there is room for that.
    fn prepare(&mut self, has_room: bool, tenant: &str, sealed: bool) {
        self.outdated = None;
        if let (true, Some(devices), Some(kept)) = (has_room, &self.devices, &mut self.kept) {
            kept.make_root(self.first_id, devices.as_fd(), tenant, sealed);
        }
    }
}

/// What slots are made of.
#[derive(Debug)]
pub struct Maker {
    pub cgroups: Cgroups,
    pub networks: Networks,
    /// The device layer that all slots share, with [`Layers::Detached`].
    devices: Option<OwnedFd>,
    /// Roots that a container has left as they were can be told from others.
    tells_changes: bool,
    subnet: Ipv4Subnet,
    uid_base: u32,
}

impl Maker {
    /// Loads the rules of the network. On an error nothing is left, nor of the cgroups if nobody is in them.
    pub fn new(cgroups: Cgroups, subnet: Ipv4Subnet, uid_base: u32) -> Result<Self, SlotError> {
        let networks = Networks::open(subnet).inspect_err(|_| {
            if let Err(error) = cgroups.remove_if_unused() {
                tracing::warn!(error = &error as &dyn std::error::Error, "cgroups that are not in use are left behind");
            }
        })?;
        let mut maker = Self { cgroups, networks, devices: None, tells_changes: false, subnet, uid_base };
        let failed = |what| move |source| SlotError::Mapping { slot: 0, what, source };
        if Layers::found().map_err(failed("try an overlay"))? == Layers::Detached {
            maker.devices = Some(device_layer().map_err(failed("make the device layer"))?);
            maker.tells_changes = tells_changes().map_err(failed("try a writable layer"))?;
        }
        Ok(maker)
    }

    /// How this kernel puts roots together.
    pub fn layers(&self) -> Layers {
        if self.devices.is_some() { Layers::Detached } else { Layers::Attached }
    }

    fn make(&self, number: u32) -> Result<Slot, SlotError> {
        let no_address = SlotError::NoAddress { subnet: self.subnet, room: self.subnet.room() };
        let network = self.networks.make(self.subnet.address(number).ok_or(no_address)?)?;
        self.around(number, network)
    }

    /// A slot whose network exists: of a container that outlived its runtime.
    pub fn adopt(&self, number: u32, namespace: OwnedFd) -> Result<Slot, SlotError> {
        let no_address = SlotError::NoAddress { subnet: self.subnet, room: self.subnet.room() };
        let network = self.networks.adopt(self.subnet.address(number).ok_or(no_address)?, namespace)?;
        self.around(number, network)
    }

    fn around(&self, number: u32, network: Network) -> Result<Slot, SlotError> {
        let first_id = ids::first_id(self.uid_base, number).ok_or(SlotError::NoIds(number))?;
        let failed = |what| move |source| SlotError::Mapping { slot: number, what, source };
        let userns = namespace::user_mapping(first_id).map_err(failed("make an id mapping"))?;
        let shared = self.devices.as_ref().map(|shared| shifted_devices(shared.as_fd(), userns.as_fd()));
        let devices = shared.transpose().map_err(failed("shift the device layer's owners"))?;
        let group = self.cgroups.group(&group_name(number))?;
        let (kept, outdated, tenant, trees) = (None, None, None, None);
        Ok(Slot { number, first_id, group, network, devices, userns, kept, outdated, tenant, trees, cpu_before_us: 0 })
    }
}

impl Drop for Maker {
    /// What was made for all slots goes with the last of them.
    fn drop(&mut self) {
        let left = self.cgroups.remove_if_unused().map_err(SlotError::from);
        let left = left.and_then(|unused| if unused { Ok(self.networks.close()?) } else { Ok(()) });
        if let Err(error) = left {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "cgroups or rules that are not in use are left behind");
        }
    }
}

/// The cgroup of a slot.
pub fn group_name(number: u32) -> String {
    format!("s{number}")
}

/// The slot of a cgroup.
pub fn group_number(name: &str) -> Option<u32> {
    name.strip_prefix('s')?.parse().ok()
}

#[derive(Debug)]
struct State {
    ready: Vec<Slot>,
    surplus: Surplus,
    /// Touched, until their time.
    resting: VecDeque<(Instant, Slot)>,
    /// Numbers of slots that do not exist.
    absent: BTreeSet<u32>,
    last_use: Option<Instant>,
    /// How many launches are under way.
    launches: usize,
    /// The thread knows that there are too few.
    refilling: bool,
    /// It has made the first ones, or cannot.
    begun: bool,
    closing: bool,
}

impl State {
    /// With a root made ahead, if there is one.
    fn ready_for(&mut self, tenant: &str, wanted: Wanted) -> Option<Slot> {
        let fits = |slot: &Slot| slot.tenant.as_deref().is_none_or(|owner| owner == tenant);
        let has_root = |slot: &Slot| slot.kept.as_ref().is_some_and(|kept| kept.is_ready_for(wanted, tenant));
        let best = self.ready.iter().rposition(|slot| fits(slot) && has_root(slot));
        let at = best.or_else(|| self.ready.iter().rposition(fits))?;
        let found = self.ready.swap_remove(at);
        self.surplus.taken(self.ready.len());
        Some(found)
    }

    /// Whether nothing was launched or given back for so long; else how long until then at the least. A launch that takes very long keeps nobody from
    /// work.
    fn at_rest(&self, length: Duration) -> Result<(), Duration> {
        let Some(since) = self.last_use.map(|last| last.elapsed()) else { return Ok(()) };
        let is_launching = self.launches > 0 && since < IDLE;
        let left = if is_launching { length } else { length.saturating_sub(since) };
        if left.is_zero() { Ok(()) } else { Err(left) }
    }
}

#[derive(Debug)]
struct Shared {
    maker: Maker,
    sizes: PoolSizes,
    state: Mutex<State>,
    changed: Condvar,
    begun: Condvar,
    lent: Lent,
}

/// All slots that are not in use, and the thread that makes more.
#[derive(Debug)]
pub struct Slots {
    shared: Arc<Shared>,
    remains: Remains<(Slot, String)>,
    refiller: Option<JoinHandle<()>>,
}

impl Slots {
    /// Begins to make slots; `in_use` are those of containers that run already.
    pub fn start(maker: Maker, sizes: PoolSizes, in_use: &BTreeSet<u32>) -> Result<Self, SlotError> {
        let absent = (0..maker.subnet.room()).filter(|number| !in_use.contains(number)).collect();
        let (ready, resting) = (Vec::new(), VecDeque::new());
        let state = State {
            ready,
            surplus: Surplus::new(sizes.spell),
            resting,
            absent,
            last_use: None,
            launches: 0,
            refilling: true,
            begun: false,
            closing: false,
        };
        let (changed, begun, lent) = (Condvar::new(), Condvar::new(), Lent::default());
        let shared = Arc::new(Shared { maker, sizes, state: Mutex::new(state), changed, begun, lent });
        let for_thread = Arc::clone(&shared);
        let refiller = std::thread::Builder::new().name("slots".to_owned()).spawn(move || for_thread.refill());
        let for_remains = Arc::clone(&shared);
        let remains = Remains::start(move |(slot, tenant)| for_remains.give_back(slot, tenant));
        let remains = remains.map_err(SlotError::Thread)?;
        Ok(Self { shared, remains, refiller: Some(refiller.map_err(SlotError::Thread)?) })
    }

    /// Returns when as many are ready as are made ahead, or no more can be made; at the latest after `most`.
    pub fn await_first(&self, most: Duration) {
        let state = self.shared.lock();
        let waited = self.shared.begun.wait_timeout_while(state, most, |state| !state.begun);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// What slots are made of.
    pub fn maker(&self) -> &Maker {
        &self.shared.maker
    }

    /// A slot for a container of `tenant`: made ahead if there is one, or just given back, else made now.
    pub fn take(&self, tenant: &str, wanted: Wanted) -> Result<Slot, SlotError> {
        let mut state = self.shared.lock();
        let mut found = state.ready_for(tenant, wanted);
        while found.is_none() {
            drop(state);
            let back = self.remains.hurry();
            state = self.shared.lock();
            found = state.ready_for(tenant, wanted);
            if !back {
                break;
            }
        }
        // Only for work: a needless wake-up costs as much as a tenth of a launch.
        if !state.refilling && state.ready.len() < self.shared.sizes.ready && !state.absent.is_empty() {
            state.refilling = true;
            self.shared.changed.notify_one();
        }
        match found {
            Some(slot) => Ok(slot),
            None => self.shared.make_now(state),
        }
    }

    /// For a container that runs now: once half of the descriptors are open, it does without those that can be opened again. The number of the `newest` tells
    /// that well enough, and costs nothing.
    pub fn spare_descriptors(&self, slot: &mut Slot, newest: BorrowedFd<'_>) {
        if newest.as_raw_fd() as u64 > most_open_files() / 2 {
            slot.group.close_spare();
            slot.network.close_spare();
        }
    }

    /// A launch begins; it is over when this is dropped. On a busy machine each may take longer than a lull.
    pub fn launching(&self) -> Launching<'_> {
        let mut state = self.shared.lock();
        state.launches += 1;
        state.last_use = Some(Instant::now());
        Launching(&self.shared)
    }

    /// Roots that containers have and may give back.
    pub fn lent(&self) -> &Lent {
        &self.shared.lent
    }

    /// A container's slot after its end, when its file trees are gone.
    pub fn give_back(&self, mut slot: Slot, tenant: &str) {
        match slot.trees.take() {
            Some(trees) => self.remains.take(trees, (slot, tenant.to_owned())),
            None => self.shared.give_back(slot, tenant.to_owned()),
        }
    }

    /// Returns when the slots of all containers that have ended are back.
    pub fn settle(&self) {
        self.remains.settle();
    }

    /// Removes every slot that is not in use.
    pub fn close(&mut self) -> Result<(), CgroupError> {
        self.remains.close();
        self.shared.lock().closing = true;
        self.shared.changed.notify_one();
        if let Some(refiller) = self.refiller.take()
            && refiller.join().is_err()
        {
            tracing::error!("the thread that makes slots had panicked");
        }
        let mut state = self.shared.lock();
        let resting: Vec<Slot> = state.resting.drain(..).map(|(_, slot)| slot).collect();
        let all: Vec<Slot> = state.ready.drain(..).chain(resting).collect();
        all.into_iter().map(|slot| self.shared.take_apart(slot)).fold(Ok(()), Result::and)
    }
}

/// A launch that is under way: nothing is made ahead beside it.
#[derive(Debug)]
pub struct Launching<'a>(&'a Shared);

impl Drop for Launching<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.launches -= 1;
        state.last_use = Some(Instant::now());
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(error = &error as &dyn std::error::Error, "cgroups that are not in use are left behind");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, mut slot: Slot, tenant: String) {
        let has_room = self.lock().ready.len() < self.sizes.keep && !self.is_short();
        let alone = self.maker.networks.is_left_alone(&slot.network);
        let worn = self.lent.take(slot.number);
        drop(self.lent.long_lent());
        if let (Some(worn), Some(kept)) = (worn, &mut slot.kept)
            && has_room
            && alone
        {
            kept.take_back(worn, slot.first_id);
        }
        slot.group.forget_peak();
        slot.cpu_before_us = slot.group.cpu_us().unwrap_or(slot.cpu_before_us);
        let untouched = slot.network.is_untouched();
        let clean = untouched && alone && !slot.group.is_stale();
        slot.prepare(clean && has_room, &tenant, self.maker.tells_changes);
        if !untouched {
            slot.tenant = Some(tenant);
        }
        let mut state = self.lock();
        let now = Instant::now();
        state.last_use = Some(now);
        let news = if clean {
            state.ready.push(slot);
            let count = state.ready.len();
            let is_first = count == self.sizes.keep + 1;
            if is_first {
                state.surplus.begin(count);
            }
            is_first
        } else {
            let until = if untouched { now } else { now + QUARANTINE };
            let sooner = state.resting.front().is_none_or(|(first, _)| until < *first);
            state.resting.push_back((until, slot));
            sooner
        };
        if news {
            self.changed.notify_one();
        }
    }

    fn make_now(&self, mut state: MutexGuard<'_, State>) -> Result<Slot, SlotError> {
        let Some(number) = state.absent.pop_first() else {
            return self.make_room(state);
        };
        drop(state);
        self.maker.make(number).inspect_err(|_| {
            self.lock().absent.insert(number);
        })
    }

    /// No address is left but there are unused slots of other tenants: one goes, and its number is made anew.
    fn make_room(&self, mut state: MutexGuard<'_, State>) -> Result<Slot, SlotError> {
        let rested = state.resting.front().is_some_and(|(until, _)| *until <= Instant::now());
        let slot = if rested { state.resting.pop_front().map(|(_, slot)| slot) } else { state.ready.pop() };
        let Some(slot) = slot else {
            let subnet = self.maker.subnet;
            return Err(SlotError::NoAddress { subnet, room: subnet.room() });
        };
        drop(state);
        let Slot { number, group, .. } = slot;
        group.remove()?;
        self.maker.make(number).inspect_err(|_| {
            self.lock().absent.insert(number);
        })
    }

    /// Whether what is left of descriptors is for launches and ends: a twentieth.
    fn is_short(&self) -> bool {
        open_files(self.maker.networks.home()).is_none_or(|open| open > most_open_files() / 20 * 19)
    }

    /// The background thread.
    fn refill(&self) {
        let mut state = self.lock();
        while !state.closing {
            if let Some(slot) = take_rested(&mut state) {
                drop(state);
                self.renew(slot);
                state = self.lock();
                continue;
            }
            let wanting = state.ready.len() < self.sizes.ready && !state.absent.is_empty();
            let few = wanting && !self.is_short();
            let many = state.ready.len() > self.sizes.keep;
            state.refilling = wanting;
            if !few {
                self.tell_begun(&mut state);
            }
            state = match state.at_rest(LULL) {
                Ok(()) if few => self.add_one(state),
                Ok(()) if many => self.drop_one(state),
                Err(left) if few || many => self.wait(state, left),
                _ if wanting => self.wait(state, IDLE),
                _ => self.wait(state, Duration::from_secs(3600)),
            };
        }
    }

    fn tell_begun(&self, state: &mut State) {
        if !std::mem::replace(&mut state.begun, true) {
            self.begun.notify_all();
        }
    }

    /// For something new, at most so long, and not beyond the end of a slot's rest.
    fn wait<'a>(&'a self, state: MutexGuard<'a, State>, most: Duration) -> MutexGuard<'a, State> {
        let rested = state.resting.front().map(|(until, _)| until.saturating_duration_since(Instant::now()));
        let length = rested.map_or(most, |rested| rested.min(most));
        self.changed.wait_timeout(state, length).unwrap_or_else(PoisonError::into_inner).0
    }

    fn add_one<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let Some(number) = state.absent.pop_first() else { return state };
        drop(state);
        let made = self.maker.make(number);
        let mut state = self.lock();
        match made {
            Ok(slot) => state.ready.push(slot),
            Err(error) => {
                state.absent.insert(number);
                tracing::warn!(number, error = &error as &dyn std::error::Error, "cannot make a slot ahead");
                self.tell_begun(&mut state);
                // A launch will try again and tell its caller; trying here without end would only burn the CPU.
                state = self.changed.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        state
    }

    /// When it is time; soon when descriptors are short.
    fn drop_one<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let ready = state.ready.len();
        if let Err(left) = state.surplus.drop_one(ready, self.sizes.keep)
            && !self.is_short()
        {
            return self.wait(state, left.min(IDLE));
        }
        let Some(slot) = state.ready.pop() else { return state };
        drop(state);
        let number = slot.number;
        if let Err(error) = self.take_apart(slot) {
            tracing::warn!(
                number,
                error = &error as &dyn std::error::Error,
                "cannot remove the cgroups of an unused slot"
            );
        }
        let mut state = self.lock();
        state.absent.insert(number);
        state
    }

    /// A connection that nobody has any more, and whose other end is silent, would keep the network for minutes.
    fn take_apart(&self, slot: Slot) -> Result<(), CgroupError> {
        if let Err(error) = self.maker.networks.clear(&slot.network) {
            tracing::debug!(error = &error as &dyn std::error::Error, "old connections keep a network for a while");
        }
        slot.group.remove()
    }

    /// A slot after its rest: fresh cgroups where memory was left behind, counters anew; all of it where somebody's socket is left, whose name others would see.
    fn renew(&self, slot: Slot) {
        let number = slot.number;
        let renewed = self.renewed(slot);
        let mut state = self.lock();
        match renewed {
            Ok(slot) => state.ready.push(slot),
            Err(error) => {
                tracing::warn!(
                    number,
                    error = &error as &dyn std::error::Error,
                    "a slot could not be renewed and is dropped"
                );
                state.absent.insert(number);
            }
        }
    }

    fn renewed(&self, mut slot: Slot) -> Result<Slot, SlotError> {
        if let Err(error) = self.maker.networks.clear(&slot.network) {
            slot.group.remove()?;
            return Err(error.into());
        }
        if !self.maker.networks.is_left_alone(&slot.network) {
            let number = slot.number;
            slot.group.remove()?;
            return self.maker.make(number);
        }
        if slot.group.is_stale() {
            slot.group.remove()?;
            slot.group = self.maker.cgroups.group(&group_name(slot.number))?;
            slot.cpu_before_us = 0;
        }
        slot.network.begin_anew()?;
        Ok(slot)
    }
}

fn most_open_files() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(most, _)| most)
}

/// How many descriptors this process has open. Linux tells since 6.2; before, it is guessed by the number that the next one would have, which is lower for a
/// moment whenever others are closed.
fn open_files(any: BorrowedFd<'_>) -> Option<u64> {
    match rustix::fs::stat("/proc/self/fd").ok()?.st_size {
        0 => rustix::io::fcntl_dupfd_cloexec(any, 0).ok().map(|next| next.as_raw_fd() as u64),
        told => u64::try_from(told).ok(),
    }
}

fn take_rested(state: &mut State) -> Option<Slot> {
    let now = Instant::now();
    let at = state.resting.iter().position(|(until, _)| *until <= now)?;
    state.resting.remove(at).map(|(_, slot)| slot)
}
