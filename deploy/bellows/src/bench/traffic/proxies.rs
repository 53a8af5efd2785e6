//! Proxies in front of one copy, each in a cgroup of its own: our agent, Debian's HAProxy and nginx, with as many threads each.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bellows_local::cgroup;

use super::apps::program;
use crate::bench::{cgroups, memory, parts};
use crate::failure::Failure;

/// More connections than any part of the measurement opens.
const CONNECTIONS: u32 = 16_384;

/// Whoever does not listen by then does not come.
const PATIENCE: Duration = Duration::from_secs(10);

/// One proxy.
#[derive(Debug)]
pub struct Proxy {
    pub name: &'static str,
    /// Where it takes requests.
    pub door: SocketAddr,
    /// Where it passes bytes on.
    pub raw: SocketAddr,
    pub cgroups: Vec<String>,
    /// Nothing for our own agent, which others started.
    child: Option<Child>,
}

impl Proxy {
    /// Our own, which runs already.
    pub fn ours(name: &'static str, door: SocketAddr, raw_port: u16, cgroups: Vec<String>) -> Self {
        Self { name, door, raw: SocketAddr::new(door.ip(), raw_port), cgroups, child: None }
    }

    /// HAProxy; nothing where it is not installed.
    pub async fn haproxy(folder: &Path, app: SocketAddr) -> Result<Option<Self>, Failure> {
        let Some(program) = program("haproxy") else { return Ok(None) };
        let (door, raw) = (free()?, free()?);
        let config = format!(
            "global\n  no strict-limits\n  nbthread {threads}\n  maxconn {CONNECTIONS}\n\
             defaults\n  mode http\n  timeout connect 5s\n  timeout client 75s\n  timeout server 75s\n  timeout http-keep-alive 75s\n\
             frontend web\n  bind {door}\n  option forwardfor\n  default_backend app\n\
             backend app\n  server one {app}\n\
             listen raw\n  mode tcp\n  option splice-auto\n  bind {raw}\n  server one {app}\n",
            threads = threads(),
        );
        let file = written(folder, "haproxy.cfg", &config)?;
        let mut command = Command::new(program);
        command.arg("-db").arg("-f").arg(file);
        Self::start("HAProxy", command, door, raw).await.map(Some)
    }

    /// nginx; nothing where it is not installed.
    pub async fn nginx(folder: &Path, app: SocketAddr) -> Result<Option<Self>, Failure> {
        let Some(program) = program("nginx") else { return Ok(None) };
        let door = free()?;
        let own = folder.display();
        let config = format!(
            "daemon off; worker_processes {threads}; pid {own}/nginx.pid; error_log {own}/nginx.log crit; user root;\n\
             worker_rlimit_nofile {files}; events {{ worker_connections {CONNECTIONS}; }}\n\
             http {{ access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_timeout 75s; keepalive_requests 1000000000;\n\
             client_body_temp_path {own}/b; proxy_temp_path {own}/p; fastcgi_temp_path {own}/f; uwsgi_temp_path {own}/u; scgi_temp_path {own}/s;\n\
             upstream app {{ server {app}; keepalive 64; keepalive_requests 1000000000; }}\n\
             server {{ listen {door} reuseport; location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
             proxy_set_header Host $host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
             proxy_set_header X-Forwarded-Proto $scheme; }} }} }}\n",
            threads = threads(),
            files = 2 * CONNECTIONS,
        );
        let file = written(folder, "nginx.conf", &config)?;
        let mut command = Command::new(program);
        command.arg("-c").arg(file).arg("-e").arg(folder.join("nginx.log"));
        Self::start("nginx", command, door, door).await.map(Some)
    }

    async fn start(
        name: &'static str,
        mut command: Command,
        door: SocketAddr,
        raw: SocketAddr,
    ) -> Result<Self, Failure> {
        let group = format!("bellows-bench-{}/{}", std::process::id(), name.to_lowercase());
        cgroup::make(&group).map_err(|error| Failure::from_error(&error))?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.map_err(|error| Failure::failed(format!("starting {name}: {error}")))?;
        let proxy = Self { name, door, raw, cgroups: vec![group], child: Some(child) };
        // Its workers begin in its cgroup, or follow it there.
        for pid in proxy.pids() {
            cgroups::enter(&proxy.cgroups[0], pid)?;
        }
        let listens = async {
            while tokio::net::TcpStream::connect(door).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, listens).await;
        in_time.map_err(|_| Failure::failed(format!("{name} does not listen on {door} within {PATIENCE:?}")))?;
        Ok(proxy)
    }

    /// CPU seconds that it has used so far.
    pub fn cpu_seconds(&self) -> Result<f64, Failure> {
        self.cgroups.iter().map(|group| cgroups::cpu_seconds(group)).sum()
    }

    /// Proportional set size of all its processes.
    pub fn memory_kib(&self) -> Result<f64, Failure> {
        memory::pss_of_kib(self.cgroups.iter().flat_map(|group| cgroup::members(group)))
    }

    /// The process that was started, and its children.
    fn pids(&self) -> Vec<u32> {
        let Some(first) = self.child.as_ref().map(Child::id) else { return Vec::new() };
        let children = std::fs::read_to_string(format!("/proc/{first}/task/{first}/children")).unwrap_or_default();
        std::iter::once(first).chain(children.split_whitespace().filter_map(|pid| pid.parse().ok())).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let Some(child) = &mut self.child else { return };
        for error in self.cgroups.iter().filter_map(|group| cgroup::end(group).err()) {
            eprintln!("warning: {}", crate::failure::chain(&error));
        }
        if child.wait().is_err() {
            eprintln!("warning: {} cannot be waited for", self.name);
        }
    }
}

/// As our ingress has.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn free() -> Result<SocketAddr, Failure> {
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, parts::free_port()?)))
}

fn written(folder: &Path, name: &str, text: &str) -> Result<std::path::PathBuf, Failure> {
    let path = folder.join(name);
    match std::fs::write(&path, text) {
        Ok(()) => Ok(path),
        Err(error) => Err(Failure::failed(format!("writing {}: {error}", path.display()))),
    }
}
