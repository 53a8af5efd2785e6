//! How the executable is linked: launchers, and the OCI runtime with every command, are processes that are started often, and much of what a small command
//! takes is the beginning of its process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(whole)");
    // For a fixed address. Else fifty thousand places in it would have to be corrected at every start, which takes longer than all else that a start is,
    // and a megabyte of each process could not be shared. Stack, heap and whatever is mapped stay at random addresses.
    println!("cargo:rustc-link-arg-bins=-no-pie");
    let libraries = ["libc.a", "libm.a", "libgcc_eh.a"].map(found);
    if let [Some(c), Some(m), Some(unwinder)] = &libraries
        && is_for_here()
    {
        [c, m, unwinder].iter().for_each(|path| println!("cargo:rerun-if-changed={}", path.display()));
        let folder = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
        link_whole(&folder, c, m, unwinder)?;
        put_in_order();
    }
    Ok(())
}

/// With everything in it, and no loader that would have to find libraries, map them and tell who is meant by each name: half of what is left of a start.
/// Cargo has no such setting for one executable alone; set for all (`+crt-static`), it would be set for procedural macros, which cannot be built with it. So
/// the libraries that the standard library asks for are found in a folder of ours first, where each is the archive.
fn link_whole(folder: &Path, c: &Path, m: &Path, unwinder: &Path) -> io::Result<()> {
    fs::write(folder.join("libc.so"), format!("GROUP({} {} -lgcc)\n", c.display(), unwinder.display()))?;
    fs::write(folder.join("libm.so"), format!("INPUT({})\n", m.display()))?;
    fs::write(folder.join("libgcc_s.so"), format!("INPUT({} -lgcc)\n", unwinder.display()))?;
    println!("cargo:rustc-link-arg-bins=-L{}", folder.display());
    println!("cargo:rustc-link-arg-bins=-Wl,--no-dynamic-linker");
    println!("cargo:rustc-cfg=whole");
    Ok(())
}

/// What short commands execute is put in one place, where nobody asks for a linker of his own and the machine's is one that can do that. It takes them
/// seconds, so it is done where speed is asked for.
fn put_in_order() {
    println!("cargo:rerun-if-changed=oci.ld");
    println!("cargo:rerun-if-env-changed=CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER");
    let is = |name: &str, value: &str| env::var_os(name).is_some_and(|found| found == value);
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let is_asked_for = env::var_os("RUSTC_LINKER").is_some() || flags.contains("link");
    let is_wanted = is("PROFILE", "release") && is("CARGO_CFG_TARGET_ARCH", "x86_64") && !is_asked_for;
    if is_wanted
        && linker_orders()
        && let Ok(folder) = env::var("CARGO_MANIFEST_DIR")
    {
        println!("cargo:rustc-link-arg-bins=-T{folder}/oci.ld");
    }
}

/// Whether the C compiler's linker takes a script beside its own rules.
fn linker_orders() -> bool {
    let asked = Command::new("cc").arg("-Wl,--version").output();
    let said = asked.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    said.starts_with("GNU ld") || said.contains("LLD")
}

/// The C compiler knows of this machine only; and before glibc 2.34, parts of the C library are in others.
fn is_for_here() -> bool {
    let is_gnu = env::var_os("CARGO_CFG_TARGET_ENV").is_some_and(|kind| kind == "gnu");
    is_gnu && env::var_os("HOST") == env::var_os("TARGET") && found("libpthread.so").is_none()
}

/// Where the C compiler has it. With one missing, libraries are loaded as usual.
fn found(library: &str) -> Option<PathBuf> {
    let asked = Command::new("cc").arg(format!("-print-file-name={library}")).output().ok()?;
    let path = PathBuf::from(String::from_utf8(asked.stdout).ok()?.trim());
    path.is_absolute().then_some(path)
}
