//! The commands in raft's log.

use bellows_core::ids::{AppId, Generation, NodeId, RevisionNumber};
use bellows_core::input::Ended;
use bellows_core::model::Gone;
use bellows_core::model::command::{Change, Command, Decision, NodeState, Outcome};
use bellows_core::time::Instant;
use bellows_core::units::Bytes;
use bellows_proto::log as wire;

use super::refusal::{refusal_from_log, refusal_to_log};
use super::spec::{spec_from_wire, spec_to_wire};
use super::words::{
    digest_from_wire, ended_from_wire, ended_to_wire, reason_from_wire, reason_to_wire, replica_id_from_wire,
    replica_id_to_wire,
};
use super::{Result, each, required};

pub(crate) fn command_to_log(command: &Command) -> wire::Command {
    wire::Command {
        at_unix_ms: command.at.0,
        by: command.by.clone(),
        key: command.key.clone(),
        change: Some(change_to_log(&command.change)),
    }
}

pub(crate) fn command_from_log(command: wire::Command) -> Result<Command> {
    let change = change_from_log(required("change", command.change)?)?;
    Ok(Command { at: Instant(command.at_unix_ms), by: command.by, key: command.key, change })
}

fn change_to_log(change: &Change) -> wire::command::Change {
    use wire::command::Change as Wire;
    match change {
        Change::FoundCluster { cluster, incarnation } => {
            Wire::FoundCluster(wire::FoundCluster { cluster: cluster.clone(), incarnation: *incarnation })
        }
        Change::ApplyApp { spec, digest, expected } => Wire::ApplyApp(wire::ApplyApp {
            spec: Some(spec_to_wire(spec)),
            digest: digest.0.to_vec(),
            expected_generation: generation_to_log(*expected),
        }),
        Change::ScaleApp { tenant, name, replicas, expected } => Wire::ScaleApp(wire::ScaleApp {
            tenant: tenant.clone(),
            name: name.clone(),
            replicas: *replicas,
            expected_generation: generation_to_log(*expected),
        }),
        Change::RemoveApp { tenant, name, expected } => Wire::RemoveApp(wire::RemoveApp {
            tenant: tenant.clone(),
            name: name.clone(),
            expected_generation: generation_to_log(*expected),
        }),
        Change::RecordWanted { wanted } => {
            let counts = wanted.iter().map(|(app, decision)| (app.0, decision.replicas)).collect();
            let decided = wanted.iter().map(|(app, decision)| (app.0, decision_to_log(decision))).collect();
            Wire::RecordWanted(wire::RecordWanted { wanted: counts, decided })
        }
        Change::RecordGood { app, revision } => Wire::RecordGood(wire::RecordGood { app: app.0, revision: revision.0 }),
        Change::JoinNode { name, machine, labels } => {
            Wire::JoinNode(wire::JoinNode { name: name.clone(), machine: machine.clone(), labels: labels.clone() })
        }
        other => rare_change_to_log(other),
    }
}

/// The second half of the list, so that neither half is long.
fn rare_change_to_log(change: &Change) -> wire::command::Change {
    use wire::command::Change as Wire;
    match change {
        Change::SetNodeState { node, state } => {
            Wire::SetNodeState(wire::SetNodeState { node: node.0, state: Some(node_state_to_log(*state)) })
        }
        Change::RemoveNode { node } => Wire::RemoveNode(wire::RemoveNode { node: node.0 }),
        Change::RegisterImage { name, digest, size } => {
            Wire::RegisterImage(wire::RegisterImage { name: name.clone(), digest: digest.clone(), size_bytes: size.0 })
        }
        Change::RemoveImage { name } => Wire::RemoveImage(wire::RemoveImage { name: name.clone() }),
        Change::CreateToken { hash, expires } => {
            Wire::CreateToken(wire::CreateToken { hash: hash.clone(), expires_unix_ms: expires.0 })
        }
        Change::Resume => Wire::Resume(wire::Resume {}),
        Change::RecordEnded { ended } => {
            Wire::RecordEnded(wire::RecordEnded { ended: ended.iter().map(gone_to_log).collect() })
        }
        Change::FoundCluster { .. }
        | Change::ApplyApp { .. }
        | Change::ScaleApp { .. }
        | Change::RemoveApp { .. }
        | Change::RecordWanted { .. }
        | Change::RecordGood { .. }
        | Change::JoinNode { .. } => unreachable!("change_to_log has taken these"),
    }
}

