//! The live agent against a controller over real TLS, on a runtime of memory: needs no root.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bellows_agent::{Agent, JoinError, Replicas, StartError};
use bellows_proto::node::{Acknowledge, Call, LogsCall, call, call_reply, refused_order, to_agent};
use bellows_proto::types::{Fence, Lifecycle, ended};
use bellows_runtime::ContainerId;
use bellows_runtime::handle::Exit;
use bellows_runtime::image::Store;
use bellows_runtime::image::build::{BuildConfig, Content, FileSpec};
use support::containers::MemoryContainers;
use support::controller::{Controller, greeting, refusal, within};
use support::{FENCE, app, config, orders, replica, start, start_order, stop_order};

/// A controller whose store holds one image; tells its digest.
async fn controller_with_image(folder: &Path) -> (Controller, String) {
    let store = Store::open(folder.join("controller")).expect("a store");
    let file = FileSpec { path: "/bin/app".into(), mode: 0o755, content: Content::Bytes(vec![1; 5_000]) };
    let digest = store.build("web:1", &[file], &BuildConfig::default()).expect("an image");
    (Controller::start(Some(store)).await, digest.to_string())
}

struct Bench {
    folder: tempfile::TempDir,
    controller: Controller,
    image: String,
    containers: Arc<MemoryContainers>,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (controller, image) = controller_with_image(folder.path()).await;
        let containers = MemoryContainers::new(folder.path().to_owned());
        Self { folder, controller, image, containers }
    }

    async fn agent(&self) -> Agent {
        let token = Some(self.controller.token.clone());
        let config = config(self.folder.path(), vec![self.controller.address.clone()], token);
        start(config, &self.containers).await.expect("an agent")
    }
}

