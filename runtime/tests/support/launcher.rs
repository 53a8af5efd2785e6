//! The launcher of this crate's tests: nothing but the launcher.

fn main() -> std::process::ExitCode {
    match bellows_runtime::launch::launcher_main() {
        0 => std::process::ExitCode::SUCCESS,
        _ => std::process::ExitCode::FAILURE,
    }
}
