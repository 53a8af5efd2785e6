//! Compiles the in-container init (and what the tests run in containers) from source: freestanding, static, a page or two.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for source in ["init/init", "init/payload", "escape/escape"] {
        let name = source.rsplit('/').next().expect("a path has a last part");
        freestanding(&format!("{source}.rs"), &out.join(name));
    }
    println!("cargo::rerun-if-changed=init");
    println!("cargo::rerun-if-changed=escape");
    println!("cargo::rerun-if-changed=build.rs");
}

/// One executable without any library: the kernel starts it in tens of microseconds, where a libc takes half a millisecond.
fn freestanding(source: &str, executable: &Path) {
    let rustc = env::var_os("RUSTC").expect("cargo sets RUSTC");
    let target = env::var("TARGET").expect("cargo sets TARGET");
    let here = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let layout = Path::new(&here).join("init/bare.ld");
    let status = Command::new(rustc)
        .args(["--edition", "2024", "--crate-type", "bin", "--target", &target, "-D", "warnings"])
        .args(["-C", "panic=abort", "-C", "opt-level=s", "-C", "relocation-model=static", "-C", "debuginfo=0"])
        .args([
            "-C",
            "strip=symbols",
            "-C",
            "target-feature=+crt-static",
            "-C",
            "force-unwind-tables=no",
            "-C",
            "lto=fat",
        ])
        .args(["-C", "link-args=-nostartfiles -nostdlib -static -Wl,--build-id=none -Wl,--no-eh-frame-hdr"])
        .args(["-C", &format!("link-arg=-Wl,-T,{}", layout.display())])
        .arg("-o")
        .arg(executable)
        .arg(source)
        .status()
        .expect("rustc runs: cargo names it in RUSTC");
    assert!(status.success(), "{source} does not compile as a freestanding program: {status}");
}
