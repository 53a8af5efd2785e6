//! Starts that cannot be: ports and folders in use, not root, a kernel that lacks something, folders that are damaged, newer, or read-only, tokens
//! that are worth nothing. Each says what, where, how to mend it; the folder is as before; mended, it starts.

use std::fs;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::run::{Outcome, command, outcome};
use crate::serve::{self, Disk, Serving, check, controller, controller_command, dev_command, root};

/// How a verb that serves was refused.
fn refused(started: Result<Serving, Outcome>) -> Outcome {
    match started {
        Ok(up) => panic!("it serves: {}", up.first),
        Err(outcome) => outcome,
    }
}

/// Every file below, with its content.
fn content(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of ours") {
        let path = entry.expect("its entries are readable").path();
        match path.is_dir() {
            true => files.extend(content(&path)),
            false => files.push((path.clone(), fs::read(&path).expect("a file of ours"))),
        }
    }
    files.sort();
    files
}

/// An agent that shall not get far. Its cgroup, addresses and ids are nobody else's.
fn agent_command(state: &Path, controller: &str, more: &[&str]) -> Command {
    let mut agent = command(Path::new("/nonexistent"), &["agent", "-o", "json", "--name", "bad-start", "--state"]);
    agent.arg(state).args(["--controller", controller, "--subnet", "10.199.0.0/24", "--uid-base", "1879048192"]);
    agent.args(more).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    agent
}

fn address(controller: &Serving) -> String {
    controller.named("controller").trim_start_matches("https://").to_owned()
}

#[test]
fn a_port_in_use() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let state = home.path().join("state");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("a bound socket").to_string();
    for flag in ["--listen", "--dashboard"] {
        let mut words = controller_command(&state, &[]);
        let args: Vec<_> = words.get_args().map(ToOwned::to_owned).collect();
        let at = args.iter().position(|arg| arg == flag).expect("the flag is given");
        words = command(Path::new("/nonexistent"), &[]);
        words
            .args(args.iter().enumerate().map(|(n, arg)| if n == at + 1 { address.as_ref() } else { arg.as_os_str() }));
        let refused = refused(serve::start(words));
        check(
            &refused,
            1,
            &[&format!("cannot listen on {address}"), "Address already in use", "stop what listens there", flag],
        );
    }
    drop(taken);
    controller(&state, &[]).expect("the same folder serves on other ports").end();
}

#[test]
fn two_controllers_in_one_folder() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let first = controller(home.path(), &[]).expect("it serves");
    let second = refused(controller(home.path(), &[]));
    check(&second, 1, &["another controller (process ", "uses the folder", "stop it first", "--state"]);
    assert_eq!(first.run(&["status"]).code, 0, "the first one serves on");
    first.end();
    controller(home.path(), &[]).expect("it is free again").end();
}

#[test]
fn not_root() {
    if !root() {
        return;
    }
    let home = tempfile::tempdir().expect("a temporary folder");
    let state = home.path().join("state");
    let text = state.to_str().expect("a temporary path is UTF-8");
    for words in [
        &["dev", "--state", text][..],
        &["agent", "--controller", "127.0.0.1:1", "--token", "x", "--state", text],
        &["bench", "launch", "--count", "10"],
    ] {
        let outcome = as_nobody(words);
        check(&outcome, 1, &["must run as root", "mend: put sudo before it"]);
        assert!(!state.exists(), "nothing was made");
    }
    fs::create_dir(&state).expect("a temporary folder");
    let outcome = as_nobody(&["controller", "--state", text, "--listen", "127.0.0.1:0", "--dashboard", "127.0.0.1:0"]);
    check(&outcome, 1, &["Permission denied", text]);
    assert!(content(&state).is_empty(), "nothing was made");
    let outcome = as_nobody(&["controller", "--state", "/var/lib/bellows-nobody"]);
    check(&outcome, 1, &["/var/lib/bellows-nobody", "Permission denied", "--state"]);
}

