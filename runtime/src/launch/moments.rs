//! The moments of a launch that are written down, by name.

macro_rules! moments {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A moment of a launch.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Moment {
            $($(#[$doc])* $name,)*
        }

        impl Moment {
            const ALL: &[Self] = &[$(Self::$name),*];

            /// In words.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

moments! {
    /// Runtime: a slot is there.
    SlotTaken = "slot taken",
    /// Runtime: limits and record are written, the request goes out.
    Asked = "record written, launcher asked",
    /// Launcher: the request is read, the steps are computed.
    Planned = "launcher: steps planned",
    /// Launcher: the writable layer and its files.
    ScratchReady = "launcher: writable layer and files of /etc",
    /// Launcher: the overlay.
    RootReady = "launcher: overlay",
    /// Launcher: the output pipes.
    PipesReady = "launcher: output pipes",
    /// Launcher: the sysfs.
    SysReady = "launcher: /sys",
    /// Launcher: the first process exists.
    Cloned = "launcher: first process cloned",
    /// Launcher: ids mapped.
    Mapped = "launcher: ids mapped",
    /// Launcher: cgroups joined.
    Joined = "launcher: cgroups joined",
    /// Child.
    Began = "child: began",
    /// Child.
    RootAttached = "child: root attached",
    /// Child.
    ProcMounted = "/proc mounted",
    /// Child.
    SysAttached = "child: /sys attached",
    /// Child.
    OtherMounted = "child: /dev/pts, /dev/mqueue",
    /// Child.
    Hidden = "child: paths hidden",
    /// Child.
    Protected = "child: paths made read-only",
    /// Child.
    Pivoted = "child: root changed",
    /// Child.
    HostDropped = "child: host's tree let go, host name",
    /// Child.
    Told = "child: told to go on",
    /// Child.
    Limited = "child: cgroup namespace, root, rlimits",
    /// Child.
    Connected = "child: descriptors",
    /// Child.
    Lowered = "child: capabilities dropped",
    /// Child.
    Filtered = "child: system call filter",
    /// Launcher: the program has been executed, which the launcher knows.
    Executed = "launcher: program executed",
    /// Runtime: the answer is read.
    Answered = "runtime told",
    /// Runtime: the process is recorded.
    Recorded = "process recorded",
    /// Runtime: the first process is gone, and with it all others and their namespaces.
    Gone = "program, init and namespaces ended",
    /// Runtime: the exit is known, the slot another container's.
    Reaped = "exit read, slot given back",
    /// Runtime: nothing is known of it any more.
    Forgotten = "record blank, folder given up",
}

impl TryFrom<u8> for Moment {
    type Error = u8;
    fn try_from(code: u8) -> Result<Self, u8> {
        Self::ALL.get(usize::from(code)).copied().ok_or(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_back_as_what_they_were() {
        for moment in Moment::ALL {
            assert_eq!(Moment::try_from(*moment as u8), Ok(*moment));
        }
        assert_eq!(Moment::try_from(255), Err(255));
    }
}
