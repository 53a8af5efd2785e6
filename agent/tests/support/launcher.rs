//! The launcher of this crate's tests.

fn main() {
    std::process::exit(bellows_runtime::launch::launcher_main());
}
