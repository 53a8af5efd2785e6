//! Integers with units. No float decides anything.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

use serde::{Deserialize, Serialize};

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident($inner:ty), $display:path) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl Add for $name {
            type Output = Self;
            fn add(self, other: Self) -> Self { Self(self.0.saturating_add(other.0)) }
        }
        impl AddAssign for $name {
            fn add_assign(&mut self, other: Self) { *self = *self + other; }
        }
        impl Sub for $name {
            type Output = Self;
            /// Stops at zero: what is left of a capacity is never negative.
            fn sub(self, other: Self) -> Self { Self(self.0.saturating_sub(other.0)) }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { $display(self.0.into(), f) }
        }
    };
}

fn cpu(milli: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{milli}m")
}

fn permille(share: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{share}‰")
}

/// The largest unit that the amount reaches, with one decimal when it is not whole: `128 MiB`, `7.5 GiB`.
fn bytes(amount: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let Some((shift, unit)) = units.into_iter().find(|(shift, _)| amount >> shift > 0) else {
        return write!(f, "{amount} B");
    };
    let (whole, tenth) = (amount >> shift, ((amount & ((1 << shift) - 1)) * 10) >> shift);
    if tenth == 0 { write!(f, "{whole} {unit}") } else { write!(f, "{whole}.{tenth} {unit}") }
}

/// Seconds from one second on: `950 ms`, `4.55 s`, `30 s`.
fn millis(length: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if length < 1_000 {
        return write!(f, "{length} ms");
    }
    let (whole, rest) = (length / 1_000, format!("{:03}", length % 1_000));
    match rest.trim_end_matches('0') {
        "" => write!(f, "{whole} s"),
        rest => write!(f, "{whole}.{rest} s"),
    }
}

unit!(
    /// Thousandths of one CPU.
    CpuMilli(u64), cpu
);
unit!(
    /// Bytes.
    Bytes(u64), bytes
);
unit!(
    /// Thousandths of a whole: use / capacity.
    Permille(u32), permille
);
unit!(
    /// A length of time in milliseconds.
    Millis(u64), millis
);

/// What a replica takes of a node, declared or measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Resources {
    /// CPU time per wall time.
    pub cpu: CpuMilli,
    /// Memory.
    pub memory: Bytes,
}

impl Resources {
    /// Does `self` fit into `room`, in every dimension?
    pub fn fits(&self, room: &Self) -> bool {
        self.cpu <= room.cpu && self.memory <= room.memory
    }

    /// The larger of both, dimension by dimension.
    pub fn max(self, other: Self) -> Self {
        Self { cpu: self.cpu.max(other.cpu), memory: self.memory.max(other.memory) }
    }
}

impl Add for Resources {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { cpu: self.cpu + other.cpu, memory: self.memory + other.memory }
    }
}

impl AddAssign for Resources {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Resources {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self { cpu: self.cpu - other.cpu, memory: self.memory - other.memory }
    }
}
