//! The processes that hosts run: started inside, heard until they say that they serve, and then left to themselves.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::enter::{ENTER, HOLD, READY};
use crate::names::{ClusterName, HostName};
use crate::plan::{Host, Plan, REPLICA_SUBNET, Role};
use crate::state;

/// Where ingresses forward requests to each other.
const LINKS_PORT: u16 = 7443;
/// Where people and agents reach the controller.
const PORT: u16 = 7400;
/// Where the page is.
const PAGE_PORT: u16 = 7480;
/// How long a server may take until it serves. Agents give up by themselves when no controller answers for 60 s.
const PATIENCE: Duration = Duration::from_secs(90);

/// Why a server does not serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No process.
    #[error("cannot start {program}")]
    Start {
        /// What.
        program: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// It ended.
    #[error("{what} ended instead of serving; it said:\n{said}")]
    Ended {
        /// Which.
        what: String,
        /// The end of its log.
        said: String,
    },
    /// It says nothing.
    #[error("{what} does not serve within {} s; it said:\n{said}", PATIENCE.as_secs())]
    Silent {
        /// Which.
        what: String,
        /// The end of its log.
        said: String,
    },
    /// It says something else.
    #[error("{what} said something else than that it serves: {said:?}")]
    Strange {
        /// Which.
        what: String,
        /// What it said.
        said: String,
    },
    /// Its pipe.
    #[error("cannot hear {what}")]
    Hear {
        /// Which.
        what: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Its log.
    #[error(transparent)]
    State(#[from] state::Error),
}

/// A process that has been started and has not said anything yet.
#[derive(Debug)]
pub struct Starting {
    what: String,
    log: PathBuf,
    process: Child,
    out: ChildStdout,
}

/// What a controller says when it serves.
#[derive(Debug, serde::Deserialize)]
pub struct Greeting {
    /// The administrator's file.
    pub credential: PathBuf,
    /// The page.
    pub dashboard: String,
    /// With what agents join.
    pub token: Option<String>,
}

/// `address:port` of each member.
pub fn controller(plan: &Plan) -> Vec<String> {
    plan.of(Role::Member).map(|host| format!("{}:{PORT}", host.address)).collect()
}

/// Starts the process that holds a namespace.
pub fn hold(program: &Path, cluster: &ClusterName, host: &HostName) -> Result<Starting, Error> {
    let log = cluster.folder().join(format!("{host}.log"));
    let mut command = Command::new(program);
    command.arg(HOLD).arg(cluster.to_string()).arg(host.as_str());
    start(command, format!("the holder of {host}"), log)
}

/// Starts the controller or the agent of a host.
pub fn serve(program: &Path, plan: &Plan, host: &Host, token: Option<&str>) -> Result<Starting, Error> {
    let folder = plan.folder(&host.name);
    state::make_folder(&folder)?;
    let mut command = Command::new(program);
    command.arg(ENTER).arg(plan.name.to_string()).arg(host.name.as_str()).arg(program);
    command.args(match host.role {
        Role::Member => member(plan, host),
        Role::Agent => agent(plan, host),
    });
    command.env_remove("BELLOWS_TOKEN");
    if let Some(token) = token {
        command.env("BELLOWS_TOKEN", token);
    }
    let verb = host.role.verb();
    start(command, format!("the {verb} of {}", host.name), log(plan, host))
}

/// Where a host's server writes about itself.
pub fn log(plan: &Plan, host: &Host) -> PathBuf {
    plan.folder(&host.name).join(format!("{}.log", host.role.verb()))
}

fn member(plan: &Plan, host: &Host) -> Vec<String> {
    let address = host.address;
    let state = plan.folder(&host.name).join("controller").display().to_string();
    let (listen, page) = (format!("{address}:{PORT}"), format!("{address}:{PAGE_PORT}"));
    let (name, address) = (plan.name.to_string(), address.to_string());
    let words = ["controller", "--output", "json", "--state", &state, "--cluster", &name];
    let reached = ["--listen", &listen, "--advertise", &address, "--dashboard", &page];
    words.iter().chain(&reached).map(|word| (*word).to_owned()).collect()
}

fn agent(plan: &Plan, host: &Host) -> Vec<String> {
    let state = plan.folder(&host.name).join("agent").display().to_string();
    let (cgroup, users) = (plan.cgroup(&host.name), host.uid_base.to_string());
    let words = ["agent", "--output", "json", "--name", host.name.as_str(), "--state", &state, "--cgroup", &cgroup];
    let links = format!("{}:{LINKS_PORT}", host.address);
    let more = ["--uid-base", &users, "--subnet", REPLICA_SUBNET, "--links", &links];
    let mut words: Vec<String> = words.iter().chain(&more).map(|word| (*word).to_owned()).collect();
    if let Some(size) = host.size {
        words.extend(["--cpu".to_owned(), format!("{}m", size.cpu_milli)]);
        words.extend(["--memory".to_owned(), size.memory_bytes.to_string()]);
    }
    words.extend(host.labels.iter().flat_map(|(key, value)| ["--label".to_owned(), format!("{key}={value}")]));
    words.extend(controller(plan).into_iter().flat_map(|address| ["--controller".to_owned(), address]));
    words
}

fn start(mut command: Command, what: String, log: PathBuf) -> Result<Starting, Error> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(state::log(&log)?);
    let program = PathBuf::from(command.get_program());
    let mut process = command.spawn().map_err(|source| Error::Start { program, source })?;
    let out = process.stdout.take().expect("its output was asked for");
    Ok(Starting { what, log, process, out })
}

impl Starting {
    /// Waits until it says that it serves.
    pub fn greeting<T: serde::de::DeserializeOwned>(self) -> Result<T, Error> {
        let what = self.what.clone();
        let said = self.first_line()?;
        serde_json::from_str(&said).map_err(|_| Error::Strange { what, said })
    }

    /// Waits until it holds its namespace.
    pub fn held(self) -> Result<(), Error> {
        let what = self.what.clone();
        let said = self.first_line()?;
        if said == READY { Ok(()) } else { Err(Error::Strange { what, said }) }
    }

    fn first_line(mut self) -> Result<String, Error> {
        let deadline = Instant::now() + PATIENCE;
        let mut line = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            if !self.wait(deadline)? {
                return Err(Error::Silent { said: self.said(), what: self.what });
            }
            match self.out.read(&mut buffer) {
                Ok(0) => return Err(self.ended()),
                Ok(count) => line.extend(&buffer[..count]),
                Err(source) => return Err(Error::Hear { what: self.what, source }),
            }
            if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
        }
    }

    fn wait(&self, deadline: Instant) -> Result<bool, Error> {
        let left = deadline.saturating_duration_since(Instant::now());
        let patience = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.out.as_fd(), PollFlags::POLLIN)], patience) {
            Ok(count) => Ok(count > 0),
            Err(nix::errno::Errno::EINTR) => self.wait(deadline),
            Err(errno) => Err(Error::Hear { what: self.what.clone(), source: errno.into() }),
        }
    }

    /// Waits for the process, so that its last words are written.
    fn ended(mut self) -> Error {
        match self.process.wait() {
            Ok(_) => Error::Ended { said: self.said(), what: self.what },
            Err(source) => Error::Hear { what: self.what, source },
        }
    }

    fn said(&self) -> String {
        state::last_lines(&self.log, 8)
    }
}
