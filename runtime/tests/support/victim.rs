//! A runtime in a process of its own, told line by line what to do, for tests that fail its system calls or kill it.
//!
//! `victim STATE CGROUP SUBNET UID_BASE IMAGE [WITHOUT..]`, the last of which its launchers go without; each line on standard input gets one on
//! standard output:
//! `unpack STORE DIGEST` (which is then the image), `keep COUNT` (of slots that come back, 0 at first), `start`, `launch NAME WORD..`, `script NAME FILE` (a shell's, to its end), `said NAME` (the lines
//! that it printed, \u{1} between them), `execute NAME WORD..` (a program, to its end), `end NAME`, `kill NAME`, `reap NAME`, `forget NAME`, `leave` (drop the runtime), `adopt`, `launchers`, `settle`, `spare COUNT` (descriptors, and use up all others; `all` for none used up), `shutdown`; the answer begins with `ok` or `failed KIND ERRNO`.

use std::error::Error as _;
use std::fs::File;
use std::io::{BufRead, Write};
use std::time::Duration;

use bellows_runtime::handle::{Adopted, Error, Execute, LauncherCommand, PoolSizes};
use bellows_runtime::image::Store;
use bellows_runtime::{ContainerId, ContainerSpec, Runtime, RuntimeConfig};

/// Serves until the input ends. The runtime is then dropped without a word to its containers.
pub fn serve(args: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let [state, parent, subnet, uid_base, image, without @ ..] = args else {
        return Err("victim STATE CGROUP SUBNET UID_BASE IMAGE [WITHOUT..]".into());
    };
    let weakened = (!without.is_empty()).then(|| "weakened".to_owned());
    let args = weakened.iter().chain(without).map(Into::into).collect();
    let launcher = LauncherCommand { program: std::env::current_exe()?, args };
    let mut config = RuntimeConfig::new(state.into(), parent.clone(), subnet.parse()?, launcher);
    config.uid_base = uid_base.parse()?;
    config.launchers = 1;
    config.pool = PoolSizes { ready: 0, keep: 0, spell: Duration::from_millis(500) };
    let mut victim = Victim { config, image: image.clone(), runtime: None, used_up: Vec::new() };
    let mut output = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match victim.perform(&words) {
            Ok(said) => format!("ok {said}\n"),
            Err(error) => format!("failed {} {} {}\n", kind(&error), errno(&error), chain(&error)),
        };
        output.write_all(answer.as_bytes())?;
    }
    Ok(())
}

struct Victim {
    config: RuntimeConfig,
    image: String,
    runtime: Option<Runtime>,
    used_up: Vec<File>,
}

