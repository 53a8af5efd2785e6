//! The live agent on the real runtime, with the machine's own busybox: needs root, and says so aloud where it has none.

mod support;

use std::path::{Path, PathBuf};
use std::time::Instant;

use bellows_agent::{Agent, AgentConfig, Replicas};
use bellows_proto::node::{Call, LogsCall, call, call_reply, order};
use bellows_proto::types::{AppSpec, Lifecycle, ended};
use bellows_runtime::handle::LauncherCommand;
use bellows_runtime::image::Store;
use bellows_runtime::image::build::{BuildConfig, Content, FileSpec};
use support::controller::{Controller, Session, within};
use support::{FENCE, app, config, orders, replica, start_order, stop_order};

struct Bench {
    folder: tempfile::TempDir,
    controller: Controller,
    image: String,
    number: u32,
}

impl Bench {
    /// `None`, said aloud, where containers cannot be made.
    async fn new(number: u32) -> Option<Self> {
        let busybox = PathBuf::from("/bin/busybox");
        if !nix::unistd::geteuid().is_root() || !busybox.exists() {
            println!("skipped: needs root and a static /bin/busybox");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path().join("controller")).expect("a store");
        let file = |path: &str, content| FileSpec { path: path.into(), mode: 0o755, content };
        let files = [
            file("/bin/busybox", Content::File(busybox)),
            file("/bin/sh", Content::Link("busybox".into())),
            file("/www/index.html", Content::Bytes(b"it works\n".to_vec())),
        ];
        let build = BuildConfig { env: vec!["PATH=/bin".to_owned()], ..BuildConfig::default() };
        let image = store.build("busybox:1", &files, &build).expect("an image").to_string();
        let controller = Controller::start(Some(store)).await;
        Some(Self { folder, controller, image, number })
    }

    fn cgroup(&self) -> String {
        format!("bellows-agent-test-{}-{}", std::process::id(), self.number)
    }

    async fn agent(&self) -> Agent {
        let plain =
            config(self.folder.path(), vec![self.controller.address.clone()], Some(self.controller.token.clone()));
        let second = 128 + std::process::id() % 100;
        let config = AgentConfig {
            cgroup_parent: self.cgroup(),
            subnet: format!("10.{second}.{}.0/24", 200 + self.number).parse().expect("a subnet"),
            uid_base: 0x3000_0000 + self.number * (1 << 24),
            capacity: Some(bellows_runtime::handle::Capacity { cpu_milli: 64_000, memory_bytes: 8 << 30 }),
            ingress: None,
            links: None,
            launcher: LauncherCommand {
                program: env!("CARGO_BIN_EXE_bellows-agent-launcher").into(),
                args: Vec::new(),
            },
            ..plain
        };
        Agent::start(config).await.expect("an agent")
    }

    fn app(&self, script: &str, port: Option<u32>) -> AppSpec {
        AppSpec { args: vec!["-c".to_owned(), script.to_owned()], ..app(&self.image, "sh", port) }
    }

    /// No process and no cgroup of this bench is left.
    fn assert_clean(&self) {
        for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/pids", "/sys/fs/cgroup/memory"] {
            let path = Path::new(root).join(self.cgroup());
            assert!(!path.exists(), "{} is left", path.display());
        }
    }
}

fn is(lifecycle: Lifecycle) -> i32 {
    lifecycle.into()
}

