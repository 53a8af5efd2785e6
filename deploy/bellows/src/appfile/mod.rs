//! App files: what people write, what is wrong with it and where, and the spec that it means.
//!
//! ```text
//! YAML ──tree──▶ values with line and column ──read──▶ AppSpec
//!                                              └─────▶ problems, all of them at once
//! ```
//!
//! [`shape`] describes the same fields for editors (JSON Schema); a test holds both against one table of good and bad files.

mod fields;
mod health;
mod hints;
mod isolation;
mod leaves;
mod policy;
pub mod ranges;
mod read;
pub mod shape;
mod traffic;
mod tree;

#[cfg(test)]
mod mutations;
#[cfg(test)]
mod tests;

use std::io::Read;
use std::path::Path;

use bellows_proto::types::AppSpec;

use crate::failure::{Failure, Kind, Problem};

/// No app file is larger: 1 MiB holds some thousand apps.
const FILE_BYTES: u64 = 1 << 20;

/// Reads every app of a file; `-` is stdin. Apps without a tenant get the given one.
pub fn load(path: &Path, tenant: &str) -> Result<Vec<AppSpec>, Failure> {
    let name = if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() };
    let text = read_text(path, &name)?;
    parse(&name, &text, tenant).map_err(|problems| wrong_file(&name, problems))
}

/// Reads every app of a text. `file` is only for messages.
pub fn parse(file: &str, text: &str, tenant: &str) -> Result<Vec<AppSpec>, Vec<Problem>> {
    let mut report = fields::Report::new(file);
    let specs = match tree::documents(text) {
        Ok(documents) => read::apps(&documents, tenant, &mut report),
        Err(syntax) => {
            report.add(syntax.at, "", syntax.message);
            Vec::new()
        }
    };
    report.finish().map(|()| specs)
}

fn read_text(path: &Path, name: &str) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let read = match path.to_str() {
        Some("-") => std::io::stdin().lock().take(FILE_BYTES + 1).read_to_end(&mut bytes),
        _ => std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES + 1).read_to_end(&mut bytes)),
    };
    read.map_err(|error| unreadable(name, &error))?;
    if bytes.len() as u64 > FILE_BYTES {
        return Err(Failure::usage(format!("{name} is larger than {FILE_BYTES} bytes: that is no app file"))
            .mend("split it, or check the path"));
    }
    String::from_utf8(bytes).map_err(|error| {
        Failure::usage(format!("{name} is not text: byte {} is not UTF-8", error.utf8_error().valid_up_to()))
            .mend("app files are YAML in UTF-8; check the path")
    })
}

fn unreadable(name: &str, error: &std::io::Error) -> Failure {
    let kind = match error.kind() {
        std::io::ErrorKind::NotFound => Kind::NotFound,
        _ => Kind::Usage,
    };
    Failure::new(kind, format!("cannot read {name}: {error}")).mend("check the path; `-f -` reads stdin")
}

fn wrong_file(name: &str, problems: Vec<Problem>) -> Failure {
    let message = match problems.len() {
        1 => format!("{name} has a mistake; nothing was sent"),
        several => format!("{name} has {several} mistakes; nothing was sent"),
    };
    Failure::usage(message)
        .problems(problems)
        .mend("`bellows apply --help` shows a whole file, `bellows schema` describes every field")
}
