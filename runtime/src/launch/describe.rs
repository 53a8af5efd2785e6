//! Steps in words, for errors: what was being done, and to what.

use std::ffi::CStr;

use crate::steps::{ChildStep, HostStep, ProgramStep};

/// A step of the launcher.
pub fn host(step: &HostStep) -> String {
    match step {
        HostStep::Scratch { size_bytes } => format!("make the writable layer of {size_bytes} bytes"),
        HostStep::EtcFile { name, .. } => format!("write /etc/{}", name.to_string_lossy()),
        HostStep::Root => "lay the writable layer over the image".to_owned(),
        HostStep::Pipes => "make the output pipes".to_owned(),
        HostStep::Clone => "create the container's first process".to_owned(),
        HostStep::MapIds => "map the container's user and group ids".to_owned(),
        HostStep::Join => "put the container into its cgroups".to_owned(),
        HostStep::Proc => "mount proc on /proc".to_owned(),
    }
}

/// A step of the container's first process. Paths are the container's own.
pub fn child(step: &ChildStep) -> String {
    let inside = |path: &CStr| format!("/{}", path.to_string_lossy());
    match step {
        ChildStep::DieWithLauncher => "tie the container's first process to its launcher".to_owned(),
        ChildStep::AttachRoot => "attach the root file system".to_owned(),
        ChildStep::Mount { kind, target, .. } => format!("mount {} on {}", kind.to_string_lossy(), inside(target)),
        ChildStep::AttachSys => "attach /sys".to_owned(),
        ChildStep::HideFile(path) | ChildStep::HideDirectory(path) => format!("hide {}", inside(path)),
        ChildStep::ReadOnly(path) => format!("make {} read-only", inside(path)),
        ChildStep::Pivot => "make the root file system the root".to_owned(),
        ChildStep::DropHost => "let go of the host's file systems".to_owned(),
        ChildStep::ChangeRoot => "make the root file system the root".to_owned(),
        ChildStep::Hostname(name) => format!("set the host name {}", name.to_string_lossy()),
        ChildStep::AwaitGo => "wait for ids and cgroups".to_owned(),
        ChildStep::CgroupNamespace => "make a cgroup namespace".to_owned(),
        ChildStep::BecomeRoot => "become root of the user namespace".to_owned(),
        ChildStep::OwnTerminals => "give /dev/pts to root".to_owned(),
        ChildStep::Limit { resource, value } => format!("set the limit {} to {value}", limit(*resource)),
        ChildStep::Descriptors => "put the standard streams in place".to_owned(),
        ChildStep::Capabilities(mask) => format!("keep the capabilities {mask:#x} only"),
        ChildStep::NoNewPrivileges => "give up new privileges".to_owned(),
        ChildStep::Filter => "install the system call filter".to_owned(),
        ChildStep::StartProgram => "create the program's process".to_owned(),
        ChildStep::BecomeInit => "execute the init".to_owned(),
        ChildStep::Bundle(step) => crate::oci::describe::bundle(step),
        ChildStep::BecomeProgram => "go on to the program's steps".to_owned(),
    }
}

/// A step of the program's process.
pub fn program(step: &ProgramStep) -> String {
    let last =
        |all: &[std::ffi::CString]| all.last().map_or_else(String::new, |one| one.to_string_lossy().into_owned());
    match step {
        ProgramStep::Session => "begin a session".to_owned(),
        ProgramStep::CloseRest => "close what is not the program's".to_owned(),
        ProgramStep::Leak(descriptor) => format!("leave descriptor {descriptor} open"),
        ProgramStep::Groups(groups) => format!("join the groups {groups:?}"),
        ProgramStep::Group(id) => format!("become group {id}"),
        ProgramStep::User(id) => format!("become user {id}"),
        ProgramStep::WorkingDir(dirs) => format!("go to the working directory {}", last(dirs)),
        ProgramStep::AnyCpu => "use every CPU".to_owned(),
        ProgramStep::Signals => "set the signals back".to_owned(),
        ProgramStep::Execute { args, .. } => {
            format!("execute {}", args.first().map_or_else(String::new, |name| name.to_string_lossy().into_owned()))
        }
        ProgramStep::Bundle(step) => crate::oci::describe::bundle(step),
    }
}

/// As `man setrlimit` names it.
fn limit(resource: u32) -> String {
    match resource {
        libc::RLIMIT_NOFILE => "RLIMIT_NOFILE".to_owned(),
        libc::RLIMIT_CORE => "RLIMIT_CORE".to_owned(),
        other => format!("number {other}"),
    }
}