fn is(lifecycle: Lifecycle) -> i32 {
    lifecycle.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_from_order_to_acknowledged_end() {
    let bench = Bench::new().await;
    let agent = bench.agent().await;
    assert_eq!((agent.name(), agent.node()), ("n1", 5));
    let (mut session, hello) = bench.controller.greet(FENCE, 1).await;
    assert_eq!(hello.fence, Some(FENCE));
    assert_eq!((hello.labels["zone"].as_str(), hello.inventory.len()), ("a", 0));
    assert_eq!(hello.capacity.map(|capacity| capacity.cpu_milli), Some(4_000));

    session.send(orders(1, 1, app(&bench.image, "serve", Some(80)), vec![(1, start_order())])).await;
    let acknowledged = session.until(|report| report.acknowledged == 1).await;
    assert!(acknowledged.refused.is_empty(), "{acknowledged:?}");
    let ready = session.until_replica(1, |replica| replica.ready).await;
    assert_eq!((ready.lifecycle, ready.attempt, ready.address.as_str()), (is(Lifecycle::Running), 1, "10.251.0.1"));
    let spec = bench.containers.spec("1-2-1.1").expect("it was launched");
    assert!(spec.env.contains(&"BELLOWS_NODE=n1".to_owned()), "{:?}", spec.env);
    let heartbeat =
        session.until(|report| report.load.is_some() && report.replicas.iter().any(|r| r.processes > 0)).await;
    assert_eq!(heartbeat.replicas[0].used.map(|used| used.memory_bytes), Some(4_096));

    session.send(orders(1, 2, app(&bench.image, "serve", Some(80)), vec![(1, stop_order(true))])).await;
    let end = session.until_replica(1, |replica| replica.lifecycle == is(Lifecycle::Ended)).await;
    assert_eq!(end.ended.and_then(|ended| ended.exit), Some(ended::Exit::Signal(15)));
    session.say(to_agent::Body::Acknowledge(Acknowledge { ended: vec![replica(1)] })).await;
    session.until(|report| report.load.is_some() && report.replicas.is_empty()).await;
    agent.shutdown(Replicas::End).await.expect("a clean end");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_agent_adopts_what_runs_and_joins_no_more() {
    let bench = Bench::new().await;
    let agent = bench.agent().await;
    let (mut session, _) = bench.controller.greet(FENCE, 1).await;
    let starts = (1..=20).map(|counter| (counter, start_order())).collect();
    session.send(orders(1, 1, app(&bench.image, "serve", None), starts)).await;
    session.until(|report| report.load.is_some() && report.replicas.iter().filter(|r| r.ready).count() == 20).await;
    agent.shutdown(Replicas::Leave).await.expect("a clean end");
    assert_eq!(bench.containers.running().len(), 20);

    // One ends while no agent looks.
    let first = ContainerId::new("1-2-1.1").expect("an id");
    bench.containers.end(&first, Exit::Code(4)).expect("it runs");
    let agent = bench.agent().await;
    let (mut session, hello) = bench.controller.greet(FENCE, 2).await;
    assert_eq!(bench.controller.joins.load(Ordering::SeqCst), 1);
    let running = |r: &&bellows_proto::node::ReplicaReport| r.lifecycle == is(Lifecycle::Running) && r.attempt == 1;
    assert_eq!(hello.inventory.iter().filter(running).count(), 19);
    let again = session.until_replica(1, |replica| replica.ready).await;
    assert_eq!(again.attempt, 2);
    // Its end is seen, although another agent started it.
    let second = ContainerId::new("1-2-2.1").expect("an id");
    bench.containers.end(&second, Exit::OutOfMemory).expect("it runs");
    session.until_replica(2, |replica| replica.attempt == 2 && replica.ready).await;
    agent.shutdown(Replicas::End).await.expect("a clean end");
    assert_eq!(bench.containers.running(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lower_fence_is_not_answered_even_by_the_next_agent() {
    let bench = Bench::new().await;
    let agent = bench.agent().await;
    let (_session, _) = bench.controller.greet(FENCE, 1).await;
    agent.shutdown(Replicas::Leave).await.expect("a clean end");
    let agent = bench.agent().await;
    let mut stale = bench.controller.session().await;
    assert_eq!(stale.open.fence, Some(FENCE), "it says whom it has obeyed");
    stale.say(greeting(Fence { term: 1, ..FENCE }, 7)).await;
    assert!(within(stale.up.recv()).await.is_none(), "the agent ends the stream without a word");
    // It comes back, and obeys the leader of the fence it knows.
    let (_session, hello) = bench.controller.greet(FENCE, 8).await;
    assert_eq!(hello.fence, Some(FENCE));
    agent.shutdown(Replicas::Leave).await.expect("a clean end");
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_are_attempts_and_stubborn_ones_are_killed() {
    let bench = Bench::new().await;
    let agent = bench.agent().await;
    let (mut session, _) = bench.controller.greet(FENCE, 1).await;
    session.send(orders(1, 1, app(&bench.image, "crash", None), vec![(1, start_order())])).await;
    let second = session.until_replica(1, |replica| replica.attempt == 2).await;
    assert_eq!(second.lifecycle, is(Lifecycle::Starting));
    session.send(orders(1, 2, app(&bench.image, "crash", None), vec![(1, stop_order(false))])).await;
    session.until_replica(1, |replica| replica.ended.is_some()).await;

    let (mut session, _) = {
        drop(session);
        bench.controller.greet(FENCE, 2).await
    };
    let mut batch = orders(2, 1, app(&bench.image, "stubborn", None), vec![(2, start_order())]);
    if let Some(to_agent::Body::Orders(batch)) = &mut batch.body {
        batch.specs[0].digest = vec![8; 32];
        batch.orders[0].action = Some(bellows_proto::node::order::Action::Start(bellows_proto::node::Start {
            app: 1,
            revision: 1,
            spec_digest: vec![8; 32],
        }));
    }
    session.send(batch).await;
    session.until_replica(2, |replica| replica.ready).await;
    session
        .send(orders(2, 2, app(&bench.image, "stubborn", None), vec![(2, stop_order(false)), (9, stop_order(false))]))
        .await;
    let refused = session.until(|report| !report.refused.is_empty()).await;
    assert_eq!(refused.refused[0].why(), refused_order::Why::UnknownReplica);
    let end = session.until_replica(2, |replica| replica.ended.is_some()).await;
    assert_eq!(end.ended.and_then(|ended| ended.exit), Some(ended::Exit::Signal(9)));
    agent.shutdown(Replicas::End).await.expect("a clean end");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_told_also_after_the_end() {
    let bench = Bench::new().await;
    let agent = bench.agent().await;
    let (mut session, _) = bench.controller.greet(FENCE, 1).await;
    session.send(orders(1, 1, app(&bench.image, "serve", None), vec![(1, start_order())])).await;
    session.until_replica(1, |replica| replica.ready).await;
    let mut calls = bench.controller.calls().await;
    assert_eq!(within(calls.up.recv()).await.map(|opening| opening.id), Some(0));
    let logs = |counter, follow| {
        call::Body::Logs(LogsCall {
            replica: Some(replica(counter)),
            follow,
            tail_lines: Some(1),
            ..LogsCall::default()
        })
    };
    calls.down.send(Ok(Call { id: 1, body: Some(logs(1, true)) })).await.expect("the agent listens");
    let data = within(calls.up.recv()).await.and_then(|reply| reply.body);
    assert_eq!(data, Some(call_reply::Body::Data(b"hello from 1-2-1.1\n".to_vec())));
    session.send(orders(1, 2, app(&bench.image, "serve", None), vec![(1, stop_order(false))])).await;
    let done = within(calls.up.recv()).await.expect("the stream lives");
    assert!(matches!((done.id, &done.body), (1, Some(call_reply::Body::Done(_)))), "{done:?}");
    calls.down.send(Ok(Call { id: 2, body: Some(logs(1, false)) })).await.expect("the agent listens");
    assert_eq!(within(calls.up.recv()).await.map(|reply| reply.id), Some(2));
    assert!(matches!(within(calls.up.recv()).await.and_then(|reply| reply.body), Some(call_reply::Body::Done(_))));
    calls.down.send(Ok(Call { id: 3, body: Some(logs(4, false)) })).await.expect("the agent listens");
    let failed = within(calls.up.recv()).await.and_then(|reply| reply.body);
    assert!(
        matches!(&failed, Some(call_reply::Body::Failed(why)) if why.contains("no log of replica 1-2-4")),
        "{failed:?}"
    );
    agent.shutdown(Replicas::End).await.expect("a clean end");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_nobody_has_ends_the_replica() {
    let bench = Bench::new().await;
    let agent = bench.agent().await;
    let (mut session, _) = bench.controller.greet(FENCE, 1).await;
    let nowhere = format!("sha256:{}", "0".repeat(64));
    session.send(orders(1, 1, app(&nowhere, "serve", None), vec![(1, start_order())])).await;
    let report = session.until(|report| !report.refused.is_empty()).await;
    assert_eq!(report.refused[0].why(), refused_order::Why::NoImage);
    assert!(report.replicas[0].ended.is_some());
    agent.shutdown(Replicas::End).await.expect("a clean end");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_is_found_from_another_controller() {
    let bench = Bench::new().await;
    let agent = bench.agent().await;
    let first = bench.controller.session().await;
    // The second one has the same identity: it is the same controller under another name.
    let elsewhere = bench.controller.address.replace("127.0.0.1", "localhost");
    first.say(refusal(true, elsewhere.trim_start_matches("https://"))).await;
    let (_session, hello) = bench.controller.greet(FENCE, 1).await;
    assert_eq!(hello.session, 1);
    agent.shutdown(Replicas::End).await.expect("a clean end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_for_good_is_told() {
    let bench = Bench::new().await;
    let agent = bench.agent().await;
    bench.controller.session().await.say(refusal(false, "")).await;
    assert_eq!(within(agent.stuck()).await, "this is not to be");
    agent.shutdown(Replicas::End).await.expect("a clean end");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_cluster_of_the_token_is_joined() {
    let bench = Bench::new().await;
    let address = vec![bench.controller.address.clone()];
    let attempt = async |token: Option<String>| {
        let config = config(bench.folder.path(), address.clone(), token);
        start(config, &bench.containers).await.expect_err("it must not join")
    };
    assert!(matches!(attempt(None).await, StartError::Join(JoinError::NoToken)));
    assert!(matches!(attempt(Some("bellows1.x".to_owned())).await, StartError::Join(JoinError::Token(_))));
    let wrong_secret = bench.controller.token.replace("secret", "guess");
    let refused = attempt(Some(wrong_secret)).await.to_string();
    assert!(refused.contains("refused the join: the token is not known"), "{refused}");
    assert_eq!(bench.controller.joins.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_to_a_server_of_another_authority() {
    let bench = Bench::new().await;
    let other = Controller::start(None).await;
    let config = config(bench.folder.path(), vec![other.address.clone()], Some(bench.controller.token.clone()));
    let error = tokio::time::timeout(support::PATIENCE, start(config, &bench.containers)).await;
    let error = error.expect("a wrong authority is not worth patience").expect_err("it must not join");
    assert!(matches!(error, StartError::Join(JoinError::OtherCluster { .. })), "{error}");
    assert_eq!(other.joins.load(Ordering::SeqCst), 0);
}
