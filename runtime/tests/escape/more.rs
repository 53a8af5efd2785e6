//! What whoever answers for a node may give beyond what containers have, and what nobody can.

use bellows_runtime::handle::Error;
use bellows_runtime::launch::ESCAPE;
use bellows_runtime::{ContainerSpec, Runtime, names};

use crate::rows::Seen;
use crate::support;
use crate::world::seen;

fn meets(runtime: &Runtime, spec: &ContainerSpec) -> Seen {
    runtime.launch(spec).expect("launched");
    let exit = runtime.reap(&spec.id).expect("reaped").exit;
    runtime.forget(&spec.id).expect("forgotten");
    seen(exit)
}

#[test]
fn what_is_added_is_there_and_what_reaches_out_is_never_given() {
    let Some(place) = support::place() else { return };
    support::put(&place.image().join("bin/escape"), ESCAPE);
    let runtime = place.start();
    let mut call = place.spec("more", &["/bin/escape", "kcmp"]);
    assert_eq!(meets(&runtime, &call), Seen::Refused(libc::EPERM));
    call.add_calls = names::more_call("kcmp").into_iter().collect();
    assert_eq!(meets(&runtime, &call), Seen::Got);
    // Of the sets that `/proc` shows, the default and CAP_SYS_PTRACE. What belongs to the host stays out of its reach.
    let mut capable = place.spec("more", &["/bin/escape", "says", "/proc/self/status", "00000000a80c25fb"]);
    assert_eq!(meets(&runtime, &capable), Seen::Nothing);
    capable.add_capabilities = names::more_capability("sys_ptrace").into_iter().collect();
    assert_eq!(meets(&runtime, &capable), Seen::Got);
    capable.args = ["/bin/escape", "trace", "1"].map(str::to_owned).to_vec();
    assert_eq!(meets(&runtime, &capable), Seen::Refused(libc::EPERM));
    // Administration of the machine, and mounting.
    let never: [fn(&mut ContainerSpec); 2] =
        [|spec| spec.add_capabilities = vec![21], |spec| spec.add_calls = vec![libc::SYS_mount as u32]];
    for change in never {
        let mut never = place.spec("more", &["/bin/escape", "hold"]);
        change(&mut never);
        assert!(matches!(runtime.launch(&never), Err(Error::Spec(_))));
    }
    runtime.shutdown().expect("shut down");
    place.assert_clean();
}
