//! Where the runtime's calls happen: a few threads, because every call blocks. The core keeps it at one action per replica at a time, so the queue is
//! bounded by the number of replicas. A freeze may be beside it, and whatever is ordered after that overtakes it: see [`Queue::overtake_freeze`].

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use bellows_agent_core::input::{Counters, LaunchFailure, Reading};
use bellows_agent_core::{Bytes, Exit, Input, ReplicaId};
use bellows_proto::types::AppSpec;
use bellows_runtime::handle::{self, Error, Running};
use bellows_runtime::{ContainerId, ContainerSpec};
use nix::errno::Errno;
use tokio::sync::mpsc;

use crate::attempts::Attempts;
use crate::containers::{Containers, container};
use crate::exits::Exits;
use crate::images::{ImageError, Images};
use crate::launch::{SIGTERM, container_spec};
use crate::news::{FreezeAnswer, News};

/// One call, or a few, of the runtime.
pub(crate) enum Job {
    Launch {
        replica: ReplicaId,
        attempt: u32,
        spec: Arc<AppSpec>,
    },
    Stop {
        replica: ReplicaId,
        attempt: u32,
        spec: Option<Arc<AppSpec>>,
    },
    Kill {
        replica: ReplicaId,
        attempt: u32,
    },
    Reap {
        replica: ReplicaId,
        attempt: u32,
    },
    Forget {
        replica: ReplicaId,
        attempt: u32,
    },
    Freeze {
        replica: ReplicaId,
        attempt: u32,
        /// Which wish it is.
        ticket: u64,
        /// Whoever waits for it.
        answer: Option<FreezeAnswer>,
    },
    Sample {
        replica: ReplicaId,
        attempt: u32,
    },
    /// The node, and all of these.
    Measure(Vec<(ReplicaId, u32)>),
}

/// Jobs in order.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

#[derive(Default)]
struct QueueState {
    jobs: VecDeque<Job>,
    /// Under way in some thread.
    freezing: Vec<Freezing>,
    closed: bool,
}

struct Freezing {
    replica: ReplicaId,
    ticket: u64,
    overtaken: bool,
}

impl Queue {
    pub(crate) fn push(&self, job: Job) {
        self.lock().jobs.push_back(job);
        self.changed.notify_one();
    }

    /// To be called before it is ordered to go on or to end: a freeze that was ordered earlier, and has not happened, does not stand. Whoever waits for it is
    /// told.
    pub(crate) fn overtake_freeze(&self, replica: ReplicaId) {
        let mut state = self.lock();
        state.freezing.iter_mut().filter(|one| one.replica == replica).for_each(|one| one.overtaken = true);
        let is_one = |job: &Job| matches!(job, Job::Freeze { replica: who, .. } if *who == replica);
        let (dropped, kept): (VecDeque<Job>, VecDeque<Job>) = match state.jobs.iter().any(is_one) {
            true => std::mem::take(&mut state.jobs).into_iter().partition(is_one),
            false => return,
        };
        state.jobs = kept;
        drop(state);
        for job in dropped {
            if let Job::Freeze { replica, attempt, answer: Some(answer), .. } = job {
                drop(answer.send(Err(chain(&Error::Overtaken(container(replica, attempt))))));
            }
        }
    }

    /// Whether a freeze that is under way was not overtaken.
    fn stands(&self, ticket: u64) -> bool {
        self.lock().freezing.iter().any(|one| one.ticket == ticket && !one.overtaken)
    }

    /// A freeze is over.
    fn frozen(&self, ticket: u64) {
        self.lock().freezing.retain(|one| one.ticket != ticket);
    }

    /// Whoever waits goes home; what is queued is left undone.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn pop(&self) -> Option<Job> {
        let waiting = |state: &mut QueueState| state.jobs.is_empty() && !state.closed;
        let mut state = self.changed.wait_while(self.lock(), waiting).unwrap_or_else(PoisonError::into_inner);
        let job = if state.closed { None } else { state.jobs.pop_front() };
        if let Some(Job::Freeze { replica, ticket, .. }) = &job {
            state.freezing.push(Freezing { replica: *replica, ticket: *ticket, overtaken: false });
        }
        job
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the threads work with.
pub(crate) struct Worker {
    pub(crate) node: String,
    pub(crate) containers: Arc<dyn Containers>,
    pub(crate) images: Arc<Images>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) exits: Arc<Exits>,
    pub(crate) attempts: Arc<Attempts>,
    pub(crate) news: mpsc::Sender<News>,
    /// Ended attempts whose logs are kept a little longer than the leader asks.
    pub(crate) kept: Mutex<VecDeque<ContainerId>>,
}

/// Logs of this many acknowledged attempts stay readable.
const KEPT_LOGS: usize = 64;

