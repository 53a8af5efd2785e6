//! `bellows controller`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bellows_controller::{Allowance, Allowed, Controller, ControllerConfig, Planted};
use bellows_runtime::names;
use clap::Args;
use serde_json::json;

use crate::failure::Failure;
use crate::globals::Globals;
use crate::signals::Ends;
use crate::{logging, output, units};

const AFTER: &str = "\
The first start founds the cluster: its certificate authority, an administrator's credential, an empty log. SIGTERM and Ctrl-C end it \
in order; kill -9 loses nothing that was acknowledged either. Apps run on without it.

Examples:
  bellows controller --advertise 10.0.0.5
  bellows controller --state ./state --listen 127.0.0.1:0     a free port, for trying
  export BELLOWS_CREDENTIAL=/var/lib/bellows/controller/credential.json; bellows status

Logs go to stderr; $BELLOWS_LOG chooses, for example BELLOWS_LOG=debug.

JSON: once, when it serves: {controller, dashboard, credential, token}; token is null when no token could be made yet";

/// The printed token is valid for an hour; `bellows token` makes others.
const TOKEN_LIFE: Duration = Duration::from_secs(60 * 60);

/// Run a controller: keeps what was declared, decides where copies run
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct Arguments {
    /// Folder of its own: log, authority, credential
    #[arg(long, value_name = "FOLDER", default_value = "/var/lib/bellows/controller")]
    state: PathBuf,

    /// Where people and agents reach it, with mutual TLS; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", value_parser = units::listening, default_value = "0.0.0.0:7400")]
    listen: SocketAddr,

    /// Where the web page and /metrics are served, in the clear and read-only
    #[arg(long, value_name = "ADDRESS", value_parser = units::listening, default_value = "127.0.0.1:7480")]
    dashboard: SocketAddr,

    /// Where images are kept [default: `images` in the state folder]
    #[arg(long, value_name = "FOLDER")]
    store: Option<PathBuf>,

    /// The cluster's name, taken when it is founded
    #[arg(long, value_name = "NAME", default_value = "bellows")]
    cluster: String,

    /// Host name or address by which others reach this controller; the first one goes into credentials [default: --listen's]
    #[arg(long, value_name = "HOST")]
    advertise: Vec<String>,

    /// Capability that apps may ask for beyond those that copies have, of one tenant or of all; may be given several times
    #[arg(long = "allow-capability", value_name = "[TENANT:]NAME", value_parser = allowed_capability)]
    allowed_capabilities: Vec<Allowance>,

    /// System call that apps may ask for beyond those that copies may make, likewise
    #[arg(long = "allow-call", value_name = "[TENANT:]NAME", value_parser = allowed_call)]
    allowed_calls: Vec<Allowance>,
}

fn allowed_capability(text: &str) -> Result<Allowance, String> {
    allowance(text, &names::more_capabilities().collect::<Vec<_>>())
}

fn allowed_call(text: &str) -> Result<Allowance, String> {
    allowance(text, &names::more_calls().collect::<Vec<_>>())
}

/// Nothing else can be allowed: the runtime refuses it whatever is said here.
fn allowance(text: &str, known: &[&str]) -> Result<Allowance, String> {
    let (tenant, name) = match text.split_once(':') {
        Some((tenant, name)) => (Some(tenant.to_owned()), name),
        None => (None, text),
    };
    match known.contains(&name) {
        true => Ok(Allowance { tenant, name: name.to_owned() }),
        false => Err(format!("\"{name}\" can never be allowed; what can: {}", known.join(", "))),
    }
}

/// Serves until told to end.
pub async fn run(arguments: Arguments, globals: &Globals) -> Result<(), Failure> {
    logging::begin();
    let mut ends = Ends::catch()?;
    let mut controller = Controller::start(config(arguments)).await.map_err(|error| Failure::from_error(&error))?;
    greet(&controller, globals).await?;
    let stuck = tokio::select! {
        () = ends.told() => None,
        why = controller.ended() => Some(why),
    };
    tracing::info!("ending in order");
    ends.patiently(controller.shutdown()).await?;
    stuck.map_or(Ok(()), |why| Err(Failure::from_error(&why)))
}

fn config(arguments: Arguments) -> ControllerConfig {
    ControllerConfig {
        store: arguments.store.unwrap_or_else(|| arguments.state.join("images")),
        state: arguments.state,
        listen: arguments.listen,
        dashboard: arguments.dashboard,
        cluster: arguments.cluster,
        advertise: arguments.advertise,
        allowed: Allowed { capabilities: arguments.allowed_capabilities, calls: arguments.allowed_calls },
        seed: rand::random(),
        planted: Planted::None,
    }
}

/// Says how to reach it, and how servers join.
async fn greet(controller: &Controller, globals: &Globals) -> Result<(), Failure> {
    let token = match controller.create_token(TOKEN_LIFE).await {
        Ok(token) => Some(token),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "no join token yet; `bellows token` makes one");
            None
        }
    };
    let (address, dashboard) = (controller.address(), controller.dashboard_address());
    let credential = controller.credential_path().display();
    if globals.json() {
        return output::json_line(&json!({
            "controller": format!("https://{address}"),
            "dashboard": format!("http://{dashboard}"),
            "credential": credential.to_string(),
            "token": token,
        }));
    }
    output::line(&format!("controller  {address}"))?;
    output::line(&format!("page        http://{dashboard}"))?;
    output::line(&format!("credential  {credential}"))?;
    match token {
        Some(token) => output::line(&format!(
            "servers join within 1h with\n  bellows agent --controller {address} --token {token}"
        )),
        None => Ok(()),
    }
}
