//! The operations of the specification (runtime.md), on one container each.

use std::fs;
use std::io::Read;
use std::process::Stdio;

use rustix::mount::{MoveMountFlags, move_mount};
use serde_json::{Value, json};

use crate::place::{self, Place, bellows, run, said};

fn sleeper(place: &Place) -> Value {
    place.config("trap 'exit 9' TERM; echo ready > /dev/shm/ready; while true; do sleep 1000 & wait; done")
}

fn wait_for(what: &str, mut check: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !check() {
        assert!(began.elapsed() < std::time::Duration::from_secs(30), "{what} does not come");
        std::thread::yield_now();
    }
}

fn stopped(place: &Place) {
    wait_for("the end", || place.state()["status"] == "stopped");
}

#[test]
fn a_container_goes_from_created_over_running_to_stopped_and_away() {
    let Some(place) = place::place() else { return };
    let mut config = sleeper(&place);
    config["annotations"] = json!({"org.example": "a value"});
    assert_eq!(place.create(&config).code, 0);
    let state = place.state();
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], place.id());
    assert_eq!(state["bundle"], json!(place.bundle()));
    assert_eq!(state["annotations"]["org.example"], "a value");
    assert!(state["ociVersion"].is_string() && state["pid"].as_u64().is_some_and(|pid| pid > 0), "{state}");
    assert_ne!(place.oci(&["delete", place.id()]).code, 0, "only a stopped one is deleted");
    assert_ne!(place.create(&config).code, 0, "an id is used once");
    assert_eq!(place.state()["status"], "created", "what is refused changes nothing");
    assert_eq!(place.oci(&["start", place.id()]).code, 0);
    assert_eq!(place.state()["status"], "running");
    assert_ne!(place.oci(&["start", place.id()]).code, 0, "it is started once");
    assert_ne!(place.oci(&["delete", place.id()]).code, 0, "only a stopped one is deleted");
    assert_eq!(place.oci(&["kill", place.id(), "KILL"]).code, 0);
    stopped(&place);
    for refused in [&["kill", place.id(), "KILL"][..], &["start", place.id()], &["exec", place.id(), "true"]] {
        assert_ne!(place.oci(refused).code, 0, "{refused:?} of a stopped one");
    }
    assert_eq!(place.oci(&["delete", place.id()]).code, 0);
    assert_ne!(place.oci(&["state", place.id()]).code, 0);
    place.check_nothing_left();
}

#[test]
fn what_does_not_exist_is_an_error_and_ids_have_a_form() {
    let Some(place) = place::place() else { return };
    for verb in ["state", "start", "kill", "delete", "pause", "resume", "ps"] {
        let said = place.oci(&[verb, "none-such"]);
        assert!(said.code == 1 && said.err.contains("does not exist"), "{verb}: {said:?}");
    }
    assert_eq!(place.oci(&["delete", "--force", "none-such"]).code, 0, "as callers expect");
    place.write(&place.config("true"));
    let said = place.oci(&["create", "-b", place.bundle().to_str().expect("a path"), "../x"]);
    assert!(said.code == 1 && said.err.contains("container id"), "{said:?}");
    assert_eq!(place.oci(&["no-such-verb"]).code, 2);
}

#[test]
fn exit_codes_and_signals_are_passed_on() {
    let Some(place) = place::place() else { return };
    for (script, code) in
        [("exit 0", 0), ("exit 7", 7), ("kill -9 $$ ; echo survived; exit 5", 5), ("sh -c 'kill -9 $$'; exit $?", 137)]
    {
        assert_eq!(place.run(&place.config(script)).code, code, "{script}");
    }
    place.check_nothing_left();
}

#[test]
fn programs_are_executed_beside_the_first() {
    let Some(place) = place::place() else { return };
    assert_eq!(place.create(&sleeper(&place)).code, 0);
    assert_eq!(place.oci(&["start", place.id()]).code, 0);
    let said = place.oci(&[
        "exec",
        "-e",
        "A=b",
        "--cwd",
        "/etc",
        "-u",
        "5:6",
        place.id(),
        "sh",
        "-c",
        "echo $A; pwd; id -u; id -g; exit 8",
    ]);
    assert_eq!((said.code, said.out.as_str()), (8, "b\n/etc\n5\n6\n"), "{said:?}");
    for kind in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let script = format!("test $(readlink /proc/self/ns/{kind}) = $(readlink /proc/1/ns/{kind})");
        assert_eq!(place.oci(&["exec", "--cap", "CAP_SYS_PTRACE", place.id(), "sh", "-c", &script]).code, 0, "{kind}");
    }
    let said = place.oci(&["exec", place.id(), "no-such"]);
    assert!(said.code != 0 && said.err.contains("executable file not found"), "{said:?}");
    let said = place.oci(&["exec", "-t", place.id(), "tty"]);
    assert!(said.code == 0 && said.out.starts_with("/dev/pts/"), "{said:?}");
    let file = place.dir.path().join("pid");
    let detached = place
        .command(&["exec", "-d", "--pid-file", file.to_str().expect("a path"), place.id(), "sleep", "1000"])
        .stdout(Stdio::null())
        .status();
    assert!(detached.expect("the runtime runs").success());
    let pids: Vec<u32> = serde_json::from_str(&place.oci(&["ps", "-f", "json", place.id()]).out).expect("JSON");
    let pid = fs::read_to_string(&file).expect("a file").parse().expect("a number");
    assert!(pids.contains(&pid), "{pids:?} has {pid}");
    assert_eq!(place.oci(&["delete", "--force", place.id()]).code, 0);
    place.check_nothing_left();
}