/// A launch waits for its launcher most of the time, so more threads than CPUs; beyond this, bursts only queue in the kernel.
fn thread_count() -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    (2 * cpus + 2).min(16)
}

/// Starts the threads.
pub(crate) fn start(worker: Worker) -> std::io::Result<Vec<JoinHandle<()>>> {
    let worker = Arc::new(worker);
    let one = |number: usize| {
        let worker = worker.clone();
        std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || worker.run())
    };
    (0..thread_count()).map(one).collect()
}

impl Worker {
    fn run(&self) {
        while let Some(job) = self.queue.pop() {
            self.work(job);
        }
    }

    fn work(&self, job: Job) {
        match job {
            Job::Launch { replica, attempt, spec } => self.launch(replica, attempt, &spec),
            Job::Stop { replica, attempt, spec } => self.stop(replica, attempt, spec.as_deref()),
            Job::Kill { replica, attempt } => self.kill(replica, attempt),
            Job::Reap { replica, attempt } => self.reap(replica, attempt),
            Job::Forget { replica, attempt } => self.forget(replica, attempt),
            Job::Freeze { replica, attempt, ticket, answer } => self.freeze(replica, attempt, ticket, answer),
            Job::Sample { replica, attempt } => {
                let readings = vec![self.read(replica, attempt)];
                self.tell(Input::Sampled { readings });
            }
            Job::Measure(attempts) => self.measure(attempts),
        }
    }

    fn tell(&self, input: Input) {
        self.send(News::Core(input));
    }

    /// The driver is gone only when the agent is going: then nobody needs to know.
    fn send(&self, news: News) {
        if self.news.blocking_send(news).is_err() {
            tracing::debug!("news after the end");
        }
    }

    fn launch(&self, replica: ReplicaId, attempt: u32, spec: &AppSpec) {
        match self.try_launch(replica, attempt, spec) {
            Ok(running) => {
                self.attempts.begun(replica, attempt);
                // Told before it is watched, so that its end never comes before its beginning.
                self.tell(Input::Launched { replica, attempt, address: running.address.to_string() });
                self.exits.watch(replica, attempt, running.pidfd);
            }
            Err(failure) => {
                tracing::warn!(%replica, attempt, ?failure, "launch failed");
                self.tell(Input::LaunchFailed { replica, attempt, failure });
            }
        }
    }

    fn try_launch(&self, replica: ReplicaId, attempt: u32, spec: &AppSpec) -> Result<Running, LaunchFailure> {
        let image = self.images.ready(&spec.image_digest).map_err(|error| image_failure(&error))?;
        let spec: ContainerSpec = container_spec(container(replica, attempt), replica, &self.node, spec, &image);
        self.containers.launch(&spec).map_err(|error| launch_failure(&error))
    }

    fn stop(&self, replica: ReplicaId, attempt: u32, spec: Option<&AppSpec>) {
        let image = spec.and_then(|spec| self.images.ready(&spec.image_digest).ok());
        let signal = image.and_then(|image| image.config.stop_signal).unwrap_or(SIGTERM);
        let id = container(replica, attempt);
        log_failure("signal", &id, self.containers.signal(&id, signal));
    }

    fn kill(&self, replica: ReplicaId, attempt: u32) {
        let id = container(replica, attempt);
        log_failure("kill", &id, self.containers.kill(&id));
    }

    /// Whoever waited may have gone.
    fn freeze(&self, replica: ReplicaId, attempt: u32, ticket: u64, answer: Option<FreezeAnswer>) {
        let id = container(replica, attempt);
        let done = self.containers.freeze(&id, &|| self.queue.stands(ticket));
        let overtaken = !self.queue.stands(ticket);
        self.queue.frozen(ticket);
        if done.is_err() && !overtaken {
            // Or it would count as frozen, and not be asked how it is.
            self.tell(Input::Freeze { replica, frozen: false, force: false, ticket: 0 });
        }
        drop(answer.map(|answer| answer.send(done.map_err(|error| chain(&error)))));
    }

    fn reap(&self, replica: ReplicaId, attempt: u32) {
        let id = container(replica, attempt);
        let exit = match self.containers.reap(&id) {
            Ok(ended) => exit(ended.exit),
            Err(error) => {
                tracing::error!(container = %id, error = chain(&error), "cannot collect how a container ended");
                Exit::Unknown
            }
        };
        self.attempts.ended(replica, attempt);
        self.tell(Input::Exited { replica, attempt, exit });
    }

