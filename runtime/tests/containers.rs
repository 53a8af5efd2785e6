//! Real containers, as root on this machine. Each test has a runtime of its own and counts what is left behind.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bellows_runtime::handle::{Adopted, Error, Exit};
use bellows_runtime::spec::SpecError;
use bellows_runtime::{ContainerId, ContainerSpec, Runtime, User};
use support::{Place, launch_in_its_turn, lines, place, wait_until};

fn run(place: &Place, runtime: &Runtime, name: &str, args: &[&str]) -> Exit {
    let spec = place.spec(name, args);
    runtime.launch(&spec).expect("launched");
    runtime.reap(&spec.id).expect("reaped").exit
}

#[test]
fn exit_codes_and_signals_come_back() {
    let Some(place) = place() else { return };
    let runtime = place.start();
    for code in [0, 7, 255] {
        assert_eq!(
            run(&place, &runtime, &format!("code-{code}"), &["/bin/payload", "exit", &code.to_string()]),
            Exit::Code(code)
        );
    }
    assert_eq!(run(&place, &runtime, "abort", &["/bin/payload", "abort"]), Exit::Signal(6));
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

/// Whoever waits for it finds as many slots as are to be made ahead, or as can be: this subnet has room for fewer in the end.
#[test]
fn a_runtime_can_be_awaited_until_its_pool_is_full() {
    let Some(mut place) = place() else { return };
    for (ready, made) in [(5, 5), (1000, 30)] {
        place.pool(ready);
        let runtime = place.start();
        runtime.await_pool(Duration::from_secs(60));
        assert_eq!(place.links().len(), made, "of {ready}");
        runtime.shutdown().expect("shut down");
        place.assert_clean();
    }
}

/// An image that was removed and has come back is another tree at the same path.
#[test]
fn an_image_that_comes_back_after_its_removal_is_the_new_one() {
    let Some(place) = place() else { return };
    let runtime = place.start();
    for code in [3, 4, 5] {
        let name = format!("code-{code}");
        assert_eq!(run(&place, &runtime, &name, &["/bin/payload", "exit", &code.to_string()]), Exit::Code(code));
        fs::remove_dir_all(place.image()).expect("removed");
        support::put(&place.image().join("bin/payload"), bellows_runtime::launch::PAYLOAD);
    }
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

/// Whether or not an init was there in time: exit codes, what was written, and the end of whoever was left.
#[test]
fn the_shortest_lives_lose_nothing() {
    let Some(place) = place() else { return };
    let runtime = place.start();
    let lives: [(&[&str], Exit, &[&str]); 4] = [
        (&["/bin/payload", "exit", "7"], Exit::Code(7), &[]),
        (&["/bin/payload", "fork", "3"], Exit::Code(3), &[]),
        (&["/bin/payload", "print", "0"], Exit::Code(0), &["last words"]),
        (&["/bin/payload", "abort"], Exit::Signal(6), &[]),
    ];
    for (number, (program, exit, said)) in lives.into_iter().cycle().take(100).enumerate() {
        let spec = place.spec(&format!("short-{number}"), program);
        let started = runtime.launch(&spec).expect("launched").started_unix_ms;
        let ended = runtime.reap(&spec.id).expect("reaped");
        assert_eq!(ended.exit, exit, "{program:?}");
        assert!((started..started + 60_000).contains(&ended.ended_unix_ms), "{started} {ended:?}");
        let lines: Vec<String> = lines(&runtime, spec.id.as_str()).into_iter().map(|line| line.text).collect();
        assert_eq!(lines, said, "{program:?}");
        runtime.forget(&spec.id).expect("forgotten");
    }
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

#[test]
fn devices_are_the_same_under_every_image() {
    let Some(place) = place() else { return };
    let Some(busybox) = place.busybox() else { return };
    support::put(&busybox.join("dev/own"), b"of the image");
    let runtime = place.start();
    for (name, path, code) in [("image", "/dev/own", 1), ("node", "/dev/null", 0)] {
        let mut spec = place.spec(name, &["/bin/busybox", "ls", path]);
        spec.root = busybox.clone();
        runtime.launch(&spec).expect("launched");
        assert_eq!(runtime.reap(&spec.id).expect("reaped").exit, Exit::Code(code), "{path}");
    }
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

/// Roots are made ahead of the size that the last container of a slot had.
#[test]
fn a_writable_layer_is_as_large_as_its_own_container_asks() {
    let Some(place) = place() else { return };
    let Some(busybox) = place.busybox() else { return };
    let runtime = place.start();
    for (number, mib) in [1, 1, 4, 1, 4, 4].into_iter().enumerate() {
        let mut spec = place.spec(&format!("df-{number}"), &["/bin/busybox", "df", "-m", "/"]);
        (spec.root, spec.limits.scratch_bytes) = (busybox.clone(), mib << 20);
        runtime.launch(&spec).expect("launched");
        assert_eq!(runtime.reap(&spec.id).expect("reaped").exit, Exit::Code(0));
        let said = lines(&runtime, spec.id.as_str()).pop().expect("a line").text;
        assert_eq!(said.split_whitespace().nth(1), Some(mib.to_string().as_str()), "{said}");
        runtime.forget(&spec.id).expect("forgotten");
        runtime.settle();
    }
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

#[test]
fn a_program_with_default_handlers_ends_at_once_on_sigterm() {
    let Some(place) = place() else { return };
    let runtime = place.start();
    let spec = place.spec("sleeper", &["/bin/payload", "sleep"]);
    runtime.launch(&spec).expect("launched");
    let began = Instant::now();
    runtime.signal(&spec.id, 15).expect("sent");
    assert_eq!(runtime.reap(&spec.id).expect("reaped").exit, Exit::Signal(15));
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

/// Who served before left connections that wait out their time: they keep nobody from the port.
#[test]
fn the_next_container_in_a_network_finds_no_old_connections() {
    let Some(place) = place() else { return };
    let runtime = place.start();
    let (mut seen, mut seen_again) = (BTreeSet::new(), false);
    for number in 0..100 {
        let spec = place.spec(&format!("server-{number}"), &["/bin/payload", "listen", "8080"]);
        let address = launch_in_its_turn(&runtime, &spec).address;
        wait_until("it listens", || runtime.listening(&spec.id, 8080).expect("asked"));
        let mut said = String::new();
        let mut stream =
            TcpStream::connect_timeout(&(address, 8080).into(), Duration::from_secs(2)).expect("it listens");
        // It says goodbye first: its end of the connection is the one that waits.
        stream.read_to_string(&mut said).expect("readable");
        assert_eq!(said, "hello\n");
        runtime.kill(&spec.id).expect("killed");
        runtime.reap(&spec.id).expect("reaped");
        runtime.forget(&spec.id).expect("forgotten");
        // After its rest.
        seen_again = !seen.insert(address);
        if seen_again {
            break;
        }
    }
    assert!(seen_again, "no address was used again");
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

#[test]
fn a_busy_mark_is_seen_while_it_is_held_and_is_nobody_elses() {
    let Some(place) = place() else { return };
    let runtime = place.start();
    let busy = place.spec("busy", &["/bin/payload", "mark", "1"]);
    let other = place.spec("other", &["/bin/payload", "sleep"]);
    runtime.launch(&other).expect("launched");
    runtime.launch(&busy).expect("launched");
    let held = |spec: &bellows_runtime::ContainerSpec| runtime.usage(&spec.id).expect("read").busy_mark;
    wait_until("it is busy", || held(&busy));
    assert!(!held(&other), "its neighbour is not");
    wait_until("it has let go of it", || !held(&busy));
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

#[test]
fn what_cannot_be_executed_names_the_step_and_leaves_nothing() {
    let Some(place) = place() else { return };
    let runtime = place.start();
    let spec = place.spec("none", &["/bin/nothing"]);
    let error = runtime.launch(&spec).expect_err("there is no such program");
    let Error::Step { failure, .. } = &error else { panic!("{error:?}") };
    assert_eq!((failure.errno, failure.undo.clone()), (Some(2), None));
    assert!(error.to_string().contains("execute /bin/nothing"), "{error}");
    assert!(matches!(runtime.log(&spec.id), Err(Error::NoSuchContainer(_))));
    // The name and everything else are free again.
    assert_eq!(run(&place, &runtime, "none", &["/bin/payload", "exit", "3"]), Exit::Code(3));
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

#[test]
fn a_state_folder_that_went_away_is_named_and_nothing_is_left() {
    let Some(place) = place() else { return };
    let runtime = place.start();
    let folder = runtime.config().state.join("containers");
    // The runtime makes folders ahead at the same time.
    wait_until("the folder is gone", || fs::remove_dir_all(&folder).is_ok() || !folder.exists());
    // Those made ahead still serve; then it shows.
    let refused = (0..100).find_map(|n| {
        let spec = place.spec(&format!("n{n}"), &["/bin/payload", "exit", "0"]);
        let launched = runtime.launch(&spec);
        launched.and_then(|_| runtime.reap(&spec.id)).and_then(|_| runtime.forget(&spec.id)).err()
    });
    match refused {
        Some(Error::State { path, .. }) => assert!(path.starts_with(&folder), "{}", path.display()),
        other => panic!("{other:?}"),
    }
    fs::create_dir_all(&folder).expect("mended");
    assert_eq!(run(&place, &runtime, "after", &["/bin/payload", "exit", "4"]), Exit::Code(4));
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

#[test]
fn names_are_unique_until_forgotten() {
    let Some(place) = place() else { return };
    let runtime = place.start();
    let spec = place.spec("once", &["/bin/payload", "exit", "0"]);
    runtime.launch(&spec).expect("launched");
    runtime.reap(&spec.id).expect("reaped");
    assert!(matches!(runtime.launch(&spec), Err(Error::Exists(_))));
    assert_eq!(runtime.reap(&spec.id).expect("reaped twice says the same").exit, Exit::Code(0));
    runtime.forget(&spec.id).expect("forgotten");
    assert!(matches!(runtime.forget(&spec.id), Err(Error::NoSuchContainer(_))));
    runtime.launch(&spec).expect("launched anew");
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

#[test]
fn a_memory_bomb_is_reported_as_out_of_memory() {
    let Some(place) = place() else { return };
    let runtime = place.start();
    let mut spec = place.spec("bomb", &["/bin/payload", "memory", "64"]);
    spec.limits.memory_bytes = 16 << 20;
    runtime.launch(&spec).expect("launched");
    assert_eq!(runtime.reap(&spec.id).expect("reaped").exit, Exit::OutOfMemory);
    spec.id = ContainerId::new("roomy").expect("an id");
    spec.limits.memory_bytes = 128 << 20;
    runtime.launch(&spec).expect("launched");
    assert_eq!(runtime.reap(&spec.id).expect("reaped").exit, Exit::Code(0));
    // Killed by hand is not out of memory, though the same cgroup may have seen one.
    spec.id = ContainerId::new("killed").expect("an id");
    spec.args = vec!["/bin/payload".into(), "sleep".into()];
    runtime.launch(&spec).expect("launched");
    runtime.kill(&spec.id).expect("killed");
    assert_eq!(runtime.reap(&spec.id).expect("reaped").exit, Exit::Signal(9));
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

#[test]
fn a_fork_bomb_is_bounded() {
    let Some(place) = place() else { return };
    let runtime = place.start();
    let mut spec = place.spec("forks", &["/bin/payload", "fork", "100"]);
    spec.limits.processes = 12;
    runtime.launch(&spec).expect("launched");
    // Init and the program itself count.
    assert_eq!(runtime.reap(&spec.id).expect("reaped").exit, Exit::Code(10));
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

#[test]
fn usage_is_counted_and_a_frozen_container_can_be_killed() {
    let Some(place) = place() else { return };
    let runtime = place.start();
    let spec = place.spec("spin", &["/bin/payload", "spin"]);
    runtime.launch(&spec).expect("launched");
    wait_until("CPU time is counted", || runtime.usage(&spec.id).is_ok_and(|usage| usage.cpu_us > 20_000));
    let usage = runtime.usage(&spec.id).expect("usage");
    assert_eq!((usage.processes, usage.connections), (2, 0), "{usage:?}");
    assert!((1..16 << 20).contains(&usage.memory_bytes), "{usage:?}");
    runtime.freeze(&spec.id).expect("frozen");
    let cpu_us = || runtime.usage(&spec.id).expect("usage").cpu_us;
    // Its last moments before it stood still may be counted a little later.
    let mut lives = 0u32..;
    let mut first = 0;
    wait_until("frozen time does not pass while another container lives", || {
        first = cpu_us();
        let name = format!("meanwhile-{}", lives.next().expect("endless"));
        run(&place, &runtime, &name, &["/bin/payload", "exit", "0"]);
        cpu_us() == first
    });
    runtime.thaw(&spec.id).expect("thawed");
    wait_until("it goes on", || runtime.usage(&spec.id).is_ok_and(|usage| usage.cpu_us > first));
    runtime.freeze(&spec.id).expect("frozen");
    runtime.kill(&spec.id).expect("killed");
    assert_eq!(runtime.reap(&spec.id).expect("reaped").exit, Exit::Signal(9));
    let node = runtime.node_usage().expect("node usage");
    assert!(node.capacity_cpu_milli >= 1000 && node.memory_bytes > 0, "{node:?}");
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

/// Its init may still be on the way then, and until it is executed its launcher waits for it.
#[test]
fn whoever_is_frozen_as_soon_as_it_runs_holds_nobody_up() {
    let Some(place) = place() else { return };
    let runtime = place.start();
    for turn in 0..40 {
        let spec = place.spec(&format!("frozen-{turn}"), &["/bin/payload", "spin"]);
        runtime.launch(&spec).expect("launched");
        runtime.freeze(&spec.id).expect("frozen");
        std::thread::scope(|scope| {
            let (tell, told) = std::sync::mpsc::sync_channel(1);
            let (place, runtime) = (&place, &runtime);
            scope
                .spawn(move || tell.send(run(place, runtime, &format!("next-{turn}"), &["/bin/payload", "exit", "3"])));
            let ended = told.recv_timeout(support::patience());
            runtime.kill(&spec.id).expect("killed");
            assert_eq!(ended, Ok(Exit::Code(3)), "of the container that was launched beside a frozen one, turn {turn}");
        });
        assert_eq!(runtime.reap(&spec.id).expect("reaped").exit, Exit::Signal(9));
    }
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

/// Nobody is in its cgroup any more, and the next one will be.
#[test]
fn who_has_ended_or_is_to_end_cannot_be_frozen() {
    let Some(place) = place() else { return };
    let runtime = place.start();
    for turn in 0..3 {
        let spec = place.spec(&format!("ended-{turn}"), &["/bin/payload", "exit", "0"]);
        runtime.launch(&spec).expect("launched");
        runtime.await_end(&spec.id).expect("awaited");
        assert!(matches!(runtime.freeze(&spec.id), Err(Error::HasEnded(_))));
        runtime.reap(&spec.id).expect("reaped");
    }
    let spec = place.spec("killed", &["/bin/payload", "spin"]);
    runtime.launch(&spec).expect("launched");
    assert!(matches!(runtime.freeze_if(&spec.id, || false), Err(Error::Overtaken(_))));
    assert!(!runtime.stats(&spec.id).expect("stats").frozen);
    runtime.kill(&spec.id).expect("killed");
    assert!(matches!(runtime.freeze(&spec.id), Err(Error::HasEnded(_))));
    assert_eq!(runtime.reap(&spec.id).expect("reaped").exit, Exit::Signal(9));
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

/// Its init has more to do than what it writes.
#[test]
fn who_writes_without_end_can_be_stopped_and_killed() {
    let Some(place) = place() else { return };
    let runtime = place.start();
    for (name, signal) in [("stopped", 15), ("killed", 9)] {
        let mut spec = place.spec(name, &["/bin/payload", "flood"]);
        spec.limits.log_bytes = 64 << 10;
        runtime.launch(&spec).expect("launched");
        wait_until("its log has gone round", || runtime.log(&spec.id).is_ok_and(|log| log.rotations > 3));
        runtime.signal(&spec.id, signal).expect("told");
        assert_eq!(runtime.reap(&spec.id).expect("reaped").exit, Exit::Signal(signal), "{name}");
    }
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

#[test]
fn the_fewest_open_files_that_may_be_asked_for_are_enough() {
    let Some(place) = place() else { return };
    let runtime = place.start();
    let mut spec = place.spec("few", &["/bin/payload", "print", "3"]);
    spec.limits.open_files = 1;
    let Err(Error::Spec(SpecError::TooSmall { least, .. })) = runtime.launch(&spec) else { panic!("it is refused") };
    spec.limits.open_files = least;
    runtime.launch(&spec).expect("launched");
    assert_eq!(runtime.reap(&spec.id).expect("reaped").exit, Exit::Code(0));
    let spec = ContainerSpec { args: place.spec("few", &["/bin/payload", "spin"]).args, ..spec };
    let spec = ContainerSpec { id: ContainerId::new("few-that-stay").expect("an id"), ..spec };
    runtime.launch(&spec).expect("launched");
    runtime.signal(&spec.id, 15).expect("told");
    assert_eq!(runtime.reap(&spec.id).expect("reaped").exit, Exit::Signal(15));
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

#[test]
fn it_has_an_address_of_its_own_that_answers() {
    let Some(place) = place() else { return };
    let runtime = place.start();
    let spec = place.spec("server", &["/bin/payload", "listen", "80"]);
    let running = runtime.launch(&spec).expect("launched");
    wait_until("it listens", || runtime.listening(&spec.id, 80).expect("asked"));
    assert!(!runtime.listening(&spec.id, 81).expect("asked"));
    let mut streams = [
        TcpStream::connect_timeout(&(running.address, 80).into(), Duration::from_secs(2))
            .expect("reached from the host"),
        runtime.dial(&spec.id, 80, Duration::from_secs(2)).expect("dialled inside"),
    ];
    for stream in &mut streams {
        let mut said = String::new();
        stream.read_to_string(&mut said).expect("read");
        assert_eq!(said, "hello\n");
    }
    // A socket made inside keeps the container's network alive.
    drop(streams);
    assert!(runtime.dial(&spec.id, 81, Duration::from_secs(2)).is_err());
    assert!(runtime.usage(&spec.id).is_ok());
    runtime.kill(&spec.id).expect("killed");
    runtime.reap(&spec.id).expect("reaped");
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

#[test]
fn output_is_stamped_kept_and_rotated() {
    let Some(place) = place() else { return };
    let runtime = place.start();
    assert_eq!(run(&place, &runtime, "few", &["/bin/payload", "print", "3"]), Exit::Code(0));
    let said = lines(&runtime, "few");
    let texts: Vec<(&str, &str, &str)> =
        said.iter().map(|line| (line.stream.as_str(), line.tag.as_str(), &line.text[..8])).collect();
    assert_eq!(texts[..3], [("stdout", "F", "00000000"), ("stdout", "F", "00000001"), ("stdout", "F", "00000002")]);
    assert_eq!((said[3].stream.as_str(), said[3].text.as_str()), ("stderr", "last words"));
    assert!(said.windows(2).all(|pair| pair[0].unix_ms <= pair[1].unix_ms));

    let mut spec = place.spec("many", &["/bin/payload", "print", "20000"]);
    spec.limits.log_bytes = 64 << 10;
    runtime.launch(&spec).expect("launched");
    assert_eq!(runtime.reap(&spec.id).expect("reaped").exit, Exit::Code(0));
    let files = runtime.log(&spec.id).expect("a log");
    let size = |path: &std::path::Path| fs::metadata(path).expect("a file").len();
    assert!(size(&files.older) + size(&files.newer) <= 64 << 10);
    assert!(files.rotations > 10 && files.lost_bytes == 0, "{files:?}");
    let numbers: Vec<u32> = lines(&runtime, "many").iter().filter_map(|line| line.text[..8].parse().ok()).collect();
    assert_eq!(numbers.last(), Some(&19_999), "the last line is there");
    assert!(
        numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]),
        "no line is missing between the first kept and the last"
    );
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

#[test]
fn inside_it_is_alone() {
    let Some(place) = place() else { return };
    let Some(image) = place.busybox() else { return };
    let runtime = place.start();
    let script = "hostname; echo $$; ls /proc | grep -c '^[0-9]'; cat /proc/self/uid_map; id -u; ls /dev | tr '\\n' ' '; echo; \
        cat /proc/self/cgroup | grep -c '/$'; cat /proc/self/cgroup | grep -v '/$' | grep -c bellows; \
        touch /x && echo written; touch /proc/sys/kernel/hostname 2>/dev/null || echo ro; cat /proc/keys | wc -c; \
        grep -E 'NoNewPrivs|Seccomp:|CapBnd' /proc/self/status; cat /etc/hosts | tail -1; ip -o -4 addr show eth0 | grep -c inet; \
        echo hi > /dev/null && wc -c < /dev/null; ls /sys/class/net | tr '\\n' ' '; cat /proc/self/mountinfo | wc -l; ulimit -n; pwd";
    let mut spec = place.spec("inside", &["sh", "-c", script]);
    spec.root = image;
    spec.hostname = "box".into();
    spec.limits.open_files = 1234;
    spec.working_dir = "/made/on/demand".into();
    let running = runtime.launch(&spec).expect("launched");
    let exit = runtime.reap(&spec.id).expect("reaped").exit;
    let said: Vec<String> = lines(&runtime, "inside").into_iter().map(|line| line.text).collect();
    println!("{}", said.join("\n"));
    assert_eq!(exit, Exit::Code(0));
    assert_eq!(said[0], "box");
    assert_eq!(said[1], "2");
    assert!(said[2].parse::<u32>().is_ok_and(|n| n <= 5), "sees {} processes", said[2]);
    assert_eq!(said[3].split_whitespace().collect::<Vec<_>>()[2], "65536");
    assert_ne!(said[3].split_whitespace().collect::<Vec<_>>()[1], "0");
    assert_eq!(said[4], "0");
    assert_eq!(said[5].trim(), "bellows fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero");
    let text = said.join("\n");
    for want in [
        "written",
        "ro",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "CapBnd:\t00000000a80425fb",
        "eth0 lo",
        "1234",
        "/made/on/demand",
    ] {
        assert!(text.contains(want), "{want} is missing in\n{text}");
    }
    assert!(text.contains(&format!("{}\tbox", running.address)));
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

#[test]
fn program_and_init_may_use_every_cpu_though_their_launcher_keeps_to_one() {
    let Some(place) = place() else { return };
    let Some(image) = place.busybox() else { return };
    let runtime = place.start();
    let ours = fs::read_to_string("/proc/self/status").expect("our status");
    let ours = ours.lines().find(|line| line.starts_with("Cpus_allowed:")).expect("our CPUs");
    let ours = ours.split_whitespace().last().expect("a mask");
    // The program may be quicker than its init: it asks some thousand times.
    let script = format!(
        "grep -q 'Cpus_allowed:.*{ours}$' /proc/self/status || exit 1; i=0
        until grep -q 'Cpus_allowed:.*{ours}$' /proc/1/status; do i=$((i+1)); [ $i = 5000 ] && exit 2; done"
    );
    let mut spec = place.spec("cpus", &["sh", "-c", &script]);
    spec.root = image;
    runtime.launch(&spec).expect("launched");
    assert_eq!(runtime.reap(&spec.id).expect("reaped").exit, Exit::Code(0));
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

#[test]
fn hidden_directories_are_empty_and_stay_so() {
    let Some(place) = place() else { return };
    let Some(image) = place.busybox() else { return };
    if fs::read_dir("/sys/firmware").is_ok_and(|mut entries| entries.next().is_none()) {
        println!("skipped: this machine has nothing in /sys/firmware");
        return;
    }
    let runtime = place.start();
    let script = "[ -d /sys/firmware ] && [ -z \"$(ls /sys/firmware)\" ] || exit 1
        touch /sys/firmware/x 2>/dev/null && exit 2; grep -q ' /sys/firmware [a-z]* ro' /proc/mounts || exit 3";
    let mut spec = place.spec("hidden", &["sh", "-c", script]);
    spec.root = image;
    runtime.launch(&spec).expect("launched");
    assert_eq!(runtime.reap(&spec.id).expect("reaped").exit, Exit::Code(0));
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

#[test]
fn a_user_is_a_user() {
    let Some(place) = place() else { return };
    let Some(image) = place.busybox() else { return };
    let runtime = place.start();
    let mut spec =
        place.spec("user", &["sh", "-c", "id; grep CapEff /proc/self/status; touch /x || echo refused; kill -TERM $$"]);
    spec.root = image;
    spec.user = User { uid: 33, gid: 44, groups: vec![55] };
    runtime.launch(&spec).expect("launched");
    assert_eq!(runtime.reap(&spec.id).expect("reaped").exit, Exit::Signal(15));
    let said: Vec<String> = lines(&runtime, "user").into_iter().map(|line| line.text).collect();
    assert_eq!(said[0], "uid=33 gid=44 groups=55");
    assert_eq!(said[1], "CapEff:\t0000000000000000");
    assert!(said.contains(&"refused".to_owned()), "{said:?}");
    let mut spec = ContainerSpec { user: spec.user, ..place.spec("strict", &["/bin/payload", "exit", "4"]) };
    spec.deny_calls = vec![libc::SYS_prctl as u32];
    runtime.launch(&spec).expect("launched, though whoever becomes the user would make that call");
    assert_eq!(runtime.reap(&spec.id).expect("reaped").exit, Exit::Code(4));
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

#[test]
fn containers_outlive_launcher_and_runtime_and_are_adopted() {
    let Some(place) = place() else { return };
    let first = place.start();
    let stays = place.spec("stays", &["/bin/payload", "sleep"]);
    let ends = place.spec("ends", &["/bin/payload", "sleep"]);
    let stays_pid = first.launch(&stays).expect("launched").pid;
    let ends_pid = first.launch(&ends).expect("launched").pid;
    for number in first.launcher_pids() {
        let pid = rustix::process::Pid::from_raw(number as i32).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed the launcher");
        // On its way out it may still read a request, which is then lost and not repeated.
        wait_until("it is gone", || !support::is_running(number));
    }
    // Without its launcher the runtime starts another and goes on.
    assert_eq!(run(&place, &first, "after", &["/bin/payload", "exit", "5"]), Exit::Code(5));
    drop(first);
    let program = support::child_of(ends_pid).expect("the program's process");
    rustix::process::kill_process(program, rustix::process::Signal::TERM).expect("ended while nobody watched");
    wait_until("it has ended", || !support::is_running(ends_pid));

    let second = place.start();
    let mut found = BTreeSet::new();
    for adopted in second.adopt().expect("adopted") {
        found.insert(match adopted {
            Adopted::Alive(running) => (running.id.to_string(), format!("alive {}", running.pid)),
            Adopted::Ended(ended) => (ended.id.to_string(), format!("{:?}", ended.exit)),
        });
    }
    let expected =
        [("after", "Code(5)".to_owned()), ("ends", "Signal(15)".to_owned()), ("stays", format!("alive {stays_pid}"))];
    assert_eq!(found, expected.map(|(id, what)| (id.to_owned(), what)).into());
    assert_eq!(second.usage(&stays.id).expect("usage").processes, 2);
    second.signal(&stays.id, 15).expect("sent");
    assert_eq!(second.reap(&stays.id).expect("reaped").exit, Exit::Signal(15));
    second.shutdown().expect("shut down");
    place.assert_clean();
}

#[test]
fn three_hundred_in_a_row_leave_nothing() {
    let Some(place) = place() else { return };
    let runtime = place.start();
    let live = |numbers: std::ops::Range<u32>| {
        for n in numbers {
            let spec = place.spec(&format!("n{n}"), &["/bin/payload", "exit", "1"]);
            runtime.launch(&spec).expect("launched");
            assert_eq!(runtime.reap(&spec.id).expect("reaped").exit, Exit::Code(1));
            runtime.forget(&spec.id).expect("forgotten");
        }
        runtime.settle();
        support::descriptors()
    };
    // Pools grow with use, and not for ever.
    let before = live(0..100);
    let after = live(100..400);
    assert!(after <= before + 30, "{after} descriptors, {before} before three hundred lives");
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

#[test]
fn launches_from_several_threads_do_not_mix() {
    let Some(place) = place() else { return };
    let runtime = place.start();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (place, runtime) = (&place, &runtime);
            scope.spawn(move || {
                for n in 0..10 {
                    let code = thread * 10 + n;
                    let exit = run(place, runtime, &format!("t{code}"), &["/bin/payload", "exit", &code.to_string()]);
                    assert_eq!(exit, Exit::Code(code));
                }
            });
        }
    });
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

#[test]
fn the_kernels_features_are_found() {
    let Some(_place) = place() else { return };
    let table = Runtime::check(&std::env::temp_dir());
    for row in &table {
        println!("{:45} {:?}", row.feature, row.found);
    }
    let missing: Vec<_> = table.iter().filter(|row| row.required && row.found.is_err()).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(table.iter().all(|row| !row.without.is_empty() && !row.needed_for.is_empty()));
    assert!(table.iter().all(|row| row.required != row.mend.is_empty()), "who must have it is told how");
    let names: BTreeSet<&str> = table.iter().map(|row| row.feature.as_str()).collect();
    assert_eq!(names.len(), table.len(), "each once");
    let tried = fs::read_dir("/sys/fs/cgroup").expect("cgroups").map(|entry| entry.expect("an entry").file_name());
    let own = format!("bellows-check-{}-", std::process::id());
    assert!(!tried.into_iter().any(|name| name.to_string_lossy().starts_with(&own)), "nothing outlives its try");
}
