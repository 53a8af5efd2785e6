//! How an app's copies are kept apart from what is around them. What is taken away is named as the kernel names it.

use bellows_proto::types::{AppSpec, Confinement};
use bellows_runtime::names;

use super::fields::{Fields, Found, Report, nearest};
use super::leaves::{filled, list, truth};
use super::tree::shorten;

/// The fields about isolation, into a spec that has the rest.
pub fn isolation(fields: &mut Fields<'_>, spec: &mut AppSpec, report: &mut Report<'_>) {
    spec.egress = fields.optional("egress", report, truth).unwrap_or(false);
    spec.security = fields.optional("security", report, security);
}

fn security(found: &Found<'_>, report: &mut Report<'_>) -> Option<Confinement> {
    let mut block = Fields::open(found, "fields, for example {drop_capabilities: [net_raw]}", report)?;
    let dropped = block.optional("drop_capabilities", report, list("a list, for example [net_raw]", capability));
    let denied = block.optional("deny_calls", report, list("a list of system calls, for example [ptrace]", call));
    let added = block.optional("add_capabilities", report, list("a list, for example [sys_ptrace]", more_capability));
    let calls = block.optional("add_calls", report, list("a list, for example [io_uring_setup]", more_call));
    block.finish(report);
    Some(Confinement {
        drop_capabilities: dropped.unwrap_or_default(),
        deny_calls: denied.unwrap_or_default(),
        add_capabilities: added.unwrap_or_default(),
        add_calls: calls.unwrap_or_default(),
    })
}

fn more_capability(found: &Found<'_>, report: &mut Report<'_>) -> Option<String> {
    let known: Vec<&str> = names::more_capabilities().collect();
    one_of(found, &known, "a capability that copies may be given", report)
}

fn more_call(found: &Found<'_>, report: &mut Report<'_>) -> Option<String> {
    let known: Vec<&str> = names::more_calls().collect();
    one_of(found, &known, "a system call that copies may be allowed", report)
}

fn capability(found: &Found<'_>, report: &mut Report<'_>) -> Option<String> {
    let known: Vec<&str> = names::capabilities().collect();
    one_of(found, &known, "a capability that copies have", report)
}

fn call(found: &Found<'_>, report: &mut Report<'_>) -> Option<String> {
    let known: Vec<&str> = names::calls().collect();
    one_of(found, &known, "a system call that copies may make and can do without", report)
}

fn one_of(found: &Found<'_>, known: &[&str], what: &str, report: &mut Report<'_>) -> Option<String> {
    let said = filled(found, report)?;
    if known.contains(&said.as_str()) {
        return Some(said);
    }
    let near = nearest(&said, known).map_or(String::new(), |name| format!("; did you mean \"{name}\"?"));
    found.refuse(report, format!("\"{}\" is not the name of {what}{near}", shorten(&said)))
}
