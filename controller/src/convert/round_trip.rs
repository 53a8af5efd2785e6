//! Whatever core says, the log gives back.

use std::collections::BTreeMap;

use bellows_core::ids::{AppId, Fence, Generation, NodeId, ReplicaId, RevisionNumber, SpecDigest};
use bellows_core::input::Exit;
use bellows_core::model::command::{Change, Command, Decision, NodeState, Outcome, Refusal};
use bellows_core::model::health::{Check, Health, How};
use bellows_core::model::spec::{
    AppSpec, Constraint, ConstraintOperator, DiskRates, Elastic, Hold, Isolation, Policy, Port, Protocol, Rate, Route,
    Scale, Spread, Traffic, WhenCutOff, WhenFull,
};
use bellows_core::model::{App, Counted, Gone, Image, KeptAnswer, Model, Node, RemovedNode, Revision};
use bellows_core::reason::Reason;
use bellows_core::time::Instant;
use bellows_core::units::{Bytes, CpuMilli, Millis, Permille, Resources};
use bellows_proto::log as stored;
use bellows_proto::types;
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use prost::Message as _;

use super::{
    command_from_log, command_to_log, model_from_log, model_to_log, spec_digest, spec_from_wire, spec_to_wire,
};

fn word() -> impl Strategy<Value = String> {
    "[a-z0-9-]{1,12}"
}

fn text() -> impl Strategy<Value = String> {
    ".{0,20}"
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(word(), text(), 0..4)
}

fn policy() -> impl Strategy<Value = Policy> {
    prop_oneof![
        any::<u32>().prop_map(|target| Policy::Cpu { target: Permille(target) }),
        any::<u32>().prop_map(|target| Policy::Memory { target: Permille(target) }),
        any::<u32>().prop_map(|target| Policy::Concurrency { target }),
        any::<u32>().prop_map(|target| Policy::RequestsPerSecond { target }),
    ]
}

fn rate() -> impl Strategy<Value = Rate> {
    any::<(u32, u64)>().prop_map(|(copies, per)| Rate { copies, per: Millis(per) })
}

fn traffic() -> impl Strategy<Value = Traffic> {
    let route = (of(1..=u16::MAX), word(), text(), any::<(u16, bool, Option<std::num::NonZeroU64>)>()).prop_map(
        |(listen, host, path, (port, tls, most))| {
            let max_body = most.map(|most| Bytes(most.get()));
            Route { listen, host, path, port, tls, max_body }
        },
    );
    let hold = any::<(u32, u64, u64)>().prop_map(|(requests, bytes, time)| Hold {
        requests,
        bytes: Bytes(bytes),
        time: Millis(time),
    });
    let hold = prop_oneof![Just(Hold::default()), hold];
    (vec(route, 0..3), of(any::<u32>()), of(any::<u32>()), hold, any::<u64>()).prop_map(
        |(routes, limit, target, hold, slow_start)| Traffic {
            routes,
            limit,
            target,
            hold,
            slow_start: Millis(slow_start),
        },
    )
}

fn scale() -> impl Strategy<Value = Scale> {
    let elastic = (any::<u32>(), any::<u32>(), any::<u64>(), any::<u32>(), vec(policy(), 0..5), of(rate()), of(rate()));
    let elastic = elastic.prop_map(|(min, max, idle_grace, spare, policies, up, down)| Elastic {
        min,
        max,
        idle_grace: Millis(idle_grace),
        spare,
        policies,
        up,
        down,
    });
    prop_oneof![any::<u32>().prop_map(|replicas| Scale::Declared { replicas }), elastic.prop_map(Scale::Policies)]
}

fn port() -> impl Strategy<Value = Port> {
    let protocol = prop_oneof![Just(Protocol::Http), Just(Protocol::Tcp), Just(Protocol::Http2)];
    (word(), any::<u16>(), protocol).prop_map(|(name, port, protocol)| Port { name, port, protocol })
}

fn constraint() -> impl Strategy<Value = Constraint> {
    use ConstraintOperator::{Exists, In, NotExists, NotIn};
    let operator = prop_oneof![Just(In), Just(NotIn), Just(Exists), Just(NotExists)];
    (word(), operator, vec(text(), 0..3)).prop_map(|(label, operator, values)| Constraint { label, operator, values })
}

fn spread() -> impl Strategy<Value = Spread> {
    let when_full = prop_oneof![Just(WhenFull::Relax), Just(WhenFull::Refuse)];
    (word(), any::<u32>(), when_full).prop_map(|(by, max_skew, when_full)| Spread { by, max_skew, when_full })
}

