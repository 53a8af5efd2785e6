//! `AppSpec::check`: is what a person declared possible and free of contradictions? Every fault is named, with its field and the way out.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::bounds::{self, Bounds, is_label, is_name};
use super::check_health::check_health;
use super::spec::{AppSpec, Constraint, ConstraintOperator, Elastic, Policy, Scale, WhenCutOff};
use crate::units::{Bytes, CpuMilli, Millis, Permille};

/// One field that cannot stand as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub struct FieldError {
    /// As in the app's file, e.g. `policy.max`.
    pub field: String,
    /// What is wrong.
    pub what: String,
    /// What would be right.
    pub mend: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.field, self.what, self.mend)
    }
}

pub(super) struct Faults(Vec<FieldError>);

impl Faults {
    pub(super) fn unless(&mut self, right: bool, field: &str, what: impl Into<String>, mend: impl Into<String>) {
        if !right {
            self.0.push(FieldError { field: field.to_owned(), what: what.into(), mend: mend.into() });
        }
    }

    /// `show` puts an amount into words.
    pub(super) fn within<T: std::fmt::Display>(
        &mut self,
        bounds: Bounds,
        field: &str,
        value: u64,
        show: impl Fn(u64) -> T,
    ) {
        let mend = format!("say between {} and {}", show(bounds.least), show(bounds.most));
        self.unless(bounds.hold(value), field, format!("{} is out of bounds", show(value)), mend);
    }
}

/// A number without a unit.
pub(super) fn plain(value: u64) -> u64 {
    value
}

/// As app files say it: `60%`, `62.5%`.
fn percent(permille: u64) -> String {
    match (permille / 10, permille % 10) {
        (whole, 0) => format!("{whole}%"),
        (whole, tenth) => format!("{whole}.{tenth}%"),
    }
}

impl AppSpec {
    /// All faults, not only the first.
    ///
    /// # Errors
    /// One `FieldError` per field that cannot stand.
    pub fn check(&self) -> Result<(), Vec<FieldError>> {
        let mut faults = Faults(Vec::new());
        self.check_names(&mut faults);
        self.check_resources(&mut faults);
        self.check_times(&mut faults);
        self.check_ports(&mut faults);
        self.check_placement(&mut faults);
        self.check_traffic(&mut faults);
        check_health(&mut faults, &self.health);
        self.check_isolation(&mut faults);
        match &self.scale {
            Scale::Declared { replicas } => faults.within(bounds::COPIES, "replicas", (*replicas).into(), plain),
            Scale::Policies(elastic) => check_elastic(&mut faults, elastic),
        }
        if faults.0.is_empty() { Ok(()) } else { Err(faults.0) }
    }

    /// Do copies of both run the same thing? Counts, bounds, rules of placement and traffic are the leader's and the
    /// ingresses'; a copy does not know them.
    pub fn runs_same(&self, other: &Self) -> bool {
        let mut like = other.clone();
        like.scale = self.scale.clone();
        like.constraints.clone_from(&self.constraints);
        like.spread.clone_from(&self.spread);
        like.max_per_node = self.max_per_node;
        like.stop_grace = self.stop_grace;
        like.drain_deadline = self.drain_deadline;
        like.traffic = self.traffic.clone();
        like == *self
    }

    fn check_names(&self, faults: &mut Faults) {
        for (field, name) in [("name", &self.name), ("tenant", &self.tenant)] {
            faults.unless(
                is_name(name),
                field,
                format!("\"{name}\" cannot be a name"),
                "use 1 to 63 of a-z, 0-9 and \"-\", beginning and ending with a letter or digit",
            );
        }
        faults.unless(!self.image.is_empty(), "image", "is empty", "name an image that `bellows image ls` shows");
        for key in self.env.keys() {
            let sound = !key.is_empty() && !key.contains(['=', '\0']);
            faults.unless(
                sound,
                "env",
                format!("\"{key}\" cannot name a variable"),
                "use a name without \"=\" and NUL",
            );
        }
        let texts = self.command.iter().chain(&self.args).chain(self.env.values());
        let nul = texts.into_iter().any(|text| text.contains('\0'));
        faults.unless(
            !nul,
            "command",
            "a command, argument or variable holds a NUL",
            "remove it: the kernel cannot pass it on",
        );
    }

    fn check_resources(&self, faults: &mut Faults) {
        faults.within(bounds::CPU_MILLI, "resources.cpu", self.resources.cpu.0, CpuMilli);
        faults.within(bounds::MEMORY_BYTES, "resources.memory", self.resources.memory.0, Bytes);
        faults.within(bounds::PROCESSES, "resources.processes", self.processes.into(), plain);
        // Zero says nothing: then the node's default holds.
        for (bounds, field, bytes) in
            [(bounds::SCRATCH_BYTES, "resources.scratch", self.scratch), (bounds::LOG_BYTES, "resources.log", self.log)]
        {
            if bytes != Bytes(0) {
                faults.within(bounds, field, bytes.0, Bytes);
            }
        }
    }

