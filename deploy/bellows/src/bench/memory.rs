//! How much memory processes and the kernel hold.

use std::{fs, io};

use rustix::io::Errno;

use crate::failure::Failure;

/// Of the kernel's own memory, what grows with containers.
const KERNEL: [&str; 4] = ["Slab", "KernelStack", "PageTables", "Percpu"];

/// Proportional set size of one process: shared pages count in parts.
pub fn pss_kib(pid: u32) -> Result<f64, Failure> {
    value(&mapped(pid), "Pss")
}

/// Of all these together; who has ended since they were listed, such as a program that an agent asked something, holds nothing.
pub fn pss_of_kib(pids: impl IntoIterator<Item = u32>) -> Result<f64, Failure> {
    // A process that nobody has waited for yet has the file, which cannot be read.
    let is_gone = |error: &io::Error| matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::SRCH));
    let held = |pid: u32| {
        let file = mapped(pid);
        match fs::read_to_string(&file) {
            Err(error) if is_gone(&error) => Ok(0.0),
            read => number(&file, read, "Pss"),
        }
    };
    pids.into_iter().map(held).sum()
}

/// The file that sums up what a process has mapped.
fn mapped(pid: u32) -> String {
    format!("/proc/{pid}/smaps_rollup")
}

/// Resident set size of one process, shared pages in full.
pub fn rss_kib(pid: u32) -> Result<f64, Failure> {
    value(&format!("/proc/{pid}/status"), "VmRSS")
}

/// The kernel's memory for itself.
#[derive(Debug)]
pub struct Kernel {
    kib: f64,
}

impl Kernel {
    /// Now.
    pub fn read() -> Result<Self, Failure> {
        let kib = KERNEL.iter().map(|name| value("/proc/meminfo", name)).sum::<Result<f64, Failure>>()?;
        Ok(Self { kib })
    }

    /// How much more each of so many takes in `later`. Others' comings and goings are in it: nothing where they gave back more than was taken.
    pub fn grown_kib(&self, later: &Self, count: usize) -> Option<f64> {
        Some((later.kib - self.kib) / count.max(1) as f64).filter(|kib| *kib > 0.0)
    }
}

/// The number in a line `NAME: N kB` of a file.
fn value(file: &str, name: &str) -> Result<f64, Failure> {
    number(file, fs::read_to_string(file), name)
}

fn number(file: &str, read: io::Result<String>, name: &str) -> Result<f64, Failure> {
    let text = read.map_err(|error| Failure::failed(format!("reading {file}: {error}")))?;
    find(&text, name).ok_or_else(|| Failure::failed(format!("{file} has no line `{name}: N kB`")))
}

fn find(text: &str, name: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    rest.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_whole_name() {
        let text = "Pss_Dirty:     8 kB\nPss:          12 kB\nbroken: x kB\n";
        assert_eq!(find(text, "Pss"), Some(12.0));
        assert_eq!(find(text, "broken"), None);
        assert_eq!(find(text, "Ps"), None);
    }

    #[test]
    fn this_process_and_the_kernel_hold_some() {
        assert!(rss_kib(std::process::id()).expect("Linux has it") > 100.0);
        let beyond_all = u32::try_from(i32::MAX).expect("positive");
        assert!(pss_of_kib([std::process::id(), beyond_all]).expect("one of them lives") > 100.0);
        assert!(pss_kib(beyond_all).is_err(), "where it must be there");
        let kernel = Kernel::read().expect("Linux has it");
        assert!(kernel.kib > 1000.0 && kernel.grown_kib(&Kernel { kib: kernel.kib + 10.0 }, 5) == Some(2.0));
        assert_eq!(kernel.grown_kib(&Kernel { kib: kernel.kib - 1.0 }, 5), None);
    }
}
