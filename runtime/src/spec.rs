//! What to run: everything a container needs to be told, in plain values, checked once at the door.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::kernel::{capability, seccomp};

/// Why a specification was refused. Nothing was started.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SpecError {
    /// The id is used in file and cgroup names.
    #[error("container id {0:?} must be 1 to 64 characters of a-z, 0-9, '.' and '-', and begin with a letter or digit")]
    Id(String),
    /// Host names have the kernel's length and DNS's letters.
    #[error("host name {0:?} must be 1 to 63 characters of a-z, A-Z, 0-9, '.' and '-'")]
    Hostname(String),
    /// Nothing to execute.
    #[error("container {0} names no program: args is empty")]
    NoProgram(ContainerId),
    /// A path that must be absolute is not.
    #[error("{what} {path:?} of container {id} must be an absolute path")]
    NotAbsolute {
        /// Whose path.
        id: ContainerId,
        /// Which field.
        what: &'static str,
        /// What it says.
        path: PathBuf,
    },
    /// The kernel takes C strings.
    #[error("{what} of container {id} contains a NUL byte")]
    Nul {
        /// Whose string.
        id: ContainerId,
        /// Which field.
        what: &'static str,
    },
    /// An environment entry is not `NAME=value`.
    #[error("environment entry {entry:?} of container {id} is not NAME=value")]
    Environment {
        /// Whose entry.
        id: ContainerId,
        /// What it says.
        entry: String,
    },
    /// A limit that cannot work.
    #[error("limit {what} of container {id} is {given}, but must be at least {least}")]
    TooSmall {
        /// Whose limit.
        id: ContainerId,
        /// Which limit.
        what: &'static str,
        /// What was asked for.
        given: u64,
        /// What is needed to start at all.
        least: u64,
    },
    /// Nobody may loosen this.
    #[error("container {id} asks for {what} {number}, which no container is ever given")]
    NeverGiven {
        /// Who asks.
        id: ContainerId,
        /// For what.
        what: &'static str,
        /// Which.
        number: u32,
    },
    /// The init makes these calls as well.
    #[error(
        "container {id} is to do without system call {number} ({name}), which its init needs: leave it out of those that are denied"
    )]
    Needed {
        /// Whose filter.
        id: ContainerId,
        /// Which.
        name: &'static str,
        /// Its number.
        number: u32,
    },
    /// Ids beyond the container's own range do not exist inside it.
    #[error("user or group id {given} of container {id} is outside 0..=65535")]
    OutsideRange {
        /// Whose user.
        id: ContainerId,
        /// The id asked for.
        given: u32,
    },
}

/// The name of a container: `[a-z0-9][a-z0-9.-]{0,63}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

impl ContainerId {
    /// Checks the form of `text`.
    pub fn new(text: impl Into<String>) -> Result<Self, SpecError> {
        let text = text.into();
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let good = (1..=64).contains(&text.len())
            && text.bytes().all(|b| letter(b) || b == b'.' || b == b'-')
            && text.bytes().next().is_some_and(letter);
        if good { Ok(Self(text)) } else { Err(SpecError::Id(text)) }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ContainerId {
    type Error = SpecError;
    fn try_from(text: String) -> Result<Self, SpecError> {
        Self::new(text)
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

/// Who the program runs as, in the container's own id range.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id inside.
    pub uid: u32,
    /// Primary group id inside.
    pub gid: u32,
    /// Supplementary groups inside.
    pub groups: Vec<u32>,
}

/// Most that goes between memory and a disk in a second; 0: no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoLimits {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub write_bytes: u64,
    /// Reads.
    pub read_operations: u64,
    /// Writes.
    pub write_operations: u64,
}

/// What a container may use at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Thousandths of a CPU.
    pub cpu_milli: u64,
    /// Share of the CPU when there is too little for all, 100 being usual, 1 to 10,000; 0: as `cpu_milli`, a CPU being 100.
    pub cpu_weight: u64,
    /// Memory including page cache, tmpfs and kernel memory charged to it.
    pub memory_bytes: u64,
    /// Processes and threads, the init among them.
    pub processes: u64,
    /// The writable layer, held in memory and charged to the container.
    pub scratch_bytes: u64,
    /// Kept output, both files of the rotation together.
    pub log_bytes: u64,
    /// Open files of each process.
    pub open_files: u64,
    /// Of the disk under the node's state folder.
    pub io: IoLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu_milli: 1000,
            cpu_weight: 0,
            memory_bytes: 256 << 20,
            processes: 256,
            scratch_bytes: 64 << 20,
            log_bytes: 4 << 20,
            open_files: 65_536,
            io: IoLimits::default(),
        }
    }
}

