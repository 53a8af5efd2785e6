//! The cluster of one measurement, and how it is told what to run.

use std::path::Path;
use std::time::{Duration, Instant};

use bellows_proto::operator as wire;
use bellows_proto::types::{AppSpec, ReplicaId};
use bellows_runtime::image::Store;
use bellows_runtime::image::build::{BuildConfig, Content, FileSpec};

use super::parts::{Parts, Wish};
use crate::appfile;
use crate::connection::{self, Connection};
use crate::dev::{demo, requests};
use crate::failure::Failure;
use crate::globals::Globals;
use crate::verbs::logs::LogStream;

/// Whoever is not there by then does not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Name of the image with this executable.
pub const OWN: &str = "demo";

/// How often is looked at what makes no event.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A cluster, and who speaks with it.
pub struct Lab {
    pub parts: Parts,
    pub connection: Connection,
    tenant: String,
}

impl Lab {
    pub async fn start(globals: &Globals, wish: Wish) -> Result<Self, Failure> {
        let parts = Parts::start(wish)?;
        let globals = Globals { credential: Some(parts.credential.clone()), ..globals.clone() };
        let mut connection = Connection::open(&globals)?;
        let names: Vec<String> = (1..=wish.nodes).map(|number| format!("node-{number}")).collect();
        requests::nodes_up(&mut connection, &names).await?;
        Ok(Self { parts, connection, tenant: globals.tenant })
    }

    /// An image with one program without any library: `/bin/payload`.
    pub async fn tiny_image(&mut self, name: &str) -> Result<(), Failure> {
        let folder = self.parts.state.path();
        let program = super::ground::tiny_image(folder)?.join("bin/payload");
        let file = FileSpec { path: "/bin/payload".into(), mode: 0o755, content: Content::File(program) };
        self.image(name, |store| store.build(name, &[file], &BuildConfig::default())).await
    }

    /// An image, built by `build`.
    pub async fn image(
        &mut self,
        name: &str,
        build: impl FnOnce(Store) -> bellows_runtime::image::Result<bellows_runtime::image::Digest>,
    ) -> Result<(), Failure> {
        let folder = self.parts.state.path().join("images");
        let digest = Store::open(&folder).and_then(build).map_err(|error| Failure::from_error(&error))?;
        requests::register_image(&mut self.connection, name, &digest.to_string()).await
    }

    /// An image with this executable, which is the demo app: [`OWN`].
    pub async fn own_image(&mut self) -> Result<(), Failure> {
        let program = std::env::current_exe();
        let program = program.map_err(|error| Failure::failed(format!("finding this program's own file: {error}")))?;
        self.image(OWN, |store| demo::build_image(&store, &program)).await
    }

    /// An app, as a person would write it.
    pub fn app(&self, yaml: &str) -> Result<AppSpec, Failure> {
        let wrong = |problems| Failure::failed("an app of the measurement is wrong").problems(problems);
        let mut apps = appfile::parse("bench.yaml", yaml, &self.tenant).map_err(wrong)?;
        apps.pop().ok_or_else(|| wrong(Vec::new()))
    }

    /// Declares an app and waits until it has settled.
    pub async fn declare(&mut self, yaml: &str) -> Result<(), Failure> {
        let spec = self.app(yaml)?;
        within(PATIENCE, "an app settles", requests::apply_and_wait(&mut self.connection, spec)).await
    }

    /// The copies that run, of all apps.
    pub async fn replicas(&mut self) -> Result<Vec<wire::Replica>, Failure> {
        let request = wire::ListReplicasRequest { tenant: self.tenant.clone(), ..Default::default() };
        Ok(self.connection.ask(async |client| client.list_replicas(request.clone()).await).await?.replicas)
    }

    /// What the attempt before the present one wrote.
    pub async fn previous_log(&self, replica: ReplicaId) -> Result<String, Failure> {
        let request = wire::LogsRequest { replica: Some(replica), previous: true, ..Default::default() };
        let mut stream = LogStream::open(self.connection.clone(), request).await?;
        let mut text = Vec::new();
        while let Some(data) = stream.next().await? {
            text.extend(data);
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Wants so many copies; returns the generation of the wish.
    pub async fn scale(&mut self, app: &str, replicas: u32) -> Result<u64, Failure> {
        let request = wire::ScaleRequest {
            tenant: self.tenant.clone(),
            app: app.to_owned(),
            replicas,
            idempotency_key: connection::idempotency_key(),
            ..Default::default()
        };
        Ok(self.connection.ask(async |client| client.scale(request.clone()).await).await?.generation)
    }

    /// Until the wish has come true.
    pub async fn settled(&mut self, app: &str, generation: u64) -> Result<(), Failure> {
        let settled = requests::settled(&mut self.connection, self.tenant.clone(), app.to_owned(), generation);
        within(PATIENCE, "a count settles", settled).await
    }

    /// Until so many copies of the app run and no others.
    pub async fn copies(&mut self, app: &str, wanted: usize) -> Result<(), Failure> {
        self.until(LOOK_EVERY, &format!("{wanted} copies of {app}"), |all| {
            let copies = all.iter().filter(|copy| copy.app == app);
            copies.fold((0, 0), |(all, ready), copy| (all + 1, ready + usize::from(copy.ready))) == (wanted, wanted)
        })
        .await
    }

    /// Until no copy of any app runs.
    pub async fn nothing_runs(&mut self) -> Result<(), Failure> {
        self.until(LOOK_EVERY, "the end of all copies", |all| all.is_empty()).await
    }

    /// Until this holds of the copies that run, which is looked at so often.
    pub async fn until(
        &mut self,
        look_every: Duration,
        what: &str,
        holds: impl Fn(&[wire::Replica]) -> bool,
    ) -> Result<(), Failure> {
        let end = Instant::now() + PATIENCE;
        loop {
            let copies = self.replicas().await?;
            if holds(&copies) {
                return Ok(());
            }
            if Instant::now() > end {
                let ready = copies.iter().filter(|copy| copy.ready).count();
                let there = format!("there are {} copies, {ready} ready; {}", copies.len(), self.parts.said());
                return Err(Failure::failed(format!("waited {PATIENCE:?} in vain for {what}: {there}")));
            }
            tokio::time::sleep(look_every).await;
        }
    }

    /// Removes every app and ends the cluster.
    pub async fn end(mut self) -> Result<(), Failure> {
        let apps = self.connection.ask(async |client| client.list_apps(wire::ListAppsRequest {}).await).await?.apps;
        for app in apps {
            let request = wire::RemoveAppRequest {
                tenant: app.tenant,
                app: app.name,
                idempotency_key: connection::idempotency_key(),
                ..Default::default()
            };
            self.connection.ask(async |client| client.remove_app(request.clone()).await).await?;
        }
        self.nothing_runs().await?;
        self.parts.end()
    }

    /// Where the state of this cluster is.
    pub fn folder(&self) -> &Path {
        self.parts.state.path()
    }
}

/// Fails when it takes too long.
pub async fn within<T>(
    patience: Duration,
    what: &str,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let in_time = tokio::time::timeout(patience, work).await;
    in_time.map_err(|_| Failure::failed(format!("not within {patience:?}: {what}")))?
}
