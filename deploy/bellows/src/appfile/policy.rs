//! What decides how many copies an elastic app has.

use bellows_proto::types::policy::Reading;
use bellows_proto::types::{ConcurrencyPolicy, CpuPolicy, Elastic, MemoryPolicy, Policy, Rate, RequestRatePolicy};

use super::fields::{Fields, Found, Report};
use super::leaves::{duration, percent, whole_32};
use super::ranges::{self, Range};
use super::shape::defaults;

/// The fields of a policy that read demand or use; one at least must be there.
const READINGS: [&str; 4] = ["concurrency", "requests_per_second", "cpu", "memory"];

/// Bounds, and what decides between them.
pub fn policy(found: &Found<'_>, report: &mut Report<'_>) -> Option<Elastic> {
    let mut block = Fields::open(found, "fields, for example `{min: 1, max: 20, cpu: {target: 60%}}`", report)?;
    let elastic = Elastic {
        min: block.optional("min", report, whole_32(&ranges::COPIES)).unwrap_or(defaults::MIN),
        max: block.required("max", "20", report, whole_32(&ranges::MOST_COPIES)).unwrap_or(u32::MAX),
        idle_grace_ms: block
            .optional("idle_grace", report, duration(&ranges::IDLE_GRACE_MS))
            .unwrap_or(defaults::IDLE_GRACE_MS),
        spare: block.optional("spare", report, whole_32(&ranges::COPIES)).unwrap_or(defaults::SPARE),
        up: block.optional("up", report, rate),
        down: block.optional("down", report, rate),
        policies: policies(&mut block, report),
    };
    if !READINGS.iter().any(|reading| block.has(reading)) {
        report.add(
            block.start(),
            &block.path_of("cpu"),
            "policy: says bounds but nothing that decides between them; add for example `concurrency: {target: 10}` or `cpu: {target: 60%}`",
        );
    }
    contradictions(&elastic, &block, report);
    block.finish(report);
    Some(elastic)
}

fn policies(block: &mut Fields<'_>, report: &mut Report<'_>) -> Vec<Policy> {
    let count = |range| move |found: &Found<'_>, report: &mut Report<'_>| target(found, "10", whole_32(range), report);
    let share = |range: &'static Range| {
        move |found: &Found<'_>, report: &mut Report<'_>| {
            u32::try_from(target(found, "60%", percent(range), report)?).ok()
        }
    };
    let concurrency = block.optional("concurrency", report, count(&ranges::CONCURRENCY));
    let rate = block.optional("requests_per_second", report, count(&ranges::REQUEST_RATE));
    let cpu = block.optional("cpu", report, share(&ranges::CPU_TARGET_PERMILLE));
    let memory = block.optional("memory", report, share(&ranges::MEMORY_TARGET_PERMILLE));
    let readings = [
        concurrency.map(|target| Reading::Concurrency(ConcurrencyPolicy { target })),
        rate.map(|target| Reading::RequestsPerSecond(RequestRatePolicy { target })),
        cpu.map(|target_permille| Reading::Cpu(CpuPolicy { target_permille })),
        memory.map(|target_permille| Reading::Memory(MemoryPolicy { target_permille })),
    ];
    readings.into_iter().flatten().map(|reading| Policy { reading: Some(reading) }).collect()
}

/// A block with nothing but a target.
fn target<T>(
    found: &Found<'_>,
    example: &str,
    read: impl FnOnce(&Found<'_>, &mut Report<'_>) -> Option<T>,
    report: &mut Report<'_>,
) -> Option<T> {
    let mut block = Fields::open(found, &format!("fields, for example `{{target: {example}}}`"), report)?;
    let target = block.required("target", example, report, read);
    block.finish(report);
    target
}

fn rate(found: &Found<'_>, report: &mut Report<'_>) -> Option<Rate> {
    let mut block = Fields::open(found, "fields, for example `{copies: 5, per: 10s}`", report)?;
    let copies = block.required("copies", "5", report, whole_32(&ranges::MOST_COPIES));
    let per_ms = block.required("per", "10s", report, duration(&ranges::RATE_PER_MS));
    block.finish(report);
    Some(Rate { copies: copies?, per_ms: per_ms? })
}

fn contradictions(elastic: &Elastic, block: &Fields<'_>, report: &mut Report<'_>) {
    let Elastic { min, max, spare, .. } = elastic;
    let mut refuse = |field: &'static str, message: String| {
        let at = block.place(field).unwrap_or(block.start());
        report.add(at, &block.path_of(field), message);
    };
    let by_requests = block.has("concurrency") || block.has("requests_per_second");
    if *min == 0 && !elastic.policies.is_empty() && !by_requests {
        let words = "policy.min: 0 copies use no CPU and no memory, so these policies could never start the first one again; say at least 1, or \
                     name a target of concurrency or requests_per_second too";
        refuse("min", words.to_owned());
    }
    if min > max {
        refuse("min", format!("policy.min: {min} is more than policy.max, which is {max}"));
    }
    if spare > max {
        refuse("spare", format!("policy.spare: {spare} is more than policy.max, which is {max}"));
    }
}
