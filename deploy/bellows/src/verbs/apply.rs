//! `bellows apply`.

use std::path::PathBuf;
use std::time::Instant;

use bellows_core::ids::AppId;
use bellows_proto::operator::{AppChanged, ApplyRequest};
use bellows_proto::types::{AppSpec, app_spec};
use clap::Args;

use crate::appfile;
use crate::connection::{self, Connection};
use crate::failure::Failure;
use crate::globals::Globals;
use crate::output::{self, views};
use crate::waiting::{self, Wish};

const AFTER: &str = "\
A whole file (more fields: deploy/config/everything.yaml, `bellows schema`):
  name: web
  image: web:1.2
  policy: {min: 1, max: 20, idle_grace: 30s, cpu: {target: 60%}}    # or: replicas: 3
  resources: {cpu: 250m, memory: 64Mi}
  ports: [8080]

Examples:
  bellows apply -f web.yaml --wait
  bellows apply -f web.yaml --dry-run        check everything, change nothing
  cat web.yaml | bellows apply -f -
  bellows apply -f web.yaml --expect 7       only if nobody changed it since generation 7; 0: only if it is new

JSON: a list of {id, app, tenant, generation, changed, image_digest, dry_run}, with --wait also wanted, ready, waited_ms";

/// Declare apps from YAML files
///
/// All files are read and checked before anything is sent; then their apps are declared one after the other. Repeating it
/// changes nothing.
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct Arguments {
    /// YAML file, one app per document; `-` is stdin
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,

    #[command(flatten)]
    waiting: waiting::Flags,

    /// Check everything, the controller's part too, but change nothing
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,

    /// Refuse when the app is at another generation (0: when it exists); for files with one app
    #[arg(long, value_name = "GENERATION")]
    expect: Option<u64>,
}

/// Declares them in the order of the files.
pub async fn run(arguments: Arguments, globals: &Globals) -> Result<(), Failure> {
    let specs = read(&arguments, globals)?;
    let mut connection = Connection::open(globals)?;
    let mut changes = Vec::new();
    for spec in &specs {
        let change = declare(&mut connection, spec, &arguments, globals).await?;
        if !globals.json() {
            output::line(&sentence(&change, spec))?;
        }
        changes.push(change);
    }
    if globals.json() { output::json(&changes) } else { Ok(()) }
}

fn read(arguments: &Arguments, globals: &Globals) -> Result<Vec<AppSpec>, Failure> {
    let mut specs = Vec::new();
    for file in &arguments.files {
        specs.extend(appfile::load(file, &globals.tenant)?);
    }
    if arguments.expect.is_some() && specs.len() != 1 {
        return Err(Failure::usage(format!("--expect is for one app, the files have {}", specs.len()))
            .mend("apply the app whose generation you know by itself"));
    }
    Ok(specs)
}

async fn declare(
    connection: &mut Connection,
    spec: &AppSpec,
    arguments: &Arguments,
    globals: &Globals,
) -> Result<views::Changed, Failure> {
    let began = Instant::now();
    let request = ApplyRequest {
        spec: Some(spec.clone()),
        idempotency_key: connection::idempotency_key(),
        expected_generation: arguments.expect,
        dry_run: arguments.dry_run,
    };
    let answer = connection.ask(async |client| client.apply(request.clone()).await).await?;
    let wish = Wish { tenant: &spec.tenant, app: &spec.name, generation: answer.generation };
    let waited = match arguments.waiting.wait {
        true => Some(waiting::until_settled(connection, &wish, &arguments.waiting, globals, began).await?),
        false => None,
    };
    Ok(views::Changed { dry_run: arguments.dry_run, waited, ..changed(answer, &spec.tenant, &spec.name) })
}

/// What the controller answered to a change.
pub fn changed(answer: AppChanged, tenant: &str, app: &str) -> views::Changed {
    views::Changed {
        id: AppId(answer.id).to_string(),
        app: app.to_owned(),
        tenant: tenant.to_owned(),
        generation: answer.generation,
        changed: answer.changed,
        image_digest: views::filled(answer.image_digest),
        dry_run: false,
        waited: None,
    }
}

fn sentence(change: &views::Changed, spec: &AppSpec) -> String {
    let wanted = match &spec.scale {
        Some(app_spec::Scale::Elastic(elastic)) => format!("{} to {} copies", elastic.min, elastic.max),
        Some(app_spec::Scale::Replicas(1)) => "1 copy".to_owned(),
        Some(app_spec::Scale::Replicas(several)) => format!("{several} copies"),
        None => "copies".to_owned(),
    };
    let what = match (change.dry_run, change.changed) {
        (true, true) => "would be declared",
        (true, false) | (false, false) => "is already as declared",
        (false, true) => "declared",
    };
    let ready = change.waited.map(|waited| waiting::ready_sentence(&waited)).unwrap_or_default();
    format!("{} {what}: {wanted} of {}, generation {}{ready}", change.app, spec.image, change.generation)
}
