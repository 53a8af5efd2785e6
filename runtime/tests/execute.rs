//! Programs executed in running containers: bounded as the app is, connected, ended with whoever asked for them, and out of the app's reach while
//! they enter.

mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use bellows_runtime::handle::{Copy, Error, Execute, Execution, ExecutionStreams, Exit, Window};
use bellows_runtime::{ContainerSpec, Runtime, User};
use support::{Place, is_running, lines, place, wait_until};

/// A runtime with a busybox container in it that does what `script` says; nothing, said aloud, where that cannot be.
fn shell(script: &str) -> Option<(Place, Runtime, ContainerSpec)> {
    let place = place()?;
    let image = place.busybox()?;
    let runtime = place.start();
    let mut spec = place.spec("app", &["sh", "-c", script]);
    spec.root = image;
    runtime.launch(&spec).expect("launched");
    Some((place, runtime, spec))
}

/// The init, its shell, the shell's sleep.
fn settled(runtime: &Runtime, spec: &ContainerSpec) -> u64 {
    wait_until("the app sleeps", || runtime.usage(&spec.id).expect("usage").processes == 3);
    3
}

const WAIT: &str = "trap 'exit 0' TERM; while :; do busybox sleep 1000 & wait; done";

fn with_args(spec: &ContainerSpec, args: &[&str]) -> ContainerSpec {
    ContainerSpec { args: args.iter().map(|arg| (*arg).to_owned()).collect(), ..spec.clone() }
}

struct Said {
    output: String,
    errors: String,
    exit: Exit,
}

fn finish(mut execution: Execution, input: &[u8]) -> Said {
    let ExecutionStreams::Piped { input: to, output, errors } = &mut execution.streams else { panic!("pipes") };
    let mut writer = File::from(to.take().expect("not yet taken"));
    let read = |fd: &OwnedFd| {
        let mut file = File::from(fd.try_clone().expect("descriptors are left"));
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).expect("readable");
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let (output, errors) = (read(output), read(errors));
    // One that reads no more may do so.
    let unread = writer.write_all(input).err().map(|error| error.kind());
    assert!(matches!(unread, None | Some(std::io::ErrorKind::BrokenPipe)), "{unread:?}");
    drop(writer);
    let exit = execution.wait().expect("it ends");
    Said { output: output.join().expect("read"), errors: errors.join().expect("read"), exit }
}

fn run(runtime: &Runtime, spec: &ContainerSpec, args: &[&str], input: &[u8]) -> Said {
    let execution = runtime.execute(&with_args(spec, args), Execute::Piped).expect("executed");
    finish(execution, input)
}

