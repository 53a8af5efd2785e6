//! What a replica's packets reach: tried in a network namespace that stands for a node, beside one that stands for the world. The control of each try is
//! the same with the rules removed, or with egress allowed.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use bellows_runtime::handle::{Error, Running, SlotError};
use bellows_runtime::{ContainerId, Runtime};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::rows::Seen;
use crate::support::{self, Place};
use crate::world::seen;

const NODE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
pub const WORLD: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const PORT: u16 = 80;

/// Two namespaces joined by a link; the calling thread is in the node's.
pub struct Node {
    pub place: Place,
    pub world: String,
}

impl Node {
    /// `None`, said aloud, when this cannot be made here.
    pub fn new() -> Option<Self> {
        let place = support::place()?;
        if Command::new("ip").arg("-V").stdout(Stdio::null()).status().is_err() {
            println!("skipped: networks are made with `ip`, from the package iproute2");
            return None;
        }
        support::put(&place.image().join("bin/escape"), bellows_runtime::launch::ESCAPE);
        let own = UnshareFlags::NEWNET | UnshareFlags::NEWNS;
        // SAFETY: of this thread alone, which ends with its test.
        unsafe { unshare_unsafe(own) }
            .expect("a network of its own, and mounts, as `ip` keeps namespaces by mounting them");
        let apart = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", apart).expect("mounts that nobody else sees");
        // One of several in this process.
        let world = format!("bellows-world-{}-{}", std::process::id(), place.subnet().replace(['/', '.'], "-"));
        let node = Self { place, world };
        for line in [
            "link set lo up",
            "netns add WORLD",
            "link add uplink type veth peer name eth0 netns WORLD",
            "addr add 198.51.100.1/24 dev uplink",
            "link set uplink up",
            "route add default via 198.51.100.2",
            "-n WORLD addr add 198.51.100.2/24 dev eth0",
            "-n WORLD addr add 169.254.169.254/32 dev eth0",
            "-n WORLD link set eth0 up",
            "-n WORLD link set lo up",
            "-n WORLD route add 10.0.0.0/8 via 198.51.100.1",
        ] {
            node.ip(line);
        }
        Some(node)
    }

    fn ip(&self, line: &str) {
        let words = line.split(' ').map(|word| word.replace("WORLD", &self.world));
        let done = Command::new("ip").args(words).output().expect("ip runs");
        assert!(done.status.success(), "ip {line}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// The program out in the world.
    fn in_world(&self, words: &[String]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.world]).arg(self.place.image().join("bin/escape")).args(words);
        command
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.ip("netns del WORLD");
    }
}

/// A process that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().expect("ours");
        self.0.wait().expect("it ends");
    }
}

fn number(address: Ipv4Addr) -> String {
    u32::from(address).to_string()
}

/// Removes every rule of the node's, but not the set of those that may reach the world: launches change that.
fn without_rules(node: &Node) {
    flush(node, &["table"], &[]);
}

fn flush(node: &Node, what: &[&str], of_it: &[&str]) {
    let table = format!("bellows_{}", node.place.subnet().replace(['.', '/'], "_"));
    let words = [&["flush"], what, &["inet", &table], of_it].concat();
    let Output { status, stderr, .. } = Command::new("nft").args(words).output().expect("nft runs");
    assert!(status.success(), "{table}: {}", String::from_utf8_lossy(&stderr));
}

fn start(node: &Node, runtime: &Runtime, name: &str, tenant: &str, egress: bool, words: &[&str]) -> Running {
    let mut spec = node.place.spec(name, &[&["/bin/escape"], words].concat());
    spec.tenant = tenant.to_owned();
    spec.egress = egress;
    let mut running = None;
    // A used address rests for a while, and there are thirty.
    support::wait_until("an address has rested", || match runtime.launch(&spec) {
        Err(Error::Slot(SlotError::NoAddress { .. })) => false,
        launched => running.replace(launched.expect("launched")).is_none(),
    });
    running.expect("it has just been launched")
}

fn end(runtime: &Runtime, name: &str) -> Seen {
    let id = ContainerId::new(name).expect("an id");
    let exit = runtime.reap(&id).expect("reaped").exit;
    runtime.forget(&id).expect("forgotten");
    seen(exit)
}

/// One try from inside, by tenant `a`.
fn attempt(node: &Node, runtime: &Runtime, egress: bool, words: &[String]) -> Seen {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    start(node, runtime, "attempt", "a", egress, &words);
    end(runtime, "attempt")
}

