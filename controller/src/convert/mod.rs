//! Wire and log on one side, the core's words on the other. All checks of outside data stand here: lengths, counts, enums, ids.
//! Each rejection names the field. What passes is sound in form; whether it makes sense is the core's to say.

mod health;
mod log;
mod node;
mod refusal;
#[cfg(test)]
mod round_trip;
mod routes;
mod snapshot;
mod spec;
mod traffic;
mod words;

pub(crate) use log::{command_from_log, command_to_log};
pub(crate) use node::{Told, hello_from_wire, order_to_wire, report_from_wire};
pub(crate) use routes::{
    allowance_to_wire, entrances_to_wire, routes_to_wire, subscription_from_wire, traffic_report_from_wire,
};
pub(crate) use snapshot::{model_from_log, model_to_log};
pub(crate) use spec::{check_spec_size, spec_digest, spec_from_wire, spec_to_wire};
pub(crate) use words::{
    activity_to_wire, check_labels, check_text, ended_to_wire, exit_to_wire, fence_from_wire, fence_to_wire,
    lifecycle_to_wire, reason_to_wire, replica_id_from_wire, replica_id_to_wire, resources_to_wire,
};

/// Outside data that cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub(crate) struct Malformed {
    field: String,
    problem: String,
}

impl Malformed {
    pub(crate) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }

    /// The same, seen from the message around it.
    pub(crate) fn within(self, outer: impl std::fmt::Display) -> Self {
        let inner = self.field;
        let field = if inner.starts_with('[') { format!("{outer}{inner}") } else { format!("{outer}.{inner}") };
        Self { field, problem: self.problem }
    }
}

impl From<Malformed> for tonic::Status {
    fn from(malformed: Malformed) -> Self {
        Self::invalid_argument(malformed.to_string())
    }
}

type Result<T> = std::result::Result<T, Malformed>;

/// A message that must be there.
fn required<T>(field: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| Malformed::new(field, "is missing"))
}

/// An enum's number that this version does not know.
fn unknown_value(field: &str, value: i32) -> Malformed {
    Malformed::new(field, format!("{value} is no value that this version knows; is the other side newer?"))
}

/// Every element converted; a rejection bears the element's place.
fn each<W, C>(field: &str, values: Vec<W>, convert: impl Fn(W) -> Result<C>) -> Result<Vec<C>> {
    let place =
        |(at, value): (usize, W)| convert(value).map_err(|malformed| malformed.within(format!("{field}[{at}]")));
    values.into_iter().enumerate().map(place).collect()
}
