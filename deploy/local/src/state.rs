//! What the tool remembers between its verbs, in the cluster's folder: the plan, the faults, a token for agents that have not joined.
//! Nothing of it is needed to end a cluster.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::faults::Faults;
use crate::names::ClusterName;
use crate::plan::Plan;

const PLAN: &str = "cluster.json";
const FAULTS: &str = "faults.json";
const TOKEN: &str = "token";
const LOCK: &str = "lock";

/// What went wrong, with which file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder.
    #[error("cannot {operation} {path}")]
    File {
        /// What was tried.
        operation: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What it says is nothing that this program wrote.
    #[error("cannot understand {path}; `bellows local down` works without it")]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
}

impl Error {
    /// Is it only that there is no such file?
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::File { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { operation, path, source }
}

/// Makes a folder for root alone.
pub fn make_folder(path: &Path) -> Result<(), Error> {
    let make = || DirBuilder::new().recursive(true).mode(0o700).create(path);
    // Who removes the last cluster meanwhile takes the folder above with it, once.
    let again = |error: io::Error| if error.kind() == io::ErrorKind::NotFound { make() } else { Err(error) };
    make().or_else(again).map_err(failed("make the folder", path))
}

/// Removes the cluster's folder with all that is in it. Was it there?
pub fn remove(cluster: &ClusterName) -> Result<bool, Error> {
    let path = cluster.folder();
    let was_there = match fs::remove_dir_all(&path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(failed("remove", &path)(error)),
    };
    // The folder of all clusters goes with the last one, and is refused to who is not the last.
    let _ = path.parent().map(fs::remove_dir);
    Ok(was_there)
}

/// Keeps the plan.
pub fn keep_plan(plan: &Plan) -> Result<(), Error> {
    make_folder(&plan.name.folder())?;
    write(&plan.name.folder().join(PLAN), plan)
}

/// The plan of a cluster.
pub fn plan(cluster: &ClusterName) -> Result<Plan, Error> {
    read(&cluster.folder().join(PLAN))
}

/// What is wrong with its network; nothing, when nothing was said.
pub fn faults(cluster: &ClusterName) -> Result<Faults, Error> {
    match read(&cluster.folder().join(FAULTS)) {
        Err(error) if error.is_absence() => Ok(Faults::default()),
        read => read,
    }
}

/// Keeps the faults.
pub fn keep_faults(cluster: &ClusterName, faults: &Faults) -> Result<(), Error> {
    write(&cluster.folder().join(FAULTS), faults)
}

/// With what an agent joins, if any is kept.
pub fn token(cluster: &ClusterName) -> Result<Option<String>, Error> {
    match read(&cluster.folder().join(TOKEN)) {
        Err(error) if error.is_absence() => Ok(None),
        read => read.map(Some),
    }
}

/// Keeps the token.
pub fn keep_token(cluster: &ClusterName, token: &str) -> Result<(), Error> {
    write(&cluster.folder().join(TOKEN), &token)
}

/// Held while a verb changes something; the kernel lets go of it with its process.
pub fn lock(cluster: &ClusterName) -> Result<File, Error> {
    let path = cluster.folder().join(LOCK);
    let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = opened.map_err(failed("open", &path))?;
    file.lock().map_err(failed("lock", &path))?;
    Ok(file)
}

/// A log that a server writes to, at its end.
pub fn log(path: &Path) -> Result<File, Error> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(failed("open", path))
}

/// The last lines of a log, for somebody who wants to know why its server ended.
pub fn last_lines(path: &Path, count: usize) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = fs::read(path).map_err(failed("read", path))?;
    serde_json::from_slice(&text).map_err(|source| Error::Content { path: path.to_owned(), source })
}

/// Whole or not at all.
fn write(path: &Path, content: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_vec_pretty(content);
    let text = text.map_err(|source| Error::Content { path: path.to_owned(), source })?;
    let new = path.with_extension("new");
    let written = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new);
    let written = written.and_then(|mut file| file.write_all(&text)).and_then(|()| fs::rename(&new, path));
    written.map_err(failed("write", path))
}
