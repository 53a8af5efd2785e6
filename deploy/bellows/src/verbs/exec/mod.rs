//! `bellows exec`.

mod terminal;

use std::collections::BTreeMap;
use std::io::{Read, Write};

use bellows_core::ids::ReplicaId;
use bellows_proto::operator::exec_request::Body as Said;
use bellows_proto::operator::exec_response::Body as Heard;
use bellows_proto::operator::{ExecBegin, ExecRequest, ExecResponse, ListReplicasRequest};
use bellows_proto::types::input::Part;
use bellows_proto::types::{self, End, Execution, Exited, Input, NotExecuted};
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use self::terminal::Raw;
use crate::connection::{self, Connection};
use crate::failure::Failure;
use crate::globals::Globals;
use crate::output::{self, views};

const AFTER: &str = "\
Examples:
  bellows exec 1-2-57 -- ls -l /srv             one command in one replica
  bellows exec -it web -- sh                    a shell in a copy of an app: the first one that is ready
  cat dump.sql | bellows exec -i db -- restore  with this side's standard input
  bellows exec web --user www-data --workdir /srv --env DEBUG=1 -- ./check

The program runs beside the app: in its namespaces and cgroups, bounded as it is. It is killed, with its process group, when this \
command ends before it.

Exit codes:
  the program's own; 128 + N when signal N ended it
  125  Bellows could not do it: no such replica, it is not running, no controller answers, ...
  126  there is such a program, but it cannot be executed
  127  there is no such program";

/// Messages that wait for the network.
const WAITING: usize = 16;
/// Bytes of one message; the controller takes no more.
const INPUT_BYTES: usize = 32 << 10;
/// Bellows itself failed.
const FAILED: u8 = 125;
const CANNOT_EXECUTE: u8 = 126;
const NO_SUCH_PROGRAM: u8 = 127;
/// Of programs that a signal ended, as in shells.
const SIGNALLED: i32 = 128;

/// Execute a program in a running replica
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct Arguments {
    /// A replica's id or an app's name
    #[arg(value_name = "REPLICA|APP")]
    subject: String,

    /// Pass this side's standard input on
    #[arg(short = 'i', long)]
    stdin: bool,

    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,

    /// As whom: a name or number of the image's, NAME, UID, NAME:GROUP or UID:GID; else as the app
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,

    /// Where it starts; else where the app did
    #[arg(short, long, value_name = "FOLDER")]
    workdir: Option<String>,

    /// A variable beside the app's; may be given more than once
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,

    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

/// Runs it to its end; its exit code becomes ours.
pub async fn run(arguments: Arguments, globals: &Globals) -> Result<(), Failure> {
    let failed = |failure: Failure| failure.with_exit_code(FAILED);
    let (said, to_send) = mpsc::channel(WAITING);
    let answers = begin(&arguments, globals, &said, to_send).await.map_err(failed)?;
    let raw = if arguments.tty { Raw::make().map_err(failed)? } else { None };
    if arguments.stdin {
        pass_input_on(said.clone());
    }
    let windows = if arguments.tty { Some(signal(SignalKind::window_change())) } else { None };
    let windows = windows.transpose().map_err(|error| failed(no_signals(&error)))?;
    let code = tokio::select! {
        code = listen(answers) => code,
        code = told_to_end() => code,
        never = follow_window(windows, said) => never,
    };
    drop(raw);
    match code? {
        0 => Ok(()),
        code => Err(Failure::of_program(code)),
    }
}

async fn begin(
    arguments: &Arguments,
    globals: &Globals,
    said: &mpsc::Sender<ExecRequest>,
    to_send: mpsc::Receiver<ExecRequest>,
) -> Result<Streaming<ExecResponse>, Failure> {
    let mut connection = Connection::open(globals)?;
    let replica = replica(&mut connection, &arguments.subject, globals).await?;
    let begin = ExecBegin { replica: Some(replica), execution: Some(execution(arguments)) };
    let begin = ExecRequest { body: Some(Said::Begin(begin)) };
    said.try_send(begin).map_err(|_| Failure::failed("nothing can be sent"))?;
    connection.once(async |client| client.exec(ReceiverStream::new(to_send)).await).await
}

fn execution(arguments: &Arguments) -> Execution {
    let mut env: BTreeMap<String, String> = arguments.env.iter().cloned().collect();
    if let (true, Ok(term)) = (arguments.tty, std::env::var("TERM")) {
        env.entry("TERM".to_owned()).or_insert(term);
    }
    Execution {
        command: arguments.command.clone(),
        env,
        working_dir: arguments.workdir.clone().unwrap_or_default(),
        user: arguments.user.clone().unwrap_or_default(),
        terminal: arguments.tty.then(terminal::window),
        input: arguments.stdin,
    }
}

/// The replica with this id, or the first of the app's copies that is ready.
pub async fn replica(
    connection: &mut Connection,
    subject: &str,
    globals: &Globals,
) -> Result<types::ReplicaId, Failure> {
    let id = subject.parse::<ReplicaId>().ok();
    let app = if id.is_some() { String::new() } else { subject.to_owned() };
    let request = ListReplicasRequest { tenant: globals.tenant.clone(), app, ended: false };
    // Asked also for an id: it finds the leader, and can be asked again where the execution itself cannot.
    let answer = connection.ask(async |client| client.list_replicas(request.clone()).await).await?;
    if let Some(id) = id {
        return Ok(views::wire_replica_id(id));
    }
    answer.replicas.into_iter().find(|replica| replica.ready).and_then(|replica| replica.id).ok_or_else(|| {
        Failure::not_found(format!("app \"{subject}\" has no copy that is ready"))
            .mend(format!("`bellows replicas {subject}` shows its copies; `bellows exec ID` enters one that runs"))
    })
}

/// From a thread of its own, which ends with the process: a read of standard input cannot be called off.
fn pass_input_on(said: mpsc::Sender<ExecRequest>) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; INPUT_BYTES];
        let mut stdin = std::io::stdin().lock();
        loop {
            let part = match stdin.read(&mut buffer) {
                Ok(0) | Err(_) => Part::End(End {}),
                Ok(length) => Part::Data(buffer[..length].to_vec()),
            };
            let last = matches!(part, Part::End(_));
            if said.blocking_send(input(part)).is_err() || last {
                return;
            }
        }
    });
}

