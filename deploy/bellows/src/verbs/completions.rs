//! `bellows completions`.

use std::io::Write;

use clap::{Args, ValueEnum};
use clap_complete::{Shell, generate};

use crate::cli;
use crate::failure::Failure;
use crate::globals::Globals;

const AFTER: &str = "\
Examples:
  bellows completions bash > /usr/share/bash-completion/completions/bellows
  bellows completions zsh  > \"${fpath[1]}/_bellows\"
  bellows completions fish > ~/.config/fish/completions/bellows.fish";

/// Completions for a shell
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub struct Arguments {
    /// Which
    #[arg(value_enum)]
    shell: Known,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Known {
    Bash,
    Zsh,
    Fish,
}

/// Prints them.
pub fn run(arguments: Arguments, _globals: &Globals) -> Result<(), Failure> {
    let shell = match arguments.shell {
        Known::Bash => Shell::Bash,
        Known::Zsh => Shell::Zsh,
        Known::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    generate(shell, &mut cli::tree(), "bellows", &mut script);
    Ok(std::io::stdout().write_all(&script)?)
}
