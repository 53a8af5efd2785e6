//! YAML as a tree of values that know their line and column. Numbers keep the text that they were written as, so that an
//! environment variable `1.10` does not turn into `1.1`.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Error, Location, Spanned};

use super::hints;

/// A place in the file, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub line: u64,
    pub column: u64,
}

/// A value and where it stands.
#[derive(Debug)]
pub struct Node {
    pub at: Place,
    pub value: Value,
}

/// What YAML can say.
#[derive(Debug)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// A number or truth value without quotes, as written.
    Plain(String),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// Keys and values, in the file's order.
    Map(Vec<(Node, Node)>),
}

/// The text is no YAML.
#[derive(Debug)]
pub struct Syntax {
    pub at: Place,
    pub message: String,
}

/// All documents of a text. Empty ones are left out.
pub fn documents(text: &str) -> Result<Vec<Node>, Syntax> {
    let raw: Vec<Spanned<Raw>> = serde_saphyr::from_multiple(text).map_err(|error| syntax(&error, text))?;
    Ok(raw.into_iter().map(|raw| node(raw, text)).collect())
}

fn syntax(error: &serde_saphyr::Error, text: &str) -> Syntax {
    let mut at = error.location().map_or(Place { line: 1, column: 1 }, place);
    let message = match error.without_snippet() {
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("\"{key}\" stands there a second time; keep one of them")
        }
        Error::NonFiniteFloat { value, .. } => format!("expected a finite number, found {value}"),
        Error::UnknownAnchor { .. } => {
            "this alias names an anchor that stands nowhere above; define it with `&`".to_owned()
        }
        Error::Budget { .. } => "this file asks for more values than any app has; an alias within aliases?".to_owned(),
        other => {
            let rendered = other.to_string();
            let said = first_sentence(&rendered);
            at = hints::place_of_tab(said, text).unwrap_or(at);
            hints::explained(said)
        }
    };
    Syntax { at, message }
}

/// What the parser says, without the place, which stands before it already.
fn first_sentence(rendered: &str) -> &str {
    let line = rendered.lines().next().unwrap_or_default();
    let sentence = line.split(" at line ").next().unwrap_or(line);
    sentence.trim_start_matches("error: ").trim_end_matches([':', ',', ' '])
}

fn place(location: Location) -> Place {
    Place { line: location.line().max(1), column: location.column().max(1) }
}

fn node(raw: Spanned<Raw>, text: &str) -> Node {
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Plain(shown) => Value::Plain(written(raw.defined, text).unwrap_or(shown)),
        Raw::Text(text) => Value::Text(text),
        Raw::List(items) => Value::List(items.into_iter().map(|item| node(item, text)).collect()),
        Raw::Map(entries) => {
            Value::Map(entries.into_iter().map(|(key, value)| (node(key, text), node(value, text))).collect())
        }
    };
    Node { at: place(raw.referenced), value }
}

/// The text of a scalar as it stands in the file.
fn written(location: Location, text: &str) -> Option<String> {
    let start = usize::try_from(location.span().byte_offset()?).ok()?;
    let length = usize::try_from(location.span().byte_len()?).ok()?;
    let written = text.get(start..start.checked_add(length)?)?.trim();
    (!written.is_empty()).then(|| written.to_owned())
}

/// As the parser gives it.
enum Raw {
    Null,
    Plain(String),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<Raw>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

impl Node {
    /// The value as an error message names it.
    pub fn shown(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Plain(text) => shorten(text),
            Value::Text(text) => format!("\"{}\"", shorten(text)),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a block of fields".to_owned(),
        }
    }
}

/// The beginning of a text, on one line.
pub fn shorten(text: &str) -> String {
    const SHOWN: usize = 60;
    let clean: String = text
        .chars()
        .take(SHOWN)
        .map(|c| if c.is_control() { c.escape_debug().to_string() } else { c.into() })
        .collect();
    if text.chars().count() > SHOWN { format!("{clean}...") } else { clean }
}
