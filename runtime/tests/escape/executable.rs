//! The runtime's own executable out of reach of a program that is made to run it (CVE-2019-5736): the image's `again` names `/proc/self/exe` as its
//! interpreter, which is the runtime's, for whoever executes it in a container that runs.

use std::path::Path;

use bellows_runtime::ContainerSpec;
use bellows_runtime::handle::Execute;
use bellows_runtime::image::build::{Content, executable_with_libraries};
use bellows_runtime::launch::{ESCAPE, Weaken};

use crate::rows::Seen;
use crate::support::{self, lines};
use crate::world::seen;

/// As the launcher of these tests waits for input: it stays as long as this wants, readable.
const WAITS: [&str; 5] = ["/bin/again", "x", "10.9.9.0/27", "805306368", "/"];

/// What whoever waits inside for such a process gets; nothing, said aloud, when not root.
fn overwrite(without: &[Weaken]) -> Option<Seen> {
    let place = support::place()?;
    let image = place.image();
    support::put(&image.join("bin/escape"), ESCAPE);
    support::put(&image.join("bin/again"), b"#!/proc/self/exe victim\n");
    // It is a dynamic executable.
    for file in executable_with_libraries(Path::new(env!("CARGO_BIN_EXE_bellows-launcher"))).expect("an executable") {
        let Content::File(from) = &file.content else { continue };
        let inside = file.path.strip_prefix("/").expect("absolute");
        support::put(&image.join(inside), &std::fs::read(from).expect("a library"));
    }
    let names: Vec<&str> = without.iter().map(|weaken| weaken.name()).collect();
    let args = if names.is_empty() { Vec::new() } else { [&["weakened"], &names[..]].concat() };
    let runtime = place.start_with_launcher(&args);
    let spec = place.spec("thief", &["/bin/escape", "overwrite_executable"]);
    runtime.launch(&spec).expect("launched");
    support::wait_until("it looks out", || lines(&runtime, "thief").iter().any(|line| line.text == "here"));
    let again = ContainerSpec { args: WAITS.map(str::to_owned).to_vec(), ..spec.clone() };
    let execution = runtime.execute(&again, Execute::Piped);
    let exit = runtime.reap(&spec.id).expect("reaped").exit;
    // The end of the thief is the container's: who has succeeded before anything was executed has ended that as well.
    assert!(execution.is_ok() || seen(exit) == Seen::Got, "{execution:?}");
    drop(execution);
    runtime.forget(&spec.id).expect("forgotten");
    runtime.shutdown().expect("shut down");
    place.assert_clean();
    Some(seen(exit))
}

#[test]
fn the_runtimes_executable_cannot_be_written_through_a_program_that_runs_it() {
    let Some(met) = overwrite(&[]) else { return };
    assert_eq!(met, Seen::Refused(libc::EACCES));
    // Its owner is nobody inside: without that it is root's own file, and only busy.
    assert_eq!(overwrite(&[Weaken::UserNamespace, Weaken::Capabilities]), Some(Seen::Got));
}
