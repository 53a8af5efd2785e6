//! Requests to an app with routes, through the nodes' ingresses.

mod faults;

use std::net::Ipv4Addr;

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

/// A hundred are `bellows bench traffic --only cycles`.
#[test]
fn five_cycles_of_scaling_under_traffic_of_all_kinds_fail_nothing() {
    let Some(_machine) = machine(&[]) else { return };
    let rows = super::bench::rows(&["traffic", "--only", "cycles", "--cycles", "5"]);
    let judged: Vec<&Value> = rows.iter().filter(|row| row["met"].is_boolean()).collect();
    assert!(judged.len() == 3 && judged.iter().all(|row| row["met"] == true), "{rows:#?}");
}
