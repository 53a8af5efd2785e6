//! What a launch needs and does not get, for real: disks that are full or read-only, images that are gone, numbers that have run out, kernels without a call. Each
//! time: a typed error that names step and path, nothing left behind, and when it is there again, the next launch works.
//!
//! A runtime in a process of its own (`support/victim.rs`) is short of it. Mounts are the business of the test's thread, which has a mount namespace of
//! its own and passes it on.

#[path = "support/driven.rs"]
mod driven;
mod support;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use driven::{Answer, Victim};
use rustix::fs::{IFlags, ioctl_getflags};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, mount_remount, unmount,
};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use support::{Place, place, wait_until};

const LAUNCH: &str = "launch one /bin/payload sleep";

/// What is mounted from now on is seen by this thread and what it starts.
fn own_mounts() {
    // SAFETY: of this thread alone, which ends with its test.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }.expect("a mount namespace");
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("private mounts");
}

/// Something is mounted there until it is dropped.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn read_only(path: &'a Path) -> Self {
        mount_bind(path, path).expect("bound");
        mount_remount(path, MountFlags::BIND | MountFlags::RDONLY, "").expect("read-only");
        Self(path)
    }

    fn small_disk(path: &'a Path) -> Self {
        mount("disk", path, "tmpfs", MountFlags::empty(), Some(c"size=1m")).expect("a small disk");
        Self(path)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        unmount(self.0, UnmountFlags::DETACH).expect("unmounted");
    }
}

/// The order fails so: which kind, which answer of the kernel, and what else is said.
fn fails(victim: &mut Victim, order: &str, wanted: (&str, i32), parts: &[&str]) {
    victim.tell(order);
    match victim.answer() {
        Answer::Failed { kind, errno, text } => {
            println!("{order}: {kind} {errno} {text}");
            assert_eq!((kind.as_str(), errno), wanted, "{text}");
            parts.iter().for_each(|part| assert!(text.contains(part), "{part} is not in: {text}"));
        }
        done => panic!("{order}: {done:?}"),
    }
}

/// Well again: one more starts and ends, and then nothing is left of all of it.
fn works_and_leaves_nothing(mut victim: Victim, place: &Place) {
    assert!(place.processes().is_empty(), "{:?} are left", place.processes());
    victim.ask(LAUNCH);
    victim.ask("end one");
    victim.ask("shutdown");
    victim.end();
    place.assert_clean();
}

/// One that could not even start.
fn left_nothing(mut victim: Victim, place: &Place) {
    victim.end();
    place.assert_clean();
}

#[test]
fn a_full_disk_is_told_and_once_there_is_room_it_goes_on() {
    let Some(place) = place() else { return };
    own_mounts();
    let state = &place.config().state;
    fs::create_dir_all(state).expect("a folder");
    let disk = Mounted::small_disk(state);
    let full = || {
        let written = fs::write(state.join("full"), vec![b'x'; 2 << 20]);
        assert_eq!(written.map_err(|error| error.kind()), Err(std::io::ErrorKind::StorageFull));
    };
    full();
    let mut victim = Victim::start(&place);
    victim.ask("start");
    let path = state.join("containers");
    fails(&mut victim, LAUNCH, ("State", libc::ENOSPC), &[path.to_str().expect("text"), "make room on that disk"]);
    fs::remove_file(state.join("full")).expect("room");
    works_and_leaves_nothing(victim, &place);
    drop(disk);
}

#[test]
fn folders_are_spread_over_a_disk_that_keeps_no_journal_and_over_no_other() {
    let Some(place) = place() else { return };
    own_mounts();
    let state = &place.config().state;
    fs::create_dir_all(state).expect("a folder");
    for (journal, spread) in [("^has_journal", true), ("has_journal", false)] {
        let image = state.with_extension(journal.trim_start_matches('^'));
        File::create(&image).and_then(|file| file.set_len(16 << 20)).expect("a file");
        let make = format!("mkfs.ext4 -q -O {journal} {0} && mount -o loop {0} {1}", image.display(), state.display());
        let made = Command::new("sh").args(["-ec", &make]).output().expect("a shell");
        if !made.status.success() {
            println!("skipped: no ext4 of its own: {}", String::from_utf8_lossy(&made.stderr).trim());
            return;
        }
        let mounted = Mounted(state);
        let mut victim = Victim::start(&place);
        victim.ask("start");
        let folders = File::open(state.join("containers")).expect("a folder");
        let flags = ioctl_getflags(&folders).expect("flags");
        assert_eq!(flags.contains(IFlags::TOPDIR), spread, "{journal}: {flags:?}");
        drop(folders);
        works_and_leaves_nothing(victim, &place);
        drop(mounted);
    }
}

