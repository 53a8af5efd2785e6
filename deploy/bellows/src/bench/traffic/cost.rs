//! What a request costs: CPU seconds of each proxy's own cgroup at one rate, in turn, in one run; and bytes passed on, and idle connections.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::apps;
use super::pace::{Pace, Raw, drive};
use super::proxies::Proxy;
use crate::bench::lab::Lab;
use crate::bench::memory::Kernel;
use crate::bench::parts::{self, Wish};
use crate::bench::rows::{Row, quantile};
use crate::failure::Failure;
use crate::globals::Globals;

const NAME: &str = "cost";
const HOST: &str = "cost.bench";

/// Connections that ask at once.
const CONNECTIONS: usize = 32;
/// Connections that pass bytes at once.
const RAW_CONNECTIONS: usize = 4;

/// How long each proxy is driven in a round.
const TURN: Duration = Duration::from_secs(2);

/// Our cost, as a multiple of others' at most.
const OF_HAPROXY: f64 = 1.5;
const OF_NGINX: f64 = 1.0;
/// Our p99, beyond HAProxy's at most.
const LATER_MS: f64 = 0.3;

const BODIES: [(&str, &str); 2] = [("1 KiB", "/1k"), ("64 KiB", "/64k")];

/// Everything that is compared.
pub struct Scene {
    lab: Lab,
    /// Ours first, then the others, as far as they are installed.
    proxies: Vec<Proxy>,
    /// By the node that has no copy.
    two_hops: Proxy,
}

impl Scene {
    /// Nothing where there is no nginx, which is the app.
    pub async fn start(globals: &Globals) -> Result<Option<Self>, Failure> {
        let Some(program) = apps::program("nginx") else { return Ok(None) };
        allow_descriptors()?;
        let wish = Wish { nodes: 2, cpu_milli: 4_000, memory_mib: 1_024, log: "warn", rival: false };
        let mut lab = Lab::start(globals, wish).await?;
        lab.image(apps::NGINX, |store| apps::nginx(&store, &program)).await?;
        let raw_port = parts::free_port()?;
        lab.declare(&yaml(&program.display().to_string(), raw_port)).await?;
        let copies = lab.replicas().await?;
        let copy = copies.first().ok_or_else(|| Failure::failed("the app that was declared has no copy"))?;
        let own = usize::from(copy.node == "node-2");
        let app = format!("{}:{}", copy.address, apps::NGINX_PORT).parse();
        let app = app.map_err(|error| Failure::failed(format!("the address {:?}: {error}", copy.address)))?;
        let group = |at: usize| lab.parts.agents[at].cgroup().to_owned();
        let doors = &lab.parts.doors;
        let mut proxies = vec![Proxy::ours("bellows", doors[own], raw_port, vec![group(own)])];
        proxies.extend(Proxy::haproxy(lab.folder(), app).await?);
        proxies.extend(Proxy::nginx(lab.folder(), app).await?);
        let two_hops = Proxy::ours("bellows, two hops", doors[1 - own], raw_port, vec![group(own), group(1 - own)]);
        Ok(Some(Self { lab, proxies, two_hops }))
    }

    pub async fn end(self) -> Result<(), Failure> {
        drop(self.proxies);
        self.lab.end().await
    }

    fn named(&self, name: &str) -> Option<usize> {
        self.proxies.iter().position(|proxy| proxy.name == name)
    }

    /// CPU for a thousand requests, and their p99, at half of what HAProxy can do.
    pub async fn requests(&self, rounds: u32) -> Result<Vec<Row>, Failure> {
        let mut rows = Vec::new();
        for (body, path) in BODIES {
            let mut most = Vec::new();
            for proxy in &self.proxies {
                let pace = pace(proxy, path, None);
                let served = drive(Pace { length: TURN / 2, ..pace }).await?.len();
                most.push(served as f64 / (TURN / 2).as_secs_f64());
            }
            let rate = most[self.named("HAProxy").unwrap_or_default()] / 2.0;
            let all: Vec<&Proxy> = self.proxies.iter().chain([&self.two_hops]).collect();
            let mut measured: Vec<Measured> = all.iter().map(|_| Measured::default()).collect();
            for _ in 0..rounds {
                for (proxy, measured) in all.iter().zip(&mut measured) {
                    measured.turn(proxy, pace(proxy, path, Some(rate))).await?;
                }
            }
            for (proxy, most) in self.proxies.iter().zip(most) {
                let name = format!("{body}: {} requests one after the other, {CONNECTIONS} connections", proxy.name);
                rows.push(Row::new(name, most, "1/s"));
            }
            rows.extend(self.compared(body, rate, &mut measured));
        }
        Ok(rows)
    }

