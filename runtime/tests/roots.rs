//! A root that a container has left as it found it serves the next one of its tenant; any other does not.

mod support;

use std::fs;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bellows_runtime::{ContainerSpec, Runtime, names};
use rustix::thread::LinkNameSpaceType;
use support::{Place, launch_in_its_turn, lines, place, wait_until};

/// What an app sees of its root, but for what is its own: its name and address.
const LOOK: &str = "busybox find / -xdev ! -path '/proc*' ! -path '/sys*' ! -path '/dev/pts' ! -path '/dev/mqueue' -exec busybox stat -c '%n %f %u %g %s %Y %h' {} + \
                    | grep -v '^/etc/host'; cat /etc/resolv.conf; busybox stat -c '%n %f %u %g %Y %h' /etc/hosts /etc/hostname";

/// There is one range of ids for all of these tests, as there is to be one slot for all containers of each.
static ALONE: Mutex<()> = Mutex::new(());

/// `None`, said aloud, where roots are never used again.
fn ready() -> Option<(Place, PathBuf, MutexGuard<'static, ()>)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel says what it is");
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    if (numbers.next(), numbers.next()) < (Some(6), Some(15)) {
        println!("skipped: roots are used again from Linux 6.15 on, this is {release}");
        return None;
    }
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut place = place()?;
    place.with_the_last_ids();
    let image = place.busybox()?;
    Some((place, image, alone))
}

struct Seen {
    /// When the file system that holds its writable layer was made.
    born: SystemTime,
    /// Its network.
    network: PathBuf,
    /// What it printed before it went to sleep.
    said: Vec<String>,
    /// Its own files.
    hosts: String,
}

/// A container that does this, and what was seen of it; `meanwhile` gets its root. It has ended, and what it leaves has been looked through.
fn life(runtime: &Runtime, mut spec: ContainerSpec, script: &str, meanwhile: impl FnOnce(&Path)) -> Seen {
    spec.args = ["/bin/sh", "-c", &format!("{script}; echo over; exec busybox sleep 100000")].map(str::to_owned).into();
    let running = launch_in_its_turn(runtime, &spec);
    let said = || lines(runtime, spec.id.as_str()).into_iter().map(|line| line.text).collect::<Vec<_>>();
    wait_until("it has done its work", || said().last().is_some_and(|line| line == "over"));
    let root = PathBuf::from(format!("/proc/{}/root", running.pid));
    let born = fs::metadata(root.join("etc/hosts")).and_then(|file| file.created()).expect("a date");
    let network = fs::read_link(format!("/proc/{}/ns/net", running.pid)).expect("it runs");
    let hosts = fs::read_to_string(root.join("etc/hosts")).expect("text");
    assert!(hosts.contains(&running.address.to_string()) && hosts.contains(&spec.hostname), "its own: {hosts}");
    let said = said();
    meanwhile(&root);
    runtime.kill(&spec.id).expect("killed");
    runtime.reap(&spec.id).expect("reaped");
    runtime.forget(&spec.id).expect("forgotten");
    runtime.settle();
    Seen { born, network, said, hosts }
}

fn nothing(_: &Path) {}

/// Looks until two in a row have had one root, and gives what the last one saw: the next one has it too. Where memory was left behind, none is made ahead.
fn at_home(runtime: &Runtime, spec: impl Fn(&str) -> ContainerSpec) -> Seen {
    let mut last = life(runtime, spec("first"), LOOK, nothing);
    for number in 0..20 {
        let this = life(runtime, spec(&format!("look-{number}")), LOOK, nothing);
        assert_eq!(this.said, last.said);
        if this.born == last.born {
            return this;
        }
        last = this;
    }
    panic!("no root was used again");
}

/// A copy: what is kept for one image is not kept for another.
fn another(image: &Path, number: usize) -> PathBuf {
    let copy = image.with_file_name(format!("image-{number}"));
    let copied = std::process::Command::new("cp").arg("-a").arg(image).arg(&copy).status().expect("cp runs");
    assert!(copied.success());
    copy
}

