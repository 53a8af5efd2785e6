//! What `dev` asks its own controller, by the door that people use.

use std::time::Duration;

use bellows_proto::operator as wire;
use tokio_stream::StreamExt;

use crate::connection::{self, Connection};
use crate::failure::Failure;

/// How often the nodes are looked at while they come up: no event tells that a node was heard.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Returns when all these nodes are up.
pub async fn nodes_up(connection: &mut Connection, names: &[String]) -> Result<(), Failure> {
    loop {
        let nodes = connection.ask(async |client| client.list_nodes(wire::ListNodesRequest {}).await).await?.nodes;
        let up = nodes.iter().filter(|node| node.liveness() == wire::node::Liveness::Up);
        if up.filter(|node| names.contains(&node.name)).count() == names.len() {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Takes nodes that are not among `names` off the list: they belonged to an earlier start.
pub async fn forget_other_nodes(connection: &mut Connection, names: &[String]) -> Result<(), Failure> {
    let nodes = connection.ask(async |client| client.list_nodes(wire::ListNodesRequest {}).await).await?.nodes;
    for node in nodes.into_iter().filter(|node| !names.contains(&node.name)) {
        let request = wire::RemoveNodeRequest { node: node.name, ..Default::default() };
        connection.ask(async |client| client.remove_node(request.clone()).await).await?;
    }
    Ok(())
}

/// Names a stored image.
pub async fn register_image(connection: &mut Connection, name: &str, digest: &str) -> Result<(), Failure> {
    let request = wire::RegisterImageRequest { name: name.to_owned(), digest: digest.to_owned() };
    connection.ask(async |client| client.register_image(request.clone()).await).await.map(drop)
}

/// Declares an app and returns when it has settled.
pub async fn apply_and_wait(connection: &mut Connection, spec: bellows_proto::types::AppSpec) -> Result<(), Failure> {
    let (tenant, app) = (spec.tenant.clone(), spec.name.clone());
    let request =
        wire::ApplyRequest { spec: Some(spec), idempotency_key: connection::idempotency_key(), ..Default::default() };
    let changed = connection.ask(async |client| client.apply(request.clone()).await).await?;
    settled(connection, tenant, app, changed.generation).await
}

/// Returns when all wanted copies are ready and no others are alive.
pub async fn settled(connection: &mut Connection, tenant: String, app: String, generation: u64) -> Result<(), Failure> {
    let request = wire::AwaitRequest { tenant, app, generation };
    let mut progress = connection.ask(async |client| client.r#await(request.clone()).await).await?;
    while let Some(step) = progress.next().await {
        if step.map_err(|status| connection::failure(&status))?.settled {
            return Ok(());
        }
    }
    Err(Failure::failed("the controller ended while the app was settling"))
}

/// Addresses of the ready copies.
pub async fn ready_addresses(connection: &mut Connection, tenant: &str, app: &str) -> Result<Vec<String>, Failure> {
    let request = wire::ListReplicasRequest { tenant: tenant.to_owned(), app: app.to_owned(), ended: false };
    let replicas = connection.ask(async |client| client.list_replicas(request.clone()).await).await?.replicas;
    Ok(replicas.into_iter().filter(|replica| replica.ready).map(|replica| replica.address).collect())
}