#[test]
fn all_processes_are_killed_when_they_share_the_hosts_numbers() {
    let Some(place) = place::place() else { return };
    let mut config = place.config("sleep 1000 & sleep 1000 & wait");
    config["linux"]["namespaces"].as_array_mut().expect("a list").retain(|named| named["type"] != "pid");
    assert_eq!(place.create(&config).code, 0);
    assert_eq!(place.oci(&["start", place.id()]).code, 0);
    let pids =
        || -> Vec<u32> { serde_json::from_str(&place.oci(&["ps", "-f", "json", place.id()]).out).expect("JSON") };
    wait_for("three processes", || pids().len() == 3);
    assert_eq!(place.oci(&["kill", "--all", place.id(), "KILL"]).code, 0);
    wait_for("their end", || pids().is_empty());
    assert_eq!(place.oci(&["delete", place.id()]).code, 0);
    place.check_nothing_left();
}

#[test]
fn a_paused_container_does_nothing_until_it_is_resumed() {
    let Some(place) = place::place() else { return };
    assert_eq!(place.create(&sleeper(&place)).code, 0);
    assert_ne!(place.oci(&["pause", place.id()]).code, 0, "only a running one is paused");
    assert_eq!(place.oci(&["start", place.id()]).code, 0);
    assert_eq!(place.oci(&["pause", place.id()]).code, 0);
    assert_eq!(place.state()["status"], "paused");
    assert_ne!(place.oci(&["exec", place.id(), "true"]).code, 0);
    assert_eq!(place.oci(&["resume", place.id()]).code, 0);
    assert_eq!(place.oci(&["exec", place.id(), "true"]).code, 0);
    assert_eq!(place.oci(&["pause", place.id()]).code, 0);
    assert_eq!(place.oci(&["delete", "--force", place.id()]).code, 0, "also a paused one is deleted");
    place.check_nothing_left();
}

/// A terminal goes out by the console socket with its size, and is the program's.
#[test]
fn a_terminal_goes_to_whoever_listens_for_it() {
    let Some(place) = place::place() else { return };
    let mut config = place.config("tty; stty size; test -t 0 && stat -c %t /dev/console > /dev/null && echo console");
    config["process"]["terminal"] = json!(true);
    config["process"]["consoleSize"] = json!({"height": 33, "width": 77});
    place.write(&config);
    let socket = place.dir.path().join("console");
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    let bundle = place.bundle();
    let words = [
        "create",
        "-b",
        bundle.to_str().expect("a path"),
        "--console-socket",
        socket.to_str().expect("a path"),
        place.id(),
    ];
    let said = place.oci(&words);
    assert_eq!(said.code, 0, "{said:?}");
    let (stream, _) = listener.accept().expect("a connection");
    let mut terminal = receive(&stream);
    assert_eq!(place.oci(&["start", place.id()]).code, 0);
    let mut text = Vec::new();
    let mut buffer = [0_u8; 512];
    // It ends with an error when the last program has closed it.
    while let Ok(count @ 1..) = terminal.read(&mut buffer) {
        text.extend_from_slice(&buffer[..count]);
    }
    assert_eq!(String::from_utf8_lossy(&text), "/dev/pts/0\r\n33 77\r\nconsole\r\n");
    stopped(&place);
    let without = place.oci(&["create", "-b", bundle.to_str().expect("a path"), "second"]);
    assert!(without.code == 1 && without.err.contains("--console-socket"), "{without:?}");
}

fn receive(stream: &std::os::unix::net::UnixStream) -> fs::File {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0_u8; 64];
    recvmsg(stream, &mut [std::io::IoSliceMut::new(&mut name)], &mut beside, RecvFlags::CMSG_CLOEXEC)
        .expect("a packet");
    let found = beside.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    found.expect("a terminal").into()
}

