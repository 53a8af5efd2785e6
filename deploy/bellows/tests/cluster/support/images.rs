//! Images for tests, from what Debian has installed. With `umoci` when it is there: then others' layers are read. Without, by our
//! own builder, whose store is a layout once it has an index.

use std::path::{Path, PathBuf};
use std::process::Command;

use bellows_runtime::image::build::{BuildConfig, Content, FileSpec, executable_with_libraries};
use bellows_runtime::image::{Digest, Store};

/// Where a program is, also outside a plain user's PATH.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    path.split(':').map(|folder| Path::new(folder).join(name)).find(|file| file.is_file())
}

/// A layout with busybox and links for its tools. Says who made it.
pub fn busybox(folder: &Path) -> PathBuf {
    let program = program("busybox").expect("asked for by the test");
    let mut files = executable_with_libraries(&program).expect("busybox is an executable");
    files[0].path = "/bin/busybox".into();
    let tools = ["sh", "sleep", "httpd", "echo", "cat", "true", "false", "dd", "hostname", "tail", "mkdir", "tr"];
    let link = |tool: &str| FileSpec {
        path: Path::new("/bin").join(tool),
        mode: 0o777,
        content: Content::Link("busybox".into()),
    };
    files.extend(tools.map(link));
    files.push(FileSpec {
        path: "/www/index.html".into(),
        mode: 0o644,
        content: Content::Bytes(b"busybox serves\n".to_vec()),
    });
    layout(folder, &files)
}

/// A layout with nginx as Debian ships it: program, libraries, its welcome page.
pub fn nginx(folder: &Path) -> PathBuf {
    const CONFIG: &str = "daemon off; worker_processes 1; pid /tmp/pid; error_log stderr; user root;\n\
        events { worker_connections 64; }\n\
        http { access_log off; client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f;\n\
        uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s; server { listen 80; root /usr/share/nginx/html; } }\n";
    let program = program("nginx").expect("asked for by the test");
    let mut files = executable_with_libraries(&program).expect("nginx is an executable");
    let bytes =
        |path: &str, text: &str| FileSpec { path: path.into(), mode: 0o644, content: Content::Bytes(text.into()) };
    files.push(bytes("/etc/nginx/nginx.conf", CONFIG));
    files.push(bytes("/etc/passwd", "root:x:0:0::/:/bin/false\n"));
    files.push(bytes("/etc/group", "root:x:0:\n"));
    let page = "/usr/share/nginx/html/index.html";
    files.push(FileSpec { path: page.into(), mode: 0o644, content: Content::File(page.into()) });
    files.extend(["/tmp", "/var/log/nginx"].map(|path| FileSpec {
        path: path.into(),
        mode: 0o755,
        content: Content::Folder,
    }));
    layout(folder, &files)
}

fn layout(folder: &Path, files: &[FileSpec]) -> PathBuf {
    let layout = folder.join("layout");
    if program("umoci").is_some() {
        println!("the image is put together by umoci");
        by_umoci(folder, &layout, files);
    } else {
        println!("the image is put together by bellows: umoci is not installed");
        by_us(&layout, files);
    }
    layout
}

fn by_umoci(folder: &Path, layout: &Path, files: &[FileSpec]) {
    let image = format!("{}:latest", layout.display());
    let bundle = folder.join("bundle");
    let umoci = |arguments: &[&str]| {
        let output = Command::new("umoci").args(arguments).output().expect("umoci was found");
        assert!(output.status.success(), "umoci {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    };
    let (layout, bundle_name) = (layout.display().to_string(), bundle.display().to_string());
    umoci(&["init", "--layout", &layout]);
    umoci(&["new", "--image", &image]);
    umoci(&["unpack", "--image", &image, &bundle_name]);
    files.iter().for_each(|file| place(&bundle.join("rootfs"), file));
    umoci(&["repack", "--image", &image, &bundle_name]);
}

fn place(root: &Path, file: &FileSpec) {
    let path = root.join(file.path.strip_prefix("/").expect("paths in images are absolute"));
    let done = std::fs::create_dir_all(path.parent().expect("below the root")).and_then(|()| match &file.content {
        Content::Bytes(bytes) => std::fs::write(&path, bytes),
        Content::File(from) => std::fs::copy(from, &path).map(drop),
        Content::Folder => std::fs::create_dir_all(&path),
        Content::Link(to) => std::os::unix::fs::symlink(to, &path),
    });
    done.unwrap_or_else(|e| panic!("placing {}: {e}", path.display()));
}

fn by_us(layout: &Path, files: &[FileSpec]) {
    let store = Store::open(layout).expect("an empty folder");
    let digest = store.build("image", files, &BuildConfig::default()).expect("these files are an image");
    std::fs::write(layout.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").expect("writable");
    std::fs::write(layout.join("index.json"), index(&digest, &store)).expect("writable");
}

fn index(digest: &Digest, store: &Store) -> String {
    let size = store.blob_bytes(digest).expect("just built");
    let manifest = serde_json::json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest.to_string(), "size": size,
    });
    serde_json::json!({"schemaVersion": 2, "manifests": [manifest]}).to_string()
}

/// Both ways of putting an image together make what the store reads.
#[test]
fn layouts_are_read_by_the_store() {
    let Some(_machine) = super::machine(&["busybox"]) else { return };
    let files = [FileSpec { path: "/hello".into(), mode: 0o644, content: Content::Bytes(b"hello".to_vec()) }];
    let folder = tempfile::tempdir().expect("a temporary folder");
    let layouts = ["umoci", "bellows"].map(|name| (name, folder.path().join(name)));
    for (name, layout) in &layouts {
        match *name {
            "umoci" if program("umoci").is_none() => continue,
            "umoci" => by_umoci(folder.path(), layout, &files),
            _ => by_us(layout, &files),
        }
        let store = Store::open(folder.path().join("store")).expect("an empty folder");
        let loaded = store.load(layout, Some(name), store.limits()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let image = store.unpack(&loaded.digest).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(std::fs::read(image.root.join("hello")).expect("unpacked"), b"hello", "{name}");
    }
}
