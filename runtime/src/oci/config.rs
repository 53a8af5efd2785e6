//! What is read of a bundle, and what is refused at the door: nothing has been started then.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType, Process, Spec};
use serde::Deserialize;

use super::{OciError, hooks};

/// The version of the specification that is implemented.
pub const VERSION: &str = "1.2.0";

/// A configuration and the text it came from.
#[derive(Debug)]
pub struct Bundle {
    /// Its folder, absolute.
    pub folder: PathBuf,
    /// The configuration.
    pub spec: Spec,
    /// As it was read, to be kept with the container's state.
    pub text: Vec<u8>,
}

/// `config.json` of a folder, not understood yet.
#[derive(Debug)]
pub struct Unread {
    folder: PathBuf,
    path: PathBuf,
    text: Vec<u8>,
}

impl Unread {
    /// Reads it.
    pub fn open(folder: &Path) -> Result<Self, OciError> {
        let folder = std::fs::canonicalize(folder).map_err(OciError::file("find the bundle", folder))?;
        let path = folder.join("config.json");
        let text = std::fs::read(&path).map_err(OciError::file("read", &path))?;
        Ok(Self { folder, path, text })
    }

    /// Which namespaces it names, at a glance; none where it is not in order.
    pub fn namespaces(&self) -> Vec<LinuxNamespace> {
        #[derive(Deserialize)]
        struct Glance {
            linux: Namespaces,
        }
        #[derive(Deserialize)]
        struct Namespaces {
            namespaces: Vec<LinuxNamespace>,
        }
        serde_json::from_slice::<Glance>(&self.text).map(|glance| glance.linux.namespaces).unwrap_or_default()
    }

    /// Refuses what cannot be run.
    pub fn understand(self) -> Result<Bundle, OciError> {
        let spec = parse(&self.text, &self.path)?;
        check(&spec)?;
        Ok(Bundle { folder: self.folder, spec, text: self.text })
    }
}

/// A configuration's text; errors name `path`.
pub fn parse<T: serde::de::DeserializeOwned>(text: &[u8], path: &Path) -> Result<T, OciError> {
    serde_json::from_slice(text).map_err(|error| OciError::Json { path: path.to_owned(), reason: error.to_string() })
}

/// Everything that can be refused without asking the kernel.
pub fn check(spec: &Spec) -> Result<(), OciError> {
    let major = spec.version().split('.').next().unwrap_or_default();
    if major != "1" {
        let reason = format!("{:?} is no version 1 of the specification", spec.version());
        return Err(OciError::refused("ociVersion", reason));
    }
    let root =
        spec.root().as_ref().ok_or_else(|| OciError::refused("root", "is missing: name the root file system"))?;
    if root.path().as_os_str().is_empty() {
        return Err(OciError::refused("root.path", "is empty: name the root file system"));
    }
    if spec.vm().is_some() || spec.windows().is_some() || spec.solaris().is_some() || spec.zos().is_some() {
        return Err(OciError::refused("platform", "only linux is done here: remove vm, windows, solaris and zos"));
    }
    for mount in spec.mounts().iter().flatten() {
        if mount.destination().as_os_str().is_empty() {
            return Err(OciError::refused("mounts", "a mount without a destination"));
        }
    }
    if let Some(process) = spec.process() {
        check_process(process)?;
    }
    check_hooks(spec)?;
    match spec.linux() {
        Some(linux) => check_linux(spec, linux),
        None => {
            Err(OciError::refused("linux", "is missing: at least a mount namespace must be named in linux.namespaces"))
        }
    }
}

fn check_hooks(spec: &Spec) -> Result<(), OciError> {
    let Some(all) = spec.hooks() else { return Ok(()) };
    let phases = [
        ("prestart", all.prestart()),
        ("createRuntime", all.create_runtime()),
        ("createContainer", all.create_container()),
        ("startContainer", all.start_container()),
        ("poststart", all.poststart()),
        ("poststop", all.poststop()),
    ];
    phases.iter().try_for_each(|(phase, hooks)| hooks.iter().flatten().try_for_each(|hook| hooks::check(phase, hook)))
}

