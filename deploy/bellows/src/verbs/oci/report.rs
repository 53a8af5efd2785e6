//! Errors and warnings, on stderr and in the caller's log, as callers of OCI runtimes read them.

use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use bellows_runtime::oci::OciError;
use serde_json::json;

use super::arguments::LogFormat;

/// Where they go beside stderr.
pub struct Report {
    log: Option<PathBuf>,
    format: LogFormat,
}

impl Report {
    pub fn new(log: Option<&Path>, format: LogFormat) -> Self {
        Self { log: log.map(Path::to_owned), format }
    }

    /// The command failed.
    pub fn error(&self, error: &anyhow::Error) {
        self.tell("error", &chain(error.as_ref()));
    }

    /// Something failed that does not make the command fail.
    pub fn warning(&self, error: &OciError) {
        self.tell("warning", &chain(error));
    }

    /// That the log cannot be written is told on stderr, where the message itself stands too.
    fn tell(&self, level: &str, message: &str) {
        let mut stderr = std::io::stderr();
        let told = writeln!(stderr, "bellows-oci: {level}: {message}");
        let Some(path) = &self.log else { return };
        let time = jiff::Timestamp::now().to_string();
        let line = match self.format {
            LogFormat::Json => json!({"level": level, "msg": message, "time": time}).to_string(),
            LogFormat::Text => format!("time={time:?} level={level} msg={message:?}"),
        };
        let opened = OpenOptions::new().create(true).append(true).open(path);
        if let Err(error) = opened.and_then(|mut file| writeln!(file, "{line}"))
            && told.is_ok()
        {
            eprintln!("bellows-oci: warning: cannot write the log {}: {error}", path.display());
        }
    }
}

/// The whole chain as one sentence.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
