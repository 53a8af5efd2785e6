//! What every verb knows: flags that stand before or after any verb.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Flags of every verb.
#[derive(Args, Clone, Debug)]
pub struct Globals {
    /// File that says where the controller is and who you are [tried otherwise: ~/.config/bellows/credential.json, then
    /// /var/lib/bellows/dev/credential.json]
    #[arg(long, global = true, env = "BELLOWS_CREDENTIAL", value_name = "FILE", help_heading = "Global options")]
    pub credential: Option<PathBuf>,

    /// Tables for people, or JSON for programs (results on stdout, errors on stderr)
    #[arg(
        long,
        short = 'o',
        global = true,
        value_enum,
        default_value = "table",
        value_name = "FORMAT",
        help_heading = "Global options"
    )]
    pub output: Output,

    /// Whose apps are meant
    #[arg(
        long,
        global = true,
        env = "BELLOWS_TENANT",
        default_value = "default",
        value_name = "NAME",
        help_heading = "Global options"
    )]
    pub tenant: String,
}

/// For whom is the output?
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Aligned columns.
    Table,
    /// Stable field names.
    Json,
}

impl Globals {
    /// Shall the output be JSON?
    pub fn json(&self) -> bool {
        self.output == Output::Json
    }
}