    /// The oldest kept log makes room for this one.
    fn forget(&self, replica: ReplicaId, attempt: u32) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back(container(replica, attempt));
        let oldest = if kept.len() > KEPT_LOGS { kept.pop_front() } else { None };
        drop(kept);
        let Some(id) = oldest else { return };
        log_failure("forget", &id, self.containers.forget(&id));
        if let Some((replica, number)) = crate::containers::attempt_of(&id) {
            self.attempts.dropped(replica, number);
        }
    }

    fn read(&self, replica: ReplicaId, attempt: u32) -> Reading {
        let id = container(replica, attempt);
        let counters = match self.containers.usage(&id) {
            Ok(usage) => Some(counters(usage)),
            Err(error) => {
                tracing::debug!(container = %id, error = chain(&error), "cannot measure");
                None
            }
        };
        Reading { replica, attempt, counters }
    }

    fn measure(&self, attempts: Vec<(ReplicaId, u32)>) {
        let readings = attempts.into_iter().map(|(replica, attempt)| self.read(replica, attempt)).collect();
        let node = match self.containers.node_usage() {
            Ok(usage) => Some(usage),
            Err(error) => {
                tracing::error!(error = chain(&error), "cannot measure the node");
                None
            }
        };
        self.send(News::Measured { readings, node });
    }
}

fn counters(usage: handle::Usage) -> Counters {
    Counters {
        cpu_us: usage.cpu_us,
        memory: Bytes(usage.memory_bytes),
        processes: u32::try_from(usage.processes).unwrap_or(u32::MAX),
        connections: u32::try_from(usage.connections).unwrap_or(u32::MAX),
        busy_mark: usage.busy_mark,
    }
}

pub(crate) fn exit(exit: handle::Exit) -> Exit {
    match exit {
        handle::Exit::Code(code) => Exit::Code(code),
        handle::Exit::Signal(signal) => Exit::Signal(signal),
        handle::Exit::OutOfMemory => Exit::OutOfMemory,
        handle::Exit::Unknown => Exit::Unknown,
    }
}

fn image_failure(error: &ImageError) -> LaunchFailure {
    match error.passing() {
        true => LaunchFailure::Failed(chain(error)),
        false => LaunchFailure::Impossible(chain(error)),
    }
}

fn launch_failure(error: &Error) -> LaunchFailure {
    match error {
        Error::Spec(_) => LaunchFailure::Impossible(chain(error)),
        Error::Step { failure, .. } if never_runs(&failure.step, failure.errno) => {
            LaunchFailure::Impossible(chain(error))
        }
        _ => LaunchFailure::Failed(chain(error)),
    }
}

/// The image has no such program, or it is none: the next attempt would find the same.
fn never_runs(step: &str, errno: Option<i32>) -> bool {
    let errno = errno.map(Errno::from_raw);
    step.starts_with("execute ")
        && matches!(errno, Some(Errno::ENOENT | Errno::EACCES | Errno::ENOEXEC | Errno::ENOTDIR))
}

/// A container that is gone needs neither signal nor forgetting.
fn log_failure(operation: &str, id: &ContainerId, result: Result<(), Error>) {
    match result {
        Ok(()) => {}
        Err(Error::NoSuchContainer(_) | Error::HasEnded(_)) => {
            tracing::debug!(container = %id, operation, "it is gone already")
        }
        Err(error) => tracing::error!(container = %id, operation, error = chain(&error), "the runtime failed"),
    }
}

/// An error and its causes as one sentence.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use bellows_agent_core::Fence;
    use tokio::sync::oneshot;

    use super::*;

    const ONE: ReplicaId = ReplicaId { fence: Fence { incarnation: 1, term: 1 }, counter: 7 };
    const OTHER: ReplicaId = ReplicaId { counter: 8, ..ONE };

    fn freeze(queue: &Queue, ticket: u64) -> oneshot::Receiver<Result<(u64, u64), String>> {
        let (answer, told) = oneshot::channel();
        queue.push(Job::Freeze { replica: ONE, attempt: 1, ticket, answer: Some(answer) });
        told
    }

    #[test]
    fn a_freeze_that_was_overtaken_is_not_done_or_not_kept() {
        let queue = Queue::default();
        let mut told = freeze(&queue, 1);
        queue.push(Job::Stop { replica: ONE, attempt: 1, spec: None });
        queue.overtake_freeze(OTHER);
        assert!(told.try_recv().is_err(), "another one was told to go on");
        queue.overtake_freeze(ONE);
        let answer = told.try_recv().expect("told");
        assert!(answer.expect_err("not done").contains("was told to go on"));
        assert!(matches!(queue.pop(), Some(Job::Stop { .. })), "that one is left");

        let _under_way = freeze(&queue, 2);
        assert!(matches!(queue.pop(), Some(Job::Freeze { ticket: 2, .. })));
        queue.overtake_freeze(ONE);
        let _later = freeze(&queue, 3);
        assert!(matches!(queue.pop(), Some(Job::Freeze { ticket: 3, .. })));
        assert!(queue.stands(3), "wished afterwards");
        assert!(!queue.stands(2));
        queue.frozen(3);
        assert!(!queue.stands(3), "over and forgotten");
    }
}
