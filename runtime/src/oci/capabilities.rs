//! Capabilities by name: the five sets of a process as bits.

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};

use super::OciError;

/// By number.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The five sets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sets {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

/// All names that are known.
pub fn names() -> impl Iterator<Item = String> {
    NAMES.iter().map(|name| format!("CAP_{name}"))
}

/// A name with or without `CAP_`.
pub fn bit(name: &str) -> Option<u64> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == bare).map(|number| 1 << number)
}

/// None of a process that names none. Ambient ones must be permitted and inheritable: the kernel grants no others, and as other runtimes do (whose example
/// configurations name some) we leave them out.
pub fn sets(named: Option<&LinuxCapabilities>) -> Result<Sets, OciError> {
    let Some(named) = named else { return Ok(Sets::default()) };
    let (permitted, inheritable) = (bits(named.permitted().as_ref())?, bits(named.inheritable().as_ref())?);
    Ok(Sets {
        bounding: bits(named.bounding().as_ref())?,
        effective: bits(named.effective().as_ref())?,
        permitted,
        inheritable,
        ambient: bits(named.ambient().as_ref())? & permitted & inheritable,
    })
}

fn bits(set: Option<&Capabilities>) -> Result<u64, OciError> {
    let one = |capability: &Capability| {
        let name = capability.to_string();
        bit(&name).ok_or_else(|| OciError::refused("process.capabilities", format!("{name} is not known here")))
    };
    set.into_iter().flatten().try_fold(0, |all, capability| Ok(all | one(capability)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_kernels_numbers() {
        assert_eq!(bit("CAP_CHOWN"), Some(1));
        assert_eq!(bit("sys_admin"), Some(1 << 21));
        assert_eq!(bit("CAP_CHECKPOINT_RESTORE"), Some(1 << 40));
        assert_eq!(bit("CAP_NO"), None);
    }

    #[test]
    fn every_name_of_the_specification_is_known() {
        let all = LinuxCapabilities::default();
        assert!(sets(Some(&all)).is_ok());
        for number in 0..41_u64 {
            assert_eq!(bit(NAMES[number as usize]), Some(1 << number));
        }
    }
}
