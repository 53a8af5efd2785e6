//! `AppSpec::check`: is what a person declared possible and free of contradictions? Every fault is named, with its field and the way out.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::spec::{AppSpec, Constraint, ConstraintOperator, Elastic, Policy, Scale, WhenCutOff};
use crate::limits::MOST_REPLICAS;
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

/// The smallest memory that a process and its init can start in.
const LEAST_MEMORY: Bytes = Bytes(1 << 20);
/// More than any server has; catches a unit forgotten or doubled.
const MOST_MEMORY: Bytes = Bytes(64 << 40);
/// The finest share of a CPU that a cgroup quota of 100 ms can express: 1 ms.
const LEAST_CPU: CpuMilli = CpuMilli(10);
/// 4,096 CPUs.
const MOST_CPU: CpuMilli = CpuMilli(4_096_000);
/// A day: a longer grace is a mistyped unit.
const LONGEST: Millis = Millis(24 * 3_600_000);

struct Faults(Vec<FieldError>);

impl Faults {
    fn unless(&mut self, right: bool, field: &str, what: impl Into<String>, mend: impl Into<String>) {
        if !right {
            self.0.push(FieldError { field: field.to_owned(), what: what.into(), mend: mend.into() });
        }
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
        match &self.scale {
            Scale::Declared { replicas } => check_count(&mut faults, "replicas", *replicas),
            Scale::Policies(elastic) => check_elastic(&mut faults, elastic),
        }
        if faults.0.is_empty() { Ok(()) } else { Err(faults.0) }
    }

    /// Do copies of both run the same thing? Counts, bounds and rules of placement are the leader's; a copy does not know them.
    pub fn runs_same(&self, other: &Self) -> bool {
        let mut like = other.clone();
        like.scale = self.scale.clone();
        like.constraints.clone_from(&self.constraints);
        like.spread.clone_from(&self.spread);
        like.max_per_node = self.max_per_node;
        like.stop_grace = self.stop_grace;
        like.drain_deadline = self.drain_deadline;
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
        let (cpu, memory) = (self.resources.cpu, self.resources.memory);
        faults.unless(
            (LEAST_CPU..=MOST_CPU).contains(&cpu),
            "resources.cpu",
            format!("{cpu} cannot be given"),
            format!("say between {LEAST_CPU} and {MOST_CPU} (1000m is one CPU)"),
        );
        faults.unless(
            (LEAST_MEMORY..=MOST_MEMORY).contains(&memory),
            "resources.memory",
            format!("{memory} cannot be given"),
            "say between 1Mi and 64Ti",
        );
        faults.unless(
            (1..=4_194_304).contains(&self.processes),
            "processes",
            format!("{} cannot be the bound", self.processes),
            "say between 1 and 4194304",
        );
    }

    fn check_times(&self, faults: &mut Faults) {
        let cut_off = match self.when_cut_off {
            WhenCutOff::KeepRunning => Millis(1_000),
            WhenCutOff::StopAfter(length) => length,
        };
        for (field, length) in [("stop_grace", self.stop_grace), ("drain_deadline", self.drain_deadline)] {
            faults.unless(length <= LONGEST, field, format!("{length} is longer than a day"), "say at most 24h");
        }
        faults.unless(
            (Millis(1_000)..=LONGEST).contains(&cut_off),
            "when_cut_off.stop_after",
            format!("{cut_off} cannot be kept"),
            "say between 1s (the heartbeat) and 24h",
        );
    }

    fn check_ports(&self, faults: &mut Faults) {
        for (at, port) in self.ports.iter().enumerate() {
            let field = format!("ports[{at}]");
            faults.unless(port.port != 0, &field, "0 is no port", "say between 1 and 65535");
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
        faults.unless(
            self.max_per_node != Some(0),
            "max_per_node",
            "0 leaves no node",
            "say at least 1, or leave it out",
        );
        if let Some(spread) = &self.spread {
            faults.unless(!spread.by.is_empty(), "spread.by", "is empty", "name a node label, or \"node\"");
            faults.unless(
                spread.max_skew > 0,
                "spread.max_skew",
                "0 cannot be kept by a single copy",
                "say at least 1",
            );
        }
        for (at, constraint) in self.constraints.iter().enumerate() {
            check_constraint(faults, &format!("constraints[{at}]"), constraint);
        }
    }
}

fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&name.len()) && name.chars().all(allowed) && !name.starts_with('-') && !name.ends_with('-')
}

fn check_count(faults: &mut Faults, field: &str, count: u32) {
    faults.unless(
        count <= MOST_REPLICAS,
        field,
        format!("{count} copies are more than any cluster holds"),
        format!("say at most {MOST_REPLICAS}"),
    );
}

fn check_elastic(faults: &mut Faults, elastic: &Elastic) {
    check_count(faults, "policy.max", elastic.max);
    faults.unless(elastic.max > 0, "policy.max", "0 lets nothing run", "say at least 1, or declare `replicas: 0`");
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
        elastic.idle_grace <= LONGEST,
        "policy.idle_grace",
        format!("{} is longer than a day", elastic.idle_grace),
        "say at most 24h",
    );
    faults.unless(
        !elastic.policies.is_empty(),
        "policy",
        "nothing decides the count",
        "name a target, e.g. `cpu: 60%`",
    );
    let by_cpu = elastic.policies.iter().any(|policy| matches!(policy, Policy::Cpu { .. }));
    faults.unless(
        elastic.min > 0 || !by_cpu,
        "policy.min",
        "0 copies use no CPU, so this policy could never start the first",
        "say at least 1",
    );
    for policy in &elastic.policies {
        match policy {
            Policy::Cpu { target } => faults.unless(
                (Permille(10)..=Permille(1_000)).contains(target),
                "policy.cpu",
                format!("a target of {target} of the declared CPU cannot be met"),
                "say between 1% and 100%",
            ),
        }
    }
}

fn check_constraint(faults: &mut Faults, field: &str, constraint: &Constraint) {
    faults.unless(!constraint.label.is_empty(), field, "names no label", "name a node label");
    let valued = matches!(constraint.operator, ConstraintOperator::In | ConstraintOperator::NotIn);
    faults.unless(
        valued != constraint.values.is_empty(),
        field,
        if valued { "has no values to compare with" } else { "has values, but only asks whether the label is there" },
        if valued { "list at least one value" } else { "remove the values, or use `in`" },
    );
}
