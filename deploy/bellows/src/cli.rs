//! The tree of verbs, and which function each one is.

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::failure::Failure;
use crate::globals::Globals;
use crate::{bench, demo, dev, execution, verbs};

const ABOUT: &str = "Bellows makes as many copies of your apps run as are wanted, on lightly loaded servers, within milliseconds, \
                     and ends the idle ones when fewer are.";

const AFTER: &str = "\
Start here:
  bellows dev --demo                     a whole cluster on this machine, with an app to load
  bellows apply -f web.yaml --wait       declare an app, wait until its copies are ready
  bellows scale web 50 --wait            say how many copies you want
  bellows explain web                    why there are as many as there are, and why where

Exit codes:
  0  done
  1  refused, or went wrong
  2  the command line or an input file is wrong; nothing was sent
  3  no controller answers
  4  --timeout ended before the wish came true; the wish stands
  5  no such app, replica, node, image or file
exec ends with its program's exit code; its --help says more.

For programs: --output json prints one JSON document on stdout (events: one per line; logs: raw bytes) with stable field \
names (id, app, node, state, ready, activity, address, reason, ...; each verb's --help lists its own). Durations end in _ms, sizes \
in _bytes, shares of a whole in _permille, points in time in _unix_ms. Errors are one JSON document on stderr:
{\"error\": {\"kind\", \"exit_code\", \"message\", \"mend\": [], \"problems\": [{\"file\", \"line\", \"column\", \"field\", \"message\"}]}}";

/// The whole command line.
#[derive(Parser, Debug)]
#[command(name = "bellows", version, about = ABOUT, after_help = AFTER, propagate_version = false, max_term_width = 120)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    Dev(dev::Arguments),
    Controller(verbs::controller::Arguments),
    Agent(Box<verbs::agent::Arguments>),
    Apply(verbs::apply::Arguments),
    Scale(verbs::scale::Arguments),
    Apps(verbs::apps::Arguments),
    Replicas(verbs::replicas::Arguments),
    Nodes(verbs::nodes::Arguments),
    Logs(verbs::logs::Arguments),
    Exec(verbs::exec::Arguments),
    Cp(verbs::cp::Arguments),
    Stats(verbs::stats::Arguments),
    Freeze(verbs::freeze::Freeze),
    Thaw(verbs::freeze::Thaw),
    Events(verbs::events::Arguments),
    Explain(verbs::explain::Arguments),
    Rm(verbs::rm::Arguments),
    Drain(verbs::drain::Arguments),
    Cordon(verbs::cordon::Arguments),
    Uncordon(verbs::uncordon::Arguments),
    /// Servers that left for good
    #[command(subcommand)]
    Node(NodeVerb),
    Token(verbs::token::Arguments),
    /// Images: load, list, remove
    #[command(subcommand)]
    Image(ImageVerb),
    Status(verbs::status::Arguments),
    /// The laboratory: the deciding code in virtual time
    #[command(subcommand)]
    Sim(SimVerb),
    Bench(bench::Arguments),
    Local(verbs::local::Arguments),
    /// Containers from OCI bundles: the runtime for podman and containerd (see `bellows oci --help`)
    ///
    /// Dispatched in `main`, before anything else.
    ///
    /// Example: bellows oci run -b bundle c1
    #[command(disable_help_flag = true)]
    Oci {
        /// Its own verbs and options
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<std::ffi::OsString>,
    },
    Completions(verbs::completions::Arguments),
    Schema(verbs::schema::Arguments),
    /// Dispatched in `main`, before anything else; listed so that the tree is whole
    #[command(name = "runtime-launcher", hide = true)]
    RuntimeLauncher,
    /// Likewise
    #[command(name = "demo-app", hide = true)]
    DemoApp(demo::Arguments),
    /// Likewise
    #[command(name = bellows_local::enter::HOLD, hide = true)]
    LocalHost,
    /// Likewise
    #[command(name = bellows_local::enter::ENTER, hide = true)]
    LocalEnter,
}

#[derive(Subcommand, Debug)]
enum NodeVerb {
    Rm(verbs::node_rm::Arguments),
}

#[derive(Subcommand, Debug)]
enum ImageVerb {
    Load(verbs::image_load::Arguments),
    Ls(verbs::image_ls::Arguments),
    Rm(verbs::image_rm::Arguments),
}

#[derive(Subcommand, Debug)]
enum SimVerb {
    Chaos(verbs::sim_chaos::Arguments),
}

#[derive(Parser)]
#[command(name = "demo-app")]
struct Alone {
    #[command(flatten)]
    arguments: demo::Arguments,
}

/// The tree, for completions.
pub fn tree() -> clap::Command {
    Cli::command()
}

/// The demo app's command line: `bellows demo-app ...`.
pub fn demo() -> ExitCode {
    let alone = Alone::parse_from(std::env::args_os().skip(1));
    match demo::run(alone.arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(false),
    }
}

/// Everybody else's command line.
pub fn people() -> ExitCode {
    if cfg!(whole)
        && let Err(error) = bellows_runtime::resolver::by_files_and_dns()
    {
        return Failure::from_error(&error).report(asks_for_json());
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return wrong_command_line(&error),
    };
    let json = cli.globals.json();
    match run(cli.verb, &cli.globals).and_then(|()| Ok(std::io::stdout().flush()?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}

/// `--help` and `--version` come this way too: to stdout, with exit code 0.
fn wrong_command_line(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || !asks_for_json() {
        error.exit();
    }
    let text = error.to_string();
    Failure::usage(text.trim().trim_start_matches("error: ")).report(true)
}

/// The command line could not be parsed, so this is a look at its words.
fn asks_for_json() -> bool {
    let words: Vec<_> = std::env::args().collect();
    let pair =
        |pair: &[String]| matches!(pair, [flag, value] if (flag == "--output" || flag == "-o") && value == "json");
    words.windows(2).any(pair)
        || words.iter().any(|word| matches!(word.as_str(), "--output=json" | "-ojson" | "-o=json"))
}

fn run(verb: Verb, globals: &Globals) -> Result<(), Failure> {
    use execution::{client, server};
    match verb {
        Verb::Dev(arguments) => dev::run(arguments, globals),
        Verb::Controller(arguments) => server(verbs::controller::run(arguments, globals)),
        Verb::Agent(arguments) => server(verbs::agent::run(*arguments, globals)),
        Verb::Apply(arguments) => client(verbs::apply::run(arguments, globals)),
        Verb::Scale(arguments) => client(verbs::scale::run(arguments, globals)),
        Verb::Apps(arguments) => client(verbs::apps::run(arguments, globals)),
        Verb::Replicas(arguments) => client(verbs::replicas::run(arguments, globals)),
        Verb::Nodes(arguments) => client(verbs::nodes::run(arguments, globals)),
        Verb::Logs(arguments) => client(verbs::logs::run(arguments, globals)),
        Verb::Exec(arguments) => client(verbs::exec::run(arguments, globals)),
        Verb::Stats(arguments) => client(verbs::stats::run(arguments, globals)),
        Verb::Freeze(arguments) => client(verbs::freeze::freeze(arguments, globals)),
        Verb::Thaw(arguments) => client(verbs::freeze::thaw(arguments, globals)),
        Verb::Cp(arguments) => client(verbs::cp::run(arguments, globals)),
        Verb::Events(arguments) => client(verbs::events::run(arguments, globals)),
        Verb::Explain(arguments) => client(verbs::explain::run(arguments, globals)),
        Verb::Rm(arguments) => client(verbs::rm::run(arguments, globals)),
        Verb::Drain(arguments) => client(verbs::drain::run(arguments, globals)),
        Verb::Cordon(arguments) => client(verbs::cordon::run(arguments, globals)),
        Verb::Uncordon(arguments) => client(verbs::uncordon::run(arguments, globals)),
        Verb::Node(NodeVerb::Rm(arguments)) => client(verbs::node_rm::run(arguments, globals)),
        Verb::Token(arguments) => client(verbs::token::run(arguments, globals)),
        Verb::Image(ImageVerb::Load(arguments)) => client(verbs::image_load::run(arguments, globals)),
        Verb::Image(ImageVerb::Ls(arguments)) => client(verbs::image_ls::run(arguments, globals)),
        Verb::Image(ImageVerb::Rm(arguments)) => client(verbs::image_rm::run(arguments, globals)),
        Verb::Status(arguments) => client(verbs::status::run(arguments, globals)),
        Verb::Sim(SimVerb::Chaos(arguments)) => verbs::sim_chaos::run(arguments, globals),
        Verb::Bench(arguments) => bench::run(arguments, globals),
        Verb::Local(arguments) => verbs::local::run(arguments, globals),
        Verb::Completions(arguments) => verbs::completions::run(arguments, globals),
        Verb::Schema(arguments) => verbs::schema::run(arguments, globals),
        Verb::Oci { words } => Err(misplaced_runtime(&words)),
        Verb::RuntimeLauncher | Verb::DemoApp(_) | Verb::LocalHost | Verb::LocalEnter => Err(misplaced_hidden_verb()),
    }
}

fn misplaced_runtime(words: &[std::ffi::OsString]) -> Failure {
    let verb = words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    Failure::usage(format!("`oci` must be the first word of the command line: bellows oci {verb} ..."))
}

fn misplaced_hidden_verb() -> Failure {
    Failure::usage("this verb is for Bellows itself and must be the first word of the command line")
}
