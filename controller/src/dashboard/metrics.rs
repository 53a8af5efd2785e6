//! `/metrics`: gauges are set from the driver's view at each scrape, the rest has been counted as it happened.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus::{Encoder, IntGaugeVec, TextEncoder};

use super::Shared;
use crate::driver::{Gauges, Metrics, Question};

pub(super) async fn metrics(State(shared): State<Shared>) -> Response {
    match shared.driver.ask(Question::Gauges).await {
        Ok(gauges) => set(&shared.shown.metrics, &gauges),
        Err(status) => return (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", status.message())).into_response(),
    }
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&shared.shown.registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn set(metrics: &Metrics, gauges: &Gauges) {
    set_all(&metrics.nodes, gauges.nodes);
    set_all(&metrics.copies, gauges.copies);
    metrics.apps.set(count(gauges.apps));
    metrics.sessions.set(count(gauges.sessions));
    metrics.leading.set(i64::from(gauges.leading));
    metrics.term.set(signed(gauges.term));
    metrics.applied.set(signed(gauges.applied));
    metrics.proposals_waiting.set(count(gauges.proposals));
    metrics.violations.set(count(gauges.violations));
}

fn set_all<const N: usize>(family: &IntGaugeVec, values: [(&'static str, u64); N]) {
    for (label, value) in values {
        family.with_label_values(&[label]).set(signed(value));
    }
}

fn count(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
