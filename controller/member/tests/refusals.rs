//! What a member does not take.

use bellows_member::{
    CompactError, Config, ConfigError, MAX_COMMAND_BYTES, Member, MemberId, MemoryLog, ProposeError, StartError,
    StepError,
};

fn member(id: u64, peers: &[u64]) -> Member {
    let peers = peers.iter().copied().map(MemberId).collect();
    Member::new(Config::new(MemberId(id), peers, 1), &mut MemoryLog::new()).expect("a new disk")
}

fn sole_leader() -> Member {
    let mut sole = member(1, &[1]);
    loop {
        let actions = sole.ready();
        if actions.is_empty() {
            return sole;
        }
        if let Some(batch) = actions.persist {
            sole.persisted(batch.number);
        }
    }
}

#[test]
fn a_group_without_this_member() {
    let config = Config::new(MemberId(4), vec![MemberId(1)], 1);
    let refused = Member::new(config, &mut MemoryLog::new()).err().expect("an error");
    assert!(matches!(refused, StartError::Config(ConfigError::NotAPeer { .. })));
}

#[test]
fn noise_and_strangers() {
    let mut first = member(1, &[1, 2, 3]);
    assert!(matches!(first.step(&[0xff; 40]), Err(StepError::Decode { bytes: 40, .. })));
    let mut other = member(9, &[8, 9]);
    other.campaign();
    let letter = other.ready().messages.pop().expect("a candidate asks for votes");
    assert!(matches!(first.step(&letter.bytes), Err(StepError::Stray { from: MemberId(9), .. })));
    assert_eq!(first.term(), 0, "a stranger moves nothing");
}

#[test]
fn commands_that_are_empty_too_long_or_not_for_a_follower() {
    let mut sole = sole_leader();
    assert!(matches!(sole.propose(Vec::new()), Err(ProposeError::Empty)));
    assert!(matches!(sole.propose(vec![0; MAX_COMMAND_BYTES + 1]), Err(ProposeError::TooLong { .. })));
    assert!(sole.propose(vec![0; 10]).is_ok());
    let refused = member(1, &[1, 2, 3]).propose(vec![1]).expect_err("no leader yet");
    assert_eq!(refused.to_string(), "this member is not the leader (none is known)");
}

#[test]
fn too_much_that_is_not_committed() {
    let mut sole = sole_leader();
    let refused = (0..64).find_map(|_| sole.propose(vec![7; MAX_COMMAND_BYTES]).err());
    assert!(matches!(refused, Some(ProposeError::Busy)));
}

#[test]
fn a_snapshot_of_the_future_or_the_past() {
    let mut sole = sole_leader();
    let applied = sole.applied_index();
    assert!(matches!(sole.compact(applied + 1, vec![1]), Err(CompactError::Ahead { .. })));
    assert_eq!(sole.compact(applied, vec![1]), Ok(()));
    assert!(matches!(sole.compact(applied, vec![1]), Err(CompactError::Old { .. })));
}