#[test]
fn a_state_folder_that_cannot_be_written_is_told_at_the_start_and_at_a_launch() {
    let Some(place) = place() else { return };
    own_mounts();
    let state = &place.config().state;
    fs::create_dir_all(state).expect("a folder");
    let sealed = Mounted::read_only(state);
    let mut victim = Victim::start(&place);
    let parts = [state.to_str().expect("text"), "make that file system writable"];
    fails(&mut victim, "start", ("State", libc::EROFS), &parts);
    drop(sealed);
    left_nothing(victim, &place);
    let mut victim = Victim::start(&place);
    victim.ask("start");
    let sealed = Mounted::read_only(state);
    // One more container has its folder, which was made ahead; whose it was cannot be taken off it.
    victim.ask(LAUNCH);
    let parts = [state.to_str().expect("text"), "/record", "make that file system writable"];
    fails(&mut victim, "end one", ("State", libc::EROFS), &parts);
    drop(sealed);
    victim.ask("end one");
    works_and_leaves_nothing(victim, &place);
}

#[test]
fn cgroups_that_cannot_be_made_are_told_at_the_start_and_at_a_launch() {
    let Some(place) = place() else { return };
    own_mounts();
    let (v2, v1) = (Path::new("/sys/fs/cgroup"), Path::new("/sys/fs/cgroup/memory"));
    let tree = if v2.join("cgroup.controllers").exists() { v2 } else { v1 };
    let said = tree.to_str().expect("text");
    let sealed = Mounted::read_only(tree);
    let mut victim = Victim::start(&place);
    fails(&mut victim, "start", ("Cgroup", libc::EROFS), &[said]);
    drop(sealed);
    left_nothing(victim, &place);
    let mut victim = Victim::start(&place);
    victim.ask("start");
    let sealed = Mounted::read_only(tree);
    fails(&mut victim, LAUNCH, ("Slot", libc::EROFS), &["make cgroup", said]);
    drop(sealed);
    works_and_leaves_nothing(victim, &place);
}

#[test]
fn an_image_that_is_gone_is_told_by_its_path() {
    let Some(place) = place() else { return };
    let mut victim = Victim::start(&place);
    victim.ask("start");
    let elsewhere = place.image().with_file_name("elsewhere");
    fs::rename(place.image(), &elsewhere).expect("moved");
    fails(&mut victim, LAUNCH, ("Image", libc::ENOENT), &[place.image().to_str().expect("text")]);
    fs::rename(&elsewhere, place.image()).expect("moved back");
    works_and_leaves_nothing(victim, &place);
}

#[test]
fn addresses_that_have_run_out_are_told_with_how_many_there_are() {
    let Some(mut place) = place() else { return };
    place.with_two_addresses();
    let mut victim = Victim::start(&place);
    victim.ask("start");
    victim.ask("launch a /bin/payload sleep");
    victim.ask("launch b /bin/payload sleep");
    fails(&mut victim, LAUNCH, ("Slot", 0), &["all 2 addresses of", "larger subnet"]);
    victim.ask("end a");
    victim.ask("end b");
    works_and_leaves_nothing(victim, &place);
}

#[test]
fn ids_that_have_run_out_are_told() {
    let Some(mut place) = place() else { return };
    place.with_the_last_ids();
    let mut victim = Victim::start(&place);
    victim.ask("start");
    victim.ask("launch a /bin/payload sleep");
    fails(&mut victim, LAUNCH, ("Slot", 0), &["slot 1 has no range of user ids", "uid_base"]);
    victim.ask("end a");
    works_and_leaves_nothing(victim, &place);
}