/// Neither this executable's file, nor descriptors of the runtime, can be reached to be written.
#[test]
fn nothing_of_the_runtime_can_be_written_from_inside() {
    let Some(place) = place::place() else { return };
    let mut config = place.config("ls /proc/self/fd | tr '\\n' ' '");
    config["process"]["cwd"] = json!("/proc/self/fd/3");
    let said = place.run(&config);
    assert!(said.code == 1 && said.err.contains("working directory"), "{said:?}");
    config["process"]["cwd"] = json!("/");
    let said = place.run(&config);
    // Three streams, and the directory that ls itself reads.
    assert_eq!(said.out.trim(), "0 1 2 3", "{said:?}");
    // A program that is the runtime's own file executes it, and has it from a read-only mount.
    config["process"]["args"] = json!(["/proc/self/exe", "oci", "features"]);
    config["root"]["readonly"] = json!(false);
    place.run(&config);
    // Before it is started, a container's first process runs from the runtime's file: for whoever keeps that until nobody executes it, it is read-only as well.
    assert_eq!(place.create(&sleeper(&place)).code, 0);
    let kept = format!("/proc/{}/exe", place.state()["pid"]);
    let kept = rustix::fs::open(&kept, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).expect("it exists");
    // Nobody has the mount itself, which could be moved and altered by who rules a mount namespace.
    let target = place.dir.path().join("target");
    fs::write(&target, "").expect("a file");
    let moved = move_mount(&kept, "", rustix::fs::CWD, &target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH);
    assert_eq!(moved, Err(rustix::io::Errno::INVAL));
    assert_eq!(place.oci(&["delete", "--force", place.id()]).code, 0);
    let mount = rustix::fs::fstatvfs(&kept).expect("it is kept").f_flag;
    assert!(mount.contains(rustix::fs::StatVfsMountFlags::RDONLY), "{mount:?}");
    assert_eq!(place.run(&place.config("sleep 0; true")).code, 0);
    place.check_nothing_left();
}

/// The runtime has descriptors of its own by then, which are not meant.
#[test]
fn a_descriptor_to_be_passed_on_that_is_not_there_is_refused() {
    let Some(place) = place::place() else { return };
    place.write(&place.config("true"));
    let bundle = place.bundle();
    let bundle = bundle.to_str().expect("a path");
    let said = place.oci(&["run", "--preserve-fds", "1", "-b", bundle, place.id()]);
    assert!(said.code == 1 && said.err.contains("pass on descriptor 3"), "{said:?}");
    place.check_nothing_left();
}

#[test]
fn errors_stand_in_the_callers_log_too() {
    let Some(place) = place::place() else { return };
    let log = place.dir.path().join("log");
    let file = log.to_str().expect("a path");
    assert_eq!(place.oci(&["--log", file, "--log-format", "json", "start", "none-such"]).code, 1);
    let line: Value = serde_json::from_str(&fs::read_to_string(&log).expect("a log")).expect("JSON");
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().is_some_and(|text| text.contains("does not exist")), "{line}");
    let said = place.oci(&["--systemd-cgroup", "state", "x"]);
    assert!(said.code == 1 && said.err.contains("cgroupfs"), "{said:?}");
}

#[test]
fn the_executable_is_the_runtime_under_its_name() {
    let Some(place) = place::place() else { return };
    let link = place.dir.path().join("bellows-oci");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_bellows"), &link).expect("a link");
    let version = run(std::process::Command::new(&link).arg("--version"));
    assert!(version.out.contains("spec: 1."), "{version:?}");
    let features = said(bellows().args(["oci", "features"]).output().expect("the program runs"));
    let features: Value = serde_json::from_str(&features.out).expect("JSON");
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
    let list = run(std::process::Command::new(&link)
        .arg("--root")
        .arg(place.dir.path().join("state"))
        .args(["list", "-f", "json"]));
    assert_eq!((list.code, list.out.trim()), (0, "[]"), "{list:?}");
}

#[test]
fn limits_are_changed_while_it_runs() {
    let Some(place) = place::place() else { return };
    assert_eq!(place.create(&sleeper(&place)).code, 0);
    assert_eq!(place.oci(&["start", place.id()]).code, 0);
    let file = place.dir.path().join("limits");
    fs::write(&file, json!({"pids": {"limit": 99}}).to_string()).expect("a file");
    assert_eq!(place.oci(&["update", "-r", file.to_str().expect("a path"), place.id()]).code, 0);
    let said = place.oci(&[
        "exec",
        place.id(),
        "sh",
        "-c",
        "cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max",
    ]);
    assert_eq!(said.out.trim(), "99", "{said:?}");
    assert_eq!(place.oci(&["delete", "--force", place.id()]).code, 0);
    place.check_nothing_left();
}