/// Through a descriptor, since nobody may look into the folder where the executable lies.
fn as_nobody(words: &[&str]) -> Outcome {
    let executable = fs::File::open(env!("CARGO_BIN_EXE_bellows")).expect("it was built");
    let kept = nix::unistd::dup(executable.as_fd()).expect("a descriptor that is not closed on exec");
    let mut command = Command::new(format!("/proc/self/fd/{}", kept.as_raw_fd()));
    command.args(words).env_clear().env("HOME", "/nonexistent").current_dir("/").stdin(Stdio::null());
    outcome({
        command.uid(65_534).gid(65_534);
        command
    })
}

/// Where no cgroups are mounted, nothing can be limited: told before anything is made or joined.
#[test]
fn a_kernel_that_lacks_something() {
    if !root() {
        return;
    }
    let home = tempfile::tempdir().expect("a temporary folder");
    let state = home.path().join("state");
    let text = state.to_str().expect("a temporary path is UTF-8");
    let hidden = |words: &[&str]| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh", "-c", "mount -t tmpfs none /sys/fs/cgroup && exec \"$0\" \"$@\""]);
        unshare.arg(env!("CARGO_BIN_EXE_bellows")).args(words).stdin(Stdio::null());
        outcome(unshare)
    };
    let lacks =
        ["cgroup controller memory (not mounted below /sys/fs/cgroup", "mend: cgroup controller pids: mount cgroup2"];
    check(&hidden(&["dev", "--state", text]), 1, &lacks);
    check(&hidden(&["agent", "--controller", "127.0.0.1:1", "--token", "x", "--state", text]), 1, &lacks);
    assert!(!state.exists(), "nothing was made");
    let table = hidden(&["agent", "--check"]);
    check(&table, 1, &["cannot run replicas", "cgroup controller cpu", "mend: "]);
    assert!(table.out.contains("no container starts"), "{table:?}");
}

#[test]
fn two_devs_in_one_folder() {
    if !root() {
        return;
    }
    let home = tempfile::tempdir().expect("a temporary folder");
    let first = serve::start(dev_command(home.path(), "10.198.0.0/16")).expect("it serves");
    let second = refused(serve::start(dev_command(home.path(), "10.197.0.0/16")));
    check(&second, 1, &["another `bellows dev` (process ", "mend: stop that one with Ctrl-C", "--state"]);
    let nodes = first.run(&["nodes", "-o", "json"]);
    assert_eq!((nodes.code, nodes.json().as_array().map(Vec::len)), (0, Some(1)), "the first one serves on");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let other = home.path().join("other");
    let mut third =
        command(Path::new("/nonexistent"), &["dev", "--nodes", "1", "--dashboard", "127.0.0.1:0", "--listen"]);
    third.arg(taken.local_addr().expect("a bound socket").to_string()).args(["--range", "10.197.0.0/16", "--state"]);
    check(
        &refused(serve::start({
            third.arg(&other);
            third
        })),
        1,
        &["cannot listen on", "--listen"],
    );
    assert_eq!(first.end().code, 0);
}

