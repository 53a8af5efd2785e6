//! For the escape suite alone: launchers whose containers lack one protection each, to show that it is this one which stands against a try.
//!
//! Nothing in a specification or a request leads here: only a program that calls [`weakened_launcher_main`] is such a launcher, and no other crate does.
//! The PID namespace cannot be left out: the init ends everything it sees.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::str::FromStr;

use crate::kernel::capability;
use crate::kernel::cgroup;
use crate::steps::{ChildStep, Plan, ProgramStep};

/// A protection that is left out.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weaken {
    /// No system call filter.
    Filter,
    /// Programs may gain privileges by being executed.
    NoNewPrivileges,
    /// All capabilities.
    Capabilities,
    /// Root inside is root outside.
    UserNamespace,
    /// The network of the host.
    NetworkNamespace,
    /// System V objects of the host.
    IpcNamespace,
    /// The names of its cgroups as the host sees them.
    CgroupNamespace,
    /// Nothing hidden.
    Hidden,
    /// Nothing read-only.
    ReadOnly,
    /// The root is changed as `chroot` does.
    Pivot,
    /// A descriptor of the launcher stays open.
    Descriptors,
    /// No OOM score of its own, no resource limits.
    Limits,
    /// Every device may be used.
    Devices,
    /// As many terminals as the machine has.
    Terminals,
    /// What launchers inherit stays as it was inherited.
    Level,
    /// What is mounted goes where the image's own entries lead, as no directories are laid over them.
    Places,
}

const NAMES: [(&str, Weaken); 16] = [
    ("filter", Weaken::Filter),
    ("no_new_privileges", Weaken::NoNewPrivileges),
    ("capabilities", Weaken::Capabilities),
    ("user_namespace", Weaken::UserNamespace),
    ("network_namespace", Weaken::NetworkNamespace),
    ("ipc_namespace", Weaken::IpcNamespace),
    ("cgroup_namespace", Weaken::CgroupNamespace),
    ("hidden", Weaken::Hidden),
    ("read_only", Weaken::ReadOnly),
    ("pivot", Weaken::Pivot),
    ("descriptors", Weaken::Descriptors),
    ("limits", Weaken::Limits),
    ("devices", Weaken::Devices),
    ("terminals", Weaken::Terminals),
    ("level", Weaken::Level),
    ("places", Weaken::Places),
];

impl Weaken {
    /// As [`Weaken::from_str`] reads it.
    pub fn name(self) -> &'static str {
        NAMES.into_iter().find(|(_, weaken)| *weaken == self).map_or("", |(name, _)| name)
    }
}

impl FromStr for Weaken {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = NAMES.into_iter().find(|(name, _)| *name == text);
        found.map(|(_, weaken)| weaken).ok_or_else(|| format!("no protection is called {text:?}"))
    }
}

/// As [`super::launcher_main`], without these.
#[doc(hidden)]
pub fn weakened_launcher_main(without: Vec<Weaken>) -> i32 {
    super::server::main(without)
}

/// The plan without them; namespaces are the business of whoever clones.
pub(super) fn apply(without: &[Weaken], leak: i32, plan: &mut Plan) {
    for weaken in without {
        match weaken {
            Weaken::Filter => plan.child.retain(|step| *step != ChildStep::Filter),
            Weaken::NoNewPrivileges => gain_privileges(&mut plan.child),
            Weaken::Capabilities => keep_capabilities(&mut plan.child, without.contains(&Weaken::UserNamespace)),
            Weaken::CgroupNamespace => plan.child.retain(|step| *step != ChildStep::CgroupNamespace),
            Weaken::Hidden => {
                plan.child.retain(|step| !matches!(step, ChildStep::HideFile(_) | ChildStep::HideDirectory(_)));
            }
            Weaken::ReadOnly => plan.child.retain(|step| !matches!(step, ChildStep::ReadOnly(_))),
            Weaken::Pivot => change_root(&mut plan.child),
            Weaken::Descriptors => {
                plan.program.retain(|step| *step != ProgramStep::CloseRest);
                plan.program.insert(0, ProgramStep::Leak(leak));
            }
            Weaken::Limits => plan.child.retain(|step| !matches!(step, ChildStep::Limit { .. })),
            Weaken::Terminals => any_number_of_terminals(&mut plan.child),
            Weaken::UserNamespace | Weaken::NetworkNamespace | Weaken::IpcNamespace => {}
            Weaken::Devices | Weaken::Level | Weaken::Places => {}
        }
    }
}

/// The filter then needs a capability, so it goes before they do.
fn gain_privileges(steps: &mut Vec<ChildStep>) {
    steps.retain(|step| *step != ChildStep::NoNewPrivileges);
    let filter = steps.iter().position(|step| *step == ChildStep::Filter).map(|at| steps.remove(at));
    let capabilities = steps.iter().position(|step| matches!(step, ChildStep::Capabilities(_)));
    if let (Some(filter), Some(at)) = (filter, capabilities) {
        steps.insert(at, filter);
    }
}

/// In a user namespace all that there are, else all that this process has itself.
fn keep_capabilities(steps: &mut [ChildStep], of_the_host: bool) {
    let all = (1 << (capability::LAST + 1)) - 1;
    let own =
        if of_the_host { rustix::thread::capabilities(None).map_or(0, |sets| sets.permitted.bits()) } else { all };
    for step in steps {
        if let ChildStep::Capabilities(mask) = step {
            *mask = own;
        }
    }
}

fn any_number_of_terminals(steps: &mut [ChildStep]) {
    for step in steps {
        if let ChildStep::Mount { kind, data, .. } = step
            && *kind == c"devpts"
        {
            *data = c"newinstance,ptmxmode=0666,mode=0620";
        }
    }
}

/// Whoever is in this group may use every device.
pub(super) fn all_devices() -> io::Result<OwnedFd> {
    let root = Path::new(super::CGROUP_ROOT);
    let group = cgroup::hierarchy_of(root, "devices").ok().flatten().unwrap_or_else(|| root.to_owned());
    Ok(OpenOptions::new().write(true).open(group.join("cgroup.procs"))?.into())
}

fn change_root(steps: &mut Vec<ChildStep>) {
    steps.retain(|step| *step != ChildStep::DropHost);
    for step in steps {
        if *step == ChildStep::Pivot {
            *step = ChildStep::ChangeRoot;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_protection_has_a_name() {
        for (name, weaken) in NAMES {
            assert_eq!((name.parse(), weaken.name()), (Ok(weaken), name));
        }
        assert!("everything".parse::<Weaken>().is_err());
    }
}
