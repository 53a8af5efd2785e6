//! `bellows stats`.

use std::collections::BTreeMap;
use std::time::Duration;

use bellows_proto::operator::{ReplicaUsage, StatsRequest, StatsResponse};
use clap::Args;
use serde::Serialize;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::globals::Globals;
use crate::output::{self, Table, views};
use crate::units;

const AFTER: &str = "\
Columns: CPU and the rates are of the time between two readings, --interval apart; CPU% is of its limit. PEAK is the most memory at any \
time; READ and WRITTEN are of block devices, RECEIVED and SENT of its network, headers and loopback included.

Examples:
  bellows stats                          every copy of the tenant
  bellows stats web --watch              the copies of an app, again and again, until Ctrl-C
  bellows stats node-1                   all copies on a node
  bellows stats 1-2-57 --interval 0s     one reading, at once: no rates

JSON: {replicas: [{id, app, node, attempt, cpu_us, memory_bytes, memory_peak_bytes, processes, read_bytes, written_bytes, \
received_bytes, sent_bytes, connections, frozen, cpu_limit_milli, memory_limit_bytes, rates: {interval_ms, cpu_milli, \
read_bytes_per_s, written_bytes_per_s, received_bytes_per_s, sent_bytes_per_s} or null}], unheard: [NODE]}; with --watch one such \
document per line";

/// What replicas use: CPU, memory, processes, input and output, network
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct Arguments {
    /// An app's name, a replica's id or a node's name; else all of the tenant
    #[arg(value_name = "APP|REPLICA|NODE")]
    subject: Option<String>,

    /// Again and again
    #[arg(short, long)]
    watch: bool,

    /// Between two readings
    #[arg(long, value_name = "DURATION", value_parser = units::duration_ms, default_value = "1s")]
    interval: u64,
}

/// Reads, waits, reads again.
pub async fn run(arguments: Arguments, globals: &Globals) -> Result<(), Failure> {
    if arguments.watch && arguments.interval == 0 {
        return Err(Failure::usage("--watch needs an --interval above zero"));
    }
    let mut connection = Connection::open(globals)?;
    let request =
        StatsRequest { tenant: globals.tenant.clone(), subject: arguments.subject.clone().unwrap_or_default() };
    let mut before = read(&mut connection, &request).await?;
    if arguments.interval == 0 {
        return show(&Document::of(&before, None), globals, false);
    }
    loop {
        tokio::time::sleep(Duration::from_millis(arguments.interval)).await;
        let now = read(&mut connection, &request).await?;
        show(&Document::of(&now, Some(&before)), globals, arguments.watch)?;
        if !arguments.watch {
            return Ok(());
        }
        before = now;
    }
}

async fn read(connection: &mut Connection, request: &StatsRequest) -> Result<StatsResponse, Failure> {
    connection.ask(async |client| client.stats(request.clone()).await).await
}

#[derive(Serialize, Debug)]
struct Document {
    replicas: Vec<Row>,
    unheard: Vec<String>,
}

#[derive(Serialize, Debug)]
struct Row {
    id: String,
    app: String,
    node: String,
    attempt: u32,
    cpu_us: u64,
    memory_bytes: u64,
    memory_peak_bytes: Option<u64>,
    processes: u64,
    read_bytes: u64,
    written_bytes: u64,
    received_bytes: u64,
    sent_bytes: u64,
    connections: u64,
    frozen: bool,
    cpu_limit_milli: u64,
    memory_limit_bytes: u64,
    rates: Option<Rates>,
    #[serde(skip)]
    at_ms: u64,
}

#[derive(Serialize, Debug, PartialEq, Eq)]
struct Rates {
    interval_ms: u64,
    cpu_milli: u64,
    read_bytes_per_s: u64,
    written_bytes_per_s: u64,
    received_bytes_per_s: u64,
    sent_bytes_per_s: u64,
}

impl Document {
    fn of(now: &StatsResponse, before: Option<&StatsResponse>) -> Self {
        let earlier: Vec<Row> = before.into_iter().flat_map(|before| &before.usages).map(Row::of).collect();
        let earlier: BTreeMap<(&str, u32), &Row> =
            earlier.iter().map(|row| ((&row.id[..], row.attempt), row)).collect();
        let with_rates = |usage: &ReplicaUsage| {
            let row = Row::of(usage);
            let rates = earlier.get(&(&row.id[..], row.attempt)).and_then(|before| row.since(before));
            Row { rates, ..row }
        };
        Self { replicas: now.usages.iter().map(with_rates).collect(), unheard: now.unheard.clone() }
    }
}

