//! `bellows exec`: a program beside a replica's app, its streams to and from whoever asked. It ends with this task.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use bellows_agent_core::{Lifecycle, ReplicaId};
use bellows_proto::node::call_reply::Body;
use bellows_proto::node::{ExecCall, Started};
use bellows_proto::types::input::Part;
use bellows_proto::types::{self, Exited, Input, NotExecuted};
use bellows_runtime::handle::{Error, Execute, Execution, ExecutionStreams, Exit, Window};
use bellows_runtime::image::Image;
use bellows_runtime::{ContainerSpec, User};
use nix::errno::Errno;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};

use super::stream::{Stream, registered};
use super::{Answers, Caller, Calls, Gone};
use crate::containers::container;
use crate::convert::{self, Misunderstood};
use crate::images::ImageError;
use crate::launch::container_spec;
use crate::news::Standing;

/// What a terminal takes for the end of its input (VEOF).
const END_OF_INPUT: &[u8] = &[4];

/// Why a program was not executed, or not seen through.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecError {
    #[error(transparent)]
    Misunderstood(#[from] Misunderstood),
    #[error("replica {0} is not known on this node: it has ended, or never ran here")]
    Unknown(ReplicaId),
    #[error("replica {0} is not running yet: it is {1}; try again when it runs")]
    NotYet(ReplicaId, &'static str),
    #[error("replica {0} {1}: nothing can be executed in it any more")]
    Over(ReplicaId, &'static str),
    #[error("the spec of replica {0} is not in this node's journal")]
    NoSpec(ReplicaId),
    #[error("no command was given")]
    NoCommand,
    #[error("the image of replica {replica} cannot be used")]
    Image {
        replica: ReplicaId,
        #[source]
        source: ImageError,
    },
    #[error("cannot run it as user {user:?}")]
    User {
        user: String,
        #[source]
        source: bellows_runtime::image::Error,
    },
    #[error(transparent)]
    Runtime(Box<Error>),
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Copy(String),
    #[error("cannot speak with the program")]
    Stream(#[from] io::Error),
    #[error("a thread of this agent ended early")]
    Interrupted,
    #[error(transparent)]
    Gone(#[from] Gone),
}

impl Calls {
    pub(super) async fn exec(&self, call: ExecCall, caller: Caller) -> Result<(), ExecError> {
        let replica = convert::replica(call.replica)?;
        let execution = call.execution.unwrap_or_default();
        if execution.command.first().is_none_or(String::is_empty) {
            return Err(ExecError::NoCommand);
        }
        let standing = self.running(replica).await?;
        let how = execution.terminal.map_or(Execute::Piped, |window| Execute::OnTerminal(size(window)));
        let reads = execution.input;
        let (answers, inputs) = caller.split();
        match self.begin(replica, standing, execution, how).await {
            Ok(running) => {
                answers.say(Body::Started(Started {})).await?;
                Program::new(running, answers)?.run(inputs, reads).await
            }
            Err(ExecError::Runtime(error)) => match not_executed(&error) {
                Some(missing) => {
                    let text = crate::worker::chain(&error);
                    Ok(answers.say(Body::NotExecuted(NotExecuted { missing, text })).await?)
                }
                None => Err(ExecError::Runtime(error)),
            },
            Err(error) => Err(error),
        }
    }

    /// How a replica stands that can be entered.
    pub(super) async fn running(&self, replica: ReplicaId) -> Result<Standing, ExecError> {
        let standing = self.standing(replica).await.ok_or(ExecError::Unknown(replica))?;
        match standing.lifecycle {
            Lifecycle::Running => Ok(standing),
            Lifecycle::Ordered => Err(ExecError::NotYet(replica, "ordered")),
            Lifecycle::Pulling => Err(ExecError::NotYet(replica, "waiting for its image")),
            Lifecycle::Starting => Err(ExecError::NotYet(replica, "starting")),
            Lifecycle::Stopping => Err(ExecError::Over(replica, "is stopping")),
            Lifecycle::Ended => Err(ExecError::Over(replica, "has ended")),
        }
    }

    /// What its container was launched with: for whoever joins it.
    pub(super) async fn spec_of(
        &self,
        replica: ReplicaId,
        standing: Standing,
    ) -> Result<(ContainerSpec, Arc<Image>), ExecError> {
        let app = standing.spec.ok_or(ExecError::NoSpec(replica))?;
        let (images, node) = (self.images.clone(), self.node.clone());
        let work = move || {
            let image = images.ready(&app.image_digest).map_err(|source| ExecError::Image { replica, source })?;
            Ok((container_spec(container(replica, standing.attempt), replica, &node, &app, &image), image))
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| ExecError::Interrupted)?
    }

    async fn begin(
        &self,
        replica: ReplicaId,
        standing: Standing,
        execution: types::Execution,
        how: Execute,
    ) -> Result<Execution, ExecError> {
        let (mut spec, image) = self.spec_of(replica, standing).await?;
        let containers = self.containers.clone();
        let work = move || {
            change(&mut spec, &image, execution)?;
            containers.execute(&spec, how).map_err(|error| ExecError::Runtime(Box::new(error)))
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| ExecError::Interrupted)?
    }
}

/// The app's spec with another program, and whatever else was asked for.
fn change(spec: &mut ContainerSpec, image: &Image, execution: types::Execution) -> Result<(), ExecError> {
    spec.args = execution.command;
    if !execution.working_dir.is_empty() {
        spec.working_dir = execution.working_dir.into();
    }
    if !execution.user.is_empty() {
        let user = image.user(&execution.user);
        let user = user.map_err(|source| ExecError::User { user: execution.user, source })?;
        set(&mut spec.env, "HOME", &user.home);
        spec.user = User { uid: user.uid, gid: user.gid, groups: user.groups };
    }
    for (name, value) in execution.env {
        set(&mut spec.env, &name, &value);
    }
    Ok(())
}

fn set(env: &mut Vec<String>, name: &str, value: &str) {
    env.retain(|entry| entry.split_once('=').is_none_or(|(other, _)| other != name));
    env.push(format!("{name}={value}"));
}

fn size(window: types::Window) -> Window {
    let clamped = |size: u32| u16::try_from(size).unwrap_or(u16::MAX);
    Window { columns: clamped(window.columns), rows: clamped(window.rows) }
}

/// Whether the failure is the program's own: then, whether there is none.
fn not_executed(error: &Error) -> Option<bool> {
    let Error::Enter { failure, .. } = error else { return None };
    let errno = failure.errno.map(Errno::from_raw);
    failure.step.starts_with("execute ").then_some(matches!(errno, Some(Errno::ENOENT | Errno::ENOTDIR)))
}

fn exited(exit: Exit) -> Exited {
    use types::exited::How;
    let how = match exit {
        Exit::Code(code) => How::Code(code),
        Exit::Signal(signal) => How::Signal(signal),
        // Whoever held it was killed, and it with that.
        Exit::OutOfMemory | Exit::Unknown => How::Signal(9),
    };
    Exited { how: Some(how) }
}

/// A program that runs.
struct Program {
    execution: Execution,
    end: AsyncFd<std::os::fd::OwnedFd>,
    /// Standard output, or the terminal.
    output: Arc<Stream>,
    errors: Option<Stream>,
    /// Standard input, or the terminal.
    input: Option<Arc<Stream>>,
    terminal: bool,
    answers: Answers,
}

impl Program {
    fn new(mut execution: Execution, answers: Answers) -> Result<Self, ExecError> {
        let end = execution.as_fd().try_clone_to_owned()?;
        let end = registered(end)?;
        let copy = |fd: &std::os::fd::OwnedFd| Stream::new(fd.try_clone()?);
        let (output, errors, input, terminal) = match &mut execution.streams {
            ExecutionStreams::Piped { input, output, errors } => {
                let input = input.take().map(Stream::new).transpose()?.map(Arc::new);
                (Arc::new(copy(output)?), Some(copy(errors)?), input, false)
            }
            ExecutionStreams::Terminal(terminal) => {
                let terminal = Arc::new(copy(terminal)?);
                (terminal.clone(), None, Some(terminal), true)
            }
        };
        Ok(Self { execution, end, output, errors, input, terminal, answers })
    }

    /// Until it has ended and all it wrote before is on its way.
    async fn run(self, inputs: mpsc::Receiver<Input>, reads: bool) -> Result<(), ExecError> {
        let Self { execution, end, output, errors, input, terminal, answers } = self;
        let (over, is_over) = watch::channel(false);
        let input = input.filter(|_| reads || terminal);
        let feed = feed(&execution.streams, input, inputs, terminal, &answers);
        let out = forward(&output, Body::Data, &answers, is_over.clone());
        let err = async {
            match &errors {
                Some(errors) => forward(errors, Body::Errors, &answers, is_over.clone()).await,
                None => Ok(()),
            }
        };
        let ended = async {
            let seen = end.readable().await;
            over.send_replace(true);
            seen.map(drop).map_err(ExecError::from)
        };
        let finish = async { tokio::try_join!(out, err, ended) };
        tokio::select! {
            done = finish => { done?; }
            fault = feed => return Err(fault),
        }
        let exit = execution.wait().map_err(|error| ExecError::Runtime(Box::new(error)))?;
        Ok(answers.say(Body::Exited(exited(exit))).await?)
    }
}

/// What it writes. Once it has ended, only what is there: others may hold the pipe open for ever.
pub(super) async fn forward(
    stream: &Stream,
    kind: fn(Vec<u8>) -> Body,
    answers: &Answers,
    mut over: watch::Receiver<bool>,
) -> Result<(), ExecError> {
    loop {
        let piece = tokio::select! {
            biased;
            piece = stream.read() => piece?,
            _ = over.wait_for(|over| *over) => stream.read_now()?,
        };
        if piece.is_empty() {
            return Ok(());
        }
        answers.data(kind(piece)).await?;
    }
}

/// What it reads; returns only what goes wrong. A program that reads no more is told nothing more.
pub(super) async fn feed(
    streams: &ExecutionStreams,
    mut to: Option<Arc<Stream>>,
    mut inputs: mpsc::Receiver<Input>,
    terminal: bool,
    answers: &Answers,
) -> ExecError {
    while let Some(Input { part }) = inputs.recv().await {
        match (part, &to) {
            (Some(Part::Data(bytes)), Some(stream)) => match stream.write(&bytes).await {
                Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe) || is_hung_up(&error) => to = None,
                Err(error) => return error.into(),
                Ok(()) => {}
            },
            (Some(Part::End(_)), Some(stream)) if terminal => {
                let ended = stream.write(END_OF_INPUT).await;
                tracing::debug!(ended = ended.is_ok(), "a terminal's input ended");
            }
            (Some(Part::End(_)), _) => to = None,
            (Some(Part::Window(window)), _) => {
                if let Err(error) = streams.resize(size(window)) {
                    tracing::debug!(%error, "a terminal was not resized");
                }
            }
            (Some(Part::Data(_)) | None, _) => {}
        }
        if let Err(gone) = answers.taken().await {
            return gone.into();
        }
    }
    std::future::pending().await
}

fn is_hung_up(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EIO as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_take_the_place_of_earlier_ones() {
        let mut env = vec!["HOME=/".to_owned(), "HOMEPAGE=x".to_owned()];
        set(&mut env, "HOME", "/root");
        assert_eq!(env, ["HOMEPAGE=x", "HOME=/root"]);
    }

    #[test]
    fn a_program_that_is_not_there_is_told_from_one_that_fails() {
        let failed = |step: &str, errno| {
            let id = bellows_runtime::ContainerId::new("a").expect("an id");
            let failure = bellows_runtime::launch::wire::Failure {
                step: step.to_owned(),
                cause: String::new(),
                errno: Some(errno),
                undo: None,
            };
            not_executed(&Error::Enter { id, failure })
        };
        assert_eq!(failed("execute ls", Errno::ENOENT as i32), Some(true));
        assert_eq!(failed("execute ls", Errno::EACCES as i32), Some(false));
        assert_eq!(failed("go to the working directory /x", Errno::ENOENT as i32), None);
    }
}
