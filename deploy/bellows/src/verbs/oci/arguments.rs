//! The runtime's command line: the words of the specification, and those that its callers have come to use.

use std::path::PathBuf;

use bellows_runtime::oci::state::DEFAULT_ROOT;
use clap::error::ErrorKind;
use clap::{ArgMatches, Args, Command, Error, FromArgMatches, Parser, Subcommand, ValueEnum};

/// Containers from OCI bundles, as podman, conmon and containerd ask for them
///
/// Needs root. A bundle is a folder with config.json and a root file system.
#[derive(Parser, Debug)]
#[command(name = "bellows-oci", bin_name = "bellows oci", version = VERSION, max_term_width = 120, after_help = AFTER)]
pub struct Cli {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub verb: Verb,
}

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\nspec: 1.2.0");

const AFTER: &str = "\
Examples:
  bellows oci spec && bellows oci run -b . try            a configuration to begin with, and a container of it
  bellows oci create -b bundle c1 && bellows oci start c1
  bellows oci exec c1 sh -c 'id'
  bellows oci delete --force c1
  ln -s bellows /usr/local/bin/bellows-oci                under this name the executable is nothing but the runtime:
  podman --runtime /usr/local/bin/bellows-oci --cgroup-manager=cgroupfs run IMAGE

Exit codes: 0 done, 1 refused or went wrong, 2 wrong command line; of run and exec those of the program, 128 + N for signal N.";

/// Before the verb.
#[derive(Args, Debug)]
pub struct Globals {
    /// Where the state of containers is kept
    #[arg(long, default_value = DEFAULT_ROOT)]
    pub root: PathBuf,
    /// Also write errors and warnings to this file
    #[arg(long)]
    pub log: Option<PathBuf>,
    /// How they are written there
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Taken for the sake of callers; there is nothing more to tell
    #[arg(long)]
    pub debug: bool,
    /// Refused: control groups are made by this runtime itself
    #[arg(long)]
    pub systemd_cgroup: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TableFormat {
    Table,
    Json,
}

/// Each verb, what it is for, and the words that it takes. These are computed for the verb that is asked for alone: all of them take as long as it takes a
/// process to begin.
macro_rules! verbs {
    ($($name:literal $verb:ident($words:ident) $about:literal,)*) => {
        #[derive(Debug)]
        pub enum Verb {
            $($verb($words),)*
        }

        impl Subcommand for Verb {
            fn augment_subcommands(command: Command) -> Command {
                command$(.subcommand(Command::new($name).about($about).defer($words::augment_args)))*
            }

            fn augment_subcommands_for_update(command: Command) -> Command {
                Self::augment_subcommands(command)
            }

            fn has_subcommand(name: &str) -> bool {
                [$($name),*].contains(&name)
            }
        }

        impl FromArgMatches for Verb {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
                match matches.subcommand() {
                    $(Some(($name, words)) => $words::from_arg_matches(words).map(Self::$verb),)*
                    _ => Err(Error::new(ErrorKind::MissingSubcommand)),
                }
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
                *self = Self::from_arg_matches(matches)?;
                Ok(())
            }
        }
    };
}

verbs! {
    "create" Create(Create) "Set a container up; its program waits for `start`",
    "start" Start(Named) "Begin the program of a created container",
    "run" Run(Run) "Create, start, wait, delete; or with --detach create and start",
    "state" State(Named) "What a container is, as JSON",
    "kill" Kill(Kill) "Send a signal to a container's first process",
    "delete" Delete(Delete) "Remove a stopped container",
    "list" List(List) "All containers",
    "exec" Exec(Exec) "Run one more program in a container",
    "ps" Ps(Ps) "A container's processes, as the host numbers them",
    "pause" Pause(Named) "Stop everything in a container",
    "resume" Resume(Named) "Let everything in a paused container go on",
    "update" Update(Update) "Other limits for a container",
    "features" Features(Nothing) "What this runtime can do, as JSON",
    "spec" Spec(Example) "Write a config.json to begin with",
}

#[derive(Args, Debug)]
pub struct Named {
    pub id: String,
}

#[derive(Args, Debug)]
pub struct Nothing {}

#[derive(Args, Debug)]
pub struct Run {
    #[command(flatten)]
    pub create: Create,
    /// End when the program runs
    #[arg(short, long)]
    pub detach: bool,
    /// Taken for the sake of callers: a container whose `run` was killed is deleted by `delete`
    #[arg(long)]
    pub keep: bool,
}

#[derive(Args, Debug)]
pub struct Kill {
    pub id: String,
    /// A number or name
    #[arg(default_value = "SIGTERM")]
    pub signal: String,
    /// To all of its processes
    #[arg(short, long)]
    pub all: bool,
}

#[derive(Args, Debug)]
pub struct Delete {
    pub id: String,
    /// Also one that runs, which is killed first; that there is none is no error then
    #[arg(short, long)]
    pub force: bool,
}

#[derive(Args, Debug)]
pub struct List {
    #[arg(short, long, value_enum, default_value_t = TableFormat::Table)]
    pub format: TableFormat,
    /// Only their ids
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Args, Debug)]
pub struct Ps {
    pub id: String,
    #[arg(short, long, value_enum, default_value_t = TableFormat::Table)]
    pub format: TableFormat,
    /// Arguments of ps(1); -ef when there are none
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

#[derive(Args, Debug)]
pub struct Update {
    pub id: String,
    /// A file with linux.resources as JSON, - for standard input
    #[arg(short, long, default_value = "-")]
    pub resources: PathBuf,
}

#[derive(Args, Debug)]
pub struct Example {
    /// In which folder
    #[arg(short, long, default_value = ".")]
    pub bundle: PathBuf,
}

#[derive(Args, Debug)]
pub struct Create {
    pub id: String,
    /// The bundle's folder
    #[arg(short, long, default_value = ".")]
    pub bundle: PathBuf,
    /// The socket that takes the terminal
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// Where the number of the container's first process is written
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// How many descriptors above the three streams are passed on
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: u32,
    /// Taken for the sake of callers: no keyring is made
    #[arg(long)]
    pub no_new_keyring: bool,
}

#[derive(Args, Debug)]
pub struct Exec {
    pub id: String,
    /// A file with the whole process as JSON
    #[arg(short, long)]
    pub process: Option<PathBuf>,
    /// With a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// UID or UID:GID
    #[arg(short, long)]
    pub user: Option<String>,
    /// One more group
    #[arg(short = 'g', long)]
    pub additional_gids: Vec<u32>,
    /// Where it starts
    #[arg(long)]
    pub cwd: Option<PathBuf>,
    /// NAME=value, more than once
    #[arg(short, long)]
    pub env: Vec<String>,
    /// One more capability
    #[arg(short, long)]
    pub cap: Vec<String>,
    /// It may gain no privileges
    #[arg(long)]
    pub no_new_privs: bool,
    /// The socket that takes the terminal
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// Where its number is written
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// End when it runs
    #[arg(short, long)]
    pub detach: bool,
    /// How many descriptors above the three streams are passed on
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: u32,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}