#[test]
fn nobody_lets_this_server_join() {
    if !root() {
        return;
    }
    let home = tempfile::tempdir().expect("a temporary folder");
    let controller = controller(&home.path().join("controller"), &[]).expect("it serves");
    let (address, good) = (address(&controller), controller.named("token"));
    let state = home.path().join("agent");
    let join = |address: &str, more: &[&str]| refused(serve::start(agent_command(&state, address, more)));

    check(&join(&address, &[]), 1, &["no token was given", "`bellows token` prints one", "--token"]);
    check(
        &join(&address, &["--token", "nonsense"]),
        1,
        &["the join token does not begin with bellows1", "copy the whole line"],
    );
    let (head, fingerprint) = good.rsplit_once('.').expect("a token has three parts");
    // Another last digit, whichever it is.
    let wrong = format!("{}{}.{fingerprint}", &head[..head.len() - 1], if head.ends_with('0') { '1' } else { '0' });
    check(
        &join(&address, &["--token", &wrong]),
        1,
        &["refused the join", "wrong or has expired", "`bellows token`", &address],
    );
    let elsewhere = format!("{head}.{}", "0".repeat(64));
    check(
        &join(&address, &["--token", &elsewhere]),
        1,
        &["is not of the cluster that the token names", "take an address of that cluster", &address],
    );

    let expired = controller.run(&["token", "--valid", "1s", "-o", "json"]).json();
    let expires = expired["expires_unix_ms"].as_u64().expect("a time");
    let now = || std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as u64);
    while now() <= expires {
        std::thread::park_timeout(std::time::Duration::from_millis(expires.saturating_sub(now()) + 1));
    }
    let token = expired["token"].as_str().expect("a token");
    check(&join(&address, &["--token", token]), 1, &["wrong or has expired", "`bellows token`"]);

    let (_held, nobody) = crate::network::silent();
    let nobody = nobody.to_string();
    let unreachable = join(&nobody, &["--token", &good, "--join-timeout", "1s"]);
    check(
        &unreachable,
        1,
        &["no controller could be reached within 1s", &nobody, "Connection refused", "is the address right"],
    );
    let nodes = controller.run(&["nodes", "-o", "json"]).json();
    assert_eq!(nodes.as_array().map(Vec::len), Some(0), "nobody has joined: {nodes}");

    let agent =
        serve::start(agent_command(&state, &address, &["--token", &good])).expect("with the right token it joins");
    known_names(&controller);
    second_agent(&state, &address);
    stranger(agent, &controller, &home.path().join("stranger"), &state);
}

/// Of nodes too, the nearest name is told.
fn known_names(controller: &Serving) {
    for verb in [
        &["drain", "bad-strat"][..],
        &["cordon", "bad-strat"],
        &["uncordon", "bad-strat"],
        &["node", "rm", "bad-strat"],
    ] {
        check(
            &controller.run(verb),
            5,
            &["there is no node \"bad-strat\"", "did you mean \"bad-start\"?", "`bellows nodes`"],
        );
    }
}

fn second_agent(state: &Path, address: &str) {
    let second = refused(serve::start(agent_command(state, address, &[])));
    check(&second, 1, &["is in use by process", "stop that agent", "--state"]);
}

/// Before anything is made of it.
fn damaged_journal(state: &Path) {
    let journal = state.join("journal");
    let kept = fs::read(&journal).expect("it is there");
    let mut bent = kept.clone();
    bent.splice(..0, *b"0000000000000000 0 {}\n");
    fs::write(&journal, &bent).expect("a file of ours");
    let refused = refused(serve::start(agent_command(state, "127.0.0.1:1", &[])));
    let words =
        ["is damaged at line 1", journal.to_str().expect("UTF-8"), "restore it from a backup", "move the file away"];
    check(&refused, 1, &words);
    assert_eq!(fs::read(&journal).expect("it is there"), bent, "it is left as it was found");
    fs::write(&journal, kept).expect("a file of ours");
}

/// A node of one cluster at the address of another: told once, with the way out, and it goes on looking for its own.
fn stranger(agent: Serving, own: &Serving, folder: &Path, state: &Path) {
    agent.end();
    damaged_journal(state);
    let other = controller(folder, &[]).expect("it serves");
    let lost = serve::start(agent_command(state, &address(&other), &[]))
        .expect("a node that has joined starts without a controller");
    lost.until_said("is not of the cluster that this node has joined");
    let said = lost.said();
    assert!(said.contains(&address(&other)) && said.contains("--controller") && said.contains("--state"), "{said}");
    assert_eq!(lost.end().code, 0);
    let back = serve::start(agent_command(state, &address(own), &[])).expect("it starts");
    back.until_said("greeted by the leader");
    assert_eq!(back.end().code, 0);
}