/// One container to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// Its name; unique in one runtime until forgotten.
    pub id: ContainerId,
    /// Network slots used by one tenant are never handed to another.
    pub tenant: String,
    /// What `hostname` says inside.
    pub hostname: String,
    /// The flattened, read-only tree of the image, ids as in the image.
    pub root: PathBuf,
    /// Program and arguments; a program without a slash is looked up in `PATH` of `env`.
    pub args: Vec<String>,
    /// `NAME=value`; `PATH` and `HOSTNAME` are added where missing.
    pub env: Vec<String>,
    /// Where the program starts; made if missing.
    pub working_dir: PathBuf,
    /// Who it runs as.
    pub user: User,
    /// What it may use.
    pub limits: Limits,
    /// Capabilities taken away from the default set, by number.
    pub drop_capabilities: Vec<u8>,
    /// System calls taken away from those that the default filter allows, by number.
    pub deny_calls: Vec<u32>,
    /// Capabilities beyond the default set, by number: of `names::more_capabilities`, all others are refused.
    pub add_capabilities: Vec<u8>,
    /// System calls beyond those of the default filter, by number: of `names::more_calls`, all others are refused.
    pub add_calls: Vec<u32>,
    /// Whether it may reach what lies beyond its node; nobody reaches it from there either way.
    pub egress: bool,
    /// Sent by whoever stops it politely; 15 where the image says nothing.
    pub stop_signal: i32,
}

impl ContainerSpec {
    /// A specification with defaults for everything but what must be said.
    pub fn new(id: ContainerId, root: impl Into<PathBuf>, args: &[&str]) -> Self {
        let hostname = id.as_str().chars().take(63).collect();
        Self {
            id,
            tenant: String::new(),
            hostname,
            root: root.into(),
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            env: Vec::new(),
            working_dir: PathBuf::from("/"),
            user: User::default(),
            limits: Limits::default(),
            drop_capabilities: Vec::new(),
            deny_calls: Vec::new(),
            add_capabilities: Vec::new(),
            add_calls: Vec::new(),
            egress: false,
            stop_signal: 15,
        }
    }

    /// Everything that can be refused without asking the kernel.
    pub fn check(&self) -> Result<(), SpecError> {
        self.check_names()?;
        self.check_strings()?;
        self.check_user()?;
        self.check_more()?;
        self.check_limits()
    }

    fn check_names(&self) -> Result<(), SpecError> {
        let letter = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'-';
        if !(1..=63).contains(&self.hostname.len()) || !self.hostname.bytes().all(letter) {
            return Err(SpecError::Hostname(self.hostname.clone()));
        }
        for (what, path) in [("root", &self.root), ("working directory", &self.working_dir)] {
            if !path.is_absolute() {
                return Err(SpecError::NotAbsolute { id: self.id.clone(), what, path: path.clone() });
            }
        }
        if self.args.first().is_none_or(String::is_empty) {
            return Err(SpecError::NoProgram(self.id.clone()));
        }
        Ok(())
    }

    fn check_strings(&self) -> Result<(), SpecError> {
        let nul = |what| SpecError::Nul { id: self.id.clone(), what };
        if self.args.iter().any(|a| a.contains('\0')) {
            return Err(nul("an argument"));
        }
        if self.env.iter().any(|e| e.contains('\0')) {
            return Err(nul("an environment entry"));
        }
        if self.working_dir.as_os_str().as_encoded_bytes().contains(&0) {
            return Err(nul("the working directory"));
        }
        match self.env.iter().find(|e| e.find('=').is_none_or(|at| at == 0)) {
            Some(entry) => Err(SpecError::Environment { id: self.id.clone(), entry: entry.clone() }),
            None => Ok(()),
        }
    }