fn resources() -> impl Strategy<Value = Resources> {
    any::<(u64, u64)>().prop_map(|(cpu, memory)| Resources { cpu: CpuMilli(cpu), memory: Bytes(memory) })
}

fn isolation() -> impl Strategy<Value = Isolation> {
    let words = || vec(word(), 0..3);
    let rates = any::<[u64; 4]>().prop_map(|[read, write, read_operations, write_operations]| DiskRates {
        read: Bytes(read),
        write: Bytes(write),
        read_operations,
        write_operations,
    });
    (any::<bool>(), [words(), words(), words(), words()], of(any::<u32>()), rates).prop_map(
        |(egress, [drop_capabilities, deny_calls, add_capabilities, add_calls], cpu_weight, disk_rates)| Isolation {
            egress,
            drop_capabilities,
            deny_calls,
            add_capabilities,
            add_calls,
            cpu_weight,
            disk_rates,
        },
    )
}

fn when_cut_off() -> impl Strategy<Value = WhenCutOff> {
    of(any::<u64>()).prop_map(|length| match length {
        None => WhenCutOff::KeepRunning,
        Some(length) => WhenCutOff::StopAfter(Millis(length)),
    })
}

fn spec() -> impl Strategy<Value = Box<AppSpec>> {
    let names = (word(), word(), text(), text(), vec(text(), 0..3), vec(text(), 0..3), labels());
    let sizes = (resources(), any::<u32>(), any::<u64>(), any::<u64>());
    let rules = (scale(), vec(port(), 0..3), vec(constraint(), 0..3), of(spread()), of(any::<u32>()));
    let times = (any::<u64>(), any::<u64>(), when_cut_off(), traffic(), isolation());
    (names, sizes, rules, times, health()).prop_map(|(names, sizes, rules, times, health)| {
        let (name, tenant, image, image_digest, command, args, env) = names;
        let (resources, processes, scratch, log) = sizes;
        let (scale, ports, constraints, spread, max_per_node) = rules;
        let (stop_grace, drain_deadline, when_cut_off, traffic, isolation) = times;
        Box::new(AppSpec {
            name,
            tenant,
            image,
            image_digest,
            command,
            args,
            env,
            resources,
            processes,
            scratch: Bytes(scratch),
            log: Bytes(log),
            scale,
            ports,
            stop_grace: Millis(stop_grace),
            drain_deadline: Millis(drain_deadline),
            constraints,
            spread,
            max_per_node,
            when_cut_off,
            traffic,
            health,
            isolation,
        })
    })
}

fn health() -> impl Strategy<Value = Health> {
    (of(check()), of(check()), of(check())).prop_map(|(startup, liveness, readiness)| Health {
        startup,
        liveness,
        readiness,
    })
}

fn check() -> impl Strategy<Value = Check> {
    let how = prop_oneof![
        vec(word(), 0..3).prop_map(|command| How::Exec { command }),
        (any::<u16>(), word(), btree_map(word(), text(), 0..3)).prop_map(|(port, path, headers)| How::Http {
            port,
            path,
            headers
        }),
        any::<u16>().prop_map(|port| How::Tcp { port }),
    ];
    (how, any::<[u64; 3]>(), any::<[u32; 2]>()).prop_map(|(how, [delay, period, timeout], [successes, failures])| {
        Check {
            how,
            initial_delay: Millis(delay),
            period: Millis(period),
            timeout: Millis(timeout),
            success_threshold: successes,
            failure_threshold: failures,
        }
    })
}

fn digest() -> impl Strategy<Value = SpecDigest> {
    any::<[u8; 32]>().prop_map(SpecDigest)
}

fn node_state() -> impl Strategy<Value = NodeState> {
    let draining = any::<u64>().prop_map(|deadline| NodeState::Draining { deadline: Instant(deadline) });
    prop_oneof![Just(NodeState::Active), Just(NodeState::Cordoned), draining]
}

fn reason() -> impl Strategy<Value = Reason> {
    (word(), text()).prop_map(|(code, text)| Reason { code, text })
}

fn gone() -> impl Strategy<Value = Gone> {
    let id = any::<(u64, u64, u64)>()
        .prop_map(|(incarnation, term, counter)| ReplicaId { fence: Fence { incarnation, term }, counter });
    let exit = prop_oneof![
        any::<i32>().prop_map(Exit::Code),
        any::<i32>().prop_map(Exit::Signal),
        Just(Exit::OutOfMemory),
        Just(Exit::NotStarted),
        Just(Exit::Unknown)
    ];
    (id, any::<(u32, u32, u32, u64)>(), exit, reason(), reason()).prop_map(
        |(id, (app, node, revision, at), exit, why, placed)| Gone {
            id,
            app: AppId(app),
            node: NodeId(node),
            revision: RevisionNumber(revision),
            exit,
            why,
            placed,
            at: Instant(at),
        },
    )
}

