//! `bellows stats`: what replicas use, read now.

use std::sync::Arc;

use bellows_agent_core::ReplicaId;
use bellows_proto::node::call_reply::Body;
use bellows_proto::node::{Stats, StatsCall};
use bellows_proto::types::{Resources, Usage};
use bellows_runtime::handle;

use super::exec::ExecError;
use super::{Answers, Calls};
use crate::clock::SinceBoot;
use crate::containers::{Containers, container};
use crate::convert;
use crate::news::Standing;

impl Calls {
    /// Those of the wished for that run; the others have no use.
    pub(super) async fn stats(&self, call: StatsCall, answers: Answers) -> Result<(), ExecError> {
        let mut running = Vec::new();
        for replica in call.replicas {
            let replica = convert::replica(Some(replica))?;
            if let Ok(standing) = self.running(replica).await {
                running.push((replica, standing));
            }
        }
        let containers = self.containers.clone();
        let read = move || {
            running.into_iter().filter_map(|(replica, standing)| usage(&containers, replica, &standing)).collect()
        };
        let usages = tokio::task::spawn_blocking(read).await.map_err(|_| ExecError::Interrupted)?;
        Ok(answers.say(Body::Stats(Stats { usages })).await?)
    }
}

/// Nothing of one that has ended meanwhile.
fn usage(containers: &Arc<dyn Containers>, replica: ReplicaId, standing: &Standing) -> Option<Usage> {
    let stats = containers.stats(&container(replica, standing.attempt)).ok()?;
    let limits = standing.spec.as_ref().and_then(|spec| spec.resources);
    Some(in_words_of_the_wire(replica, standing.attempt, stats, limits))
}

fn in_words_of_the_wire(replica: ReplicaId, attempt: u32, stats: handle::Stats, limits: Option<Resources>) -> Usage {
    let handle::Stats { usage, .. } = stats;
    Usage {
        replica: Some(convert::wire_replica(replica)),
        attempt,
        at_ms: u64::try_from(SinceBoot::now().0.as_millis()).unwrap_or(u64::MAX),
        cpu_us: usage.cpu_us,
        memory_bytes: usage.memory_bytes,
        memory_peak_bytes: stats.memory_peak_bytes.unwrap_or(0),
        processes: usage.processes,
        read_bytes: stats.read_bytes,
        written_bytes: stats.written_bytes,
        received_bytes: stats.received_bytes,
        sent_bytes: stats.sent_bytes,
        connections: usage.connections,
        frozen: stats.frozen,
        limits,
    }
}
