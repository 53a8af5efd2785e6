//! Settings of the calling thread's network namespace, written by way of a `/proc` of our own.
//!
//! The kernel keeps the names that were looked up below `/proc/sys/net`, those of all namespaces in one chain for each `/proc` that is mounted: with a
//! thousand namespaces every look-up goes past a thousand. So this `/proc`, attached nowhere, is made anew from time to time.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{CWD, Dir, Mode, OFlags, openat};
use rustix::mount::MountAttrFlags;

use crate::kernel::mount;

/// A new one is made after so many look-ups: some sixty namespaces.
const LOOKUPS: u32 = 300;

/// No setting is longer.
const LONGEST: u64 = 4096;

/// What a new namespace has from the machine's first one, and what a kernel has that nobody has told anything: what an app sees, and how its packets fare,
/// shall not depend on its node's administrator. Everything else begins with the kernel's own, or is the whole machine's (`core/rmem_max` and its like,
/// what is computed from the size of memory) or its administrator's to allow (TCP's congestion control, of which other namespaces may have no other).
const INHERITED: [(&str, &str); 2] =
    [("ipv4/tcp_rmem", "4096\t131072\t33554432"), ("ipv4/tcp_wmem", "4096\t16384\t4194304")];
/// The same of links: what is not 0.
const LINKS: [(&str, &str); 7] = [
    ("accept_redirects", "1"),
    ("arp_evict_nocarrier", "1"),
    ("igmpv2_unsolicited_report_interval", "10000"),
    ("igmpv3_unsolicited_report_interval", "1000"),
    ("secure_redirects", "1"),
    ("send_redirects", "1"),
    ("shared_media", "1"),
];
/// Of all links together, of those that are made later, and of the one that is there from the beginning.
const KINDS: [&str; 3] = ["all", "default", "lo"];

/// The way to the settings.
#[derive(Debug, Default)]
pub struct Sysctls(Mutex<Option<View>>);

#[derive(Debug)]
struct View {
    proc: Arc<OwnedFd>,
    left: u32,
    /// Where this machine's first namespace differs: name and what it should be.
    strange: Option<Arc<[(String, &'static str)]>>,
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

    /// Sets what this namespace has from the machine's first one to what it always is. What that is, is looked at in one namespace for some sixty.
    pub fn level(&self) -> io::Result<()> {
        let strange = self.with_view(|view| {
            let found = match view.strange.take() {
                Some(known) => known,
                None => strange(&view.proc)?,
            };
            Ok::<_, io::Error>(Arc::clone(view.strange.insert(found)))
        })??;
        for (name, value) in &*strange {
            self.set_if_there(name, value)?;
        }
        Ok(())
    }

    fn view(&self) -> io::Result<Arc<OwnedFd>> {
        self.with_view(|view| {
            view.left = view.left.saturating_sub(1);
            Arc::clone(&view.proc)
        })
    }

    fn with_view<T>(&self, look: impl FnOnce(&mut View) -> T) -> io::Result<T> {
        let mut view = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = view.take().filter(|view| view.left > 0);
        let mut current = kept.map_or_else(View::open, Ok)?;
        let seen = look(&mut current);
        *view = Some(current);
        Ok(seen)
    }
}

/// What this namespace, which nobody has told anything, has otherwise than it should be.
fn strange(proc: &OwnedFd) -> io::Result<Arc<[(String, &'static str)]>> {
    let mut all: Vec<_> = INHERITED.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    for kind in KINDS {
        let names = names_below(proc, kind)?;
        all.extend(names.into_iter().map(|name| (format!("ipv4/conf/{kind}/{name}"), of_links(kind, &name))));
    }
    let mut strange = Vec::new();
    for (name, value) in all {
        if read(proc, &name)?.is_some_and(|found| found.trim() != value) {
            strange.push((name, value));
        }
    }
    Ok(strange.into())
}

/// Nothing where there is no such setting.
fn read(proc: &OwnedFd, name: &str) -> io::Result<Option<String>> {
    let opened = openat(proc, format!("sys/net/{name}"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    match opened {
        Err(rustix::io::Errno::NOENT) => Ok(None),
        opened => {
            let mut text = String::new();
            File::from(opened?).take(LONGEST).read_to_string(&mut text).map(|_| Some(text))
        }
    }
}

/// Whatever this kernel has of the kind; `mc_forwarding` is nobody's to set.
fn names_below(proc: &OwnedFd, kind: &str) -> io::Result<Vec<String>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut names = Vec::new();
    for entry in Dir::new(openat(proc, format!("sys/net/ipv4/conf/{kind}"), flags, Mode::empty())?)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && name != "mc_forwarding" {
            names.push(name);
        }
    }
    Ok(names)
}

fn of_links(kind: &str, name: &str) -> &'static str {
    match LINKS.into_iter().find(|(known, _)| *known == name) {
        Some((_, value)) => value,
        None => match (kind, name) {
            ("default" | "lo", "accept_source_route") | ("lo", "disable_policy" | "disable_xfrm") => "1",
            _ => "0",
        },
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
        Ok(Self { proc: Arc::new(proc), left: LOOKUPS, strange: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a namespace of its own: what `ip netns add` makes has it from the first one as well.
    #[test]
    fn what_differs_from_the_kernels_own_is_found_and_set() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root can make networks");
            return;
        }
        let apart = std::thread::spawn(|| {
            // SAFETY: of this thread alone.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.expect("a network");
            let sysctls = Sysctls::default();
            sysctls.level().expect("levelled");
            let changed = ["ipv4/conf/default/rp_filter", "ipv4/conf/all/shared_media", "ipv4/tcp_wmem"];
            for (name, value) in changed.into_iter().zip(["2", "0", "4096 16384 70000"]) {
                sysctls.set(name, value).expect("set");
            }
            let found = strange(&sysctls.view().expect("a /proc")).expect("read");
            let mut names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
            names.sort_unstable();
            assert_eq!(names, [changed[1], changed[0], "ipv4/conf/lo/rp_filter", changed[2]]);
            let again = Sysctls::default();
            again.level().expect("levelled");
            assert!(strange(&again.view().expect("a /proc")).expect("read").is_empty());
        });
        apart.join().expect("done");
    }

    #[test]
    fn what_is_not_there_is_told_apart() {
        let sysctls = Sysctls::default();
        assert!(!sysctls.set_if_there("ipv4/no_such_setting", "1").expect("there is a /proc"));
        assert_eq!(sysctls.set("ipv4/no_such_setting", "1").map_err(|e| e.kind()), Err(io::ErrorKind::NotFound));
    }
}