#[test]
fn a_root_left_as_it_was_serves_the_next_container_of_its_tenant() {
    let Some((place, image, _alone)) = ready() else { return };
    let runtime = place.start();
    let spec = |name: &str, tenant: &str| {
        let mut spec = place.spec(name, &["-"]);
        (spec.root, spec.tenant) = (image.clone(), tenant.to_owned());
        spec
    };
    let before = at_home(&runtime, |name| spec(name, "one"));
    // To read is not to change, and its own files are written anew for each, whatever was written there.
    let again = life(&runtime, spec("cc", "one"), "ls / /etc; cat /etc/hosts", nothing);
    let scribbled = life(&runtime, spec("d", "one"), ":", |root| {
        for name in ["hosts", "hostname", "resolv.conf"] {
            fs::write(root.join("etc").join(name), "evil\n".repeat(500)).expect("written");
        }
    });
    let after = life(&runtime, spec("e", "one"), LOOK, nothing);
    for seen in [&again, &scribbled, &after] {
        assert_eq!(seen.born, before.born, "the root is used again");
    }
    // Never another tenant's.
    let other = life(&runtime, spec("f", "two"), LOOK, nothing);
    assert_ne!(other.born, before.born);
    for seen in [&after, &other] {
        assert_eq!(seen.said, before.said);
        assert_eq!(seen.hosts.lines().count(), 2, "{}", seen.hosts);
    }
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

/// What was proved for containers as they are by default is not taken for granted for others.
#[test]
fn whoever_may_do_more_than_usual_keeps_its_root() {
    let Some((place, image, _alone)) = ready() else { return };
    let runtime = place.start();
    let spec = |name: &str| {
        let mut spec = place.spec(name, &["-"]);
        spec.root = image.clone();
        spec.add_capabilities = names::more_capability("sys_ptrace").into_iter().collect();
        spec
    };
    let all = ["a", "b", "c", "d"].map(|name| life(&runtime, spec(name), ":", nothing).born);
    for (number, born) in all.iter().enumerate() {
        assert!(!all[..number].contains(born), "a root of its own for each");
    }
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}

/// Whatever is done to a root inside. Each leaves something that the next container would see.
const CHANGES: [&str; 18] = [
    "echo x > /new",
    "echo x > /new; busybox rm /new",
    "busybox mkdir /etc/new",
    "touch /etc/new; busybox rm /etc/new",
    "echo x > /bin/new",
    "echo x > /dev/shm/new",
    "busybox rm /bin/cat",
    "busybox mv /etc/hosts /etc/h; busybox mv /etc/h /etc/hosts",
    "busybox ln /etc/hosts /etc/h",
    "busybox rm /etc/resolv.conf; touch /etc/resolv.conf",
    "busybox chmod 700 /",
    "busybox chmod 755 /etc",
    "busybox chown 5:5 /etc",
    "busybox touch -d @5 /",
    "busybox touch -d @0 /etc",
    "busybox chmod 666 /etc/hosts",
    "busybox chown 5 /etc/hostname",
    "busybox chmod 777 /dev/bellows/busy",
];

/// In that network, with a name that everybody there sees.
fn named_socket(network: PathBuf) -> UnixDatagram {
    let bound = std::thread::spawn(move || {
        let network = fs::File::open(network).expect("the container's network");
        rustix::thread::move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).expect("entered");
        UnixDatagram::bind_addr(&SocketAddr::from_abstract_name("left behind").expect("a name")).expect("bound")
    });
    bound.join().expect("a socket")
}

#[test]
fn a_root_with_any_change_serves_nobody_else() {
    let Some((place, image, _alone)) = ready() else { return };
    let runtime = place.start();
    let attribute = |root: &Path| {
        let hosts = root.join("etc/hosts");
        rustix::fs::setxattr(&hosts, "user.note", b"x", rustix::fs::XattrFlags::empty()).expect("tmpfs keeps it");
    };
    let flag = |root: &Path| {
        let hosts = fs::File::open(root.join("etc/hosts")).expect("a file");
        rustix::fs::ioctl_setflags(&hosts, rustix::fs::IFlags::NODUMP).expect("tmpfs keeps it");
    };
    for number in 0..CHANGES.len() + 3 {
        let image = another(&image, number);
        let spec = |name: &str| {
            let mut spec = place.spec(&format!("{name}-{number}"), &["-"]);
            spec.root = image.clone();
            spec
        };
        let before = at_home(&runtime, spec);
        // As is one that was sent through itself.
        let mut socket_left = None;
        let left = |root: &Path| socket_left = Some(named_socket(root.with_file_name("ns/net")));
        let (what, changing) = match CHANGES.get(number) {
            Some(script) => (*script, life(&runtime, spec("changing"), script, nothing)),
            None if number == CHANGES.len() => ("attribute", life(&runtime, spec("changing"), ":", attribute)),
            None if number == CHANGES.len() + 1 => ("flag", life(&runtime, spec("changing"), ":", flag)),
            None => ("socket", life(&runtime, spec("changing"), ":", left)),
        };
        assert_eq!(changing.born, before.born, "{what}: it was another's, whose root it may change");
        let after = life(&runtime, spec("after"), LOOK, nothing);
        assert_ne!(after.born, changing.born, "{what}");
        assert_eq!(after.said, before.said, "{what}");
        assert!(socket_left.is_none() || after.network != changing.network, "its name in that network may be seen");
        fs::remove_dir_all(&image).expect("removed");
    }
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}
