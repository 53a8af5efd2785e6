//! From nothing: a request to an app at zero copies, until the first byte of its answer. One app for each request, so that nothing has to be
//! waited for between two; every app is asked three times: by the leader's decision, under the allowance that follows from that, and with no
//! controller there.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bench::lab::Lab;
use crate::bench::parts::Wish;
use crate::bench::rows::{Row, quantile};
use crate::failure::Failure;
use crate::globals::Globals;

/// What the first byte may take, median and p99, in milliseconds.
const BARS_MS: [f64; 2] = [10.0, 30.0];

/// What one copy declares: with a hundredth of a CPU the kernel would let it wait for tenths of a second at a time.
const CPU_MILLI: u64 = 100;
const MEMORY_MIB: u64 = 4;

/// Between the answer to one request and the next: nothing is to be measured of the one before.
const PAUSE: Duration = Duration::from_millis(25);

/// What a leader sets aside reaches the agents within this.
const PUSHED: Duration = Duration::from_secs(1);

const IMAGE: &str = "bench-tiny";
const PORT: u16 = 8080;

pub async fn rows(globals: &Globals, count: u32) -> Result<Vec<Row>, Failure> {
    let wish = Wish {
        nodes: 1,
        cpu_milli: CPU_MILLI * u64::from(count) + 1_000,
        memory_mib: MEMORY_MIB * u64::from(count) + 64,
        log: "warn",
        rival: false,
    };
    let mut lab = Lab::start(globals, wish).await?;
    lab.tiny_image(IMAGE).await?;
    for number in 0..count {
        lab.declare(&app(number)).await?;
    }
    let door = lab.parts.doors[0];
    let mut rows = pass(door, count, "the leader decides", false).await?;
    lab.nothing_runs().await?;
    tokio::time::sleep(PUSHED).await;
    rows.extend(pass(door, count, "with the controller", true).await?);
    lab.nothing_runs().await?;
    tokio::time::sleep(PUSHED).await;
    lab.parts.kill_controller();
    rows.extend(pass(door, count, "by allowance, the controller killed", true).await?);
    lab.parts.restart_controller()?;
    lab.nothing_runs().await?;
    lab.end().await?;
    Ok(rows)
}

fn app(number: u32) -> String {
    format!(
        "name: cold-{number}\nimage: {IMAGE}\ncommand: [/bin/payload, answer, \"{PORT}\"]\n\
         resources: {{cpu: {CPU_MILLI}m, memory: {MEMORY_MIB}MiB, processes: 8, scratch: 1MiB, log: 64KiB}}\n\
         policy: {{min: 0, max: 1, idle_grace: 3s, concurrency: {{target: 10}}}}\n\
         ports: [{{name: web, port: {PORT}, protocol: http}}]\nroutes: [{{host: cold-{number}.bench, to: web}}]\n"
    )
}

async fn pass(door: SocketAddr, count: u32, what: &str, barred: bool) -> Result<Vec<Row>, Failure> {
    let mut samples = Vec::new();
    for number in 0..count {
        samples.push(first_byte(door, &format!("cold-{number}.bench")).await?);
        tokio::time::sleep(PAUSE).await;
    }
    let quantiles = [("median", 500), ("p99", 990), ("longest", 1000)];
    let rows = quantiles.into_iter().enumerate().map(|(at, (name, permille))| {
        let row = Row::new(
            format!("from zero copies to the first byte, {what}, {name} of {count}"),
            quantile(&mut samples, permille),
            "ms",
        );
        match BARS_MS.get(at).filter(|_| barred) {
            Some(bar) => row.at_most(*bar),
            None => row,
        }
    });
    Ok(rows.collect())
}

/// Milliseconds from connecting to the first byte of an answer, which must be a good one.
async fn first_byte(door: SocketAddr, host: &str) -> Result<f64, Failure> {
    let asked = async {
        let began = Instant::now();
        let mut stream = TcpStream::connect(door).await?;
        stream.set_nodelay(true)?;
        let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut answer = vec![stream.read_u8().await?];
        let ms = began.elapsed().as_secs_f64() * 1e3;
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>((ms, answer))
    };
    let (ms, answer) = asked.await.map_err(|error| Failure::failed(format!("asking for {host} at {door}: {error}")))?;
    match answer.starts_with(b"HTTP/1.1 200") {
        true => Ok(ms),
        false => Err(Failure::failed(format!("{host} answered {:?}", String::from_utf8_lossy(&answer)))),
    }
}
