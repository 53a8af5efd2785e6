//! The declared world at one log index.

use std::collections::BTreeMap;

use bellows_core::ids::{AppId, Generation, NodeId, RevisionNumber};
use bellows_core::model::{App, Counted, Image, KeptAnswer, Model, Node, RemovedNode, Revision};
use bellows_core::time::Instant;
use bellows_core::units::Bytes;
use bellows_proto::log as wire;

use super::log::{
    change_alone_from_log, change_alone_to_log, gone_from_log, gone_to_log, node_state_from_log, node_state_to_log,
    outcome_from_log, outcome_to_log,
};
use super::spec::{spec_from_wire, spec_to_wire};
use super::words::{digest_from_wire, reason_from_wire, reason_to_wire};
use super::{Malformed, Result, each, required};

/// Of the stored form; a newer one is refused.
const FORMAT: u32 = 1;

pub(crate) fn model_to_log(model: &Model) -> wire::Snapshot {
    wire::Snapshot {
        format: FORMAT,
        cluster: model.cluster.clone(),
        incarnation: model.incarnation,
        observing: model.observing,
        last_app: model.last_app.0,
        last_node: model.last_node.0,
        apps: model.apps.values().map(app_to_log).collect(),
        nodes: model.nodes.values().map(node_to_log).collect(),
        images: model.images.iter().map(|(name, image)| image_to_log(name, image)).collect(),
        tokens: model.tokens.iter().map(|(hash, expires)| token_to_log(hash, *expires)).collect(),
        keys: model.keys.iter().map(kept_to_log).collect(),
        removed_nodes: model.removed.iter().map(removed_to_log).collect(),
        ended: model.ended.iter().map(gone_to_log).collect(),
    }
}

pub(crate) fn model_from_log(snapshot: wire::Snapshot) -> Result<Model> {
    if snapshot.format != FORMAT {
        let problem =
            format!("{} is not known to this version (it knows {FORMAT}); start a newer one", snapshot.format);
        return Err(Malformed::new("format", problem));
    }
    let apps = each("apps", snapshot.apps, app_from_log)?;
    let nodes: BTreeMap<_, _> =
        each("nodes", snapshot.nodes, node_from_log)?.into_iter().map(|node| (node.id, node)).collect();
    let name_of = |app: &App| ((app.current.spec.tenant.clone(), app.current.spec.name.clone()), app.id);
    Ok(Model {
        cluster: snapshot.cluster,
        incarnation: snapshot.incarnation,
        observing: snapshot.observing,
        last_app: AppId(snapshot.last_app),
        last_node: NodeId(snapshot.last_node),
        app_names: apps.iter().map(name_of).collect(),
        apps: apps.into_iter().map(|app| (app.id, app)).collect(),
        node_names: nodes.values().map(|node| (node.name.clone(), node.id)).collect(),
        nodes,
        images: snapshot.images.into_iter().map(image_from_log).collect::<BTreeMap<_, _>>(),
        tokens: snapshot.tokens.into_iter().map(|token| (token.hash, Instant(token.expires_unix_ms))).collect(),
        removed: snapshot.removed_nodes.into_iter().map(removed_from_log).collect(),
        ended: each("ended", snapshot.ended, gone_from_log)?,
        keys: each("keys", snapshot.keys, kept_from_log)?,
    })
}

fn app_to_log(app: &App) -> wire::App {
    wire::App {
        id: app.id.0,
        generation: app.generation.0,
        current: Some(revision_to_log(&app.current)),
        previous: app.previous.as_ref().map(revision_to_log),
        last_good: app.last_good.as_ref().map(revision_to_log),
        wanted: app.wanted,
        counted: Some(counted_to_log(&app.counted)),
    }
}

fn app_from_log(app: wire::App) -> Result<App> {
    Ok(App {
        id: AppId(app.id),
        generation: Generation(app.generation),
        current: revision_from_log(required("current", app.current)?)?,
        previous: app.previous.map(revision_from_log).transpose()?,
        last_good: app.last_good.map(revision_from_log).transpose()?,
        wanted: app.wanted,
        counted: app.counted.map(counted_from_log).unwrap_or_default(), // of a log from before it was kept
    })
}

fn counted_to_log(counted: &Counted) -> wire::Counted {
    wire::Counted { at_unix_ms: counted.at.0, by: counted.by.clone(), why: Some(reason_to_wire(&counted.why)) }
}

fn counted_from_log(counted: wire::Counted) -> Counted {
    Counted { at: Instant(counted.at_unix_ms), by: counted.by, why: reason_from_wire(counted.why) }
}

fn removed_to_log(node: &RemovedNode) -> wire::RemovedNode {
    wire::RemovedNode { id: node.id.0, name: node.name.clone(), at_unix_ms: node.at.0, by: node.by.clone() }
}

fn removed_from_log(node: wire::RemovedNode) -> RemovedNode {
    RemovedNode { id: NodeId(node.id), name: node.name, at: Instant(node.at_unix_ms), by: node.by }
}

fn revision_to_log(revision: &Revision) -> wire::Revision {
    wire::Revision {
        number: revision.number.0,
        digest: revision.digest.0.to_vec(),
        spec: Some(spec_to_wire(&revision.spec)),
        at_unix_ms: revision.at.0,
        by: revision.by.clone(),
        runs_since: revision.runs_since.0,
    }
}

fn revision_from_log(revision: wire::Revision) -> Result<Revision> {
    Ok(Revision {
        number: RevisionNumber(revision.number),
        runs_since: RevisionNumber(revision.runs_since),
        digest: digest_from_wire("digest", &revision.digest)?,
        spec: Box::new(spec_from_wire(required("spec", revision.spec)?)?),
        at: Instant(revision.at_unix_ms),
        by: revision.by,
    })
}

fn node_to_log(node: &Node) -> wire::Node {
    wire::Node {
        id: node.id.0,
        name: node.name.clone(),
        machine: node.machine.clone(),
        labels: node.labels.clone(),
        state: Some(node_state_to_log(node.state)),
        joined_unix_ms: node.joined.0,
    }
}

fn node_from_log(node: wire::Node) -> Result<Node> {
    Ok(Node {
        id: NodeId(node.id),
        name: node.name,
        machine: node.machine,
        labels: node.labels,
        state: node_state_from_log(node.state)?,
        joined: Instant(node.joined_unix_ms),
    })
}

fn image_to_log(name: &str, image: &Image) -> wire::Image {
    wire::Image {
        name: name.to_owned(),
        digest: image.digest.clone(),
        size_bytes: image.size.0,
        at_unix_ms: image.at.0,
    }
}

fn image_from_log(image: wire::Image) -> (String, Image) {
    let (size, at) = (Bytes(image.size_bytes), Instant(image.at_unix_ms));
    (image.name, Image { digest: image.digest, size, at })
}

fn token_to_log(hash: &str, expires: Instant) -> wire::Token {
    wire::Token { hash: hash.to_owned(), expires_unix_ms: expires.0 }
}

fn kept_to_log(kept: &KeptAnswer) -> wire::KeptAnswer {
    wire::KeptAnswer {
        request: Some(change_alone_to_log(&kept.key, &kept.change)),
        outcome: Some(outcome_to_log(&kept.outcome)),
    }
}

fn kept_from_log(kept: wire::KeptAnswer) -> Result<KeptAnswer> {
    let (key, change) = change_alone_from_log(required("request", kept.request)?)?;
    Ok(KeptAnswer { key, change, outcome: outcome_from_log(required("outcome", kept.outcome)?)? })
}
