//! The running parts, what they start with, and in which order they end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bellows_agent::Agent;
use bellows_controller::{Allowed, Controller, ControllerConfig, Planted};
use bellows_runtime::image::Store;

use super::agents;
use super::announce::{self, Ready};
use super::plan::{self, Folders, NodePlan};
use super::{demo, leftovers, requests};
use crate::connection::Connection;
use crate::failure::{Failure, chain};
use crate::globals::Globals;

/// Agents join within seconds.
const TOKEN_VALID: Duration = Duration::from_secs(600);

/// What was asked for, checked.
#[derive(Debug)]
pub struct Wishes {
    /// Where everything is kept.
    pub folders: Folders,
    /// Who gets what.
    pub nodes: Vec<NodePlan>,
    /// This executable.
    pub program: PathBuf,
    /// Also the demo?
    pub demo: bool,
    /// Of the controller.
    pub listen: SocketAddr,
    /// Of the page.
    pub dashboard: SocketAddr,
    /// Must people be told where the credential is?
    pub export: bool,
}

/// What runs so far.
#[derive(Default)]
pub struct Cluster {
    controller: Option<Controller>,
    agents: Vec<Agent>,
}

impl Cluster {
    /// Starts all parts in order and returns when all nodes are up. What was started stays in `self`, also on failure.
    pub async fn start(&mut self, wishes: &Wishes, globals: &Globals) -> Result<Ready, Failure> {
        remove_other_nodes(wishes).await?;
        let controller =
            Controller::start(controller_config(wishes)).await.map_err(|error| Failure::from_error(&error))?;
        let controller = self.controller.insert(controller);
        link_credential(wishes, controller.credential_path())?;
        let (address, page) = (controller.address(), controller.dashboard_address());
        let token = controller.create_token(TOKEN_VALID).await.map_err(|error| Failure::from_error(&error))?;
        for plan in &wishes.nodes {
            self.agents.push(agents::start(plan, wishes, address, &token).await?);
        }
        let names: Vec<_> = wishes.nodes.iter().map(|node| node.name.clone()).collect();
        let globals = Globals { credential: Some(wishes.folders.credential()), ..globals.clone() };
        let mut connection = Connection::open(&globals)?;
        requests::nodes_up(&mut connection, &names).await?;
        requests::forget_other_nodes(&mut connection, &names).await?;
        let demo = if wishes.demo { Some(start_demo(&mut connection, wishes, &globals.tenant).await?) } else { None };
        Ok(Ready {
            ready: true,
            pid: std::process::id(),
            state: wishes.folders.root.clone(),
            credential: wishes.folders.credential(),
            controller: address,
            dashboard: format!("http://{page}/"),
            nodes: names,
            commands: announce::commands(demo.as_deref()),
            demo,
        })
    }

    /// Waits until a part cannot go on by itself, and says why.
    pub async fn stuck(&mut self) -> String {
        let controller = async {
            match &mut self.controller {
                Some(controller) => format!("the controller: {}", chain(&controller.ended().await)),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            why = agents::stuck(&self.agents) => why,
            why = controller => why,
        }
    }

    /// Ends all parts: the agents first, which end their sessions before their replicas, so that the controller hears of no ended copy that
    /// it would replace. Every part is ended, whatever another one says; what an agent could not end is ended without it.
    pub async fn stop(self, wishes: &Wishes) -> Result<(), Failure> {
        let end = |agent: Agent| (agent.name().to_owned(), tokio::spawn(agents::end(agent)));
        let ends: Vec<_> = self.agents.into_iter().map(end).collect();
        let mut problems = Vec::new();
        for (name, end) in ends {
            let problem = match end.await {
                Ok(Ok(())) => continue,
                Ok(Err(problem)) => problem,
                Err(panic) => format!("{name}: {panic}"),
            };
            problems.extend(end_without_agent(wishes, &name, problem).await);
        }
        if let Some(controller) = self.controller {
            controller.shutdown().await;
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Failure::failed(format!("not everything ended: {}", problems.join("; "))))
        }
    }
}

/// After the agent's end had this problem: tries again on what it left. Says what remains wrong.
async fn end_without_agent(wishes: &Wishes, name: &str, problem: String) -> Option<String> {
    let plan = wishes.nodes.iter().find(|plan| plan.name == name)?.clone();
    match tokio::task::spawn_blocking(move || leftovers::end_all(&plan)).await {
        Ok(Ok(())) => {
            tracing::warn!(problem, "an agent did not end well; what it left was ended afterwards");
            None
        }
        Ok(Err(error)) => Some(format!("{problem}; and again: {}", chain(&error))),
        Err(panic) => Some(format!("{problem}; and again: {panic}")),
    }
}

fn controller_config(wishes: &Wishes) -> ControllerConfig {
    ControllerConfig {
        state: wishes.folders.controller(),
        listen: wishes.listen,
        dashboard: wishes.dashboard,
        store: wishes.folders.store(),
        cluster: "dev".to_owned(),
        advertise: Vec::new(),
        allowed: Allowed::default(),
        seed: rand::random(),
        planted: Planted::None,
    }
}

/// Verbs look for the credential at the top of the folder, whatever the controller's own folder looks like inside.
fn link_credential(wishes: &Wishes, credential: &Path) -> Result<(), Failure> {
    let link = wishes.folders.credential();
    let failed =
        |error: std::io::Error| Failure::failed(format!("making {} lead to the credential: {error}", link.display()));
    match std::fs::remove_file(&link) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    std::os::unix::fs::symlink(credential, &link).map_err(failed)
}

async fn remove_other_nodes(wishes: &Wishes) -> Result<(), Failure> {
    let folders = &wishes.folders;
    let known = plan::known_nodes(folders)
        .map_err(|error| Failure::failed(format!("listing {}: {error}", folders.nodes().display())))?;
    for number in known.into_iter().filter(|number| *number as usize > wishes.nodes.len()) {
        let first = &wishes.nodes[0];
        let plan = plan::node(folders, number, first.capacity, first.subnet);
        blocking(move || leftovers::remove_node(&plan)).await?;
    }
    Ok(())
}

/// Builds the image, declares the app, and says where its first replica is.
async fn start_demo(connection: &mut Connection, wishes: &Wishes, tenant: &str) -> Result<String, Failure> {
    let (store, program) = (wishes.folders.store(), wishes.program.clone());
    let build = move || Store::open(store).and_then(|store| demo::build_image(&store, &program));
    let digest = blocking(move || build().map_err(|error| Failure::from_error(&error))).await?;
    requests::register_image(connection, demo::NAME, &digest.to_string()).await?;
    requests::apply_and_wait(connection, demo::app(tenant)?).await?;
    let addresses = requests::ready_addresses(connection, tenant, demo::NAME).await?;
    let first = addresses
        .first()
        .ok_or_else(|| Failure::failed("the demo has no ready copy; `bellows explain demo` says why"))?;
    Ok(format!("http://{first}:{}", demo::PORT))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|panic| Err(Failure::failed(format!("a worker ended: {panic}"))))
}