    fn check_user(&self) -> Result<(), SpecError> {
        let ids = [self.user.uid, self.user.gid];
        match ids.iter().chain(&self.user.groups).find(|id| **id > 65_535) {
            Some(given) => Err(SpecError::OutsideRange { id: self.id.clone(), given: *given }),
            None => Ok(()),
        }
    }

    /// Whoever asks, and whatever an administrator allowed.
    fn check_more(&self) -> Result<(), SpecError> {
        let never = |what, number| SpecError::NeverGiven { id: self.id.clone(), what, number };
        let capability = |number: &&u8| !capability::MORE.iter().any(|(_, more)| more == *number);
        if let Some(number) = self.add_capabilities.iter().find(capability) {
            return Err(never("capability", (*number).into()));
        }
        let call = |number: &&u32| !seccomp::MORE.iter().any(|(_, more)| *more == i64::from(**number));
        if let Some(number) = self.add_calls.iter().find(call) {
            return Err(never("system call", *number));
        }
        let denied = |(_, number): &&(&str, i64)| self.deny_calls.iter().any(|denied| i64::from(*denied) == *number);
        match seccomp::NEEDED.iter().find(denied) {
            Some((name, number)) => Err(SpecError::Needed { id: self.id.clone(), name, number: *number as u32 }),
            None => Ok(()),
        }
    }

    fn check_limits(&self) -> Result<(), SpecError> {
        let l = &self.limits;
        let least = [
            // The kernel's smallest quota is 1 ms of a period of 100 ms.
            ("cpu_milli", l.cpu_milli, 10),
            // Below this the set-up itself is killed.
            ("memory_bytes", l.memory_bytes, 1 << 20),
            // The init and the program.
            ("processes", l.processes, 2),
            // The three files of /etc and the directories above them.
            ("scratch_bytes", l.scratch_bytes, 64 << 10),
            // Two files of at least one page.
            ("log_bytes", l.log_bytes, 8 << 10),
            // The init's pass by the numbers from 64 on, before it is executed.
            ("open_files", l.open_files, 72),
        ];
        match least.iter().find(|(_, given, least)| given < least) {
            Some((what, given, least)) => {
                Err(SpecError::TooSmall { id: self.id.clone(), what, given: *given, least: *least })
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ContainerSpec {
        let id = ContainerId::new("web.7-1").expect("a good id");
        ContainerSpec::new(id, "/images/x", &["/bin/app"])
    }

    #[test]
    fn ids_have_a_form() {
        for good in ["a", "0", "web-1.2", &"x".repeat(64)] {
            assert!(ContainerId::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "-a", "..", "A", "a/b", "a b", &"x".repeat(65)] {
            assert_eq!(ContainerId::new(bad), Err(SpecError::Id(bad.to_owned())));
        }
    }

    #[test]
    fn a_plain_specification_passes() {
        assert_eq!(spec().check(), Ok(()));
    }

    #[test]
    fn each_refusal_names_its_field() {
        type Change = fn(&mut ContainerSpec);
        let cases: [(&str, Change); 12] = [
            ("capability 21", |s| s.add_capabilities = vec![19, 21]),
            ("system call 165", |s| s.add_calls = vec![165]),
            ("exit_group", |s| s.deny_calls = vec![libc::SYS_getpid as u32, libc::SYS_exit_group as u32]),
            ("host name", |s| s.hostname = "a_b".into()),
            ("names no program", |s| s.args.clear()),
            ("root", |s| s.root = "images".into()),
            ("working directory", |s| s.working_dir = "x".into()),
            ("an argument", |s| s.args.push("a\0b".into())),
            ("is not NAME=value", |s| s.env.push("=x".into())),
            ("outside 0..=65535", |s| s.user.groups.push(65_536)),
            ("memory_bytes", |s| s.limits.memory_bytes = 1),
            ("processes", |s| s.limits.processes = 1),
        ];
        for (want, change) in cases {
            let mut s = spec();
            change(&mut s);
            let said = s.check().expect_err(want).to_string();
            assert!(said.contains(want), "{said} does not name {want}");
        }
    }
}
