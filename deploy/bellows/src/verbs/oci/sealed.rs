//! Containers must not be able to write this executable. A program in a container that has no user namespace of its own can reach the file of the process that
//! set it up, through `/proc/PID/exe` or by being started from it, and write to it once nobody executes it (CVE-2019-5736). So whoever sets containers up runs
//! from a read-only mount of the file that is attached nowhere; what is reached through it cannot be written by anybody.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use anyhow::Context;
use bellows_runtime::oci::{self, Sealed};
use rustix::fs::{StatVfsMountFlags, statvfs};

const OWN: &str = "/proc/self/exe";

/// Returns when this process runs from such a mount, or sets no container up. First of all: the less of the executable has been used, the sooner it is moved.
/// What it gives back must be closed before a program of a container runs.
pub fn ensure(words: &[OsString]) -> anyhow::Result<Option<Sealed>> {
    if !words.iter().any(|word| word == "create" || word == "run" || word == "exec") || is_sealed()? {
        return Ok(None);
    }
    // Not everybody may; to be executed again is the other way, and takes as long as it takes a process to begin.
    if let Ok(sealed) = oci::move_to_sealed()
        && is_sealed()?
    {
        return Ok(Some(sealed));
    }
    let sealed = oci::sealed_copy(Path::new(OWN)).context("mount this executable read-only")?;
    Err(execute(&sealed)).context("execute this executable from its read-only mount")
}

fn is_sealed() -> anyhow::Result<bool> {
    let known = statvfs(OWN).context("look at this executable's own mount")?;
    Ok(known.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// Returns only with an error.
fn execute(file: &OwnedFd) -> anyhow::Error {
    let word = |text: OsString| CString::new(text.into_vec()).unwrap_or_default();
    let args: Vec<CString> = std::env::args_os().map(word).collect();
    let mut env = Vec::new();
    for (mut name, value) in std::env::vars_os() {
        name.push("=");
        name.push(value);
        env.push(word(name));
    }
    match nix::unistd::fexecve(file.as_fd(), &args, &env) {
        Ok(never) => match never {},
        Err(error) => error.into(),
    }
}
