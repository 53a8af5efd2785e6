//! Limits that hold: what is written where the kernel reads it, and what comes of it.

mod support;

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bellows_runtime::handle::{Error, Exit};
use bellows_runtime::{ContainerSpec, IoLimits, Runtime};
use support::{place, wait_until};

const ROOT: &str = "/sys/fs/cgroup";
const MIB: u64 = 1 << 20;

/// Of a process: a control file's path, by its controller and name in v1, or its name in v2.
fn control(pid: u32, controller: &str, v1: &str, v2: &str) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("a process");
    if Path::new(ROOT).join("cgroup.controllers").exists() {
        let group = text.lines().find_map(|line| line.strip_prefix("0::/")).expect("a line of v2");
        return Path::new(ROOT).join(group).join(v2);
    }
    let of = |line: &str| {
        let (names, group) = line.split_once(':')?.1.split_once(":/")?;
        names.split(',').any(|name| name == controller).then(|| Path::new(ROOT).join(controller).join(group).join(v1))
    };
    text.lines().find_map(of).expect("a line of the controller")
}

fn says(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}

fn end(runtime: &Runtime, spec: &ContainerSpec) {
    runtime.kill(&spec.id).expect("killed");
    runtime.reap(&spec.id).expect("reaped");
    runtime.forget(&spec.id).expect("forgotten");
}

/// This thread, and so the launchers that it starts and their containers, on one CPU.
fn keep_to_one_cpu() {
    // SAFETY: plain numbers; the set is ours.
    unsafe {
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(libc::sched_getcpu() as usize, &mut one);
        assert_eq!(libc::sched_setaffinity(0, size_of_val(&one), &one), 0);
    }
}

#[test]
fn who_weighs_more_gets_more_of_a_cpu_that_both_want() {
    let Some(place) = place() else { return };
    keep_to_one_cpu();
    let runtime = place.start();
    let specs = [("light", 100), ("heavy", 400)].map(|(name, weight)| {
        let mut spec = place.spec(name, &["/bin/payload", "spin"]);
        spec.limits.cpu_milli = 2000;
        spec.limits.cpu_weight = weight;
        spec
    });
    let pids = specs.each_ref().map(|spec| runtime.launch(spec).expect("launched").pid);
    let weights = pids.map(|pid| says(&control(pid, "cpu", "cpu.shares", "cpu.weight")));
    assert!(weights == ["1024", "4096"] || weights == ["100", "400"], "{weights:?}");
    let used = || specs.each_ref().map(|spec| runtime.usage(&spec.id).expect("used").cpu_us);
    let before = used();
    let mut got = [0; 2];
    wait_until("both have worked", || {
        let now = used();
        got = [now[0] - before[0], now[1] - before[1]];
        got.iter().sum::<u64>() > 600_000
    });
    println!("of one CPU the light one got {} us, the heavy one {} us", got[0], got[1]);
    assert!((2 * got[0]..8 * got[0]).contains(&got[1]), "a quarter of its weight: {got:?}");
    specs.iter().for_each(|spec| end(&runtime, spec));
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

/// None of it in memory.
fn cold(path: &Path, bytes: u64) {
    fs::write(path, vec![b'x'; bytes as usize]).expect("a file");
    let file = File::open(path).expect("the file");
    file.sync_all().expect("on the disk");
    // SAFETY: a plain call on our own descriptor.
    assert_eq!(unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) }, 0);
}

