//! The words that several messages share.

use std::collections::BTreeMap;

use bellows_core::ids::{Fence, ReplicaId, SpecDigest};
use bellows_core::input::{Activity, Ended, Exit, Lifecycle};
use bellows_core::reason::Reason;
use bellows_core::time::Instant;
use bellows_core::units::{Bytes, CpuMilli, Millis, Resources};
use bellows_proto::types as wire;

use super::{Malformed, Result, required, unknown_value};

/// A sentence for people, or an error's text: 4 KiB is a page.
const MAX_TEXT_BYTES: usize = 4 << 10;

/// Labels of one node: keys and values as long as Kubernetes allows for keys (253), four times as many as anybody uses.
const MAX_LABELS: usize = 128;
const MAX_LABEL_BYTES: usize = 253;

/// Not longer than `limit`, and without control characters: it will stand in logs and tables.
pub(crate) fn check_text(field: &str, text: &str, limit: usize) -> Result<()> {
    if text.len() > limit {
        return Err(Malformed::new(field, format!("has {} bytes, at most {limit} are taken", text.len())));
    }
    if text.chars().any(char::is_control) {
        return Err(Malformed::new(field, "has control characters; remove them"));
    }
    Ok(())
}

pub(crate) fn check_labels(field: &str, labels: &BTreeMap<String, String>) -> Result<()> {
    if labels.len() > MAX_LABELS {
        return Err(Malformed::new(field, format!("{} labels, at most {MAX_LABELS} are taken", labels.len())));
    }
    for (key, value) in labels {
        if key.is_empty() {
            return Err(Malformed::new(field, "a label has no key"));
        }
        check_text(field, key, MAX_LABEL_BYTES)?;
        check_text(field, value, MAX_LABEL_BYTES)?;
    }
    Ok(())
}

pub(crate) fn fence_to_wire(fence: Fence) -> wire::Fence {
    wire::Fence { incarnation: fence.incarnation, term: fence.term }
}

pub(crate) fn fence_from_wire(field: &str, fence: Option<wire::Fence>) -> Result<Fence> {
    let fence = required(field, fence)?;
    Ok(Fence { incarnation: fence.incarnation, term: fence.term })
}

pub(crate) fn replica_id_to_wire(id: ReplicaId) -> wire::ReplicaId {
    wire::ReplicaId { fence: Some(fence_to_wire(id.fence)), counter: id.counter }
}

pub(crate) fn replica_id_from_wire(field: &str, id: Option<wire::ReplicaId>) -> Result<ReplicaId> {
    let id = required(field, id)?;
    let fence = fence_from_wire("fence", id.fence).map_err(|malformed| malformed.within(field))?;
    Ok(ReplicaId { fence, counter: id.counter })
}

pub(crate) fn reason_to_wire(reason: &Reason) -> wire::Reason {
    wire::Reason { code: reason.code.clone(), text: reason.text.clone() }
}

/// Absent is empty: a reason is for people. Too long is cut, not refused.
pub(super) fn reason_from_wire(reason: Option<wire::Reason>) -> Reason {
    let reason = reason.unwrap_or_default();
    Reason { code: shortened(reason.code), text: shortened(reason.text) }
}

