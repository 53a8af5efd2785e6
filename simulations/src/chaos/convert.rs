//! Between the leader's words and the agent's: the same shapes, held apart because neither may depend on the other.

use bellows_agent_core as agent;
use bellows_core as core;
use core::ids as leader;

pub(crate) fn fence_down(fence: leader::Fence) -> agent::Fence {
    agent::Fence { incarnation: fence.incarnation, term: fence.term }
}

pub(crate) fn fence_up(fence: agent::Fence) -> leader::Fence {
    leader::Fence { incarnation: fence.incarnation, term: fence.term }
}

pub(crate) fn replica_down(id: leader::ReplicaId) -> agent::ReplicaId {
    agent::ReplicaId { fence: fence_down(id.fence), counter: id.counter }
}

fn replica_up(id: agent::ReplicaId) -> leader::ReplicaId {
    leader::ReplicaId { fence: fence_up(id.fence), counter: id.counter }
}

fn reason_up(reason: agent::Reason) -> core::reason::Reason {
    core::reason::Reason { code: reason.code, text: reason.text }
}

pub(crate) fn order_down(order: core::effect::Order) -> agent::Order {
    use core::effect::Action;
    let action = match order.action {
        Action::Start { app, revision, digest, .. } => agent::Action::Start {
            app: agent::AppId(app.0),
            revision: agent::RevisionNumber(revision.0),
            digest: agent::SpecDigest(digest.0),
        },
        Action::Park => agent::Action::Park,
        Action::Unpark => agent::Action::Unpark,
        Action::Stop { only_if_idle, grace } => agent::Action::Stop { only_if_idle, grace: agent::Millis(grace.0) },
    };
    agent::Order {
        sequence: agent::OrderSequence(order.sequence.0),
        replica: replica_down(order.replica),
        action,
        reason: agent::Reason { code: order.reason.code, text: order.reason.text },
    }
}

pub(crate) fn run_spec(spec: &core::model::spec::AppSpec) -> agent::RunSpec {
    use core::model::spec::WhenCutOff;
    agent::RunSpec {
        image: spec.image_digest.clone(),
        resources: resources_down(spec.resources),
        ready_port: spec.ports.first().map(|port| port.port),
        stop_grace: agent::Millis(spec.stop_grace.0),
        when_cut_off: match spec.when_cut_off {
            WhenCutOff::KeepRunning => agent::WhenCutOff::KeepRunning,
            WhenCutOff::StopAfter(length) => agent::WhenCutOff::StopAfter(agent::Millis(length.0)),
        },
        // Attempts of the laboratory answer as they listen.
        health: agent::Health::default(),
    }
}

pub(crate) fn resources_down(resources: core::units::Resources) -> agent::Resources {
    agent::Resources { cpu: agent::CpuMilli(resources.cpu.0), memory: agent::Bytes(resources.memory.0) }
}

pub(crate) fn resources_up(resources: agent::Resources) -> core::units::Resources {
    core::units::Resources {
        cpu: core::units::CpuMilli(resources.cpu.0),
        memory: core::units::Bytes(resources.memory.0),
    }
}

pub(crate) fn replica_report_up(report: agent::ReplicaReport) -> core::input::ReplicaReport {
    core::input::ReplicaReport {
        id: replica_up(report.id),
        app: leader::AppId(report.app.0),
        revision: leader::RevisionNumber(report.revision.0),
        digest: leader::SpecDigest(report.digest.0),
        obeyed: core::input::Obeyed {
            fence: fence_up(report.obeyed.fence),
            session: leader::SessionId(report.obeyed.session.0),
            sequence: leader::OrderSequence(report.obeyed.sequence.0),
        },
        attempt: report.attempt,
        last_exit: report.last_exit.map(exit_up),
        lifecycle: lifecycle_up(report.lifecycle),
        ready: report.ready,
        parked: report.parked,
        activity: match report.activity {
            agent::Activity::Busy { requests } => core::input::Activity::Busy { requests },
            agent::Activity::Idle { length } => core::input::Activity::Idle { length: core::units::Millis(length.0) },
        },
        address: report.address,
        running_for: core::units::Millis(report.running_for.0),
        used: resources_up(report.used),
        resources: resources_up(report.resources),
        reason: reason_up(report.reason),
        ended: report.ended.map(ended_up),
        unhealthy: report.unhealthy,
    }
}

fn lifecycle_up(lifecycle: agent::Lifecycle) -> core::input::Lifecycle {
    use core::input::Lifecycle;
    match lifecycle {
        agent::Lifecycle::Ordered => Lifecycle::Ordered,
        agent::Lifecycle::Pulling => Lifecycle::Pulling,
        agent::Lifecycle::Starting => Lifecycle::Starting,
        agent::Lifecycle::Running => Lifecycle::Running,
        agent::Lifecycle::Stopping => Lifecycle::Stopping,
        agent::Lifecycle::Ended => Lifecycle::Ended,
    }
}

fn exit_up(exit: agent::Exit) -> core::input::Exit {
    use core::input::Exit;
    match exit {
        agent::Exit::Code(code) => Exit::Code(code),
        agent::Exit::Signal(signal) => Exit::Signal(signal),
        agent::Exit::OutOfMemory => Exit::OutOfMemory,
        agent::Exit::NotStarted => Exit::NotStarted,
        agent::Exit::Unknown => Exit::Unknown,
    }
}

fn ended_up(ended: agent::Ended) -> core::input::Ended {
    let (exit, why, wanted) = (exit_up(ended.exit), reason_up(ended.why), ended.wanted);
    core::input::Ended { exit, why, wanted, at: core::time::Instant(ended.at.0) }
}

pub(crate) fn report_up(report: agent::Report) -> core::input::Report {
    core::input::Report {
        acknowledged: leader::OrderSequence(report.acknowledged.0),
        load: report.load.map(|load| core::input::NodeUse {
            used: resources_up(load.used),
            age: core::units::Millis(load.age.0),
            pressure: load.pressure.map(|pressure| core::units::Permille(pressure.0)),
        }),
        replicas: report.replicas.into_iter().map(replica_report_up).collect(),
        refused: report.refused.into_iter().map(refused_up).collect(),
        allowed: report.allowed,
    }
}

fn refused_up(refused: agent::RefusedOrder) -> core::input::RefusedOrder {
    use core::input::OrderRefusal;
    core::input::RefusedOrder {
        sequence: leader::OrderSequence(refused.sequence.0),
        replica: replica_up(refused.replica),
        why: match refused.why {
            agent::OrderRefusal::Busy => OrderRefusal::Busy,
            agent::OrderRefusal::NoRoom => OrderRefusal::NoRoom,
            agent::OrderRefusal::UnknownReplica => OrderRefusal::UnknownReplica,
            agent::OrderRefusal::NoImage => OrderRefusal::NoImage,
            agent::OrderRefusal::Failed => OrderRefusal::Failed,
            agent::OrderRefusal::Fenced => OrderRefusal::Fenced,
        },
        text: refused.text,
    }
}
