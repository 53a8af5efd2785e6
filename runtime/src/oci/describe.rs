//! Steps of a bundle in words, for errors.

use std::io;

use super::BundleStep;
use crate::launch::describe;
use crate::steps::{ChildStep, Plan, ProgramStep};

/// Of the child's list, or the program's.
pub fn numbered(plan: &Plan, in_program: bool, number: usize) -> String {
    let found = match in_program {
        false => plan.child.get(number).map(describe::child),
        true => plan.program.get(number).map(describe::program),
    };
    found.unwrap_or_else(|| "set the container up".to_owned())
}

/// Why, in words that callers look for.
pub fn cause(plan: &Plan, in_program: bool, number: usize, errno: i32, hook_status: i32) -> String {
    let step = if in_program {
        plan.program.get(number).and_then(|step| if let ProgramStep::Bundle(step) = step { Some(step) } else { None })
    } else {
        plan.child.get(number).and_then(|step| if let ChildStep::Bundle(step) = step { Some(step) } else { None })
    };
    match step {
        Some(BundleStep::Find(_)) if errno == libc::ENOENT => {
            "executable file not found in $PATH: No such file or directory".to_owned()
        }
        Some(BundleStep::Hook { .. }) if errno == libc::ECANCELED => {
            use std::os::unix::process::ExitStatusExt;
            std::process::ExitStatus::from_raw(hook_status).to_string()
        }
        Some(BundleStep::Hook { hook, .. }) if errno == libc::ETIMEDOUT => {
            format!("it was ended after {} s, its timeout", hook.timeout_s.unwrap_or_default())
        }
        _ => io::Error::from_raw_os_error(errno).to_string(),
    }
}

/// One that only bundles ask for.
pub fn bundle(step: &BundleStep) -> String {
    let place = |target: &super::Target| format!("/{}", target.path.to_string_lossy().trim_start_matches('.'));
    match step {
        BundleStep::Enter { kind, .. } => format!("enter a namespace given by path (CLONE_NEW {kind:#x})"),
        BundleStep::EnterNetwork => "enter the container's network namespace".to_owned(),
        BundleStep::AttachRoot(path) => format!("attach the root file system {}", path.to_string_lossy()),
        BundleStep::Mount { kind, target, .. } => format!("mount {} on {}", kind.to_string_lossy(), place(target)),
        BundleStep::Attach { target, .. } | BundleStep::AttachSent(target) => {
            format!("bind a mount on {}", place(target))
        }
        BundleStep::Node { target, .. } => format!("make the device {}", place(target)),
        BundleStep::Link { target, .. } => format!("make the link {}", place(target)),
        BundleStep::Sysctl { file, value } => {
            format!("write {:?} to {}", value.to_string_lossy(), file.to_string_lossy())
        }
        BundleStep::Mask(path) => format!("mask {}", path.to_string_lossy()),
        BundleStep::Protect(path) => format!("make {} read-only", path.to_string_lossy()),
        BundleStep::Console { .. } => "set up the terminal out of /dev/pts".to_owned(),
        BundleStep::Hook { hook, .. } => format!("run {}", hook.name),
        BundleStep::Limit { resource, soft, hard } => format!("set resource limit {resource} to {soft} (hard {hard})"),
        BundleStep::WorkingDir(dirs) => {
            format!("go to the working directory {}", dirs.last().map(|d| d.to_string_lossy()).unwrap_or_default())
        }
        BundleStep::Find(candidates) => {
            format!("find the program {}", candidates.first().map(|c| c.to_string_lossy()).unwrap_or_default())
        }
        BundleStep::Filter(_) => "load the system call filter".to_owned(),
        other => format!("perform {other:?}"),
    }
}
