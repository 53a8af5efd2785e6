//! What `/proc` tells of processes.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The line of `/proc/PID/stat`.
pub struct Stat(String);

impl Stat {
    /// Of a process by its number, or of `self`.
    pub fn read(process: impl Display) -> io::Result<Self> {
        // Longer than fifty numbers and a name are; of one look, so that the fields are of one moment.
        let mut text = [0; 2048];
        let length = File::open(format!("/proc/{process}/stat"))?.read(&mut text)?;
        // The name, in parentheses, may hold anything.
        Ok(Self(String::from_utf8_lossy(&text[..length]).into_owned()))
    }

    /// A field behind the name, counted from 1 as in proc(5).
    pub fn field(&self, number: usize) -> io::Result<&str> {
        let behind = self.0.rsplit_once(')').map(|(_, rest)| rest);
        let word = behind.and_then(|rest| rest.split_whitespace().nth(number.checked_sub(3)?));
        word.ok_or(io::ErrorKind::InvalidData.into())
    }

    /// Likewise.
    pub fn number(&self, number: usize) -> io::Result<u64> {
        self.field(number)?.parse().map_err(io::Error::other)
    }

    /// When the process was started, in clock ticks after boot.
    pub fn started(&self) -> io::Result<u64> {
        self.number(22)
    }
}

/// Whether a process has ended or does within some time.
pub fn ends_within(pidfd: BorrowedFd<'_>, patience: Duration) -> io::Result<bool> {
    let patience = Timespec { tv_sec: patience.as_secs().cast_signed(), tv_nsec: patience.subsec_nanos().into() };
    let mut polls = [PollFd::new(&pidfd, PollFlags::IN)];
    Ok(poll(&mut polls, Some(&patience))? > 0)
}

/// Whether a process is no more, or has let go of what was asked for.
pub fn is_nobodys(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_those_behind_the_name_whatever_that_holds() {
        let stat = Stat("7 (a) 1 (b)) S 3 4 0".to_owned());
        assert_eq!((stat.field(3).expect("a state"), stat.number(5).expect("a number")), ("S", 4));
        assert!(stat.number(3).is_err() && stat.field(7).is_err() && stat.field(1).is_err());
    }
}
