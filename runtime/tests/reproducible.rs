//! Reproducible execution: one image by its digest, unpacked and run by three agents that were started as differently as can be, looks the same
//! from inside: files with owner, mode, date and content, environment, limits, mounts, ids, descriptors, signals, network settings.
//!
//! Left out is what the kernel numbers (inodes, mounts, devices, cgroup hierarchies, processes' start), what it counts (time, memory, packets), and what says which node it
//! is: the address, the network's link numbers, and where the id range begins (`uid_map` tells everybody).

#[path = "support/driven.rs"]
mod driven;
mod image_support;
mod support;

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use bellows_runtime::image::Store;
use driven::Victim;
use image_support::{Blobs, Layer, Stored};
use support::{Place, place};

/// What a host's administrator, shell and service manager may have set.
#[derive(Clone, Copy)]
struct Host {
    umask: u32,
    niceness: i32,
    oom_score_adj: &'static str,
    stack: u64,
    pending_signals: u64,
    locked_memory: u64,
    personality: u64,
    timer_slack_ns: u64,
    ignored: &'static [i32],
    domain: &'static str,
    folder: &'static str,
    coredump_filter: &'static str,
    env: &'static [(&'static str, &'static str)],
    sysctls: &'static [(&'static str, &'static str)],
    /// Of the machine's first namespace, from which all others have them. Here only those that do no harm meanwhile.
    inherited: &'static [(&'static str, &'static str)],
}

const HOSTS: [Host; 3] = [
    Host {
        umask: 0o022,
        niceness: 0,
        oom_score_adj: "0",
        stack: 8 << 20,
        pending_signals: 90_000,
        locked_memory: 64 << 10,
        personality: 0,
        timer_slack_ns: 50_000,
        ignored: &[],
        domain: "(none)",
        folder: "/",
        coredump_filter: "0x33",
        env: &[("LANG", "C.UTF-8"), ("TZ", "UTC")],
        sysctls: &[],
        inherited: &[],
    },
    Host {
        umask: 0o077,
        niceness: 10,
        oom_score_adj: "900",
        stack: 1 << 20,
        pending_signals: 1000,
        locked_memory: 1 << 30,
        personality: 0x004_0000,
        timer_slack_ns: 1,
        ignored: &[libc::SIGHUP, libc::SIGINT, libc::SIGUSR1, 40],
        domain: "example.org",
        folder: "/tmp",
        coredump_filter: "0x7f",
        env: &[
            ("LANG", "de_DE.UTF-8"),
            ("LC_ALL", "tr_TR"),
            ("TZ", "Asia/Kathmandu"),
            ("HOME", "/root"),
            ("LD_PRELOAD", ""),
        ],
        sysctls: &[
            ("ipv4/conf/default/rp_filter", "1"),
            ("ipv4/conf/all/accept_redirects", "0"),
            ("ipv4/tcp_rmem", "4096 8192 16384"),
        ],
        inherited: &[
            ("ipv4/conf/default/igmpv3_unsolicited_report_interval", "1234"),
            ("ipv4/conf/default/promote_secondaries", "1"),
            ("ipv4/conf/all/bootp_relay", "1"),
            ("ipv4/tcp_wmem", "4096 20480 4194304"),
        ],
    },
    Host {
        umask: 0,
        niceness: 5,
        oom_score_adj: "500",
        stack: 64 << 20,
        pending_signals: 1 << 20,
        locked_memory: 0,
        personality: 0x020_0000,
        timer_slack_ns: 1_000_000,
        ignored: &[libc::SIGTERM, libc::SIGQUIT, libc::SIGPIPE, libc::SIGCHLD],
        domain: "lan",
        folder: "/proc",
        coredump_filter: "0x0",
        env: &[("PATH", "/usr/bin:/bin"), ("TZ", "America/St_Johns")],
        sysctls: &[("ipv4/conf/all/forwarding", "1"), ("ipv4/ip_default_ttl", "17"), ("core/somaxconn", "7")],
        inherited: &[("ipv4/conf/default/shared_media", "0"), ("ipv4/tcp_wmem", "4096 16384 8388608")],
    },
];

