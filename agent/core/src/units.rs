//! Integers with units, and time as an argument. No float decides anything.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

use serde::{Deserialize, Serialize};

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident($inner:ty), $suffix:literal) => {
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
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, concat!("{}", $suffix), self.0) }
        }
    };
}

unit!(
    /// Thousandths of one CPU.
    CpuMilli(u64), "m"
);
unit!(
    /// Bytes.
    Bytes(u64), "B"
);
unit!(
    /// Thousandths of a whole: use / capacity.
    Permille(u32), "‰"
);
unit!(
    /// A length of time in milliseconds.
    Millis(u64), "ms"
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

/// Milliseconds since the Unix epoch, as the shell that calls tells them; never goes back within one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instant(pub u64);

impl Add<Millis> for Instant {
    type Output = Self;
    fn add(self, length: Millis) -> Self {
        Self(self.0.saturating_add(length.0))
    }
}

impl Sub for Instant {
    type Output = Millis;
    /// Zero when `other` is later.
    fn sub(self, other: Self) -> Millis {
        Millis(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}
