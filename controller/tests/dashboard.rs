//! The page, its live updates, metrics and health, as a browser and prometheus see them.

mod support;

use std::net::SocketAddr;

use support::{Agent, House, apply, soon, spec};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn ask(address: SocketAddr, path: &str, host: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    stream
}

async fn fetch(house: &House, path: &str) -> String {
    let mut stream = ask(house.controller.dashboard_address(), path, "localhost").await;
    let mut text = String::new();
    soon("the answer", stream.read_to_string(&mut text)).await.expect("read");
    text
}

/// Reads until this text has come.
async fn read_until(stream: &mut TcpStream, seen: &mut String, wanted: &str) {
    soon(wanted, async {
        let mut bytes = vec![0; 64 << 10];
        while !seen.contains(wanted) {
            let count = stream.read(&mut bytes).await.expect("read");
            assert!(count > 0, "the stream ended without {wanted}: {seen}");
            seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    })
    .await;
}

#[tokio::test]
async fn the_page_loads_from_here_only() {
    let house = House::new().await;
    let page = fetch(&house, "/").await;
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("<!DOCTYPE html>"), "{page}");
    assert!(page.contains("content-security-policy: default-src 'none'"), "{page}");
    assert!(!page.contains("http://") && !page.contains("https://"), "nothing from elsewhere: {page}");
    assert!(fetch(&house, "/page.css").await.contains("prefers-color-scheme: dark"));
    let script = fetch(&house, "/page.js").await;
    assert!(script.contains("textContent") && !script.contains("innerHTML"));
    let mut rebound = ask(house.controller.dashboard_address(), "/live", "evil.example").await;
    let mut text = String::new();
    soon("the answer", rebound.read_to_string(&mut text)).await.expect("read");
    assert!(text.starts_with("HTTP/1.1 421"), "{text}");
    house.controller.shutdown().await;
}

#[tokio::test]
async fn changes_come_live() {
    let house = House::new().await;
    let mut stream = ask(house.controller.dashboard_address(), "/live", "127.0.0.1").await;
    let mut seen = String::new();
    read_until(&mut stream, &mut seen, "event: state").await;
    house.load_image("web:1").await;
    let mut client = house.operator().await;
    client.apply(apply(spec("web", "web:1", 3))).await.expect("applied");
    read_until(&mut stream, &mut seen, "\"app\":\"web\"").await;
    read_until(&mut stream, &mut seen, "\"unplaced\":3").await;
    read_until(&mut stream, &mut seen, "\"kind\":\"app_changed\"").await;
    house.controller.shutdown().await;
}

#[tokio::test]
async fn metrics_and_health() {
    let house = House::new().await;
    assert!(fetch(&house, "/health").await.starts_with("HTTP/1.1 200"));
    house.load_image("web:1").await;
    let joined = house.join("node-a").await;
    let mut agent = Agent::connect(&house, &joined).await;
    agent.report(0).await;
    let mut client = house.operator().await;
    client.apply(apply(spec("web", "web:1", 3))).await.expect("applied");
    let orders = agent.orders().await;
    assert_eq!(orders.len(), 3);
    let text = fetch(&house, "/metrics").await;
    for line in [
        "bellows_nodes{liveness=\"up\"} 1",
        "bellows_copies{state=\"wanted\"} 3",
        "bellows_apps 1",
        "bellows_agent_sessions 1",
        "bellows_orders_sent_total 3",
        "bellows_placements_total 3",
        "bellows_leading 1",
        "bellows_check_violations 0",
    ] {
        assert!(text.lines().any(|known| known == line), "{line} is not in\n{text}");
    }
    assert!(text.contains("bellows_step_seconds_bucket"), "{text}");
    house.controller.shutdown().await;
}
