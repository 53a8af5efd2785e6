//! How the C library finds hosts by name.

use std::io;

/// From now on by `/etc/hosts` and DNS alone, whatever else `/etc/nsswitch.conf` names: that would be loaded as libraries, which an executable that has the C
/// library in itself cannot do where another version of it is installed.
pub fn by_files_and_dns() -> io::Result<()> {
    #[cfg(target_env = "gnu")]
    {
        unsafe extern "C" {
            fn __nss_configure_lookup(database: *const libc::c_char, services: *const libc::c_char) -> libc::c_int;
        }
        // SAFETY: both are C strings; the library copies what it keeps and takes its own lock.
        if unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