/// Name, egress, words, what it meets with.
type Try = (&'static str, bool, Vec<String>, Seen);

fn tries(neighbours: &[Ipv4Addr; 2]) -> Vec<Try> {
    let (refused, unreachable) = (Seen::Refused(libc::ECONNREFUSED), Seen::Refused(libc::EHOSTUNREACH));
    let to = |word: &str, address: Ipv4Addr| vec![word.to_owned(), number(address), PORT.to_string()];
    let mut all: Vec<Try> = Vec::new();
    for (at, names) in [
        (neighbours[0], ["connect_neighbour", "datagram_to_neighbour", "ping_neighbour"]),
        (neighbours[1], ["connect_own_app", "datagram_to_own_app", "ping_own_app"]),
        (NODE, ["connect_node", "datagram_to_node", "ping_node"]),
    ] {
        for (name, (word, met)) in
            names.into_iter().zip([("connect", refused), ("datagram", unreachable), ("ping", unreachable)])
        {
            all.push((name, false, to(word, at), met));
        }
    }
    all.push(("connect_node_though_egress", true, to("connect", NODE), refused));
    all.push(("connect_neighbour_though_egress", true, to("connect", neighbours[0]), refused));
    all.push(("credentials_of_the_cloud", true, to("connect", METADATA), refused));
    all.push(("connect_world", false, to("connect", WORLD), refused));
    all.push(("datagram_to_world", false, to("datagram", WORLD), unreachable));
    all.push(("ping_world", false, to("ping", WORLD), unreachable));
    all
}

/// Runs `work` on a thread of its own, as the network namespace is the thread's.
fn on_a_node(work: fn(&Node)) {
    let done = std::thread::spawn(move || {
        if let Some(node) = Node::new() {
            work(&node);
        }
    });
    done.join().expect("the test on the node passes");
}

/// Something at the port, TCP and UDP, that answers.
fn serve_here() -> (TcpListener, std::thread::JoinHandle<()>, UdpSocket) {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).expect("the node's port");
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).expect("the node's port");
    let ours = socket.try_clone().expect("the same");
    let answers = std::thread::spawn(move || {
        let mut bytes = [0; 64];
        while let Ok((length, from)) = ours.recv_from(&mut bytes) {
            if &bytes[..length] == b"end" {
                return;
            }
            ours.send_to(&bytes[..length], from).expect("an answer");
        }
    });
    (listener, answers, socket)
}

