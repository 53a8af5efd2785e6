//! What processes inherit from whoever started them, set to what it always is: a container is the same under every agent, whatever shell, service
//! manager or session that was started from. Done once, by the launcher for all its containers; nothing of it costs a launch anything.
//!
//! Deliberately not here: the CPUs that may be used, which are the node's to give, and what a container's own steps set each time.

use std::fs;
use std::io;

use super::home::raise_open_files;

const MIB: u64 = 1 << 20;
const WITHOUT: u64 = libc::RLIM_INFINITY;

/// Soft and hard, as a kernel gives them to its first process; the size-dependent one (pending signals) as a machine of middling size has it.
/// Open files and core files are each container's own.
const LIMITS: [(u32, u64, u64); 14] = [
    (libc::RLIMIT_CPU, WITHOUT, WITHOUT),
    (libc::RLIMIT_FSIZE, WITHOUT, WITHOUT),
    (libc::RLIMIT_DATA, WITHOUT, WITHOUT),
    (libc::RLIMIT_STACK, 8 * MIB, WITHOUT),
    (libc::RLIMIT_RSS, WITHOUT, WITHOUT),
    (libc::RLIMIT_NPROC, WITHOUT, WITHOUT),
    (libc::RLIMIT_MEMLOCK, 8 * MIB, 8 * MIB),
    (libc::RLIMIT_AS, WITHOUT, WITHOUT),
    (libc::RLIMIT_LOCKS, WITHOUT, WITHOUT),
    (libc::RLIMIT_SIGPENDING, 1 << 16, 1 << 16),
    (libc::RLIMIT_MSGQUEUE, 819_200, 819_200),
    (libc::RLIMIT_NICE, 0, 0),
    (libc::RLIMIT_RTPRIO, 0, 0),
    (libc::RLIMIT_RTTIME, WITHOUT, WITHOUT),
];

/// Files of `/proc/self` that children inherit: the wish to be killed first (before the node's own processes, and nothing inside can go below), what a core
/// dump holds, who logged in (nobody did).
const FILES: [(&str, &str); 3] = [("oom_score_adj", "500"), ("coredump_filter", "0x33"), ("loginuid", "4294967295")];

/// Levels this process, which is single-threaded, and gives how many open files it may allow. What is refused (an agent with fewer privileges, a kernel
/// without the feature) stays as it was inherited.
pub fn level() -> u64 {
    for (resource, soft, hard) in LIMITS {
        refused("a limit", limit(resource, soft, hard));
    }
    for (file, value) in FILES {
        refused(file, fs::write(format!("/proc/self/{file}"), value));
    }
    for (what, done) in calls() {
        refused(what, done);
    }
    for signal in 1..=64 {
        // SAFETY: these dispositions run nothing of ours. Some numbers are refused: they have no other. Children are reaped by the kernel: their
        // exits are told by init, pidfd and cgroup.
        unsafe { libc::signal(signal, if signal == libc::SIGCHLD { libc::SIG_IGN } else { libc::SIG_DFL }) };
    }
    raise_open_files()
}

fn refused(what: &str, done: io::Result<()>) {
    if let Err(error) = done {
        tracing::debug!(what, %error, "stays as it was inherited");
    }
}

/// A hard limit that cannot be raised stays, and bounds the soft one.
fn limit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    // SAFETY: the structures are ours.
    unsafe {
        let wanted = libc::rlimit { rlim_cur: soft, rlim_max: hard };
        if libc::setrlimit(resource, &wanted) == 0 {
            return Ok(());
        }
        let mut found = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::getrlimit(resource, &mut found);
        found.rlim_cur = soft.min(found.rlim_max);
        result(libc::setrlimit(resource, &found).into())
    }
}

/// Scheduling, memory and session, each by its own call.
fn calls() -> [(&'static str, io::Result<()>); 10] {
    const IDLE_FREE: i32 = 0;
    const JOIN_SESSION_KEYRING: i32 = 1;
    const TIMER_SLACK_NS: u64 = 50_000;
    let normal = libc::sched_param { sched_priority: 0 };
    let nobody = c"(none)";
    // SAFETY: plain numbers, and pointers to what lives until the call returns. A UTS namespace of its own touches nobody.
    unsafe {
        [
            ("scheduling class", result(libc::sched_setscheduler(0, libc::SCHED_OTHER, &normal).into())),
            ("niceness", result(libc::setpriority(libc::PRIO_PROCESS, 0, IDLE_FREE).into())),
            ("I/O priority", result(libc::syscall(libc::SYS_ioprio_set, 1, 0, 0))),
            ("timer slack", result(libc::prctl(libc::PR_SET_TIMERSLACK, TIMER_SLACK_NS, 0, 0, 0).into())),
            ("large pages", result(libc::prctl(libc::PR_SET_THP_DISABLE, 0, 0, 0, 0).into())),
            ("memory policy", result(libc::syscall(libc::SYS_set_mempolicy, 0, std::ptr::null::<()>(), 0))),
            ("personality", result(libc::personality(0).into())),
            ("session keyring", result(libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<()>()))),
            ("host names", result(libc::unshare(libc::CLONE_NEWUTS).into())),
            ("domain name", result(libc::setdomainname(nobody.as_ptr(), nobody.count_bytes()).into())),
        ]
    }
}

fn result(returned: libc::c_long) -> io::Result<()> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
