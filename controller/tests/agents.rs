//! What agents see: the handshake, orders once, blobs, calls, and being told why they may not stay.

mod support;

use bellows_proto::node::nodes_client::NodesClient;
use bellows_proto::node::{self as node};
use bellows_proto::operator as wire;
use bellows_proto::types;
use support::{Agent, House, apply, first_answer, open_as, scale, soon, spec};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

fn refusal(answer: Option<node::to_agent::Body>) -> node::Refusal {
    match answer {
        Some(node::to_agent::Body::Refusal(refusal)) => refusal,
        other => panic!("no refusal but {other:?}"),
    }
}

#[tokio::test]
async fn those_who_may_not_stay_are_told_why() {
    let house = House::new().await;
    let joined = house.join("node-a").await;
    let cloned = refusal(first_answer(&house, &joined, vec![open_as("another machine", Default::default())]).await);
    assert!(cloned.text.contains("cloned disk") && !cloned.retry, "{}", cloned.text);
    let higher = types::Fence { incarnation: 7, term: 1 };
    let backup = refusal(first_answer(&house, &joined, vec![open_as(&joined.machine, higher)]).await);
    assert!(backup.text.contains("older backup"), "{}", backup.text);
    let early = node::FromAgent { body: Some(node::from_agent::Body::Report(node::Report::default())) };
    let early = refusal(first_answer(&house, &joined, vec![early]).await);
    assert!(early.text.contains("begins with Open"), "{}", early.text);
    let open = node::Open { protocol: 9, ..Default::default() };
    let newer = node::FromAgent { body: Some(node::from_agent::Body::Open(open)) };
    assert!(refusal(first_answer(&house, &joined, vec![newer]).await).text.starts_with("protocol: "));
    house.controller.shutdown().await;
}

#[tokio::test]
async fn words_that_make_no_sense_end_the_session_by_name() {
    let house = House::new().await;
    let joined = house.join("node-a").await;
    let mut agent = Agent::connect(&house, &joined).await;
    let session = agent.greeting.session;
    let replica = node::ReplicaReport { id: None, ..Default::default() };
    let report = node::Report { session, replicas: vec![replica], ..Default::default() };
    agent.say(node::from_agent::Body::Report(report)).await;
    assert_eq!(refusal(agent.next().await).text, "report.replicas[0].id: is missing");
    assert!(agent.next().await.is_none(), "the stream ends after a refusal");
    house.controller.shutdown().await;
}

#[tokio::test]
async fn a_report_of_another_session_is_refused() {
    let house = House::new().await;
    let joined = house.join("node-a").await;
    let mut agent = Agent::connect(&house, &joined).await;
    let session = agent.greeting.session + 1;
    agent.say(node::from_agent::Body::Report(node::Report { session, ..Default::default() })).await;
    assert!(refusal(agent.next().await).text.starts_with("report.session: "));
    house.controller.shutdown().await;
}

#[tokio::test]
async fn a_burst_is_one_batch_and_one_spec() {
    let house = House::new().await;
    house.load_image("web:1").await;
    let joined = house.join("node-a").await;
    let mut agent = Agent::connect(&house, &joined).await;
    agent.report(0).await;
    let mut client = house.operator().await;
    client.apply(apply(spec("web", "web:1", 0))).await.expect("applied");
    client.scale(scale("web", 50)).await.expect("scaled");
    let orders = agent.orders().await;
    assert_eq!(orders.len(), 50, "all orders of one step leave in one message");
    let sequences: Vec<_> = orders.iter().map(|order| order.sequence).collect();
    assert_eq!(sequences, (1..=50).collect::<Vec<_>>());
    agent.obey(&orders).await;
    client.scale(scale("web", 60)).await.expect("scaled");
    let more = agent.orders().await;
    assert_eq!(more.len(), 10);
    assert_eq!(agent.specs.len(), 1, "a session carries a spec once");
    assert_eq!(agent.specs[0].digest.len(), 32);
    house.controller.shutdown().await;
}

#[tokio::test]
async fn copies_go_when_fewer_are_wanted() {
    let house = House::new().await;
    house.load_image("web:1").await;
    let joined = house.join("node-a").await;
    let mut agent = Agent::connect(&house, &joined).await;
    agent.report(0).await;
    let mut client = house.operator().await;
    client.apply(apply(spec("web", "web:1", 4))).await.expect("applied");
    let orders = agent.orders().await;
    agent.obey(&orders).await;
    let generation = client.scale(scale("web", 1)).await.expect("scaled").into_inner().generation;
    let asked = wire::AwaitRequest { app: "web".to_owned(), generation, ..Default::default() };
    let mut progress = client.r#await(asked).await.expect("a stream").into_inner();
    let settled = async {
        let mut last = None;
        while let Some(step) = progress.message().await.expect("no error") {
            last = Some(step);
        }
        last.expect("some progress")
    };
    let obedient = async {
        loop {
            let orders = agent.orders().await;
            agent.obey(&orders).await;
        }
    };
    let last = soon("settling", async {
        tokio::select! { last = settled => last, () = obedient => unreachable!() }
    });
    let last = last.await;
    assert!(last.settled, "{last:?}");
    assert_eq!((last.wanted, last.ready, last.surplus), (1, 1, 0));
    let events = client.events(wire::EventsRequest::default()).await.expect("a stream").into_inner();
    let kinds = collect(events).await.into_iter().map(|event| event.kind).collect::<Vec<_>>();
    for kind in ["app_changed", "placed", "ready", "parked", "ended"] {
        assert!(kinds.iter().any(|known| known == kind), "{kind} is not in {kinds:?}");
    }
    house.controller.shutdown().await;
}