impl Host {
    /// In the process that becomes the agent, root, between fork and exec.
    fn become_it(self) -> std::io::Result<()> {
        let domain = self.domain.as_bytes();
        // SAFETY: plain calls with numbers and pointers to what lives on; the process is this one thread.
        unsafe {
            libc::umask(self.umask);
            let done = [
                soft(libc::RLIMIT_STACK, self.stack),
                soft(libc::RLIMIT_SIGPENDING, self.pending_signals),
                soft(libc::RLIMIT_MEMLOCK, self.locked_memory),
                libc::prctl(libc::PR_SET_TIMERSLACK, self.timer_slack_ns, 0, 0, 0),
                libc::unshare(libc::CLONE_NEWUTS | libc::CLONE_NEWNET),
                libc::setdomainname(domain.as_ptr().cast(), domain.len()),
                libc::sethostname(domain.as_ptr().cast(), domain.len()),
                libc::setpriority(libc::PRIO_PROCESS, 0, self.niceness),
                libc::personality(self.personality),
            ];
            for signal in self.ignored {
                libc::signal(*signal, libc::SIG_IGN);
            }
            if done.iter().any(|result| *result < 0) {
                return Err(std::io::Error::last_os_error());
            }
        }
        std::env::set_current_dir(self.folder)?;
        fs::write("/proc/self/oom_score_adj", self.oom_score_adj)?;
        fs::write("/proc/self/coredump_filter", self.coredump_filter)?;
        self.sysctls.iter().try_for_each(|(name, value)| fs::write(format!("/proc/sys/net/{name}"), value))
    }

    fn agent(self, without: &[&str], place: &Place) -> Victim {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bellows-launcher"));
        command.env_clear().envs(self.env.iter().copied());
        // SAFETY: the child of this fork has one thread; what it calls allocates, which glibc's fork allows.
        unsafe { command.pre_exec(move || self.become_it()) };
        Victim::spawn_without(without, command, place)
    }
}

/// The hard limit stays: not every root may raise it again.
unsafe fn soft(resource: u32, value: u64) -> i32 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is ours.
    unsafe {
        libc::getrlimit(resource, &mut limit);
        limit.rlim_cur = value.min(limit.rlim_max);
        libc::setrlimit(resource, &limit)
    }
}

/// One line for everything that can be seen. `A` is the address.
const SCRIPT: &str = r#"
A=$(sed -n 's/\t.*same$//p' /etc/hosts)
echo "== files"; find / \( -path /proc -o -path /sys -o -path /dev/pts -o -path /dev/mqueue \) -prune -o -print | sort | while read f; do
  case $f in /etc/hosts) stat -c '%n %f %u %g %h %Y' $f; sed "s/$A/ADDRESS/" $f;;
  *) stat -c '%n %f %u %g %h %s %t %T %Y %N' "$f"; [ -f "$f" ] && sha256sum "$f";; esac; done
stat -c '%n %f %u %g %t %T' /proc /sys /dev/pts /dev/pts/* /dev/mqueue
echo "== environment"; tr '\0' '\n' < /proc/$$/environ
echo "== process"; cat /proc/self/limits; cat /proc/self/cmdline | tr '\0' ' '; echo
grep -E '^(Umask|Pid|PPid|TracerPid|Uid|Gid|Groups|NS|Kthread|CoreDumping|THP|Sig[A-P]|Shd|Cap|NoNew|Seccomp|Specul|Cpus|Mems)' /proc/self/status
for f in oom_score_adj coredump_filter timerslack_ns loginuid sessionid personality timens_offsets setgroups; do echo "$f: $(cat /proc/self/$f 2>&1)"; done
sed 's/^[0-9]*:/cgroup /' /proc/self/cgroup
sed 's/ *\([0-9]*\) *[0-9]* *\([0-9]*\)/\1 BASE \2/' /proc/self/uid_map /proc/self/gid_map
sed 's/.*) //' /proc/$$/stat | awk '{print "stat", $2, $3, $4, $5, $16, $17, $38, $39}'
for f in 0 1 2 3 4 5 6 7 8 9; do readlink /proc/$$/fd/$f > /tmp/fd; sed "s/.[0-9]*.$/ is $f/" /tmp/fd; done; for f in 0 1 2; do grep flags /proc/$$/fdinfo/$f; done
echo "== mounts"; sed 's/^[0-9]* [0-9]* [0-9:]* //' /proc/self/mountinfo
echo "== names"; uname -a; hostname; cat /proc/sys/kernel/domainname; id; umask; pwd; date +%Z; ulimit -a
echo "== settings"; find /proc/sys/net /proc/sys/fs/mqueue /proc/sys/kernel/sem /proc/sys/kernel/msg* /proc/sys/kernel/shm* -type f | sort | while read f; do
  case $f in */nf_conntrack_count|*/stable_secret|*/tcp_fastopen_key|*/nf_log*) ;; *) echo "$f $(cat $f 2>&1)";; esac; done