#[test]
fn reading_is_as_slow_as_its_limit_of_the_disk() {
    let Some(place) = place() else { return };
    let Some(image) = place.busybox() else { return };
    let file = image.join("data");
    let runtime = place.start();
    let took = |io: IoLimits| {
        cold(&file, 6 * MIB);
        let mut spec = place.spec("reader", &["cat", "/data", "/dev/stdin"]);
        spec.args = ["sh", "-c", "cat /data | wc -c"].map(str::to_owned).to_vec();
        spec.root.clone_from(&image);
        spec.limits.io = io;
        let began = Instant::now();
        runtime.launch(&spec)?;
        assert_eq!(runtime.reap(&spec.id)?.exit, Exit::Code(0));
        let took = began.elapsed();
        assert_eq!(support::lines(&runtime, "reader")[0].text, (6 * MIB).to_string());
        runtime.forget(&spec.id)?;
        Ok::<Duration, Error>(took)
    };
    let bounded = IoLimits { read_bytes: 2 * MIB, ..IoLimits::default() };
    match (took(bounded), took(IoLimits::default())) {
        (Ok(slow), Ok(fast)) => {
            println!("6 MiB at 2 MiB/s: {} ms; without a limit {} ms", slow.as_millis(), fast.as_millis());
            assert!(slow > Duration::from_millis(2000) && fast < slow / 2, "{slow:?}, {fast:?}");
        }
        (Err(error), Ok(_)) => println!("skipped: {error}: {:?}", std::error::Error::source(&error)),
        other => panic!("{other:?}"),
    }
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

#[test]
fn limits_of_the_disk_stand_where_the_kernel_reads_them_and_go_with_their_container() {
    let Some(place) = place() else { return };
    let runtime = place.start();
    let mut spec = place.spec("bounded", &["/bin/payload", "sleep"]);
    let io = IoLimits { read_bytes: 3 * MIB, write_bytes: MIB, read_operations: 300, write_operations: 100 };
    // The second comes into the place of the first, and has no limits.
    for (io, expected) in
        [(io, [3 * MIB, MIB, 300, 100].map(|n| n.to_string())), (IoLimits::default(), Default::default())]
    {
        spec.limits.io = io;
        let pid = match runtime.launch(&spec) {
            Ok(running) => running.pid,
            Err(error) => {
                println!("skipped: {error}: {:?}", std::error::Error::source(&error));
                break;
            }
        };
        let kinds = [("read_bps", "rbps="), ("write_bps", "wbps="), ("read_iops", "riops="), ("write_iops", "wiops=")];
        let found = kinds.map(|(v1, v2)| {
            let path = control(pid, "blkio", &format!("blkio.throttle.{v1}_device"), "io.max");
            let text = says(&path);
            let value = text.split(' ').find_map(|word| word.strip_prefix(v2)).or_else(|| text.split(' ').nth(1));
            value.unwrap_or_default().to_owned()
        });
        assert_eq!(found, expected);
        end(&runtime, &spec);
    }
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

#[test]
fn nobody_swaps() {
    let Some(place) = place() else { return };
    let runtime = place.start();
    let mut spec = place.spec("swapper", &["/bin/payload", "sleep"]);
    let pid = runtime.launch(&spec).expect("launched").pid;
    let own = control(pid, "memory", "memory.swappiness", "../memory.swap.max");
    if own.exists() {
        assert_eq!(says(&own), "0", "{}", own.display());
    }
    end(&runtime, &spec);
    if std::env::var_os("BELLOWS_IN_VM").is_none() {
        println!("skipped: what comes of it is tried in the virtual machine only (BELLOWS_IN_VM), as it needs swap");
    } else if own.exists() {
        let swap = place.image().join("swap");
        swap_on(&swap, 64 * MIB);
        let exit = |spec: &ContainerSpec| {
            runtime.launch(spec).expect("launched");
            let exit = runtime.reap(&spec.id).expect("reaped").exit;
            runtime.forget(&spec.id).expect("forgotten");
            exit
        };
        spec.args = ["/bin/payload", "memory", "48"].map(str::to_owned).to_vec();
        spec.limits.memory_bytes = 24 * MIB;
        assert_eq!(exit(&spec), Exit::OutOfMemory);
        // The control: where it may, it does.
        fs::write(&own, "max").expect("allowed");
        assert_eq!(exit(&spec), Exit::Code(0));
        let path = std::ffi::CString::new(swap.as_os_str().as_encoded_bytes()).expect("a path");
        // SAFETY: a C string.
        assert_eq!(unsafe { libc::swapoff(path.as_ptr()) }, 0);
    }
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

/// A file to swap to, with the header that `mkswap` writes.
fn swap_on(path: &Path, bytes: u64) {
    const PAGE: usize = 4096;
    let mut all = vec![0_u8; bytes as usize];
    all[1024..1028].copy_from_slice(&1_u32.to_le_bytes());
    all[1028..1032].copy_from_slice(&((bytes / PAGE as u64) as u32 - 1).to_le_bytes());
    all[PAGE - 10..PAGE].copy_from_slice(b"SWAPSPACE2");
    fs::write(path, all).expect("a file");
    File::open(path).expect("the file").sync_all().expect("on the disk");
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).expect("a path");
    // SAFETY: a C string.
    let on = unsafe { libc::swapon(path.as_ptr(), 0) };
    assert_eq!(on, 0, "{}", std::io::Error::last_os_error());
}
