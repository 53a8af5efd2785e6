//! Settings of the calling thread's network namespace, written by way of a `/proc` of our own.
//!
//! The kernel keeps the names that were looked up below `/proc/sys/net`, those of all namespaces in one chain for each `/proc` that is mounted: with a
//! thousand namespaces every look-up goes past a thousand. So this `/proc`, attached nowhere, is made anew from time to time.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::MountAttrFlags;

use crate::kernel::mount;

/// A new one is made after so many look-ups: some sixty namespaces.
const LOOKUPS: u32 = 300;

/// The way to the settings.
#[derive(Debug, Default)]
pub struct Sysctls(Mutex<Option<View>>);

#[derive(Debug)]
struct View {
    proc: Arc<OwnedFd>,
    left: u32,
}

impl Sysctls {
    /// Writes `value` to `/proc/sys/net/NAME`.
    pub fn set(&self, name: &str, value: &str) -> io::Result<()> {
        let path = format!("sys/net/{name}");
        let file = openat(&*self.view()?, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        File::from(file).write_all(value.as_bytes())
    }

    /// As [`Self::set`]; false where there is no such setting.
    pub fn set_if_there(&self, name: &str, value: &str) -> io::Result<bool> {
        match self.set(name, value) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            other => other.map(|()| true),
        }
    }

    fn view(&self) -> io::Result<Arc<OwnedFd>> {
        let mut view = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = view.take().filter(|view| view.left > 0);
        let mut current = kept.map_or_else(View::open, Ok)?;
        current.left -= 1;
        let proc = Arc::clone(&current.proc);
        *view = Some(current);
        Ok(proc)
    }
}

impl View {
    /// Where no other can be made, the one that is mounted.
    fn open() -> io::Result<Self> {
        let safe =
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let own = mount::detached("proc", &[], safe);
        let proc = own.or_else(|_| openat(CWD, "/proc", flags, Mode::empty()))?;
        Ok(Self { proc: Arc::new(proc), left: LOOKUPS })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_told_apart() {
        let sysctls = Sysctls::default();
        assert!(!sysctls.set_if_there("ipv4/no_such_setting", "1").expect("there is a /proc"));
        assert_eq!(sysctls.set("ipv4/no_such_setting", "1").map_err(|e| e.kind()), Err(io::ErrorKind::NotFound));
    }
}
