//! A running executable put out of reach. A program in a container that has no user namespace of its own can reach the file of the process that set it up,
//! through `/proc/PID/exe` or by being started from it, and write to it once nobody executes it (CVE-2019-5736). What is reached through a read-only mount
//! that is attached nowhere can be written by nobody.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::param::page_size;

use crate::kernel::mount::{self, Change};
use crate::kernel::process::Stat;

const OWN: &str = "/proc/self/exe";

/// A read-only view of one file of the host's, attached nowhere.
pub fn sealed_copy(path: &Path) -> io::Result<OwnedFd> {
    let tree = mount::tree_of(path, false)?;
    mount::alter(tree.as_fd(), false, Change { set: libc::MOUNT_ATTR_RDONLY, ..Change::default() })?;
    Ok(tree)
}

/// This process goes on from such a view, without being executed again, which would cost as much as all else that starts a process. What is mapped
/// from the file is mapped from the view, page by page the same; then the kernel lets the view be called its executable. Needs CAP_CHECKPOINT_RESTORE
/// (before Linux 5.9 CAP_SYS_ADMIN) in this process's own user namespace.
pub fn move_to_sealed() -> io::Result<()> {
    let own = Stat::read("self")?;
    // Another thread could write to what is copied.
    if own.number(20)? != 1 {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    let view = sealed_copy(Path::new(OWN))?;
    let view = File::open(format!("/proc/self/fd/{}", view.as_raw_fd()))?;
    let written = written_segments()?;
    for area in areas(&fs::read_link(OWN)?)? {
        let overlaps = |segment: &[usize; 2]| area.from < segment[1] && segment[0] < area.to;
        // SAFETY: the area is the executable's own and `view` shows the same file; there is no other thread, and this one writes to no static data.
        unsafe { if written.iter().any(overlaps) { area.copy(&view) } else { area.map(&view) }? };
    }
    set_executable(&view, &own)
}

/// `struct prctl_mm_map` of the kernel.
#[repr(C)]
struct MemoryMap {
    code: [u64; 2],
    data: [u64; 2],
    heap: [u64; 2],
    stack: u64,
    arguments: [u64; 2],
    environment: [u64; 2],
    auxiliary: u64,
    auxiliary_length: u32,
    executable: u32,
}

/// The kernel takes all of a process's addresses together, here as they are, so that less than CAP_SYS_RESOURCE is enough.
fn set_executable(file: &File, own: &Stat) -> io::Result<()> {
    const PR_SET_MM_MAP: libc::c_ulong = 14;
    // SAFETY: with 0 it only tells where the heap ends.
    let heap_end = unsafe { libc::syscall(libc::SYS_brk, 0) };
    let map = MemoryMap {
        code: [own.number(26)?, own.number(27)?],
        data: [own.number(45)?, own.number(46)?],
        heap: [own.number(47)?, heap_end.cast_unsigned()],
        stack: own.number(28)?,
        arguments: [own.number(48)?, own.number(49)?],
        environment: [own.number(50)?, own.number(51)?],
        auxiliary: 0,
        auxiliary_length: 0,
        executable: file.as_raw_fd().cast_unsigned(),
    };
    // SAFETY: the structure is the kernel's, of the length that is told, and outlives the call.
    match unsafe { libc::prctl(libc::PR_SET_MM, PR_SET_MM_MAP, &raw const map, size_of::<MemoryMap>(), 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Addresses that are mapped from one place of a file with one set of rights.
#[derive(Debug, PartialEq, Eq)]
struct Area {
    from: usize,
    to: usize,
    rights: i32,
    offset: i64,
}

/// All that are mapped from this file.
fn areas(file: &Path) -> io::Result<Vec<Area>> {
    let maps = fs::read("/proc/self/maps")?;
    let lines = maps.split(|byte| *byte == b'\n').filter(|line| line.ends_with(file.as_os_str().as_bytes()));
    let read = |line: &[u8]| area(std::str::from_utf8(line).ok()?, file);
    Ok(lines.filter_map(read).collect())
}

/// `FROM-TO RIGHTS OFFSET DEVICE INODE PATH`; nothing for another file.
fn area(line: &str, file: &Path) -> Option<Area> {
    let mut words = line.splitn(6, ' ');
    let (from, to) = words.next()?.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    let rights = words.next()?.bytes().map(|letter| match letter {
        b'r' => libc::PROT_READ,
        b'w' => libc::PROT_WRITE,
        b'x' => libc::PROT_EXEC,
        _ => 0,
    });
    let rights = rights.fold(0, |all, one| all | one);
    let offset = i64::from_str_radix(words.next()?, 16).ok()?;
    let path = PathBuf::from(words.nth(2)?.trim_start_matches(' '));
    (path == file).then_some(Area { from: number(from)?, to: number(to)?, rights, offset })
}

impl Area {
    /// The same bytes from elsewhere: nobody has written them.
    ///
    /// # Safety
    /// `file` has in these pages what is mapped here.
    unsafe fn map(&self, file: &File) -> io::Result<()> {
        let flags = libc::MAP_PRIVATE | libc::MAP_FIXED;
        let (at, length) = (self.from as *mut libc::c_void, self.to - self.from);
        // SAFETY: the caller's promise; the kernel puts the one in the other's place at once.
        let mapped = unsafe { libc::mmap(at, length, self.rights, flags, file.as_raw_fd(), self.offset) };
        if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Pages that were written are written again, elsewhere, before all take the place of the old ones.
    ///
    /// # Safety
    /// As [`Self::map`], but for pages that were written since. They are not written meanwhile.
    unsafe fn copy(&self, file: &File) -> io::Result<()> {
        let (at, length) = (self.from as *mut libc::c_void, self.to - self.from);
        let (both, private) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE);
        // SAFETY: the new pages are nobody's; the old ones are mapped, and readable as all of an executable's data is.
        unsafe {
            let new = libc::mmap(std::ptr::null_mut(), length, both, private, file.as_raw_fd(), self.offset);
            if new == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            let size = page_size();
            for page in self.written(size)? {
                std::ptr::copy_nonoverlapping(at.byte_add(page).cast::<u8>(), new.byte_add(page).cast(), size);
            }
            let moved = libc::mprotect(new, length, self.rights) == 0
                && libc::mremap(new, length, length, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, at) != libc::MAP_FAILED;
            if moved { Ok(()) } else { Err(io::Error::last_os_error()) }
        }
    }

    /// Where in it the pages begin that are no longer the file's: one number for each page, as the kernel tells of its page tables.
    fn written(&self, size: usize) -> io::Result<Vec<usize>> {
        const PRESENT: u64 = 1 << 63;
        const SWAPPED: u64 = 1 << 62;
        const OF_FILE: u64 = 1 << 61;
        let mut told = vec![0; (self.to - self.from) / size * size_of::<u64>()];
        let from = self.from / size * size_of::<u64>();
        File::open("/proc/self/pagemap")?.read_exact_at(&mut told, from as u64)?;
        let pages = told.as_chunks().0.iter().map(|bytes| u64::from_ne_bytes(*bytes));
        let is_written = |page: u64| page & SWAPPED != 0 || page & (PRESENT | OF_FILE) == PRESENT;
        Ok(pages.enumerate().filter(|(_, page)| is_written(*page)).map(|(number, _)| number * size).collect())
    }
}

/// Where the executable's data are that the loader and the program write.
fn written_segments() -> io::Result<Vec<[usize; 2]>> {
    // SAFETY: plain calls; the kernel says where the executable's own table is and how long.
    let headers = unsafe {
        let first = libc::getauxval(libc::AT_PHDR) as *const libc::Elf64_Phdr;
        if first.is_null() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        std::slice::from_raw_parts(first, libc::getauxval(libc::AT_PHNUM) as usize)
    };
    let own = headers.iter().find(|header| header.p_type == libc::PT_PHDR).ok_or(io::ErrorKind::Unsupported)?;
    let moved_by = headers.as_ptr().addr().wrapping_sub(own.p_vaddr as usize);
    let written = headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W != 0);
    Ok(written
        .map(|header| {
            let from = moved_by.wrapping_add(header.p_vaddr as usize);
            [from, from + header.p_memsz as usize]
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_read_as_the_kernel_writes_them() {
        let line = "55d0c0000000-55d0c0021000 r-xp 0001f000 fe:00 1234                       /usr/bin/a program";
        let expected = Area {
            from: 0x55d0_c000_0000,
            to: 0x55d0_c002_1000,
            rights: libc::PROT_READ | libc::PROT_EXEC,
            offset: 0x1f000,
        };
        assert_eq!(area(line, Path::new("/usr/bin/a program")), Some(expected));
        assert_eq!(area(line, Path::new("program")), None);
        assert_eq!(area("7f0000000000-7f0000001000 rw-p 00000000 00:00 0", Path::new("")), None);
    }

    #[test]
    fn this_executable_has_areas_of_both_kinds() {
        let written = written_segments().expect("a table");
        let areas = areas(&fs::read_link(OWN).expect("a link")).expect("a list");
        let (data, rest): (Vec<&Area>, Vec<&Area>) =
            areas.iter().partition(|area| written.iter().any(|[from, to]| area.from < *to && *from < area.to));
        assert!(data.iter().any(|area| area.rights & libc::PROT_WRITE != 0), "{areas:x?}");
        assert!(rest.iter().any(|area| area.rights & libc::PROT_EXEC != 0), "{areas:x?}");
        assert!(rest.iter().all(|area| area.rights & libc::PROT_WRITE == 0), "{areas:x?}");
    }
}
