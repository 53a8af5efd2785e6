//! What people see: declare, scale, list, wait, and find it again after `kill -9`.

mod support;

use bellows_proto::operator as wire;
use bellows_proto::types::{AppSpec, Confinement};
use support::{Agent, House, apply, put_blob, scale, soon, spec, try_put_blob};
use tonic::Code;

#[tokio::test]
async fn what_was_declared_survives_a_kill() {
    let house = House::new().await;
    let digest = house.load_image("web:1").await;
    let mut client = house.operator().await;
    let applied = client.apply(apply(spec("web", "web:1", 3))).await.expect("applied").into_inner();
    assert_eq!((applied.generation, applied.changed), (1, true));
    assert_eq!(applied.image_digest, digest);
    let scaled = client.scale(scale("web", 5)).await.expect("scaled").into_inner();
    assert_eq!(scaled.generation, 2);

    let house = house.killed_and_restarted().await;
    let mut client = house.operator().await;
    let apps = client.list_apps(wire::ListAppsRequest {}).await.expect("listed").into_inner().apps;
    assert_eq!(apps.len(), 1);
    assert_eq!((apps[0].name.as_str(), apps[0].wanted, apps[0].generation), ("web", 5, 2));
    let status = client.status(wire::StatusRequest {}).await.expect("status").into_inner();
    assert_eq!((status.cluster.as_str(), status.leading), ("test", true));
    assert_eq!(status.fence.expect("a fence").incarnation, 1);
    let images = client.list_images(wire::ListImagesRequest {}).await.expect("images").into_inner().images;
    assert_eq!(images[0].digest, digest);
    house.controller.shutdown().await;
}

#[tokio::test]
async fn an_agent_makes_it_true_and_the_waiter_hears() {
    let house = House::new().await;
    house.load_image("web:1").await;
    let joined = house.join("node-a").await;
    let mut agent = Agent::connect(&house, &joined).await;
    assert_eq!(agent.greeting.fence.expect("a fence").incarnation, 1);
    agent.report(0).await;
    let mut client = house.operator().await;
    let applied = client.apply(apply(spec("web", "web:1", 3))).await.expect("applied").into_inner();
    let asked = wire::AwaitRequest { app: "web".to_owned(), generation: applied.generation, ..Default::default() };
    let mut progress = client.r#await(asked).await.expect("a stream").into_inner();
    let mut ordered = 0;
    while ordered < 3 {
        let orders = agent.orders().await;
        ordered += orders.len();
        agent.obey(&orders).await;
    }
    let last = soon("settling", async {
        let mut last = None;
        while let Some(step) = progress.message().await.expect("no error") {
            last = Some(step);
        }
        last.expect("some progress")
    });
    let last = last.await;
    assert!(last.settled);
    assert_eq!((last.wanted, last.ready, last.surplus), (3, 3, 0));
    assert_eq!(agent.specs.len(), 1, "one spec goes once per session");
    let replicas = client.list_replicas(wire::ListReplicasRequest::default()).await.expect("listed").into_inner();
    assert!(replicas.replicas.iter().all(|replica| replica.node == "node-a" && replica.ready));
    house.controller.shutdown().await;
}

#[tokio::test]
async fn repeated_and_outdated_requests() {
    let house = House::new().await;
    house.load_image("web:1").await;
    let mut client = house.operator().await;
    let keyed = wire::ApplyRequest { idempotency_key: "k1".to_owned(), ..apply(spec("web", "web:1", 3)) };
    let first = client.apply(keyed.clone()).await.expect("applied").into_inner();
    client.scale(scale("web", 7)).await.expect("scaled");
    let again = client.apply(keyed.clone()).await.expect("answered").into_inner();
    assert_eq!(first, again, "the first answer, and nothing changed");
    let apps = client.list_apps(wire::ListAppsRequest {}).await.expect("listed").into_inner().apps;
    assert_eq!(apps[0].wanted, 7);
    let other = wire::ApplyRequest { spec: Some(spec("other", "web:1", 1)), ..keyed };
    assert_eq!(client.apply(other).await.expect_err("a key reused").code(), Code::InvalidArgument);
    let outdated = wire::ScaleRequest { expected_generation: Some(1), ..scale("web", 9) };
    let refusal = client.scale(outdated).await.expect_err("an outdated generation");
    assert_eq!(refusal.code(), Code::FailedPrecondition);
    assert!(refusal.message().contains("at generation 2, not 1"), "{}", refusal.message());
    house.controller.shutdown().await;
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let house = House::new().await;
    house.load_image("web:1").await;
    let mut client = house.operator().await;
    let dry = wire::ApplyRequest { dry_run: true, ..apply(spec("web", "web:1", 3)) };
    let told = client.apply(dry.clone()).await.expect("checked").into_inner();
    assert_eq!((told.id, told.generation, told.changed), (0, 0, true));
    assert!(client.list_apps(wire::ListAppsRequest {}).await.expect("listed").into_inner().apps.is_empty());
    client.apply(apply(spec("web", "web:1", 3))).await.expect("applied");
    assert!(!client.apply(dry.clone()).await.expect("checked").into_inner().changed);
    let with_way = |name| {
        let mut spec = spec(name, "web:1", 3);
        spec.ports = vec![bellows_proto::types::Port { name: String::new(), port: 80, protocol: 1 }];
        spec.routes =
            vec![bellows_proto::types::Route { host: "a.example".to_owned(), port: 80, ..Default::default() }];
        apply(spec)
    };
    client.apply(with_way("one")).await.expect("applied");
    let other = wire::ApplyRequest { dry_run: true, ..with_way("two") };
    let refusal = client.apply(other).await.expect_err("another app takes these requests");
    assert!(refusal.message().contains("a.example, path / is taken"), "{}", refusal.message());
    house.controller.shutdown().await;
}

