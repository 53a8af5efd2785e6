//! The wire's words and the core's. Everything from outside is checked here; a message that cannot be meant ends its session.

use bellows_agent_core::input::{Action, Order, RunSpec, WhenCutOff};
use bellows_agent_core::{
    Activity, AppId, Bytes, Check, CpuMilli, Ended, Exit, Fence, Health, Lifecycle, Millis, NodeUse, OrderRefusal,
    OrderSequence, Reason, RefusedOrder, ReplicaId, ReplicaReport, Report, Resources, RevisionNumber, SessionId,
    SpecDigest,
};
use bellows_proto::{node as wire, types};

/// What the controller sent that cannot be meant.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the controller sent {what}, which this agent does not understand: is one of them older than the other?")]
pub struct Misunderstood {
    /// Which part of which message.
    pub what: &'static str,
}

fn missing(what: &'static str) -> impl FnOnce() -> Misunderstood {
    move || Misunderstood { what }
}

pub(crate) fn fence(fence: Option<types::Fence>) -> Result<Fence, Misunderstood> {
    let fence = fence.ok_or_else(missing("a message without a fence"))?;
    Ok(Fence { incarnation: fence.incarnation, term: fence.term })
}

pub(crate) fn wire_fence(fence: Fence) -> types::Fence {
    types::Fence { incarnation: fence.incarnation, term: fence.term }
}

pub(crate) fn replica(id: Option<types::ReplicaId>) -> Result<ReplicaId, Misunderstood> {
    let id = id.ok_or_else(missing("a message without a replica id"))?;
    Ok(ReplicaId { fence: fence(id.fence)?, counter: id.counter })
}

pub(crate) fn wire_replica(id: ReplicaId) -> types::ReplicaId {
    types::ReplicaId { fence: Some(wire_fence(id.fence)), counter: id.counter }
}

pub(crate) fn digest(bytes: &[u8]) -> Result<SpecDigest, Misunderstood> {
    let bytes =
        <[u8; 32]>::try_from(bytes).map_err(|_| Misunderstood { what: "a spec digest that is not 32 bytes" })?;
    Ok(SpecDigest(bytes))
}

/// A batch of orders, and the specs it carries.
pub(crate) struct Batch {
    pub(crate) fence: Fence,
    pub(crate) session: SessionId,
    pub(crate) specs: Vec<(SpecDigest, types::AppSpec)>,
    pub(crate) orders: Vec<Order>,
}

pub(crate) fn batch(batch: wire::OrderBatch) -> Result<Batch, Misunderstood> {
    Ok(Batch {
        fence: fence(batch.fence)?,
        session: SessionId(batch.session),
        specs: specs(batch.specs)?,
        orders: batch.orders.into_iter().map(order).collect::<Result<_, _>>()?,
    })
}

pub(crate) fn specs(specs: Vec<wire::Spec>) -> Result<Vec<(SpecDigest, types::AppSpec)>, Misunderstood> {
    let whole = |spec: wire::Spec| {
        let whole = spec.spec.ok_or_else(missing("a spec's digest without the spec"))?;
        Ok((digest(&spec.digest)?, whole))
    };
    specs.into_iter().map(whole).collect()
}

fn order(order: wire::Order) -> Result<Order, Misunderstood> {
    use wire::order::Action as Wire;
    let action = match order.action.ok_or_else(missing("an order of an unknown kind"))? {
        Wire::Start(start) => Action::Start {
            app: AppId(start.app),
            revision: RevisionNumber(start.revision),
            digest: digest(&start.spec_digest)?,
        },
        Wire::Park(_) => Action::Park,
        Wire::Unpark(_) => Action::Unpark,
        Wire::Stop(stop) => Action::Stop { only_if_idle: stop.only_if_idle, grace: Millis(stop.grace_ms) },
    };
    let reason = order.reason.unwrap_or_default();
    Ok(Order {
        sequence: OrderSequence(order.sequence),
        replica: replica(order.replica)?,
        action,
        reason: Reason { code: reason.code, text: reason.text },
    })
}

/// What deciding needs of a spec.
pub(crate) fn run_spec(spec: &types::AppSpec) -> RunSpec {
    let resources = spec.resources.unwrap_or_default();
    RunSpec {
        image: spec.image_digest.clone(),
        resources: Resources { cpu: CpuMilli(resources.cpu_milli), memory: Bytes(resources.memory_bytes) },
        ready_port: spec.ports.first().and_then(|port| u16::try_from(port.port).ok()),
        stop_grace: Millis(spec.stop_grace_ms),
        when_cut_off: match spec.stop_after_cut_off_ms {
            Some(length) => WhenCutOff::StopAfter(Millis(length)),
            None => WhenCutOff::KeepRunning,
        },
        health: spec.health.as_ref().map(health).unwrap_or_default(),
    }
}