impl Victim {
    fn perform(&mut self, words: &[&str]) -> Result<String, Error> {
        match (words, &self.runtime) {
            (["keep", count], _) => {
                self.config.pool.keep = count.parse().unwrap_or(0);
                Ok(String::new())
            }
            (["start"], _) => {
                self.runtime = Some(Runtime::start(self.config.clone())?);
                Ok(String::new())
            }
            (["launch", name, program @ ..], Some(runtime)) => {
                let spec = ContainerSpec::new(ContainerId::new(*name)?, &self.image, program);
                Ok(runtime.launch(&spec)?.pid.to_string())
            }
            (["unpack", store, digest], _) => {
                self.image =
                    unpack(store, digest).map_err(|error| Error::Machine("the image", std::io::Error::other(error)))?;
                Ok(self.image.clone())
            }
            (["script", name, file], Some(runtime)) => script(runtime, &self.image, name, file),
            (["said", name], Some(runtime)) => said(runtime, name),
            (["execute", name, program @ ..], Some(runtime)) => {
                let spec = ContainerSpec::new(ContainerId::new(*name)?, &self.image, program);
                Ok(format!("{:?}", runtime.execute(&spec, Execute::Piped)?.wait()?))
            }
            (["end", name], Some(runtime)) => end(runtime, &ContainerId::new(*name)?),
            (["kill", name], Some(runtime)) => runtime.kill(&ContainerId::new(*name)?).map(|()| String::new()),
            (["reap", name], Some(runtime)) => Ok(format!("{:?}", runtime.reap(&ContainerId::new(*name)?)?.exit)),
            (["forget", name], Some(runtime)) => runtime.forget(&ContainerId::new(*name)?).map(|()| String::new()),
            (["leave"], _) => {
                self.runtime = None;
                Ok(String::new())
            }
            (["adopt"], Some(runtime)) => Ok(adopted(runtime.adopt()?)),
            (["launchers"], Some(runtime)) => {
                Ok(runtime.launcher_pids().iter().map(u32::to_string).collect::<Vec<_>>().join(" "))
            }
            (["spare", count], _) => {
                self.used_up.clear();
                if let Ok(count) = count.parse::<usize>() {
                    self.used_up.extend(std::iter::from_fn(|| File::open("/").ok()));
                    self.used_up.truncate(self.used_up.len().saturating_sub(count));
                }
                Ok(String::new())
            }
            (["settle"], Some(runtime)) => {
                runtime.settle();
                Ok(String::new())
            }
            (["shutdown"], Some(_)) => {
                self.runtime.take().map_or(Ok(()), Runtime::shutdown)?;
                Ok(String::new())
            }
            _ => Ok(format!("not understood: {words:?}")),
        }
    }
}

fn unpack(store: &str, digest: &str) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let image = Store::open(store)?.unpack(&digest.parse()?)?;
    Ok(image.root.display().to_string())
}

fn script(runtime: &Runtime, image: &str, name: &str, file: &str) -> Result<String, Error> {
    let text = std::fs::read_to_string(file).map_err(|source| Error::Machine("the script", source))?;
    let mut spec = ContainerSpec::new(ContainerId::new(name)?, image, &["sh", "-c", &text]);
    spec.limits.log_bytes = 16 << 20;
    spec.limits.cpu_milli = 2000;
    runtime.launch(&spec)?;
    Ok(format!("{:?}", runtime.reap(&spec.id)?.exit))
}

/// Without the stamps.
fn said(runtime: &Runtime, name: &str) -> Result<String, Error> {
    let files = runtime.log(&ContainerId::new(name)?)?;
    let read = |path| std::fs::read_to_string(path).map_err(|source| Error::Machine("the log", source));
    let all = read(files.older)? + &read(files.newer)?;
    let lines = all.lines().filter(|line| !line.starts_with('#'));
    Ok(lines.filter_map(|line| line.splitn(4, ' ').nth(3)).collect::<Vec<_>>().join("\u{1}"))
}

fn end(runtime: &Runtime, id: &ContainerId) -> Result<String, Error> {
    match runtime.kill(id) {
        Ok(()) | Err(Error::HasEnded(_)) => {}
        Err(error) => return Err(error),
    }
    let exit = runtime.reap(id)?.exit;
    runtime.forget(id)?;
    Ok(format!("{exit:?}"))
}

fn adopted(all: Vec<Adopted>) -> String {
    let one = |adopted| match adopted {
        Adopted::Alive(running) => format!("{}=alive:{}", running.id, running.pid),
        Adopted::Ended(ended) => format!("{}={:?}", ended.id, ended.exit),
    };
    let mut all: Vec<String> = all.into_iter().map(one).collect();
    all.sort();
    all.join(" ")
}

fn kind(error: &Error) -> String {
    let text = format!("{error:?}");
    text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

/// The kernel's answer, wherever in the chain it is; 0 when there is none.
fn errno(error: &Error) -> i32 {
    if let Error::Step { failure, .. } | Error::Enter { failure, .. } = error {
        return failure.errno.unwrap_or(0);
    }
    let mut next = error.source();
    while let Some(source) = next {
        if let Some(number) = source.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error) {
            return number;
        }
        next = source.source();
    }
    0
}

/// As one line.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text.replace('\n', " ")
}
