//! What the container sees of files: mounts, devices, links, and what of them is covered or protected.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType, LinuxIdMapping, LinuxNamespaceType, Mount, Spec};

use super::mounts::{self, Options};
use super::process::{c_string, target};
use super::{BundleStep, OciError, config};

/// A tree that the launching process opens before the clone, for the child to attach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tree {
    /// Part of the host's.
    Part(Part),
    /// A tmpfs that begins with what the image has at a place.
    Copy {
        /// From the new root.
        place: PathBuf,
        /// What it becomes.
        options: Options,
    },
}

/// Part of the host's tree, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Where it is.
    pub source: PathBuf,
    /// With all that is mounted below it.
    pub recursive: bool,
    /// MOUNT_ATTR_* set and taken away, at the top.
    pub top: (u64, u64),
    /// The same for all of it.
    pub deep: (u64, u64),
    /// MS_* of how mounts spread in it.
    pub propagation: u64,
    /// Owners shifted: the mappings of users and groups, and whether of all below.
    pub shifted: Option<([String; 2], bool)>,
}

/// What of the host decides about a container's files.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// One tree of cgroups for all controllers.
    pub one_tree: bool,
    /// With one tree per controller: names as they stand below `/sys/fs/cgroup`, and the container's directory in each.
    pub cgroups: Vec<(String, PathBuf)>,
}

/// Steps and the trees they attach.
#[derive(Debug, Default)]
pub struct Files {
    /// In order.
    pub steps: Vec<BundleStep>,
    /// By place.
    pub trees: Vec<Tree>,
    /// The container's own cgroups, in the order of their steps: they are made while the container mounts already.
    pub sent: Vec<Part>,
    /// The steps that show them, and where. They come last, but before anything that is to be found below or above them
    /// (by its path as it is written: whoever reaches them through links of the image comes before).
    awaited: Option<(Vec<Vec<u8>>, Vec<BundleStep>)>,
}

const SAFE: u64 = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
/// What every container has (section "Default Devices"): path, major, minor.
const DEVICES: [(&str, u64, u64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];
/// Section "Dev symbolic links", and the multiplexer of the container's own devpts.
const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
    ("/proc/kcore", "/dev/core"),
];

/// Mounts, then devices and links, unless `/dev` is the host's own.
pub fn files(spec: &Spec, linux: &Linux, folder: &Path, host: &Host) -> Result<Files, OciError> {
    let mut files = Files::default();
    for mount in spec.mounts().iter().flatten() {
        files.mount(mount, linux, folder, host)?;
    }
    let bound = |mount: &Mount| mount.destination() == Path::new("/dev") && read(mount).bind.is_some();
    if !spec.mounts().iter().flatten().any(bound) {
        files.devices(linux)?;
    }
    files.no_longer_await();
    Ok(files)
}

/// Options of a mount; `bind` may be said as its type.
fn read(mount: &Mount) -> Options {
    let list: &[String] = mount.options().as_deref().unwrap_or_default();
    let mut options = mounts::options(list);
    if mount.typ().as_deref() == Some("bind") && options.bind.is_none() {
        options.bind = Some(false);
    }
    options
}

impl Files {
    fn no_longer_await(&mut self) {
        self.steps.extend(self.awaited.take().into_iter().flat_map(|(_, steps)| steps));
    }

    /// Before something is put there.
    fn make_way(&mut self, place: &Path) {
        let place = mounts::inside(place);
        if self.awaited.as_ref().is_some_and(|(at, _)| at.starts_with(&place) || place.starts_with(at)) {
            self.no_longer_await();
        }
    }