echo "== network"; ls /sys/class/net; cut -d: -f1 /proc/net/dev; ls -l /sys | sed 's/^\(.\{10\}\).* /\1 /'
"#;

fn image() -> Option<Blobs> {
    let busybox = fs::read("/bin/busybox").ok()?;
    let files = bellows_runtime::image::build::executable_with_libraries("/bin/busybox".as_ref()).ok()?;
    if files.len() > 1 {
        return None;
    }
    let mut layer =
        Layer::default().folder("bin/", 0o711).raw(b"bin/busybox", b'0', 0o4755, b"", busybox.len() as u64, &busybox);
    for name in [
        "sh",
        "sed",
        "find",
        "sort",
        "stat",
        "sha256sum",
        "tr",
        "cat",
        "grep",
        "awk",
        "ls",
        "uname",
        "hostname",
        "id",
        "date",
        "cut",
    ] {
        layer = layer.symlink(&format!("bin/{name}"), "busybox");
    }
    let other =
        Layer::default().folder("etc/", 0o750).file("etc/passwd", b"root:x:0:0::/:/bin/sh\n").folder("tmp/", 0o1777);
    Some(Blobs::new(&[layer.finish(), other.finish()], Stored::Gzip))
}

/// Settings of the machine, until dropped.
struct Settings(Vec<(String, String)>);

impl Settings {
    fn change(all: &[(&str, &str)]) -> Self {
        let change = |(name, value): &(&str, &str)| {
            let path = format!("/proc/sys/net/{name}");
            let before = fs::read_to_string(&path).expect("a setting");
            fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
            (path, before)
        };
        Self(all.iter().map(change).collect())
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        self.0.iter().for_each(|(path, before)| fs::write(path, before).expect("as it was"));
    }
}

/// How a network namespace that nobody levels has a setting.
fn found_in_a_new_network(name: &'static str) -> String {
    let apart = std::thread::spawn(move || {
        // SAFETY: of this thread alone.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.expect("a network");
        fs::read_to_string(format!("/proc/sys/net/{name}")).expect("a setting")
    });
    apart.join().expect("read").split_whitespace().collect::<Vec<_>>().join(" ")
}

fn fingerprint(without: &[&str], host: Host, blobs: &Blobs) -> Option<String> {
    let place = place()?;
    let _settings = Settings::change(host.inherited);
    for (name, value) in host.inherited {
        // The control: this is what the apps would see.
        assert_eq!(found_in_a_new_network(name), *value, "{name} is inherited");
    }
    let folder = place.config().state.with_file_name("store");
    let digest = blobs.put(&Store::open(&folder).expect("a store")).expect("its blobs");
    let mut agent = host.agent(without, &place);
    agent.ask(&format!("unpack {} {digest}", folder.display()));
    agent.ask("start");
    let script = place.config().state.with_file_name("script");
    fs::write(&script, SCRIPT).expect("a file");
    agent.ask(&format!("script same {}", script.display()));
    let said = agent.ask("said same");
    agent.ask("shutdown");
    agent.end();
    place.assert_clean();
    Some(said.replace('\u{1}', "\n"))
}

#[test]
fn one_digest_looks_the_same_under_agents_that_differ_in_everything() {
    let Some(blobs) = image() else {
        println!("skipped: no static /bin/busybox on this machine");
        return;
    };
    let mut seen = Vec::new();
    for host in HOSTS {
        let Some(one) = fingerprint(&[], host, &blobs) else { return };
        seen.push(one);
    }
    // The control: launchers that keep what they inherited show it.
    let Some(kept) = fingerprint(&["level"], HOSTS[1], &blobs) else { return };
    for inherited in ["oom_score_adj: 900", "coredump_filter: 0000007f", "example.org"] {
        assert!(kept.contains(inherited) && !seen[1].contains(inherited), "{inherited}: {kept}");
    }
    for part in
        ["== files", "/bin/busybox 89ed", "== mounts", "SigIgn:", "Max open files", "== settings", "ipv4/tcp_rmem"]
    {
        assert!(seen[0].contains(part), "{part} is not in\n{}", seen[0]);
    }
    for (number, other) in seen.iter().enumerate().skip(1) {
        let only =
            |a: &str, b: &str| a.lines().filter(|line| !b.lines().any(|l| l == *line)).map(str::to_owned).collect();
        let (first, second): (Vec<String>, Vec<String>) = (only(&seen[0], other), only(other, &seen[0]));
        assert!(first.is_empty() && second.is_empty(), "host 0: {first:#?}\nhost {number}: {second:#?}");
        assert_eq!(&seen[0], other, "host {number} shows the same in another order");
    }
}
