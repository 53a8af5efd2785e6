//! A running executable put out of reach. A program in a container that has no user namespace of its own can reach the file of the process that set it up,
//! through `/proc/PID/exe` or by being started from it, and write to it once nobody executes it (CVE-2019-5736). What is reached through a read-only mount
//! that is attached nowhere can be written by nobody.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::param::page_size;

use super::aside::{self, Aside};
use crate::kernel::mount::{self, Change};
use crate::kernel::process::Stat;

const OWN: &str = "/proc/self/exe";

/// A read-only view of one file of the host's, attached nowhere.
pub fn sealed_copy(path: &Path) -> io::Result<OwnedFd> {
    let tree = mount::tree_of(path, false)?;
    mount::alter(tree.as_fd(), false, Change { set: libc::MOUNT_ATTR_RDONLY, ..Change::default() })?;
    Ok(tree)
}

/// The view that this process goes on from, still open. As long as it is, whoever reaches it and rules a mount namespace of his own could take "read-only"
/// from it: it must be closed before a program of a container runs.
#[derive(Debug)]
pub struct Sealed(OwnedFd);

impl Sealed {
    /// Closes it, for which the kernel takes long, aside.
    pub(super) fn close(self) -> Option<Aside> {
        aside::close(self.0)
    }

    /// For whoever closes it.
    pub(super) fn into_fd(self) -> OwnedFd {
        self.0
    }
}