fn change_from_log(change: wire::command::Change) -> Result<Change> {
    use wire::command::Change as Wire;
    Ok(match change {
        Wire::FoundCluster(found) => Change::FoundCluster { cluster: found.cluster, incarnation: found.incarnation },
        Wire::ApplyApp(apply) => Change::ApplyApp {
            spec: Box::new(spec_from_wire(required("spec", apply.spec)?)?),
            digest: digest_from_wire("digest", &apply.digest)?,
            expected: apply.expected_generation.map(Generation),
        },
        Wire::ScaleApp(scale) => Change::ScaleApp {
            tenant: scale.tenant,
            name: scale.name,
            replicas: scale.replicas,
            expected: scale.expected_generation.map(Generation),
        },
        Wire::RemoveApp(remove) => Change::RemoveApp {
            tenant: remove.tenant,
            name: remove.name,
            expected: remove.expected_generation.map(Generation),
        },
        Wire::RecordWanted(record) => {
            let mut decided = record.decided;
            let decision = |(app, replicas)| (AppId(app), decision_from_log(replicas, decided.remove(&app)));
            Change::RecordWanted { wanted: record.wanted.into_iter().map(decision).collect() }
        }
        Wire::RecordEnded(record) => Change::RecordEnded { ended: each("ended", record.ended, gone_from_log)? },
        Wire::RecordGood(good) => Change::RecordGood { app: AppId(good.app), revision: RevisionNumber(good.revision) },
        Wire::JoinNode(join) => Change::JoinNode { name: join.name, machine: join.machine, labels: join.labels },
        Wire::SetNodeState(set) => {
            Change::SetNodeState { node: NodeId(set.node), state: node_state_from_log(set.state)? }
        }
        Wire::RemoveNode(remove) => Change::RemoveNode { node: NodeId(remove.node) },
        Wire::RegisterImage(image) => {
            Change::RegisterImage { name: image.name, digest: image.digest, size: Bytes(image.size_bytes) }
        }
        Wire::RemoveImage(image) => Change::RemoveImage { name: image.name },
        Wire::CreateToken(token) => Change::CreateToken { hash: token.hash, expires: Instant(token.expires_unix_ms) },
        Wire::Resume(wire::Resume {}) => Change::Resume,
    })
}

fn decision_to_log(decision: &Decision) -> wire::Decision {
    wire::Decision { at_unix_ms: decision.at.0, why: Some(reason_to_wire(&decision.why)) }
}

/// Logs from before decisions were kept hold counts only.
fn decision_from_log(replicas: u32, decision: Option<wire::Decision>) -> Decision {
    let decision = decision.unwrap_or_default();
    Decision { replicas, at: Instant(decision.at_unix_ms), why: reason_from_wire(decision.why) }
}

pub(super) fn gone_to_log(gone: &Gone) -> wire::Gone {
    let ended = Ended { exit: gone.exit, why: gone.why.clone(), wanted: false, at: gone.at };
    wire::Gone {
        replica: Some(replica_id_to_wire(gone.id)),
        app: gone.app.0,
        revision: gone.revision.0,
        node: gone.node.0,
        ended: Some(ended_to_wire(&ended)),
        placed: Some(reason_to_wire(&gone.placed)),
    }
}

pub(super) fn gone_from_log(gone: wire::Gone) -> Result<Gone> {
    let Ended { exit, why, at, wanted: _ } = ended_from_wire(required("ended", gone.ended)?);
    Ok(Gone {
        id: replica_id_from_wire("replica", gone.replica)?,
        app: AppId(gone.app),
        node: NodeId(gone.node),
        revision: RevisionNumber(gone.revision),
        exit,
        why,
        placed: reason_from_wire(gone.placed),
        at,
    })
}

fn generation_to_log(generation: Option<Generation>) -> Option<u64> {
    generation.map(|generation| generation.0)
}

pub(super) fn node_state_to_log(state: NodeState) -> wire::NodeState {
    use wire::node_state::{Active, Cordoned, Draining, State};
    let state = match state {
        NodeState::Active => State::Active(Active {}),
        NodeState::Cordoned => State::Cordoned(Cordoned {}),
        NodeState::Draining { deadline } => State::Draining(Draining { deadline_unix_ms: deadline.0 }),
    };
    wire::NodeState { state: Some(state) }
}

pub(super) fn node_state_from_log(state: Option<wire::NodeState>) -> Result<NodeState> {
    use wire::node_state::State;
    Ok(match required("state", required("state", state)?.state)? {
        State::Active(_) => NodeState::Active,
        State::Cordoned(_) => NodeState::Cordoned,
        State::Draining(draining) => NodeState::Draining { deadline: Instant(draining.deadline_unix_ms) },
    })
}

pub(super) fn outcome_to_log(outcome: &Outcome) -> wire::Outcome {
    use wire::outcome::{AppOutcome, Done, Outcome as Wire};
    let outcome = match outcome {
        Outcome::App { app, generation, changed } => {
            Wire::App(AppOutcome { app: app.0, generation: generation.0, changed: *changed })
        }
        Outcome::Node { node } => Wire::Node(node.0),
        Outcome::Done => Wire::Done(Done {}),
        Outcome::Refused(refusal) => Wire::Refused(refusal_to_log(refusal)),
    };
    wire::Outcome { outcome: Some(outcome) }
}

pub(super) fn outcome_from_log(outcome: wire::Outcome) -> Result<Outcome> {
    use wire::outcome::Outcome as Wire;
    Ok(match required("outcome", outcome.outcome)? {
        Wire::App(app) => {
            Outcome::App { app: AppId(app.app), generation: Generation(app.generation), changed: app.changed }
        }
        Wire::Node(node) => Outcome::Node { node: NodeId(node) },
        Wire::Done(_) => Outcome::Done,
        Wire::Refused(refusal) => Outcome::Refused(refusal_from_log(refusal)?),
    })
}

/// For snapshots: a change alone travels as a command.
pub(super) fn change_alone_to_log(key: &str, change: &Change) -> wire::Command {
    wire::Command { key: key.to_owned(), change: Some(change_to_log(change)), ..Default::default() }
}

pub(super) fn change_alone_from_log(command: wire::Command) -> Result<(String, Change)> {
    Ok((command.key, change_from_log(required("change", command.change)?)?))
}
