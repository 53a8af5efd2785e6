//! What the runtime's verbs print, in the forms that their callers parse.

use std::io::Write;

use bellows_runtime::oci::verbs::Listed;
use serde_json::{Value, json};

use super::arguments::TableFormat;

/// As `state` shows it: the specification's members and those that callers have come to expect.
pub fn state(container: &Listed) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{:#}", whole(container)?)?;
    Ok(())
}

fn whole(container: &Listed) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(container)?;
    value["created"] = json!(created(container));
    Ok(value)
}

fn created(container: &Listed) -> String {
    let ms = i64::try_from(container.created_unix_ms).unwrap_or_default();
    jiff::Timestamp::from_millisecond(ms).unwrap_or_default().to_string()
}

/// All of them.
pub fn list(containers: &[Listed], format: TableFormat, quiet: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if quiet {
        for container in containers {
            writeln!(out, "{}", container.id)?;
        }
        return Ok(());
    }
    if format == TableFormat::Json {
        let all = containers.iter().map(whole).collect::<anyhow::Result<Vec<_>>>()?;
        writeln!(out, "{}", Value::Array(all))?;
        return Ok(());
    }
    let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED"].map(str::to_owned).to_vec();
    let row = |c: &Listed| {
        vec![c.id.clone(), c.pid.to_string(), c.status.clone(), c.bundle.display().to_string(), created(c)]
    };
    let rows: Vec<Vec<String>> = [header].into_iter().chain(containers.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    for row in &rows {
        let cells: Vec<String> = row.iter().enumerate().map(|(n, cell)| format!("{cell:<w$}", w = width(n))).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

/// A container's processes: their numbers, or what ps(1) tells of them.
pub fn processes(pids: &[u32], format: TableFormat, words: &[String]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if format == TableFormat::Json {
        writeln!(out, "{}", json!(pids))?;
        return Ok(());
    }
    let default = ["-ef".to_owned()];
    let asked = if words.is_empty() { &default[..] } else { words };
    let told = std::process::Command::new("ps").args(asked).output()?;
    anyhow::ensure!(told.status.success(), "ps: {}", String::from_utf8_lossy(&told.stderr).trim());
    let text = String::from_utf8_lossy(&told.stdout);
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let column = header.split_whitespace().position(|name| name == "PID");
    let column = column.ok_or_else(|| anyhow::anyhow!("ps prints no column PID with these arguments"))?;
    writeln!(out, "{header}")?;
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|word| word.parse().ok());
        if pid.is_some_and(|pid: u32| pids.contains(&pid)) {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}
