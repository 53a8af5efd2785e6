//! Limits of block I/O: which disk they are for, and how each shape of cgroups is told.
//!
//! What they bound is what goes between memory and the disk on a container's behalf: reading its image, and on v2 writing its log. Its writable layer is
//! held in memory. With v1 the kernel counts writes that wait in memory as its own, so there only direct ones are bounded.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::spec::IoLimits;

/// A whole disk, as the kernel numbers it: `254:0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk(String);

impl Disk {
    /// The one under a folder.
    pub fn under(folder: &Path) -> io::Result<Self> {
        let device = fs::metadata(folder)?.dev();
        let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
        let known = Path::new("/sys/dev/block").join(&number);
        if !known.exists() {
            let text = format!("its file system is on no disk that the kernel has a number for (it says {number})");
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        // Limits are the whole disk's, never a partition's.
        if known.join("partition").exists() {
            let disk = fs::canonicalize(&known)?.join("../dev");
            return Ok(Self(fs::read_to_string(disk)?.trim().to_owned()));
        }
        Ok(Self(number))
    }

    /// The line for `io.max`.
    pub fn line(&self, limits: IoLimits) -> String {
        let one = |limit: u64| if limit == 0 { "max".to_owned() } else { limit.to_string() };
        let [read, write, reads, writes] = values(limits).map(one);
        format!("{} rbps={read} wbps={write} riops={reads} wiops={writes}", self.0)
    }

    /// Files of v1 and what to write to them. Zero takes a limit away.
    pub fn lines(&self, limits: IoLimits) -> [(&'static str, String); 4] {
        const FILES: [&str; 4] = [
            "blkio.throttle.read_bps_device",
            "blkio.throttle.write_bps_device",
            "blkio.throttle.read_iops_device",
            "blkio.throttle.write_iops_device",
        ];
        let values = values(limits);
        std::array::from_fn(|at| (FILES[at], format!("{} {}", self.0, values[at])))
    }
}

fn values(limits: IoLimits) -> [u64; 4] {
    [limits.read_bytes, limits.write_bytes, limits.read_operations, limits.write_operations]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shape_has_its_words() {
        let disk = Disk("254:0".to_owned());
        let limits = IoLimits { read_bytes: 1 << 20, write_operations: 50, ..IoLimits::default() };
        assert_eq!(disk.line(limits), "254:0 rbps=1048576 wbps=max riops=max wiops=50");
        let [read, .., writes] = disk.lines(limits);
        assert_eq!(read, ("blkio.throttle.read_bps_device", "254:0 1048576".to_owned()));
        assert_eq!(writes, ("blkio.throttle.write_iops_device", "254:0 50".to_owned()));
    }

    #[test]
    fn what_is_on_no_disk_is_told() {
        let said = Disk::under(Path::new("/proc")).expect_err("no disk").to_string();
        assert!(said.contains("no disk"), "{said}");
    }
}
