//! `bellows agent`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bellows_agent::ingress::{IngressConfig, TlsConfig};
use bellows_agent::{Agent, AgentConfig, Replicas};
use bellows_runtime::Runtime;
use bellows_runtime::handle::{Capacity, Feature, Ipv4Subnet};
use clap::Args;
use serde_json::json;

use crate::failure::Failure;
use crate::globals::Globals;
use crate::output::Table;
use crate::signals::Ends;
use crate::{dev, execution, logging, output, units};

/// Beside 8080, as 443 is beside 80.
const TLS_PORT: u16 = 8443;

const AFTER: &str = "\
Needs root. SIGTERM and Ctrl-C end the agent only: its replicas run on, and the next agent with the same --state adopts them, so that \
an upgrade restarts nothing. To empty a server: `bellows drain NODE --wait`, then `bellows node rm NODE`.

Examples:
  bellows agent --controller 10.0.0.5:7400 --token \"$TOKEN\" --label zone=a
  bellows agent --controller 10.0.0.5:7400              after the first start: the token is spent, its identity is in --state
  bellows agent --check                                 what this server's kernel offers, and what works without it
  bellows agent --name small --cpu 500m --memory 256Mi --controller 10.0.0.5:7400 --token \"$TOKEN\"

Logs go to stderr; $BELLOWS_LOG chooses, for example BELLOWS_LOG=debug.

JSON: once, when it has joined: {id, node, state, pid}; with --check: a list of {feature, found, how, why, needed_for, without, mend, required}";

/// Run an agent: starts and ends replicas on this server
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct Arguments {
    /// The node's name, unique in the cluster [default: this server's host name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Where a controller is; may be given several times, any of them will do
    #[arg(long = "controller", value_name = "HOST:PORT", required_unless_present = "check", value_parser = controller)]
    controllers: Vec<String>,

    /// As `bellows token` printed it; needed until this node has joined once
    #[arg(long, value_name = "TOKEN", env = "BELLOWS_TOKEN", hide_env_values = true)]
    token: Option<String>,

    /// How long to look for a controller that lets this node join
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = units::duration_ms)]
    join_timeout: u64,

    /// Folder of its own: identity, journal, logs
    #[arg(long, value_name = "FOLDER", default_value = "/var/lib/bellows/agent")]
    state: PathBuf,

    /// Where images are kept; agents of one machine may share it [default: `images` in the state folder]
    #[arg(long, value_name = "FOLDER")]
    store: Option<PathBuf>,

    /// For constraints and spread; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,

    /// CPU that replicas may use together; --memory is given with it [default: all]
    #[arg(long, value_name = "CPU", value_parser = units::cpu_milli, requires = "memory")]
    cpu: Option<u64>,

    /// Memory that replicas may use together; --cpu is given with it [default: all]
    #[arg(long, value_name = "SIZE", value_parser = units::bytes, requires = "cpu")]
    memory: Option<u64>,

    /// Addresses of replicas, private to this server
    #[arg(long, value_name = "SUBNET", default_value = "10.96.0.0/20")]
    subnet: Ipv4Subnet,

    /// Name of the cgroup for everything that runs [default: bellows-NAME]
    #[arg(long, value_name = "NAME")]
    cgroup: Option<String>,

    /// First user id on this server of the ranges that replicas get, 65,536 each and one between them
    #[arg(long, value_name = "ID", default_value_t = 0x1000_0000)]
    uid_base: u32,

    /// Address at which requests for apps are taken
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0")]
    ingress: IpAddr,

    /// Where other nodes forward requests for this one's copies, an address that they reach; without it only requests to this node get to them
    #[arg(long, value_name = "ADDRESS:PORT")]
    links: Option<SocketAddr>,

    /// Port of every app whose route names none; may be given several times
    #[arg(long = "ingress-port", value_name = "PORT", default_value = "8080")]
    ingress_ports: Vec<u16>,

    /// Folder of certificates for TLS, NAME.crt with NAME.key in PEM; new files are taken in without a restart
    #[arg(long, value_name = "FOLDER")]
    certificates: Option<PathBuf>,

    /// Port of every app whose route names none, within TLS; may be given several times [default with --certificates: 8443]
    #[arg(long = "ingress-tls-port", value_name = "PORT", requires = "certificates")]
    tls_ports: Vec<u16>,

    /// NAME of the certificate for hosts that no certificate names [default: the only one]
    #[arg(long, value_name = "NAME", requires = "certificates")]
    default_certificate: Option<String>,

    /// Name server for copies with egress; may be given several times [default: this server's own, see README]
    #[arg(long = "name-server", value_name = "ADDRESS")]
    name_servers: Vec<Ipv4Addr>,

    /// Only say what this server's kernel offers; exit code 1 when something is missing without which no replica runs
    #[arg(long)]
    check: bool,
}

/// `host:port`, as a URL.
fn controller(text: &str) -> Result<String, String> {
    let wrong = || format!("\"{text}\" is no address; expected HOST:PORT, for example 10.0.0.5:7400");
    let bare = text.strip_prefix("https://").unwrap_or(text);
    let (host, port) = bare.rsplit_once(':').ok_or_else(wrong)?;
    match port.parse::<u16>() {
        Ok(1..) if !host.is_empty() && !bare.contains('/') => Ok(format!("https://{bare}")),
        _ => Err(wrong()),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("\"{text}\" is no label; expected KEY=VALUE, for example zone=a")),
    }
}

