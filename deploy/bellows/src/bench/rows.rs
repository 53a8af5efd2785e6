//! What every measurement is told as.

use serde::Serialize;

use crate::failure::Failure;
use crate::globals::Globals;
use crate::output::{self, Table};

/// One measured value, where known beside what it is compared with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What was measured; stable between versions.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what: `ms`, `1/s`, `s`, `KiB`, ...
    pub unit: String,
    /// The same by somebody else, or by the kernel alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<Reference>,
    /// `value / reference`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// Is the reference a bar, and is it met?
    #[serde(skip_serializing_if = "Option::is_none")]
    pub met: Option<bool>,
}

/// What a row is compared with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reference {
    /// Whose value, and measured where.
    pub name: String,
    /// In the row's unit.
    pub value: f64,
}

impl Row {
    /// A value that stands alone.
    pub fn new(name: impl Into<String>, value: f64, unit: impl Into<String>) -> Self {
        Self { name: name.into(), value, unit: unit.into(), reference: None, ratio: None, met: None }
    }

    /// The value shall be at least this.
    pub fn at_least(self, bar: f64) -> Self {
        let met = self.value >= bar;
        Self { met: Some(met), ..self.beside("bar: at least", bar) }
    }

    /// The value shall be at most this.
    pub fn at_most(self, bar: f64) -> Self {
        let met = self.value <= bar;
        Self { met: Some(met), ..self.beside("bar: at most", bar) }
    }

    /// The value shall be at most so many times another's.
    pub fn at_most_times(self, name: impl std::fmt::Display, value: f64, times: f64) -> Self {
        let met = self.value <= value * times;
        Self { met: Some(met), ..self.beside(format!("{name}; bar: at most {times} times it"), value) }
    }

    /// The same value beside another's.
    pub fn beside(mut self, name: impl Into<String>, value: f64) -> Self {
        self.ratio = (value > 0.0).then(|| self.value / value);
        self.reference = Some(Reference { name: name.into(), value });
        self
    }
}

/// Prints rows as a table, or as one JSON list.
pub fn print(rows: &[Row], globals: &Globals) -> Result<(), Failure> {
    if globals.json() {
        return output::json(&rows);
    }
    let mut table = Table::new(&["NAME", ">VALUE", "UNIT", "REFERENCE", ">RATIO"]);
    for row in rows {
        let met = row.met.map_or("", |met| if met { ", met" } else { ", MISSED" });
        let reference = row.reference.as_ref().map(|r| format!("{} ({}{met})", number(r.value), r.name));
        let reference = reference.unwrap_or_default();
        let ratio = row.ratio.map(number).unwrap_or_default();
        table.row(vec![row.name.clone(), number(row.value), row.unit.clone(), reference, ratio]);
    }
    table.print("nothing was measured")
}

/// Three significant places or so: more would claim what one run does not know.
fn number(value: f64) -> String {
    match value.abs() {
        v if v.is_nan() => "-".to_owned(),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The value below which this share (permille) of the samples lies; 0 for no samples.
pub fn quantile(samples: &mut [f64], permille: usize) -> f64 {
    samples.sort_by(f64::total_cmp);
    let index = samples.len().saturating_sub(1) * permille.min(1000) / 1000;
    samples.get(index).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_stable_names_and_leave_out_what_is_not_known() {
        let rows = [Row::new("launch", 0.5, "ms"), Row::new("scale", 1.0, "s").beside("peer", 4.0)];
        let said = serde_json::to_value(&rows[..]).expect("rows are JSON");
        assert_eq!(said[0], serde_json::json!({"name": "launch", "value": 0.5, "unit": "ms"}));
        let reference = serde_json::json!({"name": "peer", "value": 4.0});
        assert_eq!(
            said[1],
            serde_json::json!({"name": "scale", "value": 1.0, "unit": "s", "reference": reference, "ratio": 0.25})
        );
    }

    #[test]
    fn bars_are_met_or_not() {
        let met = |row: Row| row.met;
        assert_eq!(met(Row::new("a", 1.0, "ms").at_most(1.0)), Some(true));
        assert_eq!(met(Row::new("a", 1.0, "ms").at_least(1.5)), Some(false));
        assert_eq!(met(Row::new("a", 1.0, "ms").at_most_times("peer", 5.0, 0.2)), Some(true));
        assert_eq!(met(Row::new("a", 1.1, "ms").at_most_times("peer", 5.0, 0.2)), Some(false));
        assert_eq!(met(Row::new("a", 1.0, "ms").beside("peer", 2.0)), None);
    }

    #[test]
    fn quantiles_are_samples() {
        let mut samples = [3.0, 1.0, 2.0];
        assert_eq!([0, 500, 1000].map(|q| quantile(&mut samples, q)), [1.0, 2.0, 3.0]);
        assert_eq!(quantile(&mut [], 500), 0.0);
    }
}