/// At most a page; cut at a character.
pub(super) fn shortened(mut text: String) -> String {
    if text.len() > MAX_TEXT_BYTES {
        let end = (0..=MAX_TEXT_BYTES).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

pub(crate) fn resources_to_wire(resources: Resources) -> wire::Resources {
    wire::Resources { cpu_milli: resources.cpu.0, memory_bytes: resources.memory.0 }
}

/// Absent is nothing at all.
pub(super) fn resources_from_wire(resources: Option<wire::Resources>) -> Resources {
    let resources = resources.unwrap_or_default();
    Resources { cpu: CpuMilli(resources.cpu_milli), memory: Bytes(resources.memory_bytes) }
}

pub(super) fn digest_from_wire(field: &str, bytes: &[u8]) -> Result<SpecDigest> {
    let digest = bytes.try_into();
    let problem = || Malformed::new(field, format!("has {} bytes, a SHA-256 has 32", bytes.len()));
    digest.map(SpecDigest).map_err(|_| problem())
}

pub(crate) fn lifecycle_to_wire(lifecycle: Lifecycle) -> wire::Lifecycle {
    match lifecycle {
        Lifecycle::Ordered => wire::Lifecycle::Ordered,
        Lifecycle::Pulling => wire::Lifecycle::Pulling,
        Lifecycle::Starting => wire::Lifecycle::Starting,
        Lifecycle::Running => wire::Lifecycle::Running,
        Lifecycle::Stopping => wire::Lifecycle::Stopping,
        Lifecycle::Ended => wire::Lifecycle::Ended,
    }
}

pub(super) fn lifecycle_from_wire(field: &str, value: i32) -> Result<Lifecycle> {
    Ok(match wire::Lifecycle::try_from(value) {
        Ok(wire::Lifecycle::Ordered) => Lifecycle::Ordered,
        Ok(wire::Lifecycle::Pulling) => Lifecycle::Pulling,
        Ok(wire::Lifecycle::Starting) => Lifecycle::Starting,
        Ok(wire::Lifecycle::Running) => Lifecycle::Running,
        Ok(wire::Lifecycle::Stopping) => Lifecycle::Stopping,
        Ok(wire::Lifecycle::Ended) => Lifecycle::Ended,
        Ok(wire::Lifecycle::Unspecified) | Err(_) => return Err(unknown_value(field, value)),
    })
}

pub(crate) fn activity_to_wire(activity: Activity) -> wire::Activity {
    match activity {
        Activity::Busy { requests } => wire::Activity { busy: true, requests, idle_ms: 0 },
        Activity::Idle { length } => wire::Activity { busy: false, requests: 0, idle_ms: length.0 },
    }
}

/// Absent counts as busy: nobody may stop a copy for what was left unsaid.
pub(super) fn activity_from_wire(activity: Option<wire::Activity>) -> Activity {
    match activity {
        Some(activity) if !activity.busy => Activity::Idle { length: Millis(activity.idle_ms) },
        Some(activity) => Activity::Busy { requests: activity.requests },
        None => Activity::Busy { requests: 0 },
    }
}

pub(crate) fn ended_to_wire(ended: &Ended) -> wire::Ended {
    let (why, at_unix_ms, wanted) = (Some(reason_to_wire(&ended.why)), ended.at.0, ended.wanted);
    wire::Ended { why, at_unix_ms, wanted, ..exit_to_wire(ended.exit) }
}

/// Only how.
pub(crate) fn exit_to_wire(exit: Exit) -> wire::Ended {
    use wire::ended::Exit as Wire;
    let exit = match exit {
        Exit::Code(code) => Wire::Code(code),
        Exit::Signal(signal) => Wire::Signal(signal),
        Exit::OutOfMemory => Wire::OutOfMemory(true),
        Exit::NotStarted => Wire::NotStarted(true),
        Exit::Unknown => Wire::Unknown(true),
    };
    wire::Ended { exit: Some(exit), ..wire::Ended::default() }
}

pub(super) fn ended_from_wire(ended: wire::Ended) -> Ended {
    use wire::ended::Exit as Wire;
    let exit = match ended.exit {
        Some(Wire::Code(code)) => Exit::Code(code),
        Some(Wire::Signal(signal)) => Exit::Signal(signal),
        Some(Wire::OutOfMemory(_)) => Exit::OutOfMemory,
        Some(Wire::NotStarted(_)) => Exit::NotStarted,
        Some(Wire::Unknown(_)) | None => Exit::Unknown,
    };
    Ended { exit, why: reason_from_wire(ended.why), wanted: ended.wanted, at: Instant(ended.at_unix_ms) }
}