/// Written by a later version: refused, and left as it is.
#[test]
fn folders_of_a_newer_version() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let state = home.path().join("controller");
    controller(&state, &[]).expect("it serves").end();
    let newer = ["newer", "version"];

    let version = state.join("version");
    let kept = fs::read(&version).expect("it is there");
    fs::write(&version, "2\n").expect("a file of ours");
    let before = content(&state);
    check(&refused(controller(&state, &[])), 1, &[&newer[..], &["layout 2", "knows 1", "--state"]].concat());
    assert_eq!(content(&state), before);
    fs::write(&version, "one\n").expect("a file of ours");
    check(&refused(controller(&state, &[])), 1, &["is not a controller's", "`version` holds no number", "--state"]);
    fs::write(&version, kept).expect("a file of ours");

    let version = state.join("images/version");
    fs::write(&version, "2\n").expect("a file of ours");
    let before = content(&state.join("images"));
    check(&refused(controller(&state, &[])), 1, &["image store", "version 2", "newer program", "--store"]);
    assert_eq!(content(&state.join("images")), before);
    fs::write(&version, "1\n").expect("a file of ours");
    controller(&state, &[]).expect("mended, it serves").end();

    fs::create_dir(home.path().join("else")).expect("a temporary folder");
    fs::write(home.path().join("else/notes.txt"), "mine").expect("a temporary file");
    check(&refused(controller(&home.path().join("else"), &[])), 1, &["is not a controller's", "notes.txt", "--state"]);
    check(&refused(controller(&home.path().join("else/notes.txt"), &[])), 1, &["notes.txt", "--state"]);
}

#[test]
fn a_nodes_folder_of_a_newer_version() {
    if !root() {
        return;
    }
    let home = tempfile::tempdir().expect("a temporary folder");
    let state = home.path().join("agent");
    let store = state.join("images");
    fs::create_dir_all(&store).expect("a temporary folder");
    fs::write(state.join("version"), "2\n").expect("a temporary file");
    let before = content(&state);
    let start = || refused(serve::start(agent_command(&state, "127.0.0.1:1", &["--token", "x"])));
    check(&start(), 1, &["has version \"2\"", "this program knows 1", "use the program that wrote it", "--state"]);
    assert_eq!(content(&state), before);

    let dev = home.path().join("dev");
    serve::start(dev_command(&dev, "10.196.0.0/16")).expect("it serves").end();
    let at = [dev.join("controller/version"), dev.join("images/version"), dev.join("nodes/node-1/version")];
    for version in at {
        let kept = fs::read(&version).unwrap_or_else(|error| panic!("{}: {error}", version.display()));
        fs::write(&version, "2\n").expect("a file of ours");
        let refused = refused(serve::start(dev_command(&dev, "10.196.0.0/16")));
        check(&refused, 1, &["version", "2", version.parent().and_then(Path::to_str).expect("UTF-8")]);
        fs::write(&version, kept).expect("a file of ours");
    }
    assert_eq!(serve::start(dev_command(&dev, "10.196.0.0/16")).expect("mended, it serves").end().code, 0);
}

#[test]
fn a_read_only_disk() {
    if !root() {
        return;
    }
    let home = tempfile::tempdir().expect("a temporary folder");
    let disk = Disk::mount(home.path().join("disk"), 64 << 20);
    let state = disk.0.join("controller");
    controller(&state, &[]).expect("it serves").end();
    let before = content(&disk.0);
    disk.read_only();
    let path = disk.0.to_str().expect("a temporary path is UTF-8").to_owned();
    for folder in [state.clone(), disk.0.join("new")] {
        check(&refused(controller(&folder, &[])), 1, &[&path, "Read-only file system", "--state"]);
    }
    let agent = refused(serve::start(agent_command(&disk.0.join("agent"), "127.0.0.1:1", &["--token", "x"])));
    check(&agent, 1, &[&path, "Read-only file system", "make that file system writable", "--state"]);
    check(
        &refused(serve::start(dev_command(&disk.0.join("dev"), "10.195.0.0/16"))),
        1,
        &[&path, "Read-only file system", "--state"],
    );
    assert_eq!(content(&disk.0), before);
    disk.writable();
    controller(&state, &[]).expect("mended, it serves").end();
}