    fn compared(&self, body: &str, rate: f64, measured: &mut [Measured]) -> Vec<Row> {
        let title = |what: &str| format!("{body} at {rate:.0} requests/s: {what}");
        let cost: Vec<f64> = measured.iter().map(Measured::per_thousand).collect();
        let late: Vec<f64> = measured.iter_mut().map(|one| quantile(&mut one.p99, 500)).collect();
        let (ours, hops) = (cost[0], cost.len() - 1);
        let cpu = title("CPU for 1,000 requests");
        let mut rows = Vec::new();
        for (name, times) in [("HAProxy", OF_HAPROXY), ("nginx", OF_NGINX)] {
            rows.push(match self.named(name) {
                Some(at) => Row::new(format!("{cpu}, beside {name}"), ours, "ms").at_most_times(name, cost[at], times),
                None => missing(format!("{cpu}, beside {name}"), name, "ms"),
            });
        }
        rows.push(match self.named("HAProxy") {
            Some(at) => Row::new(title("p99, median of all turns"), late[0], "ms").at_most(late[at] + LATER_MS),
            None => missing(title("p99, median of all turns"), "HAProxy", "ms"),
        });
        for (at, proxy) in self.proxies.iter().enumerate().skip(1) {
            rows.push(Row::new(title(&format!("p99, {}", proxy.name)), late[at], "ms"));
        }
        rows.push(
            Row::new(title("CPU for 1,000 requests, two hops, both agents"), cost[hops], "ms").beside("one hop", ours),
        );
        rows.push(Row::new(title("p99, two hops"), late[hops], "ms"));
        rows
    }

    /// Bytes passed on for each second of CPU.
    pub async fn bytes(&self, rounds: u32) -> Result<Vec<Row>, Failure> {
        let name = "raw TCP: GiB for each CPU second";
        let Some(other) = self.named("HAProxy") else { return Ok(vec![missing(name.to_owned(), "HAProxy", "GiB/s")]) };
        let mut passed = [(0.0, 0.0); 2];
        for _ in 0..rounds {
            for (at, (bytes, seconds)) in [0, other].into_iter().zip(&mut passed) {
                let proxy = &self.proxies[at];
                let before = proxy.cpu_seconds()?;
                *bytes += pull(proxy).await?;
                *seconds += proxy.cpu_seconds()? - before;
            }
        }
        let [ours, other] = passed.map(|(bytes, seconds)| bytes / seconds / f64::from(1 << 30));
        let all = passed.map(|(bytes, _)| bytes / f64::from(1 << 30) / (f64::from(rounds) * TURN.as_secs_f64()));
        let row = Row::new(name, ours, "GiB/s");
        Ok(vec![
            Row { met: Some(ours >= other), ..row.beside("HAProxy, splice-auto; bar: at least 1 times it", other) },
            Row::new("raw TCP: GiB a second", all[0], "GiB/s").beside("HAProxy", all[1]),
        ])
    }

    /// Memory of connections that are kept and idle.
    pub async fn idle(&self, count: usize) -> Result<Vec<Row>, Failure> {
        let mut each = Vec::new();
        for proxy in &self.proxies {
            let (before, kernel) = (proxy.memory_kib()?, Kernel::read()?);
            let mut kept = Vec::with_capacity(count);
            for _ in 0..count {
                kept.push(idle(proxy).await.map_err(|error| {
                    Failure::failed(format!("connection {} to {}: {error}", kept.len() + 1, proxy.name))
                })?);
            }
            let grown = kernel.grown_kib(&Kernel::read()?, count);
            each.push((proxy.name, (proxy.memory_kib()? - before) / count as f64, grown));
        }
        let other = each.iter().find(|(name, ..)| *name == "HAProxy").map(|(_, kib, _)| *kib);
        let name =
            |proxy: &str, what: &str| format!("{count} idle keep-alive connections, {proxy}: memory each, {what}");
        let mut rows = Vec::new();
        for (at, (proxy, kib, kernel)) in each.into_iter().enumerate() {
            let row = Row::new(name(proxy, "PSS"), kib, "KiB");
            rows.push(match other {
                Some(other) if at == 0 => row.at_most_times("HAProxy", other, 1.0),
                _ => row,
            });
            let name = name(proxy, "the kernel's, the asker's end included");
            rows.push(match kernel {
                Some(kib) => Row::new(name, kib, "KiB"),
                None => Row::new(format!("{name}: not measured: it gave back more than was taken"), f64::NAN, "KiB"),
            });
        }
        Ok(rows)
    }
}