fn done(place: Place, runtime: Runtime) {
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

#[test]
fn streams_are_apart_and_the_exit_code_comes_back() {
    let Some((place, runtime, spec)) = shell(WAIT) else { return };
    let said = run(&runtime, &spec, &["sh", "-c", "cat; echo wrong >&2; exit 7"], b"from outside");
    assert_eq!((&said.output[..], &said.errors[..], said.exit), ("from outside", "wrong\n", Exit::Code(7)));
    let said = run(&runtime, &spec, &["sh", "-c", "kill -TERM $$"], b"");
    assert_eq!(said.exit, Exit::Signal(15));
    // More than any pipe holds, both ways.
    let much = vec![b'x'; 1 << 20];
    assert_eq!(run(&runtime, &spec, &["cat"], &much).output.len(), much.len());
    done(place, runtime);
}

#[test]
fn it_is_where_and_what_the_app_is() {
    let Some((place, runtime, mut spec)) = shell(WAIT) else { return };
    spec.user = User { uid: 33, gid: 44, groups: vec![5] };
    spec.working_dir = "/bin".into();
    spec.env = vec!["COLOUR=blue".into()];
    let look = "pwd; id -u; id -G; echo $COLOUR; echo /proc/self/fd/*; \
                cat /proc/self/cgroup /proc/self/uid_map | busybox sort -u; busybox readlink /dev/stdout; echo hi > /dev/stderr";
    let said = run(&runtime, &spec, &["sh", "-c", look], b"");
    let lines: Vec<&str> = said.output.lines().collect();
    // The fourth descriptor is the shell's own, of the directory it lists.
    assert_eq!(
        lines[..5],
        ["/bin", "33", "44 5", "blue", "/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3"]
    );
    assert!(said.output.contains(":/\n") && !said.output.contains("/bellows"), "{}", said.output);
    assert_eq!(said.errors, "hi\n", "its own /dev/stderr can be opened");
    let bounds = "grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/$0/status; for n in cgroup ipc mnt net pid user uts; do busybox readlink /proc/$0/ns/$n; done; \
                  grep -E 'open files|core file' /proc/$0/limits";
    spec.user = User::default();
    let of = |process: &str| run(&runtime, &spec, &["sh", "-c", bounds, process], b"").output;
    let (own, app) = (of("self"), of("2"));
    assert_eq!(own, app);
    assert!(
        own.contains("Seccomp:\t2") && own.contains("NoNewPrivs:\t1") && own.contains("CapEff:\t00000000a80425fb"),
        "{own}"
    );
    assert_eq!(own.lines().count(), 16, "{own}");
    settled(&runtime, &spec);
    let execution = runtime.execute(&with_args(&spec, &["cat"]), Execute::Piped).expect("executed");
    assert_eq!(runtime.usage(&spec.id).expect("usage").processes, 4);
    finish(execution, b"");
    done(place, runtime);
}

#[test]
fn what_is_not_there_or_no_program_is_told_apart() {
    let Some((place, runtime, spec)) = shell(WAIT) else { return };
    let refused = |args: &[&str]| match runtime.execute(&with_args(&spec, args), Execute::Piped) {
        Err(Error::Enter { failure, .. }) => (failure.step, failure.errno),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&["nothing"]), ("execute nothing".to_owned(), Some(libc::ENOENT)));
    assert_eq!(refused(&["/etc/hosts"]), ("execute /etc/hosts".to_owned(), Some(libc::EACCES)));
    assert_eq!(refused(&["/etc"]), ("execute /etc".to_owned(), Some(libc::EACCES)));
    let elsewhere = ContainerSpec { working_dir: "/etc/hosts".into(), ..with_args(&spec, &["cat"]) };
    match runtime.execute(&elsewhere, Execute::Piped) {
        Err(error) => assert!(error.to_string().contains("go to the working directory /etc/hosts"), "{error}"),
        Ok(_) => panic!("a file is no directory"),
    }
    let missing = ContainerSpec { working_dir: "/missing".into(), ..with_args(&spec, &["cat"]) };
    match runtime.execute(&missing, Execute::Piped) {
        Err(Error::Enter { failure, .. }) => assert_eq!(failure.errno, Some(libc::ENOENT), "{failure:?}"),
        other => panic!("{other:?}"),
    }
    done(place, runtime);
}

#[test]
fn no_working_directory_leads_out_through_a_descriptor() {
    let Some((place, runtime, spec)) = shell(WAIT) else { return };
    for number in 0..64 {
        let spec =
            ContainerSpec { working_dir: format!("/proc/self/fd/{number}").into(), ..with_args(&spec, &["cat"]) };
        match runtime.execute(&spec, Execute::Piped) {
            Err(Error::Enter { failure, .. }) => assert!(failure.step.contains("working directory"), "{failure:?}"),
            other => panic!("descriptor {number}: {other:?}"),
        }
    }
    done(place, runtime);
}

#[test]
fn whoever_lets_go_ends_the_program_and_its_group() {
    let Some((place, runtime, spec)) = shell(WAIT) else { return };
    let before = settled(&runtime, &spec);
    let execution =
        runtime.execute(&with_args(&spec, &["sh", "-c", "trap '' TERM HUP; busybox sleep 1000; :"]), Execute::Piped);
    let execution = execution.expect("executed");
    wait_until("both run", || runtime.usage(&spec.id).expect("usage").processes == before + 2);
    drop(execution);
    wait_until("both are gone", || runtime.usage(&spec.id).expect("usage").processes == before);
    done(place, runtime);
}

#[test]
fn the_end_of_the_container_is_its_end() {
    let Some((place, runtime, spec)) = shell(WAIT) else { return };
    let execution = runtime.execute(&with_args(&spec, &["cat"]), Execute::Piped).expect("executed");
    runtime.kill(&spec.id).expect("killed");
    assert_eq!(execution.wait().expect("it ends"), Exit::Signal(9));
    runtime.reap(&spec.id).expect("reaped");
    let late = runtime.execute(&with_args(&spec, &["cat"]), Execute::Piped);
    assert!(matches!(late, Err(Error::HasEnded(_))), "{late:?}");
    // When its launcher ends first, who looked after the program is a zombie until then.
    drop(execution);
    done(place, runtime);
}

