//! A machine that boots for real: busybox as its first process tells what it finds.

use std::path::Path;
use std::time::Duration;

use bellows_vm::{Acceleration, Error, Initramfs, Machine, kernel, qemu};

/// Software on a loaded machine takes a minute at worst; it is over in 3 s where there is room.
const LIMIT: Duration = Duration::from_secs(300);

const INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t cgroup2 cgroup2 /cgroup
echo kernel: $(/bin/busybox uname -r)
echo link: $(/bin/busybox readlink /etc/alias) mode: $(/bin/busybox stat -c %a /etc/deep/secret)
echo hierarchy: $(/bin/busybox stat -f -c %T /cgroup) $(/bin/busybox cat /cgroup/cgroup.controllers)
echo words: $(/bin/busybox cat /proc/cmdline)
echo that is all
/bin/busybox poweroff -f
";

fn machine(init: &str) -> Option<Machine> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().map(Path::new).find(|path| path.is_file());
    let found = qemu().and_then(|qemu| Ok((qemu, kernel()?)));
    let (busybox, (qemu, kernel)) = match (busybox, found) {
        (Some(busybox), Ok(found)) => (busybox, found),
        (None, _) => {
            println!("skipped: busybox-static is not installed");
            return None;
        }
        (_, Err(missing)) => {
            println!("skipped: {missing}");
            return None;
        }
    };
    let path = busybox.display();
    let busybox = std::fs::read(busybox).expect("it was found");
    // A dynamic one names its loader near its beginning, and nothing else is in the machine.
    if busybox.iter().take(4096).copied().collect::<Vec<_>>().windows(9).any(|bytes| bytes == b"ld-linux-") {
        println!("skipped: {path} is not static");
        return None;
    }
    let initramfs = Initramfs::new().file("bin/busybox", 0o755, &busybox).file("init", 0o755, init.as_bytes());
    let initramfs = initramfs.folder("proc", 0o555).folder("cgroup", 0o755).link("etc/alias", "deep/secret");
    let initramfs = initramfs.file("etc/deep/secret", 0o640, b"hush").finish();
    let command_line = "bellows.word=7".to_owned();
    let acceleration = Acceleration::Software;
    Some(Machine { qemu, kernel, initramfs, acceleration, memory_mib: 256, cpus: 1, command_line })
}

#[test]
fn busybox_boots_and_finds_what_was_packed() {
    let Some(machine) = machine(INIT) else { return };
    let said = machine.run("that is all", LIMIT).unwrap_or_else(|error| panic!("{error}"));
    let console = said.console.join("\n");
    assert!(console.contains("kernel: ") && console.contains("cloud"), "{console}");
    assert!(console.contains("link: deep/secret mode: 640"), "{console}");
    assert!(console.contains("hierarchy: ") && console.contains("memory"), "all of cgroup v2: {console}");
    assert!(console.contains("bellows.word=7"), "{console}");
}

#[test]
fn a_machine_that_ends_early_says_what_it_said() {
    let Some(machine) = machine("#!/bin/busybox sh\necho not this\n/bin/busybox poweroff -f\n") else { return };
    let error = machine.run("that is all", LIMIT).expect_err("it never says so");
    assert!(matches!(&error, Error::Ended { last, .. } if last.contains("not this")), "{error}");
}
