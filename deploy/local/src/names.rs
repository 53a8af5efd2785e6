//! Names that people give, short enough to be part of what the kernel names.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where local clusters keep what they keep.
pub const FOLDER: &str = "/var/lib/bellows/local";

/// Before the cluster's name, in every cgroup hierarchy.
pub const CGROUP_PREFIX: &str = "bellows-local-";

/// Before the cluster's name, for the link that leads from this machine to its hosts.
pub const UPLINK_PREFIX: &str = "bl-";

/// The host that is none: it holds the namespace in which all links meet.
pub const WIRE: &str = "wire";

/// What the far end of the link to this machine is called on the wire.
pub const OUTSIDE: &str = "outside";

/// Link names have 15 characters.
const LONGEST_LINK: usize = 15;

/// Text that is no name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "\"{text}\" is no name of a {what}: at most {longest} small letters, digits and dashes, a letter first{reserved}"
)]
pub struct NameError {
    text: String,
    what: &'static str,
    longest: usize,
    reserved: &'static str,
}

/// The name of a local cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterName(String);

/// The name of a host; its link on the wire has the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

impl ClusterName {
    /// Its directory in every cgroup hierarchy.
    pub fn cgroup(&self) -> String {
        format!("{CGROUP_PREFIX}{self}")
    }

    /// The link on this machine that leads to its hosts.
    pub fn uplink(&self) -> String {
        format!("{UPLINK_PREFIX}{self}")
    }

    /// Everything that is kept.
    pub fn folder(&self) -> PathBuf {
        PathBuf::from(FOLDER).join(&self.0)
    }
}

impl HostName {
    /// The holder of the wire, which is named as a host is.
    pub fn wire() -> Self {
        Self(WIRE.to_owned())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let longest = LONGEST_LINK - UPLINK_PREFIX.len();
        let wrong = || NameError { text: text.to_owned(), what: "local cluster", longest, reserved: "" };
        if is_name(text, longest) { Ok(Self(text.to_owned())) } else { Err(wrong()) }
    }
}

impl FromStr for HostName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let reserved = "; \"wire\", \"outside\", \"lo\", \"all\" and \"default\" mean something else";
        let wrong = || NameError { text: text.to_owned(), what: "host", longest: LONGEST_LINK, reserved };
        let taken = [WIRE, OUTSIDE, "lo", "all", "default"].contains(&text);
        if is_name(text, LONGEST_LINK) && !taken { Ok(Self(text.to_owned())) } else { Err(wrong()) }
    }
}

fn is_name(text: &str, longest: usize) -> bool {
    let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.len() <= longest && text.starts_with(|c: char| c.is_ascii_lowercase()) && text.bytes().all(fine)
}

macro_rules! as_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

as_text!(ClusterName);
as_text!(HostName);

/// Of all names the one that was most likely meant.
pub fn nearest<'n>(text: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let near = names.into_iter().map(|name| (strsim::damerau_levenshtein(text, name), name));
    near.filter(|(distance, name)| *distance <= name.len().max(2) / 2).min().map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_into_what_the_kernel_names() {
        let name: ClusterName = "abcdefghijkl".parse().expect("twelve letters");
        assert_eq!(name.uplink().len(), LONGEST_LINK);
        for bad in ["", "abcdefghijklm", "A", "1a", "a/b", "a.b", "-a"] {
            assert!(bad.parse::<ClusterName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn hosts_are_not_called_as_the_wire_is() {
        assert!("n1".parse::<HostName>().is_ok());
        for bad in ["wire", "outside", "lo", "all", "default", "n1n1n1n1n1n1n1n1"] {
            assert!(bad.parse::<HostName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_nearest_name_is_near() {
        assert_eq!(nearest("n11", ["m1", "n1", "big"]), Some("n1"));
        assert_eq!(nearest("elsewhere", ["m1", "n1", "big"]), None);
    }
}
