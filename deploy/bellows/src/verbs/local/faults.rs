//! `bellows local cut`, `slow` and `heal`.

use bellows_local::Cluster;
use clap::Args;
use serde_json::json;

use super::failure;
use crate::failure::Failure;
use crate::globals::Globals;
use crate::{output, units};

/// Let nothing pass between two hosts, or between one and everybody
#[derive(Args, Debug)]
#[command(after_help = "\
Packets vanish, as behind a pulled cable: connections stay open until somebody gives up.

Examples:
  bellows local cut n1 m1          n1 and the controller do not hear each other
  bellows local cut n1             n1 hears nobody, this machine neither

JSON: {host, from}; from is null when it is cut off from everybody")]
pub struct Cut {
    /// Which host
    host: String,

    /// From which other one [default: from everybody]
    from: Option<String>,
}

/// Cuts.
pub fn cut(arguments: Cut, cluster: &Cluster, globals: &Globals) -> Result<(), Failure> {
    let Cut { host, from } = arguments;
    cluster.cut(&host, from.as_deref()).map_err(failure)?;
    match globals.json() {
        true => output::json(&json!({ "host": host, "from": from })),
        false => output::line(&format!("{host} is cut off from {}", from.as_deref().unwrap_or("everybody"))),
    }
}

/// Make a host's link slow or lossy, in both directions
#[derive(Args, Debug)]
#[command(after_help = "\
What is not named stays as it was; `heal` makes the link good again.

Examples:
  bellows local slow n1 --rate 1mbit --loss 5%
  bellows local slow n1 --loss 0.5%

JSON: {host, rate_bits, loss_permille}")]
pub struct Slow {
    /// Which host
    host: String,

    /// At most so much: 64kbit, 1mbit, 1gbit
    #[arg(long, value_name = "RATE", value_parser = rate, required_unless_present = "loss")]
    rate: Option<u64>,

    /// So many packets are lost
    #[arg(long, value_name = "PERCENT", value_parser = loss)]
    loss: Option<u16>,
}

/// Slows down.
pub fn slow(arguments: Slow, cluster: &Cluster, globals: &Globals) -> Result<(), Failure> {
    let Slow { host, rate, loss } = arguments;
    let how = bellows_local::Slow { rate_bits: rate, loss_permille: loss };
    cluster.slow(&host, how).map_err(failure)?;
    match globals.json() {
        true => output::json(&json!({ "host": host, "rate_bits": rate, "loss_permille": loss })),
        false => output::line(&format!("the link of {host} is bad now; `bellows local heal {host}` mends it")),
    }
}

/// Make the network good again: for one host, or for all
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  bellows local heal
  bellows local heal n1

JSON: {host}; null for all")]
pub struct Heal {
    /// Which host [default: all]
    host: Option<String>,
}

/// Heals.
pub fn heal(arguments: Heal, cluster: &Cluster, globals: &Globals) -> Result<(), Failure> {
    let host = arguments.host;
    cluster.heal(host.as_deref()).map_err(failure)?;
    match globals.json() {
        true => output::json(&json!({ "host": host })),
        false => output::line(&format!("the network of {} is good again", host.as_deref().unwrap_or("all hosts"))),
    }
}

/// Bits in a second, in the words of tc.
fn rate(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 4] = [("kbit", 1_000), ("mbit", 1_000_000), ("gbit", 1_000_000_000), ("bit", 1)];
    let wrong = || format!("\"{text}\" is no rate; expected for example 64kbit, 1mbit or 1gbit");
    let small = text.to_ascii_lowercase();
    let (number, unit) =
        UNITS.iter().find_map(|(name, unit)| Some((small.strip_suffix(name)?, unit))).ok_or_else(wrong)?;
    let bits = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*unit));
    bits.filter(|bits| (8_000..=34_000_000_000).contains(bits))
        .ok_or_else(|| format!("{}; at least 8kbit, at most 34gbit", wrong()))
}

fn loss(text: &str) -> Result<u16, String> {
    let permille = units::permille(text)?;
    u16::try_from(permille)
        .ok()
        .filter(|permille| *permille <= 1_000)
        .ok_or_else(|| format!("\"{text}\" is more than 100%"))
}

/// `1mbit`, for tables.
pub fn show_rate(bits: u64) -> String {
    match bits {
        _ if bits.is_multiple_of(1_000_000_000) => format!("{}gbit", bits / 1_000_000_000),
        _ if bits.is_multiple_of(1_000_000) => format!("{}mbit", bits / 1_000_000),
        _ if bits.is_multiple_of(1_000) => format!("{}kbit", bits / 1_000),
        _ => format!("{bits}bit"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_shown() {
        for (text, bits) in [("1mbit", 1_000_000), ("64kbit", 64_000), ("1Gbit", 1_000_000_000), ("9001bit", 9_001)] {
            assert_eq!(rate(text), Ok(bits), "{text}");
            assert_eq!(show_rate(bits), text.to_ascii_lowercase());
        }
        for bad in ["1", "mbit", "1mbps", "-1mbit", "0mbit", "7kbit", "99999999999gbit"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn losses_are_shares() {
        assert_eq!((loss("5%"), loss("0.5%"), loss("100%")), (Ok(50), Ok(5), Ok(1_000)));
        assert!(loss("101%").is_err() && loss("5").is_err());
    }
}
