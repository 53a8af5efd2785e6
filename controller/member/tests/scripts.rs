//! Stories of a raft group, told as commands with golden output (tests/snapshots).

mod support;

use bellows_member::Role;
use std::fmt::Write as _;
use support::Group;

fn numbers(words: &[&str]) -> Vec<u64> {
    words.iter().map(|word| word.parse().expect("a number in the script")).collect()
}

fn show(group: &mut Group) {
    let ids: Vec<_> = group.hosts.keys().copied().collect();
    for id in ids {
        let model = group.hosts[&id].model.join(" ");
        let line = match group.member(id) {
            None => "down".to_owned(),
            Some(member) => {
                let role = match member.role() {
                    Role::Leader { .. } => "leader",
                    Role::Follower { .. } => "follower",
                };
                let quorum = if member.quorum_heard() { ", hears a quorum" } else { "" };
                format!("{role} in term {}{quorum}: {model}", member.term())
            }
        };
        writeln!(group.trace, "m{id} is {line}").expect("into a string");
    }
}

fn ticks(group: &mut Group, count: u64) {
    for _ in 0..count {
        group.tick();
        group.deliver_all();
    }
}

fn obey(group: &mut Group, line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["tick", count] => ticks(group, numbers(&[count])[0]),
        ["show"] => show(group),
        ["campaign", id] => {
            group.member(numbers(&[id])[0]).expect("a running member").campaign();
            ticks(group, 1);
        }
        ["propose", id, command] => {
            group.propose(numbers(&[id])[0], command);
            group.deliver_all();
        }
        ["propose-unsent", id, command] => {
            group.propose(numbers(&[id])[0], command);
            group.wire.clear();
        }
        ["crash", id, "keep", kept] => group.crash(numbers(&[id])[0], numbers(&[kept])[0] as usize),
        ["start", id] => {
            group.start(numbers(&[id])[0]);
            group.deliver_all();
        }
        ["slow-disk", id] => group.hosts.get_mut(&numbers(&[id])[0]).expect("a host").slow_disk = true,
        ["sync", id] => {
            group.sync(numbers(&[id])[0]);
            group.deliver_all();
        }
        ["compact", id] => group.compact(numbers(&[id])[0]),
        ["lose-all"] => group.wire.clear(),
        ["heal"] => group.cuts.clear(),
        ["cut", rest @ ..] => {
            let bar = rest.iter().position(|word| *word == "|").expect("cut A | B");
            group.cut(&numbers(&rest[..bar]), &numbers(&rest[bar + 1..]));
        }
        other => panic!("unknown command {other:?}"),
    }
}

fn tell(script: &str) -> String {
    let mut lines = script.lines().filter(|line| !line.trim().is_empty());
    let head = lines.next().expect("group SIZE SEED");
    let [size, seed] = numbers(&head.split_whitespace().skip(1).collect::<Vec<_>>())[..] else {
        panic!("group SIZE SEED")
    };
    let mut group = Group::new(size, seed);
    let mut story = format!("> {}\n{}", head.trim(), std::mem::take(&mut group.trace));
    for line in lines {
        obey(&mut group, line);
        writeln!(story, "> {}", line.trim()).expect("into a string");
        story.push_str(&std::mem::take(&mut group.trace));
    }
    story
}

macro_rules! story {
    ($name:ident, $script:expr) => {
        #[test]
        fn $name() {
            insta::assert_snapshot!(stringify!($name), tell($script));
        }
    };
}

story!(
    a_single_member_leads_at_once,
    "group 1 1
    show
    propose 1 a
    crash 1 keep 0
    start 1
    show"
);

story!(
    a_single_member_acknowledges_nothing_before_its_disk_does,
    "group 1 1
    slow-disk 1
    propose 1 a
    show
    crash 1 keep 0
    start 1
    sync 1
    show
    propose 1 b
    sync 1
    show"
);

story!(
    three_members_elect_one_and_agree,
    "group 3 1
    tick 25
    show
    propose 1 a
    propose 2 a
    propose 3 a
    tick 3
    show"
);

story!(
    a_follower_counts_only_when_its_disk_has_it,
    "group 3 1
    campaign 1
    tick 2
    slow-disk 2
    slow-disk 3
    propose 1 a
    tick 2
    show
    sync 3
    tick 2
    show"
);

story!(
    a_cut_off_leader_steps_down_and_its_tail_is_replaced,
    "group 3 1
    campaign 1
    tick 2
    propose 1 a
    tick 2
    cut 1 | 2 3
    propose 1 lost-1
    propose 1 lost-2
    tick 11
    show
    tick 20
    show
    propose 2 b
    propose 3 b
    heal
    tick 30
    show"
);

story!(
    a_returning_member_disturbs_nobody,
    "group 3 1
    campaign 1
    tick 2
    cut 3 | 1 2
    tick 100
    show
    heal
    tick 10
    show"
);

story!(
    a_crash_loses_only_what_was_not_acknowledged,
    "group 3 1
    campaign 1
    tick 2
    propose 1 a
    tick 2
    slow-disk 1
    cut 1 | 2 3
    propose 1 never-acknowledged
    crash 1 keep 0
    heal
    tick 30
    start 1
    sync 1
    tick 5
    sync 1
    tick 5
    sync 1
    tick 5
    show"
);

story!(
    all_members_crash_at_once,
    "group 3 1
    campaign 1
    tick 2
    propose 1 a
    propose 1 b
    tick 2
    crash 1 keep 0
    crash 2 keep 0
    crash 3 keep 0
    start 1
    start 2
    start 3
    tick 30
    show"
);

story!(
    a_far_lagging_follower_gets_a_snapshot,
    "group 3 1
    campaign 1
    tick 2
    crash 3 keep 0
    propose 1 a
    propose 1 b
    propose 1 c
    propose 1 d
    propose 1 e
    tick 2
    compact 1
    propose 1 f
    tick 2
    start 3
    tick 10
    show
    crash 3 keep 0
    start 3
    tick 5
    show"
);

story!(
    a_lost_snapshot_is_sent_again,
    "group 3 1
    campaign 1
    tick 2
    crash 3 keep 0
    propose 1 a
    propose 1 b
    propose 1 c
    propose 1 d
    tick 2
    compact 1
    start 3
    cut 3 | 1
    tick 2
    heal
    tick 60
    show"
);

story!(
    a_restart_begins_at_the_snapshot,
    "group 1 1
    propose 1 a
    propose 1 b
    compact 1
    compact 1
    propose 1 c
    crash 1 keep 0
    start 1
    show"
);

story!(
    a_leader_without_a_quorum_knows_it,
    "group 3 1
    campaign 1
    tick 2
    show
    cut 1 | 2 3
    tick 9
    show
    tick 3
    show"
);
