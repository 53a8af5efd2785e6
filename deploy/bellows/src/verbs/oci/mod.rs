//! `bellows oci`, or this executable under the name `bellows-oci`: the command line of the OCI runtime specification.
//!
//! Callers (podman, conmon, containerd) start a process per command and wait for it: so this is dispatched at the very top of `main`, with a small tree of
//! verbs of its own, without threads, an async runtime or the set-up of logs.

mod arguments;
mod report;
mod sealed;
mod tables;

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use bellows_runtime::oci::verbs::{self, CreateOptions, ExecuteOptions};
use bellows_runtime::oci::{OciError, Sealed, signal};
use clap::Parser;

use arguments::{Cli, Create, Exec, Globals, Verb};
use report::Report;

/// The name under which this executable is nothing but the runtime.
pub const NAME: &str = "bellows-oci";
/// The verb of `bellows` that is the same.
pub const VERB: &str = "oci";

/// Whether this command line is the runtime's, and from which word on.
pub fn begins(args: &[OsString]) -> Option<usize> {
    let called = args.first().map(Path::new).and_then(Path::file_name);
    if called.is_some_and(|name| name == NAME) {
        return Some(0);
    }
    args.get(1).is_some_and(|word| word == VERB).then_some(1)
}

/// The whole command. `words` begins with a name for the usage text.
pub fn main(words: &[OsString]) -> ExitCode {
    let sealed = sealed::ensure(words);
    let cli = Cli::parse_from(words);
    let report = Report::new(cli.globals.log.as_deref(), cli.globals.log_format);
    match sealed.and_then(|sealed| run(cli.verb, &cli.globals, &report, sealed)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            report.error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb, globals: &Globals, report: &Report, sealed: Option<Sealed>) -> anyhow::Result<u8> {
    anyhow::ensure!(
        !globals.systemd_cgroup,
        "--systemd-cgroup: this runtime makes control groups itself; use cgroupfs (podman: --cgroup-manager=cgroupfs)"
    );
    let root = &globals.root;
    let mut warn = |error: OciError| report.warning(&error);
    match verb {
        Verb::Create(create) => verbs::create(root, &create.id, &options(&create, false), sealed)?,
        Verb::Run(run) => {
            return code(verbs::run(root, &run.create.id, &options(&run.create, run.detach), sealed, &mut warn)?);
        }
        Verb::Start(named) => verbs::start(root, &named.id, &mut warn)?,
        Verb::State(named) => tables::state(&verbs::state(root, &named.id)?)?,
        Verb::Kill(kill) => {
            let number = signal(&kill.signal).ok_or(OciError::Signal(kill.signal))?;
            verbs::kill(root, &kill.id, number, kill.all)?;
        }
        Verb::Delete(delete) => verbs::delete(root, &delete.id, delete.force, &mut warn)?,
        Verb::List(list) => tables::list(&verbs::list(root)?, list.format, list.quiet)?,
        Verb::Exec(exec) => return code(verbs::execute(root, &exec.id, &execution(&exec)?, sealed)?),
        Verb::Ps(ps) => tables::processes(&verbs::processes(root, &ps.id)?, ps.format, &ps.words)?,
        Verb::Pause(named) => verbs::pause(root, &named.id)?,
        Verb::Resume(named) => verbs::resume(root, &named.id)?,
        Verb::Update(update) => {
            verbs::update(root, &update.id, &serde_json::from_slice(&read(&update.resources)?)?)?;
        }
        Verb::Features(_) => print(&verbs::features())?,
        Verb::Spec(example) => write_example(&example.bundle)?,
    }
    Ok(0)
}

fn code(code: i32) -> anyhow::Result<u8> {
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

fn options(create: &Create, detach: bool) -> CreateOptions {
    CreateOptions {
        bundle: create.bundle.clone(),
        console_socket: create.console_socket.clone(),
        pid_file: create.pid_file.clone(),
        preserve_fds: create.preserve_fds,
        detach,
    }
}

fn execution(exec: &Exec) -> anyhow::Result<ExecuteOptions> {
    anyhow::ensure!(exec.process.is_some() || !exec.words.is_empty(), "exec needs a program, or --process with one");
    Ok(ExecuteOptions {
        process: exec.process.clone(),
        args: exec.words.clone(),
        tty: exec.tty,
        user: exec.user.clone(),
        additional_gids: exec.additional_gids.clone(),
        cwd: exec.cwd.clone(),
        env: exec.env.clone(),
        capabilities: exec.cap.clone(),
        no_new_privileges: exec.no_new_privs,
        console_socket: exec.console_socket.clone(),
        pid_file: exec.pid_file.clone(),
        detach: exec.detach,
        preserve_fds: exec.preserve_fds,
    })
}

/// A file, or standard input for `-`.
fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path == Path::new("-") {
        let mut text = Vec::new();
        std::io::stdin().read_to_end(&mut text)?;
        return Ok(text);
    }
    std::fs::read(path).map_err(|error| anyhow::anyhow!("cannot read {}: {error}", path.display()))
}

fn print(value: &serde_json::Value) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{value:#}")?;
    Ok(())
}

/// Never over a configuration that is there.
fn write_example(bundle: &Path) -> anyhow::Result<()> {
    let path = bundle.join("config.json");
    let made = std::fs::OpenOptions::new().write(true).create_new(true).open(&path);
    let mut file = made.map_err(|error| anyhow::anyhow!("cannot make {}: {error}", path.display()))?;
    writeln!(file, "{:#}", verbs::example())?;
    Ok(())
}
