//! What replicas use, asked of their agents at once.

use std::collections::BTreeMap;
use std::time::Duration;

use bellows_core::ids::NodeId;
use bellows_proto::node::{CallReply, StatsCall};
use bellows_proto::operator as wire;
use bellows_proto::types::{ReplicaId, Usage};
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tonic::Status;

use super::Services;
use super::calls::{Ask, Reply};
use crate::driver::Question;

/// An agent reads some hundred replicas in a few milliseconds.
const PATIENCE: Duration = Duration::from_secs(3);

/// Copies of one node, and the node's name.
#[derive(Default)]
struct Share {
    name: String,
    replicas: Vec<ReplicaId>,
}

/// Of an app's copies, a node's, or one. Nodes that do not answer are named.
pub(super) async fn collect(
    services: &Services,
    tenant: String,
    subject: String,
) -> Result<wire::StatsResponse, Status> {
    let copies = services.driver.ask(|answer| Question::Copies { tenant, subject, answer }).await?;
    let mut apps: BTreeMap<Vec<u8>, (String, String)> = BTreeMap::new();
    let mut shares: BTreeMap<NodeId, Share> = BTreeMap::new();
    for (node, row) in copies {
        let Some(id) = row.id else { continue };
        let share = shares.entry(node).or_default();
        share.name.clone_from(&row.node);
        share.replicas.push(id);
        apps.insert(key(&id), (row.app, row.node));
    }
    let mut asked = JoinSet::new();
    for (node, share) in shares {
        let hub = services.calls.clone();
        asked.spawn(async move {
            let call = hub.open(node, Ask::Stats(StatsCall { replicas: share.replicas }));
            let answer = async { call.ok()?.next().await?.ok() };
            (share.name, tokio::time::timeout(PATIENCE, answer).await.ok().flatten())
        });
    }
    let mut response = wire::StatsResponse::default();
    while let Some(answer) = asked.join_next().await {
        let (node, answer) = answer.map_err(|_| Status::internal("a task that asked an agent failed"))?;
        match answer {
            Some(CallReply { body: Some(Reply::Stats(stats)), .. }) => {
                response.usages.extend(stats.usages.into_iter().filter_map(|usage| named(usage, &apps)));
            }
            _ => response.unheard.push(node),
        }
    }
    response.unheard.sort();
    response
        .usages
        .sort_by_cached_key(|row| (row.app.clone(), row.usage.as_ref().and_then(|u| u.replica).map(|id| key(&id))));
    Ok(response)
}

/// Only of those that were asked for.
fn named(usage: Usage, apps: &BTreeMap<Vec<u8>, (String, String)>) -> Option<wire::ReplicaUsage> {
    let (app, node) = apps.get(&key(&usage.replica?))?.clone();
    Some(wire::ReplicaUsage { usage: Some(usage), app, node })
}

/// In the order of ids.
fn key(id: &ReplicaId) -> Vec<u8> {
    let fence = id.fence.unwrap_or_default();
    [fence.incarnation, fence.term, id.counter].iter().flat_map(|number| number.to_be_bytes()).collect()
}
