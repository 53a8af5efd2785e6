//! `bench adopt`: copies that serve while their agent, or its launchers, are killed or upgraded. None may stop; the next agent has all of them within a
//! second; how those ended that ended meanwhile is known, to the last line they said.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bellows_local::processes;
use bellows_proto::operator as wire;
use bellows_proto::types::{ReplicaId, ended};
use clap::Args;

use super::lab::Lab;
use super::parts::Wish;
use super::rows::Row;
use crate::failure::Failure;
use crate::globals::Globals;
use crate::output::views;

/// Name of the app and of its image.
const NAME: &str = "bench-adopt";
/// Where its copies listen.
const PORT: u16 = 8080;
/// What a copy asks for.
const CPU_MILLI: u64 = 10;
/// From the start of the executable until the controller has heard of all copies: seconds.
const ADOPTED_S: f64 = 1.0;
/// So many end by themselves while nobody watches, with these codes.
const ENDING: usize = 10;
const FIRST_CODE: usize = 101;
/// A copy on the same machine answers in microseconds, or not at all.
const ANSWER: Duration = Duration::from_secs(1);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Whoever is not there by then does not come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Kill an agent, then its launchers, then upgrade it, with copies serving all the while
///
/// Starts a controller and an agent of its own and ends them. Needs root.
#[derive(Args, Debug)]
pub struct Arguments {
    /// How many copies
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(30..=1000))]
    copies: u32,
}

/// Rows for each of the three.
pub async fn run(arguments: Arguments, globals: &Globals) -> Result<Vec<Row>, Failure> {
    crate::dev::need_root("`bellows bench adopt`")?;
    let copies = arguments.copies;
    let lab = Lab::start(globals, Wish::one_node(u64::from(copies + 1) * CPU_MILLI + 1000)).await?;
    let mut served = Served { lab, copies, mark: rand::random(), round: 0 };
    served.declare().await?;
    let mut rows = Vec::new();
    for blow in [Blow::Kill, Blow::Upgrade, Blow::Launchers] {
        rows.extend(served.suffer(blow).await?);
    }
    Ok(rows)
}

/// What happens to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    Kill,
    Upgrade,
    Launchers,
}

impl Blow {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "agent killed",
            Self::Upgrade => "agent upgraded",
            Self::Launchers => "launchers killed",
        }
    }
}

/// A process, for good: its number alone may be another's a moment later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: u32,
    started: u64,
}

/// A copy that was told to end.
#[derive(Debug)]
struct Doomed {
    id: ReplicaId,
    process: Process,
    code: usize,
}

/// The app, and where it runs.
struct Served {
    lab: Lab,
    copies: u32,
    /// In the environment of its programs, and of no others on the machine.
    mark: u64,
    round: usize,
}

impl Served {
    async fn declare(&mut self) -> Result<(), Failure> {
        self.lab.tiny_image(NAME).await?;
        let (copies, mark) = (self.copies, self.mark);
        let yaml = format!(
            "name: {NAME}\nimage: {NAME}\ncommand: [/bin/payload, serve, \"{PORT}\"]\nenv: {{BENCH: \"{mark}\"}}\nreplicas: {copies}\n\
             ports: [{{name: main, port: {PORT}, protocol: tcp}}]\n\
             resources: {{cpu: {CPU_MILLI}m, memory: 8MiB, processes: 8, scratch: 1MiB, log: 64KiB}}\n"
        );
        self.lab.declare(&yaml).await
    }

    /// One blow, what was seen of it, and everything as before.
    async fn suffer(&mut self, blow: Blow) -> Result<Vec<Row>, Failure> {
        let before = self.lab.replicas().await?;
        let processes = self.processes();
        match blow {
            Blow::Kill => self.lab.parts.agents[0].kill(),
            Blow::Upgrade => self.lab.parts.agents[0].upgrade(self.lab.parts.state.path())?,
            Blow::Launchers => drop(processes::kill_and_wait(&self.lab.parts.launchers(), PATIENCE)),
        }
        let answered = before.iter().filter(|replica| dial(replica, &[]).is_ok()).count();
        let doomed = self.tell_to_end(&before, &processes)?;
        let mut rows = Vec::new();
        if blow != Blow::Launchers {
            let missed = |all: &[wire::Replica]| all.iter().all(|replica| replica.unknown);
            self.lab.until(LOOK_EVERY, "the controller to miss the node", missed).await?;
            rows.push(self.adopted(blow, &doomed).await?);
        }
        let known = self.known(&doomed).await?;
        let survivors = processes.iter().filter(|(id, _)| doomed.iter().all(|one| views::replica_id(&one.id) != **id));
        let stayed = survivors.filter(|(_, process)| is_there(**process)).count();
        let name = |what: &str| format!("{}: {what}", blow.name());
        let all = before.len() as f64;
        rows.extend([
            Row::new(name("copies that answered meanwhile"), answered as f64, "copies").at_least(all),
            Row::new(name("copies with the same process afterwards"), stayed as f64, "copies")
                .at_least(all - doomed.len() as f64),
            Row::new(name("copies ended meanwhile whose code and last line are known"), known as f64, "copies")
                .at_least(doomed.len() as f64),
        ]);
        if blow == Blow::Launchers {
            rows.push(Row::new(name("a copy more, through a new one"), self.one_more().await?, "s"));
        }
        Ok(rows)
    }

