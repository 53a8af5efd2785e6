//! Why. Every decision carries one; it rides in the order, stays with the replica and comes back in inventories.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A code for programs and a sentence for people. The sentence holds every figure that the decision was made on.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Reason {
    /// Stable, snake_case, e.g. `least_loaded`, `scale_down`, `node_lost`.
    pub code: String,
    /// One sentence.
    pub text: String,
}

impl Reason {
    /// A reason with this code and sentence.
    pub fn new(code: &str, text: impl Into<String>) -> Self {
        Self { code: code.to_owned(), text: text.into() }
    }
}

/// `1 copy`, `2 copies`.
pub fn count(number: impl Into<u64>, one: &str, many: &str) -> String {
    let number = number.into();
    format!("{number} {}", if number == 1 { one } else { many })
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