    fn mount(&mut self, mount: &Mount, linux: &Linux, folder: &Path, host: &Host) -> Result<(), OciError> {
        self.make_way(mount.destination());
        let options = read(mount);
        let kind = mount.typ().as_deref().unwrap_or("none");
        if let Some(recursive) = options.bind
            && options.flags & libc::MS_REMOUNT == 0
        {
            let source = mount.source().as_ref().ok_or_else(|| refused(mount, "a bind mount needs a source"))?;
            let part =
                Part { source: folder.join(source), recursive, ..part(&options, shift(mount, linux, &options)?) };
            self.attach(Tree::Part(part), mount.destination());
            return Ok(());
        }
        if options.shifted.is_some() {
            return Err(refused(mount, "owners are shifted in bind mounts only"));
        }
        match kind {
            "cgroup" | "cgroup2" => {
                self.no_longer_await();
                let before = std::mem::take(&mut self.steps);
                let done = self.cgroups(mount, linux, &options, host);
                let steps = std::mem::replace(&mut self.steps, before);
                self.awaited = Some((mounts::inside(mount.destination()), steps));
                done
            }
            "tmpfs" if options.copy_up => {
                self.attach(Tree::Copy { place: mount.destination().clone(), options }, mount.destination());
                Ok(())
            }
            _ => {
                self.file_system(mount, kind, &options);
                Ok(())
            }
        }
    }

    fn attach(&mut self, tree: Tree, at: &Path) {
        self.steps.push(BundleStep::Attach { tree: self.trees.len(), target: target(at) });
        self.trees.push(tree);
    }

    fn attach_sent(&mut self, part: Part, at: &Path) {
        self.steps.push(BundleStep::AttachSent(target(at)));
        self.sent.push(part);
    }

    fn file_system(&mut self, mount: &Mount, kind: &str, options: &Options) {
        let source = mount.source().as_ref().map_or(kind.as_bytes(), |path| path.as_os_str().as_encoded_bytes());
        self.steps.push(BundleStep::Mount {
            kind: c_string(kind.as_bytes()),
            source: c_string(source),
            target: target(mount.destination()),
            flags: options.flags,
            data: c_string(options.data.join(",").as_bytes()),
            propagation: options.propagation,
        });
    }

    /// With one tree: that tree, as the container's cgroup namespace shows it, or its own group of it. With a tree per controller: the container's own
    /// directories, under the names that the host has for them.
    fn cgroups(&mut self, mount: &Mount, linux: &Linux, options: &Options, host: &Host) -> Result<(), OciError> {
        let own = config::namespace_path(linux, LinuxNamespaceType::Cgroup).is_some();
        if host.one_tree && own {
            let step = Mount::default();
            self.file_system(
                step.clone().set_destination(mount.destination().clone()),
                "cgroup2",
                &Options { data: Vec::new(), ..options.clone() },
            );
            return Ok(());
        }
        let of = |source: &Path| Part { source: source.to_owned(), recursive: false, ..part(options, None) };
        if host.one_tree {
            if let Some((_, dir)) = host.cgroups.first() {
                self.attach_sent(of(dir), mount.destination());
            }
            return Ok(());
        }
        self.tmpfs(mount.destination(), SAFE, "mode=755,size=64k");
        for (name, dir) in &host.cgroups {
            self.attach_sent(of(dir), &mount.destination().join(name));
            for short in name.split(',').filter(|short| *short != name) {
                let at = target(&mount.destination().join(short));
                self.steps.push(BundleStep::Link { to: c_string(name.as_bytes()), target: at });
            }
        }
        if options.flags & libc::MS_RDONLY != 0 {
            self.tmpfs(mount.destination(), SAFE | libc::MS_REMOUNT | libc::MS_RDONLY, "mode=755,size=64k");
        }
        Ok(())
    }

    fn tmpfs(&mut self, at: &Path, flags: u64, data: &str) {
        let kind = c"tmpfs".to_owned();
        let data = c_string(data.as_bytes());
        self.steps.push(BundleStep::Mount {
            source: kind.clone(),
            kind,
            target: target(at),
            flags,
            data,
            propagation: 0,
        });
    }

