//! The executable in a machine with cgroup v2 only: a cluster of `bellows dev`, podman over `bellows oci`, and the validation cases of OCI's specification.
//! `deploy/vm/nightly` builds what it needs and runs it; it is no part of the suite, as it needs podman and minutes.

mod built;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bellows_vm::{Guest, PackError};

const LIMIT: Duration = Duration::from_secs(1200);

/// Where Debian puts what podman needs of programs.
const PROGRAMS: [&str; 2] = ["/usr/bin/podman", "/usr/bin/conmon"];

/// podman calls a runtime without the word `oci` before its verbs.
const RUNTIME: &str = "#!/bin/sh\nexec BELLOWS oci \"$@\"\n";

/// No image is fetched, no network made; what is not said here is podman's default.
const CONTAINERS: &str = "[engine]
cgroup_manager = \"cgroupfs\"
events_logger = \"none\"
[containers]
log_driver = \"k8s-file\"
";
const STORAGE: &str = "[storage]
driver = \"vfs\"
graphroot = \"/tmp/podman\"
runroot = \"/tmp/podman-run\"
";

/// Each line of output is looked for below.
const SCRIPT: &str = "
mkdir -p /tmp/root/bin /tmp/root/proc /tmp/root/sys /tmp/root/dev /tmp/root/tmp /tmp/root/etc /var/tmp /run/lock
cp /bin/busybox /tmp/root/bin/
for name in sh echo cat sleep hostname id kill; do ln -s busybox /tmp/root/bin/$name; done
run() { podman --runtime /usr/local/bin/bellows-oci \"$@\"; }
new=\"--network none --rootfs\"
run run --rm $new /tmp/root echo it runs
run run --rm $new /tmp/root sh -c 'exit 7'; echo \"exit code $?\"
run run --rm --memory 64m --pids-limit 33 $new /tmp/root sh -c 'echo limits of $(id -u); cat /proc/self/cgroup'
run run -d --name long $new /tmp/root sleep 1000 > /dev/null && echo started
run exec long echo executed inside
run exec long sh -c 'exit 5'; echo \"exec code $?\"
cat /sys/fs/cgroup$(cut -d: -f3 /proc/$(run inspect -f '{{.State.Pid}}' long)/cgroup)/cgroup.procs | grep -c . | sed 's/^/processes: /'
run pause long > /dev/null && run inspect -f 'paused: {{.State.Paused}}' long; run unpause long > /dev/null
run stop -t 1 long > /dev/null && run inspect -f 'stopped: {{.State.Status}} {{.State.ExitCode}}' long
run rm long > /dev/null && echo \"left: $(run ps -aq | grep -c .)\"
";

const EXPECTED: [&str; 9] = [
    "it runs",
    "exit code 7",
    "limits of 0",
    "started",
    "executed inside",
    "exec code 5",
    "processes: 1",
    "stopped: exited 137",
    "left: 0",
];

/// Six copies at least, as the demo may have grown, of two processes each. Images must be where owners can be shifted, so all of `/var/lib` is on the disk in memory. Told to end, it leaves nothing.
const CLUSTER: &str = "
mkdir -p /tmp/lib && mount -o bind /tmp/lib /var/lib && export PATH=$PATH:BIN
bellows agent --check
bellows dev --demo > /tmp/log 2>&1 &
until bellows replicas demo > /dev/null 2>&1; do kill -0 $! || break; usleep 200000; done
printf 'name: fixed\\nimage: demo\\nreplicas: 5\\nresources: {cpu: 100m, memory: 64Mi}\\n' > /tmp/fixed.yaml
bellows apply -f /tmp/fixed.yaml --wait && bellows replicas fixed
find /sys/fs/cgroup -path '*bellows-*/s*/cgroup.procs' -exec cat {} + | awk 'END { if (NR >= 12) print \"all are in groups\" }'
bellows scale fixed 1 --wait && echo scaled
kill -INT $! && wait $!; echo \"ended with $?\"; tail -5 /tmp/log
for look in $(seq 50); do ls /sys/class/net | grep -q ^bw || break; usleep 100000; done
echo \"left: $(ls -d /sys/fs/cgroup/bellows-* 2>/dev/null | grep -c .) cgroups, $(ls /sys/class/net | grep -c ^bw) links\"
";

#[test]
#[ignore = "needs the executable: deploy/vm/nightly runs it"]
fn a_cluster_works_with_cgroup_v2() {
    let bellows = bellows();
    let folder = bellows.parent().unwrap_or(Path::new("/")).display().to_string();
    let guest = taken([bellows.as_path(), Path::new("/usr/sbin/nft")].into_iter().try_fold(guest(), Guest::program));
    expect(
        guest,
        &CLUSTER.replace("BIN", &folder),
        &["all are in groups", "scaled", "ended with 0", "left: 0 cgroups, 0 links"],
    );
}

#[test]
#[ignore = "needs podman and minutes: deploy/vm/nightly runs it"]
fn podman_works_over_bellows() {
    let bellows = bellows();
    let runtime = RUNTIME.replace("BELLOWS", &bellows.display().to_string());
    let file = |guest: Guest, path: &str, mode, text: &str| guest.file(Path::new(path), mode, text.as_bytes());
    let guest = file(guest(), "/usr/local/bin/bellows-oci", 0o755, &runtime);
    let guest = file(guest, "/etc/containers/containers.conf", 0o644, CONTAINERS);
    let guest = file(guest, "/etc/containers/storage.conf", 0o644, STORAGE);
    let programs = PROGRAMS.iter().map(Path::new).chain([bellows.as_path()]);
    expect(taken(programs.into_iter().try_fold(guest, Guest::program)), SCRIPT, &EXPECTED);
}

#[test]
#[ignore = "needs minutes: deploy/vm/nightly runs it"]
fn the_validation_cases_hold_over_cgroup_v2() {
    let built = built::built(&["oci"]);
    let cases = built.iter().find(|one| one.name == "oci").expect("cargo builds the cases");
    let parts = built.iter().map(|one| one.executable.clone()).chain([bellows()]);
    let guest = taken(parts.into_iter().try_fold(guest(), |guest, part| guest.program(&part)));
    let cases = cases.executable.display();
    expect(guest, &format!("{cases} --test-threads=1 2>&1\necho \"cases: $?\"\n"), &["cases: 0"]);
}

fn bellows() -> PathBuf {
    std::env::var_os("BELLOWS").expect("deploy/vm/nightly names the executable").into()
}

fn guest() -> Guest {
    taken(Guest::new())
}

fn taken(guest: Result<Guest, PackError>) -> Guest {
    guest.unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)))
}

/// Each of `lines` is said.
fn expect(guest: Guest, script: &str, lines: &[&str]) {
    let ran = guest.run(script, LIMIT).unwrap_or_else(|error| panic!("{error}"));
    println!("{}", ran.said.console.join("\n"));
    let missing: Vec<&&str> = lines.iter().filter(|line| !ran.said.console.iter().any(|said| said == **line)).collect();
    assert!(missing.is_empty(), "not said: {missing:?}");
}
