//! The web page, its live updates, `/metrics` and `/health`: plain HTTP, read-only, meant for loopback.
//!
//! A page of another site must not read it through the visitor's browser: a request that names a host by anything but an address
//! or `localhost` is refused (DNS rebinding), no cross-origin header is ever sent, and the page may load from here only.
//!
//! Deliberately absent: anything that changes the cluster, and anything loaded from elsewhere.

mod live;
mod metrics;
mod page;
mod shapes;

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::Registry;
use tokio::net::TcpListener;

use crate::driver::{Handle, Metrics};

/// What `/metrics` shows.
pub(crate) struct Shown {
    pub(crate) registry: Registry,
    pub(crate) metrics: Arc<Metrics>,
}

/// What the handlers share.
#[derive(Clone)]
struct Shared {
    driver: Handle,
    shown: Arc<Shown>,
    live: live::Feed,
}

/// Scripts, styles and updates from this server only; nobody may frame it.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Serves until `ended`.
pub(crate) async fn serve(
    listener: TcpListener,
    driver: Handle,
    shown: Shown,
    ended: impl Future<Output = ()> + Send + 'static,
) {
    let live = live::Feed::start(driver.clone());
    let shared = Shared { driver, shown: Arc::new(shown), live };
    if let Err(error) = axum::serve(listener, router(shared)).with_graceful_shutdown(ended).await {
        tracing::error!(%error, "the web page's server ended");
    }
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/", get(page::page))
        .route("/page.css", get(page::style))
        .route("/page.js", get(page::script))
        .route("/live", get(live::live))
        .route("/metrics", get(metrics::metrics))
        .route("/health", get(health))
        .with_state(shared)
        .layer(middleware::from_fn(guard))
}

/// Answers load balancers and people: does this controller take calls?
async fn health(State(shared): State<Shared>) -> Response {
    match shared.driver.standing().borrow().leading {
        true => (StatusCode::OK, "serving\n").into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not leading, or no quorum answers\n").into_response(),
    }
}

async fn guard(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !names_this_server(host) {
        let text = "call this page by its address or as localhost\n";
        return (StatusCode::MISDIRECTED_REQUEST, text).into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// An address, or `localhost`; with or without a port.
fn names_this_server(host: &str) -> bool {
    let without_port = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = without_port.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(without_port);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::names_this_server;

    #[test]
    fn only_addresses_and_localhost_name_this_server() {
        for good in ["127.0.0.1", "127.0.0.1:8080", "localhost", "LOCALHOST:80", "[::1]:8080", "[::1]"] {
            assert!(names_this_server(good), "{good}");
        }
        for bad in ["", "evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example:80"] {
            assert!(!names_this_server(bad), "{bad}");
        }
    }
}
