//! `Health`: can the checks that a person declared be made, and do they make sense?

use super::bounds;
use super::check::{Faults, plain};
use super::health::{Check, Health, How};
use crate::units::Millis;

/// Letters of a path, headers of a request: more is not meant for a health check.
const PATH_BYTES: usize = 2_048;
const HEADERS: usize = 64;

pub(super) fn check_health(faults: &mut Faults, health: &Health) {
    for (name, check) in health.checks() {
        let field = format!("health.{name}");
        check_how(faults, &field, &check.how);
        check_times(faults, &field, check);
        // Only readiness comes and goes: the others have succeeded once for all, or failed.
        faults.unless(
            name == "readiness" || check.success_threshold == 1,
            &format!("{field}.success_threshold"),
            format!(
                "{} successes in a row are asked for, but one is enough for a {name} check",
                check.success_threshold
            ),
            "say 1, or leave it out",
        );
    }
}

fn check_times(faults: &mut Faults, field: &str, check: &Check) {
    faults.within(bounds::CHECK_DELAY_MS, &format!("{field}.initial_delay"), check.initial_delay.0, Millis);
    faults.within(bounds::CHECK_PERIOD_MS, &format!("{field}.period"), check.period.0, Millis);
    faults.within(bounds::CHECK_TIMEOUT_MS, &format!("{field}.timeout"), check.timeout.0, Millis);
    let thresholds = [("success_threshold", check.success_threshold), ("failure_threshold", check.failure_threshold)];
    for (name, count) in thresholds {
        faults.within(bounds::CHECK_THRESHOLD, &format!("{field}.{name}"), count.into(), plain);
    }
}

fn check_how(faults: &mut Faults, field: &str, how: &How) {
    match how {
        How::Exec { command } => {
            let sound =
                command.first().is_some_and(|program| !program.is_empty()) && !command.iter().any(|w| w.contains('\0'));
            faults.unless(
                sound,
                &format!("{field}.exec"),
                "names no program, or holds a NUL",
                "name a program and its arguments, for example [test, -f, /ready]",
            );
        }
        How::Http { port, path, headers } => {
            faults.within(bounds::PORT, &format!("{field}.http.port"), (*port).into(), plain);
            faults.unless(
                is_path(path),
                &format!("{field}.http.path"),
                format!("\"{path}\" is no path of a request"),
                format!("begin it with \"/\" and use at most {PATH_BYTES} visible ASCII letters, for example /healthz"),
            );
            let sound = headers.len() <= HEADERS && headers.iter().all(|(name, value)| is_header(name, value));
            faults.unless(
                sound,
                &format!("{field}.http.headers"),
                "a name or value cannot be in a request",
                format!("use at most {HEADERS}, names of letters, digits and dashes, values of visible ASCII"),
            );
        }
        How::Tcp { port } => faults.within(bounds::PORT, &format!("{field}.tcp"), (*port).into(), plain),
    }
}

/// Can this be asked for? A fragment is never sent.
pub fn is_path(path: &str) -> bool {
    path.starts_with('/')
        && path.len() <= PATH_BYTES
        && path.bytes().all(|b| b.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(&b))
}

/// Can this be sent?
pub fn is_header(name: &str, value: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    !name.is_empty() && name.bytes().all(letter) && value.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_headers_are_what_requests_take() {
        for good in ["/", "/healthz?full=1&x=%20", "/a/b;c"] {
            assert!(is_path(good), "{good}");
        }
        for bad in ["", "healthz", "/a b", "/a#b", "/\u{fc}", "/a\r\nX: y"] {
            assert!(!is_path(bad), "{bad}");
        }
        assert!(is_header("X-Probe", "a b"));
        assert!(!is_header("X Probe", "a") && !is_header("", "a") && !is_header("X", "a\r\nb"));
    }
}
