//! `bench scale`: an app of `sleep`s, each with its own network, from 0 copies to N and back to 1. Ready means that the app's own exec is
//! seen from outside; ended means that its processes are gone and its exit is recorded. Both are checked after the clock has stopped.

use std::path::Path;
use std::time::Instant;

use bellows_proto::operator as wire;
use bellows_proto::types::{AppSpec, Resources, app_spec::Scale};
use bellows_runtime::image::Store;
use clap::Args;

use super::cluster::OwnCluster;
use super::payload;
use super::rows::Row;
use crate::connection::{self, Connection};
use crate::dev::requests;
use crate::failure::Failure;
use crate::globals::Globals;

/// Name of the app and of its image.
const NAME: &str = "bench-scale";

/// What its copies execute.
const SLEEP: &str = "/bin/sleep";

/// From 0 copies to N and back to 1: seconds until all are ready, and until all are gone
///
/// Starts a cluster of its own and ends it. Needs root.
#[derive(Args, Debug)]
pub struct Arguments {
    /// How many copies
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=1000))]
    copies: u32,
    /// How often; every run is a row
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Nodes of the cluster
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=14))]
    nodes: u32,
}

/// Two rows for each run, in seconds.
pub async fn run(arguments: Arguments, globals: &Globals) -> Result<Vec<Row>, Failure> {
    crate::dev::need_root("`bellows bench scale`")?;
    let cluster = OwnCluster::start(arguments.nodes)?;
    let globals = Globals { credential: Some(cluster.credential.clone()), ..globals.clone() };
    let mut connection = Connection::open(&globals)?;
    let sleeper = Sleeper { tenant: globals.tenant.clone(), seconds: rand::random_range(100_000_000..1_000_000_000) };
    sleeper.declare(&mut connection, &cluster).await?;
    let mut rows = Vec::new();
    for _ in 0..arguments.runs {
        let (up, down) = (
            format!("scale 0 -> {}: all ready", arguments.copies),
            format!("scale {} -> 1: all ended", arguments.copies),
        );
        rows.push(Row::new(up, sleeper.scale(&mut connection, arguments.copies).await?, "s"));
        rows.push(Row::new(down, sleeper.scale(&mut connection, 1).await?, "s"));
        sleeper.scale(&mut connection, 0).await?;
    }
    Ok(rows)
}

/// The app that is measured. How long it sleeps tells its processes from all others of the machine.
struct Sleeper {
    tenant: String,
    seconds: u32,
}

impl Sleeper {
    async fn declare(&self, connection: &mut Connection, cluster: &OwnCluster) -> Result<(), Failure> {
        let build = |store: Store| payload::image(&store, NAME, Path::new(SLEEP));
        let digest = Store::open(cluster.state.path().join("images")).and_then(build);
        let digest = digest.map_err(|error| Failure::from_error(&error))?;
        requests::register_image(connection, NAME, &digest.to_string()).await?;
        requests::apply_and_wait(connection, self.spec()).await
    }

    fn spec(&self) -> AppSpec {
        AppSpec {
            name: NAME.to_owned(),
            tenant: self.tenant.clone(),
            image: NAME.to_owned(),
            command: vec![SLEEP.to_owned(), self.seconds.to_string()],
            resources: Some(Resources { cpu_milli: 10, memory_bytes: 8 << 20 }),
            processes: 8,
            scratch_bytes: 1 << 20,
            log_bytes: 64 << 10,
            scale: Some(Scale::Replicas(0)),
            stop_grace_ms: 10_000,
            drain_deadline_ms: 60_000,
            ..AppSpec::default()
        }
    }

    /// Seconds from the request until the controller says that it has come true; fails when the machine says otherwise.
    async fn scale(&self, connection: &mut Connection, copies: u32) -> Result<f64, Failure> {
        let (tenant, app) = (self.tenant.clone(), NAME.to_owned());
        let request = wire::ScaleRequest {
            tenant: tenant.clone(),
            app: app.clone(),
            replicas: copies,
            idempotency_key: connection::idempotency_key(),
            ..Default::default()
        };
        let began = Instant::now();
        let changed = connection.ask(async |client| client.scale(request.clone()).await).await?;
        requests::settled(connection, tenant, app, changed.generation).await?;
        let seconds = began.elapsed().as_secs_f64();
        match self.asleep()? {
            seen if seen == copies as usize => Ok(seconds),
            seen => {
                Err(Failure::failed(format!("the controller says that {copies} copies run, the machine shows {seen}")))
            }
        }
    }

    /// Processes of the machine that execute the app, whoever started them.
    fn asleep(&self) -> Result<usize, Failure> {
        let processes =
            std::fs::read_dir("/proc").map_err(|error| Failure::failed(format!("listing /proc: {error}")))?;
        let command_lines =
            processes.flatten().filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
        let expected = format!("{SLEEP}\0{}\0", self.seconds);
        Ok(command_lines.filter(|line| line == expected.as_bytes()).count())
    }
}
