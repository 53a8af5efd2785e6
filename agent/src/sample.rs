//! The node's own use: CPU between two readings of its counter, memory as it is, pressure where the kernel tells.

use bellows_agent_core::{Bytes, CpuMilli, Millis, NodeUse, Permille, Resources, units};
use bellows_runtime::handle::NodeUsage;

/// Remembers the last reading.
#[derive(Debug, Default)]
pub(crate) struct NodeMeter {
    last: Option<(units::Instant, u64)>,
    load: Option<(units::Instant, NodeUse)>,
}

impl NodeMeter {
    /// The node's use since the last reading; no CPU at the first.
    pub(crate) fn read(&mut self, now: units::Instant, usage: NodeUsage) -> NodeUse {
        let last = self.last.replace((now, usage.cpu_us));
        let cpu = last.map_or(0, |(at, cpu_us)| usage.cpu_us.saturating_sub(cpu_us) / (now - at).0.max(1));
        let used = Resources { cpu: CpuMilli(cpu), memory: Bytes(usage.memory_bytes) };
        let load = NodeUse { used, age: Millis(0), pressure: pressure(&usage) };
        self.load = Some((now, load));
        load
    }

    /// What was read last, with its age: a node whose counters fail for a moment is not dead. No use at all before the first reading.
    pub(crate) fn recall(&self, now: units::Instant) -> NodeUse {
        self.load.map_or_else(NodeUse::default, |(at, load)| NodeUse { age: now - at, ..load })
    }
}

/// The largest of the three: whatever is short makes a node a worse place.
fn pressure(usage: &NodeUsage) -> Option<Permille> {
    let pressure = usage.pressure?;
    Some(Permille(pressure.cpu_permille.max(pressure.memory_permille).max(pressure.io_permille)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellows_runtime::handle::Pressure;

    #[test]
    fn cpu_is_counted_between_readings() {
        let pressure = Some(Pressure { cpu_permille: 7, memory_permille: 90, io_permille: 3 });
        let reading = |cpu_us| NodeUsage {
            cpu_us,
            memory_bytes: 5,
            capacity_cpu_milli: 2_000,
            capacity_memory_bytes: 100,
            pressure,
        };
        let mut meter = NodeMeter::default();
        assert_eq!(meter.read(units::Instant(1_000), reading(50_000)).used.cpu, CpuMilli(0));
        let load = meter.read(units::Instant(2_000), reading(750_000));
        assert_eq!(load.used, Resources { cpu: CpuMilli(700), memory: Bytes(5) });
        assert_eq!(load.pressure, Some(Permille(90)));
        assert_eq!(meter.recall(units::Instant(2_700)), NodeUse { age: Millis(700), ..load });
    }
}
