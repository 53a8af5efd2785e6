//! What an image says about running it, checked and resolved.

use std::collections::BTreeMap;
use std::str::FromStr;

use nix::sys::signal::Signal;
use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::error::Result;
use super::metadata::unusable;
use super::user;

/// Real-time signals as glibc numbers them (the kernel's begin at 32, of which threads use two).
const FIRST_REAL_TIME: i32 = 34;
const LAST_SIGNAL: i32 = 64;

/// The part of an image's config that a runtime needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// First words of the command line; an app's `command` replaces it.
    pub entrypoint: Vec<String>,
    /// Words after the entrypoint; an app's `args` replace it.
    pub cmd: Vec<String>,
    /// `NAME=value`, each name once.
    pub env: Vec<String>,
    /// Absolute path inside the image, `/` when the image says nothing.
    pub working_dir: String,
    /// Who to run as.
    pub user: User,
    /// Signal number that asks the app to end; none when the image says nothing (then SIGTERM).
    pub stop_signal: Option<i32>,
    /// What the image says it listens on. Information, not a rule.
    pub exposed_ports: Vec<ExposedPort>,
    /// Free text by name.
    pub labels: BTreeMap<String, String>,
}

/// A user of the image, resolved against its own `/etc/passwd` and `/etc/group`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// As configured: empty, `name`, `uid`, `name:group`, `uid:gid`.
    pub spec: String,
    /// User id inside the image.
    pub uid: u32,
    /// Primary group id inside the image.
    pub gid: u32,
    /// Supplementary group ids, ascending, without the primary one.
    pub groups: Vec<u32>,
    /// Home folder, `/` when the image does not know the user. For `HOME` where the app sets none.
    pub home: String,
}

impl Default for User {
    fn default() -> Self {
        Self { spec: String::new(), uid: 0, gid: 0, groups: Vec::new(), home: "/".to_owned() }
    }
}

/// A port an image says it listens on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExposedPort {
    /// The port.
    pub number: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

/// From an image's config and its unpacked tree. Lists that a builder left out are empty.
pub(super) fn resolve(
    image: Digest,
    configuration: &ImageConfiguration,
    passwd: &str,
    group: &str,
) -> Result<ImageConfig> {
    let given = configuration.config().clone().unwrap_or_default();
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let (entrypoint, cmd, env) = (list(given.entrypoint()), list(given.cmd()), list(given.env()));
    if entrypoint.iter().chain(&cmd).chain(&env).chain(given.working_dir()).any(|text| text.contains('\0')) {
        return Err(unusable(image, "its command, environment or working folder has a NUL; build it again".to_owned()));
    }
    Ok(ImageConfig {
        entrypoint,
        cmd,
        env: environment(env),
        working_dir: working_dir(given.working_dir().as_deref().unwrap_or("")),
        user: user::resolve(given.user().as_deref().unwrap_or(""), passwd, group)?,
        stop_signal: given
            .stop_signal()
            .as_deref()
            .filter(|text| !text.is_empty())
            .map(|text| signal(image, text))
            .transpose()?,
        exposed_ports: exposed_ports(image, given.exposed_ports().as_deref().unwrap_or(&[]))?,
        labels: given.labels().clone().unwrap_or_default().into_iter().collect(),
    })
}

/// The last of each name counts; what has no `=` is no variable.
fn environment(list: Vec<String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for variable in list {
        let Some((name, _)) = variable.split_once('=').filter(|(name, _)| !name.is_empty()) else { continue };
        let same = |other: &String| other.split_once('=').is_some_and(|(other, _)| other == name);
        match kept.iter().position(same) {
            Some(place) => kept[place] = variable,
            None => kept.push(variable),
        }
    }
    kept
}

fn working_dir(text: &str) -> String {
    if text.starts_with('/') { text.to_owned() } else { format!("/{text}") }
}

/// `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`.
fn signal(image: Digest, text: &str) -> Result<i32> {
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let number = match name.parse::<i32>() {
        Ok(number) => Some(number).filter(|number| (1..=LAST_SIGNAL).contains(number)),
        Err(_) => real_time(name).or_else(|| Signal::from_str(&format!("SIG{name}")).ok().map(|signal| signal as i32)),
    };
    number.ok_or_else(|| {
        unusable(
            image,
            format!("its stop signal `{text}` is not known here; use one like SIGTERM or a number up to {LAST_SIGNAL}"),
        )
    })
}

fn real_time(name: &str) -> Option<i32> {
    let offset = |text: &str| if text.is_empty() { Some(0) } else { text.get(1..)?.parse::<i32>().ok() };
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) if rest.is_empty() || rest.starts_with('+') => FIRST_REAL_TIME.checked_add(offset(rest)?)?,
        (_, Some(rest)) if rest.is_empty() || rest.starts_with('-') => LAST_SIGNAL.checked_sub(offset(rest)?)?,
        _ => return None,
    };
    (FIRST_REAL_TIME..=LAST_SIGNAL).contains(&number).then_some(number)
}

/// `80/tcp`, `80`, `8000-8010/udp` (of which only the ends are kept, being information).
fn exposed_ports(image: Digest, list: &[String]) -> Result<Vec<ExposedPort>> {
    let mut ports = Vec::new();
    for text in list {
        let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        for number in range.split('-') {
            let number = number
                .parse()
                .map_err(|_| unusable(image, format!("it exposes `{text}`, which is no port; write it like 80/tcp")))?;
            ports.push(ExposedPort { number, protocol: protocol.to_ascii_lowercase() });
        }
    }
    ports.sort();
    ports.dedup();
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        let cases = [
            ("SIGTERM", Some(15)),
            ("quit", Some(3)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX", Some(64)),
            ("RTMAX-1", Some(63)),
        ];
        let wrong = [("0", None), ("65", None), ("SIGNONE", None), ("RTMIN+31", None), ("RTMIN-1", None)];
        for (text, expected) in cases.into_iter().chain(wrong) {
            assert_eq!(signal(Digest::of(b""), text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn environment_keeps_the_last() {
        let list = ["A=1", "B=2", "A=3", "nothing", "=x"].map(str::to_owned).to_vec();
        assert_eq!(environment(list), ["A=3", "B=2"]);
    }

    #[test]
    fn ports() {
        let port = |number, protocol: &str| ExposedPort { number, protocol: protocol.to_owned() };
        let list = ["443/TCP".to_owned(), "80".to_owned(), "53/udp".to_owned()];
        assert_eq!(
            exposed_ports(Digest::of(b""), &list).ok(),
            Some(vec![port(53, "udp"), port(80, "tcp"), port(443, "tcp")])
        );
        assert!(exposed_ports(Digest::of(b""), &["70000/tcp".to_owned()]).is_err());
    }
}