/// A process, of the configuration or beside it.
pub fn check_process(process: &Process) -> Result<(), OciError> {
    if process.args().as_ref().and_then(|args| args.first()).is_none_or(String::is_empty) {
        return Err(OciError::refused("process.args", "is empty: there is nothing to execute"));
    }
    if !process.cwd().is_absolute() {
        return Err(OciError::refused("process.cwd", format!("{:?} must be an absolute path", process.cwd())));
    }
    let strings = process.args().iter().flatten().chain(process.env().iter().flatten());
    if strings.clone().any(|text| text.contains('\0')) {
        return Err(OciError::refused("process", "an argument or environment entry contains a NUL byte"));
    }
    let absent = [
        ("process.apparmorProfile", named(process.apparmor_profile().as_ref()), "AppArmor"),
        ("process.selinuxLabel", named(process.selinux_label().as_ref()), "SELinux"),
        ("process.scheduler", process.scheduler().is_some(), "schedulers per container"),
        ("process.execCPUAffinity", process.exec_cpu_affinity().is_some(), "CPU affinity of executed programs"),
    ];
    refuse(&absent)
}

fn named(text: Option<&String>) -> bool {
    text.is_some_and(|text| !text.is_empty())
}

fn refuse(absent: &[(&str, bool, &str)]) -> Result<(), OciError> {
    match absent.iter().find(|(_, asked, _)| *asked) {
        Some((field, _, what)) => Err(OciError::refused(*field, format!("this runtime does not do {what}: remove it"))),
        None => Ok(()),
    }
}

fn check_linux(spec: &Spec, linux: &Linux) -> Result<(), OciError> {
    refuse(&[
        ("linux.mountLabel", named(linux.mount_label().as_ref()), "SELinux"),
        ("linux.intelRdt", linux.intel_rdt().is_some(), "Intel RDT"),
        ("linux.memoryPolicy", linux.memory_policy().is_some(), "memory policies"),
        ("linux.netDevices", linux.net_devices().as_ref().is_some_and(|d| !d.is_empty()), "moving of network devices"),
        ("linux.timeOffsets", linux.time_offsets().as_ref().is_some_and(|t| !t.is_empty()), "time namespaces"),
    ])?;
    check_namespaces(linux)?;
    if named(spec.hostname().as_ref()) && !has(linux, LinuxNamespaceType::Uts) {
        return Err(OciError::refused("hostname", "needs a uts namespace in linux.namespaces"));
    }
    if named(spec.domainname().as_ref()) && !has(linux, LinuxNamespaceType::Uts) {
        return Err(OciError::refused("domainname", "needs a uts namespace in linux.namespaces"));
    }
    linux.sysctl().iter().flatten().try_for_each(|(name, _)| check_sysctl(linux, name))
}

fn check_namespaces(linux: &Linux) -> Result<(), OciError> {
    let all = linux.namespaces().iter().flatten();
    let mut seen = Vec::new();
    for namespace in all {
        if seen.contains(&namespace.typ()) {
            let reason = format!("{} is named twice", namespace.typ());
            return Err(OciError::refused("linux.namespaces", reason));
        }
        seen.push(namespace.typ());
        let path = namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty());
        match (namespace.typ(), path) {
            (LinuxNamespaceType::Time, _) => refuse(&[("linux.namespaces", true, "time namespaces")])?,
            (LinuxNamespaceType::Mount, Some(_)) => {
                refuse(&[("linux.namespaces", true, "containers in a mount namespace given by path")])?;
            }
            (_, Some(path)) if !path.is_absolute() => {
                let reason = format!("path {} must be absolute", path.display());
                return Err(OciError::refused("linux.namespaces", reason));
            }
            _ => {}
        }
    }
    if !has(linux, LinuxNamespaceType::Mount) {
        return Err(OciError::refused("linux.namespaces", "a mount namespace is missing"));
    }
    check_user_namespace(linux)
}

fn check_user_namespace(linux: &Linux) -> Result<(), OciError> {
    let mapped = linux.uid_mappings().as_ref().is_some_and(|maps| !maps.is_empty())
        && linux.gid_mappings().as_ref().is_some_and(|maps| !maps.is_empty());
    match namespace_path(linux, LinuxNamespaceType::User) {
        Some(None) if !mapped => {
            Err(OciError::refused("linux.uidMappings", "a new user namespace needs uidMappings and gidMappings"))
        }
        Some(Some(_)) if namespace_path(linux, LinuxNamespaceType::Pid) == Some(None) => {
            refuse(&[("linux.namespaces", true, "a new pid namespace inside a user namespace given by path")])
        }
        None if mapped => Err(OciError::refused("linux.uidMappings", "needs a user namespace in linux.namespaces")),
        _ => Ok(()),
    }
}

