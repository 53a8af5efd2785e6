//! What agents say, and what they are told.

use bellows_core::effect::{Action, Order};
use bellows_core::ids::{AppId, Fence, OrderSequence, RevisionNumber, SessionId};
use bellows_core::input::{NodeFacts, NodeUse, Obeyed, OrderRefusal, RefusedOrder, ReplicaReport, Report};
use bellows_core::units::{Millis, Permille};
use bellows_proto::node as wire;

use super::routes::allowance_from_wire;
use super::words::{
    activity_from_wire, check_labels, check_text, digest_from_wire, ended_from_wire, lifecycle_from_wire,
    reason_from_wire, reason_to_wire, replica_id_from_wire, replica_id_to_wire, resources_from_wire, shortened,
};
use super::{Malformed, Result, each, unknown_value};

/// Replicas of one node in one message: 20 times what one machine has been shown to run, ended ones included.
const MAX_REPLICAS: usize = 100_000;

/// Orders refused in one message: no more than were sent in one batch.
const MAX_REFUSED: usize = 100_000;

/// A boot id, a version, an address.
const MAX_WORD_BYTES: usize = 256;

/// What a hello tells.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) facts: NodeFacts,
    pub(crate) inventory: Vec<ReplicaReport>,
    pub(crate) remembered: Vec<ReplicaReport>,
}

pub(crate) fn hello_from_wire(hello: wire::Hello) -> Result<Told> {
    check_text("boot", &hello.boot, MAX_WORD_BYTES)?;
    check_text("version", &hello.version, MAX_WORD_BYTES)?;
    check_labels("labels", &hello.labels)?;
    check_text("ingress_address", &hello.ingress_address, MAX_WORD_BYTES)?;
    let ingress = hello.ingress_address;
    let allowances = each("allowances", hello.allowances, allowance_from_wire)?;
    let capacity = resources_from_wire(hello.capacity);
    if capacity.cpu.0 == 0 || capacity.memory.0 == 0 {
        return Err(Malformed::new("capacity", "has no CPU or no memory; check the limits of the agent's cgroup"));
    }
    let facts =
        NodeFacts { boot: hello.boot, capacity, labels: hello.labels, version: hello.version, ingress, allowances };
    let inventory = replicas_from_wire("inventory", hello.inventory)?;
    let remembered = replicas_from_wire("remembered", hello.remembered)?;
    Ok(Told { facts, inventory, remembered })
}

pub(crate) fn report_from_wire(report: wire::Report) -> Result<Report> {
    if report.refused.len() > MAX_REFUSED {
        return Err(Malformed::new(
            "refused",
            format!("{} orders, at most {MAX_REFUSED} are taken", report.refused.len()),
        ));
    }
    Ok(Report {
        acknowledged: OrderSequence(report.acknowledged),
        load: report.load.map(load_from_wire),
        replicas: replicas_from_wire("replicas", report.replicas)?,
        refused: each("refused", report.refused, refused_from_wire)?,
        allowed: report.allowed,
    })
}

fn load_from_wire(load: wire::NodeUse) -> NodeUse {
    NodeUse {
        used: resources_from_wire(load.used),
        age: Millis(load.age_ms),
        pressure: load.pressure_permille.map(Permille),
    }
}

fn replicas_from_wire(field: &str, replicas: Vec<wire::ReplicaReport>) -> Result<Vec<ReplicaReport>> {
    if replicas.len() > MAX_REPLICAS {
        return Err(Malformed::new(field, format!("{} replicas, at most {MAX_REPLICAS} are taken", replicas.len())));
    }
    each(field, replicas, replica_from_wire)
}

fn replica_from_wire(replica: wire::ReplicaReport) -> Result<ReplicaReport> {
    check_text("address", &replica.address, MAX_WORD_BYTES)?;
    Ok(ReplicaReport {
        id: replica_id_from_wire("id", replica.id)?,
        app: AppId(replica.app),
        revision: RevisionNumber(replica.revision),
        digest: digest_from_wire("spec_digest", &replica.spec_digest)?,
        obeyed: Obeyed {
            fence: replica.obeyed_fence.map(fence_of).unwrap_or_default(), // of no leader: confirms nothing
            session: SessionId(replica.obeyed_session),
            sequence: OrderSequence(replica.obeyed_sequence),
        },
        attempt: replica.attempt,
        last_exit: replica.last_exit.map(|last| ended_from_wire(last).exit),
        lifecycle: lifecycle_from_wire("lifecycle", replica.lifecycle)?,
        ready: replica.ready,
        parked: replica.parked,
        activity: activity_from_wire(replica.activity),
        address: replica.address,
        running_for: Millis(replica.running_ms),
        used: resources_from_wire(replica.used),
        resources: resources_from_wire(replica.resources),
        reason: reason_from_wire(replica.reason),
        ended: replica.ended.map(ended_from_wire),
        unhealthy: shortened(replica.unhealthy),
    })
}

