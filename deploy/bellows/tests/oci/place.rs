//! One test's bundle and state folder, which no other test has, and what must not be left of them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// What scripts in the containers call.
const APPLETS: [&str; 27] = [
    "sh", "cat", "id", "ls", "mount", "hostname", "readlink", "stat", "sleep", "true", "grep", "echo", "env", "pwd",
    "test", "touch", "mkdir", "chown", "mknod", "dd", "tr", "cut", "sed", "head", "tail", "tty", "stty",
];

/// A bundle with a root file system of busybox alone.
pub struct Place {
    pub dir: tempfile::TempDir,
    name: String,
}

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// `None`, said aloud, when not root or without a static busybox.
pub fn place() -> Option<Place> {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: containers need root");
        return None;
    }
    let busybox = Path::new("/bin/busybox");
    let found = fs::read(busybox).ok().filter(|_| {
        bellows_runtime::image::build::executable_with_libraries(busybox).is_ok_and(|files| files.len() == 1)
    });
    let Some(bytes) = found else {
        println!("skipped: no static /bin/busybox");
        return None;
    };
    let dir = tempfile::Builder::new().prefix("bellows-oci-").tempdir().expect("a temporary folder");
    let root = dir.path().join("bundle/rootfs");
    for folder in ["bin", "proc", "sys", "dev", "etc", "tmp"] {
        fs::create_dir_all(root.join(folder)).expect("a folder");
    }
    let file = root.join("bin/busybox");
    fs::write(&file, bytes).expect("busybox");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("executable");
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).expect("a link");
    }
    let name = format!("bwoci-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    Some(Place { dir, name })
}

impl Place {
    /// Also the container's name, and its cgroups'.
    pub fn id(&self) -> &str {
        &self.name
    }

    pub fn bundle(&self) -> PathBuf {
        self.dir.path().join("bundle")
    }

    pub fn rootfs(&self) -> PathBuf {
        self.bundle().join("rootfs")
    }

    /// What `spec` writes, with a script for a program, no terminal and groups of this test's own.
    pub fn config(&self, script: &str) -> Value {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let written = run(bellows().args(["oci", "spec", "-b"]).arg(folder.path()));
        assert_eq!(written.code, 0, "{written:?}");
        let text = fs::read(folder.path().join("config.json")).expect("a configuration");
        let mut config: Value = serde_json::from_slice(&text).expect("JSON");
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["/bin/sh", "-c", script]);
        config["linux"]["cgroupsPath"] = json!(format!("/{}/c", self.name));
        config
    }

    pub fn write(&self, config: &Value) {
        fs::write(self.bundle().join("config.json"), config.to_string()).expect("the configuration is written");
    }

    /// The runtime with this test's state folder, under the name that callers use.
    pub fn oci(&self, words: &[&str]) -> Said {
        run(&mut self.command(words))
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = bellows();
        command.arg("oci").arg("--root").arg(self.dir.path().join("state")).args(words).stdin(Stdio::null());
        command
    }

    pub fn run(&self, config: &Value) -> Said {
        self.write(config);
        let bundle = self.bundle();
        self.oci(&["run", "-b", bundle.to_str().expect("a path"), self.id()])
    }

    pub fn create(&self, config: &Value) -> Said {
        self.write(config);
        let bundle = self.bundle();
        let mut command = self.command(&["create", "-b", bundle.to_str().expect("a path"), self.id()]);
        // Who keeps the pipes of a created container waits for the container.
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("the runtime runs");
        Said { code: status.code().unwrap_or(-1), out: String::new(), err: String::new() }
    }

    pub fn state(&self) -> Value {
        let said = self.oci(&["state", self.id()]);
        assert_eq!(said.code, 0, "{said:?}");
        serde_json::from_str(&said.out).expect("JSON")
    }

    /// Nothing of the container may be left: no state, no cgroup, no mount on the host.
    pub fn check_nothing_left(&self) {
        let entries = |dir: &Path| fs::read_dir(dir).map(|all| all.flatten().map(|e| e.path()).collect());
        let kinds: Vec<PathBuf> = entries(&self.dir.path().join("state")).unwrap_or_default();
        let files: Vec<PathBuf> = kinds.iter().flat_map(|kind| entries(kind).expect("a folder of files")).collect();
        assert_eq!(files, Vec::<PathBuf>::new(), "state is left");
        let trees = fs::read_dir("/sys/fs/cgroup").expect("cgroups").flatten().map(|tree| tree.path());
        for tree in trees.chain([PathBuf::from("/sys/fs/cgroup")]) {
            assert!(!tree.join(&self.name).join("c").exists(), "a cgroup is left in {}", tree.display());
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        let own = self.dir.path().to_str().expect("a path");
        assert!(!mounts.contains(own), "a mount is left on the host");
    }
}

impl Drop for Place {
    /// A failed test leaves no process behind; the group above the container's is the test's own.
    fn drop(&mut self) {
        self.oci(&["delete", "--force", &self.name]);
        for tree in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            for dir in [tree.path().join(&self.name).join("c"), tree.path().join(&self.name)] {
                if dir.exists() {
                    fs::remove_dir(&dir).expect("the test's cgroup is empty");
                }
            }
        }
        let one_tree = Path::new("/sys/fs/cgroup").join(&self.name);
        if one_tree.exists() {
            fs::remove_dir(&one_tree).expect("the test's cgroup is empty");
        }
    }
}

pub fn bellows() -> Command {
    Command::new(env!("CARGO_BIN_EXE_bellows"))
}

pub fn run(command: &mut Command) -> Said {
    said(command.output().expect("the program runs"))
}

pub fn said(output: Output) -> Said {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
}
