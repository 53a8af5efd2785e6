//! What `dev` needs of the machine, asked before anything is made.

use std::path::Path;

use bellows_runtime::handle::{Capacity, Feature};

use crate::failure::Failure;
use crate::units::show_bytes;

/// Share of the machine's memory that the nodes get together: the rest is for the controller, the agents and everybody else.
const MEMORY_SHARE_PERCENT: u64 = 80;

/// Less than this holds no useful copies.
const LEAST_NODE_BYTES: u64 = 64 << 20;

/// Containers are made of things that only root may make.
pub fn root(verb: &str) -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::failed(format!("{verb} makes namespaces, cgroups and links, and for that it must run as root"))
        .mend("put sudo before it"))
}

/// Fails with every required feature that the kernel lacks, and how to get each.
pub fn kernel(features: &[Feature]) -> Result<(), Failure> {
    let lacking = features.iter().filter(|feature| feature.required);
    let lacking: Vec<_> = lacking.filter_map(|feature| Some((feature, feature.found.as_ref().err()?))).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let said: Vec<_> =
        lacking.iter().map(|(f, why)| format!("{} ({why}; needed for {})", f.feature, f.needed_for)).collect();
    let failure = Failure::failed(format!("this server cannot run replicas: it lacks {}", said.join(", ")));
    let told = lacking.iter().fold(failure, |told, (f, _)| told.mend(format!("{}: {}", f.feature, f.mend)));
    Err(told.mend("`bellows agent --check` lists all that is looked for"))
}

/// What each node gets. CPUs are lent to every node in full, since the kernel divides them well among who really runs; memory
/// cannot be lent twice, so it is divided.
pub fn capacity(nodes: u32, cpu_milli: Option<u64>, memory_bytes: Option<u64>) -> Result<Capacity, Failure> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let memory_bytes = match memory_bytes {
        Some(bytes) => bytes,
        None => machine_memory_bytes(Path::new("/proc/meminfo"))? * MEMORY_SHARE_PERCENT / 100 / u64::from(nodes),
    };
    if memory_bytes < LEAST_NODE_BYTES {
        let (given, least) = (show_bytes(memory_bytes), show_bytes(LEAST_NODE_BYTES));
        return Err(Failure::usage(format!(
            "{given} of memory for each of {nodes} nodes is too little, the least is {least}"
        ))
        .mend("ask for fewer nodes, or give each more with --memory"));
    }
    Ok(Capacity { cpu_milli: cpu_milli.unwrap_or(cpus * 1000), memory_bytes })
}

fn machine_memory_bytes(meminfo: &Path) -> Result<u64, Failure> {
    let unreadable =
        |why: String| Failure::failed(format!("reading the machine's memory from {}: {why}", meminfo.display()));
    let text = std::fs::read_to_string(meminfo).map_err(|error| unreadable(error.to_string()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib << 10).ok_or_else(|| unreadable("no line `MemTotal: N kB`".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feature(name: &str, found: bool, required: bool) -> Feature {
        Feature {
            feature: name.to_owned(),
            found: if found { Ok("here".to_owned()) } else { Err("ENOSYS".to_owned()) },
            needed_for: "everything".to_owned(),
            without: "nothing".to_owned(),
            mend: format!("modprobe {name}"),
            required,
        }
    }

    #[test]
    fn only_what_is_required_is_demanded() {
        let fine = [feature("overlay", true, true), feature("bpf", false, false)];
        kernel(&fine).expect("nothing required is missing");
        let said = kernel(&[feature("overlay", false, true), feature("veth", false, true)])
            .expect_err("both are missing")
            .to_string();
        assert!(said.contains("overlay (ENOSYS; needed for everything), veth"), "{said}");
    }

    #[test]
    fn memory_is_divided_and_cpus_are_lent() {
        let of = |nodes| capacity(nodes, Some(500), None).expect("this machine has memory");
        assert!(of(3).memory_bytes <= of(1).memory_bytes / 3 && of(1).cpu_milli == 500);
        assert!(capacity(2, None, Some(1 << 20)).expect_err("too little").to_string().contains("--memory"));
    }
}