fn fence_of(fence: bellows_proto::types::Fence) -> Fence {
    Fence { incarnation: fence.incarnation, term: fence.term }
}

fn refused_from_wire(refused: wire::RefusedOrder) -> Result<RefusedOrder> {
    use wire::refused_order::Why;
    let why = match Why::try_from(refused.why) {
        Ok(Why::Busy) => OrderRefusal::Busy,
        Ok(Why::NoRoom) => OrderRefusal::NoRoom,
        Ok(Why::UnknownReplica) => OrderRefusal::UnknownReplica,
        Ok(Why::NoImage) => OrderRefusal::NoImage,
        Ok(Why::Failed) => OrderRefusal::Failed,
        Ok(Why::Fenced) => OrderRefusal::Fenced,
        Ok(Why::Unspecified) | Err(_) => return Err(unknown_value("why", refused.why)),
    };
    let replica = replica_id_from_wire("replica", refused.replica)?;
    Ok(RefusedOrder { sequence: OrderSequence(refused.sequence), replica, why, text: shortened(refused.text) })
}

pub(crate) fn order_to_wire(order: &Order) -> wire::Order {
    use wire::order::Action as Wire;
    let action = match &order.action {
        Action::Start { app, revision, digest, resources: _ } => {
            Wire::Start(wire::Start { app: app.0, revision: revision.0, spec_digest: digest.0.to_vec() })
        }
        Action::Park => Wire::Park(wire::Park {}),
        Action::Unpark => Wire::Unpark(wire::Unpark {}),
        Action::Stop { only_if_idle, grace } => {
            Wire::Stop(wire::Stop { only_if_idle: *only_if_idle, grace_ms: grace.0 })
        }
    };
    wire::Order {
        sequence: order.sequence.0,
        replica: Some(replica_id_to_wire(order.replica)),
        reason: Some(reason_to_wire(&order.reason)),
        action: Some(action),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> wire::ReplicaReport {
        wire::ReplicaReport {
            id: Some(bellows_proto::types::ReplicaId { fence: Some(Default::default()), counter: 1 }),
            spec_digest: vec![0; 32],
            lifecycle: bellows_proto::types::Lifecycle::Running.into(),
            ..Default::default()
        }
    }

    fn refusal(replica: wire::ReplicaReport) -> String {
        let report = wire::Report { replicas: vec![sound(), replica], ..Default::default() };
        report_from_wire(report).expect_err("must be refused").to_string()
    }

    #[test]
    fn rejections_name_the_field() {
        assert_eq!(refusal(wire::ReplicaReport { id: None, ..sound() }), "replicas[1].id: is missing");
        let short = wire::ReplicaReport { spec_digest: vec![1, 2], ..sound() };
        assert_eq!(refusal(short), "replicas[1].spec_digest: has 2 bytes, a SHA-256 has 32");
        assert!(
            refusal(wire::ReplicaReport { lifecycle: 99, ..sound() })
                .starts_with("replicas[1].lifecycle: 99 is no value")
        );
        let line = wire::ReplicaReport { address: "10.0.0.1\n10.0.0.2".to_owned(), ..sound() };
        assert!(refusal(line).starts_with("replicas[1].address: has control characters"));
        let refused = wire::RefusedOrder { replica: sound().id, ..Default::default() };
        let report = wire::Report { refused: vec![refused], ..Default::default() };
        assert!(
            report_from_wire(report).expect_err("refused").to_string().starts_with("refused[0].why: 0 is no value")
        );
    }

    #[test]
    fn a_silent_activity_is_busy() {
        let report = report_from_wire(wire::Report { replicas: vec![sound()], ..Default::default() }).expect("sound");
        assert_eq!(report.replicas[0].activity, bellows_core::input::Activity::Busy { requests: 0 });
    }

    #[test]
    fn a_hello_without_capacity_is_refused() {
        assert!(hello_from_wire(wire::Hello::default()).expect_err("refused").to_string().starts_with("capacity:"));
    }
}
