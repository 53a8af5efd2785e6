//! Writing and reading back, against the disk in memory as a second opinion.

use bellows_controller::storage::{DiskLog, StorageError};
use bellows_member::{
    Checkpoint, Config, Entry, HardState, LogStorage, Member, MemberId, MemoryLog, Persist, Recovered, Role, Snapshot,
};
use std::path::Path;

pub fn open(path: &Path) -> Result<DiskLog, StorageError> {
    DiskLog::open(path)
}

pub fn entry(index: u64, term: u64, text: &str) -> Entry {
    Entry { index, term, data: text.as_bytes().to_vec().into(), ..Entry::default() }
}

pub fn append(entries: &[Entry]) -> Persist {
    Persist { entries: entries.to_vec(), ..Persist::default() }
}

pub fn vote(term: u64, vote: u64) -> Persist {
    let hard_state = Some(HardState { term, vote, ..HardState::default() });
    Persist { hard_state, ..Persist::default() }
}

pub fn snapshot(index: u64, term: u64, model: &str) -> Snapshot {
    let mut snapshot = Snapshot { data: model.as_bytes().to_vec().into(), ..Snapshot::default() };
    snapshot.mut_metadata().index = index;
    snapshot.mut_metadata().term = term;
    snapshot.mut_metadata().mut_conf_state().voters = vec![1, 2, 3];
    snapshot
}

pub fn install(index: u64, term: u64) -> Persist {
    Persist { install: Some(snapshot(index, term, "installed")), ..Persist::default() }
}

pub fn checkpoint(index: u64, term: u64, keep_from_index: u64) -> Persist {
    let snapshot = snapshot(index, term, "own");
    Persist { checkpoint: Some(Checkpoint { snapshot, keep_from_index }), ..Persist::default() }
}

/// Writes the batches to a disk and to memory, and expects the same back, after each batch and a new start.
fn check(batches: &[Persist]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut memory = MemoryLog::new();
    for batch in batches {
        let mut disk = open(folder.path()).expect("a sound folder");
        disk.persist(batch).expect("room on the disk");
        drop(disk);
        memory.persist(batch).expect("memory does not fail");
        let found = open(folder.path()).and_then(|mut disk| disk.recover()).expect("a sound log");
        let wanted = memory.recover().expect("memory does not fail");
        assert_eq!(found, wanted, "after {batch:?}");
    }
}

#[test]
fn a_new_folder_is_empty() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let found = open(folder.path()).and_then(|mut disk| disk.recover()).expect("a new folder");
    assert_eq!(found, Recovered::default());
}

#[test]
fn entries_and_votes_come_back() {
    check(&[vote(1, 1), append(&[entry(1, 1, ""), entry(2, 1, "a")]), append(&[entry(3, 1, "b")]), vote(2, 3)]);
}

#[test]
fn a_conflicting_tail_is_replaced() {
    let first = append(&[entry(1, 1, "a"), entry(2, 1, "b"), entry(3, 1, "c")]);
    check(&[first, append(&[entry(2, 2, "other")]), append(&[entry(3, 2, "d"), entry(4, 2, "e")])]);
}

#[test]
fn a_received_snapshot_replaces_the_log() {
    let first = append(&[entry(1, 1, "a"), entry(2, 1, "b")]);
    check(&[first, install(10, 3), append(&[entry(11, 3, "c")]), install(20, 4), vote(9, 1)]);
    check(&[install(10, 3), append(&[entry(11, 3, "c")])]);
}

#[test]
fn an_own_snapshot_shortens_the_log() {
    let entries: Vec<_> = (1..=20).map(|index| entry(index, 1, "x")).collect();
    check(&[append(&entries), checkpoint(15, 1, 13), append(&[entry(21, 2, "y")]), checkpoint(21, 2, 21)]);
}

#[test]
fn long_logs_shed_their_old_files() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut disk = open(folder.path()).expect("a new folder");
    // Bytes that do not compress: 60 entries of 1 MiB = 60 MiB, against 8 MiB per file.
    let mut noise = 1u64;
    for index in 1..=60 {
        let bytes: Vec<u8> = (0..1 << 17)
            .flat_map(|_| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                noise.to_be_bytes()
            })
            .collect();
        let entry = Entry { index, term: 1, data: bytes.into(), ..Entry::default() };
        disk.persist(&append(&[entry])).expect("room on the disk");
        if index % 10 == 0 {
            disk.persist(&checkpoint(index, 1, index)).expect("room on the disk");
        }
    }
    let files = std::fs::read_dir(folder.path().join("log")).expect("the log's folder").count();
    assert!(files < 7, "{files} files are left of 8 that were written");
    drop(disk);
    let found = open(folder.path()).and_then(|mut disk| disk.recover()).expect("a sound log");
    assert_eq!(found.entries.iter().map(|entry| entry.index).collect::<Vec<_>>(), [60]);
}

#[test]
fn a_member_lives_on_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut declared: Vec<Vec<u8>> = Vec::new();
    for round in 0..5u8 {
        let mut disk = open(folder.path()).expect("a sound folder");
        let config = Config::new(MemberId(1), vec![MemberId(1)], 7);
        let mut member = Member::new(config, &mut disk).expect("a sound log");
        let mut model: Vec<Vec<u8>> = Vec::new();
        drive(&mut member, &mut disk, &mut model);
        assert!(matches!(member.role(), Role::Leader { .. }), "a lone member leads at once");
        assert_eq!(model, declared, "round {round}");
        for number in 0..20 {
            member.propose(vec![round, number, 1]).expect("a leader");
            drive(&mut member, &mut disk, &mut model);
        }
        if round % 2 == 1 {
            member.compact(member.applied_index(), model.concat()).expect("new entries");
            drive(&mut member, &mut disk, &mut model);
        }
        declared = model;
    }
    assert_eq!(declared.len(), 100);
}

/// Models here are commands of three bytes each, one after the other.
fn drive(member: &mut Member, disk: &mut DiskLog, model: &mut Vec<Vec<u8>>) {
    loop {
        let actions = member.ready();
        if actions.is_empty() {
            return;
        }
        if let Some(batch) = &actions.persist {
            disk.persist(batch).expect("room on the disk");
            member.persisted(batch.number);
        }
        if let Some(restore) = actions.restore {
            *model = restore.model.chunks(3).map(<[u8]>::to_vec).collect();
        }
        model.extend(actions.committed.into_iter().map(|entry| entry.command));
    }
}