fn expected() -> impl Strategy<Value = Option<Generation>> {
    of(any::<u64>().prop_map(Generation))
}

fn change() -> impl Strategy<Value = Change> {
    let decision =
        (any::<(u32, u64)>(), reason()).prop_map(|((replicas, at), why)| Decision { replicas, at: Instant(at), why });
    let wanted = btree_map(any::<u32>().prop_map(AppId), decision, 0..4);
    prop_oneof![
        (text(), any::<u64>()).prop_map(|(cluster, incarnation)| Change::FoundCluster { cluster, incarnation }),
        (spec(), digest(), expected()).prop_map(|(spec, digest, expected)| Change::ApplyApp { spec, digest, expected }),
        (word(), word(), any::<u32>(), expected()).prop_map(|(tenant, name, replicas, expected)| Change::ScaleApp {
            tenant,
            name,
            replicas,
            expected
        }),
        (word(), word(), expected()).prop_map(|(tenant, name, expected)| Change::RemoveApp { tenant, name, expected }),
        wanted.prop_map(|wanted| Change::RecordWanted { wanted }),
        vec(gone(), 0..4).prop_map(|ended| Change::RecordEnded { ended }),
        any::<(u32, u32)>()
            .prop_map(|(app, number)| Change::RecordGood { app: AppId(app), revision: RevisionNumber(number) }),
        (word(), word(), labels()).prop_map(|(name, machine, labels)| Change::JoinNode { name, machine, labels }),
        (any::<u32>(), node_state()).prop_map(|(node, state)| Change::SetNodeState { node: NodeId(node), state }),
        any::<u32>().prop_map(|node| Change::RemoveNode { node: NodeId(node) }),
        (word(), text(), any::<u64>()).prop_map(|(name, digest, size)| Change::RegisterImage {
            name,
            digest,
            size: Bytes(size)
        }),
        word().prop_map(|name| Change::RemoveImage { name }),
        (word(), any::<u64>()).prop_map(|(hash, at)| Change::CreateToken { hash, expires: Instant(at) }),
        Just(Change::Resume),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    (any::<u64>(), text(), text(), change()).prop_map(|(at, by, key, change)| Command {
        at: Instant(at),
        by,
        key,
        change,
    })
}

fn refusal() -> impl Strategy<Value = Refusal> {
    prop_oneof![
        (word(), word(), of(word())).prop_map(|(tenant, name, nearest)| Refusal::UnknownApp { tenant, name, nearest }),
        (word(), of(word())).prop_map(|(name, nearest)| Refusal::UnknownNode { name, nearest }),
        (word(), of(word())).prop_map(|(name, nearest)| Refusal::UnknownImage { name, nearest }),
        (word(), any::<(u64, u64)>()).prop_map(|(name, (expected, actual))| Refusal::WrongGeneration {
            name,
            expected: Generation(expected),
            actual: Generation(actual),
        }),
        (word(), any::<(u32, u32)>()).prop_map(|(name, (min, max))| Refusal::ScaledByPolicy { name, min, max }),
        (word(), word()).prop_map(|(name, app)| Refusal::ImageInUse { name, app }),
        word().prop_map(|name| Refusal::NodeNameTaken { name }),
        word().prop_map(|key| Refusal::KeyReused { key }),
        text().prop_map(Refusal::BadSpec),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        any::<(u32, u64, bool)>().prop_map(|(app, generation, changed)| Outcome::App {
            app: AppId(app),
            generation: Generation(generation),
            changed,
        }),
        any::<u32>().prop_map(|node| Outcome::Node { node: NodeId(node) }),
        Just(Outcome::Done),
        refusal().prop_map(Outcome::Refused),
    ]
}

fn revision() -> impl Strategy<Value = Revision> {
    (any::<(u32, u32, u64)>(), digest(), spec(), text()).prop_map(|((number, since, at), digest, spec, by)| Revision {
        number: RevisionNumber(number),
        runs_since: RevisionNumber(since),
        digest,
        spec,
        at: Instant(at),
        by,
    })
}

fn app() -> impl Strategy<Value = App> {
    let counted = (any::<u64>(), word(), reason()).prop_map(|(at, by, why)| Counted { at: Instant(at), by, why });
    (any::<(u32, u64, u32)>(), revision(), of(revision()), of(revision()), counted).prop_map(
        |((id, generation, wanted), current, previous, last_good, counted)| App {
            id: AppId(id),
            generation: Generation(generation),
            current,
            previous,
            last_good,
            wanted,
            counted,
        },
    )
}

fn removed() -> impl Strategy<Value = RemovedNode> {
    (any::<(u32, u64)>(), word(), word()).prop_map(|((id, at), name, by)| RemovedNode {
        id: NodeId(id),
        name,
        at: Instant(at),
        by,
    })
}

fn node() -> impl Strategy<Value = Node> {
    (any::<(u32, u64)>(), word(), word(), labels(), node_state()).prop_map(
        |((id, joined), name, machine, labels, state)| Node {
            id: NodeId(id),
            name,
            machine,
            labels,
            state,
            joined: Instant(joined),
        },
    )
}

fn image() -> impl Strategy<Value = Image> {
    (text(), any::<(u64, u64)>()).prop_map(|(digest, (size, at))| Image { digest, size: Bytes(size), at: Instant(at) })
}

fn kept() -> impl Strategy<Value = KeptAnswer> {
    (word(), change(), outcome()).prop_map(|(key, change, outcome)| KeptAnswer { key, change, outcome })
}

/// Apps bear distinct names, as the model's index has it.
fn named_apart(apps: Vec<App>) -> BTreeMap<AppId, App> {
    let named = apps.into_iter().enumerate().map(|(place, mut app)| {
        app.current.spec.name = format!("app-{place}");
        (app.id, app)
    });
    named.collect()
}

fn model() -> impl Strategy<Value = Model> {
    let counters = (text(), any::<(u64, bool, u32, u32)>());
    let tokens = btree_map(word(), any::<u64>().prop_map(Instant), 0..3);
    let parts = (vec(app(), 0..4), vec(node(), 0..4), btree_map(word(), image(), 0..4), tokens, vec(kept(), 0..4));
    let past = (vec(removed(), 0..3), vec(gone(), 0..3));
    (counters, parts, past).prop_map(|((cluster, (incarnation, observing, last_app, last_node)), parts, past)| {
        let (removed, ended) = past;
        let (apps, nodes, images, tokens, keys) = parts;
        let apps = named_apart(apps);
        let nodes: BTreeMap<_, _> = nodes.into_iter().map(|node| (node.id, node)).collect();
        let name_of = |app: &App| ((app.current.spec.tenant.clone(), app.current.spec.name.clone()), app.id);
        Model {
            cluster,
            incarnation,
            observing,
            last_app: AppId(last_app),
            last_node: NodeId(last_node),
            app_names: apps.values().map(name_of).collect(),
            apps,
            node_names: nodes.values().map(|node| (node.name.clone(), node.id)).collect(),
            nodes,
            images,
            tokens,
            removed,
            ended,
            keys,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn commands_come_back(command in command()) {
        let bytes = command_to_log(&command).encode_to_vec();
        let stored = stored::Command::decode(&*bytes).expect("just encoded");
        prop_assert_eq!(command_from_log(stored).expect("just converted"), command);
    }

    #[test]
    fn models_come_back(model in model()) {
        let bytes = model_to_log(&model).encode_to_vec();
        let stored = stored::Snapshot::decode(&*bytes).expect("just encoded");
        prop_assert_eq!(model_from_log(stored).expect("just converted"), model);
    }

    /// Two encodings of one spec have one digest: agents and leader compare by it.
    #[test]
    fn specs_come_back_with_their_digest(spec in spec()) {
        let bytes = spec_to_wire(&spec).encode_to_vec();
        let back = spec_from_wire(types::AppSpec::decode(&*bytes).expect("just encoded")).expect("just converted");
        prop_assert_eq!(spec_digest(&back), spec_digest(&spec));
        prop_assert_eq!(back, *spec);
    }

    /// What comes from outside may be anything: it is taken or refused, and no more.
    #[test]
    fn nonsense_is_refused_and_no_more(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(command) = stored::Command::decode(&*bytes) {
            let _ = command_from_log(command);
        }
        if let Ok(report) = bellows_proto::node::Report::decode(&*bytes) {
            let _ = super::report_from_wire(report);
        }
        if let Ok(hello) = bellows_proto::node::Hello::decode(&*bytes) {
            let _ = super::hello_from_wire(hello);
        }
    }
}

#[test]
fn a_newer_snapshot_is_refused() {
    let newer = stored::Snapshot { format: 2, ..Default::default() };
    assert!(model_from_log(newer).expect_err("refused").to_string().starts_with("format: 2 is not known"));
}