async fn all_ready(session: &mut Session, count: usize) {
    session.until(|report| report.load.is_some() && report.replicas.iter().filter(|r| r.ready).count() == count).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_ready_serves_and_ends() {
    let Some(bench) = Bench::new(1).await else { return };
    let agent = bench.agent().await;
    let (mut session, _) = bench.controller.greet(FENCE, 1).await;
    let app = bench.app("echo hello; echo oops >&2; exec busybox httpd -f -p 80 -h /www", Some(80));
    session.send(orders(1, 1, app.clone(), vec![(1, start_order())])).await;
    let ready = session.until_replica(1, |replica| replica.ready).await;
    assert_eq!(ready.lifecycle, is(Lifecycle::Running));
    let page = within(fetch(format!("{}:80", ready.address))).await;
    assert!(page.ends_with("it works\n"), "{page}");
    let measured = session.until_replica(1, |replica| replica.processes > 0).await;
    assert!(measured.used.is_some_and(|used| used.memory_bytes > 0), "{measured:?}");

    let mut calls = bench.controller.calls().await;
    assert_eq!(within(calls.up.recv()).await.map(|opening| opening.id), Some(0));
    let logs = LogsCall { replica: Some(replica(1)), ..LogsCall::default() };
    calls.down.send(Ok(Call { id: 1, body: Some(call::Body::Logs(logs)) })).await.expect("the agent listens");
    let data = within(calls.up.recv()).await.and_then(|reply| reply.body);
    let Some(call_reply::Body::Data(text)) = data else { panic!("a log was expected, not {data:?}") };
    let text = String::from_utf8(text).expect("text");
    assert!(text.contains("hello\n") && text.contains("oops\n"), "{text}");

    session.send(orders(1, 2, app, vec![(1, stop_order(false))])).await;
    let end = session.until_replica(1, |replica| replica.lifecycle == is(Lifecycle::Ended)).await;
    assert_eq!(end.ended.and_then(|ended| ended.exit), Some(ended::Exit::Signal(15)));
    agent.shutdown(Replicas::End).await.expect("a clean end");
    bench.assert_clean();
}

async fn fetch(address: String) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("somebody listens");
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.expect("it reads");
    let mut page = String::new();
    stream.read_to_string(&mut page).await.expect("it answers");
    page
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_starts_is_adopted_and_ends() {
    let Some(bench) = Bench::new(2).await else { return };
    let agent = bench.agent().await;
    let (mut session, _) = bench.controller.greet(FENCE, 1).await;
    let app = bench.app("exec busybox sleep 1000", None);
    let begun = Instant::now();
    session.send(orders(1, 1, app.clone(), (1..=50).map(|counter| (counter, start_order())).collect())).await;
    all_ready(&mut session, 50).await;
    println!("50 replicas ready after {:?}", begun.elapsed());
    agent.shutdown(Replicas::Leave).await.expect("a clean end");

    let agent = bench.agent().await;
    let (mut session, hello) = bench.controller.greet(FENCE, 2).await;
    let running = |r: &&bellows_proto::node::ReplicaReport| r.lifecycle == is(Lifecycle::Running) && r.attempt == 1;
    assert_eq!(hello.inventory.iter().filter(running).count(), 50);
    let begun = Instant::now();
    let stops: Vec<(u64, order::Action)> = (1..=50).map(|counter| (counter, stop_order(false))).collect();
    session.send(orders(2, 1, app, stops)).await;
    let ended = |report: &bellows_proto::node::Report| report.replicas.iter().filter(|r| r.ended.is_some()).count();
    let report = session.until(|report| report.load.is_some() && ended(report) == 50).await;
    println!("50 replicas ended after {:?}", begun.elapsed());
    let by_signal = |r: &&bellows_proto::node::ReplicaReport| {
        r.ended.as_ref().and_then(|e| e.exit) == Some(ended::Exit::Signal(15))
    };
    assert_eq!(report.replicas.iter().filter(by_signal).count(), 50, "{:?}", report.replicas[0]);
    agent.shutdown(Replicas::End).await.expect("a clean end");
    bench.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_run_says_why() {
    let Some(bench) = Bench::new(3).await else { return };
    let agent = bench.agent().await;
    let (mut session, _) = bench.controller.greet(FENCE, 1).await;
    let nothing = AppSpec { command: vec!["/bin/nothing".to_owned()], args: Vec::new(), ..bench.app("", None) };
    session.send(orders(1, 1, nothing, vec![(1, start_order())])).await;
    let end = session.until_replica(1, |replica| replica.ended.is_some()).await.ended.expect("it has ended");
    assert_eq!(end.exit, Some(ended::Exit::NotStarted(true)));
    let why = end.why.expect("a reason");
    assert!(why.code == "cannot_start" && why.text.contains("/bin/nothing"), "{why:?}");
    agent.shutdown(Replicas::End).await.expect("a clean end");
    bench.assert_clean();
}