#[test]
fn nobody_enters_what_is_frozen() {
    let Some((place, runtime, spec)) = shell(WAIT) else { return };
    runtime.freeze(&spec.id).expect("frozen");
    let refused = runtime.execute(&with_args(&spec, &["cat"]), Execute::Piped);
    assert!(matches!(refused, Err(Error::Frozen(_))), "{refused:?}");
    runtime.thaw(&spec.id).expect("thawed");
    assert_eq!(run(&runtime, &spec, &["cat"], b"x").output, "x");
    done(place, runtime);
}

fn read_until(terminal: &mut File, wanted: &str) -> String {
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    while !String::from_utf8_lossy(&seen).contains(wanted) {
        let n = terminal.read(&mut piece).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&seen)));
        seen.extend_from_slice(&piece[..n]);
    }
    String::from_utf8_lossy(&seen).into_owned()
}

fn on_terminal(runtime: &Runtime, spec: &ContainerSpec, args: &[&str]) -> (Execution, File) {
    let window = Window { columns: 81, rows: 25 };
    let execution = runtime.execute(&with_args(spec, args), Execute::OnTerminal(window)).expect("executed");
    let ExecutionStreams::Terminal(terminal) = &execution.streams else { panic!("a terminal") };
    rustix::fs::fcntl_setfl(terminal, rustix::fs::OFlags::RDWR).expect("it may wait");
    let file = File::from(terminal.try_clone().expect("descriptors are left"));
    (execution, file)
}

#[test]
fn a_terminal_has_a_name_a_size_and_signals() {
    let Some((place, runtime, mut spec)) = shell(WAIT) else { return };
    spec.user.uid = 33;
    let script = "busybox tty; busybox stty size; trap 'busybox stty size; exit 5' WINCH; busybox stty -echo; echo ready; while :; do read x; done";
    let (execution, mut terminal) = on_terminal(&runtime, &spec, &["sh", "-c", script]);
    let seen = read_until(&mut terminal, "ready");
    assert!(seen.contains("/dev/pts/0") && seen.contains("25 81"), "{seen}");
    execution.streams.resize(Window { columns: 132, rows: 50 }).expect("resized");
    terminal.write_all(b"\n").expect("a line");
    read_until(&mut terminal, "50 132");
    assert_eq!(execution.wait().expect("it ends"), Exit::Code(5));
    drop(execution);
    // Its session hangs up when the terminal goes.
    let (execution, mut terminal) = on_terminal(&runtime, &spec, &["sh", "-c", "echo ready; cat"]);
    read_until(&mut terminal, "ready");
    let before = runtime.usage(&spec.id).expect("usage").processes;
    drop((execution, terminal));
    wait_until("it is gone", || runtime.usage(&spec.id).expect("usage").processes < before);
    done(place, runtime);
}

/// The app puts a link to a file of its own in the place of the terminals: what is behind it is not used as one.
#[test]
fn a_terminal_is_not_taken_from_a_path_that_the_app_made() {
    let Some((place, runtime, spec)) = shell(
        "busybox mv /dev /was && busybox mkdir -p /dev/pts && busybox mkfifo /dev/pts/ptmx && echo moved; busybox sleep 1000",
    ) else {
        return;
    };
    let moved = || lines(&runtime, "app").iter().any(|line| line.text == "moved" || line.stream == "stderr");
    wait_until("the app has tried", moved);
    let refused = runtime.execute(&with_args(&spec, &["/bin/cat"]), Execute::OnTerminal(Window::default()));
    match refused {
        // A kernel that lets nobody rename what has mounts in it leaves the terminals where they were.
        Ok(execution) => assert!(lines(&runtime, "app").iter().any(|line| line.stream == "stderr"), "{execution:?}"),
        Err(error) => assert!(error.to_string().contains("open a terminal in the container"), "{error}"),
    }
    done(place, runtime);
}

/// An archive of one file.
fn archive(name: &str, content: &[u8]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o640);
    archive.append_data(&mut header, name, content).expect("added");
    archive.into_inner().expect("written")
}

