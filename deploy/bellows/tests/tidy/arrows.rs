//! Who may depend on whom. Dev-dependencies count too: a test that needs a forbidden crate stands in the wrong room.

use cargo_metadata::Package;

/// Crates that decide and therefore can do nothing.
pub const PURE: [&str; 3] = ["bellows-core", "bellows-member", "bellows-agent-core"];

/// Every crate of ours and those of ours that it may name.
const ALLOWED: [(&str, &[&str]); 11] = [
    ("bellows-proto", &[]),
    ("bellows-core", &[]),
    ("bellows-member", &[]),
    ("bellows-agent-core", &[]),
    ("bellows-runtime", &[]),
    ("bellows-controller", &["bellows-proto", "bellows-core", "bellows-member"]),
    ("bellows-agent", &["bellows-proto", "bellows-agent-core", "bellows-runtime"]),
    ("bellows-vm", &[]),
    ("bellows-sim", &["bellows-core", "bellows-member", "bellows-agent-core"]),
    ("bellows-local", &[]),
    (
        "bellows",
        &[
            "bellows-proto",
            "bellows-core",
            "bellows-member",
            "bellows-agent-core",
            "bellows-runtime",
            "bellows-controller",
            "bellows-agent",
            "bellows-sim",
            "bellows-local",
            "bellows-vm",
        ],
    ),
];

/// What pure crates may use of others in production: data, errors and raft's own state machine. (raft draws its election timeouts from the
/// thread's randomness; the member overrides each draw, see its docs.)
const PURE_MAY_USE: [&str; 5] = ["serde", "thiserror", "raft", "protobuf", "slog"];

/// One crate as the rule sees it.
pub struct Crate {
    name: String,
    dependencies: Vec<(String, bool)>,
}

impl Crate {
    /// Name and dependencies of a package; each with whether only tests need it.
    pub fn of(package: &Package) -> Self {
        let kind = |d: &cargo_metadata::Dependency| d.kind == cargo_metadata::DependencyKind::Development;
        let dependencies = package.dependencies.iter().map(|d| (d.name.clone(), kind(d))).collect();
        Self { name: package.name.to_string(), dependencies }
    }
}

/// Every dependency that goes against the arrows, and every crate that has no place in them.
pub fn violations(packages: &[Crate]) -> Vec<String> {
    let ours: Vec<&str> = packages.iter().map(|p| p.name.as_str()).collect();
    packages.iter().flat_map(|package| crate_violations(package, &ours)).collect()
}

fn crate_violations(package: &Crate, ours: &[&str]) -> Vec<String> {
    let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == package.name) else {
        return vec![format!("{} has no place in the house: add it to the design and to ALLOWED", package.name)];
    };
    let names = package.dependencies.iter().map(|(name, _)| name.as_str());
    let against = names.filter(|name| ours.contains(name) && !allowed.contains(name));
    let mut found: Vec<_> = against.map(|name| format!("{} must not depend on {name}", package.name)).collect();
    if PURE.contains(&package.name.as_str()) {
        let production = package.dependencies.iter().filter(|(_, tests_only)| !tests_only);
        let foreign =
            production.filter(|(name, _)| !PURE_MAY_USE.contains(&name.as_str()) && !ours.contains(&name.as_str()));
        found.extend(foreign.map(|(name, _)| format!("{} is pure and must not depend on {name}", package.name)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[(&str, bool)]) -> Crate {
        let dependencies = dependencies.iter().map(|(name, tests_only)| ((*name).to_owned(), *tests_only)).collect();
        Crate { name: name.to_owned(), dependencies }
    }

    #[test]
    fn arrows_that_exist_pass() {
        let packages = [
            package("bellows-core", &[("serde", false), ("proptest", true)]),
            package("bellows-controller", &[("bellows-core", false)]),
        ];
        assert_eq!(violations(&packages), Vec::<String>::new());
    }

    #[test]
    fn a_planted_arrow_is_found_also_among_dev_dependencies() {
        let packages = [package("bellows-controller", &[]), package("bellows-agent", &[("bellows-controller", true)])];
        assert_eq!(violations(&packages), ["bellows-agent must not depend on bellows-controller"]);
    }

    #[test]
    fn a_planted_runtime_below_a_pure_crate_is_found() {
        let packages = [package("bellows-core", &[("tokio", false), ("tokio-test", true)])];
        assert_eq!(violations(&packages), ["bellows-core is pure and must not depend on tokio"]);
    }

    #[test]
    fn a_planted_crate_without_a_place_is_found() {
        assert_eq!(violations(&[package("bellows-common", &[])]).len(), 1);
    }
}