#[test]
fn packets_reach_nobody_but_whom_they_may() {
    on_a_node(|node| {
        let (_listener, answers, socket) = serve_here();
        let serve = |word: &str| Server(node.in_world(&[word.into(), PORT.to_string()]).spawn().expect("a server"));
        let _servers = ["serve", "echo"].map(serve);
        let runtime = node.place.start();
        let port = PORT.to_string();
        let serving =
            |name: &str, tenant: &str| start(node, &runtime, name, tenant, false, &["serve_all", &port]).address;
        let neighbours = [serving("other", "b"), serving("own", "a")];
        for name in ["other", "own"] {
            let id = ContainerId::new(name).expect("an id");
            support::wait_until("it listens", || runtime.listening(&id, PORT).expect("asked"));
        }
        let mut wrong = Vec::new();
        for (name, egress, words, met) in tries(&neighbours) {
            let found = attempt(node, &runtime, egress, &words);
            println!("{name:<34} as it is        {found:?}");
            if found != met {
                wrong.push(format!("{name}: {found:?} instead of {met:?}"));
            }
        }
        wrong.extend(egress(node, &runtime));
        wrong.extend(inwards(node, neighbours[0], Seen::Nothing));
        // The control: no rules, and a node that forwards.
        without_rules(node);
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("a sysctl");
        for (name, _, words, _) in tries(&neighbours) {
            let found = attempt(node, &runtime, false, &words);
            println!("{name:<34} without rules   {found:?}");
            if found != Seen::Got {
                wrong.push(format!("{name} without rules: {found:?}"));
            }
        }
        wrong.extend(inwards(node, neighbours[0], Seen::Got));
        socket.send_to(b"end", (Ipv4Addr::LOCALHOST, PORT)).expect("the answers end");
        answers.join().expect("they do");
        runtime.shutdown().expect("shut down");
        node.place.assert_clean();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

/// With egress the world is reached, as if it were the node that asks, and answers come back.
fn egress(node: &Node, runtime: &Runtime) -> Vec<String> {
    let mut wrong = Vec::new();
    for word in ["connect", "datagram", "ping"] {
        let found = attempt(node, runtime, true, &[word.to_owned(), number(WORLD), PORT.to_string()]);
        println!("{word:<34} egress          {found:?}");
        if found != Seen::Got {
            wrong.push(format!("{word} with egress: {found:?}"));
        }
    }
    wrong
}

/// From the world to a replica.
fn inwards(node: &Node, replica: Ipv4Addr, met: Seen) -> Option<String> {
    let done = node.in_world(&["connect".into(), number(replica), PORT.to_string()]).status().expect("it runs");
    let found = seen(bellows_runtime::handle::Exit::Code(done.code().unwrap_or(-1)));
    println!("{:<34} {:<15} {found:?}", "from_the_world", if met == Seen::Got { "without rules" } else { "as it is" });
    (found != met).then(|| format!("from the world: {found:?} instead of {met:?}"))
}

#[test]
fn nobody_speaks_with_anothers_address() {
    on_a_node(|node| {
        let heard = UdpSocket::bind((NODE, PORT)).expect("the node's port");
        heard.set_read_timeout(Some(Duration::from_millis(300))).expect("a time");
        // Root inside is root outside: the only containers that can make packets of their own.
        let runtime = node.place.start_with_launcher(&["weakened", "user_namespace"]);
        let mut bytes = [0; 64];
        let words = |source: Ipv4Addr| ["spoof".to_owned(), number(source), number(NODE), PORT.to_string()].to_vec();
        let foreign = [WORLD, node.place.address(20), Ipv4Addr::new(10, 1, 2, 3)];
        // The node's ports are closed to all; here it is the sources that are looked at.
        without_input_rules(node);
        let own = start(node, &runtime, "own", "a", false, &["hold"]).address;
        for source in foreign {
            assert_eq!(attempt(node, &runtime, false, &words(source)), Seen::Got, "it was sent");
            let got = heard.recv_from(&mut bytes);
            assert!(got.is_err(), "{source} was believed: {got:?}");
            println!("spoof {source:<28} as it is        Nothing");
        }
        without_rules(node);
        for source in foreign {
            assert_eq!(attempt(node, &runtime, false, &words(source)), Seen::Got, "it was sent");
            let (_, from) = heard.recv_from(&mut bytes).expect("without rules it is believed");
            assert_eq!(from.ip(), source);
            println!("spoof {source:<28} without rules   Got");
        }
        assert_ne!(own, NODE);
        runtime.shutdown().expect("shut down");
        node.place.assert_clean();
    });
}

/// Leaves only what looks at sources.
fn without_input_rules(node: &Node) {
    flush(node, &["chain"], &["node"]);
}

#[test]
fn nobody_claims_anothers_address() {
    on_a_node(|node| {
        let runtime = node.place.start_with_launcher(&["weakened", "user_namespace"]);
        let other = node.place.address(20);
        let claimed = || {
            let table = std::fs::read_to_string("/proc/thread-self/net/arp").expect("neighbours");
            table.lines().any(|line| line.starts_with(&other.to_string()) && line.contains("02:00:00:00:00:66"))
        };
        let words = ["claim_address".to_owned(), number(other)];
        let links = || links(node);
        std::fs::write("/proc/sys/net/ipv4/conf/all/arp_accept", "1").expect("a sysctl");
        assert_eq!(attempt(node, &runtime, false, &words), Seen::Got, "it was sent");
        assert!(!claimed(), "a claim was believed");
        println!("claim_address                      as it is        Nothing");
        // The control: links that listen to ARP.
        without_rules(node);
        for link in links() {
            node.ip(&format!("link set {link} arp on"));
        }
        start(node, &runtime, "loud", "a", false, &["claim_loudly", &number(other)]);
        for link in links() {
            node.ip(&format!("link set {link} arp on"));
        }
        support::wait_until("a claim is believed", claimed);
        println!("claim_address                      with ARP        Got");
        runtime.shutdown().expect("shut down");
        node.place.assert_clean();
    });
}

/// The host's ends of all links of this node.
fn links(node: &Node) -> Vec<String> {
    let done = Command::new("ip").args(["-br", "link", "show", "type", "veth"]).output().expect("ip runs");
    let text = String::from_utf8(done.stdout).expect("text");
    assert!(done.status.success(), "{}", node.world);
    let names = text.lines().filter_map(|line| line.split(['@', ' ']).next());
    names.filter(|name| name.starts_with("bw")).map(str::to_owned).collect()
}
