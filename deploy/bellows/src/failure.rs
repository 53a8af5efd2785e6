//! How a verb fails: an exit code that scripts can trust, a sentence that says what and where, and how to mend it.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

/// Why a verb did not do what was asked. The number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Refused, or went wrong.
    Failed = 1,
    /// The command line or a file is wrong; nothing was sent.
    Usage = 2,
    /// No controller answers, or none leads.
    Unreachable = 3,
    /// `--timeout` ended before the wish came true; the wish stands.
    TimedOut = 4,
    /// No such app, replica, node, image or file.
    NotFound = 5,
}

impl Kind {
    /// Stable name, for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::NotFound => "not_found",
        }
    }
}

/// What is printed when a verb fails.
#[derive(Debug)]
pub struct Failure {
    kind: Kind,
    message: String,
    mend: Vec<String>,
    problems: Vec<Problem>,
    quiet: bool,
    /// In place of the kind's.
    exit_code: Option<u8>,
}

/// One of several things that are wrong with an input file.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// As the person named it, or "stdin".
    pub file: String,
    /// From 1.
    pub line: u64,
    /// From 1.
    pub column: u64,
    /// Path inside the document, e.g. `policy.cpu.target`.
    pub field: String,
    /// One sentence: what is wrong, what was expected.
    pub message: String,
}

impl Failure {
    /// Of this kind, with one sentence.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), mend: Vec::new(), problems: Vec::new(), quiet: false, exit_code: None }
    }

    /// Refused, or went wrong: exit code 1.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// A wrong argument or file: exit code 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// No such thing: exit code 5.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// An error with all its causes as one sentence: exit code 1.
    pub fn from_error(error: &(dyn Error + 'static)) -> Self {
        Self::failed(chain(error))
    }

    /// Adds a line that says how to mend it.
    pub fn mend(mut self, hint: impl Into<String>) -> Self {
        self.mend.push(hint.into());
        self
    }

    /// Adds what is wrong in input files.
    pub fn problems(mut self, problems: Vec<Problem>) -> Self {
        self.problems = problems;
        self
    }

    /// With another exit code than the kind's.
    pub fn with_exit_code(mut self, code: u8) -> Self {
        self.exit_code = Some(code);
        self
    }

    /// Nothing failed here: a program that was run for a person ended with this code.
    pub fn of_program(code: u8) -> Self {
        Self { quiet: true, ..Self::failed(format!("the program ended with code {code}")) }.with_exit_code(code)
    }

    fn exit_code(&self) -> u8 {
        self.exit_code.unwrap_or(self.kind as u8)
    }

    /// The reader of our output went away: nothing to say, and not our failure.
    fn reader_gone() -> Self {
        Self { quiet: true, ..Self::failed("the reader of the output went away") }
    }

    /// Why.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Prints to stderr, says with which code to exit.
    pub fn report(&self, json: bool) -> ExitCode {
        if self.quiet {
            return ExitCode::from(self.exit_code.unwrap_or(0));
        }
        if json {
            eprintln!("{}", self.as_json());
        } else {
            eprint!("{self}");
        }
        ExitCode::from(self.exit_code())
    }

    fn as_json(&self) -> serde_json::Value {
        serde_json::json!({ "error": {
            "kind": self.kind.name(),
            "exit_code": self.exit_code(),
            "message": self.message,
            "mend": self.mend,
            "problems": self.problems,
        }})
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.message)?;
        for problem in &self.problems {
            writeln!(f, "  {}:{}:{}: {}", problem.file, problem.line, problem.column, problem.message)?;
        }
        self.mend.iter().try_for_each(|hint| writeln!(f, " mend: {hint}"))
    }
}

impl From<std::io::Error> for Failure {
    /// For writing results: a closed pipe is no failure.
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::reader_gone(),
            _ => Self::failed(format!("cannot write the output: {error}")),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::from_error(error.as_ref())
    }
}

/// An error and its causes, as one sentence.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
