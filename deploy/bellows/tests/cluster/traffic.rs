//! Requests to an app with routes, through the nodes' ingresses.

mod faults;

use std::net::Ipv4Addr;

use super::support::events::Events;
use super::support::http;
use super::support::machine;
use super::support::parts::free_port;
use super::*;

fn web(listen: u16) -> String {
    format!(
        "name: web\nimage: busybox\ncommand: [/bin/httpd, -f, -p, \"8080\", -h, /www]\nresources: {{cpu: 200m, memory: 64MiB}}\n\
         policy:\n  min: 0\n  max: 3\n  idle_grace: 1s\n  concurrency: {{target: 2}}\n\
         ports:\n  - {{name: web, port: 8080, protocol: http}}\nroutes:\n  - {{listen: {listen}, to: web}}\n"
    )
}

#[test]
fn from_zero_copies_a_request_to_any_node_is_served() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let bench = with_busybox(&["--nodes", "2"]);
    let listen = free_port();
    bench.dev.cli.apply(&web(listen), &[]);
    assert_eq!(bench.dev.cli.replicas("web").len(), 0);
    let nodes = [1, 2].map(|node| SocketAddr::from((Ipv4Addr::new(127, 0, 0, node), listen)));
    let until = std::time::Instant::now() + PATIENCE;
    while http::get(nodes[0], "/").is_err() {
        assert!(std::time::Instant::now() < until, "nobody listens on {}", nodes[0]);
        std::thread::yield_now(); // ports open a moment after the app is declared
    }
    for node in nodes {
        assert_eq!(http::body(node, "/"), "busybox serves\n", "asked at {node}");
    }
    bench.end();
}

/// Whoever waits hears why; so does the operator, afterwards; and a copy that was started in vain goes.
#[test]
fn an_app_that_never_listens_is_explained() {
    let Some(_machine) = machine(&["busybox"]) else { return };
    let bench = with_busybox(&["--nodes", "1"]);
    let cli = &bench.dev.cli;
    let listen = free_port();
    let mute = web(listen).replace("[/bin/httpd, -f, -p, \"8080\", -h, /www]", "[sleep, \"1000\"]");
    cli.apply(&(mute + "hold: {time: 2s}\n"), &[]);
    let node = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 1), listen));
    let until = std::time::Instant::now() + PATIENCE;
    let said = loop {
        match http::get(node, "/") {
            Ok(said) => break said,
            Err(_) => assert!(std::time::Instant::now() < until, "nobody listens on {node}"),
        }
        std::thread::yield_now();
    };
    assert!(said.starts_with("HTTP/1.1 503 ") && said.contains("no copy could take it within 2"), "{said}");
    assert!(said.contains("1 starting") && said.contains("but none listens yet"), "{said}");
    let mut events = Events::follow(cli);
    events.until("the end of the copy that was started", PATIENCE, |_| cli.replicas("web").is_empty().then_some(()));
    let told = cli.json(&["explain", "web"]).to_string();
    assert!(told.contains("1 request was refused"), "{told}");
    assert!(told.contains("1 at node-1, the last one ") && told.contains("no copy could take it within 2"), "{told}");
    drop(events);
    bench.end();
}

/// A hundred are `bellows bench traffic --only cycles`.
#[test]
fn five_cycles_of_scaling_under_traffic_of_all_kinds_fail_nothing() {
    let Some(_machine) = machine(&[]) else { return };
    let rows = super::bench::rows(&["traffic", "--only", "cycles", "--cycles", "5"]);
    let judged: Vec<&Value> = rows.iter().filter(|row| row["met"].is_boolean()).collect();
    assert!(judged.len() == 3 && judged.iter().all(|row| row["met"] == true), "{rows:#?}");
}
