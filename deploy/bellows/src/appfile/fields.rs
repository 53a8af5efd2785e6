//! Reading a block of fields: each known name is asked for once, what was not asked for is unknown and gets the nearest known name.

use super::tree::{Node, Place, Value};
use crate::failure::Problem;

/// What is wrong with one file.
pub struct Report<'f> {
    file: &'f str,
    problems: Vec<Problem>,
}

impl<'f> Report<'f> {
    pub fn new(file: &'f str) -> Self {
        Self { file, problems: Vec::new() }
    }

    /// Notes a problem at a place of the file.
    pub fn add(&mut self, at: Place, field: &str, message: impl Into<String>) {
        let Place { line, column } = at;
        self.problems.push(Problem {
            file: self.file.to_owned(),
            line,
            column,
            field: field.to_owned(),
            message: message.into(),
        });
    }

    /// The problems in the order of the file; none is fine.
    pub fn finish(mut self) -> Result<(), Vec<Problem>> {
        self.problems.sort_by_key(|problem| (problem.line, problem.column));
        if self.problems.is_empty() { Ok(()) } else { Err(self.problems) }
    }
}

/// A value, and the path of names that leads to it.
pub struct Found<'n> {
    pub node: &'n Node,
    pub path: String,
}

impl Found<'_> {
    /// Notes that this value is not what it should be.
    pub fn refuse<T>(&self, report: &mut Report<'_>, message: impl Into<String>) -> Option<T> {
        let message = message.into();
        let message = if self.path.is_empty() { message } else { format!("{}: {message}", self.path) };
        report.add(self.node.at, &self.path, message);
        None
    }

    /// Notes what was expected instead of this value.
    pub fn expected<T>(&self, report: &mut Report<'_>, expected: &str) -> Option<T> {
        self.refuse(report, format!("expected {expected}, found {}", self.node.shown()))
    }
}

/// The fields of one block.
pub struct Fields<'n> {
    at: Place,
    path: String,
    entries: &'n [(Node, Node)],
    known: Vec<&'static str>,
}

impl<'n> Fields<'n> {
    /// Opens a block; anything else is a problem.
    pub fn open(found: &Found<'n>, expected: &str, report: &mut Report<'_>) -> Option<Self> {
        match &found.node.value {
            Value::Map(entries) => {
                Some(Self { at: found.node.at, path: found.path.clone(), entries, known: Vec::new() })
            }
            _ => found.expected(report, expected),
        }
    }

    /// The value of a field that may be left out.
    pub fn optional<T>(
        &mut self,
        name: &'static str,
        report: &mut Report<'_>,
        read: impl FnOnce(&Found<'n>, &mut Report<'_>) -> Option<T>,
    ) -> Option<T> {
        self.known.push(name);
        let (_, node) = self.entries.iter().find(|(key, _)| key_text(key) == Some(name))?;
        let found = Found { node, path: join(&self.path, name) };
        match node.value {
            Value::Null => found.refuse(report, "has no value; give one, or remove the line"),
            _ => read(&found, report),
        }
    }

    /// The value of a field that must be there.
    pub fn required<T>(
        &mut self,
        name: &'static str,
        example: &str,
        report: &mut Report<'_>,
        read: impl FnOnce(&Found<'n>, &mut Report<'_>) -> Option<T>,
    ) -> Option<T> {
        if !self.has(name) {
            let field = join(&self.path, name);
            report.add(self.at, &field, format!("{field} is missing; add for example `{name}: {example}`"));
        }
        self.optional(name, report, read)
    }

    /// Is the field there?
    pub fn has(&self, name: &str) -> bool {
        self.place(name).is_some()
    }

    /// Where the field's name stands.
    pub fn place(&self, name: &str) -> Option<Place> {
        self.entries.iter().find(|(key, _)| key_text(key) == Some(name)).map(|(key, _)| key.at)
    }

    /// Where the block begins.
    pub fn start(&self) -> Place {
        self.at
    }

    /// Path of a field of this block.
    pub fn path_of(&self, name: &str) -> String {
        join(&self.path, name)
    }

    /// Every field that nobody asked for is a problem.
    pub fn finish(self, report: &mut Report<'_>) {
        for (key, _) in self.entries {
            match key_text(key) {
                Some(name) if self.known.contains(&name) => {}
                Some(name) => report.add(key.at, &join(&self.path, name), unknown(name, &self.path, &self.known)),
                None => report.add(key.at, &self.path, format!("expected a field's name, found {}", key.shown())),
            }
        }
    }
}

fn key_text(key: &Node) -> Option<&str> {
    match &key.value {
        Value::Text(text) | Value::Plain(text) => Some(text),
        _ => None,
    }
}

/// `policy` and `min` make `policy.min`.
pub fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The sentence about a name that is not known in a block.
fn unknown(name: &str, path: &str, known: &[&str]) -> String {
    let place = if path.is_empty() { String::new() } else { format!(" in {path}") };
    match nearest(name, known) {
        Some(near) => format!("unknown field \"{name}\"{place}; did you mean \"{near}\"?"),
        None => format!("unknown field \"{name}\"{place}; known here: {}", known.join(", ")),
    }
}

/// The known name that a person most likely meant: within a third of its letters, or a beginning of it.
pub fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let folded = name.to_lowercase().replace('-', "_");
    let distance = |known: &&&str| strsim::damerau_levenshtein(&folded, known);
    let best = known.iter().min_by_key(distance).filter(|best| distance(best) <= best.len().div_ceil(3));
    let begins =
        || known.iter().find(|known| known.len() > 2 && (known.starts_with(&folded) || folded.starts_with(**known)));
    best.or_else(begins).copied()
}
