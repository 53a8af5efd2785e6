//! The apps of the measurement: this executable's demo app, and Debian's nginx.

use std::path::{Path, PathBuf};

use bellows_runtime::image::build::{BuildConfig, Content, FileSpec, executable_with_libraries};
use bellows_runtime::image::{Digest, Result, Store};

/// Name of nginx's image.
pub const NGINX: &str = "bench-nginx";

/// Where nginx serves inside.
pub const NGINX_PORT: u16 = 80;

/// Files that it serves, with their sizes.
const FILES: [(&str, usize); 5] =
    [("1k", 1 << 10), ("64k", 64 << 10), ("16m", 16 << 20), ("long", 50_000), ("stream", 20_000)];

/// As people run it behind a proxy; the two slow places take 5 and 2 s.
const NGINX_CONFIG: &str = "daemon off; worker_processes 1; pid /tmp/pid; error_log stderr crit; user root;\n\
    events { worker_connections 16384; }\n\
    http { access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 1000000000; keepalive_timeout 75s;\n\
    client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f; uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;\n\
    server { listen 80 backlog=4096; listen 81 backlog=4096; root /www; location /long { limit_rate 10k; } location /stream { limit_rate 10k; } } }\n";

/// Where a program is, also outside a plain user's PATH.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    path.split(':').map(|folder| Path::new(folder).join(name)).find(|file| file.is_file())
}

/// An image with this machine's nginx and its files.
pub fn nginx(store: &Store, program: &Path) -> Result<Digest> {
    let mut files = executable_with_libraries(program)?;
    let bytes =
        |path: String, bytes: Vec<u8>| FileSpec { path: path.into(), mode: 0o644, content: Content::Bytes(bytes) };
    files.push(bytes("/etc/nginx/nginx.conf".to_owned(), NGINX_CONFIG.into()));
    files.push(bytes("/etc/passwd".to_owned(), b"root:x:0:0::/:/bin/false\n".to_vec()));
    files.push(bytes("/etc/group".to_owned(), b"root:x:0:\n".to_vec()));
    files.extend(FILES.map(|(name, size)| bytes(format!("/www/{name}"), vec![b'.'; size])));
    let folder = |path: &str| FileSpec { path: path.into(), mode: 0o755, content: Content::Folder };
    files.extend(["/tmp", "/var/log/nginx", "/var/lib/nginx"].map(folder));
    let entrypoint = vec![program.display().to_string()];
    store.build(NGINX, &files, &BuildConfig { entrypoint, ..BuildConfig::default() })
}