#[tokio::test]
async fn bad_requests_name_what_is_wrong() {
    let house = House::new().await;
    house.load_image("web:1").await;
    let mut client = house.operator().await;
    let mut refusal = async |spec| client.apply(apply(spec)).await.expect_err("refused");
    let unknown = refusal(spec("web", "web:2", 1)).await;
    assert_eq!(unknown.code(), Code::NotFound);
    assert!(unknown.message().contains("did you mean \"web:1\"?"), "{}", unknown.message());
    let mut bad = spec("web", "web:1", 1);
    bad.ports.push(bellows_proto::types::Port { name: String::new(), port: 70_000, protocol: 1 });
    let bad_port = refusal(bad).await;
    assert_eq!(bad_port.code(), Code::InvalidArgument);
    assert!(bad_port.message().starts_with("spec.ports[0].port: 70000"), "{}", bad_port.message());
    let mut long = spec("web", "web:1", 1);
    long.env.insert("X".to_owned(), "x".repeat(300 << 10));
    assert!(refusal(long).await.message().starts_with("spec.size: has"), "the size is named");
    let scaled = client.scale(scale("none", 1)).await.expect_err("no such app");
    assert_eq!(scaled.code(), Code::NotFound);
    house.controller.shutdown().await;
}

#[tokio::test]
async fn blobs_are_what_they_are_called() {
    let house = House::new().await;
    let mut client = house.operator().await;
    let wrong = support::digest_of(b"something else");
    let refusal = try_put_blob(&mut client, &wrong, b"these bytes").await.expect_err("a wrong digest");
    assert_eq!(refusal.code(), Code::InvalidArgument);
    assert_eq!(house.stored_blobs(), 0);
    let right = put_blob(&mut client, b"these bytes").await;
    let asked = wire::MissingBlobsRequest { digests: vec![right.clone(), wrong.clone()] };
    let missing = client.missing_blobs(asked).await.expect("answered").into_inner().digests;
    assert_eq!(missing, vec![wrong]);
    let request = wire::RegisterImageRequest { name: "no-image".to_owned(), digest: right };
    let refusal = client.register_image(request).await.expect_err("no manifest");
    assert_eq!(refusal.code(), Code::InvalidArgument);
    let traversal = wire::MissingBlobsRequest { digests: vec!["sha256:../../../etc/passwd".to_owned()] };
    assert_eq!(client.missing_blobs(traversal).await.expect_err("no digest").code(), Code::InvalidArgument);
    house.controller.shutdown().await;
}

#[tokio::test]
async fn what_is_more_than_copies_have_needs_the_administrators_word() {
    let house = House::new().await;
    house.load_image("web:1").await;
    let mut client = house.operator().await;
    let asks = |tenant: &str, capability: Option<&str>, call: Option<&str>| {
        let names = |name: Option<&str>| name.map(str::to_owned).into_iter().collect();
        let security =
            Confinement { add_capabilities: names(capability), add_calls: names(call), ..Default::default() };
        apply(AppSpec { tenant: tenant.to_owned(), security: Some(security), ..spec("web", "web:1", 1) })
    };
    client.apply(asks("trusted", Some("sys_ptrace"), Some("kcmp"))).await.expect("allowed");
    client.apply(asks("other", None, Some("kcmp"))).await.expect("allowed to all");
    let refused = [
        (asks("other", Some("sys_ptrace"), None), ["spec.security.add_capabilities", "--allow-capability sys_ptrace"]),
        (asks("trusted", None, Some("userfaultfd")), ["spec.security.add_calls", "--allow-call userfaultfd"]),
    ];
    for (asked, parts) in refused {
        for dry_run in [true, false] {
            let told = client.apply(wire::ApplyRequest { dry_run, ..asked.clone() }).await.expect_err("refused");
            assert_eq!(told.code(), Code::InvalidArgument);
            assert!(parts.iter().all(|part| told.message().contains(part)), "{told:?}");
        }
    }
    house.controller.shutdown().await;
}