/// Serves until told to end; replicas run on.
pub async fn run(arguments: Arguments, globals: &Globals) -> Result<(), Failure> {
    if arguments.check {
        return check(&Runtime::check(images(&arguments)), globals);
    }
    dev::need_root("`bellows agent`")?;
    dev::need_kernel(&Runtime::check(images(&arguments)))?;
    logging::begin();
    let mut ends = Ends::catch()?;
    let config = config(arguments)?;
    let agent = tokio::select! {
        started = Agent::start(config) => started.map_err(|error| Failure::from_error(&error))?,
        () = ends.told() => return Ok(()),
    };
    greet(&agent, globals)?;
    let stuck = tokio::select! {
        why = agent.stuck() => Some(why),
        () = ends.told() => None,
    };
    leave(agent, &mut ends).await?;
    stuck.map_or(Ok(()), |why| Err(Failure::failed(why)))
}

/// Near enough: `images` in the state folder is on its file system.
fn images(arguments: &Arguments) -> &Path {
    arguments.store.as_deref().unwrap_or(&arguments.state)
}

/// Replicas outlive the agent, so that an upgrade restarts nothing.
async fn leave(agent: Agent, ends: &mut Ends) -> Result<(), Failure> {
    tracing::info!("ending; replicas run on");
    let mut left = Ok(());
    ends.patiently(async { left = agent.shutdown(Replicas::Leave).await }).await?;
    left.map_err(|error| Failure::from_error(&error))
}

fn greet(agent: &Agent, globals: &Globals) -> Result<(), Failure> {
    let (id, name, state) = (format!("n{}", agent.node()), agent.name(), agent.state().display());
    match globals.json() {
        true => {
            output::json_line(&json!({ "id": id, "node": name, "state": state.to_string(), "pid": std::process::id() }))
        }
        false => output::line(&format!("node {name} ({id}) serves; its state is in {state}")),
    }
}

fn config(arguments: Arguments) -> Result<AgentConfig, Failure> {
    let name = arguments.name.map_or_else(host_name, Ok)?;
    let capacity = arguments.cpu.zip(arguments.memory);
    let tls_ports = if arguments.tls_ports.is_empty() { vec![TLS_PORT] } else { arguments.tls_ports };
    let default = arguments.default_certificate;
    let tls = arguments.certificates.map(|folder| TlsConfig { shared_ports: tls_ports, folder, default });
    Ok(AgentConfig {
        store: arguments.store.unwrap_or_else(|| arguments.state.join("images")),
        state: arguments.state,
        controllers: arguments.controllers,
        token: arguments.token,
        join_patience: Duration::from_millis(arguments.join_timeout),
        labels: arguments.labels.into_iter().collect(),
        capacity: capacity.map(|(cpu_milli, memory_bytes)| Capacity { cpu_milli, memory_bytes }),
        cgroup_parent: arguments.cgroup.unwrap_or_else(|| format!("bellows-{name}")),
        subnet: arguments.subnet,
        uid_base: arguments.uid_base,
        ingress: Some(IngressConfig {
            address: arguments.ingress,
            shared_ports: arguments.ingress_ports,
            tls,
            ..IngressConfig::default()
        }),
        links: arguments.links,
        name_servers: (!arguments.name_servers.is_empty())
            .then(|| arguments.name_servers.into_iter().map(IpAddr::V4).collect()),
        launcher: execution::launcher(),
        name,
    })
}

fn host_name() -> Result<String, Failure> {
    let told = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    told.ok_or_else(|| Failure::failed("this server's host name is no text").mend("name the node with --name"))
}

fn check(features: &[Feature], globals: &Globals) -> Result<(), Failure> {
    if globals.json() {
        output::json(&features.iter().map(feature).collect::<Vec<_>>())?
    } else {
        table(features)?
    }
    dev::need_kernel(features)
}

fn feature(one: &Feature) -> serde_json::Value {
    json!({
        "feature": one.feature,
        "found": one.found.is_ok(),
        "why": one.found.as_ref().err(),
        "how": one.found.as_ref().ok(),
        "needed_for": one.needed_for,
        "without": one.without,
        "mend": one.mend,
        "required": one.required,
    })
}

fn table(features: &[Feature]) -> Result<(), Failure> {
    let mut table = Table::new(&["FEATURE", "FOUND", "NEEDED FOR", "WITHOUT IT"]);
    for one in features {
        let found = one.found.as_ref().map_or_else(|why| format!("no: {why}"), String::clone);
        table.row(vec![one.feature.to_string(), found, one.needed_for.to_string(), one.without.to_string()]);
    }
    table.print("There is nothing to check.")
}

#[cfg(test)]
mod tests {
    use super::{controller, label};

    #[test]
    fn addresses_become_urls() {
        assert_eq!(controller("10.0.0.5:7400"), Ok("https://10.0.0.5:7400".to_owned()));
        assert_eq!(controller("https://[::1]:7400"), Ok("https://[::1]:7400".to_owned()));
        for wrong in ["10.0.0.5", ":7400", "host:0", "host:70000", "http://host:1", "host:1/path"] {
            assert!(controller(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn labels_are_pairs() {
        assert_eq!(label("zone=a=b"), Ok(("zone".to_owned(), "a=b".to_owned())));
        assert!(label("zone").is_err() && label("=a").is_err());
    }
}
