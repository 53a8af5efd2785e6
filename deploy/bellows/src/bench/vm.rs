//! A virtual machine beside a container: Debian's cloud kernel and the same tiny program as its first process, from qemu's start to that
//! program's first word on the console.

use std::path::Path;
use std::time::Duration;

use bellows_vm::{Acceleration, Initramfs, Machine, Missing, kernel, qemu};

use super::rows::{Row, quantile};
use crate::failure::Failure;

/// What the tiny program prints.
const WORD: &str = "last words";

/// Where KVM works a guest is there within a second; where its device is only there, it hangs.
const KVM_PATIENCE: Duration = Duration::from_secs(15);

/// In software, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// Its row; one that says what is missing where something is. `container_ms` is what the same program takes as a container.
pub fn row(program: &Path, runs: u32, container_ms: f64) -> Result<Row, Failure> {
    let machine = match machine(program)? {
        Ok(machine) => machine,
        Err(missing) => return Ok(Row::new(format!("virtual machine: not measured: {missing}"), f64::NAN, "ms")),
    };
    let (name, mut samples) = match measured(machine, runs) {
        Ok(measured) => measured,
        Err(error) => {
            return Ok(Row::new(
                format!("virtual machine: not measured: {error}").replace('\n', " / "),
                f64::NAN,
                "ms",
            ));
        }
    };
    let name = format!("virtual machine ({name}): qemu's start to its first process's first word, median of {runs}");
    Ok(Row::new(name, quantile(&mut samples, 500), "ms").beside("tiny: order to cleaned up", container_ms))
}

fn machine(program: &Path) -> Result<Result<Machine, Missing>, Failure> {
    let (qemu, kernel) = match qemu().and_then(|qemu| Ok((qemu, kernel()?))) {
        Ok(found) => found,
        Err(missing) => return Ok(Err(missing)),
    };
    let program =
        std::fs::read(program).map_err(|error| Failure::failed(format!("reading {}: {error}", program.display())))?;
    let initramfs = Initramfs::new().file("init", 0o755, &program).finish();
    let acceleration = Acceleration::offered();
    let command_line = "-- print 1".to_owned();
    Ok(Ok(Machine { qemu, kernel, initramfs, acceleration, memory_mib: 128, cpus: 1, command_line }))
}

/// How it was executed, and milliseconds of each run.
fn measured(mut machine: Machine, runs: u32) -> Result<(&'static str, Vec<f64>), bellows_vm::Error> {
    let mut name = machine.acceleration.name();
    if machine.acceleration == Acceleration::Kvm && machine.run(WORD, KVM_PATIENCE).is_err() {
        machine.acceleration = Acceleration::Software;
        name = "emulated in software: KVM is offered but runs no guest here";
    }
    let run = |_| machine.run(WORD, PATIENCE).map(|said| said.after.as_secs_f64() * 1e3);
    Ok((name, (0..runs).map(run).collect::<Result<_, _>>()?))
}
