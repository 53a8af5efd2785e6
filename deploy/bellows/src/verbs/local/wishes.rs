//! Hosts as people write them: `big:cpu=4,memory=8GiB,zone=a`.

use std::collections::BTreeMap;

use bellows_local::Size;
use bellows_local::plan::Wish;

use crate::dev::capacity;
use crate::failure::Failure;
use crate::units;

/// How many agents there are when nobody says.
const AGENTS: u32 = 3;

/// One `--host`, with what was said of its size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    name: bellows_local::HostName,
    cpu_milli: Option<u64>,
    memory_bytes: Option<u64>,
    labels: BTreeMap<String, String>,
}

/// Parses one.
pub fn host(text: &str) -> Result<Asked, String> {
    let (name, rest) = text.split_once(':').unwrap_or((text, ""));
    let name = name.parse().map_err(|error: bellows_local::names::NameError| error.to_string())?;
    let mut asked = Asked { name, cpu_milli: None, memory_bytes: None, labels: BTreeMap::new() };
    for part in rest.split(',').filter(|part| !part.is_empty()) {
        let pair = part.split_once('=').filter(|(key, value)| !key.is_empty() && !value.is_empty());
        let (key, value) = pair.ok_or_else(|| format!("\"{part}\" is no KEY=VALUE, for example zone=a"))?;
        match key {
            "cpu" => asked.cpu_milli = Some(units::cpu_milli(value)?),
            "memory" => asked.memory_bytes = Some(units::bytes(value)?),
            _ => drop(asked.labels.insert(key.to_owned(), value.to_owned())),
        }
    }
    Ok(asked)
}

/// All agents: `--agents` of them called n1, n2, ..., and those of `--host`. What is not said of a size is this machine's share.
pub fn all(
    agents: Option<u32>,
    hosts: Vec<Asked>,
    cpu: Option<u64>,
    memory: Option<u64>,
) -> Result<Vec<Wish>, Failure> {
    let agents = agents.unwrap_or(if hosts.is_empty() { AGENTS } else { 0 });
    let unnamed = (1..=agents).map(|number| Asked {
        name: format!("n{number}").parse().expect("a letter and a number are a name"),
        cpu_milli: None,
        memory_bytes: None,
        labels: BTreeMap::new(),
    });
    let asked: Vec<Asked> = unnamed.chain(hosts).collect();
    let share = capacity(u32::try_from(asked.len()).unwrap_or(u32::MAX).max(1), cpu, memory)?;
    let size = |asked: &Asked| Size {
        cpu_milli: asked.cpu_milli.unwrap_or(share.cpu_milli),
        memory_bytes: asked.memory_bytes.unwrap_or(share.memory_bytes),
    };
    asked.into_iter().map(|asked| enough(Wish { size: size(&asked), name: asked.name, labels: asked.labels })).collect()
}

/// An agent itself needs some of it.
fn enough(wish: Wish) -> Result<Wish, Failure> {
    const LEAST_CPU_MILLI: u64 = 100;
    const LEAST_BYTES: u64 = 64 << 20;
    if wish.size.cpu_milli >= LEAST_CPU_MILLI && wish.size.memory_bytes >= LEAST_BYTES {
        return Ok(wish);
    }
    let (cpu, memory) = (units::show_cpu(wish.size.cpu_milli), units::show_bytes(wish.size.memory_bytes));
    Err(Failure::usage(format!("host {} of {cpu} CPU and {memory} is too small", wish.name)).mend(format!(
        "the least is {} CPU and {}: the agent is in it, too",
        units::show_cpu(LEAST_CPU_MILLI),
        units::show_bytes(LEAST_BYTES)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_size_and_labels() {
        let asked = host("big:cpu=4,memory=8GiB,zone=a,disk=fast").expect("a good host");
        assert_eq!((asked.cpu_milli, asked.memory_bytes), (Some(4_000), Some(8 << 30)));
        assert_eq!(
            asked.labels.into_iter().collect::<Vec<_>>(),
            [("disk".to_owned(), "fast".to_owned()), ("zone".to_owned(), "a".to_owned())]
        );
        for bad in ["Big", "n1:cpu", "n1:cpu=much", "n1:memory=-1", "wire", "n1:=a"] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hosts_come_after_those_without_names() {
        let names = |agents, hosts: &[&str]| -> Vec<String> {
            let hosts = hosts.iter().map(|text| host(text).expect("a good host")).collect();
            let all = all(agents, hosts, Some(1_000), Some(1 << 30)).expect("they fit");
            all.into_iter().map(|wish| wish.name.to_string()).collect()
        };
        assert_eq!(names(None, &[]), ["n1", "n2", "n3"]);
        assert_eq!(names(None, &["big"]), ["big"]);
        assert_eq!(names(Some(1), &["big"]), ["n1", "big"]);
    }

    #[test]
    fn too_small_is_said() {
        let said = all(Some(1), Vec::new(), Some(50), Some(1 << 30)).expect_err("it is too small").to_string();
        assert!(said.contains("n1 of 50m CPU") && said.contains("100m"), "{said}");
    }
}
