//! What a machine needs and this one may not have.

use std::fs;
use std::path::{Path, PathBuf};

/// Where `deploy/vm/kernel` puts Debian's cloud kernel and its modules: installing the package would offer it to the boot loader.
const OWN: &str = "/var/cache/bellows/vm/boot";

/// Names a kernel image, before anything else is looked at.
const VARIABLE: &str = "BELLOWS_VM_KERNEL";

/// Why there can be no machine, and how to get what is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// No qemu, or no kernel.
    #[error(
        "install qemu-system-x86 and linux-image-cloud-amd64 (`deploy/vm/kernel` fetches the latter without installing it)"
    )]
    Packages,
    /// No busybox that needs no library.
    #[error("install busybox-static")]
    Busybox,
    /// Another architecture.
    #[error("virtual machines are made on x86-64 only, for now")]
    Architecture,
}

/// The program that runs machines.
pub fn qemu() -> Result<PathBuf, Missing> {
    if !cfg!(target_arch = "x86_64") {
        return Err(Missing::Architecture);
    }
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/bin:/usr/local/bin";
    let programs = path.split(':').map(|folder| Path::new(folder).join("qemu-system-x86_64"));
    programs.into_iter().find(|program| program.is_file()).ok_or(Missing::Packages)
}

/// A kernel image: the one named by `BELLOWS_VM_KERNEL`, or the newest of Debian's cloud kernels, installed or fetched.
pub fn kernel() -> Result<PathBuf, Missing> {
    if let Some(named) = std::env::var_os(VARIABLE).map(PathBuf::from).filter(|path| path.is_file()) {
        return Ok(named);
    }
    ["/boot", OWN].into_iter().find_map(|folder| newest(Path::new(folder))).ok_or(Missing::Packages)
}

/// Names of kernels sort by version as long as their numbers have equally many digits: good enough to prefer one.
fn newest(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let cloud = names.filter(|name| name.starts_with("vmlinuz-") && name.contains("-cloud-"));
    cloud.max().map(|name| folder.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cloud_kernels_are_taken_and_the_newest_of_them() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(newest(folder.path()), None);
        for name in [
            "vmlinuz-6.1.0-56-amd64",
            "vmlinuz-6.1.0-47-cloud-amd64",
            "vmlinuz-6.1.0-56-cloud-amd64",
            "config-6.9-cloud-amd64",
        ] {
            fs::write(folder.path().join(name), "").expect("written");
        }
        assert_eq!(newest(folder.path()), Some(folder.path().join("vmlinuz-6.1.0-56-cloud-amd64")));
    }
}