    fn check_isolation(&self, faults: &mut Faults) {
        let isolation = &self.isolation;
        if let Some(weight) = isolation.cpu_weight {
            faults.within(bounds::CPU_WEIGHT, "resources.cpu_weight", weight.into(), plain);
        }
        let rates = isolation.disk_rates;
        for (field, bytes) in [("resources.io.read", rates.read), ("resources.io.write", rates.write)] {
            if bytes != Bytes(0) {
                faults.within(bounds::DISK_BYTES, field, bytes.0, Bytes);
            }
        }
        let operations = [
            ("resources.io.read_operations", rates.read_operations),
            ("resources.io.write_operations", rates.write_operations),
        ];
        for (field, count) in operations {
            if count != 0 {
                faults.within(bounds::DISK_OPERATIONS, field, count, plain);
            }
        }
        let lists = [
            ("security.drop_capabilities", &isolation.drop_capabilities),
            ("security.deny_calls", &isolation.deny_calls),
            ("security.add_capabilities", &isolation.add_capabilities),
            ("security.add_calls", &isolation.add_calls),
        ];
        for (field, names) in lists {
            let word = |name: &String| {
                (1..=bounds::NAME_LETTERS).contains(&name.len())
                    && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            };
            if let Some(name) = names.iter().find(|name| !word(name)) {
                let mend = "use the kernel's names: lower-case letters, digits and \"_\"";
                faults.unless(false, field, format!("\"{name}\" names nothing"), mend);
            }
        }
    }

    fn check_times(&self, faults: &mut Faults) {
        faults.within(bounds::STOP_GRACE_MS, "stop_grace", self.stop_grace.0, Millis);
        faults.within(bounds::DRAIN_DEADLINE_MS, "drain_deadline", self.drain_deadline.0, Millis);
        if let WhenCutOff::StopAfter(length) = self.when_cut_off {
            faults.within(bounds::STOP_AFTER_MS, "when_cut_off.stop_after", length.0, Millis);
        }
    }

    fn check_ports(&self, faults: &mut Faults) {
        for (at, port) in self.ports.iter().enumerate() {
            let field = format!("ports[{at}]");
            faults.within(bounds::PORT, &field, port.port.into(), plain);
            faults.unless(
                port.name.is_empty() || is_name(&port.name),
                &field,
                format!("\"{}\" cannot be a name", port.name),
                "use 1 to 63 of a-z, 0-9 and \"-\", beginning and ending with a letter or digit, or leave it out",
            );
            let earlier = &self.ports[..at];
            let taken = earlier.iter().any(|other| other.port == port.port);
            faults.unless(!taken, &field, format!("port {} is there twice", port.port), "name each port once");
            let named = !port.name.is_empty() && earlier.iter().any(|other| other.name == port.name);
            faults.unless(
                !named,
                &field,
                format!("the name \"{}\" is there twice", port.name),
                "give each port a name of its own",
            );
        }
    }

    fn check_placement(&self, faults: &mut Faults) {
        if let Some(most) = self.max_per_node {
            faults.within(bounds::PER_NODE, "max_per_node", most.into(), plain);
        }
        if let Some(spread) = &self.spread {
            check_label(faults, "spread.by", &spread.by);
            faults.within(bounds::SKEW, "spread.max_skew", spread.max_skew.into(), plain);
        }
        for (at, constraint) in self.constraints.iter().enumerate() {
            check_constraint(faults, &format!("constraints[{at}]"), constraint);
        }
    }
}

fn check_label(faults: &mut Faults, field: &str, label: &str) {
    faults.unless(
        is_label(label),
        field,
        format!("\"{label}\" cannot be the key of a node label"),
        "use 1 to 63 letters, digits, dashes, dots, underscores and slashes",
    );
}

fn check_elastic(faults: &mut Faults, elastic: &Elastic) {
    faults.within(bounds::COPIES, "policy.min", elastic.min.into(), plain);
    faults.within(bounds::MOST_COPIES, "policy.max", elastic.max.into(), plain);
    faults.within(bounds::IDLE_GRACE_MS, "policy.idle_grace", elastic.idle_grace.0, Millis);
    faults.unless(
        elastic.min <= elastic.max,
        "policy.min",
        format!("min {} is above max {}", elastic.min, elastic.max),
        "lower min or raise max",
    );
    faults.unless(
        elastic.spare <= elastic.max,
        "policy.spare",
        format!("spare {} is above max {}", elastic.spare, elastic.max),
        "lower spare or raise max",
    );
    faults.unless(
        !elastic.policies.is_empty(),
        "policy",
        "nothing decides the count",
        "name a target, for example `cpu: {target: 60%}`",
    );
    let by_requests = elastic.policies.iter().any(Policy::by_requests);
    faults.unless(
        elastic.min > 0 || by_requests || elastic.policies.is_empty(),
        "policy.min",
        "0 copies use no CPU and no memory, so these policies could never start the first",
        "say at least 1, or name a target of concurrency or requests_per_second too",
    );
    for policy in &elastic.policies {
        match policy {
            Policy::Cpu { target: Permille(share) } => {
                faults.within(bounds::CPU_TARGET_PERMILLE, "policy.cpu.target", (*share).into(), percent);
            }
            Policy::Memory { target: Permille(share) } => {
                faults.within(bounds::MEMORY_TARGET_PERMILLE, "policy.memory.target", (*share).into(), percent);
            }
            Policy::Concurrency { .. } | Policy::RequestsPerSecond { .. } => {}
        }
    }
}

fn check_constraint(faults: &mut Faults, field: &str, constraint: &Constraint) {
    check_label(faults, field, &constraint.label);
    let valued = matches!(constraint.operator, ConstraintOperator::In | ConstraintOperator::NotIn);
    faults.unless(
        valued != constraint.values.is_empty(),
        field,
        if valued { "has no values to compare with" } else { "has values, but only asks whether the label is there" },
        if valued { "list at least one value" } else { "remove the values, or use `in`" },
    );
}
