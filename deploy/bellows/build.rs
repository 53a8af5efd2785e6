//! The executable is linked for a fixed address. Else fifty thousand places in it would have to be corrected at every start, which takes longer than all else that
//! a start is, and a megabyte of each process could not be shared: launchers and the OCI runtime are started often. Libraries, stack, heap and whatever
//! is mapped stay at random addresses.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=-no-pie");
}
