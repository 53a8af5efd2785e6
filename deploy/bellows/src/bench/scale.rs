//! `bench scale`: an app of `sleep`s, each with its own network, from 0 copies to N and back to 1. Ready means that the app's own exec is
//! seen from outside; ended means that its processes are gone and its exit is recorded. Both are checked after the clock has stopped.

use std::path::Path;
use std::time::{Duration, Instant};

use bellows_proto::operator as wire;
use bellows_proto::types::{AppSpec, Resources, app_spec::Scale};
use bellows_runtime::image::Store;
use clap::Args;

use super::cluster::OwnCluster;
use super::lab::Lab;
use super::parts::Wish;
use super::rows::Row;
use super::{memory, payload};
use crate::connection::{self, Connection};
use crate::dev::requests;
use crate::failure::Failure;
use crate::globals::Globals;

/// Name of the app and of its image.
const NAME: &str = "bench-scale";

/// What its copies execute.
const SLEEP: &str = "/bin/sleep";

/// What a copy asks for. The program itself sleeps.
const CPU_MILLI: u64 = 10;

/// A hundred copies up, and a hundred down to one: seconds.
const HUNDRED_S: f64 = 0.25;

/// A thousand copies up: seconds.
const THOUSAND_S: f64 = 2.5;

/// Resident memory of an agent that has a thousand copies, MiB.
const AGENT_MIB: f64 = 40.0;

/// Whoever is not there by then does not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// The kernel tells of an exec a moment before the command line of the process reads so.
const SIGHT: Duration = Duration::from_secs(1);

/// From 0 copies to N and back to 1: seconds until all are ready, and until all are gone
///
/// Starts a cluster of its own and ends it. Needs root.
#[derive(Args, Debug)]
pub struct Arguments {
    /// How many copies
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=1000))]
    copies: u32,
    /// At last from 0 to this many at once; 0 for not at all
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(0..=4000))]
    many: u32,
    /// How often; every run is a row
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Nodes of the cluster
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=14))]
    nodes: u32,
}

/// Two rows for each run, in seconds; then the many, and what they cost their agents.
pub async fn run(arguments: Arguments, globals: &Globals) -> Result<Vec<Row>, Failure> {
    crate::dev::need_root("`bellows bench scale`")?;
    let most = u64::from(arguments.copies.max(arguments.many));
    let cpu_milli = most * CPU_MILLI / u64::from(arguments.nodes) + 1000;
    let cluster = OwnCluster::start(arguments.nodes, cpu_milli)?;
    let globals = Globals { credential: Some(cluster.credential.clone()), ..globals.clone() };
    let mut connection = Connection::open(&globals)?;
    let sleeper = Sleeper { tenant: globals.tenant.clone(), seconds: rand::random_range(100_000_000..1_000_000_000) };
    sleeper.declare(&mut connection, cluster.state.path()).await?;
    let mut rows = Vec::new();
    for _ in 0..arguments.runs {
        rows.extend(up_and_down(&sleeper, &mut connection, arguments.copies, HUNDRED_S / 100.0).await?);
        sleeper.scale(&mut connection, 0).await?;
    }
    if arguments.many > 0 {
        rows.extend(many(&sleeper, &mut connection, &cluster, &arguments).await?);
        drop(cluster);
        rows.extend(on_one(&sleeper, arguments.many, &globals).await?);
    }
    Ok(rows)
}

async fn up_and_down(
    sleeper: &Sleeper,
    connection: &mut Connection,
    copies: u32,
    bar_s: f64,
) -> Result<[Row; 2], Failure> {
    let bar_s = bar_s * f64::from(copies);
    let up = Row::new(format!("scale 0 -> {copies}: all ready"), sleeper.scale(connection, copies).await?, "s");
    let down = Row::new(format!("scale {copies} -> 1: all ended"), sleeper.scale(connection, 1).await?, "s");
    Ok([up.at_most(bar_s), down.at_most(bar_s)])
}

async fn many(
    sleeper: &Sleeper,
    connection: &mut Connection,
    cluster: &OwnCluster,
    arguments: &Arguments,
) -> Result<[Row; 2], Failure> {
    let (many, nodes) = (arguments.many, arguments.nodes);
    let seconds = sleeper.scale(connection, many).await?;
    let mib = memory::rss_kib(cluster.pid())? / 1024.0;
    sleeper.scale(connection, 0).await?;
    Ok([
        Row::new(format!("scale 0 -> {many}: all ready"), seconds, "s").at_most(THOUSAND_S * f64::from(many) / 1e3),
        Row::new(
            format!("resident memory of the controller and {nodes} agents in one process, {many} alive"),
            mib,
            "MiB",
        ),
    ])
}

/// All on one node, whose agent is a process of its own as on a server.
async fn on_one(sleeper: &Sleeper, many: u32, globals: &Globals) -> Result<[Row; 2], Failure> {
    let mut lab = Lab::start(globals, Wish::one_node(u64::from(many) * CPU_MILLI + 1000)).await?;
    sleeper.declare(&mut lab.connection, lab.parts.state.path()).await?;
    let seconds = sleeper.scale(&mut lab.connection, many).await?;
    let mib = memory::rss_kib(lab.parts.agents[0].pid())? / 1024.0;
    Ok([
        Row::new(format!("scale 0 -> {many} on one node: all ready"), seconds, "s"),
        Row::new(format!("resident memory of the agent, {many} alive on its node"), mib, "MiB").at_most(AGENT_MIB),
    ])
}

/// The app that is measured. How long it sleeps tells its processes from all others of the machine.
struct Sleeper {
    tenant: String,
    seconds: u32,
}

impl Sleeper {
    async fn declare(&self, connection: &mut Connection, state: &Path) -> Result<(), Failure> {
        let build = |store: Store| payload::image(&store, NAME, Path::new(SLEEP));
        let digest = Store::open(state.join("images")).and_then(build);
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
            resources: Some(Resources { cpu_milli: CPU_MILLI, memory_bytes: 8 << 20 }),
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
        let settled = requests::settled(connection, tenant, app, changed.generation);
        let in_time = tokio::time::timeout(PATIENCE, settled).await;
        in_time.map_err(|_| Failure::failed(format!("{copies} copies have not settled within {PATIENCE:?}")))??;
        let seconds = began.elapsed().as_secs_f64();
        self.seen(copies as usize, began, seconds)
    }

    /// The machine shows what the controller says, at once or a moment later: then the later moment counts.
    fn seen(&self, copies: usize, began: Instant, seconds: f64) -> Result<f64, Failure> {
        if self.asleep()? == copies {
            return Ok(seconds);
        }
        loop {
            match self.asleep()? {
                seen if seen == copies => return Ok(began.elapsed().as_secs_f64()),
                seen if began.elapsed().as_secs_f64() > seconds + SIGHT.as_secs_f64() => {
                    let text = format!("the controller says that {copies} copies run, the machine shows {seen}");
                    return Err(Failure::failed(text));
                }
                _ => {}
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
