//! A process of the configuration, or one beside it, as the steps that lead to its execution.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use oci_spec::runtime::Process;

use super::{BundleStep, ChildHook, OciError, Target, capabilities, mounts, names};
use crate::steps::ProgramStep;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the process's steps depend on beside its configuration.
#[derive(Debug, Default)]
pub struct Around {
    /// Stage to tell when all is done but waiting and executing.
    pub ready: u32,
    /// Whether `start` comes later.
    pub awaits_start: bool,
    /// Descriptors above the three streams that the caller passes on.
    pub preserved: u32,
    /// To run before the program, in its place.
    pub hooks: Vec<ChildHook>,
    /// Flags of the system call filter, where there is one.
    pub filter: Option<u64>,
}

/// The steps, in order. Descriptors go before any path of the container is followed; what needs privileges comes before they go; the filter is last where
/// the kernel lets it be, as profiles refuse most of the calls above.
pub fn steps(process: &Process, around: Around) -> Result<Vec<ProgramStep>, OciError> {
    let sets = capabilities::sets(process.capabilities().as_ref())?;
    let user = process.user();
    let safe = process.no_new_privileges().unwrap_or(false);
    let filter = around.filter.map(|flags| ProgramStep::Bundle(BundleStep::Filter(flags)));
    let mut steps = vec![ProgramStep::Session];
    if process.terminal().unwrap_or(false) {
        steps.push(ProgramStep::Bundle(console(process)));
    }
    let bundle = |step| ProgramStep::Bundle(step);
    steps.push(bundle(BundleStep::CloseFrom(3 + around.preserved)));
    steps.push(bundle(BundleStep::WorkingDir(prefixes(process.cwd()))));
    steps.extend(limits(process)?.into_iter().map(bundle));
    steps.extend(priority(process).into_iter().map(bundle));
    if !safe {
        steps.extend(filter.clone());
    }
    steps.extend([
        bundle(BundleStep::Bounding(sets.bounding)),
        bundle(BundleStep::KeepCapabilities),
        ProgramStep::Groups(user.additional_gids().clone().unwrap_or_default()),
        ProgramStep::Group(user.gid()),
        ProgramStep::User(user.uid()),
        bundle(BundleStep::Capabilities {
            effective: sets.effective,
            permitted: sets.permitted,
            inheritable: sets.inheritable,
            ambient: sets.ambient,
        }),
        bundle(BundleStep::Umask(user.umask().unwrap_or(0o022))),
    ]);
    let candidates = candidates(process);
    steps.push(bundle(BundleStep::Find(candidates.clone())));
    if safe {
        steps.push(bundle(BundleStep::NoNewPrivileges));
    }
    steps.push(bundle(BundleStep::Outlive));
    steps.push(bundle(BundleStep::Tell(around.ready)));
    if around.awaits_start {
        steps.push(bundle(BundleStep::AwaitStart));
    }
    steps.extend(around.hooks.into_iter().map(|hook| bundle(BundleStep::Hook { hook, created: true })));
    if safe {
        steps.extend(filter);
    }
    steps.push(ProgramStep::Signals);
    steps.push(ProgramStep::Execute {
        candidates,
        args: strings(process.args().iter().flatten()),
        env: strings(process.env().iter().flatten()),
    });
    Ok(steps)
}

fn console(process: &Process) -> BundleStep {
    let size = process.console_size();
    let small = |number: u64| u16::try_from(number).unwrap_or(u16::MAX);
    BundleStep::Console {
        target: target(Path::new("/dev/console")),
        uid: process.user().uid(),
        size: size.map(|size| (small(size.height()), small(size.width()))),
    }
}

fn limits(process: &Process) -> Result<Vec<BundleStep>, OciError> {
    let mut seen = Vec::new();
    for limit in process.rlimits().iter().flatten() {
        if seen.contains(&limit.typ()) {
            let reason = format!("{} is given twice", limit.typ());
            return Err(OciError::refused("process.rlimits", reason));
        }
        seen.push(limit.typ());
    }
    let step = |limit: &oci_spec::runtime::PosixRlimit| BundleStep::Limit {
        resource: names::limit(limit.typ()),
        soft: limit.soft(),
        hard: limit.hard(),
    };
    Ok(process.rlimits().iter().flatten().map(step).collect())
}