impl Row {
    fn of(row: &ReplicaUsage) -> Self {
        let usage = row.usage.unwrap_or_default();
        let limits = usage.limits.unwrap_or_default();
        Self {
            id: usage.replica.as_ref().map(views::replica_id).unwrap_or_default(),
            app: row.app.clone(),
            node: row.node.clone(),
            attempt: usage.attempt,
            cpu_us: usage.cpu_us,
            memory_bytes: usage.memory_bytes,
            memory_peak_bytes: Some(usage.memory_peak_bytes).filter(|peak| *peak > 0),
            processes: usage.processes,
            read_bytes: usage.read_bytes,
            written_bytes: usage.written_bytes,
            received_bytes: usage.received_bytes,
            sent_bytes: usage.sent_bytes,
            connections: usage.connections,
            frozen: usage.frozen,
            cpu_limit_milli: limits.cpu_milli,
            memory_limit_bytes: limits.memory_bytes,
            rates: None,
            at_ms: usage.at_ms,
        }
    }

    /// Of the same attempt; nothing when no time has passed.
    fn since(&self, before: &Self) -> Option<Rates> {
        let interval_ms = self.at_ms.checked_sub(before.at_ms).filter(|interval| *interval > 0)?;
        let per_second = |now: u64, before: u64| now.saturating_sub(before).saturating_mul(1_000) / interval_ms;
        Some(Rates {
            interval_ms,
            // 1,000 us in 1 ms are one CPU, 1,000 thousandths.
            cpu_milli: self.cpu_us.saturating_sub(before.cpu_us) / interval_ms,
            read_bytes_per_s: per_second(self.read_bytes, before.read_bytes),
            written_bytes_per_s: per_second(self.written_bytes, before.written_bytes),
            received_bytes_per_s: per_second(self.received_bytes, before.received_bytes),
            sent_bytes_per_s: per_second(self.sent_bytes, before.sent_bytes),
        })
    }
}

fn show(document: &Document, globals: &Globals, again: bool) -> Result<(), Failure> {
    for node in &document.unheard {
        eprintln!("warning: node {node} did not answer");
    }
    match (globals.json(), again) {
        (true, true) => output::json_line(document),
        (true, false) => output::json(document),
        (false, _) => table(document, again),
    }
}

fn table(document: &Document, again: bool) -> Result<(), Failure> {
    let mut table = Table::new(&[
        "REPLICA",
        "APP",
        "NODE",
        ">CPU",
        ">CPU%",
        ">MEMORY",
        ">LIMIT",
        ">PEAK",
        ">PROCESSES",
        ">READ/s",
        ">WRITTEN/s",
        ">RECEIVED/s",
        ">SENT/s",
        "STATE",
    ]);
    for row in &document.replicas {
        let rate = |of: fn(&Rates) -> u64| row.rates.as_ref().map(of);
        let bytes = |of: fn(&Rates) -> u64| rate(of).map(units::show_bytes).unwrap_or_default();
        let share = rate(|rates| rates.cpu_milli).filter(|_| row.cpu_limit_milli > 0);
        table.row(vec![
            row.id.clone(),
            row.app.clone(),
            row.node.clone(),
            rate(|rates| rates.cpu_milli).map(units::show_cpu).unwrap_or_default(),
            share.map(|milli| format!("{}%", milli * 100 / row.cpu_limit_milli)).unwrap_or_default(),
            units::show_bytes(row.memory_bytes),
            units::show_bytes(row.memory_limit_bytes),
            row.memory_peak_bytes.map(units::show_bytes).unwrap_or_default(),
            row.processes.to_string(),
            bytes(|rates| rates.read_bytes_per_s),
            bytes(|rates| rates.written_bytes_per_s),
            bytes(|rates| rates.received_bytes_per_s),
            bytes(|rates| rates.sent_bytes_per_s),
            (if row.frozen { "frozen" } else { "running" }).to_owned(),
        ]);
    }
    if again {
        output::line("")?;
    }
    table.print("There are no replicas that run.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellows_proto::types::Usage;

    fn reading(attempt: u32, at_ms: u64, counter: u64) -> StatsResponse {
        let usage = Usage { attempt, at_ms, cpu_us: counter, sent_bytes: counter, ..Usage::default() };
        let usages = vec![ReplicaUsage { usage: Some(usage), app: "web".to_owned(), node: "n".to_owned() }];
        StatsResponse { usages, unheard: Vec::new() }
    }

    #[test]
    fn rates_are_of_one_attempt_between_two_readings() {
        let before = reading(1, 1_000, 500_000);
        let rates = |now: StatsResponse| Document::of(&now, Some(&before)).replicas.remove(0).rates;
        let half_a_cpu = rates(reading(1, 3_000, 1_500_000)).expect("two readings");
        assert_eq!((half_a_cpu.interval_ms, half_a_cpu.cpu_milli, half_a_cpu.sent_bytes_per_s), (2_000, 500, 500_000));
        assert_eq!(rates(reading(2, 3_000, 10)), None, "another attempt");
        assert_eq!(rates(reading(1, 1_000, 500_000)), None, "no time");
        assert_eq!(rates(reading(1, 2_000, 3)).expect("counters that began anew").cpu_milli, 0);
    }
}
