//! What the demo app can be told, one handler each.

use std::convert::Infallible;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use tokio_stream::StreamExt;

use super::load::{Burn, Held, spin};
use super::page::{self, Identity};

/// Where the busy mark is unless the request names another file.
const BUSY_MARK: &str = "/dev/bellows/busy";

/// Longest anything may be asked to last: one day.
const MOST_SECONDS: u64 = 24 * 60 * 60;

#[derive(Debug, Clone)]
struct App {
    who: Arc<Identity>,
    since: Instant,
    held: Held,
}

/// Every path and its handler.
pub fn router() -> Router {
    let app = App { who: Arc::new(Identity::of_this_process()), since: Instant::now(), held: Held::default() };
    Router::new()
        .route("/", get(show))
        .route("/burn", get(burn).post(burn))
        .route("/hold", get(hold).post(hold))
        .route("/slow", get(slow))
        .route("/stream", get(stream))
        .route("/echo", get(echo))
        .route("/busy", get(busy).post(busy))
        .route("/hang", get(hang))
        .route("/exit", get(exit).post(exit))
        .route("/crash", get(crash).post(crash))
        .route("/health", get(health))
        .with_state(app)
}

async fn show(State(app): State<App>, headers: HeaderMap) -> Response {
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let (up, held_bytes) = (app.since.elapsed(), app.held.bytes());
    if accepts.is_some_and(|kinds| kinds.contains("text/html")) {
        Html(page::html(&app.who, up, held_bytes)).into_response()
    } else {
        page::text(&app.who, up, held_bytes).into_response()
    }
}

#[derive(Debug, Deserialize)]
struct BurnQuery {
    ms: Option<u64>,
    seconds: Option<u64>,
    #[serde(default = "one")]
    cores: u32,
    #[serde(default = "hundred")]
    share: u32,
}

fn one() -> u32 {
    1
}

fn hundred() -> u32 {
    100
}

fn refused(why: impl Into<String>) -> Response {
    (StatusCode::BAD_REQUEST, format!("{}\n", why.into())).into_response()
}

async fn burn(State(app): State<App>, Query(query): Query<BurnQuery>) -> Response {
    let BurnQuery { ms, seconds, cores, share } = query;
    if !(1..=64).contains(&cores) || !(1..=100).contains(&share) {
        return refused(format!("cores={cores}&share={share}: cores is 1 to 64, share 1 to 100 percent"));
    }
    match (ms, seconds) {
        (Some(ms), None) if ms <= MOST_SECONDS * 1000 => burn_now(Duration::from_millis(ms), cores).await,
        (None, Some(seconds)) if seconds <= MOST_SECONDS => {
            Burn { length: Duration::from_secs(seconds), cores, share_percent: share }.start();
            let replica = &app.who.replica;
            format!("{replica} burns {share}% of {cores} core(s) for {seconds} s\n").into_response()
        }
        (None, None) => refused("say ms=N (burn, then answer) or seconds=N (answer, burn in the background)"),
        (Some(_), Some(_)) => refused("say ms=N or seconds=N, not both"),
        _ => refused(format!("the longest burn is {MOST_SECONDS} s")),
    }
}

/// Burns as part of the request: the answer comes when it is over.
async fn burn_now(length: Duration, cores: u32) -> Response {
    let threads: Vec<_> = (0..cores).map(|_| tokio::task::spawn_blocking(move || spin(length))).collect();
    for thread in threads {
        if let Err(error) = thread.await {
            return (StatusCode::INTERNAL_SERVER_ERROR, format!("a burning thread ended: {error}\n")).into_response();
        }
    }
    format!("burnt {} ms on {cores} core(s)\n", length.as_millis()).into_response()
}

#[derive(Debug, Deserialize)]
struct HoldQuery {
    mb: usize,
}

async fn hold(State(app): State<App>, Query(HoldQuery { mb }): Query<HoldQuery>) -> Response {
    let Some(bytes) = mb.checked_mul(1 << 20).filter(|bytes| *bytes <= isize::MAX.unsigned_abs()) else {
        return refused(format!("mb={mb} is more than any machine has"));
    };
    let held = app.held.clone();
    match tokio::task::spawn_blocking(move || held.hold(bytes)).await {
        Ok(()) => format!("{} holds {mb} MiB\n", app.who.replica).into_response(),
        Err(error) => (StatusCode::INSUFFICIENT_STORAGE, format!("holding {mb} MiB: {error}\n")).into_response(),
    }
}

#[derive(Debug, Deserialize)]
struct SlowQuery {
    ms: u64,
}

async fn slow(Query(SlowQuery { ms }): Query<SlowQuery>) -> String {
    tokio::time::sleep(Duration::from_millis(ms)).await;
    format!("answered after {ms} ms\n")
}

#[derive(Debug, Deserialize)]
struct StreamQuery {
    #[serde(default = "ten")]
    chunks: usize,
    #[serde(default = "half_a_second_ms")]
    ms: u64,
}

fn ten() -> usize {
    10
}

fn half_a_second_ms() -> u64 {
    500
}

async fn stream(State(app): State<App>, Query(StreamQuery { chunks, ms }): Query<StreamQuery>) -> Body {
    let replica = app.who.replica.clone();
    let ticks = tokio_stream::iter(0..chunks).then(move |number| async move {
        if number > 0 {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        number
    });
    let pieces =
        ticks.map(move |n| Ok::<_, Infallible>(Bytes::from(format!("piece {} of {chunks} by {replica}\n", n + 1))));
    Body::from_stream(pieces)
}

/// A WebSocket that says what it hears.
async fn echo(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(say_again)
}

async fn say_again(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        // The library answers pings and closings by itself.
        let said = matches!(message, Message::Text(_) | Message::Binary(_));
        if said && socket.send(message).await.is_err() {
            return;
        }
    }
}

#[derive(Debug, Deserialize)]
struct BusyQuery {
    seconds: u64,
    file: Option<PathBuf>,
}

/// Holds the mark open: that alone says "working"; nothing is written.
async fn busy(Query(BusyQuery { seconds, file }): Query<BusyQuery>) -> Response {
    let path =
        file.or_else(|| std::env::var_os("BELLOWS_BUSY_MARK").map(PathBuf::from)).unwrap_or_else(|| BUSY_MARK.into());
    let mark = match File::options().append(true).create(true).open(&path) {
        Ok(mark) => mark,
        Err(error) => return refused(format!("opening the busy mark {}: {error}", path.display())),
    };
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        drop(mark);
    });
    format!("busy for {seconds} s ({} is held open)\n", path.display()).into_response()
}

async fn hang() -> String {
    std::future::pending().await
}

#[derive(Debug, Deserialize)]
struct ExitQuery {
    #[serde(default)]
    code: i32,
}

async fn exit(Query(ExitQuery { code }): Query<ExitQuery>) -> String {
    std::process::exit(code)
}

async fn crash() -> String {
    std::process::abort()
}

async fn health() -> &'static str {
    "ok\n"
}
