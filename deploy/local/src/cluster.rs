//! What the verbs do: make a local cluster, look at it, hurt it, end it.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::faults::{Faults, Slow};
use crate::names::{CGROUP_PREFIX, ClusterName, FOLDER, HostName, nearest};
use crate::plan::{Host, Plan, Range, Role, UnknownHost};
use crate::processes::{Pid, What};
use crate::servers::{self, Greeting};
use crate::{cgroup, enter, network, processes, state};

/// How long a process that was told to end may take before it is killed.
const GRACE: Duration = Duration::from_secs(10);

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is one already.
    #[error("there is a local cluster {0} already")]
    Taken(ClusterName),
    /// There is none.
    #[error("there is no local cluster {name}{}", others(near.as_deref(), all))]
    Unknown {
        /// What was asked for.
        name: ClusterName,
        /// What was meant, perhaps.
        near: Option<String>,
        /// Those that there are.
        all: Vec<String>,
    },
    /// No such host.
    #[error(transparent)]
    Host(#[from] UnknownHost),
    /// A host and itself.
    #[error("{0} cannot be cut from itself")]
    Itself(HostName),
    /// Somebody wants to stop.
    #[error("told to end before all was up")]
    Interrupted,
    /// `nft` is not there.
    #[error("the program nft is missing")]
    NoNft,
    /// `nft` could not be run.
    #[error("cannot run nft")]
    RunNft(#[source] io::Error),
    /// `nft` said no.
    #[error("nft refuses the rules: {0}")]
    Rules(String),
    /// Processes that do not end.
    #[error("{left} processes on {host} do not end")]
    Remain {
        /// Where.
        host: HostName,
        /// How many.
        left: usize,
    },
    /// The controller has no token for agents.
    #[error("the controller gave no token for agents to join with; its log is {0}")]
    NoToken(PathBuf),
    /// Making the credential findable.
    #[error("cannot make {path} lead to the credential")]
    Credential {
        /// The link.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Cgroups.
    #[error(transparent)]
    Cgroup(#[from] cgroup::Error),
    /// Namespaces.
    #[error(transparent)]
    Enter(#[from] enter::Error),
    /// Links.
    #[error(transparent)]
    Network(#[from] network::Error),
    /// Servers.
    #[error(transparent)]
    Server(#[from] servers::Error),
    /// Files.
    #[error(transparent)]
    State(#[from] state::Error),
}

fn others(near: Option<&str>, all: &[String]) -> String {
    match (near, all) {
        (Some(near), _) => format!("; did you mean {near}?"),
        (None, []) => String::new(),
        (None, all) => format!("; there are {}", all.join(", ")),
    }
}

/// A local cluster.
#[derive(Debug)]
pub struct Cluster {
    /// Who is who.
    pub plan: Plan,
    program: PathBuf,
}

/// A host as it is.
#[derive(Debug)]
pub struct Seen {
    /// As planned.
    pub host: Host,
    /// Its controller or agent, if that is alive.
    pub server: Option<Pid>,
    /// All its processes, replicas' too.
    pub processes: usize,
    /// From whom it is cut off: an empty list means everybody.
    pub cut: Option<Vec<HostName>>,
    /// How bad its link is.
    pub slow: Slow,
}

impl Cluster {
    /// Makes the hosts of `plan`, with nothing running on them. `go_on` is asked before each step. What was made stays, also on failure: see [`end`].
    pub fn make(
        plan: Plan,
        range: Option<Range>,
        program: &Path,
        go_on: &(dyn Fn() -> bool + Sync),
    ) -> Result<Self, Error> {
        let name = plan.name.clone();
        let holders = enter::holders_cgroup(&name);
        if exists(&name) || !cgroup::make(&holders)? {
            return Err(Error::Taken(name));
        }
        let step = || if go_on() { Ok(()) } else { Err(Error::Interrupted) };
        state::make_folder(&name.folder())?;
        servers::hold(program, &name, &HostName::wire())?.held()?;
        step()?;
        let plan = plan.within(network::lay_wire(&name, range)?);
        state::keep_plan(&plan)?;
        let mut holders = Vec::new();
        for host in &plan.hosts {
            step()?;
            cgroup::make(&enter::system_cgroup(&name, &host.name))?;
            holders.push(servers::hold(program, &name, &host.name)?);
        }
        holders.into_iter().try_for_each(servers::Starting::held)?;
        for host in &plan.hosts {
            step()?;
            network::attach(&name, host)?;
        }
        Ok(Self { plan, program: program.to_owned() })
    }

    /// One that was made earlier.
    pub fn open(name: &ClusterName, program: &Path) -> Result<Self, Error> {
        match state::plan(name) {
            Ok(plan) => Ok(Self { plan, program: program.to_owned() }),
            Err(error) if error.is_absence() && !exists(name) => Err(unknown(name)),
            Err(error) => Err(error.into()),
        }
    }

    /// Where verbs find the administrator's credential.
    pub fn credential(&self) -> PathBuf {
        self.plan.name.folder().join("credential.json")
    }

    /// Starts the controllers; returns what the last one said when all serve.
    pub fn start_members(&self) -> Result<Greeting, Error> {
        let mut last = None;
        for host in self.plan.of(Role::Member) {
            last = Some(self.start_member(host)?);
        }
        Ok(last.expect("every plan has a member"))
    }

    fn start_member(&self, host: &Host) -> Result<Greeting, Error> {
        let greeting: Greeting = servers::serve(&self.program, &self.plan, host, None)?.greeting()?;
        if let Some(token) = &greeting.token {
            state::keep_token(&self.plan.name, token)?;
        }
        self.link_credential(&greeting.credential)?;
        Ok(greeting)
    }

    fn link_credential(&self, credential: &Path) -> Result<(), Error> {
        let path = self.credential();
        match std::os::unix::fs::symlink(credential, &path) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(Error::Credential { path, source }),
            _ => Ok(()),
        }
    }

    /// Starts all agents at once; returns when each has joined.
    pub fn start_agents(&self) -> Result<(), Error> {
        let token = state::token(&self.plan.name)?;
        let token = token.ok_or_else(|| Error::NoToken(self.plan.name.folder()))?;
        let start = |host| servers::serve(&self.program, &self.plan, host, Some(&token));
        let started: Vec<_> = self.plan.of(Role::Agent).map(start).collect::<Result<_, _>>()?;
        for agent in started {
            let _greeting: serde_json::Value = agent.greeting()?;
        }
        Ok(())
    }

    /// Every host as it is now.
    pub fn look(&self) -> Result<Vec<Seen>, Error> {
        let faults = state::faults(&self.plan.name)?;
        Ok(self.plan.hosts.iter().map(|host| self.look_at(host, &faults)).collect())
    }

    fn look_at(&self, host: &Host, faults: &Faults) -> Seen {
        let processes = cgroup::members(&self.plan.cgroup(&host.name));
        let cut = faults.cut_off(&host.name).map(|hosts| hosts.into_iter().cloned().collect());
        let server = self.processes(host, server_of(host.role)).first().copied();
        let slow = faults.slow.get(&host.name).copied().unwrap_or_default();
        Seen { host: host.clone(), server, processes: processes.len(), cut, slow }
    }

    /// Nothing passes between two hosts, or between one and everybody.
    pub fn cut(&self, one: &str, other: Option<&str>) -> Result<(), Error> {
        let one = &self.plan.host(one)?.name;
        let other = other.map(|other| self.plan.host(other)).transpose()?.map(|host| &host.name);
        if other == Some(one) {
            return Err(Error::Itself(one.clone()));
        }
        self.change_faults(|faults| faults.cut(one, other))
    }

    /// A host's link gets bad.
    pub fn slow(&self, host: &str, how: Slow) -> Result<(), Error> {
        let host = &self.plan.host(host)?.name;
        self.change_faults(|faults| faults.slow(host, how))
    }

    /// All is well again: with one host, or with all.
    pub fn heal(&self, host: Option<&str>) -> Result<(), Error> {
        let host = host.map(|host| self.plan.host(host)).transpose()?.map(|host| &host.name);
        self.change_faults(|faults| faults.heal(host))
    }

    fn change_faults(&self, change: impl FnOnce(&mut Faults)) -> Result<(), Error> {
        let name = &self.plan.name;
        let _lock = state::lock(name)?;
        let before = state::faults(name)?;
        let mut faults = before.clone();
        change(&mut faults);
        // Remembered first: whatever happens next, the next change puts everything right.
        state::keep_faults(name, &faults)?;
        apply_rules(name, &faults)?;
        let rate = |faults: &Faults, host| faults.slow.get(host).and_then(|slow| slow.rate_bits);
        for Host { name: host, .. } in &self.plan.hosts {
            if rate(&before, host) != rate(&faults, host) {
                network::pace(name, host, rate(&faults, host))?;
            }
        }
        Ok(())
    }

    /// Sends a signal to processes of a host and waits until they have ended. How many were meant?
    pub fn kill(&self, host: &str, what: What, signal: Signal) -> Result<usize, Error> {
        let host = self.plan.host(host)?;
        let pids = self.processes(host, what);
        match processes::signal_and_wait(&pids, signal, GRACE) {
            0 => Ok(pids.len()),
            left => Err(Error::Remain { host: host.name.clone(), left }),
        }
    }

    fn processes(&self, host: &Host, what: What) -> BTreeSet<Pid> {
        // A replica may call itself what it likes; it is not where the host's own servers are.
        let below = match what {
            What::Agent | What::Controller => enter::system_cgroup(&self.plan.name, &host.name),
            What::Launchers | What::All => self.plan.cgroup(&host.name),
        };
        what.among(&cgroup::members(&below))
    }

    /// Ends the controller or the agent of a host, if it runs, and starts it again. Replicas run on. Returns when it serves; none if that was
    /// its last word.
    pub fn restart(&self, host: &str) -> Result<Option<Pid>, Error> {
        let host = self.plan.host(host)?;
        let _lock = state::lock(&self.plan.name)?;
        let running = self.processes(host, server_of(host.role));
        if processes::signal_and_wait(&running, Signal::TERM, GRACE) > 0 {
            processes::kill_and_wait(&running, GRACE);
        }
        match host.role {
            Role::Member => self.start_member(host).map(drop)?,
            Role::Agent => {
                let token = state::token(&self.plan.name)?;
                let started = servers::serve(&self.program, &self.plan, host, token.as_deref())?;
                let _greeting: serde_json::Value = started.greeting()?;
            }
        }
        Ok(self.processes(host, server_of(host.role)).first().copied())
    }
}

fn server_of(role: Role) -> What {
    match role {
        Role::Member => What::Controller,
        Role::Agent => What::Agent,
    }
}

/// Is anything of a cluster of this name on the machine?
pub fn exists(name: &ClusterName) -> bool {
    cgroup::exists(&name.cgroup()) || name.folder().exists()
}

/// Names of all local clusters of which there is anything.
pub fn all() -> Vec<String> {
    let mut names = cgroup::with_prefix(CGROUP_PREFIX);
    let folders = std::fs::read_dir(FOLDER).into_iter().flatten().flatten();
    names.extend(folders.filter_map(|entry| entry.file_name().into_string().ok()));
    names.into_iter().collect()
}

fn unknown(name: &ClusterName) -> Error {
    let all = all();
    let near = nearest(&name.to_string(), all.iter().map(String::as_str)).map(str::to_owned);
    Error::Unknown { name: name.clone(), near, all }
}

/// Ends everything of this name, however it came to be and whatever is known of it.
pub fn end(name: &ClusterName) -> Result<(), Error> {
    let known = exists(name);
    cgroup::end(&name.cgroup())?;
    let linked = network::remove_uplink(name)?;
    let kept = state::remove(name)?;
    if known || linked || kept { Ok(()) } else { Err(unknown(name)) }
}

/// Fails when the program that makes rules is not there.
pub fn need_nft() -> Result<(), Error> {
    nft().arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().map_err(|_| Error::NoNft).map(drop)
}

/// Found also where the path of ordinary people does not lead.
fn nft() -> Command {
    let places = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"];
    Command::new(places.into_iter().find(|place| Path::new(place).exists()).unwrap_or("nft"))
}

fn apply_rules(name: &ClusterName, faults: &Faults) -> Result<(), Error> {
    let wire = enter::namespace(name, &HostName::wire())?;
    enter::inside(&wire, || run_nft(&faults.rules()))?
}

fn run_nft(rules: &str) -> Result<(), Error> {
    let mut command = nft();
    command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut process = command.spawn().map_err(Error::RunNft)?;
    let mut input = process.stdin.take().expect("its input was asked for");
    input.write_all(rules.as_bytes()).map_err(Error::RunNft)?;
    drop(input);
    let output = process.wait_with_output().map_err(Error::RunNft)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Rules(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