/// Each launch may open one more than the one before, until that is enough: so it is out of descriptors at each of the calls that make some, the launcher's
/// answer among them, when the program runs already.
#[test]
fn descriptors_that_have_run_out_are_told_wherever_a_launch_stands() {
    const MOST: u64 = 256;
    let Some(place) = place() else { return };
    let mut victim = Victim::start(&place);
    for order in ["start", LAUNCH, "end one", "settle"] {
        victim.ask(order);
    }
    // A runtime takes as many as it may, and where root may pass the limit, more.
    let limit = Rlimit { current: Some(MOST), maximum: Some(MOST) };
    prlimit(Pid::from_raw(victim.pid().cast_signed()), Resource::Nofile, limit).expect("root may limit others");
    let mut told = BTreeSet::new();
    let enough = (0..MOST).find(|spared| {
        victim.ask(&format!("spare {spared}"));
        victim.tell(LAUNCH);
        let answer = victim.answer();
        victim.ask("spare all");
        if let Answer::Failed { kind, errno, text } = &answer {
            assert_eq!(*errno, libc::EMFILE, "{spared} descriptors: {kind} {text}");
            told.insert(format!("{kind}: {text}"));
            wait_until(&format!("{spared} descriptors: nothing runs"), || place.processes().is_empty());
            victim.ask(LAUNCH);
        }
        victim.ask("end one");
        victim.ask("settle");
        matches!(answer, Answer::Ok(_))
    });
    println!("with {enough:?} it starts; before: {told:#?}");
    assert!(enough.is_some(), "{told:#?}");
    let answer = "speak with the launcher: Too many open files";
    assert!(told.iter().any(|text| text.starts_with("Launcher") && text.contains(answer)), "{told:#?}");
    works_and_leaves_nothing(victim, &place);
}

#[test]
fn once_half_of_the_descriptors_are_open_a_container_takes_fewer() {
    let Some(place) = place() else { return };
    let mut victim = Victim::start(&place);
    victim.ask("start");
    let open = |victim: &Victim| victim.descriptors().values().sum::<usize>() as u64;
    let mut before = 0;
    wait_until("all that is opened at the start is open", || {
        let looks: Vec<u64> = (0..20).map(|_| open(&victim)).collect();
        before = looks[0];
        looks.iter().all(|count| *count == before)
    });
    victim.ask("launch one /bin/payload sleep");
    let with_one = open(&victim);
    let limit = Rlimit { current: Some(with_one * 2), maximum: Some(with_one * 2) };
    prlimit(Pid::from_raw(victim.pid().cast_signed()), Resource::Nofile, limit).expect("root may limit others");
    victim.ask("launch two /bin/payload sleep");
    let (first, second) = (with_one - before, open(&victim) - with_one);
    println!("{first} for the first, {second} for the second");
    assert!(second < first, "{first} for the first, {second} for the second");
    for name in ["one", "two"] {
        assert_eq!(victim.ask(&format!("execute {name} /bin/payload exit 7")), "Code(7)", "{name}");
        victim.ask(&format!("end {name}"));
    }
    works_and_leaves_nothing(victim, &place);
}

/// As a kernel without this call, or a service manager's filter, answers: ENOSYS.
fn without_call(place: &Place, call: libc::c_long) -> Victim {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bellows-launcher"));
    let step = |code: u16, skip: u8, value: u32| libc::sock_filter { code, jt: 0, jf: skip, k: value };
    let filter = [
        step(0x20, 0, 0),
        step(0x15, 1, call as u32),
        step(0x06, 0, 0x0005_0000 | libc::ENOSYS as u32),
        step(0x06, 0, 0x7fff_0000),
    ];
    // SAFETY: plain calls on memory of ours, in a child of one thread.
    unsafe {
        command.pre_exec(move || {
            let mut filter = filter;
            let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
            match libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
    Victim::spawn(command, place)
}

/// Of those that not every kernel has, and that a filter may refuse.
const CALLS: [(&str, libc::c_long); 8] = [
    ("clone3", libc::SYS_clone3),
    ("fsopen", libc::SYS_fsopen),
    ("fsmount", libc::SYS_fsmount),
    ("open_tree", libc::SYS_open_tree),
    ("move_mount", libc::SYS_move_mount),
    ("mount_setattr", libc::SYS_mount_setattr),
    ("openat2", libc::SYS_openat2),
    ("pidfd_open", libc::SYS_pidfd_open),
];

#[test]
fn calls_that_the_kernel_has_not_are_done_without_or_told() {
    let mut told = 0;
    for (name, number) in CALLS {
        let Some(place) = place() else { return };
        let mut victim = without_call(&place, number);
        for order in ["start", LAUNCH, "end one", "shutdown"] {
            victim.tell(order);
            if let Answer::Failed { kind, errno, text } = victim.answer() {
                println!("without {name}: {order}: {kind} {errno} {text}");
                let is_told = errno == libc::ENOSYS || text.contains("(os error 38)");
                assert!(is_told, "without {name}: {order}: {kind} {errno} {text}");
                told += 1;
                if order != "start" {
                    victim.ask("shutdown");
                }
                break;
            }
        }
        victim.end();
        place.assert_clean();
    }
    assert!(told > 4, "{told} of them were missed");
}