fn health(health: &types::Health) -> Health {
    let of = |check: &Option<types::Check>| check.as_ref().map(check_of);
    Health { startup: of(&health.startup), liveness: of(&health.liveness), readiness: of(&health.readiness) }
}

fn check_of(check: &types::Check) -> Check {
    Check {
        what: crate::health::in_words(check),
        initial_delay: Millis(check.initial_delay_ms),
        period: Millis(check.period_ms),
        successes: check.success_threshold,
        failures: check.failure_threshold,
    }
}

pub(crate) fn wire_resources(resources: Resources) -> types::Resources {
    types::Resources { cpu_milli: resources.cpu.0, memory_bytes: resources.memory.0 }
}

fn wire_reason(reason: Reason) -> types::Reason {
    types::Reason { code: reason.code, text: reason.text }
}

pub(crate) fn wire_report(session: SessionId, report: Report) -> wire::Report {
    wire::Report {
        session: session.0,
        acknowledged: report.acknowledged.0,
        load: report.load.map(wire_use),
        replicas: report.replicas.into_iter().map(wire_replica_report).collect(),
        refused: report.refused.into_iter().map(wire_refused).collect(),
        allowed: report.allowed,
    }
}

fn wire_use(load: NodeUse) -> wire::NodeUse {
    wire::NodeUse {
        used: Some(wire_resources(load.used)),
        age_ms: load.age.0,
        pressure_permille: load.pressure.map(|pressure| pressure.0),
    }
}

pub(crate) fn wire_replica_report(report: ReplicaReport) -> wire::ReplicaReport {
    wire::ReplicaReport {
        id: Some(wire_replica(report.id)),
        app: report.app.0,
        revision: report.revision.0,
        spec_digest: report.digest.0.to_vec(),
        obeyed_fence: Some(wire_fence(report.obeyed.fence)),
        obeyed_session: report.obeyed.session.0,
        obeyed_sequence: report.obeyed.sequence.0,
        attempt: report.attempt,
        lifecycle: wire_lifecycle(report.lifecycle).into(),
        ready: report.ready,
        parked: report.parked,
        activity: Some(wire_activity(report.activity)),
        address: report.address,
        running_ms: report.running_for.0,
        used: Some(wire_resources(report.used)),
        resources: Some(wire_resources(report.resources)),
        reason: Some(wire_reason(report.reason)),
        ended: report.ended.map(wire_ended),
        processes: report.processes,
        connections: report.connections,
        unhealthy: report.unhealthy,
        last_exit: report.last_exit.map(|exit| types::Ended { exit: Some(wire_exit(exit)), ..types::Ended::default() }),
    }
}

fn wire_lifecycle(lifecycle: Lifecycle) -> types::Lifecycle {
    match lifecycle {
        Lifecycle::Ordered => types::Lifecycle::Ordered,
        Lifecycle::Pulling => types::Lifecycle::Pulling,
        Lifecycle::Starting => types::Lifecycle::Starting,
        Lifecycle::Running => types::Lifecycle::Running,
        Lifecycle::Stopping => types::Lifecycle::Stopping,
        Lifecycle::Ended => types::Lifecycle::Ended,
    }
}

fn wire_activity(activity: Activity) -> types::Activity {
    match activity {
        Activity::Busy { requests } => types::Activity { busy: true, requests, idle_ms: 0 },
        Activity::Idle { length } => types::Activity { busy: false, requests: 0, idle_ms: length.0 },
    }
}

fn wire_exit(exit: Exit) -> types::ended::Exit {
    use types::ended::Exit as Wire;
    match exit {
        Exit::Code(code) => Wire::Code(code),
        Exit::Signal(signal) => Wire::Signal(signal),
        Exit::OutOfMemory => Wire::OutOfMemory(true),
        Exit::NotStarted => Wire::NotStarted(true),
        Exit::Unknown => Wire::Unknown(true),
    }
}

fn wire_ended(ended: Ended) -> types::Ended {
    types::Ended {
        exit: Some(wire_exit(ended.exit)),
        why: Some(wire_reason(ended.why)),
        at_unix_ms: ended.at.0,
        wanted: ended.wanted,
    }
}

fn wire_refused(refused: RefusedOrder) -> wire::RefusedOrder {
    use wire::refused_order::Why;
    let why = match refused.why {
        OrderRefusal::Busy => Why::Busy,
        OrderRefusal::NoRoom => Why::NoRoom,
        OrderRefusal::UnknownReplica => Why::UnknownReplica,
        OrderRefusal::NoImage => Why::NoImage,
        OrderRefusal::Failed => Why::Failed,
        OrderRefusal::Fenced => Why::Fenced,
    };
    wire::RefusedOrder {
        sequence: refused.sequence.0,
        replica: Some(wire_replica(refused.replica)),
        why: why.into(),
        text: refused.text,
    }
}
