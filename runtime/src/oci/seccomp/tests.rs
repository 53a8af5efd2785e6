//! Compiled sections against a reading of them that knows nothing of programs.

use super::*;
use proptest::prelude::*;
use serde_json::json;

const ALLOW: u32 = 0x7fff_0000;

/// The kernel's filter machine.
fn run(program: &[Instruction], arch: u32, nr: u32, arguments: [u64; 6]) -> u32 {
    let (mut at, mut accumulator) = (0_usize, 0_u32);
    loop {
        let (code, [yes, no], value) = program[at].parts();
        at += 1;
        let branch = |taken: bool| usize::from(if taken { yes } else { no });
        match code {
            0x20 => {
                accumulator = match value {
                    0 => nr,
                    4 => arch,
                    16.. => (arguments[(value as usize - 16) / 8] >> (8 * (value % 8))) as u32,
                    other => panic!("loads offset {other}"),
                }
            }
            0x54 => accumulator &= value,
            0x05 => at += value as usize,
            0x15 => at += branch(accumulator == value),
            0x25 => at += branch(accumulator > value),
            0x35 => at += branch(accumulator >= value),
            0x06 => return value,
            other => panic!("unknown instruction {other:#x}"),
        }
    }
}

fn section(value: serde_json::Value) -> LinuxSeccomp {
    serde_json::from_value(value).expect("a section")
}

fn answer(section: &LinuxSeccomp, name: &str, arguments: [u64; 6]) -> u32 {
    let nr = Syscalls::native().number(name).expect("a call");
    run(&compile(section).expect("compiles").program, THIS_ARCH, nr, arguments)
}

#[test]
fn conditions_decide_and_the_default_answers_for_the_rest() {
    let section = section(json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
        "syscalls": [
            {"names": ["read", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22,
             "args": [{"index": 0, "value": 16, "op": "SCMP_CMP_EQ"}, {"index": 2, "value": 9, "op": "SCMP_CMP_EQ"}]},
            {"names": ["socket"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 0x7e02_0000_u64, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW",
             "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]}
        ]
    }));
    let with = |first, third| [first, 0, third, 0, 0, 0];
    let cases = [
        ("read", with(0, 0), ALLOW),
        ("write", with(0, 0), 0x0005_0026),
        ("socket", with(16, 9), 0x0005_0016),
        ("socket", with(16, 8), ALLOW),
        ("socket", with(2, 9), ALLOW),
        ("clone", with(0x11, 0), ALLOW),
        ("clone", with(0x1000_0000, 0), 0x0005_0026),
        ("personality", with(8, 0), ALLOW),
        ("personality", with(0, 0), ALLOW),
        ("personality", with(4, 0), 0x0005_0026),
    ];
    for (name, arguments, want) in cases {
        assert_eq!(answer(&section, name, arguments), want, "{name} {arguments:?}");
    }
}

#[test]
fn unknown_numbers_are_enosys_where_the_default_is_another_error() {
    let allow = json!([{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]);
    for (default, want) in [("SCMP_ACT_ERRNO", ENOSYS), ("SCMP_ACT_KILL", 0), ("SCMP_ACT_ALLOW", ALLOW)] {
        let compiled = compile(&section(json!({"defaultAction": default, "syscalls": allow}))).expect("compiles");
        assert_eq!(run(&compiled.program, THIS_ARCH, 2000, [0; 6]), want, "{default}");
    }
}

#[test]
fn other_tables_of_numbers_are_no_way_round() {
    for (architectures, want) in
        [(json!([]), KILL_PROCESS), (json!(["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_ARM"]), ENOSYS)]
    {
        let section =
            section(json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": architectures, "syscalls": []}));
        let compiled = compile(&section).expect("compiles");
        assert_eq!(run(&compiled.program, OTHER_TABLES[0].0, 0, [0; 6]), want);
        if cfg!(target_arch = "x86_64") {
            assert_eq!(run(&compiled.program, THIS_ARCH, X32_FROM, [0; 6]), want);
        }
    }
}

#[test]
fn flags_are_the_kernels_and_listeners_are_refused() {
    let flagged = section(json!({"defaultAction": "SCMP_ACT_ALLOW",
        "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"]}));
    assert_eq!(compile(&flagged).expect("compiles").flags, 6);
    let notifying = section(json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}]}));
    assert!(compile(&notifying).is_err());
}

#[test]
fn a_filter_of_many_conditions_reaches_over_long_distances() {
    let names: Vec<String> = Syscalls::native().names().map(str::to_owned).collect();
    let rules: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(n, name)| {
            json!({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": n % 100 + 1,
                   "args": [{"index": 0, "value": n, "op": "SCMP_CMP_EQ"}]})
        })
        .collect();
    let section = section(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}));
    for (n, name) in names.iter().enumerate() {
        assert_eq!(answer(&section, name, [n as u64, 0, 0, 0, 0, 0]), ERRNO | (n as u32 % 100 + 1), "{name}");
        assert_eq!(answer(&section, name, [n as u64 + 1, 0, 0, 0, 0, 0]), ALLOW, "{name}");
    }
}

fn naive(operator: LinuxSeccompOperator, given: u64, value: u64, second: u64) -> bool {
    use LinuxSeccompOperator::*;
    match operator {
        ScmpCmpEq => given == value,
        ScmpCmpNe => given != value,
        ScmpCmpLt => given < value,
        ScmpCmpLe => given <= value,
        ScmpCmpGt => given > value,
        ScmpCmpGe => given >= value,
        ScmpCmpMaskedEq => given & value == second,
    }
}

/// Numbers that agree in one half are what comparisons by halves get wrong.
fn number() -> impl Strategy<Value = u64> {
    let half = prop_oneof![Just(0_u64), Just(1), Just(7), Just(0x7fff_ffff), Just(0xffff_ffff)];
    (half.clone(), half).prop_map(|(high, low)| high << 32 | low)
}

proptest! {
    #[test]
    fn comparisons_are_of_64_bits(op in 0_usize..7, given in number(), value in number(), second in number(), index in 0_usize..6) {
        use LinuxSeccompOperator::*;
        let operators = [ScmpCmpEq, ScmpCmpNe, ScmpCmpLt, ScmpCmpLe, ScmpCmpGt, ScmpCmpGe, ScmpCmpMaskedEq];
        let operator = operators[op];
        let section = section(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_TRAP",
             "args": [{"index": index, "value": value, "valueTwo": second, "op": operator}]}]}));
        let mut arguments = [0; 6];
        arguments[index] = given;
        let want = if naive(operator, given, value, second) { 0x0003_0000 } else { ALLOW };
        prop_assert_eq!(answer(&section, "read", arguments), want);
    }
}
