//! `bellows agent`.

use std::path::PathBuf;

use bellows_runtime::handle::Ipv4Subnet;
use clap::Args;

use crate::failure::Failure;
use crate::globals::Globals;
use crate::units;

const AFTER: &str = "\
Needs root. SIGTERM and Ctrl-C end the agent only: its replicas run on, and the next agent with the same --state adopts them, so that \
an upgrade restarts nothing. To empty a server: `bellows drain NODE --wait`, then `bellows node rm NODE`.

Examples:
  bellows agent --controller 10.0.0.5:7400 --token \"$TOKEN\" --label zone=a
  bellows agent --controller 10.0.0.5:7400              after the first start: the token is spent, its identity is in --state
  bellows agent --name small --cpu 500m --memory 256Mi --controller 10.0.0.5:7400 --token \"$TOKEN\"

Logs go to stderr; $BELLOWS_LOG chooses, for example BELLOWS_LOG=debug.

JSON: once, when it has joined: {node, state, cgroup, subnet}";

/// Run an agent: starts and ends replicas on this server
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct Arguments {
    /// The node's name, unique in the cluster [default: this server's host name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Where a controller is; may be given several times, any of them will do
    #[arg(long = "controller", value_name = "HOST:PORT", required = true, value_parser = controller)]
    controllers: Vec<String>,

    /// As `bellows token` printed it; needed until this node has joined once
    #[arg(long, value_name = "TOKEN", env = "BELLOWS_TOKEN", hide_env_values = true)]
    token: Option<String>,

    /// Folder of its own: identity, journal, logs
    #[arg(long, value_name = "FOLDER", default_value = "/var/lib/bellows/agent")]
    state: PathBuf,

    /// Where images are kept; agents of one machine may share it [default: `images` in the state folder]
    #[arg(long, value_name = "FOLDER")]
    store: Option<PathBuf>,

    /// For constraints and spread; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,

    /// CPU that replicas may use together [default: all]
    #[arg(long, value_name = "CPU", value_parser = units::cpu_milli, requires = "memory")]
    cpu: Option<u64>,

    /// Memory that replicas may use together [default: all]
    #[arg(long, value_name = "SIZE", value_parser = units::bytes, requires = "cpu")]
    memory: Option<u64>,

    /// Addresses of replicas, private to this server
    #[arg(long, value_name = "SUBNET", default_value = "10.96.0.0/20")]
    subnet: Ipv4Subnet,

    /// Name of the cgroup for everything that runs [default: bellows-NAME]
    #[arg(long, value_name = "NAME")]
    cgroup: Option<String>,

    /// First user id on this server of the ranges that replicas get, 65,536 each
    #[arg(long, value_name = "ID", default_value_t = 0x1000_0000)]
    uid_base: u32,
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
pub async fn run(_arguments: Arguments, _globals: &Globals) -> Result<(), Failure> {
    Err(Failure::failed("the agent is not in this build yet"))
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