/// All turns of one proxy.
#[derive(Debug, Default)]
struct Measured {
    cpu_seconds: f64,
    requests: usize,
    /// One for each turn.
    p99: Vec<f64>,
}

impl Measured {
    async fn turn(&mut self, proxy: &Proxy, pace: Pace<'_>) -> Result<(), Failure> {
        let before = proxy.cpu_seconds()?;
        let mut samples = drive(pace).await?;
        self.cpu_seconds += proxy.cpu_seconds()? - before;
        self.requests += samples.len();
        self.p99.push(quantile(&mut samples, 990));
        Ok(())
    }

    /// Milliseconds of CPU for a thousand requests.
    fn per_thousand(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.requests.max(1) as f64
    }
}

fn pace<'a>(proxy: &Proxy, path: &'a str, rate: Option<f64>) -> Pace<'a> {
    Pace { door: proxy.door, host: HOST, path, connections: CONNECTIONS, length: TURN, rate }
}

fn missing(name: String, program: &str, unit: &str) -> Row {
    Row::new(format!("{name}: not measured: {program} is not installed"), f64::NAN, unit)
}

fn yaml(program: &str, raw_port: u16) -> String {
    format!(
        "name: {NAME}\nimage: {image}\ncommand: [{program}]\nreplicas: 1\nresources: {{cpu: 2, memory: 512MiB}}\n\
         ports:\n- {{name: web, port: {port}, protocol: http}}\n- {{name: raw, port: 81, protocol: tcp}}\n\
         routes:\n- {{host: {HOST}, to: web}}\n- {{listen: {raw_port}, to: raw}}\n",
        image = apps::NGINX,
        port = apps::NGINX_PORT,
    )
}

/// Bytes that some connections pull by a proxy in one turn.
async fn pull(proxy: &Proxy) -> Result<f64, Failure> {
    let end = Instant::now() + TURN;
    let pulls: Vec<_> = (0..RAW_CONNECTIONS).map(|_| tokio::spawn(pull_until(proxy.raw, end))).collect();
    let mut bytes = 0.0;
    for one in pulls {
        let pulled = one.await.map_err(|error| Failure::from_error(&error))?;
        bytes += pulled.map_err(|error| Failure::failed(format!("bytes by {}: {error}", proxy.name)))?;
    }
    Ok(bytes)
}

async fn pull_until(door: std::net::SocketAddr, end: Instant) -> std::io::Result<f64> {
    const REQUEST: &[u8] = b"GET /16m HTTP/1.1\r\nHost: cost.bench\r\n\r\n";
    let mut stream = TcpStream::connect(door).await?;
    let (mut buffer, mut bytes, mut asked) = (vec![0; 256 << 10], 0.0, 0.0);
    while Instant::now() < end {
        // Always one answer ahead, so that bytes never stop.
        while bytes + f64::from(16 << 20) > asked {
            stream.write_all(REQUEST).await?;
            asked += f64::from(16 << 20);
        }
        match stream.read(&mut buffer).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => bytes += count as f64,
        }
    }
    Ok(bytes)
}

/// Asked once, then kept.
async fn idle(proxy: &Proxy) -> std::io::Result<Raw> {
    let mut raw = Raw::connect(proxy.door, HOST, "/1k").await?;
    raw.ask().await?;
    Ok(raw)
}

/// This process and those that it starts may open as many files as the kernel lets them.
fn allow_descriptors() -> Result<(), Failure> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    raised.map_err(|error| Failure::failed(format!("raising the limit of open files: {error}")))
}