async fn collect<T>(mut stream: tonic::Streaming<T>) -> Vec<T> {
    let mut all = Vec::new();
    while let Some(item) = soon("an item", stream.message()).await.expect("no error") {
        all.push(item);
    }
    all
}

#[tokio::test]
async fn blobs_travel_to_nodes() {
    let house = House::new().await;
    let joined = house.join("node-a").await;
    let mut operator = house.operator().await;
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
    let digest = support::digest_of(&bytes);
    use wire::put_blob_request::Body;
    let first = wire::PutBlobRequest { body: Some(Body::Digest(digest.clone())) };
    let data = bytes.chunks(300_000).map(|chunk| wire::PutBlobRequest { body: Some(Body::Data(chunk.to_vec())) });
    let messages: Vec<_> = std::iter::once(first).chain(data).collect();
    operator.put_blob(tokio_stream::iter(messages)).await.expect("stored");
    let mut client = NodesClient::new(house.channel(Some(joined.identity.clone())).await);
    let stream = client.fetch_blob(node::FetchBlobRequest { digest }).await.expect("a stream").into_inner();
    let fetched: Vec<u8> = collect(stream).await.into_iter().flat_map(|chunk| chunk.data).collect();
    assert!(fetched == bytes);
    let absent = node::FetchBlobRequest { digest: support::digest_of(b"absent") };
    assert_eq!(client.fetch_blob(absent).await.expect_err("absent").code(), Code::NotFound);
    house.controller.shutdown().await;
}

#[tokio::test]
async fn logs_come_from_the_owner() {
    let house = House::new().await;
    house.load_image("web:1").await;
    let joined = house.join("node-a").await;
    let mut agent = Agent::connect(&house, &joined).await;
    agent.report(0).await;
    let mut operator = house.operator().await;
    operator.apply(apply(spec("web", "web:1", 1))).await.expect("applied");
    let orders = agent.orders().await;
    agent.obey(&orders).await;
    let replica = orders[0].replica;

    let asked = wire::LogsRequest { replica, tail_lines: Some(10), ..wire::LogsRequest::default() };
    let refusal = operator.logs(asked).await.expect_err("no line to the agent");
    assert_eq!(refusal.code(), Code::Unavailable);

    let mut client = NodesClient::new(house.channel(Some(joined.identity.clone())).await);
    let (replies, receiver) = mpsc::channel(16);
    replies.send(node::CallReply::default()).await.expect("open");
    let mut calls = client.calls(ReceiverStream::new(receiver)).await.expect("a stream").into_inner();
    let logs = operator.logs(asked).await.expect("a stream").into_inner();
    let call = soon("the call", calls.message()).await.expect("no error").expect("a call");
    let Some(node::call::Body::Logs(body)) = call.body else { panic!("no logs call") };
    assert_eq!((body.replica, body.tail_lines), (replica, Some(10)));
    for body in [node::call_reply::Body::Data(b"one\n".to_vec()), node::call_reply::Body::Data(b"two\n".to_vec())] {
        replies
            .send(node::CallReply { id: call.id, body: Some(body), ..node::CallReply::default() })
            .await
            .expect("open");
    }
    let body = Some(node::call_reply::Body::Done(node::Done {}));
    let done = node::CallReply { id: call.id, body, ..node::CallReply::default() };
    replies.send(done).await.expect("open");
    let text: Vec<u8> = collect(logs).await.into_iter().flat_map(|chunk| chunk.data).collect();
    assert_eq!(text, b"one\ntwo\n");

    let logs = operator.logs(wire::LogsRequest { follow: true, ..asked }).await.expect("a stream").into_inner();
    let call = soon("the call", calls.message()).await.expect("no error").expect("a call");
    drop(logs);
    let cancel = soon("the cancel", calls.message()).await.expect("no error").expect("a call");
    assert!(matches!(cancel.body, Some(node::call::Body::Cancel(_))), "a call that ended well is not cancelled");
    assert_eq!(cancel.id, call.id);
    house.controller.shutdown().await;
}

#[tokio::test]
async fn after_a_restart_the_inventory_is_believed() {
    let house = House::new().await;
    house.load_image("web:1").await;
    let joined = house.join("node-a").await;
    let mut agent = Agent::connect(&house, &joined).await;
    agent.report(0).await;
    let mut client = house.operator().await;
    let generation = client.apply(apply(spec("web", "web:1", 2))).await.expect("applied").into_inner().generation;
    let orders = agent.orders().await;
    assert_eq!(orders.len(), 2);
    agent.obey(&orders).await;
    let before = agent.greeting.fence.expect("a fence");

    let house = house.killed_and_restarted().await;
    let agent = agent.reconnect(&house, &joined).await;
    let after = agent.greeting.fence.expect("a fence");
    assert!((after.incarnation, after.term) > (before.incarnation, before.term), "{after:?} after {before:?}");
    let mut client = house.operator().await;
    let asked = wire::AwaitRequest { app: "web".to_owned(), generation, ..Default::default() };
    let progress = collect(client.r#await(asked).await.expect("a stream").into_inner()).await;
    let last = progress.last().expect("some progress");
    assert!(last.settled && last.ready == 2, "{last:?}");
    let replicas = client.list_replicas(wire::ListReplicasRequest::default()).await.expect("listed").into_inner();
    let mut ids: Vec<_> = replicas.replicas.iter().filter_map(|replica| replica.id).collect();
    let mut known: Vec<_> = orders.iter().filter_map(|order| order.replica).collect();
    ids.sort_by_key(|id| id.counter);
    known.sort_by_key(|id| id.counter);
    assert_eq!(ids, known, "the same copies, none new");
    house.controller.shutdown().await;
}