#[test]
fn copies_are_the_apps_users_bounded_and_charged_as_the_app_is() {
    let Some((place, runtime, mut spec)) = shell(WAIT) else { return };
    spec.user = User { uid: 33, gid: 44, groups: Vec::new() };
    let into = |path: &str, content: &[u8]| {
        let what = Copy::In { path: path.into(), must_be_folder: false };
        finish(runtime.copy(&spec, what).expect("somebody is sent in"), &archive("file", content))
    };
    let before = runtime.usage(&spec.id).expect("usage").memory_bytes;
    let half = spec.limits.scratch_bytes as usize / 2;
    let said = into("/here", &vec![1; half]);
    assert_eq!((&said.errors[..], said.exit), ("", Exit::Code(0)));
    assert!(
        runtime.usage(&spec.id).expect("usage").memory_bytes >= before + half as u64 / 2,
        "its memory is the app's"
    );
    let look = ["busybox", "stat", "-c", "%u %g %a %s", "/here"];
    assert_eq!(run(&runtime, &spec, &look, b"").output, format!("33 44 640 {half}\n"));
    let said = into("/more", &vec![1; half + (1 << 20)]);
    assert!(said.exit == Exit::Code(1) && said.errors.contains("writable layer is full"), "{}", said.errors);
    let out = finish(runtime.copy(&spec, Copy::Out { path: "/here".into() }).expect("somebody is sent in"), b"");
    assert_eq!(out.exit, Exit::Code(0));
    // Whoever is killed in the midst of it leaves nothing.
    let unfinished = runtime.copy(&spec, Copy::In { path: "/late".into(), must_be_folder: false }).expect("sent in");
    let files = || run(&runtime, &spec, &["sh", "-c", "echo /.bellows* /late*"], b"").output;
    wait_until("it has begun", || files().contains("/.bellows-cp-"));
    drop(unfinished);
    wait_until("it has cleaned up", || files() == "/.bellows* /late*\n");
    done(place, runtime);
}

/// While programs enter, the app looks at every process that it sees: all that it may read must be its own image's.
#[test]
fn nothing_inside_reaches_whoever_enters() {
    let spy = "while :; do for p in /proc/[0-9]*; do \
               x=$(busybox readlink $p/exe) && case $x in /bin/busybox) ;; *) echo \"exe $x\";; esac; \
               for f in $p/fd/*; do l=$(busybox readlink $f) && case $l in pipe:*|/dev/null|/proc/*|/bin/*) ;; *) echo \"fd $l\";; esac; done; \
               r=$(busybox readlink $p/root) && case $r in /) ;; *) echo \"root $r\";; esac; \
               done 2>/dev/null; echo round; done";
    let Some((place, runtime, spec)) = shell(spy) else { return };
    let rounds = || lines(&runtime, "app").iter().filter(|line| line.text == "round").count();
    wait_until("the app looks", || rounds() > 0);
    for _ in 0..60 {
        assert_eq!(run(&runtime, &spec, &["cat"], b"").exit, Exit::Code(0));
    }
    let at = rounds();
    wait_until("it has looked after the last", || rounds() > at);
    let found: Vec<String> =
        lines(&runtime, "app").into_iter().map(|line| line.text).filter(|text| text != "round").collect();
    assert!(found.is_empty(), "{found:?}");
    done(place, runtime);
}

#[test]
fn who_was_sent_in_is_no_zombie_when_its_launcher_died() {
    let Some((place, runtime, spec)) = shell(WAIT) else { return };
    let execution = runtime.execute(&with_args(&spec, &["cat"]), Execute::Piped).expect("executed");
    let launcher = runtime.launcher_pids()[0];
    let children = std::fs::read_to_string(format!("/proc/{launcher}/task/{launcher}/children")).expect("it lives");
    let attendant = children.split_whitespace().last().expect("the init, and whoever was sent in");
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(launcher.cast_signed()).expect("a number"),
        rustix::process::Signal::KILL,
    )
    .expect("killed");
    wait_until("the launcher is gone", || !is_running(launcher));
    assert_eq!(finish(execution, b"on").output, "on");
    let left = std::fs::exists(format!("/proc/{attendant}")).expect("/proc is there");
    assert!(!left, "a zombie is left");
    done(place, runtime);
}