/// A log with some entries, as a controller leaves it.
fn written(home: &Path) -> PathBuf {
    let state = home.join("state");
    let controller = controller(&state, &[]).expect("it serves");
    for _ in 0..5 {
        assert_eq!(controller.run(&["token"]).code, 0);
    }
    controller.kill();
    state
}

fn log_file(state: &Path) -> PathBuf {
    let entries = fs::read_dir(state.join("raft/log")).expect("a log").map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.extension().is_some_and(|end| end == "raftlog")).max().expect("a log has a file")
}

/// Refused with the way out, as whole as it was found, and fine again once the lost is put back.
fn damaged(title: &str, words: &[&str], damage: impl FnOnce(&Path)) {
    let home = tempfile::tempdir().expect("a temporary folder");
    let state = written(home.path());
    let backup = home.path().join("backup");
    copy(&state, &backup);
    damage(&state);
    let before = fs::read(state.join("credential.json")).expect("it is there");
    for _ in 0..2 {
        let refused = refused(controller(&state, &[]));
        check(&refused, 1, &["the controller's log cannot be used", state.to_str().expect("UTF-8"), "from a backup"]);
        check(&refused, 1, words);
    }
    assert_eq!(fs::read(state.join("credential.json")).expect("it is there"), before, "{title}");
    fs::remove_dir_all(&state).expect("a folder of ours");
    copy(&backup, &state);
    controller(&state, &[]).unwrap_or_else(|refused| panic!("{title}: {refused:?}")).end();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a temporary folder");
    for entry in fs::read_dir(from).expect("a folder of ours") {
        let path = entry.expect("its entries are readable").path();
        let target = to.join(path.file_name().expect("entries have names"));
        match path.is_dir() {
            true => copy(&path, &target),
            false => drop(fs::copy(&path, &target).expect("a file of ours")),
        }
    }
}

#[test]
fn a_damaged_log() {
    damaged("a bent byte", &["raft log"], |state| {
        let path = log_file(state);
        let mut bytes = fs::read(&path).expect("a log");
        let end = bytes.iter().rposition(|byte| *byte != 0).expect("something was written");
        bytes[end - 200] ^= 0x55;
        fs::write(&path, bytes).expect("a file of ours");
    });
    damaged("cut off", &["its end is lost or damaged"], |state| {
        let path = log_file(state);
        let file = fs::File::options().write(true).open(&path).expect("a log");
        let bytes = fs::read(&path).expect("a log");
        let end = bytes.iter().rposition(|byte| *byte != 0).expect("something was written");
        file.set_len(end as u64 - 300).expect("a file of ours");
    });
    damaged("no mark", &["raft/mark is missing or damaged"], |state| {
        fs::remove_file(state.join("raft/mark")).expect("a file of ours");
    });
    damaged("no log", &["its end is lost or damaged"], |state| {
        fs::remove_dir_all(state.join("raft/log")).expect("a folder of ours");
    });
}

#[test]
fn a_folder_without_credentials_worth_a_name() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let state = home.path().join("state");
    controller(&state, &[]).expect("it serves").end();
    let authority = state.join("authority.pem");
    let kept = fs::read(&authority).expect("it is there");
    fs::write(&authority, &kept[..kept.len() / 2]).expect("a file of ours");
    let before = content(&state);
    let refused = refused(controller(&state, &[]));
    check(&refused, 1, &["authority.pem", "backup"]);
    assert_eq!(content(&state).len(), before.len());
    fs::write(&authority, kept).expect("a file of ours");
    controller(&state, &[]).expect("mended, it serves").end();
}
