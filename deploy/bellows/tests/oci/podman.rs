//! podman with this runtime: run, terminals, exec, ps, pause, stop, kill, rm, exit codes. Images come from a tar of busybox, no registry is asked.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::place::{self, Place, Said, run};

/// podman's own folders of one test, and the runtime under its name.
struct Podman<'a> {
    place: &'a Place,
    runtime: PathBuf,
}

/// Podman's defaults are beyond what an unprivileged machine's root may raise.
const LIMITS: [&str; 4] = ["--ulimit", "nofile=512:512", "--ulimit", "nproc=512:512"];

impl Podman<'_> {
    fn command(&self, words: &[&str]) -> Command {
        let dir = self.place.dir.path();
        let mut command = Command::new("podman");
        command
            .arg("--root")
            .arg(dir.join("root"))
            .arg("--runroot")
            .arg(dir.join("run"))
            .arg("--tmpdir")
            .arg(dir.join("tmp"));
        command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
        command.arg("--runtime").arg(&self.runtime).args(words).stdin(Stdio::null());
        command
    }

    fn say(&self, words: &[&str]) -> Said {
        run(&mut self.command(words))
    }

    fn launch(&self, words: &[&str]) -> Said {
        let all: Vec<&str> = ["run", "--network", "none"].iter().chain(&LIMITS).chain(words).copied().collect();
        self.say(&all)
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        self.say(&["rm", "--all", "--force", "--time", "0"]);
    }
}

fn podman(place: &Place) -> Option<Podman<'_>> {
    if Command::new("podman").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("skipped: podman is not installed");
        return None;
    }
    let runtime = place.dir.path().join("bellows-oci");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_bellows"), &runtime).expect("a link");
    let archive = place.dir.path().join("image.tar");
    let made =
        Command::new("tar").arg("-C").arg(place.rootfs()).arg("-cf").arg(&archive).args(["bin", "etc", "tmp"]).status();
    assert!(made.expect("tar runs").success());
    let podman = Podman { place, runtime };
    let imported = podman.say(&["import", archive.to_str().expect("a path"), "busybox"]);
    assert_eq!(imported.code, 0, "{imported:?}");
    Some(podman)
}

#[test]
fn podman_runs_containers_with_it() {
    let Some(place) = place::place() else { return };
    let Some(podman) = podman(&place) else { return };
    let said = podman.launch(&["--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((said.code, said.out.as_str()), (3, "out\n"), "{said:?}");
    assert!(said.err.contains("err"), "{said:?}");
    assert_eq!(podman.launch(&["--rm", "busybox", "no-such"]).code, 127);
    assert_eq!(podman.launch(&["--rm", "busybox", "/etc"]).code, 126);
    let said = podman.launch(&["--rm", "-t", "busybox", "sh", "-c", "tty; exit 4"]);
    assert_eq!((said.code, said.out.trim()), (4, "/dev/pts/0"), "{said:?}");
    let volume = format!("{}:/v:ro", place.bundle().display());
    let options = [
        "--rm",
        "--read-only",
        "--memory",
        "64m",
        "--pids-limit",
        "20",
        "-v",
        &volume,
        "-u",
        "5:6",
        "-w",
        "/tmp",
        "--hostname",
        "inside",
        "--cap-drop",
        "all",
        "busybox",
        "sh",
        "-c",
        "id -u; id -g; hostname; pwd; ls /v/rootfs | grep bin; touch /v/x || touch /x || echo no",
    ];
    let said = podman.launch(&options);
    assert_eq!((said.code, said.out.as_str()), (0, "5\n6\ninside\n/tmp\nbin\nno\n"), "{said:?}");
}

#[test]
fn podman_looks_after_a_container_that_runs() {
    let Some(place) = place::place() else { return };
    let Some(podman) = podman(&place) else { return };
    let name = place.id();
    let said = podman.launch(&[
        "-d",
        "--name",
        name,
        "busybox",
        "sh",
        "-c",
        "trap 'exit 9' TERM; while true; do sleep 1000 & wait; done",
    ]);
    assert_eq!(said.code, 0, "{said:?}");
    let said = podman.say(&["ps", "--format", "{{.Names}} {{.Status}}"]);
    assert!(said.out.starts_with(&format!("{name} Up ")), "{said:?}");
    let said = podman.say(&["exec", name, "sh", "-c", "echo inside; exit 8"]);
    assert_eq!((said.code, said.out.as_str()), (8, "inside\n"), "{said:?}");
    let said = podman.say(&["exec", "-t", name, "tty"]);
    assert!(said.code == 0 && said.out.starts_with("/dev/pts/"), "{said:?}");
    for verb in ["pause", "unpause"] {
        let said = podman.say(&[verb, name]);
        assert_eq!(said.code, 0, "{verb}: {said:?}");
    }
    let said = podman.say(&["stop", "--time", "20", name]);
    assert_eq!(said.code, 0, "{said:?}");
    let said = podman.say(&["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", name]);
    assert_eq!(said.out.trim(), "exited 9", "{said:?}");
    assert_eq!(podman.say(&["start", name]).code, 0);
    assert_eq!(podman.say(&["kill", name]).code, 0);
    let said = podman.say(&["wait", name]);
    assert_eq!(said.out.trim(), "137", "{said:?}");
    assert_eq!(podman.say(&["rm", name]).code, 0);
    assert_eq!(podman.say(&["ps", "--all", "--quiet"]).out, "");
}