/// Whether a kind is named at all.
pub fn has(linux: &Linux, kind: LinuxNamespaceType) -> bool {
    namespace_path(linux, kind).is_some()
}

/// `None` where it is not named, `Some(None)` where it is to be made.
pub fn namespace_path(linux: &Linux, kind: LinuxNamespaceType) -> Option<Option<&Path>> {
    path_among(linux.namespaces().as_deref().unwrap_or_default(), kind)
}

/// The same of a list.
pub fn path_among(namespaces: &[LinuxNamespace], kind: LinuxNamespaceType) -> Option<Option<&Path>> {
    let named = namespaces.iter().find(|namespace| namespace.typ() == kind)?;
    Some(named.path().as_deref().filter(|path| !path.as_os_str().is_empty()))
}

/// Only what belongs to a namespace of the container's own: all else would be the host's.
fn check_sysctl(linux: &Linux, name: &str) -> Result<(), OciError> {
    const OF_IPC: [&str; 7] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
    ];
    let dotted = name.replace('/', ".");
    let field = format!("linux.sysctl.{name}");
    if dotted.contains("..") {
        return Err(OciError::refused(field, "is no kernel setting"));
    }
    let kind = match dotted.as_str() {
        d if d.starts_with("net.") => LinuxNamespaceType::Network,
        d if d.starts_with("fs.mqueue.") || d == "kernel.shm_rmid_forced" || OF_IPC.contains(&d) => {
            LinuxNamespaceType::Ipc
        }
        "kernel.domainname" => LinuxNamespaceType::Uts,
        "kernel.hostname" => return Err(OciError::refused(field, "say it as hostname")),
        _ => return Err(OciError::refused(field, "is a setting of the whole machine")),
    };
    match has(linux, kind) {
        true => Ok(()),
        false => Err(OciError::refused(field, format!("needs a {kind} namespace of the container's own"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn base() -> Value {
        json!({
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs"},
            "process": {"cwd": "/", "args": ["sh"], "user": {"uid": 0, "gid": 0}},
            "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]}
        })
    }

    fn said(change: impl FnOnce(&mut Value)) -> Result<(), String> {
        let mut value = base();
        change(&mut value);
        let spec = parse(value.to_string().as_bytes(), Path::new("config.json")).map_err(|e| e.to_string())?;
        check(&spec).map_err(|error| error.to_string())
    }

    #[test]
    fn a_plain_configuration_passes() {
        assert_eq!(said(|_| {}), Ok(()));
    }

    #[test]
    fn each_refusal_names_its_member() {
        type Change = fn(&mut Value);
        let cases: [(&str, Change); 16] = [
            ("ociVersion", |v| v["ociVersion"] = json!("2.0.0")),
            ("root", |v| v["root"]["path"] = json!("")),
            ("process.args", |v| v["process"]["args"] = json!([])),
            ("process.cwd", |v| v["process"]["cwd"] = json!("x")),
            ("process.apparmorProfile", |v| v["process"]["apparmorProfile"] = json!("x")),
            ("process.selinuxLabel", |v| v["process"]["selinuxLabel"] = json!("x")),
            ("linux.intelRdt", |v| v["linux"]["intelRdt"] = json!({"closID": "x"})),
            ("hostname", |v| v["hostname"] = json!("x")),
            ("domainname", |v| v["domainname"] = json!("x")),
            ("named twice", |v| v["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "mount"}])),
            ("mount namespace is missing", |v| v["linux"]["namespaces"] = json!([{"type": "pid"}])),
            ("uidMappings", |v| v["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "user"}])),
            ("must be absolute", |v| {
                v["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "ipc", "path": "x"}])
            }),
            ("whole machine", |v| v["linux"]["sysctl"] = json!({"kernel.panic": "1"})),
            ("net namespace", |v| v["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"})),
            ("say it as hostname", |v| v["linux"]["sysctl"] = json!({"kernel.hostname": "x"})),
        ];
        for (want, change) in cases {
            let text = said(change).expect_err(want);
            assert!(text.contains(want), "{text} does not name {want}");
        }
    }
}
