//! What was expected where a text is no YAML: the parser says what it found, in a parser's words; these are a person's.

use super::tree::Place;

/// Part of what the parser says, and what was expected instead. The first that fits.
const HINTS: [(&str, &str); 16] = [
    ("found a tab", "YAML is indented with spaces only; put spaces for the tab"),
    ("start with a tab", "YAML is indented with spaces only; put spaces for the tab"),
    ("unclosed quote", "a closing quote"),
    ("unclosed bracket", "a closing bracket"),
    ("illegal placement of ':'", "a closing bracket or quote above; a list in brackets goes on until its `]`"),
    (
        "mapping values are not allowed",
        "the fields of one block in the same column; or quotes around a text with `: ` in it",
    ),
    ("mapping keys are not allowed", "the fields of one block in the same column"),
    ("block sequence entries are not allowed", "a list on lines of its own, each beginning with `- `"),
    ("did not find expected key", "a field's name, in the column of the fields above it"),
    ("expected ':'", "`name: value`"),
    ("expected ',' or", "a comma or the closing bracket"),
    ("eof", "more: the file ends in the middle of something"),
    ("recursion limit", "a few levels; no app has lists and blocks this deep in each other"),
    ("budget", "no more values than an app has; aliases within aliases multiply"),
    ("recursive references", "the value itself; this alias stands inside what it names"),
    ("unexpected character", "text in UTF-8; is this a file of another kind?"),
];

/// The sentence for a person.
pub fn explained(said: &str) -> String {
    let folded = said.to_lowercase();
    let hint = HINTS.iter().find(|(part, _)| folded.contains(part)).map(|(_, expected)| *expected);
    match hint {
        Some(expected) => {
            format!("this is not YAML: {said}; expected {expected}").replace("expected YAML is", "YAML is")
        }
        None => format!("this is not YAML: {said}"),
    }
}

/// The first tab that indents something, when the parser found one: it may name the line above it.
pub fn place_of_tab(said: &str, text: &str) -> Option<Place> {
    if !said.contains("tab") {
        return None;
    }
    let indent = |line: &str| line.chars().take_while(|c| c.is_whitespace()).position(|c| c == '\t');
    let mut lines = text.lines().zip(1..);
    lines.find_map(|(line, number)| Some(Place { line: number, column: indent(line)? as u64 + 1 }))
}