    /// In a user namespace nobody makes nodes: the host's are bound.
    fn devices(&mut self, linux: &Linux) -> Result<(), OciError> {
        let bound = config::has(linux, LinuxNamespaceType::User);
        let asked: Vec<&LinuxDevice> = linux.devices().iter().flatten().collect();
        for (path, major, minor) in DEVICES {
            if !asked.iter().any(|device| device.path() == Path::new(path)) {
                let node = (libc::S_IFCHR | 0o666, libc::makedev(major as u32, minor as u32), [0, 0]);
                self.device(Path::new(path), node, bound);
            }
        }
        for device in asked {
            let node = (mode(device)?, number(device)?, [device.uid().unwrap_or(0), device.gid().unwrap_or(0)]);
            self.device(device.path(), node, bound);
        }
        for (to, at) in LINKS {
            self.steps.push(BundleStep::Link { to: c_string(to.as_bytes()), target: target(Path::new(at)) });
        }
        Ok(())
    }

    fn device(&mut self, path: &Path, (mode, device, [uid, gid]): (u32, u64, [u32; 2]), bound: bool) {
        self.make_way(path);
        if bound {
            let part = Part { source: path.to_owned(), recursive: false, ..part(&Options::default(), None) };
            return self.attach(Tree::Part(part), path);
        }
        self.steps.push(BundleStep::Node { target: target(path), mode, device, uid, gid });
    }
}

/// Mounts of the host spread into it where nothing else is said, and never out of it.
fn part(options: &Options, shifted: Option<([String; 2], bool)>) -> Part {
    let propagation = if options.propagation == 0 { libc::MS_SLAVE | libc::MS_REC } else { options.propagation };
    Part {
        source: PathBuf::new(),
        recursive: false,
        top: options.tree_attributes(),
        deep: options.deep_attributes(),
        propagation,
        shifted,
    }
}

/// By the mount's own mappings, or where it says no more than "idmap" those of the container's user namespace.
fn shift(mount: &Mount, linux: &Linux, options: &Options) -> Result<Option<([String; 2], bool)>, OciError> {
    let own = mount.uid_mappings().is_some() || mount.gid_mappings().is_some();
    if !own && options.shifted.is_none() {
        return Ok(None);
    }
    let pick =
        |own: Option<&Vec<LinuxIdMapping>>, all: Option<&Vec<LinuxIdMapping>>| own.or(all).map(|maps| lines(maps));
    let users = pick(mount.uid_mappings().as_ref(), linux.uid_mappings().as_ref());
    let groups = pick(mount.gid_mappings().as_ref(), linux.gid_mappings().as_ref());
    match (users, groups) {
        (Some(users), Some(groups)) => Ok(Some(([users, groups], options.shifted.unwrap_or(false)))),
        _ => Err(refused(mount, "shifting owners needs uidMappings and gidMappings")),
    }
}

/// As `uid_map` takes them.
pub fn lines(maps: &[LinuxIdMapping]) -> String {
    maps.iter().map(|map| format!("{} {} {}\n", map.container_id(), map.host_id(), map.size())).collect()
}

fn mode(device: &LinuxDevice) -> Result<u32, OciError> {
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
        LinuxDeviceType::B => libc::S_IFBLK,
        LinuxDeviceType::P => libc::S_IFIFO,
        LinuxDeviceType::A => return Err(refused_device(device, "\"a\" is no type of a node")),
    };
    Ok(kind | device.file_mode().unwrap_or(0o666) & 0o7777)
}

fn number(device: &LinuxDevice) -> Result<u64, OciError> {
    match (u32::try_from(device.major()), u32::try_from(device.minor())) {
        (Ok(major), Ok(minor)) => Ok(libc::makedev(major, minor)),
        _ => Err(refused_device(device, "major and minor must be numbers from 0")),
    }
}

fn refused(mount: &Mount, reason: &str) -> OciError {
    OciError::refused(format!("mounts ({})", mount.destination().display()), reason)
}

fn refused_device(device: &LinuxDevice, reason: &str) -> OciError {
    OciError::refused(format!("linux.devices ({})", device.path().display()), reason)
}