    /// Seconds from the start of the next agent until the controller has heard of every copy that lives.
    async fn adopted(&mut self, blow: Blow, doomed: &[Doomed]) -> Result<Row, Failure> {
        let began = Instant::now();
        self.lab.parts.agents[0].begin()?;
        let wanted = self.copies as usize - doomed.len();
        let ended = |replica: &wire::Replica| doomed.iter().any(|one| Some(one.id) == replica.id);
        let there = |replica: &&wire::Replica| replica.ready && !replica.unknown && !ended(replica);
        self.lab.until(LOOK_EVERY, "the next agent", |all| all.iter().filter(there).count() == wanted).await?;
        let seconds = began.elapsed().as_secs_f64();
        let name = format!("{}: start of the next until all {wanted} alive are ready at the controller", blow.name());
        Ok(Row::new(name, seconds, "s").at_most(ADOPTED_S))
    }

    /// Others each time: whoever ends often is started again later.
    fn tell_to_end(
        &mut self,
        all: &[wire::Replica],
        processes: &BTreeMap<String, Process>,
    ) -> Result<Vec<Doomed>, Failure> {
        let chosen = all.iter().skip(self.round * ENDING).take(ENDING);
        self.round += 1;
        let mut doomed = Vec::new();
        for (code, replica) in (FIRST_CODE..).zip(chosen) {
            let id = replica.id.unwrap_or_default();
            let told = dial(replica, code.to_string().as_bytes());
            told.map_err(|error| Failure::failed(format!("telling {} to end: {error}", views::replica_id(&id))))?;
            let process = processes.get(&views::replica_id(&id)).copied();
            let process =
                process.ok_or_else(|| Failure::failed(format!("{} has no process", views::replica_id(&id))))?;
            doomed.push(Doomed { id, process, code });
        }
        let began = Instant::now();
        while doomed.iter().any(|one| is_there(one.process)) {
            if began.elapsed() > PATIENCE {
                return Err(Failure::failed("copies that were told to end run on"));
            }
            std::thread::yield_now();
        }
        Ok(doomed)
    }

    /// When all are there again: how many of these have their code in their row, and their last line in the log.
    async fn known(&mut self, doomed: &[Doomed]) -> Result<usize, Failure> {
        let wanted = self.copies as usize;
        // An agent that lives hears of an end a moment later: until then the copy is as ready as before.
        let ended = |replica: &&wire::Replica| doomed.iter().any(|one| Some(one.id) == replica.id);
        let again = |all: &[wire::Replica]| {
            all.iter().filter(|replica| replica.ready).count() == wanted
                && all.iter().filter(ended).all(|replica| replica.last_exit.is_some())
        };
        self.lab.until(LOOK_EVERY, "all copies", again).await?;
        let rows = self.lab.replicas().await?;
        let mut known = 0;
        for one in doomed {
            let row = rows.iter().find(|row| row.id == Some(one.id));
            let exit = row.and_then(|row| row.last_exit.as_ref()?.exit);
            let code = exit == Some(ended::Exit::Code(one.code as i32));
            if code && self.lab.previous_log(one.id).await?.contains(&format!("last words {}", one.code)) {
                known += 1;
            }
        }
        Ok(known)
    }

    async fn one_more(&mut self) -> Result<f64, Failure> {
        let began = Instant::now();
        let generation = self.lab.scale(NAME, self.copies + 1).await?;
        self.lab.settled(NAME, generation).await?;
        Ok(began.elapsed().as_secs_f64())
    }

    /// The program of each copy, by the copy's id.
    fn processes(&self) -> BTreeMap<String, Process> {
        let mark = format!("BENCH={}", self.mark);
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        all.filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let environment = fs::read(entry.path().join("environ")).ok()?;
            let environment = String::from_utf8_lossy(&environment).into_owned();
            let ours = environment.split('\0').any(|one| one == mark);
            let id = environment.split('\0').find_map(|one| one.strip_prefix("BELLOWS_REPLICA="))?;
            ours.then_some((id.to_owned(), Process { pid, started: started(pid)? }))
        })
        .collect()
    }
}

/// In its network: what it answers.
fn dial(replica: &wire::Replica, say: &[u8]) -> std::io::Result<()> {
    let address = replica.address.parse().map_err(std::io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, PORT), ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    let mut answer = [0; 6];
    stream.read_exact(&mut answer)?;
    stream.write_all(say)
}

/// When it was started, in clock ticks after boot; nothing for who is gone, or has ended.
fn started(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    fields.next().filter(|state| *state != "Z")?;
    fields.nth(18)?.parse().ok()
}

fn is_there(process: Process) -> bool {
    started(process.pid) == Some(process.started)
}
