//! What only a bundle's `config.json` can ask for: steps that the container's first process performs beside the ones that every container has.
//!
//! As there, everything is computed before the clone. Descriptors are named by their place in the lists that [`super::create`] opens, or come over a socket in the order of their steps.

use std::ffi::CString;

/// A place below the new root, resolved as if the new root were `/` already: no link in it leads out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// From the new root, without the leading slash; `.` for the root itself.
    pub path: CString,
    /// Each directory above it, then itself, and how many bytes of it come before its last name: what is made where it is missing.
    pub prefixes: Vec<(CString, usize)>,
}

/// A program to run at a point in the container's life, in the container's namespaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildHook {
    /// Its phase and number, for people.
    pub name: String,
    /// What to execute.
    pub path: CString,
    /// Its arguments, the first its name.
    pub args: Vec<CString>,
    /// Its whole environment.
    pub env: Vec<CString>,
    /// How long it may take.
    pub timeout_s: Option<u64>,
}

/// One step of the container's first process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BundleStep {
    /// Tell the launching process how far we are, and wait until it says that this stage is over. Stages are numbered from 1.
    Wait(u32),
    /// Tell it only.
    Tell(u32),
    /// Into a namespace given by path.
    Enter {
        /// Its descriptor's place.
        namespace: usize,
        /// CLONE_NEW*.
        kind: i32,
    },
    /// Into the network that is made apart, once it is there.
    EnterNetwork,
    /// New namespaces, made in the user namespace that was entered before.
    Unshare(i32),
    /// How mounts of the whole tree spread, before anything is mounted: a new root can become one only where nothing spreads to the host.
    Propagation(u64),
    /// The root file system, over the directory it came from; and go there.
    AttachRoot(CString),
    /// A file system made by its type.
    Mount {
        /// Its type.
        kind: CString,
        /// What it shows.
        source: CString,
        /// Where.
        target: Target,
        /// MS_*.
        flags: u64,
        /// Its own options.
        data: CString,
        /// MS_* of how mounts spread; 0 for as they come.
        propagation: u64,
    },
    /// A tree that the launching process has opened.
    Attach {
        /// Its place.
        tree: usize,
        /// Where.
        target: Target,
    },
    /// A tree that the launching process opens when it is there, and sends.
    AttachSent(Target),
    /// A device node (or fifo).
    Node {
        /// Where.
        target: Target,
        /// S_IF* and permissions.
        mode: u32,
        /// Its number.
        device: u64,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// A symbolic link, where nothing stands yet.
    Link {
        /// Its content.
        to: CString,
        /// Where.
        target: Target,
    },
    /// A kernel setting of the namespaces.
    Sysctl {
        /// Below `/proc/sys`, of the host's `/proc`, which is still there.
        file: CString,
        /// What is written.
        value: CString,
    },
    /// The NIS domain name.
    Domainname(CString),
    /// Cover with nothing: an empty read-only directory, or `/dev/null`. What is not there needs no cover.
    Mask(CString),
    /// Make read-only with all below. What is not there needs no protection.
    Protect(CString),
    /// The root itself read-only.
    RootReadOnly,
    /// How mounts of the container's root spread.
    RootPropagation(u64),
    /// A pseudo terminal of the container's own: its outer end goes out by the console socket, `/dev/console` and the standard streams are its inner end.
    Console {
        /// `/dev/console`.
        target: Target,
        /// Its owner.
        uid: u32,
        /// Rows and columns, where given.
        size: Option<(u16, u16)>,
    },
    /// A program of the configuration.
    Hook {
        /// Which.
        hook: ChildHook,
        /// Whose state it reads: true for "created", false for "creating".
        created: bool,
    },
    /// Out of the capabilities that programs can ever get, all but these.
    Bounding(u64),
    /// Capabilities stay when the user changes.
    KeepCapabilities,
    /// The sets that stay.
    Capabilities {
        /// In force.
        effective: u64,
        /// That may be put in force.
        permitted: u64,
        /// Kept over an execution where the file says so.
        inheritable: u64,
        /// Kept over any execution.
        ambient: u64,
    },
    /// A resource limit.
    Limit {
        /// RLIMIT_*.
        resource: u32,
        /// Soft.
        soft: u64,
        /// Hard.
        hard: u64,
    },
    /// Bits that new files do not get.
    Umask(u32),
    /// How the kernel behaves towards the program.
    Personality(u32),
    /// Priority for disks.
    IoPriority(u32),
    /// The system call filter, loaded with these SECCOMP_FILTER_FLAG_*.
    Filter(u64),
    /// No program may gain what this process lost.
    NoNewPrivileges,
    /// Every descriptor from this one on but those that the steps to come need. Before any path of the container is followed: open ones lead to the host.
    CloseFrom(u32),
    /// The first candidate that can be executed; that there is none is told now and not when it is too late to tell.
    Find(Vec<CString>),
    /// Where it starts; made if missing.
    WorkingDir(Vec<CString>),
    /// Live on when the launching process ends. Before it is told that it may.
    Outlive,
    /// Until `start`.
    AwaitStart,
}