fn priority(process: &Process) -> Option<BundleStep> {
    use oci_spec::runtime::IOPriorityClass::{IoprioClassBe, IoprioClassIdle, IoprioClassRt};
    const CLASS_SHIFT: u32 = 13;
    let asked = process.io_priority().as_ref()?;
    let class = match asked.class() {
        IoprioClassRt => 1,
        IoprioClassBe => 2,
        IoprioClassIdle => 3,
    };
    Some(BundleStep::IoPriority(class << CLASS_SHIFT | asked.priority().clamp(0, 7) as u32))
}

/// Where the program may be: itself when it has a slash, else in each directory of its PATH.
fn candidates(process: &Process) -> Vec<CString> {
    let name = process.args().iter().flatten().next().cloned().unwrap_or_default();
    if name.contains('/') {
        return vec![c_string(name.as_bytes())];
    }
    let path = process.env().iter().flatten().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let in_dir = |dir: &str| c_string(format!("{}/{name}", if dir.is_empty() { "." } else { dir }).as_bytes());
    path.split(':').map(in_dir).collect()
}

/// `/a`, `/a/b`, ... up to the directory.
fn prefixes(dir: &Path) -> Vec<CString> {
    let mut all: Vec<CString> = dir.ancestors().map(|dir| c_string(dir.as_os_str().as_bytes())).collect();
    all.reverse();
    all
}

/// A place in the container.
pub fn target(path: &Path) -> Target {
    let parts = mounts::inside(path);
    let mut prefixes: Vec<(CString, usize)> = Vec::with_capacity(parts.len());
    for part in &parts {
        let mut whole = prefixes.last().map_or(Vec::new(), |(above, _)| [above.as_bytes(), b"/"].concat());
        let before = whole.len();
        whole.extend_from_slice(part);
        prefixes.push((c_string(&whole), before));
    }
    let path = prefixes.last().map_or(c".".to_owned(), |(whole, _)| whole.clone());
    Target { path, prefixes }
}

/// Each as the kernel takes it.
pub fn strings<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<CString> {
    texts.map(|text| c_string(text.as_bytes())).collect()
}

/// Bytes that hold no NUL; what follows one, were it there, would be cut off.
pub fn c_string(bytes: &[u8]) -> CString {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    CString::new(&bytes[..end]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(json: &str) -> Process {
        serde_json::from_str(json).expect("a process")
    }

    fn place(steps: &[ProgramStep], which: impl Fn(&ProgramStep) -> bool) -> usize {
        steps.iter().position(which).expect("the step is in the list")
    }

    #[test]
    fn the_filter_is_last_with_no_new_privileges_and_first_without() {
        for (safe, last) in [(true, true), (false, false)] {
            let process =
                process(&format!(r#"{{"cwd":"/","args":["sh"],"user":{{"uid":1,"gid":2}},"noNewPrivileges":{safe}}}"#));
            let steps = steps(&process, Around { filter: Some(0), ..Around::default() }).expect("steps");
            let filter = place(&steps, |s| matches!(s, ProgramStep::Bundle(BundleStep::Filter(_))));
            let user = place(&steps, |s| matches!(s, ProgramStep::User(1)));
            assert_eq!(filter > user, last);
        }
    }

    #[test]
    fn descriptors_go_before_any_path_is_followed() {
        let process = process(r#"{"cwd":"/a","args":["sh"],"user":{"uid":0,"gid":0}}"#);
        let steps = steps(&process, Around { preserved: 2, ..Around::default() }).expect("steps");
        let close = place(&steps, |s| *s == ProgramStep::Bundle(BundleStep::CloseFrom(5)));
        assert!(close < place(&steps, |s| matches!(s, ProgramStep::Bundle(BundleStep::WorkingDir(_)))));
    }

    #[test]
    fn targets_name_what_is_to_be_made() {
        let target = target(Path::new("/dev/pts"));
        assert_eq!(target.path, c"dev/pts".to_owned());
        assert_eq!(target.prefixes, [(c"dev".to_owned(), 0), (c"dev/pts".to_owned(), 4)]);
        assert_eq!(super::target(Path::new("/")).path, c".".to_owned());
    }

    #[test]
    fn a_limit_given_twice_is_refused() {
        let twice = r#"{"cwd":"/","args":["sh"],"user":{"uid":0,"gid":0},
            "rlimits":[{"type":"RLIMIT_CORE","soft":1,"hard":1},{"type":"RLIMIT_CORE","soft":2,"hard":2}]}"#;
        let said = steps(&process(twice), Around::default()).expect_err("refused").to_string();
        assert!(said.contains("RLIMIT_CORE is given twice"), "{said}");
    }
}
