//! Reading single values: texts, names, whole numbers, quantities. A problem is noted where a value is not possible.

use bellows_core::model::bounds::{is_label, is_name};

use super::fields::{Found, Report, join};
use super::ranges::Range;
use super::tree::{Node, Value, shorten};
use crate::units;

/// Names of apps, tenants and ports.
pub const NAME: &str = "lower-case letters, digits and dashes, at most 63, beginning and ending with a letter or digit";
/// Keys of node labels.
pub const LABEL: &str = "letters, digits, dashes, dots, underscores and slashes, at most 63";

/// Any text; numbers and truth values count as what was written.
pub fn text(found: &Found<'_>, report: &mut Report<'_>) -> Option<String> {
    match &found.node.value {
        Value::Text(text) | Value::Plain(text) if text.contains('\0') => found.refuse(report, "has a NUL byte in it"),
        Value::Text(text) | Value::Plain(text) => Some(text.clone()),
        _ => found.expected(report, "a text"),
    }
}

/// A text that names something: a number or truth value there is more likely a slip than a name.
fn naming(found: &Found<'_>, report: &mut Report<'_>) -> Option<String> {
    match &found.node.value {
        Value::Plain(written) => {
            let written = shorten(written);
            found.refuse(report, format!("expected a text, found {written}; if that is meant, write \"{written}\""))
        }
        _ => text(found, report),
    }
}

/// A name that is not empty.
pub fn filled(found: &Found<'_>, report: &mut Report<'_>) -> Option<String> {
    let text = naming(found, report)?;
    if text.trim().is_empty() { found.refuse(report, "is empty") } else { Some(text) }
}

/// A name as DNS would take it.
pub fn name(found: &Found<'_>, report: &mut Report<'_>) -> Option<String> {
    let text = naming(found, report)?;
    if is_name(&text) {
        Some(text)
    } else {
        found.refuse(report, format!("\"{}\" is no name; expected {NAME}, for example web", shorten(&text)))
    }
}

/// The key of a node label.
pub fn label(found: &Found<'_>, report: &mut Report<'_>) -> Option<String> {
    let text = naming(found, report)?;
    if is_label(&text) {
        Some(text)
    } else {
        found.refuse(report, format!("\"{}\" is no label; expected {LABEL}, for example zone", shorten(&text)))
    }
}

/// `true` or `false`.
pub fn truth(found: &Found<'_>, report: &mut Report<'_>) -> Option<bool> {
    match &found.node.value {
        Value::Plain(text) if text == "true" => Some(true),
        Value::Plain(text) if text == "false" => Some(false),
        _ => found.expected(report, "true or false"),
    }
}

/// One of a few words.
pub fn word<T: Copy>(found: &Found<'_>, words: &[(&str, T)], report: &mut Report<'_>) -> Option<T> {
    let said = match &found.node.value {
        Value::Text(text) | Value::Plain(text) => Some(text.as_str()),
        _ => None,
    };
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    match words.iter().find(|(word, _)| said == Some(word)) {
        Some((_, meaning)) => Some(*meaning),
        None => found.expected(report, &known.join(" or ")),
    }
}

/// A whole number within bounds.
pub fn whole(range: &'static Range) -> impl Fn(&Found<'_>, &mut Report<'_>) -> Option<u64> {
    move |found, report| {
        let wanted = || format!("a whole number from {} to {}, for example {}", range.least, range.most, range.example);
        let Value::Plain(text) = &found.node.value else { return found.expected(report, &wanted()) };
        match text.replace('_', "").parse::<u64>() {
            Ok(number) if (range.least..=range.most).contains(&number) => Some(number),
            _ => found.expected(report, &wanted()),
        }
    }
}

/// The same, for numbers that the wire keeps in 32 bits. Every range used with it ends below 2^32.
pub fn whole_32(range: &'static Range) -> impl Fn(&Found<'_>, &mut Report<'_>) -> Option<u32> {
    move |found, report| u32::try_from(whole(range)(found, report)?).ok()
}

/// A duration within bounds, in milliseconds.
pub fn duration(range: &'static Range) -> impl Fn(&Found<'_>, &mut Report<'_>) -> Option<u64> {
    quantity(range, "a duration", units::duration_ms, units::show_ms)
}

/// A size within bounds, in bytes.
pub fn size(range: &'static Range) -> impl Fn(&Found<'_>, &mut Report<'_>) -> Option<u64> {
    quantity(range, "a size", units::bytes, units::show_bytes)
}

/// CPU within bounds, in thousandths.
pub fn cpu(range: &'static Range) -> impl Fn(&Found<'_>, &mut Report<'_>) -> Option<u64> {
    quantity(range, "an amount of CPU", units::cpu_milli, units::show_cpu)
}

/// A percentage within bounds, in permille.
pub fn percent(range: &'static Range) -> impl Fn(&Found<'_>, &mut Report<'_>) -> Option<u64> {
    quantity(range, "a percentage", units::permille, units::show_permille)
}

fn quantity(
    range: &'static Range,
    what: &'static str,
    parse: fn(&str) -> Result<u64, String>,
    show: fn(u64) -> String,
) -> impl Fn(&Found<'_>, &mut Report<'_>) -> Option<u64> {
    move |found, report| {
        let said = match &found.node.value {
            Value::Text(text) | Value::Plain(text) => parse(text).ok(),
            _ => None,
        };
        match said {
            Some(amount) if (range.least..=range.most).contains(&amount) => Some(amount),
            _ => found.expected(
                report,
                &format!("{what} from {} to {}, for example {}", show(range.least), show(range.most), range.example),
            ),
        }
    }
}

/// A list of values, each read the same way.
pub fn list<'n, T>(
    expected: &'static str,
    read: impl Fn(&Found<'n>, &mut Report<'_>) -> Option<T>,
) -> impl FnOnce(&Found<'n>, &mut Report<'_>) -> Option<Vec<T>> {
    move |found, report| {
        let Value::List(items) = &found.node.value else { return found.expected(report, expected) };
        let item =
            |(index, node): (usize, &'n Node)| read(&Found { node, path: format!("{}[{index}]", found.path) }, report);
        // Every item is read before the first refusal counts: all mistakes are told at once.
        let read: Vec<Option<T>> = items.iter().enumerate().map(item).collect();
        read.into_iter().collect()
    }
}

/// Names and values of the environment.
pub fn environment<'n>(found: &Found<'n>, report: &mut Report<'_>) -> Option<Vec<(String, String)>> {
    let Value::Map(entries) = &found.node.value else {
        return found.expected(report, "names and values, for example `LOG_LEVEL: debug`");
    };
    let mut pairs = Vec::new();
    for (key, value) in entries {
        let key_found = Found { node: key, path: found.path.clone() };
        let Some(name) = text(&key_found, report) else { continue };
        if name.is_empty() || name.contains('=') {
            key_found.refuse::<()>(
                report,
                format!("\"{name}\" is no name of a variable: it must not be empty or contain `=`"),
            );
        }
        let value = Found { node: value, path: join(&found.path, &name) };
        if let Some(said) = variable(&value, report) {
            pairs.push((name, said));
        }
    }
    Some(pairs)
}

fn variable(value: &Found<'_>, report: &mut Report<'_>) -> Option<String> {
    match value.node.value {
        Value::Null => value.refuse(report, "has no value; write \"\" for an empty one"),
        _ => text(value, report),
    }
}
