//! Rules that matter are machines: what the house demands of its own source, checked on every run of the tests.
//!
//! Each rule is a function from data to violations, so that each has a self-test with a planted violation beside it:
//! `arrows` (who may depend on whom), `purity` (what decisions must not name), `sizes` (functions and files), `house` (lints, top-level entries).
//! `source` finds the files and tells production lines from tests.

mod arrows;
mod house;
mod purity;
mod sizes;
mod source;

use std::path::{Path, PathBuf};

use cargo_metadata::{Metadata, MetadataCommand, Package};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace holds this crate")
}

fn workspace() -> Metadata {
    let manifest = root().join("Cargo.toml");
    MetadataCommand::new().manifest_path(manifest).no_deps().exec().expect("cargo metadata reads the workspace")
}

fn folder(package: &Package) -> &Path {
    package.manifest_path.parent().expect("a manifest lies in a folder").as_std_path()
}

/// Fails with every violation on a line of its own.
fn demand(rule: &str, violations: &[String]) {
    assert!(violations.is_empty(), "{rule}:\n  {}", violations.join("\n  "));
}

#[test]
fn crates_depend_only_along_the_arrows() {
    let metadata = workspace();
    let packages: Vec<_> = metadata.packages.iter().map(arrows::Crate::of).collect();
    demand("arrows between crates (tests/tidy/arrows.rs holds the allowed ones)", &arrows::violations(&packages));
}

#[test]
fn pure_crates_name_nothing_impure() {
    let metadata = workspace();
    let pure = metadata.packages.iter().filter(|p| arrows::PURE.contains(&p.name.as_str()));
    let files: Vec<_> = pure.flat_map(|p| source::files(&folder(p).join("src"))).collect();
    assert!(!files.is_empty(), "the pure crates have source files");
    let violations: Vec<_> = files.iter().flat_map(|f| purity::violations(&f.name(&root()), f)).collect();
    demand("decisions take time, chance and the world as arguments", &violations);
}

#[test]
fn functions_and_files_are_small() {
    let metadata = workspace();
    let files: Vec<_> = metadata.packages.iter().flat_map(|p| source::files(&folder(p).join("src"))).collect();
    let violations: Vec<_> = files.iter().flat_map(|f| sizes::violations(&f.name(&root()), f)).collect();
    demand("sizes: split what is too long", &violations);
}

#[test]
fn every_crate_has_the_workspace_lints() {
    let metadata = workspace();
    let read = |p: &Package| std::fs::read_to_string(&p.manifest_path).expect("the manifest was just read by cargo");
    let manifests: Vec<_> = metadata.packages.iter().map(|p| (p.name.to_string(), read(p))).collect();
    demand("lints: add `[lints] workspace = true`", &house::lint_violations(&manifests));
}

#[test]
fn the_top_level_holds_the_house_and_nothing_else() {
    let entries = std::fs::read_dir(root()).expect("the workspace is a folder");
    let names = entries.map(|e| e.expect("a readable entry").file_name().to_string_lossy().into_owned());
    demand("top-level entries", &house::entry_violations(&names.collect::<Vec<_>>()));
}
