//! `bellows apps`.

use bellows_proto::operator::ListAppsRequest;
use clap::Args;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::globals::Globals;
use crate::output::views::{self, App};
use crate::output::{self, Table};

const AFTER: &str = "\
Columns: READY is ready/wanted copies; STATE is settled, settling, short (no room for some) or removing; SCALED BY is you, or the policy.

Examples:
  bellows apps
  bellows apps -o json | jq '.[] | select(.state == \"short\") | .reason.text'

JSON: a list of {id, app, tenant, image, state, generation, revision, wanted, ready, starting, stopping, parked, unplaced, policy, \
reason: {code, text}}";

/// List apps
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct Arguments {
    /// Of every tenant, not only --tenant
    #[arg(long)]
    all_tenants: bool,
}

/// Lists them.
pub async fn run(arguments: Arguments, globals: &Globals) -> Result<(), Failure> {
    let mut connection = Connection::open(globals)?;
    let answer = connection.ask(async |client| client.list_apps(ListAppsRequest {}).await).await?;
    let ours = |app: &App| arguments.all_tenants || app.tenant == globals.tenant;
    let apps: Vec<App> = answer.apps.into_iter().map(App::from).filter(ours).collect();
    if globals.json() { output::json(&apps) } else { table(&apps, arguments.all_tenants) }
}

fn table(apps: &[App], tenants: bool) -> Result<(), Failure> {
    let tenant = |name: &str| if tenants { vec![name.to_owned()] } else { Vec::new() };
    let headings = ["APP", "READY", "STATE", "SCALED BY", "IMAGE", "REASON"];
    let headings: Vec<&str> = tenants.then_some("TENANT").into_iter().chain(headings).collect();
    let mut table = Table::new(&headings);
    for app in apps {
        let mut cells = tenant(&app.tenant);
        cells.extend([
            app.app.clone(),
            format!("{}/{}", app.ready, app.wanted),
            app.state.to_owned(),
            app.policy.clone().unwrap_or_else(|| "you".to_owned()),
            app.image.clone(),
            views::sentence(&app.reason),
        ]);
        table.row(cells);
    }
    table.print("There are no apps yet; `bellows apply -f FILE` declares one.")
}
