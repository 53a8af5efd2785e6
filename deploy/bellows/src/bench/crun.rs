//! The same payload by crun, where it is installed: `crun run` of a bundle, as `crun spec` writes it; and by `bellows oci run` of the same bundle, in turns. It has
//! no user namespace, no network of its own and no overlay, and pays for a process of its own per container, as everybody who uses it does.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use crate::failure::Failure;

/// crun refuses hosts with controllers in v1 and an empty v2 tree beside them: this loop hides the latter from itself. One shell for all
/// runs, so that what it costs is shared by them.
const LOOP: &str = "if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi
    i=0; while [ $i -lt $RUNS ]; do \"$@\" run -b \"$BUNDLE\" bellows-bench-$$-$i || exit 1; i=$((i+1)); done";

/// So many of the one at most, then as many of the other: what else happens on the machine happens to both.
const TURN: u32 = 50;

/// Milliseconds of one, the mean of several.
#[derive(Debug)]
pub struct Means {
    /// By crun.
    pub crun: f64,
    /// By `bellows oci run` of the same bundle, in the same way.
    pub ours: Result<f64, Failure>,
}

/// Both, of `runs` each, a last turn made full; nothing where there is no crun.
pub fn means(tree: &Path, args: &[&str], runs: u32) -> Result<Option<Means>, Failure> {
    if Command::new("crun").arg("--version").output().is_err() {
        return Ok(None);
    }
    let bundle = bundle(tree, args).map_err(|error| Failure::failed(format!("making a bundle: {error}")))?;
    let own = installed(bundle.path());
    let own = own.map_err(|error| Failure::failed(format!("copying this program's own file: {error}")))?;
    let (crun, ours): ([OsString; 1], [OsString; 2]) = (["crun".into()], [own.into(), "oci".into()]);
    let turn = runs.clamp(1, TURN);
    let turns = runs.div_ceil(turn).max(1);
    let mut means = Means { crun: 0.0, ours: Ok(0.0) };
    for _ in 0..turns {
        means.crun += mean_ms(&crun, bundle.path(), turn)? / f64::from(turns);
        if let Ok(sum) = means.ours {
            means.ours = mean_ms(&ours, bundle.path(), turn).map(|mean| sum + mean / f64::from(turns));
        }
    }
    Ok(Some(means))
}

fn mean_ms(runtime: &[OsString], bundle: &Path, runs: u32) -> Result<f64, Failure> {
    let failed = |what: String| Failure::failed(format!("measuring {runtime:?}: {what}"));
    let began = Instant::now();
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", LOOP, "sh"])
        .args(runtime)
        .env("RUNS", runs.to_string())
        .env("BUNDLE", bundle)
        .output()
        .map_err(|error| failed(error.to_string()))?;
    let ms = began.elapsed().as_secs_f64() * 1e3 / f64::from(runs);
    match output.status.success() {
        true => Ok(ms),
        false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// A copy, as of both only the other is installed: what a linker has just written lies in memory page by page, and takes longer to be mapped than a file that
/// was copied or read from the disk, until the machine is started anew.
fn installed(folder: &Path) -> std::io::Result<PathBuf> {
    let copy = folder.join("bellows");
    fs::copy(std::env::current_exe()?, &copy)?;
    Ok(copy)
}

fn bundle(tree: &Path, args: &[&str]) -> std::io::Result<tempfile::TempDir> {
    let bundle = tempfile::Builder::new().prefix("bellows-crun-").tempdir()?;
    let made = Command::new("crun").arg("spec").current_dir(bundle.path()).output()?;
    if !made.status.success() {
        return Err(std::io::Error::other(String::from_utf8_lossy(&made.stderr).into_owned()));
    }
    let path = bundle.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path)?)?;
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(args);
    config["root"]["path"] = json!(root(tree, bundle.path())?);
    fs::write(path, serde_json::to_vec(&config)?)?;
    Ok(bundle)
}

/// A copy of the tree with the directories that crun mounts on: ours needs none in the image.
fn root(tree: &Path, bundle: &Path) -> std::io::Result<String> {
    let root = bundle.join("rootfs");
    let copied = Command::new("cp").arg("-a").arg(tree).arg(&root).output()?;
    if !copied.status.success() {
        return Err(std::io::Error::other(String::from_utf8_lossy(&copied.stderr).into_owned()));
    }
    for name in ["proc", "sys", "dev"] {
        fs::create_dir_all(root.join(name))?;
    }
    Ok(root.display().to_string())
}
