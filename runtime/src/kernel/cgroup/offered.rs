//! What the mounted controllers offer, found by trying. Nothing that is tried outlives its try.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{delegation, devices, tree, v1};
use crate::kernel::sys;

/// Whether groups can have limits of this controller, by its name in v2; in which shape.
pub fn controller(root: &Path, name: &str) -> io::Result<String> {
    if let Ok(offered) = fs::read_to_string(root.join("cgroup.controllers")) {
        let found = offered.split_whitespace().any(|one| one == name);
        return if found { Ok("v2".to_owned()) } else { Err(missing(format!("v2 offers {}", offered.trim()))) };
    }
    let name = if name == "io" { "blkio" } else { name };
    hierarchy(root, name)
}

/// Every group of v2 can be frozen.
pub fn freezer(root: &Path) -> io::Result<String> {
    if is_v2(root) { Ok("v2".to_owned()) } else { hierarchy(root, "freezer") }
}

/// The v1 controller, or the program that takes its place.
pub fn device_list(root: &Path) -> io::Result<String> {
    if is_v2(root) { devices::Program::load().map(|_| "BPF".to_owned()) } else { hierarchy(root, "devices") }
}

/// Creates a process in a group.
pub fn clone_into(root: &Path) -> io::Result<String> {
    let group = Trial::make(root)?;
    let dir = File::open(&group.0)?;
    sys::clone_and_end(0, Some(dir.as_fd())).map(|()| "yes".to_owned())
}

/// Ends everything in an empty group.
pub fn kill_file(root: &Path) -> io::Result<String> {
    let group = Trial::make(root)?;
    fs::write(group.0.join("cgroup.kill"), "1").map(|()| "yes".to_owned())
}

fn is_v2(root: &Path) -> bool {
    root.join("cgroup.controllers").exists()
}

fn hierarchy(root: &Path, name: &str) -> io::Result<String> {
    match v1::find(root, name).map_err(io::Error::other)? {
        Some(_) => Ok("v1".to_owned()),
        None => Err(missing(format!("not mounted below {}", root.display()))),
    }
}

fn missing(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, what)
}

/// A group of v2 that goes when dropped.
struct Trial(PathBuf);

impl Trial {
    fn make(root: &Path) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !is_v2(root) {
            return Err(missing("no cgroup v2 here".to_owned()));
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = delegation::top(root).join(format!("bellows-check-{}-{number}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Err(error) = tree::remove(&self.0) {
            tracing::warn!(error = &error as &dyn std::error::Error, "a cgroup that was made to try something is left");
        }
    }
}
