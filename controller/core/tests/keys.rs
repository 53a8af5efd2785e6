//! Idempotency keys: a request that is repeated changes nothing twice, and gets its first answer.

mod lab;

use std::collections::BTreeMap;

use bellows_core::Config;
use bellows_core::ids::{AppId, Generation, NodeId, SpecDigest};
use bellows_core::input::Request;
use bellows_core::limits::KEPT_KEYS;
use bellows_core::model::command::{NodeState, Outcome, Refusal};
use bellows_core::model::spec::{AppSpec, Scale, WhenCutOff};
use bellows_core::units::{Bytes, Millis};
use lab::{Lab, resources};

fn sound() -> AppSpec {
    AppSpec {
        name: "web".to_owned(),
        tenant: "default".to_owned(),
        image: "busybox".to_owned(),
        image_digest: "sha256:00".to_owned(),
        command: vec!["sleep".to_owned()],
        args: Vec::new(),
        env: BTreeMap::new(),
        resources: resources(500, 128),
        processes: 100,
        scratch: Bytes(1 << 20),
        log: Bytes(1 << 20),
        scale: Scale::Declared { replicas: 1 },
        ports: Vec::new(),
        stop_grace: Millis(5_000),
        drain_deadline: Millis(10_000),
        constraints: Vec::new(),
        spread: None,
        max_per_node: None,
        when_cut_off: WhenCutOff::KeepRunning,
        traffic: Default::default(),
        health: Default::default(),
        isolation: Default::default(),
    }
}

fn apply(spec: AppSpec) -> Request {
    Request::Apply { spec: Box::new(spec), digest: SpecDigest([1; 32]), expected: None }
}

fn scale(replicas: u32) -> Request {
    Request::Scale { tenant: "default".to_owned(), name: "web".to_owned(), replicas, expected: None }
}

fn with_web() -> Lab {
    let mut lab = Lab::new(Config::default());
    lab.join("n1", resources(4_000, 4_096), BTreeMap::new());
    lab.ask(apply(sound()));
    lab
}

fn app(generation: u64, changed: bool) -> Option<Outcome> {
    Some(Outcome::App { app: AppId(1), generation: Generation(generation), changed })
}

#[test]
fn a_repeated_request_gets_its_first_answer_whatever_happened_since() {
    let mut lab = with_web();
    assert_eq!(lab.ask_with_key("k1", scale(5)), app(2, true));
    assert_eq!(lab.ask(scale(7)), app(3, true));
    assert_eq!(lab.ask_with_key("k1", scale(5)), app(2, true), "it changes nothing the second time");
    assert_eq!(lab.core.model().apps[&AppId(1)].wanted, 7);
    let reused = Some(Outcome::Refused(Refusal::KeyReused { key: "k1".to_owned() }));
    assert_eq!(lab.ask_with_key("k1", scale(6)), reused);
    // Also by the next leader.
    lab.lead();
    assert_eq!(lab.ask_with_key("k1", scale(5)), app(2, true));
}

#[test]
fn a_refusal_is_an_answer_too() {
    let mut lab = with_web();
    let wrong =
        || Request::Remove { tenant: "default".to_owned(), name: "web".to_owned(), expected: Some(Generation(9)) };
    let first = lab.ask_with_key("k1", wrong());
    assert!(matches!(&first, Some(Outcome::Refused(Refusal::WrongGeneration { .. }))), "{first:?}");
    lab.ask(scale(2));
    assert_eq!(lab.ask_with_key("k1", wrong()), first);
}

#[test]
fn removing_a_node_can_be_repeated() {
    let mut lab = with_web();
    let remove = || Request::RemoveNode { node: "n1".to_owned() };
    let removed = Some(Outcome::Node { node: NodeId(1) });
    assert_eq!(lab.ask_with_key("k1", remove()), removed);
    assert_eq!(lab.ask_with_key("k1", remove()), removed, "the answer to the first try was lost on its way");
    assert!(matches!(lab.ask(remove()), Some(Outcome::Refused(Refusal::UnknownNode { .. }))));
    assert!(matches!(lab.ask_with_key("k2", remove()), Some(Outcome::Refused(Refusal::UnknownNode { .. }))));
    // Another node of that name is not meant by the old request.
    let successor = lab.join("n1", resources(4_000, 4_096), BTreeMap::new());
    assert_eq!(successor, NodeId(2));
    assert_eq!(lab.ask_with_key("k1", remove()), removed);
    assert!(lab.core.model().nodes.contains_key(&successor));
}

#[test]
fn a_repeated_drain_keeps_its_first_deadline() {
    let mut lab = with_web();
    let drain = |lab: &mut Lab| {
        let deadline = lab.now + Millis(60_000);
        let state = NodeState::Draining { deadline };
        lab.ask_with_key("k1", Request::SetNodeState { node: "n1".to_owned(), state });
        lab.core.model().nodes[&NodeId(1)].state
    };
    let first = drain(&mut lab);
    lab.run(Millis(1_000));
    assert_eq!(drain(&mut lab), first);
    let cordon = Request::SetNodeState { node: "n1".to_owned(), state: NodeState::Cordoned };
    assert!(matches!(lab.ask_with_key("k1", cordon), Some(Outcome::Refused(Refusal::KeyReused { .. }))));
}

#[test]
fn the_oldest_keys_are_forgotten() {
    let mut lab = with_web();
    assert_eq!(lab.ask_with_key("first", scale(2)), app(2, true));
    for number in 0..KEPT_KEYS {
        lab.ask_with_key(&format!("k{number}"), scale(3));
    }
    assert_eq!(lab.core.model().keys.len(), KEPT_KEYS);
    assert_eq!(lab.ask_with_key("first", scale(2)), app(4, true), "to the model it is a new request");
}
