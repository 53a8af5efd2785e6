//! The shape of the house: lints in every crate, nothing unexpected at the top.

/// What stands at the top, and nothing else. Names with a leading dot are tools' (.git, .ci, ...).
const ENTRIES: [&str; 8] =
    ["Cargo.toml", "README.md", "agent", "controller", "deploy", "proto", "runtime", "simulations"];
const TOOL_FILES: [&str; 5] = ["Cargo.lock", "LICENSE", "clippy.toml", "rustfmt.toml", "target"];

/// `forbid` cannot be lifted in one crate, so the only crate with `unsafe` repeats the other lints instead of inheriting them.
const OWN_LINTS: &str = "bellows-runtime";
const REPEATED: [&str; 5] = [
    "unwrap_used = \"deny\"",
    "todo = \"deny\"",
    "unimplemented = \"deny\"",
    "dbg_macro = \"deny\"",
    "undocumented_unsafe_blocks = \"deny\"",
];

/// Crates, given as name and manifest, that escape the workspace's lints.
pub fn lint_violations(manifests: &[(String, String)]) -> Vec<String> {
    manifests.iter().flat_map(|(name, manifest)| crate_lint_violations(name, manifest)).collect()
}

fn crate_lint_violations(name: &str, manifest: &str) -> Vec<String> {
    let section: String = lints_section(manifest);
    if section.lines().any(|line| line == "workspace = true") {
        return Vec::new();
    }
    if name != OWN_LINTS {
        return vec![format!("{name} does not inherit the workspace's lints")];
    }
    let missing = REPEATED.iter().filter(|lint| !section.lines().any(|line| line == **lint));
    missing.map(|lint| format!("{name} has lints of its own and lacks {lint}")).collect()
}

/// The lines of `[lints]` and `[lints.*]`.
fn lints_section(manifest: &str) -> String {
    let mut within = false;
    let mut section = String::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            within = line == "[lints]" || line.starts_with("[lints.");
        } else if within {
            section.push_str(line);
            section.push('\n');
        }
    }
    section
}

/// Names at the top that do not belong there, and those that are missing.
pub fn entry_violations(names: &[String]) -> Vec<String> {
    let known = |name: &&String| {
        name.starts_with('.') || ENTRIES.contains(&name.as_str()) || TOOL_FILES.contains(&name.as_str())
    };
    let strange = names.iter().filter(|name| !known(name)).map(|name| format!("{name} does not belong at the top"));
    let missing = ENTRIES.iter().filter(|entry| !names.iter().any(|name| name == *entry));
    strange.chain(missing.map(|entry| format!("{entry} is missing"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lints(name: &str, manifest: &str) -> Vec<String> {
        lint_violations(&[(name.to_owned(), manifest.to_owned())])
    }

    #[test]
    fn a_planted_crate_without_lints_is_found() {
        assert_eq!(lints("bellows-core", "[lints]\nworkspace = true\n"), Vec::<String>::new());
        let other_section =
            "[package]\nname = \"x\"\n[lints.clippy]\ntodo = \"allow\"\n[dependencies.serde]\nworkspace = true\n";
        assert_eq!(lints("bellows-core", other_section), ["bellows-core does not inherit the workspace's lints"]);
    }

    #[test]
    fn a_planted_gap_in_own_lints_is_found() {
        let complete = format!("[lints.clippy]\n{}\n", REPEATED.join("\n"));
        assert_eq!(lints(OWN_LINTS, &complete), Vec::<String>::new());
        let gap = complete.replace("todo = \"deny\"\n", "");
        assert_eq!(lints(OWN_LINTS, &gap), ["bellows-runtime has lints of its own and lacks todo = \"deny\""]);
    }

    #[test]
    fn planted_entries_and_gaps_at_the_top_are_found() {
        let mut names: Vec<_> = ENTRIES.iter().chain(&[".git", "Cargo.lock"]).map(|n| (*n).to_owned()).collect();
        assert_eq!(entry_violations(&names), Vec::<String>::new());
        names.push("scripts".to_owned());
        names.retain(|name| name != "proto");
        assert_eq!(entry_violations(&names), ["scripts does not belong at the top", "proto is missing"]);
    }
}