/// This process goes on from such a view, without being executed again, which would cost as much as all else that starts a process. What is mapped
/// from the file is mapped from the view, page by page the same; then the kernel lets the view be called its executable. Needs CAP_SYS_RESOURCE, or
/// CAP_CHECKPOINT_RESTORE (before Linux 5.9 CAP_SYS_ADMIN) in this process's own user namespace.
pub fn move_to_sealed() -> io::Result<Sealed> {
    // Another thread could write to what is copied. A directory has two links of its own.
    if rustix::fs::stat("/proc/self/task")?.st_nlink != 3 {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    let sealed = sealed_copy(Path::new(OWN))?;
    let view = File::open(format!("/proc/self/fd/{}", sealed.as_raw_fd()))?;
    let pages = File::open("/proc/self/pagemap")?;
    for area in areas(headers()?)? {
        // SAFETY: the area is the executable's own and `view` shows the same file; there is no other thread, and this one writes to no static data between
        // copying them and putting the copy in their place: nothing is allocated or freed there.
        unsafe { if area.is_written { area.copy(&view, &pages) } else { area.map(&view) }? };
    }
    set_executable(&view)?;
    Ok(Sealed(sealed))
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

/// Short for who may; else the kernel takes all of a process's addresses together, here as they are.
fn set_executable(file: &File) -> io::Result<()> {
    const PR_SET_MM_EXE_FILE: libc::c_ulong = 13;
    const PR_SET_MM_MAP: libc::c_ulong = 14;
    // SAFETY: a plain call with a descriptor of ours.
    if unsafe { libc::prctl(libc::PR_SET_MM, PR_SET_MM_EXE_FILE, file.as_raw_fd() as libc::c_ulong, 0, 0) } == 0 {
        return Ok(());
    }
    let own = Stat::read("self")?;
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
    is_written: bool,
}

/// All that are mapped from this file, as the executable's own table has them: what the kernel mapped, and which part of it the loader closed to
/// writers when it had written all addresses there.
fn areas(headers: &[libc::Elf64_Phdr]) -> io::Result<Vec<Area>> {
    let of = |kind| headers.iter().filter(move |header: &&libc::Elf64_Phdr| header.p_type == kind);
    // The table itself, or what is mapped from the file's beginning, behind whose header the table is.
    let table = of(libc::PT_PHDR).next().map(|header| header.p_vaddr as usize);
    let first = of(libc::PT_LOAD).find(|header| header.p_offset == 0);
    let table = table.or(first.map(|header| header.p_vaddr as usize + size_of::<libc::Elf64_Ehdr>()));
    let moved_by = headers.as_ptr().addr().wrapping_sub(table.ok_or(io::ErrorKind::Unsupported)?);
    let page = |address: usize| address & !(page_size() - 1);
    let closed = of(libc::PT_GNU_RELRO).next().map_or([0; 2], |header| {
        let from = moved_by.wrapping_add(header.p_vaddr as usize);
        [from, from + header.p_memsz as usize].map(page)
    });
    let mut areas = Vec::new();
    for header in of(libc::PT_LOAD).filter(|header| header.p_filesz > 0) {
        let at = moved_by.wrapping_add(header.p_vaddr as usize);
        let (from, to) = (page(at), page(at + header.p_filesz as usize + page_size() - 1));
        let is_written = header.p_flags & libc::PF_W != 0;
        let split = |limit: usize| if is_written { limit.clamp(from, to) } else { from };
        let ends = [from, split(closed[0]), split(closed[1]), to];
        for (number, part) in ends.windows(2).enumerate().filter(|(_, part)| part[0] < part[1]) {
            let rights = if number == 1 { rights(header.p_flags & !libc::PF_W) } else { rights(header.p_flags) };
            let offset = page(header.p_offset as usize) + (part[0] - from);
            areas.push(Area { from: part[0], to: part[1], rights, offset: offset as i64, is_written });
        }
    }
    Ok(areas)
}

/// Where the executable's own table is.
fn headers() -> io::Result<&'static [libc::Elf64_Phdr]> {
    // SAFETY: plain calls; the kernel says where the table is and how long, and it stays mapped.
    unsafe {
        let first = libc::getauxval(libc::AT_PHDR) as *const libc::Elf64_Phdr;
        if first.is_null() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(std::slice::from_raw_parts(first, libc::getauxval(libc::AT_PHNUM) as usize))
    }
}

fn rights(flags: u32) -> i32 {
    let pairs = [(libc::PF_R, libc::PROT_READ), (libc::PF_W, libc::PROT_WRITE), (libc::PF_X, libc::PROT_EXEC)];
    pairs.iter().filter(|(flag, _)| flags & flag != 0).fold(0, |all, (_, right)| all | right)
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
    unsafe fn copy(&self, file: &File, pages: &File) -> io::Result<()> {
        let (at, length) = (self.from as *mut libc::c_void, self.to - self.from);
        let (both, private) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE);
        // SAFETY: the new pages are nobody's; the old ones are mapped, and readable as all of an executable's data is.
        unsafe {
            let size = page_size();
            let written = self.written(pages, size)?;
            let new = libc::mmap(std::ptr::null_mut(), length, both, private, file.as_raw_fd(), self.offset);
            if new == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            for page in &written {
                std::ptr::copy_nonoverlapping(at.byte_add(*page).cast::<u8>(), new.byte_add(*page).cast(), size);
            }
            let moved = libc::mprotect(new, length, self.rights) == 0
                && libc::mremap(new, length, length, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, at) != libc::MAP_FAILED;
            if moved { Ok(()) } else { Err(io::Error::last_os_error()) }
        }
    }

    /// Where in it the pages begin that are no longer the file's: one number for each page, as the kernel tells of its page tables.
    fn written(&self, pages: &File, size: usize) -> io::Result<Vec<usize>> {
        const PRESENT: u64 = 1 << 63;
        const SWAPPED: u64 = 1 << 62;
        const OF_FILE: u64 = 1 << 61;
        let mut told = vec![0; (self.to - self.from) / size * size_of::<u64>()];
        let from = self.from / size * size_of::<u64>();
        pages.read_exact_at(&mut told, from as u64)?;
        let pages = told.as_chunks().0.iter().map(|bytes| u64::from_ne_bytes(*bytes));
        let is_written = |page: u64| page & SWAPPED != 0 || page & (PRESENT | OF_FILE) == PRESENT;
        Ok(pages.enumerate().filter(|(_, page)| is_written(*page)).map(|(number, _)| number * size).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `FROM-TO RIGHTS OFFSET DEVICE INODE PATH`.
    fn told(line: &str) -> (usize, usize, i32, i64) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (from, to) = words[0].split_once('-').expect("two addresses");
        let number = |text| usize::from_str_radix(text, 16).expect("a number");
        let right = |(at, letter, right)| if words[1].as_bytes()[at] == letter { right } else { 0 };
        let rights = [(0, b'r', libc::PROT_READ), (1, b'w', libc::PROT_WRITE), (2, b'x', libc::PROT_EXEC)];
        (number(from), number(to), rights.map(right).iter().sum(), number(words[2]) as i64)
    }

    #[test]
    fn areas_are_those_that_the_kernel_tells_of() {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("a list");
        let own = std::fs::read_link(OWN).expect("a link");
        let own = own.to_str().expect("text");
        let expected: Vec<_> = maps.lines().filter(|line| line.ends_with(own)).map(told).collect();
        let areas = areas(headers().expect("a table")).expect("areas");
        let found: Vec<_> = areas.iter().map(|area| (area.from, area.to, area.rights, area.offset)).collect();
        assert_eq!(found, expected);
        assert!(areas.iter().any(|area| area.is_written) && areas.iter().any(|area| !area.is_written));
    }
}