fn input(part: Part) -> ExecRequest {
    ExecRequest { body: Some(Said::Input(Input { part: Some(part) })) }
}

/// Keeps the stream of input open, and tells of every change of size.
async fn follow_window(windows: Option<Signal>, said: mpsc::Sender<ExecRequest>) -> Result<u8, Failure> {
    if let Some(mut windows) = windows {
        while windows.recv().await.is_some() {
            if said.send(input(Part::Window(terminal::window()))).await.is_err() {
                break;
            }
        }
    }
    std::future::pending().await
}

/// Ctrl-C where no terminal passes it on, and every other way of being told to end. The program ends with us.
async fn told_to_end() -> Result<u8, Failure> {
    let catch = |kind| signal(kind).map_err(|error| no_signals(&error));
    let mut interrupt = catch(SignalKind::interrupt())?;
    let mut terminate = catch(SignalKind::terminate())?;
    let mut hang_up = catch(SignalKind::hangup())?;
    let number = tokio::select! {
        _ = interrupt.recv() => SignalKind::interrupt(),
        _ = terminate.recv() => SignalKind::terminate(),
        _ = hang_up.recv() => SignalKind::hangup(),
    };
    Ok(code(SIGNALLED + number.as_raw_value()))
}

fn no_signals(error: &std::io::Error) -> Failure {
    Failure::failed(format!("cannot listen for signals: {error}")).with_exit_code(FAILED)
}

/// Prints what it writes; its exit code at its end.
async fn listen(mut answers: Streaming<ExecResponse>) -> Result<u8, Failure> {
    loop {
        let heard = answers.message().await.map_err(|status| connection::failure(&status).with_exit_code(FAILED))?;
        match heard.map(|heard| heard.body) {
            Some(Some(Heard::Output(data))) => output::bytes(&data)?,
            Some(Some(Heard::Errors(data))) => std::io::stderr().write_all(&data)?,
            Some(Some(Heard::Exited(exited))) => return Ok(exit_code(exited)),
            Some(Some(Heard::NotExecuted(NotExecuted { missing, text }))) => {
                let code = if missing { NO_SUCH_PROGRAM } else { CANNOT_EXECUTE };
                return Err(Failure::failed(text).with_exit_code(code));
            }
            Some(Some(Heard::Started(_)) | None) => {}
            None => {
                let broken = "the controller ended the answer before the program had ended";
                return Err(Failure::failed(broken).with_exit_code(FAILED));
            }
        }
    }
}

fn exit_code(exited: Exited) -> u8 {
    match exited.how {
        Some(types::exited::How::Code(own)) => code(own),
        Some(types::exited::How::Signal(signal)) => code(SIGNALLED + signal),
        None => FAILED,
    }
}

/// The kernel gives eight bits.
fn code(number: i32) -> u8 {
    number.to_le_bytes()[0]
}
